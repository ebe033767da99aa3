#include "gguf/audit.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include <fmt/format.h>

#include "core/base/quant_types.h"
#include "gguf/cursor.h"
#include "gguf/describe.h"
#include "gguf/keys.h"

namespace infer::gguf {
namespace {

constexpr size_t kMaxProblems = 50;  // a table that is wrong throughout needs no million lines

/// How a number inside a block says that it is none.
enum class Field : uint8_t { kNone, kF16, kBF16, kF32, kF64, kE8M0, kE4M3, kIq1mScale };

struct Place {
  Field field = Field::kNone;
  int offset = 0;  ///< bytes from the start of the block
};

/// The floating-point fields of a block of each type (quant_blocks.h and ggml's published layouts).
std::array<Place, 4> float_places(DType type) {
  using enum Field;
  switch (type) {
    case DType::kF32:
      return {{{kF32, 0}}};
    case DType::kF64:
      return {{{kF64, 0}}};
    case DType::kBF16:
      return {{{kBF16, 0}}};
    case DType::kF16:
    case DType::kQ4_0:
    case DType::kQ5_0:
    case DType::kQ8_0:
    case DType::kQ1_0:
    case DType::kQ2_0:
    case DType::kIQ1_S:
    case DType::kIQ2_XXS:
    case DType::kIQ2_XS:
    case DType::kIQ2_S:
    case DType::kIQ3_XXS:
    case DType::kIQ3_S:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
      return {{{kF16, 0}}};
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ8_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {{{kF16, 0}, {kF16, 2}}};
    case DType::kQ2_K:
      return {{{kF16, 80}, {kF16, 82}}};
    case DType::kQ3_K:
      return {{{kF16, 108}}};
    case DType::kQ6_K:
      return {{{kF16, 208}}};
    case DType::kQ8_K:
      return {{{kF32, 0}}};
    case DType::kTQ1_0:
      return {{{kF16, 52}}};
    case DType::kTQ2_0:
      return {{{kF16, 64}}};
    case DType::kIQ1_M:
      return {{{kIq1mScale, 48}}};
    case DType::kMXFP4:
      return {{{kE8M0, 0}}};
    case DType::kNVFP4:
      return {{{kE4M3, 0}, {kE4M3, 1}, {kE4M3, 2}, {kE4M3, 3}}};
    default:
      return {};
  }
}

bool is_finite_at(const std::byte* block, Place place) {
  const std::byte* p = block + place.offset;
  switch (place.field) {
    case Field::kNone:
      return true;
    case Field::kF16:
      return (load_le<uint16_t>(p) & 0x7c00u) != 0x7c00u;
    case Field::kBF16:
      return (load_le<uint16_t>(p) & 0x7f80u) != 0x7f80u;
    case Field::kF32:
      return (load_le<uint32_t>(p) & 0x7f800000u) != 0x7f800000u;
    case Field::kF64:
      return (load_le<uint64_t>(p) & 0x7ff0000000000000u) != 0x7ff0000000000000u;
    case Field::kE8M0:
      return load_le<uint8_t>(p) != 0xffu;
    case Field::kE4M3:
      return (load_le<uint8_t>(p) & 0x7fu) != 0x7fu;
    case Field::kIq1mScale:  // the scale's four nibbles are the top nibbles of four 16-bit words,
                             // the highest last
      return (((load_le<uint16_t>(p + 6) >> 12) << 12 | (load_le<uint16_t>(p + 4) >> 12) << 8) &
              0x7c00u) != 0x7c00u;
  }
  return true;
}

std::optional<std::string> audit_tensor(const TensorInfo& t) {
  const QuantType& q = quant_type(t.view.type);
  int64_t n_bad = 0;
  int64_t first = 0;
  const int64_t n_blocks = t.view.n_bytes / q.block_bytes;
  for (const Place place : float_places(t.view.type)) {
    if (place.field == Field::kNone) break;
    for (int64_t i = 0; i < n_blocks; ++i) {
      if (is_finite_at(t.view.data + i * q.block_bytes, place)) continue;
      if (n_bad == 0 || i < first) first = i;
      ++n_bad;
    }
  }
  if (n_bad == 0) return std::nullopt;
  return fmt::format("tensor '{}' has {} {} that are NaN or infinite, the first at element {}",
                     printable(t.name), n_bad, q.block_len == 1 ? "values" : "block scales",
                     first * q.block_len);
}

/// Collects problems of the tokenizer's tables.
class TokenizerAudit {
 public:
  explicit TokenizerAudit(const Reader& file) : file_(file) {}

  std::vector<std::string> run() {
    tokens_ = file_.find(keys::kTokens);
    if (tokens_ == nullptr) {
      if (file_.find(keys::kTokenizerModel) != nullptr)
        report("key '{}' is missing", keys::kTokens);
      return std::move(problems_);
    }
    if (!is_array_of(*tokens_, ValueType::kString)) {
      report("key '{}' is {}, an array of str is expected", keys::kTokens, describe(*tokens_));
      return std::move(problems_);
    }
    check_table(keys::kTokenTypes, ValueType::kI32);
    check_table(keys::kScores, ValueType::kF32);
    check_token_types();
    check_scores();
    check_merges();
    check_ids();
    check_embedding();
    return std::move(problems_);
  }

 private:
  static bool is_array_of(const Value& v, ValueType elem) {
    return v.is_array() && v.elem_type() == elem;
  }

  template <class... Args>
  void report(fmt::format_string<Args...> format, Args&&... args) {
    if (problems_.size() < kMaxProblems)
      problems_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  /// The table under a key when it is what it must be.
  const Value* table(std::string_view key, ValueType elem) const {
    const Value* v = file_.find(key);
    return v != nullptr && is_array_of(*v, elem) && v->size() == tokens_->size() ? v : nullptr;
  }
  void check_table(std::string_view key, ValueType elem) {
    const Value* v = file_.find(key);
    if (v == nullptr || table(key, elem) != nullptr) return;
    report("key '{}' is {}, an array of {} {} is expected", key, describe(*v), tokens_->size(),
           name_of(elem));
  }

  void check_token_types() {
    const Value* types = table(keys::kTokenTypes, ValueType::kI32);
    if (types == nullptr) return;
    constexpr int64_t kLastType = 6;
    constexpr int64_t kByteType = 6;
    for (int64_t i = 0; i < types->size(); ++i) {
      const int64_t type = *types->int_at(i);
      if (type < 0 || type > kLastType)
        report("key '{}' has type {} for token {}", keys::kTokenTypes, type, i);
      if (type == kByteType && !is_byte_token(*tokens_->string_at(i))) {
        report("token {} '{}' is of type byte, but not of the form <0xHH>", i,
               printable(*tokens_->string_at(i)));
      }
    }
  }
  static bool is_byte_token(std::string_view s) {
    const auto hex = [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
    };
    return s.size() == 6 && s.starts_with("<0x") && hex(s[3]) && hex(s[4]) && s[5] == '>';
  }

  void check_scores() {
    const Value* scores = table(keys::kScores, ValueType::kF32);
    if (scores == nullptr) return;
    for (int64_t i = 0; i < scores->size(); ++i) {
      const double s = *scores->float_at(i);
      if (!(s - s == 0)) report("key '{}' has score {} for token {}", keys::kScores, s, i);
    }
  }

  void check_merges() {
    const Value* merges = file_.find(keys::kMerges);
    if (merges == nullptr) return;
    if (!is_array_of(*merges, ValueType::kString)) {
      report("key '{}' is {}, an array of str is expected", keys::kMerges, describe(*merges));
      return;
    }
    for (int64_t i = 0; i < merges->size(); ++i) {
      const std::string_view m = *merges->string_at(i);
      const size_t space = m.find(' ', 1);
      if (space == std::string_view::npos || space + 1 == m.size()) {
        report("key '{}' has entry {} '{}', two parts are expected", keys::kMerges, i,
               printable(m));
      }
    }
  }

  void check_ids() {
    for (const std::string_view key :
         {keys::kBosId, keys::kEosId, keys::kEotId, keys::kEomId, keys::kUnknownId,
          keys::kSeparatorId, keys::kPaddingId, keys::kMaskId}) {
      const Value* v = file_.find(key);
      if (v == nullptr) continue;
      const Result<int64_t> id = v->as_int();
      if (!id.ok() || *id < 0 || *id >= tokens_->size()) {
        report("key '{}' is {}, an id from 0 to {} is expected", key, describe(*v),
               tokens_->size() - 1);
      }
    }
  }

  void check_embedding() {
    const TensorInfo* t = file_.find_tensor("token_embd.weight");
    if (t != nullptr && t->view.ne[1] != tokens_->size()) {
      report("tensor '{}' has {} rows, key '{}' has {} tokens", t->name, t->view.ne[1],
             keys::kTokens, tokens_->size());
    }
  }

  const Reader& file_;
  const Value* tokens_ = nullptr;
  std::vector<std::string> problems_;
};

}  // namespace

std::vector<std::string> audit_tokenizer(const Reader& file) { return TokenizerAudit(file).run(); }

std::vector<std::string> audit_tensor_data(const Reader& file) {
  std::vector<std::string> problems;
  for (const TensorInfo& t : file.tensors()) {
    if (auto problem = audit_tensor(t); problem && problems.size() < kMaxProblems)
      problems.push_back(*problem);
    file.release_pages(t);
  }
  return problems;
}

}  // namespace infer::gguf
