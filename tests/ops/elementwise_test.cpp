#include <algorithm>
#include <functional>

#include "tests/ops/ops_support.h"

namespace infer::test {
namespace {

using kern::GluKind;

/// Exponentials below the normal range are flushed to 0: |x| 2^-126 for |x| <= 110.
constexpr double kTiny = 110 * 0x1p-126;

class Elementwise : public IsaTest {
 protected:
  /// Every size and sign of number: a dense sweep of [-110, 110], then all exponents down to the
  /// subnormals.
  static std::vector<float> sweep() {
    std::vector<float> x;
    for (int i = -440000; i <= 440000; ++i) x.push_back(static_cast<float>(i) * 0.00025f);
    for (double f = 1e-44; f < 1e4; f *= 1.01) {
      x.push_back(static_cast<float>(f));
      x.push_back(static_cast<float>(-f));
    }
    return x;
  }
  std::vector<float> activate(GluKind kind, std::span<const float> gate) {
    const std::vector<float> ones(gate.size(), 1.0f);
    std::vector<float> y(gate.size());
    kernels.glu(kind, gate.data(), ones.data(), static_cast<int64_t>(gate.size()), y.data());
    return y;
  }
};

TEST_P(Elementwise, AddMulScaleAreExact) {
  for (int64_t n = 1; n <= 40; ++n) {
    const std::vector<float> a = uniforms(n, -4.0f, 4.0f), b = uniforms(n, -4.0f, 4.0f);
    std::vector<float> sum(a.size()), product(a.size()), scaled(a.size());
    kernels.add(a.data(), b.data(), n, sum.data());
    kernels.mul(a.data(), b.data(), n, product.data());
    kernels.scale(a.data(), 0.3f, n, scaled.data());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_TRUE(same_bits(sum[i], a[i] + b[i]));
      ASSERT_TRUE(same_bits(product[i], a[i] * b[i]));
      ASSERT_TRUE(same_bits(scaled[i], a[i] * 0.3f));
    }
    std::vector<float> in_place = a;
    kernels.add(in_place.data(), b.data(), n, in_place.data());
    EXPECT_EQ(first_difference(in_place, sum), -1);
    in_place = b;
    kernels.mul(a.data(), in_place.data(), n, in_place.data());
    EXPECT_EQ(first_difference(in_place, product), -1);
  }
}

TEST_P(Elementwise, SiluMatchesF64) {
  const std::vector<float> x = sweep();
  const std::vector<float> y = activate(GluKind::kSilu, x);
  double worst = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = x[i] / (1.0 + std::exp(-static_cast<double>(x[i])));
    const double err = std::fabs(y[i] - want);
    ASSERT_TRUE(err <= 3.5 * ulp_of(want) + kTiny)
        << "x " << x[i] << " y " << y[i] << " want " << want;
    if (std::fabs(want) > 1e-30) worst = std::max(worst, err / ulp_of(want));
  }
  RecordProperty("worst_ulp", std::to_string(worst));
}

// u2 = 2u carries two roundings (2 u |u2| in the exponent, of which a rounding of x^2 counts half),
// then the sigmoid.
TEST_P(Elementwise, GeluTanhMatchesF64) {
  const std::vector<float> x = sweep();
  const std::vector<float> y = activate(GluKind::kGeluTanh, x);
  for (size_t i = 0; i < x.size(); ++i) {
    const double xd = x[i];
    const double u2 = 2.0 * std::sqrt(2.0 / M_PI) * (xd + 0.044715 * xd * xd * xd);
    const double want = xd / (1.0 + std::exp(-u2));
    const double exponent = u2 < 0 ? -u2 : u2 * std::exp(-u2);  // how far an error of u2 goes
    const double bound = std::fabs(want) * kEps * (7.0 + 4.0 * exponent) + kTiny;
    ASSERT_TRUE(std::fabs(y[i] - want) <= bound)
        << "x " << x[i] << " y " << y[i] << " want " << want;
    if (xd > -3.0) {  // gelu_pytorch_tanh, relative
      ASSERT_TRUE(std::fabs(y[i] - want) <= 1e-6 * std::fabs(want) + kTiny) << "x " << x[i];
    }
    const double cancelling = 0.5 * xd * (1.0 + std::tanh(u2 / 2));  // as its definition writes it
    ASSERT_TRUE(std::fabs(y[i] - cancelling) <= 1e-6 * std::max(1.0, std::fabs(want)));
  }
}

TEST_P(Elementwise, GeluErfMatchesF64) {
  const std::vector<float> x = sweep();
  const std::vector<float> y = activate(GluKind::kGeluErf, x);
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = 0.5 * x[i] * std::erfc(-static_cast<double>(x[i]) * M_SQRT1_2);
    ASSERT_TRUE(std::fabs(y[i] - want) <= 9 * ulp_of(want) + kTiny)
        << "x " << x[i] << " y " << y[i] << " want " << want;
  }
}

TEST_P(Elementwise, SoftcapMatchesF64) {
  const std::vector<float> x = sweep();
  for (const float cap : {1.0f, 30.0f, 50.0f}) {
    std::vector<float> y(x.size());
    kernels.softcap(x.data(), cap, static_cast<int64_t>(x.size()), y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = cap * std::tanh(static_cast<double>(x[i]) / cap);
      // Below the normal range the division has already lost digits: its unit is cap * 2^-149.
      ASSERT_TRUE(std::fabs(y[i] - want) <= 3.5 * ulp_of(want) + cap * 0x1p-149)
          << "x " << x[i] << " cap " << cap << " y " << y[i] << " want " << want;
    }
  }
}

TEST_P(Elementwise, UpIsMultiplied) {
  const std::vector<float> gate = uniforms(37, -4.0f, 4.0f), up = uniforms(37, -4.0f, 4.0f);
  for (const GluKind kind : {GluKind::kSilu, GluKind::kGeluTanh, GluKind::kGeluErf}) {
    std::vector<float> y = gate;
    kernels.glu(kind, y.data(), up.data(), 37, y.data());  // in place
    const std::vector<float> act = activate(kind, gate);
    for (size_t i = 0; i < y.size(); ++i) ASSERT_TRUE(same_bits(y[i], act[i] * up[i])) << i;
  }
}

// An element's bits depend on its input only: alone, in a tail, anywhere; nothing is written past
// the end.
TEST_P(Elementwise, PlaceAndNeighboursDoNotMatter) {
  using Run = std::function<void(const float*, int64_t, float*)>;
  const std::vector<float> ones(64, 1.0f);
  const Run runs[] = {[&](const float* x, int64_t n, float* y) { kernels.softcap(x, 20.0f, n, y); },
                      [&](const float* x, int64_t n, float* y) {
                        kernels.glu(GluKind::kSilu, x, ones.data(), n, y);
                      },
                      [&](const float* x, int64_t n, float* y) {
                        kernels.glu(GluKind::kGeluTanh, x, ones.data(), n, y);
                      },
                      [&](const float* x, int64_t n, float* y) {
                        kernels.glu(GluKind::kGeluErf, x, ones.data(), n, y);
                      }};
  for (const Run& run : runs) {
    const std::vector<float> x = uniforms(48, -6.0f, 6.0f);
    std::vector<float> whole(48);
    run(x.data(), 48, whole.data());
    for (int64_t at = 0; at < 9; ++at) {
      for (int64_t n = 1; n <= 36; ++n) {
        std::vector<float> in(48, kNaN), out(48, 77.0f);
        std::copy_n(x.begin() + at, n, in.begin() + at);
        run(in.data() + at, n, out.data() + at);
        for (int64_t i = 0; i < 48; ++i) {
          const bool inside = i >= at && i < at + n;
          const size_t j = static_cast<size_t>(i);
          ASSERT_TRUE(same_bits(out[j], inside ? whole[j] : 77.0f))
              << "at " << at << " n " << n << " i " << i;
        }
      }
    }
  }
}

// Every payload and sign of NaN, the ones that exponent arithmetic could turn into numbers among
// them.
TEST_P(Elementwise, NaNStaysNaN) {
  std::vector<float> x;
  for (const uint32_t bits :
       {0x7fc00000u, 0xffc00000u, 0x7fffffffu, 0xffffffffu, 0x7fc001ffu, 0xffc000ffu}) {
    x.push_back(std::bit_cast<float>(bits));
  }
  for (const GluKind kind : {GluKind::kSilu, GluKind::kGeluTanh, GluKind::kGeluErf}) {
    for (const float v : activate(kind, x)) EXPECT_TRUE(std::isnan(v));
    const float inf = activate(kind, std::vector<float>{kInf})[0];
    EXPECT_EQ(inf, kInf);
  }
  std::vector<float> y(x.size());
  kernels.softcap(x.data(), 30.0f, static_cast<int64_t>(x.size()), y.data());
  for (const float v : y) EXPECT_TRUE(std::isnan(v));
  const float ends[] = {kInf, -kInf};
  kernels.softcap(ends, 30.0f, 2, y.data());
  EXPECT_EQ(y[0], 30.0f);
  EXPECT_EQ(y[1], -30.0f);
}

INFER_FOR_EACH_ISA(Elementwise);

}  // namespace
}  // namespace infer::test
