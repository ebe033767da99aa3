#include <cstring>

#include "kernels/cpu/roofline_loops.h"

/// What the compiler makes of plain code at the baseline. Accumulators are independent chains,
/// enough of them to hide an add's latency.
namespace infer::kern::generic {
namespace {

using F32x4 = float __attribute__((vector_size(16)));

/// The compiler must take the value as new here, or it would compute a product once for all.
[[gnu::always_inline]] inline void renew(F32x4& v) {
#if defined(__x86_64__)
  __asm__ volatile("" : "+x"(v));
#elif defined(__aarch64__)
  __asm__ volatile("" : "+w"(v));
#else
  __asm__ volatile("" : "+m"(v));
#endif
}

double f32_mul_add(const RooflineArgs& args) {
  constexpr int kChains = 8;
  F32x4 a, b, acc[kChains] = {};
  std::memcpy(&a, args.f32_a, sizeof(a));
  std::memcpy(&b, args.f32_b, sizeof(b));
  for (int64_t it = args.n_iter; it > 0; --it) {
    roofline_each<kChains>([&](auto i) {
      renew(a);
      acc[i.value] += a * b;
    });
  }
  double sum = 0.0;
  for (const F32x4& chain : acc)
    for (int i = 0; i < 4; ++i) sum += static_cast<double>(chain[i]);
  return sum;
}

constexpr int kInt8Elems = 64;

double int8_plain(const RooflineArgs& args) {
  uint8_t a[kInt8Elems];
  int8_t b[kInt8Elems];
  for (int i = 0; i < kInt8Elems; ++i) {
    a[i] = args.u8_a[i % 16];
    b[i] = args.i8_b[i % 16];
  }
  int64_t total = 0;
  for (int64_t it = args.n_iter; it > 0; --it) {
    __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
    int32_t sum = 0;
    for (int i = 0; i < kInt8Elems; ++i) sum += static_cast<int32_t>(a[i]) * b[i];
    total += sum;
  }
  return static_cast<double>(total);
}

}  // namespace

uint64_t roofline_read(const std::byte* data, int64_t n_bytes) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < n_bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, sizeof(word));
    sum += word;
  }
  return sum;
}

// The f32 operands are the first four of the sixteen: they repeat with a period of four as well.
constexpr RooflineLoop::Kind kF32 = RooflineLoop::Kind::kF32, kInt8 = RooflineLoop::Kind::kInt8;
const RooflineLoop kRooflineLoops[2] = {
    {"f32_mul_add", "multiply, add", kF32, 2 * 8 * 4, f32_mul_add},
    {"int8_plain", "widen, multiply, add in 32 bits", kInt8, 2 * kInt8Elems, int8_plain},
};

}  // namespace infer::kern::generic
