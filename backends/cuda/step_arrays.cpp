#include "backends/cuda/step_arrays.h"

#include <algorithm>
#include <utility>

#include "backends/cuda/memory.h"
#include "core/base/check.h"
#include "core/base/checked.h"
#include "core/base/error.h"

namespace infer::cuda {

static_assert(kBlockTok == runtime::kBlockTok);

Result<StepLayout> StepLayout::plan(const graph::Graph& graph, const graph::Capacity& capacity,
                                    int64_t n_ctx, std::vector<int> tile_rows) {
  StepLayout s;
  s.n_tok = capacity.n_tok;
  s.n_logit_rows = capacity.n_logit_rows;
  s.tile_rows = std::move(tile_rows);
  s.n_group = static_cast<int64_t>(graph.cache_groups.size());
  s.group_stride = ceil_div<int64_t>(n_ctx, kBlockTok);
  s.max_copies = s.n_tok * s.n_group;
  Parts parts;
  s.live_at = parts.take(sizeof(int32_t));
  s.single_at = parts.take(sizeof(int32_t));
  s.turn_live_at = parts.take(ceil_div(s.n_tok, s.n_logit_rows) * int64_t{sizeof(int32_t)});
  for (int64_t* at : {&s.token_at, &s.pos_at, &s.slot_at, &s.seq_at, &s.want_at})
    *at = parts.take(s.n_tok * int64_t{sizeof(int32_t)});
  for (size_t i = 0; i < s.tile_rows.size(); ++i)
    s.tiles_at.push_back(parts.take(s.n_tok * int64_t{sizeof(QueryTile)}));
  s.copies_at = parts.take(s.max_copies * int64_t{sizeof(int2)});
  const auto one = checked_mul<int64_t>(s.n_group * int64_t{sizeof(int32_t)}, s.group_stride);
  const auto tables = one ? checked_mul(s.n_tok, *one) : std::nullopt;
  if (!tables || !checked_add<int64_t>(*tables, parts.n_bytes() + kPartAlign))
    return make_error(ErrorCode::kOutOfMemory, "cuda: block tables of {} tokens are too large",
                      n_ctx);
  s.tables_at = parts.take(*tables);
  s.n_bytes = parts.n_bytes();
  return s;
}

Rows StepLayout::rows(std::byte* base, int m) const {
  return {m,
          at<int32_t>(base, live_at),
          at<int32_t>(base, token_at),
          at<int32_t>(base, pos_at),
          at<int32_t>(base, slot_at),
          at<int32_t>(base, seq_at)};
}

Rows StepLayout::single_rows(std::byte* base, int m) const {
  Rows r = rows(base, m);
  r.n_live = at<int32_t>(base, single_at);
  return r;
}

BlockTable StepLayout::table(std::byte* base, int group) const {
  return {at<int32_t>(base, tables_at) + group * group_stride, n_group * group_stride};
}

void StepFacts::reserve(const StepLayout& layout) {
  want.reserve(static_cast<size_t>(layout.n_tok));
  n_tile.resize(layout.tile_rows.size());
  copies_before.resize(static_cast<size_t>(layout.n_group) + 1);
}

namespace {

void fill_rows(const StepLayout& l, const runtime::Step& step, std::byte* host, StepFacts* facts) {
  auto* token = StepLayout::at<int32_t>(host, l.token_at);
  auto* pos = StepLayout::at<int32_t>(host, l.pos_at);
  auto* slot = StepLayout::at<int32_t>(host, l.slot_at);
  auto* seq = StepLayout::at<int32_t>(host, l.seq_at);
  facts->n_single = 0;
  facts->want.clear();
  for (size_t r = 0; r < step.rows.size(); ++r) {
    const runtime::Row& row = step.rows[r];
    token[r] = row.token;
    pos[r] = row.pos;
    slot[r] = row.slot;
    seq[r] = row.seq;
    const bool is_single = r + 1 == step.rows.size() || row.seq != step.rows[r + 1].seq;
    if (is_single && facts->n_single == static_cast<int>(r)) ++facts->n_single;
    if (runtime::wants_logits(row.want)) facts->want.push_back(static_cast<int32_t>(r));
  }
  facts->n_row = static_cast<int>(step.rows.size());
  *StepLayout::at<int32_t>(host, l.live_at) = facts->n_row;
  *StepLayout::at<int32_t>(host, l.single_at) = facts->n_single;
  std::copy(facts->want.begin(), facts->want.end(), StepLayout::at<int32_t>(host, l.want_at));
  auto* live = StepLayout::at<int32_t>(host, l.turn_live_at);
  const auto n_want = static_cast<int64_t>(facts->want.size());
  for (int64_t t = 0; t < ceil_div(l.n_tok, l.n_logit_rows); ++t)
    live[t] =
        static_cast<int32_t>(std::clamp<int64_t>(n_want - t * l.n_logit_rows, 0, l.n_logit_rows));
}

/// Adjacent rows of one sequence, as many as a tile takes.
int fill_tiles(const runtime::Step& step, int first, int tile_rows, QueryTile* tiles) {
  int n = 0;
  for (auto r = static_cast<size_t>(first); r < step.rows.size(); ++r) {
    if (n > 0 && step.rows[r].seq == step.rows[r - 1].seq && tiles[n - 1].n < tile_rows) {
      ++tiles[n - 1].n;
    } else {
      tiles[n++] = {static_cast<int32_t>(r), 1};
    }
  }
  return n;
}

void fill_copies(const StepLayout& l, const runtime::Step& step, std::byte* host,
                 StepFacts* facts) {
  INFER_CHECK(static_cast<int64_t>(step.copies.size()) <= l.max_copies,
              "{} block copies, at most {}", step.copies.size(), l.max_copies);
  auto* out = StepLayout::at<int2>(host, l.copies_at);
  int n = 0;
  for (int32_t group = 0; group < l.n_group; ++group) {
    facts->copies_before[static_cast<size_t>(group)] = n;
    for (const runtime::BlockCopy& copy : step.copies) {
      if (copy.group == group) out[n++] = {copy.src, copy.dst};
    }
  }
  facts->copies_before[static_cast<size_t>(l.n_group)] = n;
}

}  // namespace

void fill_step(const StepLayout& l, const runtime::Step& step, std::byte* host, StepFacts* facts) {
  INFER_CHECK(static_cast<int64_t>(step.rows.size()) <= l.n_tok && step.n_seq <= l.n_tok,
              "{} rows of {} sequences, capacity {}", step.rows.size(), step.n_seq, l.n_tok);
  fill_rows(l, step, host, facts);
  for (size_t i = 0; i < l.tile_rows.size(); ++i)
    facts->n_tile[i] = fill_tiles(step, facts->n_single, l.tile_rows[i],
                                  StepLayout::at<QueryTile>(host, l.tiles_at[i]));
  fill_copies(l, step, host, facts);
  auto* tables = StepLayout::at<int32_t>(host, l.tables_at);
  for (int64_t group = 0; group < l.n_group; ++group) {
    const runtime::Step::Table& from = step.tables[static_cast<size_t>(group)];
    INFER_CHECK(from.stride <= l.group_stride, "a table of {} blocks, at most {}", from.stride,
                l.group_stride);
    for (int32_t seq = 0; seq < step.n_seq; ++seq) {
      const std::span<const int32_t> blocks = from.of(seq);
      std::copy(blocks.begin(), blocks.end(), tables + (seq * l.n_group + group) * l.group_stride);
    }
  }
  facts->n_bytes = l.tables_at + step.n_seq * l.n_group * l.group_stride * int64_t{sizeof(int32_t)};
}

}  // namespace infer::cuda
