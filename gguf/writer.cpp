#include "gguf/writer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "gguf/describe.h"

namespace infer::gguf {
Result<std::unique_ptr<Writer>> Writer::create(const std::string& path) {
  INFER_ASSIGN(OutputFile file, OutputFile::create(path));
  return std::unique_ptr<Writer>(new Writer(path, std::move(file)));
}

Result<void> Writer::begin() {
  if (state_ != State::kHeader) return invalid("begin() is called twice");
  INFER_ASSIGN(const std::vector<std::byte> header, encode());
  state_ = State::kData;
  return write_out(header);
}

Result<void> Writer::write(std::span<const std::byte> bytes) {
  if (state_ != State::kData) return invalid("tensor data comes before begin() or after an error");
  while (!bytes.empty()) {
    if (current_ == tensors().size())
      return invalid(fmt::format("{} bytes more than the tensors have", bytes.size()));
    const Tensor& t = tensors()[current_];
    const int64_t n =
        std::min<int64_t>(t.n_bytes - current_bytes_, static_cast<int64_t>(bytes.size()));
    INFER_TRY(write_out(bytes.first(static_cast<size_t>(n))));
    bytes = bytes.subspan(static_cast<size_t>(n));
    current_bytes_ += n;
    if (current_bytes_ < t.n_bytes) break;
    INFER_TRY(write_padding(t.n_bytes));
    ++current_;
    current_bytes_ = 0;
  }
  return {};
}

Result<void> Writer::begin_in_place() {
  INFER_TRY(begin());
  state_ = State::kInPlace;
  data_begin_ = n_written_;
  written_ = std::vector<std::atomic<int64_t>>(tensors().size());
  int64_t end = data_begin_;
  if (!tensors().empty()) {
    const Tensor& last = tensors().back();
    const auto data = checked_add(last.offset, align_up(last.n_bytes, alignment()));
    const auto all = data ? checked_add(data_begin_, *data) : std::nullopt;
    if (!all) return invalid("the file would have more than 2^63 bytes");
    end = *all;
  }
  n_written_ = end;
  return checked(file_->reserve(end));
}

Result<void> Writer::write_at(size_t index, int64_t offset, std::span<const std::byte> bytes) {
  if (state_ != State::kInPlace) return invalid("write_at() comes before begin_in_place()");
  if (index >= tensors().size()) return invalid(fmt::format("no tensor {}", index));
  const Tensor& t = tensors()[index];
  const auto size = static_cast<int64_t>(bytes.size());
  if (offset < 0 || offset > t.n_bytes || size > t.n_bytes - offset) {
    return invalid(fmt::format("tensor '{}' has {} bytes, not {} at {}", printable(t.name),
                               t.n_bytes, size, offset));
  }
  INFER_TRY(file_->write_at(data_begin_ + t.offset + offset, bytes));
  written_[index].fetch_add(size, std::memory_order_relaxed);
  return {};
}

Result<void> Writer::check_complete() const {
  for (size_t i = 0; i < tensors().size(); ++i) {
    const Tensor& t = tensors()[i];
    const int64_t n = state_ == State::kInPlace ? written_[i].load(std::memory_order_relaxed)
                      : i < current_            ? t.n_bytes
                      : i == current_           ? current_bytes_
                                                : 0;
    if (n != t.n_bytes) {
      return invalid(
          fmt::format("tensor '{}' has {} of its {} bytes", printable(t.name), n, t.n_bytes));
    }
  }
  return {};
}

Result<void> Writer::finish() {
  if (state_ != State::kData && state_ != State::kInPlace)
    return invalid("finish() comes before begin() or after an error");
  INFER_TRY(check_complete());
  INFER_TRY(checked(file_->finish()));
  state_ = State::kDone;
  return {};
}

Result<void> Writer::write_out(std::span<const std::byte> bytes) {
  INFER_TRY(checked(file_->write(bytes)));
  n_written_ += static_cast<int64_t>(bytes.size());
  return {};
}

/// After an error there is nothing to go on with, and the disk's room is given back at once.
Result<void> Writer::checked(Result<void> done) {
  if (!done.ok()) {
    state_ = State::kFailed;
    file_.reset();
  }
  return done;
}

Result<void> Writer::write_padding(int64_t n_bytes) {
  const int64_t n = align_up(n_bytes, alignment()) - n_bytes;
  const std::vector<std::byte> zeros(static_cast<size_t>(n));
  return write_out(zeros);
}

}  // namespace infer::gguf
