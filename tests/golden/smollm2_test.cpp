#include <algorithm>
#include <cmath>
#include <fstream>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/base/quant_types.h"
#include "tests/support/json_file.h"
#include "tests/support/model_fixture.h"
#include "tests/support/source_image.h"
#include "tests/support/test_env.h"
#include "tests/support/tokenizer_files.h"

/// Real weights: SmolLM2-135M-Instruct Q4_1 against `transformers` on the dequantised weights.
namespace infer::test {
namespace {

constexpr int kTop = 32;

struct PromptCase {
  std::vector<TokenId> ids, greedy;
  std::vector<int64_t> top_ids;   ///< [ids.size(), kTop]
  std::vector<float> top_logits;  ///< [ids.size(), kTop]
  std::vector<float> logsumexp;   ///< [ids.size()]
  std::vector<float> gap;         ///< [greedy.size()] best minus second logit
};

struct Agreement {
  double worst = 0.0;  ///< |d logprob| on the stored top tokens
  double sum = 0.0;
  int64_t n = 0;
  int64_t n_step = 0, n_step_equal = 0;  ///< greedy steps whose stored gap exceeds 0.05
  int64_t n_near_tie_equal = 0, n_near_tie = 0;
};

double log_sum_exp(std::span<const float> row) {
  const double top = *std::max_element(row.begin(), row.end());
  double sum = 0.0;
  for (const float v : row) sum += std::exp(static_cast<double>(v) - top);
  return top + std::log(sum);
}

class SmolLm2 : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto path = models_dir() / "smollm2-135m-instruct-q4_1.gguf";
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "no demo model (INFER_MODELS)";
    if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
    model_ = model_of(path);
    const auto folder = shared_dir() / "golden/smollm2";
    prompts_ = must(read_json(folder / "prompts.json"));
    const auto file =
        must(quantize::SafeTensors::open_file((folder / "expected.safetensors").string()));
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const auto ints = [&](const char* name) {
        return must(ints_of(file, fmt::format("{}.{}", i, name)));
      };
      const auto floats = [&](const char* name) {
        return must(floats_of(file, fmt::format("{}.{}", i, name)));
      };
      const auto ids = ints("ids");
      const auto greedy_ids = ints("greedy");
      cases_.push_back({{ids.begin(), ids.end()},
                        {greedy_ids.begin(), greedy_ids.end()},
                        ints("top_ids"),
                        floats("top_logits"),
                        floats("logsumexp"),
                        floats("greedy_gap")});
    }
    if (kSanitized) cases_.resize(2);
  }

  /// Prompt and stored continuation in one go: the logits of each stored step, whether or not a run
  /// went the same way, and past ends of text too.
  void measure(Engine& engine, const PromptCase& c, Agreement& sum) const {
    std::vector<TokenId> all = c.ids;
    all.insert(all.end(), c.greedy.begin(), c.greedy.end());
    const Evaluation got = evaluate(engine, all, 0);
    const auto n_vocab = static_cast<size_t>(model_->hparams().n_vocab);
    const auto row_at = [&](size_t pos) {
      return std::span(got.logits).subspan(pos * n_vocab, n_vocab);
    };
    for (size_t pos = 0; pos < c.ids.size(); ++pos) {
      const double lse = log_sum_exp(row_at(pos));
      for (size_t j = pos * kTop; j < (pos + 1) * kTop; ++j) {
        const double want = static_cast<double>(c.top_logits[j]) - c.logsumexp[pos];
        const double d = std::fabs(row_at(pos)[static_cast<size_t>(c.top_ids[j])] - lse - want);
        if (!(d <= sum.worst)) sum.worst = std::isnan(d) ? INFINITY : d;
        sum.sum += d;
        ++sum.n;
      }
    }
    for (size_t step = 0; step < c.greedy.size(); ++step) {
      const auto row = row_at(c.ids.size() - 1 + step);
      const bool equal = std::max_element(row.begin(), row.end()) - row.begin() == c.greedy[step];
      (c.gap[step] > 0.05f ? sum.n_step : sum.n_near_tie) += 1;
      (c.gap[step] > 0.05f ? sum.n_step_equal : sum.n_near_tie_equal) += equal;
    }
  }

  Agreement measure_all(const EngineOptions& options, const char* label) const {
    const EngineBox engine = must(EngineBox::create(model_, options, {.isa = "", .n_threads = 2}));
    Agreement sum;
    for (const PromptCase& c : cases_) measure(*engine, c, sum);
    fmt::print(
        "[ measured ] {}: max |d logprob| {:.3g}, mean {:.3g}; greedy {}/{} (near-ties {}/{})\n",
        label, sum.worst, sum.sum / static_cast<double>(sum.n), sum.n_step_equal, sum.n_step,
        sum.n_near_tie_equal, sum.n_near_tie);
    return sum;
  }

  std::string prompt_text(const std::string& id) const {
    std::ifstream lines(shared_dir() / "data/prompts/prompts.jsonl");
    std::string line;
    while (std::getline(lines, line) && line.find('"' + id + '"') == std::string::npos) {
    }
    const auto prompt = nlohmann::json::parse(line, nullptr, false);
    return prompt.at("prompt").get<std::string>();
  }
  std::vector<TokenId> beginning(const std::string& text, int64_t n_tok) const {
    std::vector<TokenId> ids = must(model_->tokenizer().encode(text));
    if (static_cast<int64_t>(ids.size()) < n_tok) throw std::runtime_error("the text is short");
    ids.resize(static_cast<size_t>(n_tok));
    return ids;
  }
  /// The beginning of a prompt of some pages.
  std::vector<TokenId> long_text() const {
    return beginning(prompt_text("long-continue-01"), scaled(384, 48));
  }

  std::vector<float> logits_of(const EngineOptions& options, std::span<const TokenId> ids) const {
    const EngineBox engine = must(EngineBox::create(model_, options, {.isa = "", .n_threads = 2}));
    return evaluate(*engine, ids, 0).logits;
  }

  struct Divergence {
    double kld = 0.0;       ///< mean over rows
    double same_top = 0.0;  ///< share of rows whose best token agrees
  };
  Divergence divergence(std::span<const float> want, std::span<const float> got) const {
    const auto n_vocab = static_cast<size_t>(model_->hparams().n_vocab);
    const size_t n_row = want.size() / n_vocab;
    Divergence sum;
    for (size_t pos = 0; pos < n_row; ++pos) {
      const auto p = want.subspan(pos * n_vocab, n_vocab);
      const auto q = got.subspan(pos * n_vocab, n_vocab);
      const double p_lse = log_sum_exp(p);
      const double q_lse = log_sum_exp(q);
      for (size_t j = 0; j < n_vocab; ++j)
        sum.kld += std::exp(p[j] - p_lse) * ((p[j] - p_lse) - (q[j] - q_lse));
      sum.same_top += std::max_element(p.begin(), p.end()) - p.begin() ==
                      std::max_element(q.begin(), q.end()) - q.begin();
    }
    return {sum.kld / static_cast<double>(n_row), sum.same_top / static_cast<double>(n_row)};
  }

  std::shared_ptr<const model::Model> model_;
  nlohmann::json prompts_;
  std::vector<PromptCase> cases_;
};

TEST_F(SmolLm2, PromptsGiveTheStoredIds) {
  for (size_t i = 0; i < cases_.size(); ++i) {
    EXPECT_EQ(must(model_->tokenizer().encode(prompts_[i].get<std::string>())), cases_[i].ids) << i;
  }
}

TEST_F(SmolLm2, PreciseAgreesWithTransformers) {
  const Agreement a = measure_all(precise_options(), "precise");
  EXPECT_TRUE(a.worst < 2e-2) << a.worst;
  EXPECT_EQ(a.n_step_equal, a.n_step);
  ASSERT_GT(a.n_step, scaled(200, 40));
}

TEST_F(SmolLm2, PreciseGreedyRunIsTheStoredOne) {
  const EngineBox engine =
      must(EngineBox::create(model_, precise_options(), {.isa = "", .n_threads = 2}));
  for (const PromptCase& c : cases_) {
    Request request = make_request(c.ids, static_cast<int64_t>(c.greedy.size()), greedy());
    const Completion got = run_request(*engine, std::move(request)).samples.at(0);
    // A run may leave the stored one at a near-tie; an end of text ends it (the stored run goes
    // on).
    for (size_t i = 0; i < c.greedy.size(); ++i) {
      if (model_->tokenizer().is_eog(c.greedy[i])) {
        EXPECT_EQ(got.ids.size(), i);
        EXPECT_EQ(got.stop_reason, StopReason::kEos);
        break;
      }
      ASSERT_LT(i, got.ids.size());
      if (got.ids[i] == c.greedy[i]) continue;
      EXPECT_LE(c.gap[i], 0.05f) << "step " << i;
      break;
    }
  }
}

/// The default mode rounds activations to 8 bits in blocks of 32 and K, V to f16. llama.cpp does
/// the former too, and its Q8_0 of this model, where weights are rounded besides, differs from F16
/// by a mean KL divergence of 0.0043 and has the same best token on 95 % of WikiText rows
/// (golden/README.md). Rounding activations alone must not cost more.
TEST_F(SmolLm2, DefaultModeIsCloseToPrecise) {
  const std::vector<TokenId> ids = long_text();
  EngineOptions options = precise_options();
  options.n_ctx = 512;
  const std::vector<float> want = logits_of(options, ids);
  options.precise = false;
  options.type_k = options.type_v = DType::kF16;
  const Divergence d = divergence(want, logits_of(options, ids));
  fmt::print("[ measured ] default against precise: mean KLD {:.5f}, same best token {:.2f} %\n",
             d.kld, 100.0 * d.same_top);
  EXPECT_TRUE(d.kld < 0.0043) << d.kld;
  EXPECT_TRUE(d.same_top > 0.95) << d.same_top;
}

/// A quantised cache against one of f16, with f32 activations: in the default mode any change of K
/// or V, however small, moves roundings of activations to 8 bits, and these alone make a divergence
/// of 0.003 to 0.0045 (f32 against f16, docs/benchmarks.md), more than q8_0 is allowed.
TEST_F(SmolLm2, QuantisedCacheIsCloseToF16) {
  if (kSanitized)
    GTEST_SKIP() << "some minutes under a sanitizer; the kernels have their own tests";
  const auto chat_of = [&](std::initializer_list<const char*> prompts) {
    std::string chat;
    for (const char* id : prompts)
      chat += "<|im_start|>user\n" + prompt_text(id) + "<|im_end|>\n<|im_start|>assistant\n";
    return chat;
  };
  const std::string chat = chat_of({"medium-code-review", "medium-math", "medium-chat"});
  const std::string sql = chat_of({"medium-sql-01", "medium-sql-02", "medium-sql-03",
                                   "medium-sql-04", "medium-json", "medium-fewshot"});
  const std::string korean =
      chat_of({"medium-summary-ko", "medium-chat-ko", "long-translate-ko-01"});
  const std::string wiki =
      must(read_text(shared_dir() / "data/wikitext-2/wiki.test.raw.gz")).substr(0, 8000);
  struct Text {
    const char* name;
    std::vector<TokenId> ids;
    /// q4_0 goes beyond its bound in a language that this model hardly knows; the value is printed.
    bool bounds_q4_0 = true;
  };
  struct Case {
    DType k, v;
    double bound;
  };
  for (const Text& text :
       {Text{"WikiText-2", beginning(wiki, 384)}, Text{"chat", beginning(chat, 384)},
        Text{"story", long_text()}, Text{"SQL, JSON, few-shot", beginning(sql, 512)},
        Text{"Korean", beginning(korean, 512), false}}) {
    EngineOptions options = precise_options();
    options.n_ctx = 640;
    options.type_k = options.type_v = DType::kF16;
    const std::vector<float> want = logits_of(options, text.ids);
    for (const Case& c :
         {Case{DType::kF32, DType::kF32, 1e-4}, Case{DType::kQ8_0, DType::kQ8_0, 0.002},
          Case{DType::kQ4_0, DType::kQ4_0, 0.03}}) {
      options.type_k = c.k;
      options.type_v = c.v;
      const Divergence d = divergence(want, logits_of(options, text.ids));
      fmt::print(
          "[ measured ] {}: K/V {}/{} against f16: mean KLD {:.5f}, same best token {:.2f} %\n",
          text.name, name_of(c.k), name_of(c.v), d.kld, 100.0 * d.same_top);
      EXPECT_TRUE(std::isfinite(d.kld)) << text.name;
      if (c.k == DType::kQ4_0 && !text.bounds_q4_0) continue;
      EXPECT_TRUE(d.kld <= c.bound) << text.name << ": " << d.kld;
    }
  }
}

/// The same numbers as for the precise mode, on five prompts; of bounds there is only what the
/// divergence above allows.
TEST_F(SmolLm2, DefaultModeNearTransformers) {
  EngineOptions options;
  options.n_ctx = 256;
  options.max_seqs = 1;
  options.manual = true;
  const Agreement a = measure_all(options, "default");
  EXPECT_TRUE(a.sum / static_cast<double>(a.n) < 0.2) << a.sum / static_cast<double>(a.n);
  EXPECT_GE(a.n_step_equal * 100, a.n_step * 95);
}

}  // namespace
}  // namespace infer::test
