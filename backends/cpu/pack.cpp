#include "backends/cpu/pack.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "backends/cpu/buffer.h"
#include "core/base/checked.h"

namespace infer::cpu {
namespace {

// A task's share of the packed memory, a multiple of a huge page.
constexpr int64_t kTaskBytes = kHugePageBytes;
// Small pages are committed just before they are packed into, while they are in the L2.
constexpr int64_t kCommitBytes = int64_t{256} << 10;
// How far reading is ahead of packing.
constexpr int64_t kAheadTasks = 32;

/// Rows [begin, end) of one expert's matrix.
struct Piece {
  size_t job = 0;
  int64_t expert = 0;
  int64_t begin = 0, end = 0;
};

int64_t panel_bytes(const PackJob& job) {
  return job.kernel->packed_bytes(job.kernel->n_align, job.k);
}

/// All jobs cut at multiples of kTaskBytes in the packed memory (a panel belongs where it begins).
struct Tasks {
  std::vector<Piece> pieces;
  std::vector<size_t> first;  ///< piece of each task, and the number of pieces behind the last

  int64_t size() const { return static_cast<int64_t>(first.size()) - 1; }
  std::span<const Piece> of(int64_t task) const {
    const auto i = static_cast<size_t>(task);
    return std::span(pieces).subspan(first[i], first[i + 1] - first[i]);
  }
};

Tasks cut(std::span<const PackJob> jobs) {
  Tasks tasks;
  uintptr_t window = 0;  // the task's, in units of kTaskBytes
  for (size_t i = 0; i < jobs.size(); ++i) {
    const PackJob& job = jobs[i];
    for (int64_t expert = 0; expert < job.n_expert; ++expert) {
      for (int64_t begin = 0; begin < job.n;) {
        const auto at = reinterpret_cast<uintptr_t>(job.packed + expert * job.packed_bytes +
                                                    job.kernel->packed_bytes(begin, job.k));
        if (tasks.first.empty() || at / kTaskBytes != window) {
          window = at / kTaskBytes;
          tasks.first.push_back(tasks.pieces.size());
        }
        const auto room = static_cast<int64_t>((window + 1) * kTaskBytes - at);
        const int64_t rows = ceil_div(room, panel_bytes(job)) * job.kernel->n_align;
        const int64_t end = std::min(job.n, begin + rows);
        tasks.pieces.push_back({i, expert, begin, end});
        begin = end;
      }
    }
  }
  tasks.first.push_back(tasks.pieces.size());
  return tasks;
}

void pack_piece(const PackJob& job, const Piece& piece) {
  std::byte* to = job.packed + piece.expert * job.packed_bytes;
  const std::byte* from = job.file + piece.expert * job.file_bytes;
  const int64_t step = std::max<int64_t>(1, kCommitBytes / panel_bytes(job)) * job.kernel->n_align;
  for (int64_t begin = piece.begin; begin < piece.end; begin += step) {
    const int64_t end = std::min(piece.end, begin + step);
    const int64_t at = job.kernel->packed_bytes(begin, job.k);
    Buffer::commit(to + at, job.kernel->packed_bytes(end, job.k) - at);
    job.kernel->pack(from, job.n, job.k, begin, end, to);
  }
}

void read_ahead(std::span<const PackJob> jobs, std::span<const Piece> pieces) {
  for (const Piece& piece : pieces) {
    const PackJob& job = jobs[piece.job];
    const int64_t row_bytes = job.file_bytes / job.n;
    Buffer::read_ahead(job.file + piece.expert * job.file_bytes + piece.begin * row_bytes,
                       (piece.end - piece.begin) * row_bytes);
  }
}

}  // namespace

void pack_matrices(std::span<const PackJob> jobs, ThreadPool& pool,
                   const std::function<void(size_t)>& packed) {
  const Tasks tasks = cut(jobs);
  std::vector<std::atomic<int64_t>> left(jobs.size());  // pieces
  for (const Piece& piece : tasks.pieces) left[piece.job].fetch_add(1, std::memory_order_relaxed);
  size_t n_told = 0;
  const auto tell = [&] {
    while (n_told < jobs.size() && left[n_told].load(std::memory_order_acquire) == 0)
      packed(n_told++);
  };
  for (int64_t i = 0; i < std::min(kAheadTasks, tasks.size()); ++i) read_ahead(jobs, tasks.of(i));
  pool.for_each(tasks.size(), [&](int64_t i, int thread) {
    if (i + kAheadTasks < tasks.size()) read_ahead(jobs, tasks.of(i + kAheadTasks));
    for (const Piece& piece : tasks.of(i)) {
      pack_piece(jobs[piece.job], piece);
      left[piece.job].fetch_sub(1, std::memory_order_release);
    }
    if (thread == 0) tell();
  });
  tell();
}

}  // namespace infer::cpu
