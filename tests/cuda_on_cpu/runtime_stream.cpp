#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <new>

#include "tests/cuda_on_cpu/machine.h"
#include "tests/cuda_on_cpu/shared_memory.h"

/// Streams, events and launches of the runtime API.
namespace infer::cuda::emulated {

namespace {

double now_ms() {
  using std::chrono::steady_clock;
  return std::chrono::duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

cudaError_t create_stream(cudaStream_t* out, unsigned flags) {
  return api([&](Machine& m) {
    if (out == nullptr || (flags & ~unsigned{cudaStreamNonBlocking}) != 0)
      return cudaErrorInvalidValue;
    auto stream = std::make_shared<Stream>();
    stream->device = current_device;
    stream->blocking = (flags & cudaStreamNonBlocking) == 0;
    *out = reinterpret_cast<cudaStream_t>(stream.get());
    m.streams.push_back(std::move(stream));
    return cudaSuccess;
  });
}

cudaError_t create_event(cudaEvent_t* out, unsigned flags) {
  return api([&](Machine& m) {
    if (out == nullptr) return cudaErrorInvalidValue;
    m.events.push_back(std::make_unique<Event>());
    m.events.back()->timed = (flags & cudaEventDisableTiming) == 0;
    *out = reinterpret_cast<cudaEvent_t>(m.events.back().get());
    return cudaSuccess;
  });
}

bool is_done(const Point& p) { return p.stream == nullptr || p.stream->n_done >= p.upto; }

cudaError_t record(Machine& m, Event& event, cudaStream_t handle) {
  const auto stream = m.find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  event.capture = nullptr;
  if (stream->capture != nullptr) {
    event.capture = stream->capture;
    event.tips = stream->tips;
    return cudaSuccess;
  }
  auto time = std::make_shared<double>(0);
  const cudaError_t error =
      m.enqueue(stream, {cudaGraphNodeTypeEventRecord, [time] { *time = now_ms(); }});
  if (error != cudaSuccess) return error;
  event.recorded = {stream, stream->n_enqueued};
  event.time_ms = std::move(time);
  return cudaSuccess;
}

cudaError_t wait_captured(const std::shared_ptr<Stream>& stream, const Event& event) {
  if (stream->capture != nullptr && stream->capture != event.capture) {
    Machine::invalidate(event.capture, cudaErrorStreamCaptureMerge);
    return Machine::invalidate(stream->capture, cudaErrorStreamCaptureMerge);
  }
  stream->capture = event.capture;
  for (const size_t tip : event.tips)
    if (std::find(stream->tips.begin(), stream->tips.end(), tip) == stream->tips.end())
      stream->tips.push_back(tip);
  return cudaSuccess;
}

cudaError_t wait_event(Machine& m, cudaStream_t handle, const Event& event) {
  const auto stream = m.find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (event.capture != nullptr) return wait_captured(stream, event);
  if (stream->capture != nullptr)
    return Machine::invalidate(stream->capture, cudaErrorStreamCaptureIsolation);
  if (event.recorded.stream == nullptr) return cudaSuccess;  // never recorded: nothing to wait for
  // An operation of its own, so that a record after this one waits as well.
  stream->next_after.push_back(event.recorded);
  return m.enqueue(stream, {cudaGraphNodeTypeWaitEvent, [] {}});
}

// On a GPU a query finds the work anywhere between untouched and done.
cudaError_t query(Machine& m, const Point& point) {
  for (uint32_t n = m.random.below(4); n > 0 && !is_done(point); --n) m.run_any();
  if (is_done(point)) return cudaSuccess;
  m.run_any();
  return cudaErrorNotReady;
}

bool fits(const Machine& m, const Launch& what) {
  const dim3 g = what.grid, b = what.block;
  const uint64_t n_thread = uint64_t{b.x} * b.y * b.z;
  return g.x >= 1 && g.y >= 1 && g.z >= 1 && g.x <= 0x7fffffffu && g.y <= 65535 && g.z <= 65535 &&
         n_thread >= 1 && n_thread <= kMaxLanes && b.z <= 64 &&
         what.shared_bytes <= max_shared_bytes(m.options.architecture);
}

}  // namespace

cudaError_t launch(const Launch& what, cudaStream_t stream, Site site) {
  return api([&](Machine& m) {
    if (m.launches_to_throw >= 0 && m.launches_to_throw-- == 0) throw std::bad_alloc();
    if (!m.has_code()) return cudaErrorNoKernelImageForDevice;
    if (!fits(m, what)) return cudaErrorInvalidConfiguration;
    const auto asked = m.kernel_shared_bytes.find(what.kernel);
    const size_t allowed = asked == m.kernel_shared_bytes.end()
                               ? kDefaultSharedBytes
                               : std::max(kDefaultSharedBytes, static_cast<size_t>(asked->second));
    if (what.shared_bytes > allowed) return cudaErrorInvalidValue;
    const auto* bytes = static_cast<const std::byte*>(what.arguments);
    auto arguments = std::make_shared<std::vector<std::max_align_t>>(
        what.arguments_bytes / sizeof(std::max_align_t) + 1);
    std::copy_n(bytes, what.arguments_bytes, reinterpret_cast<std::byte*>(arguments->data()));
    Launch later = what;
    later.arguments = arguments->data();
    return m.enqueue(stream, {cudaGraphNodeTypeKernel,
                              [&m, later, arguments, site] { m.run_kernel(later, site); }});
  });
}

}  // namespace infer::cuda::emulated

using namespace infer::cuda::emulated;

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return create_stream(stream, 0); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return create_stream(stream, flags);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int /*priority*/) {
  return create_stream(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return api([&](Machine& m) {
    const auto stream = m.find_stream(handle);
    if (handle == nullptr || stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr) Machine::invalidate(stream->capture, cudaSuccess);
    m.run_until({stream, stream->n_enqueued});
    std::erase(m.streams, stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return api([&](Machine& m) {
    const auto stream = m.find_stream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr)
      return Machine::invalidate(stream->capture, cudaErrorStreamCaptureUnsupported);
    m.run_until({stream, stream->n_enqueued});
    return cudaSuccess;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return api([&](Machine& m) {
    const auto stream = m.find_stream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->capture != nullptr)
      return Machine::invalidate(stream->capture, cudaErrorStreamCaptureUnsupported);
    return query(m, {stream, stream->n_enqueued});
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t handle, unsigned /*flags*/) {
  return api([&](Machine& m) {
    const Event* event = m.find_event(handle);
    return event == nullptr ? cudaErrorInvalidResourceHandle : wait_event(m, stream, *event);
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void* data) {
  return api([&](Machine& m) {
    if (fn == nullptr) return cudaErrorInvalidValue;
    return m.enqueue(stream, {cudaGraphNodeTypeHost, [&m, fn, data] {
                                m.memory.close();
                                fn(data);
                                m.memory.open();
                              }});
  });
}

cudaError_t cudaDeviceSynchronize() {
  return api([](Machine& m) {
    if (!m.captures.empty()) {
      for (const auto& capture : m.captures) Machine::invalidate(capture, cudaSuccess);
      return cudaErrorStreamCaptureUnsupported;
    }
    m.run_all();
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return create_event(event, 0); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return create_event(event, flags);
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return api([&](Machine& m) {
    const Event* event = m.find_event(handle);
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    std::erase_if(m.events, [event](const auto& e) { return e.get() == event; });
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) {
  return api([&](Machine& m) {
    Event* event = m.find_event(handle);
    return event == nullptr ? cudaErrorInvalidResourceHandle : record(m, *event, stream);
  });
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return api([&](Machine& m) {
    const Event* event = m.find_event(handle);
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    if (event->capture != nullptr)
      return Machine::invalidate(event->capture, cudaErrorCapturedEvent);
    return query(m, event->recorded);
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return api([&](Machine& m) {
    const Event* event = m.find_event(handle);
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    if (event->capture != nullptr)
      return Machine::invalidate(event->capture, cudaErrorCapturedEvent);
    if (event->recorded.stream != nullptr) m.run_until(event->recorded);
    return cudaSuccess;
  });
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  return api([&](Machine& m) {
    const Event *from = m.find_event(start), *to = m.find_event(end);
    if (ms == nullptr) return cudaErrorInvalidValue;
    for (const Event* e : {from, to})
      if (e == nullptr || !e->timed || e->recorded.stream == nullptr)
        return cudaErrorInvalidResourceHandle;
    if (!is_done(from->recorded) || !is_done(to->recorded)) return cudaErrorNotReady;
    *ms = static_cast<float>(*to->time_ms - *from->time_ms);
    return cudaSuccess;
  });
}

// launch() of kernels/cuda/launch.cuh is the one way to start a kernel here: this one knows no
// types.
cudaError_t cudaLaunchKernel(const void* /*kernel*/, dim3 /*grid*/, dim3 /*block*/, void** /*args*/,
                             size_t /*shared_bytes*/, cudaStream_t /*stream*/) {
  return cudaErrorNotSupported;
}
