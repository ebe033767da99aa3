#include "quantize/convert/token_table.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/unicode.h"
#include "gguf/describe.h"
#include "gguf/keys.h"

namespace infer::quantize {
namespace {

using text::TokenKind;

// As llama.cpp's converter scores what has no score of its own.
constexpr float kPadScore = -10000.0f;
constexpr float kAddedScore = -1000.0f;

/// Control tokens that their models do not mark as special. Source: the list of llama.cpp's
/// converter (conversion/base.py).
bool looks_special(std::string_view text) {
  constexpr std::array<std::string_view, 4> known = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
  const auto between = [&](std::string_view begin, std::string_view end) {
    return text.size() >= begin.size() + end.size() && text.starts_with(begin) &&
           text.ends_with(end);
  };
  return std::find(known.begin(), known.end(), text) != known.end() || between("<|", "|>") ||
         between("<\uff5c", "\uff5c>") || between("<unused", ">");
}

/// User-defined tokens are looked for in the text as it is, where a space is a space.
std::string with_spaces(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t mark = std::min(text.find(text::kSpaceMark, at), text.size());
    out += text.substr(at, mark - at);
    if (mark < text.size()) out += ' ';
    at = mark + text::kSpaceMark.size();
  }
  return out;
}

}  // namespace

Result<TokenTable> TokenTable::make(std::string name, int64_t n_vocab) {
  if (n_vocab < 1 || n_vocab > kMaxTokens) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: a vocabulary of {} tokens (1 to {} are possible)", name, n_vocab,
                      kMaxTokens);
  }
  TokenTable table;
  table.name_ = std::move(name);
  const auto n = static_cast<size_t>(n_vocab);
  table.text_.resize(n);
  table.score_.assign(n, kPadScore);
  table.kind_.assign(n, static_cast<int32_t>(TokenKind::kUnused));
  table.taken_.assign(n, 0);
  return table;
}

void TokenTable::set_kind(int64_t id, TokenKind kind) {
  kind_[static_cast<size_t>(id)] = static_cast<int32_t>(kind);
}

Result<void> TokenTable::place(int64_t id, std::string_view text, TokenKind kind, float score) {
  if (id < 0 || id >= size()) {
    return make_error(ErrorCode::kCorrupt, "{}: token '{}' has id {}, the embedding has {} rows",
                      name_, gguf::printable(text), id, size());
  }
  const auto i = static_cast<size_t>(id);
  if (taken_[i]) {
    return make_error(ErrorCode::kCorrupt, "{}: tokens '{}' and '{}' both have id {}", name_,
                      gguf::printable(text_[i]), gguf::printable(text), id);
  }
  text_[i] = kind == TokenKind::kUserDefined ? with_spaces(text) : std::string(text);
  score_[i] = score;
  taken_[i] = 1;
  set_kind(id, kind);
  return {};
}

Result<bool> TokenTable::add(const AddedToken& token) {
  if (token.id < 0) {
    return make_error(ErrorCode::kCorrupt, "{}: added token '{}' has id {}", name_,
                      gguf::printable(token.text), token.id);
  }
  if (token.id >= size()) return false;
  const auto i = static_cast<size_t>(token.id);
  const auto kind = static_cast<TokenKind>(kind_[i]);
  const bool same = taken_[i] && text_[i] == token.text;
  if (same && (kind == TokenKind::kUnknown || kind == TokenKind::kByte)) return true;
  const bool control = token.special || looks_special(token.text);
  text_[i] = control ? token.text : with_spaces(token.text);
  score_[i] = kAddedScore;
  taken_[i] = 1;
  set_kind(token.id, control ? TokenKind::kControl : TokenKind::kUserDefined);
  return true;
}

Result<void> TokenTable::finish() {
  by_text_.clear();
  by_text_.reserve(text_.size());
  for (size_t i = 0; i < text_.size(); ++i) {
    if (!taken_[i] || text_[i].empty()) continue;
    const auto [at, fresh] = by_text_.emplace(text_[i], static_cast<int64_t>(i));
    if (!fresh) {
      return make_error(ErrorCode::kCorrupt, "{}: token '{}' has ids {} and {}", name_,
                        gguf::printable(text_[i]), at->second, i);
    }
  }
  for (size_t i = 0; i < text_.size(); ++i) {
    if (taken_[i]) continue;
    text_[i] = fmt::format("[PAD{}]", i);
    while (by_text_.contains(text_[i])) text_[i].insert(text_[i].size() - 1, "_");
    by_text_.emplace(text_[i], static_cast<int64_t>(i));
  }
  return {};
}

int64_t TokenTable::find(std::string_view text) const {
  const auto at = by_text_.find(text);
  return at == by_text_.end() ? -1 : at->second;
}

Result<void> TokenTable::write(gguf::HeaderBuilder& out, bool with_scores) const {
  const std::vector<std::string_view> views(text_.begin(), text_.end());
  INFER_TRY(out.add_strings(gguf::keys::kTokens, views));
  if (with_scores) INFER_TRY(out.add_array<float>(gguf::keys::kScores, score_));
  return out.add_array<int32_t>(gguf::keys::kTokenTypes, kind_);
}

}  // namespace infer::quantize
