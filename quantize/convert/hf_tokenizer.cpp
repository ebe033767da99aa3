#include "quantize/convert/hf_tokenizer.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/unicode.h"
#include "core/text/vocab.h"
#include "gguf/describe.h"
#include "gguf/keys.h"
#include "quantize/convert/hf_tokenizer_files.h"
#include "quantize/convert/hf_tokenizer_json.h"
#include "quantize/convert/hf_tokenizer_pre.h"
#include "quantize/convert/hf_tokenizer_special.h"
#include "quantize/convert/sentencepiece.h"
#include "quantize/convert/token_table.h"

namespace infer::quantize {
namespace {

using Json = nlohmann::json;
using text::TokenKind;
namespace keys = gguf::keys;

/// One conversion.
class Writer {
 public:
  Writer(const HfTokenizerFiles& files, const HfTokenizerInfo& info, gguf::HeaderBuilder& out,
         std::vector<std::string>& notes)
      : files_(files), info_(info), out_(out), notes_(notes) {}

  Result<void> run() {
    INFER_ASSIGN(configs_, read_configs(files_));
    if (files_.tokenizer_json) {
      INFER_ASSIGN(json_, parse_tokenizer_json(*files_.tokenizer_json, json_name()));
    }
    const bool bytes = is_byte_level();
    if (!files_.tokenizer_json && !files_.tokenizer_model) {
      return make_error(ErrorCode::kNotFound, "{}: neither tokenizer.model nor tokenizer.json",
                        files_.folder);
    }
    if (bytes) {
      INFER_TRY(byte_bpe());
    } else if (files_.tokenizer_model) {
      INFER_TRY(sentencepiece());
    } else {
      INFER_TRY(fallback_bpe());
    }
    return write_chat_templates(files_, configs_, out_, notes_);
  }

 private:
  std::string json_name() const { return files_.folder + "/tokenizer.json"; }
  std::string model_name() const { return files_.folder + "/tokenizer.model"; }
  const Json& model() const { return member(json_.root, "model"); }

  /// ByteLevel may stand in the pre_tokenizer or only in the decoder.
  bool is_byte_level() const {
    return has_step(member(json_.root, "pre_tokenizer"), "ByteLevel") ||
           string_at(member(json_.root, "decoder"), "type") == "ByteLevel";
  }

  /// Refuses models of tokenizer.json that are no BPE, or one with parts that GGUF has no word for.
  Result<void> check_bpe() const {
    const std::string type = string_at(model(), "type", json_.merges.empty() ? "?" : "BPE");
    if (type != "BPE") {
      return make_error(ErrorCode::kUnsupported,
                        "{}: model.type = '{}' is not supported (BPE is, and tokenizer.model of "
                        "SentencePiece's BPE)",
                        json_name(), gguf::printable(type));
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!string_at(model(), key).empty())
        return make_error(ErrorCode::kUnsupported, "{}: model.{} = '{}' is not supported",
                          json_name(), key, gguf::printable(string_at(model(), key)));
    }
    if (json_.vocab.empty())
      return make_error(ErrorCode::kCorrupt, "{}: model.vocab has no tokens", json_name());
    return {};
  }

  Result<void> add_tokens(TokenTable& tokens) {
    INFER_ASSIGN(const std::vector<AddedToken> added, collect_added(files_, configs_, json_.root));
    int64_t n_outside = 0, n_odd = 0;
    for (const AddedToken& token : added) {
      if (token.matches_oddly && n_odd++ == 0)
        notes_.push_back(
            fmt::format("added token '{}' (and perhaps others) is to take in spaces before it or "
                        "to stand alone (lstrip, single_word): GGUF cannot say so",
                        gguf::printable(token.text)));
      late_tokens_ = late_tokens_ || (token.normalized && !token.special);
      INFER_ASSIGN(const bool inside, tokens.add(token));
      if (inside && token.strips_right) strips_.insert(static_cast<int32_t>(token.id));
      if (inside && !token.strips_right) strips_.erase(static_cast<int32_t>(token.id));
      if (!inside && n_outside++ == 0)
        notes_.push_back(
            fmt::format("added token '{}' has id {}, the embedding has {} rows: left "
                        "out, and all behind it",
                        gguf::printable(token.text), token.id, tokens.size()));
    }
    INFER_TRY(write_strips());
    return tokens.finish();
  }

  /// Without the key readers go by the model's name, which here may be that of a folder.
  Result<void> write_strips() {
    if (strips_.empty() && !text::strips_by_name(info_.name)) return {};
    if (!strips_.empty()) {
      notes_.push_back(fmt::format(
          "{} added tokens take in the white space behind them (rstrip): {} says so, which only "
          "infer reads",
          strips_.size(), keys::kInferStripsRight));
    }
    const std::vector<int32_t> ids(strips_.begin(), strips_.end());
    return out_.add_array<int32_t>(keys::kInferStripsRight, ids);
  }

  Result<void> byte_bpe() {
    INFER_TRY(check_bpe());
    INFER_ASSIGN(TokenTable tokens, TokenTable::make(json_name(), info_.n_vocab));
    for (const auto& [text, id] : json_.vocab)
      INFER_TRY(tokens.place(id, text, TokenKind::kNormal, 0.0f));
    INFER_TRY(add_tokens(tokens));
    INFER_ASSIGN(const BytePlan plan, read_byte_plan(json_.root, json_name()));
    INFER_TRY(out_.add_string(keys::kTokenizerModel, "gpt2"));
    INFER_TRY(write_byte_plan(plan, bool_at(model(), "ignore_merges", false), out_, notes_));
    const bool rewrites = std::any_of(plan.forms.begin(), plan.forms.end(),
                                      [](const std::string& f) { return f.starts_with("nfk"); });
    if (rewrites && late_tokens_)
      notes_.push_back("added tokens are looked for before the text is normalised, not behind");
    INFER_TRY(tokens.write(out_, /*with_scores=*/false));
    INFER_TRY(write_merges(tokens));
    SpecialDefaults defaults;
    if (const std::string unk = string_at(model(), "unk_token"); !unk.empty())
      defaults.ids["unk"] = tokens.find(unk);
    return write_special(configs_, json_.root, defaults, tokens, out_, notes_);
  }

  Result<void> write_merges(const TokenTable& tokens) {
    std::vector<std::string> lines;
    lines.reserve(json_.merges.size());
    for (const auto& [left, right] : json_.merges) {
      const std::string pair = fmt::format("{} {}", left, right);
      if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos) {
        return make_error(ErrorCode::kUnsupported,
                          "{}: model.merges[{}] = '{}': a token with a space cannot be written",
                          json_name(), lines.size(), gguf::printable(pair));
      }
      if (tokens.find(left) < 0 || tokens.find(right) < 0 || tokens.find(left + right) < 0) {
        return make_error(ErrorCode::kCorrupt,
                          "{}: model.merges[{}] = '{}' names a token that the vocabulary lacks",
                          json_name(), lines.size(), gguf::printable(pair));
      }
      lines.push_back(pair);
    }
    const std::vector<std::string_view> views(lines.begin(), lines.end());
    return out_.add_strings(keys::kMerges, views);
  }

  Result<void> sentencepiece() {
    INFER_ASSIGN(const SentencePieceModel sp,
                 parse_sentencepiece(*files_.tokenizer_model, model_name()));
    INFER_TRY(check_sentencepiece(sp));
    INFER_ASSIGN(TokenTable tokens, TokenTable::make(model_name(), info_.n_vocab));
    for (size_t i = 0; i < sp.pieces.size(); ++i) {
      const auto id = static_cast<int64_t>(i);
      if (id >= info_.n_vocab) {
        notes_.push_back(
            fmt::format("pieces {} to {} have no row in the embedding and are left out", id,
                        sp.pieces.size() - 1));
        break;
      }
      const SentencePieceModel::Piece& piece = sp.pieces[i];
      auto kind = static_cast<TokenKind>(piece.type);
      if (kind == TokenKind::kByte && text::byte_of_spelling(piece.text) < 0) {
        return make_error(ErrorCode::kCorrupt, "{}: piece {} = '{}' is marked as a byte",
                          model_name(), i, gguf::printable(piece.text));
      }
      INFER_TRY(tokens.place(id, piece.text, kind, piece.score));
    }
    INFER_TRY(add_tokens(tokens));
    const bool prefix = bool_at(configs_.tokenizer, "add_prefix_space", sp.add_dummy_prefix);
    INFER_TRY(write_spm_tables(tokens, prefix));
    INFER_TRY(out_.add<bool>(keys::kRemoveExtraWhitespaces, sp.remove_extra_whitespaces));
    const SpecialDefaults defaults{
        .ids = {{"unk", sp.unk}, {"bos", sp.bos}, {"eos", sp.eos}, {"pad", sp.pad}},
        .add_bos = sp.bos >= 0};
    return write_special(configs_, json_.root, defaults, tokens, out_, notes_);
  }

  Result<void> check_sentencepiece(const SentencePieceModel& sp) {
    using Kind = SentencePieceModel::Kind;
    if (sp.kind != Kind::kBpe) {
      const std::string_view kind = sp.kind == Kind::kUnigram ? "Unigram"
                                    : sp.kind == Kind::kWord  ? "Word"
                                                              : "Char";
      return make_error(ErrorCode::kUnsupported, "{}: model_type {} is not supported (BPE is)",
                        model_name(), kind);
    }
    if (sp.space_after || !sp.escape_whitespaces) {
      return make_error(
          ErrorCode::kUnsupported, "{}: {} is not supported", model_name(),
          sp.space_after ? "treat_whitespace_as_suffix" : "escape_whitespaces = false");
    }
    if (sp.has_charsmap) {
      notes_.push_back(
          fmt::format("tokenizer.model normalises texts ('{}'); GGUF readers of this "
                      "vocabulary type, infer among them, do not",
                      gguf::printable(sp.normalizer)));
    }
    return {};
  }

  Result<void> write_spm_tables(const TokenTable& tokens, bool prefix) {
    INFER_TRY(out_.add_string(keys::kTokenizerModel, "llama"));
    INFER_TRY(out_.add_string(keys::kTokenizerPre, "default"));
    INFER_TRY(tokens.write(out_, /*with_scores=*/true));
    return out_.add<bool>(keys::kAddSpacePrefix, prefix);
  }

  /// tokenizer.json of a SentencePiece model whose own file is not here: its scores order pieces as
  /// the merges do.
  Result<void> fallback_bpe() {
    INFER_TRY(check_bpe());
    INFER_ASSIGN(const SpacePlan plan, read_space_plan(json_.root, json_name()));
    INFER_ASSIGN(TokenTable tokens, TokenTable::make(json_name(), info_.n_vocab));
    const bool bytes = bool_at(model(), "byte_fallback", false);
    const std::string unk = string_at(model(), "unk_token");
    const float last = -static_cast<float>(json_.merges.size() + 1);
    for (const auto& [text, id] : json_.vocab) {
      const TokenKind kind = bytes && text::byte_of_spelling(text) >= 0 ? TokenKind::kByte
                             : !unk.empty() && text == unk              ? TokenKind::kUnknown
                                                                        : TokenKind::kNormal;
      INFER_TRY(tokens.place(id, text, kind, last));
    }
    INFER_TRY(add_tokens(tokens));
    INFER_TRY(score_by_merges(tokens, plan));
    INFER_TRY(write_spm_tables(tokens, plan.adds_prefix));
    if (!plan.prefix_rule.empty()) {
      INFER_TRY(out_.add_string(keys::kInferSpacePrefix, plan.prefix_rule));
      notes_.push_back(fmt::format(
          "{} says that texts which begin with a space get no other: only infer reads it",
          keys::kInferSpacePrefix));
    }
    SpecialDefaults defaults;
    if (!unk.empty()) defaults.ids["unk"] = tokens.find(unk);
    return write_special(configs_, json_.root, defaults, tokens, out_, notes_);
  }

  /// Scores give the merges back only if every way to make a token is a merge, one token's next to
  /// each other: as in the files that are made of a SentencePiece model.
  Result<void> score_by_merges(TokenTable& tokens, const SpacePlan& plan) {
    std::vector<uint64_t> pairs;  // left << 32 | right
    std::vector<int64_t> last(static_cast<size_t>(tokens.size()), -1);
    int64_t n_apart = 0;
    for (int64_t i = 0; i < static_cast<int64_t>(json_.merges.size()); ++i) {
      const auto& [left, right] = json_.merges[static_cast<size_t>(i)];
      const int64_t l = tokens.find(left), r = tokens.find(right), id = tokens.find(left + right);
      if (l < 0 || r < 0 || id < 0) {
        return make_error(ErrorCode::kCorrupt,
                          "{}: model.merges[{}] = '{} {}' names a token that the vocabulary lacks",
                          json_name(), i, gguf::printable(left), gguf::printable(right));
      }
      int64_t& before = last[static_cast<size_t>(id)];
      if (before < 0 && tokens.kind(id) == TokenKind::kNormal)
        tokens.set_score(id, -static_cast<float>(i));
      if (before >= 0 && before != i - 1) ++n_apart;
      before = i;
      pairs.push_back(pair_key(l, r));
    }
    std::sort(pairs.begin(), pairs.end());
    int64_t n_other = 0, n_across = 0;
    for (const auto& [text, id] : json_.vocab) {
      if (tokens.kind(id) == TokenKind::kNormal)
        count_joins(tokens, pairs, text, n_other, plan.cuts_words ? &n_across : nullptr);
    }
    if (n_apart + n_other + n_across > 0) {
      notes_.push_back(fmt::format(
          "scores cannot say all of tokenizer.json's merges ({} pairs make a token without being "
          "one, {} out of order, {} across words): ids of some texts will differ",
          n_other, n_apart, n_across));
    }
    return {};
  }

  static uint64_t pair_key(int64_t left, int64_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
  }
  /// Ways to make `text` of two tokens that are no merge; places where a word begins inside of it.
  static void count_joins(const TokenTable& tokens, const std::vector<uint64_t>& pairs,
                          std::string_view text, int64_t& n_other, int64_t* n_across) {
    // Every place is hashed twice; what is longer is no word, and the count is for a note only.
    constexpr size_t kMaxBytes = 256;
    if (text.size() > kMaxBytes) return;
    for (size_t at = text.empty() ? 0 : text::utf8_step(text, 0).len; at < text.size();
         at += text::utf8_step(text, at).len) {
      const std::string_view right = text.substr(at);
      if (n_across != nullptr && right.starts_with(text::kSpaceMark)) ++*n_across;
      const int64_t l = tokens.find(text.substr(0, at)), r = tokens.find(right);
      if (l < 0 || r < 0) continue;
      const bool joinable =
          tokens.kind(l) == TokenKind::kNormal && tokens.kind(r) == TokenKind::kNormal;
      if (joinable && !std::binary_search(pairs.begin(), pairs.end(), pair_key(l, r))) ++n_other;
    }
  }

  const HfTokenizerFiles& files_;
  const HfTokenizerInfo& info_;
  gguf::HeaderBuilder& out_;
  std::vector<std::string>& notes_;
  HfConfigs configs_;
  TokenizerJson json_;
  std::set<int32_t> strips_;  ///< ids of the added tokens with rstrip, as the last file has it
  bool late_tokens_ = false;  ///< some added token is looked for behind the normalizer
};

}  // namespace

Result<void> write_tokenizer(const HfTokenizerFiles& files, const HfTokenizerInfo& info,
                             gguf::HeaderBuilder& out, std::vector<std::string>* notes) {
  std::vector<std::string> unread;
  return Writer(files, info, out, notes != nullptr ? *notes : unread).run();
}

Result<void> write_tokenizer(const std::string& folder, const HfTokenizerInfo& info,
                             gguf::HeaderBuilder& out, std::vector<std::string>* notes) {
  INFER_ASSIGN(const HfTokenizerFiles files, read_tokenizer_files(folder));
  return write_tokenizer(files, info, out, notes);
}

}  // namespace infer::quantize
