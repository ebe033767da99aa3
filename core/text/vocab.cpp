#include "core/text/vocab.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/text/pre_rules.h"
#include "core/text/unicode.h"
#include "gguf/describe.h"
#include "gguf/keys.h"

namespace infer::text {
namespace {

using gguf::Reader;
using gguf::Value;
using gguf::ValueType;

constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kScores = "tokenizer.ggml.scores";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
constexpr int64_t kMaxTokens = int64_t{1}
                               << 20;  // keeps what a hostile file can make us allocate small

/// An array of one of the given element types, or nullptr when the key is missing.
Result<const Value*> find_array(const Reader& file, std::string_view key,
                                std::initializer_list<ValueType> elems) {
  const Value* v = file.find(key);
  if (v == nullptr) return v;
  if (v->type() != ValueType::kArray) {
    return make_error(ErrorCode::kCorrupt, "{}: {} is {}, not an array", file.path(), key,
                      name_of(v->type()));
  }
  if (std::find(elems.begin(), elems.end(), v->elem_type()) == elems.end()) {
    return make_error(ErrorCode::kCorrupt, "{}: {} is an array of {}, which it cannot be",
                      file.path(), key, name_of(v->elem_type()));
  }
  return v;
}

Result<void> check_length(const Reader& file, std::string_view key, const Value& v,
                          int32_t n_vocab) {
  if (v.size() == n_vocab) return {};
  return make_error(ErrorCode::kCorrupt, "{}: {} has {} elements, {} has {}", file.path(), key,
                    v.size(), kTokens, n_vocab);
}

Result<void> read_model(const Reader& file, Vocab& vocab) {
  INFER_ASSIGN(const std::string_view model, file.get_string("tokenizer.ggml.model"));
  if (model == "gpt2") {
    vocab.model = VocabModel::kBpe;
  } else if (model == "llama") {
    vocab.model = VocabModel::kSpm;
  } else if (model == "t5") {
    return make_error(ErrorCode::kUnsupported,
                      "{}: tokenizer.ggml.model = 't5': Unigram vocabularies are not supported "
                      "(gpt2 and llama are)",
                      file.path());
  } else {
    return make_error(ErrorCode::kUnsupported,
                      "{}: tokenizer.ggml.model = '{}' is not supported (gpt2 and llama are)",
                      file.path(), gguf::printable(model));
  }
  INFER_ASSIGN(const std::string_view pre, file.get_string("tokenizer.ggml.pre", "default"));
  vocab.model_name = model;
  vocab.pre_name = pre;
  vocab.file = file.path();
  return {};
}

Result<void> read_tokens(const Reader& file, Vocab& vocab) {
  INFER_ASSIGN(const Value* tokens, find_array(file, kTokens, {ValueType::kString}));
  if (tokens == nullptr)
    return make_error(ErrorCode::kNotFound, "{}: {} is missing", file.path(), kTokens);
  if (tokens->size() == 0)
    return make_error(ErrorCode::kCorrupt, "{}: {} is empty", file.path(), kTokens);
  if (tokens->size() > kMaxTokens) {
    return make_error(ErrorCode::kUnsupported, "{}: {} has {} elements, the limit is {}",
                      file.path(), kTokens, tokens->size(), kMaxTokens);
  }
  const auto n = static_cast<size_t>(tokens->size());
  size_t n_bytes = 0;
  for (size_t i = 0; i < n; ++i) {
    INFER_ASSIGN(const std::string_view s, tokens->string_at(static_cast<int64_t>(i)));
    n_bytes += s.size();
  }
  vocab.text_bytes.reserve(n_bytes);
  vocab.text.reserve(n);
  vocab.by_text.reset(vocab.text.data(), n);
  for (size_t i = 0; i < n; ++i) {
    INFER_ASSIGN(const std::string_view s, tokens->string_at(static_cast<int64_t>(i)));
    const char* at = vocab.text_bytes.data() + vocab.text_bytes.size();
    vocab.text_bytes.insert(vocab.text_bytes.end(), s.begin(), s.end());
    vocab.text.emplace_back(at, s.size());
    if (s.empty()) continue;  // a hole in the vocabulary: it has no text and no text gives it
    const int32_t other = vocab.by_text.insert(static_cast<int32_t>(i));
    if (other >= 0) {
      return make_error(ErrorCode::kCorrupt, "{}: {}[{}] = '{}' repeats token {}", file.path(),
                        kTokens, i, gguf::printable(s), other);
    }
  }
  return {};
}

Result<void> read_kinds(const Reader& file, Vocab& vocab) {
  const auto n = vocab.text.size();
  vocab.kind.assign(n, TokenKind::kNormal);
  vocab.strips_right.assign(n, 0);
  INFER_ASSIGN(const Value* types, find_array(file, kTypes, {ValueType::kI32}));
  if (types == nullptr) return {};
  INFER_TRY(check_length(file, kTypes, *types, vocab.size()));
  for (size_t i = 0; i < n; ++i) {
    INFER_ASSIGN(const int64_t t, types->int_at(static_cast<int64_t>(i)));
    if (t < 0 || t > static_cast<int64_t>(TokenKind::kByte)) {
      return make_error(ErrorCode::kCorrupt, "{}: {}[{}] = {} is no token type", file.path(),
                        kTypes, i, t);
    }
    vocab.kind[i] = static_cast<TokenKind>(t);
    if (vocab.kind[i] == TokenKind::kByte && byte_of_spelling(vocab.text[i]) < 0) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: {}[{}] = '{}' is marked as a byte token but is not <0xHH>",
                        file.path(), kTokens, i, gguf::printable(vocab.text[i]));
    }
  }
  return {};
}

Result<void> read_scores(const Reader& file, Vocab& vocab) {
  INFER_ASSIGN(const Value* scores, find_array(file, kScores, {ValueType::kF32, ValueType::kI32}));
  if (scores != nullptr) INFER_TRY(check_length(file, kScores, *scores, vocab.size()));
  if (vocab.model != VocabModel::kSpm) return {};
  if (scores == nullptr)
    return make_error(ErrorCode::kNotFound, "{}: {} is missing", file.path(), kScores);
  vocab.score.reserve(vocab.text.size());
  for (int64_t i = 0; i < scores->size(); ++i) {
    INFER_ASSIGN(const double s, scores->float_at(i));
    if (std::isnan(s))
      return make_error(ErrorCode::kCorrupt, "{}: {}[{}] is NaN", file.path(), kScores, i);
    vocab.score.push_back(static_cast<float>(s));
  }
  return {};
}

Result<void> read_prefix(const Reader& file, Vocab& vocab) {
  constexpr std::string_view key = gguf::keys::kInferSpacePrefix;
  INFER_ASSIGN(const std::string_view name, file.get_string(key, "all"));
  if (name == "all") {
    vocab.prefix = Vocab::Prefix::kAll;
  } else if (name == "unless_space") {
    vocab.prefix = Vocab::Prefix::kUnlessSpace;
  } else if (name == "unless_space_and_first") {
    vocab.prefix = Vocab::Prefix::kUnlessSpaceAndFirst;
  } else {
    return make_error(ErrorCode::kUnsupported, "{}: {} = '{}' is not known here", file.path(), key,
                      gguf::printable(name));
  }
  return {};
}

Result<void> read_special(const Reader& file, Vocab& vocab) {
  const bool spm = vocab.model == VocabModel::kSpm;
  SpecialIds& sp = vocab.special;
  const auto read = [&](std::string_view key, TokenId fallback, TokenId& out) -> Result<void> {
    INFER_ASSIGN(out, read_special_id(file, key, fallback, vocab.size()));
    return {};
  };
  INFER_TRY(read("tokenizer.ggml.bos_token_id", spm ? 1 : -1, sp.bos));
  INFER_TRY(read("tokenizer.ggml.eos_token_id", spm ? 2 : -1, sp.eos));
  INFER_TRY(read("tokenizer.ggml.unknown_token_id", spm ? 0 : -1, sp.unk));
  INFER_TRY(read("tokenizer.ggml.padding_token_id", -1, sp.pad));
  bool add_bos = spm;
  if (!spm) {
    INFER_ASSIGN(const PreSpec spec, read_pre_spec(file, vocab.pre_name));
    add_bos = spec.add_bos;
  }
  INFER_ASSIGN(sp.add_bos, file.get_bool("tokenizer.ggml.add_bos_token", add_bos));
  INFER_ASSIGN(sp.add_eos, file.get_bool("tokenizer.ggml.add_eos_token", false));
  INFER_ASSIGN(sp.add_space_prefix, file.get_bool("tokenizer.ggml.add_space_prefix", spm));
  if (!spm) sp.add_space_prefix = false;
  if (spm) {
    INFER_ASSIGN(vocab.squeeze_spaces,
                 file.get_bool("tokenizer.ggml.remove_extra_whitespaces", false));
  }
  INFER_TRY(read_prefix(file, vocab));
  if (sp.add_bos && sp.bos < 0) {
    return make_error(ErrorCode::kCorrupt,
                      "{}: tokenizer.ggml.bos_token_id is missing, but BOS is to be added",
                      file.path());
  }
  if (sp.add_eos && sp.eos < 0) {
    return make_error(ErrorCode::kCorrupt,
                      "{}: tokenizer.ggml.eos_token_id is missing, but EOS is to be added",
                      file.path());
  }
  return {};
}

/// Tokens that swallow the white space after them: those that a key of ours lists. GGUF has no
/// field for it, so in files of others the model's name decides.
Result<void> mark_strips(const Reader& file, Vocab& vocab) {
  constexpr std::string_view key = gguf::keys::kInferStripsRight;
  INFER_ASSIGN(const Value* listed, find_array(file, key, {ValueType::kI32}));
  for (int64_t i = 0; listed != nullptr && i < listed->size(); ++i) {
    INFER_ASSIGN(const int64_t id, listed->int_at(i));
    if (id < 0 || id >= vocab.size()) {
      return make_error(ErrorCode::kCorrupt, "{}: {}[{}] = {} is outside the vocabulary of {}",
                        file.path(), key, i, id, vocab.size());
    }
    vocab.strips_right[static_cast<size_t>(id)] = 1;
  }
  INFER_ASSIGN(const std::string_view name, file.get_string(gguf::keys::kName, ""));
  if (listed != nullptr || !strips_by_name(name)) return {};
  for (TokenId id = 0; id < vocab.size(); ++id) {
    const std::string_view s = vocab.text[id];
    const bool plain = s == "<unk>" || s == "<s>" || s == "<|endoftext|>";
    const bool added =
        vocab.is_hidden(id) || vocab.kind[id] == TokenKind::kUserDefined || s == "</s>";
    vocab.strips_right[id] = added && !plain;
  }
  return {};
}

void append_piece(std::string& out, const Vocab& vocab, TokenId id) {
  const std::string_view text = vocab.text[id];
  switch (vocab.kind[id]) {
    case TokenKind::kControl:
    case TokenKind::kUnknown:
    case TokenKind::kUserDefined:
      out += text;
      return;
    case TokenKind::kByte:
      out += static_cast<char>(byte_of_spelling(text));
      return;
    default:
      break;
  }
  if (vocab.model == VocabModel::kBpe) {
    append_from_stand_ins(out, text);
    return;
  }
  for (size_t at = 0; at < text.size();) {
    const size_t mark = std::min(text.find(kSpaceMark, at), text.size());
    out.append(text, at, mark - at);
    if (mark < text.size()) out += ' ';
    at = mark + kSpaceMark.size();
  }
}

void make_pieces(Vocab& vocab) {
  std::string all;
  std::vector<size_t> ends;
  all.reserve(vocab.text_bytes.size());
  ends.reserve(vocab.text.size());
  for (TokenId id = 0; id < vocab.size(); ++id) {
    append_piece(all, vocab, id);
    ends.push_back(all.size());
  }
  vocab.piece_bytes.assign(all.begin(), all.end());
  vocab.piece.reserve(ends.size());
  size_t begin = 0;
  for (const size_t end : ends) {
    vocab.piece.emplace_back(vocab.piece_bytes.data() + begin, end - begin);
    begin = end;
  }
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

bool strips_by_name(std::string_view general_name) {
  std::string name(general_name);
  std::transform(name.begin(), name.end(), name.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
}

int byte_of_spelling(std::string_view s) {
  if (s.size() != 6 || s.substr(0, 3) != "<0x" || s[5] != '>') return -1;
  const int hi = hex_digit(s[3]), lo = hex_digit(s[4]);
  return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

bool Vocab::adds_space(std::string_view part, bool first) const {
  if (!special.add_space_prefix) return false;
  if (prefix == Prefix::kAll) return true;
  if (prefix == Prefix::kUnlessSpaceAndFirst && !first) return false;
  return !part.starts_with(' ') && !part.starts_with(kSpaceMark);
}

Result<TokenId> read_special_id(const Reader& file, std::string_view key, TokenId fallback,
                                int32_t n_vocab) {
  if (file.find(key) == nullptr) return fallback < n_vocab ? fallback : -1;
  INFER_ASSIGN(const int64_t id, file.get_int(key));
  if (id < 0 || id >= n_vocab) {
    return make_error(ErrorCode::kCorrupt, "{}: {} = {} is outside the vocabulary of {}",
                      file.path(), key, id, n_vocab);
  }
  return static_cast<TokenId>(id);
}

Result<Vocab> load_vocab(const Reader& file) {
  Vocab vocab;
  INFER_TRY(read_model(file, vocab));
  INFER_TRY(read_tokens(file, vocab));
  INFER_TRY(read_kinds(file, vocab));
  INFER_TRY(read_scores(file, vocab));
  INFER_TRY(read_special(file, vocab));
  INFER_TRY(collect_eog(file, vocab));
  INFER_TRY(mark_strips(file, vocab));
  make_pieces(vocab);
  return vocab;
}

}  // namespace infer::text
