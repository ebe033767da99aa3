// The pipeline: what it writes is what encoders and decoders make of each row, whatever the
// threads; what goes wrong leaves nothing behind.
#include <atomic>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/base/quant_types.h"
#include "gguf/keys.h"
#include "gguf/reader.h"
#include "quantize/codec.h"
#include "quantize/gguf_source.h"
#include "quantize/quantize.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_folder.h"

namespace infer::quantize {
namespace {

using test::Bytes;
using test::GgufBuilder;
using testing::HasSubstr;

template <class T>
Bytes bytes_of(const std::vector<T>& values) {
  const auto b = std::as_bytes(std::span(values));
  return {b.begin(), b.end()};
}

std::vector<float> random_values(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng);
  return x;
}

class QuantizeRun : public test::TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    codec_ = *select_codec("");
    builder_.set_string("general.architecture", "llama");
    builder_.set<uint32_t>("general.file_type", 0);
    builder_.set<uint32_t>("llama.block_count", 1);
  }

  void add(const std::string& name, std::vector<int64_t> shape, const std::vector<float>& x) {
    builder_.tensors.push_back(
        {name, quant_type(DType::kF32).gguf_id, std::move(shape), bytes_of(x)});
  }
  void add_model() {
    add("token_embd.weight", {64, 40}, random_values(64 * 40, 1));
    add("output.weight", {512, 33}, random_values(512 * 33, 2));
    add("blk.0.attn_norm.weight", {512}, random_values(512, 3));
    add("blk.0.ffn_down_exps.weight", {256, 17, 3}, random_values(256 * 17 * 3, 4));
  }

  struct Done {
    Result<Report> report = Report();
    Plan plan;
    std::shared_ptr<const gguf::Reader> out;
  };
  Done run(std::string_view target, const std::function<void(RunOptions&)>& change = {},
           const RecipeOptions& recipe = {}) {
    Done d;
    input_ = builder_.bytes();
    const auto reader = *gguf::Reader::parse(input_, "in.gguf");
    const auto source = gguf_source(reader, codec_.kernels);
    RecipeOptions options = recipe;
    options.target = find_target(target);
    d.plan = *make_plan(*reader, options);
    RunOptions o;
    o.output.paths = {path("out.gguf")};
    o.output.keys.target = options.target;
    o.n_threads = 2;
    if (change) change(o);
    d.report = quantize(*source, d.plan, codec_, o);
    if (d.report.ok()) d.out = *gguf::Reader::open(path("out.gguf"));
    return d;
  }

  GgufBuilder builder_;
  Bytes input_;
  Codec codec_;
};

TEST_F(QuantizeRun, WritesWhatTheEncodersGive) {
  add_model();
  const Done d = run("Q4_K_M", [](RunOptions& o) { o.measure = true; });
  ASSERT_TRUE(d.report.ok()) << d.report.error().message;
  for (size_t i = 0; i < d.plan.entries.size(); ++i) {
    const PlanEntry& e = d.plan.entries[i];
    SCOPED_TRACE(e.name);
    const gguf::TensorInfo* t = d.out->find_tensor(e.name);
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(t->view.type, e.to.type);
    ASSERT_EQ(t->view.n_bytes, e.to_bytes);
    const auto* x = reinterpret_cast<const float*>(builder_.tensors[i].data.data());
    std::vector<std::byte> expected(static_cast<size_t>(e.to_bytes));
    std::vector<float> back(static_cast<size_t>(e.shape[0]));
    double sum = 0.0;
    double largest = 0.0;
    const int64_t row_bytes = e.to_bytes / e.n_row();
    for (int64_t r = 0; r < e.n_row(); ++r) {
      const float* row = x + r * e.shape[0];
      codec_.encoders.plain[static_cast<size_t>(e.to.type)](row, nullptr, e.shape[0],
                                                            expected.data() + r * row_bytes);
      codec_.kernels.decode_row[static_cast<size_t>(e.to.type)](expected.data() + r * row_bytes,
                                                                e.shape[0], back.data());
      for (int64_t k = 0; k < e.shape[0]; ++k) {
        const double error = std::fabs(static_cast<double>(back[static_cast<size_t>(k)]) - row[k]);
        sum += error * error;
        largest = std::max(largest, error);
      }
    }
    EXPECT_EQ(std::memcmp(t->view.data, expected.data(), expected.size()), 0);
    const TensorReport& report = d.report->tensors[i];
    EXPECT_EQ(report.measured, e.converts());
    EXPECT_NEAR(report.rmse(e.n_elem), std::sqrt(sum / static_cast<double>(e.n_elem)), 1e-12);
    EXPECT_EQ(report.errors.max_error, largest);
  }
}

TEST_F(QuantizeRun, SameBytesAtAnyThreadCount) {
  add_model();
  add("blk.1.ffn_up.weight", {256, 3000}, random_values(256 * 3000, 9));  // several panels
  std::string first;
  double rmse = 0.0;
  for (const int n : {1, 2, 3, 7}) {
    const Done d = run("Q5_K_M", [&](RunOptions& o) {
      o.n_threads = n;
      o.measure = true;
    });
    ASSERT_TRUE(d.report.ok()) << d.report.error().message;
    const std::string bytes = test::slurp(path("out.gguf"));
    EXPECT_EQ(static_cast<int64_t>(bytes.size()), d.report->file_bytes);
    if (n == 1) {
      first = bytes;
      rmse = d.report->tensors[4].rmse(1);
    }
    EXPECT_EQ(bytes, first) << n << " threads";
    EXPECT_EQ(d.report->tensors[4].rmse(1), rmse) << n << " threads";
  }
}

TEST_F(QuantizeRun, KeysAreTheInputsWithTypeAndVersion) {
  add_model();
  builder_.set<uint16_t>("split.no", 0);
  builder_.set<uint16_t>("split.count", 1);
  builder_.set_string("general.name", "x");
  std::vector<gguf::KeyOverride> overrides(2);
  overrides[0] = {"llama.block_count", int64_t{1}, "--override-kv"};
  overrides[1] = {"my.scale", 0.5, "--override-kv"};
  input_ = builder_.bytes();
  const auto reader = *gguf::Reader::parse(input_, "in.gguf", {.overrides = overrides});
  Imatrix imatrix;
  imatrix.datasets = {"wiki.txt"};
  imatrix.n_chunk = 7;
  gguf::HeaderBuilder out("out");
  ASSERT_TRUE(
      write_keys(*reader, {find_target("Q4_K_M"), overrides, &imatrix, "i.gguf"}, &out).ok());
  const auto bytes = *out.encode();
  const auto written = *gguf::Reader::parse(bytes, "out");
  EXPECT_EQ(*written->get_int("general.file_type"), 15);
  EXPECT_EQ(*written->get_int("general.quantization_version"), 2);
  EXPECT_EQ(written->find("split.no"), nullptr);
  EXPECT_EQ(*written->get_string("general.name"), "x");
  EXPECT_EQ(written->find("llama.block_count")->type(), gguf::ValueType::kU32);
  EXPECT_EQ(written->find("my.scale")->type(), gguf::ValueType::kF32);
  EXPECT_EQ(*written->get_string("quantize.imatrix.file"), "i.gguf");
  EXPECT_EQ(*written->get_string("quantize.imatrix.dataset"), "wiki.txt");
  EXPECT_EQ(*written->get_int("quantize.imatrix.entries_count"), 0);
  EXPECT_EQ(*written->get_int("quantize.imatrix.chunks_count"), 7);
}

TEST_F(QuantizeRun, ValuesThatAreNotFiniteAreNamed) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    builder_.tensors.clear();
    auto x = random_values(64 * 40, 1);
    x[64 * 17 + 5] = bad;
    add("blk.0.attn_q.weight", {64, 40}, x);
    const Done d = run("Q8_0");
    ASSERT_FALSE(d.report.ok());
    EXPECT_EQ(d.report.error().code, ErrorCode::kNumeric);
    EXPECT_THAT(d.report.error().message,
                HasSubstr("in.gguf: tensor 'blk.0.attn_q.weight' row 17 column 5 is "));
    EXPECT_EQ(n_files(), 0);
  }
}

TEST_F(QuantizeRun, ValuesTooLargeForTheTypeAreNamed) {
  auto x = random_values(64 * 4, 1);
  x[64 + 3] = 7e4f;
  add("blk.0.attn_q.weight", {64, 4}, x);
  const Done f16 = run("F16");
  ASSERT_FALSE(f16.report.ok());
  EXPECT_THAT(f16.report.error().message, HasSubstr("row 1 has 70000, too large for f16"));
  EXPECT_TRUE(run("BF16").report.ok());
  EXPECT_TRUE(run("Q8_0").report.ok());  // its scale is 7e4 / 127
}

/// The published rules' scales become infinite, searches stop at the largest f16: neither is
/// silent.
TEST_F(QuantizeRun, NoTypeCutsLargeValuesOffInSilence) {
  for (const char* type : {"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_M",
                           "Q5_K_M", "Q6_K", "IQ4_NL"}) {
    for (const bool best : {false, true}) {
      for (const float value : {4e8f, -4e8f, 6e4f, -6e4f}) {
        SCOPED_TRACE(fmt::format("{} {} {}", type, best, value));
        builder_.tensors.clear();
        auto x = random_values(256 * 4, 1);
        x[256 + 3] = value;
        add("blk.0.attn_q.weight", {256, 4}, x);
        const Done d = run(type, [&](RunOptions& o) { o.best = best, o.measure = true; });
        if (std::fabs(value) > 1e5f) {
          ASSERT_FALSE(d.report.ok());
          EXPECT_EQ(d.report.error().code, ErrorCode::kNumeric);
          EXPECT_THAT(d.report.error().message,
                      HasSubstr(fmt::format("row 1 has {}, too large for ", value)));
        } else {
          ASSERT_TRUE(d.report.ok());
          EXPECT_LT(d.report->tensors[0].errors.max_error, 0.2 * std::fabs(value));
        }
      }
    }
  }
}

TEST_F(QuantizeRun, ErrorOfTheFirstBadPanelWhoeverFindsIt) {
  auto x = random_values(256 * 8000, 1);
  for (size_t r = 1500; r < 8000; r += 500) x[256 * r] = NAN;
  add("blk.0.attn_q.weight", {256, 8000}, x);
  for (int i = 0; i < 5; ++i) {
    const Done d = run("Q8_0", [](RunOptions& o) { o.n_threads = 3; });
    ASSERT_FALSE(d.report.ok());
    EXPECT_THAT(d.report.error().message, HasSubstr("row 1500 column 0"));
  }
}

TEST_F(QuantizeRun, CancelLeavesTheOldFile) {
  add_model();
  write("out.gguf", "old");
  std::atomic<bool> cancel{true};
  const Done d = run("Q8_0", [&](RunOptions& o) { o.cancel = &cancel; });
  ASSERT_FALSE(d.report.ok());
  EXPECT_EQ(d.report.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(test::slurp(path("out.gguf")), "old");
  EXPECT_EQ(n_files(), 1);
}

TEST_F(QuantizeRun, TensorsAreReportedInOrder) {
  add_model();
  std::vector<size_t> seen;
  int64_t done = 0;
  const Done d = run("Q8_0", [&](RunOptions& o) {
    o.n_threads = 3;
    o.on_tensor = [&](size_t i, const TensorReport&) { seen.push_back(i); };
    o.progress = [&](const Progress& p) { done = std::max(done, p.done_bytes); };
  });
  ASSERT_TRUE(d.report.ok());
  EXPECT_EQ(seen, (std::vector<size_t>{0, 1, 2, 3}));
  EXPECT_GT(done, 0);
}

TEST_F(QuantizeRun, ImportanceReachesTheEncoderByMatrix) {
  static std::atomic<int> n_with{0}, n_without{0};
  add("blk.0.ffn_down_exps.weight", {256, 5, 3}, random_values(256 * 15, 4));
  add("blk.0.ffn_up_exps.weight", {256, 5, 3}, random_values(256 * 15, 5));
  Imatrix imatrix;
  ImatrixEntry ones;
  ones.n_k = 256;
  ones.n_tok = {1, 1, 1};
  ones.sum_sq.assign(768, 1.0f);
  ASSERT_TRUE(imatrix.add("blk.0.ffn_down_exps.weight", ones).ok());
  const EncodeRow spy = [](const float*, const float* importance, int64_t n, std::byte* out) {
    ++(importance != nullptr ? n_with : n_without);
    std::memset(out, 0, static_cast<size_t>(n / 256 * 144));
  };
  codec_.encoders.plain[static_cast<size_t>(DType::kQ4_K)] = spy;
  const auto with = [&](RunOptions& o) {
    o.imatrix = &imatrix;
    o.output.keys.imatrix = &imatrix;
    o.output.keys.imatrix_file = "i.gguf";
  };
  RecipeOptions recipe;
  recipe.pure = true;
  recipe.has_imatrix = true;
  const Done d = run("Q4_K_M", with, recipe);
  ASSERT_TRUE(d.report.ok()) << d.report.error().message;
  EXPECT_EQ(n_with, 15);
  EXPECT_EQ(n_without, 15);
  EXPECT_EQ(d.report->n_without_importance, 1);
  EXPECT_EQ(d.report->first_without_importance, "blk.0.ffn_up_exps.weight");
  ImatrixEntry& entry = imatrix.entries["blk.0.ffn_down_exps.weight"];
  entry.n_tok = {1, 1};  // of a model with two experts
  EXPECT_THAT(run("Q4_K_M", with, recipe).report.error().message,
              HasSubstr("i.gguf: is of another model: tensor 'blk.0.ffn_down_exps.weight'"));
  entry.n_tok = {1, 1, 1};
  entry.mean_sq.assign(768, NAN);
  EXPECT_EQ(run("Q4_K_M", with, recipe).report.error().code, ErrorCode::kNumeric);
}

TEST_F(QuantizeRun, LegacyTypesAreSearchedWithImportance) {
  static std::atomic<int> n_search{0};
  add("blk.0.attn_q.weight", {256, 7}, random_values(256 * 7, 4));
  ImatrixEntry ones;
  ones.n_k = 256;
  ones.n_tok = {1};
  ones.sum_sq.assign(256, 1.0f);
  Imatrix imatrix;
  ASSERT_TRUE(imatrix.add("blk.0.attn_q.weight", ones).ok());
  codec_.encoders.best[static_cast<size_t>(DType::kQ4_0)] = [](const float*, const float*,
                                                               int64_t n, std::byte* out) {
    ++n_search;
    std::memset(out, 0, static_cast<size_t>(n / 32 * 18));
  };
  ASSERT_TRUE(run("Q4_0", [](RunOptions&) {}).report.ok());
  EXPECT_EQ(n_search, 0);
  const auto with = [&](RunOptions& o) {
    o.imatrix = &imatrix;
    o.output.keys.imatrix = &imatrix;
  };
  ASSERT_TRUE(run("Q4_0", with).report.ok());
  EXPECT_EQ(n_search, 7);
}

TEST_F(QuantizeRun, ReportIsJson) {
  add_model();
  const Done d = run("Q4_K_M", [](RunOptions& o) { o.measure = true; });
  ReportFacts facts;
  facts.target = "Q4_K_M";
  const auto j = nlohmann::json::parse(report_json(d.plan, *d.report, facts));
  EXPECT_EQ(j["totals"]["tensors"], 4);
  EXPECT_EQ(j["totals"]["converted"], 3);
  EXPECT_EQ(j["totals"]["bytes_out"], d.plan.to_bytes);
  EXPECT_EQ(j["tensors"][0]["reason"], "fallback");
  EXPECT_EQ(j["tensors"][0]["wanted"], "q4_k");
  EXPECT_EQ(j["tensors"][2]["rmse"], 0.0);
  for (const size_t i : {0, 1, 3}) {
    const double relative = j["tensors"][i]["relative_error"];
    EXPECT_TRUE(relative > 1e-3 && relative < 0.2) << relative;
  }
}

}  // namespace
}  // namespace infer::quantize
