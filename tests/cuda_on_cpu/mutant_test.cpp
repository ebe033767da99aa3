#include <cuda_fp16.h>

#include <cstring>

#include "kernels/cuda/ptx.cuh"
#include "tests/cuda_on_cpu/fixture.h"

/// A double-buffered matrix product the way the hot kernels are built, and each of its waits and
/// barriers left out in turn: ten seeds must agree on the whole one and tell every mutant from it.
namespace infer::cuda::test {

enum class LeftOut { kNothing, kWait, kBarrierBeforeRead, kBarrierAfterRead };

constexpr int kSteps = 8, kDepth = 16 * kSteps, kColumns = 32;

struct Stage {
  __half a[16][24], b[kColumns][24];  // rows of 16, padded against bank conflicts
};
struct Stages {
  Stage stage[2];
};

// 96 of the 128 threads copy 16 bytes each: two for a row of a or b.
INFER_DEVICE void copy_stage(Stage& stage, const __half* a, const __half* b, int step) {
  const int i = static_cast<int>(thread_idx().x), row = i / 2, half = i % 2 * 8;
  if (row < 16)
    cp_async<16>(&stage.a[row][half], a + row * kDepth + 16 * step + half);
  else if (row < 16 + kColumns)
    cp_async<16>(&stage.b[row - 16][half], b + (row - 16) * kDepth + 16 * step + half);
  cp_async_commit();
}

// c [16, 32] = a [16, k] * b [32, k]^T, one warp for 8 columns.
template <LeftOut kLeftOut>
__global__ void multiply(const __half* a, const __half* b, float* c) {
  auto& s = shared<Stages>();
  const int lane = lane_id(), column = 8 * warp_id();
  float d[4] = {0, 0, 0, 0};
  copy_stage(s.stage[0], a, b, 0);
  for (int step = 0; step < kSteps; ++step) {
    if (step + 1 < kSteps)
      copy_stage(s.stage[(step + 1) % 2], a, b, step + 1);
    else
      cp_async_commit();  // an empty group: the wait below counts the same
    if (kLeftOut != LeftOut::kWait) cp_async_wait<1>();
    if (kLeftOut != LeftOut::kBarrierBeforeRead) sync_threads();
    const Stage& stage = s.stage[step % 2];
    uint32_t a_fragment[4], b_fragment[2];
    ldmatrix(a_fragment, &stage.a[lane % 16][lane / 16 * 8]);
    ldmatrix(b_fragment, &stage.b[column + lane % 8][lane / 8 % 2 * 8]);
    mma_f16(d, a_fragment, b_fragment);
    if (kLeftOut != LeftOut::kBarrierAfterRead) sync_threads();
  }
  for (int i = 0; i < 4; ++i)
    c[(lane / 4 + 8 * (i / 2)) * kColumns + column + 2 * (lane % 4) + i % 2] = d[i];
}

class Mutants : public testing::Test {
 protected:
  void SetUp() override {
    for (size_t i = 0; i < a_.size(); ++i) a_[i] = __half(static_cast<float>(i * i % 13) - 6);
    for (size_t i = 0; i < b_.size(); ++i) b_[i] = __half(static_cast<float>(i * i % 11) - 5);
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < kColumns; ++column)
        for (int k = 0; k < kDepth; ++k)  // small integers: exact in any order
          expected_[static_cast<size_t>(row * kColumns + column)] +=
              __half2float(a_[static_cast<size_t>(row * kDepth + k)]) *
              __half2float(b_[static_cast<size_t>(column * kDepth + k)]);
  }

  template <LeftOut kLeftOut>
  int n_right_of_ten(int architecture) {
    int n_right = 0;
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      reset({.architecture = architecture, .seed = seed});
      DeviceArray<__half> a(a_), b(b_);
      DeviceArray<float> c(expected_.size());
      launch(multiply<kLeftOut>, 1, 128, sizeof(Stages), nullptr, a.data(), b.data(), c.data());
      n_right += c.host() == expected_;
    }
    return n_right;
  }

  std::vector<__half> a_ = std::vector<__half>(16 * kDepth);
  std::vector<__half> b_ = std::vector<__half>(kColumns * kDepth);
  std::vector<float> expected_ = std::vector<float>(16 * kColumns);
};

TEST_F(Mutants, TenSeedsAgreeOnTheWholeKernel) {
  for (const int architecture : {75, 80})
    EXPECT_EQ(n_right_of_ten<LeftOut::kNothing>(architecture), 10);
}

TEST_F(Mutants, EveryWaitAndBarrierIsMissed) {
  EXPECT_EQ(n_right_of_ten<LeftOut::kWait>(80), 0);
  EXPECT_LT(n_right_of_ten<LeftOut::kBarrierBeforeRead>(80), 10);
  EXPECT_LT(n_right_of_ten<LeftOut::kBarrierAfterRead>(80), 10);
  EXPECT_LT(n_right_of_ten<LeftOut::kBarrierBeforeRead>(75), 10);
  EXPECT_LT(n_right_of_ten<LeftOut::kBarrierAfterRead>(75), 10);
}

}  // namespace infer::cuda::test
