#include "core/base/quant_blocks.h"
#include "quantize/encode/fit.h"
#include "quantize/encode/rows.h"

/// IQ4_NL: x ~ d * kIq4Levels[q]. A grid of scales that put the extreme weight on or beyond the
/// outermost level, of both signs, each improved to its least-squares scale; then in turns the
/// nearest levels and the best scale for them.
namespace infer::quantize::INFER_ENCODE_LEVEL {
namespace {

constexpr int kN = kBlock32;
constexpr int kW = 8;  ///< blocks at a time
constexpr float kFlat = 1.5f;
constexpr int kGrid = 9;
constexpr int kRefine = 2;

/// A copy as floats: the table itself is shared between levels (style.md 2.6).
struct LevelTable {
  float v[16];
};
constexpr LevelTable make_levels() {
  LevelTable t{};
  for (int i = 0; i < 16; ++i) t.v[i] = kIq4Levels[i];
  return t;
}
constexpr LevelTable kLevels = make_levels();

/// Index and value of the level nearest to each lane.
struct Nearest {
  F32<kW> index, level;
};
INFER_INLINE Nearest nearest(const F32<kW>& y) {
  const F32<kW> one = F32<kW>::of(1.0f);
  Nearest r{F32<kW>::of(0.0f), F32<kW>::of(kLevels.v[0])};
  for (int i = 1; i < 16; ++i) {
    const float middle = 0.5f * (kLevels.v[i - 1] + kLevels.v[i]);
    const I32<kW> above = y > F32<kW>::of(middle);
    r.index = select(above, r.index + one, r.index);
    r.level = select(above, F32<kW>::of(kLevels.v[i]), r.level);
  }
  return r;
}

INFER_INLINE LevelSums<kW> level_sums(const Blocks<kN, kW>& b, const F32<kW>& s) {
  const F32<kW> zero = F32<kW>::of(0.0f);
  const F32<kW> inverse = inverse_of(s);
  LevelSums<kW> t{zero, zero, zero};
  for (int i = 0; i < kN; ++i) {
    const F32<kW> level = nearest(b.x[i] * inverse).level;
    const F32<kW> wl = b.w[i] * level;
    t.qq = t.qq + wl * level;
    t.qx = t.qx + wl * b.x[i];
  }
  return t;
}

INFER_INLINE F32<kW> search(const Blocks<kN, kW>& b) {
  F32<kW> extreme = b.x[0];
  for (int i = 1; i < kN; ++i) extreme = select(abs(b.x[i]) > abs(extreme), b.x[i], extreme);
  F32<kW> best = extreme * F32<kW>::of(1.0f / kLevels.v[0]);
  F32<kW> best_gain = F32<kW>::of(0.0f);
  const auto consider = [&](const F32<kW>& start) {
    const LevelSums<kW> t = level_sums(b, start);
    const F32<kW> fit = t.qx * inverse_of(t.qq);
    const I32<kW> better = fit * t.qx > best_gain;
    keep(better, fit * t.qx, &best_gain);
    keep(better, fit, &best);
  };
  for (int end = 0; end < 16; end += 15) {
    for (int g = 0; g < kGrid; ++g) {
      const float reach = kLevels.v[end] * (0.86f + 0.04f * static_cast<float>(g));
      consider(extreme * F32<kW>::of(1.0f / reach));
    }
  }
  for (int r = 0; r < kRefine; ++r) consider(best);
  return best;
}

}  // namespace

void encode_iq4_nl(const float* x, const float* importance, int64_t n_k, std::byte* out) {
  constexpr int64_t kStep = kN * kW;
  for (int64_t k = 0; k < n_k; k += kStep) {
    const int n = n_k - k < kStep ? static_cast<int>((n_k - k) / kN) : kW;
    alignas(64) float block_x[kStep] = {};
    alignas(64) float weight[kStep] = {};
    std::memcpy(block_x, x + k, sizeof(float) * kN * static_cast<size_t>(n));
    if (importance != nullptr)
      std::memcpy(weight, importance + k, sizeof(float) * kN * static_cast<size_t>(n));
    Blocks<kN, kW> b;
    load_blocks<1>(block_x, importance == nullptr ? nullptr : weight, kFlat, &b);
    const F32<kW> s = per_lane(search(b), nearest_half);
    const F32<kW> inverse = inverse_of(s);
    F32<kW> levels[kN];
    for (int i = 0; i < kN; ++i) levels[i] = nearest(b.x[i] * inverse).index;
    uint8_t q[kN * kW];
    store_levels(levels, 0.0f, q);
    alignas(64) float d[kW];
    s.store(d);
    for (int j = 0; j < n; ++j) {
      BlockIQ4_NL block;
      block.d = f16_from_f32(d[j]);
      for (int i = 0; i < 16; ++i)
        block.qs[i] = static_cast<uint8_t>(q[kN * j + i] | q[kN * j + 16 + i] << 4);
      std::memcpy(out, &block, sizeof(block));
      out += sizeof(block);
    }
  }
}

}  // namespace infer::quantize::INFER_ENCODE_LEVEL
