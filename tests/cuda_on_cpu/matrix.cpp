#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "tests/cuda_on_cpu/block.h"

/// mma.sync and ldmatrix: fragments are gathered into plain matrices by the layouts of the PTX ISA,
/// multiplied, and scattered again. g = lane / 4 and t = lane % 4 as there.
namespace infer::cuda::emulated {

namespace {

constexpr uint32_t kFull = 0xffffffffu;

struct MmaOperands {
  void* d;
  const uint32_t *a, *b;
};

// Exact; works on normal, subnormal, infinite and NaN halves without a branch, so that loops
// vectorise.
inline float from_f16(uint32_t h) {
  const uint32_t magnitude = (h & 0x7fffu) << 13;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | special | (h & 0x8000u) << 16);
}
inline float from_bf16(uint32_t h) { return std::bit_cast<float>(h << 16); }

template <float (*kDecode)(uint32_t), size_t kRows, size_t kCols>
void decode(const uint16_t (&from)[kRows][kCols], float (&to)[kRows][kCols]) {
  for (size_t row = 0; row < kRows; ++row)
    for (size_t col = 0; col < kCols; ++col) to[row][col] = kDecode(from[row][col]);
}

using Row = float __attribute__((vector_size(8 * sizeof(float))));  // stays in registers

// Matrices of the emulator's own, so nothing for sanitizers to find in the products: most of what a
// tensor-core kernel takes here.
#define INFER_NOT_SANITIZED __attribute__((no_sanitize("address", "undefined")))

template <int kK>
INFER_NOT_SANITIZED void multiply_add(const float (&a)[16][kK], const float (&b)[kK][8],
                                      float (&d)[16][8]) {
  for (int row = 0; row < 16; ++row) {
    Row sum;
    std::memcpy(&sum, d[row], sizeof(Row));
    for (int k = 0; k < kK; ++k) {
      Row b_row;
      std::memcpy(&b_row, b[k], sizeof(Row));
      sum += a[row][k] * b_row;
    }
    std::memcpy(d[row], &sum, sizeof(Row));
  }
}

template <int kM, int kK>
INFER_NOT_SANITIZED void multiply_add(const int8_t (&a)[kM][kK], const int8_t (&b)[8][kK],
                                      uint32_t (&d)[kM][8]) {
  for (int row = 0; row < kM; ++row)
    for (int col = 0; col < 8; ++col)
      for (int k = 0; k < kK; ++k) d[row][col] += static_cast<uint32_t>(a[row][k] * b[col][k]);
}

// kK is 8 or 16: registers of a are rows g and g + 8 of k 0..7, then the same of k 8..15.
template <int kK, float (*kDecode)(uint32_t)>
void compute_mma_half(void* const* operands, uint32_t /*mask*/) {
  uint16_t a_bits[16][kK], b_bits[kK][8];
  float a[16][kK], b[kK][8], d[16][8];
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const auto& o = *static_cast<const MmaOperands*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < kK / 4; ++r)
      std::memcpy(&a_bits[g + 8 * (r % 2)][2 * t + 8 * (r / 2)], &o.a[r], 4);
    for (int r = 0; r < kK / 8; ++r) {
      b_bits[2 * t + 8 * r][g] = static_cast<uint16_t>(o.b[r]);
      b_bits[2 * t + 8 * r + 1][g] = static_cast<uint16_t>(o.b[r] >> 16);
    }
    const float* c = static_cast<const float*>(o.d);
    for (int i = 0; i < 4; ++i) d[g + 8 * (i / 2)][2 * t + i % 2] = c[i];
  }
  decode<kDecode>(a_bits, a);
  decode<kDecode>(b_bits, b);
  multiply_add(a, b, d);
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    auto* out = static_cast<float*>(static_cast<MmaOperands*>(operands[lane])->d);
    for (int i = 0; i < 4; ++i) out[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
  }
}

// kM 8, kK 16: one register each. kM 16: a is rows g and g + 8 of k 0..15, then (kK 32) of
// k 16..31.
template <int kM, int kK>
void compute_mma_s8(void* const* operands, uint32_t /*mask*/) {
  int8_t a[kM][kK], b[8][kK];
  uint32_t d[kM][8];  // additions wrap
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    const auto& o = *static_cast<const MmaOperands*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < kM / 8 * (kK / 16); ++r)
      std::memcpy(&a[g + (kM == 16 ? 8 * (r % 2) : 0)][4 * t + 16 * (r / 2)], &o.a[r], 4);
    for (int r = 0; r < kK / 16; ++r) std::memcpy(&b[g][4 * t + 16 * r], &o.b[r], 4);
    for (int i = 0; i < kM / 4; ++i)
      d[g + 8 * (i / 2)][2 * t + i % 2] = static_cast<const uint32_t*>(o.d)[i];
  }
  multiply_add(a, b, d);
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    auto* out = static_cast<uint32_t*>(static_cast<MmaOperands*>(operands[lane])->d);
    for (int i = 0; i < kM / 4; ++i) out[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
  }
}

struct MmaShape {
  Collective::Compute compute;
  int needs_architecture;
  const char* name;
};
constexpr MmaShape kShapes[] = {
    {compute_mma_half<8, from_f16>, 75, "mma.m16n8k8.f16"},
    {compute_mma_half<16, from_f16>, 80, "mma.m16n8k16.f16"},
    {compute_mma_half<16, from_bf16>, 80, "mma.m16n8k16.bf16"},
    {compute_mma_s8<8, 16>, 75, "mma.m8n8k16.s8"},
    {compute_mma_s8<16, 16>, 80, "mma.m16n8k16.s8"},
    {compute_mma_s8<16, 32>, 80, "mma.m16n8k32.s8"},
};

struct LdmatrixOperands {
  int n_matrix;
  bool transposed;
  const void* row;
  uint32_t* out;
};

void compute_ldmatrix(void* const* operands, uint32_t /*mask*/) {
  const auto of = [operands](int lane) -> LdmatrixOperands& {
    return *static_cast<LdmatrixOperands*>(operands[lane]);
  };
  for (int i = 0; i < of(0).n_matrix; ++i) {
    uint16_t m[8][8];
    for (int row = 0; row < 8; ++row) std::memcpy(m[row], of(8 * i + row).row, sizeof(m[row]));
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const bool transposed = of(lane).transposed;
      const uint32_t low = transposed ? m[2 * t][g] : m[g][2 * t];
      const uint32_t high = transposed ? m[2 * t + 1][g] : m[g][2 * t + 1];
      of(lane).out[i] = low | high << 16;
    }
  }
}

}  // namespace

void mma(Mma kind, void* d, const uint32_t* a, const uint32_t* b, Site site) {
  const MmaShape& shape = kShapes[static_cast<size_t>(kind)];
  if (architecture() < shape.needs_architecture)
    this_block->fail(fmt::format("sm_{} has no {}", architecture(), shape.name), site);
  MmaOperands o{d, a, b};
  this_block->collective(shape.compute, kFull, &o, site);
}

void ldmatrix(int n_matrix, bool transposed, const void* row, uint32_t* out, Site site) {
  const bool read = this_block->lane().index < 8 * n_matrix;
  if (read || architecture() < 80) {
    check_aligned(row, 16, site);
    if (!this_block->shared().contains(row, 16))
      this_block->fail("ldmatrix of an address outside the block's shared memory", site);
  }
  LdmatrixOperands o{n_matrix, transposed, row, out};
  this_block->collective(compute_ldmatrix, kFull, &o, site);
}

}  // namespace infer::cuda::emulated
