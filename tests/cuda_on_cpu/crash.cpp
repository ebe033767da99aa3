#include "tests/cuda_on_cpu/crash.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "tests/cuda_on_cpu/machine.h"

namespace infer::cuda::emulated {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

void install_crash_handler() {}
void use_signal_stack() {}

#else

namespace {

// The process is about to die: what is not async-signal-safe here can at worst lose the message.
void explain(int signal, siginfo_t* info, void* /*context*/) {
  std::signal(signal, SIG_DFL);
  const void* address = info->si_addr;
  if (this_block != nullptr) {
    const char* what = "touched memory that is not the kernel's";
    if (signal == SIGILL) what = "made a misaligned or otherwise undefined access";
    if (this_block->is_stack_guard(address)) what = "overflowed its stack";
    std::fprintf(stderr, "cuda_on_cpu: %s: %s, address %p\n", this_block->where().c_str(), what,
                 address);
  } else if (machine().memory.in_range(address)) {
    std::fprintf(stderr, "cuda_on_cpu: the host touched device memory at %p\n", address);
  }
  std::raise(signal);
}

}  // namespace

void install_crash_handler() {
  use_signal_stack();
  struct sigaction action = {};
  action.sa_sigaction = explain;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL}) sigaction(signal, &action, nullptr);
}

void use_signal_stack() {
  constexpr size_t kBytes = 64 * 1024;
  thread_local std::unique_ptr<char[]> stack;
  if (stack != nullptr) return;
  stack = std::make_unique<char[]>(kBytes);
  stack_t alternate = {};
  alternate.ss_sp = stack.get();
  alternate.ss_size = kBytes;
  sigaltstack(&alternate, nullptr);
}

#endif

}  // namespace infer::cuda::emulated
