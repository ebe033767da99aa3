#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/backend.h"

namespace infer::runtime {

/// Which run of half-layers goes to which backend.
struct StagePlacement {
  Backend* backend = nullptr;
  int half_begin = 0, half_end = 0;
};

/// Of an op that the backend refuses: "cannot compute op attention 'blk.0.attn' with K/V of type
/// f32/f32 and heads of 64", "... with a LoRA adapter".
std::string describe_refusal(const Backend& backend, const graph::Graph& graph, const graph::Op& op,
                             const CompileOptions& options);

/// Runs steps through the stages of a model. The residual stream is the only thing that crosses a
/// border. Threads: submit and wait from one thread.
class Executor {
 public:
  /// Errors: kUnsupported naming the op that a backend refuses. `failed`, unless null, is the stage
  /// that an error comes from.
  static Result<std::unique_ptr<Executor>> create(const graph::Graph& graph,
                                                  std::span<const StagePlacement> stages,
                                                  const graph::Capacity& capacity,
                                                  const CompileOptions& options,
                                                  size_t* failed = nullptr);
  virtual ~Executor() = default;
  /// Up to two steps may be in flight; each needs its own Step and sink until wait() returns. With
  /// several stages the second step enters stage 0 while the first is in stage 1.
  virtual Result<Ticket> submit(const Step& step, LogitSink* sink) = 0;
  virtual Result<void> wait(Ticket ticket) = 0;
  /// Both in one.
  virtual Result<void> run(const Step& step, LogitSink* sink);

  /// As Executable's, for the stage that has the layer. An executor that cannot says so with
  /// moves_kv().
  virtual bool moves_kv() const { return false; }
  virtual Result<void> export_kv(const KvRange& range, std::span<std::byte> k,
                                 std::span<std::byte> v);
  virtual Result<void> import_kv(const KvRange& range, std::span<const std::byte> k,
                                 std::span<const std::byte> v);

  virtual MemoryReport memory() const = 0;
  virtual std::string dump() const = 0;
};

}  // namespace infer::runtime
