#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/result.h"
#include "core/text/jinja/budget.h"
#include "core/text/text_range.h"

/// Strings of the template language: UTF-8 bytes, counted in characters as Python does, that know
/// which of their bytes are user data. A byte that is not part of UTF-8 is one character.
namespace infer::text::jinja {

struct Text {
  std::string bytes;
  std::vector<TextRange> user;  ///< sorted, disjoint, not touching
};
using TextPtr = std::shared_ptr<const Text>;

/// Bytes of the character that starts at `at` (< s.size()).
size_t char_len(std::string_view s, size_t at);
/// Its code point; -1 - byte for a byte that is not part of UTF-8.
int32_t char_at(std::string_view s, size_t at);
size_t count_chars(std::string_view s);
/// Byte position of the n-th character, s.size() when there are fewer.
size_t char_offset(std::string_view s, size_t n);

/// s.find(what, from) in linear time.
size_t find_bytes(std::string_view s, std::string_view what, size_t from);

bool is_space(int32_t cp);  ///< as str.isspace()
bool is_printable(int32_t cp);
bool is_alpha(int32_t cp);
bool is_digit(int32_t cp);
bool is_upper(int32_t cp);
bool is_lower(int32_t cp);
int32_t to_upper(int32_t cp);
int32_t to_lower(int32_t cp);

/// Collects a text and pays for it. After a failure (limit) nothing more is added and finish()
/// tells.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(budget) {}

  void append(std::string_view bytes, bool user = false);
  void append(const Text& text) { append(text, 0, text.bytes.size()); }
  void append(const Text& text, size_t begin, size_t end);
  void append_char(int32_t cp, bool user);
  void repeat(const Text& text, size_t times);

  void fail(Error error) {
    if (state_.ok()) state_ = std::move(error);
  }
  bool failed() const { return !state_.ok(); }
  const Result<void>& state() const { return state_; }
  size_t size() const { return text_.bytes.size(); }
  Result<TextPtr> finish();
  /// The text without an allocation of its own; leaves the builder empty.
  Result<Text> take();

 private:
  bool grow(size_t n_bytes);
  void mark(size_t begin, size_t end);

  Budget& budget_;
  Text text_;
  size_t paid_ = 0;
  Result<void> state_;
};

TextPtr make_text(std::string bytes, bool user = false);
Result<TextPtr> sub_text(Budget& budget, const TextPtr& text, size_t begin, size_t end);
Result<TextPtr> concat(Budget& budget, const Text& a, const Text& b);
/// With `chars` empty: white space.
Result<TextPtr> strip_text(Budget& budget, const TextPtr& text, std::string_view chars, bool left,
                           bool right);
/// `count` < 0: all of them.
Result<TextPtr> replace_text(Budget& budget, const Text& text, const Text& from, const Text& to,
                             int64_t count);
enum class Case : uint8_t { kUpper, kLower, kCapitalize, kTitle, kWords, kSwap };
/// kTitle is str.title(), kWords Jinja's filter of that name.
Result<TextPtr> change_case(Budget& budget, const Text& text, Case to);

}  // namespace infer::text::jinja
