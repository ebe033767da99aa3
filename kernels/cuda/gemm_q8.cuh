#pragma once

#include "kernels/cuda/gemm_params.cuh"
#include "kernels/cuda/launch.cuh"

/// Quantised weights as int8 in shared memory, times 8-bit activations on int8 tensor cores.
///
/// A block computes up to 64 rows times 64 weights; a step takes 128 along k. Its eight warps are
/// four times 16 weights, twice: warps 0..3 take the even 32 of k, warps 4..7 the odd ones, and the
/// two sums are added at the end. Weights are the 16 rows of the tensor cores' tile and activations
/// the 8 columns, so that few rows cost few products.
///
/// Weights are fetched two steps ahead: few rows are bound by memory, whose latency is longer than
/// a step. They wait in registers, as they lie in memory; q8_0's levels, which go to shared memory
/// as they are, and activations (one step ahead, from L2) come by cp.async. One barrier a step.
///
/// Order of summation: sums of 32 (16 where scales are) exact in integers; then in f32 the even and
/// the odd blocks of 32 in sequence, two chains an output, and their sum.
namespace infer::cuda::gemm {

inline constexpr int kQ8Step = 128, kQ8Rows = 64, kQ8Width = 64, kQ8Threads = 256;

/// Rows of 128 bytes: 16-byte chunk c of row r lies at c ^ (r % 8).
template <DType kType>
struct Q8Tiles {
  static constexpr bool kDirect = kType == DType::kQ8_0;  ///< levels need no unpacking
  static constexpr int kWeightBuffers = kDirect ? 3 : 2;
  static constexpr int kScales = 8 / Runs<kType>::kShared;
  /// With a minimum for types that have one.
  using ScaleOf = std::conditional_t<Runs<kType>::kHasMin, float2, float>;
  int8_t act[2][kQ8Rows][kQ8Step];
  int8_t weight[kWeightBuffers][kQ8Width][kQ8Step];
  float2 ds[2][4][kQ8Rows];
  ScaleOf scale[2][kScales][kQ8Width];
};
INFER_DEVICE int q8_chunk(int row, int chunk) { return 16 * (chunk ^ (row % 8)); }

/// The outputs of a block; rows are four banks apart.
struct Q8Out {
  float sum[kQ8Rows][kQ8Width + 4];
};

/// The weights that a thread unpacks in a step: runs first_run and first_run + kPartner of a row.
template <DType kType>
struct Q8Weights {
  using R = Runs<kType>;
  using Tiles = Q8Tiles<kType>;
  static constexpr int kRunsInBlock = R::kBlockLen / 16;
  struct Held {
    typename R::Bytes bytes;
    typename R::Factors factors;
  };
  PlanesAt w;
  int first_block, row, first_run;

  INFER_DEVICE void begin(const Params& p, const TileAt& at) {
    const int thread = static_cast<int>(thread_idx().x), pair = thread % 4;
    row = thread / 4;
    first_run = pair / R::kPartner * 2 * R::kPartner + pair % R::kPartner;
    const WeightRow from = weight_row(p, at, row);
    w = {&from.item->w, at.offset};
    first_block = from.row * (p.k / R::kBlockLen);
  }
  /// Only blocks of 32 end within a step, and both runs with them.
  INFER_DEVICE bool inside(const Params& p, int step) const {
    return step * kQ8Step + 16 * first_run < p.k;
  }

  INFER_DEVICE void fetch(const Params& p, Tiles& s, Held& held, int step) const {
    if (!inside(p, step)) return;
    const int run = 8 * step + first_run;
    const int block = first_block + run / kRunsInBlock, in_block = run % kRunsInBlock;
    if constexpr (Tiles::kDirect) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
        cp_async<16>(&s.weight[step % 3][row][q8_chunk(row, first_run + i)],
                     w.at(0, block, 32) + 16 * i);
    } else {
      held.bytes = R::load_bytes(w, block, in_block);
    }
    held.factors = R::load_factors(w, block, in_block);
  }

  INFER_DEVICE void put(const Params& p, Tiles& s, const Held& held, int step) const {
    if (!inside(p, step)) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int in_step = first_run + i * R::kPartner, run = (8 * step + in_step) % kRunsInBlock;
      if constexpr (!Tiles::kDirect) {
        uint32_t u[4];
        R::levels(held.bytes, run, u);
        store(&s.weight[step % 2][row][q8_chunk(row, in_step)],
              make_uint4(signed_levels<R::kBias>(u[0]), signed_levels<R::kBias>(u[1]),
                         signed_levels<R::kBias>(u[2]), signed_levels<R::kBias>(u[3])));
      }
      if (in_step % R::kShared != 0) continue;
      const Scale scale = R::scale(held.factors, run, i);
      if constexpr (R::kHasMin)
        s.scale[step % 2][in_step / R::kShared][row] = {scale.scale, scale.minimum};
      else
        s.scale[step % 2][in_step / R::kShared][row] = scale.scale;
    }
  }
};

/// A block's rows, n_row of them, and those of the activations that a thread copies chunks of.
struct Q8Rows {
  static constexpr int kCopies = 8 * kQ8Rows / kQ8Threads;
  int n_row;
  int from[kCopies];

  static INFER_DEVICE int row(int i) {
    return static_cast<int>(thread_idx().x) / 8 + i * (kQ8Threads / 8);
  }
  INFER_DEVICE void begin(const Params& p, const RowTile& tile) {
    n_row = tile.n;
#pragma unroll
    for (int i = 0; i < kCopies; ++i)
      from[i] = act_row(p, tile.first + (row(i) < n_row ? row(i) : 0));
  }

  /// In groups of 16, as add_32 takes them. Rows beyond n_row repeat the first one; nobody stores
  /// their sums.
  template <class Tiles>
  INFER_DEVICE void fetch(const Params& p, Tiles& s, int step) const {
    const int n_copied = (n_row + 15) / 16 * 16;
    const int chunk = static_cast<int>(thread_idx().x) % 8, at = step * kQ8Step + 16 * chunk;
    if (at >= p.k) return;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int r = row(i);
      if (r >= n_copied) break;
      const int64_t begin = static_cast<int64_t>(from[i]) * p.k + at;
      cp_async<16>(&s.act[step % 2][r][q8_chunk(r, chunk)], p.q8.q + begin);
      if (chunk % 2 == 0) cp_async<8>(&s.ds[step % 2][chunk / 2][r], p.q8.ds + begin / 32);
    }
  }
};

/// Sums of a warp: 16 weights times the rows of the block, eight a tile.
template <DType kType>
struct Q8Sums {
  using R = Runs<kType>;
  static constexpr int kTiles = kQ8Rows / 8;
  static constexpr int kParts = 2 / R::kShared;  ///< scales in 32 along k: 1 or 2
  float d[kTiles][4];

  /// Integer sums begin at the bits of 1.5 * 2^23, in f32 an integer's neighbour of distance 1: a
  /// subtraction turns them into floats. No sum reaches 2^22.
  static constexpr int kZero = 0x4b400000;
  static INFER_DEVICE float sum_of(int bits) {
    return float_of_bits(static_cast<uint32_t>(bits)) - 12582912.0f;
  }

  /// Adds 32 along k: block `sub` of the step.
  INFER_DEVICE void add_32(const Q8Tiles<kType>& s, int step, int sub, int weight0, int n_row) {
    const int lane = lane_id(), g = lane / 4, t = lane % 4, buffer = step % 2;
    uint32_t a[4];
    const int a_row = weight0 + lane % 16;
    ldmatrix(a, &s.weight[step % Q8Tiles<kType>::kWeightBuffers][a_row]
                         [q8_chunk(a_row, 2 * sub + lane / 16)]);
    typename Q8Tiles<kType>::ScaleOf w[kParts][2];
#pragma unroll
    for (int i = 0; i < 2 * kParts; ++i)
      w[i / 2][i % 2] = s.scale[buffer][kParts * sub + i / 2][weight0 + g + 8 * (i % 2)];
#pragma unroll
    for (int tile = 0; tile < kTiles; tile += 2) {
      if (8 * tile >= n_row) break;
      const int b_row = 8 * tile + lane / 16 * 8 + lane % 8;
      uint32_t b[4];
      ldmatrix(b, &s.act[buffer][b_row][q8_chunk(b_row, 2 * sub + lane / 8 % 2)]);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float4 ds = load<float4>(&s.ds[buffer][sub][8 * (tile + i) + 2 * t]);
        const uint32_t b_tile[2] = {b[2 * i], b[2 * i + 1]};
        if constexpr (kParts == 1)
          add_tile(d[tile + i], a, b_tile, w[0], ds);
        else
          add_halves(d[tile + i], a, b_tile, w, ds);
      }
    }
  }

  /// One scale for the 32. ds = {d, s} of activation row 2t and of row 2t + 1.
  template <class ScaleOf>
  static INFER_DEVICE void add_tile(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    const ScaleOf (&w)[2], const float4& ds) {
    int dot[4] = {kZero, kZero, kZero, kZero};
    mma_s8(dot, a, b);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float scaled = sum_of(dot[i]) * (i % 2 == 0 ? ds.x : ds.z);
      if constexpr (R::kHasMin) {
        sum[i] += scaled * w[i / 2].x;
        sum[i] -= (i % 2 == 0 ? ds.y : ds.w) * w[i / 2].y;
      } else {
        sum[i] += scaled * w[i / 2];
      }
    }
  }

  /// A scale for each 16. What a minimum is multiplied with, the sum of 16 activations, is a
  /// product with ones.
  template <class ScaleOf>
  static INFER_DEVICE void add_halves(float (&sum)[4], const uint32_t (&a)[4],
                                      const uint32_t (&b)[2], const ScaleOf (&w)[2][2],
                                      const float4& ds) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      int dot[4] = {kZero, kZero, kZero, kZero};
      const uint32_t a_half[2] = {a[2 * h], a[2 * h + 1]};
      mma_s8_k16(dot, a_half, b[h]);
      int ones[4] = {kZero, kZero, kZero, kZero};
      if constexpr (R::kHasMin) {
        const uint32_t one[2] = {0x01010101u, 0x01010101u};
        mma_s8_k16(ones, one, b[h]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float act = i % 2 == 0 ? ds.x : ds.z;
        const float scaled = sum_of(dot[i]) * act;
        if constexpr (R::kHasMin) {
          sum[i] += scaled * w[h][i / 2].x;
          sum[i] -= sum_of(ones[i]) * act * w[h][i / 2].y;
        } else {
          sum[i] += scaled * w[h][i / 2];
        }
      }
    }
  }

  /// Writes the sums (kAdd: adds to what is there) of n_row rows and weights weight0...
  template <bool kAdd>
  INFER_DEVICE void put(Q8Out& out, int weight0, int n_row) const {
    const int lane = lane_id();
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (8 * tile >= n_row) break;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& to = out.sum[8 * tile + 2 * (lane % 4) + i % 2][weight0 + lane / 4 + i / 2 * 8];
        to = kAdd ? d[tile][i] + to : d[tile][i];
      }
    }
  }
};

/// The block's outputs from their sums; neighbours in a row by neighbouring threads.
INFER_DEVICE void finish_q8(const Params& p, const Q8Out& out, const TileAt& at,
                            const RowTile& rows) {
  const bool glu = p.epilogue.kind == Epilogue::kGlu;
  const Item& item = p.item[at.item];
  const int columns = glu ? kQ8Width / 2 : kQ8Width;
#pragma unroll 1
  for (int i = static_cast<int>(thread_idx().x); i < rows.n * columns; i += kQ8Threads) {
    const int r = i / columns, c = i % columns, column = at.column + c;
    if (column >= item.n) continue;
    const float* sum = &out.sum[r][glu ? c / 8 * 16 + c % 8 : c];
    const int row = out_row(p, rows.first + r);
    item.out[static_cast<int64_t>(row) * item.n + column] =
        finished(p, item, row, column, sum[0], glu ? sum[8] : 0.0f);
  }
}

/// One step; `held` are its weights, and after it those of the step after the next one.
template <DType kType>
INFER_DEVICE void q8_step(const Params& p, Q8Tiles<kType>& s, const Q8Weights<kType>& weights,
                          typename Q8Weights<kType>::Held& held, const Q8Rows& rows,
                          Q8Sums<kType>& sums, int step) {
  weights.put(p, s, held, step);
  cp_async_wait<1>();  // all but the weights of the next step
  // This step's tiles are complete, and everybody is done with the buffers that are filled next.
  sync_threads();
  rows.fetch(p, s, step + 1);
  cp_async_commit();
  weights.fetch(p, s, held, step + 2);
  cp_async_commit();
  const int weight0 = warp_id() % 4 * 16, odd = warp_id() / 4;
#pragma unroll 1
  for (int sub = odd; sub < 4; sub += 2)
    if (step * kQ8Step + 32 * sub < p.k) sums.add_32(s, step, sub, weight0, rows.n_row);
}

/// Shapes: q8 [m, k] ([m / rows_share, k] of experts) in blocks of 32; an item's weights [n, k],
/// out [m, n]. Grid: (tiles of rows, tiles of n of all items). Bytes: every weight once for 64
/// rows, and the activations once a block, from L2.
template <DType kType>
__global__ void __launch_bounds__(kQ8Threads, 2) gemm_q8(const __grid_constant__ Params p) {
  using Tiles = Q8Tiles<kType>;
  const RowTile tile = find_rows(p, static_cast<int>(block_idx().x), kQ8Rows);
  if (tile.n <= 0) return;
  Q8Rows rows;
  rows.begin(p, tile);
  auto& s = shared<Tiles>();
  const TileAt at = find_tile(p, static_cast<int>(block_idx().y), kQ8Width, tile.expert);
  Q8Sums<kType> sums = {};
  Q8Weights<kType> weights;
  weights.begin(p, at);
  typename Q8Weights<kType>::Held even_step, odd_step;
  weights.fetch(p, s, even_step, 0);
  rows.fetch(p, s, 0);
  cp_async_commit();
  weights.fetch(p, s, odd_step, 1);
  cp_async_commit();
  for (int step = 0; step * kQ8Step < p.k; step += 2) {
    q8_step(p, s, weights, even_step, rows, sums, step);
    if ((step + 1) * kQ8Step < p.k) q8_step(p, s, weights, odd_step, rows, sums, step + 1);
  }
  // The outputs take the memory of the tiles, which everybody has left.
  static_assert(sizeof(s.act) + sizeof(s.weight) >= sizeof(Q8Out));
  auto& out = reinterpret_cast<Q8Out&>(s);
  const int weight0 = warp_id() % 4 * 16;
  const bool odd = warp_id() >= 4;
  sync_threads();
  if (odd) sums.template put<false>(out, weight0, rows.n_row);
  sync_threads();
  if (!odd) sums.template put<true>(out, weight0, rows.n_row);
  sync_threads();
  finish_q8(p, out, at, tile);
}

template <DType kType>
cudaError_t launch_q8(const Params& p, cudaStream_t stream) {
  static_assert(sizeof(Q8Tiles<kType>) <= kSharedBytes);
  const bool glu = p.epilogue.kind == Epilogue::kGlu;
  int tiles = 0;
  for (int i = 0; i < (glu ? 1 : p.n_item); ++i) tiles += n_tile(p.epilogue, p.item[i].n, kQ8Width);
  const dim3 grid(static_cast<unsigned>(n_row_tile(p, kQ8Rows)), static_cast<unsigned>(tiles));
  return launch(gemm_q8<kType>, grid, kQ8Threads, sizeof(Q8Tiles<kType>), stream, p);
}

}  // namespace infer::cuda::gemm
