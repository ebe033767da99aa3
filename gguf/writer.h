#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "gguf/header_builder.h"

/// Writing GGUF v3 (little endian) as a stream: keys, tensor records, begin(), tensor data in
/// order, finish().
namespace infer::gguf {

/// Writes one file. It appears under its name only with finish(); until then, and for ever when
/// anything fails or the Writer is destroyed, there is a temporary file beside it at most, and the
/// destructor removes that.
///
///   INFER_ASSIGN(auto out, gguf::Writer::create("model.gguf"));
///   INFER_TRY(out->add<std::string_view>(keys::kArchitecture, "llama"));
///   INFER_TRY(out->add_tensor("token_embd.weight", DType::kF16, shape));
///   INFER_TRY(out->begin());
///   INFER_TRY(out->write(bytes));  // any chunks; tensors follow each other as they were added
///   INFER_TRY(out->finish());
///
/// Errors: those of HeaderBuilder, kIo naming the file.
class Writer : public HeaderBuilder {
 public:
  static Result<std::unique_ptr<Writer>> create(const std::string& path);
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer();

  /// Writes the header; no key or tensor can be added after it.
  Result<void> begin();
  /// The next bytes of tensor data; tensors are padded as they end.
  Result<void> write(std::span<const std::byte> bytes);
  /// Needs the data of every tensor; gives the file its name.
  Result<void> finish();

  /// Where the next byte of the file will stand.
  int64_t bytes_written() const { return n_written_; }

 private:
  enum class State { kHeader, kData, kDone, kFailed };

  explicit Writer(std::string path) : HeaderBuilder(std::move(path)) {}
  Result<void> open_temporary();
  Result<void> write_out(std::span<const std::byte> bytes);
  Result<void> write_padding(int64_t n_bytes);
  Error io_error(std::string_view what);
  void remove_temporary();

  std::string temporary_;
  int fd_ = -1;
  State state_ = State::kHeader;
  int64_t n_written_ = 0;
  size_t current_ = 0;         // tensor being written
  int64_t current_bytes_ = 0;  // written of it
};

}  // namespace infer::gguf
