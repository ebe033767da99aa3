#include "core/text/sampler_params.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "core/base/error.h"

namespace infer::text {
namespace {

constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
constexpr size_t kMaxBreakerBytes = 1024;
constexpr float kInf = std::numeric_limits<float>::infinity();

struct StageName {
  SamplerKind kind;
  char letter;
  std::string_view name;
  std::array<std::string_view, 3> others;
};
/// In the default order.
constexpr std::array<StageName, 9> kStageNames{{
    {SamplerKind::kPenalties, 'e', "penalties", {}},
    {SamplerKind::kDry, 'd', "dry", {}},
    {SamplerKind::kTopNSigma, 's', "top_n_sigma", {}},
    {SamplerKind::kTopK, 'k', "top_k", {}},
    {SamplerKind::kTypicalP, 'y', "typ_p", {"typical_p", "typical", "typ"}},
    {SamplerKind::kTopP, 'p', "top_p", {"nucleus"}},
    {SamplerKind::kMinP, 'm', "min_p", {}},
    {SamplerKind::kXtc, 'x', "xtc", {}},
    {SamplerKind::kTemperature, 't', "temperature", {"temp"}},
}};

std::optional<SamplerKind> find_stage(std::string_view spelled) {
  std::string name(spelled);
  std::replace(name.begin(), name.end(), '-', '_');
  for (const StageName& s : kStageNames) {
    if (name == s.name || (!name.empty() && std::ranges::find(s.others, name) != s.others.end()))
      return s.kind;
  }
  return std::nullopt;
}

Result<void> check_range(std::string_view name, double value, double least, double most) {
  if (value >= least && value <= most) return {};
  if (most == std::numeric_limits<float>::max())
    return make_error(kCode, "{} = {} is not a number >= {}", name, value, least);
  return make_error(kCode, "{} = {} is not in {}..{}", name, value, least, most);
}

Result<void> check_finite(std::string_view name, double value) {
  if (std::isfinite(value)) return {};
  return make_error(kCode, "{} = {} is not a finite number", name, value);
}

Result<void> validate_history(const SamplingParams& p) {
  constexpr double kMost = std::numeric_limits<float>::max();
  if (p.penalty_last_n < -1)
    return make_error(kCode, "penalty_last_n = {} is below -1", p.penalty_last_n);
  if (!(p.penalty_repeat > 0.0f && p.penalty_repeat < kInf))
    return make_error(kCode, "penalty_repeat = {} is not a number > 0", p.penalty_repeat);
  INFER_TRY(check_finite("penalty_freq", p.penalty_freq));
  INFER_TRY(check_finite("penalty_present", p.penalty_present));
  INFER_TRY(check_range("dry_multiplier", p.dry_multiplier, 0.0, kMost));
  INFER_TRY(check_range("dry_base", p.dry_base, 1.0, kMost));
  if (p.dry_allowed_length < 0)
    return make_error(kCode, "dry_allowed_length = {} is negative", p.dry_allowed_length);
  if (p.dry_penalty_last_n < -1)
    return make_error(kCode, "dry_penalty_last_n = {} is below -1", p.dry_penalty_last_n);
  for (size_t i = 0; i < p.dry_breakers.size(); ++i) {
    const size_t n = p.dry_breakers[i].size();
    if (n == 0 || n > kMaxBreakerBytes)
      return make_error(kCode, "dry_breakers[{}] has {} bytes, not 1..{}", i, n, kMaxBreakerBytes);
  }
  return {};
}

bool has(const SamplingParams& p, SamplerKind kind) {
  return std::ranges::find(p.order, kind) != p.order.end();
}

}  // namespace

std::string_view name_of(SamplerKind kind) {
  for (const StageName& s : kStageNames) {
    if (s.kind == kind) return s.name;
  }
  return "unknown";
}

std::vector<SamplerKind> default_sampler_order() {
  std::vector<SamplerKind> order;
  order.reserve(std::size(kStageNames));
  for (const StageName& s : kStageNames) order.push_back(s.kind);
  return order;
}

Result<std::vector<SamplerKind>> parse_sampler_names(std::string_view list) {
  std::vector<SamplerKind> order;
  while (!list.empty()) {
    const size_t end = list.find(';');
    const std::string_view name = list.substr(0, end);
    list.remove_prefix(end == std::string_view::npos ? list.size() : end + 1);
    const auto kind = find_stage(name);
    if (!kind) {
      std::string known;
      for (const StageName& s : kStageNames)
        known += (known.empty() ? "" : ", ") + std::string(s.name);
      return make_error(kCode, "no sampler is called '{}'; there are {}", name, known);
    }
    order.push_back(*kind);
  }
  return order;
}

Result<std::vector<SamplerKind>> parse_sampler_letters(std::string_view letters) {
  std::vector<SamplerKind> order;
  for (char c : letters) {
    const auto it = std::ranges::find(kStageNames, c, &StageName::letter);
    if (it == kStageNames.end())
      return make_error(kCode, "no sampler has the letter '{}'; there are edskypmxt", c);
    order.push_back(it->kind);
  }
  return order;
}

Result<LogitBias> parse_logit_bias(std::string_view text) {
  LogitBias bias;
  const char* end = text.data() + text.size();
  const auto [sign, id_error] = std::from_chars(text.data(), end, bias.id);
  const bool has_sign = id_error == std::errc() && sign != end && (*sign == '+' || *sign == '-');
  float size = 0.0f;
  if (has_sign) {
    const auto [rest, error] = std::from_chars(sign + 1, end, size);
    if (error == std::errc() && rest == end && bias.id >= 0 && size >= 0.0f &&
        (size < kInf || *sign == '-')) {
      bias.bias = *sign == '-' ? -size : size;
      return bias;
    }
  }
  return make_error(kCode, "'{}' is not a token id with a bias, such as 15043+1.5 or 15043-inf",
                    text);
}

Result<void> validate(const SamplingParams& p) {
  constexpr double kMost = std::numeric_limits<float>::max();
  INFER_TRY(check_finite("temp", p.temp));
  if (!(p.top_p >= 0.0f)) return make_error(kCode, "top_p = {} is not >= 0", p.top_p);
  if (!(p.min_p <= 1.0f)) return make_error(kCode, "min_p = {} is not <= 1", p.min_p);
  if (p.min_keep < 0) return make_error(kCode, "min_keep = {} is negative", p.min_keep);
  if (!(p.typical_p >= 0.0f)) return make_error(kCode, "typical_p = {} is not >= 0", p.typical_p);
  INFER_TRY(check_finite("top_n_sigma", p.top_n_sigma));
  INFER_TRY(validate_history(p));
  INFER_TRY(check_range("xtc_probability", p.xtc_probability, 0.0, 1.0));
  INFER_TRY(check_range("xtc_threshold", p.xtc_threshold, 0.0, 1.0));
  INFER_TRY(check_range("dynatemp_range", p.dynatemp_range, 0.0, kMost));
  INFER_TRY(check_range("dynatemp_exponent", p.dynatemp_exponent, 0.0, kMost));
  if (p.mirostat != 0 && p.mirostat != 2)
    return make_error(kCode, "mirostat = {} is not 0 or 2 (mirostat 1 is not there)", p.mirostat);
  INFER_TRY(check_range("mirostat_tau", p.mirostat_tau, 0.0, kMost));
  INFER_TRY(check_range("mirostat_eta", p.mirostat_eta, 0.0, kMost));
  for (size_t i = 0; i < p.logit_bias.size(); ++i) {
    const LogitBias& b = p.logit_bias[i];
    if (b.id < 0) return make_error(kCode, "logit_bias[{}]: token {} is negative", i, b.id);
    if (!(b.bias < kInf))
      return make_error(kCode, "logit_bias[{}] = {} is neither finite nor -inf", i, b.bias);
  }
  return {};
}

Result<void> validate(const SamplingParams& p, int32_t n_vocab) {
  INFER_TRY(validate(p));
  for (size_t i = 0; i < p.logit_bias.size(); ++i) {
    if (p.logit_bias[i].id >= n_vocab)
      return make_error(kCode, "logit_bias[{}]: token {} is not in a vocabulary of {} tokens", i,
                        p.logit_bias[i].id, n_vocab);
  }
  return {};
}

bool is_argmax(const SamplingParams& p) {
  const bool penalties =
      p.penalty_last_n != 0 &&
      (p.penalty_repeat != 1.0f || p.penalty_freq != 0.0f || p.penalty_present != 0.0f);
  const bool dry = p.dry_multiplier > 0.0f && p.dry_penalty_last_n != 0;
  const bool typical = p.typical_p < 1.0f && p.mirostat == 0;
  const bool xtc = p.xtc_probability > 0.0f && p.mirostat == 0;
  if (!p.logit_bias.empty() || (penalties && has(p, SamplerKind::kPenalties)) ||
      (dry && has(p, SamplerKind::kDry)) || (typical && has(p, SamplerKind::kTypicalP)) ||
      (xtc && has(p, SamplerKind::kXtc)))
    return false;
  return (p.temp <= 0.0f && has(p, SamplerKind::kTemperature)) ||
         (p.top_k == 1 && p.mirostat == 0 && has(p, SamplerKind::kTopK));
}

}  // namespace infer::text
