#include <algorithm>

#include "backends/cpu/executable.h"
#include "core/base/quant_types.h"

/// Ops without a plan of their own: row by row, and the unfused twins.
namespace infer::cpu {

void CpuExecutable::embed(const graph::Op& op, Team& team) {
  const auto& attrs = op.as<graph::EmbedAttrs>();
  const TensorView& table = g_.weights[static_cast<size_t>(attrs.table)].view;
  const auto decode = k_.decode_row[static_cast<size_t>(table.type)];
  const int64_t n = g_.n_embd;
  const int64_t bytes = *row_bytes(table.type, n);
  for_rows(team, n_tok_, n, [&](int64_t r) {
    float* out = value(op.out[0]) + r * n;
    decode(table.data + step_->rows[static_cast<size_t>(r)].token * bytes, n, out);
    if (attrs.scale != 1.0f) k_.scale(out, attrs.scale, n, out);
    if (attrs.positions != graph::kNoWeight) {
      k_.add(out, weights_.vector(attrs.positions) + step_->rows[static_cast<size_t>(r)].pos * n, n,
             out);
    }
  });
}

void CpuExecutable::norm_row(const graph::NormAttrs& attrs, const float* x, int64_t n,
                             float* y) const {
  const float* w = weights_.vector(attrs.weight);
  if (attrs.kind == graph::NormKind::kRms) {
    k_.rms_norm(x, w, attrs.eps, n, y);
  } else {
    k_.layer_norm(x, w, weights_.vector(attrs.bias), attrs.eps, n, y);
  }
}

void CpuExecutable::norm(const graph::Op& op, Team& team) {
  const auto& attrs = op.as<graph::NormAttrs>();
  const int64_t n = n_cols(op.in[0]);
  for_rows(team, n_rows(op.in[0]), n, [&](int64_t r) {
    float* x = value(op.in[0]) + r * n;
    float* out = value(op.out[0]) + r * n;
    // With a residual the output may share the residual's memory, and x is not read again: it takes
    // the norm.
    float* y = attrs.residual_after ? x : out;
    norm_row(attrs, x, n, y);
    if (attrs.residual_after) k_.add(value(op.in[1]) + r * n, y, n, out);
  });
}

void CpuExecutable::gather_rows(const graph::Op& op, Team& team) {
  const int64_t n = n_cols(op.in[0]);
  for_rows(team, static_cast<int64_t>(turn_.size()), n, [&](int64_t i) {
    std::copy_n(value(op.in[0]) + turn_[static_cast<size_t>(i)] * n, n, value(op.out[0]) + i * n);
  });
}

void CpuExecutable::add(const graph::Op& op, Team& team) {
  const int64_t n = n_cols(op.out[0]);
  for_rows(team, n_rows(op.out[0]), n, [&](int64_t r) {
    k_.add(value(op.in[0]) + r * n, value(op.in[1]) + r * n, n, value(op.out[0]) + r * n);
  });
}

void CpuExecutable::glu(const graph::Op& op, Team& team) {
  const int64_t n = n_cols(op.out[0]);
  const auto kind = static_cast<kern::GluKind>(op.as<graph::GluAttrs>().kind);
  for_rows(team, n_rows(op.out[0]), n, [&](int64_t r) {
    const float* up = op.in.size() > 1 ? value(op.in[1]) + r * n : nullptr;
    k_.glu(kind, value(op.in[0]) + r * n, up, n, value(op.out[0]) + r * n);
  });
}

void CpuExecutable::head_norm(const graph::Op& op, Team& team) {
  const auto& a = op.as<graph::HeadNormAttrs>();
  const float* w = weights_.vector(a.weight);
  for_rows(team, n_tok_, a.n_head * a.head_dim, [&](int64_t r) {
    for (int64_t h = 0; h < a.n_head; ++h) {
      const int64_t at = (r * a.n_head + h) * a.head_dim;
      k_.rms_norm(value(op.in[0]) + at, w, a.eps, a.head_dim, value(op.out[0]) + at);
    }
  });
}

void CpuExecutable::rope(const graph::Op& op, Team& team) {
  const auto& a = op.as<graph::RopeAttrs>();
  const graph::Rope& rope = g_.ropes[static_cast<size_t>(a.rope)];
  const int64_t n = a.n_head * a.head_dim;
  for_rows(team, n_tok_, n, [&](int64_t r) {
    const float* in = value(op.in[0]) + r * n;
    float* out = value(op.out[0]) + r * n;
    if (in != out) std::copy_n(in, n, out);
    k_.rope(static_cast<kern::RopeKind>(rope.kind), out, a.n_head, a.head_dim, rope.rope_dim,
            rope_row(a.rope, r));
  });
}

void CpuExecutable::kv_store(const graph::Op& op, Team& team) {
  const int cache_layer = op.as<graph::KvStoreAttrs>().cache_layer;
  const int64_t n_k = n_cols(op.in[0]);
  const int64_t n_v = n_cols(op.in[1]);
  const int64_t n_q = n_cols(op.in[2]);
  const int64_t n_head = n_q / g_.cache_layers[static_cast<size_t>(cache_layer)].head_dim;
  for_rows(team, n_tok_, n_k + n_v, [&](int64_t r) {
    store_row(cache_layer, r, value(op.in[2]) + r * n_q, n_head, value(op.in[0]) + r * n_k,
              value(op.in[1]) + r * n_v);
  });
}

}  // namespace infer::cpu
