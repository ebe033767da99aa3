#include <cstring>

#include "backends/cpu/bench/op_run.h"
#include "backends/cpu/buffer.h"
#include "backends/cpu/executable.h"
#include "backends/cpu/weights.h"
#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"

namespace infer::cpu::bench {
namespace {

constexpr int64_t kTasksPerThread = 16;  // as backends/cpu/linear.cpp shares out
constexpr int64_t kMaxChunk = 256;

struct Linear {
  const kern::LinearKernel* kernel = nullptr;
  std::vector<Buffer> weights;  ///< packed, one a copy
  Buffer x, act, out, scratch;
  int64_t act_stride = 0, scratch_stride = 0, chunk = 0, l2_bytes = 0;

  Result<void> pack(const OpSpec& s, int64_t file_bytes, int n_copy);
  Result<void> prepare(const OpSpec& s, int n_threads);
  void call(const OpSpec& s, ThreadPool& pool, int64_t copy);
};

Result<void> Linear::pack(const OpSpec& s, int64_t file_bytes, int n_copy) {
  INFER_ASSIGN(Buffer file, Buffer::allocate(file_bytes, "weights"));
  fill_plain(file.data(), file_bytes);
  const int64_t n_bytes = kernel->file_layout ? file_bytes : kernel->packed_bytes(s.n, s.k);
  for (int i = 0; i < n_copy; ++i) {
    INFER_ASSIGN(Buffer copy, Buffer::allocate(n_bytes, "weights"));
    if (i > 0) {
      std::memcpy(copy.data(), weights[0].data(), static_cast<size_t>(n_bytes));
    } else if (kernel->file_layout) {
      std::memcpy(copy.data(), file.data(), static_cast<size_t>(n_bytes));
    } else {
      kernel->pack(file.data(), s.n, s.k, 0, s.n, copy.data());
    }
    weights.push_back(std::move(copy));
  }
  return {};
}

Result<void> Linear::prepare(const OpSpec& s, int n_threads) {
  act_stride = align_up<int64_t>(kernel->act_bytes(s.k), 64);
  scratch_stride = align_up<int64_t>(kernel->scratch_bytes(s.k), 64);
  chunk = ceil_div(s.n, n_threads * kTasksPerThread);
  chunk = align_up(std::min(chunk, kMaxChunk), kernel->n_align);
  INFER_ASSIGN(x, Buffer::allocate(s.m * s.k * 4, "input"));
  INFER_ASSIGN(act, Buffer::allocate(s.m * act_stride, "prepared input"));
  INFER_ASSIGN(out, Buffer::allocate(s.m * s.n * 4, "output"));
  INFER_ASSIGN(scratch, Buffer::allocate(n_threads * scratch_stride, "scratch"));
  fill_normal(x.as<float>(), s.m * s.k);
  for (int64_t r = 0; r < s.m; ++r)
    kernel->prepare(x.as<float>() + r * s.k, s.k, act.data() + r * act_stride);
  return {};
}

void Linear::call(const OpSpec& s, ThreadPool& pool, int64_t copy) {
  const int64_t n_tile = ceil_div(s.m, kRowTile);
  const std::byte* w = weights[static_cast<size_t>(copy)].data();
  pool.for_each(ceil_div(s.n, chunk) * n_tile, [&](int64_t task, int thread) {
    const int64_t tile = task % n_tile;
    const int64_t row = tile * s.m / n_tile;
    kern::LinearArgs a;
    a.w = w;
    a.act = act.data() + row * act_stride;
    a.act_stride = act_stride;
    a.m = (tile + 1) * s.m / n_tile - row;
    a.n = s.n;
    a.k = s.k;
    a.n_begin = task / n_tile * chunk;
    a.n_end = std::min(s.n, a.n_begin + chunk);
    a.out = out.as<float>() + row * s.n + a.n_begin;
    a.out_stride = s.n;
    a.scratch = scratch.data() + thread * scratch_stride;
    if (l2_bytes > 0) a.l2_bytes = l2_bytes;
    kernel->run(a);
  });
}

}  // namespace

Result<OpRun> make_linear(const OpSpec& spec, const OpContext& context) {
  auto op = std::make_shared<Linear>();
  op->l2_bytes = context.l2_bytes;
  op->kernel = linear_kernel(context.kernels, spec.type, spec.precise);
  if (op->kernel == nullptr)
    return make_error(ErrorCode::kUnsupported, "linear: no kernel for {} on {}", name_of(spec.type),
                      context.kernels.isa);
  const auto row = row_bytes(spec.type, spec.k);
  if (!row)
    return make_error(ErrorCode::kInvalidArgument,
                      "linear: k = {} is no multiple of {}'s block of {}", spec.k,
                      name_of(spec.type), quant_type(spec.type).block_len);
  const auto file_bytes = checked_mul(*row, spec.n);
  if (!file_bytes || spec.m > INT64_MAX / 16 / std::max(spec.n, spec.k))
    return make_error(ErrorCode::kOutOfMemory, "linear: m = {}, n = {}, k = {} are too large",
                      spec.m, spec.n, spec.k);
  OpRun run;
  run.n_copy = copies_of(*file_bytes, spec, context);
  INFER_TRY(op->pack(spec, *file_bytes, run.n_copy));
  INFER_TRY(op->prepare(spec, context.pool.n_threads()));
  run.bytes = static_cast<double>(op->weights[0].n_bytes()) +
              static_cast<double>(spec.m * op->act_stride + spec.m * spec.n * 4);
  run.ops =
      2.0 * static_cast<double>(spec.m) * static_cast<double>(spec.n) * static_cast<double>(spec.k);
  run.products = products_of(*op->kernel, spec.type, spec.k);
  run.call = [op = op.get(), spec, &pool = context.pool](int64_t copy) {
    op->call(spec, pool, copy);
  };
  run.data = std::move(op);
  return run;
}

}  // namespace infer::cpu::bench
