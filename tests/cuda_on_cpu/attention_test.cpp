#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "tests/cuda_on_cpu/attention_case.h"
#include "tests/cuda_on_cpu/fixture.h"

namespace infer::cuda::test {
namespace {

constexpr float kUntouched = 12345.0f;

/// A case in device memory.
class OnDevice {
 public:
  explicit OnDevice(const AttentionCase& c)
      : case_(c),
        q_(c.q),
        out_(std::vector<float>(c.q.size(), kUntouched)),
        slopes_(c.slopes),
        k_(c.k),
        v_(c.v),
        n_live_(std::vector<int32_t>{c.n_live}),
        slot_(c.slot),
        seq_(c.seq),
        tree_first_(c.tree_first),
        table_(c.table),
        tree_(c.tree) {}

  AttentionArgs args() const {
    const AttentionShape& s = case_.shape;
    AttentionArgs a;
    a.q = q_.data();
    a.out = out_.data();
    a.pool = {.k = k_.data(),
              .v = v_.data(),
              .type_k = s.type_k,
              .type_v = s.type_v,
              .n_kv_head = s.n_kv_head,
              .head_dim = s.head_dim};
    a.rows.m = case_.m;
    a.rows.n_live = n_live_.data();
    a.rows.slot = slot_.data();
    a.rows.seq = seq_.data();
    a.table = {.blocks = table_.data(), .stride = case_.table_stride};
    a.n_head = case_.n_head;
    a.scale = case_.scale;
    a.softcap = s.softcap;
    a.window = s.window;
    a.alibi_slopes = s.alibi ? slopes_.data() : nullptr;
    if (!s.tree.empty()) {
      a.tree = tree_.data();
      a.tree_first = tree_first_.data();
    }
    return a;
  }
  /// One row without the others: the first of as many as are alive in the case.
  AttentionArgs row(int row) const {
    AttentionArgs a = args();
    const int64_t at = int64_t{row} * case_.n_head * case_.shape.head_dim;
    a.q += at, a.out += at;
    a.rows.slot += row, a.rows.seq += row;
    a.rows.m = 1;
    return a;
  }
  std::vector<float> out() const { return out_.host(); }

 private:
  const AttentionCase& case_;
  DeviceArray<float> q_, out_, slopes_;
  DeviceArray<std::byte> k_, v_;
  DeviceArray<int32_t> n_live_, slot_, seq_, tree_first_, table_;
  DeviceArray<uint64_t> tree_;
};

/// n_block 0: a block for each part. Of all rows or of one alone.
std::vector<float> decode(const AttentionCase& c, int n_split, int n_block = 0, int row = -1) {
  const OnDevice device(c);
  DeviceArray<float> partial(
      static_cast<size_t>(attention_partial_floats(c.m, c.n_head, c.shape.head_dim, n_split)));
  const std::vector<int32_t> zeros(
      static_cast<size_t>(attention_counters(c.m, c.n_head, c.shape.n_kv_head)));
  DeviceArray<int32_t> counter(zeros);
  EXPECT_EQ(attention_decode({.attention = row < 0 ? device.args() : device.row(row),
                              .n_split = n_split,
                              .n_block = n_block == 0 ? n_split : n_block,
                              .partial = partial.data(),
                              .counter = counter.data()},
                             nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(counter.host(), zeros);
  return device.out();
}

/// Rows of a sequence in tiles of `tile_rows` at most; 0: as many as a tile holds. Or in `tiles`.
std::vector<float> prefill(const AttentionCase& c, int tile_rows = 0,
                           std::vector<QueryTile> tiles = {}) {
  const OnDevice device(c);
  const int most = query_tile_rows(c.shape.head_dim, c.shape.group);
  if (tile_rows == 0) tile_rows = most;
  const bool given = !tiles.empty();
  for (int32_t row = 0; row < c.n_live && !given;) {
    int32_t end = row;
    while (end < c.n_live && end - row < tile_rows &&
           c.seq[static_cast<size_t>(end)] == c.seq[static_cast<size_t>(row)])
      ++end;
    tiles.push_back({row, end - row});
    row = end;
  }
  if (c.m > c.n_live && !given) {  // rows that are not alive
    tiles.back().n = std::min(tiles.back().n + c.m - c.n_live, most);
    tiles.push_back({c.n_live, std::min(c.m - c.n_live, most)});
  }
  DeviceArray<QueryTile> on_device(tiles);
  EXPECT_EQ(attention_prefill({.attention = device.args(),
                               .tiles = on_device.data(),
                               .n_tile = static_cast<int>(tiles.size())},
                              nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return device.out();
}

class Attention : public Emulated {
 protected:
  /// Both kernels on both architectures (bf16: one) against the reference.
  void check(const AttentionShape& shape, std::vector<int> splits = {1, 3}) {
    const AttentionCase c(shape, ++seed_);
    const AttentionCase::Reference ref = c.reference();
    const bool bf16 = shape.type_k == DType::kBF16 || shape.type_v == DType::kBF16;
    for (const int architecture : {75, 80}) {
      if (bf16 && architecture < 80) continue;
      reset({.architecture = architecture, .seed = seed_});
      const std::string where = shape.text() + " sm_" + std::to_string(architecture);
      for (const int n_split : splits)
        expect_near(c, ref, decode(c, n_split), where + " decode / " + std::to_string(n_split));
      expect_near(c, ref, prefill(c), where + " prefill");
    }
  }

  void expect_near(const AttentionCase& c, const AttentionCase::Reference& ref,
                   const std::vector<float>& out, const std::string& where) {
    for (const auto& report : take_reports()) ADD_FAILURE() << where << ": " << report;
    const size_t n = ref.out.size();
    double worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; ++i) {
      const double share = std::fabs(out[i] - ref.out[i]) / ref.bound[i];
      if (share <= worst) continue;  // NaN is not
      worst = share;
      at = i;
      if (std::isnan(share)) break;
    }
    const auto row_size = static_cast<size_t>(c.n_head * c.shape.head_dim);
    EXPECT_TRUE(worst <= 1.0) << where << ": row " << at / row_size << " head "
                              << at % row_size / static_cast<size_t>(c.shape.head_dim) << " dim "
                              << at % static_cast<size_t>(c.shape.head_dim) << ": " << out[at]
                              << ", not " << ref.out[at] << " +- " << ref.bound[at];
    for (size_t i = n; i < out.size(); ++i)
      ASSERT_EQ(out[i], kUntouched) << where << ": row " << i / row_size << " is not alive";
  }

  uint64_t seed_ = 0;
};

std::vector<int32_t> range(int32_t first, int32_t n) {
  std::vector<int32_t> r(static_cast<size_t>(n));
  std::iota(r.begin(), r.end(), first);
  return r;
}

constexpr int kHeadDims[] = {64, 80, 96, 128, 256};

TEST_F(Attention, EveryHeadSize) {
  for (const int head_dim : kHeadDims) {
    check({.head_dim = head_dim, .slots = {{0}}});
    check({.head_dim = head_dim, .n_kv_head = 2, .group = 2, .slots = {range(180, 37), {70}}});
  }
}

TEST_F(Attention, EveryGroup) {
  for (const int group : {1, 3, 4, 8, 16, 17, 71})
    check({.n_kv_head = group < 8 ? 2 : 1, .group = group, .slots = {range(30, 5), {150}}});
}

// About the edges of blocks, of tiles and of the parts that rows are cut into.
TEST_F(Attention, Lengths) {
  for (const int last : {0, 1, 7, 8, 15, 16, 30, 31, 32, 33, 62, 63, 64, 65, 127, 128, 129})
    check({.slots = {{last}}}, {1, 2});
  for (const int last : {511, 512, 513}) {
    check({.slots = {{last}}}, {1, 3, 4, 16});
    const AttentionCase c({.slots = {{last}}}, 5);
    const auto apart = decode(c, 16);
    for (const int n_block : {1, 2, 3}) EXPECT_EQ(decode(c, 16, n_block), apart) << n_block;
  }
}

TEST_F(Attention, PromptsOfManyLengths) {
  for (const int n : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 100})
    check({.slots = {range(0, n)}}, {1});
}

TEST_F(Attention, Windows) {
  for (const int window : {1, 2, 31, 32, 33, 64, 100})
    check({.group = 2, .slots = {range(150, 40), {3}, {99}}, .window = window}, {1, 2});
  check({.head_dim = 256, .slots = {range(300, 20)}, .window = 48});
}

TEST_F(Attention, CapsAndSlopes) {
  check({.group = 2, .slots = {range(90, 20)}, .softcap = 5.0f});
  check({.group = 2, .slots = {range(90, 20)}, .softcap = 50.0f, .size = 20.0f});
  check({.n_kv_head = 2, .group = 4, .slots = {range(90, 20)}, .alibi = true});
  check({.slots = {range(90, 20)}, .window = 40, .softcap = 20.0f, .alibi = true});
}

// Seven rows after a past of 60 slots: two branches that share the first row, and a sequence
// without branches beside them.
TEST_F(Attention, Trees) {
  const std::vector<uint64_t> tree = {1, 3, 7, 9, 25, 41, 89, 1, 3, 7};
  for (const int past : {0, 25, 60})
    check({.group = 3, .slots = {range(past, 7), range(40, 3)}, .tree = tree});
  // The longest tree: every row sees itself and those at even places before it.
  std::vector<uint64_t> longest;
  for (int i = 0; i < 64; ++i)
    longest.push_back(uint64_t{1} << i | (0x5555555555555555u & ((uint64_t{1} << i) - 1)));
  check({.slots = {range(33, 64)}, .tree = longest}, {1});
}

TEST_F(Attention, EveryTypeOfPool) {
  constexpr DType kTypes[] = {DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0};
  for (const DType type_k : kTypes)
    for (const DType type_v : kTypes)
      check({.n_kv_head = 2,
             .group = 2,
             .type_k = type_k,
             .type_v = type_v,
             .slots = {range(60, 20), {150}}},
            {1, 2});
  for (const int head_dim : {96, 128, 256}) {
    check({.head_dim = head_dim,
           .group = 2,
           .type_k = DType::kQ8_0,
           .type_v = DType::kQ4_0,
           .slots = {range(60, 9), {150}}},
          {1, 2});
    check({.head_dim = head_dim,
           .type_k = DType::kQ4_0,
           .type_v = DType::kQ8_0,
           .slots = {range(60, 9), {150}}},
          {1, 2});
  }
  for (const int head_dim : {80, 96, 128, 256})
    check({.head_dim = head_dim,
           .type_k = DType::kBF16,
           .type_v = DType::kBF16,
           .slots = {range(60, 9), {150}}},
          {1, 2});
}

TEST_F(Attention, RowsOfManySequencesAndDeadOnes) {
  for (const int n_dead : {0, 1, 5})
    check({.n_kv_head = 2,
           .group = 4,
           .slots = {{5}, range(31, 20), {64}, {300}, range(0, 3)},
           .n_dead = n_dead});
}

// Large queries: one token has nearly all the weight, maxima jump.
TEST_F(Attention, SteepLogits) {
  check({.slots = {range(200, 30)}, .size = 30.0f});
  check({.type_k = DType::kQ8_0, .type_v = DType::kQ8_0, .slots = {range(200, 30)}, .size = 30.0f});
}

TEST_F(Attention, TenSeedsGiveTheSameBits) {
  struct {
    int head_dim;
    DType type;
  } constexpr kCases[] = {{64, DType::kF16}, {96, DType::kQ8_0}, {256, DType::kF16}};
  for (const int architecture : {75, 80}) {
    for (const auto& [head_dim, type] : kCases) {
      const AttentionCase c({.head_dim = head_dim,
                             .group = 4,
                             .type_k = type,
                             .type_v = type,
                             .slots = {range(130, 9), {300}}},
                            7);
      std::vector<float> decoded, prefilled;
      for (uint64_t seed = 1; seed <= 10; ++seed) {
        reset({.architecture = architecture, .seed = seed});
        const auto d = decode(c, 3), p = prefill(c, 5);
        if (seed == 1) {
          decoded = d;
          prefilled = p;
        }
        EXPECT_EQ(std::memcmp(d.data(), decoded.data(), d.size() * sizeof(float)), 0) << seed;
        EXPECT_EQ(std::memcmp(p.data(), prefilled.data(), p.size() * sizeof(float)), 0) << seed;
      }
    }
  }
}

// What a row gets depends neither on the tile it is in nor on its neighbours.
TEST_F(Attention, TilesDoNotMatter) {
  const AttentionCase c({.group = 3, .slots = {range(20, 50)}}, 3);
  const auto whole = prefill(c);
  for (const int rows : {1, 2, 5, 13}) EXPECT_EQ(prefill(c, rows), whole) << rows;
}

// What a row gets by decoding depends neither on other rows nor on how many blocks share it out.
TEST_F(Attention, ARowAloneIsTheRowOfABatch) {
  for (const DType type : {DType::kF16, DType::kQ8_0}) {
    const AttentionCase c({.n_kv_head = 2,
                           .group = 3,
                           .type_k = type,
                           .type_v = type,
                           .slots = {{700}, {5}, {383}, {1023}, {64}}},
                          4);
    const auto batch = decode(c, 5);
    for (const int n_block : {1, 2, 4}) EXPECT_EQ(decode(c, 5, n_block), batch) << n_block;
    std::vector<float> rows;
    for (int row = 0; row < c.m; ++row) {
      const auto alone = decode(c, 5, 3, row);
      const auto row_size = static_cast<int64_t>(alone.size()) / c.m;
      rows.insert(rows.end(), alone.begin() + row * row_size, alone.begin() + (row + 1) * row_size);
    }
    EXPECT_EQ(rows, batch);
  }
}

TEST_F(Attention, MoreRowsThanALaunchTakes) {
  AttentionShape shape = {.slots = {}, .n_dead = 3};
  for (int i = 0; i < 2 * kDecodeRowsAtOnce + 5; ++i)
    shape.slots.push_back({i % 50 == 9 ? 200 + i : i % 7});
  const AttentionCase c(shape, 9);
  expect_near(c, c.reference(), decode(c, 3, 2), shape.text());
}

// A count that says more rows than the launch has room for takes those.
TEST_F(Attention, NoMoreRowsThanTheLaunchHas) {
  const AttentionCase c({.group = 2, .slots = {range(20, 9), {150}}}, 2);
  const auto decoded = decode(c, 2), prefilled = prefill(c);
  AttentionCase more = c;
  more.n_live += 5;
  EXPECT_EQ(decode(more, 2), decoded);
  EXPECT_EQ(prefill(more, 0, {{0, 9}, {9, 6}}), prefilled);
  EXPECT_EQ(take_reports(), std::vector<std::string>{});
}

TEST_F(Attention, NoRowIsAlive) {
  AttentionCase c({.slots = {{70}, {200}}}, 2);
  c.n_live = 0;
  const std::vector<float> untouched(c.q.size(), kUntouched);
  EXPECT_EQ(decode(c, 2), untouched);
  EXPECT_EQ(prefill(c, 0, {{0, 1}, {1, 1}}), untouched);
  EXPECT_EQ(take_reports(), std::vector<std::string>{});
}

TEST_F(Attention, PartsAndBlocks) {
  const DecodeHeads llama = {.head_dim = 128, .n_head = 32, .n_kv_head = 8, .n_sm = 108};
  EXPECT_EQ(attention_split(llama, 1), 1);
  EXPECT_EQ(attention_split(llama, 128), 1);
  EXPECT_EQ(attention_split(llama, 129), 2);
  EXPECT_EQ(attention_split(llama, 4096), 32);
  EXPECT_EQ(attention_split(llama, 131072), 108 * 3 / 8);
  EXPECT_EQ(attention_blocks(llama, 1, 32), 32);
  EXPECT_EQ(attention_blocks(llama, 2, 32), 16);  // 20 of them would take as long
  EXPECT_EQ(attention_blocks(llama, 8, 32), 5);   // 40 rows of heads, 7 parts each
  EXPECT_EQ(attention_blocks(llama, 64, 32), 1);
  EXPECT_EQ(attention_blocks(llama, 1000, 32), 1);
  const DecodeHeads one = {.head_dim = 64, .n_head = 71, .n_kv_head = 1, .n_sm = 4};
  EXPECT_EQ(attention_split(one, 100000), 4 * 3 / 5);
  EXPECT_EQ(attention_split({.head_dim = 256, .n_head = 8, .n_kv_head = 1, .n_sm = 999}, 1 << 20),
            128);
  EXPECT_EQ(attention_split({.head_dim = 64, .n_head = 64, .n_kv_head = 64, .n_sm = 4}, 4096), 1);
  // Memory for the parts of the rows of one launch.
  EXPECT_EQ(attention_partial_floats(1000, 32, 128, 32),
            attention_partial_floats(kDecodeRowsAtOnce, 32, 128, 32));
  EXPECT_EQ(attention_counters(1000, 71, 1), kDecodeRowsAtOnce * 5);
}

TEST_F(Attention, WhatIsRefused) {
  EXPECT_TRUE(has_attention(64, DType::kF16, DType::kQ4_0));
  EXPECT_TRUE(has_attention(80, DType::kF16, DType::kBF16));
  EXPECT_FALSE(has_attention(80, DType::kF16, DType::kQ8_0));  // groups of 32
  EXPECT_FALSE(has_attention(72, DType::kF16, DType::kF16));
  EXPECT_FALSE(has_attention(64, DType::kF32, DType::kF16));
  AttentionDecodeArgs decode_args;
  AttentionPrefillArgs prefill_args;
  AttentionArgs& a = decode_args.attention;
  a.n_head = 3;
  a.pool = {.type_k = DType::kF16, .type_v = DType::kBF16, .n_kv_head = 1, .head_dim = 64};
  reset({.architecture = 75});
  EXPECT_EQ(attention_decode(decode_args, nullptr), cudaErrorNotSupported);
  prefill_args.attention = a;
  EXPECT_EQ(attention_prefill(prefill_args, nullptr), cudaErrorNotSupported);
  reset({.architecture = 80});
  EXPECT_EQ(attention_decode(decode_args, nullptr), cudaSuccess);  // no row, no launch
  EXPECT_EQ(attention_prefill(prefill_args, nullptr), cudaSuccess);
  decode_args.n_block = 0;
  EXPECT_EQ(attention_decode(decode_args, nullptr), cudaErrorInvalidValue);
  a.pool.head_dim = 72;
  EXPECT_EQ(attention_decode(decode_args, nullptr), cudaErrorNotSupported);
  a.pool.head_dim = 64;
  a.pool.n_kv_head = 2;
  EXPECT_EQ(attention_decode(decode_args, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(query_tile_rows(64, 1), 64);
  EXPECT_EQ(query_tile_rows(64, 3), 21);
  EXPECT_EQ(query_tile_rows(64, 71), 1);
}

}  // namespace
}  // namespace infer::cuda::test
