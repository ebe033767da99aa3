#pragma once

#include <cstddef>

namespace infer::cuda::emulated {

/// Shared memory of one block at a time: its end lies against a guard page, a guard page lies
/// before it, and every block finds it filled with NaN.
class SharedMemory {
 public:
  SharedMemory() = default;
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void begin_block(size_t bytes);
  /// Whether the bytes around what the kernel asked for are as begin_block left them.
  bool borders_intact() const;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool contains(const void* address, size_t n) const {
    const auto* at = static_cast<const std::byte*>(address);
    return at >= data_ && at + n <= data_ + bytes_;
  }

 private:
  std::byte* mapping_ = nullptr;
  std::byte* open_ = nullptr;  // first accessible byte: a page border
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

/// What a block may have on an architecture: without asking, and after cudaFuncSetAttribute.
inline constexpr size_t kDefaultSharedBytes = 48 * 1024;
size_t max_shared_bytes(int architecture);

}  // namespace infer::cuda::emulated
