#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/model/adapter.h"
#include "tests/support/lora.h"
#include "tests/support/model_fixture.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_model.h"

/// Sessions through the engine: with K and V from a file everything is the same bits as without.
namespace infer::test {
namespace {

std::vector<TokenId> prompt_of(int n_tok, int seed) {
  std::vector<TokenId> ids;
  for (int i = 0; i < n_tok; ++i) ids.push_back(3 + (i * 37 + seed * 101 + i * i * 11) % 250);
  return ids;
}

struct Outcome {
  std::vector<float> last;  ///< logits of the prompt's last row
  std::vector<TokenId> ids;
  std::vector<TopLogprobs> logprobs;
  int64_t cached = 0;
  std::shared_ptr<const Session> session;
};

bool same_bits(const Outcome& a, const Outcome& b) {
  if (a.ids != b.ids || a.last != b.last || a.logprobs.size() != b.logprobs.size()) return false;
  for (size_t i = 0; i < a.logprobs.size(); ++i) {
    const bool same = std::ranges::equal(
        a.logprobs[i], b.logprobs[i],
        [](const auto& x, const auto& y) { return x.id == y.id && x.logprob == y.logprob; });
    if (!same) return false;
  }
  return true;
}

Outcome run(Engine& engine, std::vector<TokenId> prompt, std::shared_ptr<const Session> session,
            KeepSession keep = KeepSession::kNone, int64_t max_tokens = 12) {
  Outcome out;
  Request request = make_request(std::move(prompt), max_tokens, greedy());
  request.ignore_eos = true;
  request.n_logprobs = 8;
  request.session = std::move(session);
  request.keep = keep;
  request.logits_from = static_cast<int32_t>(request.prompt.size()) - 1;
  request.on_logits = [&out](const LogitsRow& row) {
    out.last.assign(row.logits.begin(), row.logits.end());
  };
  Response r = run_request(engine, std::move(request));
  out.ids = r.samples.at(0).ids;
  out.logprobs = r.samples.at(0).logprobs;
  out.cached = r.timings.cached_tok;
  out.session = r.session;
  return out;
}

struct Case {
  const char* checkpoint;  ///< of golden/hf, or "tiny" (gemma3 with windows of 16)
  bool precise = false;
  DType type_k = DType::kF16, type_v = DType::kF16;
};

class Sessions : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case& c = GetParam();
    tiny_ = std::string(c.checkpoint) == "tiny";
    if (!tiny_ && !has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
    model_ = tiny_ ? must(model_of(tiny_model("gemma3"), "tiny")) : hf_model(c.checkpoint);
    options_ = precise_options();
    options_.n_ctx = tiny_ ? 128 : 256;
    options_.precise = c.precise;
    options_.type_k = c.type_k;
    options_.type_v = c.type_v;
  }
  EngineBox engine(int n_threads = 1) const {
    return must(EngineBox::create(model_, options_, {.isa = "", .n_threads = n_threads}));
  }
  static std::string path() {
    return (std::filesystem::temp_directory_path() /
            fmt::format("infer-session-test-{}", static_cast<int>(::getpid())))
        .string();
  }
  bool tiny_ = false;
  std::shared_ptr<const model::Model> model_;
  EngineOptions options_;
};

TEST_P(Sessions, SameBitsAfterAFile) {
  for (const int n_prompt : {5, 32, 33, 90}) {
    SCOPED_TRACE(n_prompt);
    const std::vector<TokenId> prompt = prompt_of(n_prompt, 1);
    const EngineBox first = engine();
    const Outcome whole = run(*first, prompt, nullptr, KeepSession::kAll);
    ASSERT_NE(whole.session, nullptr);
    // All tokens whose K and V were computed: the last drawn one was not.
    EXPECT_EQ(whole.session->tokens.size(), prompt.size() + whole.ids.size() - 1);
    must(first->write_session(path(), *whole.session));

    std::vector<TokenId> more = whole.session->tokens;
    for (const TokenId id : prompt_of(9, 2)) more.push_back(id);
    const Outcome want = run(*engine(), more, nullptr);
    for (const bool prefix_cache : {false, true}) {
      options_.prefix_cache = prefix_cache;
      const EngineBox second = engine(3);
      const auto session = must(second->read_session(path()));
      const Outcome got = run(*second, more, session);
      EXPECT_TRUE(same_bits(got, want));
      EXPECT_EQ(got.cached, static_cast<int64_t>(session->tokens.size()));
      // Once more: from the prefix cache or from the session again.
      EXPECT_TRUE(same_bits(run(*second, more, session), want));
      // The very tokens of the session: the last one is computed for its logits.
      const Outcome again = run(*engine(), session->tokens, session);
      EXPECT_EQ(again.cached, static_cast<int64_t>(session->tokens.size()) - 1);
      EXPECT_TRUE(same_bits(again, run(*engine(), session->tokens, nullptr)));
    }
    options_.prefix_cache = false;
    std::filesystem::remove(path());
  }
}

TEST_P(Sessions, KeptAtThePromptAndUsedInPart) {
  const std::vector<TokenId> prompt = prompt_of(80, 1);
  const Outcome kept = run(*engine(), prompt, nullptr, KeepSession::kPrompt);
  ASSERT_NE(kept.session, nullptr);
  EXPECT_EQ(kept.session->tokens, prompt);
  // Another end, at and around block borders; nothing in common at all.
  for (const int n_same : {0, 1, 31, 32, 50, 64, 79}) {
    SCOPED_TRACE(n_same);
    std::vector<TokenId> other(prompt.begin(), prompt.begin() + n_same);
    for (const TokenId id : prompt_of(20, 7)) other.push_back(id);
    if (n_same > 0)
      other[static_cast<size_t>(n_same)] = prompt[static_cast<size_t>(n_same)] == 5 ? 6 : 5;
    const Outcome want = run(*engine(), other, nullptr);
    EXPECT_TRUE(same_bits(run(*engine(), other, kept.session), want));
  }
}

/// Several requests with one session in one engine of little memory, so that some are preempted.
TEST_P(Sessions, SharedAndPreempted) {
  const std::vector<TokenId> prompt = prompt_of(60, 1);
  const Outcome kept = run(*engine(), prompt, nullptr, KeepSession::kPrompt, 1);
  std::vector<std::vector<TokenId>> prompts;
  std::vector<Outcome> want;
  for (int i = 0; i < 4; ++i) {
    prompts.push_back(prompt);
    for (const TokenId id : prompt_of(3 + i * 5, i)) prompts.back().push_back(id);
    want.push_back(run(*engine(), prompts.back(), nullptr, KeepSession::kNone, 30));
  }
  options_.max_seqs = 3;
  options_.n_batch = 16;
  options_.prefix_cache = true;
  options_.kv_mem_bytes = least_kv_mem(model_, options_);
  const EngineBox small = engine(2);
  std::vector<RequestId> ids;
  for (const auto& p : prompts) {
    Request request = make_request(p, 30, greedy());
    request.ignore_eos = true;
    request.session = kept.session;
    ids.push_back(must(small->submit(std::move(request))));
  }
  run_to_end(*small);
  for (size_t i = 0; i < ids.size(); ++i)
    EXPECT_EQ(must(small->wait(ids[i])).samples.at(0).ids, want[i].ids) << i;
}

INSTANTIATE_TEST_SUITE_P(Models, Sessions,
                         ::testing::Values(Case{"tiny", true, DType::kF32, DType::kF32},
                                           Case{"tiny"},
                                           Case{"tiny", false, DType::kF32, DType::kF16},
                                           Case{"llama"}, Case{"mistral-swa"},
                                           Case{"gemma3", true, DType::kF32, DType::kF32},
                                           Case{"gemma2"}, Case{"qwen2-moe"},
                                           Case{"qwen3", false, DType::kQ8_0, DType::kQ4_0},
                                           Case{"mistral-swa", false, DType::kQ4_0, DType::kQ8_0}),
                         [](const auto& p) {
                           std::string label = fmt::format(
                               "{}_{}_{}{}", p.param.checkpoint, static_cast<int>(p.param.type_k),
                               static_cast<int>(p.param.type_v), p.param.precise ? "_precise" : "");
                           std::replace(label.begin(), label.end(), '-', '_');
                           return label;
                         });

TEST(SessionEngine, StagesGiveTheSame) {
  const auto model = must(model_of(tiny_model("gemma3"), "tiny"));
  EngineOptions options = precise_options();
  options.n_ctx = 128;
  const std::vector<TokenId> prompt = prompt_of(70, 1);
  const Outcome want =
      run(*must(EngineBox::create(model, options)), prompt, nullptr, KeepSession::kAll);
  const auto n_half = static_cast<int>(must(model->build_graph({})).halves.size());
  options.stages = {{.backend = 0, .half_end = 2}, {.backend = 0, .half_end = n_half}};
  const EngineBox staged = must(EngineBox::create(model, options));
  const Outcome got = run(*staged, prompt, want.session, KeepSession::kAll);
  EXPECT_TRUE(same_bits(got, want));
  EXPECT_EQ(got.session->tokens, want.session->tokens);
  for (size_t i = 0; i < want.session->layers.size(); ++i) {
    EXPECT_EQ(got.session->layers[i].k, want.session->layers[i].k);
    EXPECT_EQ(got.session->layers[i].v, want.session->layers[i].v);
  }
}

TEST(SessionEngine, BoundToModelAndAdapters) {
  const GgufImage image = tiny_model("llama");
  const auto model = must(model_of(image, "tiny"));
  EngineOptions options = precise_options();
  options.n_ctx = 128;
  const std::string path = (std::filesystem::temp_directory_path() /
                            fmt::format("infer-session-bound-{}", static_cast<int>(::getpid())))
                               .string();
  const EngineBox engine = must(EngineBox::create(model, options));
  const Outcome kept = run(*engine, prompt_of(40, 1), nullptr, KeepSession::kPrompt);
  must(engine->write_session(path, *kept.session));
  EXPECT_TRUE(engine->read_session(path).ok());

  // One number of one tensor, one key.
  GgufImage other = image;
  std::vector<std::byte>& bytes = other.find_tensor("blk.1.ffn_down.weight")->bytes;
  bytes[bytes.size() - 2] ^= std::byte{1};
  GgufImage renamed = image;
  renamed.set("llama.rope.freq_base", 20000.0f);
  for (const GgufImage& changed : {other, renamed}) {
    const EngineBox e = must(EngineBox::create(must(model_of(changed, "tiny")), options));
    const auto result = e->read_session(path);
    ASSERT_FALSE(result.ok());
    EXPECT_NE(result.error().message.find("another model"), std::string::npos);
  }

  const std::vector<std::byte> adapter = make_lora(image, {}).serialize();
  options.adapters = {must(model::Adapter::load(must(gguf::Reader::parse(adapter, "a"))))};
  const EngineBox adapted = must(EngineBox::create(model, options));
  const auto session = must(adapted->read_session(path));
  Request request = make_request(prompt_of(40, 1), 1, greedy());
  request.session = session;
  request.adapters = std::vector<AdapterUse>{{0, 1.0f}};
  EXPECT_FALSE(adapted->submit(request).ok());
  request.adapters = std::vector<AdapterUse>{};
  EXPECT_TRUE(adapted->submit(std::move(request)).ok());
  std::filesystem::remove(path);

  Session strange = *session;
  strange.layers[1].v.pop_back();
  Request bad = make_request(prompt_of(40, 1), 1, greedy());
  bad.session = std::make_shared<const Session>(std::move(strange));
  EXPECT_FALSE(adapted->submit(std::move(bad)).ok());
}

}  // namespace
}  // namespace infer::test
