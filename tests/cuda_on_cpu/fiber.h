#pragma once

#include <cstddef>
#include <vector>

#if !defined(__x86_64__)
#include <boost/context/detail/fcontext.hpp>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/// Fibers: a saved place of execution on a stack of its own, and the switch from one to another.
namespace infer::cuda::emulated {

struct Fiber {
  void* context = nullptr;  ///< where it was left
  void (*entry)() = nullptr;
  Fiber* left = nullptr;  ///< whom the last switch to this one left
  std::byte* stack_bottom =
      nullptr;  ///< lowest address; of a thread's own known after its first switch
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  ///< AddressSanitizer's
};

#if defined(__x86_64__)
/// Saves the stack pointer and the registers that a callee keeps, and takes those of `to`. It
/// leaves by `ret`, as it was entered by a call: the processor then foresees the returns of the
/// lane that continues. After the jump at the end of jump_fcontext it foresees none, and a barrier
/// takes three times as long.
extern "C" void infer_switch_stack(void** from, void* to);
#endif

/// Called first by a fiber that a switch has begun or continued.
inline void arrive([[maybe_unused]] Fiber& here) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  __sanitizer_finish_switch_fiber(here.fake_stack, &bottom, &here.left->stack_bytes);
  here.left->stack_bottom = static_cast<std::byte*>(const_cast<void*>(bottom));
#endif
}

/// Leaves `from` for `to`; returns when somebody switches back.
inline void switch_fiber(Fiber& from, Fiber& to) {
  to.left = &from;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_bytes);
#endif
#if defined(__x86_64__)
  infer_switch_stack(&from.context, to.context);
#else
  from.left->context = boost::context::detail::jump_fcontext(to.context, &to).fctx;
#endif
  arrive(from);
}

/// Stacks of one OS thread, each above a guard page. They stay mapped until the pool goes.
class StackPool {
 public:
  static constexpr size_t kStackBytes = 64 * 1024;

  StackPool() = default;
  ~StackPool();
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;

  /// Makes a new fiber begin `entry`, which never returns, on a stack of its own. It stays where it
  /// is: who switches away from it keeps its address.
  void begin(Fiber& fiber, void (*entry)());
  /// Whether the address lies in the guard page below some stack.
  bool is_guard(const void* address) const;

 private:
  std::vector<std::byte*> mappings_;  // of one guard page and kStackBytes each
};

}  // namespace infer::cuda::emulated
