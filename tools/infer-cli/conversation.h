#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/text/tokenizer.h"
#include "tools/infer-cli/chat_format.h"

namespace infer::tools {

/// The messages of a conversation, and the token ids that the model has seen of it. One thread.
///
///   conversation.add_user("Hello");
///   INFER_ASSIGN(const auto prompt, conversation.prompt());
///   ... the model answers prompt.ids with `text`, made of `ids` ...
///   conversation.add_answer(prompt, ids, text);
class Conversation {
 public:
  /// Both must outlive the conversation.
  Conversation(const ChatFormat& format, const text::Tokenizer& tokenizer)
      : format_(format), tokenizer_(tokenizer) {}

  /// Everything up to where the next answer begins. Where its text goes on from the last prompt and
  /// answer, to the byte, its ids go on from theirs, even if the tokenizer would cut that text in
  /// another way: so the cache holds them.
  /// Errors: the template's.
  Result<ChatPrompt> prompt() const;

  void add_user(std::string text) { messages_.push_back({"user", std::move(text)}); }
  void add_answer(ChatPrompt prompt, const std::vector<text::TokenId>& ids,
                  const std::string& text);
  /// Takes back the last user message, when it could not be answered.
  void drop_user();
  /// Takes back the last answer; false when the conversation does not end in one.
  bool drop_answer();
  /// Forgets all but the system prompt.
  void clear();
  void set_system(std::string text);  ///< empty: none
  std::string system() const;
  /// Replaces everything, system prompt included.
  void set_messages(std::vector<ChatMessage> messages);
  const std::vector<ChatMessage>& messages() const { return messages_; }

 private:
  bool has_system() const { return !messages_.empty() && messages_.front().role == "system"; }

  const ChatFormat& format_;
  const text::Tokenizer& tokenizer_;
  std::vector<ChatMessage> messages_;
  void forget_seen();

  /// The last prompt and, where its ids say it exactly, the answer. Cleared whenever messages go
  /// that it was made of: otherwise a user could write the text that stood between them, and it
  /// would be taken for special tokens.
  ChatPrompt seen_;
  size_t n_prompt_bytes_ = 0, n_prompt_ids_ = 0;  ///< of seen_, without the answer
};

}  // namespace infer::tools
