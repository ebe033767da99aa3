#pragma once

// Panels of sixteen outputs (lanes along n) times 8-bit activations by vpdpbusd, for every
// quantised type. Panels and their units: kernels/cpu/panel.h.
//
// Reduction order: that of avx2/linear_fast.h, so both levels give the same bits. Integer sums of a
// block are exact here without care for 16 bits: vpdpbusd adds four products of u8 levels and i8
// activations in 32. Levels below zero are read as q + kOffset >= 0, and each sum starts from
// -kOffset times the activations' own sum.
#include "kernels/cpu/avx512/linear_gemm.h"
#include "kernels/cpu/avx512/linear_gemv.h"
#include "kernels/cpu/avx512/linear_vec.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/table.h"

namespace infer::kern::avx512 {

template <class T>
struct FastKernel {
  static int64_t packed_bytes(int64_t n, int64_t k) {
    return (n + kPanelRows - 1) / kPanelRows * panel::bytes_of_panel<T>(k);
  }
  static void pack(const std::byte* file, int64_t n, int64_t k, int64_t n_begin, int64_t n_end,
                   std::byte* packed) {
    panel::pack_rows<T, kPanelRows>(file, n, k, n_begin, n_end, packed);
  }

  static void run(const LinearArgs& a) {
    if (a.m == 1) return gemv<T>(a);
    Gemm<T>::run(a);
  }

  /// prepare and act_bytes stay those of the level before.
  static void install(CpuKernels& table, DType type) {
    LinearKernel& t = table.linear[static_cast<int>(ActMode::kFast)][static_cast<int>(type)];
    t.n_align = kPanelRows;
    t.file_layout = false;
    t.packed_bytes = packed_bytes;
    t.pack = pack;
    t.scratch_bytes = Gemm<T>::scratch_bytes;
    t.run = run;
  }
};

}  // namespace infer::kern::avx512
