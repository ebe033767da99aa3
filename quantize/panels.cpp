#include "quantize/panels.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/checked.h"

namespace infer::quantize {

Panels::Panels(const Plan& plan, int64_t target_bytes) : first_{0} {
  for (const PlanEntry& e : plan.entries) {
    Cut c;
    const int64_t n_row = e.n_row();
    c.rows_a_mat = std::max<int64_t>(e.shape.size() < 2 ? 1 : e.shape[1], 1);
    if (n_row > 0) {
      const int64_t bytes = std::max<int64_t>(std::max(e.from_bytes, e.to_bytes) / n_row, 1);
      c.rows_a_panel = std::clamp<int64_t>(target_bytes / bytes, 1, c.rows_a_mat);
    }
    c.panels_a_mat = ceil_div(c.rows_a_mat, c.rows_a_panel);
    cuts_.push_back(c);
    first_.push_back(first_.back() + n_row / c.rows_a_mat * c.panels_a_mat);
  }
}

Panel Panels::at(int64_t number) const {
  INFER_CHECK(number >= 0 && number < count(), "panel {} of {}", number, count());
  const auto after = std::ranges::upper_bound(first_, number);
  Panel p;
  p.entry = static_cast<size_t>(after - first_.begin()) - 1;
  const Cut& c = cuts_[p.entry];
  const int64_t i = number - first_[p.entry];
  p.mat = i / c.panels_a_mat;
  const int64_t row = i % c.panels_a_mat * c.rows_a_panel;
  p.row = p.mat * c.rows_a_mat + row;
  p.n_row = std::min(c.rows_a_panel, c.rows_a_mat - row);
  return p;
}

}  // namespace infer::quantize
