#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "backends/cpu/buffer.h"
#include "backends/cpu/device.h"
#include "backends/cpu/profile.h"
#include "backends/cpu/weights.h"
#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/activation_tap.h"
#include "core/runtime/backend.h"

namespace infer::cpu {

/// Rows of activations that one linear task takes, so that they stay in the cache while its weights
/// pass.
inline constexpr int64_t kRowTile = 256;

/// Rows of a query tile at most where spans are shared out as well, which takes a partial result a
/// span.
inline constexpr int64_t kMinRowTile = 8;

/// Rows of one step that share a query tile: adjacent rows of one sequence.
struct RowTile {
  int32_t begin = 0, n = 0, seq = 0;
};

/// Adjacent rows, kRowTile at most, that use the same mix of adapters.
struct LoraRun {
  int32_t begin = 0, n = 0, mix = 0;
};

/// A linear_group with everything that does not change from step to step looked up.
struct LinearPlan {
  struct Item {
    PackedMatrix w;
    const float* bias = nullptr;
    int act = 0;        ///< which prepared copy of the input it reads
    int64_t chunk = 0;  ///< outputs a task computes; of prompts it takes several chunks
    int64_t n_chunk = 0;
    int64_t tile_n = 0;                   ///< outputs a task computes at most
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
    int64_t offset = 0;  ///< bytes, within a prepared row
  };
  std::vector<Item> items;
  std::vector<Act> acts;
  int norm = -1;  ///< the op whose output only this one reads, done while rows are prepared
  int64_t act_stride = 0;  ///< bytes of a prepared row, which has all forms one behind the other
  std::vector<Lora> lora;  ///< item by item, each by ascending adapter
  int64_t n_task = 0;      ///< tasks of one row tile
  std::vector<runtime::ActivationSums*> taps;  ///< one a tensor that somebody watches
};

/// Elements of an op's input up to which every thread prepares all rows for itself: less work than
/// a barrier takes.
inline constexpr int64_t kOwnActElems = 8192;

/// What the tasks of a linear op read.
struct LinearInput {
  const std::byte* acts = nullptr;  ///< prepared rows, LinearPlan::act_stride apart
  std::span<const LoraRun> runs;    ///< rows that adapters add to
};

/// One stage on the CPU. A step is one run of the team: each thread goes through all ops, shares
/// out the outputs of each with the others (never the terms of a sum), and waits for them where an
/// op reads what others wrote.
class CpuExecutable final : public runtime::Executable {
 public:
  static Result<std::unique_ptr<CpuExecutable>> create(const graph::Graph& graph,
                                                       const graph::StagePlan& plan,
                                                       const runtime::CompileOptions& options,
                                                       Device& device);

  Result<runtime::Ticket> submit(const runtime::Step& step, const runtime::StepIo& io) override;
  Result<void> wait(runtime::Ticket ticket) override { return device_.wait(ticket); }
  Result<void> run(const runtime::Step& step, const runtime::StepIo& io) override;
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
  Result<void> allocate_kv(const runtime::CompileOptions& options);
  void plan_linears();
  void plan_norms();
  Result<void> allocate_scratch(const runtime::CompileOptions& options);
  void settle_memory(const runtime::CompileOptions& options);
  /// What attention needs of a thread, and of a step whose spans are shared out.
  struct AttnNeeds {
    int64_t scratch_bytes = 0, partial_bytes = 0, split_bytes = 0;
    int64_t rows = kern::kAttnRows;  ///< of a call
    int64_t kv_heads = std::numeric_limits<int64_t>::max();
  };
  AttnNeeds attention_needs(const runtime::CompileOptions& options) const;

  // One step.
  Job job_of(const runtime::Step& step, const runtime::StepIo& io);
  Result<void> execute(const runtime::Step& step, const runtime::StepIo& io);
  void check_range(const runtime::KvRange& range, size_t k_bytes, size_t v_bytes) const;
  void begin_step(const runtime::Step& step, const runtime::StepIo& io);
  void fill_rope_tables(Team& team);
  void begin_turn(size_t first);
  void run_ops(int begin, int end);
  void find_stats(Team& team);
  Result<void> deliver_turn(const runtime::StepIo& io);
  int64_t query_tile_rows() const;
  /// Runs the step again op by op and names the first op whose output is not finite.
  Error diagnose(const runtime::StepIo& io);

  // Ops. Every thread of the team calls them; when one returns, its output is there for all.
  void run_op(int index, Team& team);
  void embed(const graph::Op& op, Team& team);
  void norm(const graph::Op& op, Team& team);
  void linear_group(const graph::Op& op, const LinearPlan& lp, Team& team);
  void norm_row(const graph::NormAttrs& attrs, const float* x, int64_t n, float* y) const;
  /// One row of a linear op's input in all forms that its kernels take.
  void prepare_row(const LinearPlan& lp, const float* x, int64_t k, std::byte* out) const;
  const std::byte* prepare_acts(const graph::Op& op, const LinearPlan& lp, Team& team);
  void plan_linear(LinearPlan* lp, std::span<const graph::LinearItem> items, int64_t n_row);
  static void pair_chunks(LinearPlan* lp);
  void linear_task(const graph::Op& op, const LinearPlan& lp, const LinearInput& in, int64_t row,
                   int64_t m, size_t i, int64_t n_begin, int64_t n_end, int thread);
  void glu_task(const graph::Op& op, const LinearPlan& lp, const LinearInput& in, int64_t row,
                int64_t m, int64_t n_begin, int64_t n_end, int thread);
  void run_kernel(const LinearPlan& lp, const LinearPlan::Item& item, const LinearInput& in,
                  int64_t row, int64_t m, int64_t n_begin, int64_t n_end, float* out,
                  int64_t out_stride, int thread, int64_t expert = 0);
  void qk_norm_rope_store(const graph::Op& op, Team& team);
  void attention(const graph::Op& op, Team& team);
  void attention_split(const graph::Op& op, const kern::AttnArgs& base, int64_t n_span, Team& team);
  void finish_unit(const graph::Op& op, const kern::AttnArgs& a, const RowTile& tile);
  // Adapters (lora.cpp).
  Result<void> load_adapters(const runtime::CompileOptions& options);
  Result<const float*> load_half(const TensorView& view, const std::string& where,
                                 const char* half);
  /// The runs of the op's rows, empty when none of its items is added to.
  std::span<const LoraRun> lora_runs(const graph::Op& op, const LinearPlan& lp) const;
  void find_token_runs();
  void find_turn_runs();
  void lora_project(const graph::Op& op, const LinearPlan& lp, std::span<const LoraRun> runs,
                    Team& team);
  void lora_add(const LinearPlan& lp, const LinearPlan::Item& item, std::span<const LoraRun> runs,
                int64_t row, int64_t m, int64_t n_begin, int64_t n_end, float* y, int64_t y_stride,
                int thread);
  // The activation tap (tap.cpp).
  void plan_taps(runtime::ActivationTap& tap);
  template <class RowOf>
  static void tap_columns(runtime::ActivationSums& sums, int64_t mat, int64_t n_row, int64_t begin,
                          int64_t end, RowOf row_of);
  /// x [m, k], the input of a linear_group.
  void tap_rows(const LinearPlan& lp, const float* x, int64_t m, Team& team);
  /// After moe_gather: pair p read row p / pairs_a_row of x.
  void tap_experts(const LinearPlan& lp, const float* x, int64_t pairs_a_row, Team& team);
  void gather_rows(const graph::Op& op, Team& team);
  void add(const graph::Op& op, Team& team);
  void glu(const graph::Op& op, Team& team);
  void head_norm(const graph::Op& op, Team& team);
  void rope(const graph::Op& op, Team& team);
  void kv_store(const graph::Op& op, Team& team);
  void gate_add(const graph::Op& op, Team& team);
  // Experts (moe.cpp).
  void moe_route(const graph::Op& op, Team& team);
  void moe_glu(const graph::Op& op, const LinearPlan& lp, Team& team);
  void moe_down(const graph::Op& op, const LinearPlan& lp, Team& team);
  void sort_pairs(int64_t n_used, const float* route);
  /// Sorts the (row, choice) pairs by expert and prepares their inputs in that order.
  LinearInput moe_gather(const float* x, int64_t k, int64_t n_used, bool per_choice,
                         const float* route, const LinearPlan& lp, Team& team);

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
  std::byte* thread_acts(int thread) { return thread_scratch(thread + 1) - own_act_bytes_; }
  /// Shares out rows of an op, several a task where they are short. All are done when it returns.
  template <class Fn>
  static void for_rows(Team& team, int64_t n, int64_t cols, Fn&& fn) {
    constexpr int64_t kTaskElems = 4096;
    const int64_t per_task = std::max<int64_t>(1, kTaskElems / cols);
    team.share((n + per_task - 1) / per_task, [&](int64_t task) {
      for (int64_t r = task * per_task; r < std::min(n, (task + 1) * per_task); ++r) fn(r);
    });
    team.sync();
  }

  const graph::Graph& g_;
  const graph::StagePlan& plan_;
  Device& device_;
  const kern::CpuKernels& k_;
  StageWeights weights_;
  std::vector<LinearPlan> linears_;  // [op_end - op_begin], empty for other ops
  std::vector<bool> norm_fused_;     // [op_end - op_begin]
  Buffer arena_, act_, thread_scratch_, split_;
  int64_t act_bytes_ = 0, own_act_bytes_ = 0, split_bytes_ = 0;
  int64_t kernel_scratch_bytes_ = 0, thread_scratch_bytes_ = 0;
  Buffer kv_;                            ///< the pools of all layers
  std::vector<kern::KvPoolView> pools_;  // [cache_layers]; empty views for layers of other stages
  std::vector<std::vector<float>>
      rope_tables_;  // [ropes][n_tok * rope_dim], cos and sin of each pair
  std::vector<bool> rope_used_;
  int64_t attn_rows_ = 0, attn_kv_heads_ = 0;  // rows of a call, KV heads: the least of any layer
  std::vector<int32_t> q_slot_;                // [n_tok]
  std::vector<RowTile> tiles_;
  std::vector<int32_t> want_rows_;
  std::vector<kern::LogitStats> kernel_stats_;  // of the turn's rows
  std::vector<runtime::LogitStats> stats_;
  std::vector<int32_t> moe_begin_;  // [n_expert + 1], first pair of each expert in moe_pairs_
  std::vector<int32_t> moe_pairs_;  // [n_tok * n_used], row * n_used + choice, sorted by expert
  Buffer moe_out_;                  // [n_tok * n_used, n_embd]
  std::vector<Buffer> lora_weights_;
  int64_t huge_bytes_ = 0, locked_bytes_ = 0;
  Buffer lora_x_, lora_h_;  // x and A x of the rows that use adapters, as an f32 kernel takes them
  int64_t lora_rank_ = 0;   // the largest
  std::vector<LoraRun> token_runs_, turn_runs_;
  std::unique_ptr<StageProfile> profile_;  // nullptr: nobody asked for one

  // The step that is running.
  const runtime::Step* step_ = nullptr;
  bool op_by_op_ = false;  // every op writes its output, also a norm that another op could do
  int64_t n_tok_ = 0;
  std::span<const int32_t> turn_;  // wanted rows of the tail's current turn
  ThreadPool* pool_ = nullptr;
};

}  // namespace infer::cpu
