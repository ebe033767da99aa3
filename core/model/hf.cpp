#include "core/model/hf.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "gguf/describe.h"
#include "gguf/keys.h"

namespace infer::model {
namespace {

constexpr int64_t kMaxInteger = std::numeric_limits<int32_t>::max();

/// A value as a message shows it.
std::string shown(const HfValue& v) {
  struct Show {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool b) const { return b ? "true" : "false"; }
    std::string operator()(int64_t i) const { return std::to_string(i); }
    std::string operator()(double d) const { return fmt::format("{}", d); }
    std::string operator()(const std::string& s) const { return "'" + gguf::printable(s) + "'"; }
    std::string operator()(const HfValue::Array& a) const {
      return fmt::format("an array of {}", a.size());
    }
    std::string operator()(const HfValue::Object&) const { return "an object"; }
  };
  return std::visit(Show{}, v.value);
}

}  // namespace

const HfValue* HfValue::find(std::string_view name) const {
  const auto* object = std::get_if<Object>(&value);
  if (object == nullptr) return nullptr;
  const auto it = std::find_if(object->begin(), object->end(),
                               [&](const HfMember& member) { return member.name == name; });
  return it == object->end() ? nullptr : &it->value;
}

const HfValue* HfConfig::find(std::string_view name) const {
  const HfValue* v = object_->find(name);
  return v == nullptr || v->is_null() ? nullptr : v;
}

bool HfConfig::is_null(std::string_view name) const {
  const HfValue* v = object_->find(name);
  return v != nullptr && v->is_null();
}

std::pair<std::string_view, const HfValue*> HfConfig::first(Names names) const {
  for (const std::string_view name : names) {
    if (const HfValue* v = find(name); v != nullptr) return {name, v};
  }
  return {*names.begin(), nullptr};
}

Error HfConfig::missing(Names names) const {
  return make_error(ErrorCode::kCorrupt, "{}: key '{}' is missing", where_, *names.begin());
}

Error HfConfig::bad(std::string_view name, const HfValue& value, std::string_view what) const {
  return make_error(ErrorCode::kCorrupt, "{}: key '{}' = {}: {}", where_, name, shown(value), what);
}

Error HfConfig::unsupported(std::string_view name, std::string_view why) const {
  const HfValue* v = object_->find(name);
  return make_error(ErrorCode::kUnsupported, "{}: key '{}' = {}: {}", where_, name,
                    v == nullptr ? "missing" : shown(*v), why);
}

Result<int64_t> HfConfig::integer(Names names) const {
  const auto [name, v] = first(names);
  if (v == nullptr) return missing(names);
  const auto* i = std::get_if<int64_t>(&v->value);
  if (i == nullptr) return bad(name, *v, "must be an integer");
  if (*i < 0 || *i > kMaxInteger)
    return bad(name, *v, fmt::format("must be in [0, {}]", kMaxInteger));
  return *i;
}

Result<int64_t> HfConfig::integer(Names names, int64_t fallback) const {
  return first(names).second == nullptr ? Result<int64_t>(fallback) : integer(names);
}

Result<double> HfConfig::number(Names names) const {
  const auto [name, v] = first(names);
  if (v == nullptr) return missing(names);
  if (const auto* i = std::get_if<int64_t>(&v->value)) return static_cast<double>(*i);
  const auto* d = std::get_if<double>(&v->value);
  if (d == nullptr || !std::isfinite(*d)) return bad(name, *v, "must be a number");
  return *d;
}

Result<double> HfConfig::number(Names names, double fallback) const {
  return first(names).second == nullptr ? Result<double>(fallback) : number(names);
}

Result<bool> HfConfig::flag(std::string_view name, bool fallback) const {
  const HfValue* v = find(name);
  if (v == nullptr) return fallback;
  const auto* b = std::get_if<bool>(&v->value);
  if (b == nullptr) return bad(name, *v, "must be true or false");
  return *b;
}

Result<std::string> HfConfig::text(Names names, std::string_view fallback) const {
  const auto [name, v] = first(names);
  if (v == nullptr) return std::string(fallback);
  const auto* s = std::get_if<std::string>(&v->value);
  if (s == nullptr) return bad(name, *v, "must be a string");
  return *s;
}

Result<std::vector<double>> HfConfig::numbers(std::string_view name) const {
  const HfValue* v = find(name);
  if (v == nullptr) return std::vector<double>();
  const auto* array = std::get_if<HfValue::Array>(&v->value);
  if (array == nullptr) return bad(name, *v, "must be an array of numbers");
  std::vector<double> out;
  for (const HfValue& e : *array) {
    if (const auto* i = std::get_if<int64_t>(&e.value)) {
      out.push_back(static_cast<double>(*i));
    } else if (const auto* d = std::get_if<double>(&e.value)) {
      out.push_back(*d);
    } else {
      return bad(name, e, "must be an array of numbers");
    }
  }
  return out;
}

Result<std::vector<std::string>> HfConfig::texts(std::string_view name) const {
  const HfValue* v = find(name);
  if (v == nullptr) return std::vector<std::string>();
  const auto* array = std::get_if<HfValue::Array>(&v->value);
  if (array == nullptr) return bad(name, *v, "must be an array of strings");
  std::vector<std::string> out;
  for (const HfValue& e : *array) {
    const auto* s = std::get_if<std::string>(&e.value);
    if (s == nullptr) return bad(name, e, "must be an array of strings");
    out.push_back(*s);
  }
  return out;
}

Result<HfConfig> HfConfig::object(std::string_view name) const {
  static const HfValue kEmpty{HfValue::Object{}};
  const HfValue* v = find(name);
  if (v != nullptr && !std::holds_alternative<HfValue::Object>(v->value))
    return bad(name, *v, "must be an object");
  return HfConfig(v == nullptr ? kEmpty : *v, fmt::format("{}: {}", where_, name));
}

template <class T, class V>
HfKeys& HfKeys::add(std::string_view key, V value) {
  if (status_.ok()) status_ = header_->add<T>(gguf::keys::arch_key(arch_, key), value);
  return *this;
}

HfKeys& HfKeys::u32(std::string_view key, int64_t value) {
  return add<uint32_t>(key, static_cast<uint32_t>(value));
}
HfKeys& HfKeys::f32(std::string_view key, double value) {
  return add<float>(key, static_cast<float>(value));
}
HfKeys& HfKeys::flag(std::string_view key, bool value) { return add<bool>(key, value); }
HfKeys& HfKeys::text(std::string_view key, std::string_view value) {
  return add<std::string_view>(key, value);
}
HfKeys& HfKeys::tensor(std::string name, std::vector<float> values) {
  tensors_.push_back({std::move(name), std::move(values)});
  return *this;
}

}  // namespace infer::model
