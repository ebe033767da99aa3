#include "quantize/convert/hf_tokenizer_pre.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/text/pretokenize.h"
#include "gguf/describe.h"
#include "gguf/keys.h"
#include "quantize/convert/hf_tokenizer_json.h"

namespace infer::quantize {
namespace {

using Json = nlohmann::json;
using text::PreRule;
using text::SplitBehavior;
using Steps = std::vector<const Json*>;

constexpr size_t kMaxSteps = 32;
constexpr std::string_view kMark = text::kSpaceMark;
constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kBehaviors = {
    {{"Isolated", SplitBehavior::kIsolated},
     {"Removed", SplitBehavior::kRemoved},
     {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
     {"MergedWithNext", SplitBehavior::kMergedWithNext},
     {"Contiguous", SplitBehavior::kContiguous}}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kForms = {
    {{"NFC", "nfc"}, {"NFD", "nfd"}, {"NFKC", "nfkc"}, {"NFKD", "nfkd"}}};

// What Whitespace keeps: runs of word characters, as Rust's regex counts them, and of other marks.
constexpr std::string_view kWordsOrMarks =
    R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}]+|)"
    R"([^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}\s]+)";

/// Sequences laid flat. Their members stand under "normalizers" or "pretokenizers".
void flatten(const Json& node, Steps& out) {
  if (node.is_null() || out.size() > kMaxSteps) return;
  const std::string type = string_at(node, "type");
  if (type != "Sequence") {
    out.push_back(&node);
    return;
  }
  for (const char* key : {"normalizers", "pretokenizers"}) {
    const Json& steps = member(node, key);
    if (!steps.is_array()) continue;
    for (const Json& step : steps) flatten(step, out);
  }
}

Result<Steps> steps_of(const Json& root, const char* key, std::string_view name) {
  Steps steps;
  flatten(member(root, key), steps);
  if (steps.size() > kMaxSteps)
    return make_error(ErrorCode::kUnsupported, "{}: {} has more than {} steps", name, key,
                      kMaxSteps);
  return steps;
}

Error refuse(std::string_view name, const char* key, const Json& step, std::string_view why) {
  return make_error(ErrorCode::kUnsupported, "{}: {} '{}' {}", name, key,
                    gguf::printable(string_at(step, "type", "?")), why);
}

Result<SplitBehavior> behavior_of(const Json& step, std::string_view fallback,
                                  std::string_view name) {
  const std::string given = string_at(step, "behavior", std::string(fallback));
  for (const auto& [spelling, behavior] : kBehaviors) {
    if (spelling == given) return behavior;
  }
  return refuse(name, "pre_tokenizer", step, "has no behavior known here");
}

/// The pattern of a Split step; a literal one is quoted.
std::optional<std::string> pattern_of(const Json& step) {
  const Json& pattern = member(step, "pattern");
  if (const Json& regex = member(pattern, "Regex"); regex.is_string())
    return regex.get<std::string>();
  const Json& literal = member(pattern, "String");
  if (!literal.is_string()) return std::nullopt;
  return text::quote_pattern(literal.get<std::string>());
}

class RuleReader {
 public:
  RuleReader(std::string_view name, std::vector<PreRule>& out) : name_(name), out_(out) {}

  Result<void> read(const Json& step) {
    const std::string type = string_at(step, "type");
    if (type == "ByteLevel") return byte_level(step);
    PreRule rule;
    if (type == "Split") {
      auto pattern = pattern_of(step);
      if (!pattern) return refuse(name_, "pre_tokenizer", step, "has no pattern");
      rule.pattern = *std::move(pattern);
      INFER_ASSIGN(rule.behavior, behavior_of(step, "", name_));
      rule.invert = bool_at(step, "invert", false);
    } else if (type == "Digits") {
      rule.pattern = R"(\p{N})";
      if (!bool_at(step, "individual_digits", false)) rule.behavior = SplitBehavior::kContiguous;
    } else if (type == "Punctuation") {
      rule.pattern = R"([\p{P}$+<=>\^`|~])";
      INFER_ASSIGN(rule.behavior, behavior_of(step, "Isolated", name_));
    } else if (type == "Whitespace" || type == "WhitespaceSplit") {
      rule.pattern = type == "Whitespace" ? kWordsOrMarks : R"(\s)";
      rule.behavior = SplitBehavior::kRemoved;
      rule.invert = type == "Whitespace";
    } else if (type == "CharDelimiterSplit") {
      rule.pattern = text::quote_pattern(string_at(step, "delimiter"));
      rule.behavior = SplitBehavior::kRemoved;
      if (rule.pattern.empty()) return refuse(name_, "pre_tokenizer", step, "has no delimiter");
    } else {
      return refuse(name_, "pre_tokenizer", step, "is not supported");
    }
    push(std::move(rule));
    return {};
  }

 private:
  void push(PreRule rule) {
    if (letters_) out_.push_back({.kind = PreRule::Kind::kByteLetters});
    letters_ = false;
    out_.push_back(std::move(rule));
  }
  Result<void> byte_level(const Json& step) {
    if (bool_at(step, "add_prefix_space", true)) push({.kind = PreRule::Kind::kPrefixSpace});
    if (bool_at(step, "use_regex", true)) {
      INFER_ASSIGN(const text::PreTokenizerDef* gpt2, text::find_pre_tokenizer("gpt-2", name_));
      push(text::rules_of(*gpt2).front());
    }
    letters_ = true;  // the steps after it see letters
    return {};
  }

  std::string_view name_;
  std::vector<PreRule>& out_;
  bool letters_ = false;
};

/// Falcon's steps: the one published list whose name is established although its readers' patterns
/// only come near it.
bool is_falcon(const std::vector<PreRule>& rules) {
  const std::array<std::string_view, 5> lines = {"split contiguous [\\p{P}$+<=>\\^`|~]", "",
                                                 "byte_letters", "split contiguous \\p{N}",
                                                 "split isolated [0-9][0-9][0-9]"};
  if (rules.size() != lines.size() ||
      text::known_pre_name(std::span(rules).subspan(1, 1), false) != "gpt-2")
    return false;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (!lines[i].empty() && text::to_string(rules[i]) != lines[i]) return false;
  }
  return true;
}

bool is_space_replace(const Json& step) {
  return string_at(step, "type") == "Replace" &&
         string_at(member(step, "pattern"), "String") == " " && string_at(step, "content") == kMark;
}

}  // namespace

bool has_step(const Json& node, std::string_view type) {
  Steps steps;
  flatten(node, steps);
  return std::any_of(steps.begin(), steps.end(),
                     [&](const Json* step) { return string_at(*step, "type") == type; });
}

Result<BytePlan> read_byte_plan(const Json& root, std::string_view name) {
  BytePlan plan;
  INFER_ASSIGN(const Steps normalizers, steps_of(root, "normalizer", name));
  for (const Json* step : normalizers) {
    const std::string type = string_at(*step, "type");
    const auto* form =
        std::find_if(kForms.begin(), kForms.end(), [&](const auto& f) { return f.first == type; });
    if (form == kForms.end()) return refuse(name, "normalizer", *step, "is not supported");
    plan.forms.emplace_back(form->second);
  }
  INFER_ASSIGN(const Steps steps, steps_of(root, "pre_tokenizer", name));
  RuleReader reader(name, plan.rules);
  for (const Json* step : steps) INFER_TRY(reader.read(*step));
  if (plan.rules.size() > kMaxSteps)
    return make_error(ErrorCode::kUnsupported, "{}: pre_tokenizer has more than {} rules", name,
                      kMaxSteps);
  auto compiled = text::PreTokenizer::compile(plan.rules, /*trusted=*/false);
  if (!compiled.ok())
    return make_error(compiled.error().code, "{}: {}", name, compiled.error().message);
  return plan;
}

Result<void> write_byte_plan(const BytePlan& plan, bool ignore_merges, gguf::HeaderBuilder& out,
                             std::vector<std::string>& notes) {
  namespace keys = gguf::keys;
  std::string_view pre = text::known_pre_name(plan.rules, ignore_merges);
  bool other_merges = false;
  if (pre.empty()) {
    pre = text::known_pre_name(plan.rules, !ignore_merges);
    other_merges = !pre.empty();
  }
  const bool named = !pre.empty();
  if (!named) pre = is_falcon(plan.rules) ? "falcon" : "default";
  INFER_TRY(out.add_string(keys::kTokenizerPre, pre));
  const auto note = [&](std::string_view key, std::string_view what) {
    notes.push_back(fmt::format("{} holds {}: only infer reads it", key, what));
  };
  if (!named) {
    std::vector<std::string> lines;
    for (const PreRule& rule : plan.rules) lines.push_back(text::to_string(rule));
    const std::vector<std::string_view> views(lines.begin(), lines.end());
    INFER_TRY(out.add_strings(keys::kInferPreRules, views));
    note(keys::kInferPreRules,
         fmt::format("the pre-tokenizer's {} rules, which no name stands for (written: '{}')",
                     lines.size(), pre));
  }
  if (!plan.forms.empty()) {
    const std::vector<std::string_view> views(plan.forms.begin(), plan.forms.end());
    INFER_TRY(out.add_strings(keys::kInferNormalizer, views));
    note(keys::kInferNormalizer, fmt::format("the normalizer '{}'", fmt::join(views, ", ")));
  }
  if (other_merges || (!named && ignore_merges)) {
    INFER_TRY(out.add<bool>(keys::kInferIgnoreMerges, ignore_merges));
    note(keys::kInferIgnoreMerges,
         fmt::format("ignore_merges = {}, which '{}' does not stand for", ignore_merges, pre));
  }
  return {};
}

Result<SpacePlan> read_space_plan(const Json& root, std::string_view name) {
  SpacePlan plan;
  bool marks = false;
  INFER_ASSIGN(const Steps normalizers, steps_of(root, "normalizer", name));
  for (const Json* step : normalizers) {
    const bool prepends =
        string_at(*step, "type") == "Prepend" && string_at(*step, "prepend") == kMark;
    if (!prepends && !is_space_replace(*step))
      return refuse(name, "normalizer", *step, "is not supported for a BPE with byte fallback");
    plan.adds_prefix = plan.adds_prefix || prepends;
    marks = marks || !prepends;
  }
  INFER_ASSIGN(const Steps steps, steps_of(root, "pre_tokenizer", name));
  for (const Json* step : steps) {
    const std::string type = string_at(*step, "type");
    if (type == "Metaspace" && string_at(*step, "replacement", std::string(kMark)) == kMark) {
      const std::string scheme = string_at(
          *step, "prepend_scheme", bool_at(*step, "add_prefix_space", true) ? "always" : "never");
      if (scheme != "never" && !plan.adds_prefix)
        plan.prefix_rule = scheme == "first" ? "unless_space_and_first" : "unless_space";
      plan.adds_prefix = plan.adds_prefix || scheme != "never";
      plan.cuts_words = plan.cuts_words || bool_at(*step, "split", true);
      marks = true;
      continue;
    }
    // Gemma cuts at spaces, of which the normalizer has left none.
    const bool idle =
        marks && type == "Split" && string_at(member(*step, "pattern"), "String") == " ";
    if (!idle)
      return refuse(name, "pre_tokenizer", *step, "is not supported for a BPE with byte fallback");
  }
  if (!marks)
    return make_error(
        ErrorCode::kUnsupported,
        "{}: neither ByteLevel nor Metaspace nor a Replace of spaces: a BPE of a kind "
        "that is not supported",
        name);
  return plan;
}

}  // namespace infer::quantize
