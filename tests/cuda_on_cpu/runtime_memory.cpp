#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "tests/cuda_on_cpu/machine.h"

/// Memory and copies of the runtime API.
namespace infer::cuda::emulated {

namespace {

bool is_pinned(const Machine& m, const void* address, size_t bytes) {
  const auto* at = static_cast<const std::byte*>(address);
  auto it = m.pinned.upper_bound(at);
  if (it == m.pinned.begin()) return false;
  --it;
  return at + bytes <= it->first + it->second;
}

cudaError_t allocate(Machine& m, void** out, size_t bytes) {
  if (out == nullptr) return cudaErrorInvalidValue;
  *out = nullptr;
  if (bytes == 0) return cudaSuccess;
  const size_t used = m.memory.used_bytes(current_device);
  if (bytes + m.options.hidden_bytes > m.options.device_bytes - used)
    return cudaErrorMemoryAllocation;
  *out = m.memory.allocate(current_device, bytes);
  return *out == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t allocate_pinned(void** out, size_t bytes) {
  return api([&](Machine& m) {
    if (out == nullptr) return cudaErrorInvalidValue;
    if (const cudaError_t error = m.refuse_in_capture(); error != cudaSuccess) return error;
    *out = nullptr;
    size_t used = 0;
    for (const auto& [data, size] : m.pinned) used += size;
    if (bytes > m.options.pinned_bytes - std::min(used, m.options.pinned_bytes))
      return cudaErrorMemoryAllocation;
    *out = ::operator new (bytes, std::align_val_t{kHostAlignment}, std::nothrow);
    if (*out == nullptr) return cudaErrorMemoryAllocation;
    std::memset(*out, 0xff, bytes);
    auto* const data = static_cast<std::byte*>(*out);
    m.pinned.emplace(data, bytes);
    m.host_memory.emplace(data, data);
    return cudaSuccess;
  });
}

// Each side must be what the kind says: a range inside one allocation of a device, or memory of the
// host.
cudaError_t check_copy(const Machine& m, const void* to, const void* from, size_t bytes,
                       cudaMemcpyKind kind) {
  const bool to_device = m.memory.in_range(to), from_device = m.memory.in_range(from);
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
    return cudaErrorInvalidMemcpyDirection;
  if (kind != cudaMemcpyDefault) {
    const bool wants_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool wants_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (wants_to != to_device || wants_from != from_device) return cudaErrorInvalidValue;
  }
  if ((to_device && m.memory.find(to, bytes) == nullptr) ||
      (from_device && m.memory.find(from, bytes) == nullptr))
    return cudaErrorInvalidValue;
  return cudaSuccess;
}

cudaError_t copy(Machine& m, void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t handle) {
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t error = check_copy(m, to, from, bytes, kind); error != cudaSuccess)
    return error;
  const auto stream = m.find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  const bool captured = stream->capture != nullptr;
  const bool from_pageable = !m.memory.in_range(from) && !is_pinned(m, from, bytes);
  const bool to_pageable = !m.memory.in_range(to) && !is_pinned(m, to, bytes);
  Work work{cudaGraphNodeTypeMemcpy, [=] { std::memcpy(to, from, bytes); }};
  if (!m.memory.in_range(to) || !m.memory.in_range(from))
    work.host = static_cast<const std::byte*>(m.memory.in_range(from) ? to : from);
  if (from_pageable && !captured) {  // staged before the call returns
    const auto* source = static_cast<const std::byte*>(from);
    auto staged = std::make_shared<std::vector<std::byte>>(source, source + bytes);
    work.host = nullptr;
    work.run = [to, staged] { std::memcpy(to, staged->data(), staged->size()); };
  }
  const cudaError_t error = m.enqueue(stream, std::move(work));
  if (error == cudaSuccess && to_pageable && !captured) m.run_until({stream, stream->n_enqueued});
  return error;
}

cudaError_t fill(Machine& m, void* to, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (m.memory.find(to, bytes) == nullptr) return cudaErrorInvalidValue;
  return m.enqueue(stream, {cudaGraphNodeTypeMemset, [=] { std::memset(to, value, bytes); }});
}

}  // namespace

}  // namespace infer::cuda::emulated

using namespace infer::cuda::emulated;

cudaError_t cudaMalloc(void** out, size_t bytes) {
  return api([&](Machine& m) {
    const cudaError_t error = m.refuse_in_capture();
    return error != cudaSuccess ? error : allocate(m, out, bytes);
  });
}

cudaError_t cudaFree(void* data) {
  return api([&](Machine& m) {
    if (data == nullptr) return cudaSuccess;
    if (const cudaError_t error = m.refuse_in_capture(); error != cudaSuccess) return error;
    m.run_all();  // it waits for the device
    return m.memory.release(data) ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaMallocAsync(void** out, size_t bytes, cudaStream_t handle) {
  return api([&](Machine& m) {
    const auto stream = m.find_stream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr)
      return Machine::invalidate(stream->capture, cudaErrorNotSupported);
    return allocate(m, out, bytes);
  });
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  return api([&](Machine& m) {
    if (data == nullptr) return cudaSuccess;
    if (m.memory.find(data, 1) == nullptr) return cudaErrorInvalidValue;
    return m.enqueue(stream, {cudaGraphNodeTypeMemFree, [&m, data] { m.memory.release(data); }});
  });
}

cudaError_t cudaMallocHost(void** out, size_t bytes) { return allocate_pinned(out, bytes); }
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned /*flags*/) {
  return allocate_pinned(out, bytes);
}

cudaError_t cudaFreeHost(void* data) {
  return api([&](Machine& m) {
    if (data == nullptr) return cudaSuccess;
    if (const cudaError_t error = m.refuse_in_capture(); error != cudaSuccess) return error;
    // Whether it waits for the device, nobody promises.
    const auto* begin = static_cast<const std::byte*>(data);
    if (const auto it = m.pinned.find(begin);
        it != m.pinned.end() && m.has_copy_of(begin, begin + it->second)) {
      m.report("pinned memory is freed that a copy has yet to read or write");
      m.run_all();
    }
    if (m.host_memory.erase(static_cast<std::byte*>(data)) == 0) return cudaErrorInvalidValue;
    m.pinned.erase(static_cast<std::byte*>(data));
    return cudaSuccess;
  });
}

cudaError_t cudaHostRegister(void* data, size_t bytes, unsigned /*flags*/) {
  return api([&](Machine& m) {
    if (data == nullptr || bytes == 0) return cudaErrorInvalidValue;
    if (is_pinned(m, data, 1)) return cudaErrorHostMemoryAlreadyRegistered;
    m.pinned.emplace(static_cast<std::byte*>(data), bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaHostUnregister(void* data) {
  return api([&](Machine& m) {
    return m.pinned.erase(static_cast<std::byte*>(data)) == 1 ? cudaSuccess
                                                              : cudaErrorHostMemoryNotRegistered;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return api([&](Machine& m) { return copy(m, to, from, bytes, kind, stream); });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return api([&](Machine& m) {
    if (const cudaError_t error = m.refuse_in_capture(); error != cudaSuccess) return error;
    if (const cudaError_t error = copy(m, to, from, bytes, kind, nullptr); error != cudaSuccess)
      return error;
    const auto& stream = m.legacy[static_cast<size_t>(current_device)];
    m.run_until({stream, stream->n_enqueued});
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int /*to_device*/, const void* from, int /*from_device*/,
                                size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return api([&](Machine& m) { return fill(m, to, value, bytes, stream); });
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return api([&](Machine& m) {
    const cudaError_t error = m.refuse_in_capture();
    return error != cudaSuccess ? error : fill(m, to, value, bytes, nullptr);
  });
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  return api([&](Machine& m) {
    if (free_bytes == nullptr || total_bytes == nullptr) return cudaErrorInvalidValue;
    *total_bytes = m.options.device_bytes;
    *free_bytes = *total_bytes - m.memory.used_bytes(current_device);
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* address) {
  return api([&](Machine& m) {
    if (out == nullptr) return cudaErrorInvalidValue;
    *out = {};
    const auto* allocation = m.memory.find(address, 0);
    out->type = allocation != nullptr      ? cudaMemoryTypeDevice
                : is_pinned(m, address, 1) ? cudaMemoryTypeHost
                                           : cudaMemoryTypeUnregistered;
    out->device = allocation != nullptr ? allocation->device : 0;
    if (out->type == cudaMemoryTypeDevice) out->devicePointer = const_cast<void*>(address);
    if (out->type != cudaMemoryTypeDevice) out->hostPointer = const_cast<void*>(address);
    return cudaSuccess;
  });
}
