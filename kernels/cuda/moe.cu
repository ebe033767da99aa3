#include "kernels/cuda/moe.h"

#include <cmath>

#include "kernels/cuda/gemm_params.cuh"
#include "kernels/cuda/gemv_params.cuh"
#include "kernels/cuda/launch.cuh"

namespace infer::cuda {

// --- Routing ------------------------------------------------------------------------------------

namespace {

constexpr int kRouteThreads = 256, kRouteWarps = kRouteThreads / kWarp;

/// An expert of a row. Those of a row are ordered by logit, larger first, then by id; a NaN counts
/// as the smallest, so that ids stay apart whatever the logits are.
struct Choice {
  float logit;
  int id;
};
INFER_DEVICE bool before(const Choice& a, const Choice& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}
INFER_DEVICE Choice choice_at(const float* logits, int id) {
  const float v = logits[id];
  return {v == v ? v : -INFINITY, id};
}

/// The first after `last` in that order, in every lane of a warp.
INFER_DEVICE Choice next_choice(const float* logits, int n_expert, const Choice& last) {
  Choice best = {-INFINITY, n_expert};
  for (int e = lane_id(); e < n_expert; e += kWarp) {
    const Choice at = choice_at(logits, e);
    if (before(last, at) && before(at, best)) best = at;
  }
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Choice other = {shfl_xor(best.logit, distance), shfl_xor(best.id, distance)};
    if (before(other, best)) best = other;
  }
  return best;
}

/// Route of one row, by a warp. A NaN or an infinity among the logits makes all weights NaN: the
/// sum of the exponentials is one.
INFER_DEVICE void route_row(const MoeRouteArgs& a, int row) {
  const float* logits = a.logits + static_cast<int64_t>(row) * a.n_expert;
  float* ids = a.route + static_cast<int64_t>(row) * 2 * a.n_used;
  float* weights = ids + a.n_used;
  Choice choice = next_choice(logits, a.n_expert, {INFINITY, -1});
  const float max = choice.logit;
  float sum = 0.0f;
  for (int e = lane_id(); e < a.n_expert; e += kWarp) sum += expf(logits[e] - max);
  sum = warp_sum(sum);
  float used = 0.0f;
  for (int j = 0; j < a.n_used; ++j) {
    if (j > 0) choice = next_choice(logits, a.n_expert, choice);
    const float p = expf(choice.logit - max) / sum;
    used += p;
    if (lane_id() != 0) continue;
    ids[j] = static_cast<float>(choice.id);
    weights[j] = p;
  }
  if (!a.normalise || lane_id() != 0) return;
  for (int j = 0; j < a.n_used; ++j) weights[j] /= used;
}

/// Pairs of one expert, by a warp: those of lower experts are counted as well, so that nobody waits
/// for anybody. Reads 4 bytes a pair, twice.
INFER_DEVICE void group_pairs(const MoeRouteArgs& a, int expert, int n_pair) {
  const auto id_of = [&](int pair) {
    return pair < n_pair
               ? static_cast<int>(a.route[static_cast<int64_t>(pair / a.n_used) * 2 * a.n_used +
                                          pair % a.n_used])
               : a.n_expert;
  };
  int n_before = 0, n_own = 0;
#pragma unroll 4  // loads side by side
  for (int first = 0; first < n_pair; first += kWarp) {
    const int id = id_of(first + lane_id());
    n_before += popcount(warp_ballot(id < expert));
    n_own += popcount(warp_ballot(id == expert));
  }
  if (lane_id() == 0) {
    a.pairs.begin[expert] = n_before;
    if (expert + 1 == a.n_expert) a.pairs.begin[a.n_expert] = n_before + n_own;
  }
  if (n_own == 0) return;
  for (int first = 0, at = n_before; first < n_pair; first += kWarp) {
    const bool own = id_of(first + lane_id()) == expert;
    const uint32_t lanes = warp_ballot(own);
    if (own) a.pairs.pair[at + popcount(lanes & ((1u << lane_id()) - 1))] = first + lane_id();
    at += popcount(lanes);
  }
}

INFER_DEVICE int live_rows(const int32_t* n_live, int m) { return *n_live < m ? *n_live : m; }

}  // namespace

/// logits [m, n_expert], route [m, 2 n_used]. A warp a row.
__global__ void __launch_bounds__(kRouteThreads)
    moe_route_rows(const __grid_constant__ MoeRouteArgs a) {
  const int row = static_cast<int>(block_idx().x) * kRouteWarps + warp_id();
  if (row < live_rows(a.n_live, a.m)) route_row(a, row);
}

/// A warp an expert.
__global__ void __launch_bounds__(kRouteThreads)
    moe_group_pairs(const __grid_constant__ MoeRouteArgs a) {
  const int expert = static_cast<int>(block_idx().x) * kRouteWarps + warp_id();
  if (expert < a.n_expert) group_pairs(a, expert, live_rows(a.n_live, a.m) * a.n_used);
}

/// Both for few rows, in one block.
__global__ void __launch_bounds__(kRouteThreads)
    moe_route_few_rows(const __grid_constant__ MoeRouteArgs a) {
  const int n_live = live_rows(a.n_live, a.m);
  for (int row = warp_id(); row < n_live; row += kRouteWarps) route_row(a, row);
  sync_threads();
  for (int expert = warp_id(); expert < a.n_expert; expert += kRouteWarps)
    group_pairs(a, expert, n_live * a.n_used);
}

cudaError_t moe_route(const MoeRouteArgs& args, cudaStream_t stream) {
  if (args.m <= 0) return cudaSuccess;
  if (args.n_expert < 1 || args.n_used < 1 || args.n_used > args.n_expert)
    return cudaErrorInvalidValue;
  const auto blocks = [](int n_warp) { return (n_warp + kRouteWarps - 1) / kRouteWarps; };
  if (args.m <= kRouteWarps) return launch(moe_route_few_rows, 1, kRouteThreads, 0, stream, args);
  const cudaError_t error = launch(moe_route_rows, blocks(args.m), kRouteThreads, 0, stream, args);
  if (error != cudaSuccess) return error;
  return launch(moe_group_pairs, blocks(args.n_expert), kRouteThreads, 0, stream, args);
}

// --- Products -----------------------------------------------------------------------------------

namespace {

struct Products {
  LinearItems items;
  LinearEpilogue epilogue;
  const float* x;
  ExpertAct act;
  int m, n_used;
  int rows_share;  ///< pairs that have a row of activations in common
  ExpertPairs pairs;
  bool precise;
};

bool are_valid(const Products& a) {
  const Matrix& w = a.items.item[0].w;
  for (int i = 0; i < a.items.n; ++i) {
    const Matrix& other = a.items.item[i].w;
    if (weight_layout(w.type).n_plane == 0 || other.type != w.type || other.n != w.n ||
        other.k != w.k || other.n_expert != w.n_expert || other.expert_bytes != w.expert_bytes)
      return false;
  }
  return a.n_used >= 1 && w.n >= 1 && w.k >= 1 && w.n_expert >= 1 && w.n_expert <= 65535;
}

cudaError_t launch_gemm(const Products& a, cudaStream_t stream) {
  const Matrix& w = a.items.item[0].w;
  GemmArgs args;
  args.q8 = a.act.q8;
  args.half = a.act.half;
  args.m = a.m * a.n_used;
  args.items = a.items;
  args.epilogue = a.epilogue;
  return gemm::linear_gemm_experts(
      args, {a.pairs.begin, a.pairs.pair, w.n_expert, a.rows_share, w.expert_bytes}, stream);
}

cudaError_t launch_gemv(const Products& a, cudaStream_t stream) {
  const Matrix& w = a.items.item[0].w;
  gemv::Params p = gemv::make_params(a.x, nullptr, a.items, a.epilogue);
  p.begin = a.pairs.begin;
  p.pair = a.pairs.pair;
  p.rows_share = a.rows_share;
  p.expert_bytes = w.expert_bytes;
  gemv::Launch what;
  what.type = w.type;
  what.f32 = a.precise;
  what.m = a.m;  // a row chooses an expert once
  what.n_expert = w.n_expert;
  what.n_expert_used = w.n_expert < a.m * a.n_used ? w.n_expert : a.m * a.n_used;
  return gemv::launch(what, p, stream);
}

cudaError_t launch_experts(const Products& a, cudaStream_t stream) {
  if (!are_valid(a)) return cudaErrorInvalidValue;
  const bool prepared = a.act.q8.q != nullptr || a.act.half != nullptr;
  return prepared && !a.precise ? launch_gemm(a, stream) : launch_gemv(a, stream);
}

}  // namespace

cudaError_t moe_glu(const MoeGluArgs& args, cudaStream_t stream) {
  if (args.m <= 0) return cudaSuccess;
  Products a = {};
  a.items.n = 2;
  a.items.item[0] = {args.gate, nullptr, args.h};
  a.items.item[1] = {args.up, nullptr, nullptr};
  a.epilogue.kind = Epilogue::kGlu;
  a.epilogue.glu = args.glu;
  a.x = args.x, a.act = args.act;
  a.m = args.m, a.n_used = args.n_used, a.rows_share = args.n_used;
  a.pairs = args.pairs, a.precise = args.precise;
  return launch_experts(a, stream);
}

/// y [m * n_used, n], route [m, 2 n_used], residual and out [m, n]: each read and written once.
/// Grid: columns, rows.
__global__ void __launch_bounds__(kRouteThreads)
    moe_combine(const __grid_constant__ MoeDownArgs a) {
  const int row = static_cast<int>(block_idx().y), n = a.down.n;
  const int column =
      static_cast<int>(block_idx().x) * kRouteThreads + static_cast<int>(thread_idx().x);
  if (row >= *a.n_live || column >= n) return;
  const float* weights = a.route + static_cast<int64_t>(row) * 2 * a.n_used + a.n_used;
  const float* y = a.scratch + static_cast<int64_t>(row) * a.n_used * n + column;
  float sum = weights[0] * y[0];
  for (int j = 1; j < a.n_used; ++j) sum += weights[j] * y[static_cast<int64_t>(j) * n];
  const int64_t at = static_cast<int64_t>(row) * n + column;
  a.out[at] = a.residual[at] + sum;
}

cudaError_t moe_down(const MoeDownArgs& args, cudaStream_t stream) {
  if (args.m <= 0) return cudaSuccess;
  Products a = {};
  a.items.n = 1;
  a.items.item[0] = {args.down, nullptr, args.scratch};
  a.x = args.h, a.act = args.act;
  a.m = args.m, a.n_used = args.n_used, a.rows_share = 1;
  a.pairs = args.pairs, a.precise = args.precise;
  const cudaError_t error = launch_experts(a, stream);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>((args.down.n + kRouteThreads - 1) / kRouteThreads),
                  static_cast<unsigned>(args.m));
  return launch(moe_combine, grid, kRouteThreads, 0, stream, args);
}

}  // namespace infer::cuda
