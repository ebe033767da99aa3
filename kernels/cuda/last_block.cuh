#pragma once

#include "kernels/cuda/device.cuh"

namespace infer::cuda {

/// Of n_block blocks that leave results in global memory, the last to call this goes on with them
/// all. True for that block's threads, who see what the others wrote; the counter, zero at first,
/// is zero again. By all threads of a block; `is_last` lies in shared memory.
INFER_DEVICE bool is_last_block(int32_t* counter, int n_block, int32_t& is_last) {
  // All of the block's results are written before it counts.
  sync_threads();  // unseen: blocks of the emulator run to their end one after another
  if (thread_idx().x == 0) {
    thread_fence();
    is_last = atomic_add(counter, 1) == n_block - 1 ? 1 : 0;
    thread_fence();  // results are read after the count
    if (is_last != 0) *counter = 0;
  }
  sync_threads();  // is_last
  return is_last != 0;
}

}  // namespace infer::cuda
