#include <chrono>
#include <cstdio>
#include <functional>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/cuda_on_cpu/emulator.h"

/// What the emulator's collectives cost: one line each, in nanoseconds. A program to run by hand.
namespace infer::cuda::test {

constexpr int kRounds = 20000;

__global__ void barriers() {
  for (int i = 0; i < kRounds; ++i) sync_threads();
}
__global__ void warp_barriers() {
  for (int i = 0; i < kRounds; ++i) sync_warp();
}
__global__ void shuffles(int* out) {
  int v = lane_id();
  for (int i = 0; i < kRounds; ++i) v = shfl_xor(v, 1) + 1;
  *out = v;
}
__global__ void sums(float* out) {
  float v = 1;
  for (int i = 0; i < kRounds; ++i) v = warp_sum(v) * 0.03125f;
  *out = v;
}
__global__ void products(float* out) {
  const uint32_t a[4] = {}, b[2] = {};
  float d[4] = {};
  for (int i = 0; i < kRounds; ++i) mma_f16(d, a, b);
  *out = d[0];
}
__global__ void nothing() {}

double seconds_of(const std::function<void()>& work) {
  using clock = std::chrono::steady_clock;
  work();
  cudaDeviceSynchronize();
  const auto begin = clock::now();
  work();
  cudaDeviceSynchronize();
  return std::chrono::duration<double>(clock::now() - begin).count();
}

void report() {
  void* out = nullptr;
  cudaMalloc(&out, 64);
  const auto line = [](const char* what, double seconds, double n) {
    std::printf("%-44s %8.1f ns\n", what, seconds * 1e9 / n);
  };
  for (const int n_thread : {32, 256, 1024}) {
    const double n = static_cast<double>(kRounds) * n_thread;
    const auto block = static_cast<unsigned>(n_thread);
    std::printf("block of %d threads\n", n_thread);
    line("  sync_threads, a lane", seconds_of([&] { launch(barriers, 1, block, 0, nullptr); }), n);
    line("  sync_warp, a lane", seconds_of([&] { launch(warp_barriers, 1, block, 0, nullptr); }),
         n);
    line("  shfl_xor, a lane",
         seconds_of([&] { launch(shuffles, 1, block, 0, nullptr, static_cast<int*>(out)); }), n);
    line("  warp_sum, a lane",
         seconds_of([&] { launch(sums, 1, block, 0, nullptr, static_cast<float*>(out)); }), n);
    line("  mma_f16 m16n8k16, a warp",
         seconds_of([&] { launch(products, 1, block, 0, nullptr, static_cast<float*>(out)); }),
         n / 32);
    line("  starting and ending a lane",
         seconds_of([&] { launch(nothing, 1000, block, 0, nullptr); }), 1000.0 * n_thread);
  }
  line("launch of one block of one lane", seconds_of([] {
         for (int i = 0; i < 10000; ++i) launch(nothing, 1, 1, 0, nullptr);
       }),
       10000);
}

}  // namespace infer::cuda::test

int main() { infer::cuda::test::report(); }
