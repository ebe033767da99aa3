#pragma once

#include "kernels/cuda/gemm_params.cuh"
#include "kernels/cuda/launch.cuh"

/// Weights of any type, as f16 in shared memory, times f16 activations, f32 sums.
///
/// A block computes kRows rows times kWidth weights; a step takes 32 along k. Activations, and
/// weights of 16 bits, come by cp.async; quantised weights wait in registers while the step before
/// is computed, and are rounded to f16 once, from their f32 value. Two buffers, one barrier a step.
///
/// Order of summation: along k in the order of the tensor cores' 16 (8 on sm_75), one chain an
/// output, whatever the tile.
namespace infer::cuda::gemm {

inline constexpr int kHalfStep = 32;

/// A warp computes 32 weights times kWarpRows rows; kWarpsM x kWarpsN warps.
template <int kWarpRows_, int kWarpsM_, int kWarpsN_>
struct HalfShape {
  static constexpr int kWarpRows = kWarpRows_, kWarpsM = kWarpsM_, kWarpsN = kWarpsN_;
  static constexpr int kRows = kWarpRows * kWarpsM, kWidth = 32 * kWarpsN;
  static constexpr int kThreads = kWarp * kWarpsM * kWarpsN;
  /// Blocks that registers are kept for on a multiprocessor. sm_75 holds chunks in them.
  static INFER_DEVICE constexpr int blocks() {
    return architecture() == 75 && kThreads == 256 ? 1 : 512 / kThreads;
  }
};
using HalfLarge = HalfShape<64, 2, 4>;
using HalfSmall = HalfShape<32, 2, 2>;

/// Rows of 64 bytes: 16-byte chunk c of row r lies at c ^ (r / 2 % 4), which spreads eight rows of
/// a chunk over all banks.
template <class Shape>
struct HalfTiles {
  uint16_t act[2][Shape::kRows][kHalfStep];
  uint16_t weight[2][Shape::kWidth][kHalfStep];
};
/// Where a warp turns its sums about, in the memory of the tiles. Rows are eight banks apart.
struct HalfPatch {
  float sum[16][40];
};
INFER_DEVICE int half_chunk(int row, int chunk) { return 8 * (chunk ^ (row / 2 % 4)); }

/// What a thread copies of a matrix of halves in every step: a chunk of every kThreads / 4-th row,
/// zeros beyond the row. sm_75 has no asynchronous copies: there chunks wait in registers, from
/// fetch() until put().
template <int kRows, int kThreads>
struct HalfCopies {
  static constexpr int kChunks = 4 * kRows / kThreads;
  const uint16_t* row_begin[kChunks];
  uint4 held[kChunks];

  static INFER_DEVICE int row(int i) {
    return static_cast<int>(thread_idx().x) / 4 + i * (kThreads / 4);
  }
  static INFER_DEVICE uint16_t* place(uint16_t (&tile)[kRows][kHalfStep], int i) {
    return &tile[row(i)][half_chunk(row(i), static_cast<int>(thread_idx().x) % 4)];
  }
  INFER_DEVICE void fetch(uint16_t (&tile)[kRows][kHalfStep], int k, int step) {
    const int at = step * kHalfStep + static_cast<int>(thread_idx().x) % 4 * 8;
    const bool inside = at < k;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      if (k % 8 != 0)
        copy_odd(place(tile, i), row_begin[i], at, k);
      else if (architecture() >= 80)
        cp_async<16>(place(tile, i), row_begin[i] + (inside ? at : 0), inside ? 16 : 0);
      else
        held[i] = inside ? load_readonly<uint4>(row_begin[i] + at) : make_uint4(0, 0, 0, 0);
    }
  }
  INFER_DEVICE void put(uint16_t (&tile)[kRows][kHalfStep], int k) const {
#pragma unroll
    for (int i = 0; i < kChunks; ++i)
      if (architecture() < 80 && k % 8 == 0) store(place(tile, i), held[i]);
  }
  /// Rows that do not begin at multiples of 16 bytes, one by one.
  static INFER_DEVICE void copy_odd(uint16_t* to, const uint16_t* row_begin, int at, int k) {
#pragma unroll 1
    for (int i = 0; i < 8; ++i) to[i] = at + i < k ? row_begin[at + i] : uint16_t{0};
  }
};

// --- Weights

/// How weights come to shared memory: fetch() of the next step before this one is computed, put()
/// after. begin() once.
template <DType kType, class Shape>
struct HalfWeights {
  using R = Runs<kType>;
  static_assert(2 * Shape::kWidth == Shape::kThreads, "a run for each thread");
  PlanesAt w;
  int first_block;
  int row, run_in_step;
  typename R::Bytes bytes;
  typename R::Factors factors;

  INFER_DEVICE void begin(const Params& p, const TileAt& at) {
    const int thread = static_cast<int>(thread_idx().x);
    row = thread / 2, run_in_step = thread % 2;
    const WeightRow from = weight_row(p, at, row);
    w = {&from.item->w, at.offset};
    first_block = from.row * (p.k / R::kBlockLen);
  }
  INFER_DEVICE void fetch(const Params&, HalfTiles<Shape>&, int step) {
    const int run = 2 * step + run_in_step, runs = R::kBlockLen / 16;
    bytes = R::load_bytes(w, first_block + run / runs, run % runs);
    factors = R::load_factors(w, first_block + run / runs, run % runs);
  }
  INFER_DEVICE void put(const Params&, HalfTiles<Shape>& s, int step) const {
    const int run = (2 * step + run_in_step) % (R::kBlockLen / 16);
    uint32_t u[4], half[8];
    R::levels(bytes, run, u);
    const Scale scale = R::scale(factors, run, 0);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float v[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        v[j] = float_from_byte(u[i / 2], 2 * (i % 2) + j, R::kBias) * scale.scale;
        if (R::kHasMin) v[j] -= scale.minimum;
      }
      half[i] = f16_pair(v[0], v[1]);
    }
    uint16_t* to = s.weight[step % 2][row];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      store(to + half_chunk(row, 2 * run_in_step + i),
            make_uint4(half[4 * i], half[4 * i + 1], half[4 * i + 2], half[4 * i + 3]));
  }
};

template <class Shape>
struct HalfWeights16 {
  using Copies = HalfCopies<Shape::kWidth, Shape::kThreads>;
  Copies copies;

  INFER_DEVICE void begin(const Params& p, const TileAt& at) {
#pragma unroll
    for (int i = 0; i < Copies::kChunks; ++i) {
      const WeightRow from = weight_row(p, at, Copies::row(i));
      copies.row_begin[i] = reinterpret_cast<const uint16_t*>(from.item->w.plane[0] + at.offset) +
                            static_cast<int64_t>(from.row) * p.k;
    }
  }
  INFER_DEVICE void fetch(const Params& p, HalfTiles<Shape>& s, int step) {
    copies.fetch(s.weight[step % 2], p.k, step);
  }
  INFER_DEVICE void put(const Params& p, HalfTiles<Shape>& s, int step) const {
    copies.put(s.weight[step % 2], p.k);
  }
};
template <class Shape>
struct HalfWeights<DType::kF16, Shape> : HalfWeights16<Shape> {};

/// sm_75 has no bf16 products: what this thread copied becomes f16, within its range.
template <class Shape>
struct HalfWeights<DType::kBF16, Shape> : HalfWeights16<Shape> {
  INFER_DEVICE void put(const Params& p, HalfTiles<Shape>& s, int step) const {
    using Base = HalfWeights16<Shape>;
    Base::put(p, s, step);
#pragma unroll
    for (int i = 0; i < (architecture() < 80 ? Base::Copies::kChunks : 0); ++i) {
      uint16_t* at = Base::Copies::place(s.weight[step % 2], i);
      const uint4 bf16 = load<uint4>(at);
      uint32_t half[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t two = word_of(bf16, j);
        half[j] = f16_pair(saturate_f16(float_of_bits(two << 16)),
                           saturate_f16(float_of_bits(two & 0xffff0000u)));
      }
      store(at, make_uint4(half[0], half[1], half[2], half[3]));
    }
  }
};

// --- The product

template <DType kType, class Shape>
struct HalfSums {
  static constexpr int kTilesM = Shape::kWarpRows / 16;
  float d[kTilesM][4][4];

  /// Rows act_row.. and weight_row.. of the tiles, multiples of 16.
  INFER_DEVICE void add_step(const HalfTiles<Shape>& s, int step, int act_row, int weight_row) {
    const int lane = lane_id();
#pragma unroll
    for (int kk = 0; kk < kHalfStep / 16; ++kk) {
      uint32_t b[4][2];
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        const int row = lane / 16 * 8 + lane % 8;  // of 16; so is what half_chunk wants
        uint32_t two[4];
        ldmatrix(
            two,
            &s.weight[step % 2][weight_row + 8 * j + row][half_chunk(row, 2 * kk + lane / 8 % 2)]);
        b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
      }
#pragma unroll
      for (int i = 0; i < kTilesM; ++i) {
        uint32_t a[4];
        ldmatrix(a, &s.act[step % 2][act_row + 16 * i + lane % 16]
                          [half_chunk(lane % 16, 2 * kk + lane / 16)]);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (kType == DType::kBF16 && architecture() >= 80)
            mma_bf16(d[i][j], a, b[j]);
          else
            mma_f16(d[i][j], a, b[j]);
        }
      }
    }
  }

  /// Rows row0.. of the tile `rows`, weights weight0.. of the tile at `at`. Sixteen rows at a time
  /// go through the warp's own `patch` of shared memory, so that a row's columns are neighbours.
  INFER_DEVICE void finish(const Params& p, HalfPatch& patch, const TileAt& at, const RowTile& rows,
                           int row0, int weight0) const {
    const bool glu = p.epilogue.kind == Epilogue::kGlu;
    const Item& item = p.item[at.item];
    const int lane = lane_id();
#pragma unroll
    for (int i = 0; i < kTilesM; ++i) {
      if (row0 + 16 * i >= rows.n) break;
#pragma unroll
      for (int j = 0; j < 8; ++j)
        store(&patch.sum[lane / 4 + j % 2 * 8][j / 2 * 8 + 2 * (lane % 4)],
              make_float2(d[i][j / 2][j % 2 * 2], d[i][j / 2][j % 2 * 2 + 1]));
      sync_warp();
#pragma unroll 1
      for (int r = 0; r < (glu ? 8 : 16); ++r) {
        const int in_patch = glu ? 2 * r + lane / 16 : r, in_tile = row0 + 16 * i + in_patch;
        const int from = glu ? lane % 16 / 8 * 16 + lane % 8 : lane;
        const int column = at.column + (glu ? weight0 / 2 + lane % 16 : weight0 + lane);
        if (in_tile >= rows.n || column >= item.n) continue;
        const int row = out_row(p, rows.first + in_tile);
        const float* sum = &patch.sum[in_patch][from];
        item.out[static_cast<int64_t>(row) * item.n + column] =
            finished(p, item, row, column, sum[0], glu ? sum[8] : 0.0f);
      }
      sync_warp();
    }
  }
};

/// Shapes: half [m, k] ([m / rows_share, k] of experts); an item's weights [n, k], out [m, n].
/// Grid: (tiles of rows, tiles of n of all items). Bytes: a block reads kRows rows of activations
/// and kWidth of weights; neighbours along m run together and find the weights in L2.
template <DType kType, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::blocks())
    gemm_half(const __grid_constant__ Params p) {
  const RowTile rows = find_rows(p, static_cast<int>(block_idx().x), Shape::kRows);
  if (rows.n <= 0) return;
  auto& s = shared<HalfTiles<Shape>>();
  const TileAt at = find_tile(p, static_cast<int>(block_idx().y), Shape::kWidth, rows.expert);
  const int row0 = warp_id() / Shape::kWarpsN * Shape::kWarpRows;
  const int weight0 = warp_id() % Shape::kWarpsN * 32;
  const bool alive = row0 < rows.n;  // the same for a warp
  HalfSums<kType, Shape> sums = {};
  HalfWeights<kType, Shape> weights;
  weights.begin(p, at);
  HalfCopies<Shape::kRows, Shape::kThreads> act;
#pragma unroll
  for (int i = 0; i < act.kChunks; ++i) {  // a row that is not alive is one that is
    const int row = act_row(p, rows.first + (act.row(i) < rows.n ? act.row(i) : 0));
    act.row_begin[i] = p.half + static_cast<int64_t>(row) * p.k;
  }
  const int n_step = (p.k + kHalfStep - 1) / kHalfStep;
  act.fetch(s.act[0], p.k, 0);
  weights.fetch(p, s, 0);
  cp_async_commit();
  for (int step = 0; step < n_step; ++step) {
    cp_async_wait<0>();
    act.put(s.act[step % 2], p.k);
    weights.put(p, s, step);
    // This step's tiles are complete, and everybody is done with the buffers that are filled next.
    sync_threads();
    if (step + 1 < n_step) {
      act.fetch(s.act[(step + 1) % 2], p.k, step + 1);
      weights.fetch(p, s, step + 1);
      cp_async_commit();
    }
    if (alive) sums.add_step(s, step, row0, weight0);
  }
  sync_threads();  // everybody is done with the tiles
  static_assert(sizeof(s) >= sizeof(HalfPatch) * Shape::kThreads / kWarp);
  auto& patch = reinterpret_cast<HalfPatch*>(&s)[warp_id()];
  if (alive) sums.finish(p, patch, at, rows, row0, weight0);
}

template <DType kType, class Shape>
cudaError_t launch_half_shape(const Params& p, cudaStream_t stream) {
  static_assert(sizeof(HalfTiles<Shape>) <= kSharedBytes);
  const bool glu = p.epilogue.kind == Epilogue::kGlu;
  int tiles = 0;
  for (int i = 0; i < (glu ? 1 : p.n_item); ++i)
    tiles += n_tile(p.epilogue, p.item[i].n, Shape::kWidth);
  const dim3 grid(static_cast<unsigned>(n_row_tile(p, Shape::kRows)), static_cast<unsigned>(tiles));
  return launch(gemm_half<kType, Shape>, grid, Shape::kThreads, sizeof(HalfTiles<Shape>), stream,
                p);
}

template <DType kType>
cudaError_t launch_half(HalfTile tile, const Params& p, cudaStream_t stream) {
  if (tile == HalfTile::kLarge) return launch_half_shape<kType, HalfLarge>(p, stream);
  return launch_half_shape<kType, HalfSmall>(p, stream);
}

}  // namespace infer::cuda::gemm
