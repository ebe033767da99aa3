#include "kernels/cpu/roofline.h"

namespace infer::kern {
namespace {

constexpr RooflineLevel kLevels[] = {
    {"generic", "", [](const CpuFeatures&) { return true; }, generic::roofline_read,
     generic::kRooflineLoops},
#if defined(INFER_KERNELS_AVX2)
    {"avx2", "avx2, fma", [](const CpuFeatures& c) { return c.avx2 && c.fma; }, avx2::roofline_read,
     avx2::kRooflineLoops},
#endif
#if defined(INFER_KERNELS_AVXVNNI)
    {"avxvnni", "avx_vnni", [](const CpuFeatures& c) { return c.avx2 && c.avx_vnni; }, nullptr,
     avxvnni::kRooflineLoops},
#endif
#if defined(INFER_KERNELS_AVX512)
    {"avx512", "avx512f, avx512bw, avx512_vnni",
     [](const CpuFeatures& c) { return c.avx512f && c.avx512bw && c.avx512_vnni; },
     avx512::roofline_read, avx512::kRooflineLoops},
#endif
};

}  // namespace

std::span<const RooflineLevel> roofline_levels() { return kLevels; }

}  // namespace infer::kern
