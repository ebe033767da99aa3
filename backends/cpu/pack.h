#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "core/base/thread_pool.h"
#include "kernels/cpu/table.h"

namespace infer::cpu {

/// A matrix of the file, or those of all experts one behind the other, and where it is packed to.
struct PackJob {
  const kern::LinearKernel* kernel = nullptr;
  const std::byte* file = nullptr;
  int64_t file_bytes = 0;  ///< from one expert's matrix to the next
  std::byte* packed = nullptr;
  int64_t packed_bytes = 0;  ///< from one expert's matrix to the next
  int64_t n = 0, k = 0;
  int64_t n_expert = 1;
};

/// Packs all jobs in one run of the team, in their order but for what is going on at the same time.
/// Order them as they lie in the file: it is then read ahead of the packing as one stream. Tasks
/// end at borders of huge pages in the packed memory, so that a page is cleared by one thread.
/// `packed(i)`: job i is done; called by the calling thread, in order, while later ones go on.
void pack_matrices(std::span<const PackJob> jobs, ThreadPool& pool,
                   const std::function<void(size_t)>& packed);

}  // namespace infer::cpu
