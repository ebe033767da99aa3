#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/mat_view.h"
#include "core/base/result.h"
#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/step.h"

/// The only door between the runtime and a device. No backend type, header or macro appears above
/// this line.
namespace infer::runtime {

class ActivationTap;
class OpProfile;

struct LogitStats {
  float max = 0.0f;
  int32_t argmax = 0;    ///< lowest index among equals
  double sum_exp = 0.0;  ///< sum of exp(x - max); log-softmax(x_i) = x_i - max - log(sum_exp)
};

/// Logits of some wanted rows. Valid only during the call.
/// A tile has whole rows, or the best of each row: the latter only for rows of Want::kTop, whole
/// rows for any. A step's tiles may be of both sorts; a turn whose rows want different things is
/// handed over whole, or in several tiles.
struct LogitTile {
  std::span<const int32_t> rows;  ///< indices into Step::rows, ascending
  MatView<const float> logits;    ///< [rows.size(), n_vocab]; no data: only the best are here
  std::span<const LogitStats> stats;
  /// [rows.size(), n] with min(Row::n_top, n_vocab) <= n <= kMaxTop for each row (n may be 0): a
  /// row's best logits and their ids, descending, ties by lower id, -inf included.
  MatView<const float> top_logits{};
  MatView<const int32_t> top_ids{};
  bool has_rows() const { return logits.data != nullptr; }
};

/// Receives the logits of a step tile by tile, rows in order, on a thread of the backend or the one
/// that waits for the step. Every row
/// that wants_logits() comes exactly once. Must not throw.
class LogitSink {
 public:
  virtual ~LogitSink() = default;
  virtual void on_logits(const LogitTile& tile) = 0;
};

struct StepIo {
  std::span<const float> residual_in;  ///< [n_rows, n_embd]; empty for the first stage
  std::span<float> residual_out;       ///< [n_rows, n_embd]; empty for the last stage
  LogitSink* sink = nullptr;           ///< last stage only
};

using Ticket = uint64_t;

/// What the pools of one cache group need.
struct CacheGroupConfig {
  int64_t n_block = 0;
};

/// Slots [begin, end) of one sequence in one cache layer.
struct KvRange {
  int cache_layer = 0;
  std::span<const int32_t> table;  ///< the sequence's blocks in the layer's group
  int64_t begin = 0, end = 0;
};

struct CompileOptions {
  bool precise = false;  ///< f32 activations; K and V are as their types say
  DType type_k = DType::kF16;
  DType type_v = DType::kF16;
  int64_t n_ctx = 0;                     ///< tokens one sequence may have
  std::vector<CacheGroupConfig> groups;  ///< one for each Graph::cache_groups
  /// Called when a weight's bytes in the file are not needed any more (they were copied); may be
  /// empty.
  std::function<void(graph::WeightId)> weight_copied;
  std::function<void(int64_t done_bytes, int64_t all_bytes)> progress;  ///< may be empty
  /// What the user should know and the run can do without; may be empty. The executable may keep
  /// both and call them from submit().
  std::function<void(const std::string&)> warn;
  std::function<void(const std::string&)> inform;  ///< what is good to know; may be empty
  /// Sees the inputs of matrices (core/runtime/activation_tap.h); nullptr: nobody looks.
  ActivationTap* tap = nullptr;
  /// Gets the time of each op (core/runtime/op_profile.h) from backends that take it; nullptr:
  /// nobody asks.
  OpProfile* profile = nullptr;
};

struct MemoryReport {
  int64_t weight_bytes = 0;  ///< memory of the backend's own, repacked copies
  int64_t mapped_bytes = 0;  ///< used straight from the mapped file
  int64_t kv_bytes = 0;
  int64_t arena_bytes = 0;
  int64_t huge_bytes = 0;    ///< of these, memory that the system may back with huge pages
  int64_t locked_bytes = 0;  ///< kept in RAM
};

/// One stage, compiled: weights uploaded, arena and pools allocated.
/// Threads: submit and wait from one thread at a time. At most two steps may be in flight.
class Executable {
 public:
  virtual ~Executable() = default;
  /// Starts a step. `step`, `io` and what they point at must stay until wait() returns. Rows beyond
  /// the plan's n_tok are a bug of the caller. Nothing is allocated after the first step
  /// of its size.
  virtual Result<Ticket> submit(const Step& step, const StepIo& io) = 0;
  /// Errors: kNumeric for NaN logits (layer and op named).
  virtual Result<void> wait(Ticket ticket) = 0;
  /// Both in one: a backend may compute on the calling thread.
  virtual Result<void> run(const Step& step, const StepIo& io);
  virtual MemoryReport memory() const = 0;

  /// K and V of a range as rows a slot, [n_kv_head][head_dim] of the cache's type, whatever the
  /// pool's layout; q8_0 and q4_0 as blocks of 32, scale first, of the rotated row (q4_0 K: a byte
  /// has dims 2i and 2i + 1, V: i and i + 16). Bit for bit: what was exported comes back with
  /// import. No step may be in flight. Needs: a layer of this stage, blocks in the table, spans of
  /// the right size.
  virtual Result<void> export_kv(const KvRange& range, std::span<std::byte> k,
                                 std::span<std::byte> v) = 0;
  virtual Result<void> import_kv(const KvRange& range, std::span<const std::byte> k,
                                 std::span<const std::byte> v) = 0;
};

struct DeviceInfo {
  std::string name;          ///< "cpu", "cuda:0"
  std::string description;   ///< "AMD EPYC, avx2, 2 threads"
  int64_t memory_bytes = 0;  ///< 0: unknown
  std::string isa{};         ///< level of the kernels, on which results depend: "avx2", "sm_86"
  int64_t free_bytes = 0;    ///< of the memory, at the time of the call; 0: unknown
  bool is_gpu = false;       ///< has memory of its own, which layers are placed into as they fit
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual DeviceInfo describe() const = 0;
  /// Whether this backend computes `op` with the types of its weights.
  virtual bool supports(const graph::Graph& graph, const graph::Op& op,
                        const CompileOptions& options) const = 0;
  /// What compile() would allocate on the device, from what is known without doing it: placement
  /// trusts it. Asked of single half-layers and of stages. The default: the weights' bytes in the
  /// file, the pools of the plan's cache layers, the plan's arena.
  virtual MemoryReport estimate(const graph::Graph& graph, const graph::StagePlan& plan,
                                const CompileOptions& options) const;
  /// `graph` and `plan` must outlive the executable; the weights' bytes too unless the backend
  /// copied them.
  virtual Result<std::unique_ptr<Executable>> compile(const graph::Graph& graph,
                                                      const graph::StagePlan& plan,
                                                      const CompileOptions& options) = 0;
};

}  // namespace infer::runtime
