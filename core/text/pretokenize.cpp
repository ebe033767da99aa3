#include "core/text/pretokenize.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/text/onig_pattern.h"
#include "core/text/unicode.h"
#include "gguf/describe.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace infer::text {
namespace {

// Against blow-up: how often one attempt to match may branch. The named patterns are linear on
// every text we know of.
constexpr uint32_t kMatchLimit = 10'000'000;
// Patterns from a file: fewer branches, a window of starting places at a time, and a look at the
// clock after each. A text of 1 MiB takes a sound pattern far less than a second.
constexpr uint32_t kUntrustedMatchLimit = 1'000'000;
constexpr uint32_t kUntrustedHeapKib = 64 * 1024;
constexpr size_t kUntrustedWindow = 1024;
constexpr std::chrono::seconds kUntrustedTime{10};
// Sound rules make at most 5 bytes of one: a space before it, and stand-ins of two bytes. A file
// may have more steps, each of which could grow the text again.
constexpr size_t kMaxGrowth = 8;
constexpr size_t kMaxGrownText = size_t{1} << 31;

std::string pcre2_message(int code) {
  char buffer[256] = {};
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof buffer);
  return buffer;
}

struct FreeCode {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};
struct FreeContext {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};

struct Piece {
  size_t begin, end;
  bool matched;
};

void push_word(std::string_view word, std::vector<std::string_view>& out) {
  if (!word.empty()) out.push_back(word);
}

/// Joins or drops the pieces of one part as `behavior` asks.
void fold(std::vector<Piece>& pieces, SplitBehavior behavior) {
  if (behavior == SplitBehavior::kRemoved) {
    std::erase_if(pieces, [](const Piece& p) { return p.matched; });
    return;
  }
  std::vector<Piece> kept;
  bool before = false;
  const auto joins = [&](const Piece& p) {
    if (behavior == SplitBehavior::kContiguous) return p.matched == before;
    return p.matched && !before;
  };
  if (behavior == SplitBehavior::kMergedWithNext) {
    for (size_t i = pieces.size(); i-- > 0; before = pieces[i].matched) {
      if (joins(pieces[i]) && !kept.empty()) {
        kept.back().begin = pieces[i].begin;
      } else {
        kept.push_back(pieces[i]);
      }
    }
    pieces.assign(kept.rbegin(), kept.rend());
    return;
  }
  for (const Piece& p : pieces) {
    if (joins(p) && !kept.empty()) {
      kept.back().end = p.end;
    } else {
      kept.push_back(p);
    }
    before = p.matched;
  }
  pieces = std::move(kept);
}

}  // namespace

struct PreTokenizer::Step {
  PreRule rule;
  std::unique_ptr<pcre2_code, FreeCode> code;  ///< null unless a split
};

struct PreTokenizer::Scratch::Match {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  Match() = default;
  ~Match() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  Match(const Match&) = delete;
  Match& operator=(const Match&) = delete;
};

PreTokenizer::Scratch::Scratch() : match_(std::make_unique<Match>()) {}
PreTokenizer::Scratch::~Scratch() = default;
PreTokenizer::PreTokenizer(std::vector<Step> steps, bool trusted)
    : steps_(std::move(steps)), trusted_(trusted) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer> PreTokenizer::compile(std::span<const PreRule> rules, bool trusted) {
  const std::unique_ptr<pcre2_compile_context, FreeContext> context(
      pcre2_compile_context_create(nullptr));
  if (context == nullptr)
    return make_error(ErrorCode::kOutOfMemory, "no memory for the pre-tokenizer's patterns");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  std::vector<Step> steps;
  for (const PreRule& rule : rules) {
    steps.push_back({rule, nullptr});
    if (rule.kind != PreRule::Kind::kSplit) continue;
    auto source = pcre2_from_onig(rule.pattern);
    if (!source.ok()) {
      return make_error(source.error().code, "pre-tokenizer rule '{}': {}",
                        gguf::printable(rule.pattern), source.error().message);
    }
    int error = 0;
    size_t at = 0;
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                             (trusted ? 0u : PCRE2_USE_OFFSET_LIMIT);
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source->data()), source->size(),
                                     options, &error, &at, context.get());
    if (code == nullptr) {
      return make_error(ErrorCode::kUnsupported, "pre-tokenizer rule '{}': PCRE2 refuses it: {}",
                        gguf::printable(rule.pattern), pcre2_message(error));
    }
    steps.back().code.reset(code);
    // Where there is no JIT the interpreter does the same, slower.
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  }
  return PreTokenizer(std::move(steps), trusted);
}

/// One call of split.
class PreTokenizer::Run {
 public:
  Run(const PreTokenizer& pre, Scratch& scratch)
      : trusted_(pre.trusted_),
        scratch_(scratch),
        data_(scratch.match_->data),
        context_(scratch.match_->context) {}

  Result<void> prepare(size_t n_text) {
    n_max_ = std::min(checked_mul(n_text, kMaxGrowth).value_or(kMaxGrownText), kMaxGrownText);
    if (data_ == nullptr || context_ == nullptr) {
      return make_error(ErrorCode::kOutOfMemory, "no memory for the pre-tokenizer's match data");
    }
    pcre2_set_match_limit(context_, trusted_ ? kMatchLimit : kUntrustedMatchLimit);
    if (!trusted_) {
      pcre2_set_heap_limit(context_, kUntrustedHeapKib);
      deadline_ = std::chrono::steady_clock::now() + kUntrustedTime;
    }
    return {};
  }

  Result<void> step(const Step& step, std::vector<std::string_view>& words) {
    switch (step.rule.kind) {
      case PreRule::Kind::kPrefixSpace:
        return rewrite(step.rule, words, [](std::string_view word, std::string& out) {
          if (!word.starts_with(' ')) out += ' ';
          out += word;
        });
      case PreRule::Kind::kByteLetters:
        if (std::exchange(letters_, true)) return {};
        return rewrite(step.rule, words, [](std::string_view word, std::string& out) {
          append_stand_ins(out, word);
        });
      case PreRule::Kind::kSplit:
        break;
    }
    std::vector<std::string_view>& next = scratch_.next_;
    next.clear();
    for (const std::string_view word : words) INFER_TRY(split_part(step, word, next));
    words.swap(next);
    return {};
  }

  /// Stand-ins become bytes again.
  Result<void> finish(std::vector<std::string_view>& words) {
    if (!letters_) return {};
    return rewrite(
        {.kind = PreRule::Kind::kByteLetters}, words,
        [](std::string_view word, std::string& out) { append_from_stand_ins(out, word); });
  }

 private:
  template <class Append>
  Result<void> rewrite(const PreRule& rule, std::vector<std::string_view>& words, Append append) {
    std::string& text = scratch_.texts_[flip_];
    flip_ = 1 - flip_;
    text.clear();
    std::vector<size_t> ends;
    for (const std::string_view word : words) {
      append(word, text);
      ends.push_back(text.size());
      if (text.size() > n_max_) {
        return make_error(ErrorCode::kUnsupported,
                          "pre-tokenizer rule '{}' makes the text too long: above {} bytes",
                          to_string(rule), n_max_);
      }
    }
    size_t begin = 0;
    for (size_t i = 0; i < words.size(); ++i) {
      words[i] = std::string_view(text).substr(begin, ends[i] - begin);
      begin = ends[i];
    }
    return {};
  }

  Result<void> split_part(const Step& step, std::string_view part,
                          std::vector<std::string_view>& out) {
    const bool plain = step.rule.behavior == SplitBehavior::kIsolated;
    pieces_.clear();
    size_t done = 0, at = 0;
    std::optional<size_t> last_end;
    const auto piece = [&](size_t begin, size_t end, bool matched) {
      if (plain) return push_word(part.substr(begin, end - begin), out);
      pieces_.push_back({begin, end, matched != step.rule.invert});
    };
    while (at <= part.size()) {
      INFER_ASSIGN(const auto match, next_match(step, part, at));
      if (!match) break;
      const auto [begin, end] = *match;
      if (begin == end && last_end == end) {  // Oniguruma's iterator steps over such a match
        at = end < part.size() ? end + utf8_step(part, end).len : end + 1;
        continue;
      }
      if (begin > done) piece(done, begin, false);
      piece(begin, end, true);
      done = at = end;
      last_end = end;
    }
    if (done < part.size()) piece(done, part.size(), false);
    if (plain) return {};
    fold(pieces_, step.rule.behavior);
    for (const Piece& p : pieces_) push_word(part.substr(p.begin, p.end - p.begin), out);
    return {};
  }

  /// The first match at or behind `at`.
  Result<std::optional<std::pair<size_t, size_t>>> next_match(const Step& step,
                                                              std::string_view part, size_t at) {
    using Found = std::optional<std::pair<size_t, size_t>>;
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(part.data());
    for (;;) {
      size_t window_end = part.size();
      if (!trusted_) {
        if (std::chrono::steady_clock::now() > deadline_)
          return make_error(ErrorCode::kUnsupported,
                            "pre-tokenizer rule '{}' takes too long on this text",
                            gguf::printable(step.rule.pattern));
        window_end = std::min(part.size(), at + kUntrustedWindow);
        while (window_end < part.size() && (part[window_end] & 0xc0) == 0x80) ++window_end;
        pcre2_set_offset_limit(context_, window_end);
      }
      int rc = pcre2_match(step.code.get(), subject, part.size(), at, PCRE2_NO_UTF_CHECK, data_,
                           context_);
      if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its frames on the heap
        rc = pcre2_match(step.code.get(), subject, part.size(), at,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data_, context_);
      }
      if (rc == PCRE2_ERROR_NOMATCH) {
        if (window_end >= part.size()) return Found();
        at = window_end;
        continue;
      }
      if (rc < 0) {
        return make_error(ErrorCode::kUnsupported, "the pre-tokenizer gave up at byte {} of {}: {}",
                          at, part.size(), pcre2_message(rc));
      }
      const size_t* match = pcre2_get_ovector_pointer(data_);
      INFER_CHECK(match[0] >= at && match[1] >= match[0], "a match of [{}, {}) behind {}", match[0],
                  match[1], at);
      return Found({match[0], match[1]});
    }
  }

  const bool trusted_;
  size_t n_max_ = 0;  // bytes that a text may become
  Scratch& scratch_;
  pcre2_match_data* data_;
  pcre2_match_context* context_;
  std::chrono::steady_clock::time_point deadline_{};
  std::vector<Piece> pieces_;
  bool letters_ = false;
  int flip_ = 0;
};

Result<void> PreTokenizer::split(std::string_view text, Scratch& scratch,
                                 std::vector<std::string_view>& words) const {
  words.clear();
  push_word(text, words);
  Run run(*this, scratch);
  INFER_TRY(run.prepare(text.size()));
  for (const Step& step : steps_) INFER_TRY(run.step(step, words));
  return run.finish(words);
}

}  // namespace infer::text
