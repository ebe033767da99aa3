#include "tests/cuda_on_cpu/fiber.h"

#include <sys/mman.h>

#include "core/base/check.h"

namespace infer::cuda::emulated {

namespace {
constexpr size_t kGuardBytes = 4096;
}

StackPool::~StackPool() {
  for (std::byte* mapping : mappings_) munmap(mapping, kGuardBytes + kStackBytes);
}

void StackPool::prepare(Fiber& fiber, size_t index,
                        void (*entry)(boost::context::detail::transfer_t)) {
  while (mappings_.size() <= index) {
    void* mapping = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    INFER_CHECK(mapping != MAP_FAILED, "no memory for lane stack {}", index);
    INFER_CHECK(mprotect(mapping, kGuardBytes, PROT_NONE) == 0, "no guard page below stack {}",
                index);
    mappings_.push_back(static_cast<std::byte*>(mapping));
  }
  // All tops at the same distance from a page border would fall into the same few cache sets.
  const size_t colour = index % 32 * 256;
  fiber.stack_bottom = mappings_[index] + kGuardBytes;
  fiber.stack_bytes = kStackBytes - colour;
  fiber.fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  // A block that failed left its frames behind, red zones and all.
  __asan_unpoison_memory_region(fiber.stack_bottom, kStackBytes);
#endif
  fiber.context = boost::context::detail::make_fcontext(fiber.stack_bottom + fiber.stack_bytes,
                                                        fiber.stack_bytes, entry);
}

bool StackPool::is_guard(const void* address) const {
  const auto* at = static_cast<const std::byte*>(address);
  for (const std::byte* mapping : mappings_)
    if (at >= mapping && at < mapping + kGuardBytes) return true;
  return false;
}

}  // namespace infer::cuda::emulated
