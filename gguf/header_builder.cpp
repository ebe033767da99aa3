#include "gguf/header_builder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

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

Error HeaderBuilder::invalid(std::string_view message) const {
  return make_error(ErrorCode::kInvalidArgument, "{}: {}", name_, message);
}

Result<void> HeaderBuilder::set_alignment(ValueType type, std::span<const std::byte> value) {
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

Result<void> HeaderBuilder::add_encoded(std::string_view key, ValueType type,
                                        std::span<const std::byte> value) {
  if (encoded_)
    return invalid(fmt::format("key '{}' comes after the header was made", printable(key)));
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

Result<void> HeaderBuilder::add(const KeyValue& kv) {
  return add_encoded(kv.key, kv.value.type(), kv.value.raw());
}

Result<void> HeaderBuilder::add_string(std::string_view key, std::string_view value) {
  std::vector<std::byte> bytes;
  put_string(bytes, value);
  return add_encoded(key, ValueType::kString, bytes);
}

Result<void> HeaderBuilder::add_fixed_array(std::string_view key, ValueType elem, size_t n,
                                            std::span<const std::byte> values) {
  std::vector<std::byte> bytes;
  bytes.reserve(sizeof(uint32_t) + sizeof(uint64_t) + values.size());
  put(bytes, static_cast<uint32_t>(elem));
  put<uint64_t>(bytes, n);
  bytes.insert(bytes.end(), values.begin(), values.end());
  return add_encoded(key, ValueType::kArray, bytes);
}

Result<void> HeaderBuilder::add_bools(std::string_view key, const std::vector<bool>& values) {
  std::vector<std::byte> bytes;
  bytes.reserve(values.size());
  for (const bool b : values) bytes.push_back(b ? std::byte{1} : std::byte{0});
  return add_fixed_array(key, ValueType::kBool, values.size(), bytes);
}

Result<void> HeaderBuilder::add_strings(std::string_view key,
                                        std::span<const std::string_view> values) {
  std::vector<std::byte> bytes;
  put(bytes, static_cast<uint32_t>(ValueType::kString));
  put<uint64_t>(bytes, values.size());
  for (const std::string_view s : values) put_string(bytes, s);
  return add_encoded(key, ValueType::kArray, bytes);
}

Result<void> HeaderBuilder::add_tensor(std::string_view name, DType type,
                                       std::span<const int64_t> shape) {
  if (encoded_)
    return invalid(fmt::format("tensor '{}' comes after the header was made", printable(name)));
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

Result<std::vector<std::byte>> HeaderBuilder::encode() {
  if (encoded_) return invalid("the header is made twice");
  int64_t offset = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    Tensor& t = tensors_[i];
    t.offset = offset;
    std::memcpy(tensor_bytes_.data() + offset_places_[i], &offset, sizeof(offset));
    const auto padded = checked_align_up(t.n_bytes, alignment_);
    const auto end = padded ? checked_add(offset, *padded) : std::nullopt;
    if (!end) return invalid(fmt::format("tensor '{}' ends past 2^63 bytes", printable(t.name)));
    offset = *end;
  }
  const auto n_bytes = static_cast<int64_t>(kStartBytes + kv_bytes_.size() + tensor_bytes_.size());
  std::vector<std::byte> out;
  out.reserve(static_cast<size_t>(align_up(n_bytes, alignment_)));
  put<uint32_t>(out, kMagic);
  put<uint32_t>(out, kVersion);
  put<uint64_t>(out, tensors_.size());
  put<uint64_t>(out, n_kv_);
  out.insert(out.end(), kv_bytes_.begin(), kv_bytes_.end());
  out.insert(out.end(), tensor_bytes_.begin(), tensor_bytes_.end());
  out.resize(static_cast<size_t>(align_up(n_bytes, alignment_)));
  kv_bytes_ = {};
  tensor_bytes_ = {};
  encoded_ = true;
  return out;
}

}  // namespace infer::gguf
