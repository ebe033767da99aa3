#include "core/text/pre_rules.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/base/error.h"
#include "core/text/onig_pattern.h"
#include "core/text/pretokenize.h"
#include "gguf/describe.h"
#include "gguf/keys.h"

namespace infer::text {
namespace {

constexpr int64_t kMaxRules = 32;
constexpr std::string_view kPrefixSpace = "prefix_space";
constexpr std::string_view kByteLetters = "byte_letters";
constexpr std::string_view kSplit = "split ";
constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kBehaviors = {
    {{"isolated", SplitBehavior::kIsolated},
     {"removed", SplitBehavior::kRemoved},
     {"merged_with_previous", SplitBehavior::kMergedWithPrevious},
     {"merged_with_next", SplitBehavior::kMergedWithNext},
     {"contiguous", SplitBehavior::kContiguous}}};
constexpr std::array<std::pair<std::string_view, NormalForm>, 4> kForms = {
    {{"nfc", NormalForm::kNfc},
     {"nfd", NormalForm::kNfd},
     {"nfkc", NormalForm::kNfkc},
     {"nfkd", NormalForm::kNfkd}}};

/// An array of strings, or nullptr when the key is missing.
Result<const gguf::Value*> find_strings(const gguf::Reader& file, std::string_view key) {
  const gguf::Value* v = file.find(key);
  if (v == nullptr) return v;
  if (v->type() != gguf::ValueType::kArray || v->elem_type() != gguf::ValueType::kString) {
    return make_error(ErrorCode::kCorrupt, "{}: {} is not an array of strings", file.path(), key);
  }
  if (v->size() > kMaxRules) {
    return make_error(ErrorCode::kUnsupported, "{}: {} has {} elements, the limit is {}",
                      file.path(), key, v->size(), kMaxRules);
  }
  return v;
}

Result<void> read_rules(const gguf::Reader& file, PreSpec& spec) {
  constexpr std::string_view key = gguf::keys::kInferPreRules;
  INFER_ASSIGN(const gguf::Value* lines, find_strings(file, key));
  if (lines == nullptr) return {};
  spec.from_file = true;
  spec.rules.clear();
  for (int64_t i = 0; i < lines->size(); ++i) {
    INFER_ASSIGN(const std::string_view line, lines->string_at(i));
    auto rule = parse_pre_rule(line);
    if (!rule.ok()) {
      return make_error(rule.error().code, "{}: {}[{}]: {}", file.path(), key, i,
                        rule.error().message);
    }
    spec.rules.push_back(*std::move(rule));
  }
  return {};
}

Result<void> read_forms(const gguf::Reader& file, PreSpec& spec) {
  constexpr std::string_view key = gguf::keys::kInferNormalizer;
  INFER_ASSIGN(const gguf::Value* names, find_strings(file, key));
  if (names == nullptr) return {};
  spec.forms.clear();
  for (int64_t i = 0; i < names->size(); ++i) {
    INFER_ASSIGN(const std::string_view name, names->string_at(i));
    const auto* known = std::find_if(kForms.begin(), kForms.end(),
                                     [&](const auto& form) { return form.first == name; });
    if (known == kForms.end()) {
      return make_error(ErrorCode::kUnsupported, "{}: {}[{}] = '{}' is not known here", file.path(),
                        key, i, gguf::printable(name));
    }
    spec.forms.push_back(known->second);
  }
  return {};
}

}  // namespace

std::string to_string(const PreRule& rule) {
  if (rule.kind == PreRule::Kind::kPrefixSpace) return std::string(kPrefixSpace);
  if (rule.kind == PreRule::Kind::kByteLetters) return std::string(kByteLetters);
  std::string out(kSplit);
  if (rule.invert) out += '!';
  for (const auto& [name, behavior] : kBehaviors) {
    if (behavior == rule.behavior) out += name;
  }
  return out + ' ' + rule.pattern;
}

Result<PreRule> parse_pre_rule(std::string_view line) {
  PreRule rule;
  if (line == kPrefixSpace) {
    rule.kind = PreRule::Kind::kPrefixSpace;
    return rule;
  }
  if (line == kByteLetters) {
    rule.kind = PreRule::Kind::kByteLetters;
    return rule;
  }
  std::string_view rest = line;
  if (rest.starts_with(kSplit)) {
    rest.remove_prefix(kSplit.size());
    rule.invert = rest.starts_with('!');
    if (rule.invert) rest.remove_prefix(1);
    for (const auto& [name, behavior] : kBehaviors) {
      if (!rest.starts_with(name) || rest.substr(name.size(), 1) != " ") continue;
      rule.behavior = behavior;
      rule.pattern = rest.substr(name.size() + 1);
      return rule;
    }
  }
  return make_error(ErrorCode::kUnsupported, "'{}' is no rule known here", gguf::printable(line));
}

std::string quote_pattern(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool ascii = c > 0x20 && c < 0x7f;
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (ascii && !letter) out += '\\';
    out += c;
  }
  return out;
}

Result<PreSpec> read_pre_spec(const gguf::Reader& file, std::string_view pre_name) {
  PreSpec spec;
  INFER_ASSIGN(const PreTokenizerDef* def, find_pre_tokenizer(pre_name, file.path()));
  spec.rules = rules_of(*def);
  spec.ignore_merges = def->ignore_merges;
  spec.add_bos = def->add_bos;
  if (def->nfc) spec.forms.push_back(NormalForm::kNfc);
  INFER_TRY(read_rules(file, spec));
  INFER_TRY(read_forms(file, spec));
  INFER_ASSIGN(spec.ignore_merges,
               file.get_bool(gguf::keys::kInferIgnoreMerges, spec.ignore_merges));
  return spec;
}

}  // namespace infer::text
