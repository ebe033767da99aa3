#include <cmath>
#include <memory>
#include <optional>

#include "core/base/half.h"
#include "kernels/cpu/generic/linear_act.h"
#include "kernels/cuda/linear.h"
#include "tests/cuda_on_cpu/fixture.h"
#include "tests/ops/linear_support.h"

namespace infer::cuda::test {

using infer::test::Inputs;
using infer::test::make_inputs;
using infer::test::seed_of_test;

namespace {

constexpr double kUlp = 0x1p-23;
constexpr float kSentinel = -12345.0f;
constexpr uint16_t kHalfSentinel = 0x1234;

struct PrepareCase {
  int m = 1, live = 1, k = 32;
  NormKind kind = NormKind::kNone;
  bool weight = false, bias = false, residual = false;
  float eps = 1e-5f;
  std::vector<float> x = {};  ///< [live, k]; empty: random
};

struct Forms {
  std::vector<float> f32;
  std::vector<uint16_t> f16, bf16;
  std::vector<int8_t> q;
  std::vector<float2> ds;
};

class Problem {
 public:
  explicit Problem(PrepareCase c) : case_(std::move(c)) {
    std::mt19937_64 rng(seed_of_test() + static_cast<uint64_t>(case_.k));
    if (case_.x.empty()) case_.x = make_inputs(rng, case_.live, case_.k, Inputs::kNormal);
    for (float& v : case_.x) v += case_.kind == NormKind::kLayer ? 3.0f : 0.0f;
    weight_ = make_inputs(rng, 1, case_.k, Inputs::kNormal);
    bias_ = make_inputs(rng, 1, case_.k, Inputs::kNormal);
    residual_ = make_inputs(rng, case_.live, case_.k, Inputs::kNormal);
  }

  /// All forms, or f32 alone. told: what the device is told of live rows, case_.live unless said.
  Forms run(bool all = true, std::optional<int> told = {}) const {
    const auto n = static_cast<size_t>(case_.m) * static_cast<size_t>(case_.k);
    const bool q8 = all && case_.k % 32 == 0;
    DeviceArray<float> x(case_.x), weight(weight_), bias(bias_), residual(residual_);
    DeviceArray<int32_t> n_live(std::vector<int32_t>{told.value_or(case_.live)});
    DeviceArray<float> f32(std::vector<float>(n, kSentinel));
    DeviceArray<uint16_t> f16(std::vector<uint16_t>(n, kHalfSentinel));
    DeviceArray<uint16_t> bf16(std::vector<uint16_t>(n, kHalfSentinel));
    DeviceArray<int8_t> q(std::vector<int8_t>(n, 99));
    DeviceArray<float2> ds(std::vector<float2>(n / 32 + 1, {kSentinel, kSentinel}));
    PrepareArgs args;
    args.x = x.data(), args.m = case_.m, args.k = case_.k, args.n_live = n_live.data();
    args.norm = {case_.kind, case_.weight ? weight.data() : nullptr,
                 case_.bias ? bias.data() : nullptr, case_.eps};
    args.f32 = f32.data();
    if (all) args.f16 = f16.data(), args.bf16 = bf16.data();
    if (q8) args.q8 = {q.data(), ds.data()};
    if (case_.residual) args.residual_after = residual.data();
    EXPECT_EQ(prepare_act(args, nullptr), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_THAT(take_reports(), testing::IsEmpty());
    return {f32.host(), f16.host(), bf16.host(), q.host(), ds.host()};
  }

  /// Every form against f64; the rounded ones against the rounding of the f32 form, which is
  /// `plain` (without residual).
  void expect_right(const Forms& forms, const std::vector<float>& plain) const {
    const auto k = static_cast<size_t>(case_.k);
    for (size_t r = 0; r < static_cast<size_t>(case_.live); ++r) expect_row(forms, r);
    for (size_t i = 0; i < case_.x.size(); ++i) {
      const float v =
          std::isfinite(plain[i]) ? std::fmax(-65504.0f, std::fmin(65504.0f, plain[i])) : plain[i];
      if (!std::isnan(v)) {
        ASSERT_EQ(forms.f16[i], f16_from_f32(v)) << i;
        ASSERT_EQ(forms.bf16[i], bf16_from_f32(plain[i])) << i;
      } else {
        ASSERT_TRUE(std::isnan(f32_from_f16(forms.f16[i])));
        ASSERT_TRUE(std::isnan(f32_from_bf16(forms.bf16[i])));
      }
    }
    for (size_t i = case_.x.size(); i < forms.f32.size(); ++i)
      ASSERT_TRUE(forms.f32[i] == kSentinel && forms.f16[i] == kHalfSentinel &&
                  forms.bf16[i] == kHalfSentinel && forms.q[i] == 99)
          << "wrote beyond the live rows";
    if (k % 32 != 0) return;
    std::vector<kern::ActBlock> blocks(case_.x.size() / 32);
    kern::generic::prepare_q8(plain.data(), static_cast<int64_t>(case_.x.size()),
                              reinterpret_cast<std::byte*>(blocks.data()));
    for (size_t b = 0; b < blocks.size(); ++b) {
      ASSERT_TRUE(forms.ds[b].x == blocks[b].d ||
                  (std::isnan(blocks[b].d) && std::isnan(forms.ds[b].x)));
      ASSERT_TRUE(forms.ds[b].y == blocks[b].s ||
                  (std::isnan(blocks[b].s) && std::isnan(forms.ds[b].y)));
      for (size_t i = 0; i < 32; ++i) ASSERT_EQ(forms.q[32 * b + i], blocks[b].q[i]);
    }
    for (size_t b = blocks.size(); b < forms.ds.size(); ++b) ASSERT_EQ(forms.ds[b].x, kSentinel);
  }

 private:
  PrepareCase case_;
  std::vector<float> weight_, bias_, residual_;

  // A thread adds k / 1024 + 4 terms, the butterfly 5, the warps 8; square root, division and the
  // products round once each.
  void expect_row(const Forms& forms, size_t r) const {
    const auto k = static_cast<size_t>(case_.k);
    const float* x = case_.x.data() + r * k;
    double mean = 0.0, magnitude = 0.0, sum = 0.0;
    for (size_t i = 0; i < k; ++i) {
      mean += x[i] / static_cast<double>(k);
      magnitude += std::fabs(x[i]) / static_cast<double>(k);
    }
    if (case_.kind != NormKind::kLayer) mean = 0.0;
    for (size_t i = 0; i < k; ++i) sum += (x[i] - mean) * (x[i] - mean);
    const double inverse =
        case_.kind == NormKind::kNone
            ? 1.0
            : 1.0 / std::sqrt(sum / static_cast<double>(k) + static_cast<double>(case_.eps));
    const double steps = static_cast<double>(k) / 1024 + 24;
    // An error of the mean moves the variance in the second order, and by the mean of the rest.
    const double mean_error = case_.kind == NormKind::kLayer ? steps * kUlp * magnitude : 0.0;
    const double relative = steps * kUlp + mean_error * inverse;
    for (size_t i = 0; i < k; ++i) {
      const double w = case_.weight && case_.kind != NormKind::kNone ? weight_[i] : 1.0;
      const double b = case_.bias && case_.kind != NormKind::kNone ? bias_[i] : 0.0;
      const double res = case_.residual ? residual_[r * k + i] : 0.0;
      const double plain = (x[i] - mean) * inverse * w;
      double error = kUlp * (std::fabs(plain) + std::fabs(b) + std::fabs(res)) * 2;
      if (case_.kind == NormKind::kNone && !case_.residual) error = 0.0;
      if (case_.kind != NormKind::kNone)
        error += std::fabs(plain) * relative + mean_error * inverse * std::fabs(w);
      if (std::isnan(plain)) {
        ASSERT_TRUE(std::isnan(forms.f32[r * k + i]));
        continue;
      }
      ASSERT_TRUE(forms.f32[r * k + i] == plain + b + res ||
                  std::fabs(forms.f32[r * k + i] - (plain + b + res)) <= error)
          << "row " << r << " column " << i << ": " << forms.f32[r * k + i] << " for "
          << plain + b + res << " +- " << error;
    }
  }
};

void test_case(PrepareCase c) {
  SCOPED_TRACE(testing::Message() << "m " << c.m << " live " << c.live << " k " << c.k << " norm "
                                  << static_cast<int>(c.kind));
  const bool residual = c.residual;
  c.residual = false;
  const Problem without(c);
  const std::vector<float> plain = without.run(false).f32;
  c.residual = residual;
  const Problem problem(c);
  problem.expect_right(problem.run(), plain);
}

constexpr NormKind kNorms[] = {NormKind::kNone, NormKind::kRms, NormKind::kLayer};

}  // namespace

class PrepareAct : public Emulated {};

TEST_F(PrepareAct, RowsOfEveryLength) {
  for (const NormKind kind : kNorms)
    for (const int k :
         {1, 3, 4, 31, 32, 33, 64, 96, 127, 128, 160, 172, 256, 257, 1024, 1056, 2304})
      test_case({.m = 3, .live = 2, .k = k, .kind = kind, .weight = true, .bias = k % 2 == 0});
}

TEST_F(PrepareAct, NormsWithAndWithoutWeightBiasResidual) {
  for (const NormKind kind : kNorms)
    for (const bool weight : {false, true})
      for (const bool bias : {false, true})
        for (const bool residual : {false, true})
          test_case({.m = 2,
                     .live = 2,
                     .k = 96,
                     .kind = kind,
                     .weight = weight,
                     .bias = bias,
                     .residual = residual});
}

TEST_F(PrepareAct, NoLiveRowsAndManyRows) {
  test_case({.m = 4, .live = 0, .k = 64, .kind = NormKind::kRms});
  test_case({.m = 257, .live = 256, .k = 64, .kind = NormKind::kRms});
}

TEST_F(PrepareAct, WrongNumbersOfLiveRows) {
  const Problem problem({.m = 3, .live = 3, .k = 64, .kind = NormKind::kRms});
  const Forms all = problem.run();
  EXPECT_EQ(problem.run(true, 1000).f32, all.f32);
  const Forms none = problem.run(true, -1);
  for (const float v : none.f32) EXPECT_EQ(v, kSentinel);
}

TEST_F(PrepareAct, NoRowsAreSuccess) {
  PrepareArgs args;
  args.k = 32;
  EXPECT_EQ(prepare_act(args, nullptr), cudaSuccess);
}

// Beyond f16's range, not finite, below what 8 bits can tell from zero, ties.
TEST_F(PrepareAct, SpecialValues) {
  std::vector<float> x(256, 0.5f);
  x[0] = 65520.0f, x[1] = -1e30f, x[2] = 65504.0f;
  x[40] = INFINITY, x[70] = NAN, x[101] = -INFINITY;
  for (size_t i = 128; i < 160; ++i) x[i] = 0x1p-101f;
  for (size_t i = 160; i < 192; ++i) x[i] = static_cast<float>(i) - 176.5f;
  x[191] = 127.0f;
  for (size_t i = 192; i < 224; ++i) x[i] = 0x1p-130f * static_cast<float>(i);
  test_case({.k = 256, .x = x});
}

TEST_F(PrepareAct, ANanStaysInItsRow) {
  std::vector<float> x(192, 1.0f);
  x[70] = NAN;
  const Forms forms = Problem({.m = 3, .live = 3, .k = 64, .kind = NormKind::kRms, .x = x}).run();
  for (size_t i = 0; i < 192; ++i) EXPECT_EQ(std::isnan(forms.f32[i]), i / 64 == 1) << i;
}

TEST_F(PrepareAct, TenSeedsGiveTheSameBits) {
  for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    const Problem problem({.m = 3, .live = 3, .k = 1184, .kind = kind, .weight = true});
    const Forms first = problem.run();
    for (uint64_t seed = 2; seed <= 10; ++seed) {
      emulated::set_seed(seed);
      const Forms again = problem.run();
      EXPECT_EQ(again.f32, first.f32) << "seed " << seed;
      EXPECT_EQ(again.f16, first.f16);
      EXPECT_EQ(again.bf16, first.bf16);
      EXPECT_EQ(again.q, first.q);
    }
  }
}

}  // namespace infer::cuda::test
