#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/engine_internal.h"
#include "core/runtime/executor.h"
#include "core/runtime/kv_cache.h"

/// A model without arithmetic for tests of the cache, the scheduler and the engine: the logits
/// after a token are a pure function of all tokens up to it.
namespace infer::test {

/// Identifies a prefix: the hash after `token` at `pos`, given the hash before it (0 at the
/// beginning).
uint64_t extend_prefix(uint64_t hash, int32_t token, int64_t pos);
/// Logits in [-6, 6] with ties and a few -inf. One token of `rare` is drawn now and then only.
void fake_logits(uint64_t prefix, std::span<const TokenId> rare, std::span<float> logits);

/// Physical blocks of all groups that remember whose token they hold. Checks what a backend would
/// silently compute with.
class ShadowPools {
 public:
  explicit ShadowPools(std::vector<runtime::KvGroupConfig> groups);
  /// Applies the step's copies, then writes its rows. Returns the prefix hash of each row.
  std::vector<uint64_t> write(const runtime::Step& step);
  /// Every slot that a row sees holds the token of its own sequence at that slot.
  void check_visible(const runtime::Step& step, std::span<const uint64_t> prefixes);
  /// The first thing found wrong; empty if nothing was.
  const std::string& violation() const { return violation_; }
  void report(std::string what);

 private:
  struct Slot {
    int32_t token = -1;
    int64_t pos = -1;
    uint64_t prefix = 0;
  };
  Slot* at(const runtime::Step& step, size_t group, int32_t seq, int64_t slot);
  void check_run(const runtime::Step& step, size_t first, size_t last,
                 std::span<const uint64_t> prefixes);

  std::vector<runtime::KvGroupConfig> groups_;
  std::vector<std::vector<Slot>> slots_;  ///< [n_group][n_block * kBlockTok]
  std::string violation_;
};

struct FakeModelOptions {
  int32_t n_vocab = 40;
  std::vector<TokenId> eog{0, 1};
  std::vector<runtime::KvGroupConfig> groups;
  int64_t n_batch = 1;
  size_t tile_rows = 3;
  TokenId poison = -1;      ///< a step with this token fails with kNumeric
  bool whole_rows = false;  ///< of logits for everybody, as a CPU does; else what was asked for
};

class FakeExecutor final : public runtime::Executor {
 public:
  explicit FakeExecutor(FakeModelOptions options);
  Result<runtime::Ticket> submit(const runtime::Step& step, runtime::LogitSink* sink) override;
  Result<void> wait(runtime::Ticket ticket) override;
  runtime::MemoryReport memory() const override { return {}; }
  std::string dump() const override { return "fake"; }

  const std::string& violation() const { return pools_.violation(); }
  int64_t max_rows_seen() const { return max_rows_seen_; }
  int64_t n_copies_seen() const { return n_copies_seen_; }
  int64_t n_whole_rows() const { return n_whole_rows_; }  ///< of logits that were asked for
  int64_t n_top_rows() const { return n_top_rows_; }      ///< of which less was asked for

 private:
  void check_shape(const runtime::Step& step);
  void give_logits(const runtime::Step& step, std::span<const uint64_t> prefixes,
                   runtime::LogitSink& sink);
  void add_row(int32_t row, uint64_t prefix, int n_top);
  void hand_over(runtime::LogitSink& sink);

  FakeModelOptions options_;
  ShadowPools pools_;
  runtime::Ticket ticket_ = 0;
  bool failed_ = false;
  int64_t max_rows_seen_ = 0, n_copies_seen_ = 0;
  int64_t n_whole_rows_ = 0, n_top_rows_ = 0;
  /// The tile in work. Its rows want the same: whole rows (n_top -1), or so many of the best.
  struct Tile {
    int n_top = -1;
    std::vector<int32_t> rows, top_ids;
    std::vector<float> logits, top_logits;
    std::vector<runtime::LogitStats> stats;
  } tile_;
};

/// Token i is a letter, or a few; some have no text, the text of one comes with the next token
/// only.
class FakeVocabulary final : public internal::Vocabulary {
 public:
  FakeVocabulary(int32_t n_vocab, std::vector<TokenId> eog);
  int32_t n_vocab() const override { return static_cast<int32_t>(pieces_.size()); }
  std::span<const TokenId> eog_ids() const override { return eog_; }
  std::unique_ptr<internal::TextDecoder> make_decoder() const override;
  std::string_view piece(TokenId id) const override { return pieces_[static_cast<size_t>(id)]; }

 private:
  std::vector<std::string> pieces_;
  std::vector<TokenId> eog_;
};
/// Its text is held back until the next token or the end.
inline constexpr TokenId kLateToken = 5;

struct FakeEngine {
  std::unique_ptr<Engine> engine;
  const FakeExecutor* executor = nullptr;  ///< owned by the engine
};
/// An engine over a FakeExecutor with options.groups.
FakeEngine make_fake_engine(const FakeModelOptions& model, const EngineOptions& options);

}  // namespace infer::test
