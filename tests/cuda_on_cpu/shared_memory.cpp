#include "tests/cuda_on_cpu/shared_memory.h"

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
constexpr size_t kRoom = 256 * 1024;  // more than any architecture has
constexpr size_t kAlignment = 128;
constexpr int kBorder = 0xfb;  // bytes outside the kernel's own, and NaN if read as numbers

constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

size_t max_shared_bytes(int architecture) {
  switch (architecture) {
    case 75:
      return 64 * 1024;
    case 80:
      return 163 * 1024;
    case 90:
    case 100:
      return 227 * 1024;
    default:
      return 99 * 1024;  // 86, 89, 120
  }
}

SharedMemory::~SharedMemory() {
  if (mapping_ == nullptr) return;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(mapping_, kRoom + 2 * kPage);
#endif
  munmap(mapping_, kRoom + 2 * kPage);
}

void SharedMemory::begin_block(size_t bytes) {
  INFER_CHECK(bytes <= kRoom, "{} bytes of shared memory", bytes);
  if (mapping_ == nullptr) {
    void* mapping = mmap(nullptr, kRoom + 2 * kPage, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    INFER_CHECK(mapping != MAP_FAILED, "no memory for shared memory");
    mapping_ = static_cast<std::byte*>(mapping);
    open_ = mapping_ + kPage + kRoom;
  }
  std::byte* const end = mapping_ + kPage + kRoom;
  std::byte* const open = end - round_up(bytes, kPage);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(open_, static_cast<size_t>(end - open_));  // the last block's
#endif
  if (open < open_) mprotect(open, static_cast<size_t>(open_ - open), PROT_READ | PROT_WRITE);
  if (open > open_) mprotect(open_, static_cast<size_t>(open - open_), PROT_NONE);
  open_ = open;
  data_ = end - round_up(bytes, kAlignment);
  bytes_ = bytes;
  std::memset(open, kBorder, static_cast<size_t>(end - open));
  std::memset(data_, 0xff, bytes);
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(open, static_cast<size_t>(data_ - open));
  __asan_poison_memory_region(data_ + bytes, static_cast<size_t>(end - (data_ + bytes)));
#endif
}

bool SharedMemory::borders_intact() const {
#if defined(__SANITIZE_ADDRESS__)
  return true;  // every access there was stopped
#else
  const auto untouched = [](std::byte b) { return b == std::byte{kBorder}; };
  const std::byte* end = mapping_ + kPage + kRoom;
  return std::all_of(static_cast<const std::byte*>(open_), static_cast<const std::byte*>(data_),
                     untouched) &&
         std::all_of(static_cast<const std::byte*>(data_ + bytes_), end, untouched);
#endif
}

}  // namespace infer::cuda::emulated
