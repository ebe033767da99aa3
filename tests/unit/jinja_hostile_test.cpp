// Templates made to hurt: each ends with an error in bounded time, or with what jinja2 gives.

#include <ctime>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "core/text/jinja/json.h"
#include "core/text/jinja/template.h"

namespace infer::test {
namespace {

using text::jinja::Template;
using text::jinja::Value;

std::string repeat(std::string_view s, size_t n) {
  std::string out;
  out.reserve(s.size() * n);
  while (n-- > 0) out += s;
  return out;
}

Result<std::string> render(const std::string& source) {
  INFER_ASSIGN(const Template t, Template::parse(source));
  const std::string big(100'000, 'x');
  INFER_ASSIGN(text::jinja::Text out, t.render({{"big", Value::text(big)}}));
  return std::move(out.bytes);
}

/// CPU seconds allowed; sanitizers take their share.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kLimit = 20.0;
#else
constexpr double kLimit = 3.0;
#endif

void refuses(const std::string& source) {
  const std::clock_t start = std::clock();
  const auto got = render(source);
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  const std::string shown = source.substr(0, 100);
  ASSERT_FALSE(got.ok()) << shown << " gave " << got->size() << " bytes";
  EXPECT_TRUE(got.error().message.starts_with("line ") ||
              got.error().message.starts_with("a template of "))
      << got.error().message;
  EXPECT_LT(got.error().message.size(), 2000u);
  EXPECT_LT(seconds, kLimit) << shown << ": " << got.error().message;
}

TEST(JinjaHostile, DeepNesting) {
  constexpr size_t kDeep = 100'000;
  refuses("{{ " + repeat("(", kDeep) + "1" + repeat(")", kDeep) + " }}");
  refuses("{{ " + repeat("[", kDeep) + repeat("]", kDeep) + " }}");
  refuses("{{ " + repeat("{1:", kDeep) + "1" + repeat("}", kDeep) + " }}");
  refuses("{{ " + repeat("-", kDeep) + "1 }}");
  refuses("{{ " + repeat("not ", kDeep) + "1 }}");
  refuses("{{ " + repeat("(", kDeep));
  refuses("{{ 1" + repeat(" + 1", kDeep) + " }}");
  refuses("{{ 1" + repeat(" ** 1", kDeep) + " }}");
  refuses("{{ 1" + repeat(" if 1 else 1", kDeep) + " }}");
  refuses("{{ x" + repeat(".y", kDeep) + " }}");
  refuses("{{ x" + repeat("[0]", kDeep) + " }}");
  refuses("{{ x" + repeat("()", kDeep) + " }}");
  refuses("{{ 1" + repeat("|abs", kDeep) + " }}");
  refuses("{{ 1" + repeat(" is odd is odd", kDeep) + " }}");
  refuses(repeat("{% if 1 %}", kDeep) + repeat("{% endif %}", kDeep));
  refuses(repeat("{% for i in [1] %}", 50'000));
  refuses(repeat("{% macro m() %}", 50'000));
  refuses(repeat("{% filter upper %}", 50'000));
  refuses("{% for " + repeat("(", kDeep) + " in x %}");
  refuses("{% set " + repeat("(", kDeep) + " = x %}");
  refuses("{% set x | " + repeat("upper|", kDeep) + "upper %}{% endset %}");
}

TEST(JinjaHostile, WideIsFine) {
  constexpr size_t kWide = 20'000;
  EXPECT_TRUE(render("{{ 1" + repeat(" ~ 1", kWide) + " }}").ok());
  EXPECT_TRUE(render("{{ 1" + repeat(" or 1", kWide) + " }}").ok());
  EXPECT_TRUE(render("{{ [1" + repeat(", 1", kWide) + "]|length }}").ok());
  EXPECT_TRUE(render("{% if 0 %}" + repeat("{% elif 0 %}", kWide) + "{% endif %}").ok());
  EXPECT_TRUE(render(repeat("{% if 1 %}{% endif %}", kWide)).ok());
}

TEST(JinjaHostile, EndlessWork) {
  refuses("{% for i in range(10**9) %}{% endfor %}");
  const std::string loop = "{% for i in range(100000) %}";
  refuses(loop + loop + "{% endfor %}{% endfor %}");
  refuses(loop + loop + "x{% endfor %}{% endfor %}");
  refuses(
      "{% for i in range(100000) %}{% for j in range(100000) %}{{ [i, j]|sort|join(',') }}"
      "{% endfor %}{% endfor %}");
  refuses("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
  refuses("{% macro f(n) %}{{ f(n) ~ f(n) }}{% endmacro %}{{ f(1) }}");
  refuses("{% macro f(n=f()) %}{% endmacro %}{{ f() }}");
  refuses("{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}");
  refuses(
      "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
      "{{ f(40) }}");
  refuses("{% set ns = namespace(n=1) %}" + loop + "{% set ns.n = ns.n * 3 %}{% endfor %}");
  refuses("{{ 10 ** 10 ** 10 }}");
  refuses("{{ 2 ** 100000 }}");
}

TEST(JinjaHostile, HugeValues) {
  refuses("{{ 'a' * 10**9 }}");
  refuses("{{ 'a' * 10**18 }}");
  refuses("{{ [1] * 10**9 }}");
  refuses("{{ ([1] * 1000) * 10**17 }}");
  refuses("{{ '%1000000000d' % 1 }}");
  refuses("{{ 'a'.center(10**12) }}");
  refuses("{{ 'a'.zfill(10**12) }}");
  refuses("{{ 'a'|indent(10**12, true) }}");
  refuses("{{ [1]|tojson(indent=10**9) }}");
  refuses("{{ [1, 2]|batch(10**12, 0)|list }}");
  const std::string loop = "{% for i in range(100) %}";
  refuses("{% set ns = namespace(s='ab') %}" + loop +
          "{% set ns.s = ns.s.replace('a', 'aa').replace('b', 'ba') %}{% endfor %}{{ ns.s }}");
  refuses("{% set ns = namespace(s='ab') %}" + loop + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}");
  refuses("{% set ns = namespace(s=[1]) %}" + loop + "{% set ns.s = ns.s + ns.s %}{% endfor %}");
  refuses("{% set ns = namespace(s=[1]) %}" + loop +
          "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}");
  refuses(
      "{% set ns = namespace(s=(1,)) %}{% for i in range(50) %}{% set ns.s = (ns.s, ns.s) %}"
      "{% endfor %}{{ ns.s == ns.s|list or {ns.s: 1} }}");
  refuses(
      "{% set ns = namespace(s=[1]) %}{% for i in range(50) %}{% set ns.s = [ns.s, ns.s] %}"
      "{% endfor %}{{ ns.s|tojson }}");
  refuses("{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}");
  refuses("{% for i in range(100000) %}{{ big }}{% endfor %}");
  refuses("{% for i in range(100000) %}{% set x = big|upper %}{% endfor %}");
  refuses("{% for i in range(100000) %}{{ 'x' if big == big ~ '' }}{% endfor %}");
  refuses("{% for i in range(100000) %}{% set x = big.rfind(big[1:] ~ 'y') %}{% endfor %}");
  refuses("{% for i in range(100000) %}{% set x = big.find(big[1:] ~ 'y') %}{% endfor %}");
  refuses("{% for i in range(100000) %}{% set x = {big: 1}[big] %}{% endfor %}");
  refuses("{% for i in range(100000) %}{% set x = big[50000] %}{% endfor %}");
  refuses("{% for i in range(100000) %}{% set x = big|list|sort|unique|list %}{% endfor %}");
  refuses("{% for i in range(100000) %}{% set x = big.split('x')|join|length %}{% endfor %}");
}

TEST(JinjaHostile, ManyNames) {
  std::string many = "{% set x0 = 0 %}";
  for (int i = 0; i < 20'000; ++i) many += "{% set a" + std::to_string(i) + " = 1 %}";
  refuses(many +
          "{% for i in range(100000) %}{% for j in range(100) %}{{ x0 }}{% endfor %}"
          "{% endfor %}");
  many.clear();
  std::string attributes = "{% set ns = namespace() %}";
  for (int i = 0; i < 3'000; ++i) {
    many += "{% set a" + std::to_string(i) + " = 1 %}";
    attributes += "{% set ns.a" + std::to_string(i) + " = 1 %}";
  }
  const std::string loops = "{% for i in range(100000) %}{% for j in range(100) %}";
  refuses(many + loops + "{{ a2999 }}{% endfor %}{% endfor %}");
  refuses(attributes + loops + "{{ ns.a2999 }}{% endfor %}{% endfor %}");
  refuses(attributes + loops + "{{ ns['a2999'] }}{% endfor %}{% endfor %}");
  const std::string name = repeat("n", 100'000);
  refuses("{{ " + name + " }}");
}

TEST(JinjaHostile, Attributes) {
  refuses("{{ ''.__class__.mro() }}");
  refuses("{{ ''.__class__.__mro__[1] }}");
  refuses("{{ ''.mro.x }}");
  refuses("{{ namespace.__init__.__globals__ }}");
  refuses("{{ range.__self__.x }}");
  refuses("{{ (''|attr('__class__')).x }}");
  refuses("{{ [1].append(2) }}");
  EXPECT_EQ(*render("{{ ''.__class__ }}|{{ [].__len__ }}|{{ {}.__dict__ }}"), "||");
}

TEST(JinjaHostile, Unclosed) {
  for (const char* source :
       {"{{",          "{%",        "{#",      "{{ 'a",    "{{ \"a\\",     "{% if 1",
        "{% if 1 %}",  "{% raw %}", "{% for",  "{% set x", "{% macro m(",  "{{ a(",
        "{{ a[",       "{{ {",      "{% call", "{{ x | ",  "{{ x is ",     "{{ x . ",
        "{{ 1 if",     "{{ - ",     "{%- ",    "{{-",      "{% filter %}", "{% with x %}",
        "{% endif %}", "{% else %}"})
    refuses(source);
  const std::string tags = repeat("{{", 50'000);
  refuses(tags);
  refuses(repeat("{%", 50'000));
  refuses(repeat("{#", 50'000));
  refuses(repeat("{% raw %}", 50'000));
}

TEST(JinjaHostile, OddBytes) {
  EXPECT_EQ(*render(std::string("a\0b", 3)), std::string("a\0b", 3));
  refuses(std::string("{{ \0 }}", 7));
  EXPECT_EQ(*render(std::string("{{ 'a\0b'|length }}", 18)), "3");
  EXPECT_EQ(*render("\xff{{ '\xc3\x28\xff'|length }}\xf0\x9f"),
            "\xff"
            "3\xf0\x9f");
  EXPECT_EQ(*render("{{ '\xff\xfe'|upper|list|join|reverse }}"), "\xfe\xff");
  EXPECT_TRUE(render("{{ ['\xff']|tojson ~ ['\xff'] ~ '\xff'.title().strip('\xff') }}").ok());
  refuses("{{ \xff }}");
}

TEST(JinjaHostile, LinesAreNamed) {
  const auto line_of = [](const std::string& source) {
    const auto got = render(source);
    return got.ok() ? "none" : got.error().message.substr(0, got.error().message.find(':'));
  };
  EXPECT_EQ(line_of("a\nb\n{{ 1/0 }}"), "line 3");
  EXPECT_EQ(line_of("{% if 1 %}\n\n{{ x.y }}\n{% endif %}"), "line 3");
  EXPECT_EQ(line_of("{# \n\n #}{% for i in [1] -%}\n\n\n {{ nope() }}{% endfor %}"), "line 6");
  EXPECT_EQ(line_of("\n{{ 'a\nb' }}{{ )"), "line 3");
  EXPECT_EQ(line_of("x\r\ny\r{% frob %}"), "line 3");
}

TEST(JinjaHostile, Json) {
  text::jinja::Budget budget{{}};
  for (const char* json : {"",        "[",
                           "[1",      "[1,",
                           "{",       "{\"a\"",
                           "{\"a\":", "{\"a\":1",
                           "{a:1}",   "nul",
                           "\"",      "\"\\",
                           "\"\\u12", "\"\\ud800\"",
                           "01",      "1.",
                           "1e",      "-",
                           "+1",      "[1] 2",
                           "\"\n\"",  "99999999999999999999",
                           "1e999",   "[1,]",
                           "'a'"})
    EXPECT_FALSE(text::jinja::parse_json(budget, json).ok()) << json;
  EXPECT_FALSE(text::jinja::parse_json(budget, repeat("[", 100'000)).ok());
  EXPECT_FALSE(text::jinja::parse_json(budget, repeat("{\"a\":", 100'000)).ok());
  const auto v = text::jinja::parse_json(budget, " [\"\\u00e9\\ud83d\\ude00\\n\", -1.5e2, {}] ");
  ASSERT_TRUE(v.ok()) << v.error().message;
  EXPECT_EQ((*text::jinja::to_json(budget, *v, {}))->bytes,
            "[\"\xc3\xa9\xf0\x9f\x98\x80\\n\", -150.0, {}]");
}

}  // namespace
}  // namespace infer::test
