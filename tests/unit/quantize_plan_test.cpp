#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gguf/header_builder.h"
#include "gguf/reader.h"
#include "quantize/panels.h"
#include "quantize/plan.h"

namespace infer::quantize {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Tensor {
  std::string name;
  DType type;
  std::vector<int64_t> shape;
};

class QuantizePlan : public testing::Test {
 protected:
  Plan plan(const std::vector<Tensor>& tensors, std::string_view target) {
    gguf::HeaderBuilder out("m.gguf");
    for (const Tensor& t : tensors) EXPECT_TRUE(out.add_tensor(t.name, t.type, t.shape).ok());
    bytes_ = *out.encode();
    reader_ = *gguf::Reader::parse(bytes_, "m.gguf", {.header_only = true});
    options_.target = find_target(target);
    return *make_plan(*reader_, options_);
  }

  RecipeOptions options_;
  std::vector<std::byte> bytes_;
  std::shared_ptr<const gguf::Reader> reader_;
};

TEST_F(QuantizePlan, BytesAndTotals) {
  const Plan p = plan({{"blk.0.attn_q.weight", DType::kF16, {512, 3}},
                       {"blk.0.attn_k.weight", DType::kF16, {96, 2, 5}},
                       {"blk.0.attn_norm.weight", DType::kF32, {512}}},
                      "Q4_K_S");
  ASSERT_EQ(p.entries.size(), 3u);
  EXPECT_EQ(p.entries[0].to_bytes, 3 * 2 * 144);
  EXPECT_EQ(p.entries[1].to_bytes, 10 * 3 * 22);  // Q5_0
  EXPECT_EQ(p.entries[1].n_row(), 10);
  EXPECT_EQ(p.entries[2].to_bytes, 2048);
  EXPECT_FALSE(p.entries[2].converts());
  EXPECT_EQ(p.n_elem, 1536 + 960 + 512);
  EXPECT_EQ(p.to_bytes, 864 + 660 + 2048);
  EXPECT_EQ(p.n_fallback, 1);
  EXPECT_NEAR(p.bits_per_weight(), 8.0 * 3572 / 3008, 1e-12);
}

TEST_F(QuantizePlan, TableSaysWhatAndWhy) {
  const Plan p = plan({{"output.weight", DType::kF16, {512, 4}},
                       {"blk.0.attn_k.weight", DType::kF16, {576, 2}},
                       {"blk.0.attn_norm.weight", DType::kF32, {512}}},
                      "Q4_K_M");
  const std::string text = plan_text(p);
  EXPECT_THAT(text,
              HasSubstr("output.weight           [512, 4]  f16     q6_k            1680  6.562"
                        "  the output matrix\n"));
  EXPECT_THAT(text, HasSubstr("q5_0"));
  EXPECT_THAT(text, HasSubstr("row of 576 is no multiple of 256"));
  EXPECT_THAT(text, HasSubstr("a vector\n"));
  EXPECT_THAT(text, HasSubstr("1 of 3 tensors cannot have their type; the first, "
                              "'blk.0.attn_k.weight': row of 576 is no multiple of 256, q5_0 "
                              "instead of q4_k\n"));
  EXPECT_THAT(text, Not(HasSubstr(" \n")));
}

TEST_F(QuantizePlan, ChecksNameFileAndTensor) {
  const Plan again = plan({{"blk.0.attn_q.weight", DType::kQ8_0, {512, 3}}}, "Q4_0");
  const Target& q4 = *find_target("Q4_0");
  Result<void> r = check_plan(again, q4, {});
  ASSERT_FALSE(r.ok());
  EXPECT_THAT(r.error().message, HasSubstr("m.gguf: tensor 'blk.0.attn_q.weight' is q8_0 already"));
  EXPECT_TRUE(check_plan(again, q4, {.allow_requantize = true}).ok());
  const Plan same = plan({{"blk.0.attn_q.weight", DType::kQ8_0, {512, 3}}}, "Q8_0");
  EXPECT_TRUE(check_plan(same, *find_target("Q8_0"), {}).ok());

  const Plan odd = plan({{"blk.0.attn_q.weight", DType::kF16, {576, 3}}}, "Q4_K_M");
  EXPECT_TRUE(check_plan(odd, *find_target("Q4_K_M"), {}).ok());
  r = check_plan(odd, *find_target("Q4_K_M"), {.strict = true});
  ASSERT_FALSE(r.ok());
  EXPECT_THAT(r.error().message, HasSubstr("--strict: 1 of 1 tensors"));

  const Plan low = plan({{"blk.0.attn_q.weight", DType::kF16, {512, 3}}}, "Q2_K_S");
  r = check_plan(low, *find_target("Q2_K_S"), {});
  ASSERT_FALSE(r.ok());
  EXPECT_THAT(r.error().message, HasSubstr("needs an importance matrix (--imatrix)"));
  EXPECT_TRUE(check_plan(low, *find_target("Q2_K_S"), {.has_imatrix = true}).ok());
}

TEST_F(QuantizePlan, PanelsCoverEveryRowOnceAndNoTwoMatrices) {
  const Plan p = plan({{"a.weight", DType::kF16, {64, 7, 3}},
                       {"b.weight", DType::kF32, {512}},
                       {"c.weight", DType::kF16, {4096, 2, 1, 2}},
                       {"d.weight", DType::kF16, {64, 100}}},
                      "Q8_0");
  for (const int64_t bytes : {1, 128, 300, 1000, 1 << 20}) {
    const Panels panels(p, bytes);
    std::vector<int64_t> next(p.entries.size());
    for (int64_t i = 0; i < panels.count(); ++i) {
      const Panel panel = panels.at(i);
      const PlanEntry& e = p.entries[panel.entry];
      const int64_t rows_a_mat = e.shape.size() < 2 ? 1 : e.shape[1];
      ASSERT_EQ(panel.row, next[panel.entry]);
      ASSERT_GT(panel.n_row, 0);
      ASSERT_EQ(panel.row / rows_a_mat, panel.mat);
      ASSERT_EQ((panel.row + panel.n_row - 1) / rows_a_mat, panel.mat);
      ASSERT_GE(i, panels.first(panel.entry));
      ASSERT_LT(i, panels.first(panel.entry + 1));
      ASSERT_TRUE(panel.n_row == 1 || panel.n_row * e.from_bytes / e.n_row() <= bytes);
      next[panel.entry] += panel.n_row;
    }
    for (size_t e = 0; e < next.size(); ++e) EXPECT_EQ(next[e], p.entries[e].n_row());
  }
}

}  // namespace
}  // namespace infer::quantize
