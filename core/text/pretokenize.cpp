#include "core/text/pretokenize.h"

#include "core/base/error.h"
#include "gguf/describe.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace infer::text {
namespace {

// Against blow-up: how often one match may branch. The patterns here are linear on every text we
// know of.
constexpr uint32_t kMatchLimit = 10'000'000;

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
};

// Unicode's White_Space. PCRE2's own \s adds U+180E, which has not been a space since Unicode 6.3.
constexpr std::string_view kSpaceSet =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

std::string with_unicode_spaces(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\') {
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      out += c;
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's') {
      out += in_class ? std::string(kSpaceSet) : '[' + std::string(kSpaceSet) + ']';
    } else if (escaped == 'S') {
      INFER_CHECK(!in_class, "\\S inside a class: {}", pattern);
      out += "[^" + std::string(kSpaceSet) + ']';
    } else {
      out += c;
      out += escaped;
    }
  }
  return out;
}

std::string pcre2_message(int code) {
  char buffer[256] = {};
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof buffer);
  return buffer;
}

struct FreeCode {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};

}  // namespace

struct PreTokenizer::Code {
  std::unique_ptr<pcre2_code, FreeCode> code;
};

struct PreTokenizer::Scratch::Match {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  Match() {
    if (context != nullptr) pcre2_set_match_limit(context, kMatchLimit);
  }
  ~Match() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  Match(const Match&) = delete;
  Match& operator=(const Match&) = delete;
};

PreTokenizer::Scratch::Scratch() : match_(std::make_unique<Match>()) {}
PreTokenizer::Scratch::~Scratch() = default;
PreTokenizer::PreTokenizer(std::vector<std::unique_ptr<Code>> codes) : codes_(std::move(codes)) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<const PreTokenizerDef*> find_pre_tokenizer(std::string_view name, std::string_view file) {
  for (const PreTokenizerDef& def : kDefs) {
    if (def.name == name) return &def;
  }
  return make_error(ErrorCode::kUnsupported,
                    "{}: tokenizer.ggml.pre = '{}' is not a pre-tokenizer known here", file,
                    gguf::printable(name));
}

Result<PreTokenizer> PreTokenizer::compile(const PreTokenizerDef& def) {
  std::vector<std::unique_ptr<Code>> codes;
  for (const std::string_view pattern : def.patterns) {
    if (pattern.empty()) break;
    const std::string source = with_unicode_spaces(pattern);
    int error = 0;
    size_t at = 0;
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                     PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
    if (code == nullptr) {
      return make_error(ErrorCode::kUnsupported,
                        "pre-tokenizer '{}': PCRE2 refuses the pattern at {}: {}", def.name, at,
                        pcre2_message(error));
    }
    pcre2_jit_compile(
        code, PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter does the same, slower
    codes.push_back(std::make_unique<Code>());
    codes.back()->code.reset(code);
  }
  return PreTokenizer(std::move(codes));
}

Result<void> PreTokenizer::split(std::string_view text, Scratch& scratch,
                                 std::vector<size_t>& ends) const {
  pcre2_match_data* data = scratch.match_->data;
  pcre2_match_context* context = scratch.match_->context;
  if (data == nullptr || context == nullptr) {
    return make_error(ErrorCode::kOutOfMemory, "no memory for the pre-tokenizer's match data");
  }
  const size_t* match = pcre2_get_ovector_pointer(data);
  ends.assign(1, text.size());
  for (const auto& code : codes_) {
    scratch.ends_.clear();
    size_t begin = 0;
    for (const size_t end : ends) {
      const auto* part = reinterpret_cast<PCRE2_SPTR>(text.data() + begin);
      const size_t n = end - begin;
      size_t at = 0;
      while (at < n) {
        int rc = pcre2_match(code->code.get(), part, n, at, PCRE2_NO_UTF_CHECK, data, context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its frames on the heap
          rc = pcre2_match(code->code.get(), part, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data,
                           context);
        }
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
          return make_error(ErrorCode::kUnsupported,
                            "the pre-tokenizer gave up at byte {} of {}: {}", begin + at,
                            text.size(), pcre2_message(rc));
        }
        INFER_CHECK(match[1] > at, "a pre-tokenizer pattern matched nothing at {}", at);
        if (match[0] > at) scratch.ends_.push_back(begin + match[0]);
        scratch.ends_.push_back(begin + match[1]);
        at = match[1];
      }
      if (at < n) scratch.ends_.push_back(end);
      begin = end;
    }
    ends.swap(scratch.ends_);
  }
  return {};
}

}  // namespace infer::text
