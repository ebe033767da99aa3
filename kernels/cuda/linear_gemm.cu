#include <algorithm>
#include <cstdint>

#include "kernels/cuda/gemm_params.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_items.h"

namespace infer::cuda {
namespace {

enum class Group : uint8_t { kNone, kPlain, kLegacy, kK };

Group group_of(DType type) {
  switch (type) {
    case DType::kF16:
    case DType::kBF16:
      return Group::kPlain;
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kIQ4_NL:
      return Group::kLegacy;
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
    case DType::kIQ4_XS:
      return Group::kK;
    default:
      return Group::kNone;
  }
}

gemm::Item make_item(const LinearItem& from) {
  gemm::Item item = {};
  for (int p = 0; p < kMaxPlanes; ++p) item.w.plane[p] = from.w.plane[p];
  item.bias = from.bias;
  item.out = from.out;
  item.n = from.w.n;
  return item;
}

gemm::Params make_params(const GemmArgs& args, const LinearItems& items) {
  gemm::Params p = {};
  p.q8 = args.q8, p.half = args.half;
  p.m = args.m, p.k = items.item[0].w.k;
  p.n_live = args.n_live, p.epilogue = args.epilogue;
  for (int i = 0; i < items.n; ++i) p.item[p.n_item++] = make_item(items.item[i]);
  return p;
}

/// Calls launch(type, params) once for each type among the items.
template <class Launch>
cudaError_t for_each_type(const GemmArgs& args, Launch&& launch) {
  if (args.m <= 0) return cudaSuccess;
  return for_types(args.items, args.epilogue, [&](const LinearItems& same) {
    return launch(same.item[0].w.type, make_params(args, same));
  });
}

/// Large tiles where there are enough of them to keep a GPU busy.
gemm::HalfTile choose_tile(const gemm::Params& p) {
  constexpr int64_t kEnough = 128;
  int64_t n = 0;
  for (int i = 0; i < p.n_item; ++i) n += p.item[i].n;
  const int n_expert = p.experts.n, rows = (p.m + n_expert - 1) / n_expert;
  return rows > 64 && gemm::n_row_tile(p, 128) * (n / 128) >= kEnough ? gemm::HalfTile::kLarge
                                                                      : gemm::HalfTile::kSmall;
}

cudaError_t launch_half(DType type, gemm::HalfTile tile, const gemm::Params& p,
                        cudaStream_t stream) {
  switch (group_of(type)) {
    case Group::kPlain:
      return gemm::launch_half_plain(type, tile, p, stream);
    case Group::kLegacy:
      return gemm::launch_half_legacy(type, tile, p, stream);
    case Group::kK:
      return gemm::launch_half_k(type, tile, p, stream);
    case Group::kNone:
      break;
  }
  return cudaErrorInvalidValue;
}

cudaError_t launch_q8(DType type, const gemm::Params& p, cudaStream_t stream) {
  if (group_of(type) == Group::kLegacy) return gemm::launch_q8_legacy(type, p, stream);
  return group_of(type) == Group::kK ? gemm::launch_q8_k(type, p, stream) : cudaErrorInvalidValue;
}

constexpr int kEpilogueThreads = 256;

}  // namespace

/// Grid: (columns, rows, items; with kGlu one). Bytes: each output read and written once.
__global__ void finish_products(const __grid_constant__ gemm::Params p) {
  const int row = static_cast<int>(block_idx().y), i = static_cast<int>(block_idx().z);
  const int column =
      static_cast<int>(block_idx().x) * kEpilogueThreads + static_cast<int>(thread_idx().x);
  const gemm::Item& item = p.item[i];
  if (row >= *p.n_live || column >= item.n) return;
  const int64_t at = static_cast<int64_t>(row) * item.n + column;
  const float up = p.epilogue.kind == Epilogue::kGlu ? p.item[1].out[at] : 0.0f;
  item.out[at] = gemm::finished(p, item, row, column, item.out[at], up);
}

bool has_gemm_half(DType type) { return group_of(type) != Group::kNone; }
bool has_gemm_q8(DType type) {
  return group_of(type) == Group::kLegacy || group_of(type) == Group::kK;
}

cudaError_t linear_gemm_half(const GemmArgs& args, cudaStream_t stream) {
  return for_each_type(args, [stream](DType type, const gemm::Params& p) {
    return launch_half(type, choose_tile(p), p, stream);
  });
}

cudaError_t gemm::linear_gemm_half_tiled(const GemmArgs& args, HalfTile tile, cudaStream_t stream) {
  return for_each_type(args, [stream, tile](DType type, const gemm::Params& p) {
    return launch_half(type, tile, p, stream);
  });
}

cudaError_t linear_gemm_q8(const GemmArgs& args, cudaStream_t stream) {
  return for_each_type(
      args, [stream](DType type, const gemm::Params& p) { return launch_q8(type, p, stream); });
}

cudaError_t gemm::linear_gemm_experts(const GemmArgs& args, const Experts& experts,
                                      cudaStream_t stream) {
  return for_each_type(args, [&](DType type, gemm::Params p) {
    p.experts = experts;
    return p.half != nullptr ? launch_half(type, choose_tile(p), p, stream)
                             : launch_q8(type, p, stream);
  });
}

cudaError_t linear_epilogue(const GemmArgs& args, cudaStream_t stream) {
  if (args.m <= 0) return cudaSuccess;
  const bool glu = args.epilogue.kind == Epilogue::kGlu;
  if (args.items.n < 1 || args.items.n > kMaxItems || (glu && args.items.n != 2))
    return cudaErrorInvalidValue;
  int widest = 0;
  for (int i = 0; i < args.items.n; ++i) widest = std::max(widest, args.items.item[i].w.n);
  const int n_item = glu ? 1 : args.items.n;
  const dim3 grid(static_cast<unsigned>((widest + kEpilogueThreads - 1) / kEpilogueThreads),
                  static_cast<unsigned>(args.m), static_cast<unsigned>(n_item));
  return launch(finish_products, grid, kEpilogueThreads, 0, stream, make_params(args, args.items));
}

}  // namespace infer::cuda
