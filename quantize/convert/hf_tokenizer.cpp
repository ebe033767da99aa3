#include "quantize/convert/hf_tokenizer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "gguf/keys.h"
#include "gguf/mmap.h"
#include "quantize/convert/json.h"

namespace infer::quantize {
namespace {

using model::HfConfig;
using model::HfValue;
namespace keys = gguf::keys;

/// tokenizer.ggml.token_type.
constexpr int32_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

struct Vocab {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;

  explicit Vocab(int64_t n) {
    for (int64_t i = 0; i < n; ++i) tokens.push_back(fmt::format("[PAD{}]", i));
    scores.assign(tokens.size(), -10000.0f);
    types.assign(tokens.size(), kUnused);
  }
  Result<void> place(const std::string& file, int64_t id, std::string_view text, float score,
                     int32_t type) {
    if (id < 0 || id >= static_cast<int64_t>(tokens.size())) {
      return make_error(ErrorCode::kCorrupt, "{}: token id {} of a vocabulary of {}", file, id,
                        tokens.size());
    }
    tokens[static_cast<size_t>(id)] = text;
    scores[static_cast<size_t>(id)] = score;
    types[static_cast<size_t>(id)] = type;
    return {};
  }
  Result<void> write_tokens(gguf::HeaderBuilder& out) const {
    const std::vector<std::string_view> views(tokens.begin(), tokens.end());
    return out.add_strings(keys::kTokens, views);
  }
};

/// A field of a protocol buffer message.
struct Field {
  uint64_t number = 0;
  uint64_t varint = 0;              ///< wire type 0
  std::span<const std::byte> data;  ///< wire types 1, 2 and 5
};

std::optional<uint64_t> take_varint(std::span<const std::byte>& rest) {
  uint64_t v = 0;
  for (unsigned shift = 0; shift < 64 && !rest.empty(); shift += 7) {
    const auto b = static_cast<uint64_t>(rest[0]);
    rest = rest.subspan(1);
    v |= (b & 0x7f) << shift;
    if (b < 0x80) return v;
  }
  return std::nullopt;
}

std::optional<Field> take_field(std::span<const std::byte>& rest) {
  const auto tag = take_varint(rest);
  if (!tag) return std::nullopt;
  Field field{.number = *tag >> 3, .varint = 0, .data = {}};
  std::optional<uint64_t> n_bytes;
  switch (*tag & 7) {
    case 0:
      if (const auto v = take_varint(rest)) {
        field.varint = *v;
        return field;
      }
      return std::nullopt;
    case 1:
      n_bytes = 8;
      break;
    case 2:
      n_bytes = take_varint(rest);
      break;
    case 5:
      n_bytes = 4;
      break;
    default:
      break;
  }
  if (!n_bytes || *n_bytes > rest.size()) return std::nullopt;
  field.data = rest.first(*n_bytes);
  rest = rest.subspan(*n_bytes);
  return field;
}

Result<void> write_sentencepiece(const std::string& path, Vocab vocab, gguf::HeaderBuilder& out) {
  INFER_ASSIGN(const gguf::InputFile file, gguf::InputFile::open(path));
  INFER_ASSIGN(const gguf::MappedFile map, gguf::MappedFile::map(file, path));
  std::span<const std::byte> rest = map.bytes();
  const Error bad = make_error(ErrorCode::kCorrupt, "{}: not a SentencePiece model", path);
  for (int64_t id = 0; !rest.empty();) {
    const auto field = take_field(rest);
    if (!field) return bad;
    if (field->number != 1) continue;
    std::string_view text;
    float score = 0.0f;
    auto type = static_cast<uint64_t>(kNormal);
    std::span<const std::byte> piece = field->data;
    while (!piece.empty()) {
      const auto part = take_field(piece);
      if (!part) return bad;
      if (part->number == 1)
        text = {reinterpret_cast<const char*>(part->data.data()), part->data.size()};
      if (part->number == 2 && part->data.size() == sizeof(score))
        std::memcpy(&score, part->data.data(), sizeof(score));
      if (part->number == 3) type = part->varint;
    }
    if (type < 1 || type > 6) return bad;
    INFER_TRY(vocab.place(path, id++, text, score, static_cast<int32_t>(type)));
  }
  INFER_TRY(out.add_string(keys::kTokenizerModel, "llama"));
  INFER_TRY(out.add_string(keys::kTokenizerPre, "default"));
  INFER_TRY(vocab.write_tokens(out));
  INFER_TRY(out.add_array<float>(keys::kScores, vocab.scores));
  INFER_TRY(out.add_array<int32_t>(keys::kTokenTypes, vocab.types));
  return out.add<uint32_t>(keys::kUnknownId, 0);
}

Result<std::vector<std::string>> merges_of(const std::string& path, const HfValue* list) {
  std::vector<std::string> merges;
  const auto* array = list != nullptr ? std::get_if<HfValue::Array>(&list->value) : nullptr;
  if (array == nullptr) return make_error(ErrorCode::kCorrupt, "{}: no merges", path);
  for (const HfValue& m : *array) {
    if (const auto* text = std::get_if<std::string>(&m.value)) {
      merges.push_back(*text);
      continue;
    }
    const auto* pair = std::get_if<HfValue::Array>(&m.value);
    const auto* a = pair != nullptr && pair->size() == 2
                        ? std::get_if<std::string>(&(*pair)[0].value)
                        : nullptr;
    const auto* b = a != nullptr ? std::get_if<std::string>(&(*pair)[1].value) : nullptr;
    if (b == nullptr) return make_error(ErrorCode::kCorrupt, "{}: a merge of no two", path);
    merges.push_back(*a + " " + *b);
  }
  return merges;
}

Result<void> write_bpe(const std::string& path, Vocab vocab, gguf::HeaderBuilder& out) {
  INFER_ASSIGN(const HfValue root, read_json(path));
  INFER_ASSIGN(const HfConfig bpe, HfConfig(root, path).object("model"));
  INFER_ASSIGN(const std::string type, bpe.text({"type"}, ""));
  INFER_ASSIGN(const HfConfig pre, HfConfig(root, path).object("pre_tokenizer"));
  INFER_ASSIGN(const std::string pre_type, pre.text({"type"}, ""));
  INFER_ASSIGN(const bool use_regex, pre.flag("use_regex", true));
  if (type != "BPE" || pre_type != "ByteLevel" || !use_regex) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: only byte-level BPE with GPT-2's expression is known here", path);
  }
  const HfValue* model = root.find("model");
  const HfValue* list = model->find("vocab");
  const auto* tokens = list != nullptr ? std::get_if<HfValue::Object>(&list->value) : nullptr;
  if (tokens == nullptr) return make_error(ErrorCode::kCorrupt, "{}: no vocab", path);
  for (const auto& [text, id] : *tokens) {
    const auto* i = std::get_if<int64_t>(&id.value);
    INFER_TRY(vocab.place(path, i != nullptr ? *i : -1, text, 0.0f, kNormal));
  }
  const HfValue* added = root.find("added_tokens");
  if (const auto* array = added != nullptr ? std::get_if<HfValue::Array>(&added->value) : nullptr) {
    for (const HfValue& t : *array) {
      const HfConfig c(t, path + ": added_tokens");
      INFER_ASSIGN(const int64_t id, c.integer({"id"}));
      INFER_ASSIGN(const std::string text, c.text({"content"}, ""));
      INFER_ASSIGN(const bool special, c.flag("special", false));
      INFER_TRY(vocab.place(path, id, text, 0.0f, special ? kControl : kUserDefined));
    }
  }
  INFER_ASSIGN(const std::vector<std::string> merges, merges_of(path, model->find("merges")));
  INFER_TRY(out.add_string(keys::kTokenizerModel, "gpt2"));
  INFER_TRY(out.add_string(keys::kTokenizerPre, "gpt-2"));
  INFER_TRY(vocab.write_tokens(out));
  INFER_TRY(out.add_array<int32_t>(keys::kTokenTypes, vocab.types));
  const std::vector<std::string_view> views(merges.begin(), merges.end());
  return out.add_strings(keys::kMerges, views);
}

}  // namespace

Result<void> write_tokenizer(const std::string& folder, const HfTokenizerInfo& info,
                             gguf::HeaderBuilder& out) {
  const std::filesystem::path root(folder);
  Vocab vocab(info.n_vocab);
  std::error_code ec;
  if (std::filesystem::exists(root / "tokenizer.model", ec)) {
    INFER_TRY(write_sentencepiece((root / "tokenizer.model").string(), std::move(vocab), out));
  } else {
    INFER_TRY(write_bpe((root / "tokenizer.json").string(), std::move(vocab), out));
  }
  INFER_ASSIGN(const HfValue config, read_json((root / "config.json").string()));
  const HfConfig c(config, (root / "config.json").string());
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kIds{
      {{"bos_token_id", keys::kBosId},
       {"eos_token_id", keys::kEosId},
       {"pad_token_id", keys::kPaddingId}}};
  for (const auto& [name, key] : kIds) {
    if (!c.has(name)) continue;
    INFER_ASSIGN(const int64_t id, c.integer({name}));
    INFER_TRY(out.add<uint32_t>(key, static_cast<uint32_t>(id)));
  }
  if (info.arch == "gemma2" || info.arch == "gemma3")
    INFER_TRY(out.add<bool>(keys::kAddSpacePrefix, false));
  const std::string path = (root / "tokenizer_config.json").string();
  if (!std::filesystem::exists(path, ec)) return {};
  INFER_ASSIGN(const HfValue flags, read_json(path));
  const HfConfig f(flags, path);
  for (const auto& [name, key] :
       {std::pair("add_bos_token", keys::kAddBos), std::pair("add_eos_token", keys::kAddEos)}) {
    if (!f.has(name)) continue;
    INFER_ASSIGN(const bool on, f.flag(name, false));
    INFER_TRY(out.add<bool>(key, on));
  }
  return {};
}

}  // namespace infer::quantize
