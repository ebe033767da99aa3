// Linear kernels: every weight type x mode x ISA level against f64, and one reduction order.
//
// Bounds. The reference takes the decoded weights and the activations as the kernel's prepare()
// left them, so only the kernel's own roundings count, each of relative size 2^-24 on a partial sum
// no larger than  S = sum (|d q| + |min|) |x|:
//   8-bit activations: two roundings a block of 32 (the sum's and the minimum's addition), plus the
//   scale product, the
//     product with it where it is not fused, s_x, and the decoded weight's own rounding: 2 k / 32 +
//     4 in all;
//   f32 activations, lanes along k in stretches (kernels/cpu/linear_float.h): no more than one
//   chain of eight lanes has, k / 8 additions, three of the tree and one of the product: k / 8 + 4;
//   f32 activations, lanes along n: k additions, and one product where it is not fused: k + 1.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/cpu_features.h"
#include "core/base/half.h"
#include "core/base/quant_types.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/generic/linear_act.h"
#include "tests/ops/linear_support.h"

namespace infer::test {
namespace {

using kern::ActMode;

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const std::string_view isa : kern::built_isa_levels()) names.emplace_back(isa);
  return names;
}

class Linear : public testing::TestWithParam<std::tuple<std::string, DType, ActMode>> {
 protected:
  void SetUp() override {
    const auto table = kern::select_kernels(detect_cpu_features(), std::get<0>(GetParam()));
    if (!table.ok()) GTEST_SKIP() << table.error().message;
    kernel_ = table->linear[static_cast<int>(std::get<2>(GetParam()))][static_cast<int>(type())];
    ASSERT_NE(kernel_.run, nullptr);
    rng_.seed(seed_of_test());
  }
  DType type() const { return std::get<1>(GetParam()); }
  bool is_float() const {
    return type() == DType::kF32 || type() == DType::kF16 || type() == DType::kBF16;
  }
  /// Smallest k of the type, and odd numbers of blocks beyond a stretch of the kernels.
  std::vector<int64_t> sizes_k() const {
    if (is_float()) return {1, 7, 8, 31, 96, 576, 577, 1043};
    return quant_type(type()).block_len == 32 ? std::vector<int64_t>{32, 96, 544}
                                              : std::vector<int64_t>{256, 768};
  }
  std::vector<std::byte> weights(int64_t n, int64_t k) {
    return make_weights(rng_, type(), n, k, Levels::kRandom, Scales::kNormal);
  }
  void expect_within_bound(std::span<const std::byte> file, std::span<const float> x, int64_t m,
                           int64_t n, int64_t k);

  kern::LinearKernel kernel_;
  std::mt19937_64 rng_;
};

void Linear::expect_within_bound(std::span<const std::byte> file, std::span<const float> x,
                                 int64_t m, int64_t n, int64_t k) {
  const LinearRunner runner(kernel_, file, n, k);
  const std::vector<float> got = runner.run(x, m);
  const Reference ref = reference_f64(type(), file, n, k, runner.seen(x, m), m,
                                      rounding_steps(kernel_, runner.quantised_act(), k));
  for (size_t i = 0; i < got.size(); ++i) {
    const double err = std::fabs(static_cast<double>(got[i]) - ref.value[i]);
    ASSERT_FALSE(!(err <= ref.bound[i]))
        << "m " << m << " n " << n << " k " << k << " at row " << i / static_cast<size_t>(n)
        << " output " << i % static_cast<size_t>(n) << ": " << got[i] << " instead of "
        << ref.value[i] << ", error " << err << " over " << ref.bound[i] << ", seed "
        << seed_of_test();
  }
}

TEST_P(Linear, MatchesF64) {
  for (const int64_t k : sizes_k()) {
    for (const int64_t n : {1, 3, 8, 13, 37}) {
      const std::vector<std::byte> file = weights(n, k);
      for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 33}) {
        const std::vector<float> x = make_inputs(rng_, m, k, Inputs::kNormal);
        ASSERT_NO_FATAL_FAILURE(expect_within_bound(file, x, m, n, k));
      }
    }
  }
}

TEST_P(Linear, ExtremeLevelsAndScalesMatchF64) {
  const int64_t k = sizes_k().back(), n = 9, m = 5;
  for (const Levels levels :
       {Levels::kRandom, Levels::kAllOnes, Levels::kAllZeros, Levels::kSignBits}) {
    for (const Scales scales : {Scales::kNormal, Scales::kLargest, Scales::kSubnormal}) {
      const std::vector<std::byte> file = make_weights(rng_, type(), n, k, levels, scales);
      for (const Inputs inputs :
           {Inputs::kNormal, Inputs::kPlusOne, Inputs::kMinusOne, Inputs::kAlternating}) {
        std::vector<float> x = make_inputs(rng_, m, k, inputs);
        SCOPED_TRACE(testing::Message()
                     << "levels " << static_cast<int>(levels) << " scales "
                     << static_cast<int>(scales) << " inputs " << static_cast<int>(inputs));
        ASSERT_NO_FATAL_FAILURE(expect_within_bound(file, x, m, n, k));
        for (float& v : x) v *= 0x1p-110f;  // some blocks fall below kActTiny
        ASSERT_NO_FATAL_FAILURE(expect_within_bound(file, x, m, n, k));
      }
    }
  }
}

/// Columns [begin, end) of rows [0, m) of a [.., n] matrix have the bits of `part`.
void expect_same_bits(std::span<const float> whole, int64_t n, std::span<const float> part,
                      int64_t m, int64_t begin, int64_t end) {
  const auto width = static_cast<size_t>(end - begin);
  for (int64_t r = 0; r < m; ++r) {
    ASSERT_EQ(0, std::memcmp(whole.data() + r * n + begin,
                             part.data() + static_cast<size_t>(r) * width, width * sizeof(float)))
        << "row " << r << " of " << m << ", outputs " << begin << ".." << end;
  }
}

TEST_P(Linear, BitsDependOnNeitherRowsNorRange) {
  constexpr int64_t kMaxRows = 113;
  const int64_t n = 45, k = sizes_k().back();
  const LinearRunner runner(kernel_, weights(n, k), n, k);
  const std::vector<float> x = make_inputs(rng_, kMaxRows, k, Inputs::kNormal);
  std::vector<float> single;  // every row on its own
  for (int64_t r = 0; r < kMaxRows; ++r) {
    const std::vector<float> row = runner.run(std::span(x).subspan(static_cast<size_t>(r * k)), 1);
    single.insert(single.end(), row.begin(), row.end());
  }
  for (int64_t m = 1; m <= 33; ++m) {
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(single, n, runner.run(x, m), m, 0, n));
  }
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(single, n, runner.run(x, kMaxRows), kMaxRows, 0, n));
  const int64_t step = kernel_.n_align;
  for (int trial = 0; trial < 40; ++trial) {
    const int64_t begin =
        static_cast<int64_t>(rng_() % static_cast<uint64_t>((n + step - 1) / step)) * step;
    const int64_t parts = (n - begin + step - 1) / step;
    const int64_t end = std::min(
        n, begin + (1 + static_cast<int64_t>(rng_() % static_cast<uint64_t>(parts))) * step);
    const int64_t m = 1 + static_cast<int64_t>(rng_() % 9);
    ASSERT_NO_FATAL_FAILURE(
        expect_same_bits(single, n, runner.run(x, m, begin, end), m, begin, end));
  }
}

TEST_P(Linear, BitsDependOnNoBlockOfRows) {  // more rows than the kernels keep in cache at a time
  const int64_t n = 9, k = 4096, m = 61;
  const LinearRunner runner(kernel_, weights(n, k), n, k);
  const std::vector<float> x = make_inputs(rng_, m, k, Inputs::kNormal);
  const std::vector<float> all = runner.run(x, m);
  for (int64_t r = 0; r < m; ++r) {
    const std::span<const float> row = std::span(x).subspan(static_cast<size_t>(r * k));
    const std::span<const float> want = std::span(all).subspan(static_cast<size_t>(r * n));
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(want, n, runner.run(row, 1), 1, 0, n)) << "row " << r;
  }
}

TEST_P(Linear, BitsDependOnNoBlockOfManyRows) {
  const int64_t n = 5, k = 256, m = 267;
  const LinearRunner runner(kernel_, weights(n, k), n, k);
  const std::vector<float> x = make_inputs(rng_, m, k, Inputs::kNormal);
  const std::vector<float> all = runner.run(x, m);
  for (int64_t r = 0; r < m; ++r) {
    const std::span<const float> row = std::span(x).subspan(static_cast<size_t>(r * k));
    const std::span<const float> want = std::span(all).subspan(static_cast<size_t>(r * n));
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(want, n, runner.run(row, 1), 1, 0, n)) << "row " << r;
  }
}

TEST_P(Linear, BitsDependOnNoSizeOfTheCache) {  // where many rows stay in it, floats go by columns
  const int64_t k = sizes_k().back(), m = 203;
  for (const int64_t n : {5, 45}) {
    LinearRunner runner(kernel_, weights(n, k), n, k);
    const std::vector<float> x = make_inputs(rng_, m, k, Inputs::kNormal);
    const std::vector<float> small = runner.run(x, m);
    runner.set_l2_bytes(int64_t{4} << 20);
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(small, n, runner.run(x, m), m, 0, n)) << "n " << n;
  }
}

TEST_P(Linear, WeightsThatAreNotFiniteReachTheirOutputAndNoOther) {
  if (!is_float()) GTEST_SKIP() << "blocks have scales: decode_test.cpp";
  const int64_t n = 13, k = 600, bad = 7;
  const float inf = std::numeric_limits<float>::infinity();
  for (const float value : {std::nanf(""), inf, -inf}) {
    for (const int64_t at : {int64_t{0}, k / 2, k - 1}) {
      std::vector<std::byte> file = weights(n, k);
      const std::vector<std::byte> finite = file;
      const size_t width = file.size() / static_cast<size_t>(n * k);
      const uint16_t half = type() == DType::kF16 ? f16_from_f32(value) : bf16_from_f32(value);
      std::memcpy(file.data() + static_cast<size_t>(bad * k + at) * width,
                  width == 4 ? static_cast<const void*>(&value) : &half, width);
      for (const int64_t m : {1, 3, 6, 7, 20}) {
        const std::vector<float> x = make_inputs(rng_, m, k, Inputs::kPlusOne);
        const std::vector<float> good = LinearRunner(kernel_, finite, n, k).run(x, m);
        const std::vector<float> got = LinearRunner(kernel_, file, n, k).run(x, m);
        for (size_t i = 0; i < got.size(); ++i) {
          if (i % static_cast<size_t>(n) != static_cast<size_t>(bad)) {
            ASSERT_EQ(0, std::memcmp(&got[i], &good[i], sizeof(float))) << "at " << i;
          } else {
            ASSERT_TRUE(std::isnan(value) ? std::isnan(got[i]) : got[i] == value)
                << got[i] << " for " << value << " with m " << m << " at " << at;
          }
        }
      }
    }
  }
}

TEST_P(Linear, BitsDependOnNoNeighbour) {
  const int64_t n = 19, k = sizes_k().back(), m = 6, shift = 5;
  const std::vector<std::byte> file = weights(n, k);
  const size_t bytes = file.size() / static_cast<size_t>(n);
  std::vector<std::byte> moved(
      file.end() - static_cast<std::ptrdiff_t>(shift * static_cast<int64_t>(bytes)), file.end());
  moved.insert(moved.end(), file.begin(), file.end() - static_cast<std::ptrdiff_t>(moved.size()));
  const std::vector<float> x = make_inputs(rng_, m, k, Inputs::kNormal);
  std::vector<float> reversed;
  for (int64_t r = m - 1; r >= 0; --r)
    reversed.insert(reversed.end(), x.begin() + r * k, x.begin() + (r + 1) * k);
  const std::vector<float> a = LinearRunner(kernel_, file, n, k).run(x, m);
  const std::vector<float> b = LinearRunner(kernel_, moved, n, k).run(reversed, m);
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t j = 0; j < n; ++j) {
      const float& one = a[static_cast<size_t>(r * n + j)];
      const float& other = b[static_cast<size_t>((m - 1 - r) * n + (j + shift) % n)];
      ASSERT_EQ(0, std::memcmp(&one, &other, sizeof(float))) << "row " << r << " output " << j;
    }
  }
}

TEST_P(Linear, NanAndInfinityReachTheirRowAndNoOther) {
  const int64_t n = 11, k = sizes_k().back(), m = 6, bad_row = 2;
  const LinearRunner runner(kernel_, weights(n, k), n, k);
  const std::vector<float> x = make_inputs(rng_, m, k, Inputs::kNormal);
  const std::vector<float> good = runner.run(x, m);
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), -std::nanf(""), inf, -inf}) {
    for (const int64_t at : {int64_t{0}, k / 2, k - 1}) {
      std::vector<float> y = x;
      y[static_cast<size_t>(bad_row * k + at)] = bad;
      const std::vector<float> got = runner.run(y, m);
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t j = 0; j < n; ++j) {
          const float v = got[static_cast<size_t>(r * n + j)];
          if (r != bad_row) {
            ASSERT_EQ(0, std::memcmp(&v, &good[static_cast<size_t>(r * n + j)], sizeof(float)));
          } else if (std::isnan(bad) || runner.quantised_act()) {
            ASSERT_TRUE(std::isnan(v)) << v << " at output " << j << " for " << bad << " at " << at;
          } else {
            ASSERT_FALSE(std::isfinite(v))
                << v << " at output " << j << " for " << bad << " at " << at;
          }
        }
      }
    }
  }
}

TEST_P(Linear, NoRowsWriteNothing) {
  const int64_t n = 8, k = sizes_k().back();
  EXPECT_TRUE(LinearRunner(kernel_, weights(n, k), n, k).run({}, 0).empty());
}

std::string param_name(const testing::TestParamInfo<Linear::ParamType>& info) {
  const auto& [isa, type, mode] = info.param;
  return isa + "_" + std::string(name_of(type)) + (mode == ActMode::kFast ? "_fast" : "_precise");
}
INSTANTIATE_TEST_SUITE_P(All, Linear,
                         testing::Combine(testing::ValuesIn(isa_names()),
                                          testing::ValuesIn(kLinearTypes),
                                          testing::Values(ActMode::kFast, ActMode::kPrecise)),
                         param_name);

}  // namespace
}  // namespace infer::test
