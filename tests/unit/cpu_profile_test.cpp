#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "backends/cpu/profile.h"
#include "core/runtime/op_profile.h"
#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// What ops of a tiny model move and compute, against numbers worked out by hand.
namespace infer::test {
namespace {

using runtime::OpProfile;
using runtime::OpSums;

constexpr const char* kAttention = "attention f16 window 16";  // in all layers of the tiny models

/// An engine whose steps are recorded.
class Recorded {
 public:
  explicit Recorded(const std::string& arch, const TinyShape& shape = {}) {
    EngineOptions options;
    options.manual = true;
    options.prefix_cache = false;
    options.n_ctx = 64;
    options.profile = &profile_;
    // The scalar level keeps f32 weights as they lie in the file.
    box_.emplace(must(EngineBox::create(must(model_of(tiny_model(arch, shape), arch)), options,
                                        {.isa = "generic", .n_threads = 2})));
  }

  /// Steps of prompts, together in one step, and of what they generate.
  void run(const std::vector<int64_t>& prompts, int64_t n_gen) {
    std::vector<RequestId> ids;
    for (const int64_t n : prompts) {
      Request r = make_request(std::vector<TokenId>(static_cast<size_t>(n), 3), n_gen, greedy());
      r.ignore_eos = true;
      ids.push_back(must((*box_)->submit(std::move(r))));
    }
    for (const RequestId id : ids) must((*box_)->wait(id));
  }
  OpProfile& profile() { return profile_; }

  void expect(const std::string& name, int64_t n_call, double bytes, double f32_ops,
              double int8_ops = 0.0) const {
    const auto it = profile_.ops().find(name);
    ASSERT_NE(it, profile_.ops().end()) << name;
    const OpSums& sums = it->second;
    EXPECT_EQ(sums.n_call, n_call) << name;
    EXPECT_EQ(sums.bytes, bytes) << name;
    EXPECT_EQ(sums.f32_ops, f32_ops) << name;
    EXPECT_EQ(sums.int8_ops, int8_ops) << name;
    if (n_call > 0) {
      EXPECT_GT(sums.seconds, 0.0) << name;
    }
  }

 private:
  OpProfile profile_;
  std::optional<EngineBox> box_;
};

// Two layers; n_embd 32, 4 heads and 2 K/V heads of 8, n_ff 48.
TEST(CpuProfile, CountsWhatAPromptOfFiveMovesAndComputes) {
  Recorded llama("llama");
  llama.profile().record(true);
  llama.run({5}, 1);
  constexpr double kNorms = 5 * 4 * 32;  // of the rows, done by the op that reads them
  // A layer: the weights once, then 5 rows of inputs and outputs in f32.
  llama.expect("linear attn_q/k/v f32", 2, 2 * (64 * 32 * 4 + 5 * 4 * (32 + 64)),
               2 * (2.0 * 5 * 64 * 32 + kNorms));
  llama.expect("linear attn_output f32", 2, 2 * (32 * 32 * 4 + 5 * 4 * (32 + 32 + 32)),
               2 * (2.0 * 5 * 32 * 32));
  llama.expect("linear ffn_gate/up f32", 2, 2 * (96 * 32 * 4 + 5 * 4 * (32 + 48)),
               2 * (2.0 * 5 * 96 * 32 + kNorms));
  llama.expect("linear ffn_down f32", 2, 2 * (32 * 48 * 4 + 5 * 4 * (48 + 32 + 32)),
               2 * (2.0 * 5 * 32 * 48));
  // Rows see 1, 2, .. 5 slots; a slot is a row of K and of V in f16.
  llama.expect(kAttention, 2, 2 * (5 * (2 * 2 * 8 * 2) + 5 * 4 * (32 + 32)),
               2 * (15 * 2.0 * 4 * (8 + 8)));
  llama.expect("rope, store K and V", 2, 2 * 5 * (4 * (32 + 16 + 16 + 32) + 2 * 2 * 8 * 2),
               2 * 5 * 3.0 * 8 * (4 + 2));
  llama.expect("embed", 1, 5 * (32 * 4 + 32 * 4), 0);
  llama.expect("gather_rows", 1, 8 * 32, 0);
  EXPECT_FALSE(llama.profile().ops().contains("norm"));
  EXPECT_EQ(llama.profile().n_step(), 1);
  double ops_s = 0.0;
  for (const auto& [name, sums] : llama.profile().ops()) ops_s += sums.seconds;
  EXPECT_LE(ops_s, llama.profile().step_s());
}

TEST(CpuProfile, RecordsOnlyWhenAskedAndForgets) {
  Recorded llama("llama");
  llama.run({5}, 1);
  EXPECT_EQ(llama.profile().n_step(), 0);
  llama.expect(kAttention, 0, 0, 0);
  llama.profile().record(true);
  llama.run({4}, 3);  // 4 slots, then 5 and 6: one step of four rows, two of one
  EXPECT_EQ(llama.profile().n_step(), 3);
  llama.expect(kAttention, 6, 2 * (15 * 64 + 6 * 4 * 64), 2 * (10 + 5 + 6) * 128);
  llama.profile().clear();
  llama.expect(kAttention, 0, 0, 0);
  llama.profile().record(false);
  llama.run({4}, 1);
  EXPECT_EQ(llama.profile().n_step(), 0);
}

TEST(CpuProfile, SequencesDoNotSeeEachOther) {
  Recorded llama("llama");
  llama.profile().record(true);
  llama.run({3, 4}, 1);
  ASSERT_EQ(llama.profile().n_step(), 1);
  llama.expect(kAttention, 2, 2 * (7 * 64 + 7 * 4 * 64), 2 * (6 + 10) * 128);
  llama.expect("linear ffn_down f32", 2, 2 * (32 * 48 * 4 + 7 * 4 * (48 + 32 + 32)),
               2 * (2.0 * 7 * 32 * 48));
}

TEST(CpuProfile, WindowsLimitWhatIsSeen) {
  Recorded gemma("gemma3");
  gemma.profile().record(true);
  gemma.run({20}, 2);
  // Rows 0 to 19 see 1 .. 16, 16, 16, 16, 16 slots of 20; the next one sees 16 of 21.
  gemma.expect(kAttention, 4, 2 * (20 * 64 + 16 * 64 + 21 * 4 * 64),
               2 * (136 + 4 * 16 + 16) * 128.0);
}

TEST(CpuProfile, KnowsWhichProductsAreOf8Bits) {
  Recorded q8("llama", {.n_ff = 64, .type = DType::kQ8_0});
  q8.profile().record(true);
  q8.run({2}, 1);
  const auto& ops = q8.profile().ops();
  EXPECT_EQ(ops.at("linear ffn_down q8_0").int8_ops, 2 * (2.0 * 2 * 32 * 64));
  EXPECT_EQ(ops.at("linear ffn_down q8_0").f32_ops, 0.0);
  Recorded q4("llama", {.n_ff = 64, .type = DType::kQ4_1});
  q4.profile().record(true);
  q4.run({2}, 1);
  EXPECT_EQ(q4.profile().ops().at("linear ffn_down q4_1").int4_ops, 2 * (2.0 * 2 * 32 * 64));
  Recorded q5("llama", {.n_ff = 64, .type = DType::kQ5_0});
  q5.profile().record(true);
  q5.run({2}, 1);
  EXPECT_EQ(q5.profile().ops().at("linear ffn_down q5_0").int8_ops, 2 * (2.0 * 2 * 32 * 64));
}

TEST(CpuProfile, ExpertsCostWhatIsInUse) {
  cpu::CostModel model;
  model.call.bytes = 1000;
  model.row = {.bytes = 10, .f32_ops = 3, .int8_ops = 5};
  model.expert.bytes = 100;
  model.pair.f32_ops = 7;
  model.seen = 1;
  cpu::StepShape step;
  step.n_tok = 2;
  step.n_logit = 9;
  step.n_expert_in_use = 4;
  step.seen = {{0, 1, 1}, {16, 5, 6}};
  const cpu::OpCost cost = model.of(step);
  EXPECT_EQ(cost.bytes, 1000 + 2 * 10 + 4 * 100);
  EXPECT_EQ(cost.f32_ops, 2 * 3 + 6 * 7);
  EXPECT_EQ(cost.int8_ops, 2 * 5);
  model.rows = graph::Rows::kLogit;
  EXPECT_EQ(model.of(step).int8_ops, 9 * 5);
}

}  // namespace
}  // namespace infer::test
