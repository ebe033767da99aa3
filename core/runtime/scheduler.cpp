#include "core/runtime/scheduler.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/checked.h"

namespace infer::runtime {

Scheduler::Scheduler(KvCache& cache, const SchedulerOptions& options)
    : cache_(cache), options_(options) {
  INFER_CHECK(options.max_seqs > 0 && options.max_seqs <= options.n_batch,
              "max_seqs {}, n_batch {}", options.max_seqs, options.n_batch);
  for (int g = 0; g < cache.n_group(); ++g) {
    INFER_CHECK(cache.n_block(g) >= blocks_needed(cache.window(g), options.n_ctx),
                "group {} has {} blocks, one sequence needs {}", g, cache.n_block(g),
                blocks_needed(cache.window(g), options.n_ctx));
  }
  const auto n = static_cast<size_t>(options.max_seqs);
  running_.reserve(n);
  scheduled_.reserve(n);
  restored_.reserve(n);
  copies_.reserve(n * static_cast<size_t>(cache.n_group()));
}

void Scheduler::enqueue(Sequence& s) {
  s.state = Sequence::State::kWaiting;
  const auto place = std::upper_bound(waiting_.begin(), waiting_.end(), &s,
                                      [](auto* a, auto* b) { return a->older_than(*b); });
  waiting_.insert(place, &s);
}

void Scheduler::insert_running(Sequence& s) {
  s.state = Sequence::State::kRunning;
  const auto place = std::upper_bound(running_.begin(), running_.end(), &s,
                                      [](auto* a, auto* b) { return a->older_than(*b); });
  running_.insert(place, &s);
}

void Scheduler::add(Sequence& sequence) {
  INFER_CHECK(sequence.state == Sequence::State::kIdle && !sequence.tokens.empty(),
              "request {} sample {}: not a new sequence", sequence.request, sequence.sample);
  enqueue(sequence);
}

void Scheduler::fork(Sequence& parent, Sequence& child) {
  INFER_CHECK(parent.state == Sequence::State::kRunning && child.state == Sequence::State::kIdle,
              "request {}: fork of a sequence that does not run", parent.request);
  child.kv = cache_.fork(parent.kv);
  if (child.kv == kNoSeq) return enqueue(child);
  child.n_matched = cache_.len(child.kv);
  insert_running(child);
}

void Scheduler::finish(Sequence& sequence) {
  if (sequence.state == Sequence::State::kRunning) {
    running_.erase(std::find(running_.begin(), running_.end(), &sequence));
    cache_.release(sequence.kv);
    sequence.kv = kNoSeq;
  } else if (sequence.state == Sequence::State::kWaiting) {
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), &sequence));
  }
  sequence.state = Sequence::State::kIdle;
}

void Scheduler::preempt(Sequence& s) {
  finish(s);
  enqueue(s);
  ++n_preempted_;
}

/// Makes up to n_row slots of a running sequence writable and returns how many; 0 when the sequence
/// itself, being the youngest, had to go.
int64_t Scheduler::reserve(Sequence& s, int64_t n_row) {
  int64_t n = cache_.max_reservable(s.kv, n_row);
  while (n == 0) {
    Sequence& youngest = *running_.back();
    INFER_CHECK(running_.size() > 1, "the cache cannot hold one sequence of {} tokens",
                s.tokens.size());
    preempt(youngest);
    if (&youngest == &s) return 0;
    n = cache_.max_reservable(s.kv, n_row);
  }
  INFER_CHECK(cache_.reserve(s.kv, n, copies_), "{} slots cannot be reserved", n);
  return n;
}

/// Goes through the running sequences from the oldest, so that whoever is preempted has no rows in
/// this step yet.
void Scheduler::take_running(int64_t n_row) {
  int64_t n_decode = std::count_if(running_.begin(), running_.end(),
                                   [&](const Sequence* s) { return n_left(*s) == 1; });
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& s = *running_[i];
    const bool decodes = n_left(s) == 1;
    const int64_t n_free = decodes ? n_row : n_row - n_decode;
    if (decodes) --n_decode;
    const int64_t n_want = std::min(n_left(s), n_free);
    if (n_want <= 0) continue;
    const int64_t n = reserve(s, n_want);
    if (n == 0) break;  // s was the youngest
    scheduled_.push_back(
        {.sequence = &s, .begin = cache_.len(s.kv), .n_row = static_cast<int32_t>(n)});
    n_row -= n;
  }
  admit(n_row);
}

/// Whether the blocks suffice for all tokens of `s` beside what the running prefills are still
/// going to take, with one block to spare for each running sequence.
bool Scheduler::has_room(const Sequence& s) const {
  for (int g = 0; g < cache_.n_group(); ++g) {
    const auto missing = [&](const Sequence& q) {
      const int64_t need =
          blocks_needed(cache_.window(g), static_cast<int64_t>(q.tokens.size()) + 1);
      return std::max<int64_t>(0, need - cache_.n_held(q.kv, g));
    };
    int64_t n_free = cache_.n_free(g) - missing(s);
    for (const Sequence* q : running_) n_free -= std::max<int64_t>(missing(*q), 1);
    if (n_free < 0) return false;
  }
  return true;
}

/// Tokens of `s` whose saved K and V can stand for computing them, at most `limit`.
int64_t Scheduler::restorable(const Sequence& s, int64_t limit) const {
  const auto end =
      std::mismatch(s.tokens.begin(), s.tokens.end(), s.saved_tokens.begin(), s.saved_tokens.end());
  const int64_t n = std::min<int64_t>(end.first - s.tokens.begin(), limit);
  for (int g = 0; g < cache_.n_group(); ++g) {
    // A window's beginning is not saved, so that less than all of it may be too little.
    if (s.saved_first[static_cast<size_t>(g)] > first_seen(cache_.window(g), n)) return 0;
  }
  return n;
}

/// Takes what is in the prefix cache, or what is saved where that is more by a block.
void Scheduler::match(Sequence& s) {
  const int64_t limit =
      std::min(static_cast<int64_t>(s.tokens.size()) - 1, s.first_wanted_prompt_row());
  s.n_matched = cache_.match_prefix(s.kv, s.tokens, limit);
  if (s.saved_tokens.empty()) return;
  const int64_t n = restorable(s, limit);
  if (n <= 0 || (s.n_matched > 0 && n < s.n_matched + kBlockTok)) return;
  if (cache_.restore(s.kv, std::span(s.tokens).first(static_cast<size_t>(n)))) {
    s.n_matched = n;
    restored_.push_back(&s);
  } else {
    s.n_matched = cache_.match_prefix(s.kv, s.tokens, limit);
  }
}

/// Moves a waiting sequence onto the cache: whatever prefix is there is not computed again.
bool Scheduler::try_start(Sequence& s) {
  s.kv = cache_.create(s.adapter);
  if (s.kv == kNoSeq) return false;
  match(s);
  if (running_.empty() || has_room(s)) return true;
  if (!restored_.empty() && restored_.back() == &s) restored_.pop_back();
  cache_.release(s.kv);
  s.kv = kNoSeq;
  return false;
}

void Scheduler::admit(int64_t n_row) {
  while (n_row > 0 && !waiting_.empty() &&
         running_.size() < static_cast<size_t>(options_.max_seqs)) {
    Sequence& s = *waiting_.front();
    if (!try_start(s)) return;
    waiting_.pop_front();
    insert_running(s);
    const int64_t n_want = std::min(n_left(s), n_row);
    const int64_t n = std::min(n_want, cache_.max_reservable(s.kv, n_want));
    if (n == 0) return;  // its turn comes as a running sequence
    INFER_CHECK(cache_.reserve(s.kv, n, copies_), "{} slots cannot be reserved", n);
    scheduled_.push_back(
        {.sequence = &s, .begin = cache_.len(s.kv), .n_row = static_cast<int32_t>(n)});
    n_row -= n;
  }
}

bool Scheduler::build(Step& step) {
  step.clear();
  scheduled_.clear();
  copies_.clear();
  restored_.clear();
  take_running(options_.n_batch);
  if (scheduled_.empty()) {
    INFER_CHECK(idle(), "{} running and {} waiting sequences, but no rows", running_.size(),
                waiting_.size());
    return false;
  }
  int32_t row = 0;
  for (ScheduledRows& part : scheduled_) {
    part.row = row;
    row += part.n_row;
  }
  emit(step);
  return true;
}

void Scheduler::emit(Step& step) const {
  if (step.rows.capacity() == 0) {  // first use: room for the largest step
    step.rows.reserve(static_cast<size_t>(options_.n_batch));
    step.copies.reserve(copies_.capacity());
    step.tables.resize(static_cast<size_t>(cache_.n_group()));
    for (Step::Table& t : step.tables) {
      t.blocks.reserve(
          static_cast<size_t>(options_.max_seqs * ceil_div(options_.n_ctx, kBlockTok)));
    }
  }
  step.n_seq = static_cast<int32_t>(scheduled_.size());
  step.copies.assign(copies_.begin(), copies_.end());
  for (int g = 0; g < cache_.n_group(); ++g) {
    Step::Table& out = step.tables[static_cast<size_t>(g)];
    size_t stride = 0;
    for (const ScheduledRows& part : scheduled_)
      stride = std::max(stride, cache_.table(part.sequence->kv, g).size());
    out.stride = static_cast<int64_t>(stride);
    for (const ScheduledRows& part : scheduled_) {
      const std::span<const int32_t> table = cache_.table(part.sequence->kv, g);
      out.blocks.insert(out.blocks.end(), table.begin(), table.end());
      out.blocks.insert(out.blocks.end(), stride - table.size(), -1);
    }
  }
  for (size_t i = 0; i < scheduled_.size(); ++i) {
    const ScheduledRows& part = scheduled_[i];
    const Sequence& s = *part.sequence;
    if (!s.adapters.empty()) {
      step.uses.insert(step.uses.end(), s.adapters.begin(), s.adapters.end());
      step.mix_ends.push_back(static_cast<int32_t>(step.uses.size()));
    }
    const int32_t mix = s.adapters.empty() ? -1 : static_cast<int32_t>(step.mix_ends.size()) - 1;
    for (int64_t at = part.begin; at < part.begin + part.n_row; ++at) {
      const bool draws = s.want_last && at + 1 == static_cast<int64_t>(s.tokens.size());
      const bool top = draws && s.n_top >= 0 && !s.wants_prompt_row(at);
      const bool all = !top && (draws || s.wants_prompt_row(at));
      step.rows.push_back({.token = s.tokens[static_cast<size_t>(at)],
                           .pos = static_cast<int32_t>(at),
                           .slot = static_cast<int32_t>(at),
                           .seq = static_cast<int32_t>(i),
                           .adapter = mix,
                           .want = top   ? Want::kTop
                                   : all ? Want::kLogits
                                         : Want::kNone,
                           .n_top = static_cast<uint8_t>(top ? s.n_top : 0)});
    }
  }
}

void Scheduler::commit() {
  for (const ScheduledRows& part : scheduled_) {
    Sequence& s = *part.sequence;
    const std::span<const int32_t> tokens = s.tokens;
    cache_.commit(s.kv,
                  tokens.subspan(static_cast<size_t>(part.begin), static_cast<size_t>(part.n_row)));
    const int64_t end = part.begin + part.n_row;
    s.n_delivered = std::max(s.n_delivered, std::min(end, s.n_prompt));
  }
}

}  // namespace infer::runtime
