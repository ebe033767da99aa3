#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

/// Bookkeeping of the physical blocks of one cache group. The bytes live in the backends.
namespace infer::runtime {

/// Index into the prefix index; kNoNode: none.
using NodeId = int32_t;
inline constexpr NodeId kNoNode = -1;

/// A block is in use (reference count > 0), cached (count 0, but a prefix entry names it) or blank.
/// Cached blocks count as free: they are taken, the one released longest ago first, when no blank
/// one is left. Threads: one at a time. Allocates nothing after construction.
class BlockPool {
 public:
  /// Needs: 0 < n_block < 2^31 - 2.
  explicit BlockPool(int64_t n_block);

  int64_t n_block() const { return n_block_; }
  int64_t n_free() const { return n_blank_ + n_cached_; }
  int64_t n_cached() const { return n_cached_; }
  bool has_blank() const { return n_blank_ > 0; }
  /// The cached block that was released longest ago. Needs: n_cached() > 0.
  int32_t oldest_cached() const { return at(cached_list()).next; }

  /// A blank block, with one reference. Needs: has_blank().
  int32_t take();
  void add_ref(int32_t block);
  /// The last reference gone, the block becomes cached if an entry names it, else blank.
  void drop_ref(int32_t block);
  int32_t n_ref(int32_t block) const { return at(block).n_ref; }

  /// The prefix entry that names the block.
  NodeId node(int32_t block) const { return at(block).node; }
  /// Needs: the block is in use and has no entry.
  void set_node(int32_t block, NodeId node);
  /// A cached block becomes blank.
  void clear_node(int32_t block);

 private:
  struct Block {
    int32_t n_ref = 0;
    NodeId node = kNoNode;
    int32_t prev = -1, next = -1;  ///< neighbours in the list of blank or of cached blocks
  };
  int32_t blank_list() const {
    return static_cast<int32_t>(n_block_);
  }  ///< sentinels close the two rings
  int32_t cached_list() const { return static_cast<int32_t>(n_block_ + 1); }
  Block& at(int32_t i) { return blocks_[static_cast<size_t>(i)]; }
  const Block& at(int32_t i) const { return blocks_[static_cast<size_t>(i)]; }
  void unlink(int32_t block);
  void append(int32_t list, int32_t block);

  int64_t n_block_ = 0, n_blank_ = 0, n_cached_ = 0;
  std::vector<Block> blocks_;  ///< [n_block + 2]
};

}  // namespace infer::runtime
