#pragma once

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/weight_runs.cuh"

/// What the kernels of linear_gemm_q8 and linear_gemm_half share: their parameters, how rows and
/// rows of weights fill tiles, and what is done with a sum.
namespace infer::cuda::gemm {

/// Shared memory that every architecture gives without being asked.
inline constexpr size_t kSharedBytes = size_t{48} * 1024;

struct Item {
  Planes w;
  const float* bias;
  float* out;
  int n;
};

/// Which rows meet which of several matrices of an item: those of expert e are pair[begin[e] ..
/// begin[e + 1]), whose activations are row pair / rows_share and whose outputs are row pair.
struct Experts {
  const int32_t* begin = nullptr;  ///< [n + 1]; nullptr: one matrix that meets all rows
  const int32_t* pair = nullptr;
  int n = 1;
  int rows_share = 1;
  int64_t bytes = 0;  ///< from one to the next
};

/// The items of one type. With kGlu there are two, {gate, up}, seen as one matrix of 2 n rows:
/// eight of gate, eight of up, and so on, so that both sums of an output end in one thread.
struct Params {
  ActQ8 q8;
  const uint16_t* half;
  int m, k;               ///< m: rows of outputs
  const int32_t* n_live;  ///< not for experts: begin[n] says it
  Experts experts;
  LinearEpilogue epilogue;
  int n_item;
  Item item[kMaxItems];
};

/// Tiles of `height` rows that there are at most: each expert that has rows may have one that is
/// not full.
inline int n_row_tile(const Params& p, int height) {
  const int part = p.experts.begin == nullptr ? 1 : p.experts.n < p.m ? p.experts.n : p.m;
  return (p.m - part) / height + part;
}

/// Rows of a block: places in `pair` where there are experts.
struct RowTile {
  int first, n;  ///< n <= 0: none
  int expert;
};
/// For whole warps.
INFER_DEVICE RowTile find_rows(const Params& p, int tile, int height) {
  const Experts& x = p.experts;
  const auto cut = [height](int first, int end, int expert) -> RowTile {
    return {first, end - first < height ? end - first : height, expert};
  };
  if (x.begin == nullptr) return cut(tile * height, *p.n_live < p.m ? *p.n_live : p.m, 0);
  for (int e0 = 0; e0 < x.n; e0 += kWarp) {
    const int e = e0 + lane_id();
    const int begin = e < x.n ? x.begin[e] : 0, end = e < x.n ? x.begin[e + 1] : 0;
    const int own = (end - begin + height - 1) / height;
    int until = own;  // tiles of the experts from e0 to e
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int before = shfl_up(until, static_cast<uint32_t>(distance));
      if (lane_id() >= distance) until += before;
    }
    const int lane = popcount(warp_ballot(until <= tile));
    if (lane < kWarp) {
      const int first = shfl(begin + (tile - until + own) * height, lane);
      return cut(first, shfl(end, lane), e0 + lane);
    }
    tile -= shfl(until, kWarp - 1);
  }
  return {};
}
/// Row r of a tile among the activations, and among the outputs.
INFER_DEVICE int act_row(const Params& p, int r) {
  return p.experts.begin == nullptr ? r : p.experts.pair[r] / p.experts.rows_share;
}
INFER_DEVICE int out_row(const Params& p, int r) {
  return p.experts.begin == nullptr ? r : p.experts.pair[r];
}

/// Tiles along n that an item of n rows takes; `width` rows of weights in a tile.
__host__ __device__ constexpr int n_tile(const LinearEpilogue& e, int n, int width) {
  const int columns = e.kind == Epilogue::kGlu ? width / 2 : width;
  return (n + columns - 1) / columns;
}

/// A tile: the item, the output column where it begins, and where the expert's weights are.
struct TileAt {
  int item, column;
  int64_t offset;
};
INFER_DEVICE TileAt find_tile(const Params& p, int tile, int width, int expert) {
  const int64_t offset = expert * p.experts.bytes;
  if (p.epilogue.kind == Epilogue::kGlu) return {0, tile * (width / 2), offset};
  int i = 0;
  for (; i + 1 < p.n_item; ++i) {
    const int n = n_tile(p.epilogue, p.item[i].n, width);
    if (tile < n) break;
    tile -= n;
  }
  return {i, tile * width, offset};
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

/// Products of prepared activations with experts, by linear_gemm_half or linear_gemm_q8 as one of
/// args.half and args.q8 is set. args.m: rows of the outputs at most; of one type.
cudaError_t linear_gemm_experts(const GemmArgs& args, const Experts& experts, cudaStream_t stream);

/// Launches, one function for each group of types that is compiled together.
cudaError_t launch_half_plain(DType type, HalfTile tile, const Params& p, cudaStream_t stream);
cudaError_t launch_half_legacy(DType type, HalfTile tile, const Params& p, cudaStream_t stream);
cudaError_t launch_half_k(DType type, HalfTile tile, const Params& p, cudaStream_t stream);
cudaError_t launch_q8_legacy(DType type, const Params& p, cudaStream_t stream);
cudaError_t launch_q8_k(DType type, const Params& p, cudaStream_t stream);

/// linear_gemm_half with a given size of tiles, for tests.
cudaError_t linear_gemm_half_tiled(const GemmArgs& args, HalfTile tile, cudaStream_t stream);

}  // namespace infer::cuda::gemm
