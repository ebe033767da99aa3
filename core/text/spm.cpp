#include "core/text/spm.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/text/unicode.h"

namespace infer::text {
namespace {

constexpr uint32_t kMarkCp = 0x2581;

bool is_joinable(TokenKind kind) {
  return kind != TokenKind::kControl && kind != TokenKind::kUnknown && kind != TokenKind::kByte;
}

/// Moves ranges along with a text that is written anew, piece by piece from its beginning.
class RangeMover {
 public:
  explicit RangeMover(std::vector<TextRange>& ranges) : ranges_(ranges) {}

  /// [begin, end) went unchanged to `to`.
  void copied(size_t begin, size_t end, size_t to) {
    for (; more() && border() < end; ++next_) border() += to - begin;
  }
  /// [begin, end) became [to, to_end).
  void replaced(size_t begin, size_t end, size_t to, size_t to_end) {
    for (; more() && border() < end; ++next_)
      border() = next_ % 2 == 0 || border() == begin ? to : to_end;
  }
  void finish(size_t size) {
    for (; more(); ++next_) border() = size;
    std::erase_if(ranges_, [](const TextRange& r) { return r.begin >= r.end; });
  }

 private:
  bool more() const { return next_ < 2 * ranges_.size(); }
  size_t& border() {
    TextRange& r = ranges_[next_ / 2];
    return next_ % 2 == 0 ? r.begin : r.end;
  }

  std::vector<TextRange>& ranges_;
  size_t next_ = 0;  // border: 2 * range, + 1 for its end
};

}  // namespace

SpmModel::SpmModel(const Vocab& vocab)
    : score_(vocab.score), unk_(vocab.special.unk), squeeze_spaces_(vocab.squeeze_spaces) {
  byte_id_.fill(-1);
  joinable_.reset(vocab.text.data(), vocab.text.size());
  for (TokenId id = 0; id < vocab.size(); ++id) {
    const std::string_view text = vocab.text[id];
    if (vocab.kind[id] == TokenKind::kByte) byte_id_[byte_of_spelling(text)] = id;
    if (text.empty() || !is_joinable(vocab.kind[id])) continue;
    joinable_.insert(id);
    const bool user_defined = vocab.kind[id] == TokenKind::kUserDefined;
    marks_are_spaces_ =
        marks_are_spaces_ || (user_defined && text.find(' ') != std::string_view::npos);
    longest_ = std::max(longest_, text.size());
    uint32_t before = kMarkCp;
    for (size_t at = 0; at < text.size();) {
      const Utf8Step step = utf8_step(text, at);
      if (step.cp == kMarkCp && before != kMarkCp) before_mark_.insert(before);
      before = step.cp;
      at += step.len;
    }
  }
  for (int b = 0; b < 256; ++b) {
    if (byte_id_[b] < 0) byte_id_[b] = vocab.by_text.find(fmt::format("<0x{:02X}>", b));
    const char raw = static_cast<char>(b);
    if (byte_id_[b] < 0) byte_id_[b] = joinable_.find({&raw, 1});
  }
}

std::string_view SpmModel::normalize(std::string_view text, std::string& buffer,
                                     std::vector<TextRange>& ranges) const {
  if (marks_are_spaces_ && text.find(kSpaceMark) != std::string_view::npos) {
    std::string spaced;
    RangeMover mover(ranges);
    for (size_t at = 0; at < text.size();) {
      const size_t mark = std::min(text.find(kSpaceMark, at), text.size());
      mover.copied(at, mark, spaced.size());
      spaced.append(text, at, mark - at);
      at = mark + kSpaceMark.size();
      if (mark == text.size()) continue;
      mover.replaced(mark, at, spaced.size(), spaced.size() + 1);
      spaced += ' ';
    }
    mover.finish(spaced.size());
    buffer = std::move(spaced);
    text = buffer;
  }
  if (squeeze_spaces_) {
    std::string squeezed;
    RangeMover mover(ranges);
    for (size_t at = 0; at < text.size(); ++at) {
      const char c = text[at];
      const bool stays = c != ' ' || (!squeezed.empty() && squeezed.back() != ' ');
      mover.replaced(at, at + 1, squeezed.size(), squeezed.size() + stays);
      if (stays) squeezed += c;
    }
    mover.finish(squeezed.size());
    buffer = std::move(squeezed);
    text = buffer;
    for (;;) {  // at the end, and only there, SentencePiece takes a literal U+2581 for a space
      if (text.ends_with(' ')) {
        text.remove_suffix(1);
      } else if (text.ends_with(kSpaceMark)) {
        text.remove_suffix(kSpaceMark.size());
      } else {
        break;
      }
    }
  }
  return text;
}

void SpmModel::push_unknown(std::string_view bytes, std::vector<TokenId>& out,
                            bool& after_unk) const {
  for (const char c : bytes) {
    const TokenId id = byte_id_[static_cast<uint8_t>(c)];
    if (id >= 0) {
      out.push_back(id);
      after_unk = false;
    } else if (unk_ >= 0 && !after_unk) {  // one for a run, as SentencePiece has it
      out.push_back(unk_);
      after_unk = true;
    }
  }
}

void SpmModel::add_pair(std::string_view segment, Scratch& s, int32_t left, int32_t right) const {
  if (left < 0 || right < 0) return;
  const uint32_t len = s.len[left] + s.len[right];
  if (len > longest_) return;
  const TokenId id = joinable_.find(segment.substr(s.start[left], len));
  if (id < 0) return;
  s.heap.push_back({score_[id], left, len});
  std::push_heap(s.heap.begin(), s.heap.end(), [](const Scratch::Pair& a, const Scratch::Pair& b) {
    return a.score != b.score ? a.score < b.score : a.left > b.left;
  });
}

void SpmModel::encode_segment(std::string_view segment, Scratch& s, std::vector<TokenId>& out,
                              bool& after_unk) const {
  s.start.clear();
  s.len.clear();
  s.prev.clear();
  s.next.clear();
  s.heap.clear();
  for (size_t at = 0; at < segment.size();) {
    const Utf8Step step = utf8_step(segment, at);
    const auto i = static_cast<int32_t>(s.start.size());
    const uint32_t len = step.kind == Utf8Kind::kOk ? step.len : 1;
    s.start.push_back(static_cast<uint32_t>(at));
    s.len.push_back(len);
    s.prev.push_back(i - 1);
    s.next.push_back(at + len < segment.size() ? i + 1 : -1);
    at += len;
  }
  const auto n = static_cast<int32_t>(s.start.size());
  for (int32_t i = 0; i + 1 < n; ++i) add_pair(segment, s, i, i + 1);
  const auto worse = [](const Scratch::Pair& a, const Scratch::Pair& b) {
    return a.score != b.score ? a.score < b.score : a.left > b.left;
  };
  while (!s.heap.empty()) {
    std::pop_heap(s.heap.begin(), s.heap.end(), worse);
    const Scratch::Pair top = s.heap.back();
    s.heap.pop_back();
    const int32_t right = s.len[top.left] > 0 ? s.next[top.left] : -1;
    if (right < 0 || s.len[top.left] + s.len[right] != top.len) continue;
    s.len[top.left] = top.len;
    s.len[right] = 0;
    s.next[top.left] = s.next[right];
    if (s.next[right] >= 0) s.prev[s.next[right]] = top.left;
    add_pair(segment, s, s.prev[top.left], top.left);
    add_pair(segment, s, top.left, s.next[top.left]);
  }
  for (int32_t i = 0; i >= 0; i = s.next[i]) {
    const std::string_view text = segment.substr(s.start[i], s.len[i]);
    const TokenId id = joinable_.find(text);
    if (id < 0) {
      push_unknown(text, out, after_unk);
    } else {
      out.push_back(id);
      after_unk = false;
    }
  }
}

void SpmModel::encode(std::string_view text, bool space_before, Scratch& s,
                      std::vector<TokenId>& out) const {
  s.escaped.clear();
  if (space_before) s.escaped += kSpaceMark;
  for (const char c : text) {
    if (c == ' ') {
      s.escaped += kSpaceMark;
    } else {
      s.escaped += c;
    }
  }
  // No token has U+2581 after `before`: nothing can be joined across that border, so each side is
  // done on its own.
  const std::string_view all = s.escaped;
  bool after_unk = false;
  size_t begin = 0;
  uint32_t before = kMarkCp;
  for (size_t at = 0; at < all.size();) {
    const Utf8Step step = utf8_step(all, at);
    if (step.cp == kMarkCp && before != kMarkCp && !before_mark_.contains(before)) {
      encode_segment(all.substr(begin, at - begin), s, out, after_unk);
      begin = at;
    }
    before = step.cp;
    at += step.len;
  }
  if (begin < all.size()) encode_segment(all.substr(begin), s, out, after_unk);
}

}  // namespace infer::text
