#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/text/jinja/json.h"
#include "core/text/jinja/template.h"

/// Any bytes as a template, and (behind a NUL) as the JSON of its tools: nothing crashes, work and
/// output stay within the limits, errors are one line, ranges of user data are in order. Built for
/// libFuzzer (INFER_FUZZ) and for replay_main.cpp.
namespace {

using infer::text::jinja::Budget;
using infer::text::jinja::Limits;
using infer::text::jinja::Template;
using infer::text::jinja::Text;
using infer::text::jinja::Value;

/// Small, so that an input costs milliseconds.
constexpr Limits kLimits{.max_steps = 50'000, .max_text_bytes = 1 << 16};

Value message(Budget& budget, const char* role, const char* content) {
  infer::text::jinja::DictBuilder row(budget);
  const bool set =
      row.set(Value::text("role"), Value::text(role)).ok() &&
      row.set(Value::text("content"), Value(infer::text::jinja::make_text(content, true))).ok();
  auto dict = row.finish();
  if (!set || !dict.ok()) __builtin_trap();
  return *dict;
}

Template::Vars variables(Budget& budget, std::string_view json) {
  auto messages = infer::text::jinja::make_list(
      budget, {message(budget, "system", "Be <b>\n brief"), message(budget, "user", " \xc3\xa9? "),
               message(budget, "assistant", "")});
  if (!messages.ok()) __builtin_trap();
  auto tools = infer::text::jinja::parse_json(budget, json);
  return {{"messages", *messages},           {"tools", tools.ok() ? *tools : Value::none()},
          {"bos_token", Value::text("<s>")}, {"eos_token", Value::text("</s>")},
          {"x", Value(int64_t{5})},          {"add_generation_prompt", Value(true)}};
}

void check(const Text& text) {
  if (text.bytes.size() > kLimits.max_text_bytes) __builtin_trap();
  size_t at = 0;
  bool first = true;
  for (const infer::text::TextRange& r : text.user) {
    if (r.begin >= r.end || r.end > text.bytes.size() || (!first && r.begin <= at))
      __builtin_trap();
    at = r.end;
    first = false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t nul = std::min(all.find('\0'), all.size());
  const auto form = Template::parse(all.substr(0, nul), kLimits);
  if (!form.ok()) {
    if (form.error().message.find('\n') != std::string::npos) __builtin_trap();
    return 0;
  }
  Budget budget(kLimits);
  const auto vars = variables(budget, all.substr(std::min(nul + 1, all.size())));
  const auto out = form->render(vars, 1753434245);
  if (out.ok()) {
    check(*out);
  } else if (out.error().message.find('\n') != std::string::npos) {
    __builtin_trap();
  }
  return 0;
}
