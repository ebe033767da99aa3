#include "core/runtime/block_pool.h"

#include <limits>

#include "core/base/check.h"

namespace infer::runtime {

BlockPool::BlockPool(int64_t n_block) : n_block_(n_block), n_blank_(n_block) {
  INFER_CHECK(n_block > 0 && n_block < std::numeric_limits<int32_t>::max() - 2, "n_block = {}",
              n_block);
  blocks_.resize(static_cast<size_t>(n_block) + 2);
  for (int32_t list : {blank_list(), cached_list()}) at(list).prev = at(list).next = list;
  for (int32_t b = 0; b < static_cast<int32_t>(n_block); ++b) append(blank_list(), b);
}

void BlockPool::unlink(int32_t block) {
  Block& b = at(block);
  at(b.prev).next = b.next;
  at(b.next).prev = b.prev;
}

void BlockPool::append(int32_t list, int32_t block) {
  Block& b = at(block);
  b.prev = at(list).prev;
  b.next = list;
  at(b.prev).next = block;
  at(list).prev = block;
}

int32_t BlockPool::take() {
  INFER_CHECK(n_blank_ > 0, "no blank block among {}", n_block_);
  const int32_t block = at(blank_list()).next;
  unlink(block);
  --n_blank_;
  at(block).n_ref = 1;
  return block;
}

void BlockPool::add_ref(int32_t block) {
  Block& b = at(block);
  if (b.n_ref == 0) {
    INFER_CHECK(b.node != kNoNode, "block {} is blank", block);
    unlink(block);
    --n_cached_;
  }
  ++b.n_ref;
}

void BlockPool::drop_ref(int32_t block) {
  Block& b = at(block);
  INFER_CHECK(b.n_ref > 0, "block {} is not in use", block);
  if (--b.n_ref > 0) return;
  if (b.node == kNoNode) {
    append(blank_list(), block);
    ++n_blank_;
  } else {
    append(cached_list(), block);
    ++n_cached_;
  }
}

void BlockPool::set_node(int32_t block, NodeId node) {
  Block& b = at(block);
  INFER_CHECK(b.n_ref > 0 && b.node == kNoNode, "block {}: {} references, entry {}", block, b.n_ref,
              b.node);
  b.node = node;
}

void BlockPool::clear_node(int32_t block) {
  Block& b = at(block);
  INFER_CHECK(b.node != kNoNode, "block {} has no entry", block);
  b.node = kNoNode;
  if (b.n_ref > 0) return;
  unlink(block);
  --n_cached_;
  append(blank_list(), block);
  ++n_blank_;
}

}  // namespace infer::runtime
