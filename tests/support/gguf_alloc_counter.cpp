#include "tests/support/gguf_alloc_counter.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include <malloc.h>

namespace infer::test {
namespace {

std::atomic<int64_t> g_live{0};
std::atomic<int64_t> g_peak{0};
std::atomic<int64_t> g_level{0};
std::atomic<int64_t> g_calls{0};

void* counted(void* p) {
  if (p == nullptr) return p;
  const int64_t live = g_live += static_cast<int64_t>(malloc_usable_size(p));
  ++g_calls;
  int64_t peak = g_peak;
  while (live > peak && !g_peak.compare_exchange_weak(peak, live)) {
  }
  return p;
}

void* aligned(std::size_t n, std::align_val_t align) {
  void* p = nullptr;
  return posix_memalign(&p, static_cast<std::size_t>(align), n) == 0 ? counted(p) : nullptr;
}

void release(void* p) {
  if (p != nullptr) g_live -= static_cast<int64_t>(malloc_usable_size(p));
  std::free(p);
}

void* or_throw(void* p) {
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

void AllocCounter::reset() {
  g_level = g_live.load();
  g_peak = g_live.load();
  g_calls = 0;
}
int64_t AllocCounter::peak_bytes() { return g_peak - g_level; }
int64_t AllocCounter::n_allocs() { return g_calls; }

}  // namespace infer::test

using infer::test::aligned;
using infer::test::counted;
using infer::test::or_throw;
using infer::test::release;

void* operator new(std::size_t n) { return or_throw(counted(std::malloc(n == 0 ? 1 : n))); }
void* operator new[](std::size_t n) { return or_throw(counted(std::malloc(n == 0 ? 1 : n))); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return counted(std::malloc(n == 0 ? 1 : n));
}
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept {
  return counted(std::malloc(n == 0 ? 1 : n));
}
void* operator new(std::size_t n, std::align_val_t a) { return or_throw(aligned(n, a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return or_throw(aligned(n, a)); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return aligned(n, a);
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return aligned(n, a);
}
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
