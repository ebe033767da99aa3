#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/error.h"
#include "core/base/result.h"

namespace infer::text::jinja {

/// What one template may use. The defaults stop the worst template in well under a second and
/// leave room for chats of some hundred thousand tokens.
struct Limits {
  int64_t max_steps = 5'000'000;       ///< nodes evaluated, list items made, 16 bytes of text made
  size_t max_text_bytes = 16u << 20;   ///< of any one string, the output among them
  size_t max_source_bytes = 1u << 20;  ///< of the template
  int max_eval_depth = 600;            ///< nested evaluations: expressions, blocks, macro calls
  int max_parse_depth = 200;           ///< nested brackets, blocks, signs
  int max_value_depth = 64;            ///< lists in lists
};

/// Counts down what is left of max_steps.
class Budget {
 public:
  explicit Budget(const Limits& limits) : limits_(limits), left_(limits.max_steps) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  const Limits& limits() const { return limits_; }
  Result<void> charge(int64_t steps) {
    left_ -= steps;
    if (left_ < 0) return spent();
    return {};
  }
  /// The cost of making `n_bytes` of text; refuses a text that would be too long.
  Result<void> charge_text(size_t n_bytes) {
    if (n_bytes > limits_.max_text_bytes) return too_long();
    return charge(1 + static_cast<int64_t>(n_bytes / 16));
  }
  int64_t used() const { return limits_.max_steps - left_; }

 private:
  [[gnu::noinline]] Error spent() const {
    return make_error(ErrorCode::kOutOfMemory, "more than {} steps", limits_.max_steps);
  }
  [[gnu::noinline]] Error too_long() const {
    return make_error(ErrorCode::kOutOfMemory, "a text of more than {} bytes",
                      limits_.max_text_bytes);
  }

  const Limits limits_;
  int64_t left_;
};

}  // namespace infer::text::jinja
