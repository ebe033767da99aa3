#include "core/base/cpu_features.h"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace infer {

#if defined(__x86_64__)
namespace {

struct Regs {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

Regs cpuid(uint32_t leaf, uint32_t sub = 0) {
  Regs r;
  if (__get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

uint64_t xcr0() {
  uint32_t lo = 0, hi = 0;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (static_cast<uint64_t>(hi) << 32) | lo;
}

bool bit(uint32_t reg, int i) { return ((reg >> i) & 1u) != 0; }

std::string brand() {
  char text[49] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    const Regs r = cpuid(0x80000002u + i);
    std::memcpy(text + i * 16, &r, 16);
  }
  return text;
}

}  // namespace

CpuFeatures detect_cpu_features() {
  CpuFeatures f;
  f.vendor_and_model = brand();
  const Regs one = cpuid(1);
  const bool osxsave = bit(one.c, 27);
  const uint64_t saved = osxsave ? xcr0() : 0;
  const bool ymm = (saved & 0x6) == 0x6;
  const bool zmm = (saved & 0xe6) == 0xe6;
  if (!ymm || !bit(one.c, 28)) return f;
  const Regs seven = cpuid(7);
  const Regs seven_one = cpuid(7, 1);
  f.fma = bit(one.c, 12);
  f.f16c = bit(one.c, 29);
  f.avx2 = bit(seven.b, 5);
  f.avx_vnni = bit(seven_one.a, 4);
  if (!zmm) return f;
  f.avx512f = bit(seven.b, 16);
  f.avx512dq = bit(seven.b, 17);
  f.avx512bw = bit(seven.b, 30);
  f.avx512vl = bit(seven.b, 31);
  f.avx512_vnni = bit(seven.c, 11);
  f.avx512_bf16 = bit(seven_one.a, 5);
  return f;
}

#elif defined(__aarch64__)

CpuFeatures detect_cpu_features() {
  CpuFeatures f;
  f.neon = true;
  f.vendor_and_model = "aarch64";
#if defined(__linux__)
  constexpr unsigned long kAsimdDp = 1ul << 20, kI8mm = 1ul << 13;
  f.dotprod = (getauxval(AT_HWCAP) & kAsimdDp) != 0;
  f.i8mm = (getauxval(AT_HWCAP2) & kI8mm) != 0;
#endif
  return f;
}

#else

CpuFeatures detect_cpu_features() { return {}; }

#endif

}  // namespace infer
