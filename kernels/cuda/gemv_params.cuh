#pragma once

#include "kernels/cuda/linear.h"
#include "kernels/cuda/quant_dot.cuh"

/// What the gemv kernels (gemv.cuh) are launched with, for dense matrices and for experts.
namespace infer::cuda::gemv {

inline constexpr int kThreads = 256, kWarps = kThreads / kWarp;
/// Rows of weights that a lane reads side by side; of a GLU gate and up of one.
inline constexpr int kRowsOfLane = 2;
/// Shared memory that every architecture gives without being asked.
inline constexpr int kSharedBytes = 48 * 1024;

struct Item {
  Planes w;
  const float* bias;
  float* out;
  int n;
  int n_tile;
};

struct Params {
  const float* x;
  Norm norm;
  int k;
  int m;                  ///< rows that there is room for (dense)
  const int32_t* n_live;  ///< [1]; nullptr for experts
  int n_item;
  Item item[kMaxItems];
  LinearEpilogue epilogue;

  /// Experts: block_idx().y is one; its rows are pair[begin[e] .. begin[e + 1]), whose activations
  /// are row pair / rows_share of x and whose outputs are row pair. nullptr: dense.
  const int32_t* begin;
  const int32_t* pair;
  int rows_share;
  int64_t expert_bytes;

  // How the work is cut up; set by the launchers of each kernel.
  int units;        ///< of a row of weights
  int turns;        ///< in which the lanes take them
  int lanes_log2;   ///< of the 8, 16 or 32 lanes that share a row
  int chunk;        ///< activations of a row in shared memory at a time
  int chunk_turns;  ///< turns that they are for
  int tile_rows;    ///< outputs of an item that a tile has
  int n_tile;       ///< of all items
};

/// The type, the rows that a pass takes, and what else decides which kernel runs.
struct Launch {
  DType type = DType::kF32;
  bool f32 = false;       ///< activations stay f32
  int m = 1;              ///< rows at most (of an expert)
  int n_expert = 1;       ///< of the grid
  int n_expert_used = 1;  ///< at most so many have rows
};

/// What the arguments say; the rest, m too, is zeros.
Params make_params(const float* x, const int32_t* n_live, const LinearItems& items,
                   const LinearEpilogue& epilogue);
/// Live rows of a dense launch: what device memory says never leads beyond the m rows.
INFER_DEVICE int live_rows(const Params& p) { return *p.n_live < p.m ? *p.n_live : p.m; }
/// Cuts the items into tiles of so many rows of weights (kGlu: half as many outputs).
void set_tiles(Params& p, int rows);
/// Of the current device.
int multiprocessors();

/// Launches, filling in how the work is cut up. One function for each group of types that is
/// compiled together.
cudaError_t launch(const Launch& what, const Params& p, cudaStream_t stream);
cudaError_t launch_legacy(const Launch& what, const Params& p, cudaStream_t stream);
cudaError_t launch_k(const Launch& what, const Params& p, cudaStream_t stream);
cudaError_t launch_float(const Launch& what, const Params& p, cudaStream_t stream);
cudaError_t launch_precise(const Launch& what, const Params& p, cudaStream_t stream);

}  // namespace infer::cuda::gemv
