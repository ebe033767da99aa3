#include "backends/cpu/bench/op_run.h"
#include "backends/cpu/buffer.h"
#include "backends/cpu/weights.h"
#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"

/// Ops that take one row at a time: m rows of k elements, shared out by rows.
namespace infer::cpu::bench {
namespace {

struct RowOp {
  std::vector<Buffer> in;  ///< one a copy
  Buffer out, weight;
  int64_t in_bytes = 0, out_bytes = 0;  ///< of a row
  double ops = 0;                       ///< of a row
  std::function<void(const std::byte* in, std::byte* out)> row;
};

Result<void> define(const OpSpec& s, const kern::CpuKernels& kernels, RowOp* op) {
  const int64_t k = s.k;
  op->in_bytes = op->out_bytes = k * 4;
  if (s.op == "prepare") {
    const kern::LinearKernel* kernel = linear_kernel(kernels, s.type, s.precise);
    if (kernel == nullptr)
      return make_error(ErrorCode::kUnsupported, "prepare: no kernel for {} on {}", name_of(s.type),
                        kernels.isa);
    if (!row_bytes(s.type, k))
      return make_error(ErrorCode::kInvalidArgument,
                        "prepare: k = {} is no multiple of {}'s block of {}", k, name_of(s.type),
                        quant_type(s.type).block_len);
    op->out_bytes = align_up<int64_t>(kernel->act_bytes(k), 64);
    op->row = [kernel, k](const std::byte* in, std::byte* out) {
      kernel->prepare(reinterpret_cast<const float*>(in), k, out);
    };
  } else if (s.op == "decode") {
    const auto decode = kernels.decode_row[static_cast<size_t>(s.type)];
    if (decode == nullptr)
      return make_error(ErrorCode::kUnsupported, "decode: no decoder for {}", name_of(s.type));
    const auto bytes = row_bytes(s.type, k);
    if (!bytes)
      return make_error(ErrorCode::kInvalidArgument,
                        "decode: k = {} is no multiple of {}'s block of {}", k, name_of(s.type),
                        quant_type(s.type).block_len);
    op->in_bytes = *bytes;
    op->row = [decode, k](const std::byte* in, std::byte* out) {
      decode(in, k, reinterpret_cast<float*>(out));
    };
  } else if (s.op == "rms_norm") {
    INFER_ASSIGN(op->weight, Buffer::allocate(k * 4, "weights"));
    fill_normal(op->weight.as<float>(), k);
    op->ops = 4.0 * static_cast<double>(k);
    op->row = [&kernels, k, w = op->weight.as<float>()](const std::byte* in, std::byte* out) {
      kernels.rms_norm(reinterpret_cast<const float*>(in), w, 1e-5f, k,
                       reinterpret_cast<float*>(out));
    };
  } else {
    op->out_bytes = 64;
    op->row = [&kernels, k](const std::byte* in, std::byte* out) {
      kernels.logit_stats(reinterpret_cast<const float*>(in), k,
                          reinterpret_cast<kern::LogitStats*>(out));
    };
  }
  return {};
}

}  // namespace

Result<OpRun> make_row_op(const OpSpec& spec, const OpContext& context) {
  auto op = std::make_shared<RowOp>();
  INFER_TRY(define(spec, context.kernels, op.get()));
  static_assert(sizeof(kern::LogitStats) <= 64);
  const auto n_bytes = checked_mul(op->in_bytes, spec.m);
  if (!n_bytes || *n_bytes > int64_t{1} << 36)
    return make_error(ErrorCode::kOutOfMemory, "{}: m = {}, k = {} are too large", spec.op, spec.m,
                      spec.k);
  OpRun run;
  run.n_copy = copies_of(*n_bytes, spec, context);
  for (int i = 0; i < run.n_copy; ++i) {
    INFER_ASSIGN(Buffer in, Buffer::allocate(*n_bytes, "input"));
    if (spec.op == "decode") {
      fill_plain(in.data(), *n_bytes);
    } else {
      fill_normal(in.as<float>(), *n_bytes / 4);
    }
    op->in.push_back(std::move(in));
  }
  INFER_ASSIGN(op->out, Buffer::allocate(op->out_bytes * spec.m, "output"));
  run.bytes = static_cast<double>(spec.m) * static_cast<double>(op->in_bytes + op->out_bytes);
  run.ops = static_cast<double>(spec.m) * op->ops;
  run.call = [op = op.get(), m = spec.m, &pool = context.pool](int64_t copy) {
    const std::byte* in = op->in[static_cast<size_t>(copy)].data();
    pool.for_each(m, [&](int64_t r, int) {
      op->row(in + r * op->in_bytes, op->out.data() + r * op->out_bytes);
    });
  };
  run.data = std::move(op);
  return run;
}

}  // namespace infer::cpu::bench
