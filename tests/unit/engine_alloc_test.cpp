#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/fake_executor.h"

namespace {
std::atomic<int64_t> n_alloc = 0;
}  // namespace

// Counts every allocation of the process. Sanitizers keep their own operators, and the test is
// skipped there. Not inlined: GCC would take a visible malloc() or free() for a mismatch.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define INFER_COUNTS_ALLOCATIONS 1
[[gnu::noinline]] void* operator new(size_t size) {
  ++n_alloc;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}

[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }
#else
#define INFER_COUNTS_ALLOCATIONS 0
#endif

namespace infer {
namespace {

std::vector<int32_t> all_ids(int32_t n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

/// Logits that depend on the token alone; allocates nothing.
class QuietExecutor final : public runtime::Executor {
 public:
  Result<runtime::Ticket> submit(const runtime::Step& step, runtime::LogitSink* sink) override {
    for (int32_t i = 0; i < static_cast<int32_t>(step.rows.size()); ++i) {
      const runtime::Row& row = step.rows[static_cast<size_t>(i)];
      if (!runtime::wants_logits(row.want)) continue;
      test::fake_logits(test::extend_prefix(0, row.token, 0), {}, logits_);
      runtime::LogitStats stats{.max = -9.0f, .argmax = 0, .sum_exp = 1.0};
      for (size_t v = 0; v < logits_.size(); ++v) {
        if (logits_[v] > stats.max) stats.max = logits_[v], stats.argmax = static_cast<int32_t>(v);
      }
      const auto n = static_cast<int64_t>(logits_.size());
      if (row.want == runtime::Want::kTop) {
        std::ranges::sort(ids_, [&](int32_t a, int32_t b) {
          const float x = logits_[static_cast<size_t>(a)], y = logits_[static_cast<size_t>(b)];
          return x != y ? x > y : a < b;
        });
        for (size_t k = 0; k < row.n_top; ++k) top_[k] = logits_[static_cast<size_t>(ids_[k])];
        sink->on_logits({.rows = {&i, 1},
                         .logits = {},
                         .stats = {&stats, 1},
                         .top_logits = {top_.data(), 1, row.n_top, n},
                         .top_ids = {ids_.data(), 1, row.n_top, n}});
        continue;
      }
      sink->on_logits(
          {.rows = {&i, 1},
           .logits = {.data = logits_.data(), .n_rows = 1, .n_cols = n, .row_stride = n},
           .stats = {&stats, 1}});
    }
    return 1;
  }
  Result<void> wait(runtime::Ticket) override { return {}; }
  runtime::MemoryReport memory() const override { return {}; }
  std::string dump() const override { return {}; }

 private:
  std::vector<float> logits_ = std::vector<float>(40), top_ = logits_;
  std::vector<int32_t> ids_ = all_ids(40);
};

TEST(EngineAllocations, DecodingAllocatesNothing) {
  if (!INFER_COUNTS_ALLOCATIONS) GTEST_SKIP() << "the sanitizer has its own operator new";
  internal::EngineParts parts;
  parts.executor = std::make_unique<QuietExecutor>();
  parts.vocabulary = std::make_unique<test::FakeVocabulary>(40, std::vector<TokenId>{0, 1});
  parts.groups = {{.window = 0, .n_block = 64}, {.window = 50, .n_block = 16}};
  EngineOptions options;
  options.n_ctx = 512;
  options.n_batch = 32;
  options.max_seqs = 4;
  options.manual = true;
  auto engine = internal::create_with(std::move(parts), options);
  ASSERT_TRUE(engine.ok());
  std::vector<RequestId> ids;
  int64_t n_event = 0;
  for (int i = 0; i < 2; ++i) {
    Request r;
    r.prompt = {3, 4, static_cast<TokenId>(5 + i)};
    r.max_tokens = 400;
    r.ignore_eos = true;
    r.n_samples = 2;
    r.n_logprobs = i * 3;
    r.stop = {"never in there"};
    if (i == 1) r.sampling.penalty_freq = 0.1f, r.sampling.dry_multiplier = 0.5f;
    if (i == 1) r.sampling.mirostat = 2;
    r.on_event = [&](const Event&) { ++n_event; };
    ids.push_back(*(*engine)->submit(std::move(r)));
  }
  for (int i = 0; i < 4; ++i) ASSERT_TRUE((*engine)->run_step().ok());
  const int64_t before = n_alloc, events_before = n_event;
  for (int i = 0; i < 300; ++i) {
    if (!(*engine)->run_step().ok()) FAIL();
  }
  EXPECT_EQ(n_alloc - before, 0);
  EXPECT_EQ(n_event - events_before, 4 * 300);
  for (RequestId id : ids) EXPECT_TRUE((*engine)->wait(id).ok());
  EXPECT_GT(n_alloc, before);  // the counter does count
}

}  // namespace
}  // namespace infer
