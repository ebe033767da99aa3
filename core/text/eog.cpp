#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "core/text/vocab.h"

namespace infer::text {
namespace {

// Spellings that end a turn or a generation, in the order in which EOT is looked for. Source: the
// list that llama.cpp keeps (src/llama-vocab.cpp), since GGUF itself names only EOS, EOT and EOM.
constexpr std::array<std::string_view, 11> kEotSpellings = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<end_of_utterance>"};
constexpr std::string_view kEomSpelling = "<|eom_id|>";
constexpr std::array<std::string_view, 8> kMoreEog = {"<|return|>",       "<|call|>", "<|flush|>",
                                                      "<|calls|>",        "[EOS]",    "<turn|>",
                                                      "<|tool_response>", "[e~["};
// Ordinary mark-up in some vocabularies (Gemma has <s> and </s> as HTML): these count only when the
// file says control.
constexpr std::array<std::string_view, 2> kEogIfControl = {"</s>", "<eos>"};
constexpr std::array<std::string_view, 5> kFimPad = {"<|fim_pad|>", "<fim-pad>", "<fim_pad>",
                                                     "<PAD>", "[PAD]"};
constexpr std::array<std::string_view, 5> kFimRepo = {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
                                                      "<REPO>", "<reponame>"};
constexpr std::array<std::string_view, 1> kFimSep = {"<|file_sep|>"};
// Parts of a channel header, which a reader of the text needs to see.
constexpr std::array<std::string_view, 4> kAlwaysShown = {"<|channel|>", "<|message|>", "<|start|>",
                                                          "<|constrain|>"};

class EogCollector {
 public:
  EogCollector(const gguf::Reader& file, Vocab& vocab) : file_(file), vocab_(vocab) {
    vocab_.eog_flag.assign(vocab_.text.size(), 0);
  }

  Result<void> run() {
    SpecialIds& sp = vocab_.special;
    INFER_ASSIGN(sp.eot, by_key_or_spelling("tokenizer.ggml.eot_token_id", kEotSpellings));
    INFER_ASSIGN(sp.eom, by_key_or_spelling("tokenizer.ggml.eom_token_id", {&kEomSpelling, 1}));
    INFER_ASSIGN(const TokenId fim_pad,
                 by_key_or_spelling("tokenizer.ggml.fim_pad_token_id", kFimPad));
    INFER_ASSIGN(const TokenId fim_repo,
                 by_key_or_spelling("tokenizer.ggml.fim_rep_token_id", kFimRepo));
    INFER_ASSIGN(const TokenId fim_sep,
                 by_key_or_spelling("tokenizer.ggml.fim_sep_token_id", kFimSep));
    for (const TokenId id : {sp.eos, sp.eot, sp.eom, fim_pad, fim_repo, fim_sep}) add(id);
    for (const std::string_view s : kEotSpellings) add_control(vocab_.by_text.find(s));
    for (const std::string_view s : kMoreEog) add_control(vocab_.by_text.find(s));
    add_control(vocab_.by_text.find(kEomSpelling));
    for (const std::string_view s : kEogIfControl) {
      const TokenId id = vocab_.by_text.find(s);
      if (id >= 0 && vocab_.kind[id] == TokenKind::kControl) add(id);
    }
    for (const std::string_view s : kAlwaysShown) {
      const TokenId id = vocab_.by_text.find(s);
      if (id >= 0) vocab_.kind[id] = TokenKind::kUserDefined;
    }
    drop_channel_end();
    for (TokenId id = 0; id < vocab_.size(); ++id) {
      if (vocab_.eog_flag[id]) vocab_.eog.push_back(id);
    }
    return {};
  }

 private:
  Result<TokenId> by_key_or_spelling(std::string_view key,
                                     std::span<const std::string_view> spellings) {
    INFER_ASSIGN(TokenId id, read_special_id(file_, key, -1, vocab_.size()));
    for (size_t i = 0; id < 0 && i < spellings.size(); ++i) {
      id = vocab_.by_text.find(spellings[i]);
      if (id >= 0) vocab_.kind[id] = TokenKind::kControl;
    }
    return id;
  }
  void add(TokenId id) {
    if (id >= 0) vocab_.eog_flag[id] = 1;
  }
  void add_control(TokenId id) {
    if (id < 0) return;
    vocab_.eog_flag[id] = 1;
    vocab_.kind[id] = TokenKind::kControl;
  }
  bool is_eog(std::string_view spelling) const {
    const TokenId id = vocab_.by_text.find(spelling);
    return id >= 0 && vocab_.eog_flag[id];
  }
  /// In channel formats <|end|> closes a message, not the answer: there it is told apart by its
  /// companions.
  void drop_channel_end() {
    const bool call = is_eog("<|call|>") || is_eog("<|calls|>");
    if (!call || !(is_eog("<|return|>") || is_eog("<|flush|>")) || !is_eog("<|end|>")) return;
    const TokenId end = vocab_.by_text.find("<|end|>");
    vocab_.eog_flag[end] = 0;
    vocab_.kind[end] = TokenKind::kUserDefined;
  }

  const gguf::Reader& file_;
  Vocab& vocab_;
};

}  // namespace

Result<void> collect_eog(const gguf::Reader& file, Vocab& vocab) {
  return EogCollector(file, vocab).run();
}

}  // namespace infer::text
