#pragma once

namespace infer::cuda::emulated {

/// Makes a memory fault say which kernel, block and lane it came from, or that the host touched
/// device memory, before the process dies of it. Under AddressSanitizer, which has a report of its
/// own, it does nothing.
void install_crash_handler();
/// The calling OS thread handles its faults on a stack apart: a lane's own may be the one that
/// overflowed.
void use_signal_stack();

}  // namespace infer::cuda::emulated
