#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <span>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/// Fibers: a saved place of execution on a stack of its own, and the switch from one to another.
namespace infer::cuda::emulated {

struct Fiber {
  boost::context::detail::fcontext_t context = nullptr;
  std::byte* stack_bottom =
      nullptr;  ///< lowest address; of the main fiber known after the first switch
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  ///< AddressSanitizer's
};

/// Called on arrival with what the fiber that was left handed over.
inline void finish_switch(boost::context::detail::transfer_t arrived, Fiber& here) {
  auto* left = static_cast<Fiber*>(arrived.data);
  left->context = arrived.fctx;
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  __sanitizer_finish_switch_fiber(here.fake_stack, &bottom, &left->stack_bytes);
  left->stack_bottom = static_cast<std::byte*>(const_cast<void*>(bottom));
#else
  static_cast<void>(here);
#endif
}

/// Leaves `from` for `to`; returns when somebody switches back. `from_ends`: nobody will.
inline void switch_fiber(Fiber& from, Fiber& to, [[maybe_unused]] bool from_ends = false) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.fake_stack, to.stack_bottom,
                                 to.stack_bytes);
#endif
  finish_switch(boost::context::detail::jump_fcontext(to.context, &from), from);
}

/// Stacks of one OS thread, each above a guard page. They stay mapped until the pool goes.
class StackPool {
 public:
  static constexpr size_t kStackBytes = 64 * 1024;

  StackPool() = default;
  ~StackPool();
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;

  /// Makes `fiber` begin `entry` on stack number `index`, whatever ran there before.
  void prepare(Fiber& fiber, size_t index, void (*entry)(boost::context::detail::transfer_t));
  /// Whether the address lies in the guard page below some stack.
  bool is_guard(const void* address) const;

 private:
  std::vector<std::byte*> mappings_;  // of one guard page and kStackBytes each
};

}  // namespace infer::cuda::emulated
