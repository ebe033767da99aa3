#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/result.h"
#include "tools/infer-cli/chat_format.h"

namespace infer::tools {

/// A conversation as a file: {"format": "infer-chat", "version": 1, "model": name, "settings":
/// {...}, "messages": [{"role", "content"}, ...]}. The settings are for people and are not taken
/// back.
struct ChatFile {
  std::string model;
  nlohmann::ordered_json settings;
  std::vector<ChatMessage> messages;  ///< the system prompt first, if there is one
};

/// Errors: kIo naming the file.
Result<void> save_chat(const std::string& path, const ChatFile& chat);
/// Errors: kIo, kCorrupt naming the file and the key, kUnsupported for a later version.
Result<ChatFile> load_chat(const std::string& path);

}  // namespace infer::tools
