#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/dtype.h"

/// How a weight matrix lies in device memory. Kernels load 16 bytes at once, which the blocks of
/// most files do not allow (18, 20, 34, 210 bytes), so each part of a block becomes a plane of its
/// own: plane p holds, row by row, part p of all blocks of the row. Same bytes, other order; planes
/// begin at multiples of kPlaneAlign.
namespace infer::cuda {

inline constexpr int64_t kPlaneAlign = 256;
inline constexpr int kMaxPlanes = 4;

/// The planes of a type: [n][k / block_len][bytes].
///   f32, f16, bf16     the values
///   q4_0, iq4_nl       qs 16 | d 2
///   q4_1               qs 16 | d, m 4
///   q5_0               qs 16 | qh 4 | d 2
///   q5_1               qs 16 | qh 4 | d, m 4
///   q8_0               qs 32 | d 2
///   q2_k               qs 64 | scales 16 | d, dmin 4
///   q3_k               qs 64 | hmask 32 | scales 12 | d 2
///   q4_k               qs 128 | d, dmin, scales 16
///   q5_k               qs 128 | qh 32 | d, dmin, scales 16
///   q6_k               ql 128 | qh 64 | scales 16 | d 2
///   iq4_xs             qs 128 | d, scales_h, scales_l 8
struct WeightLayout {
  int n_plane = 0;  ///< 0: no kernel takes this type
  int block_len = 1;
  int plane_bytes[kMaxPlanes] = {};   ///< of one block
  int source_begin[kMaxPlanes] = {};  ///< where the part begins in the file's block
};
WeightLayout weight_layout(DType type);

/// Where plane `plane` of an [n, k] matrix begins; plane == n_plane: bytes of all of them.
/// Needs: k a multiple of block_len, sizes that do not wrap (checked by the caller).
int64_t plane_offset(const WeightLayout& layout, int plane, int64_t n, int64_t k);

/// Copies rows [row_begin, row_end) of the file's matrix into their places. `file` points at row
/// row_begin, `out` at the beginning of the matrix in the layout.
void repack_rows(const WeightLayout& layout, const std::byte* file, int64_t n, int64_t k,
                 int64_t row_begin, int64_t row_end, std::byte* out);

/// A matrix [n, k] on the device, or n_expert of them, expert_bytes apart.
struct Matrix {
  DType type = DType::kF32;
  int n = 0, k = 0;
  int n_expert = 1;
  int64_t expert_bytes = 0;
  const std::byte* plane[kMaxPlanes] = {};  ///< of expert 0
};
/// Points at the planes of what lies at `data`.
Matrix make_matrix(DType type, int64_t n, int64_t k, int64_t n_expert, const std::byte* data);

}  // namespace infer::cuda
