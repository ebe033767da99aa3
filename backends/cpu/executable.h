#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "backends/cpu/buffer.h"
#include "backends/cpu/device.h"
#include "backends/cpu/weights.h"
#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/activation_tap.h"
#include "core/runtime/backend.h"

namespace infer::cpu {

/// Rows of activations that one linear task takes, so that they stay in the cache while its weights
/// pass.
inline constexpr int64_t kRowTile = 64;

/// Rows of one step that share a query tile: adjacent rows of one sequence.
struct RowTile {
  int32_t begin = 0, n = 0, seq = 0;
};

/// Adjacent rows, not of two row tiles, that use the same mix of adapters.
struct LoraRun {
  int32_t begin = 0, n = 0, mix = 0;
};

/// A linear_group with everything that does not change from step to step looked up.
struct LinearPlan {
  struct Item {
    PackedMatrix w;
    const float* bias = nullptr;
    int act = 0;        ///< which prepared copy of the input it reads
    int64_t chunk = 0;  ///< outputs a task computes
    int64_t n_chunk = 0;
    int64_t first_task = 0;               ///< tasks of the items before, for one row tile
    size_t lora_begin = 0, lora_end = 0;  ///< in `lora`: what adapters add to this item
  };
  /// One adapter's B A x of one item; lora.cpp.
  struct Lora {
    int adapter = 0;
    int64_t rank = 0;
    const float* a = nullptr;  ///< [rank, k]
    const float* b = nullptr;  ///< [n, rank]
    float scale = 1.0f;
    int64_t h_stride = 0, h_offset = 0;  ///< bytes: where A x of each row of the op is kept
  };
  struct Act {
    const kern::LinearKernel* kernel = nullptr;
    int64_t stride = 0,
            offset = 0;  ///< bytes: row to row, and start within the prepared rows of a full step
  };
  std::vector<Item> items;
  std::vector<Act> acts;
  std::vector<Lora> lora;                      ///< item by item, each by ascending adapter
  int64_t n_task = 0;                          ///< tasks of one row tile
  std::vector<runtime::ActivationSums*> taps;  ///< one a tensor that somebody watches
};

/// One stage on the CPU. Steps run on the device's driver thread, one op after the other; the
/// threads of the pool share out the outputs of an op and never the terms of a sum.
class CpuExecutable final : public runtime::Executable {
 public:
  static Result<std::unique_ptr<CpuExecutable>> create(const graph::Graph& graph,
                                                       const graph::StagePlan& plan,
                                                       const runtime::CompileOptions& options,
                                                       Device& device);

  Result<runtime::Ticket> submit(const runtime::Step& step, const runtime::StepIo& io) override;
  Result<void> wait(runtime::Ticket ticket) override { return device_.wait(ticket); }
  runtime::MemoryReport memory() const override;
  Result<void> export_kv(const runtime::KvRange& range, std::span<std::byte> k,
                         std::span<std::byte> v) override;  // kv_rows.cpp
  Result<void> import_kv(const runtime::KvRange& range, std::span<const std::byte> k,
                         std::span<const std::byte> v) override;

 private:
  CpuExecutable(const graph::Graph& graph, const graph::StagePlan& plan, Device& device)
      : g_(graph), plan_(plan), device_(device), k_(device.kernels()) {}

  // Set-up (executable.cpp, linear.cpp).
  Result<void> allocate(const runtime::CompileOptions& options);
  void plan_linears();
  Result<void> allocate_scratch(const runtime::CompileOptions& options);
  void settle_memory(const runtime::CompileOptions& options);
  /// What attention needs of a thread, and of a step whose spans are shared out.
  struct AttnNeeds {
    int64_t scratch_bytes = 0, partial_bytes = 0, split_bytes = 0;
  };
  AttnNeeds attention_needs(const runtime::CompileOptions& options) const;

  // One step.
  Result<void> execute(const runtime::Step& step, const runtime::StepIo& io);
  void check_range(const runtime::KvRange& range, size_t k_bytes, size_t v_bytes) const;
  void begin_step(const runtime::Step& step, const runtime::StepIo& io);
  Result<void> run_tail(const runtime::StepIo& io);
  /// Runs the step again op by op and names the first op whose output is not finite.
  Error diagnose(const runtime::StepIo& io);
  void run_op(int index);

  void embed(const graph::Op& op);
  void norm(const graph::Op& op);
  void linear_group(const graph::Op& op, const LinearPlan& lp);
  void prepare_acts(const float* x, int64_t m, int64_t k, const LinearPlan& lp);
  void plan_linear(LinearPlan* lp, std::span<const graph::LinearItem> items, int64_t n_row);
  static void pair_chunks(LinearPlan* lp);
  void linear_task(const graph::Op& op, const LinearPlan& lp, int64_t row, int64_t m, int64_t task,
                   int thread);
  void glu_task(const graph::Op& op, const LinearPlan& lp, int64_t row, int64_t m, int64_t n_begin,
                int64_t n_end, int thread);
  void run_kernel(const LinearPlan& lp, const LinearPlan::Item& item, int64_t row, int64_t m,
                  int64_t n_begin, int64_t n_end, float* out, int64_t out_stride, int thread,
                  int64_t expert = 0);
  void qk_norm_rope_store(const graph::Op& op);
  void attention(const graph::Op& op);
  void attention_split(const graph::Op& op, const kern::AttnArgs& base, int64_t n_span);
  // Adapters (lora.cpp).
  Result<void> load_adapters(const runtime::CompileOptions& options);
  Result<const float*> load_half(const TensorView& view, const std::string& where,
                                 const char* half);
  /// The runs of the op's rows, empty when none of its items is added to.
  std::span<const LoraRun> lora_runs(const graph::Op& op, const LinearPlan& lp) const;
  void find_token_runs();
  void find_turn_runs();
  void lora_project(const graph::Op& op, const LinearPlan& lp);
  void lora_add(const LinearPlan& lp, const LinearPlan::Item& item, int64_t row, int64_t m,
                int64_t n_begin, int64_t n_end, float* y, int64_t y_stride, int thread);
  // The activation tap (tap.cpp).
  void plan_taps(runtime::ActivationTap& tap);
  template <class RowOf>
  static void tap_columns(runtime::ActivationSums& sums, int64_t mat, int64_t n_row, int64_t begin,
                          int64_t end, RowOf row_of);
  /// x [m, k], the input of a linear_group.
  void tap_rows(const LinearPlan& lp, const float* x, int64_t m);
  /// After moe_gather: pair p read row p / pairs_a_row of x.
  void tap_experts(const LinearPlan& lp, const float* x, int64_t pairs_a_row);
  void gather_rows(const graph::Op& op);
  void add(const graph::Op& op);
  void glu(const graph::Op& op);
  void head_norm(const graph::Op& op);
  void rope(const graph::Op& op);
  void kv_store(const graph::Op& op);
  void gate_add(const graph::Op& op);
  // Experts (moe.cpp).
  void moe_route(const graph::Op& op);
  void moe_glu(const graph::Op& op, const LinearPlan& lp);
  void moe_down(const graph::Op& op, const LinearPlan& lp);
  /// Sorts the (row, choice) pairs by expert and prepares their inputs in that order.
  void moe_gather(const float* x, int64_t k, int64_t n_used, bool per_choice, const float* route,
                  const LinearPlan& lp);

  // Pieces.
  float* value(graph::ValueId v) {
    return reinterpret_cast<float*>(arena_.data() + plan_.offset_bytes[static_cast<size_t>(v)]);
  }
  int64_t n_cols(graph::ValueId v) const { return g_.values[static_cast<size_t>(v)].n_cols; }
  int64_t n_rows(graph::ValueId v) const {
    return g_.values[static_cast<size_t>(v)].rows == graph::Rows::kTok
               ? n_tok_
               : static_cast<int64_t>(turn_.size());
  }
  const float* rope_row(int rope, int64_t row) const;
  void store_row(int cache_layer, int64_t row, const float* q, int64_t n_head, const float* k,
                 const float* v);
  kern::AttnArgs attention_args(const graph::Op& op);
  void tile_args(kern::AttnArgs* a, const graph::AttentionAttrs& attrs, const RowTile& tile,
                 int64_t kv_head) const;
  std::byte* thread_scratch(int thread) {
    return thread_scratch_.data() + thread * thread_scratch_bytes_;
  }
  float* thread_tile(int thread) {
    return reinterpret_cast<float*>(thread_scratch(thread) + kernel_scratch_bytes_);
  }
  /// Shares out rows when there is enough to do for more than one thread.
  template <class Fn>
  void for_rows(int64_t n, int64_t cols, Fn&& fn) {
    constexpr int64_t kWorthSharing =
        16384;  // elements; below this a wake-up costs more than it saves
    if (n * cols < kWorthSharing) {
      for (int64_t r = 0; r < n; ++r) fn(r);
      return;
    }
    const int64_t per_task = std::max<int64_t>(1, kWorthSharing / 4 / cols);
    pool_->for_each((n + per_task - 1) / per_task, [&](int64_t task, int) {
      for (int64_t r = task * per_task; r < std::min(n, (task + 1) * per_task); ++r) fn(r);
    });
  }

  const graph::Graph& g_;
  const graph::StagePlan& plan_;
  Device& device_;
  const kern::CpuKernels& k_;
  StageWeights weights_;
  std::vector<LinearPlan> linears_;  // [op_end - op_begin], empty for other ops
  Buffer arena_, act_, thread_scratch_, split_;
  int64_t act_bytes_ = 0, split_bytes_ = 0;
  int64_t kernel_scratch_bytes_ = 0, thread_scratch_bytes_ = 0;
  std::vector<Buffer> kv_buffers_;
  std::vector<kern::KvPoolView> pools_;  // [cache_layers]; empty views for layers of other stages
  std::vector<std::vector<float>>
      rope_tables_;  // [ropes][n_tok * rope_dim], cos and sin of each pair
  std::vector<bool> rope_used_;
  std::vector<int32_t> q_slot_;  // [n_tok]
  std::vector<RowTile> tiles_;
  std::vector<int32_t> want_rows_;
  std::vector<runtime::LogitStats> stats_;
  std::vector<int32_t> moe_begin_;  // [n_expert + 1], first pair of each expert in moe_pairs_
  std::vector<int32_t> moe_pairs_;  // [n_tok * n_used], row * n_used + choice, sorted by expert
  Buffer moe_out_;                  // [n_tok * n_used, n_embd]
  std::vector<Buffer> lora_weights_;
  int64_t huge_bytes_ = 0, locked_bytes_ = 0;
  Buffer lora_x_, lora_h_;  // x and A x of the rows that use adapters, as an f32 kernel takes them
  int64_t lora_rank_ = 0;   // the largest
  std::vector<LoraRun> token_runs_, turn_runs_;

  // The step that is running.
  const runtime::Step* step_ = nullptr;
  int64_t n_tok_ = 0;
  std::span<const int32_t> turn_;  // wanted rows of the tail's current turn
  ThreadPool* pool_ = nullptr;
  std::span<const LoraRun> op_runs_;  // of the linear_group that is running
};

}  // namespace infer::cpu
