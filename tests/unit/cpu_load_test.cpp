#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/cpu/buffer.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/pack.h"
#include "core/base/checked.h"
#include "core/base/cpu_features.h"
#include "core/base/quant_types.h"
#include "core/graph/planner.h"
#include "core/model/model.h"
#include "kernels/cpu/dispatch.h"
#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// Loading of weights on the CPU: packing by a team is packing matrix by matrix, and what is told
/// on the way.
namespace infer::test {
namespace {

using cpu::Buffer;
using cpu::kHugePageBytes;
using cpu::PackJob;
using kern::LinearKernel;

constexpr uint8_t kUntouched = 0xa5;
constexpr TinyShape kPackedShape = {.n_embd = 64, .n_ff = 96, .type = DType::kQ4_0};

const LinearKernel& kernel_of(const kern::CpuKernels& kernels, DType type) {
  return kernels.linear[static_cast<size_t>(kern::ActMode::kFast)][static_cast<size_t>(type)];
}

/// Matrices of one file, packed with gaps between them, so that a write beyond one is seen.
class Matrices {
 public:
  void add(const LinearKernel& kernel, DType type, int64_t n, int64_t k, int64_t n_expert) {
    const int64_t file_bytes = n * row_bytes(type, k).value();
    const int64_t packed_bytes = align_up<int64_t>(kernel.packed_bytes(n, k), 64);
    jobs_.push_back({&kernel, nullptr, file_bytes, nullptr, packed_bytes, n, k, n_expert});
    file_at_.push_back(file_.size());
    packed_at_.push_back(packed_bytes_);
    file_.resize(file_.size() + static_cast<size_t>(file_bytes * n_expert));
    packed_bytes_ += packed_bytes * n_expert + 192;
  }

  /// Random bytes: packing moves bits, whatever they mean.
  void fill() {
    std::mt19937_64 rng(7);
    for (std::byte& b : file_) b = static_cast<std::byte>(rng());
  }

  std::vector<std::byte> one_by_one() {
    Buffer out = start();
    for (const PackJob& job : jobs_) {
      for (int64_t e = 0; e < job.n_expert; ++e)
        job.kernel->pack(job.file + e * job.file_bytes, job.n, job.k, 0, job.n,
                         job.packed + e * job.packed_bytes);
    }
    return {out.data(), out.data() + out.n_bytes()};
  }

  std::vector<std::byte> together(int n_threads) {
    Buffer out = start();
    ThreadPool pool({.n_threads = n_threads});
    const auto caller = std::this_thread::get_id();
    size_t n_told = 0;
    pack_matrices(jobs_, pool, [&](size_t i) {
      EXPECT_EQ(i, n_told++);
      EXPECT_EQ(std::this_thread::get_id(), caller);
    });
    EXPECT_EQ(n_told, jobs_.size());
    return {out.data(), out.data() + out.n_bytes()};
  }

 private:
  Buffer start() {
    Buffer out = must(Buffer::allocate(packed_bytes_, "packed", /*huge=*/true));
    std::memset(out.data(), kUntouched, static_cast<size_t>(packed_bytes_));
    for (size_t i = 0; i < jobs_.size(); ++i) {
      jobs_[i].file = file_.data() + file_at_[i];
      jobs_[i].packed = out.data() + packed_at_[i];
    }
    return out;
  }

  std::vector<PackJob> jobs_;
  std::vector<std::byte> file_;
  std::vector<size_t> file_at_;
  std::vector<int64_t> packed_at_;
  int64_t packed_bytes_ = 0;
};

TEST(Packing, TogetherIsOneByOne) {
  const kern::CpuKernels kernels = must(kern::select_kernels(detect_cpu_features(), ""));
  Matrices matrices;
  int n = 0;
  for (DType type : {DType::kQ4_0, DType::kQ6_K, DType::kQ8_0, DType::kQ4_K, DType::kQ5_1}) {
    const LinearKernel& kernel = kernel_of(kernels, type);
    if (kernel.file_layout) continue;
    matrices.add(kernel, type, /*n=*/1, /*k=*/256, 1);
    matrices.add(kernel, type, /*n=*/33 + n, /*k=*/512, 3);
    matrices.add(kernel, type, /*n=*/1501, /*k=*/2048, 2);  // over several tasks
    ++n;
  }
  if (n == 0) GTEST_SKIP() << "no kernel of this machine packs";
  matrices.fill();
  const auto want = matrices.one_by_one();
  for (int n_threads : {1, 2, 3}) EXPECT_EQ(matrices.together(n_threads), want) << n_threads;
}

/// Panels of 24 rows, a byte an element: their borders are no huge pages' borders.
LinearKernel counting_kernel() {
  LinearKernel kernel;
  kernel.n_align = 24;
  kernel.packed_bytes = [](int64_t n, int64_t k) { return align_up<int64_t>(n, 24) * k; };
  kernel.pack = [](const std::byte*, int64_t, int64_t k, int64_t begin, int64_t end,
                   std::byte* packed) {
    EXPECT_EQ(begin % 24, 0);
    for (int64_t i = begin * k; i < end * k; ++i)
      packed[i] = static_cast<std::byte>(static_cast<int>(packed[i]) + 1);
  };
  return kernel;
}

TEST(Packing, EveryRowOnce) {
  const LinearKernel kernel = counting_kernel();
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 32}, {24, 32}, {100, kHugePageBytes / 24}, {3001, 1056}, {7, kHugePageBytes}}) {
    const int64_t bytes = kernel.packed_bytes(n, k);
    const Buffer packed = must(Buffer::allocate(bytes, "packed", /*huge=*/true));
    const std::vector<std::byte> file(1);
    const std::vector<PackJob> jobs = {{&kernel, file.data(), 0, packed.data(), bytes, n, k, 1}};
    ThreadPool pool({.n_threads = 2});
    pack_matrices(jobs, pool, [](size_t) {});
    EXPECT_EQ(std::count(packed.data(), packed.data() + n * k, std::byte{1}), n * k) << n;
  }
}

TEST(Packing, NothingToPack) {
  ThreadPool pool({.n_threads = 2});
  cpu::pack_matrices({}, pool, [](size_t) { FAIL(); });
}

struct Loaded {
  std::vector<graph::WeightId> copied;
  std::vector<int64_t> done;
  int64_t all = 0;
  Result<runtime::MemoryReport> memory = runtime::MemoryReport{};
};

Loaded load(const graph::Graph& graph) {
  const auto n_half = static_cast<int>(graph.halves.size());
  const graph::StagePlan plan =
      must(graph::plan_stage(graph, 0, n_half, {.n_tok = 16, .n_logit_rows = 4}));
  Loaded out;
  runtime::CompileOptions options;
  options.n_ctx = 64;
  options.groups = {{.n_block = 5}};
  options.weight_copied = [&](graph::WeightId id) { out.copied.push_back(id); };
  options.progress = [&](int64_t done, int64_t all) {
    out.done.push_back(done);
    out.all = all;
  };
  const auto backend = must(cpu::make_cpu_backend({.n_threads = 2, .isa = "", .pin = false}));
  const auto exe = backend->compile(graph, plan, options);
  if (exe.ok())
    out.memory = (*exe)->memory();
  else
    out.memory = exe.error();
  return out;
}

int64_t bytes_of(const graph::Graph& graph, const std::vector<graph::WeightId>& ids) {
  int64_t bytes = 0;
  for (const graph::WeightId id : ids) bytes += graph.weights[static_cast<size_t>(id)].view.n_bytes;
  return bytes;
}

TEST(CpuLoad, TellsOfEachPackedMatrixOnce) {
  const auto model = mapped_model_of(tiny_model("llama", kPackedShape), "tiny");
  const graph::Graph graph = must(model->build_graph({}));
  const Loaded loaded = load(graph);
  const runtime::MemoryReport memory = must(loaded.memory);
  EXPECT_TRUE(std::ranges::is_sorted(loaded.done));
  EXPECT_EQ(loaded.done.back(), loaded.all);
  std::vector<graph::WeightId> once = loaded.copied;
  std::ranges::sort(once);
  EXPECT_EQ(std::ranges::adjacent_find(once), once.end());
  EXPECT_EQ(bytes_of(graph, loaded.copied) + memory.mapped_bytes, loaded.all);
}

TEST(CpuLoad, MatricesUsedFromTheFileAreNotCopied) {
  const auto model = mapped_model_of(tiny_model("llama", {.type = DType::kF16}), "tiny");
  const graph::Graph graph = must(model->build_graph({}));
  const Loaded loaded = load(graph);
  EXPECT_THAT(loaded.copied, testing::IsEmpty());
  EXPECT_EQ(must(loaded.memory).mapped_bytes, loaded.all);
  EXPECT_EQ(loaded.done.back(), loaded.all);
}

TEST(CpuLoad, ABadVectorStopsItBeforeAnythingIsPacked) {
  const auto model = mapped_model_of(tiny_model("llama", kPackedShape), "tiny");
  graph::Graph graph = must(model->build_graph({}));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (graph::Weight& w : graph.weights) {
    if (w.name == "blk.1.ffn_norm.weight") {
      w.view.ne = {1, 1, 1, 1};
      w.view.data = reinterpret_cast<const std::byte*>(&nan);
    }
  }
  const Loaded loaded = load(graph);
  ASSERT_FALSE(loaded.memory.ok());
  EXPECT_EQ(loaded.memory.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(loaded.memory.error().message, testing::HasSubstr("blk.1.ffn_norm.weight"));
  EXPECT_THAT(loaded.copied, testing::IsEmpty());
  EXPECT_THAT(loaded.done, testing::IsEmpty());
}

}  // namespace
}  // namespace infer::test
