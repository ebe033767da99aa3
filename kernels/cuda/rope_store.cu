#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_ops.h"

/// Norm, rotary embedding and store of a step's q, k and v, a warp for each (row, head).
/// Bytes: each input float is read once; 4 bytes written an element of q, and of k and v what the
/// pool's type takes. Order of summation: a lane adds squares of its pairs in sequence, then
/// warp_sum.
/// Sources: RoPE, arXiv:2104.09864; rotation by Hadamard matrices, QuaRot, arXiv:2404.00456
/// section 4; both as in kernels/cpu/generic (rope.cpp, kv_quant.h).
namespace infer::cuda {

inline constexpr int kRopeWarps = 4;  ///< of a block
inline constexpr int kMaxHeadDim = 256;
inline constexpr int kKvGroup = 32;  ///< elements of a quantised row that share a scale
inline constexpr int kMaxGroups = kMaxHeadDim / kKvGroup;
inline constexpr int kMaxRotation = 128;  ///< a row is rotated in pieces of so many at most

/// A head's row, one for each warp.
struct HeadRows {
  float x[kRopeWarps][kMaxHeadDim];
};

/// Which row of which tensor a warp has.
struct HeadJob {
  const float* from;
  const float* norm;
  int row, head;  ///< head within q, k or v
  bool is_q, is_v;
};

INFER_DEVICE HeadJob head_job(const RopeStoreArgs& p, int job) {
  const int n_kv = p.pool.n_kv_head, n = p.n_head + 2 * n_kv;
  HeadJob j{};
  j.row = job / n;
  j.head = job % n;
  j.is_q = j.head < p.n_head;
  if (!j.is_q) j.head -= p.n_head;
  j.is_v = !j.is_q && j.head >= n_kv;
  if (j.is_v) j.head -= n_kv;
  const int64_t at = static_cast<int64_t>(j.row) * (j.is_q ? p.n_head : n_kv) + j.head;
  j.from = (j.is_q ? p.q : j.is_v ? p.v : p.k) + at * p.pool.head_dim;
  j.norm = j.is_q ? p.q_norm : j.is_v ? nullptr : p.k_norm;
  return j;
}

/// x = the row, normalised where the job says so. A lane has pairs lane, lane + 32, ...
INFER_DEVICE void load_head(const RopeStoreArgs& p, const HeadJob& j, float* x) {
  const int n_pair = p.pool.head_dim / 2;
  float sum = 0.0f;
  for (int i = lane_id(); i < n_pair; i += kWarp) {
    const auto v = load<float2>(j.from + 2 * i);
    sum += v.x * v.x + v.y * v.y;
    store(x + 2 * i, v);
  }
  if (j.norm == nullptr) return;
  const float scale = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(p.pool.head_dim) + p.eps);
  for (int i = lane_id(); i < n_pair; i += kWarp) {  // the lane's own pairs: no barrier
    x[2 * i] *= scale * load_readonly<float>(j.norm + 2 * i);
    x[2 * i + 1] *= scale * load_readonly<float>(j.norm + 2 * i + 1);
  }
}

/// Turns the first rope_dim elements by the angles of the row's position.
INFER_DEVICE void turn_pairs(const RopeStoreArgs& p, int row, float* x) {
  const int half = p.rope_dim / 2;
  const bool neox = p.rope_kind == RopeKind::kNeox;
  const float2* angles =
      p.cos_sin + static_cast<int64_t>(load_readonly<int32_t>(p.rows.pos + row)) * half;
  for (int i = lane_id(); i < half; i += kWarp) {
    float& a = x[neox ? i : 2 * i];
    float& b = x[neox ? i + half : 2 * i + 1];
    const float2 cs = load_readonly<float2>(angles + i);
    const float a0 = a, b0 = b;
    a = a0 * cs.x - b0 * cs.y;
    b = b0 * cs.x + a0 * cs.y;
  }
}

/// x = the row times a Hadamard matrix, piece by piece; a lane has elements 32 g + lane. Distances
/// below 32 are shuffles, those above stay in the lane. The additions are the CPU's.
INFER_DEVICE void rotate_head(int head_dim, float* x) {
  int n = head_dim & -head_dim;
  n = n < kMaxRotation ? n : kMaxRotation;
  const int lane = lane_id();
  float v[kMaxGroups];
#pragma unroll
  for (int g = 0; g < kMaxGroups; ++g) {
    v[g] = 0.0f;
    if (kKvGroup * g >= head_dim) continue;  // the same in all lanes
    v[g] = x[kKvGroup * g + lane];
#pragma unroll
    for (int half = 1; half < kKvGroup; half *= 2) {
      const float other = shfl_xor(v[g], half);
      v[g] = (lane & half) != 0 ? other - v[g] : v[g] + other;
    }
  }
#pragma unroll
  for (int half = 1; half < kMaxRotation / kKvGroup; half *= 2) {
    if (kKvGroup * half >= n) continue;
#pragma unroll
    for (int g = 0; g < kMaxGroups; ++g) {
      if ((g & half) != 0) continue;
      const float a = v[g], b = v[g + half];
      v[g] = a + b;
      v[g + half] = a - b;
    }
  }
  const float norm = n == 32 ? 0.17677669529663687f : n == 64 ? 0.125f : 0.08838834764831845f;
#pragma unroll
  for (int g = 0; g < kMaxGroups; ++g)
    if (kKvGroup * g < head_dim) x[kKvGroup * g + lane] = v[g] * norm;
}

/// A lane's level of a group, and the group's scale as it is stored.
struct Level {
  int q;
  __half d;
};

INFER_DEVICE bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

INFER_DEVICE float nearest_level(float x, float inv, float low, float high) {
  const float v = x * inv;
  return rintf(v < low ? low : (v > high ? high : v));
}

/// Rounds one group, an element a lane: q8_0 gives 127 to the largest magnitude; q4_0 tries eight
/// scales about those that give the extreme element the last level of either side, and keeps the
/// one of least squared error (the first of equals). A group that f16 cannot scale gets a NaN.
INFER_DEVICE Level quantise_group(DType type, float x) {
  constexpr float kDivisors[] = {-8.0f, -8.5f, -9.0f, -7.5f, -7.0f, 7.5f, 7.0f, 6.5f};
  const bool eight = type == DType::kQ8_0;
  int bits = 0;  // of magnitudes, which order like them; NaN and inf come out on top
  const float magnitude = fabsf(x);
  memcpy(&bits, &magnitude, sizeof bits);
  const uint32_t largest = warp_ballot(bits == warp_max(bits));
  const float extreme = shfl(x, popcount((largest & (0u - largest)) - 1));  // the first of them
  Level out{0, __float2half_rn(eight ? fabsf(extreme) / 127.0f : extreme / kDivisors[0])};
  const float d = __half2float(out.d);
  if (!is_finite(d)) return {0, __float2half_rn(d - d)};
  if (d == 0.0f) return out;
  if (eight) {
    out.q = static_cast<int>(nearest_level(x, 1.0f / d, -127.0f, 127.0f));
    return out;
  }
  float best = 0.0f;
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    const __half d_c = __float2half_rn(extreme / kDivisors[c]);
    const float scale = __half2float(d_c);
    if (!is_finite(scale) || scale == 0.0f) continue;  // the same in all lanes
    const float level = nearest_level(x, 1.0f / scale, -8.0f, 7.0f);
    const float e = level * scale - x;
    const float err = warp_sum(e * e);
    if (c > 0 && !(err < best)) continue;
    best = err;
    out = {static_cast<int>(level), d_c};
  }
  return out;
}

/// Rounds a rotated row into its place of a head's part of a block. A lane has elements 32 g +
/// lane.
INFER_DEVICE void store_quantised(DType type, bool is_v, int head_dim, int slot, const float* x,
                                  std::byte* head) {
  const int lane = lane_id(), n_group = head_dim / kKvGroup;
  std::byte* scales = head + kv_scales_at(type, head_dim) + slot * n_group * 2;
  const int distance = is_v ? 16 : 1;  // to the element in the byte's high nibble
  for (int g = 0; g < n_group; ++g) {
    const Level level = quantise_group(type, x[kKvGroup * g + lane]);
    if (lane == 0) store(scales + 2 * g, level.d);
    if (type == DType::kQ8_0) {
      head[slot * head_dim + kKvGroup * g + lane] = static_cast<std::byte>(level.q);
      continue;
    }
    const int high = shfl_xor(level.q, distance);
    if ((lane & distance) == 0)
      head[(slot * head_dim + kKvGroup * g) / 2 + (is_v ? lane : lane / 2)] =
          static_cast<std::byte>((level.q + 8) | ((high + 8) << 4));
  }
}

INFER_DEVICE void store_halves(DType type, int head_dim, int slot, const float* x,
                               std::byte* head) {
  std::byte* out = head + static_cast<int64_t>(slot) * head_dim * 2;
  for (int i = lane_id(); i < head_dim / 2; i += kWarp) {
    const auto v = load<float2>(x + 2 * i);
    if (type == DType::kF16)
      store(out + 4 * i, __floats2half2_rn(v.x, v.y));
    else
      store(out + 4 * i, __floats2bfloat162_rn(v.x, v.y));
  }
}

/// Shapes: q, q_out [m, n_head, head_dim], k, v [m, n_kv_head, head_dim]; grid: kRopeWarps of the
/// m * (n_head + 2 n_kv_head) jobs a block.
__global__ void __launch_bounds__(kWarp* kRopeWarps)
    norm_rope_store(const __grid_constant__ RopeStoreArgs p) {
  const int head_dim = p.pool.head_dim, lane = lane_id();
  const int n_job = p.rows.m * (p.n_head + 2 * p.pool.n_kv_head);
  const int job = static_cast<int>(block_idx().x) * kRopeWarps + warp_id();
  if (job >= n_job) return;
  const HeadJob j = head_job(p, job);
  if (j.row >= *p.rows.n_live) return;

  float* x = shared<HeadRows>().x[warp_id()];
  load_head(p, j, x);
  if (!j.is_v && p.rope_dim > 0) {
    sync_warp();  // a pair of neox lies with two lanes
    turn_pairs(p, j.row, x);
  }
  sync_warp();  // from here on elements lie otherwise with lanes
  const DType type = j.is_v ? p.pool.type_v : p.pool.type_k;
  const bool quantised = type == DType::kQ8_0 || type == DType::kQ4_0;
  if (quantised) rotate_head(head_dim, x);
  if (j.is_q) {
    float* out = p.q_out + (static_cast<int64_t>(j.row) * p.n_head + j.head) * head_dim;
    for (int i = lane; i < head_dim; i += kWarp) out[i] = x[i];
    return;
  }
  const int slot = load_readonly<int32_t>(p.rows.slot + j.row);
  const int64_t block = load_readonly<int32_t>(p.table.blocks + p.rows.seq[j.row] * p.table.stride +
                                               slot / kBlockTok);
  std::byte* head = (j.is_v ? p.pool.v : p.pool.k) +
                    (block * p.pool.n_kv_head + j.head) * kv_head_bytes(type, head_dim);
  if (quantised)
    store_quantised(type, j.is_v, head_dim, slot % kBlockTok, x, head);
  else
    store_halves(type, head_dim, slot % kBlockTok, x, head);
}

cudaError_t rope_store(const RopeStoreArgs& args, cudaStream_t stream) {
  const int head_dim = args.pool.head_dim;
  if (head_dim <= 0 || head_dim > kMaxHeadDim || head_dim % 2 != 0) return cudaErrorInvalidValue;
  if (args.rope_dim % 2 != 0 || args.rope_dim > head_dim) return cudaErrorInvalidValue;
  for (const DType type : {args.pool.type_k, args.pool.type_v}) {
    const bool half = type == DType::kF16 || type == DType::kBF16;
    const bool quantised = type == DType::kQ8_0 || type == DType::kQ4_0;
    if (!half && !(quantised && head_dim % kKvGroup == 0)) return cudaErrorInvalidValue;
  }
  const int n_job = args.rows.m * (args.n_head + 2 * args.pool.n_kv_head);
  if (n_job == 0) return cudaSuccess;
  return launch(norm_rope_store, (n_job + kRopeWarps - 1) / kRopeWarps, kWarp * kRopeWarps,
                sizeof(HeadRows), stream, args);
}

}  // namespace infer::cuda
