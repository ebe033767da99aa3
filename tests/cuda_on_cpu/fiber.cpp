#include "tests/cuda_on_cpu/fiber.h"

#include <sys/mman.h>

#include <algorithm>

#include "core/base/check.h"

namespace infer::cuda::emulated {

#if defined(__x86_64__)
asm(R"(
.text
.globl infer_switch_stack
.type infer_switch_stack, @function
infer_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size infer_switch_stack, . - infer_switch_stack
)");
#endif

namespace {

constexpr size_t kGuardBytes = 4096;

#if defined(__x86_64__)
// What infer_switch_stack finds: six registers, the address that it returns to, and none for that
// to return to.
void* begin_at(std::byte* stack_top, size_t /*stack_bytes*/, void (*entry)()) {
  auto* frame = reinterpret_cast<void**>(stack_top) - 8;
  std::fill(frame, frame + 8, nullptr);
  frame[6] = reinterpret_cast<void*>(entry);
  return frame;
}
#else
void enter(boost::context::detail::transfer_t from) {
  const auto& here = *static_cast<Fiber*>(from.data);
  here.left->context = from.fctx;
  here.entry();
}

void* begin_at(std::byte* stack_top, size_t stack_bytes, void (* /*entry*/)()) {
  return boost::context::detail::make_fcontext(stack_top, stack_bytes, enter);
}
#endif

}  // namespace

StackPool::~StackPool() {
  for (std::byte* mapping : mappings_) {
#if defined(__SANITIZE_ADDRESS__)
    // The last frames' red zones; whoever is given these addresses next knows nothing of them.
    __asan_unpoison_memory_region(mapping + kGuardBytes, kStackBytes);
#endif
    munmap(mapping, kGuardBytes + kStackBytes);
  }
}

void StackPool::begin(Fiber& fiber, void (*entry)()) {
  const size_t index = mappings_.size();
  void* mapping = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  INFER_CHECK(mapping != MAP_FAILED, "no memory for lane stack {}", index);
  INFER_CHECK(mprotect(mapping, kGuardBytes, PROT_NONE) == 0, "no guard page below stack {}",
              index);
  mappings_.push_back(static_cast<std::byte*>(mapping));
  // All tops at the same distance from a page border would fall into the same few cache sets.
  const size_t colour = index % 32 * 256;
  fiber.stack_bottom = mappings_.back() + kGuardBytes;
  fiber.stack_bytes = kStackBytes - colour;
  fiber.entry = entry;
  fiber.context = begin_at(fiber.stack_bottom + fiber.stack_bytes, fiber.stack_bytes, entry);
}

bool StackPool::is_guard(const void* address) const {
  const auto* at = static_cast<const std::byte*>(address);
  for (const std::byte* mapping : mappings_)
    if (at >= mapping && at < mapping + kGuardBytes) return true;
  return false;
}

}  // namespace infer::cuda::emulated
