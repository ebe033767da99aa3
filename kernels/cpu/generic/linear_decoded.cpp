// Linear layers with f32 activations: y[j] = dot(decode(W[j, :]), x).
//
// Reduction order, the same for every m, n range and thread: eight partial sums, sum l taking the
// products of k = l, l + 8, l + 16, ... in sequence (product rounded, then added); then the tree
//   ((p0 + p4) + (p2 + p6)) + ((p1 + p5) + (p3 + p7)).
// A k that is no multiple of 8 is filled up with zeros on both sides.
#include <cstring>

#include "core/base/quant_blocks.h"
#include "kernels/cpu/generic/decode_row.h"
#include "kernels/cpu/generic/linear_act.h"
#include "kernels/cpu/generic/linear_install.h"

namespace infer::kern::generic {
namespace {

constexpr int64_t kLanes = 8;

float dot(const float* w, const float* x, int64_t n_padded) {
  float p[kLanes] = {};
  for (int64_t i = 0; i < n_padded; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) p[l] += w[i + l] * x[i + l];
  }
  return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
}

/// Bytes of a row of k elements of a type with kBytes a block of kLen.
template <int64_t kLen, int64_t kBytes>
int64_t matrix_bytes(int64_t n, int64_t k) {
  return n * (k / kLen) * kBytes;
}

template <auto kDecode, int64_t kLen, int64_t kBytes>
void run(const LinearArgs& a) {
  float* w = reinterpret_cast<float*>(a.scratch);
  const int64_t n_padded = act_f32_len(a.k);
  const int64_t row_bytes = a.k / kLen * kBytes;
  for (int64_t i = a.k; i < n_padded; ++i) w[i] = 0.0f;
  for (int64_t j = a.n_begin; j < a.n_end; ++j) {
    kDecode(a.w + j * row_bytes, a.k, w);
    for (int64_t r = 0; r < a.m; ++r) {
      const float* x = reinterpret_cast<const float*>(a.act + r * a.act_stride);
      a.out[r * a.out_stride + (j - a.n_begin)] = dot(w, x, n_padded);
    }
  }
}

template <auto kDecode, int64_t kLen, int64_t kBytes>
void install(CpuKernels& table, DType type, bool fast_too) {
  for (int mode = 0; mode < kActModes; ++mode) {
    if (mode == static_cast<int>(ActMode::kFast) && !fast_too) continue;
    LinearKernel& t = table.linear[mode][static_cast<int>(type)];
    t.n_align = 1;
    t.file_layout = true;
    t.packed_bytes = matrix_bytes<kLen, kBytes>;
    t.pack = nullptr;
    t.act_bytes = act_bytes_f32;
    t.prepare = prepare_f32;
    t.scratch_bytes = act_bytes_f32;
    t.run = run<kDecode, kLen, kBytes>;
  }
}

}  // namespace

void install_linear_decoded(CpuKernels& t) {
  install<decode_f32, 1, 4>(t, DType::kF32, true);
  install<decode_f16, 1, 2>(t, DType::kF16, true);
  install<decode_bf16, 1, 2>(t, DType::kBF16, true);
  install<decode_q4_0, kBlock32, sizeof(BlockQ4_0)>(t, DType::kQ4_0, false);
  install<decode_q4_1, kBlock32, sizeof(BlockQ4_1)>(t, DType::kQ4_1, false);
  install<decode_q5_0, kBlock32, sizeof(BlockQ5_0)>(t, DType::kQ5_0, false);
  install<decode_q5_1, kBlock32, sizeof(BlockQ5_1)>(t, DType::kQ5_1, false);
  install<decode_q8_0, kBlock32, sizeof(BlockQ8_0)>(t, DType::kQ8_0, false);
  install<decode_q2_k, kBlock256, sizeof(BlockQ2_K)>(t, DType::kQ2_K, false);
  install<decode_q3_k, kBlock256, sizeof(BlockQ3_K)>(t, DType::kQ3_K, false);
  install<decode_q4_k, kBlock256, sizeof(BlockQ4_K)>(t, DType::kQ4_K, false);
  install<decode_q5_k, kBlock256, sizeof(BlockQ5_K)>(t, DType::kQ5_K, false);
  install<decode_q6_k, kBlock256, sizeof(BlockQ6_K)>(t, DType::kQ6_K, false);
  install<decode_iq4_nl, kBlock32, sizeof(BlockIQ4_NL)>(t, DType::kIQ4_NL, false);
  install<decode_iq4_xs, kBlock256, sizeof(BlockIQ4_XS)>(t, DType::kIQ4_XS, false);
}

}  // namespace infer::kern::generic
