#include "core/text/special.h"

#include <algorithm>
#include <functional>

#include "core/text/unicode.h"

namespace infer::text {
namespace {

/// Bytes of the white space character at `at`, 0 if there is none. Source: White_Space of Unicode
/// 15, PropList.txt.
size_t space_at(std::string_view text, size_t at) {
  const char c = text[at];
  if (c == ' ' || (c >= '\t' && c <= '\r')) return 1;
  if (static_cast<uint8_t>(c) < 0x80) return 0;
  const Utf8Step s = utf8_step(text, at);
  const bool is_space = s.cp == 0x85 || s.cp == 0xa0 || s.cp == 0x1680 ||
                        (s.cp >= 0x2000 && s.cp <= 0x200a) || s.cp == 0x2028 || s.cp == 0x2029 ||
                        s.cp == 0x202f || s.cp == 0x205f || s.cp == 0x3000;
  return is_space ? s.len : 0;
}

}  // namespace

SpecialMatcher::SpecialMatcher(const Vocab& vocab) : strips_right_(vocab.strips_right) {
  roots_.fill(-1);
  for (TokenId id = 0; id < vocab.size(); ++id) {
    const bool hidden = vocab.is_hidden(id);
    if (vocab.text[id].empty() || !(hidden || vocab.kind[id] == TokenKind::kUserDefined)) continue;
    insert(id, vocab.text[id], hidden);
    lengths_.push_back(vocab.text[id].size());
  }
  std::sort(lengths_.begin(), lengths_.end(), std::greater<>());
  lengths_.erase(std::unique(lengths_.begin(), lengths_.end()), lengths_.end());
}

int32_t SpecialMatcher::child(int32_t node, uint8_t byte) const {
  int32_t c = nodes_[node].first_child;
  while (c >= 0 && nodes_[c].byte != byte) c = nodes_[c].next_sibling;
  return c;
}

void SpecialMatcher::insert(TokenId id, std::string_view text, bool hidden) {
  const auto new_node = [&](char c, int32_t sibling) {
    nodes_.push_back({.next_sibling = sibling, .byte = static_cast<uint8_t>(c)});
    return static_cast<int32_t>(nodes_.size() - 1);
  };
  int32_t& root = roots_[static_cast<uint8_t>(text[0])];
  if (root < 0) root = new_node(text[0], -1);
  int32_t node = root;
  for (const char c : text.substr(1)) {
    int32_t next = child(node, static_cast<uint8_t>(c));
    if (next < 0) {
      next = new_node(c, nodes_[node].first_child);
      nodes_[node].first_child = next;
    }
    node = next;
  }
  nodes_[node].id = id;
  nodes_[node].hidden = hidden;
}

SpecialMatcher::Match SpecialMatcher::longest(const View& view, size_t at) const {
  const std::string_view text = view.text;
  Match best;
  int32_t node = roots_[static_cast<uint8_t>(text[at])];
  for (size_t i = at + 1; node >= 0; ++i) {
    const Node& n = nodes_[node];
    if (n.id >= 0 && view.shows(n, at, i)) best = {n.id, i - at};
    if (i == text.size()) break;
    node = child(node, static_cast<uint8_t>(text[i]));
  }
  return best;
}

SpecialMatcher::Match SpecialMatcher::exact(const View& view, size_t at, size_t len) const {
  int32_t node = roots_[static_cast<uint8_t>(view.text[at])];
  for (size_t i = at + 1; node >= 0 && i < at + len; ++i)
    node = child(node, static_cast<uint8_t>(view.text[i]));
  if (node < 0 || nodes_[node].id < 0 || !view.shows(nodes_[node], at, at + len)) return {};
  return {nodes_[node].id, len};
}

size_t SpecialMatcher::swallow(std::string_view text, size_t end, TokenId id) const {
  if (strips_right_[id]) {
    while (end < text.size()) {
      const size_t n = space_at(text, end);
      if (n == 0) break;
      end += n;
    }
  }
  return end;
}

void SpecialMatcher::split_overlapping(const View& view, size_t begin, size_t end,
                                       std::vector<Fragment>& found) const {
  const std::string_view text = view.text;
  const size_t n_before = found.size();
  std::vector<uint8_t> taken(end - begin, 0);
  for (const size_t len : lengths_) {
    for (size_t at = begin; at + len <= end; ++at) {
      // Tokens taken so far are no shorter, so one inside this range would stick out at an end.
      if (taken[at - begin] || taken[at + len - 1 - begin]) continue;
      const Match m = exact(view, at, len);
      if (m.id < 0) continue;
      size_t stop = at + len;
      if (strips_right_[m.id]) {
        while (stop < end) {
          const size_t n = space_at(text.substr(0, end), stop);
          // A token may be made of any bytes, so also of some of this character's.
          if (n == 0 || std::count(&taken[stop - begin], &taken[stop - begin] + n, 1) > 0) break;
          stop += n;
        }
      }
      std::fill(taken.begin() + static_cast<ptrdiff_t>(at - begin),
                taken.begin() + static_cast<ptrdiff_t>(stop - begin), uint8_t{1});
      found.push_back({at, stop, m.id});
      at = stop - 1;
    }
  }
  std::sort(found.begin() + static_cast<ptrdiff_t>(n_before), found.end(),
            [](const Fragment& a, const Fragment& b) { return a.begin < b.begin; });
}

void SpecialMatcher::split(std::string_view text, bool parse_special,
                           std::span<const TextRange> literal, std::vector<Fragment>& out) const {
  const View view{text, parse_special, literal};
  out.clear();
  std::vector<Fragment> found;
  size_t plain = 0;
  for (size_t at = 0; at < text.size();) {
    const Match first = longest(view, at);
    if (first.id < 0) {
      ++at;
      continue;
    }
    size_t end = swallow(text, at + first.len, first.id);
    bool alone = true;
    for (size_t next = at + 1; next < end; ++next) {
      const Match m = longest(view, next);
      if (m.id < 0) continue;
      alone = false;
      end = std::max(end, swallow(text, next + m.len, m.id));
    }
    found.clear();
    if (alone) {
      found.push_back({at, end, first.id});
    } else {
      split_overlapping(view, at, end, found);
    }
    for (const Fragment& f : found) {
      if (f.begin > plain) out.push_back({plain, f.begin, -1});
      out.push_back(f);
      plain = f.end;
    }
    at = end;
  }
  if (plain < text.size()) out.push_back({plain, text.size(), -1});
}

}  // namespace infer::text
