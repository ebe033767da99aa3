#include "tools/infer-cli/chat_format.h"

#include <ctime>
#include <filesystem>
#include <memory>
#include <utility>

#include "core/base/error.h"
#include "core/model/model.h"
#include "core/text/chat_template.h"
#include "tools/common/escapes.h"
#include "tools/infer-cli/text_input.h"

namespace infer::tools {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

/// Seconds since 1970 on the clock on the wall.
int64_t local_seconds() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return static_cast<int64_t>(now) + local.tm_gmtoff;
}

Result<text::ChatTemplate> from_file(const std::string& path, const Engine& engine) {
  INFER_ASSIGN(const std::string source, read_file(path, kMaxTemplateBytes));
  return text::ChatTemplate::create(source, engine.tokenizer());
}

Result<text::ChatTemplate> load_template(const CliOptions& o, const Engine& engine) {
  if (!o.chat_template_file.empty()) return from_file(o.chat_template_file, engine);
  if (!o.chat_template.empty()) {
    std::error_code ec;
    if (std::filesystem::is_regular_file(o.chat_template, ec))
      return from_file(o.chat_template, engine);
    return text::ChatTemplate::create(o.chat_template, engine.tokenizer());
  }
  if (!has_chat_template(o, engine)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "this model has no chat template (tokenizer.chat_template): name one with "
                      "--chat-template, or complete text without -cnv");
  }
  return text::ChatTemplate::from_model(engine.model().file(), engine.tokenizer());
}

}  // namespace

bool has_chat_template(const CliOptions& o, const Engine& engine) {
  return !o.chat_template.empty() || !o.chat_template_file.empty() ||
         engine.model().file().find("tokenizer.chat_template") != nullptr;
}

Result<ChatFormat> load_chat_format(const CliOptions& o, const Engine& engine) {
  INFER_ASSIGN(const text::ChatTemplate form, load_template(o, engine));
  text::ChatOptions options;
  options.now_unix = local_seconds();
  return ChatFormat(
      [form, options, &engine](std::span<const ChatMessage> messages) -> Result<ChatPrompt> {
        std::vector<text::ChatMessage> all;
        for (const ChatMessage& m : messages) all.push_back({m.role, m.content});
        INFER_ASSIGN(text::ChatPrompt prompt, form.render(all, options));
        INFER_ASSIGN(std::vector<TokenId> ids, text::encode_chat(engine.tokenizer(), prompt));
        return ChatPrompt{std::move(prompt.text), std::move(ids)};
      });
}

Result<std::string> read_system_prompt(const CliOptions& o) {
  if (o.system) return o.no_escape ? *o.system : unescape(*o.system);
  if (!o.system_file) return std::string();
  INFER_ASSIGN(std::string text, read_file(*o.system_file));
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace infer::tools
