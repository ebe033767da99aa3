#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "gguf/reader.h"

/// Keys as tests/data/hf_keys.json lists them: what llama.cpp's converter writes.
namespace infer::test {

/// "llama.block_count UINT32 30", in order.
inline std::vector<std::string> listed_keys(const nlohmann::json& keys) {
  std::vector<std::string> out;
  for (const auto& k : keys) {
    const auto& v = k.at(2);
    const std::string value = v.is_string()    ? v.get<std::string>()
                              : v.is_boolean() ? fmt::format("{}", v.get<bool>())
                                               : fmt::format("{}", v.get<float>());
    out.push_back(
        fmt::format("{} {} {}", k.at(0).get<std::string>(), k.at(1).get<std::string>(), value));
  }
  return out;
}

/// The same of the keys of `file` under its architecture.
inline std::vector<std::string> arch_keys_of(const gguf::Reader& file, std::string_view arch) {
  std::vector<std::string> out;
  for (const gguf::KeyValue& kv : file.kvs()) {
    if (!kv.key.starts_with(std::string(arch) + ".")) continue;
    std::string value;
    if (const auto s = kv.value.as_string(); s.ok()) {
      value = fmt::format("STRING {}", *s);
    } else if (const auto b = kv.value.as_bool(); b.ok()) {
      value = fmt::format("BOOL {}", *b);
    } else {
      const auto number = kv.value.as_float();
      value = fmt::format("{} {}",
                          kv.value.type() == gguf::ValueType::kU32   ? "UINT32"
                          : kv.value.type() == gguf::ValueType::kF32 ? "FLOAT32"
                                                                     : "another type",
                          number.ok() ? static_cast<float>(*number) : -1.0f);
    }
    out.push_back(fmt::format("{} {}", kv.key, value));
  }
  return out;
}

}  // namespace infer::test
