// One activation row has kernels of its own (linear_gemv.h of each level): they give the bits that
// the row has in a batch. linear_test.cpp judges batches against f64.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/cpu_features.h"
#include "core/base/quant_types.h"
#include "kernels/cpu/dispatch.h"
#include "tests/ops/linear_support.h"

namespace infer::test {
namespace {

using kern::ActMode;

class LinearOneRow : public testing::TestWithParam<std::tuple<std::string, DType>> {
 protected:
  void SetUp() override {
    const auto table = kern::select_kernels(detect_cpu_features(), std::get<0>(GetParam()));
    if (!table.ok()) GTEST_SKIP() << table.error().message;
    kernel_ = table->linear[static_cast<int>(ActMode::kFast)][static_cast<int>(type())];
    rng_.seed(seed_of_test());
  }
  DType type() const { return std::get<1>(GetParam()); }
  int64_t block_len() const { return quant_type(type()).block_len; }
  void expect_bits_of_batch(std::span<const std::byte> file, std::span<const float> x, int64_t n,
                            int64_t k);

  static constexpr int64_t kRows = 5;
  kern::LinearKernel kernel_;
  std::mt19937_64 rng_;
};

bool same(float a, float b) {
  return std::memcmp(&a, &b, sizeof(float)) == 0 || (std::isnan(a) && std::isnan(b));
}

/// Each of kRows rows alone, over every range of outputs, against all rows at once.
void LinearOneRow::expect_bits_of_batch(std::span<const std::byte> file, std::span<const float> x,
                                        int64_t n, int64_t k) {
  const LinearRunner runner(kernel_, file, n, k);
  const std::vector<float> batch = runner.run(x, kRows);
  const int64_t step = std::max<int64_t>(kernel_.n_align, 8);
  for (int64_t r = 0; r < kRows; ++r) {
    const std::span<const float> row = x.subspan(static_cast<size_t>(r * k));
    for (int64_t begin = 0; begin < n; begin += step) {
      for (int64_t end = begin; end < n;) {
        end = std::min(n, end + step);
        const std::vector<float> alone = runner.run(row, 1, begin, end);
        for (int64_t j = begin; j < end; ++j) {
          const float got = alone[static_cast<size_t>(j - begin)];
          const float want = batch[static_cast<size_t>(r * n + j)];
          ASSERT_TRUE(same(got, want))
              << got << " instead of " << want << ": row " << r << " output " << j << " of "
              << begin << ".." << end << ", n " << n << " k " << k << ", seed " << seed_of_test();
        }
      }
    }
  }
}

TEST_P(LinearOneRow, HasTheBitsOfABatch) {
  // One block, less and more than what is fetched ahead; whole panels, tails, odd numbers of them.
  for (const int64_t k : {block_len(), 3 * block_len(), int64_t{5 * 1024}}) {
    for (const int64_t n : {1, 8, 9, 16, 23, 32, 45}) {
      const std::vector<std::byte> file =
          make_weights(rng_, type(), n, k, Levels::kRandom, Scales::kNormal);
      const std::vector<float> x = make_inputs(rng_, kRows, k, Inputs::kNormal);
      ASSERT_NO_FATAL_FAILURE(expect_bits_of_batch(file, x, n, k));
    }
  }
}

// Batches share rows out to inner loops of their own for each number of rows, and the blocks of a
// row to stretches.
TEST_P(LinearOneRow, HasTheBitsOfABatchOfAnySize) {
  constexpr int64_t kMost = 17, n = 19;
  const int64_t k = (672 / block_len() + 1) * block_len();  // more than one stretch, uneven
  const std::vector<std::byte> file =
      make_weights(rng_, type(), n, k, Levels::kRandom, Scales::kNormal);
  const LinearRunner runner(kernel_, file, n, k);
  const std::vector<float> x = make_inputs(rng_, kMost, k, Inputs::kNormal);
  std::vector<float> alone;
  for (int64_t r = 0; r < kMost; ++r) {
    const std::vector<float> row =
        runner.run(std::span(x).subspan(static_cast<size_t>(r * k), static_cast<size_t>(k)), 1);
    alone.insert(alone.end(), row.begin(), row.end());
  }
  for (int64_t m = 2; m <= kMost; ++m) {
    const std::vector<float> batch = runner.run(x, m);
    for (size_t i = 0; i < batch.size(); ++i) {
      ASSERT_TRUE(same(batch[i], alone[i])) << batch[i] << " instead of " << alone[i] << ": output "
                                            << i << " of " << m << " rows, seed " << seed_of_test();
    }
  }
}

TEST_P(LinearOneRow, ExtremeLevelsAndActivations) {
  const int64_t n = 19, k = 3 * block_len();
  for (const Levels levels : {Levels::kAllOnes, Levels::kAllZeros, Levels::kSignBits}) {
    for (const Scales scales : {Scales::kNormal, Scales::kLargest, Scales::kSubnormal}) {
      for (const Inputs inputs : {Inputs::kPlusOne, Inputs::kMinusOne, Inputs::kAlternating}) {
        SCOPED_TRACE(testing::Message()
                     << "levels " << static_cast<int>(levels) << " scales "
                     << static_cast<int>(scales) << " inputs " << static_cast<int>(inputs));
        const std::vector<std::byte> file = make_weights(rng_, type(), n, k, levels, scales);
        ASSERT_NO_FATAL_FAILURE(
            expect_bits_of_batch(file, make_inputs(rng_, kRows, k, inputs), n, k));
      }
    }
  }
}

TEST_P(LinearOneRow, AnyBytesAreWeights) {  // scales that are NaN or infinite among them
  const int64_t n = 37, k = 3 * block_len();
  for (int trial = 0; trial < 8; ++trial) {
    std::vector<std::byte> file(static_cast<size_t>(n * row_bytes(type(), k).value()));
    for (std::byte& b : file) b = static_cast<std::byte>(rng_());
    std::vector<float> x = make_inputs(rng_, kRows, k, Inputs::kNormal);
    x[static_cast<size_t>(k + 1)] = std::nanf("");
    ASSERT_NO_FATAL_FAILURE(expect_bits_of_batch(file, x, n, k));
  }
}

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const std::string_view isa : kern::built_isa_levels()) names.emplace_back(isa);
  return names;
}
std::string param_name(const testing::TestParamInfo<LinearOneRow::ParamType>& info) {
  return std::get<0>(info.param) + "_" + std::string(name_of(std::get<1>(info.param)));
}
INSTANTIATE_TEST_SUITE_P(
    All, LinearOneRow,
    testing::Combine(testing::ValuesIn(isa_names()),
                     testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                     DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
                                     DType::kQ2_K, DType::kQ3_K, DType::kIQ4_NL, DType::kIQ4_XS)),
    param_name);

}  // namespace
}  // namespace infer::test
