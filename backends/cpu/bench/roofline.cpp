#include "backends/cpu/bench/roofline.h"

#include <atomic>
#include <cstring>

#include "backends/cpu/buffer.h"
#include "backends/cpu/topology.h"
#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/thread_pool.h"
#include "kernels/cpu/roofline.h"

namespace infer::cpu::bench {
namespace {

constexpr int64_t kReadUnit = 1024;  // bytes; see kern::RooflineLevel::read
constexpr int64_t kMinArray = int64_t{64} << 20;
constexpr int64_t kMaxArray = int64_t{1} << 36;
constexpr int kMaxThreads = 1024;

/// Arrays that the threads of `pool` share out; every thread writes its part first, so that the
/// pages are real and near to it.
class ReadArrays {
 public:
  static Result<ReadArrays> create(int n_array, int64_t n_bytes) {
    ReadArrays a;
    for (int i = 0; i < n_array; ++i) {
      INFER_ASSIGN(Buffer buffer, Buffer::allocate(n_bytes, "bandwidth"));
      a.buffers_.push_back(std::move(buffer));
    }
    return a;
  }

  void fill(ThreadPool& pool) {
    pool.run([&](int thread, int n_thread) {
      for (size_t i = 0; i < buffers_.size(); ++i) {
        const Part p = part(i, thread, n_thread);
        std::memset(p.data, 1, static_cast<size_t>(p.n_bytes));
      }
    });
  }

  /// Reads n whole arrays, one after the other.
  void read(ThreadPool& pool, const kern::RooflineLevel& level, int64_t n) {
    pool.run([&](int thread, int n_thread) {
      uint64_t sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        const Part p =
            part(static_cast<size_t>((next_ + i) % std::ssize(buffers_)), thread, n_thread);
        sum += level.read(p.data, p.n_bytes);
      }
      sum_.fetch_add(sum, std::memory_order_relaxed);
    });
    next_ = (next_ + n) % std::ssize(buffers_);
  }

 private:
  struct Part {
    std::byte* data;
    int64_t n_bytes;
  };
  Part part(size_t array, int thread, int n_thread) const {
    const int64_t units = buffers_[array].n_bytes() / kReadUnit;
    const int64_t begin = units * thread / n_thread * kReadUnit;
    const int64_t end = units * (thread + 1) / n_thread * kReadUnit;
    return {buffers_[array].data() + begin, end - begin};
  }

  std::vector<Buffer> buffers_;
  int64_t next_ = 0;
  static inline std::atomic<uint64_t> sum_ = 0;  // keeps the reads alive
};

kern::RooflineArgs loop_args() {
  kern::RooflineArgs args;
  for (int i = 0; i < 16; ++i) {
    args.f32_a[i] = 1.0f;
    args.f32_b[i] = 0x1p-20f;
    args.u8_a[i] = static_cast<uint8_t>(i);
    args.i8_b[i] = static_cast<int8_t>(3 * i - 20);
  }
  return args;
}

RooflinePoint::Kind kind_of(kern::RooflineLoop::Kind kind) {
  switch (kind) {
    case kern::RooflineLoop::Kind::kF32:
      return RooflinePoint::Kind::kF32;
    case kern::RooflineLoop::Kind::kInt8:
      return RooflinePoint::Kind::kInt8;
    case kern::RooflineLoop::Kind::kInt4:
      return RooflinePoint::Kind::kInt4;
  }
  return {};
}

RooflinePoint measure_loop(ThreadPool& pool, const kern::RooflineLoop& loop, const Timing& timing) {
  std::atomic<double> sink = 0.0;
  constexpr int64_t kIter = 1024;  // a call, so that starting the threads does not show
  const auto calls = [&](int64_t n) {
    pool.run([&](int, int) {
      kern::RooflineArgs args = loop_args();
      args.n_iter = n * kIter;
      sink.store(loop.run(args), std::memory_order_relaxed);
    });
  };
  RooflinePoint point;
  point.kind = kind_of(loop.kind);
  point.name = loop.name;
  point.recipe = loop.recipe;
  const double ops = static_cast<double>(loop.ops_per_iter * kIter * pool.n_threads());
  for (const double s : time_calls(timing, calls)) point.per_s.push_back(ops / s);
  return point;
}

void measure_level(ThreadPool& pool, const kern::RooflineLevel& level, ReadArrays& arrays,
                   const RooflineOptions& options, RooflineReport* report) {
  const auto add = [&](RooflinePoint point) {
    point.isa = level.isa;
    point.n_threads = pool.n_threads();
    report->points.push_back(std::move(point));
  };
  if (level.read != nullptr) {
    RooflinePoint point;
    point.name = "read";
    point.recipe = "sum of 64-bit words";
    const auto calls = [&](int64_t n) { arrays.read(pool, level, n); };
    for (const double s : time_calls(options.timing, calls))
      point.per_s.push_back(static_cast<double>(report->array_bytes) / s);
    add(std::move(point));
  }
  for (const kern::RooflineLoop& loop : level.loops) add(measure_loop(pool, loop, options.timing));
}

Result<std::vector<kern::RooflineLevel>> levels_to_run(const RooflineOptions& options,
                                                       const CpuFeatures& cpu,
                                                       RooflineReport* report) {
  std::vector<kern::RooflineLevel> levels;
  std::string known;
  for (const kern::RooflineLevel& level : kern::roofline_levels()) {
    known += std::string(known.empty() ? "" : ", ") + level.isa;
    if (!options.isa.empty() && options.isa != level.isa) continue;
    if (level.supported(cpu)) {
      levels.push_back(level);
      continue;
    }
    const std::string why = fmt::format("this CPU lacks one of {}", level.needs);
    if (!options.isa.empty())
      return make_error(ErrorCode::kUnsupported, "--isa {}: {}", options.isa, why);
    report->skipped.push_back({level.isa, why});
  }
  if (levels.empty())
    return make_error(ErrorCode::kInvalidArgument, "--isa {}: unknown level (this build has {})",
                      options.isa, known);
  return levels;
}

}  // namespace

double best_of(const std::vector<double>& per_s) {
  double best = 0.0;
  for (const double v : per_s) best = v > best ? v : best;
  return best;
}

Limits limits_of(const RooflineReport& report, std::string_view isa, int n_threads) {
  Limits limits;
  for (const RooflinePoint& p : report.points) {
    if (p.isa != isa || p.n_threads != n_threads) continue;
    const double best = best_of(p.per_s);
    const auto raise = [&](Limits::Ops* ops) {
      if (best > ops->per_s) *ops = {best, p.name};
    };
    if (p.kind == RooflinePoint::Kind::kRead) limits.read_per_s = best;
    if (p.kind == RooflinePoint::Kind::kF32) raise(&limits.f32);
    if (p.kind == RooflinePoint::Kind::kInt8) raise(&limits.int8);
    if (p.kind == RooflinePoint::Kind::kInt8 || p.kind == RooflinePoint::Kind::kInt4)
      raise(&limits.int4);
  }
  return limits;
}

Result<RooflineReport> measure_roofline(const RooflineOptions& options) {
  const CpuFeatures cpu = detect_cpu_features();
  const CpuTopology topology = detect_topology();
  RooflineReport report;
  report.cpu = cpu.vendor_and_model;
  report.n_array = options.n_array;
  report.array_bytes =
      options.array_bytes > 0 ? options.array_bytes : std::max(kMinArray, 2 * topology.l3_bytes);
  report.array_bytes = align_up(report.array_bytes, kReadUnit);
  if (options.n_array < 1 || report.array_bytes > kMaxArray / options.n_array)
    return make_error(ErrorCode::kInvalidArgument, "{} arrays of {} bytes: out of range",
                      options.n_array, report.array_bytes);
  INFER_ASSIGN(const auto levels, levels_to_run(options, cpu, &report));
  std::vector<int> threads = options.threads;
  if (threads.empty()) threads = {1};
  if (options.threads.empty() && topology.n_threads > 1) threads.push_back(topology.n_threads);
  for (const int n_threads : threads) {
    if (n_threads < 1 || n_threads > kMaxThreads)
      return make_error(ErrorCode::kInvalidArgument, "{} threads: not in 1..{}", n_threads,
                        kMaxThreads);
    const bool pin = options.pin && n_threads <= topology.n_physical;
    ThreadPool pool({.n_threads = n_threads, .pin = pin, .cpus = topology.cpus});
    INFER_ASSIGN(ReadArrays arrays, ReadArrays::create(options.n_array, report.array_bytes));
    arrays.fill(pool);
    for (const kern::RooflineLevel& level : levels)
      measure_level(pool, level, arrays, options, &report);
  }
  return report;
}

}  // namespace infer::cpu::bench
