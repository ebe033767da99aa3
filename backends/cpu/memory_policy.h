#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

/// Huge pages, locked pages, NUMA nodes: what the system is asked for beside plain memory. All of
/// it is for speed only: a refusal is reported, not an error.
namespace infer::cpu {

/// Collects ranges of memory and keeps them in RAM.
class PageLock {
 public:
  void add(const void* data, int64_t n_bytes);
  /// Locks what was added. Gives an empty string, or one line on what is wrong and what to do.
  std::string lock();
  int64_t locked_bytes() const { return locked_bytes_; }

 private:
  struct Range {
    const std::byte* begin = nullptr;
    int64_t n_bytes = 0;
  };
  std::vector<Range> ranges_;
  int64_t locked_bytes_ = 0;
};

/// "8.0 MiB is the limit (ulimit -l 8192); run 'ulimit -l 94208' before, or 'ulimit -l unlimited'".
/// `need` and `limit` in bytes.
std::string lock_advice(int64_t need, int64_t limit);

}  // namespace infer::cpu
