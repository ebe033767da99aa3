#include "quantize/convert/sentencepiece.h"

#include <bit>
#include <cmath>
#include <optional>
#include <utility>

#include "core/base/error.h"

namespace infer::quantize {
namespace {

constexpr size_t kMaxPieces = size_t{1} << 20;

/// Protocol buffers' wire format, read without trust. Source: protobuf.dev, "Encoding".
class ProtoReader {
 public:
  enum class Wire : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
  struct Field {
    uint64_t number = 0;
    Wire wire = Wire::kVarint;
    uint64_t varint = 0;
    std::string_view data;  ///< all wires but kVarint
  };

  explicit ProtoReader(std::string_view bytes) : bytes_(bytes) {}
  bool at_end() const { return at_ == bytes_.size(); }
  size_t offset() const { return at_; }

  /// The next field; nothing if the bytes are none.
  std::optional<Field> next() {
    const auto tag = varint();
    if (!tag || *tag >> 3 == 0) return std::nullopt;
    Field field;
    field.number = *tag >> 3;
    switch (*tag & 7) {
      case 0: {
        const auto value = varint();
        if (!value) return std::nullopt;
        field.varint = *value;
        return field;
      }
      case 1:
        field.wire = Wire::kFixed64;
        return with_bytes(field, 8);
      case 2: {
        field.wire = Wire::kBytes;
        const auto n = varint();
        return n ? with_bytes(field, *n) : std::nullopt;
      }
      case 5:
        field.wire = Wire::kFixed32;
        return with_bytes(field, 4);
      default:
        return std::nullopt;
    }
  }

 private:
  std::optional<Field> with_bytes(Field field, uint64_t n) {
    if (n > bytes_.size() - at_) return std::nullopt;
    field.data = bytes_.substr(at_, static_cast<size_t>(n));
    at_ += static_cast<size_t>(n);
    return field;
  }
  std::optional<uint64_t> varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70 && at_ < bytes_.size(); shift += 7) {
      const auto byte = static_cast<uint8_t>(bytes_[at_++]);
      if (shift == 63 && byte > 1) return std::nullopt;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  }

  std::string_view bytes_;
  size_t at_ = 0;
};

using Field = ProtoReader::Field;
using Wire = ProtoReader::Wire;

/// The fields that we read, each with the wire type that it must have.
class FieldReader {
 public:
  explicit FieldReader(const Field& field) : field_(field) {}
  bool flag(uint64_t number, bool& out) {
    if (!is(number, Wire::kVarint)) return false;
    out = field_.varint != 0;
    return true;
  }
  bool number(uint64_t number, int32_t& out) {
    if (!is(number, Wire::kVarint)) return false;
    out = static_cast<int32_t>(field_.varint);  // negative numbers are sign-extended to 64 bits
    return true;
  }
  bool text(uint64_t number, std::string& out) {
    if (!is(number, Wire::kBytes)) return false;
    out = field_.data;
    return true;
  }
  bool real(uint64_t number, float& out) {
    if (!is(number, Wire::kFixed32)) return false;
    uint32_t bits = 0;
    for (int i = 3; i >= 0; --i) bits = bits << 8 | static_cast<uint8_t>(field_.data[i]);
    out = std::bit_cast<float>(bits);
    return true;
  }
  /// A known field came with another type than it has.
  bool wrong_type() const { return wrong_; }

 private:
  bool is(uint64_t number, Wire wire) {
    if (field_.number != number) return false;
    wrong_ = field_.wire != wire;
    return !wrong_;
  }
  const Field& field_;
  bool wrong_ = false;
};

/// Whether all fields of a message were read.
template <class Take>
bool read_message(std::string_view bytes, Take take) {
  ProtoReader reader(bytes);
  while (!reader.at_end()) {
    const auto field = reader.next();
    if (!field) return false;
    FieldReader known(*field);
    take(known);
    if (known.wrong_type()) return false;
  }
  return true;
}

bool read_piece(std::string_view bytes, SentencePieceModel::Piece& out) {
  const bool whole = read_message(bytes, [&](FieldReader& f) {
    f.text(1, out.text) || f.real(2, out.score) || f.number(3, out.type);
  });
  return whole && out.type >= 1 && out.type <= 6 && !std::isnan(out.score);
}

bool read_trainer(std::string_view bytes, SentencePieceModel& out) {
  int32_t kind = static_cast<int32_t>(out.kind);
  const bool whole = read_message(bytes, [&](FieldReader& f) {
    f.number(3, kind) || f.flag(24, out.space_after) || f.flag(35, out.byte_fallback) ||
        f.number(40, out.unk) || f.number(41, out.bos) || f.number(42, out.eos) ||
        f.number(43, out.pad);
  });
  if (kind < 1 || kind > 4) return false;
  out.kind = static_cast<SentencePieceModel::Kind>(kind);
  return whole;
}

bool read_normalizer(std::string_view bytes, SentencePieceModel& out) {
  std::string charsmap;
  const bool whole = read_message(bytes, [&](FieldReader& f) {
    f.text(1, out.normalizer) || f.text(2, charsmap) || f.flag(3, out.add_dummy_prefix) ||
        f.flag(4, out.remove_extra_whitespaces) || f.flag(5, out.escape_whitespaces);
  });
  out.has_charsmap = !charsmap.empty();
  return whole;
}

}  // namespace

Result<SentencePieceModel> parse_sentencepiece(std::string_view bytes, std::string_view name) {
  SentencePieceModel model;
  ProtoReader reader(bytes);
  const auto corrupt = [&](std::string_view what) {
    return make_error(ErrorCode::kCorrupt,
                      "{}: not a SentencePiece model: {} before byte {} (after {} pieces)", name,
                      what, reader.offset(), model.pieces.size());
  };
  while (!reader.at_end()) {
    const auto field = reader.next();
    if (!field) return corrupt("no field");
    if (field->number < 1 || field->number > 3) continue;
    if (field->wire != Wire::kBytes) return corrupt("a field of the wrong type");
    if (field->number == 1) {
      if (model.pieces.size() == kMaxPieces) {
        return make_error(ErrorCode::kUnsupported, "{}: more than {} pieces", name, kMaxPieces);
      }
      model.pieces.emplace_back();
      if (!read_piece(field->data, model.pieces.back())) return corrupt("no piece");
    } else if (field->number == 2) {
      if (!read_trainer(field->data, model)) return corrupt("no trainer_spec");
    } else if (!read_normalizer(field->data, model)) {
      return corrupt("no normalizer_spec");
    }
  }
  if (model.pieces.empty()) return corrupt("no piece");
  return model;
}

}  // namespace infer::quantize
