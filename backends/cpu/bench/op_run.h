#pragma once

#include <functional>
#include <memory>

#include "backends/cpu/bench/op.h"
#include "backends/cpu/weights.h"
#include "core/base/thread_pool.h"
#include "kernels/cpu/table.h"

/// What the files of this folder share.
namespace infer::cpu::bench {

/// A kernel with its operands: call(i) computes once, on copy i of what must not stay in a cache.
struct OpRun {
  std::function<void(int64_t copy)> call;
  std::shared_ptr<void> data;  ///< keeps the operands alive
  int n_copy = 1;
  double bytes = 0, ops = 0;
  Products products = Products::kF32;
};

struct OpContext {
  const kern::CpuKernels& kernels;
  ThreadPool& pool;
  int64_t l2_bytes, l3_bytes;
};

Result<OpRun> make_linear(const OpSpec& spec, const OpContext& context);
Result<OpRun> make_attention(const OpSpec& spec, const OpContext& context);
/// prepare, decode, rms_norm, logit_stats.
Result<OpRun> make_row_op(const OpSpec& spec, const OpContext& context);

/// Copies of something of n_bytes, so that a round through all of them leaves no cache warm.
int copies_of(int64_t n_bytes, const OpSpec& spec, const OpContext& context);
/// Bytes that every type reads as finite, normal numbers: 0x20..0x2f, a half of 0.008 to 0.12.
void fill_plain(std::byte* data, int64_t n_bytes);
/// Numbers of a bell curve, the same every time.
void fill_normal(float* x, int64_t n);

}  // namespace infer::cpu::bench
