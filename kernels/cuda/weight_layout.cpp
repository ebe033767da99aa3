#include "kernels/cuda/weight_layout.h"

#include <cstring>

#include "core/base/checked.h"
#include "core/base/quant_blocks.h"
#include "core/base/quant_types.h"

namespace infer::cuda {

WeightLayout weight_layout(DType type) {
  switch (type) {
    case DType::kF32:
      return {1, 1, {4}, {0}};
    case DType::kF16:
    case DType::kBF16:
      return {1, 1, {2}, {0}};
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return {2, kBlock32, {16, 2}, {2, 0}};
    case DType::kQ4_1:
      return {2, kBlock32, {16, 4}, {4, 0}};
    case DType::kQ5_0:
      return {3, kBlock32, {16, 4, 2}, {6, 2, 0}};
    case DType::kQ5_1:
      return {3, kBlock32, {16, 4, 4}, {8, 4, 0}};
    case DType::kQ8_0:
      return {2, kBlock32, {32, 2}, {2, 0}};
    case DType::kQ2_K:
      return {3, kBlock256, {64, 16, 4}, {16, 0, 80}};
    case DType::kQ3_K:
      return {4, kBlock256, {64, 32, 12, 2}, {32, 0, 96, 108}};
    case DType::kQ4_K:
      return {2, kBlock256, {128, 16}, {16, 0}};
    case DType::kQ5_K:
      return {3, kBlock256, {128, 32, 16}, {48, 16, 0}};
    case DType::kQ6_K:
      return {4, kBlock256, {128, 64, 16, 2}, {0, 128, 192, 208}};
    case DType::kIQ4_XS:
      return {2, kBlock256, {128, 8}, {8, 0}};
    default:
      return {};
  }
}

int64_t plane_offset(const WeightLayout& layout, int plane, int64_t n, int64_t k) {
  int64_t offset = 0;
  for (int p = 0; p < plane; ++p)
    offset += align_up<int64_t>(n * (k / layout.block_len) * layout.plane_bytes[p], kPlaneAlign);
  return offset;
}

void repack_rows(const WeightLayout& layout, const std::byte* file, int64_t n, int64_t k,
                 int64_t row_begin, int64_t row_end, std::byte* out) {
  int64_t block_bytes = 0;
  for (int p = 0; p < layout.n_plane; ++p) block_bytes += layout.plane_bytes[p];
  const int64_t first = row_begin * (k / layout.block_len);
  const int64_t n_block = (row_end - row_begin) * (k / layout.block_len);
  for (int p = 0; p < layout.n_plane; ++p) {
    const int64_t bytes = layout.plane_bytes[p];
    std::byte* to = out + plane_offset(layout, p, n, k) + first * bytes;
    if (layout.n_plane == 1) {
      std::memcpy(to, file, static_cast<size_t>(n_block * bytes));
      return;
    }
    const std::byte* from = file + layout.source_begin[p];
    for (int64_t b = 0; b < n_block; ++b)
      std::memcpy(to + b * bytes, from + b * block_bytes, static_cast<size_t>(bytes));
  }
}

Matrix make_matrix(DType type, int64_t n, int64_t k, int64_t n_expert, const std::byte* data) {
  const WeightLayout layout = weight_layout(type);
  Matrix m;
  m.type = type;
  m.n = static_cast<int>(n);
  m.k = static_cast<int>(k);
  m.n_expert = static_cast<int>(n_expert);
  m.expert_bytes = plane_offset(layout, layout.n_plane, n, k);
  for (int p = 0; p < layout.n_plane; ++p) m.plane[p] = data + plane_offset(layout, p, n, k);
  return m;
}

}  // namespace infer::cuda
