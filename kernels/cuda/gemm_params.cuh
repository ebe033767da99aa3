#pragma once

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/weight_runs.cuh"

/// What the kernels of linear_gemm_q8 and linear_gemm_half share: their parameters, how the rows
/// of weights fill tiles, and what is done with a sum.
namespace infer::cuda::gemm {

struct Item {
  Planes w;
  const float* bias;
  float* out;
  int n;
};

/// The items of one type. With kGlu there are two, {gate, up}, seen as one matrix of 2 n rows:
/// eight of gate, eight of up, and so on, so that both sums of an output end in one thread.
struct Params {
  ActQ8 q8;
  const uint16_t* half;
  int m, k;
  const int32_t* n_live;
  LinearEpilogue epilogue;
  int n_item;
  Item item[kMaxItems];
};

/// Tiles along n that an item of n rows takes; `width` rows of weights in a tile.
__host__ __device__ constexpr int n_tile(const LinearEpilogue& e, int n, int width) {
  const int columns = e.kind == Epilogue::kGlu ? width / 2 : width;
  return (n + columns - 1) / columns;
}

/// A tile: the item, and the output column where it begins.
struct TileAt {
  int item, column;
};
INFER_DEVICE TileAt find_tile(const Params& p, int tile, int width) {
  if (p.epilogue.kind == Epilogue::kGlu) return {0, tile * (width / 2)};
  int i = 0;
  for (; i + 1 < p.n_item; ++i) {
    const int n = n_tile(p.epilogue, p.item[i].n, width);
    if (tile < n) break;
    tile -= n;
  }
  return {i, tile * width};
}

/// Row `r` of a tile as a row of an item's weights. Rows beyond the matrix read its last one; their
/// sums are thrown away.
struct WeightRow {
  const Item* item;
  int row;
};
INFER_DEVICE WeightRow weight_row(const Params& p, TileAt at, int r) {
  const bool glu = p.epilogue.kind == Epilogue::kGlu;
  const Item& item = p.item[glu ? r / 8 % 2 : at.item];
  const int row = at.column + (glu ? r / 16 * 8 + r % 8 : r);
  return {&item, row < item.n ? row : item.n - 1};
}

/// Output [row, column] of an item from the sum of products, and from that of `up`.
INFER_DEVICE float finished(const Params& p, const Item& item, int row, int column, float sum,
                            float up_sum) {
  const auto with_bias = [&](const float* bias, float v) {
    return scaled(p.epilogue, v, bias != nullptr ? bias[column] : 0.0f);
  };
  const float up = p.epilogue.kind == Epilogue::kGlu ? with_bias(p.item[1].bias, up_sum) : 0.0f;
  return finish(p.epilogue, with_bias(item.bias, sum), up,
                static_cast<int64_t>(row) * item.n + column);
}

/// Tiles of linear_gemm_half, which give the same bits: 128 rows times 128 weights, and 64
/// times 64.
enum class HalfTile : uint8_t { kLarge, kSmall };

/// Launches, one function for each group of types that is compiled together.
cudaError_t launch_half_plain(DType type, HalfTile tile, const Params& p, cudaStream_t stream);
cudaError_t launch_half_legacy(DType type, HalfTile tile, const Params& p, cudaStream_t stream);
cudaError_t launch_half_k(DType type, HalfTile tile, const Params& p, cudaStream_t stream);
cudaError_t launch_q8_legacy(DType type, const Params& p, cudaStream_t stream);
cudaError_t launch_q8_k(DType type, const Params& p, cudaStream_t stream);

/// linear_gemm_half with a given size of tiles, for tests.
cudaError_t linear_gemm_half_tiled(const GemmArgs& args, HalfTile tile, cudaStream_t stream);

}  // namespace infer::cuda::gemm
