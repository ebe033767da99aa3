#include "kernels/cuda/gemv_params.cuh"
#include "kernels/cuda/linear_items.h"
#include "kernels/cuda/weight_units.cuh"

namespace infer::cuda {
namespace gemv {

int multiprocessors() {
  int device = 0, n = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
    return 1;
  return n;
}

void set_tiles(Params& p, int rows) {
  const bool glu = p.epilogue.kind == Epilogue::kGlu;
  p.tile_rows = glu ? rows / 2 : rows;
  p.n_tile = 0;
  for (int i = 0; i < (glu ? 1 : p.n_item); ++i) {
    p.item[i].n_tile = (p.item[i].n + p.tile_rows - 1) / p.tile_rows;
    p.n_tile += p.item[i].n_tile;
  }
}

cudaError_t launch(const Launch& what, const Params& p, cudaStream_t stream) {
  if (is_float_type(what.type)) return launch_float(what, p, stream);
  if (what.f32) return launch_precise(what, p, stream);
  return weight_layout(what.type).block_len == kBlock256 ? launch_k(what, p, stream)
                                                         : launch_legacy(what, p, stream);
}

static Item make_item(const Matrix& w, const float* bias, float* out) {
  Item item = {{}, bias, out, w.n, 0};
  for (int i = 0; i < kMaxPlanes; ++i) item.w.at[i] = w.plane[i];
  return item;
}

Params make_params(const float* x, const int32_t* n_live, const LinearItems& items,
                   const LinearEpilogue& epilogue) {
  Params p = {};
  p.x = x;
  p.k = items.item[0].w.k;
  p.n_live = n_live;
  p.n_item = items.n;
  for (int i = 0; i < items.n; ++i)
    p.item[i] = make_item(items.item[i].w, items.item[i].bias, items.item[i].out);
  p.epilogue = epilogue;
  p.rows_share = 1;
  return p;
}

static cudaError_t launch_dense(const GemvArgs& args, bool f32, cudaStream_t stream) {
  if (args.m <= 0) return cudaSuccess;
  return for_types(args.items, args.epilogue, [&](const LinearItems& items) {
    Params p = make_params(args.x, args.n_live, items, args.epilogue);
    p.m = args.m;
    p.norm = args.norm;
    Launch what;
    what.type = items.item[0].w.type;
    what.f32 = f32;
    what.m = args.m;
    return launch(what, p, stream);
  });
}

}  // namespace gemv

cudaError_t linear_gemv(const GemvArgs& args, cudaStream_t stream) {
  if (args.m > kGemvRows) return cudaErrorInvalidValue;
  return gemv::launch_dense(args, /*f32=*/false, stream);
}

cudaError_t linear_f32(const LinearF32Args& args, cudaStream_t stream) {
  if (args.m > kGemvRows) return linear_tiles(args, stream);
  GemvArgs few;
  few.x = args.x;
  few.m = args.m;
  few.n_live = args.n_live;
  few.items = args.items;
  few.epilogue = args.epilogue;
  return gemv::launch_dense(few, /*f32=*/true, stream);
}

}  // namespace infer::cuda
