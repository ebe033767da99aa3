#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// UTF-8 without trust, the byte alphabet of byte-level BPE, and NFC.
namespace infer::text {

inline constexpr uint32_t kReplacementChar = 0xfffd;
/// U+2581, which SentencePiece writes in place of a space.
inline constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

enum class Utf8Kind : uint8_t {
  kOk,   ///< a well-formed character
  kIll,  ///< bytes that no continuation can make well formed
  kCut,  ///< the text ends inside what may become a character
};

struct Utf8Step {
  Utf8Kind kind;
  uint8_t len;  ///< 1..4 bytes; for kIll and kCut the maximal ill-formed part
  uint32_t cp;  ///< kReplacementChar unless kOk
};

/// The character, or the maximal ill-formed part, that starts at `at` (< s.size()).
/// Source: The Unicode Standard, table 3-7 and "U+FFFD Substitution of Maximal Subparts".
Utf8Step utf8_step(std::string_view s, size_t at) noexcept;

/// End of the run of well-formed characters that starts at `from`.
size_t utf8_valid_end(std::string_view s, size_t from) noexcept;
/// End of the run of ill-formed (or cut) bytes that starts at `from`.
size_t utf8_ill_end(std::string_view s, size_t from) noexcept;

void append_utf8(std::string& out, uint32_t cp);

/// Byte-level BPE spells each byte as one printable character: 0x21-0x7e, 0xa1-0xac and 0xae-0xff
/// stand for themselves, the other 68 bytes take U+0100, U+0101, ... in order. Source: GPT-2's
/// encoder.py.
uint32_t byte_to_stand_in(uint8_t byte) noexcept;
/// The byte that a character stands for, -1 if it is no stand-in.
int stand_in_to_byte(uint32_t cp) noexcept;
/// Appends the stand-ins of `bytes`.
void append_stand_ins(std::string& out, std::string_view bytes);
/// Appends the bytes that `spelling` stands for; what is no stand-in keeps its own bytes.
void append_from_stand_ins(std::string& out, std::string_view spelling);

enum class NormalForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };
/// Appends a Unicode normal form of `text`, which must be well-formed UTF-8. False when memory runs
/// out.
bool append_normalized(std::string& out, std::string_view text, NormalForm form);

}  // namespace infer::text
