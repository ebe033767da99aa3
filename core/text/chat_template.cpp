#include "core/text/chat_template.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/text/chat_forms.h"
#include "core/text/jinja/json.h"
#include "core/text/jinja/template.h"

namespace infer::text {
namespace {

using jinja::Value;

constexpr std::string_view kTemplateKey = "tokenizer.chat_template";

struct SpecialText {
  std::string name, text;
};

Error in_template(const Error& error) {
  return Error{error.code, "chat template: " + error.message};
}

bool looks_like_jinja(std::string_view s) {
  return s.find("{{") != s.npos || s.find("{%") != s.npos || s.find("{#") != s.npos;
}

Result<Value> messages_value(jinja::Budget& budget, std::span<const ChatMessage> messages) {
  std::vector<Value> out;
  for (const ChatMessage& m : messages) {
    jinja::DictBuilder row(budget);
    INFER_TRY(row.set(Value::text("role"), Value::text(m.role)));
    INFER_TRY(row.set(Value::text("content"), Value(jinja::make_text(m.content, true))));
    INFER_ASSIGN(Value dict, row.finish());
    out.push_back(std::move(dict));
  }
  return jinja::make_list(budget, std::move(out));
}

Result<Value> tools_value(jinja::Budget& budget, std::string_view json) {
  if (json.empty()) return Value::none();
  auto tools = jinja::parse_json(budget, json);
  if (!tools.ok()) return Error{tools.error().code, "tools: " + tools.error().message};
  if (!tools->is(Value::Kind::kList))
    return make_error(ErrorCode::kInvalidArgument, "tools: a JSON array is needed");
  if (tools->as_list()->items.empty()) return Value::none();
  return tools;
}

}  // namespace

struct ChatTemplate::Impl {
  std::string source;
  jinja::Template form;
  std::vector<SpecialText> specials;
};

Result<ChatTemplate> ChatTemplate::create(std::string_view source, const Tokenizer& tokenizer) {
  if (const std::string_view form = find_chat_form(source); !form.empty()) {
    source = form;
  } else if (!looks_like_jinja(source)) {
    constexpr size_t kShown = 60;
    return make_error(ErrorCode::kInvalidArgument,
                      "'{}' is no Jinja text and no chat template that is known by name ({})",
                      source.substr(0, kShown), fmt::join(builtin_names(), ", "));
  }
  auto parsed = jinja::Template::parse(source);
  if (!parsed.ok()) return in_template(parsed.error());
  auto impl = std::make_shared<Impl>(Impl{std::string(source), std::move(parsed).value(), {}});
  const SpecialIds& ids = tokenizer.special();
  const std::pair<std::string_view, TokenId> names[] = {{"bos_token", ids.bos},
                                                        {"eos_token", ids.eos},
                                                        {"unk_token", ids.unk},
                                                        {"pad_token", ids.pad}};
  for (const auto& [name, id] : names)
    impl->specials.push_back({std::string(name), std::string(tokenizer.piece(id))});
  return ChatTemplate(std::move(impl));
}

Result<ChatTemplate> ChatTemplate::from_model(const gguf::Reader& file,
                                              const Tokenizer& tokenizer) {
  if (file.find(kTemplateKey) == nullptr) {
    return make_error(ErrorCode::kNotFound, "{}: no chat template (key '{}')", file.path(),
                      kTemplateKey);
  }
  INFER_ASSIGN(const std::string_view source, file.get_string(kTemplateKey));
  // A file's text is Jinja, whatever it looks like: a name in it names nothing.
  if (!looks_like_jinja(source)) {
    return make_error(ErrorCode::kCorrupt, "{}: key '{}' holds no Jinja text", file.path(),
                      kTemplateKey);
  }
  auto made = create(source, tokenizer);
  if (!made.ok())
    return Error{made.error().code, fmt::format("{}: {}", file.path(), made.error().message)};
  return made;
}

Result<ChatPrompt> ChatTemplate::render(std::span<const ChatMessage> messages,
                                        const ChatOptions& options) const {
  jinja::Budget budget{jinja::Limits{}};
  jinja::Template::Vars vars;
  for (const SpecialText& s : impl_->specials) vars.emplace_back(s.name, Value::text(s.text));
  INFER_ASSIGN(Value rows, messages_value(budget, messages));
  vars.emplace_back("messages", std::move(rows));
  INFER_ASSIGN(Value tools, tools_value(budget, options.tools_json));
  vars.emplace_back("tools", std::move(tools));
  vars.emplace_back("documents", Value::none());
  vars.emplace_back("add_generation_prompt", Value(options.add_generation_prompt));
  auto text = impl_->form.render(vars, options.now_unix);
  if (!text.ok()) return in_template(text.error());
  return ChatPrompt{std::move(text->bytes), std::move(text->user)};
}

std::string_view ChatTemplate::source() const { return impl_->source; }

Result<std::vector<TokenId>> encode_chat(const Tokenizer& tokenizer, const ChatPrompt& prompt) {
  INFER_ASSIGN(std::vector<TokenId> ids,
               tokenizer.encode(prompt.text, {.add_special = false, .literal = prompt.literal}));
  const SpecialIds& special = tokenizer.special();
  const bool written = !ids.empty() && ids[0] == special.bos;
  if (special.add_bos && special.bos >= 0 && !written) ids.insert(ids.begin(), special.bos);
  return ids;
}

}  // namespace infer::text
