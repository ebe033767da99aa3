#include "tools/infer-cli/batch_line.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <string_view>
#include <utility>

#include "core/base/error.h"

namespace infer::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 13> kKeys = {
    "id",    "prompt", "prompt_ids", "messages", "max_tokens", "temperature", "top_k",
    "top_p", "min_p",  "seed",       "stop",     "ignore_eos", "temp"};

Error wrong(std::string_view key, const Json& value, std::string_view wanted) {
  std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  return make_error(ErrorCode::kInvalidArgument, "key '{}' = {}: expected {}", key, shown, wanted);
}

Result<void> read_number(const Json& line, const char* key, float* to) {
  const auto it = line.find(key);
  if (it == line.end()) return {};
  if (!it->is_number()) return wrong(key, *it, "a number");
  *to = it->get<float>();
  return {};
}

template <class T>
Result<void> read_integer(const Json& line, const char* key, int64_t low, int64_t high, T* to) {
  const auto it = line.find(key);
  if (it == line.end()) return {};
  const bool is_huge = it->is_number_unsigned() &&
                       it->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()};
  if (!it->is_number_integer() || is_huge || it->get<int64_t>() < low || it->get<int64_t>() > high)
    return wrong(key, *it, fmt::format("an integer in {}..{}", low, high));
  *to = static_cast<T>(it->get<int64_t>());
  return {};
}

Result<void> read_stop(const Json& line, std::vector<std::string>* to) {
  const auto it = line.find("stop");
  if (it == line.end()) return {};
  const char* wanted = "a text or a list of texts";
  to->clear();
  if (it->is_string()) {
    to->push_back(it->get<std::string>());
    return {};
  }
  if (!it->is_array()) return wrong("stop", *it, wanted);
  for (const Json& s : *it) {
    if (!s.is_string()) return wrong("stop", *it, wanted);
    to->push_back(s.get<std::string>());
  }
  return {};
}

Result<std::vector<TokenId>> read_ids(const Json& value, const BatchContext& c) {
  const std::string wanted = fmt::format("a list of token ids below {}", c.tokenizer.n_vocab());
  if (!value.is_array()) return wrong("prompt_ids", value, wanted);
  std::vector<TokenId> ids;
  for (const Json& id : value) {
    if (!id.is_number_integer() || id < 0 || id >= c.tokenizer.n_vocab())
      return wrong("prompt_ids", id, wanted);
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

Result<std::vector<TokenId>> read_messages(const Json& value, const BatchContext& c) {
  const char* wanted = "a list of {\"role\": text, \"content\": text}";
  if (!c.chat.ok())
    return make_error(c.chat.error().code, "key 'messages': {}", c.chat.error().message);
  if (!value.is_array() || value.empty()) return wrong("messages", value, wanted);
  std::vector<ChatMessage> messages;
  for (const Json& m : value) {
    const auto has_text = [&](const char* key) { return m.contains(key) && m[key].is_string(); };
    if (!m.is_object() || !has_text("role") || !has_text("content"))
      return wrong("messages", m, wanted);
    messages.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
  }
  INFER_ASSIGN(ChatPrompt prompt, (*c.chat)(messages));
  return std::move(prompt.ids);
}

Result<std::vector<TokenId>> read_prompt(const Json& line, const BatchContext& c) {
  const std::array<const char*, 3> keys = {"prompt", "prompt_ids", "messages"};
  const auto n = std::ranges::count_if(keys, [&](const char* key) { return line.contains(key); });
  if (n != 1)
    return make_error(
        ErrorCode::kInvalidArgument,
        "expected one of the keys 'prompt', 'prompt_ids' and 'messages', there are {}", n);
  if (line.contains("prompt_ids")) return read_ids(line["prompt_ids"], c);
  if (line.contains("messages")) return read_messages(line["messages"], c);
  const Json& prompt = line["prompt"];
  if (!prompt.is_string()) return wrong("prompt", prompt, "a text");
  return encode_prompt(c.options, c.tokenizer, prompt.get<std::string>());
}

Result<Request> read_request(const Json& line, int64_t number, const BatchContext& c) {
  Request r = c.base;
  r.sampling.seed += static_cast<uint64_t>(number - 1);
  INFER_TRY(read_integer(line, "max_tokens", -1, int64_t{1} << 30, &r.max_tokens));
  INFER_TRY(read_number(line, line.contains("temp") ? "temp" : "temperature", &r.sampling.temp));
  INFER_TRY(read_integer(line, "top_k", std::numeric_limits<int32_t>::min(),
                         std::numeric_limits<int32_t>::max(), &r.sampling.top_k));
  INFER_TRY(read_number(line, "top_p", &r.sampling.top_p));
  INFER_TRY(read_number(line, "min_p", &r.sampling.min_p));
  INFER_TRY(read_integer(line, "seed", 0, std::numeric_limits<int64_t>::max(), &r.sampling.seed));
  INFER_TRY(read_stop(line, &r.stop));
  if (const auto it = line.find("ignore_eos"); it != line.end()) {
    if (!it->is_boolean()) return wrong("ignore_eos", *it, "true or false");
    r.ignore_eos = it->get<bool>();
  }
  INFER_TRY(text::validate(r.sampling));
  INFER_ASSIGN(r.prompt, read_prompt(line, c));
  return r;
}

/// A key with null says as little as no key.
void drop_nulls(Json& object) {
  for (auto it = object.begin(); it != object.end();)
    it = it->is_null() ? object.erase(it) : std::next(it);
}

/// nlohmann's message without its own name and number.
std::string syntax_error(const Json::exception& e) {
  const std::string_view what = e.what();
  const size_t at = what.find("] ");
  return "not JSON: " + std::string(at == what.npos ? what : what.substr(at + 2));
}

}  // namespace

BatchLine parse_batch_line(const std::string& line, int64_t number, const BatchContext& context) {
  BatchLine out{.id = number,
                .request = make_error(ErrorCode::kInvalidArgument, "not a JSON object"),
                .unknown_keys = {}};
  Json json;
  try {
    json = Json::parse(line);
  } catch (const Json::exception& e) {
    out.request = Error{ErrorCode::kInvalidArgument, syntax_error(e)};
    return out;
  }
  if (!json.is_object()) return out;
  drop_nulls(json);
  if (const auto it = json.find("id"); it != json.end()) {
    if (!it->is_string() && !it->is_number_integer()) {
      out.request = wrong("id", *it, "a text or an integer");
      return out;
    }
    out.id = *it;
  }
  for (const auto& [key, value] : json.items()) {
    if (std::ranges::find(kKeys, key) == kKeys.end()) out.unknown_keys.push_back(key);
  }
  out.request = read_request(json, number, context);
  return out;
}

}  // namespace infer::tools
