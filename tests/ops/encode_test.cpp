// Encoders against gguf-py's bytes and llama.cpp's errors (tests/data/make_encode_rows.py made
// both), and every ISA level against every other.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/base/cpu_features.h"
#include "core/base/half.h"
#include "core/base/quant_types.h"
#include "kernels/cpu/dispatch.h"
#include "quantize/encoder.h"
#include "tests/support/test_env.h"

namespace infer::quantize {
namespace {

constexpr int64_t kRow = 256;
using Rows = std::vector<float>;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::vector<EncodeTable> tables() {
  std::vector<EncodeTable> all;
  for (const char* isa : {"generic", "avx2", "avx512"}) {
    if (auto t = select_encoders(detect_cpu_features(), isa); t.ok()) all.push_back(*t);
  }
  return all;
}

std::vector<std::byte> encode(EncodeRow row, DType type, const Rows& x, int64_t n_k,
                              const float* importance = nullptr) {
  const auto n_bytes = static_cast<size_t>(*row_bytes(type, n_k));
  std::vector<std::byte> out(x.size() / static_cast<size_t>(n_k) * n_bytes);
  for (size_t r = 0; r * static_cast<size_t>(n_k) < x.size(); ++r)
    row(x.data() + r * static_cast<size_t>(n_k), importance, n_k, out.data() + r * n_bytes);
  return out;
}

Rows decode(DType type, const std::vector<std::byte>& bytes, size_t n) {
  static const kern::CpuKernels kernels = *kern::select_kernels(detect_cpu_features(), "generic");
  Rows out(n);
  kernels.decode_row[static_cast<int>(type)](bytes.data(), static_cast<int64_t>(n), out.data());
  return out;
}

struct LegacyCase {
  Rows rows;
  std::map<DType, std::vector<std::byte>> expected;
};

LegacyCase read_legacy() {
  const std::string file = read_file("tests/data/encode_legacy.bin");
  LegacyCase c;
  uint32_t n = 0;
  if (file.size() < sizeof(n)) return c;
  std::memcpy(&n, file.data(), sizeof(n));
  c.rows.resize(n * kRow);
  size_t at = sizeof(n);
  if (file.size() < at + c.rows.size() * sizeof(float)) return {};
  std::memcpy(c.rows.data(), file.data() + at, c.rows.size() * sizeof(float));
  at += c.rows.size() * sizeof(float);
  for (const DType type : {DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                           DType::kQ5_0, DType::kQ5_1}) {
    std::vector<std::byte>& bytes = c.expected[type];
    bytes.resize(static_cast<size_t>(*row_bytes(type, kRow)) * n);
    if (at + bytes.size() > file.size()) return {};
    std::memcpy(bytes.data(), file.data() + at, bytes.size());
    at += bytes.size();
  }
  return c;
}

TEST(EncodeLegacy, BytesEqualGgufPy) {
  const LegacyCase c = read_legacy();
  ASSERT_GE(c.rows.size(), 10u * kRow);
  for (const EncodeTable& t : tables()) {
    for (const auto& [type, expected] : c.expected) {
      SCOPED_TRACE(std::string(t.isa) + " " + std::string(name_of(type)));
      const auto got = encode(t.plain[static_cast<int>(type)], type, c.rows, kRow);
      const auto row = static_cast<size_t>(*row_bytes(type, kRow));
      for (size_t r = 0; r * row < got.size(); ++r)
        EXPECT_EQ(0, std::memcmp(got.data() + r * row, expected.data() + r * row, row))
            << "row " << r;
    }
  }
}

/// Sets of rows by name; "real" only where the shared data is.
std::map<std::string, Rows> read_sets() {
  std::map<std::string, Rows> sets;
  const std::string file = read_file("tests/data/encode_rows.bin");
  const char* names[] = {"gauss", "laplace", "student", "outliers"};
  const size_t n = file.size() / sizeof(uint16_t) / std::size(names);
  for (size_t s = 0; s < std::size(names); ++s) {
    Rows& rows = sets[names[s]];
    for (size_t i = 0; i < n; ++i) {
      uint16_t h = 0;
      std::memcpy(&h, file.data() + (s * n + i) * sizeof(h), sizeof(h));
      rows.push_back(f32_from_f16(h));
    }
  }
  const std::string raw = read_file(test::shared_dir() / "data/models/stories260K/stories260K.bin");
  int32_t h[7] = {};
  if (raw.size() < sizeof(h)) return sets;
  std::memcpy(h, raw.data(), sizeof(h));
  const auto dim = static_cast<size_t>(h[0]), n_layer = static_cast<size_t>(h[2]);
  const size_t kv = dim * static_cast<size_t>(h[4]) / static_cast<size_t>(h[3]);
  const size_t ff = n_layer * dim * static_cast<size_t>(h[1]);
  const size_t square = n_layer * dim * dim, norms = n_layer * dim;
  size_t at = sizeof(h);
  const auto cut = [&](size_t count, bool matrix) {
    const size_t kept = matrix ? count / kRow * kRow : 0;
    Rows& rows = sets["real"];
    rows.resize(rows.size() + kept);
    std::memcpy(rows.data() + rows.size() - kept, raw.data() + at, kept * sizeof(float));
    at += count * sizeof(float);
  };
  cut(static_cast<size_t>(h[5]) * dim, true);
  cut(norms, false);
  for (const size_t count : {square, n_layer * dim * kv, n_layer * dim * kv, square})
    cut(count, true);
  cut(norms, false);
  for (int i = 0; i < 3; ++i) cut(ff, true);
  return sets;
}

struct Errors {
  double plain = 0.0, weighted = 0.0;
};

/// Sums of squares; weighted with rms(32 neighbours) + |x|.
Errors errors_of(const Rows& x, const Rows& y) {
  Errors e;
  for (size_t j = 0; j < x.size(); j += 32) {
    double sum = 0.0;
    for (size_t i = j; i < j + 32; ++i) sum += static_cast<double>(x[i]) * x[i];
    const double rms = std::sqrt(sum / 32.0);
    for (size_t i = j; i < j + 32; ++i) {
      const double d = static_cast<double>(y[i]) - x[i];
      e.plain += d * d;
      e.weighted += (rms + std::fabs(static_cast<double>(x[i]))) * d * d;
    }
  }
  return e;
}

/// Averages over the sets of sqrt(ours / reference).
Errors ratios(EncodeRow row, DType type, const std::map<std::string, Rows>& sets) {
  const auto reference = nlohmann::json::parse(read_file("tests/data/encode_errors.json"));
  Errors mean;
  for (const auto& [name, x] : sets) {
    const Errors e = errors_of(x, decode(type, encode(row, type, x, kRow), x.size()));
    const auto& r = reference.at(std::string(name_of(type))).at(name);
    mean.plain += std::sqrt(e.plain / r.at(0).get<double>()) / static_cast<double>(sets.size());
    mean.weighted +=
        std::sqrt(e.weighted / r.at(1).get<double>()) / static_cast<double>(sets.size());
  }
  return mean;
}

struct Bound {
  DType type;
  bool best;
  double plain, weighted;
};

class EncodeErrors : public testing::TestWithParam<Bound> {};

TEST_P(EncodeErrors, AreNotAboveTheReferenceEncoders) {
  const Bound& b = GetParam();
  const auto sets = read_sets();
  ASSERT_GE(sets.size(), 4u);
  const EncodeTable t = tables().back();
  const auto i = static_cast<int>(b.type);
  const Errors e = ratios(b.best ? t.best[i] : t.plain[i], b.type, sets);
  EXPECT_TRUE(e.plain <= b.plain) << e.plain;
  EXPECT_TRUE(e.weighted <= b.weighted) << e.weighted;
  RecordProperty("plain", std::to_string(e.plain));
  RecordProperty("weighted", std::to_string(e.weighted));
  if (!sets.contains("real")) GTEST_SKIP() << "no stories260K: its rows were left out";
}

INSTANTIATE_TEST_SUITE_P(
    Types, EncodeErrors,
    testing::Values(Bound{DType::kQ2_K, false, 0.9, 0.95}, Bound{DType::kQ3_K, false, 0.98, 0.98},
                    Bound{DType::kQ4_K, false, 0.985, 0.985},
                    Bound{DType::kQ5_K, false, 0.97, 0.97}, Bound{DType::kQ6_K, false, 0.97, 0.97},
                    Bound{DType::kIQ4_NL, false, 0.98, 0.98}, Bound{DType::kQ4_0, true, 0.96, 0.98},
                    Bound{DType::kQ4_1, true, 0.92, 0.92}, Bound{DType::kQ5_0, true, 0.96, 0.97},
                    Bound{DType::kQ5_1, true, 0.92, 0.92}, Bound{DType::kQ8_0, true, 0.95, 0.95}),
    [](const auto& c) {
      return std::string(name_of(c.param.type)) + (c.param.best ? "_best" : "");
    });

/// Trained weights and Gaussian ones; draws with many outliers leave less to gain.
TEST(EncodeBest, Q4_0IsFivePercentBelowTheRule) {
  auto sets = read_sets();
  for (const char* name : {"laplace", "student", "outliers"}) sets.erase(name);
  const EncodeTable t = tables().back();
  const Errors e = ratios(t.best[static_cast<int>(DType::kQ4_0)], DType::kQ4_0, sets);
  EXPECT_TRUE(e.plain <= 0.95) << e.plain;
  if (!sets.contains("real")) GTEST_SKIP() << "no stories260K: its rows were left out";
}

/// The least squared error of 32 weights with any f16 scale of either sign, level by level.
double least_q4_0_error(const float* x) {
  float largest = 0.0f;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  double best = std::numeric_limits<double>::infinity();
  // Of at most 8 levels on one side, fewer than 4 are never worth the others' precision.
  for (int h = f16_from_f32(largest / 16); h <= f16_from_f32(largest / 4); ++h) {
    for (const float sign : {1.0f, -1.0f}) {
      const float d = sign * f32_from_f16(static_cast<uint16_t>(h));
      double sum = 0.0;
      for (int i = 0; i < 32 && sum < best; ++i) {
        const float q = std::clamp(std::nearbyint(x[i] / d), -8.0f, 7.0f);
        const double e = static_cast<double>(q) * d - x[i];
        sum += e * e;
      }
      best = std::min(best, sum);
    }
  }
  return best;
}

/// What the five per cent above cannot be had on, no encoder has: all scales were tried.
TEST(EncodeBest, Q4_0IsAsGoodAsTryingEveryScale) {
  const EncodeTable t = tables().back();
  constexpr auto kType = DType::kQ4_0;
  for (const auto& [name, all] : read_sets()) {
    const Rows x(all.begin(), all.begin() + 40 * kRow);
    const Rows y = decode(kType, encode(t.best[static_cast<int>(kType)], kType, x, kRow), x.size());
    double least = 0.0;
    for (size_t j = 0; j < x.size(); j += 32) least += least_q4_0_error(x.data() + j);
    const double ratio = std::sqrt(errors_of(x, y).plain / least);
    EXPECT_TRUE(ratio <= 1.005) << name << " " << ratio;
    EXPECT_TRUE(ratio >= 1.0) << name << " " << ratio;
  }
}

/// Rows that are hard in some way, of any length.
Rows hard_rows(int64_t n_k, std::mt19937_64& rng) {
  std::normal_distribution<float> normal;
  Rows x;
  for (const float scale : {1.0f, 0.02f, 1e-6f, 1e-9f, 1e-30f, 6e4f, 1e15f, 3e38f, 0.0f}) {
    for (int64_t i = 0; i < n_k; ++i) x.push_back(std::clamp(normal(rng), -1.0f, 1.0f) * scale);
  }
  for (const float v : {0.25f, -0.25f, 1e-8f}) x.insert(x.end(), static_cast<size_t>(n_k), v);
  for (int64_t i = 0; i < n_k; ++i) x.push_back(i % 97 == 0 ? 30.0f : normal(rng) * 0.01f);
  for (int64_t i = 0; i < n_k; ++i) x.push_back(i % 3 == 0 ? 0.0f : -std::fabs(normal(rng)));
  return x;
}

TEST(Encode, SameBytesAtEveryLevelAndRowLength) {
  const std::vector<EncodeTable> all = tables();
  std::mt19937_64 rng(3);
  for (const int64_t n_k : {256, 768, 2048}) {
    const Rows x = hard_rows(n_k, rng);
    Rows importance(static_cast<size_t>(n_k));
    for (float& v : importance) v = static_cast<float>(rng() % 1000) / 100.0f;
    for (int i = 0; i < kDTypeCount; ++i) {
      const auto type = static_cast<DType>(i);
      for (const bool best : {false, true}) {
        for (const bool weighted : {false, true}) {
          const float* w = weighted ? importance.data() : nullptr;
          std::vector<std::byte> first;
          for (const EncodeTable& t : all) {
            const EncodeRow row = best ? t.best[i] : t.plain[i];
            ASSERT_EQ(row == nullptr, all[0].plain[i] == nullptr);
            if (row == nullptr) continue;
            const auto got = encode(row, type, x, n_k, w);
            if (first.empty()) first = got;
            EXPECT_EQ(got, first) << t.isa << " " << name_of(type) << " rows of " << n_k << " best "
                                  << best << " importance " << weighted;
          }
        }
      }
    }
  }
}

/// A part of a row is encoded as it is in the whole row: super-blocks do not look at neighbours.
TEST(Encode, SuperBlocksStandAlone) {
  std::mt19937_64 rng(4);
  std::normal_distribution<float> normal;
  Rows x(768);
  for (float& v : x) v = normal(rng);
  const EncodeTable t = tables().back();
  for (int i = 0; i < kDTypeCount; ++i) {
    if (t.plain[i] == nullptr) continue;
    const auto type = static_cast<DType>(i);
    EXPECT_EQ(encode(t.best[i], type, x, 768), encode(t.best[i], type, x, 256)) << name_of(type);
    EXPECT_EQ(encode(t.plain[i], type, x, 768), encode(t.plain[i], type, x, 256)) << name_of(type);
  }
}

TEST(Encode, HardRowsDecodeToFiniteNumbersNearThem) {
  std::mt19937_64 rng(5);
  const Rows x = hard_rows(kRow, rng);
  const EncodeTable t = tables().back();
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    if (t.plain[i] == nullptr || type == DType::kF16 || type == DType::kF32) continue;
    for (const bool best : {false, true}) {
      const Rows y = decode(type, encode(best ? t.best[i] : t.plain[i], type, x, kRow), x.size());
      for (size_t r = 0; r * kRow < x.size(); ++r) {
        float largest = 0.0f, worst = 0.0f;
        for (size_t j = r * kRow; j < (r + 1) * kRow; ++j) {
          largest = std::max(largest, std::fabs(x[j]));
          worst = std::max(worst, std::fabs(y[j] - x[j]));
        }
        // The legacy rule has no defence against scales that f16 cannot hold, by definition.
        const bool holdable = largest <= 6e4f && (largest == 0.0f || largest >= 0.005f);
        if (!holdable) continue;
        EXPECT_TRUE(worst <= 0.6f * largest) << name_of(type) << " best " << best << " row " << r;
      }
    }
  }
}

TEST(Encode, ImportanceMovesTheErrorToWhereItCountsLess) {
  std::mt19937_64 rng(6);
  std::normal_distribution<float> normal;
  Rows x(64 * kRow), importance(kRow);
  for (float& v : x) v = normal(rng);
  for (size_t i = 0; i < importance.size(); ++i) importance[i] = i % 4 == 0 ? 100.0f : 0.01f;
  const EncodeTable t = tables().back();
  for (const DType type : {DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                           DType::kIQ4_NL, DType::kQ4_0, DType::kQ5_1}) {
    const EncodeRow row = t.best[static_cast<int>(type)];
    const Rows without = decode(type, encode(row, type, x, kRow), x.size());
    const Rows with = decode(type, encode(row, type, x, kRow, importance.data()), x.size());
    double before = 0.0, after = 0.0;
    for (size_t i = 0; i < x.size(); ++i) {
      before += importance[i % kRow] * std::pow(static_cast<double>(without[i]) - x[i], 2);
      after += importance[i % kRow] * std::pow(static_cast<double>(with[i]) - x[i], 2);
    }
    EXPECT_TRUE(after < 0.95 * before) << name_of(type) << " " << after / before;
  }
}

TEST(Encode, AllFinite) {
  for (const EncodeTable& t : tables()) {
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      for (size_t at = 0; at < 37; ++at) {
        Rows x(37, 3e38f);
        EXPECT_TRUE(t.all_finite(x.data(), 37));
        x[at] = bad;
        EXPECT_FALSE(t.all_finite(x.data(), 37)) << t.isa << " " << at;
      }
    }
  }
}

}  // namespace
}  // namespace infer::quantize
