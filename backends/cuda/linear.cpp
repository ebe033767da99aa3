#include <algorithm>
#include <array>

#include "backends/cuda/stage.h"
#include "core/base/check.h"

/// linear_group: which kernel takes it is a matter of type and rows (linear_path). Few rows go
/// straight in; for more, one launch normalises and rounds the input for all items, in each form
/// that some item takes.
namespace infer::cuda {
namespace {

constexpr size_t kPaths = 5;

}  // namespace

void Stage::plan_linears() {
  linears_.resize(static_cast<size_t>(plan_.op_end - plan_.op_begin));
  for (size_t i = 0; i < linears_.size(); ++i) {
    const graph::Op& op = g_.ops[static_cast<size_t>(plan_.op_begin) + i];
    if (op.kind == graph::OpKind::kLinearGroup)
      linears_[i] = plan_linear(op, layout_.folded_norm[i]);
  }
}

Stage::LinearPlan Stage::plan_linear(const graph::Op& op, int folded_norm) const {
  const auto& attrs = op.as<graph::LinearAttrs>();
  INFER_CHECK(static_cast<int>(attrs.items.size()) <= kMaxItems, "{} items", attrs.items.size());
  LinearPlan lp;
  lp.of_token_rows = is_token_value(op.in[0]);
  lp.x = value(op.in[0]);
  lp.k = n_cols(op.in[0]);
  if (folded_norm >= 0) {
    const graph::Op& norm =
        g_.ops[static_cast<size_t>(plan_.op_begin) + static_cast<size_t>(folded_norm)];
    lp.x = value(norm.in[0]);
    lp.norm = norm_of(norm.as<graph::NormAttrs>());
  }
  lp.items.n = static_cast<int>(attrs.items.size());
  for (size_t i = 0; i < attrs.items.size(); ++i) {
    LinearItem& item = lp.items.item[i];
    item.w = weights_.matrix(g_, attrs.items[i].weight);
    item.bias = weights_.vector(attrs.items[i].bias);
    if (i < op.out.size()) item.out = value(op.out[i]);
  }
  lp.epilogue.kind = static_cast<Epilogue>(attrs.epilogue);
  lp.epilogue.glu = static_cast<GluKind>(attrs.glu);
  lp.epilogue.scale = attrs.scale;
  lp.epilogue.softcap = attrs.softcap;
  if (attrs.epilogue == graph::Epilogue::kResidualAdd) lp.epilogue.residual = value(op.in[1]);
  if (attrs.epilogue == graph::Epilogue::kGlu) {
    lp.mixed_glu = lp.items.item[0].w.type != lp.items.item[1].w.type;
    lp.items.item[1].out = scratch<float>(layout_.scratch.up);
  }
  return lp;
}

Result<void> Stage::linear_op(const graph::Op& op, const LinearPlan& lp, const StepShape& shape) {
  const int m = lp.of_token_rows ? shape.m : shape.m_tail;
  const int32_t* live = n_live(lp.of_token_rows, shape);
  const auto run = [&]() -> Result<void> {
    INFER_TRY(check(prepare(lp, m, live), "preparing activations"));
    if (!lp.mixed_glu) return run_items(lp, lp.items, lp.epilogue, m, live);
    const LinearItem& gate = lp.items.item[0];
    LinearItem up = lp.items.item[1];
    up.out = gate.out;
    INFER_TRY(run_items(lp, {1, {up}}, {}, m, live));
    LinearEpilogue times_up = lp.epilogue;
    times_up.kind = Epilogue::kActMul;
    times_up.residual = gate.out;
    return run_items(lp, {1, {gate}}, times_up, m, live);
  };
  Result<void> result = run();
  if (result.ok()) return result;
  return make_error(result.error().code, "{} ('{}')", result.error().message, op.name);
}

Result<void> Stage::run_items(const LinearPlan& lp, const LinearItems& items,
                              const LinearEpilogue& epilogue, int m, const int32_t* n_live) {
  std::array<LinearItems, kPaths> paths;
  for (int i = 0; i < items.n; ++i) {
    LinearItems& part = paths[static_cast<size_t>(linear_path(items.item[i].w.type, m, policy_))];
    part.item[part.n++] = items.item[i];
  }
  for (size_t path = 0; path < kPaths; ++path) {
    if (paths[path].n > 0)
      INFER_TRY(run_path(static_cast<LinearPath>(path), lp, paths[path], epilogue, m, n_live));
  }
  return {};
}

cudaError_t Stage::prepare(const LinearPlan& lp, int m, const int32_t* n_live) {
  const ScratchLayout& s = layout_.scratch;
  PrepareArgs args;
  args.x = lp.x;
  args.norm = lp.norm;
  args.m = m;
  args.k = lp.k;
  args.n_live = n_live;
  bool any = false;
  for (int i = 0; i < lp.items.n; ++i) {
    const DType type = lp.items.item[i].w.type;
    switch (linear_path(type, m, policy_)) {
      case LinearPath::kGemv:
        continue;
      case LinearPath::kF32:
        if (lp.norm.kind == NormKind::kNone) continue;
        args.f32 = scratch<float>(s.act_f32);
        break;
      case LinearPath::kGemmQ8:
        args.q8 = {scratch<int8_t>(s.act_q), scratch<float2>(s.act_ds)};
        break;
      case LinearPath::kGemmHalf:
      case LinearPath::kCublas:
        (takes_bf16(type, policy_) ? args.bf16 : args.f16) =
            scratch<uint16_t>(takes_bf16(type, policy_) ? s.act_bf16 : s.act_f16);
        break;
    }
    any = true;
  }
  return any ? prepare_act(args, stream_.get()) : cudaSuccess;
}

Result<void> Stage::run_path(LinearPath path, const LinearPlan& lp, const LinearItems& items,
                             const LinearEpilogue& epilogue, int m, const int32_t* n_live) {
  const ScratchLayout& s = layout_.scratch;
  if (path == LinearPath::kGemv)
    return check(linear_gemv({lp.x, lp.norm, m, n_live, items, epilogue}, stream_.get()), "gemv");
  if (path == LinearPath::kF32) {
    const float* x = lp.norm.kind == NormKind::kNone ? lp.x : scratch<float>(s.act_f32);
    return check(linear_f32({x, m, n_live, items, epilogue}, stream_.get()), "product in f32");
  }
  GemmArgs args;
  args.m = m;
  args.n_live = n_live;
  args.epilogue = epilogue;
  if (path == LinearPath::kGemmQ8) {
    args.q8 = {scratch<int8_t>(s.act_q), scratch<float2>(s.act_ds)};
    args.items = items;
    return check(linear_gemm_q8(args, stream_.get()), "product in 8 bits");
  }
  // f16 and bf16 weights of one group take different inputs; a GLU's pair is of one type.
  for (const bool bf16 : {false, true}) {
    args.items.n = 0;
    for (int i = 0; i < items.n; ++i) {
      if (takes_bf16(items.item[i].w.type, policy_) == bf16)
        args.items.item[args.items.n++] = items.item[i];
    }
    if (args.items.n == 0) continue;
    args.half = scratch<uint16_t>(bf16 ? s.act_bf16 : s.act_f16);
    INFER_TRY(path == LinearPath::kCublas
                  ? run_cublas(args)
                  : check(linear_gemm_half(args, stream_.get()), "product in 16 bits"));
  }
  return {};
}

/// The products by cuBLAS, then whatever the epilogue has left.
Result<void> Stage::run_cublas(const GemmArgs& args) {
  GemmArgs rest = args;
  LinearEpilogue& e = rest.epilogue;
  // The residual may be where the output goes: then the product is added to it, if that is all.
  const bool in_place = e.residual == args.items.item[0].out;
  const bool add = in_place && e.kind == Epilogue::kResidualAdd;
  if (in_place && (!add || e.scale != 1.0f || e.softcap != 0.0f))
    return check(linear_gemm_half(args, stream_.get()), "product in 16 bits");
  bool left = e.kind != Epilogue::kNone || e.scale != 1.0f || e.softcap != 0.0f;
  if (add) {
    e.kind = Epilogue::kNone;
    e.residual = nullptr;
    left = false;
  }
  for (int i = 0; i < args.items.n; ++i) {
    const LinearItem& item = args.items.item[i];
    INFER_TRY(cublas_->multiply({args.half, item.w.plane[0], item.out, args.m, item.w.n, item.w.k,
                                 item.w.type == DType::kBF16, add}));
    left = left || item.bias != nullptr;
  }
  return left ? check(linear_epilogue(rest, stream_.get()), "epilogue") : Result<void>();
}

}  // namespace infer::cuda
