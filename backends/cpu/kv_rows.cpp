#include <cstring>

#include "backends/cpu/executable.h"
#include "core/base/check.h"

/// K and V between the pools' layout and rows a token: what sessions are made of. Only bytes move,
/// so that what comes back is what was there.
namespace infer::cpu {
namespace {

/// Calls move(bytes of the pool, offset in the row, how many) for each piece of one head's part of
/// a token's K row. K lies with tokens side by side.
template <class Move>
void for_each_k_piece(const kern::KvPoolView& pool, std::byte* head, int64_t row, int64_t offset,
                      Move&& move) {
  const kern::KvType type = pool.k_type;
  const int64_t levels = kern::kv_scales_at(type, pool.head_dim) / kern::kBlockTok;
  if (!kern::is_quantised(type)) {
    const int64_t size = type == kern::KvType::kF32 ? 4 : 2;
    for (int64_t i = 0; i < pool.head_dim; ++i)
      move(head + (i * kern::kBlockTok + offset) * size, row + i * size, size);
    return;
  }
  const int64_t n_group = pool.head_dim / kern::kKvGroup;
  const int64_t per_group = levels / n_group;
  std::byte* scales = head + levels * kern::kBlockTok;
  for (int64_t g = 0; g < n_group; ++g) {
    const int64_t to = row + g * (2 + per_group);
    move(scales + (g * kern::kBlockTok + offset) * 2, to, 2);
    for (int64_t i = 0; i < per_group; ++i)
      move(head + (g * per_group + i) * kern::kBlockTok + offset, to + 2 + i, 1);
  }
}

/// The same for V, whose tokens lie one after the other.
template <class Move>
void for_each_v_piece(const kern::KvPoolView& pool, std::byte* head, int64_t row, int64_t offset,
                      Move&& move) {
  const int64_t levels = kern::kv_scales_at(pool.v_type, pool.head_dim_v) / kern::kBlockTok;
  std::byte* token = head + offset * levels;
  if (!kern::is_quantised(pool.v_type)) return move(token, row, levels);
  const int64_t n_group = pool.head_dim_v / kern::kKvGroup;
  const int64_t per_group = levels / n_group;
  std::byte* scales = head + levels * kern::kBlockTok;
  for (int64_t g = 0; g < n_group; ++g) {
    const int64_t to = row + g * (2 + per_group);
    move(scales + (g * kern::kBlockTok + offset) * 2, to, 2);
    move(token + g * per_group, to + 2, per_group);
  }
}

template <class Move>
void for_each_piece(const kern::KvPoolView& pool, bool is_v, int32_t block, int64_t offset,
                    Move&& move) {
  const int64_t head_bytes = is_v ? kern::kv_head_bytes(pool.v_type, pool.head_dim_v)
                                  : kern::kv_head_bytes(pool.k_type, pool.head_dim);
  std::byte* base = is_v ? pool.v + block * kern::v_block_bytes(pool)
                         : pool.k + block * kern::k_block_bytes(pool);
  for (int64_t h = 0; h < pool.n_kv_head; ++h) {
    const int64_t row = h * head_bytes / kern::kBlockTok;
    if (is_v) {
      for_each_v_piece(pool, base + h * head_bytes, row, offset, move);
    } else {
      for_each_k_piece(pool, base + h * head_bytes, row, offset, move);
    }
  }
}

template <class Move>
void for_each_slot(const kern::KvPoolView& pool, const runtime::KvRange& range, int64_t k_row,
                   int64_t v_row, Move&& move) {
  for (int64_t slot = range.begin; slot < range.end; ++slot) {
    const int32_t block = range.table[static_cast<size_t>(slot / kern::kBlockTok)];
    const int64_t offset = slot % kern::kBlockTok;
    const int64_t at = slot - range.begin;
    for_each_piece(pool, false, block, offset,
                   [&](std::byte* p, int64_t i, int64_t n) { move(p, false, at * k_row + i, n); });
    for_each_piece(pool, true, block, offset,
                   [&](std::byte* p, int64_t i, int64_t n) { move(p, true, at * v_row + i, n); });
  }
}

}  // namespace

void CpuExecutable::check_range(const runtime::KvRange& range, size_t k_bytes,
                                size_t v_bytes) const {
  const kern::KvPoolView& pool = pools_[static_cast<size_t>(range.cache_layer)];
  INFER_CHECK(pool.k != nullptr, "cache layer {} is of another stage", range.cache_layer);
  const int64_t n = range.end - range.begin;
  const int64_t k = kern::k_block_bytes(pool) / kern::kBlockTok * n;
  const int64_t v = kern::v_block_bytes(pool) / kern::kBlockTok * n;
  INFER_CHECK(static_cast<int64_t>(k_bytes) == k && static_cast<int64_t>(v_bytes) == v,
              "{} slots: {} and {} bytes, expected {} and {}", n, k_bytes, v_bytes, k, v);
}

Result<void> CpuExecutable::export_kv(const runtime::KvRange& range, std::span<std::byte> k,
                                      std::span<std::byte> v) {
  check_range(range, k.size(), v.size());
  const kern::KvPoolView& pool = pools_[static_cast<size_t>(range.cache_layer)];
  for_each_slot(pool, range, kern::k_block_bytes(pool) / kern::kBlockTok,
                kern::v_block_bytes(pool) / kern::kBlockTok,
                [&](const std::byte* p, bool is_v, int64_t at, int64_t n) {
                  std::memcpy((is_v ? v : k).data() + at, p, static_cast<size_t>(n));
                });
  return {};
}

Result<void> CpuExecutable::import_kv(const runtime::KvRange& range, std::span<const std::byte> k,
                                      std::span<const std::byte> v) {
  check_range(range, k.size(), v.size());
  const kern::KvPoolView& pool = pools_[static_cast<size_t>(range.cache_layer)];
  for_each_slot(pool, range, kern::k_block_bytes(pool) / kern::kBlockTok,
                kern::v_block_bytes(pool) / kern::kBlockTok,
                [&](std::byte* p, bool is_v, int64_t at, int64_t n) {
                  std::memcpy(p, (is_v ? v : k).data() + at, static_cast<size_t>(n));
                });
  return {};
}

}  // namespace infer::cpu
