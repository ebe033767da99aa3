#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "gguf/reader.h"
#include "quantize/imatrix.h"

/// The two forms in which importance matrices lie in files.
namespace infer::quantize {

/// GGUF: general.type "imatrix", the keys below, and for every tensor of the model two F32 tensors,
/// its name with a suffix: sums of squares [n_k, n_mat] and counts of tokens [1, n_mat].
/// Source: llama.cpp, tools/imatrix and common/imatrix-loader.
inline constexpr std::string_view kImatrixType = "imatrix";
inline constexpr std::string_view kImatrixDatasets = "imatrix.datasets";
inline constexpr std::string_view kImatrixChunkCount = "imatrix.chunk_count";
inline constexpr std::string_view kImatrixChunkSize = "imatrix.chunk_size";
inline constexpr std::string_view kSumsSuffix = ".in_sum2";
inline constexpr std::string_view kCountsSuffix = ".counts";

/// Errors: kCorrupt, kUnsupported for a GGUF of another kind.
Result<Imatrix> read_gguf_imatrix(const gguf::Reader& file);

/// Legacy .dat, little endian, no padding: i32 entries; for each i32 length of the name, the name,
/// i32 calls, i32 values, f32 values (means times calls, with 0 calls means; experts one after the
/// other, without a count of their own). Then, but for the oldest files, i32 calls of the last
/// save, and i32 length and name of the data set. Errors: kCorrupt.
Result<Imatrix> parse_legacy_imatrix(std::span<const std::byte> bytes, const std::string& name);

}  // namespace infer::quantize
