#include "tests/support/fake_executor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "core/base/error.h"

namespace infer::test {

using runtime::kBlockTok;

namespace {

uint64_t scramble(uint64_t v) {
  v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
  v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
  return v ^ (v >> 31);
}

runtime::LogitStats stats_of(std::span<const float> logits) {
  const auto best = std::max_element(logits.begin(), logits.end());
  runtime::LogitStats stats{.max = *best, .argmax = static_cast<int32_t>(best - logits.begin())};
  for (float x : logits) stats.sum_exp += std::exp(static_cast<double>(x) - stats.max);
  return stats;
}

}  // namespace

uint64_t extend_prefix(uint64_t hash, int32_t token, int64_t pos) {
  return scramble(hash * 3 + static_cast<uint64_t>(token) * 0x9e3779b97f4a7c15u +
                  static_cast<uint64_t>(pos) + 1);
}

void fake_logits(uint64_t prefix, std::span<const TokenId> rare, std::span<float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    const uint64_t h = scramble(prefix + 0x9e3779b97f4a7c15u * (i + 1));
    logits[i] = static_cast<float>(h % 49) * 0.25f - 6.0f;  // coarse steps make ties
    if (h % 61 == 0) logits[i] = -std::numeric_limits<float>::infinity();
  }
  const bool now = prefix % 24 == 0;
  for (size_t i = 0; i < rare.size(); ++i)
    logits[static_cast<size_t>(rare[i])] = now && prefix / 24 % rare.size() == i ? 9.0f : -6.0f;
}

ShadowPools::ShadowPools(std::vector<runtime::KvGroupConfig> groups) : groups_(std::move(groups)) {
  for (const runtime::KvGroupConfig& g : groups_)
    slots_.emplace_back(static_cast<size_t>(g.n_block * kBlockTok));
}

void ShadowPools::report(std::string what) {
  if (violation_.empty()) violation_ = std::move(what);
}

ShadowPools::Slot* ShadowPools::at(const runtime::Step& step, size_t group, int32_t seq,
                                   int64_t slot) {
  const std::span<const int32_t> table = step.tables[group].of(seq);
  const auto i = static_cast<size_t>(slot / kBlockTok);
  const int32_t block = i < table.size() ? table[i] : -2;
  if (block < 0 || block >= groups_[group].n_block) {
    report(fmt::format("group {} seq {} slot {}: block {}", group, seq, slot, block));
    return nullptr;
  }
  return &slots_[group][static_cast<size_t>(block * kBlockTok + slot % kBlockTok)];
}

std::vector<uint64_t> ShadowPools::write(const runtime::Step& step) {
  for (const runtime::BlockCopy& copy : step.copies) {
    const auto g = static_cast<size_t>(copy.group);
    const auto n = groups_[g].n_block;
    if (copy.src < 0 || copy.dst < 0 || copy.src >= n || copy.dst >= n || copy.src == copy.dst) {
      report(fmt::format("group {}: copy of block {} to {}", g, copy.src, copy.dst));
      continue;
    }
    std::copy_n(slots_[g].begin() + copy.src * kBlockTok, kBlockTok,
                slots_[g].begin() + copy.dst * kBlockTok);
  }
  std::vector<uint64_t> prefixes;
  for (const runtime::Row& row : step.rows) {
    uint64_t before = 0;
    if (row.slot > 0) {
      const Slot* previous = at(step, 0, row.seq, row.slot - 1);
      if (previous != nullptr) before = previous->prefix;
    }
    prefixes.push_back(extend_prefix(before, row.token, row.slot));
    for (size_t g = 0; g < groups_.size(); ++g) {
      if (Slot* slot = at(step, g, row.seq, row.slot); slot != nullptr)
        *slot = {.token = row.token, .pos = row.pos, .prefix = prefixes.back()};
    }
  }
  return prefixes;
}

void ShadowPools::check_visible(const runtime::Step& step, std::span<const uint64_t> prefixes) {
  for (size_t first = 0; first < step.rows.size();) {
    size_t last = first;
    while (last + 1 < step.rows.size() && step.rows[last + 1].seq == step.rows[first].seq) ++last;
    check_run(step, first, last, prefixes);
    first = last + 1;
  }
}

/// Rows [first, last] are of one sequence: all that any of them sees.
void ShadowPools::check_run(const runtime::Step& step, size_t first, size_t last,
                            std::span<const uint64_t> prefixes) {
  const int32_t seq = step.rows[first].seq;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int64_t window = groups_[g].window;
    const int64_t begin =
        window == 0 ? 0 : std::max<int64_t>(0, step.rows[first].slot - window + 1);
    const Slot* previous = nullptr;
    for (int64_t s = begin; s <= step.rows[last].slot; ++s) {
      const Slot* slot = at(step, g, seq, s);
      if (slot == nullptr) return;
      const uint64_t before = previous != nullptr ? previous->prefix : 0;
      const bool known = previous != nullptr || s == 0;
      if (slot->pos != s || (known && slot->prefix != extend_prefix(before, slot->token, s)))
        report(fmt::format("group {} seq {} slot {} holds token {} of pos {}", g, seq, s,
                           slot->token, slot->pos));
      previous = slot;
    }
    if (previous->prefix != prefixes[last])
      report(fmt::format("group {} seq {}: another sequence's past", g, seq));
  }
}

FakeExecutor::FakeExecutor(FakeModelOptions options)
    : options_(std::move(options)), pools_(options_.groups) {}

void FakeExecutor::check_shape(const runtime::Step& step) {
  const auto n_row = static_cast<int64_t>(step.rows.size());
  max_rows_seen_ = std::max(max_rows_seen_, n_row);
  n_copies_seen_ += static_cast<int64_t>(step.copies.size());
  if (n_row == 0 || n_row > options_.n_batch) pools_.report(fmt::format("{} rows", n_row));
  if (step.tables.size() != options_.groups.size()) pools_.report("number of tables");
  for (const runtime::Step::Table& t : step.tables) {
    if (static_cast<int64_t>(t.blocks.size()) != t.stride * step.n_seq)
      pools_.report("size of a table");
  }
  int32_t seq = -1;
  for (size_t i = 0; i < step.rows.size(); ++i) {
    const runtime::Row& row = step.rows[i];
    const bool next = row.seq != seq;
    if (next ? row.seq != seq + 1 : row.slot != step.rows[i - 1].slot + 1)
      pools_.report(fmt::format("row {}: seq {} slot {} is out of order", i, row.seq, row.slot));
    if (row.token < 0 || row.token >= options_.n_vocab || row.pos != row.slot)
      pools_.report(
          fmt::format("row {}: token {} pos {} slot {}", i, row.token, row.pos, row.slot));
    seq = row.seq;
  }
  if (seq + 1 != step.n_seq) pools_.report(fmt::format("{} of {} sequences", seq + 1, step.n_seq));
}

void FakeExecutor::add_row(int32_t row, uint64_t prefix, int n_top) {
  std::vector<float> logits(static_cast<size_t>(options_.n_vocab));
  fake_logits(prefix, options_.eog, logits);
  tile_.n_top = n_top;
  tile_.rows.push_back(row);
  tile_.stats.push_back(stats_of(logits));
  if (n_top < 0) {
    tile_.logits.insert(tile_.logits.end(), logits.begin(), logits.end());
    return;
  }
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto of = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return of(a) > of(b); });
  for (int k = 0; k < n_top; ++k) {
    tile_.top_ids.push_back(ids[static_cast<size_t>(k)]);
    tile_.top_logits.push_back(of(ids[static_cast<size_t>(k)]));
  }
}

void FakeExecutor::hand_over(runtime::LogitSink& sink) {
  if (tile_.rows.empty()) return;
  const auto view = [&]<class T>(const std::vector<T>& all, int64_t n) {
    return MatView<const T>{all.data(), std::ssize(tile_.rows), n, n};
  };
  runtime::LogitTile tile{.rows = tile_.rows, .logits = {}, .stats = tile_.stats};
  if (tile_.n_top < 0) {
    tile.logits = view(tile_.logits, options_.n_vocab);
  } else {
    tile.top_logits = view(tile_.top_logits, tile_.n_top);
    tile.top_ids = view(tile_.top_ids, tile_.n_top);
  }
  sink.on_logits(tile);
  tile_ = {};
}

void FakeExecutor::give_logits(const runtime::Step& step, std::span<const uint64_t> prefixes,
                               runtime::LogitSink& sink) {
  for (size_t i = 0; i < step.rows.size(); ++i) {
    const runtime::Row& row = step.rows[i];
    if (row.n_top > (row.want == runtime::Want::kTop ? runtime::kMaxTop : 0))
      pools_.report(fmt::format("row {}: the best {} logits", i, row.n_top));
    if (!runtime::wants_logits(row.want)) continue;
    const bool top = row.want == runtime::Want::kTop;
    ++(top ? n_top_rows_ : n_whole_rows_);
    const int n_top = top && !options_.whole_rows ? std::min<int>(row.n_top, options_.n_vocab) : -1;
    if (n_top != tile_.n_top) hand_over(sink);
    add_row(static_cast<int32_t>(i), prefixes[i], n_top);
    if (tile_.rows.size() == options_.tile_rows) hand_over(sink);
  }
  hand_over(sink);
}

Result<runtime::Ticket> FakeExecutor::submit(const runtime::Step& step, runtime::LogitSink* sink) {
  check_shape(step);
  const std::vector<uint64_t> prefixes = pools_.write(step);
  pools_.check_visible(step, prefixes);
  failed_ = std::ranges::any_of(
      step.rows, [&](const runtime::Row& row) { return row.token == options_.poison; });
  if (!failed_) give_logits(step, prefixes, *sink);
  return ++ticket_;
}

Result<void> FakeExecutor::wait(runtime::Ticket ticket) {
  if (ticket != ticket_) return make_error(ErrorCode::kInvalidArgument, "ticket {}", ticket);
  if (failed_) return make_error(ErrorCode::kNumeric, "blk.0.attn: NaN");
  return {};
}

namespace {

class FakeDecoder final : public internal::TextDecoder {
 public:
  explicit FakeDecoder(const FakeVocabulary& vocabulary) : vocabulary_(vocabulary) {}
  std::string_view push(TokenId id) override {
    out_ = std::exchange(late_, {});
    (id == kLateToken ? late_ : out_) += vocabulary_.piece(id);
    return out_;
  }
  std::string_view finish() override { return out_ = std::exchange(late_, {}); }

 private:
  const FakeVocabulary& vocabulary_;
  std::string late_, out_;
};

}  // namespace

FakeVocabulary::FakeVocabulary(int32_t n_vocab, std::vector<TokenId> eog) : eog_(std::move(eog)) {
  for (int32_t i = 0; i < n_vocab; ++i) {
    std::string piece(1, static_cast<char>('a' + i % 26));
    if (i % 7 == 3) piece += static_cast<char>('a' + i / 7);
    if (i % 11 == 4) piece.clear();
    pieces_.push_back(std::move(piece));
  }
}

std::unique_ptr<internal::TextDecoder> FakeVocabulary::make_decoder() const {
  return std::make_unique<FakeDecoder>(*this);
}

FakeEngine make_fake_engine(const FakeModelOptions& model, const EngineOptions& options) {
  FakeModelOptions fake = model;
  fake.n_batch = options.n_batch;
  auto executor = std::make_unique<FakeExecutor>(fake);
  FakeEngine result;
  result.executor = executor.get();
  internal::EngineParts parts;
  parts.executor = std::move(executor);
  parts.vocabulary = std::make_unique<FakeVocabulary>(fake.n_vocab, fake.eog);
  parts.groups = fake.groups;
  parts.summary = "fake";
  auto engine = internal::create_with(std::move(parts), options);
  INFER_CHECK(engine.ok(), "{}", engine.error().message);
  result.engine = std::move(engine).value();
  return result;
}

}  // namespace infer::test
