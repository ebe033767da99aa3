#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

namespace infer::cpu::bench {

/// How long and how often something is timed.
struct Timing {
  int n_rep = 5;            ///< samples
  double sample_ms = 50.0;  ///< a sample repeats its calls until it lasts about so long
};

/// Seconds a call, one value a sample. `calls(n)` makes n calls. The number of calls a sample is
/// found by trying, which warms up as well.
template <class Calls>
std::vector<double> time_calls(const Timing& timing, Calls&& calls) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [&](int64_t n) {
    const Clock::time_point begin = Clock::now();
    calls(n);
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  const double want = timing.sample_ms * 1e-3;
  int64_t n = 1;
  for (double t = seconds(n); t < want; t = seconds(n)) {
    const double grow = std::clamp(1.1 * want / std::max(t, 1e-9), 1.5, 64.0);
    n = static_cast<int64_t>(static_cast<double>(n) * grow) + 1;
  }
  std::vector<double> samples;
  samples.reserve(static_cast<size_t>(timing.n_rep));
  for (int i = 0; i < timing.n_rep; ++i) samples.push_back(seconds(n) / static_cast<double>(n));
  return samples;
}

}  // namespace infer::cpu::bench
