#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/base/thread_pool.h"
#include "tests/cuda_on_cpu/block.h"
#include "tests/cuda_on_cpu/device_memory.h"
#include "tests/cuda_on_cpu/emulator.h"
#include "tests/cuda_on_cpu/random.h"

/// What the runtime's functions work on: streams with what waits in them, events, captures, memory.
namespace infer::cuda::emulated {

struct Stream;
struct Capture;

/// Stream `stream` has done its first `upto` operations.
struct Point {
  std::shared_ptr<Stream> stream;
  uint64_t upto = 0;
};

struct Work {
  cudaGraphNodeType type;
  std::function<void()> run;
  const std::byte* host = nullptr;  ///< memory of the host that a copy reads or writes
};

struct Operation {
  Work work;
  std::vector<Point> after;  ///< besides what lies before it in its stream
};

struct Stream {
  int device = 0;
  bool blocking = true;  ///< waits for the legacy stream, and that for it
  std::deque<Operation> queue;
  uint64_t n_enqueued = 0, n_done = 0;
  std::vector<Point> next_after;  ///< cudaStreamWaitEvent: what the next operation waits for
  std::shared_ptr<Capture> capture;
  std::vector<size_t> tips;  ///< nodes that the next captured node follows
};

struct Event {
  bool timed = true;
  Point recorded;                    ///< no stream: never recorded
  std::shared_ptr<double> time_ms;   ///< of that record
  std::shared_ptr<Capture> capture;  ///< recorded while capturing
  std::vector<size_t> tips;
};

struct Node {
  Work work;
  std::vector<size_t> after;
};

struct Capture {
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  std::shared_ptr<Stream> origin;
  std::vector<Node> nodes;
  bool invalid = false;
};

struct Graph {
  std::vector<Node> nodes;
};

inline constexpr size_t kHostAlignment = 4096;

class Machine {
 public:
  explicit Machine(const Options& options);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  std::shared_ptr<Stream> find_stream(cudaStream_t handle);
  Event* find_event(cudaEvent_t handle);

  /// Puts work into a stream, or into the graph that the stream is captured into.
  cudaError_t enqueue(cudaStream_t stream, Work work);
  cudaError_t enqueue(const std::shared_ptr<Stream>& stream, Work work);
  /// Runs work, of this stream and perhaps of others, until the point is reached.
  void run_until(const Point& point);
  void run_all();
  /// Runs one operation that may run, if there is one.
  bool run_any();
  /// Runs nodes in an order that their edges allow.
  void run_graph(const std::vector<Node>& nodes);
  void run_kernel(const Launch& launch, Site site);
  /// Whether a stream has a copy ahead that reads or writes memory of the host in [begin, end).
  bool has_copy_of(const std::byte* begin, const std::byte* end) const;
  void report(const std::string& what);

  /// The error of a call that no capture in progress allows (and that ends such a capture), or
  /// success.
  cudaError_t refuse_in_capture();
  static cudaError_t invalidate(const std::shared_ptr<Capture>& capture, cudaError_t why);

  Options options;
  DeviceMemory memory;
  Random random;
  std::vector<std::shared_ptr<Stream>> streams;  ///< besides the legacy ones, in the order made
  std::vector<std::shared_ptr<Stream>> legacy;   ///< of each device
  std::vector<std::unique_ptr<Event>> events;
  std::set<std::shared_ptr<Capture>> captures;
  std::map<const std::byte*, size_t> pinned;  ///< host ranges by first byte
  struct FreeHost {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{kHostAlignment}); }
  };
  /// What cudaMallocHost gave: freed with the machine at the latest, as a driver does.
  std::map<const std::byte*, std::unique_ptr<std::byte, FreeHost>> host_memory;
  std::map<const void*, int> kernel_shared_bytes;
  std::vector<std::string> reports;
  cudaError_t sticky = cudaSuccess;
  int launches_to_throw = -1;  ///< throw_at_launch()

  /// Whether the kernels have code for the devices.
  bool has_code() const { return options.code_architecture <= options.architecture; }

 private:
  static bool may_run(const Stream& stream);
  std::vector<std::shared_ptr<Stream>> streams_that_may_run();
  void run_first(Stream& stream);
  void advance(const std::shared_ptr<Stream>& stream);

  ThreadPool pool_;
  std::vector<std::unique_ptr<Block>> blocks_;  // one a thread
};

/// The one machine, made by the first call or by reset().
Machine& machine();
std::recursive_mutex& machine_mutex();

extern constinit thread_local cudaError_t last_error;
extern constinit thread_local int current_device;

/// What every runtime function does around its own work.
template <class Fn>
cudaError_t api(Fn&& fn) {
  const std::lock_guard lock(machine_mutex());
  Machine& m = machine();
  cudaError_t error = m.options.has_driver ? m.sticky : cudaErrorInsufficientDriver;
  if (error == cudaSuccess) error = fn(m);
  if (error == cudaSuccess) error = m.sticky;  // of a kernel that ran meanwhile
  if (error != cudaSuccess) last_error = error;
  return error;
}

}  // namespace infer::cuda::emulated
