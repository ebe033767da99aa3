#include "core/base/quant_types.h"
#include "kernels/cuda/linear.h"
#include "tools/gpu-report/timing.h"

/// Matrix products at the shapes of a layer.
namespace infer::cuda::timing {

/// A group of matrices, what it is called, and its launches' arguments.
struct Bench::Product {
  DType type;
  std::vector<int> n;
  int k;
  LinearItems items;
  LinearEpilogue epilogue;

  Json what(const char* op, int m) const {
    return {{"op", op}, {"type", name_of(type)},
            {"n", n},   {"k", k},
            {"m", m},   {"glu", epilogue.kind == Epilogue::kGlu}};
  }
};

void Bench::linears() {
  const int kv = s_.n_kv_head * s_.head_dim, q = s_.n_head * s_.head_dim;
  for (const DType type : {DType::kF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ6_K}) {
    product(type, {q, kv, kv}, s_.n_embd, false);
    product(type, {s_.n_embd}, q, false);
    product(type, {s_.n_ff, s_.n_ff}, s_.n_embd, true);
    product(type, {s_.n_embd}, s_.n_ff, false);
  }
  product(DType::kQ6_K, {s_.n_vocab}, s_.n_embd, false);
}

void Bench::product(DType type, const std::vector<int>& n, int k, bool glu) {
  const WeightLayout layout = weight_layout(type);
  std::vector<std::unique_ptr<Memory>> weights;
  Product p = {type, n, k, {}, {}};
  auto* out = out_.as<float>();
  for (const int rows : n) {
    weights.push_back(std::make_unique<Memory>(plane_offset(layout, layout.n_plane, rows, k)));
    p.items.item[p.items.n++] = {make_matrix(type, rows, k, 1, weights.back()->as<std::byte>()),
                                 nullptr, out};
    if (!glu) out += int64_t{kRowsAtMost} * rows;
  }
  if (glu) p.epilogue.kind = Epilogue::kGlu;
  few_rows(p);
  if (n[0] != s_.n_vocab) many_rows(p);
}

void Bench::few_rows(const Product& p) {
  const Norm norm = {NormKind::kRms, norm_.as<float>(), nullptr, 1e-5f};
  for (const int m : {1, 8}) {
    const GemvArgs args = {x_.as<float>(), p.k == s_.n_embd ? norm : Norm{}, m, live(m), p.items,
                           p.epilogue};
    add(p.what("gemv", m), [&](cudaStream_t stream) { return linear_gemv(args, stream); });
  }
}

void Bench::many_rows(const Product& p) {
  for (const int m : {16, 64, 512}) {
    GemmArgs args;
    args.q8 = {act_.as<int8_t>(), scales_.as<float2>()};
    args.half = act_.as<uint16_t>();
    args.m = m, args.n_live = live(m), args.items = p.items, args.epilogue = p.epilogue;
    if (has_gemm_q8(p.type))
      add(p.what("gemm_q8", m), [&](cudaStream_t stream) { return linear_gemm_q8(args, stream); });
    add(p.what("gemm_half", m),
        [&](cudaStream_t stream) { return linear_gemm_half(args, stream); });
    if (p.type == DType::kF16 && m == 512)
      add(p.what("epilogue", m),
          [&](cudaStream_t stream) { return linear_epilogue(args, stream); });
  }
  const LinearF32Args precise = {x_.as<float>(), 64, live(64), p.items, p.epilogue};
  add(p.what("linear_f32", 64), [&](cudaStream_t stream) { return linear_f32(precise, stream); });
}

}  // namespace infer::cuda::timing
