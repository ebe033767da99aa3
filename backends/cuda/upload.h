#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "backends/cuda/device.h"
#include "backends/cuda/memory.h"

namespace infer::cuda {

/// Copies to the device through two pinned buffers: while one is on its way the host fills the
/// other.
class Upload {
 public:
  /// Errors: as PinnedBuffer's.
  static Result<Upload> create(int64_t buffer_bytes);
  Upload(Upload&&) noexcept = default;
  /// Waits: copies read the buffers.
  ~Upload();

  int64_t buffer_bytes() const { return buffers_[0].n_bytes(); }
  /// The buffer to fill next; waits until its last copies are done.
  Result<std::byte*> begin();
  /// Copies from the buffer that begin() gave; several times before end().
  Result<void> copy(std::byte* device, const std::byte* staged, int64_t n_bytes);
  Result<void> end();
  /// All of that for bytes that go as they are.
  Result<void> send(std::byte* device, const void* host, int64_t n_bytes);
  /// Waits for everything.
  Result<void> finish() { return stream_.wait(); }

 private:
  Stream stream_;
  std::array<PinnedBuffer, 2> buffers_;
  std::array<Event, 2> copied_;
  size_t turn_ = 0;

  Upload() = default;
};

}  // namespace infer::cuda
