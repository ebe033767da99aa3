#pragma once

#include <cstddef>
#include <map>
#include <vector>

namespace infer::cuda::emulated {

/// The memory of all devices: a range of addresses that the host cannot touch except while it is
/// open, which it is when kernels and copies run. Each allocation lies between guard pages, starts
/// as NaN, and its addresses are not given out again.
class DeviceMemory {
 public:
  struct Allocation {
    std::byte* data;
    size_t bytes;
    int device;
  };

  DeviceMemory();
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* allocate(int device, size_t bytes);
  /// False: no allocation begins there.
  bool release(void* data);
  /// The allocation that holds all of [address, address + bytes), or null.
  const Allocation* find(const void* address, size_t bytes) const;
  /// An allocation beside which, up to its guard pages, something was written. Needs open memory.
  const Allocation* find_broken_border() const;
  bool in_range(const void* address) const;
  size_t used_bytes(int device) const;
  size_t n_allocation() const { return allocations_.size(); }

  /// Whether it was open already.
  bool open();
  void close();

 private:
  void protect(const Allocation& a, int protection) const;

  std::byte* range_ = nullptr;
  std::byte* next_ = nullptr;
  std::map<const std::byte*, Allocation> allocations_;  // by first byte
  bool is_open_ = false;
};

}  // namespace infer::cuda::emulated
