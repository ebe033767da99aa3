#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/base/result.h"
#include "quantize/convert/hf_map.h"
#include "quantize/convert/safetensors.h"

/// Rows of a mapped tensor, made while they are asked for: never a whole tensor in memory. Rows are
/// those of the GGUF, [shape[0]] each.
namespace infer::quantize {

/// Needs: n_head set where rows of heads move. out [n_row][shape[0]]. Errors: kUnsupported,
/// kCorrupt naming file and tensor.
Result<void> read_mapped_rows(const SafeTensors& weights, const MappedTensor& m, int64_t row,
                              int64_t n_row, std::span<float> out);
/// The bytes of rows that lie together in the file in the GGUF's type; empty otherwise.
std::span<const std::byte> stored_mapped_rows(const MappedTensor& m, int64_t row, int64_t n_row);
/// Drops pages of rows read before. They may be read again: it only costs time.
void release_mapped_rows(const SafeTensors& weights, const MappedTensor& m, int64_t row,
                         int64_t n_row);

}  // namespace infer::quantize
