#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/attention.h"

/// One attention problem of the CUDA kernels: a filled pool behind shuffled block tables, queries,
/// and the f64 answer with its bound.
namespace infer::cuda::test {

struct AttentionShape {
  int head_dim = 64, n_kv_head = 1, group = 1;
  DType type_k = DType::kF16, type_v = DType::kF16;
  std::vector<std::vector<int32_t>> slots = {{0}};  ///< of each sequence's rows, ascending
  int window = 0;
  float softcap = 0.0f;
  bool alibi = false;
  std::vector<uint64_t> tree = {};  ///< [live rows] or empty
  int n_dead = 0;                   ///< rows of the launch beyond the live ones
  float size = 2.0f;                ///< of queries: logits have about this deviation

  std::string text() const;
};

/// Places that no row may read hold NaN: blocks of nobody, slots that were not written yet, slots
/// before every window. Rows beyond the live ones have NaN queries and indices out of range. Values
/// next to the edges of what rows see are large, so that one slot too many or too few shows.
class AttentionCase {
 public:
  AttentionCase(const AttentionShape& shape, uint32_t seed);

  AttentionShape shape;
  int n_live = 0, m = 0, n_head = 0, n_block = 0;
  float scale = 0.0f;
  std::vector<float> q;       ///< [m, n_head, head_dim]
  std::vector<float> slopes;  ///< [n_head], empty without ALiBi
  std::vector<int32_t> slot, seq, tree_first;
  std::vector<uint64_t> tree;
  std::vector<int32_t> table;  ///< [sequences, table_stride]
  int table_stride = 0;
  std::vector<std::byte> k, v;  ///< the pool's

  bool sees(int row, int slot) const;

  struct Reference {
    std::vector<double> out, bound;  ///< [n_live, n_head, head_dim]
  };
  Reference reference() const;

 private:
  /// Offsets in the pool of a level or value, and of its scale; shift of the nibble in its byte.
  struct Place {
    int64_t level, scale;
    int shift;
  };
  struct Logit {
    double value, err;  ///< base 2
  };

  void place_blocks(uint32_t seed);
  void fill_pool(uint32_t seed);
  bool is_edge(int sequence, int slot) const;
  Place place(bool of_k, int sequence, int slot, int kv_head, int dim) const;
  /// Value as the pool's bytes say it, before the kernel makes 16 bits of it.
  double read(bool of_k, int sequence, int slot, int kv_head, int dim) const;
  void write(bool of_k, int sequence, int slot, int kv_head, int dim, float x, float factor);
  Logit logit_of(int row, int head, int slot) const;
  void reference_of(int row, int head, double* out, double* bound) const;

  std::vector<int> n_slot_, first_seen_;  ///< of a sequence
};

}  // namespace infer::cuda::test
