#include "tests/support/hf_tokenizer.h"

#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "tests/support/hf_json.h"
#include "tests/support/safetensors.h"

namespace infer::test {
namespace {

using Json = nlohmann::json;

/// tokenizer.ggml.token_type.
constexpr int32_t kNormal = 1;
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;
constexpr int32_t kUnused = 5;

/// Protocol buffers' wire format, as much of it as a ModelProto needs. Every read fails softly at
/// the end.
class ProtoReader {
 public:
  explicit ProtoReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  struct Field {
    uint64_t number = 0;
    uint64_t varint = 0;              ///< wire type 0
    std::span<const std::byte> data;  ///< wire types 1, 2 and 5
  };

  bool at_end() const { return rest_.empty(); }
  std::optional<Field> next() {
    const auto tag = varint();
    if (!tag) return std::nullopt;
    Field field;
    field.number = *tag >> 3;
    switch (*tag & 7) {
      case 0: {
        const auto v = varint();
        if (!v) return std::nullopt;
        field.varint = *v;
        return field;
      }
      case 1:
        return with_bytes(field, 8);
      case 2: {
        const auto n = varint();
        return n ? with_bytes(field, *n) : std::nullopt;
      }
      case 5:
        return with_bytes(field, 4);
      default:
        return std::nullopt;
    }
  }

 private:
  std::optional<Field> with_bytes(Field field, uint64_t n) {
    if (n > rest_.size()) return std::nullopt;
    field.data = rest_.first(n);
    rest_ = rest_.subspan(n);
    return field;
  }
  std::optional<uint64_t> varint() {
    uint64_t v = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto b = static_cast<uint64_t>(rest_[0]);
      rest_ = rest_.subspan(1);
      v |= (b & 0x7f) << shift;
      if (b < 0x80) return v;
    }
    return std::nullopt;
  }
  std::span<const std::byte> rest_;
};

/// One SentencePiece message.
bool read_piece(std::span<const std::byte> bytes, SentencePieces& out) {
  std::string piece;
  float score = 0.0f;
  int32_t type = kNormal;
  ProtoReader reader(bytes);
  while (!reader.at_end()) {
    const auto field = reader.next();
    if (!field) return false;
    if (field->number == 1) {
      piece.assign(reinterpret_cast<const char*>(field->data.data()), field->data.size());
    } else if (field->number == 2) {
      if (field->data.size() != sizeof(score)) return false;
      std::memcpy(&score, field->data.data(), sizeof(score));
    } else if (field->number == 3) {
      if (field->varint < 1 || field->varint > 6) return false;
      type = static_cast<int32_t>(field->varint);
    }
  }
  out.pieces.push_back(std::move(piece));
  out.scores.push_back(score);
  out.types.push_back(type);
  return true;
}

std::string padding_name(size_t id) { return fmt::format("[PAD{}]", id); }

Result<void> convert_bpe(const std::filesystem::path& path, int64_t n_vocab, GgufImage& out) {
  INFER_ASSIGN(const Json root, read_json(path));
  const Json& model = root.value("model", Json::object());
  const Json pre = root.value("pre_tokenizer", Json::object());
  if (model.value("type", "") != "BPE" || !pre.is_object() ||
      pre.value("type", "") != "ByteLevel" || !pre.value("use_regex", false)) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: only byte-level BPE with GPT-2's expression is known here",
                      path.string());
  }
  std::vector<std::string> tokens(static_cast<size_t>(n_vocab));
  std::vector<int32_t> types(tokens.size(), kUnused);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = padding_name(i);
  const auto place = [&](const std::string& text, int64_t id, int32_t type) -> Result<void> {
    if (id < 0 || id >= n_vocab) {
      return make_error(ErrorCode::kCorrupt, "{}: token id {} of a vocabulary of {}", path.string(),
                        id, n_vocab);
    }
    tokens[static_cast<size_t>(id)] = text;
    types[static_cast<size_t>(id)] = type;
    return {};
  };
  const Json vocab = model.value("vocab", Json::object());
  for (const auto& [text, id] : vocab.items())
    INFER_TRY(place(text, id.is_number() ? id.get<int64_t>() : -1, kNormal));
  const Json added = root.value("added_tokens", Json::array());
  for (const Json& t : added) {
    INFER_TRY(place(t.value("content", ""), t.value("id", int64_t{-1}),
                    t.value("special", false) ? kControl : kUserDefined));
  }
  std::vector<std::string> merges;
  const Json pairs = model.value("merges", Json::array());
  for (const Json& m : pairs) {
    merges.push_back(m.is_string() ? m.get<std::string>()
                                   : m.at(0).get<std::string>() + " " + m.at(1).get<std::string>());
  }
  out.set("tokenizer.ggml.model", std::string("gpt2"));
  out.set("tokenizer.ggml.pre", std::string("gpt-2"));
  out.set("tokenizer.ggml.tokens", std::move(tokens));
  out.set("tokenizer.ggml.token_type", std::move(types));
  out.set("tokenizer.ggml.merges", std::move(merges));
  return {};
}

}  // namespace

Result<SentencePieces> read_sentencepiece(const std::filesystem::path& path) {
  INFER_ASSIGN(const std::vector<std::byte> bytes, read_file(path));
  SentencePieces out;
  ProtoReader reader(bytes);
  while (!reader.at_end()) {
    const auto field = reader.next();
    if (!field || (field->number == 1 && !read_piece(field->data, out))) {
      return make_error(ErrorCode::kCorrupt, "{}: not a SentencePiece model (piece {})",
                        path.string(), out.pieces.size());
    }
  }
  return out;
}

void write_sentencepiece(SentencePieces pieces, int64_t n_vocab, GgufImage& out) {
  for (size_t i = pieces.pieces.size(); i < static_cast<size_t>(n_vocab); ++i) {
    pieces.pieces.push_back(padding_name(i));
    pieces.scores.push_back(-10000.0f);
    pieces.types.push_back(kUnused);
  }
  out.set("tokenizer.ggml.model", std::string("llama"));
  out.set("tokenizer.ggml.pre", std::string("default"));
  out.set("tokenizer.ggml.tokens", std::move(pieces.pieces));
  out.set("tokenizer.ggml.scores", std::move(pieces.scores));
  out.set("tokenizer.ggml.token_type", std::move(pieces.types));
  out.set("tokenizer.ggml.unknown_token_id", uint32_t{0});
}

Result<void> convert_tokenizer(const std::filesystem::path& folder, int64_t n_vocab,
                               GgufImage& out) {
  if (std::filesystem::exists(folder / "tokenizer.model")) {
    INFER_ASSIGN(SentencePieces pieces, read_sentencepiece(folder / "tokenizer.model"));
    if (pieces.pieces.size() > static_cast<size_t>(n_vocab)) {
      return make_error(ErrorCode::kCorrupt, "{}: {} pieces for a vocabulary of {}",
                        folder.string(), pieces.pieces.size(), n_vocab);
    }
    write_sentencepiece(std::move(pieces), n_vocab, out);
  } else {
    INFER_TRY(convert_bpe(folder / "tokenizer.json", n_vocab, out));
  }
  if (!std::filesystem::exists(folder / "tokenizer_config.json")) return {};
  INFER_ASSIGN(const Json config, read_json(folder / "tokenizer_config.json"));
  for (const char* key : {"add_bos_token", "add_eos_token"}) {
    if (config.contains(key) && config[key].is_boolean())
      out.set(std::string("tokenizer.ggml.") + key, config[key].get<bool>());
  }
  return {};
}

}  // namespace infer::test
