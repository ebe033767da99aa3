#include "backends/cuda/upload.h"

#include <algorithm>
#include <cstring>

namespace infer::cuda {

Result<Upload> Upload::create(int64_t buffer_bytes) {
  Upload u;
  INFER_ASSIGN(u.stream_, Stream::create());
  for (size_t i = 0; i < u.buffers_.size(); ++i) {
    INFER_ASSIGN(u.buffers_[i], PinnedBuffer::allocate(buffer_bytes, "uploading weights"));
    INFER_ASSIGN(u.copied_[i], Event::create(Event::Wait::kSleep));
  }
  return u;
}

Upload::~Upload() {
  if (stream_.get() != nullptr) static_cast<void>(stream_.wait());
}

Result<std::byte*> Upload::begin() {
  INFER_TRY(copied_[turn_].wait());  // at once for an event that was never recorded
  return buffers_[turn_].data();
}

Result<void> Upload::copy(std::byte* device, const std::byte* staged, int64_t n_bytes) {
  return check(cudaMemcpyAsync(device, staged, static_cast<size_t>(n_bytes), cudaMemcpyHostToDevice,
                               stream_.get()),
               "copying weights to the device");
}

Result<void> Upload::end() {
  INFER_TRY(copied_[turn_].record(stream_));
  turn_ = 1 - turn_;
  return {};
}

Result<void> Upload::send(std::byte* device, const void* host, int64_t n_bytes) {
  for (int64_t at = 0; at < n_bytes; at += buffer_bytes()) {
    const int64_t n = std::min(buffer_bytes(), n_bytes - at);
    INFER_ASSIGN(std::byte* const staged, begin());
    std::memcpy(staged, static_cast<const std::byte*>(host) + at, static_cast<size_t>(n));
    INFER_TRY(copy(device + at, staged, n));
    INFER_TRY(end());
  }
  return {};
}

}  // namespace infer::cuda
