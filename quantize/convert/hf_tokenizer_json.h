#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/result.h"

namespace infer::quantize {

/// Errors: kCorrupt for what is no JSON object or nested deeper than 64.
Result<nlohmann::json> parse_json_object(std::string_view text, std::string_view name);

/// tokenizer.json. The vocabulary and the merges are kept out of the tree, which would take ten
/// times their bytes.
struct TokenizerJson {
  nlohmann::json root;  ///< without model.merges and the entries of model.vocab
  std::vector<std::pair<std::string, int64_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;
};

/// Errors: kCorrupt naming what is wrong (an id that is no integer, a merge that is no pair);
/// kUnsupported above 2^20 tokens or merges.
Result<TokenizerJson> parse_tokenizer_json(std::string_view text, std::string_view name);

/// Members of an object, or what stands for them where there is none of the right type.
std::string string_at(const nlohmann::json& object, const char* key, std::string fallback = "");
bool bool_at(const nlohmann::json& object, const char* key, bool fallback);
/// Null if missing.
const nlohmann::json& member(const nlohmann::json& object, const char* key);

}  // namespace infer::quantize
