#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/table.h"

/// One attention problem: a filled pool behind a shuffled block table, queries, and the f64 answer
/// with its bound.
namespace infer::test {

struct AttnShape {
  int64_t n_kv_head = 1, group = 1;  ///< n_head = n_kv_head * group
  int64_t head_dim = 64, head_dim_v = 64;
  kern::KvType k_type = kern::KvType::kF32, v_type = kern::KvType::kF32;
  std::vector<int32_t> q_slot = {0};  ///< one a row; slots 0 .. max are filled
  int64_t window = 0;
  float scale = 0.125f;
  float softcap = 0.0f;
  bool alibi = false;

  std::string text() const;
};

class AttnCase {
 public:
  AttnCase(const AttnShape& shape, std::mt19937& rng);

  const AttnShape& shape() const { return shape_; }
  int64_t n_head() const { return shape_.n_kv_head * shape_.group; }
  int64_t n_rows() const { return static_cast<int64_t>(shape_.q_slot.size()); }
  int64_t n_slots() const { return n_slots_; }
  int64_t n_spans() const;
  bool sees(int64_t row, int64_t slot) const;

  /// As the kernels read them back: f16 values are already rounded, those of quantised types are
  /// levels times scales and belong to rotated rows (set_* raises the scale of a group if it has
  /// to, which changes its neighbours).
  float k_at(int64_t slot, int64_t kv_head, int64_t d) const;
  float v_at(int64_t slot, int64_t kv_head, int64_t d) const;
  void set_k(int64_t slot, int64_t kv_head, int64_t d, float value);
  void set_v(int64_t slot, int64_t kv_head, int64_t d, float value);
  /// q of a row and head.
  float* q_at(int64_t row, int64_t head);
  /// Moves every block to another physical place.
  void shuffle_blocks(std::mt19937& rng);

  /// Partials of `rows` (indices) over spans [begin, end) in one call a KV head: [rows][n_head][2 +
  /// head_dim_v].
  std::vector<float> partials(const kern::CpuKernels& kernels, std::span<const int64_t> rows,
                              int64_t span_begin, int64_t span_end) const;
  /// Outputs [rows][n_head][head_dim_v] by attn_finish.
  std::vector<float> finish(const kern::CpuKernels& kernels, std::span<const float> partials) const;
  /// All rows in one call.
  std::vector<float> run(const kern::CpuKernels& kernels) const;

  struct Reference {
    std::vector<double> out, bound;  ///< [n_rows][n_head][head_dim_v]
  };
  Reference reference() const;

 private:
  struct Place {
    std::byte* level;            ///< or the value
    std::byte* scale = nullptr;  ///< quantised types
    int64_t shift = 0;           ///< of the nibble in its byte
  };
  Place place(bool k, int64_t slot, int64_t kv_head, int64_t d) const;
  float read(bool k, int64_t slot, int64_t kv_head, int64_t d) const;
  void write(bool k, int64_t slot, int64_t kv_head, int64_t d, float value);
  kern::KvPoolView pool() const;
  void reference_of(int64_t row, int64_t head, double* out, double* bound) const;

  AttnShape shape_;
  int64_t n_slots_ = 0, n_blocks_ = 0, n_physical_ = 0;
  std::vector<int32_t> table_;
  mutable std::vector<std::byte> k_, v_;
  std::vector<float> q_, slopes_;
};

}  // namespace infer::test
