#include "gguf/overrides.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/base/error.h"
#include "gguf/cursor.h"
#include "gguf/describe.h"
#include "gguf/keys.h"
#include "gguf/value_parser.h"

namespace infer::gguf {
namespace {

template <class... Args>
Error invalid(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

template <class T>
bool parse_number(std::string_view text, T* out) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *out);
  return error == std::errc() && stop == end;
}

/// What a value is, with all integers alike and all floats alike.
enum class Kind : uint8_t { kInt, kFloat, kBool, kString, kArray };
constexpr std::string_view kKindNames[] = {"int", "float", "bool", "str", "array"};
std::string_view name_of(Kind kind) { return kKindNames[static_cast<size_t>(kind)]; }

Kind kind_of(ValueType type) {
  switch (type) {
    case ValueType::kF32:
    case ValueType::kF64:
      return Kind::kFloat;
    case ValueType::kBool:
      return Kind::kBool;
    case ValueType::kString:
      return Kind::kString;
    case ValueType::kArray:
      return Kind::kArray;
    default:
      return Kind::kInt;
  }
}

Kind kind_of(const KeyOverride& o) { return static_cast<Kind>(o.value.index()); }

/// The bytes a file would hold after the type.
std::vector<std::byte> encode(const KeyOverride& o) {
  std::vector<std::byte> out;
  const auto put = [&](const void* from, size_t n) {
    const size_t at = out.size();
    out.resize(at + n);
    if (n > 0) std::memcpy(out.data() + at, from, n);
  };
  if (const auto* text = std::get_if<std::string>(&o.value)) {
    const auto n = static_cast<uint64_t>(text->size());
    put(&n, sizeof(n));
    put(text->data(), text->size());
  } else if (const auto* flag = std::get_if<bool>(&o.value)) {
    const uint8_t byte = *flag ? 1 : 0;
    put(&byte, 1);
  } else if (const auto* integer = std::get_if<int64_t>(&o.value)) {
    put(integer, sizeof(*integer));
  } else {
    put(&std::get<double>(o.value), sizeof(double));
  }
  return out;
}

constexpr ValueType kTypes[] = {ValueType::kI64, ValueType::kF64, ValueType::kBool,
                                ValueType::kString};

const Value* find(const ParsedHeader& header, std::string_view key) {
  const auto it = std::ranges::find(header.kvs, key, &KeyValue::key);
  return it == header.kvs.end() ? nullptr : &it->value;
}

Result<std::string> full_key(const KeyOverride& o, std::string_view path,
                             const ParsedHeader& header) {
  if (!o.key.starts_with('.')) return o.key;
  const Value* arch = find(header, keys::kArchitecture);
  const auto name = arch != nullptr
                        ? arch->as_string()
                        : Result<std::string_view>(make_error(ErrorCode::kNotFound, ""));
  if (!name.ok()) return invalid("{}: {} has no architecture", o.flag, path);
  return std::string(*name) + o.key;
}

Result<void> apply(const KeyOverride& o, std::string_view path, ParsedHeader* header,
                   OverrideStorage* storage) {
  INFER_ASSIGN(const std::string key, full_key(o, path, *header));
  if (key == keys::kAlignment || key.starts_with("split."))
    return invalid("{} {}: is used before it can be set", o.flag, printable(key));
  auto it = std::ranges::find(header->kvs, std::string_view(key), &KeyValue::key);
  if (it != header->kvs.end()) {
    if (o.only_if_missing) return {};
    const Kind known = kind_of(it->value.type());
    if (known != kind_of(o)) {
      return invalid("{} {}: is {}, but in {} it is {} ({})", o.flag, printable(key),
                     name_of(kind_of(o)), path, name_of(known), describe(it->value));
    }
  } else {
    if (header->kvs.size() >= kMaxKeys) return invalid("{}: {} has too many keys", o.flag, path);
    const std::string_view kept = storage->keys.emplace_back(key);
    it = header->kvs.insert(header->kvs.end(), {kept, Value()});
  }
  const std::vector<std::byte>& bytes = storage->values.emplace_back(encode(o));
  Cursor cursor(bytes);
  INFER_ASSIGN(it->value, ValueParser(path, key).parse(cursor, kTypes[o.value.index()]));
  return {};
}

}  // namespace

Result<KeyOverride> parse_override(std::string_view text, std::string_view flag) {
  constexpr std::string_view kForm = "KEY=TYPE:VALUE with TYPE int, float, bool or str is expected";
  const size_t equals = text.find('=');
  const size_t colon = equals == std::string_view::npos ? equals : text.find(':', equals);
  if (colon == std::string_view::npos || equals == 0)
    return invalid("{} '{}': {}", flag, printable(text), kForm);
  KeyOverride out;
  out.key = std::string(text.substr(0, equals));
  out.flag = std::string(flag);
  const std::string_view type = text.substr(equals + 1, colon - equals - 1);
  const std::string_view value = text.substr(colon + 1);
  const auto bad = [&](std::string_view what) {
    return invalid("{} '{}': '{}' is no {}", flag, printable(text), printable(value), what);
  };
  if (out.key.size() > kMaxKeyBytes || out.key.starts_with('.'))
    return invalid("{} '{}': no key", flag, printable(text));
  if (type == "int") {
    int64_t v = 0;
    if (!parse_number(value, &v)) return bad("integer of 64 bits");
    out.value = v;
  } else if (type == "float") {
    double v = 0.0;
    if (!parse_number(value, &v) || !std::isfinite(v)) return bad("finite number");
    out.value = v;
  } else if (type == "bool") {
    if (value != "true" && value != "false") return bad("bool (true, false)");
    out.value = value == "true";
  } else if (type == "str") {
    out.value = std::string(value);
  } else {
    return invalid("{} '{}': {}", flag, printable(text), kForm);
  }
  return out;
}

Result<void> apply_overrides(std::span<const KeyOverride> overrides, std::string_view path,
                             ParsedHeader* header, OverrideStorage* storage) {
  if (overrides.empty()) return {};
  // The architecture first: keys that begin with a dot stand behind it.
  for (const bool arch : {true, false}) {
    for (const KeyOverride& o : overrides) {
      if ((o.key == keys::kArchitecture) == arch) INFER_TRY(apply(o, path, header, storage));
    }
  }
  header->kv_order.resize(header->kvs.size());
  std::iota(header->kv_order.begin(), header->kv_order.end(), 0u);
  std::ranges::sort(header->kv_order, {}, [&](uint32_t i) { return header->kvs[i].key; });
  return {};
}

}  // namespace infer::gguf
