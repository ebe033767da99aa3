#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/cuda/cuda_backend.h"
#include "backends/cuda/graph_cache.h"
#include "backends/cuda/memory.h"
#include "backends/cuda/stage.h"
#include "backends/cuda/step_arrays.h"
#include "core/runtime/backend.h"

namespace infer::cuda {

/// One stage on a device. A step is one copy of its arrays, its launches (or a graph of them), and
/// one copy of what is left of the logits, all in one stream; the host fills the next step's arrays
/// meanwhile.
class CudaExecutable final : public runtime::Executable {
 public:
  static Result<std::unique_ptr<CudaExecutable>> create(const graph::Graph& graph,
                                                        const graph::StagePlan& plan,
                                                        const runtime::CompileOptions& options,
                                                        const Device& device,
                                                        const CudaBackendOptions& backend,
                                                        SaidOnce* said);
  ~CudaExecutable() override;

  Result<runtime::Ticket> submit(const runtime::Step& step, const runtime::StepIo& io) override;
  Result<void> wait(runtime::Ticket ticket) override;
  runtime::MemoryReport memory() const override;
  Result<void> export_kv(const runtime::KvRange& range, std::span<std::byte> k,
                         std::span<std::byte> v) override;  // kv_rows.cpp
  Result<void> import_kv(const runtime::KvRange& range, std::span<const std::byte> k,
                         std::span<const std::byte> v) override;

 private:
  /// A step that is under way, with the pinned memory that its copies read and write.
  struct Flight {
    bool active = false;
    runtime::Ticket ticket = 0;
    const runtime::Step* step = nullptr;
    runtime::StepIo io;
    StepFacts facts;
    size_t next_turn = 0;        ///< whose results are on their way
    StepShape shape;             ///< of that turn
    bool whole_rows = false;     ///< its logits come as well
    std::optional<Error> error;  ///< found before anybody waited
    Event done_soon, done_late;
    PinnedBuffer arrays, results, logits, residual;

    /// Of decoding, where each wait is a part of a token's time, one that spins.
    const Event& done() const { return shape.is_decode ? done_soon : done_late; }
  };
  /// Until keep() it has the flight landed when it goes, by an error or an exception.
  struct TakeOff;

  CudaExecutable(const graph::Graph& graph, const graph::StagePlan& plan, const Device& device,
                 const CudaBackendOptions& backend)
      : g_(graph), plan_(plan), device_(device), counters_(backend.counters) {}
  Result<void> allocate();

  bool has_tail() const { return plan_.tail_begin < plan_.op_end; }
  size_t n_turn(const Flight& f) const;
  Result<void> enqueue(Flight& f);
  Result<void> enqueue_rows(Flight& f);
  Result<void> copy_in(Flight& f);
  Result<void> copy_residual_out(Flight& f);
  Result<void> copy(void* to, const void* from, int64_t n_bytes, cudaMemcpyKind kind);
  /// After an error of CUDA nothing works on the device any more: it is kept, and every later call
  /// says so.
  Result<void> remember(Result<void> result);
  /// Makes the device the thread's. Errors: the one that was kept; CUDA's.
  Result<void> begin_call();

  // logits.cpp
  /// Sets the shape of the tail for a turn of the wanted rows.
  void plan_turn(Flight& f, size_t turn) const;
  Result<void> enqueue_results(Flight& f);
  /// Waits for the turn that is under way, hands it over, and computes the turns that are left.
  Result<void> finish(Flight& f);
  Result<void> deliver(Flight& f);
  /// Runs the step again op by op and names the first op whose output is not finite.
  Error diagnose(Flight& f);
  Result<bool> is_finite(graph::ValueId v, int64_t n_row);

  // kv_rows.cpp
  struct KvRows;
  KvRows kv_rows(const runtime::KvRange& range, size_t k_bytes, size_t v_bytes) const;

  const graph::Graph& g_;
  const graph::StagePlan& plan_;
  Device device_;
  CudaCounters* counters_;
  std::unique_ptr<Stage> stage_;
  GraphCache graphs_;
  std::array<Flight, 2> flights_;
  std::vector<runtime::LogitStats> stats_;
  runtime::Ticket next_ = 0;
  std::string broken_;  ///< the first error that the device does not recover from
  std::function<void(const std::string&)> inform_;
};

}  // namespace infer::cuda
