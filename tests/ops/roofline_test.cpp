#include "kernels/cpu/roofline.h"

#include <cstring>
#include <iostream>
#include <random>
#include <vector>

#include <gtest/gtest.h>

/// The loops of `infer-bench roofline` do the arithmetic that they are credited with. How fast they
/// are is nobody's test.
namespace infer::test {
namespace {

using kern::RooflineArgs;
using kern::RooflineLevel;
using kern::RooflineLoop;

/// Operands with a period of 4 (f32) and 16 (8 bits), and the mean product of each.
struct Operands {
  RooflineArgs args;
  double mean_f32 = 0.0, mean_int8 = 0.0;
};

Operands operands(int64_t n_iter) {
  Operands o;
  o.args.n_iter = n_iter;
  for (int i = 0; i < 16; ++i) {
    o.args.f32_a[i] = static_cast<float>(1 + i % 4);
    o.args.f32_b[i] = static_cast<float>(3 - 2 * (i % 4));
    o.args.u8_a[i] = static_cast<uint8_t>(15 - i % 7);
    o.args.i8_b[i] = static_cast<int8_t>(127 - 17 * i);
    o.mean_f32 += static_cast<double>(o.args.f32_a[i] * o.args.f32_b[i]) / 16.0;
    o.mean_int8 += static_cast<double>(o.args.u8_a[i] * o.args.i8_b[i]) / 16.0;
  }
  return o;
}

TEST(Roofline, LoopsDoTheWorkTheyAreCreditedWith) {
  const CpuFeatures cpu = detect_cpu_features();
  for (const RooflineLevel& level : kern::roofline_levels()) {
    if (!level.supported(cpu)) {
      std::cout << "[ not run ] " << level.isa << ": this CPU lacks one of " << level.needs << '\n';
      continue;
    }
    ASSERT_FALSE(level.loops.empty()) << level.isa;
    for (const RooflineLoop& loop : level.loops) {
      for (const int64_t n_iter : {0, 1, 2, 7, 100}) {
        const Operands o = operands(n_iter);
        const double mean = loop.kind == RooflineLoop::Kind::kF32 ? o.mean_f32 : o.mean_int8;
        const double want =
            static_cast<double>(loop.ops_per_iter / 2) * static_cast<double>(n_iter) * mean;
        EXPECT_EQ(loop.run(o.args), want) << level.isa << ' ' << loop.name << ' ' << n_iter;
      }
    }
  }
}

TEST(Roofline, LargestOperandsFitTheRecipe) {
  const CpuFeatures cpu = detect_cpu_features();
  for (const RooflineLevel& level : kern::roofline_levels()) {
    if (!level.supported(cpu)) continue;
    for (const RooflineLoop& loop : level.loops) {
      if (loop.kind == RooflineLoop::Kind::kF32) continue;
      RooflineArgs args;
      args.n_iter = 3;
      std::memset(args.u8_a, 15, sizeof(args.u8_a));
      std::memset(args.i8_b, -128, sizeof(args.i8_b));
      EXPECT_EQ(loop.run(args), static_cast<double>(loop.ops_per_iter / 2) * 3 * 15 * -128)
          << level.isa << ' ' << loop.name;
    }
  }
}

TEST(Roofline, ReadsEveryWord) {
  const CpuFeatures cpu = detect_cpu_features();
  std::mt19937_64 rng(1);
  for (const RooflineLevel& level : kern::roofline_levels()) {
    if (!level.supported(cpu) || level.read == nullptr) continue;
    for (const int64_t n_bytes : {0, 1024, 5 * 1024}) {
      std::vector<std::byte> memory(static_cast<size_t>(n_bytes + 64));
      const auto misaligned = reinterpret_cast<uintptr_t>(memory.data()) % 64;
      std::byte* data = memory.data() + (misaligned == 0 ? 0 : 64 - misaligned);
      uint64_t want = 0;
      for (int64_t i = 0; i < n_bytes; i += 8) {
        const uint64_t word = rng();
        want += word;
        std::memcpy(data + i, &word, sizeof(word));
      }
      EXPECT_EQ(level.read(data, n_bytes), want) << level.isa << ' ' << n_bytes;
    }
  }
}

}  // namespace
}  // namespace infer::test
