#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// A step is plain data: what every stage of a model computes at once (design.md section 3, "Ragged
/// steps").
namespace infer::runtime {

/// Tokens in one KV block; one constant of every plan, equal on all backends.
inline constexpr int64_t kBlockTok = 32;

/// What somebody wants to see of a row. kTop: of its logits only the stats and the best n_top, so
/// that a device need not hand over a whole row.
enum class Want : uint8_t { kNone, kTop, kLogits, kHidden, kPooled };
/// Whether the row takes part in the output matrix.
constexpr bool wants_logits(Want want) { return want == Want::kTop || want == Want::kLogits; }
/// Most candidates a row may ask for.
inline constexpr int kMaxTop = 64;

/// Adds scale times what graph::Graph::adapters[adapter] adds to each weight.
struct AdapterUse {
  int32_t adapter = 0;
  float scale = 1.0f;
  bool operator==(const AdapterUse&) const = default;
};

/// One token of one sequence.
struct Row {
  int32_t token = 0;     ///< < n_vocab
  int32_t pos = 0;       ///< what RoPE and ALiBi see
  int32_t slot = 0;      ///< index in the sequence's cache; block = slot / kBlockTok
  int32_t seq = 0;       ///< index into this step's block tables, < n_seq
  int32_t adapter = -1;  ///< which of the step's mixes of adapters; -1: the model as it is
  Want want = Want::kNone;
  uint8_t n_top = 0;  ///< kTop: best logits wanted, <= kMaxTop; 0: the stats only
};

/// Copies a physical block inside one group's pool, all its layers. Copies run in order, before the
/// rows.
struct BlockCopy {
  int32_t group = 0;
  int32_t src = 0;
  int32_t dst = 0;
};

struct Step {
  /// Rows of one sequence are adjacent and ascend in slot. A row sees its own sequence's slots <=
  /// its own, those of this step included.
  std::vector<Row> rows;
  int32_t n_seq = 0;
  std::vector<BlockCopy> copies;
  /// Per cache group: [n_seq][table_stride] physical blocks; -1 for a block that slid out of a
  /// window.
  struct Table {
    std::vector<int32_t> blocks;
    int64_t stride = 0;
    std::span<const int32_t> of(int32_t seq) const {
      return {blocks.data() + seq * stride, static_cast<size_t>(stride)};
    }
  };
  std::vector<Table> tables;

  /// Mixes of adapters: uses [mix_ends[i - 1], mix_ends[i]) are mix i, in the order in which they
  /// are added.
  std::vector<AdapterUse> uses;
  std::vector<int32_t> mix_ends;
  std::span<const AdapterUse> mix(int32_t i) const {
    const auto at = static_cast<size_t>(i);
    const auto begin = static_cast<size_t>(at == 0 ? 0 : mix_ends[at - 1]);
    return std::span(uses).subspan(begin, static_cast<size_t>(mix_ends[at]) - begin);
  }

  /// Empties the step and keeps its memory, so that decoding allocates nothing.
  void clear() {
    rows.clear();
    copies.clear();
    uses.clear();
    mix_ends.clear();
    n_seq = 0;
    for (Table& t : tables) t.blocks.clear();
  }
};

}  // namespace infer::runtime
