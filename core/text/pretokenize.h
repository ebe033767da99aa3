#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/text/pre_rules.h"

namespace infer::text {

/// How one `tokenizer.ggml.pre` cuts a text into words.
struct PreTokenizerDef {
  std::string_view name;
  std::array<std::string_view, 6>
      patterns;  ///< applied one after the other, each to the parts left by the one before
  bool ignore_merges = false;  ///< a word that is a token stays whole, whatever the merges say
  bool add_bos = false;        ///< default when the file does not say
  bool nfc = false;            ///< canonical composition first
};

std::vector<PreRule> rules_of(const PreTokenizerDef& def);

/// Errors: kUnsupported for a name that is not in the table.
Result<const PreTokenizerDef*> find_pre_tokenizer(std::string_view name, std::string_view file);

/// Compiled rules; immutable, safe to share between threads.
class PreTokenizer {
 public:
  /// Working memory of one caller.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class PreTokenizer;
    struct Match;
    std::unique_ptr<Match> match_;
    std::vector<std::string_view> next_;
    std::string texts_[2];  ///< what the words lie in once a step has changed the text
  };

  /// Rules that are not `trusted` (they come from a file) get less time to match: a text that would
  /// take them long is an error. Errors: kUnsupported for a pattern that cannot be compiled.
  static Result<PreTokenizer> compile(std::span<const PreRule> rules, bool trusted);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  /// Cuts `text` into words, in order. They lie in `text` or in `scratch`. What no pattern matches
  /// is a word too. Needs: well-formed UTF-8. Errors: kUnsupported when a match limit is hit.
  Result<void> split(std::string_view text, Scratch& scratch,
                     std::vector<std::string_view>& words) const;

 private:
  struct Step;
  class Run;
  PreTokenizer(std::vector<Step> steps, bool trusted);
  std::vector<Step> steps_;
  bool trusted_ = true;
};

}  // namespace infer::text
