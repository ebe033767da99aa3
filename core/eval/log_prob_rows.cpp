#include "core/eval/log_prob_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/check.h"

namespace infer::eval {
namespace {

constexpr int64_t kHeader = 4;  // u16 of scale and least
constexpr float kRange = 16.0f;
constexpr float kSteps = 65535.0f;

struct Header {
  float scale, least;
};
static_assert(sizeof(Header) == kHeader * sizeof(uint16_t));

}  // namespace

int64_t log_prob_row_len(int64_t n_vocab) { return 2 * ((n_vocab + 1) / 2) + kHeader; }

double pack_log_probs(const LogitsRow& row, TokenId token, std::span<uint16_t> out) {
  const std::span<const float> x = row.logits;
  INFER_CHECK(std::ssize(out) == log_prob_row_len(std::ssize(x)), "{} for {}", out.size(),
              x.size());
  const float least = std::max(*std::ranges::min_element(x), row.max - kRange);
  const auto log_sum = static_cast<float>(std::log(row.sum_exp));
  const Header header{(row.max - least) / kSteps, least - row.max - log_sum};
  std::memcpy(out.data(), &header, sizeof(header));
  std::ranges::fill(out.subspan(kHeader), uint16_t{0});
  if (header.scale > 0.0f) {
    const float inverse = 1.0f / header.scale;
    for (size_t i = 0; i < x.size(); ++i) {
      const float q = x[i] > least ? std::fmin(inverse * (x[i] - least), kSteps) : 0.0f;
      out[i + kHeader] = static_cast<uint16_t>(std::nearbyint(q));
    }
  }
  return static_cast<double>(row.max) + log_sum - x[static_cast<size_t>(token)];
}

RowDivergence compare_log_probs(const LogitsRow& row, TokenId token,
                                std::span<const uint16_t> base) {
  const std::span<const float> x = row.logits;
  INFER_CHECK(std::ssize(base) == log_prob_row_len(std::ssize(x)), "{} for {}", base.size(),
              x.size());
  Header header{};
  std::memcpy(&header, base.data(), sizeof(header));
  const uint16_t* q = base.data() + kHeader;
  const auto log_p_base = [&](size_t i) { return header.scale * q[i] + header.least; };
  const float log_total = row.max + static_cast<float>(std::log(row.sum_exp));
  // Below this q the base's probability is less than e^-16.
  const float first = header.scale > 0.0f ? (-kRange - header.least) / header.scale : 0.0f;
  RowDivergence d;
  size_t top = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (q[i] > q[top]) top = i;
    if (static_cast<float>(q[i]) < first) continue;
    const float log_p = log_p_base(i);
    if (log_p > -kRange) d.kld += static_cast<double>(std::exp(log_p) * (log_p - x[i] + log_total));
  }
  const auto t = static_cast<size_t>(token);
  d.nll = static_cast<double>(log_total) - x[t];
  d.nll_base = -static_cast<double>(log_p_base(t));
  d.p_diff = std::exp(-d.nll) - std::exp(-d.nll_base);
  d.same_top = static_cast<size_t>(row.argmax) == top;
  return d;
}

}  // namespace infer::eval
