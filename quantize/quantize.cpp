#include "quantize/quantize.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <mutex>
#include <optional>
#include <thread>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "core/base/thread_pool.h"
#include "gguf/describe.h"
#include "quantize/mix.h"
#include "quantize/panels.h"

namespace infer::quantize {
namespace {

constexpr int64_t kPanelBytes = int64_t{1} << 20;
/// Values decoded at a time: they stay in the first-level cache until they are encoded.
constexpr int64_t kStepElems = 4096;
/// All threads' buffers together; with rows so long that it is too little, fewer threads work.
constexpr int64_t kMaxBuffers = int64_t{128} << 20;
/// Elements of a row: 32 MiB as f32. The longest in use are vocabularies, 2^18.
constexpr int64_t kMaxRow = int64_t{1} << 23;
constexpr int kMaxThreads = 256;

/// Memory of one thread.
struct Worker {
  std::vector<float> x;        // some rows of the source
  std::vector<float> back;     // a row as it was written
  std::vector<std::byte> out;  // rows of a panel, encoded
};

struct Sizes {
  int64_t x = 0, back = 0, out = 0;  // elements, elements, bytes
  int64_t bytes() const { return 4 * (x + back) + out; }
};

/// A panel, with what all of its rows share.
struct Task {
  Panel panel;
  const float* importance = nullptr;  // [shape[0]]
  ErrorSums* sums = nullptr;          // nullptr: not measured
};

int64_t rows_a_step(const PlanEntry& e) { return std::max<int64_t>(1, kStepElems / e.shape[0]); }

/// Whether |x| of a value is 2^15 or more: only those can leave f16's range on the way.
bool has_large(const float* x, int64_t n) {
  constexpr uint32_t kLarge = std::bit_cast<uint32_t>(0x1p15f);
  uint32_t large = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
    large |= static_cast<uint32_t>(static_cast<int32_t>(magnitude) >= static_cast<int32_t>(kLarge));
  }
  return large != 0;
}

ErrorSums compare(const float* x, const float* written, int64_t n) {
  ErrorSums s;
  for (int64_t i = 0; i < n; ++i) {
    const double error = static_cast<double>(written[i]) - static_cast<double>(x[i]);
    s.sum_sq_error += error * error;
    s.sum_sq += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    s.max_error = std::max(s.max_error, std::fabs(error));
  }
  return s;
}

class Run {
 public:
  Run(const Source& source, const Plan& plan, const Codec& codec, const RunOptions& options,
      Output output)
      : source_(source),
        plan_(plan),
        codec_(codec),
        options_(options),
        output_(std::move(output)),
        panels_(plan, kPanelBytes) {}

  Result<Report> run();

 private:
  Sizes buffer_sizes() const;
  int count_threads(const Sizes& sizes) const;
  void work(Worker& worker);
  Result<void> do_panel(const Panel& p, Worker& worker, ErrorSums* sums);
  Result<void> encode_rows(const Task& task, int64_t row, int64_t n_row, Worker& worker);
  Error bad_value(const PlanEntry& e, int64_t row, const float* x) const;
  Result<void> check_written(const PlanEntry& e, int64_t row, const float* x,
                             const std::byte* written, Worker& worker, ErrorSums* sums) const;
  bool cancelled() const {
    return options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed);
  }
  void fail(int64_t number, Error error);
  void panel_done(const Panel& p);
  void show_progress();
  void finish_tensors(size_t entry);
  ErrorSums sums_of(size_t entry) const;

  const Source& source_;
  const Plan& plan_;
  const Codec& codec_;
  const RunOptions& options_;
  Output output_;
  Panels panels_;

  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> failed_{INT64_MAX};  // lowest panel with an error: those after it stop
  std::atomic<int64_t> done_bytes_{0};
  std::vector<ErrorSums> sums_;                    // [panels], where measured
  std::vector<std::atomic<int64_t>> panels_left_;  // [entries]

  std::mutex mutex_;  // of what follows
  std::optional<Error> error_;
  std::vector<bool> written_;  // [entries]
  size_t reported_ = 0;        // entries that on_tensor has seen
  Report report_;

  std::mutex progress_mutex_;
  std::chrono::steady_clock::time_point shown_{};
};

Sizes Run::buffer_sizes() const {
  Sizes s;
  for (size_t i = 0; i < plan_.entries.size(); ++i) {
    const PlanEntry& e = plan_.entries[i];
    if (!e.converts() && !source_.stored_rows(i, 0, 1).empty()) continue;
    const int64_t row_elems = e.shape[0];
    s.x = std::max(s.x, rows_a_step(e) * row_elems);
    s.back = std::max(s.back, row_elems);
    const int64_t row_bytes = std::max<int64_t>(e.to_bytes / e.n_row(), 1);
    s.out = std::max(s.out, std::max(kPanelBytes, row_bytes));
  }
  return s;
}

int Run::count_threads(const Sizes& sizes) const {
  const int64_t fit = kMaxBuffers / std::max<int64_t>(sizes.bytes(), 1);
  const int64_t useful = std::min<int64_t>(pick_threads(options_.n_threads), panels_.count());
  return static_cast<int>(std::clamp<int64_t>(useful, 1, std::max<int64_t>(fit, 1)));
}

Result<Report> Run::run() {
  const Sizes sizes = buffer_sizes();
  const size_t n_entries = plan_.entries.size();
  if (options_.measure) sums_.resize(static_cast<size_t>(panels_.count()));
  panels_left_ = std::vector<std::atomic<int64_t>>(n_entries);
  for (size_t i = 0; i < n_entries; ++i) panels_left_[i] = panels_.first(i + 1) - panels_.first(i);
  written_.resize(n_entries);
  report_.tensors.resize(n_entries);
  ThreadPool pool({.n_threads = count_threads(sizes), .spin_us = 0});
  std::vector<Worker> workers(static_cast<size_t>(pool.n_threads()));
  for (Worker& w : workers) {
    w.x.resize(static_cast<size_t>(sizes.x));
    w.back.resize(static_cast<size_t>(sizes.back));
    w.out.resize(static_cast<size_t>(sizes.out));
  }
  pool.run([&](int thread, int) { work(workers[static_cast<size_t>(thread)]); });
  if (error_) return *std::move(error_);
  if (cancelled()) return make_error(ErrorCode::kCancelled, "{}: interrupted", plan_.path);
  INFER_TRY(output_.finish());
  report_.file_bytes = output_.file_bytes();
  return std::move(report_);
}

void Run::work(Worker& worker) {
  for (;;) {
    const int64_t number = next_.fetch_add(1, std::memory_order_relaxed);
    // A panel before a failed one is still done: whose error is reported depends on no thread.
    if (number >= panels_.count() || cancelled() ||
        number > failed_.load(std::memory_order_relaxed))
      return;
    const Panel p = panels_.at(number);
    ErrorSums* sums = options_.measure ? &sums_[static_cast<size_t>(number)] : nullptr;
    Result<void> done = do_panel(p, worker, sums);
    if (!done.ok()) return fail(number, std::move(done).error());
    panel_done(p);
  }
}

Result<void> Run::do_panel(const Panel& p, Worker& worker, ErrorSums* sums) {
  const PlanEntry& e = plan_.entries[p.entry];
  const int64_t out_row = e.to_bytes / e.n_row();
  if (!e.converts()) {
    const std::span<const std::byte> stored = source_.stored_rows(p.entry, p.row, p.n_row);
    if (!stored.empty()) return output_.write_at(p.entry, p.row * out_row, stored);
  }
  Task task{p, nullptr, sums};
  if (options_.imatrix != nullptr) {
    const std::span<const float> means = options_.imatrix->means(e.name, p.mat);
    if (static_cast<int64_t>(means.size()) == e.shape[0]) task.importance = means.data();
  }
  const int64_t step = rows_a_step(e);
  for (int64_t done = 0; done < p.n_row; done += step)
    INFER_TRY(encode_rows(task, p.row + done, std::min(step, p.n_row - done), worker));
  return output_.write_at(p.entry, p.row * out_row,
                          std::span(worker.out).first(static_cast<size_t>(p.n_row * out_row)));
}

/// With importance the published rules, which cannot use it, give way to the search, as they do in
/// llama.cpp; Q8_0 keeps its rule there as well.
bool searches(DType type) {
  return type == DType::kQ4_0 || type == DType::kQ4_1 || type == DType::kQ5_0 ||
         type == DType::kQ5_1;
}

Result<void> Run::encode_rows(const Task& task, int64_t row, int64_t n_row, Worker& worker) {
  const Panel& p = task.panel;
  const PlanEntry& e = plan_.entries[p.entry];
  const int64_t n_k = e.shape[0];
  const int64_t out_row = e.to_bytes / e.n_row();
  const auto type = static_cast<size_t>(e.to.type);
  const EncodeTable& table = codec_.encoders;
  const bool search = options_.best || (task.importance != nullptr && searches(e.to.type));
  const EncodeRow encode = search ? table.best[type] : table.plain[type];
  const std::span<float> x(worker.x.data(), static_cast<size_t>(n_row * n_k));
  INFER_TRY(source_.read_rows(p.entry, row, n_row, x));
  if (!table.all_finite(x.data(), n_row * n_k)) return bad_value(e, row, x.data());
  // f16 values fit in all types; others may be too large for a scale.
  const bool may_overflow = e.from != DType::kF16 && has_large(x.data(), n_row * n_k);
  std::byte* out = worker.out.data() + (row - p.row) * out_row;
  for (int64_t r = 0; r < n_row; ++r, out += out_row) {
    const float* xr = x.data() + r * n_k;
    encode(xr, task.importance, n_k, out);
    if (task.sums != nullptr || may_overflow)
      INFER_TRY(check_written(e, row + r, xr, out, worker, task.sums));
  }
  return {};
}

Error Run::bad_value(const PlanEntry& e, int64_t row, const float* x) const {
  int64_t i = 0;
  while (std::isfinite(x[i])) ++i;
  return make_error(ErrorCode::kNumeric, "{}: tensor '{}' row {} column {} is {}", plan_.path,
                    gguf::printable(e.name), row + i / e.shape[0], i % e.shape[0], x[i]);
}

Result<void> Run::check_written(const PlanEntry& e, int64_t row, const float* x,
                                const std::byte* written, Worker& worker, ErrorSums* sums) const {
  const int64_t n = e.shape[0];
  codec_.kernels.decode_row[static_cast<size_t>(e.to.type)](written, n, worker.back.data());
  // A published rule's scale becomes infinite; a search stops at the largest there is.
  const auto [least, most] = std::minmax_element(x, x + n);
  const Reach reach = reach_of(e.to.type);
  if (!codec_.encoders.all_finite(worker.back.data(), n) || !reach.holds(*least) ||
      !reach.holds(*most)) {
    const float* largest = *most > -*least ? most : least;
    return make_error(ErrorCode::kNumeric, "{}: tensor '{}' row {} has {}, too large for {}",
                      plan_.path, gguf::printable(e.name), row, *largest, name_of(e.to.type));
  }
  if (sums != nullptr) sums->add(compare(x, worker.back.data(), n));
  return {};
}

void Run::fail(int64_t number, Error error) {
  const std::lock_guard lock(mutex_);
  if (number >= failed_.load(std::memory_order_relaxed)) return;
  failed_ = number;
  error_ = std::move(error);
}

void Run::panel_done(const Panel& p) {
  const PlanEntry& e = plan_.entries[p.entry];
  source_.release_rows(p.entry, p.row, p.n_row);
  done_bytes_.fetch_add(e.from_bytes / e.n_row() * p.n_row, std::memory_order_relaxed);
  if (options_.progress) show_progress();
  if (panels_left_[p.entry].fetch_sub(1, std::memory_order_acq_rel) == 1) finish_tensors(p.entry);
}

void Run::show_progress() {
  const std::unique_lock lock(progress_mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  const auto now = std::chrono::steady_clock::now();
  const int64_t done = done_bytes_.load(std::memory_order_relaxed);
  if (now - shown_ < std::chrono::milliseconds(100) && done < plan_.from_bytes) return;
  shown_ = now;
  options_.progress({done, plan_.from_bytes});
}

ErrorSums Run::sums_of(size_t entry) const {
  ErrorSums all;  // added up in the panels' order, whoever did them
  for (int64_t i = panels_.first(entry); i < panels_.first(entry + 1); ++i)
    all.add(sums_[static_cast<size_t>(i)]);
  return all;
}

void Run::finish_tensors(size_t entry) {
  const std::lock_guard lock(mutex_);
  written_[entry] = true;
  TensorReport& t = report_.tensors[entry];
  if (options_.measure) {
    t.errors = sums_of(entry);
    t.measured = plan_.entries[entry].converts();
  }
  if (!options_.on_tensor) return;
  for (; reported_ < written_.size() && written_[reported_]; ++reported_)
    options_.on_tensor(reported_, report_.tensors[reported_]);
}

/// Everything that can be known before the first byte is written.
Result<void> check_types(const Source& source, const Plan& plan, const Codec& codec,
                         const RunOptions& options) {
  for (size_t i = 0; i < plan.entries.size(); ++i) {
    const PlanEntry& e = plan.entries[i];
    const auto from = static_cast<size_t>(e.from), to = static_cast<size_t>(e.to.type);
    if (e.n_elem <= 0) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is empty", plan.path,
                        gguf::printable(e.name));
    }
    if (!e.converts() && !source.stored_rows(i, 0, 1).empty()) continue;
    const EncodeRow encode = options.best ? codec.encoders.best[to] : codec.encoders.plain[to];
    if (codec.kernels.decode_row[from] == nullptr || encode == nullptr ||
        codec.kernels.decode_row[to] == nullptr) {
      return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' cannot go from {} to {}",
                        plan.path, gguf::printable(e.name), name_of(e.from), name_of(e.to.type));
    }
    if (e.shape[0] > kMaxRow) {
      return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' has rows of {}, at most {} fit",
                        plan.path, gguf::printable(e.name), e.shape[0], kMaxRow);
    }
  }
  return {};
}

/// Whether the matrix is this model's; counts what it lacks.
Result<void> check_imatrix(const Plan& plan, const RunOptions& options, Report* report) {
  const Imatrix* m = options.imatrix;
  if (m == nullptr) return {};
  const std::string& file = options.output.keys.imatrix_file;
  const Target& target = *options.output.keys.target;
  int64_t n_asked = 0;
  for (const PlanEntry& e : plan.entries) {
    if (!e.converts() || quant_type(e.to.type).block_len == 1) continue;
    const int64_t rows_a_mat = e.shape.size() < 2 ? 1 : e.shape[1];
    const int64_t n_mat = e.n_row() / std::max<int64_t>(rows_a_mat, 1);
    // Embeddings meet no activations, and the output matrix is left out by most collectors.
    // What does not fit there is not used.
    if (e.name == kOutputTensor || is_token_embedding(e.name)) continue;
    ++n_asked;
    if (!m->contains(e.name) && needs_imatrix(target, e.to.type, e.name)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: knows nothing of tensor '{}', which cannot be {} in {} without", file,
                        gguf::printable(e.name), name_of(e.to.type), target.name);
    }
    for (int64_t mat = 0; mat < n_mat; ++mat) {
      const std::span<const float> means = m->means(e.name, mat);
      if (means.empty() && mat == 0 && !m->contains(e.name)) {
        if (report->n_without_importance++ == 0) report->first_without_importance = e.name;
        break;
      }
      if (static_cast<int64_t>(means.size()) != e.shape[0]) {
        return make_error(ErrorCode::kInvalidArgument,
                          "{}: is of another model: tensor '{}' matrix {} has {} columns, not {}",
                          options.output.keys.imatrix_file, gguf::printable(e.name), mat,
                          e.shape[0], means.size());
      }
      if (!std::ranges::all_of(means, [](float v) { return std::isfinite(v) && v >= 0.0f; })) {
        return make_error(ErrorCode::kNumeric, "{}: tensor '{}' has a mean square that is none",
                          options.output.keys.imatrix_file, gguf::printable(e.name));
      }
    }
  }
  if (n_asked > 0 && report->n_without_importance == n_asked) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: is of another model: it knows none of the {} tensors", file, n_asked);
  }
  return {};
}

}  // namespace

Result<void> fit_imatrix(const Plan& plan, Imatrix* imatrix) {
  for (const PlanEntry& e : plan.entries) {
    if (!e.converts() || e.shape.empty() || e.name == kOutputTensor || is_token_embedding(e.name))
      continue;
    const int64_t rows_a_mat = std::max<int64_t>(e.shape.size() < 2 ? 1 : e.shape[1], 1);
    INFER_TRY(imatrix->fit(e.name, e.shape[0], e.n_row() / rows_a_mat));
  }
  return {};
}

int pick_threads(int wanted) {
  const int n = wanted > 0 ? wanted : static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(n, 1, kMaxThreads);
}

Result<Report> quantize(const Source& source, const Plan& plan, const Codec& codec,
                        const RunOptions& options) {
  INFER_CHECK(plan.entries.size() == source.header().tensors().size(), "a plan of another model");
  Report lacking;
  INFER_TRY(check_types(source, plan, codec, options));
  INFER_TRY(check_imatrix(plan, options, &lacking));
  INFER_ASSIGN(Output output, Output::create(source.header(), plan, options.output));
  INFER_ASSIGN(Report report, Run(source, plan, codec, options, std::move(output)).run());
  report.n_without_importance = lacking.n_without_importance;
  report.first_without_importance = std::move(lacking.first_without_importance);
  return report;
}

}  // namespace infer::quantize
