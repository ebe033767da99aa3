#include "tests/support/sentencepiece.h"

#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "core/base/error.h"
#include "tests/support/json_file.h"

namespace infer::test {
namespace {

/// tokenizer.ggml.token_type.
constexpr int32_t kNormal = 1;
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

}  // namespace infer::test
