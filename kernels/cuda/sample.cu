#include "kernels/cuda/last_block.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_ops.h"

/// What a row of logits says, in one launch: several blocks a row find the best of their part and
/// add up exponentials, the last of them to end merges.
/// Bytes: the logits twice (the second time from the cache), a few hundred a block besides.
/// Order of summation: f64; a thread in sequence, a butterfly over the warp, warps in sequence,
/// then parts in sequence. Terms are exponentials in f32.
namespace infer::cuda {

inline constexpr int kSampleThreads = 256;
inline constexpr int kSampleWarps = kSampleThreads / kWarp;
inline constexpr int kKeysPerThread = 16;
inline constexpr int kKeysPerTurn = kSampleThreads * kKeysPerThread;
inline constexpr int kMaxParts = 64;  ///< blocks of a row

/// A logit and its id as one number: larger logits first, then lower ids. 0: none (NaN counts so).
using Key = unsigned long long;

INFER_DEVICE Key key_of(float x, int id) {
  if (x != x) return 0;
  x += 0.0f;  // -0 equals 0
  uint32_t bits = 0;
  memcpy(&bits, &x, sizeof bits);
  bits ^= (bits >> 31) != 0 ? 0xffffffffu : 0x80000000u;
  return static_cast<Key>(bits) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}
INFER_DEVICE int id_of(Key key) {
  return static_cast<int>(0xffffffffu - static_cast<uint32_t>(key));
}
INFER_DEVICE float logit_of(Key key) {
  if (key == 0) return -INFINITY;
  auto bits = static_cast<uint32_t>(key >> 32);
  bits ^= (bits >> 31) != 0 ? 0x80000000u : 0xffffffffu;
  float x = 0.0f;
  memcpy(&x, &bits, sizeof x);
  return x;
}
INFER_DEVICE Key larger(Key a, Key b) { return a > b ? a : b; }

/// What a block of a row leaves for the last one.
struct Partials {
  int32_t* counter;  ///< [m] blocks of the row that have ended
  int* nan;          ///< [m, n_part]
  double* sum;       ///< [m, n_part] of exp(x - max of the part)
  Key* best;         ///< [m, n_part, n_best] descending
};

struct SamplePlan {
  SampleArgs args;
  Partials partials;
  int n_part;
  int part_len;  ///< logits of a part
  int n_best;    ///< keys a part keeps: n_top, at least the maximum
};

struct SampleShared {
  Key best[kMaxTop];
  Key warp_best[2][kSampleWarps];
  double warp_sum[kSampleWarps];
  int warp_nan[kSampleWarps];
  int32_t is_last;
};

/// The largest of the warp in every lane.
INFER_DEVICE Key warp_largest(Key key) {
#pragma unroll
  for (int d = kWarp / 2; d > 0; d /= 2) key = larger(key, shfl_xor(key, d));
  return key;
}

/// s.best = the n_best largest of the block's keys, descending. Keys differ unless 0, so a thread
/// knows which of its own are taken: those not below the last winner. Ends with a barrier.
template <int N>
INFER_DEVICE void select_best(const Key (&keys)[N], int n_best, SampleShared& s) {
  const int warp = warp_id(), lane = lane_id();
  Key own = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) own = larger(own, keys[i]);
  Key of_warp = warp_largest(own);
  for (int round = 0; round < n_best; ++round) {
    Key* warp_best = s.warp_best[round % 2];  // two, so that one barrier a round is enough
    if (lane == 0) warp_best[warp] = of_warp;
    sync_threads();
    Key winner = 0;
#pragma unroll
    for (int w = 0; w < kSampleWarps; ++w) winner = larger(winner, warp_best[w]);
    if (thread_idx().x == 0) s.best[round] = winner;
    if (of_warp != winner || winner == 0) continue;  // the same in all lanes of the warp
    if (own == winner) {
      own = 0;
#pragma unroll
      for (int i = 0; i < N; ++i) own = larger(own, keys[i] < winner ? keys[i] : 0);
    }
    of_warp = warp_largest(own);
  }
  sync_threads();
}

/// s.best = the largest of key(0 .. n - 1), in turns; best of earlier turns compete again.
template <class Fn>
INFER_DEVICE void select_best_of(int64_t n, int n_best, SampleShared& s, const Fn& key) {
  const auto thread = static_cast<int>(thread_idx().x);
  for (int64_t begin = 0; begin < n; begin += kKeysPerTurn) {
    Key keys[kKeysPerThread + 1];
#pragma unroll
    for (int i = 0; i < kKeysPerThread; ++i) {
      const int64_t at = begin + i * kSampleThreads + thread;
      keys[i] = at < n ? key(at) : 0;
    }
    keys[kKeysPerThread] = begin > 0 && thread < n_best ? s.best[thread] : 0;
    select_best(keys, n_best, s);
  }
}

/// Block-wide sum of exp(x - max) over a part and whether it has a NaN, valid in thread 0.
struct PartSum {
  double sum;
  int nan;
};
INFER_DEVICE PartSum sum_part(const float* x, int n, float max, SampleShared& s) {
  double sum = 0.0;
  bool nan = false;
  for (auto i = static_cast<int>(thread_idx().x); i < n; i += kSampleThreads) {
    const float v = load_readonly<float>(x + i);
    nan = nan || v != v;
    if (max != -INFINITY) sum += static_cast<double>(expf(v - max));
  }
#pragma unroll
  for (int d = kWarp / 2; d > 0; d /= 2) sum += shfl_xor(sum, d);
  nan = warp_any(nan);
  if (lane_id() == 0) {
    s.warp_sum[warp_id()] = sum;
    s.warp_nan[warp_id()] = nan;
  }
  sync_threads();
  PartSum all{0.0, 0};
  for (int w = 0; w < kSampleWarps; ++w) {
    all.sum += s.warp_sum[w];
    all.nan |= s.warp_nan[w];
  }
  return all;
}

/// Merges the parts of a row; s.best has its best keys.
INFER_DEVICE void write_row(const SamplePlan& p, int row, SampleShared& s) {
  const SampleArgs& a = p.args;
  const auto thread = static_cast<int>(thread_idx().x);
  if (thread < a.n_top) {
    const int64_t at = static_cast<int64_t>(row) * a.n_top + thread;
    a.top_logit[at] = logit_of(s.best[thread]);
    a.top_id[at] = s.best[thread] == 0 ? -1 : id_of(s.best[thread]);
  }
  if (thread != 0) return;
  RowStats stats{};
  stats.max = logit_of(s.best[0]);
  stats.argmax = s.best[0] == 0 ? 0 : id_of(s.best[0]);
  stats.has_nan = !(fabsf(stats.max) <= 3.402823466e38f);
  const int64_t first = static_cast<int64_t>(row) * p.n_part;
  for (int part = 0; part < p.n_part; ++part) {
    const float max = logit_of(p.partials.best[(first + part) * p.n_best]);
    stats.has_nan |= p.partials.nan[first + part];
    if (max == -INFINITY) continue;
    stats.sum_exp += p.partials.sum[first + part] *
                     exp(static_cast<double>(max) - static_cast<double>(stats.max));
  }
  if (stats.has_nan) stats.sum_exp = static_cast<double>(NAN);
  a.stats[row] = stats;
}

/// Shapes: logits [m, n_vocab]; grid (m, n_part).
__global__ void __launch_bounds__(kSampleThreads)
    sample_rows(const __grid_constant__ SamplePlan p) {
  const auto row = static_cast<int>(block_idx().x), part = static_cast<int>(block_idx().y);
  if (row >= *p.args.n_live) return;
  auto& s = shared<SampleShared>();
  const auto thread = static_cast<int>(thread_idx().x);
  const int begin = part * p.part_len;
  const int n = p.args.n_vocab - begin < p.part_len ? p.args.n_vocab - begin : p.part_len;
  const float* x = p.args.logits + static_cast<int64_t>(row) * p.args.n_vocab + begin;
  select_best_of(n, p.n_best, s, [&](int64_t i) {
    return key_of(load_readonly<float>(x + i), begin + static_cast<int>(i));
  });
  const PartSum sum = sum_part(x, n, logit_of(s.best[0]), s);

  const int64_t at = static_cast<int64_t>(row) * p.n_part + part;
  if (thread < p.n_best) p.partials.best[at * p.n_best + thread] = s.best[thread];
  if (thread == 0) {
    p.partials.sum[at] = sum.sum;
    p.partials.nan[at] = sum.nan;
  }
  if (!is_last_block(p.partials.counter + row, p.n_part, s.is_last)) return;
  const Key* best = p.partials.best + static_cast<int64_t>(row) * p.n_part * p.n_best;
  if (p.n_part > 1)
    select_best_of(static_cast<int64_t>(p.n_part) * p.n_best, p.n_best, s,
                   [&](int64_t i) { return best[i]; });
  write_row(p, row, s);
}

/// Blocks of a row: about kKeysPerTurn logits each.
static int sample_parts(int n_vocab) {
  const int n = n_vocab / kKeysPerTurn + (n_vocab % kKeysPerTurn != 0 ? 1 : 0);
  return n < kMaxParts ? n : kMaxParts;
}

static int64_t align_16(int64_t n) { return (n + 15) / 16 * 16; }

int64_t sample_scratch_bytes(int m, int n_vocab, int n_top) {
  const int64_t n = static_cast<int64_t>(m) * sample_parts(n_vocab);
  const int64_t n_best = n_top > 1 ? n_top : 1;
  return align_16(4 * n) + align_16(8 * n) + 8 * n * n_best;
}

cudaError_t sample(const SampleArgs& args, cudaStream_t stream) {
  if (args.n_top < 0 || args.n_top > kMaxTop || args.n_vocab <= 0) return cudaErrorInvalidValue;
  if (args.m == 0) return cudaSuccess;
  SamplePlan plan{};
  plan.args = args;
  plan.n_part = sample_parts(args.n_vocab);
  plan.part_len = (args.n_vocab - 1) / plan.n_part + 1;
  plan.n_best = args.n_top > 1 ? args.n_top : 1;
  const int64_t n = static_cast<int64_t>(args.m) * plan.n_part;
  plan.partials.counter = args.counter;
  std::byte* at = args.scratch;
  plan.partials.nan = reinterpret_cast<int*>(at);
  at += align_16(4 * n);
  plan.partials.sum = reinterpret_cast<double*>(at);
  at += align_16(8 * n);
  plan.partials.best = reinterpret_cast<Key*>(at);
  const dim3 grid(static_cast<unsigned>(args.m), static_cast<unsigned>(plan.n_part));
  return launch(sample_rows, grid, kSampleThreads, sizeof(SampleShared), stream, plan);
}

}  // namespace infer::cuda
