// Templates and snippets against what Python's jinja2 made of them:
// tests/data/chat_templates/make_chat_templates.py.

#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/text/chat_template.h"
#include "core/text/jinja/json.h"
#include "core/text/jinja/template.h"
#include "tests/support/tiny_vocab.h"

namespace infer::test {
namespace {

using Json = nlohmann::ordered_json;
using text::jinja::Template;
using text::jinja::Value;

constexpr const char* kFolder = "tests/data/chat_templates/";

std::string read_file(const std::string& name) {
  std::ifstream in(kFolder + name, std::ios::binary);
  EXPECT_TRUE(in.good()) << name;
  return {std::istreambuf_iterator<char>(in), {}};
}

const Json& expected() {
  static const Json all = Json::parse(read_file("expected.json"));
  return all;
}

Template::Vars vars_of(const Json& json) {
  text::jinja::Budget budget{{}};
  Template::Vars out;
  for (const auto& [name, value] : json.items()) {
    auto v = text::jinja::parse_json(budget, value.dump());
    EXPECT_TRUE(v.ok()) << v.error().message;
    if (v.ok()) out.emplace_back(name, *v);
  }
  return out;
}

Result<std::string> render(const std::string& source, const Template::Vars& vars) {
  INFER_ASSIGN(const Template t, Template::parse(source));
  INFER_ASSIGN(text::jinja::Text out, t.render(vars, expected()["now"].get<int64_t>()));
  return std::move(out.bytes);
}

void check(const std::string& name, const Result<std::string>& got, const Json& want) {
  if (want.contains("output")) {
    ASSERT_TRUE(got.ok()) << name << ": " << got.error().message;
    EXPECT_EQ(*got, want["output"].get<std::string>()) << name;
    return;
  }
  const auto error = want["error"].get<std::string>();
  ASSERT_FALSE(got.ok()) << name << " gave '" << *got << "', jinja2: " << error;
  EXPECT_EQ(got.error().message.find("line "), 0u) << got.error().message;
  EXPECT_EQ(got.error().message.find('\n'), std::string::npos) << got.error().message;
  const std::string raised = "TemplateError: ";
  if (error.starts_with(raised)) {
    EXPECT_NE(got.error().message.find(error.substr(raised.size())), std::string::npos)
        << got.error().message;
  }
}

TEST(JinjaExpected, Snippets) {
  const Template::Vars vars = vars_of(expected()["vars"]);
  ASSERT_GT(expected()["snippets"].size(), 300u);
  for (const Json& s : expected()["snippets"]) {
    const auto source = s["source"].get<std::string>();
    check("snippets.txt:" + std::to_string(s["line"].get<int>()) + " " + source,
          render(source, vars), s);
  }
}

TEST(JinjaExpected, Forms) {
  ASSERT_GE(expected()["forms"].size(), 19u);
  for (const Json& form : expected()["forms"]) {
    const auto name = form["form"].get<std::string>();
    const std::string source = read_file(name + ".jinja");
    for (const Json& c : form["cases"])
      check(name + "/" + c["case"].get<std::string>(), render(source, vars_of(c["vars"])), c);
  }
}

TEST(JinjaExpected, BuiltInFormsAreTheseFiles) {
  const auto tokenizer = load_tokenizer(tiny_bpe("gpt-2", {}));
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_GE(text::ChatTemplate::builtin_names().size(), 11u);
  for (const std::string_view name : text::ChatTemplate::builtin_names()) {
    const auto form = text::ChatTemplate::create(name, **tokenizer);
    ASSERT_TRUE(form.ok()) << form.error().message;
    EXPECT_EQ(form->source(), read_file(std::string(name) + ".jinja")) << name;
  }
}

}  // namespace
}  // namespace infer::test
