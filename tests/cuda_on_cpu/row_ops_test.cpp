#include "kernels/cuda/row_ops.h"

#include <cmath>
#include <functional>
#include <random>

#include "core/base/cpu_features.h"
#include "core/base/quant_types.h"
#include "kernels/cpu/dispatch.h"
#include "tests/cuda_on_cpu/fixture.h"
#include "tests/ops/linear_support.h"

namespace infer::cuda::test {
namespace {

using infer::test::seed_of_test;

constexpr double kRound = 0x1p-24;  // largest relative error of a rounding to f32
constexpr float kUntouched = 1234.5f;

class RowOps : public Emulated {
 protected:
  std::vector<float> normals(int64_t n, float scale = 2.0f) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = scale * std::normal_distribution<float>()(rng_);
    return v;
  }
  std::mt19937_64 rng_{seed_of_test()};
};

/// Of `live` rows of k: |got - want| <= bound; what follows was not written.
void expect_rows(const std::vector<float>& got, const std::vector<double>& want,
                 const std::vector<double>& bound) {
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_TRUE(std::fabs(got[i] - want[i]) <= bound[i])
        << "at " << i << ": got " << got[i] << ", want " << want[i] << ", bound " << bound[i];
  for (size_t i = want.size(); i < got.size(); ++i) ASSERT_EQ(got[i], kUntouched) << "at " << i;
}

std::vector<float> untouched(int64_t n) {
  return std::vector<float>(static_cast<size_t>(n), kUntouched);
}

// --- Embedding

/// A table on the device, and what the CPU decodes of it.
struct Table {
  Table(std::mt19937_64& rng, DType type, int64_t n, int64_t k)
      : file(infer::test::make_weights(rng, type, n, k, infer::test::Levels::kRandom,
                                       infer::test::Scales::kNormal)),
        device(repacked(type, n, k)),
        matrix(make_matrix(type, n, k, 1, device.data())),
        values(static_cast<size_t>(n * k)) {
    const auto kernels = *kern::select_kernels(detect_cpu_features(), "generic");
    const auto row_bytes = static_cast<int64_t>(file.size()) / n;
    for (int64_t i = 0; i < n; ++i)
      kernels.decode_row[static_cast<size_t>(type)](file.data() + i * row_bytes, k,
                                                    values.data() + i * k);
  }
  std::vector<std::byte> repacked(DType type, int64_t n, int64_t k) const {
    const WeightLayout layout = weight_layout(type);
    std::vector<std::byte> out(static_cast<size_t>(plane_offset(layout, layout.n_plane, n, k)));
    repack_rows(layout, file.data(), n, k, 0, n, out.data());
    return out;
  }
  std::vector<std::byte> file;
  DeviceArray<std::byte> device;
  Matrix matrix;
  std::vector<float> values;
};

TEST_F(RowOps, EmbedDecodesEveryType) {
  constexpr int kVocab = 7, kPositions = 4, kM = 6, kLive = 4;
  const std::vector<int32_t> token = {6, 0, 3, 6, 1 << 30, -1}, pos = {3, 0, 3, 1, -1, 1 << 30};
  for (const DType type : infer::test::kLinearTypes) {
    const int block = weight_layout(type).block_len;
    const int k = block == 1 ? 1027 : 1056 / block * block + block;
    for (const bool with_positions : {false, true}) {
      const Table table(rng_, type, kVocab, k);
      const Table positions(rng_, with_positions ? DType::kF16 : type, kPositions, k);
      const DeviceArray<int32_t> live(std::vector<int32_t>{kLive}), tokens(token), at(pos);
      const DeviceArray<float> out(untouched(int64_t{kM} * k));
      EmbedArgs args;
      args.table = table.matrix;
      if (with_positions) args.positions = positions.matrix;
      args.scale = with_positions ? 1.0f : 45.25f;
      args.rows = {kM, live.data(), tokens.data(), at.data(), nullptr, nullptr};
      args.out = out.data();
      ASSERT_EQ(embed(args, nullptr), cudaSuccess);
      std::vector<double> want, bound;
      for (size_t r = 0; r < kLive; ++r) {
        for (size_t i = 0; i < static_cast<size_t>(k); ++i) {
          const double w =
              double{args.scale} * double{table.values[static_cast<size_t>(token[r]) * k + i]};
          const double p =
              with_positions ? positions.values[static_cast<size_t>(pos[r]) * k + i] : 0.0;
          want.push_back(w + p);
          bound.push_back(kRound * (std::fabs(w) + std::fabs(w + p)));
        }
      }
      SCOPED_TRACE(testing::Message() << "type " << static_cast<int>(type) << " k " << k);
      expect_rows(out.host(), want, bound);
    }
  }
}

// --- Elementwise

/// An op over up to two inputs [m, k] and a value a row.
struct Op {
  std::function<cudaError_t(const float* a, const float* b, const float* of_row, int m, int k,
                            const int32_t* n_live, float* out)>
      run;
  std::function<double(double a, double b, double of_row)> value;
  std::function<double(double a, double b, double value)> bound;
};

/// Inputs have live rows only: reading another one leaves the allocation.
void expect_op(std::mt19937_64& rng, const Op& op, int m, int live, int k, int shift) {
  const auto draw = [&rng](int64_t n) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = 3.0f * std::normal_distribution<float>()(rng);
    return v;
  };
  const int64_t n = int64_t{live} * k;
  const auto a = draw(n + shift), b = draw(n + shift), of_row = draw(live);
  std::vector<double> want, bound;
  for (int64_t i = 0; i < n; ++i) {
    const double x = a[static_cast<size_t>(i + shift)], y = b[static_cast<size_t>(i + shift)];
    want.push_back(op.value(x, y, of_row[static_cast<size_t>(i / k)]));
    bound.push_back(op.bound(x, y, want.back()) + 0x1p-126);
  }
  std::vector<float> first;
  for (uint64_t seed = 1; seed <= (k < 300 ? 10u : 2u); ++seed) {
    emulated::set_seed(seed);
    const DeviceArray<float> da(a), db(b), dr(of_row), out(untouched(int64_t{m} * k));
    const DeviceArray<int32_t> n_live(std::vector<int32_t>{live});
    ASSERT_EQ(
        op.run(da.data() + shift, db.data() + shift, dr.data(), m, k, n_live.data(), out.data()),
        cudaSuccess);
    const auto got = out.host();
    SCOPED_TRACE(testing::Message() << "m " << m << " k " << k << " shift " << shift);
    expect_rows(got, want, bound);
    if (first.empty()) first = got;
    ASSERT_EQ(got, first);
  }
}

void expect_op(std::mt19937_64& rng, const Op& op) {
  for (const int k : {1, 3, 4, 5, 31, 128, 255, 257, 1023, 1024, 1028, 2051})
    expect_op(rng, op, 4, 3, k, 0);
  expect_op(rng, op, 3, 3, 64, 1);  // addresses that allow 4 bytes only
  expect_op(rng, op, 1, 1, 64, 0);
  expect_op(rng, op, 257, 255, 3, 0);
}

TEST_F(RowOps, GateAdd) {
  expect_op(rng_, {[](auto a, auto b, auto of_row, int m, int k, auto live, auto out) {
                     return gate_add(a, of_row, b, m, k, live, out, nullptr);
                   },
                   [](double a, double b, double g) { return b + a / (1 + std::exp(-g)); },
                   [](double a, double, double v) {
                     return kRound * (8 * std::fabs(a) + std::fabs(v));
                   }});
}

TEST_F(RowOps, GatherTakesRowsByIndex) {
  constexpr int kRows = 5, kM = 4, kLive = 3;
  for (const int k : {1, 4, 255, 1028, 2051}) {
    const auto x = normals(int64_t{kRows} * k);
    const std::vector<int32_t> index = {4, 0, 4, 1 << 30};
    const DeviceArray<float> from(x), out(untouched(int64_t{kM} * k));
    const DeviceArray<int32_t> live(std::vector<int32_t>{kLive}), at(index);
    ASSERT_EQ(gather_rows({from.data(), at.data(), kM, k, live.data(), out.data()}, nullptr),
              cudaSuccess);
    std::vector<double> want;
    for (size_t r = 0; r < kLive; ++r)
      for (size_t i = 0; i < static_cast<size_t>(k); ++i)
        want.push_back(x[static_cast<size_t>(index[r]) * k + i]);
    expect_rows(out.host(), want, std::vector<double>(want.size(), 0.0));
  }
}

// No row, or none that is alive, is no error, and nothing is read or written.
TEST_F(RowOps, NoRows) {
  const DeviceArray<int32_t> none(std::vector<int32_t>{0}),
      index(std::vector<int32_t>{1 << 30, -1});
  const Table table(rng_, DType::kF16, 3, 8);
  for (const int m : {0, 2}) {
    for (const int k : {8, 7}) {
      const DeviceArray<float> out(untouched(2 * 8));
      const int32_t* live = m == 0 ? nullptr : none.data();
      EmbedArgs e;
      e.table = table.matrix;
      e.rows = {m, live, index.data(), nullptr, nullptr, nullptr};
      e.out = out.data();
      EXPECT_EQ(embed(e, nullptr), cudaSuccess);
      EXPECT_EQ(gather_rows({nullptr, index.data(), m, k, live, out.data()}, nullptr), cudaSuccess);
      EXPECT_EQ(gate_add(nullptr, nullptr, nullptr, m, k, live, out.data(), nullptr), cudaSuccess);
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      EXPECT_EQ(out.host(), untouched(2 * 8));
    }
  }
  EXPECT_EQ(gather_rows({}, nullptr), cudaSuccess);
  EXPECT_EQ(copy_blocks({}, nullptr, 0, nullptr), cudaSuccess);
}

// --- Block copies

TEST_F(RowOps, BlocksAreCopiedInOrder) {
  constexpr int kBlocks = 6;
  struct Types {
    DType k, v;
    int head_dim;
  };
  // A later copy reads what an earlier one wrote, and writes over what an earlier one read.
  const std::vector<int2> copies = {{0, 1}, {1, 2}, {3, 0}, {2, 5}, {0, 3}, {5, 4}};
  for (const Types t : {Types{DType::kF16, DType::kF16, 80}, Types{DType::kQ8_0, DType::kQ4_0, 96},
                        Types{DType::kQ4_0, DType::kBF16, 64}}) {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      emulated::set_seed(seed);
      KvPool pool;
      pool.type_k = t.k;
      pool.type_v = t.v;
      pool.n_kv_head = 3;
      pool.head_dim = t.head_dim;
      const auto filled = [&](DType type) {
        std::vector<std::byte> v(
            static_cast<size_t>(kBlocks * pool.n_kv_head * kv_head_bytes(type, pool.head_dim)));
        for (auto& b : v) b = static_cast<std::byte>(rng_());
        return v;
      };
      auto k = filled(t.k), v = filled(t.v);
      const DeviceArray<std::byte> dk(k), dv(v);
      const DeviceArray<int2> list(copies);
      pool.k = dk.data();
      pool.v = dv.data();
      ASSERT_EQ(copy_blocks(pool, list.data(), static_cast<int>(copies.size()), nullptr),
                cudaSuccess);
      for (const int2 copy : copies) {
        for (auto* bytes : {&k, &v}) {
          const size_t n = bytes->size() / kBlocks;
          std::copy_n(bytes->begin() + static_cast<ptrdiff_t>(n) * copy.x, n,
                      bytes->begin() + static_cast<ptrdiff_t>(n) * copy.y);
        }
      }
      EXPECT_EQ(dk.host(), k);
      EXPECT_EQ(dv.host(), v);
    }
  }
}

}  // namespace
}  // namespace infer::cuda::test
