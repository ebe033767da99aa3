#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

/// Every function of the device headers once, for nvcc to translate for each architecture and for
/// g++ to accept.
namespace infer::cuda::test {

struct Storage {
  float x[256];
  uint16_t h[64][8];
};

struct Params {
  const float* x;
  float* out;
  int* integers;
  unsigned* counter;
  int n;
};

INFER_DEVICE void copies(const Params& p, Storage& s, int i) {
  cp_async<16>(&s.x[4 * (i % 64)], p.x + 4 * i, i < p.n ? 16 : 0);
  cp_async<8>(&s.x[2 * (i % 128)], p.x + 2 * i);
  cp_async<4>(&s.x[i], p.x + i);
  cp_async_commit();
  cp_async_wait<1>();
  cp_async_wait<0>();
  sync_threads();
}

INFER_DEVICE void products(Storage& s, float (&d)[4], int (&sums)[4]) {
  uint32_t r1[1], r2[2], r4[4], t1[1], t2[2], t4[4];
  ldmatrix(r1, &s.h[lane_id() % 8]);
  ldmatrix(r2, &s.h[lane_id() % 16]);
  ldmatrix(r4, &s.h[lane_id()]);
  ldmatrix<1, true>(t1, &s.h[lane_id() % 8]);
  ldmatrix<2, true>(t2, &s.h[lane_id() % 16]);
  ldmatrix<4, true>(t4, &s.h[lane_id()]);
  mma_f16(d, r4, r2);
  mma_f16(d, t4, t2);
  if (architecture() >= 80) mma_bf16(d, r4, t2);
  mma_s8(sums, r4, r2);
  mma_s8_k16(sums, r2, t1[0]);
  sums[0] = dp4a(sums[1], static_cast<int>(r1[0]), static_cast<int>(t1[0]));
}

INFER_DEVICE float collectives(const float (&d)[4]) {
  float v = warp_sum(d[0]) + warp_max(d[1]) + warp_min(d[2]);
  v += shfl(d[3], 3) + shfl_up(d[0], 1u) + shfl_down(d[1], 2u) + shfl_xor(d[2], 4, 16);
  sync_warp();
  if (warp_any(v > 1) && warp_all(v < 3)) v += static_cast<float>(popcount(warp_ballot(v > 2)));
  return exp2_approx(v) + rsqrt_approx(v);
}

INFER_DEVICE void atomics(unsigned* counter) {
  atomic_add(counter, 1u);
  atomic_max(counter, 1u);
  atomic_min(counter, 1u);
  atomic_exchange(counter, 2u);
  atomic_cas(counter, 2u, 3u);
  thread_fence();
}

__global__ void __launch_bounds__(256) everything(const __grid_constant__ Params p) {
  Storage& s = shared<Storage>();
  const int i = static_cast<int>(thread_idx().x + block_idx().x * block_dim().x);
  float d[4] = {0, 0, 0, 0};
  int sums[4] = {0, 0, 0, 0};
  copies(p, s, i % 256);
  products(s, d, sums);
  const auto wide = load_readonly<float4>(p.x + 4 * i);
  const auto pair = load<float2>(p.x + 2 * i);
  store(p.out + 2 * i, make_float2(wide.x + pair.x, collectives(d)));
  p.integers[i] = sums[0] + warp_sum(sums[1]) + warp_id() + static_cast<int>(grid_dim().x);
  atomics(p.counter);
}

cudaError_t run_everything(const Params& p, cudaStream_t stream) {
  return launch(everything, 3, 256, sizeof(Storage), stream, p);
}

}  // namespace infer::cuda::test
