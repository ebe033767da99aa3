#include "core/text/onig_pattern.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/unicode.h"

namespace infer::text {
namespace {

constexpr size_t kMaxPattern = 8192;
constexpr int kMaxDepth = 32;
constexpr int kMaxRepeat = 4096;

// Unicode's White_Space. PCRE2's own \s adds U+180E, which has not been a space since Unicode 6.3.
constexpr std::string_view kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside of a class Oniguruma's \w has the six numbers of Latin-1 that are no digits as well.
constexpr std::string_view kWordAlone =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kHex = "0-9A-Fa-f";

struct PosixClass {
  std::string_view name, items;
};
constexpr PosixClass kPosix[] = {{"alpha", R"(\p{Alphabetic})"},
                                 {"digit", R"(\p{Nd})"},
                                 {"alnum", R"(\p{Alphabetic}\p{Nd})"},
                                 {"lower", R"(\p{Lowercase})"},
                                 {"upper", R"(\p{Uppercase})"},
                                 {"space", kSpaces},
                                 {"xdigit", kHex},
                                 {"word", kWord},
                                 {"ascii", R"(\x{0}-\x{7f})"},
                                 {"punct", R"(\p{P}\p{S})"}};

struct PropertyName {
  std::string_view onig, pcre2;
};
constexpr PropertyName kProperties[] = {{"Letter", "L"},
                                        {"Mark", "M"},
                                        {"Number", "N"},
                                        {"Punctuation", "P"},
                                        {"Symbol", "S"},
                                        {"Separator", "Z"},
                                        {"Other", "C"},
                                        {"Uppercase_Letter", "Lu"},
                                        {"Lowercase_Letter", "Ll"},
                                        {"Decimal_Number", "Nd"},
                                        {"Alpha", "Alphabetic"},
                                        {"Alphabetic", "Alphabetic"},
                                        {"Lowercase", "Lowercase"},
                                        {"Uppercase", "Uppercase"},
                                        {"White_Space", "White_Space"},
                                        {"Space", "White_Space"},
                                        {"Any", "Any"},
                                        {"Emoji", "Emoji"},
                                        {"Extended_Pictographic", "Extended_Pictographic"},
                                        {"Ideographic", "Ideographic"}};

/// PCRE2 takes a bare script's name for its extensions, Oniguruma does not.
std::string pcre2_property(std::string_view name) {
  for (const PropertyName& p : kProperties) {
    if (p.onig == name) return std::string(p.pcre2);
  }
  return name.size() <= 2 ? std::string(name) : fmt::format("sc:{}", name);
}

/// A class under construction: what PCRE2 can say between brackets, and single-character patterns
/// beside it.
struct CharSet {
  bool negated = false;
  std::string items;
  std::vector<std::string> others;

  std::string pattern() const {
    std::string rest;
    for (const std::string& other : others) rest += (rest.empty() ? "" : "|") + other;
    if (rest.empty()) return fmt::format("[{}{}]", negated ? "^" : "", items);
    if (!negated)
      return items.empty() ? "(?:" + rest + ')' : fmt::format("(?:[{}]|{})", items, rest);
    return fmt::format("(?:(?!{}){})", rest, items.empty() ? "(?s:.)" : "[^" + items + ']');
  }
};

class Translator {
 public:
  explicit Translator(std::string_view in) : in_(in) {}

  Result<std::string> run() {
    INFER_TRY(alternatives(0));
    if (more()) return refuse("a ')' without its '('");
    return std::move(out_);
  }

 private:
  bool more() const { return at_ < in_.size(); }
  char peek(size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }
  bool eat(std::string_view text) {
    if (!in_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  Error refuse(std::string_view what) const {
    return make_error(ErrorCode::kUnsupported, "byte {} of the pattern: {}", at_, what);
  }

  uint32_t character() {
    const Utf8Step step = utf8_step(in_, at_);
    at_ += step.len;
    return step.cp;
  }
  static std::string literal(uint32_t cp, bool in_class) {
    if (cp < 0x20 || cp >= 0x7f) return fmt::format("\\x{{{:x}}}", cp);
    const std::string_view special = in_class ? R"(\[]^-)" : R"(\[]^$.|()?*+{})";
    const char c = static_cast<char>(cp);
    return special.find(c) == std::string_view::npos ? std::string(1, c) : std::string{'\\', c};
  }

  Result<void> alternatives(int depth) {
    if (depth > kMaxDepth) return refuse("groups nested too deep");
    while (more() && peek() != ')') {
      if (eat("|")) {
        out_ += '|';
        continue;
      }
      const size_t begin = out_.size();
      INFER_TRY(atom(depth));
      INFER_TRY(repeats(begin));
    }
    return {};
  }

  Result<void> atom(int depth) {
    const char c = peek();
    if (c == '(') return group(depth);
    if (c == '[') {
      ++at_;
      INFER_ASSIGN(const CharSet set, char_class(depth));
      out_ += set.pattern();
      return {};
    }
    if (c == '\\') return escape();
    if (c == '.' || c == '^' || c == '$') {
      ++at_;
      out_ += c;
      return {};
    }
    if (c == '?' || c == '*' || c == '+') return refuse("nothing to repeat");
    out_ += literal(character(), false);
    return {};
  }

  /// "i", "m", "-i", "im" and the like as PCRE2 spells them; Oniguruma's m is PCRE2's s.
  std::string flags() {
    std::string found;
    for (; peek() == 'i' || peek() == 'm' || peek() == '-'; ++at_)
      found += peek() == 'm' ? 's' : peek();
    return found;
  }

  Result<void> group(int depth) {
    const bool first = out_.empty() || out_.ends_with("(?:");
    ++at_;
    if (peek() == '*') return refuse("a verb");
    if (!eat("?")) {
      out_ += "(?:";
    } else if (const std::string set = flags(); !set.empty()) {
      if (eat(")")) {
        if (!first) return refuse("a flag in the middle of a group");
        out_ += "(?" + set + ')';
        return {};
      }
      out_ += "(?" + set;
    } else {
      out_ += "(?";
    }
    if (out_.ends_with("(?:")) return group_end(depth);
    for (const std::string_view kind : {":", "=", "!", ">", "<=", "<!"}) {
      if (!eat(kind)) continue;
      out_ += kind;
      return group_end(depth);
    }
    return refuse("a group of a kind that is not known here");
  }
  Result<void> group_end(int depth) {
    INFER_TRY(alternatives(depth + 1));
    if (!eat(")")) return refuse("a '(' without its ')'");
    out_ += ')';
    return {};
  }

  /// An interval at the read position, as PCRE2 writes it; nothing (and no progress) if '{' is
  /// literal there.
  std::optional<std::string> interval() {
    size_t i = at_ + 1;
    const auto number = [&] {
      int n = -1;
      for (; i < in_.size() && in_[i] >= '0' && in_[i] <= '9'; ++i)
        n = std::min(kMaxRepeat + 1, std::max(n, 0) * 10 + (in_[i] - '0'));
      return n;
    };
    const int low = number();
    const bool comma = i < in_.size() && in_[i] == ',';
    if (comma) ++i;
    const int high = comma ? number() : low;
    if (i >= in_.size() || in_[i] != '}' || (low < 0 && high < 0)) return std::nullopt;
    if (low > kMaxRepeat || high > kMaxRepeat) return std::nullopt;
    at_ = i + 1;
    if (!comma) return fmt::format("{{{}}}", low);
    return high < 0 ? fmt::format("{{{},}}", low)
                    : fmt::format("{{{},{}}}", std::max(low, 0), high);
  }

  /// Quantifiers behind the atom that begins at `begin` of the output.
  Result<void> repeats(size_t begin) {
    for (int n = 0; more(); ++n) {
      std::string times;
      const char c = peek();
      if (c == '?' || c == '*' || c == '+') {
        times = c;
        ++at_;
        if (peek() == '?' || peek() == '+') times += in_[at_++];
      } else if (c == '{') {
        const auto found = interval();
        if (!found) return {};
        times = *found;
        if (peek() == '?') {
          if (times.find(',') == std::string::npos) return refuse("{n}?");
          times += in_[at_++];
        }
        if (times == "{1}") continue;
      } else {
        return {};
      }
      if (n > 3) return refuse("too many quantifiers in a row");
      if (n > 0) out_ = out_.substr(0, begin) + "(?:" + out_.substr(begin) + ')';
      out_ += times;
    }
    return {};
  }

  /// Digits of base 16, as many as stand there up to `most`.
  std::optional<uint32_t> hex(size_t most) {
    uint32_t v = 0;
    size_t n = 0;
    for (; n < most && more(); ++n, ++at_) {
      const char c = peek();
      const std::string_view digits = "0123456789abcdef";
      const size_t d = digits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c);
      if (d == std::string_view::npos) break;
      v = v * 16 + static_cast<uint32_t>(d);
    }
    return n == 0 ? std::nullopt : std::optional(v);
  }

  /// The character that an escape stands for; nothing for a set or an assertion. The read position
  /// is behind the backslash.
  Result<std::optional<uint32_t>> escaped_character() {
    const char c = peek();
    const auto simple = [&](uint32_t cp) {
      ++at_;
      return std::optional(cp);
    };
    switch (c) {
      case 'n':
        return simple('\n');
      case 'r':
        return simple('\r');
      case 't':
        return simple('\t');
      case 'f':
        return simple('\f');
      case 'v':
        return simple(0x0b);
      case 'a':
        return simple(0x07);
      case 'e':
        return simple(0x1b);
      case 'x':
      case 'u': {
        ++at_;
        const bool braces = c == 'x' && eat("{");
        const auto cp = hex(braces ? 6 : c == 'x' ? 2 : 4);
        const bool whole = cp && (!braces || eat("}")) && (braces || c == 'u' || *cp < 0x80);
        if (!whole || *cp > 0x10ffff || (*cp >= 0xd800 && *cp < 0xe000))
          return refuse("a number that is no character");
        return cp;
      }
      default:
        break;
    }
    if (!more()) return refuse("a backslash at the end");
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter) return std::optional<uint32_t>();
    return std::optional(character());
  }

  /// \p{...} and \P{...}, checked to be a name and nothing else.
  Result<std::string> property() {
    const char kind = in_[at_++];
    if (!eat("{")) return refuse("\\p without braces");
    const bool negated = eat("^");
    const size_t end = in_.find('}', at_);
    if (end == std::string_view::npos) return refuse("\\p without its end");
    const std::string_view name = in_.substr(at_, end - at_);
    const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '&' || c == ' ';
    });
    if (!plain || name.empty()) return refuse("a property that is no name");
    at_ = end + 1;
    const bool outside = (kind == 'P') != negated;
    return fmt::format("\\{}{{{}}}", outside ? 'P' : 'p', pcre2_property(name));
  }

  /// What a set escape puts between brackets, e.g. \s; the complement as a pattern of its own.
  struct Set {
    std::string items;
    bool negated = false;
  };
  Result<Set> set_escape(bool in_class) {
    const char c = peek();
    if (c == 'p' || c == 'P') {
      INFER_ASSIGN(std::string items, property());
      return Set{std::move(items)};
    }
    ++at_;
    switch (c) {
      case 's':
      case 'S':
        return Set{std::string(kSpaces), c == 'S'};
      case 'd':
        return Set{R"(\p{Nd})"};
      case 'D':
        return Set{R"(\P{Nd})"};
      case 'w':
      case 'W':
        return Set{std::string(in_class ? kWord : kWordAlone), c == 'W'};
      case 'h':
      case 'H':
        return Set{std::string(kHex), c == 'H'};
      default:
        --at_;
        return refuse("an escape that is not known here");
    }
  }

  Result<void> escape() {
    ++at_;
    INFER_ASSIGN(const std::optional<uint32_t> cp, escaped_character());
    if (cp) {
      out_ += literal(*cp, false);
      return {};
    }
    const char c = peek();
    if (c == 'A' || c == 'z' || c == 'Z') {
      ++at_;
      out_ += {'\\', c};
      return {};
    }
    if (c == 'b' || c == 'B') {
      ++at_;
      // A border of a word: it stands on one side only. \B: on both or none.
      const std::string in = fmt::format("[{}]", kWordAlone);
      const std::string_view here = c == 'b' ? "!" : "=", there = c == 'b' ? "=" : "!";
      out_ += fmt::format("(?:(?<={0})(?{1}{0})|(?<!{0})(?{2}{0}))", in, here, there);
      return {};
    }
    INFER_ASSIGN(const Set set, set_escape(/*in_class=*/false));
    const bool one_item = set.items.starts_with("\\p{") || set.items.starts_with("\\P{");
    const bool bare = one_item && set.items.find('}') + 1 == set.items.size();
    out_ += bare ? set.items : fmt::format("[{}{}]", set.negated ? "^" : "", set.items);
    return {};
  }

  Result<void> posix(CharSet& set) {
    const size_t end = in_.find(":]", at_);
    const std::string_view name = in_.substr(at_, std::min(end, in_.size()) - at_);
    for (const PosixClass& known : kPosix) {
      if (known.name != name) continue;
      at_ = end + 2;
      set.items += known.items;
      return {};
    }
    return refuse("a POSIX class that is not known here");
  }

  /// The character at the read position of a class; nothing if a set stood there and was added.
  Result<std::optional<uint32_t>> class_item(CharSet& set) {
    if (!eat("\\")) return std::optional(character());
    if (eat("b")) return std::optional<uint32_t>(8);
    INFER_ASSIGN(const std::optional<uint32_t> cp, escaped_character());
    if (cp) return cp;
    INFER_ASSIGN(const Set found, set_escape(/*in_class=*/true));
    if (found.negated) {
      set.others.push_back("[^" + found.items + ']');
    } else {
      set.items += found.items;
    }
    return std::optional<uint32_t>();
  }

  /// Behind the '['.
  Result<CharSet> char_class(int depth) {
    if (depth > kMaxDepth) return refuse("classes nested too deep");
    CharSet set;
    set.negated = eat("^");
    INFER_TRY(class_items(set, depth));
    return set;
  }

  /// Up to and with the ']'.
  Result<void> class_items(CharSet& set, int depth) {
    if (peek() == ']') return refuse("an empty class");
    while (more()) {
      if (eat("]")) return {};
      if (eat("&&")) return intersection(set, depth);
      if (eat("[:")) {
        INFER_TRY(posix(set));
      } else if (eat("[")) {
        INFER_ASSIGN(const CharSet inner, char_class(depth + 1));
        if (inner.negated || !inner.others.empty()) {
          set.others.push_back(inner.pattern());
        } else {
          set.items += inner.items;
        }
      } else {
        INFER_TRY(character_or_range(set));
      }
    }
    return refuse("a '[' without its ']'");
  }

  Result<void> intersection(CharSet& set, int depth) {
    if (depth >= kMaxDepth) return refuse("classes nested too deep");
    CharSet right;
    INFER_TRY(class_items(right, depth + 1));
    CharSet left{.items = std::move(set.items), .others = std::move(set.others)};
    if (left.items.empty() && left.others.empty()) return refuse("&& without a left side");
    set.items.clear();
    set.others.assign(1, "(?:(?=" + right.pattern() + ')' + left.pattern() + ')');
    return {};
  }

  Result<void> character_or_range(CharSet& set) {
    INFER_ASSIGN(const std::optional<uint32_t> first, class_item(set));
    if (!first) return {};
    set.items += literal(*first, true);
    const bool range = peek() == '-' && at_ + 1 < in_.size() && peek(1) != ']' && peek(1) != '[';
    if (!range) return {};
    ++at_;
    const size_t before = set.items.size() + set.others.size();
    INFER_ASSIGN(const std::optional<uint32_t> last, class_item(set));
    if (!last || set.items.size() + set.others.size() != before || *last < *first)
      return refuse("a range that is none");
    set.items += '-' + literal(*last, true);
    return {};
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

Result<std::string> pcre2_from_onig(std::string_view pattern) {
  if (pattern.size() > kMaxPattern)
    return make_error(ErrorCode::kUnsupported, "a pattern of {} bytes, the limit is {}",
                      pattern.size(), kMaxPattern);
  if (utf8_valid_end(pattern, 0) != pattern.size())
    return make_error(ErrorCode::kCorrupt, "a pattern that is not UTF-8");
  if (pattern.find('\0') != std::string_view::npos)
    return make_error(ErrorCode::kUnsupported, "a pattern with a NUL");
  return Translator(pattern).run();
}

}  // namespace infer::text
