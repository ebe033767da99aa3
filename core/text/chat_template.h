#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/text/text_range.h"
#include "core/text/tokenizer.h"
#include "gguf/reader.h"

/// Conversations to prompts, by the Jinja template of a model or one of the built-in forms.
///
///   INFER_ASSIGN(const auto form, ChatTemplate::from_model(model.file(), tokenizer));
///   INFER_ASSIGN(const ChatPrompt prompt, form.render(messages));
///   INFER_ASSIGN(request.prompt, encode_chat(tokenizer, prompt));
namespace infer::text {

struct ChatMessage {
  std::string role, content;
};

struct ChatPrompt {
  std::string text;
  /// What came from the people who talk (contents, tools), not from the template or from role
  /// names: no special token is to be read there.
  std::vector<TextRange> literal;
};

struct ChatOptions {
  bool add_generation_prompt = true;  ///< ends with the beginning of the assistant's turn
  std::string tools_json;             ///< a JSON array as in OpenAI's API; empty: no tools
  int64_t now_unix = 0;               ///< seconds since 1970 for strftime_now, local offset applied
};

/// A parsed template and the texts of the special tokens. Immutable; safe to share between threads.
class ChatTemplate {
 public:
  /// `source`: Jinja text, or the name of a built-in form (builtin_names()). The texts of BOS, EOS,
  /// UNK and PAD are taken from `tokenizer`, which need not outlive this.
  /// Errors: kInvalidArgument or kUnsupported: "chat template: line N: ..."; an unknown name.
  static Result<ChatTemplate> create(std::string_view source, const Tokenizer& tokenizer);
  /// The template that a model file carries (tokenizer.chat_template). Errors: kNotFound when
  /// there is none; those of create().
  static Result<ChatTemplate> from_model(const gguf::Reader& file, const Tokenizer& tokenizer);

  /// Errors: kInvalidArgument for what the template refuses (order of roles, ...) or tools that are
  /// no JSON array; kOutOfMemory when the template does more than its limits allow.
  Result<ChatPrompt> render(std::span<const ChatMessage> messages,
                            const ChatOptions& options = {}) const;
  /// The Jinja text, of a built-in form too.
  std::string_view source() const;

  /// "chatml", "command-r", "deepseek", ..., sorted.
  static std::span<const std::string_view> builtin_names();

 private:
  struct Impl;
  explicit ChatTemplate(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

/// The ids of a prompt: special tokens are read in what the template wrote, never in
/// prompt.literal. BOS is put in front where the vocabulary asks for it, unless the template wrote
/// it; EOS is not added, for the answer is to follow. Errors: those of Tokenizer::encode.
Result<std::vector<TokenId>> encode_chat(const Tokenizer& tokenizer, const ChatPrompt& prompt);

}  // namespace infer::text
