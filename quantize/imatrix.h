#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

/// Importance matrices: for every weight matrix the mean square of the activations that met each of
/// its columns, as llama.cpp's llama-imatrix collects them.
namespace infer::quantize {

/// Sums over tokens of one tensor; experts (and other matrices of a 3-D tensor) apart.
struct ImatrixEntry {
  int64_t n_k = 0;             ///< columns
  std::vector<float> sum_sq;   ///< [n_mat][n_k] sums of squares
  std::vector<int64_t> n_tok;  ///< [n_mat] tokens that each matrix saw
};

class Imatrix {
 public:
  /// GGUF or the legacy .dat, told apart by their first bytes. Errors: kNotFound, kIo, kCorrupt
  /// naming file and tensor.
  static Result<Imatrix> read(const std::string& path);
  /// Writes llama.cpp's GGUF form under a temporary name, then renames.
  Result<void> write(const std::string& path) const;

  /// Mean squares of matrix `mat` of a tensor, [n_k]; empty when there are none (an expert that no
  /// token met has ones).
  std::span<const float> means(std::string_view tensor, int64_t mat) const;
  bool contains(std::string_view tensor) const;

  std::map<std::string, ImatrixEntry, std::less<>> entries;
  std::vector<std::string> datasets;
  int64_t chunk_tok = 0;  ///< tokens of a chunk, 0 if unknown
  int64_t n_chunk = 0;
};

}  // namespace infer::quantize
