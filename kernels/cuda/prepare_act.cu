#include "kernels/cuda/act_q8.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/quant_bits.cuh"

/// Norm and rounding of activation rows before a matrix product, one block a row. A thread takes
/// four neighbours at a time, so that eight lanes round a group of 32.
///
/// Order of summation: each thread its own elements in sequence, then the warp's butterfly, then
/// the warps in sequence. Products are added by fmaf: nothing is left to a compiler to fuse.
namespace infer::cuda {

namespace prepare {

inline constexpr int kMaxThreads = 256;

struct WarpSums {
  float sum[2][kMaxThreads / kWarp];
};
static_assert(sizeof(WarpSums) <= 48 * 1024, "what launch() gives without being asked");

/// Sum over the block, for all threads. `which`: 0 for the first sum, 1 for the second, so that no
/// thread overwrites what another one still reads.
INFER_DEVICE float block_sum(float v, int which) {
  auto& of_warp = shared<WarpSums>().sum[which];
  v = warp_sum(v);
  if (lane_id() == 0) of_warp[warp_id()] = v;
  sync_threads();
  float sum = 0.0f;
  for (int i = 0; i < static_cast<int>(block_dim().x) / kWarp; ++i) sum += of_warp[i];
  return sum;
}

/// Elements at..at + 3 of a row of k; zeros beyond it.
INFER_DEVICE float4 load_4(const float* row, int at, int k) {
  if (k % 4 == 0) return at < k ? load<float4>(row + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  return make_float4(at < k ? row[at] : 0.0f, at + 1 < k ? row[at + 1] : 0.0f,
                     at + 2 < k ? row[at + 2] : 0.0f, at + 3 < k ? row[at + 3] : 0.0f);
}
template <class T, class T4>
INFER_DEVICE void store_4(T* row, int at, int k, const T4& v) {
  if (k % 4 == 0) return store(row + at, v);
  const T values[4] = {v.x, v.y, v.z, v.w};
  for (int i = 0; i < 4 && at + i < k; ++i) row[at + i] = values[i];
}

/// What elements are shifted by and multiplied with before weight and bias.
struct Moments {
  float mean, inverse;
};
INFER_DEVICE Moments moments(const Norm& norm, const float* x, int k) {
  if (norm.kind == NormKind::kNone) return {0.0f, 1.0f};
  const int first = 4 * static_cast<int>(thread_idx().x);
  const int stride = 4 * static_cast<int>(block_dim().x);
  float mean = 0.0f, sum = 0.0f;
  if (norm.kind == NormKind::kLayer) {
    for (int at = first; at < k; at += stride) {
      const float4 v = load_4(x, at, k);
      sum += (v.x + v.y) + (v.z + v.w);
    }
    mean = block_sum(sum, 0) / static_cast<float>(k);
    sum = 0.0f;
  }
  for (int at = first; at < k; at += stride) {
    const float4 v = load_4(x, at, k);
    const float e[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; ++i)
      if (at + i < k) sum = fmaf(e[i] - mean, e[i] - mean, sum);
  }
  return {mean, 1.0f / sqrtf(block_sum(sum, 1) / static_cast<float>(k) + norm.eps)};
}

INFER_DEVICE float4 normalised(const Norm& norm, const Moments& m, float4 v, int at, int k) {
  if (norm.kind == NormKind::kNone) return v;
  float e[4] = {v.x, v.y, v.z, v.w};
  const float4 w =
      norm.weight != nullptr ? load_4(norm.weight, at, k) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
  const float4 b =
      norm.bias != nullptr ? load_4(norm.bias, at, k) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const float weight[4] = {w.x, w.y, w.z, w.w}, bias[4] = {b.x, b.y, b.z, b.w};
  for (int i = 0; i < 4; ++i) e[i] = fmaf((e[i] - m.mean) * m.inverse, weight[i], bias[i]);
  return make_float4(e[0], e[1], e[2], e[3]);
}

INFER_DEVICE void write_halves(const PrepareArgs& p, int64_t row, int at, const float4& v) {
  if (p.f16 != nullptr)
    store_4(p.f16 + row * p.k, at, p.k,
            make_ushort4(f16_bits(saturate_f16(v.x)), f16_bits(saturate_f16(v.y)),
                         f16_bits(saturate_f16(v.z)), f16_bits(saturate_f16(v.w))));
  if (p.bf16 != nullptr)
    store_4(p.bf16 + row * p.k, at, p.k,
            make_ushort4(bf16_bits(v.x), bf16_bits(v.y), bf16_bits(v.z), bf16_bits(v.w)));
}

INFER_DEVICE void write_f32(const PrepareArgs& p, int64_t row, int at, float4 v) {
  if (p.residual_after != nullptr) {
    const float4 r = load_4(p.residual_after + row * p.k, at, p.k);
    v = make_float4(r.x + v.x, r.y + v.y, r.z + v.z, r.w + v.w);
  }
  store_4(p.f32 + row * p.k, at, p.k, v);
}

}  // namespace prepare

/// Shapes: x [m, k] and each form that is asked for [m, k]. Grid: a block for each row. Bytes: x
/// once from memory (and up to twice more from the L1 cache), each form once.
__global__ void prepare_rows(const __grid_constant__ PrepareArgs p) {
  using namespace prepare;
  const int64_t row = block_idx().x;
  if (row >= *p.n_live) return;
  const float* x = p.x + row * p.k;
  const Moments m = moments(p.norm, x, p.k);
  const int stride = 4 * static_cast<int>(block_dim().x), in_warp = 4 * lane_id();
  // The condition is the same for a warp: all its lanes take part in rounding.
  for (int first = 4 * kWarp * warp_id(); first < p.k; first += stride) {
    const int at = first + in_warp;
    const float4 v = at < p.k ? normalised(p.norm, m, load_4(x, at, p.k), at, p.k)
                              : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (p.q8.q != nullptr) {
      const RoundedQ8 r = round_act_q8(v);
      if (at < p.k) {
        store(p.q8.q + row * p.k + at, r.q);
        if (at % kActGroup == 0)
          store(p.q8.ds + row * (p.k / kActGroup) + at / kActGroup, make_float2(r.d, r.s));
      }
    }
    if (at >= p.k) continue;
    write_halves(p, row, at, v);
    if (p.f32 != nullptr) write_f32(p, row, at, v);
  }
}

cudaError_t prepare_act(const PrepareArgs& args, cudaStream_t stream) {
  if (args.m <= 0) return cudaSuccess;
  const int warps = (args.k + 4 * kWarp - 1) / (4 * kWarp);  // as many as have something to do
  const int threads = warps * kWarp < prepare::kMaxThreads ? warps * kWarp : prepare::kMaxThreads;
  return launch(prepare_rows, args.m, threads, sizeof(prepare::WarpSums), stream, args);
}

}  // namespace infer::cuda
