#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quantize/convert/safetensors.h"
#include "tests/support/model_fixture.h"
#include "tests/support/source_image.h"
#include "tests/support/test_env.h"

/// What `transformers` computed for the tiny checkpoints of shared_dir()/golden/hf.
namespace infer::test {

struct Expected {
  std::vector<TokenId> ids, greedy;
  std::vector<float> logits;  ///< [ids.size(), n_vocab]
  double std_dev = 0.0;
};

inline std::vector<TokenId> token_ids(const std::vector<int64_t>& x) {
  return {x.begin(), x.end()};
}

inline Expected expected_of(const std::string& name) {
  const auto file = must(quantize::SafeTensors::open_file(
      (shared_dir() / "golden/hf" / name / "expected.safetensors").string()));
  Expected e{token_ids(must(ints_of(file, "input_ids"))), token_ids(must(ints_of(file, "greedy"))),
             must(floats_of(file, "logits"))};
  double sum = 0.0;
  double squares = 0.0;
  for (const float v : e.logits) {
    sum += v;
    squares += static_cast<double>(v) * v;
  }
  const auto n = static_cast<double>(e.logits.size());
  e.std_dev = std::sqrt(squares / n - sum / n * (sum / n));
  return e;
}

/// Largest |a - b|; infinite when a shape or a NaN stands in the way.
inline double max_diff(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(static_cast<double>(a[i]) - b[i]);
    if (!(d <= worst)) worst = std::isnan(d) ? INFINITY : d;
  }
  return worst;
}

}  // namespace infer::test
