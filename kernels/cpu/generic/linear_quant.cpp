// Linear layers with 8-bit activations and quantised weights, in the file's layout.
//
// Reduction order, the same for every m, n range and thread: one chain per output over the
// 32-element blocks of k in sequence. A block's integer sum  t = sum_i sc[i / 16] * q_w[i] * q_x[i]
// is exact (|t| < 2^24, so in f32 as well);
//   acc += f32(t) * (d_w * d_x);  and for formats with a minimum  acc -= m_w * s_x,  or with minima
//   of 16 elements  acc -= f32(mn[0] * h_x[0] + mn[1] * h_x[1]) * (m_w * d_x),  an exact sum again.
#include <cstring>

#include "kernels/cpu/generic/linear_act.h"
#include "kernels/cpu/generic/linear_install.h"
#include "kernels/cpu/generic/unpack.h"

namespace infer::kern::generic {
namespace {

int32_t dot16(const int8_t* a, const int8_t* b) {
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += static_cast<int32_t>(a[i]) * b[i];
  return sum;
}

/// How many minima 32 elements have.
enum class Min { kNone, kOne, kTwo };

template <Min kMin>
float dot(const Unpacked32* w, const ActBlock* x, int64_t n_block) {
  float acc = 0.0f;
  for (int64_t ib = 0; ib < n_block; ++ib) {
    const int32_t t =
        w[ib].sc[0] * dot16(w[ib].q, x[ib].q) + w[ib].sc[1] * dot16(w[ib].q + 16, x[ib].q + 16);
    acc += static_cast<float>(t) * (w[ib].d * x[ib].d);
    if constexpr (kMin == Min::kOne) acc -= w[ib].m * x[ib].s;
    if constexpr (kMin == Min::kTwo) {
      const int32_t u = w[ib].mn[0] * x[ib].h[0] + w[ib].mn[1] * x[ib].h[1];
      acc -= static_cast<float>(u) * (w[ib].m * x[ib].d);
    }
  }
  return acc;
}

template <class Block>
int64_t matrix_bytes(int64_t n, int64_t k) {
  return n * (k / (32 * kSubBlocks<Block>)) * static_cast<int64_t>(sizeof(Block));
}

int64_t scratch_bytes(int64_t k) { return k / 32 * static_cast<int64_t>(sizeof(Unpacked32)); }

/// One row of the file, unpacked.
template <class Block>
void unpack_row(const std::byte* src, int64_t n_block, Unpacked32* w) {
  for (int64_t ib = 0; ib < n_block; ib += kSubBlocks<Block>) {
    Block b;
    std::memcpy(&b, src + ib / kSubBlocks<Block> * static_cast<int64_t>(sizeof(Block)),
                sizeof(Block));
    for (int sub = 0; sub < kSubBlocks<Block>; ++sub) unpack(b, sub, w[ib + sub]);
  }
}

template <class Block, Min kMin>
void run(const LinearArgs& a) {
  Unpacked32* w = reinterpret_cast<Unpacked32*>(a.scratch);
  const int64_t n_block = a.k / 32;
  const int64_t row_bytes = matrix_bytes<Block>(1, a.k);
  for (int64_t j = a.n_begin; j < a.n_end; ++j) {
    unpack_row<Block>(a.w + j * row_bytes, n_block, w);
    for (int64_t r = 0; r < a.m; ++r) {
      const ActBlock* x = reinterpret_cast<const ActBlock*>(a.act + r * a.act_stride);
      a.out[r * a.out_stride + (j - a.n_begin)] = dot<kMin>(w, x, n_block);
    }
  }
}

template <class Block, Min kMin>
void install(CpuKernels& table, DType type) {
  LinearKernel& t = table.linear[static_cast<int>(ActMode::kFast)][static_cast<int>(type)];
  t.n_align = 1;
  t.file_layout = true;
  t.packed_bytes = matrix_bytes<Block>;
  t.pack = nullptr;
  t.act_bytes = act_bytes_q8;
  t.prepare = prepare_q8;
  t.scratch_bytes = scratch_bytes;
  t.run = run<Block, kMin>;
}

}  // namespace

void install_linear_quant(CpuKernels& t) {
  install<BlockQ4_0, Min::kNone>(t, DType::kQ4_0);
  install<BlockQ4_1, Min::kOne>(t, DType::kQ4_1);
  install<BlockQ5_0, Min::kNone>(t, DType::kQ5_0);
  install<BlockQ5_1, Min::kOne>(t, DType::kQ5_1);
  install<BlockQ8_0, Min::kNone>(t, DType::kQ8_0);
  install<BlockQ2_K, Min::kTwo>(t, DType::kQ2_K);
  install<BlockQ3_K, Min::kNone>(t, DType::kQ3_K);
  install<BlockQ4_K, Min::kOne>(t, DType::kQ4_K);
  install<BlockQ5_K, Min::kOne>(t, DType::kQ5_K);
  install<BlockQ6_K, Min::kNone>(t, DType::kQ6_K);
  install<BlockIQ4_NL, Min::kNone>(t, DType::kIQ4_NL);
  install<BlockIQ4_XS, Min::kNone>(t, DType::kIQ4_XS);
}

}  // namespace infer::kern::generic
