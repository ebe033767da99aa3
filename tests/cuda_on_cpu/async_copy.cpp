#include "tests/cuda_on_cpu/async_copy.h"

#include <cstring>

#include "tests/cuda_on_cpu/block.h"

namespace infer::cuda::emulated {

namespace {

void copy_and_fill(std::byte* to, const std::byte* from, int bytes, int source_bytes) {
  std::memcpy(to, from, static_cast<size_t>(source_bytes));
  std::memset(to + source_bytes, 0, static_cast<size_t>(bytes - source_bytes));
}

}  // namespace

void AsyncCopies::add(void* shared, const void* global, int bytes, int source_bytes) {
  auto* to = static_cast<std::byte*>(shared);
  std::memset(to, 0xff, static_cast<size_t>(bytes));
  copies_.push_back({to, static_cast<const std::byte*>(global), bytes, source_bytes, n_group_});
}

void AsyncCopies::wait(int n_pending) {
  const auto pending = static_cast<uint64_t>(n_pending);
  const uint64_t n_complete = n_group_ > pending ? n_group_ - pending : 0;
  for (; n_done_ < copies_.size() && copies_[n_done_].group < n_complete; ++n_done_) {
    const Copy& copy = copies_[n_done_];
    copy_and_fill(copy.to, copy.from, copy.bytes, copy.source_bytes);
  }
  if (n_done_ == copies_.size()) {
    copies_.clear();
    n_done_ = 0;
  }
}

void AsyncCopies::clear() {
  copies_.clear();
  n_done_ = 0;
  n_group_ = 0;
}

void cp_async(void* shared, const void* global, int bytes, int source_bytes, Site site) {
  Block& block = *this_block;
  const auto alignment = static_cast<size_t>(bytes);
  check_aligned(shared, alignment, site);
  check_aligned(global, alignment, site);
  if (source_bytes < 0 || source_bytes > bytes)
    block.fail("cp.async of more bytes than its destination has", site);
  if (!block.shared().contains(shared, alignment))
    block.fail("cp.async to an address outside the block's shared memory", site);
  if (block.shared().contains(global, 1))
    block.fail("cp.async from shared memory: its source is global", site);
  if (architecture() >= 80)
    block.lane().copies.add(shared, global, bytes, source_bytes);
  else
    copy_and_fill(static_cast<std::byte*>(shared), static_cast<const std::byte*>(global), bytes,
                  source_bytes);
}

void cp_async_commit() noexcept { this_block->lane().copies.commit(); }

void cp_async_wait(int n_pending) noexcept { this_block->lane().copies.wait(n_pending); }

}  // namespace infer::cuda::emulated
