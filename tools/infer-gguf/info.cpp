#include "tools/infer-gguf/info.h"

#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/base/quant_types.h"
#include "gguf/cursor.h"
#include "gguf/describe.h"
#include "gguf/keys.h"

namespace infer::tools {
namespace {

using gguf::KeyValue;
using gguf::Reader;
using gguf::TensorInfo;
using gguf::Value;
using gguf::ValueType;
using nlohmann::ordered_json;

struct TypeSum {
  int64_t n_tensors = 0, n_elem = 0, n_bytes = 0;
};

std::map<DType, TypeSum> sum_by_type(const Reader& file) {
  std::map<DType, TypeSum> sums;
  for (const TensorInfo& t : file.tensors()) {
    TypeSum& s = sums[t.view.type];
    ++s.n_tensors;
    s.n_elem += t.view.n_elem();  // cannot wrap: every element has a bit of the files at least
    s.n_bytes += t.view.n_bytes;
  }
  return sums;
}

std::string human_bytes(int64_t n) {
  constexpr std::array kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double v = static_cast<double>(n);
  size_t unit = 0;
  while (v >= 1024 && unit + 1 < kUnits.size()) {
    v /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} bytes", n) : fmt::format("{:.1f} {}", v, kUnits[unit]);
}

std::string string_key(const Reader& file, std::string_view key) {
  const Value* v = file.find(key);
  return v == nullptr                      ? "-"
         : v->type() == ValueType::kString ? gguf::printable(*v->as_string())
                                           : gguf::describe(*v);
}

std::string shape_text(const TensorInfo& t) {
  std::string out = "[";
  for (int d = 0; d < t.n_dims; ++d)
    out += fmt::format("{}{}", d == 0 ? "" : ", ", t.view.ne[static_cast<size_t>(d)]);
  return out + "]";
}

/// int_at stops at 2^63.
uint64_t u64_at(const Value& v, int64_t i) {
  constexpr size_t kHead = sizeof(uint32_t) + sizeof(uint64_t);  // element type and count
  return gguf::load_le<uint64_t>(v.raw().data() + kHead +
                                 static_cast<size_t>(i) * sizeof(uint64_t));
}

std::string element_text(const Value& v, int64_t i) {
  switch (v.elem_type()) {
    case ValueType::kString:
      return fmt::format("'{}'", gguf::printable(*v.string_at(i), 32));
    case ValueType::kBool:
      return fmt::format("{}", *v.bool_at(i));
    case ValueType::kF32:
      return fmt::format("{}", static_cast<float>(*v.float_at(i)));
    case ValueType::kF64:
      return fmt::format("{}", *v.float_at(i));
    case ValueType::kArray: {
      const Result<Value> inner = v.array_at(i);
      return inner.ok() ? gguf::describe(*inner) : "?";
    }
    case ValueType::kU64:
      return fmt::format("{}", u64_at(v, i));
    default:
      return fmt::format("{}", *v.int_at(i));
  }
}

std::string value_text(const Value& v) {
  constexpr int64_t kShown = 6;
  std::string out = gguf::describe(v);
  if (!v.is_array() || v.size() == 0) return out;
  out += ": ";
  for (int64_t i = 0; i < std::min(v.size(), kShown); ++i)
    out += (i == 0 ? "" : ", ") + element_text(v, i);
  return v.size() > kShown ? out + ", ..." : out;
}

ordered_json scalar_json(const Value& v) {
  switch (v.type()) {
    case ValueType::kString:
      return std::string(*v.as_string());
    case ValueType::kBool:
      return *v.as_bool();
    case ValueType::kF32:
      return static_cast<float>(*v.as_float());
    case ValueType::kF64:
      return *v.as_float();
    case ValueType::kU64:
      return gguf::load_le<uint64_t>(v.raw().data());
    default:
      return *v.as_int();
  }
}

ordered_json array_json(const Value& v) {
  ordered_json out = ordered_json::array();
  for (int64_t i = 0; i < v.size(); ++i) {
    switch (v.elem_type()) {
      case ValueType::kString:
        out.push_back(std::string(*v.string_at(i)));
        break;
      case ValueType::kBool:
        out.push_back(*v.bool_at(i));
        break;
      case ValueType::kF32:
        out.push_back(static_cast<float>(*v.float_at(i)));
        break;
      case ValueType::kF64:
        out.push_back(*v.float_at(i));
        break;
      case ValueType::kArray:
        out.push_back(array_json(*v.array_at(i)));
        break;
      case ValueType::kU64:
        out.push_back(u64_at(v, i));
        break;
      default:
        out.push_back(*v.int_at(i));
    }
  }
  return out;
}

}  // namespace

std::string info_text(const Reader& file, const InfoOptions& options) {
  std::string out;
  const auto line = [&](std::string_view label, const std::string& text) {
    out += fmt::format("{:<13} {}\n", label, text);
  };
  const auto sums = sum_by_type(file);
  int64_t n_elem = 0;
  for (const auto& [type, s] : sums) n_elem += s.n_elem;
  line("file", gguf::printable(file.path(), 4096));
  line("format", fmt::format("GGUF {}, alignment {}, {} file{}", file.version(), file.alignment(),
                             file.n_shards(), file.n_shards() == 1 ? "" : "s"));
  line("size", fmt::format("{} ({} bytes)", human_bytes(file.file_bytes()), file.file_bytes()));
  line("architecture", string_key(file, gguf::keys::kArchitecture));
  line("name", string_key(file, gguf::keys::kName));
  line("keys", fmt::format("{}", file.kvs().size()));
  line("tensors", fmt::format("{}, {} elements", file.tensors().size(), n_elem));
  for (const auto& [type, s] : sums) {
    line("", fmt::format("{:<8} {:>6} tensors {:>14} elements {:>12}", name_of(type), s.n_tensors,
                         s.n_elem, human_bytes(s.n_bytes)));
  }
  if (options.kv) {
    for (const KeyValue& kv : file.kvs()) {
      out += fmt::format("kv {} = {}\n", gguf::printable(kv.key), value_text(kv.value));
    }
  }
  if (options.tensors) {
    for (const TensorInfo& t : file.tensors()) {
      out += fmt::format("tensor {} {} {} {} bytes at {}{}\n", gguf::printable(t.name),
                         name_of(t.view.type), shape_text(t), t.view.n_bytes, t.offset,
                         file.n_shards() > 1 ? fmt::format(" of file {}", t.shard + 1) : "");
    }
  }
  return out;
}

std::string info_json(const Reader& file, const InfoOptions& options) {
  ordered_json j;
  j["file"] = file.path();
  j["version"] = file.version();
  j["alignment"] = file.alignment();
  j["n_files"] = file.n_shards();
  j["file_bytes"] = file.file_bytes();
  const Value* arch = file.find(gguf::keys::kArchitecture);
  j["architecture"] = arch == nullptr    ? ordered_json(nullptr)
                      : arch->is_array() ? array_json(*arch)
                                         : scalar_json(*arch);
  j["n_keys"] = file.kvs().size();
  j["n_tensors"] = file.tensors().size();
  j["types"] = ordered_json::object();
  for (const auto& [type, s] : sum_by_type(file)) {
    j["types"][std::string(name_of(type))] = {
        {"n_tensors", s.n_tensors}, {"n_elem", s.n_elem}, {"n_bytes", s.n_bytes}};
  }
  if (options.kv) {
    j["kv"] = ordered_json::array();  // not an object: keys need not be UTF-8, and their order is
                                      // the file's
    for (const KeyValue& kv : file.kvs()) {
      ordered_json item = {{"key", std::string(kv.key)},
                           {"type", std::string(name_of(kv.value.type()))}};
      if (kv.value.is_array()) item["elem_type"] = std::string(name_of(kv.value.elem_type()));
      item["value"] = kv.value.is_array() ? array_json(kv.value) : scalar_json(kv.value);
      j["kv"].push_back(std::move(item));
    }
  }
  if (options.tensors) {
    j["tensors"] = ordered_json::array();
    for (const TensorInfo& t : file.tensors()) {
      ordered_json shape = ordered_json::array();
      for (int d = 0; d < t.n_dims; ++d) shape.push_back(t.view.ne[static_cast<size_t>(d)]);
      j["tensors"].push_back({{"name", std::string(t.name)},
                              {"type", std::string(name_of(t.view.type))},
                              {"shape", std::move(shape)},
                              {"n_bytes", t.view.n_bytes},
                              {"offset", t.offset},
                              {"file", t.shard + 1}});
    }
  }
  return j.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace infer::tools
