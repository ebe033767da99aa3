#include "tests/ops/ops_support.h"

namespace infer::test {
namespace {

constexpr int64_t kSizes[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 576, 577, 2048, 4099};

class Norm : public IsaTest {
 protected:
  /// Runs `norm` on a copy of x that sits at a given offset between sentinels, and checks that
  /// these survive.
  template <class Fn>
  std::vector<float> run_at(int64_t offset, std::span<const float> x, Fn norm) {
    const size_t begin = static_cast<size_t>(offset);
    std::vector<float> in(x.size() + 32, kNaN), out(x.size() + 32, 77.0f), inside;
    for (size_t i = 0; i < x.size(); ++i) in[begin + i] = x[i];
    norm(in.data() + offset, out.data() + offset);
    for (size_t i = 0; i < out.size(); ++i) {
      if (i >= begin && i < begin + x.size()) {
        inside.push_back(out[i]);
      } else {
        EXPECT_EQ(out[i], 77.0f) << "wrote outside at " << i;
      }
    }
    return inside;
  }
};

// The sum is f64; the inverse, x * inverse and * w round once each to f32 (u |y| a rounding, first
// order).
TEST_P(Norm, RmsMatchesF64) {
  for (const int64_t n : kSizes) {
    for (const bool weighted : {true, false}) {
      const std::vector<float> x = uniforms(n, -3.0f, 5.0f), w = uniforms(n, -2.0f, 2.0f);
      const float eps = 1e-5f;
      double sum = 0.0;
      for (const float v : x) sum += static_cast<double>(v) * v;
      const double inv = 1.0 / std::sqrt(sum / static_cast<double>(n) + eps);
      std::vector<double> want, bound;
      for (size_t i = 0; i < x.size(); ++i) {
        want.push_back(x[i] * inv * (weighted ? w[i] : 1.0));
        bound.push_back(3.01 * kEps * std::fabs(want.back()));
      }
      std::vector<float> y(x.size());
      kernels.rms_norm(x.data(), weighted ? w.data() : nullptr, eps, n, y.data());
      ASSERT_TRUE(within(y, want, bound)) << "n " << n;
      std::vector<float> in_place = x;
      kernels.rms_norm(in_place.data(), weighted ? w.data() : nullptr, eps, n, in_place.data());
      ASSERT_EQ(first_difference(in_place, y), -1) << "n " << n;
    }
  }
}

// Mean and variance are f64 (relative error n 2^-52, allowed for by 1e-9); one rounding of the
// quotient, one a factor, one of the sum.
TEST_P(Norm, LayerMatchesF64) {
  for (const int64_t n : kSizes) {
    for (int form = 0; form < 4; ++form) {
      const std::vector<float> x = uniforms(n, 90.0f, 110.0f);  // a mean far from 0
      const std::vector<float> w = uniforms(n, -2.0f, 2.0f), b = uniforms(n, -2.0f, 2.0f);
      const float eps = 1e-5f;
      double mean = 0.0, var = 0.0;
      for (const float v : x) mean += v / static_cast<double>(n);
      for (const float v : x) var += (v - mean) * (v - mean) / static_cast<double>(n);
      const double inv = 1.0 / std::sqrt(var + eps);
      std::vector<double> want, bound;
      for (size_t i = 0; i < x.size(); ++i) {
        const double scaled = (x[i] - mean) * inv * (form & 1 ? w[i] : 1.0);
        want.push_back(scaled + (form & 2 ? b[i] : 0.0));
        bound.push_back(2.01 * kEps * std::fabs(scaled) + kEps * std::fabs(want.back()) + 1e-9);
      }
      std::vector<float> y(x.size());
      kernels.layer_norm(x.data(), form & 1 ? w.data() : nullptr, form & 2 ? b.data() : nullptr,
                         eps, n, y.data());
      ASSERT_TRUE(within(y, want, bound)) << "n " << n << " form " << form;
    }
  }
}

TEST_P(Norm, PlaceAndNeighboursDoNotMatter) {
  for (const int64_t n : kSizes) {
    const std::vector<float> x = uniforms(n, -3.0f, 3.0f), w = uniforms(n, -2.0f, 2.0f);
    const auto rms = [&](const float* in, float* out) {
      kernels.rms_norm(in, w.data(), 1e-6f, n, out);
    };
    const auto layer = [&](const float* in, float* out) {
      kernels.layer_norm(in, w.data(), w.data(), 1e-6f, n, out);
    };
    const std::vector<float> rms0 = run_at(8, x, rms), layer0 = run_at(8, x, layer);
    for (const int64_t offset : {9, 11, 15}) {
      ASSERT_EQ(first_difference(run_at(offset, x, rms), rms0), -1) << "n " << n;
      ASSERT_EQ(first_difference(run_at(offset, x, layer), layer0), -1) << "n " << n;
    }
  }
}

TEST_P(Norm, NaNSpreadsOverTheRow) {
  for (const int64_t n : {1, 9, 33, 576}) {
    std::vector<float> x = uniforms(n, -1.0f, 1.0f), y(x.size());
    x[x.size() / 2] = kNaN;
    kernels.rms_norm(x.data(), nullptr, 1e-5f, n, y.data());
    for (const float v : y) ASSERT_TRUE(std::isnan(v));
    kernels.layer_norm(x.data(), nullptr, nullptr, 1e-5f, n, y.data());
    for (const float v : y) ASSERT_TRUE(std::isnan(v));
  }
}

TEST_P(Norm, HugeAndZeroRows) {
  std::vector<float> x(40, 1e30f), y(40);
  kernels.rms_norm(x.data(), nullptr, 1e-5f, 40, y.data());
  for (const float v : y) EXPECT_NEAR(v, 1.0f, 1e-6);
  x.assign(40, 0.0f);
  kernels.rms_norm(x.data(), nullptr, 1e-5f, 40, y.data());
  for (const float v : y) EXPECT_EQ(v, 0.0f);
}

INFER_FOR_EACH_ISA(Norm);

}  // namespace
}  // namespace infer::test
