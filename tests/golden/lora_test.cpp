#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/model/adapter.h"
#include "tests/support/lora.h"
#include "tests/support/model_fixture.h"
#include "tests/support/source_image.h"
#include "tests/support/test_env.h"

/// Adapters at run time against the same adapters merged into the weights, and next to each other.
namespace infer::test {
namespace {

using AdapterPtr = std::shared_ptr<const model::Adapter>;

/// Keeps the bytes for as long as the adapter.
AdapterPtr adapter_of(const GgufImage& image, const std::string& name) {
  struct Held {
    std::vector<std::byte> bytes;
    AdapterPtr adapter;
  };
  auto held = std::make_shared<Held>();
  held->bytes = image.serialize();
  held->adapter = must(model::Adapter::load(must(gguf::Reader::parse(held->bytes, name))));
  return {held, held->adapter.get()};
}

GgufImage image_of(const std::string& checkpoint, DType type) {
  return must(convert_hf(shared_dir() / "golden/hf" / checkpoint, type));
}

std::vector<TokenId> prompt_of(int n_tok, int seed) {
  std::vector<TokenId> ids;
  for (int i = 0; i < n_tok; ++i) ids.push_back(3 + (i * 37 + seed * 101 + i * i * 11) % 480);
  return ids;
}

struct Probe {
  std::vector<float> logits;
  std::vector<TokenId> ids;
  bool operator==(const Probe& o) const {
    return ids == o.ids && logits.size() == o.logits.size() &&
           std::equal(logits.begin(), logits.end(), o.logits.begin());
  }
};

struct Job {
  std::vector<TokenId> prompt;
  std::vector<AdapterUse> adapters;
  int64_t max_tokens = 12;
};

/// All jobs submitted together; the logits of all prompt rows.
std::vector<Probe> run_jobs(Engine& engine, const std::vector<Job>& jobs) {
  std::vector<Probe> out(jobs.size());
  std::vector<RequestId> ids;
  for (size_t i = 0; i < jobs.size(); ++i) {
    Request request = make_request(jobs[i].prompt, jobs[i].max_tokens, greedy());
    request.adapters = jobs[i].adapters;
    request.on_logits = [&out, i](const LogitsRow& row) {
      out[i].logits.insert(out[i].logits.end(), row.logits.begin(), row.logits.end());
    };
    ids.push_back(must(engine.submit(std::move(request))));
  }
  run_to_end(engine);
  for (size_t i = 0; i < jobs.size(); ++i) out[i].ids = must(engine.wait(ids[i])).samples.at(0).ids;
  return out;
}

double std_of(const std::vector<float>& x) {
  double sum = 0.0;
  double squares = 0.0;
  for (const float v : x) sum += v, squares += static_cast<double>(v) * v;
  const auto n = static_cast<double>(x.size());
  return std::sqrt(squares / n - sum / n * (sum / n));
}

double max_diff(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(static_cast<double>(a[i]) - b[i]);
    if (!(d <= worst)) worst = std::isnan(d) ? INFINITY : d;
  }
  return worst;
}

/// Rounding of f32 alone: each linear layer rounds its output by about sqrt(k) units, a merged
/// weight by one more. The residual stream adds the errors of all layers up; 8 leaves room for
/// norms and activations, which stretch an error by a small factor each. In standard deviations of
/// the logits.
double tolerance(const GgufImage& image) {
  double sum = 0.0;
  for (const GgufTensor& t : image.tensors) {
    if (t.shape.size() > 1) sum += std::sqrt(static_cast<double>(t.shape[0])) + 1.0;
  }
  return 8.0 * std::ldexp(1.0, -24) * sum;
}

struct Case {
  const char* checkpoint;
  DType base = DType::kF32;
  DType type = DType::kF32;  ///< of A and B
};

// Separate and fused q, k, v; fused gate | up; biases; post norms and soft caps; learned positions;
// parallel blocks; a tied output matrix; a router and a shared expert; quantised weights.
constexpr Case kCases[] = {{"llama"},
                           {"llama", DType::kF32, DType::kF16},
                           {"llama-tied-bpe"},
                           {"phi3"},
                           {"gemma2"},
                           {"gpt2"},
                           {"gpt-neox"},
                           {"bloom-alibi"},
                           {"qwen2-moe"},
                           {"llama", DType::kQ8_0},
                           {"phi3", DType::kQ8_0}};

class Lora : public ::testing::TestWithParam<std::tuple<Case, std::string>> {};

TEST_P(Lora, EqualsTheMergedModel) {
  if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  const auto& [c, isa] = GetParam();
  const GgufImage base = image_of(c.checkpoint, c.base);
  const GgufImage first = make_lora(base, {.rank = 4, .type = c.type, .seed = 1});
  const GgufImage second = make_lora(base, {.rank = 9, .alpha = 3.0f, .type = c.type, .seed = 2});
  const Job job{prompt_of(40, 1), {}};
  const std::string label = fmt::format("{}-{}", c.checkpoint, static_cast<int>(c.base));

  EngineOptions options = precise_options();
  const CpuSpec cpu{.isa = isa, .n_threads = 2};
  const auto run_merged = [&](const GgufImage& image) {
    return run_jobs(*must(EngineBox::create(must(model_of(image, label)), options, cpu)), {job})[0];
  };
  const Probe plain = run_merged(base);
  const Probe want_one = run_merged(merged(base, first, 1.0f));
  const Probe want_both = run_merged(merged(merged(base, first, 0.5f), second, -2.0f));

  options.adapters = {adapter_of(first, "first"), adapter_of(second, "second")};
  for (const bool unfused : {false, true}) {
    options.unfused = unfused;
    const EngineBox engine = must(EngineBox::create(must(model_of(base, label)), options, cpu));
    Job one = job;
    one.adapters = {{0, 1.0f}};
    Job both = job;
    both.adapters = {{1, -2.0f}, {0, 0.5f}};
    const Probe got_one = run_jobs(*engine, {one})[0];
    const Probe got_both = run_jobs(*engine, {both})[0];
    const double tol = tolerance(base);
    const double diff_one = max_diff(got_one.logits, want_one.logits) / std_of(want_one.logits);
    const double diff_both = max_diff(got_both.logits, want_both.logits) / std_of(want_both.logits);
    const double effect = max_diff(got_one.logits, plain.logits) / std_of(plain.logits);
    fmt::print("[ measured ] {} {}{}: {:.3g} and {:.3g} std, tolerance {:.3g}, effect {:.3g}\n",
               label, isa, unfused ? " unfused" : "", diff_one, diff_both, tol, effect);
    EXPECT_TRUE(diff_one <= tol) << diff_one;
    EXPECT_TRUE(diff_both <= tol) << diff_both;
    EXPECT_TRUE(effect > 1000 * tol) << effect;
    EXPECT_EQ(got_one.ids, want_one.ids);
    EXPECT_EQ(got_both.ids, want_both.ids);
  }
}

std::string label_of(const ::testing::TestParamInfo<std::tuple<Case, std::string>>& p) {
  const Case& c = std::get<0>(p.param);
  std::string label = fmt::format("{}_{}_{}_{}", c.checkpoint, static_cast<int>(c.base),
                                  static_cast<int>(c.type), std::get<1>(p.param));
  std::replace(label.begin(), label.end(), '-', '_');
  return label;
}

INSTANTIATE_TEST_SUITE_P(Hf, Lora,
                         ::testing::Combine(::testing::ValuesIn(kCases),
                                            ::testing::ValuesIn(isa_levels())),
                         label_of);

/// One adapted matrix at a time: none is forgotten, and none is added in the wrong place.
TEST(LoraEachMatrix, EqualsTheMergedModel) {
  if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  for (const char* checkpoint : {"llama", "phi3", "qwen2-moe"}) {
    const GgufImage base = image_of(checkpoint, DType::kF32);
    const Job job{prompt_of(20, 3), {}, 0};
    EngineOptions options = precise_options();
    const Probe plain =
        run_jobs(*must(EngineBox::create(must(model_of(base, "base")), options)), {job})[0];
    int n_tensor = 0;
    for (const GgufTensor& t : base.tensors) {
      if (!is_adaptable(base, t)) continue;
      ++n_tensor;
      SCOPED_TRACE(t.name);
      const GgufImage adapter = make_lora(
          base, {.seed = 5, .wanted = [&](const std::string& name) { return name == t.name; }});
      options.adapters = {};
      const Probe want = run_jobs(
          *must(EngineBox::create(must(model_of(merged(base, adapter, 1.0f), "m")), options)),
          {job})[0];
      options.adapters = {adapter_of(adapter, "one")};
      Job one = job;
      one.adapters = {{0, 1.0f}};
      const Probe got =
          run_jobs(*must(EngineBox::create(must(model_of(base, "base")), options)), {one})[0];
      const double std_dev = std_of(want.logits);
      EXPECT_TRUE(max_diff(got.logits, want.logits) <= tolerance(base) * std_dev);
      EXPECT_TRUE(max_diff(plain.logits, want.logits) > 10 * tolerance(base) * std_dev);
    }
    EXPECT_GE(n_tensor, 9);
  }
}

/// Requests with different adapters and without in one step, every order and chunking: the bits of
/// each are those it has alone.
TEST(LoraMixedBatch, BitsOfEachRunAlone) {
  if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  struct Variant {
    const char* checkpoint;
    DType type;
    bool precise;
  };
  for (const Variant& v :
       {Variant{"llama", DType::kF32, true}, Variant{"phi3", DType::kQ4_0, false},
        Variant{"gemma2", DType::kF16, false}, Variant{"qwen2-moe", DType::kQ8_0, false}}) {
    for (const std::string& isa : isa_levels()) {
      if (!v.precise && isa != isa_levels().back()) continue;  // one variant for the slow levels
      SCOPED_TRACE(fmt::format("{} {}", v.checkpoint, isa));
      const GgufImage base = image_of(v.checkpoint, v.type);
      const auto model = must(model_of(base, "base"));
      EngineOptions options = precise_options();
      options.precise = v.precise;
      options.prefix_cache = true;
      const std::vector<TokenId> prompt = prompt_of(70, 1);
      const std::vector<std::vector<AdapterUse>> mixes = {
          {{0, 1.0f}}, {}, {{1, 1.0f}}, {{0, 1.0f}, {1, 0.25f}}, {{0, 0.5f}}};
      std::vector<Job> jobs;
      for (const auto& mix : mixes) {
        jobs.push_back({prompt, mix});
        jobs.push_back({prompt_of(33, static_cast<int>(jobs.size())), mix, 20});
      }
      const CpuSpec alone_cpu{.isa = isa, .n_threads = 1};
      const Probe without =
          run_jobs(*must(EngineBox::create(model, options, alone_cpu)), {jobs[2]})[0];
      options.adapters = {adapter_of(make_lora(base, {.seed = 1}), "first"),
                          adapter_of(make_lora(base, {.rank = 7, .seed = 2}), "second")};
      std::vector<Probe> alone;
      for (const Job& job : jobs)
        alone.push_back(run_jobs(*must(EngineBox::create(model, options, alone_cpu)), {job})[0]);
      EXPECT_TRUE(alone[2] == without) << "a request without adapter sees that some are loaded";
      for (size_t i = 0; i < jobs.size(); i += 2) {
        for (size_t j = 0; j < i; j += 2) EXPECT_FALSE(alone[i] == alone[j]) << i << " " << j;
      }
      for (const int64_t n_batch : {5, 512}) {
        options.max_seqs = 5;
        options.n_batch = n_batch;
        const EngineBox engine =
            must(EngineBox::create(model, options, {.isa = isa, .n_threads = 2}));
        for (int round = 0; round < 2; ++round) {  // the second finds prefixes in the cache
          const std::vector<Probe> together = run_jobs(*engine, jobs);
          for (size_t i = 0; i < jobs.size(); ++i)
            EXPECT_TRUE(together[i] == alone[i]) << "job " << i << ", n_batch " << n_batch;
        }
      }
    }
  }
}

/// Prompts alike, adapters not: no cached block of one may serve the other.
TEST(LoraPrefixCache, KnowsTheAdapters) {
  if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  const GgufImage base = image_of("llama", DType::kF32);
  EngineOptions options = precise_options();
  options.prefix_cache = true;
  options.max_seqs = 4;  // room for the blocks of all mixes
  options.adapters = {adapter_of(make_lora(base, {.seed = 1}), "first")};
  options.default_adapters = {{0, 1.0f}};
  const EngineBox engine = must(EngineBox::create(must(model_of(base, "base")), options));
  const auto cached = [&](std::optional<std::vector<AdapterUse>> mix) {
    Request request = make_request(prompt_of(100, 1), 2, greedy());
    request.adapters = std::move(mix);
    return run_request(*engine, std::move(request)).timings.cached_tok;
  };
  EXPECT_EQ(cached(std::vector<AdapterUse>{}), 0);
  EXPECT_EQ(cached(std::nullopt), 0);
  EXPECT_EQ(cached(std::vector<AdapterUse>{{0, 1.0f}}), 96);  // the default mix
  EXPECT_EQ(cached(std::vector<AdapterUse>{{0, 0.5f}}), 0);
  EXPECT_EQ(cached(std::vector<AdapterUse>{{0, 0.0f}}), 96);  // as none
}

}  // namespace
}  // namespace infer::test
