#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/runtime/block_pool.h"
#include "core/runtime/step.h"

/// Which prefixes of tokens have blocks with their keys and values.
namespace infer::runtime {

/// A forest of full blocks of tokens: a node is the prefix that ends with its kBlockTok tokens, and
/// names at most one physical block in each group. Lookup hashes (parent, adapter, tokens) and then
/// compares them really. A node lives while it names a block, has children, or a sequence stands on
/// it. Threads: one at a time. Allocates nothing after construction.
class PrefixIndex {
 public:
  PrefixIndex(int n_group, int64_t max_nodes);

  /// The child of `parent` (kNoNode: a root) with these kBlockTok tokens, or kNoNode.
  NodeId find(NodeId parent, int32_t adapter, std::span<const int32_t> tokens) const;
  /// find(), or a new node; kNoNode when all max_nodes are used.
  NodeId insert(NodeId parent, int32_t adapter, std::span<const int32_t> tokens);
  NodeId parent(NodeId node) const { return at(node).parent; }

  /// -1: none.
  int32_t block(NodeId node, int group) const { return blocks_[place(node, group)]; }
  void set_block(NodeId node, int group, int32_t block);
  /// The node is gone after this if nothing else holds it, and so are parents that only it held.
  void clear_block(NodeId node, int group);

  /// A sequence stands on the node, or leaves it (then as clear_block). kNoNode is ignored.
  void add_ref(NodeId node);
  void drop_ref(NodeId node);

  int64_t n_node() const { return n_node_; }

 private:
  struct Node {
    NodeId parent = kNoNode;
    NodeId bucket_next = kNoNode;  ///< also links the free nodes
    int32_t adapter = -1;
    int32_t n_ref = 0;  ///< children, and sequences that stand on it
    int32_t n_block = 0;
    uint64_t hash = 0;
  };
  Node& at(NodeId i) { return nodes_[static_cast<size_t>(i)]; }
  const Node& at(NodeId i) const { return nodes_[static_cast<size_t>(i)]; }
  size_t place(NodeId node, int group) const {
    return static_cast<size_t>(node) * static_cast<size_t>(n_group_) + static_cast<size_t>(group);
  }
  std::span<const int32_t> tokens_of(NodeId node) const {
    return {tokens_.data() + static_cast<int64_t>(node) * kBlockTok,
            static_cast<size_t>(kBlockTok)};
  }
  NodeId find_hashed(uint64_t hash, NodeId parent, int32_t adapter,
                     std::span<const int32_t> tokens) const;
  void prune(NodeId node);

  int n_group_ = 0;
  int64_t n_node_ = 0;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;  ///< [max_nodes][kBlockTok]
  std::vector<int32_t> blocks_;  ///< [max_nodes][n_group]
  std::vector<NodeId> buckets_;  ///< a power of two
  NodeId free_ = kNoNode;
};

}  // namespace infer::runtime
