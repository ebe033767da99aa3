#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

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

/// Errors: kUnsupported for a name that is not in the table.
Result<const PreTokenizerDef*> find_pre_tokenizer(std::string_view name, std::string_view file);

/// Compiled patterns; immutable, safe to share between threads.
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
    std::vector<size_t> ends_;
  };

  static Result<PreTokenizer> compile(const PreTokenizerDef& def);
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  /// Ends of the words of `text`, ascending; the last is text.size(). What no pattern matches is a
  /// word too. Needs:  well-formed UTF-8. Errors: kUnsupported when a match limit is hit.
  Result<void> split(std::string_view text, Scratch& scratch, std::vector<size_t>& ends) const;

 private:
  struct Code;
  explicit PreTokenizer(std::vector<std::unique_ptr<Code>> codes);
  std::vector<std::unique_ptr<Code>> codes_;
};

}  // namespace infer::text
