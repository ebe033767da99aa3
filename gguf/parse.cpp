#include "gguf/parse.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <string>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/cursor.h"
#include "gguf/describe.h"
#include "gguf/keys.h"
#include "gguf/value_parser.h"

namespace infer::gguf {
namespace {

constexpr uint32_t kMagic = 0x46554747;             // "GGUF"
constexpr uint32_t kMagicSwapped = 0x47475546;      // "FUGG"
constexpr uint64_t kLeastKeyBytes = 8 + 1 + 4 + 1;  // length, one character, type, a u8
constexpr uint64_t kLeastTensorBytes =
    8 + 1 + 4 + 8 + 4 + 8;  // length, one character, n_dims, one dim, type, offset

std::string shape_text(const TensorInfo& t) {
  std::string out = "[";
  for (int i = 0; i < t.n_dims; ++i)
    out += fmt::format("{}{}", i == 0 ? "" : ", ", t.view.ne[static_cast<size_t>(i)]);
  return out + "]";
}

class HeaderParser {
 public:
  HeaderParser(std::span<const std::byte> bytes, int64_t file_bytes, std::string_view file,
               bool need_data)
      : cursor_(bytes), file_bytes_(file_bytes), file_(file), need_data_(need_data) {}

  Result<ParsedHeader> run() {
    INFER_TRY(parse_start());
    for (uint64_t i = 0; i < n_kv_; ++i) INFER_TRY(parse_key_value(i));
    INFER_TRY(sort_keys());
    INFER_TRY(check_alignment());
    for (uint64_t i = 0; i < n_tensors_; ++i) INFER_TRY(parse_tensor(i));
    INFER_TRY(check_tensor_names());
    out_.header_bytes = static_cast<int64_t>(cursor_.pos());
    out_.data_begin = align_up(out_.header_bytes, out_.alignment);
    INFER_TRY(check_layout());
    return std::move(out_);
  }

 private:
  template <class... Args>
  Error corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    return {ErrorCode::kCorrupt,
            fmt::format("{}: {}", file_, fmt::format(format, std::forward<Args>(args)...))};
  }
  template <class... Args>
  Error unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    return {ErrorCode::kUnsupported,
            fmt::format("{}: {}", file_, fmt::format(format, std::forward<Args>(args)...))};
  }
  Error truncated(std::string_view what) const {
    return corrupt("file ends inside {} (at byte {} of {})", what, cursor_.pos(), file_bytes_);
  }

  Result<void> parse_start();
  Result<void> parse_key_value(uint64_t i);
  Result<void> sort_keys();
  Result<void> check_alignment();
  Result<void> parse_tensor(uint64_t i);
  Result<void> parse_shape(TensorInfo& t);
  Result<void> parse_type(TensorInfo& t);
  Result<void> check_tensor_names();
  Result<void> check_layout();

  Cursor cursor_;
  int64_t file_bytes_;
  std::string_view file_;
  bool need_data_;
  uint64_t n_tensors_ = 0;
  uint64_t n_kv_ = 0;
  ParsedHeader out_;
};

Result<void> HeaderParser::parse_start() {
  const auto magic = cursor_.read<uint32_t>();
  if (!magic) return truncated("the magic");
  if (*magic == kMagicSwapped)
    return unsupported("a big-endian GGUF file (magic 'FUGG'); only little endian is read");
  if (*magic != kMagic) {
    const std::string_view text(reinterpret_cast<const char*>(cursor_.here()) - sizeof(uint32_t),
                                sizeof(uint32_t));
    return corrupt("not a GGUF file: it starts with '{}'", printable(text));
  }
  const auto version = cursor_.read<uint32_t>();
  if (!version) return truncated("the version");
  if ((*version & 0xffffu) == 0 && *version != 0) {
    return unsupported("version field {:#010x}: a big-endian GGUF file; only little endian is read",
                       *version);
  }
  if (*version == 1)
    return unsupported("GGUF version 1 (32-bit counts) is not read; convert the file to version 3");
  if (*version != 2 && *version != 3)
    return unsupported("GGUF version {} is not known (2 and 3 are)", *version);
  out_.version = *version;

  const auto n_tensors = cursor_.read<uint64_t>();
  if (!n_tensors) return truncated("the tensor count");
  const auto n_kv = cursor_.read<uint64_t>();
  if (!n_kv) return truncated("the key count");
  if (*n_tensors > kMaxTensors)
    return corrupt("tensor count {} exceeds {}", *n_tensors, kMaxTensors);
  if (*n_kv > kMaxKeys) return corrupt("key count {} exceeds {}", *n_kv, kMaxKeys);
  // Both products are small: the counts have just been bounded.
  const uint64_t least = *n_kv * kLeastKeyBytes + *n_tensors * kLeastTensorBytes;
  if (least > cursor_.remaining()) {
    return corrupt("key count {} and tensor count {} need {} bytes, {} are left in the file", *n_kv,
                   *n_tensors, least, cursor_.remaining());
  }
  n_tensors_ = *n_tensors;
  n_kv_ = *n_kv;
  out_.kvs.reserve(static_cast<size_t>(n_kv_));
  out_.tensors.reserve(static_cast<size_t>(n_tensors_));
  return {};
}

Result<void> HeaderParser::parse_key_value(uint64_t i) {
  const auto length = cursor_.read<uint64_t>();
  if (!length) return truncated(fmt::format("key {}", i));
  if (*length == 0) return corrupt("key {} is empty", i);
  if (*length > kMaxKeyBytes)
    return corrupt("key {} has length {}, at most {} are allowed", i, *length, kMaxKeyBytes);
  const char* text = reinterpret_cast<const char*>(cursor_.here());
  if (!cursor_.skip(*length)) return truncated(fmt::format("key {} of length {}", i, *length));
  KeyValue kv;
  kv.key = {text, static_cast<size_t>(*length)};
  const ValueParser parser(file_, kv.key);
  INFER_ASSIGN(const ValueType type, parser.parse_type(cursor_));
  INFER_ASSIGN(kv.value, parser.parse(cursor_, type));
  out_.kvs.push_back(std::move(kv));
  return {};
}

Result<void> HeaderParser::sort_keys() {
  auto& order = out_.kv_order;
  order.resize(out_.kvs.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto key = [&](uint32_t i) { return out_.kvs[i].key; };
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return key(a) != key(b) ? key(a) < key(b) : a < b; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (key(order[i]) == key(order[i - 1])) {
      return corrupt("key '{}' occurs twice (as number {} and {})", printable(key(order[i])),
                     order[i - 1], order[i]);
    }
  }
  return {};
}

Result<void> HeaderParser::check_alignment() {
  for (const KeyValue& kv : out_.kvs) {
    if (kv.key != keys::kAlignment) continue;
    if (kv.value.type() != ValueType::kU32) {
      return corrupt("key '{}' is {}, it must be a u32", keys::kAlignment, describe(kv.value));
    }
    const auto alignment = static_cast<uint32_t>(*kv.value.as_int());
    if (!std::has_single_bit(alignment)) {
      return corrupt("key '{}' = {} is not a power of two", keys::kAlignment, alignment);
    }
    if (alignment > kMaxAlignment) {
      return corrupt("key '{}' = {} exceeds {}", keys::kAlignment, alignment, kMaxAlignment);
    }
    out_.alignment = alignment;
  }
  return {};
}

Result<void> HeaderParser::parse_tensor(uint64_t i) {
  const auto length = cursor_.read<uint64_t>();
  if (!length) return truncated(fmt::format("the name of tensor {}", i));
  if (*length == 0) return corrupt("tensor {} has an empty name", i);
  if (*length > kMaxTensorNameBytes) {
    return corrupt("tensor {} has a name of {} bytes, at most {} are allowed", i, *length,
                   kMaxTensorNameBytes);
  }
  const char* text = reinterpret_cast<const char*>(cursor_.here());
  if (!cursor_.skip(*length)) return truncated(fmt::format("the name of tensor {}", i));
  TensorInfo t;
  t.name = {text, static_cast<size_t>(*length)};
  if (t.name.find('\0') != std::string_view::npos) {
    return corrupt("tensor {} has a zero byte in its name '{}'", i, printable(t.name));
  }
  INFER_TRY(parse_shape(t));
  INFER_TRY(parse_type(t));
  const auto offset = cursor_.read<uint64_t>();
  if (!offset) return truncated(fmt::format("tensor '{}'", printable(t.name)));
  const uint64_t max_offset = need_data_ ? static_cast<uint64_t>(file_bytes_) : uint64_t{INT64_MAX};
  if (*offset > max_offset) {
    return corrupt("tensor '{}' has offset {}, the file has {} bytes", printable(t.name), *offset,
                   file_bytes_);
  }
  t.offset = static_cast<int64_t>(*offset);
  out_.tensors.push_back(t);
  return {};
}

Result<void> HeaderParser::parse_shape(TensorInfo& t) {
  const auto n_dims = cursor_.read<uint32_t>();
  if (!n_dims) return truncated(fmt::format("tensor '{}'", printable(t.name)));
  if (*n_dims == 0 || *n_dims > kMaxDims) {
    return corrupt("tensor '{}' has {} dimensions, 1 to {} are allowed", printable(t.name), *n_dims,
                   kMaxDims);
  }
  t.n_dims = static_cast<int>(*n_dims);
  int64_t n_elem = 1;
  for (uint32_t d = 0; d < *n_dims; ++d) {
    const auto ne = cursor_.read<int64_t>();
    if (!ne) return truncated(fmt::format("tensor '{}'", printable(t.name)));
    if (*ne <= 0) return corrupt("tensor '{}' has dimension {} = {}", printable(t.name), d, *ne);
    t.view.ne[d] = *ne;
    const auto product = checked_mul(n_elem, *ne);
    if (!product) {
      return corrupt("tensor '{}' has more than 2^63 elements (dimension {} = {})",
                     printable(t.name), d, *ne);
    }
    n_elem = *product;
  }
  return {};
}

Result<void> HeaderParser::parse_type(TensorInfo& t) {
  const auto id = cursor_.read<uint32_t>();
  if (!id) return truncated(fmt::format("tensor '{}'", printable(t.name)));
  const std::optional<DType> type = dtype_from_gguf_id(*id);
  if (!type) {
    const std::string_view removed = removed_type_name(*id);
    if (!removed.empty()) {
      return unsupported("tensor '{}' has type {} ({}), which was removed from GGUF",
                         printable(t.name), *id, removed);
    }
    return unsupported("tensor '{}' has unknown type {}", printable(t.name), *id);
  }
  t.view.type = *type;
  const QuantType& q = quant_type(*type);
  if (t.view.ne[0] % q.block_len != 0) {
    return corrupt("tensor '{}' has rows of {} elements, no multiple of the {} of a {} block",
                   printable(t.name), t.view.ne[0], q.block_len, q.name);
  }
  // n_elem fits (parse_shape), so do the blocks; only the bytes can overflow.
  const auto n_bytes = checked_mul<int64_t>(t.view.n_elem() / q.block_len, q.block_bytes);
  if (!n_bytes) {
    return corrupt("tensor '{}' of shape {} and type {} has more than 2^63 bytes",
                   printable(t.name), shape_text(t), q.name);
  }
  t.view.n_bytes = *n_bytes;
  return {};
}

Result<void> HeaderParser::check_tensor_names() {
  std::vector<uint32_t> order(out_.tensors.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto name = [&](uint32_t i) { return out_.tensors[i].name; };
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return name(a) != name(b) ? name(a) < name(b) : a < b; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (name(order[i]) == name(order[i - 1])) {
      return corrupt("tensor name '{}' occurs twice (as number {} and {})",
                     printable(name(order[i])), order[i - 1], order[i]);
    }
  }
  return {};
}

/// Tensors stand in the order of their records without gaps, each padded to the alignment, the last
/// one too.
Result<void> HeaderParser::check_layout() {
  if (out_.tensors.empty()) return {};
  if (need_data_ && out_.data_begin > file_bytes_) {
    return corrupt("file ends at byte {}, before its tensor data at {}", file_bytes_,
                   out_.data_begin);
  }
  const int64_t data_bytes =
      need_data_ ? file_bytes_ - out_.data_begin : INT64_MAX - out_.data_begin;
  int64_t expected = 0;
  for (const TensorInfo& t : out_.tensors) {
    if (t.offset % out_.alignment != 0) {
      return corrupt("tensor '{}' has offset {}, no multiple of the alignment {}",
                     printable(t.name), t.offset, out_.alignment);
    }
    if (t.offset != expected) {
      return corrupt("tensor '{}' has offset {}, expected {}", printable(t.name), t.offset,
                     expected);
    }
    const auto padded = checked_align_up(t.view.n_bytes, out_.alignment);
    const auto end = padded ? checked_add(expected, *padded) : std::nullopt;
    if (!end || *end > data_bytes) {
      return corrupt(
          "tensor '{}' of {} bytes at offset {} ends (with its padding to {}) past the {} bytes of "
          "tensor data",
          printable(t.name), t.view.n_bytes, t.offset, out_.alignment, data_bytes);
    }
    expected = *end;
  }
  return {};
}

}  // namespace

Result<ParsedHeader> parse_header(std::span<const std::byte> bytes, int64_t file_bytes,
                                  std::string_view file, bool need_data) {
  return HeaderParser(bytes, file_bytes, file, need_data).run();
}

}  // namespace infer::gguf
