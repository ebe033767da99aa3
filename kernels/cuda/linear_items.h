#pragma once

#include "kernels/cuda/linear.h"

namespace infer::cuda {

/// Calls launch_one(items) for the items of each type in turn, in their order, and returns the
/// first error. Refuses what no kernel can take: no items, matrices without a layout or of several
/// k, a GLU that is no pair.
template <class LaunchOne>
cudaError_t for_types(const LinearItems& all, const LinearEpilogue& epilogue,
                      LaunchOne&& launch_one) {
  if (all.n < 1 || all.n > kMaxItems) return cudaErrorInvalidValue;
  const Matrix& first = all.item[0].w;
  for (int i = 0; i < all.n; ++i) {
    const Matrix& w = all.item[i].w;
    if (weight_layout(w.type).n_plane == 0 || w.k != first.k || w.k < 1 || w.n < 1)
      return cudaErrorInvalidValue;
  }
  const Matrix& second = all.item[1].w;
  if (epilogue.kind == Epilogue::kGlu &&
      (all.n != 2 || first.type != second.type || first.n != second.n))
    return cudaErrorInvalidValue;
  bool done[kMaxItems] = {};
  for (int i = 0; i < all.n; ++i) {
    if (done[i]) continue;
    LinearItems same;
    for (int j = i; j < all.n; ++j) {
      if (all.item[j].w.type != all.item[i].w.type) continue;
      same.item[same.n++] = all.item[j];
      done[j] = true;
    }
    if (const cudaError_t error = launch_one(same); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

/// linear_f32 in tiles, for many rows.
cudaError_t linear_tiles(const LinearF32Args& args, cudaStream_t stream);

}  // namespace infer::cuda
