#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/text/unicode.h"
#include "gguf/reader.h"

/// How a text is cut into words before byte-level BPE, as a list of steps.
namespace infer::text {

/// What becomes of the matches of a pattern and of what lies between them. Source: the split
/// behaviours of Hugging Face's tokenizers.
enum class SplitBehavior : uint8_t {
  kIsolated,            ///< every match and every rest is a word
  kRemoved,             ///< matches are dropped
  kMergedWithPrevious,  ///< a match is the end of the word before it
  kMergedWithNext,      ///< a match is the beginning of the word after it
  kContiguous,          ///< matches that touch are one word
};

struct PreRule {
  enum class Kind : uint8_t {
    kSplit,
    kPrefixSpace,  ///< a word that does not begin with a space gets one
    kByteLetters,  ///< later steps see GPT-2's stand-in for each byte
  };
  Kind kind = Kind::kSplit;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;    ///< what lies between the matches counts as matched
  std::string pattern{};  ///< in Oniguruma's dialect

  bool operator==(const PreRule&) const = default;
};

/// One line: "prefix_space", "byte_letters" or "split BEHAVIOR PATTERN", BEHAVIOR being isolated,
/// removed, merged_with_previous, merged_with_next or contiguous, with a '!' in front if inverted.
std::string to_string(const PreRule& rule);
/// Errors: kUnsupported for any other line.
Result<PreRule> parse_pre_rule(std::string_view line);

/// Matches a regular expression literally.
std::string quote_pattern(std::string_view text);

/// The name of tokenizer.ggml.pre that stands for these very rules, as far as spelling lets us see;
/// empty if there is none. Two names may differ in `ignore_merges` only.
std::string_view known_pre_name(std::span<const PreRule> rules, bool ignore_merges);

/// What a file says about the way to its words.
struct PreSpec {
  std::vector<PreRule> rules;
  std::vector<NormalForm> forms;  ///< applied first, in order
  bool from_file = false;         ///< the rules are the file's own, not to be trusted
  bool ignore_merges = false;     ///< a word that is a token stays whole, whatever the merges say
  bool add_bos = false;           ///< default when the file does not say
};
/// infer.tokenizer.* where they stand, else what tokenizer.ggml.pre stands for. Errors:
/// kUnsupported, kCorrupt naming file and key.
Result<PreSpec> read_pre_spec(const gguf::Reader& file, std::string_view pre_name);

}  // namespace infer::text
