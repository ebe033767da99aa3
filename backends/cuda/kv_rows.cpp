#include <algorithm>
#include <cstring>

#include "backends/cuda/executable.h"
#include "core/base/check.h"

/// K and V between the pool's layout and rows a token: what sessions are made of. Only bytes move,
/// block by block, so that what comes back is what was there.
namespace infer::cuda {
namespace {

/// Calls move(place in the block, place in the row, how many) for each piece of a token's row of K
/// or V: the values of a head, or for each 32 of them the scale and the levels.
template <class Move>
void for_each_piece(DType type, const KvPool& pool, int64_t offset, Move&& move) {
  const int64_t head_bytes = kv_head_bytes(type, pool.head_dim);
  const int64_t levels = kv_scales_at(type, pool.head_dim) / kBlockTok;  // of a token's head
  const bool quantised = type == DType::kQ8_0 || type == DType::kQ4_0;
  const int64_t n_group = quantised ? pool.head_dim / 32 : 0;
  for (int64_t h = 0; h < pool.n_kv_head; ++h) {
    const int64_t head = h * head_bytes;
    const int64_t row = head / kBlockTok;
    if (!quantised) {
      move(head + offset * levels, row, levels);
      continue;
    }
    const int64_t per_group = levels / n_group;
    for (int64_t g = 0; g < n_group; ++g) {
      const int64_t to = row + g * (2 + per_group);
      move(head + levels * kBlockTok + (offset * n_group + g) * 2, to, 2);
      move(head + offset * levels + g * per_group, to + 2, per_group);
    }
  }
}

}  // namespace

/// One of K and V of a layer, and the rows on the host.
struct CudaExecutable::KvRows {
  KvPool pool;
  int64_t k_block = 0, v_block = 0;

  /// Calls fn(type, memory of block b, its bytes, slots [begin, end) of it, their rows at).
  template <class Fn>
  Result<void> for_each_block(const runtime::KvRange& range, bool is_v, Fn&& fn) const {
    const int64_t bytes = is_v ? v_block : k_block;
    for (int64_t slot = range.begin; slot < range.end;) {
      const int64_t end = std::min<int64_t>(range.end, (slot / kBlockTok + 1) * kBlockTok);
      const int64_t block = range.table[static_cast<size_t>(slot / kBlockTok)];
      INFER_TRY(fn((is_v ? pool.v : pool.k) + block * bytes, bytes, slot % kBlockTok, end - slot,
                   (slot - range.begin) * bytes / kBlockTok));
      slot = end;
    }
    return {};
  }
};

CudaExecutable::KvRows CudaExecutable::kv_rows(const runtime::KvRange& range, size_t k_bytes,
                                               size_t v_bytes) const {
  KvRows rows;
  rows.pool = stage_->pool(range.cache_layer);
  const PoolPlace& place = stage_->layout().pools[static_cast<size_t>(range.cache_layer)];
  rows.k_block = place.k_block_bytes;
  rows.v_block = place.v_block_bytes;
  const int64_t n = range.end - range.begin;
  const int64_t k = rows.k_block / kBlockTok * n;
  const int64_t v = rows.v_block / kBlockTok * n;
  INFER_CHECK(static_cast<int64_t>(k_bytes) == k && static_cast<int64_t>(v_bytes) == v,
              "{} slots: {} and {} bytes, expected {} and {}", n, k_bytes, v_bytes, k, v);
  return rows;
}

Result<void> CudaExecutable::export_kv(const runtime::KvRange& range, std::span<std::byte> k,
                                       std::span<std::byte> v) {
  INFER_TRY(begin_call());
  const KvRows rows = kv_rows(range, k.size(), v.size());
  std::vector<std::byte> block;
  for (const bool is_v : {false, true}) {
    const DType type = is_v ? rows.pool.type_v : rows.pool.type_k;
    std::byte* const out = (is_v ? v : k).data();
    const auto move_block = [&](std::byte* memory, int64_t bytes, int64_t offset, int64_t n,
                                int64_t row_at) -> Result<void> {
      block.resize(static_cast<size_t>(bytes));
      INFER_TRY(copy(block.data(), memory, bytes, cudaMemcpyDeviceToHost));
      INFER_TRY(stage_->stream().wait());
      for (int64_t i = 0; i < n; ++i)
        for_each_piece(type, rows.pool, offset + i, [&](int64_t at, int64_t to, int64_t size) {
          std::memcpy(out + row_at + i * bytes / kBlockTok + to, block.data() + at,
                      static_cast<size_t>(size));
        });
      return {};
    };
    INFER_TRY(remember(rows.for_each_block(range, is_v, move_block)));
  }
  return {};
}

Result<void> CudaExecutable::import_kv(const runtime::KvRange& range, std::span<const std::byte> k,
                                       std::span<const std::byte> v) {
  INFER_TRY(begin_call());
  const KvRows rows = kv_rows(range, k.size(), v.size());
  std::vector<std::byte> block;
  for (const bool is_v : {false, true}) {
    const DType type = is_v ? rows.pool.type_v : rows.pool.type_k;
    const std::byte* const in = (is_v ? v : k).data();
    const auto move_block = [&](std::byte* memory, int64_t bytes, int64_t offset, int64_t n,
                                int64_t row_at) -> Result<void> {
      block.resize(static_cast<size_t>(bytes));
      INFER_TRY(copy(block.data(), memory, bytes, cudaMemcpyDeviceToHost));
      INFER_TRY(stage_->stream().wait());
      for (int64_t i = 0; i < n; ++i)
        for_each_piece(type, rows.pool, offset + i, [&](int64_t at, int64_t to, int64_t size) {
          std::memcpy(block.data() + at, in + row_at + i * bytes / kBlockTok + to,
                      static_cast<size_t>(size));
        });
      INFER_TRY(copy(memory, block.data(), bytes, cudaMemcpyHostToDevice));
      return stage_->stream().wait();
    };
    INFER_TRY(remember(rows.for_each_block(range, is_v, move_block)));
  }
  return {};
}

}  // namespace infer::cuda
