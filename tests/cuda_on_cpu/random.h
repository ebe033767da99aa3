#pragma once

#include <cstddef>
#include <cstdint>

namespace infer::cuda::emulated {

/// splitmix64: small, seeded, the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed = 0) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// In [0, n), n at most 2^32.
  uint32_t below(uint64_t n) { return static_cast<uint32_t>(((next() >> 32) * n) >> 32); }

 private:
  uint64_t state_;
};

template <class Items>
void shuffle_items(Items& items, Random& random) {
  for (std::size_t i = items.size(); i > 1; --i) {
    const std::size_t j = random.below(i);
    const auto t = items[i - 1];
    items[i - 1] = items[j];
    items[j] = t;
  }
}

}  // namespace infer::cuda::emulated
