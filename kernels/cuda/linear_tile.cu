#include "kernels/cuda/gemv_act.cuh"
#include "kernels/cuda/gemv_rows.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_items.h"
#include "kernels/cuda/weight_types.h"

/// Products of many rows in f32: a block has 64 rows of x and 32 of weights, of which 128 columns
/// at a time lie in shared memory as f32; a thread sums 4 x 2 outputs, k in sequence.
namespace infer::cuda {
namespace gemv {

inline constexpr int kTileX = 64, kTileW = 32, kTileK = 128;
inline constexpr int kTileQuads = kTileK / 4;
inline constexpr int kRowsOfThread = 4;

/// Quad i of row r lies where quad i ^ (r % 8) would (r / 2 for weights, of which a thread reads
/// two neighbours): rows that are read together differ in their banks.
struct LinearTile {
  float4 x[kTileX][kTileQuads];
  float4 w[kTileW][kTileQuads];
};
static_assert(sizeof(LinearTile) <= kSharedBytes);

INFER_DEVICE void fill_x(const Params& p, int first_row, int n_live, int begin, LinearTile& tile) {
  for (int i = static_cast<int>(thread_idx().x); i < kTileX * kTileQuads; i += kThreads) {
    const int r = i / kTileQuads, quad = i % kTileQuads;
    float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
    if (first_row + r < n_live)
      v = load_quad<false>(p.x + static_cast<int64_t>(first_row + r) * p.k, begin + 4 * quad, p.k);
    tile.x[r][quad ^ (r & 7)] = v;
  }
}

template <class W>
INFER_DEVICE void fill_weights(const Params& p, int tile_n, int begin, LinearTile& tile) {
  constexpr int kUnits = kTileK / W::kUnit;
  for (int i = static_cast<int>(thread_idx().x); i < kTileW * kUnits; i += kThreads) {
    const int row = i / kUnits, unit = i % kUnits, of_row = begin / W::kUnit + unit;
    float w[W::kUnit] = {};
    if (of_row < p.units) {
      const LaneRows at = lane_rows(p, tile_n, row / kRowsOfLane);
      typename W::At from;
      find_unit<W>(p, at, row % kRowsOfLane, 0, of_row, from);
      W::values(W::load(from, 0, p.k - of_row * W::kUnit), of_row, w);
    }
#pragma unroll
    for (int q = 0; q < W::kUnit / 4; ++q)
      tile.w[row][static_cast<int>(W::quad(static_cast<unsigned>(unit), static_cast<unsigned>(q))) ^
                  (row / kRowsOfLane & 7)] = {w[4 * q], w[4 * q + 1], w[4 * q + 2], w[4 * q + 3]};
  }
}

/// x [m, k], weights [n, k] of up to three items, out [m, n]; bytes moved: weights m / 64 times, x
/// n / 32 times. Grid: tiles of weights, tiles of rows. Block: kThreads.
template <class W>
__global__ void __launch_bounds__(kThreads) linear_tile_kernel(const __grid_constant__ Params p) {
  const int n_live = live_rows(p);
  const int first_row = static_cast<int>(block_idx().y) * kTileX;
  if (first_row >= n_live) return;
  const int tile_n = static_cast<int>(block_idx().x);
  LinearTile& tile = shared<LinearTile>();
  const int column = static_cast<int>(thread_idx().x) % (kTileW / kRowsOfLane);
  const int row = static_cast<int>(thread_idx().x) / (kTileW / kRowsOfLane) * kRowsOfThread;
  float sums[kRowsOfThread][kRowsOfLane] = {};
  for (int begin = 0; begin < p.k; begin += kTileK) {
    sync_threads();  // the tile has been read
    fill_x(p, first_row, n_live, begin, tile);
    fill_weights<W>(p, tile_n, begin, tile);
    sync_threads();
#pragma unroll 4
    for (int q = 0; q < kTileQuads; ++q) {
      float4 w[kRowsOfLane];
#pragma unroll
      for (int j = 0; j < kRowsOfLane; ++j)
        w[j] = tile.w[column * kRowsOfLane + j][q ^ (column & 7)];
#pragma unroll
      for (int i = 0; i < kRowsOfThread; ++i) {
        const float4 x = tile.x[row + i][q ^ ((row + i) & 7)];
#pragma unroll
        for (int j = 0; j < kRowsOfLane; ++j) {
          const float wj[4] = {w[j].x, w[j].y, w[j].z, w[j].w};
          sums[i][j] = dot_quad(wj, x, sums[i][j]);
        }
      }
    }
  }
  const LaneRows at = lane_rows(p, tile_n, column);
  const Item& item = p.item[at.item[0]];
  const bool glu = p.epilogue.kind == Epilogue::kGlu;
#pragma unroll
  for (int i = 0; i < kRowsOfThread; ++i) {
    if (first_row + row + i >= n_live) continue;
#pragma unroll
    for (int j = 0; j < kRowsOfLane; ++j) {
      if (at.column + j >= item.n || (glu && j > 0)) continue;
      store_output(p, item, first_row + row + i, at.column + j, sums[i][j], sums[i][1]);
    }
  }
}

template <DType kType>
cudaError_t launch_tiles(Params p, cudaStream_t stream) {
  using W = WeightUnits<kType>;
  p.units = (p.k + W::kUnit - 1) / W::kUnit;
  set_tiles(p, kTileW);
  const dim3 grid(static_cast<unsigned>(p.n_tile),
                  static_cast<unsigned>((p.m + kTileX - 1) / kTileX));
  return cuda::launch(linear_tile_kernel<W>, grid, kThreads, sizeof(LinearTile), stream, p);
}

static cudaError_t launch_tiles(DType type, const Params& p, cudaStream_t stream) {
  return with_type(FloatTypes{} + LegacyTypes{} + KTypes{}, type,
                   [&]<DType kType>() { return launch_tiles<kType>(p, stream); });
}

}  // namespace gemv

cudaError_t linear_tiles(const LinearF32Args& args, cudaStream_t stream) {
  return for_types(args.items, args.epilogue, [&](const LinearItems& items) {
    gemv::Params p = gemv::make_params(args.x, args.n_live, items, args.epilogue);
    p.m = args.m;
    return gemv::launch_tiles(items.item[0].w.type, p, stream);
  });
}

}  // namespace infer::cuda
