#include "tests/cuda_on_cpu/device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace infer::cuda::emulated {

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 256;  // cudaMalloc promises as much
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kRangeBytes = size_t{1} << 40;  // of addresses, not of memory

constexpr int kBorder = 0xfb;  // bytes beside an allocation, and NaN if read as numbers

constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

std::byte* page_of(std::byte* p) { return p - reinterpret_cast<uintptr_t>(p) % kPage; }

}  // namespace

DeviceMemory::DeviceMemory() {
  void* range =
      mmap(nullptr, kRangeBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  INFER_CHECK(range != MAP_FAILED, "no addresses for device memory");
  range_ = next_ = static_cast<std::byte*>(range);
}

DeviceMemory::~DeviceMemory() {
  while (!allocations_.empty()) release(allocations_.begin()->second.data);
  munmap(range_, kRangeBytes);
}

void* DeviceMemory::allocate(int device, size_t bytes) {
  const size_t n_page_bytes = round_up(round_up(bytes, kAlignment), kPage);
  if (n_page_bytes + kPage > static_cast<size_t>(range_ + kRangeBytes - next_)) return nullptr;
  std::byte* const end = next_ + kPage + n_page_bytes;  // a guard page before
  // Against the guard page that the next allocation begins with, so that reading on is caught.
  Allocation a{end - round_up(bytes, kAlignment), bytes, device};
  if (mprotect(page_of(a.data), n_page_bytes, PROT_READ | PROT_WRITE) != 0) return nullptr;
  if (n_page_bytes >= kHugePage)
    madvise(page_of(a.data), n_page_bytes, MADV_HUGEPAGE);  // quick to open and close
  next_ = end;
  std::fill(page_of(a.data), a.data, std::byte{kBorder});
  std::memset(a.data, 0xff, bytes);
  std::fill(a.data + bytes, end, std::byte{kBorder});
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(page_of(a.data), static_cast<size_t>(a.data - page_of(a.data)));
  __asan_poison_memory_region(a.data + bytes, static_cast<size_t>(end - (a.data + bytes)));
#endif
  if (!is_open_) protect(a, PROT_NONE);
  allocations_.emplace(a.data, a);
  return a.data;
}

bool DeviceMemory::release(void* data) {
  const auto it = allocations_.find(static_cast<std::byte*>(data));
  if (it == allocations_.end()) return false;
  std::byte* const begin = page_of(it->second.data);
  const size_t n = round_up(static_cast<size_t>(it->second.data + it->second.bytes - begin), kPage);
  madvise(begin, n, MADV_DONTNEED);
  mprotect(begin, n, PROT_NONE);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(begin, n);
#endif
  allocations_.erase(it);
  return true;
}

const DeviceMemory::Allocation* DeviceMemory::find(const void* address, size_t bytes) const {
  const auto* at = static_cast<const std::byte*>(address);
  auto it = allocations_.upper_bound(at);
  if (it == allocations_.begin()) return nullptr;
  const Allocation& a = (--it)->second;
  const auto offset = static_cast<size_t>(at - a.data);
  return offset <= a.bytes && bytes <= a.bytes - offset ? &a : nullptr;
}

const DeviceMemory::Allocation* DeviceMemory::find_broken_border() const {
#if !defined(__SANITIZE_ADDRESS__)  // which stops every access there
  const auto untouched = [](std::byte b) { return b == std::byte{kBorder}; };
  for (const auto& [begin, a] : allocations_) {
    const std::byte* end = a.data + a.bytes;
    const std::byte* last = a.data + round_up(a.bytes, kAlignment);
    const std::byte* first = page_of(a.data);
    if (!std::all_of(first, begin, untouched) || !std::all_of(end, last, untouched)) return &a;
  }
#endif
  return nullptr;
}

bool DeviceMemory::in_range(const void* address) const {
  const auto* at = static_cast<const std::byte*>(address);
  return at >= range_ && at < range_ + kRangeBytes;
}

size_t DeviceMemory::used_bytes(int device) const {
  size_t used = 0;
  for (const auto& [begin, a] : allocations_)
    if (a.device == device) used += round_up(a.bytes, kAlignment);
  return used;
}

void DeviceMemory::protect(const Allocation& a, int protection) const {
  std::byte* const begin = page_of(a.data);
  mprotect(begin, round_up(static_cast<size_t>(a.data + a.bytes - begin), kPage), protection);
}

bool DeviceMemory::open() {
  if (is_open_) return true;
  is_open_ = true;
  for (const auto& [begin, a] : allocations_) protect(a, PROT_READ | PROT_WRITE);
  return false;
}

void DeviceMemory::close() {
  if (!is_open_) return;
  is_open_ = false;
  for (const auto& [begin, a] : allocations_) protect(a, PROT_NONE);
}

}  // namespace infer::cuda::emulated
