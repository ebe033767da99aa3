#include "tools/infer-cli/chat_file.h"

#include <memory>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "tools/common/out_file.h"
#include "tools/infer-cli/text_input.h"

namespace infer::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "infer-chat";
constexpr int kVersion = 1;
constexpr size_t kMaxFileBytes = size_t{256} << 20;

bool has_string(const Json& j, const char* key) { return j.contains(key) && j[key].is_string(); }

Result<ChatMessage> read_message(const std::string& path, const Json& j, size_t i) {
  const auto bad = [&](std::string_view what) {
    return make_error(ErrorCode::kCorrupt, "{}: messages[{}]: {}", path, i, what);
  };
  if (!j.is_object() || !has_string(j, "role") || !has_string(j, "content"))
    return bad("expected texts 'role' and 'content'");
  ChatMessage m{j["role"].get<std::string>(), j["content"].get<std::string>()};
  if (m.role == "system" ? i != 0 : m.role != "user" && m.role != "assistant")
    return bad("expected the role 'user' or 'assistant', or 'system' at the beginning");
  return m;
}

}  // namespace

Result<void> save_chat(const std::string& path, const ChatFile& chat) {
  Json j;
  j["format"] = kFormat;
  j["version"] = kVersion;
  j["model"] = chat.model;
  j["settings"] = chat.settings;
  j["messages"] = Json::array();
  for (const ChatMessage& m : chat.messages)
    j["messages"].push_back(Json{{"role", m.role}, {"content", m.content}});
  INFER_ASSIGN(const std::unique_ptr<OutFile> out, OutFile::create(path));
  INFER_TRY(out->write(j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"));
  return out->finish();
}

Result<ChatFile> load_chat(const std::string& path) {
  INFER_ASSIGN(const std::string text, read_file(path, kMaxFileBytes));
  const Json j = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!j.is_object() || !has_string(j, "format") || j["format"] != kFormat)
    return make_error(ErrorCode::kCorrupt, "{}: not a saved conversation", path);
  if (!j.contains("version") || !j["version"].is_number_integer())
    return make_error(ErrorCode::kCorrupt, "{}: no key 'version'", path);
  if (j["version"] != kVersion)
    return make_error(ErrorCode::kUnsupported, "{}: version = {}, known is {}", path,
                      j["version"].dump(), kVersion);
  if (!j.contains("messages") || !j["messages"].is_array())
    return make_error(ErrorCode::kCorrupt, "{}: no list 'messages'", path);
  ChatFile chat;
  if (has_string(j, "model")) chat.model = j["model"].get<std::string>();
  if (j.contains("settings")) chat.settings = j["settings"];
  for (const Json& m : j["messages"]) {
    INFER_ASSIGN(ChatMessage message, read_message(path, m, chat.messages.size()));
    chat.messages.push_back(std::move(message));
  }
  return chat;
}

}  // namespace infer::tools
