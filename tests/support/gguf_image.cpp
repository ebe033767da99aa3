#include "tests/support/gguf_image.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <span>
#include <type_traits>
#include <utility>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/reader.h"

namespace infer::test {
namespace {

constexpr size_t kAlignment = 32;

class Sink {
 public:
  template <class T>
  void put(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    append(std::as_bytes(std::span(&value, 1)));
  }
  void put_string(std::string_view text) {
    put(static_cast<uint64_t>(text.size()));
    append(std::as_bytes(std::span(text)));
  }
  void append(std::span<const std::byte> data) {
    if (data.empty()) return;
    const size_t at = bytes_.size();
    bytes_.resize(at + data.size());
    std::memcpy(bytes_.data() + at, data.data(), data.size());
  }
  void pad() { bytes_.resize(align_up(bytes_.size(), kAlignment)); }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

template <class T>
constexpr gguf::ValueType type_of() {
  using enum gguf::ValueType;
  if constexpr (std::is_same_v<T, uint8_t>) return kU8;
  if constexpr (std::is_same_v<T, int8_t>) return kI8;
  if constexpr (std::is_same_v<T, uint16_t>) return kU16;
  if constexpr (std::is_same_v<T, int16_t>) return kI16;
  if constexpr (std::is_same_v<T, uint32_t>) return kU32;
  if constexpr (std::is_same_v<T, int32_t>) return kI32;
  if constexpr (std::is_same_v<T, float>) return kF32;
  if constexpr (std::is_same_v<T, bool>) return kBool;
  if constexpr (std::is_same_v<T, std::string>) return kString;
  if constexpr (std::is_same_v<T, uint64_t>) return kU64;
  if constexpr (std::is_same_v<T, int64_t>) return kI64;
  if constexpr (std::is_same_v<T, double>) return kF64;
  return kArray;
}

template <class T>
void put_scalar(Sink& sink, const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    sink.put_string(value);
  } else {
    sink.put(value);
  }
}

void put_value(Sink& sink, const GgufValue& value) {
  std::visit(
      [&]<class T>(const T& v) {
        sink.put(static_cast<uint32_t>(type_of<T>()));
        if constexpr (type_of<T>() == gguf::ValueType::kArray) {
          sink.put(static_cast<uint32_t>(type_of<typename T::value_type>()));
          sink.put(static_cast<uint64_t>(v.size()));
          for (const auto& e : v) put_scalar(sink, e);
        } else {
          put_scalar(sink, v);
        }
      },
      value);
}

}  // namespace

void GgufImage::set(std::string_view key, GgufValue value) {
  for (auto& [k, v] : kvs) {
    if (k != key) continue;
    v = std::move(value);
    return;
  }
  kvs.emplace_back(std::string(key), std::move(value));
}

void GgufImage::erase(std::string_view key) {
  std::erase_if(kvs, [&](const auto& kv) { return kv.first == key; });
}

const GgufValue* GgufImage::find(std::string_view key) const {
  const auto it =
      std::find_if(kvs.begin(), kvs.end(), [&](const auto& kv) { return kv.first == key; });
  return it == kvs.end() ? nullptr : &it->second;
}

GgufTensor* GgufImage::find_tensor(std::string_view name) {
  const auto it =
      std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
  return it == tensors.end() ? nullptr : &*it;
}

std::vector<std::byte> GgufImage::serialize() const {
  Sink sink;
  sink.append(std::as_bytes(std::span("GGUF", 4)));
  sink.put(uint32_t{3});
  sink.put(static_cast<uint64_t>(tensors.size()));
  sink.put(static_cast<uint64_t>(kvs.size()));
  for (const auto& [key, value] : kvs) {
    sink.put_string(key);
    put_value(sink, value);
  }
  uint64_t offset = 0;
  for (const GgufTensor& t : tensors) {
    sink.put_string(t.name);
    sink.put(static_cast<uint32_t>(t.shape.size()));
    for (const int64_t d : t.shape) sink.put(d);
    sink.put(quant_type(t.type).gguf_id);
    sink.put(offset);
    offset += align_up(t.bytes.size(), kAlignment);
  }
  sink.pad();
  for (const GgufTensor& t : tensors) {
    sink.append(t.bytes);
    sink.pad();
  }
  return sink.take();
}

Result<void> GgufImage::write(const std::filesystem::path& path) const {
  const std::vector<std::byte> bytes = serialize();
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out)
    return make_error(ErrorCode::kIo, "{}: cannot write {} bytes", path.string(), bytes.size());
  return {};
}

}  // namespace infer::test
