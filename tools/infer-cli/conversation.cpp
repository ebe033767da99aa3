#include "tools/infer-cli/conversation.h"

#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace infer::tools {
namespace {

using text::TokenId;

/// Index of the first of `ids` that belongs to the last `n_byte` bytes of their text, if a token
/// begins exactly there and the bytes are those of `tail`.
std::optional<size_t> find_tail(const text::Tokenizer& tokenizer, std::span<const TokenId> ids,
                                std::string_view tail) {
  size_t at = ids.size();
  while (at > 0 && !tail.empty()) {
    const std::string_view piece = tokenizer.piece(ids[at - 1]);
    if (piece.empty() || !tail.ends_with(piece)) return std::nullopt;
    tail.remove_suffix(piece.size());
    --at;
  }
  if (!tail.empty()) return std::nullopt;
  return at;
}

/// Whether the ids say exactly this text; not so where a stop string or an incomplete character was
/// cut off.
bool says(const text::Tokenizer& tokenizer, std::span<const TokenId> ids, std::string_view text) {
  text::StreamDecoder decoder(tokenizer, /*special=*/false);
  std::string all;
  for (const TokenId id : ids) all += decoder.push(id);
  return decoder.finish().empty() && all == text;
}

}  // namespace

Result<ChatPrompt> Conversation::prompt() const {
  INFER_ASSIGN(ChatPrompt rendered, format_(messages_));
  std::vector<TokenId>& ids = rendered.ids;
  if (!seen_.ids.empty() && rendered.text.starts_with(seen_.text)) {
    const auto tail =
        find_tail(tokenizer_, ids, std::string_view(rendered.text).substr(seen_.text.size()));
    if (tail) {
      std::vector<TokenId> joined = seen_.ids;
      joined.insert(joined.end(), ids.begin() + static_cast<int64_t>(*tail), ids.end());
      ids = std::move(joined);
    }
  }
  return rendered;
}

void Conversation::add_answer(ChatPrompt prompt, const std::vector<TokenId>& ids,
                              const std::string& text) {
  messages_.push_back({"assistant", text});
  seen_ = std::move(prompt);
  n_prompt_bytes_ = seen_.text.size();
  n_prompt_ids_ = seen_.ids.size();
  if (!says(tokenizer_, ids, text)) return;
  seen_.text += text;
  seen_.ids.insert(seen_.ids.end(), ids.begin(), ids.end());
}

void Conversation::forget_seen() {
  seen_ = {};
  n_prompt_bytes_ = n_prompt_ids_ = 0;
}

void Conversation::drop_user() {
  if (messages_.empty() || messages_.back().role != "user") return;
  messages_.pop_back();
  // What was seen may end in this message only after drop_answer().
  if (seen_.ids.size() == n_prompt_ids_) forget_seen();
}

bool Conversation::drop_answer() {
  if (messages_.empty() || messages_.back().role != "assistant") return false;
  messages_.pop_back();
  seen_.text.resize(n_prompt_bytes_);
  seen_.ids.resize(n_prompt_ids_);
  return true;
}

void Conversation::clear() {
  messages_.resize(has_system() ? 1 : 0);
  forget_seen();
}

void Conversation::set_system(std::string text) {
  if (has_system()) messages_.erase(messages_.begin());
  if (!text.empty()) messages_.insert(messages_.begin(), {"system", std::move(text)});
  forget_seen();
}

std::string Conversation::system() const {
  return has_system() ? messages_.front().content : std::string();
}

void Conversation::set_messages(std::vector<ChatMessage> messages) {
  messages_ = std::move(messages);
  forget_seen();
}

}  // namespace infer::tools
