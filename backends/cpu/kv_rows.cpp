#include <cstring>

#include "backends/cpu/executable.h"
#include "core/base/check.h"

/// K and V between the pools' layout and rows a token: what sessions are made of. Only bytes move,
/// so that what comes back is what was there.
namespace infer::cpu {
namespace {

/// Calls move(bytes of the pool, offset in the row, how many) for each piece of a token's K (or V)
/// row. A row has one head after the other; a head of a quantised type its levels, then its scales.
template <class Move>
void for_each_piece(const kern::KvPoolView& pool, bool is_v, int32_t block, int64_t offset,
                    Move&& move) {
  const kern::KvType type = is_v ? pool.v_type : pool.k_type;
  const int64_t dim = is_v ? pool.head_dim_v : pool.head_dim;
  const int64_t head_bytes = kern::kv_head_bytes(type, dim);
  const int64_t levels = kern::kv_scales_at(type, dim) / kern::kBlockTok;  // bytes of a token
  const int64_t size = type == kern::KvType::kF32 ? 4 : type == kern::KvType::kF16 ? 2 : 1;
  const int64_t n_scale = kern::is_quantised(type) ? dim / kern::kKvGroup : 0;
  std::byte* base = is_v ? pool.v + block * kern::v_block_bytes(pool)
                         : pool.k + block * kern::k_block_bytes(pool);
  for (int64_t h = 0; h < pool.n_kv_head; ++h) {
    std::byte* head = base + h * head_bytes;
    std::byte* scales = head + levels * kern::kBlockTok;
    const int64_t row = h * head_bytes / kern::kBlockTok;
    if (is_v) {
      move(head + offset * levels, row, levels);
    } else {
      for (int64_t i = 0; i < levels / size; ++i)  // K lies with tokens side by side
        move(head + (i * kern::kBlockTok + offset) * size, row + i * size, size);
    }
    for (int64_t g = 0; g < n_scale; ++g)
      move(scales + (g * kern::kBlockTok + offset) * 2, row + levels + g * 2, 2);
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
