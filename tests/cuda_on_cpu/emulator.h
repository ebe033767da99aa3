#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

/// The emulator as its users, the tests, see it. Everything else goes through the CUDA runtime's
/// own functions.
namespace infer::cuda::emulated {

struct Options {
  int architecture = 80;  ///< 75, 80, 86, 89, 90, 100 or 120
  uint64_t seed = 1;      ///< chooses the order of blocks, warps, lanes and streams
  int n_threads = 1;      ///< OS threads that run blocks; each block stays on one
  int n_device = 1;
  bool has_driver = true;  ///< without one every call fails with cudaErrorInsufficientDriver
  size_t device_bytes = size_t{16} << 30;  ///< memory of each device
  /// What the kernels were compiled for: 0 is `architecture`; more than that: no code for it.
  int code_architecture = 0;
  int busy_device = -1;  ///< somebody else has this one for himself (cudaErrorDevicesUnavailable)
  size_t hidden_bytes = 0;  ///< of each device's memory, free as it says and not to be had
  bool has_cublas = true;
  size_t pinned_bytes = size_t{16} << 30;  ///< that the host pins at most
};

/// A fresh machine: forgets streams, allocations, captures, reports and sticky errors of before.
void reset(const Options& options);
const Options& options();
/// Another seed for what runs from now on.
void set_seed(uint64_t seed);

/// The n-th launch from now (0: the next one) throws std::bad_alloc, as a host without memory does.
void throw_at_launch(int n);

/// What the checkers found since reset() or the last call, in the order found. The failed launch
/// returns cudaErrorLaunchFailure from the next call that waits for it, and from every call after
/// that, as on a GPU.
std::vector<std::string> take_reports();

/// Device allocations that exist, for tests of leaks.
size_t n_allocation();

/// Whether this program has the real runtime (tests/cuda_on_gpu), where options and seeds choose
/// nothing: what only an emulator can be told to do is skipped then.
bool on_gpu();

}  // namespace infer::cuda::emulated
