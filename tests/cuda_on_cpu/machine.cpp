#include "tests/cuda_on_cpu/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <numeric>
#include <utility>

#include "tests/cuda_on_cpu/crash.h"
#include "tests/cuda_on_cpu/left_out.h"

namespace infer::cuda::emulated {

constinit thread_local cudaError_t last_error = cudaSuccess;
constinit thread_local int current_device = 0;

namespace {

std::unique_ptr<Machine>& machine_slot() {
  static std::unique_ptr<Machine> slot;
  return slot;
}

std::atomic<int> architecture_now{80};

}  // namespace

std::recursive_mutex& machine_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

Machine& machine() {
  auto& slot = machine_slot();
  if (slot == nullptr) reset(Options{});
  return *slot;
}

void reset(const Options& wanted) {
  const std::lock_guard lock(machine_mutex());
  machine_slot() = nullptr;  // its memory first
  machine_slot() = std::make_unique<Machine>(wanted);
  architecture_now = wanted.code_architecture > 0 ? wanted.code_architecture : wanted.architecture;
  last_error = cudaSuccess;
  current_device = 0;
  install_crash_handler();
}

const Options& options() { return machine().options; }

void set_seed(uint64_t seed) {
  const std::lock_guard lock(machine_mutex());
  machine().options.seed = seed;
  machine().random = Random(seed + seed_offset());
}

void throw_at_launch(int n) {
  const std::lock_guard lock(machine_mutex());
  machine().launches_to_throw = n;
}

std::vector<std::string> take_reports() {
  const std::lock_guard lock(machine_mutex());
  return std::exchange(machine().reports, {});
}

size_t n_allocation() {
  const std::lock_guard lock(machine_mutex());
  return machine().memory.n_allocation();
}

bool on_gpu() { return false; }

int architecture() noexcept { return architecture_now.load(std::memory_order_relaxed); }

Machine::Machine(const Options& wanted)
    : options(wanted),
      random(wanted.seed + seed_offset()),
      pool_(ThreadPool::Options{.n_threads = std::max(1, wanted.n_threads), .spin_us = 0}) {
  for (int device = 0; device < options.n_device; ++device) {
    legacy.push_back(std::make_shared<Stream>());
    legacy.back()->device = device;
  }
  for (int i = 0; i < pool_.n_threads(); ++i) blocks_.push_back(std::make_unique<Block>());
}

// Work that nobody waited for points from stream to stream, and back.
Machine::~Machine() {
  for (const auto* list : {&streams, &legacy}) {
    for (const auto& stream : *list) {
      stream->queue.clear();
      stream->next_after.clear();
      stream->capture = nullptr;
    }
  }
}

std::shared_ptr<Stream> Machine::find_stream(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy)
    return legacy[static_cast<size_t>(current_device)];
  const auto it = std::find_if(streams.begin(), streams.end(), [handle](const auto& s) {
    return reinterpret_cast<cudaStream_t>(s.get()) == handle;
  });
  return it == streams.end() ? nullptr : *it;
}

Event* Machine::find_event(cudaEvent_t handle) {
  const auto it = std::find_if(events.begin(), events.end(), [handle](const auto& e) {
    return reinterpret_cast<cudaEvent_t>(e.get()) == handle;
  });
  return it == events.end() ? nullptr : it->get();
}

cudaError_t Machine::enqueue(cudaStream_t handle, Work work) {
  const auto stream = find_stream(handle);
  return stream == nullptr ? cudaErrorInvalidResourceHandle : enqueue(stream, std::move(work));
}

cudaError_t Machine::enqueue(const std::shared_ptr<Stream>& stream, Work work) {
  if (stream->capture != nullptr) {
    Capture& capture = *stream->capture;
    if (capture.invalid) return cudaErrorStreamCaptureInvalidated;
    capture.nodes.push_back({std::move(work), stream->tips});
    stream->tips = {capture.nodes.size() - 1};
    return cudaSuccess;
  }
  Operation operation{std::move(work), std::exchange(stream->next_after, {})};
  const auto& implicit = legacy[static_cast<size_t>(stream->device)];
  if (stream == implicit) {
    for (const auto& other : streams) {
      if (!other->blocking || other->device != stream->device) continue;
      if (other->capture != nullptr)
        return invalidate(other->capture, cudaErrorStreamCaptureImplicit);
      operation.after.push_back({other, other->n_enqueued});
    }
  } else if (stream->blocking) {
    operation.after.push_back({implicit, implicit->n_enqueued});
  }
  stream->queue.push_back(std::move(operation));
  ++stream->n_enqueued;
  return cudaSuccess;
}

bool Machine::may_run(const Stream& stream) {
  return !stream.queue.empty() &&
         std::all_of(stream.queue.front().after.begin(), stream.queue.front().after.end(),
                     [](const Point& p) { return p.stream->n_done >= p.upto; });
}

std::vector<std::shared_ptr<Stream>> Machine::streams_that_may_run() {
  std::vector<std::shared_ptr<Stream>> found;
  for (const auto& s : legacy)
    if (may_run(*s)) found.push_back(s);
  for (const auto& s : streams)
    if (may_run(*s)) found.push_back(s);
  return found;
}

void Machine::run_first(Stream& stream) {
  const Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (sticky == cudaSuccess) operation.work.run();  // a failed device does nothing more
  ++stream.n_done;
}

// One step towards the end of the stream's first operation: it, or something that it waits for.
void Machine::advance(const std::shared_ptr<Stream>& stream) {
  std::shared_ptr<Stream> at = stream;
  while (!may_run(*at)) {
    const auto& after = at->queue.front().after;
    at = std::find_if(after.begin(), after.end(), [](const Point& p) {
           return p.stream->n_done < p.upto;
         })->stream;
  }
  run_first(*at);
}

bool Machine::run_any() {
  const auto ready = streams_that_may_run();
  if (ready.empty()) return false;
  const bool was_open = memory.open();
  run_first(*ready[random.below(ready.size())]);
  if (!was_open) memory.close();
  return true;
}

void Machine::run_until(const Point& point) {
  // Three tempers: only what must be, a mixture, and others whenever they can.
  constexpr std::array<uint32_t, 3> kOthersInEight = {0, 4, 7};
  const uint32_t others = kOthersInEight[random.below(kOthersInEight.size())];
  memory.open();
  while (point.stream->n_done < point.upto) {
    if (random.below(8) < others) {
      const auto ready = streams_that_may_run();
      run_first(*ready[random.below(ready.size())]);
    } else {
      advance(point.stream);
    }
  }
  memory.close();
}

void Machine::run_all() {
  memory.open();
  while (run_any()) {
  }
  memory.close();
}

void Machine::run_graph(const std::vector<Node>& nodes) {
  std::vector<size_t> n_missing(nodes.size());
  std::vector<std::vector<size_t>> followers(nodes.size());
  std::vector<size_t> ready;
  for (size_t i = 0; i < nodes.size(); ++i) {
    n_missing[i] = nodes[i].after.size();
    for (const size_t before : nodes[i].after) followers[before].push_back(i);
    if (n_missing[i] == 0) ready.push_back(i);
  }
  while (!ready.empty() && sticky == cudaSuccess) {
    std::swap(ready[random.below(ready.size())], ready.back());
    const size_t node = ready.back();
    ready.pop_back();
    nodes[node].work.run();
    for (const size_t follower : followers[node])
      if (--n_missing[follower] == 0) ready.push_back(follower);
  }
}

void Machine::run_kernel(const Launch& launch, Site site) {
  const LaunchedGrid grid{launch, site, random.next()};
  const int64_t n_block = int64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  std::vector<int64_t> order(static_cast<size_t>(n_block));
  std::iota(order.begin(), order.end(), 0);
  shuffle_items(order, random);
  std::atomic<bool> failed{false};
  std::mutex report_mutex;
  pool_.for_each(n_block, [&](int64_t i, int thread) {
    if (failed) return;
    const auto at = static_cast<unsigned>(order[static_cast<size_t>(i)]);
    const dim3 index(at % launch.grid.x, at / launch.grid.x % launch.grid.y,
                     at / launch.grid.x / launch.grid.y);
    use_signal_stack();
    Block& block = *blocks_[static_cast<size_t>(thread)];
    if (block.run(grid, index)) return;
    failed = true;
    const std::lock_guard lock(report_mutex);
    report(block.report());
  });
  if (const auto* broken = failed ? nullptr : memory.find_broken_border())
    report(
        fmt::format("{}: wrote beside an allocation of {} bytes", grid.describe(), broken->bytes));
}

bool Machine::has_copy_of(const std::byte* begin, const std::byte* end) const {
  return std::ranges::any_of(streams, [&](const auto& stream) {
    return std::ranges::any_of(stream->queue, [&](const Operation& operation) {
      const std::byte* host = operation.work.host;
      return host != nullptr && host >= begin && host < end;
    });
  });
}

void Machine::report(const std::string& what) {
  std::fprintf(stderr, "cuda_on_cpu: %s\n", what.c_str());
  reports.push_back(what);
  sticky = cudaErrorLaunchFailure;
}

cudaError_t Machine::refuse_in_capture() {
  cudaError_t error = cudaSuccess;
  for (const auto& capture : captures) {
    const bool here = capture->thread == std::this_thread::get_id();
    if (capture->mode == cudaStreamCaptureModeGlobal ||
        (capture->mode == cudaStreamCaptureModeThreadLocal && here))
      error = invalidate(capture, cudaErrorStreamCaptureUnsupported);
  }
  return error;
}

cudaError_t Machine::invalidate(const std::shared_ptr<Capture>& capture, cudaError_t why) {
  capture->invalid = true;
  return why;
}

}  // namespace infer::cuda::emulated
