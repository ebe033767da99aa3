#pragma once

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/gemv_params.cuh"
#include "kernels/cuda/weight_units.cuh"

/// Which rows of weights a lane has, its loads of them, and where its outputs go.
namespace infer::cuda::gemv {

/// The rows of weights that a lane has in a tile.
struct LaneRows {
  int item[kRowsOfLane];
  int row[kRowsOfLane];  ///< of the item; the last one where the tile reaches beyond it
  int column;            ///< first output
};

/// `group` counts the lanes, or groups of lanes, of a tile that have rows of their own.
INFER_DEVICE LaneRows lane_rows(const Params& p, int tile, int group) {
  const bool glu = p.epilogue.kind == Epilogue::kGlu;
  int i = 0;
  for (; !glu && i + 1 < p.n_item; ++i) {
    if (tile < p.item[i].n_tile) break;
    tile -= p.item[i].n_tile;
  }
  LaneRows at;
  at.column = tile * p.tile_rows + group * (glu ? 1 : kRowsOfLane);
#pragma unroll
  for (int r = 0; r < kRowsOfLane; ++r) {
    const int row = glu ? at.column : at.column + r;
    at.item[r] = glu ? r : i;
    at.row[r] = row < p.item[i].n ? row : p.item[i].n - 1;
  }
  return at;
}

/// Where unit `unit` of the lane's row r is.
template <class W>
INFER_DEVICE void find_unit(const Params& p, const LaneRows& rows, int r, int expert, int unit,
                            typename W::At& at) {
  Planes w = p.item[rows.item[r]].w;
#pragma unroll
  for (int i = 0; i < kMaxPlanes; ++i) w.at[i] += expert * p.expert_bytes;
  W::find(w, rows.row[r], unit, p.units, p.k, at);
}

INFER_DEVICE float dot_quad(const float* w, const float4& x, float sum) {
  return fmaf(w[3], x.w, fmaf(w[2], x.z, fmaf(w[1], x.y, fmaf(w[0], x.x, sum))));
}

/// Stores output [row, column] made of the sum `v`, and of `up` where the items are a GLU.
INFER_DEVICE void store_output(const Params& p, const Item& item, int row, int column, float v,
                               float up) {
  const float* up_bias = p.item[1].bias;
  v = scaled(p.epilogue, v, item.bias != nullptr ? item.bias[column] : 0.0f);
  if (p.epilogue.kind == Epilogue::kGlu)
    up = scaled(p.epilogue, up, up_bias != nullptr ? up_bias[column] : 0.0f);
  const int64_t to = static_cast<int64_t>(row) * item.n + column;
  item.out[to] = finish(p.epilogue, v, up, to);
}

}  // namespace infer::cuda::gemv
