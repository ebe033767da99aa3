#include "backends/cpu/bench/op.h"

#include <algorithm>
#include <array>
#include <random>

#include "backends/cpu/bench/op_run.h"
#include "backends/cpu/topology.h"
#include "core/base/checked.h"
#include "core/base/cpu_features.h"
#include "core/base/error.h"
#include "kernels/cpu/dispatch.h"

namespace infer::cpu::bench {
namespace {

constexpr int64_t kMaxCopyBytes = int64_t{512} << 20;
constexpr int kMaxCopies = 256;
constexpr int64_t kMaxSize = int64_t{1} << 24;  // of any extent
constexpr int kMaxThreads = 1024;

struct OpDef {
  const char* name;
  Result<OpRun> (*make)(const OpSpec& spec, const OpContext& context);
};
constexpr std::array<OpDef, 6> kOps{{{"linear", make_linear},
                                     {"attention", make_attention},
                                     {"prepare", make_row_op},
                                     {"decode", make_row_op},
                                     {"rms_norm", make_row_op},
                                     {"logit_stats", make_row_op}}};

Result<void> check_sizes(const OpSpec& s) {
  struct Size {
    const char* name;
    int64_t value;
  };
  for (const Size& size :
       {Size{"m", s.m}, Size{"n", s.n}, Size{"k", s.k}, Size{"n_kv", s.n_kv},
        Size{"n_head", s.n_head}, Size{"n_kv_head", s.n_kv_head}, Size{"head_dim", s.head_dim}}) {
    if (size.value < 1 || size.value > kMaxSize)
      return make_error(ErrorCode::kInvalidArgument, "{} = {} is not in 1..{}", size.name,
                        size.value, kMaxSize);
  }
  return {};
}

}  // namespace

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  names.reserve(std::size(kOps));
  for (const OpDef& op : kOps) names.emplace_back(op.name);
  return names;
}

int copies_of(int64_t n_bytes, const OpSpec& spec, const OpContext& context) {
  if (spec.hot || n_bytes <= 0) return 1;
  const int64_t enough = ceil_div(2 * std::max<int64_t>(context.l3_bytes, 1 << 20), n_bytes) + 1;
  const int64_t most = std::clamp<int64_t>(kMaxCopyBytes / n_bytes, 1, kMaxCopies);
  return static_cast<int>(std::min(enough, most));
}

void fill_plain(std::byte* data, int64_t n_bytes) {
  std::mt19937_64 rng(1);
  for (int64_t i = 0; i < n_bytes; ++i) {
    data[i] = static_cast<std::byte>(0x20 | (rng() & 0x0f));
  }
}

void fill_normal(float* x, int64_t n) {
  std::mt19937_64 rng(2);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  for (int64_t i = 0; i < n; ++i) x[i] = normal(rng);
}

Result<OpReport> measure_op(const OpSpec& spec, const OpOptions& options) {
  const auto op =
      std::find_if(kOps.begin(), kOps.end(), [&](const OpDef& d) { return spec.op == d.name; });
  if (op == kOps.end())
    return make_error(ErrorCode::kInvalidArgument, "op '{}' is unknown (known are {})", spec.op,
                      fmt::join(op_names(), ", "));
  INFER_TRY(check_sizes(spec));
  if (options.n_threads < 0 || options.n_threads > kMaxThreads)
    return make_error(ErrorCode::kInvalidArgument, "{} threads: not in 0..{}", options.n_threads,
                      kMaxThreads);
  INFER_ASSIGN(const kern::CpuKernels kernels,
               kern::select_kernels(detect_cpu_features(), options.isa));
  const CpuTopology topology = detect_topology();
  const int n_threads = options.n_threads > 0 ? options.n_threads : topology.n_threads;
  const bool pin = options.pin && n_threads <= topology.n_physical;
  ThreadPool pool({.n_threads = n_threads, .pin = pin, .cpus = topology.cpus});
  INFER_ASSIGN(const OpRun run,
               op->make(spec, {kernels, pool, topology.l2_bytes, topology.l3_bytes}));

  OpReport report;
  report.isa = kernels.isa;
  report.n_threads = pool.n_threads();
  report.n_copy = run.n_copy;
  report.bytes = run.bytes;
  report.ops = run.ops;
  if (run.products == Products::kInt8) report.limit = &Limits::int8;
  if (run.products == Products::kInt4) report.limit = &Limits::int4;
  int64_t next = 0;
  report.call_s = time_calls(options.timing, [&](int64_t n) {
    for (int64_t i = 0; i < n; ++i) run.call(next++ % run.n_copy);
  });
  return report;
}

}  // namespace infer::cpu::bench
