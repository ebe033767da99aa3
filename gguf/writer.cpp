#include "gguf/writer.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/cursor.h"
#include "gguf/describe.h"
#include "gguf/keys.h"
#include "gguf/parse.h"

namespace infer::gguf {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kVersion = 3;
constexpr size_t kStartBytes = 4 + 4 + 8 + 8;

template <class T>
void put(std::vector<std::byte>& out, T v) {
  const auto* p = reinterpret_cast<const std::byte*>(&v);
  out.insert(out.end(), p, p + sizeof(T));
}

void put_string(std::vector<std::byte>& out, std::string_view s) {
  put<uint64_t>(out, s.size());
  const auto bytes = std::as_bytes(std::span(s));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

/// Adds a name to a sorted list; false when it is there already.
bool insert_unique(std::vector<std::string>& names, std::string_view name) {
  const auto it = std::lower_bound(names.begin(), names.end(), name);
  if (it != names.end() && *it == name) return false;
  names.emplace(it, name);
  return true;
}

}  // namespace

Result<std::unique_ptr<Writer>> Writer::create(const std::string& path) {
  std::unique_ptr<Writer> writer(new Writer(path));
  INFER_TRY(writer->open_temporary());
  return writer;
}

Writer::~Writer() {
  if (state_ != State::kDone) remove_temporary();
}

void Writer::remove_temporary() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

Error Writer::invalid(std::string message) const {
  return make_error(ErrorCode::kInvalidArgument, "{}: {}", path_, message);
}

Error Writer::io_error(std::string_view what) {
  const int code = errno;
  state_ = State::kFailed;
  remove_temporary();
  return make_error(ErrorCode::kIo, "{}: {}: {}", path_, what, std::strerror(code));
}

Result<void> Writer::open_temporary() {
  struct stat there {};
  if (::stat(path_.c_str(), &there) == 0 && !S_ISREG(there.st_mode))  // never replace a device
    return make_error(ErrorCode::kIo, "{}: is no regular file", path_);
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    std::string name = fmt::format("{}.{}-{}.tmp", path_, ::getpid(), i);
    fd_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) {
      temporary_ = std::move(name);
      return {};
    }
    if (errno != EEXIST) break;
  }
  return io_error("cannot create");
}

Result<void> Writer::set_alignment(ValueType type, std::span<const std::byte> value) {
  if (type != ValueType::kU32)
    return invalid(fmt::format("key '{}' must be a u32", keys::kAlignment));
  const auto alignment = load_le<uint32_t>(value.data());
  if (!std::has_single_bit(alignment) || alignment > kMaxAlignment) {
    return invalid(fmt::format("key '{}' = {} is no power of two up to {}", keys::kAlignment,
                               alignment, kMaxAlignment));
  }
  alignment_ = alignment;
  return {};
}

Result<void> Writer::add_encoded(std::string_view key, ValueType type,
                                 std::span<const std::byte> value) {
  if (state_ != State::kHeader)
    return invalid(fmt::format("key '{}' comes after begin()", printable(key)));
  if (key.empty() || key.size() > kMaxKeyBytes) {
    return invalid(fmt::format("key '{}' has {} bytes, 1 to {} are allowed", printable(key),
                               key.size(), kMaxKeyBytes));
  }
  if (n_kv_ >= kMaxKeys) return invalid(fmt::format("more than {} keys", kMaxKeys));
  if (key == keys::kAlignment) INFER_TRY(set_alignment(type, value));
  if (!insert_unique(key_names_, key))
    return invalid(fmt::format("key '{}' is added twice", printable(key)));
  put_string(kv_bytes_, key);
  put(kv_bytes_, static_cast<uint32_t>(type));
  kv_bytes_.insert(kv_bytes_.end(), value.begin(), value.end());
  ++n_kv_;
  return {};
}

Result<void> Writer::add(const KeyValue& kv) {
  return add_encoded(kv.key, kv.value.type(), kv.value.raw());
}

Result<void> Writer::add_string(std::string_view key, std::string_view value) {
  std::vector<std::byte> bytes;
  put_string(bytes, value);
  return add_encoded(key, ValueType::kString, bytes);
}

Result<void> Writer::add_fixed_array(std::string_view key, ValueType elem, size_t n,
                                     std::span<const std::byte> values) {
  std::vector<std::byte> bytes;
  bytes.reserve(sizeof(uint32_t) + sizeof(uint64_t) + values.size());
  put(bytes, static_cast<uint32_t>(elem));
  put<uint64_t>(bytes, n);
  bytes.insert(bytes.end(), values.begin(), values.end());
  return add_encoded(key, ValueType::kArray, bytes);
}

Result<void> Writer::add_bools(std::string_view key, const std::vector<bool>& values) {
  std::vector<std::byte> bytes;
  bytes.reserve(values.size());
  for (const bool b : values) bytes.push_back(b ? std::byte{1} : std::byte{0});
  return add_fixed_array(key, ValueType::kBool, values.size(), bytes);
}

Result<void> Writer::add_strings(std::string_view key, std::span<const std::string_view> values) {
  std::vector<std::byte> bytes;
  put(bytes, static_cast<uint32_t>(ValueType::kString));
  put<uint64_t>(bytes, values.size());
  for (const std::string_view s : values) put_string(bytes, s);
  return add_encoded(key, ValueType::kArray, bytes);
}

Result<void> Writer::add_tensor(std::string_view name, DType type, std::span<const int64_t> shape) {
  if (state_ != State::kHeader)
    return invalid(fmt::format("tensor '{}' comes after begin()", printable(name)));
  if (name.empty() || name.size() > kMaxTensorNameBytes ||
      name.find('\0') != std::string_view::npos) {
    return invalid(fmt::format("tensor '{}': a name has 1 to {} bytes, none of them zero",
                               printable(name), kMaxTensorNameBytes));
  }
  if (tensors_.size() >= kMaxTensors)
    return invalid(fmt::format("more than {} tensors", kMaxTensors));
  if (shape.empty() || shape.size() > kMaxDims) {
    return invalid(fmt::format("tensor '{}' has {} dimensions, 1 to {} are allowed",
                               printable(name), shape.size(), kMaxDims));
  }
  std::optional<int64_t> n_elem = 1;
  for (const int64_t ne : shape) {
    n_elem = ne > 0 && n_elem ? checked_mul(*n_elem, ne) : std::nullopt;
    if (!n_elem)
      return invalid(fmt::format("tensor '{}' has a bad dimension {}", printable(name), ne));
  }
  const QuantType& q = quant_type(type);
  const auto n_bytes = checked_mul<int64_t>(*n_elem / q.block_len, q.block_bytes);
  if (shape[0] % q.block_len != 0 || !n_bytes) {
    return invalid(fmt::format("tensor '{}' has rows of {} elements, which {} cannot hold",
                               printable(name), shape[0], q.name));
  }
  if (!insert_unique(tensor_names_, name))
    return invalid(fmt::format("tensor '{}' is added twice", printable(name)));
  put_string(tensor_bytes_, name);
  put(tensor_bytes_, static_cast<uint32_t>(shape.size()));
  for (const int64_t ne : shape) put(tensor_bytes_, ne);
  put(tensor_bytes_, q.gguf_id);
  offset_places_.push_back(tensor_bytes_.size());
  put<uint64_t>(tensor_bytes_, 0);  // known in begin(): a later key may still change the alignment
  tensors_.push_back({std::string(name), *n_bytes});
  return {};
}

Result<void> Writer::begin() {
  if (state_ != State::kHeader) return invalid("begin() is called twice");
  int64_t offset = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const auto value = static_cast<uint64_t>(offset);
    std::memcpy(tensor_bytes_.data() + offset_places_[i], &value, sizeof(value));
    const auto padded = checked_align_up(tensors_[i].n_bytes, alignment_);
    const auto end = padded ? checked_add(offset, *padded) : std::nullopt;
    if (!end)
      return invalid(fmt::format("tensor '{}' ends past 2^63 bytes", printable(tensors_[i].name)));
    offset = *end;
  }
  std::vector<std::byte> head;
  head.reserve(kStartBytes);
  put<uint32_t>(head, kMagic);
  put<uint32_t>(head, kVersion);
  put<uint64_t>(head, tensors_.size());
  put<uint64_t>(head, n_kv_);
  state_ = State::kData;
  INFER_TRY(write_out(head));
  INFER_TRY(write_out(kv_bytes_));
  INFER_TRY(write_out(tensor_bytes_));
  kv_bytes_ = {};
  tensor_bytes_ = {};
  return write_padding(n_written_);
}

Result<void> Writer::write(std::span<const std::byte> bytes) {
  if (state_ != State::kData) return invalid("tensor data comes before begin() or after an error");
  while (!bytes.empty()) {
    if (current_ == tensors_.size())
      return invalid(fmt::format("{} bytes more than the tensors have", bytes.size()));
    const Tensor& t = tensors_[current_];
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

Result<void> Writer::finish() {
  if (state_ != State::kData) return invalid("finish() comes before begin() or after an error");
  if (current_ != tensors_.size()) {
    return invalid(fmt::format("tensor '{}' has {} of its {} bytes",
                               printable(tensors_[current_].name), current_bytes_,
                               tensors_[current_].n_bytes));
  }
  if (::close(std::exchange(fd_, -1)) != 0) return io_error("cannot close");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0)
    return io_error("cannot give the file its name");
  state_ = State::kDone;
  return {};
}

Result<void> Writer::write_out(std::span<const std::byte> bytes) {
  constexpr size_t kMaxWrite = size_t{1} << 30;  // Linux writes at most 2 GiB a call
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min(bytes.size(), kMaxWrite));
    if (n < 0) {
      if (errno == EINTR) continue;
      return io_error("cannot write");
    }
    n_written_ += n;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

Result<void> Writer::write_padding(int64_t n_bytes) {
  const int64_t n = align_up(n_bytes, alignment_) - n_bytes;
  const std::vector<std::byte> zeros(static_cast<size_t>(n));
  return write_out(zeros);
}

}  // namespace infer::gguf
