#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstring>

#include "kernels/cuda/ptx.cuh"
#include "tests/cuda_on_cpu/fixture.h"

/// Tensor-core instructions and their loads: the layouts below are the PTX ISA's, element by
/// element.
namespace infer::cuda::test {

class Matrix : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { reset({.architecture = GetParam()}); }
};
INSTANTIATE_TEST_SUITE_P(Architecture, Matrix, testing::Values(75, 80, 90));

uint32_t random_state = 1;
int random_below(int n) {
  random_state = random_state * 1664525u + 1013904223u;
  return static_cast<int>((random_state >> 16) % static_cast<uint32_t>(n));
}

struct Fragments {
  uint32_t a[32][4], b[32][2];
};

__global__ void multiply_f16(const Fragments* in, float (*d)[4]) {
  mma_f16(d[lane_id()], in->a[lane_id()], in->b[lane_id()]);
}
__global__ void multiply_bf16(const Fragments* in, float (*d)[4]) {
  mma_bf16(d[lane_id()], in->a[lane_id()], in->b[lane_id()]);
}
__global__ void multiply_s8(const Fragments* in, int (*d)[4]) {
  mma_s8(d[lane_id()], in->a[lane_id()], in->b[lane_id()]);
}
// The same in two halves of k.
__global__ void multiply_s8_k16(const Fragments* in, int (*d)[4]) {
  for (int half = 0; half < 2; ++half) {
    const uint32_t* a = in->a[lane_id()] + 2 * half;
    const uint32_t a_half[2] = {a[0], a[1]};
    mma_s8_k16(d[lane_id()], a_half, in->b[lane_id()][half]);
  }
}

// m16n8k16 with 16-bit elements: where element i of a lane's fragment lies.
int a_row(int lane, int i) { return lane / 4 + ((i < 2 || (i >= 4 && i < 6)) ? 0 : 8); }
int a_col(int lane, int i) { return lane % 4 * 2 + (i & 1) + (i >= 4 ? 8 : 0); }
int b_row(int lane, int i) { return lane % 4 * 2 + (i & 1) + (i >= 2 ? 8 : 0); }
int c_row(int lane, int i) { return lane / 4 + (i < 2 ? 0 : 8); }
int c_col(int lane, int i) { return lane % 4 * 2 + (i & 1); }

template <class Half>
void test_half(void (*kernel)(const Fragments*, float (*)[4])) {
  float a[16][16], b[16][8];
  for (auto& row : a)
    for (float& v : row) v = static_cast<float>(random_below(64) - 32) / 8;
  for (auto& row : b)
    for (float& v : row) v = static_cast<float>(random_below(64) - 32) / 16;
  std::vector<Fragments> in(1);
  std::vector<float> d(128);
  for (int lane = 0; lane < 32; ++lane) {
    auto put = [](uint32_t* registers, int i, float v) {
      const Half h(v);
      std::memcpy(reinterpret_cast<char*>(registers) + 2 * i, &h, 2);
    };
    for (int i = 0; i < 8; ++i) put(in[0].a[lane], i, a[a_row(lane, i)][a_col(lane, i)]);
    for (int i = 0; i < 4; ++i) put(in[0].b[lane], i, b[b_row(lane, i)][lane / 4]);
    for (int i = 0; i < 4; ++i)
      d[static_cast<size_t>(4 * lane + i)] =
          static_cast<float>(100 * c_row(lane, i) + c_col(lane, i));
  }
  DeviceArray<Fragments> fragments(in);
  DeviceArray<float> out(d);
  ASSERT_EQ(launch(kernel, 1, 32, 0, nullptr, fragments.data(),
                   reinterpret_cast<float(*)[4]>(out.data())),
            cudaSuccess);
  const auto got = out.host();
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = c_row(lane, i), col = c_col(lane, i);
      float expected = static_cast<float>(100 * row + col);
      for (int k = 0; k < 16; ++k)
        expected += a[row][k] * b[k][col];  // exact: small multiples of 2^-7
      ASSERT_EQ(got[static_cast<size_t>(4 * lane + i)], expected) << row << "," << col;
    }
}

TEST_P(Matrix, F16ProductsByTheDocumentedLayout) { test_half<__half>(multiply_f16); }

TEST_P(Matrix, Bf16ProductsByTheDocumentedLayout) {
  if (GetParam() >= 80) return test_half<__nv_bfloat16>(multiply_bf16);
  DeviceArray<Fragments> in(1);
  DeviceArray<float> d(128);
  expect_report({"multiply_bf16", "sm_75 has no mma.m16n8k16.bf16"}, multiply_bf16, 1, 32, 0,
                in.data(), reinterpret_cast<float(*)[4]>(d.data()));
}

TEST_P(Matrix, F16SpecialValues) {
  const float inf = INFINITY;
  for (const float special : {inf, -inf, NAN, 0x1p-24f, -0x1.ff8p-15f, 65504.0f}) {
    std::vector<Fragments> in(1);
    std::memset(in.data(), 0, sizeof(Fragments));
    const __half h(special), one(1.0f);
    std::memcpy(&in[0].a[0][0], &h, 2);    // row 0, k 0
    std::memcpy(&in[0].b[0][0], &one, 2);  // k 0, column 0
    DeviceArray<Fragments> fragments(in);
    DeviceArray<float> out(std::vector<float>(128, 0.0f));
    launch(multiply_f16, 1, 32, 0, nullptr, fragments.data(),
           reinterpret_cast<float(*)[4]>(out.data()));
    if (std::isnan(special))
      EXPECT_TRUE(std::isnan(out.host()[0]));
    else
      EXPECT_EQ(out.host()[0], special);
  }
}

void test_s8(void (*kernel)(const Fragments*, int (*)[4])) {
  int8_t a[16][32], b[32][8];
  for (auto& row : a)
    for (auto& v : row) v = static_cast<int8_t>(random_below(256) - 128);
  for (auto& row : b)
    for (auto& v : row) v = static_cast<int8_t>(random_below(256) - 128);
  std::vector<Fragments> in(1);
  std::vector<int> c(128);
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, in_group = lane % 4;
    for (int i = 0; i < 16; ++i) {
      const int row = (i < 4 || (i >= 8 && i < 12)) ? group : group + 8;
      const int col = in_group * 4 + (i & 3) + (i < 8 ? 0 : 16);
      std::memcpy(reinterpret_cast<char*>(in[0].a[lane]) + i, &a[row][col], 1);
    }
    for (int i = 0; i < 8; ++i) {
      const int row = in_group * 4 + (i & 3) + (i < 4 ? 0 : 16);
      std::memcpy(reinterpret_cast<char*>(in[0].b[lane]) + i, &b[row][group], 1);
    }
    for (int i = 0; i < 4; ++i) c[static_cast<size_t>(4 * lane + i)] = lane - 100 * i;
  }
  DeviceArray<Fragments> fragments(in);
  DeviceArray<int> out(c);
  launch(kernel, 1, 32, 0, nullptr, fragments.data(), reinterpret_cast<int(*)[4]>(out.data()));
  const auto got = out.host();
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      int expected = lane - 100 * i;
      for (int k = 0; k < 32; ++k) expected += a[c_row(lane, i)][k] * b[k][c_col(lane, i)];
      ASSERT_EQ(got[static_cast<size_t>(4 * lane + i)], expected);
    }
}

TEST_P(Matrix, S8ProductsByTheDocumentedLayout) {
  test_s8(multiply_s8);
  test_s8(multiply_s8_k16);
}

struct Tiles {
  uint16_t m[32][8];  // four matrices
};

template <int N, bool kTransposed>
__global__ void load_tiles(uint32_t* out) {
  Tiles& tiles = shared<Tiles>();
  for (int col = 0; col < 8; ++col)
    tiles.m[lane_id()][col] = static_cast<uint16_t>(100 * lane_id() + col);
  sync_warp();
  uint32_t registers[N];
  // Lanes above 8 N repeat the lower ones' addresses, which sm_75 needs.
  ldmatrix<N, kTransposed>(registers, tiles.m[lane_id() % (8 * N)]);
  for (int i = 0; i < N; ++i) out[32 * i + lane_id()] = registers[i];
}

template <int N, bool kTransposed>
void test_ldmatrix() {
  DeviceArray<uint32_t> out(32 * N);
  ASSERT_EQ(launch(load_tiles<N, kTransposed>, 1, 32, sizeof(Tiles), nullptr, out.data()),
            cudaSuccess);
  const auto host = out.host();
  for (uint32_t i = 0; i < N; ++i)
    for (uint32_t lane = 0; lane < 32; ++lane)
      for (uint32_t j = 0; j < 2; ++j) {
        uint32_t row = lane / 4, col = lane % 4 * 2 + j;
        if (kTransposed) std::swap(row, col);
        ASSERT_EQ(host[32 * i + lane] >> (16 * j) & 0xffff, 100 * (8 * i + row) + col)
            << "matrix " << i << " lane " << lane;
      }
}

TEST_P(Matrix, LdmatrixHandsOutRows) {
  test_ldmatrix<1, false>();
  test_ldmatrix<2, false>();
  test_ldmatrix<4, false>();
}

TEST_P(Matrix, LdmatrixTransposes) {
  test_ldmatrix<1, true>();
  test_ldmatrix<2, true>();
  test_ldmatrix<4, true>();
}

__global__ void load_off_by(int n_byte, uint32_t* out) {
  uint32_t registers[1];
  ldmatrix(registers, reinterpret_cast<const char*>(&shared<Tiles>()) + n_byte);
  out[lane_id()] = registers[0];
}

TEST_P(Matrix, LdmatrixOfAMisalignedRowIsReported) {
  DeviceArray<uint32_t> out(32);
  expect_report({"load_off_by", "misaligned"}, load_off_by, 1, 32, sizeof(Tiles), 8, out.data());
}

TEST_P(Matrix, LdmatrixOutsideSharedMemoryIsReported) {
  DeviceArray<uint32_t> out(32);
  expect_report({"load_off_by", "outside the block's shared memory"}, load_off_by, 1, 32,
                sizeof(Tiles), 512, out.data());
}

__global__ void load_with_8_addresses(uint32_t* out) {
  uint32_t registers[1];
  ldmatrix(registers, lane_id() < 8 ? shared<Tiles>().m[lane_id()] : nullptr);
  out[lane_id()] = registers[0];
}

TEST_P(Matrix, EightAddressesAreEnoughFromSm80On) {
  DeviceArray<uint32_t> out(32);
  if (GetParam() == 75) {
    expect_report({"load_with_8_addresses"}, load_with_8_addresses, 1, 32, sizeof(Tiles),
                  out.data());
  } else {
    launch(load_with_8_addresses, 1, 32, sizeof(Tiles), nullptr, out.data());
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
}

struct GemmTiles {
  __half a[16][16], b_nk[8][16], b_kn[16][8];
};

// The same product with b loaded by rows of n and, transposed, by rows of k.
__global__ void product(const GemmTiles* in, float (*d)[4], float (*d_transposed)[4]) {
  auto& tiles = shared<GemmTiles>();
  const int lane = lane_id();
  for (unsigned i = static_cast<unsigned>(lane); i < sizeof(GemmTiles) / 4; i += 32)
    reinterpret_cast<uint32_t*>(&tiles)[i] = reinterpret_cast<const uint32_t*>(in)[i];
  sync_warp();
  uint32_t a[4], b[2], b_transposed[2];
  ldmatrix<4>(a, &tiles.a[lane % 16][lane / 16 * 8]);
  ldmatrix<2>(b, &tiles.b_nk[lane % 8][lane / 8 % 2 * 8]);
  ldmatrix<2, true>(b_transposed, &tiles.b_kn[lane % 16][0]);
  for (int i = 0; i < 4; ++i) d[lane][i] = d_transposed[lane][i] = 0;
  mma_f16(d[lane], a, b);
  mma_f16(d_transposed[lane], a, b_transposed);
}

TEST_P(Matrix, LdmatrixFeedsMma) {
  std::vector<GemmTiles> in(1);
  for (int n = 0; n < 8; ++n)
    for (int k = 0; k < 16; ++k)
      in[0].b_nk[n][k] = in[0].b_kn[k][n] = __half(static_cast<float>(random_below(9) - 4));
  for (auto& row : in[0].a)
    for (auto& v : row) v = __half(static_cast<float>(random_below(9) - 4));
  DeviceArray<GemmTiles> tiles(in);
  DeviceArray<float> d(128), d_transposed(128);
  launch(product, 1, 32, sizeof(GemmTiles), nullptr, tiles.data(),
         reinterpret_cast<float(*)[4]>(d.data()),
         reinterpret_cast<float(*)[4]>(d_transposed.data()));
  const auto got = d.host();
  EXPECT_EQ(got, d_transposed.host());
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      float expected = 0;
      for (int k = 0; k < 16; ++k)
        expected +=
            __half2float(in[0].a[c_row(lane, i)][k]) * __half2float(in[0].b_nk[c_col(lane, i)][k]);
      ASSERT_EQ(got[static_cast<size_t>(4 * lane + i)], expected);
    }
}

}  // namespace infer::cuda::test
