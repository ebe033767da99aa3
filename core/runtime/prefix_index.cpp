#include "core/runtime/prefix_index.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "core/base/check.h"

namespace infer::runtime {
namespace {

uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * 0x9e3779b97f4a7c15u;
  return h ^ (h >> 29);
}

uint64_t hash_of(NodeId parent, int32_t adapter, std::span<const int32_t> tokens) {
  uint64_t h = mix(static_cast<uint32_t>(parent), static_cast<uint32_t>(adapter));
  for (int32_t token : tokens) h = mix(h, static_cast<uint32_t>(token));
  return mix(h, h >> 32);
}

}  // namespace

PrefixIndex::PrefixIndex(int n_group, int64_t max_nodes) : n_group_(n_group) {
  INFER_CHECK(n_group > 0 && max_nodes > 0 && max_nodes < std::numeric_limits<int32_t>::max(),
              "{} groups, {} nodes", n_group, max_nodes);
  const auto n = static_cast<size_t>(max_nodes);
  nodes_.resize(n);
  tokens_.resize(n * static_cast<size_t>(kBlockTok));
  blocks_.resize(n * static_cast<size_t>(n_group), -1);
  buckets_.resize(std::bit_ceil(2 * n), kNoNode);
  for (size_t i = n; i-- > 0;) {
    nodes_[i].bucket_next = free_;
    free_ = static_cast<NodeId>(i);
  }
}

NodeId PrefixIndex::find_hashed(uint64_t hash, NodeId parent, int32_t adapter,
                                std::span<const int32_t> tokens) const {
  for (NodeId i = buckets_[hash & (buckets_.size() - 1)]; i != kNoNode; i = at(i).bucket_next) {
    const Node& node = at(i);
    if (node.hash == hash && node.parent == parent && node.adapter == adapter &&
        std::ranges::equal(tokens_of(i), tokens)) {
      return i;
    }
  }
  return kNoNode;
}

NodeId PrefixIndex::find(NodeId parent, int32_t adapter, std::span<const int32_t> tokens) const {
  return find_hashed(hash_of(parent, adapter, tokens), parent, adapter, tokens);
}

NodeId PrefixIndex::insert(NodeId parent, int32_t adapter, std::span<const int32_t> tokens) {
  INFER_CHECK(tokens.size() == static_cast<size_t>(kBlockTok), "{} tokens", tokens.size());
  const uint64_t hash = hash_of(parent, adapter, tokens);
  if (const NodeId found = find_hashed(hash, parent, adapter, tokens); found != kNoNode)
    return found;
  if (free_ == kNoNode) return kNoNode;
  const NodeId id = free_;
  free_ = at(id).bucket_next;
  NodeId& bucket = buckets_[hash & (buckets_.size() - 1)];
  at(id) = Node{.parent = parent, .bucket_next = bucket, .adapter = adapter, .hash = hash};
  bucket = id;
  std::ranges::copy(tokens, tokens_.begin() + static_cast<int64_t>(id) * kBlockTok);
  add_ref(parent);
  ++n_node_;
  return id;
}

void PrefixIndex::set_block(NodeId node, int group, int32_t block) {
  INFER_CHECK(blocks_[place(node, group)] == -1, "entry {} already names a block of group {}", node,
              group);
  blocks_[place(node, group)] = block;
  ++at(node).n_block;
}

void PrefixIndex::clear_block(NodeId node, int group) {
  INFER_CHECK(blocks_[place(node, group)] != -1, "entry {} names no block of group {}", node,
              group);
  blocks_[place(node, group)] = -1;
  --at(node).n_block;
  prune(node);
}

void PrefixIndex::add_ref(NodeId node) {
  if (node != kNoNode) ++at(node).n_ref;
}

void PrefixIndex::drop_ref(NodeId node) {
  if (node == kNoNode) return;
  INFER_CHECK(at(node).n_ref > 0, "entry {} has no reference", node);
  --at(node).n_ref;
  prune(node);
}

void PrefixIndex::prune(NodeId id) {
  while (id != kNoNode && at(id).n_ref == 0 && at(id).n_block == 0) {
    Node& node = at(id);
    NodeId* link = &buckets_[node.hash & (buckets_.size() - 1)];
    while (*link != id) link = &at(*link).bucket_next;
    *link = node.bucket_next;
    node.bucket_next = free_;
    free_ = id;
    --n_node_;
    id = node.parent;
    if (id != kNoNode) --at(id).n_ref;
  }
}

}  // namespace infer::runtime
