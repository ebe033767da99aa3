#pragma once

#include "kernels/cuda/gemv_act.cuh"
#include "kernels/cuda/gemv_rows.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight_types.h"

/// Products of few rows, bound by the bytes of the weights. `lanes` neighbours share a row of
/// weights and take its units in turns; the loads of the next kDepth turns are always under way,
/// the first ones already while the block prepares the activations. A block takes tiles of rows of
/// weights, grid_dim().x apart, so that it prepares activations once for many.
///
/// Order of a sum: a lane its units in sequence, then the lanes by a butterfly: neither grid nor
/// chunks matter. Products are added by fmaf, so that what a compiler would fuse does not either.
namespace infer::cuda::gemv {

INFER_DEVICE int lane_of_row(const Params& p) {
  return static_cast<int>(thread_idx().x) & ((1 << p.lanes_log2) - 1);
}

/// A lane's units of one turn, of its rows.
template <class W>
struct LaneUnits {
  typename W::Raw raw[kRowsOfLane];
};

/// What a lane reads ahead: where its first units in a tile are, the last turn in which it has any,
/// and the units of the next kDepth turns.
template <class W, int kDepth>
struct Ahead {
  typename W::At at[kRowsOfLane];
  int last_turn;
  LaneUnits<W> units[kDepth];
};

template <class W, int kDepth>
INFER_DEVICE void set_tile(const Params& p, int tile, int expert, Ahead<W, kDepth>& ahead) {
  const LaneRows rows = lane_rows(p, tile, static_cast<int>(thread_idx().x) >> p.lanes_log2);
  const int lane = lane_of_row(p);
#pragma unroll
  for (int r = 0; r < kRowsOfLane; ++r)
    find_unit<W>(p, rows, r, expert, lane < p.units ? lane : p.units - 1, ahead.at[r]);
  ahead.last_turn = lane < p.units ? (p.units - 1 - lane) >> p.lanes_log2 : 0;
}
/// Turns in which the lane has no unit read its last one; nobody uses that.
template <class W, int kDepth>
INFER_DEVICE void load_units(const Params& p, int turn, Ahead<W, kDepth>& ahead,
                             LaneUnits<W>& units) {
  turn = turn < ahead.last_turn ? turn : ahead.last_turn;
  const int unit = lane_of_row(p) + (turn << p.lanes_log2);
#pragma unroll
  for (int r = 0; r < kRowsOfLane; ++r)
    units.raw[r] = W::load(ahead.at[r], turn << (p.lanes_log2 - 3), p.k - unit * W::kUnit);
}

template <int kRows>
using Sums = float[kRowsOfLane][kRows];

/// sums += units * activations, 8 bits: products of integers are exact, each group's sum is scaled.
/// `turn` counts from the beginning of the chunk. Neither the shuffling of pieces nor decode()
/// tells a lane's units apart.
template <class W, int kRows>
INFER_DEVICE void multiply(const Params& p, const LaneUnits<W>& units, int turn,
                           const ActPieces& act, Sums<kRows>& sums) {
  constexpr int kGroups = W::kGroups;
  const auto lane = static_cast<unsigned>(lane_of_row(p));
  const auto turn_groups = static_cast<unsigned>(turn << p.lanes_log2) * (W::kUnit / 16);
  Terms<kGroups> t[kRowsOfLane];
  [[maybe_unused]] float own_offset[kRowsOfLane];
#pragma unroll
  for (int r = 0; r < kRowsOfLane; ++r) {
    t[r] = W::decode(units.raw[r], lane);
    if constexpr (W::kOffset == Offset::kBlock)
      own_offset[r] = W::own_offset(units.raw[r].head, lane);
  }
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    uint4 x[kGroups];
    float2 scale[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const unsigned group = W::group(lane, static_cast<unsigned>(g));
      x[g] = act.levels[level_at<kRows>(act_slot<W>(group), m) + turn_groups * kRows];
      scale[g] = act.scales[scale_at<kRows>((turn_groups + group) / 2, m)];
    }
#pragma unroll
    for (int r = 0; r < kRowsOfLane; ++r) {
      float& sum = sums[r][m];
      int dot = 0;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          dot = dp4a(static_cast<int>(t[r].level[g][i]), static_cast<int>(word_of(x[g], i)), dot);
        if (g + 1 < kGroups && W::kOneScale) continue;
        sum = fmaf(t[r].d[g], scale[g].x * static_cast<float>(dot), sum);
        dot = 0;
        if constexpr (W::kOffset == Offset::kGroup) {
          int levels = 0;
#pragma unroll
          for (int i = 0; i < 4; ++i)
            levels = dp4a(0x01010101, static_cast<int>(word_of(x[g], i)), levels);
          sum = fmaf(-t[r].c[g], scale[g].x * static_cast<float>(levels), sum);
        }
      }
      if constexpr (W::kOffset == Offset::kUnit) sum = fmaf(-t[r].c[0], scale[0].y, sum);
      if constexpr (W::kOffset == Offset::kBlock)
        sum = fmaf(-own_offset[r], lane % 2 == 0 ? scale[0].y : scale[1].y, sum);
    }
  }
}

/// The same for f32.
template <class W, int kRows>
INFER_DEVICE void multiply(const Params& p, const LaneUnits<W>& units, int turn,
                           const ActQuads& act, Sums<kRows>& sums) {
  const int unit = lane_of_row(p) + (turn << p.lanes_log2);
  float w[kRowsOfLane][W::kUnit];
#pragma unroll
  for (int r = 0; r < kRowsOfLane; ++r) W::values(units.raw[r], unit, w[r]);
#pragma unroll
  for (int i = 0; i < W::kUnit / 4; ++i) {
    const unsigned quad = W::quad(static_cast<unsigned>(unit), static_cast<unsigned>(i));
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      const float4 x = act.quads[quad_at<kRows>(quad, m)];
#pragma unroll
      for (int r = 0; r < kRowsOfLane; ++r) sums[r][m] = dot_quad(w[r] + 4 * i, x, sums[r][m]);
    }
  }
}

/// Adds up the lanes' sums of the first kLeft rows: a butterfly, in which lanes halve the rows
/// among themselves as long as there are several. Returns the row that the lane is left with, in
/// sums[.][0].
template <int kLeft, int kRows>
INFER_DEVICE int add_lanes(const Params& p, int distance, Sums<kRows>& sums) {
  if constexpr (kLeft == 1) {
    for (; distance > 0; distance /= 2) {
#pragma unroll
      for (int r = 0; r < kRowsOfLane; ++r) sums[r][0] += shfl_xor(sums[r][0], distance);
    }
    return 0;
  } else {
    constexpr int kHalf = kLeft / 2;
    const bool upper = (lane_of_row(p) & distance) != 0;
#pragma unroll
    for (int r = 0; r < kRowsOfLane; ++r) {
#pragma unroll
      for (int m = 0; m < kHalf; ++m) {
        const float low = sums[r][m], high = sums[r][m + kHalf];
        const float give = upper ? low : high, keep = upper ? high : low;
        sums[r][m] = keep + shfl_xor(give, distance);
      }
    }
    return (upper ? kHalf : 0) + add_lanes<kHalf, kRows>(p, distance / 2, sums);
  }
}

/// Stores the tile's outputs, shared out among the lanes that have the same sums.
template <int kRows>
INFER_DEVICE void store_outputs(const Params& p, int tile, const PassRows& rows,
                                Sums<kRows>& sums) {
  const int m = add_lanes<kRows, kRows>(p, 1 << p.lanes_log2 >> 1, sums);
  const float first = sums[0][0], second = sums[1][0];
  if (m >= rows.n) return;
  const LaneRows at = lane_rows(p, tile, static_cast<int>(thread_idx().x) >> p.lanes_log2);
  const Item& item = p.item[at.item[0]];
  const int n_column = p.epilogue.kind == Epilogue::kGlu ? 1 : kRowsOfLane;
  const int share = (1 << p.lanes_log2) / kRows;
  for (int i = lane_of_row(p) & (share - 1); i < n_column; i += share) {
    const float v = i == 0 ? first : second;
    if (at.column + i < item.n) store_output(p, item, rows.out_row(m), at.column + i, v, second);
  }
}
static_assert(kRowsOfLane == 2);  // gate and up, or two columns

/// Where activations lie behind the header.
template <class W, int kRows, bool kF32>
INFER_DEVICE auto act_in_shared(const Params& p, Header& header) {
  auto* behind = reinterpret_cast<unsigned char*>(&header) + sizeof(Header);
  if constexpr (kF32) {
    return ActQuads{reinterpret_cast<float4*>(behind)};
  } else {
    auto* levels = reinterpret_cast<uint4*>(behind);
    return ActPieces{levels, reinterpret_cast<float2*>(levels + kRows * (p.chunk / 16))};
  }
}

/// Prepares activations [begin, begin + p.chunk) in shared memory, which everybody has done with.
template <class W, int kRows, bool kF32, class Act>
INFER_DEVICE void fill(const Params& p, const PassRows& rows, const Header& header, const Act& act,
                       int begin) {
  const int left = (p.k - begin + kActGroup - 1) / kActGroup * kActGroup;
  const int length = left < p.chunk ? left : p.chunk;
  sync_threads();  // statistics are written, and what was there before has been read
  if constexpr (kF32)
    fill_f32<kRows>(p, rows, header, act, begin, length);
  else
    fill_q8<W, kRows>(p, rows, header, act, begin, length);
  sync_threads();
}

/// kDepth turns from `turn` on, the units of which are replaced by those from turn `next` on (of
/// another tile, perhaps), if `more`. `chunk_turn`: the first of the chunk in shared memory.
template <class W, int kRows, int kDepth, class Act>
INFER_DEVICE void take_turns(const Params& p, Ahead<W, kDepth>& ahead, int turn, int chunk_turn,
                             int next, bool more, const Act& act, Sums<kRows>& sums) {
#pragma unroll
  for (int d = 0; d < kDepth; ++d) {
    if (lane_of_row(p) + ((turn + d) << p.lanes_log2) < p.units)
      multiply<W, kRows>(p, ahead.units[d], turn + d - chunk_turn, act, sums);
    if (more) load_units<W>(p, next + d, ahead, ahead.units[d]);
  }
}

/// x [., k] f32, weights [n, k] of up to three items, out [., n]; bytes moved: the weights, and for
/// each block x and the norm's weights (from the second level cache). Block: kThreads. Shared
/// memory: shared_bytes().
template <class W, int kRows, bool kF32, int kDepth, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) gemv_kernel(const __grid_constant__ Params p) {
  const int expert = static_cast<int>(block_idx().y);
  PassRows rows = {p.pair, p.rows_share, 0, 0};
  int end = 0;
  if (p.begin != nullptr) {
    rows.first = p.begin[expert];
    end = p.begin[expert + 1];
    if (rows.first == end) return;
  }
  Header& header = shared<Header>();
  const auto act = act_in_shared<W, kRows, kF32>(p, header);
  const int first_tile = static_cast<int>(block_idx().x), apart = static_cast<int>(grid_dim().x);
  Ahead<W, kDepth> ahead;
  set_tile(p, first_tile, expert, ahead);
#pragma unroll
  for (int d = 0; d < kDepth; ++d) load_units<W>(p, d, ahead, ahead.units[d]);
  if (p.begin == nullptr) end = live_rows(p);

  for (; rows.first < end; rows.first += kRows) {
    rows.n = end - rows.first < kRows ? end - rows.first : kRows;
    row_statistics<!kF32>(p, rows, header);
    for (int tile = first_tile; tile < p.n_tile; tile += apart) {
      Sums<kRows> sums = {};
      int turn = 0, chunk_turn = 0, chunk_end = 0;
      for (; turn < p.turns; turn += kDepth) {
        if (turn == chunk_end) {
          if (p.chunk < p.k || tile == first_tile)
            fill<W, kRows, kF32>(p, rows, header, act, (turn << p.lanes_log2) * W::kUnit);
          chunk_turn = turn;
          chunk_end = turn + p.chunk_turns;
        }
        int next = turn + kDepth;
        bool more = true;
        if (next >= p.turns) {  // of the next tile, or of the next pass' first one
          const bool last = tile + apart >= p.n_tile;
          next = 0;
          more = !last || rows.first + kRows < end;
          if (more) set_tile(p, last ? first_tile : tile + apart, expert, ahead);
        }
        take_turns<W, kRows>(p, ahead, turn, chunk_turn, next, more, act, sums);
      }
      store_outputs<kRows>(p, tile, rows, sums);
    }
  }
}

/// Activations of a stripe of scales (gemv_act.cuh), and of several of the others.
inline constexpr int kStripes = 512;

/// Bytes of shared memory for `kRows` rows in chunks of `chunk`.
constexpr int shared_bytes(int n_row, int chunk, bool f32) {
  return static_cast<int>(sizeof(Header)) + n_row * (f32 ? 4 * chunk : chunk + chunk / 4);
}

template <DType kType, int kRows, bool kF32>
cudaError_t launch_rows(const Launch& what, Params p, cudaStream_t stream) {
  using W = WeightUnits<kType>;
  // With more rows there is more arithmetic while loads are under way, and fewer registers.
  constexpr int kDepth = kRows == 1 || kRows * W::kUnit <= 64 ? 2 : 1;
  // The 128 registers that leave room for a second block are a few too few for these.
  constexpr bool kCrowded =
      kRows >= 4 && (kType == DType::kQ2_K || kType == DType::kQ3_K || kType == DType::kQ5_K);
  constexpr int kBlocks = kCrowded ? 1 : 2;
  p.units = (p.k + W::kUnit - 1) / W::kUnit;
  p.lanes_log2 = p.units >= 64 ? 5 : p.units >= 32 ? 4 : 3;
  const int lanes = 1 << p.lanes_log2;
  p.turns = (p.units + lanes - 1) / lanes;
  // Chunks are whole turns of the lanes, so that cutting changes no order of summation, and whole
  // stripes.
  const int turns = lanes * W::kUnit * kDepth, whole = turns > kStripes ? turns : kStripes;
  constexpr int kMost =
      (kSharedBytes - static_cast<int>(sizeof(Header))) / kRows * 4 / (kF32 ? 16 : 5);
  static_assert(shared_bytes(kRows, kMost, kF32) <= kSharedBytes);
  static_assert(kMost >= kWarp * W::kUnit * kDepth && kMost >= kStripes, "no chunk fits");
  p.chunk = p.k <= kMost / kStripes * kStripes ? (p.k + kStripes - 1) / kStripes * kStripes
                                               : kMost / whole * whole;
  p.chunk_turns = p.chunk < p.k ? p.chunk / (lanes * W::kUnit) : p.turns;
  set_tiles(p, kWarps * (kWarp / lanes) * kRowsOfLane);
  // Two waves or so: enough that blocks even out, few enough that activations are prepared rarely.
  const int wanted = multiprocessors() * 6 / what.n_expert_used;
  const int n_block = p.n_tile < wanted ? p.n_tile : wanted > 0 ? wanted : 1;
  const dim3 grid(static_cast<unsigned>(n_block), static_cast<unsigned>(what.n_expert));
  return cuda::launch(gemv_kernel<W, kRows, kF32, kDepth, kBlocks>, grid, kThreads,
                      static_cast<size_t>(shared_bytes(kRows, p.chunk, kF32)), stream, p);
}

/// Rows that kernels are compiled for, ascending. The last takes more in passes.
template <int... kRows>
struct RowCounts {};

template <DType kType, bool kF32, int kRows, int... kMore>
cudaError_t launch_m(RowCounts<kRows, kMore...>, const Launch& what, const Params& p,
                     cudaStream_t stream) {
  if constexpr (sizeof...(kMore) > 0) {
    if (what.m > kRows) return launch_m<kType, kF32>(RowCounts<kMore...>{}, what, p, stream);
  }
  return launch_rows<kType, kRows, kF32>(what, p, stream);
}

template <bool kF32, class Types, int... kRows>
cudaError_t launch_type(Types types, RowCounts<kRows...> rows, const Launch& what, const Params& p,
                        cudaStream_t stream) {
  return with_type(types, what.type,
                   [&]<DType kType>() { return launch_m<kType, kF32>(rows, what, p, stream); });
}

}  // namespace infer::cuda::gemv
