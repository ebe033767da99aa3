#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace infer::text {

/// The stages whose order can be set. Logit biases always come first, the draw comes last.
enum class SamplerKind : uint8_t {
  kPenalties,
  kDry,
  kTopNSigma,
  kTopK,
  kTypicalP,
  kTopP,
  kMinP,
  kXtc,
  kTemperature
};
std::string_view name_of(SamplerKind kind);  ///< as llama.cpp spells it: "penalties", "typ_p", ...
/// llama.cpp's default.
std::vector<SamplerKind> default_sampler_order();
/// "penalties;top_k;temperature" (llama.cpp's --samplers; '-' for '_' and its short names too).
/// Errors: kInvalidArgument naming the unknown sampler.
Result<std::vector<SamplerKind>> parse_sampler_names(std::string_view list);
/// One letter a stage (llama.cpp's --sampling-seq): e penalties, d DRY, s top-n-sigma, k top-k,
/// y typical, p top-p, m min-p, x XTC, t temperature. Errors: kInvalidArgument naming the letter.
Result<std::vector<SamplerKind>> parse_sampler_letters(std::string_view letters);

struct LogitBias {
  int32_t id = 0;
  float bias = 0.0f;  ///< added to the logit; -inf: never drawn
};
/// "15043+1.5", "15043-1", "15043-inf". Errors: kInvalidArgument quoting the text.
Result<LogitBias> parse_logit_bias(std::string_view text);

/// How a token is drawn. Defaults, names and order are llama.cpp's; a stage with its "off" value is
/// left out. "Window": the last n tokens of prompt and answer together. Sources:
///   top-p: arXiv:1904.09751; min-p: arXiv:2407.01082; typical: arXiv:2202.00666; top-n-sigma:
///   arXiv:2411.07641; repetition penalty: arXiv:1909.05858, section 4.1 (negative logits are
///   multiplied, as everybody does since); DRY: github.com/oobabooga/text-generation-webui pull
///   5677; XTC: the same, pull 6335; mirostat 2: arXiv:2007.14966 and its authors' code.
struct SamplingParams {
  float temp = 0.8f;    ///< <= 0: the temperature stage leaves the likeliest token only
  int32_t top_k = 40;   ///< <= 0: off
  float top_p = 0.95f;  ///< >= 1: off
  float min_p = 0.05f;  ///< share of the best candidate's probability; <= 0: off
  uint64_t seed = 0;
  int32_t min_keep = 1;  ///< top-p, min-p, typical and XTC leave at least so many

  float typical_p = 1.0f;     ///< probability of the most typical tokens to keep; >= 1: off
  float top_n_sigma = -1.0f;  ///< standard deviations below the best logit to keep; <= 0: off

  int32_t penalty_last_n = 64;   ///< window of the three penalties; 0: off, -1: all tokens
  float penalty_repeat = 1.0f;   ///< logits of tokens seen are divided by it; 1: off
  float penalty_freq = 0.0f;     ///< subtracted for each time that a token was seen
  float penalty_present = 0.0f;  ///< subtracted once if a token was seen

  float dry_multiplier = 0.0f;  ///< 0: off
  /// A token that would continue a repetition of n tokens loses
  /// multiplier * base ^ (n - allowed_length), from n = allowed_length on.
  float dry_base = 1.75f;
  int32_t dry_allowed_length = 2;
  int32_t dry_penalty_last_n = 64;  ///< window; 0: off, -1: all tokens
  /// Texts that no repetition reaches across.
  std::vector<std::string> dry_breakers{"\n", ":", "\"", "*"};

  float xtc_probability = 0.0f;  ///< of excluding the top choices at a position; 0: off
  float xtc_threshold = 0.1f;    ///< what makes a top choice; > 0.5: off

  /// The temperature lies in temp +- range, by (entropy / largest entropy) ^ exponent; 0: off
  float dynatemp_range = 0.0f;
  float dynatemp_exponent = 1.0f;

  /// 2: mirostat 2.0 draws, and top-k, top-p, min-p, typical, top-n-sigma and XTC are left out;
  /// 0: off.
  int32_t mirostat = 0;
  float mirostat_tau = 5.0f;  ///< surprise aimed at, in bits
  float mirostat_eta = 0.1f;  ///< how fast it is approached

  std::vector<LogitBias> logit_bias{};  ///< of one id several: their sum
  std::vector<SamplerKind> order = default_sampler_order();
};

/// Errors: kInvalidArgument naming the parameter (NaN, out of range).
Result<void> validate(const SamplingParams& params);
/// The same, and whether ids are in the vocabulary.
Result<void> validate(const SamplingParams& params, int32_t n_vocab);

/// True if the result is always the token of the highest logit (the lowest id among equals), so
/// that no Sampler is needed.
bool is_argmax(const SamplingParams& params);

}  // namespace infer::text
