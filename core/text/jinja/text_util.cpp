#include "core/text/jinja/text_util.h"

#include <algorithm>

namespace infer::text::jinja {
namespace {

bool ends_line(int32_t cp) {
  return (cp >= '\n' && cp <= '\r') || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
         cp == 0x2029;
}

}  // namespace

std::vector<std::pair<size_t, size_t>> split_lines(std::string_view s, bool with_ends) {
  std::vector<std::pair<size_t, size_t>> out;
  size_t begin = 0;
  for (size_t at = 0; at < s.size();) {
    const size_t len = char_len(s, at);
    if (!ends_line(char_at(s, at))) {
      at += len;
      continue;
    }
    const bool two = s[at] == '\r' && at + 1 < s.size() && s[at + 1] == '\n';
    const size_t next = at + (two ? 2 : len);
    out.emplace_back(begin, with_ends ? next : at);
    begin = at = next;
  }
  if (begin < s.size()) out.emplace_back(begin, s.size());
  return out;
}

Result<Value> padded(Budget& budget, const Text& text, int64_t width, std::string_view fill,
                     int side) {
  const auto n = static_cast<int64_t>(count_chars(text.bytes));
  const int64_t pad = std::max<int64_t>(width - n, 0);
  // Python puts the odd one left of the text when the width is odd as well.
  const int64_t left = side < 0 ? 0 : side > 0 ? pad : pad / 2 + (pad & width & 1);
  const Text one{std::string(fill), {}};
  TextBuilder out(budget);
  out.repeat(one, static_cast<size_t>(left));
  out.append(text);
  out.repeat(one, static_cast<size_t>(pad - left));
  return as_value(out.finish());
}

}  // namespace infer::text::jinja
