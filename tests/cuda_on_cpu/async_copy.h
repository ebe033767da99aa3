#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace infer::cuda::emulated {

/// The cp.async copies of one lane. A copy is done when the lane waits for its group and not
/// before: until then the destination holds NaN, and a source that is changed too early shows.
class AsyncCopies {
 public:
  void add(void* shared, const void* global, int bytes, int source_bytes);
  void commit() { ++n_group_; }
  void wait(int n_pending);
  void clear();

 private:
  struct Copy {
    std::byte* to;
    const std::byte* from;
    int bytes, source_bytes;
    uint64_t group;
  };
  std::vector<Copy> copies_;  // in the order issued
  size_t n_done_ = 0;         // of copies_, from its front
  uint64_t n_group_ = 0;      // committed so far
};

}  // namespace infer::cuda::emulated
