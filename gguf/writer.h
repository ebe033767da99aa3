#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/output_file.h"
#include "core/base/result.h"
#include "gguf/header_builder.h"

/// Writing GGUF v3 (little endian): keys, tensor records, begin(), tensor data, finish().
namespace infer::gguf {

/// Writes one file. It appears under its name only with finish(); when anything fails or the Writer
/// is destroyed before, there is nothing (see OutputFile).
///
///   INFER_ASSIGN(auto out, gguf::Writer::create("model.gguf"));
///   INFER_TRY(out->add<std::string_view>(keys::kArchitecture, "llama"));
///   INFER_TRY(out->add_tensor("token_embd.weight", DType::kF16, shape));
///   INFER_TRY(out->begin());
///   INFER_TRY(out->write(bytes));  // any chunks; tensors follow each other as they were added
///   INFER_TRY(out->finish());
///
/// With begin_in_place() the data may come in any order and from many threads:
///
///   INFER_TRY(out->begin_in_place());
///   INFER_TRY(out->write_at(/*tensor=*/3, /*offset=*/4096, bytes));
///
/// Errors: those of HeaderBuilder, kIo naming the file.
class Writer : public HeaderBuilder {
 public:
  static Result<std::unique_ptr<Writer>> create(const std::string& path);
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// Writes the header; no key or tensor can be added after it.
  Result<void> begin();
  /// The next bytes of tensor data; tensors are padded as they end.
  Result<void> write(std::span<const std::byte> bytes);
  /// Instead of begin(): writes the header and reserves room for all tensor data, so that a full
  /// disk shows now.
  Result<void> begin_in_place();
  /// Bytes [offset, offset + size) of tensor `index` (in the order of add_tensor); each byte is
  /// written once. Threads: any number at once, between begin_in_place() and finish().
  Result<void> write_at(size_t index, int64_t offset, std::span<const std::byte> bytes);
  /// Needs the data of every tensor; gives the file its name.
  Result<void> finish();

  /// Where the next byte of the file will stand.
  int64_t bytes_written() const { return n_written_; }

 private:
  enum class State { kHeader, kData, kInPlace, kDone, kFailed };

  Writer(std::string path, OutputFile file)
      : HeaderBuilder(std::move(path)), file_(std::move(file)) {}
  Result<void> write_out(std::span<const std::byte> bytes);
  Result<void> check_complete() const;
  Result<void> write_padding(int64_t n_bytes);
  Result<void> checked(Result<void> done);

  std::optional<OutputFile> file_;
  State state_ = State::kHeader;
  int64_t n_written_ = 0;
  size_t current_ = 0;                         // tensor being written
  int64_t current_bytes_ = 0;                  // written of it
  int64_t data_begin_ = 0;                     // of the file, once it is written in place
  std::vector<std::atomic<int64_t>> written_;  // of each tensor, in place
};

}  // namespace infer::gguf
