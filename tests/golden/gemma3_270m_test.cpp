#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/model_fixture.h"
#include "tests/support/test_env.h"

/// Gemma-3-270M Q4_K_M (Q5_0, Q8_0, Q4_K, Q6_K tensors; windows of 512 on five layers of six) writes sense in English.
namespace infer::test {
namespace {

class Gemma3 : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto path = models_dir() / "gemma-3-270m-q4_k_m.gguf";
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "no model gemma-3-270m-q4_k_m.gguf (INFER_MODELS)";
    model_ = model_of(path);
    EngineOptions options;
    options.n_ctx = 1024;
    options.max_seqs = 1;
    options.manual = true;
    engine_.emplace(must(EngineBox::create(model_, options, {.isa = "", .n_threads = 2})));
  }
  std::vector<TokenId> encode(const std::string& text) const { return must(model_->tokenizer().encode(text)); }

  std::shared_ptr<const model::Model> model_;
  std::optional<EngineBox> engine_;
};

TEST_F(Gemma3, KnowsTheCapitalOfFrance) {
  Request request{.prompt = encode("The capital of France is"), .max_tokens = 24, .sampling = greedy()};
  const Completion got = run_request(**engine_, std::move(request)).samples.at(0);
  fmt::print("[ measured ] The capital of France is{}\n", got.text);
  EXPECT_NE(got.text.find("Paris"), std::string::npos) << got.text;
}

/// Plain prose with common words. The published 270M base model has a perplexity of some 15 to 25 on such text; a wrong
/// norm, rope base, window or scale sends it into the hundreds or thousands, so 40 tells them apart.
TEST_F(Gemma3, PerplexityOfProse) {
  const std::string text =
      "The lighthouse stood at the end of a long stone pier, and for more than a hundred years its lamp had guided fishing "
      "boats home through fog and storm. When the railway came to the town in 1889, the harbour grew quickly: new warehouses "
      "were built along the water, and ships from Norway and the Baltic brought timber, iron and grain. After the war most of "
      "the trade moved to larger ports further south, and many families left to look for work in the cities. Today the old "
      "warehouses are museums and restaurants, and visitors climb the narrow stairs of the lighthouse to see the islands, the "
      "river and the green hills behind the town.";
  const std::vector<TokenId> ids = encode(text);
  ASSERT_GT(ids.size(), 100u);
  const Evaluation got = evaluate(**engine_, ids, 0);
  const auto n_vocab = static_cast<size_t>(model_->hparams().n_vocab);
  double nll = 0.0;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const float* row = got.logits.data() + i * n_vocab;
    double top = row[0];
    for (size_t j = 1; j < n_vocab; ++j) top = std::max(top, static_cast<double>(row[j]));
    double sum = 0.0;
    for (size_t j = 0; j < n_vocab; ++j) sum += std::exp(row[j] - top);
    nll += top + std::log(sum) - row[ids[i + 1]];
  }
  const double ppl = std::exp(nll / static_cast<double>(ids.size() - 1));
  fmt::print("[ measured ] perplexity {:.2f} over {} tokens\n", ppl, ids.size() - 1);
  EXPECT_TRUE(ppl < 40.0) << ppl;
  EXPECT_TRUE(ppl > 2.0) << ppl;
}

}  // namespace
}  // namespace infer::test
