#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

/// CRC-32C (Castagnoli), as iSCSI and ext4 use it. Source: RFC 3720 appendix B.4.
namespace infer {

namespace detail {

/// tables[j][b]: the checksum's change by byte b with j zero bytes behind it.
constexpr std::array<std::array<uint32_t, 256>, 8> make_crc32c_tables() {
  std::array<std::array<uint32_t, 256>, 8> t{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t c = b;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0x82f63b78u : 0u);
    t[0][b] = c;
  }
  for (size_t j = 1; j < 8; ++j) {
    for (size_t b = 0; b < 256; ++b) t[j][b] = (t[j - 1][b] >> 8) ^ t[0][t[j - 1][b] & 0xff];
  }
  return t;
}

inline constexpr auto kCrc32cTables = make_crc32c_tables();

}  // namespace detail

/// The checksum of what `crc` covers (0: nothing) with `bytes` behind it.
inline uint32_t crc32c(uint32_t crc, std::span<const std::byte> bytes) {
  const auto& t = detail::kCrc32cTables;
  const auto at = [&](size_t i) { return static_cast<uint32_t>(bytes[i]); };
  uint32_t c = ~crc;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    c ^= at(i) | at(i + 1) << 8 | at(i + 2) << 16 | at(i + 3) << 24;
    c = t[7][c & 0xff] ^ t[6][(c >> 8) & 0xff] ^ t[5][(c >> 16) & 0xff] ^ t[4][c >> 24] ^
        t[3][at(i + 4)] ^ t[2][at(i + 5)] ^ t[1][at(i + 6)] ^ t[0][at(i + 7)];
  }
  for (; i < bytes.size(); ++i) c = (c >> 8) ^ t[0][(c ^ at(i)) & 0xff];
  return ~c;
}

}  // namespace infer
