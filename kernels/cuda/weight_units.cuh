#pragma once

#include "kernels/cuda/quant_dot_k.cuh"

/// Weights of any type as a lane of a gemv takes them: units of a row (quant_dot.cuh), loaded by
/// row, and their values in f32.
namespace infer::cuda {

constexpr bool is_float_type(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

template <DType kType>
struct WeightUnits : QuantDot<kType> {
  using Dot = QuantDot<kType>;
  using Raw = typename Dot::Raw;
  using At = UnitParts<Dot::kParts>;
  /// The row's four neighbours that values() calls 4i..4i + 3.
  INFER_DEVICE static unsigned quad(unsigned unit, unsigned i) {
    return 4 * Dot::group(unit, i / 4) + i % 4;
  }
  /// Unit `unit` of row `row`; rows of k weights are `units` units.
  INFER_DEVICE static void find(const Planes& p, int row, int unit, int units, int /*k*/, At& at) {
    Dot::find(
        p, static_cast<uint32_t>(row) * static_cast<uint32_t>(units) + static_cast<uint32_t>(unit),
        at);
  }
  /// The unit that is `eights` times eight units further. `left`: weights of the row from there on.
  INFER_DEVICE static Raw load(const At& at, int eights, int /*left*/) {
    At there;
#pragma unroll
    for (int p = 0; p < Dot::kParts; ++p)
      there[p] = at[p] + static_cast<int64_t>(eights) * Dot::bytes_of_8(p);
    return Dot::load(there);
  }
  INFER_DEVICE static void values(const Raw& raw, int unit, float (&w)[Dot::kUnit]) {
    const auto t = Dot::decode(raw, static_cast<uint32_t>(unit));
#pragma unroll
    for (int i = 0; i < Dot::kUnit; ++i) {
      const int g = i / 16;
      // A byte with its sign bit flipped is the level plus 128.
      const float level = float_from_byte(t.level[g][i % 16 / 4] ^ 0x80808080u, i % 4, 128.0f);
      w[i] = fmaf(t.d[g], level, -t.c[g]);
    }
  }
};

/// 16 bytes of weights. Rows that are no multiple of that are read weight by weight.
template <class Bits, int kCount>
struct FloatUnits {
  static constexpr int kUnit = kCount;
  using Raw = uint4;
  using At = UnitParts<1>;
  INFER_DEVICE static unsigned quad(unsigned unit, unsigned i) { return kUnit / 4 * unit + i; }
  INFER_DEVICE static void find(const Planes& p, int row, int unit, int /*units*/, int k, At& at) {
    const int64_t begin = static_cast<int64_t>(row) * k + unit * kUnit;
    at[0] = p.at[0] + begin * static_cast<int64_t>(sizeof(Bits));
  }
  INFER_DEVICE static Raw load(const At& at, int eights, int left) {
    const auto* from = reinterpret_cast<const Bits*>(at[0] + static_cast<int64_t>(eights) * 128);
    if (left % kUnit == 0) return load_readonly<uint4>(from);  // and so are all rows' lengths
    uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      constexpr int kPerWord = kUnit / 4;
      if (i < left)
        words[i / kPerWord] |= static_cast<uint32_t>(load_readonly<Bits>(from + i))
                               << (16 * (i % kPerWord));
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

template <>
struct WeightUnits<DType::kF32> : FloatUnits<uint32_t, 4> {
  INFER_DEVICE static void values(const Raw& raw, int /*unit*/, float (&w)[kUnit]) {
#pragma unroll
    for (int i = 0; i < kUnit; ++i) w[i] = float_of_bits(word_of(raw, i));
  }
};
template <>
struct WeightUnits<DType::kF16> : FloatUnits<uint16_t, 8> {
  INFER_DEVICE static void values(const Raw& raw, int /*unit*/, float (&w)[kUnit]) {
#pragma unroll
    for (int i = 0; i < kUnit; ++i) w[i] = f32_from_f16(word_of(raw, i / 2) >> (16 * (i % 2)));
  }
};
template <>
struct WeightUnits<DType::kBF16> : FloatUnits<uint16_t, 8> {
  INFER_DEVICE static void values(const Raw& raw, int /*unit*/, float (&w)[kUnit]) {
#pragma unroll
    for (int i = 0; i < kUnit; ++i)
      w[i] = float_of_bits(word_of(raw, i / 2) >> (16 * (i % 2)) << 16);
  }
};

}  // namespace infer::cuda
