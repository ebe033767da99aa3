#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace infer::gguf {

static_assert(std::endian::native == std::endian::little, "GGUF files are read in place");

/// A little-endian number at any address.
template <class T>
T load_le(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}

/// Walks over bytes from a file; nothing is read past their end.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t pos() const { return pos_; }
  size_t remaining() const { return bytes_.size() - pos_; }
  const std::byte* here() const { return bytes_.data() + pos_; }

  /// The next number, or nothing (and no step) when the bytes end before it does.
  template <class T>
  std::optional<T> read() {
    if (remaining() < sizeof(T)) return std::nullopt;
    const T v = load_le<T>(here());
    pos_ += sizeof(T);
    return v;
  }
  /// Steps over n bytes; false (and no step) when there are fewer.
  bool skip(uint64_t n) {
    if (remaining() < n) return false;
    pos_ += static_cast<size_t>(n);
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t pos_ = 0;
};

}  // namespace infer::gguf
