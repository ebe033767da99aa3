#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "gguf/reader.h"

/// What is quantised: a GGUF, or a Hugging Face folder that looks like one.
namespace infer::quantize {

/// A model to be written in other types. Its keys and tensor records are those of a GGUF, whatever
/// it is made from; a tensor's rows are the vectors along shape[0], the other dimensions flattened.
/// Threads: all functions may be called by several at once.
class Source {
 public:
  virtual ~Source() = default;

  /// Keys and tensor records (names, types, shapes); view.data of the tensors is not for use.
  virtual const gguf::Reader& header() const = 0;
  /// Rows [row, row + n_row) of tensor `index` of header().tensors(), as f32: out
  /// [n_row][shape[0]]. Errors: kIo, kCorrupt, kUnsupported naming file and tensor.
  virtual Result<void> read_rows(size_t index, int64_t row, int64_t n_row,
                                 std::span<float> out) const = 0;
  /// The same rows in the bytes of the tensor's type, where the source has them in one piece; empty
  /// where it has not (they are then made of read_rows). Valid until release_rows.
  virtual std::span<const std::byte> stored_rows(size_t index, int64_t row,
                                                 int64_t n_row) const = 0;
  /// These rows will not be read again: their mapped pages may be dropped.
  virtual void release_rows(size_t index, int64_t row, int64_t n_row) const = 0;
};

}  // namespace infer::quantize
