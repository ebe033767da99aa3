#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/model_fixture.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_model.h"

/// Decoding a token allocates nothing once the engine is warm, on any of its threads.
namespace {

std::atomic<int64_t> g_n_alloc{0};

void* counted(size_t n, size_t align) {
  g_n_alloc.fetch_add(1, std::memory_order_relaxed);
  void* p = align <= alignof(std::max_align_t)
                ? std::malloc(n)
                : std::aligned_alloc(align, (n + align - 1) / align * align);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

void* counted_or_null(size_t n) noexcept {
  g_n_alloc.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(n);
}

}  // namespace

[[gnu::noinline]] void* operator new(size_t n) { return counted(n, 0); }
[[gnu::noinline]] void* operator new[](size_t n) { return counted(n, 0); }
[[gnu::noinline]] void* operator new(size_t n, std::align_val_t a) {
  return counted(n, static_cast<size_t>(a));
}
[[gnu::noinline]] void* operator new[](size_t n, std::align_val_t a) {
  return counted(n, static_cast<size_t>(a));
}
[[gnu::noinline]] void* operator new(size_t n, const std::nothrow_t&) noexcept {
  return counted_or_null(n);
}
[[gnu::noinline]] void* operator new[](size_t n, const std::nothrow_t&) noexcept {
  return counted_or_null(n);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, size_t, std::align_val_t) noexcept {
  std::free(p);
}

namespace infer::test {
namespace {

struct Decoding {
  const char* label;
  int n_seq;
  int n_threads;
  float temp;
  std::vector<std::string> stop;
};

/// Allocations during 64 steps of pure decoding, after 8 warm ones.
int64_t allocations(const std::shared_ptr<const model::Model>& model, const Decoding& d) {
  EngineOptions options;
  options.n_ctx = 128;
  options.max_seqs = d.n_seq;
  options.manual = true;
  const EngineBox engine =
      must(EngineBox::create(model, options, {.isa = "", .n_threads = d.n_threads}));
  int64_t n_event = 0;
  for (int i = 0; i < d.n_seq; ++i) {
    Request request =
        make_request(std::vector<TokenId>(static_cast<size_t>(5 + i), 4 + i), 110, {});
    request.sampling.temp = d.temp;
    request.sampling.seed = static_cast<uint64_t>(i);
    request.ignore_eos = true;
    request.stop = d.stop;
    request.on_event = [&](const Event&) { ++n_event; };
    must(engine->submit(std::move(request)));
  }
  for (int i = 0; i < 8; ++i) must(engine->run_step());
  const int64_t before = g_n_alloc.load();
  const int64_t events_before = n_event;
  bool busy = true;
  for (int i = 0; i < 64; ++i) busy = busy && engine->run_step().value();
  const int64_t n_alloc = g_n_alloc.load() - before;
  EXPECT_TRUE(busy) << d.label;
  EXPECT_EQ(n_event - events_before, 64 * d.n_seq) << d.label << ": not all steps were decoding";
  return n_alloc;
}

TEST(Allocations, NoneForADecodedToken) {
  const auto llama = must(model_of(tiny_model("llama"), "tiny"));
  const auto gemma = must(model_of(tiny_model("gemma3"), "tiny"));
  const Decoding cases[] = {{"one sequence, greedy", 1, 1, 0.0f, {}},
                            {"one sequence, sampled", 1, 2, 0.8f, {}},
                            {"four sequences, sampled", 4, 2, 0.8f, {}},
                            {"stop strings", 2, 1, 0.8f, {"never to be written", "nor this"}}};
  for (const Decoding& d : cases) {
    EXPECT_EQ(allocations(llama, d), 0) << "llama, " << d.label;
    EXPECT_EQ(allocations(gemma, d), 0) << "gemma3, " << d.label;
  }
}

TEST(Allocations, TheCounterCounts) {
  const int64_t before = g_n_alloc.load();
  const auto p = std::make_unique<std::vector<int>>(100);
  EXPECT_GE(g_n_alloc.load() - before, 2) << p->size();
}

}  // namespace
}  // namespace infer::test
