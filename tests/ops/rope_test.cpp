#include "tests/ops/ops_support.h"

namespace infer::test {
namespace {

using kern::RopeKind;

class Rope : public IsaTest {};

// Two products and a sum round: 3 u (|a cos| + |b sin|) covers both orders, fused or not.
TEST_P(Rope, MatchesF64) {
  struct Shape {
    int64_t head_dim, rope_dim;
  };
  for (const RopeKind kind : {RopeKind::kNorm, RopeKind::kNeox}) {
    for (const Shape s :
         {Shape{2, 2}, {8, 8}, {64, 64}, {64, 32}, {80, 20}, {96, 96}, {128, 128}, {100, 50}}) {
      const int64_t n_head = 3, half = s.rope_dim / 2;
      const std::vector<float> x = uniforms(n_head * s.head_dim, -4.0f, 4.0f);
      std::vector<float> cos_sin;
      for (int64_t i = 0; i < half; ++i) {
        const float angle = uniform(-100.0f, 100.0f);
        cos_sin.push_back(std::cos(angle));
        cos_sin.push_back(std::sin(angle));
      }
      std::vector<double> want(x.begin(), x.end()), bound(x.size(), 0.0);
      for (int64_t h = 0; h < n_head; ++h) {
        for (int64_t i = 0; i < half; ++i) {
          const size_t c = static_cast<size_t>(2 * i);
          const int64_t first = kind == RopeKind::kNorm ? 2 * i : i;
          const size_t ia = static_cast<size_t>(h * s.head_dim + first);
          const size_t ib = ia + static_cast<size_t>(kind == RopeKind::kNorm ? 1 : half);
          const double a = x[ia], b = x[ib], co = cos_sin[c], si = cos_sin[c + 1];
          want[ia] = a * co - b * si;
          want[ib] = b * co + a * si;
          bound[ia] = 3 * kEps * (std::fabs(a * co) + std::fabs(b * si));
          bound[ib] = 3 * kEps * (std::fabs(b * co) + std::fabs(a * si));
        }
      }
      std::vector<float> y = x;
      kernels.rope(kind, y.data(), n_head, s.head_dim, s.rope_dim, cos_sin.data());
      ASSERT_TRUE(within(y, want, bound))
          << "head_dim " << s.head_dim << " rope_dim " << s.rope_dim;
    }
  }
}

// A pair's bits are the same in a register, in a tail and alone.
TEST_P(Rope, PairAloneEqualsPairInARow) {
  for (const RopeKind kind : {RopeKind::kNorm, RopeKind::kNeox}) {
    const int64_t half = 23;
    std::vector<float> x = uniforms(2 * half, -4.0f, 4.0f);
    const std::vector<float> cos_sin = uniforms(2 * half, -1.0f, 1.0f);
    const std::vector<float> before = x;
    kernels.rope(kind, x.data(), 1, 2 * half, 2 * half, cos_sin.data());
    for (int64_t i = 0; i < half; ++i) {
      const size_t ia = static_cast<size_t>(kind == RopeKind::kNorm ? 2 * i : i);
      const size_t ib = kind == RopeKind::kNorm ? ia + 1 : ia + static_cast<size_t>(half);
      float pair[2] = {before[ia], before[ib]};
      kernels.rope(kind, pair, 1, 2, 2, cos_sin.data() + 2 * i);
      ASSERT_TRUE(same_bits(pair[0], x[ia]) && same_bits(pair[1], x[ib])) << "pair " << i;
    }
  }
}

INFER_FOR_EACH_ISA(Rope);

}  // namespace
}  // namespace infer::test
