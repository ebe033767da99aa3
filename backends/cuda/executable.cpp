#include "backends/cuda/executable.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/check.h"
#include "core/base/checked.h"

namespace infer::cuda {

Result<std::unique_ptr<CudaExecutable>> CudaExecutable::create(
    const graph::Graph& graph, const graph::StagePlan& plan, const runtime::CompileOptions& options,
    const Device& device, const CudaBackendOptions& backend, SaidOnce* said) {
  std::unique_ptr<CudaExecutable> exe(new CudaExecutable(graph, plan, device, backend));
  // A lack of memory, of either kind, shows before anything is uploaded.
  INFER_ASSIGN(exe->stage_, Stage::create(graph, plan, options, device));
  INFER_TRY(exe->allocate());
  INFER_TRY(exe->stage_->load(options, said));
  if (backend.graphs) exe->graphs_.enable(options.warn, backend.counters);
  exe->inform_ = options.inform;
  return exe;
}

Result<void> CudaExecutable::allocate() {
  const StageLayout& layout = stage_->layout();
  for (Flight& f : flights_) {
    f.facts.reserve(layout.step);
    INFER_ASSIGN(f.done_soon, Event::create(Event::Wait::kSpin));
    INFER_ASSIGN(f.done_late, Event::create(Event::Wait::kSleep));
    INFER_ASSIGN(f.arrays, PinnedBuffer::allocate(layout.step.n_bytes, "the arrays of a step"));
    INFER_ASSIGN(f.results,
                 PinnedBuffer::allocate(layout.scratch.results_bytes, "the results of a step"));
    INFER_ASSIGN(f.logits, PinnedBuffer::allocate(layout.logits_bytes, "logits"));
    INFER_ASSIGN(f.residual,
                 PinnedBuffer::allocate(layout.residual_bytes, "the stream between stages"));
  }
  stats_.resize(static_cast<size_t>(plan_.capacity.n_logit_rows));
  return {};
}

CudaExecutable::~CudaExecutable() {
  if (stage_ == nullptr) return;
  static_cast<void>(device_.use());
  static_cast<void>(stage_->stream().wait());
}

runtime::MemoryReport CudaExecutable::memory() const {
  const StageLayout& layout = stage_->layout();
  runtime::MemoryReport r;
  r.weight_bytes = stage_->weight_bytes();
  r.kv_bytes = layout.kv_bytes;
  r.arena_bytes = layout.arena_bytes + layout.scratch.n_bytes;
  return r;
}

Result<void> CudaExecutable::remember(Result<void> result) {
  if (!result.ok() && result.error().code == ErrorCode::kIo && broken_.empty())
    broken_ = result.error().message;
  return result;
}

Result<void> CudaExecutable::copy(void* to, const void* from, int64_t n_bytes,
                                  cudaMemcpyKind kind) {
  return check(
      cudaMemcpyAsync(to, from, static_cast<size_t>(n_bytes), kind, stage_->stream().get()),
      "copying for a step");
}

Result<void> CudaExecutable::begin_call() {
  if (!broken_.empty()) return make_error(ErrorCode::kIo, "the device failed before: {}", broken_);
  return remember(device_.use());
}

struct CudaExecutable::TakeOff {
  const Stream& stream;
  Flight* flight;
  explicit TakeOff(const Stream& s, Flight* f) : stream(s), flight(f) { flight->active = true; }
  TakeOff(const TakeOff&) = delete;
  TakeOff& operator=(const TakeOff&) = delete;
  ~TakeOff() {
    if (flight == nullptr) return;
    static_cast<void>(stream.wait());  // what was queued uses the flight's memory
    flight->active = false;
  }
  void keep() { flight = nullptr; }
};

Result<runtime::Ticket> CudaExecutable::submit(const runtime::Step& step,
                                               const runtime::StepIo& io) {
  INFER_TRY(begin_call());
  Flight& f = flights_[next_ % flights_.size()];
  Flight& other = flights_[(next_ + 1) % flights_.size()];
  // Turns that are left read the arrays and activations of their own step.
  if (other.active && !other.error && other.next_turn + 1 < n_turn(other)) {
    if (Result<void> finished = finish(other); !finished.ok())
      other.error = std::move(finished).error();
    INFER_TRY(begin_call());
  }
  if (f.active) INFER_TRY(stage_->stream().wait());  // nobody waited for it, after an error
  TakeOff take_off(stage_->stream(), &f);
  f.ticket = next_++;
  f.step = &step;
  f.io = io;
  f.error.reset();
  f.next_turn = 0;
  INFER_TRY(remember(enqueue(f)));
  take_off.keep();
  return f.ticket;
}

Result<void> CudaExecutable::enqueue(Flight& f) {
  fill_step(stage_->layout().step, *f.step, f.arrays.data(), &f.facts);
  INFER_TRY(copy_in(f));
  INFER_TRY(stage_->copy_kv_blocks(f.facts.copies_before));
  INFER_TRY(enqueue_rows(f));
  INFER_TRY(copy_residual_out(f));
  return f.done().record(stage_->stream());
}

Result<void> CudaExecutable::copy_in(Flight& f) {
  INFER_TRY(copy(stage_->step_arrays(), f.arrays.data(), f.facts.n_bytes, cudaMemcpyHostToDevice));
  if (plan_.in == graph::kNoValue || f.facts.n_row == 0) return {};
  const auto n_bytes = static_cast<int64_t>(f.io.residual_in.size_bytes());
  std::memcpy(f.residual.data(), f.io.residual_in.data(), static_cast<size_t>(n_bytes));
  if (counters_ != nullptr) ++counters_->n_residual_in;
  return copy(stage_->value(plan_.in), f.residual.data(), n_bytes, cudaMemcpyHostToDevice);
}

/// Steps of decoding are rounded up to a bucket and replayed where that is possible; the launches
/// are the same either way.
Result<void> CudaExecutable::enqueue_rows(Flight& f) {
  const int n_row = f.facts.n_row;
  const int64_t n_tok = plan_.capacity.n_tok;
  f.shape = {};
  f.shape.is_decode = f.facts.is_decode();
  f.shape.m_single = f.facts.n_single > 0 ? bucket_of(f.facts.n_single, n_tok) : 0;
  f.shape.m = f.shape.is_decode ? bucket_of(n_row, n_tok) : n_row;
  f.shape.n_tile = f.facts.n_tile;
  plan_turn(f, 0);
  if (n_row == 0) return {};  // copies of blocks alone
  const auto launches = [&]() -> Result<void> {
    INFER_TRY(stage_->run(plan_.op_begin, plan_.tail_begin, f.shape));
    if (!has_tail() || f.shape.m_tail == 0) return {};
    INFER_TRY(stage_->run(plan_.tail_begin, plan_.op_end, f.shape));
    return stage_->sample_rows(f.shape);
  };
  const bool fits = n_row <= std::end(kBuckets)[-1] && (!has_tail() || f.shape.m_tail == f.shape.m);
  const bool wanted = graphs_.is_enabled() && f.shape.is_decode;
  if (wanted && fits) {
    INFER_TRY(graphs_.run({f.shape.m, f.shape.n_top}, stage_->stream(), launches));
  } else {
    if (wanted && inform_)
      std::exchange(inform_, nullptr)(
          fmt::format("cuda:{}: steps of {} sequences are launched op by op: so many rows are not "
                      "captured",
                      device_.index, n_row));
    if (counters_ != nullptr) ++counters_->n_eager;
    INFER_TRY(launches());
  }
  return enqueue_results(f);
}

Result<void> CudaExecutable::copy_residual_out(Flight& f) {
  if (f.io.residual_out.empty()) return {};
  if (counters_ != nullptr) ++counters_->n_residual_out;
  return copy(f.residual.data(), stage_->value(plan_.out),
              static_cast<int64_t>(f.io.residual_out.size_bytes()), cudaMemcpyDeviceToHost);
}

Result<void> CudaExecutable::wait(runtime::Ticket ticket) {
  Flight& f = flights_[ticket % flights_.size()];
  INFER_CHECK(f.active && f.ticket == ticket, "ticket {} is not in flight", ticket);
  f.active = false;
  INFER_TRY(remember(device_.use()));
  if (f.error) return *std::exchange(f.error, std::nullopt);
  INFER_TRY(finish(f));
  if (!f.io.residual_out.empty())
    std::memcpy(f.io.residual_out.data(), f.residual.data(), f.io.residual_out.size_bytes());
  return {};
}

}  // namespace infer::cuda
