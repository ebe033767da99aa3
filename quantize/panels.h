#pragma once

#include <cstdint>
#include <vector>

#include "quantize/plan.h"

namespace infer::quantize {

/// Rows that one thread converts in one go. Never of two matrices: each has its own importance.
struct Panel {
  size_t entry = 0;
  int64_t mat = 0;  ///< which matrix of a tensor of three or four dimensions
  int64_t row = 0;  ///< first row, counted through the whole tensor
  int64_t n_row = 0;
};

/// The plan cut into panels, numbered in the plan's order.
class Panels {
 public:
  /// A panel takes as many rows as fit in `target_bytes` (of the larger of both types), one at
  /// least.
  Panels(const Plan& plan, int64_t target_bytes);

  int64_t count() const { return first_.back(); }
  /// Numbers of an entry's panels: [first(entry), first(entry + 1)).
  int64_t first(size_t entry) const { return first_[entry]; }
  Panel at(int64_t number) const;

 private:
  struct Cut {
    int64_t rows_a_panel = 1, rows_a_mat = 1, panels_a_mat = 1;
  };
  std::vector<Cut> cuts_;       // [entries]
  std::vector<int64_t> first_;  // [entries + 1]
};

}  // namespace infer::quantize
