#include "quantize/convert/hf_rows.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/describe.h"

namespace infer::quantize {
namespace {

using model::HfChange;

constexpr int64_t kPageBytes = 4096;

bool moves_rows(HfChange change) {
  return change == HfChange::kPermuteQ || change == HfChange::kPermuteK ||
         change == HfChange::kSplitQkv;
}

/// A tensor as rows of one slice after the other. A vector whose elements move has rows of one
/// element.
struct Layout {
  int64_t n_k = 0;           ///< elements of a row here
  int64_t rows_per_row = 1;  ///< of these, in one row of the GGUF
  int64_t slice_rows = 0;    ///< of the GGUF's kind, in a slice

  explicit Layout(const MappedTensor& m) {
    n_k = m.shape[0];
    if (moves_rows(m.change) && m.shape.size() == 1) {
      rows_per_row = n_k;
      n_k = 1;
    }
    const auto n_slice = static_cast<int64_t>(m.slices.size());
    slice_rows = m.n_elem() / n_k / n_slice;
  }
};

/// Where row r of a slice stands in the stored matrix.
int64_t stored_row(const MappedTensor& m, const Layout& l, int64_t r) {
  switch (m.change) {
    case HfChange::kPermuteQ:
    case HfChange::kPermuteK: {
      const int64_t head_rows = l.slice_rows / m.n_head;
      const int64_t i = r % head_rows;
      return r - i + i / 2 + i % 2 * (head_rows / 2);
    }
    case HfChange::kSplitQkv: {
      const int64_t head_dim = l.slice_rows / (3 * m.n_head);
      const int64_t part = r / (m.n_head * head_dim);
      const int64_t head = r / head_dim % m.n_head;
      return (head * 3 + part) * head_dim + r % head_dim;
    }
    case HfChange::kFirstHalf:
      return r / m.shape[1] * 2 * m.shape[1] + r % m.shape[1];
    case HfChange::kSecondHalf:
      return (r / m.shape[1] * 2 + 1) * m.shape[1] + r % m.shape[1];
    default:
      return r;
  }
}

/// Multiplies row `r` of the stored matrix by its scales.
Result<void> apply_scales(const MappedTensor::Slice& s, int64_t r, std::span<float> row,
                          const std::string& path) {
  const auto n_k = static_cast<int64_t>(row.size());
  const int64_t n_scale = (n_k + s.scale_cols - 1) / s.scale_cols;  // in a row of scales
  std::vector<float> scales(static_cast<size_t>(n_scale));
  INFER_TRY(read_floats(*s.scale, r / s.scale_rows * n_scale, scales, path));
  for (int64_t i = 0; i < n_k; ++i)
    row[static_cast<size_t>(i)] *= scales[static_cast<size_t>(i / s.scale_cols)];
  return {};
}

/// Stored [n_k][slice_rows]: column r becomes row r.
Result<void> read_transposed(const MappedTensor& m, const Layout& l, int64_t row, int64_t n_row,
                             std::span<float> out, const std::string& path) {
  std::vector<float> part(static_cast<size_t>(n_row));
  for (int64_t i = 0; i < l.n_k; ++i) {
    INFER_TRY(read_floats(*m.slices[0].t, i * l.slice_rows + row, part, path));
    for (int64_t j = 0; j < n_row; ++j)
      out[static_cast<size_t>(j * l.n_k + i)] = part[static_cast<size_t>(j)];
  }
  return {};
}

}  // namespace

Result<void> read_mapped_rows(const SafeTensors& weights, const MappedTensor& m, int64_t row,
                              int64_t n_row, std::span<float> out) {
  if (m.slices.empty()) {
    std::copy_n(m.values.begin() + row * m.shape[0], out.size(), out.begin());
    return {};
  }
  const Layout l(m);
  if (m.change == HfChange::kTranspose)
    return read_transposed(m, l, row, n_row, out, weights.path_of(*m.slices[0].t));
  row *= l.rows_per_row;
  n_row *= l.rows_per_row;
  const auto row_of_out = [&](int64_t i, int64_t n) {
    return out.subspan(static_cast<size_t>(i * l.n_k), static_cast<size_t>(n * l.n_k));
  };
  for (int64_t i = 0; i < n_row;) {
    const int64_t r = row + i;
    const MappedTensor::Slice& s = m.slices[static_cast<size_t>(r / l.slice_rows)];
    const int64_t in_slice = r % l.slice_rows;
    const int64_t from = stored_row(m, l, in_slice);
    int64_t n = 1;  // rows that lie together
    while (i + n < n_row && in_slice + n < l.slice_rows &&
           stored_row(m, l, in_slice + n) == from + n)
      ++n;
    const std::string& path = weights.path_of(*s.t);
    INFER_TRY(read_floats(*s.t, from * l.n_k, row_of_out(i, n), path));
    for (int64_t j = 0; s.scale != nullptr && j < n; ++j)
      INFER_TRY(apply_scales(s, from + j, row_of_out(i + j, 1), path));
    i += n;
  }
  if (m.change == HfChange::kAddOne) {
    for (float& v : out) v += 1.0f;
  }
  return {};
}

std::span<const std::byte> stored_mapped_rows(const MappedTensor& m, int64_t row, int64_t n_row) {
  if (n_row <= 0) return {};
  if (m.slices.empty()) {
    return std::as_bytes(std::span(m.values))
        .subspan(static_cast<size_t>(row * m.shape[0]) * sizeof(float),
                 static_cast<size_t>(n_row * m.shape[0]) * sizeof(float));
  }
  const Layout l(m);
  if (m.change == HfChange::kAddOne || m.change == HfChange::kTranspose || l.rows_per_row != 1)
    return {};
  const MappedTensor::Slice& s = m.slices[static_cast<size_t>(row / l.slice_rows)];
  const bool same_type = (m.type == DType::kF32 && s.t->type == SafeType::kF32) ||
                         (m.type == DType::kF16 && s.t->type == SafeType::kF16) ||
                         (m.type == DType::kBF16 && s.t->type == SafeType::kBF16);
  const int64_t in_slice = row % l.slice_rows;
  if (!same_type || in_slice + n_row > l.slice_rows) return {};
  const int64_t from = stored_row(m, l, in_slice);
  for (int64_t i = 1; i < n_row; ++i) {
    if (stored_row(m, l, in_slice + i) != from + i) return {};
  }
  const int64_t row_size = l.n_k * bytes_of(s.t->type);
  return s.t->data.subspan(static_cast<size_t>(from * row_size),
                           static_cast<size_t>(n_row * row_size));
}

void release_mapped_rows(const SafeTensors& weights, const MappedTensor& m, int64_t row,
                         int64_t n_row) {
  if (m.slices.empty() || n_row <= 0) return;
  const Layout l(m);
  const auto drop = [&](const SafeTensor& t, int64_t begin, int64_t end) {
    // The page before may hold the end of rows that were released before.
    begin = std::max<int64_t>(begin - kPageBytes, 0);
    weights.release(t,
                    t.data.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
  };
  int64_t first = row * l.rows_per_row;
  const int64_t end = first + n_row * l.rows_per_row;
  while (first < end) {
    const int64_t in_slice = first % l.slice_rows;
    const int64_t n = std::min(end - first, l.slice_rows - in_slice);
    const SafeTensor& t = *m.slices[static_cast<size_t>(first / l.slice_rows)].t;
    const int64_t row_size = static_cast<int64_t>(t.data.size()) / std::max<int64_t>(t.n_row(), 1);
    // Where rows move, with the last row of a tensor all of it; else what the rows took.
    if (in_slice + n == l.slice_rows) {
      drop(t, 0, static_cast<int64_t>(t.data.size()));
    } else if (m.change == HfChange::kPermuteQ || m.change == HfChange::kPermuteK) {
      const int64_t head_rows = l.slice_rows / m.n_head;
      drop(t, in_slice / head_rows * head_rows * row_size,
           (in_slice + n) / head_rows * head_rows * row_size);
    } else if (m.change == HfChange::kNone || m.change == HfChange::kAddOne) {
      drop(t, in_slice * row_size, (in_slice + n) * row_size);
    }
    first += n;
  }
}

}  // namespace infer::quantize
