#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "core/runtime/kv_cache.h"
#include "core/runtime/sequence.h"
#include "core/runtime/step.h"

namespace infer::runtime {

struct SchedulerOptions {
  int64_t n_batch = 1;  ///< rows a step may have
  int max_seqs = 1;     ///< sequences running at the same time; <= n_batch
  int64_t n_ctx = 0;    ///< one sequence alone always fits the cache with so many tokens
};

/// Rows [row, row + n_row) of the step are tokens [begin, begin + n_row) of the sequence.
struct ScheduledRows {
  Sequence* sequence = nullptr;
  int64_t begin = 0;
  int32_t row = 0, n_row = 0;
};

/// Continuous batching (Orca, OSDI '22) over a paged cache: every sequence that decodes has one row
/// in each step, prefills share the rows that are left, oldest first. When blocks run out, the
/// youngest running sequence gives its blocks back and waits, to be computed again from all its
/// tokens. Threads: one at a time. A step of decoding allocates nothing.
class Scheduler {
 public:
  /// `cache` outlives the scheduler.
  Scheduler(KvCache& cache, const SchedulerOptions& options);

  /// Queues an idle sequence by its age. It stays in place until finish().
  void add(Sequence& sequence);
  /// Lets `child`, whose tokens begin with all computed ones of the running `parent`, share the
  /// parent's blocks and run; it is queued when no place is free.
  void fork(Sequence& parent, Sequence& child);
  /// Takes a sequence out wherever it is, and gives its blocks back.
  void finish(Sequence& sequence);

  /// Fills `step` with the next rows; false when there is nothing to do.
  bool build(Step& step);
  /// What the last step consists of.
  std::span<const ScheduledRows> scheduled() const { return scheduled_; }
  /// Sequences that the last build() started with saved K and V: their first n_matched slots are to
  /// be filled before the step is computed.
  std::span<Sequence* const> restored() const { return restored_; }
  /// The step was computed: its tokens are in the cache.
  void commit();

  int64_t n_preempted() const { return n_preempted_; }
  bool idle() const { return running_.empty() && waiting_.empty(); }
  size_t n_running() const { return running_.size(); }
  size_t n_waiting() const { return waiting_.size(); }

 private:
  int64_t n_left(const Sequence& s) const {
    return static_cast<int64_t>(s.tokens.size()) - cache_.len(s.kv);
  }
  void take_running(int64_t n_row);
  void admit(int64_t n_row);
  bool try_start(Sequence& s);
  int64_t restorable(const Sequence& s, int64_t limit) const;
  void match(Sequence& s);
  bool has_room(const Sequence& s) const;
  int64_t reserve(Sequence& s, int64_t n_row);
  void preempt(Sequence& s);
  void enqueue(Sequence& s);
  void insert_running(Sequence& s);
  void emit(Step& step) const;

  KvCache& cache_;
  SchedulerOptions options_;
  std::vector<Sequence*> running_;  ///< oldest first
  std::deque<Sequence*> waiting_;   ///< oldest first
  std::vector<ScheduledRows> scheduled_;
  std::vector<BlockCopy> copies_;
  std::vector<Sequence*> restored_;
  int64_t n_preempted_ = 0;
};

}  // namespace infer::runtime
