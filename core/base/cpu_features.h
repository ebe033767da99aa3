#pragma once

#include <string>

namespace infer {

/// What the CPU and the operating system allow (XCR0 included: AVX is reported only if its
/// registers are saved).
struct CpuFeatures {
  bool avx2 = false, fma = false, f16c = false, avx_vnni = false;
  bool avx512f = false, avx512bw = false, avx512vl = false, avx512dq = false, avx512_vnni = false,
       avx512_bf16 = false;
  bool neon = false, dotprod = false, i8mm = false;
  std::string vendor_and_model;  ///< for the load report
};

CpuFeatures detect_cpu_features();

}  // namespace infer
