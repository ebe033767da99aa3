#pragma once

#include <cstddef>
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
  /// [n_mat][n_k] sum_sq / n_tok, ones where n_tok is 0. Imatrix keeps it up to date.
  std::vector<float> mean_sq;
};

/// Threads: const functions may be called by several at once.
class Imatrix {
 public:
  /// GGUF or the legacy .dat, told apart by their first bytes. Errors: kNotFound, kIo, kCorrupt,
  /// kUnsupported; one line naming file and tensor. What is read is finite, not negative, and every
  /// tensor has been met by some token.
  static Result<Imatrix> read(const std::string& path);
  /// The same from memory (tests, fuzzing); `name` stands for the file.
  static Result<Imatrix> parse(std::span<const std::byte> bytes, const std::string& name);
  /// Writes llama.cpp's GGUF form under a temporary name, then renames. Errors: kIo, and
  /// kInvalidArgument for what the form cannot hold, naming file and tensor.
  Result<void> write(const std::string& path) const;

  /// Mean squares of matrix `mat` of a tensor, [n_k]; empty when there are none (an expert that no
  /// token met has ones).
  std::span<const float> means(std::string_view tensor, int64_t mat) const;
  bool contains(std::string_view tensor) const;

  /// Says what a tensor's shape is: legacy files, and dense tensors of three dimensions, have one
  /// count for all matrices and do not tell columns from matrices. Call it before means(). No
  /// entry: nothing happens. Errors: kInvalidArgument naming file, tensor and both shapes.
  Result<void> fit(std::string_view tensor, int64_t n_k, int64_t n_mat);

  /// Adds sums and counts to a tensor's, or makes its entry. Errors: kInvalidArgument for another
  /// shape than the entry has, sums that are negative or not finite, or no token at all.
  Result<void> add(std::string_view tensor, const ImatrixEntry& more);
  /// Adds everything that another one has. Needs: chunk_tok > 0, also
  /// for what counts chunks.
  Result<void> combine(const Imatrix& more);

  std::map<std::string, ImatrixEntry, std::less<>> entries;  ///< to look at; add() changes them
  std::vector<std::string> datasets;
  int64_t chunk_tok = 0;  ///< tokens of a chunk, 0 if unknown
  int64_t n_chunk = 0;
  /// A legacy file: n_tok counts chunks, sum_sq has one mean for each.
  bool counts_chunks = false;
  std::string path = "importance matrix";  ///< for errors
};

}  // namespace infer::quantize
