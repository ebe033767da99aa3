#include <string>

#include "core/base/error.h"
#include "core/text/onig_pattern.h"
#include "core/text/pre_rules.h"
#include "core/text/pretokenize.h"
#include "gguf/describe.h"

namespace infer::text {
namespace {

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kDigits = R"(\p{N}+)";
constexpr std::string_view kThreeDigits = "[0-9][0-9][0-9]";
constexpr std::string_view kPunctuation = R"([\p{P}$+<=>^~|]+)";
constexpr std::string_view kPunctuationTick = R"([\p{P}$+<=>^~|`]+)";
// Everything but spaces, brackets, the bar and the ends of sentences in six scripts.
constexpr std::string_view kBloom =
    R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{ff0c}\x{3001}\x{964}\x{6d4}\x{60c})]+)";
// Words begin anew where a capital follows a small letter.
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLineEnd = R"([\r\n])";
constexpr std::string_view kSpaceLetters = R"(\s?\p{L}+)";
constexpr std::string_view kSpacePunctuation = R"(\s?\p{P}+)";
// Chinese and Hangul, with all that lies between U+0800 and U+4E00: the range is as published.
constexpr std::string_view kCjk = R"([\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+)";
constexpr std::string_view kNumbers3 = R"(\p{N}{1,3})";
constexpr std::string_view kHanKana = R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)";
constexpr std::string_view kDeepseekV3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Names and defaults as llama.cpp assigns them (src/llama-vocab.cpp); where its pattern only comes
// near that of the model's tokenizer.json (tekken, gpt-4o), the latter. Names that share a row's
// behaviour exactly are listed; a name whose patterns differ in any way is not supported.
// "gpt-neox" is ours: GPT-2's pattern after NFC, as that model's tokenizer.json says.
constexpr PreTokenizerDef kDefs[] = {
    {.name = "default", .patterns = {kPunctuation, kGpt2, kDigits, kThreeDigits}},
    {.name = "gpt-2", .patterns = {kGpt2}},
    {.name = "phi-2", .patterns = {kGpt2}},
    {.name = "mpt", .patterns = {kGpt2}},
    {.name = "olmo", .patterns = {kGpt2}},
    {.name = "jais", .patterns = {kGpt2}},
    {.name = "trillion", .patterns = {kGpt2}},
    {.name = "granite-docling", .patterns = {kGpt2}},
    {.name = "exaone4", .patterns = {kGpt2}},
    {.name = "gigachat", .patterns = {kGpt2}},
    {.name = "a.x-4.0", .patterns = {kGpt2}},
    {.name = "mellum", .patterns = {kGpt2}},
    {.name = "gpt-neox", .patterns = {kGpt2}, .nfc = true},
    {.name = "smollm", .patterns = {kDigit, kGpt2}},
    {.name = "starcoder", .patterns = {kDigit, kGpt2}},
    {.name = "refact", .patterns = {kDigit, kGpt2}},
    {.name = "command-r", .patterns = {kDigit, kGpt2}},
    {.name = "codeshell", .patterns = {kDigit, kGpt2}},
    {.name = "exaone", .patterns = {kDigit, kGpt2}},
    {.name = "minerva-7b", .patterns = {kDigit, kGpt2}},
    {.name = "mellum2", .patterns = {kDigit, kGpt2}},
    {.name = "llama-bpe", .patterns = {kLlama3}, .ignore_merges = true, .add_bos = true},
    {.name = "llama3", .patterns = {kLlama3}, .ignore_merges = true, .add_bos = true},
    {.name = "llama-v3", .patterns = {kLlama3}, .ignore_merges = true, .add_bos = true},
    {.name = "falcon3", .patterns = {kLlama3}, .ignore_merges = true, .add_bos = true},
    {.name = "falcon-h1", .patterns = {kLlama3}, .ignore_merges = true, .add_bos = true},
    {.name = "pixtral", .patterns = {kLlama3}, .ignore_merges = true, .add_bos = true},
    {.name = "midm-2.0", .patterns = {kLlama3}, .ignore_merges = true, .add_bos = true},
    {.name = "lfm2", .patterns = {kLlama3}, .ignore_merges = true, .add_bos = true},
    {.name = "dbrx", .patterns = {kLlama3}},
    {.name = "smaug-bpe", .patterns = {kLlama3}},
    {.name = "chatglm-bpe", .patterns = {kLlama3}},
    {.name = "glm4", .patterns = {kLlama3}},
    {.name = "qwen2", .patterns = {kQwen2}},
    {.name = "deepseek-r1-qwen", .patterns = {kQwen2}},
    {.name = "stablelm2", .patterns = {kQwen2}},
    {.name = "megrez", .patterns = {kQwen2}},
    {.name = "hunyuan", .patterns = {kQwen2}},
    {.name = "solar-open", .patterns = {kQwen2}},
    {.name = "grok-2", .patterns = {kQwen2}},
    {.name = "kormo", .patterns = {kQwen2}},
    {.name = "f2llmv2", .patterns = {kQwen2}},
    {.name = "falcon", .patterns = {kPunctuationTick, kGpt2, kThreeDigits}},
    {.name = "bloom", .patterns = {kBloom}},
    {.name = "gpt3-finnish", .patterns = {kBloom}},
    {.name = "poro-chat", .patterns = {kBloom}},
    {.name = "viking", .patterns = {kBloom, kDigit}},
    {.name = "tekken", .patterns = {kTekken}, .ignore_merges = true, .add_bos = true},
    {.name = "gpt-4o", .patterns = {kGpt4o}},
    {.name = "llama4", .patterns = {kGpt4o}},
    {.name = "kanana2", .patterns = {kGpt4o}},
    {.name = "talkie", .patterns = {kGpt4o}},
    {.name = "seed-coder", .patterns = {kSeedCoder}},
    {.name = "deepseek-coder",
     .patterns = {kLineEnd, kSpaceLetters, kSpacePunctuation, kCjk, kDigit}},
    {.name = "deepseek-v3", .patterns = {kNumbers3, kHanKana, kDeepseekV3}},
    {.name = "hunyuan-dense", .patterns = {kNumbers3, kHanKana, kDeepseekV3}},
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

/// The pattern as it is compared: models spell the same English endings in several ways. Empty for
/// a pattern that PCRE2 cannot be given.
std::string compared(std::string pattern) {
  constexpr std::string_view endings = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
  replace_all(pattern, "(?i:'s|'t|'re|'ve|'m|'ll|'d)", endings);
  replace_all(pattern, "'(?i:[sdmt]|ll|ve|re)", endings);
  auto translated = pcre2_from_onig(pattern);
  return translated.ok() ? *std::move(translated) : std::string();
}

}  // namespace

std::vector<PreRule> rules_of(const PreTokenizerDef& def) {
  std::vector<PreRule> rules;
  for (const std::string_view pattern : def.patterns) {
    if (pattern.empty()) break;
    rules.push_back({.pattern = std::string(pattern)});
  }
  return rules;
}

Result<const PreTokenizerDef*> find_pre_tokenizer(std::string_view name, std::string_view file) {
  for (const PreTokenizerDef& def : kDefs) {
    if (def.name == name) return &def;
  }
  return make_error(ErrorCode::kUnsupported,
                    "{}: tokenizer.ggml.pre = '{}' is not a pre-tokenizer known here", file,
                    gguf::printable(name));
}

std::string_view known_pre_name(std::span<const PreRule> rules, bool ignore_merges) {
  std::vector<std::string> given;
  for (const PreRule& rule : rules) {
    // Removing what lies between the matches is nothing where all of a text is matched, as by those
    // patterns of the table that end so.
    const bool removes_rest = rule.behavior == SplitBehavior::kRemoved && rule.invert &&
                              rules.size() == 1 && rule.pattern.ends_with(R"(|\s+)");
    const bool isolated = rule.behavior == SplitBehavior::kIsolated;
    if (rule.kind != PreRule::Kind::kSplit || !(isolated || removes_rest)) return {};
    given.push_back(compared(rule.pattern));
    if (given.back().empty()) return {};
  }
  for (const PreTokenizerDef& def : kDefs) {
    const std::vector<PreRule> known = rules_of(def);
    if (def.ignore_merges != ignore_merges || def.nfc || known.size() != given.size()) continue;
    bool same = true;
    for (size_t i = 0; same && i < known.size(); ++i) same = compared(known[i].pattern) == given[i];
    if (same) return def.name;
  }
  return {};
}

}  // namespace infer::text
