#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quantize/plan.h"

/// What a run did to each tensor.
namespace infer::quantize {

/// Sums over the values of a tensor, or of some of its rows.
struct ErrorSums {
  double sum_sq_error = 0.0;  ///< of (written - source)^2
  double sum_sq = 0.0;        ///< of source^2
  double max_error = 0.0;     ///< largest |written - source|

  void add(const ErrorSums& o);
};

struct TensorReport {
  ErrorSums errors;       ///< zeros where nothing was converted, or measured
  bool measured = false;  ///< the written bytes were decoded again and compared
  double rmse(int64_t n_elem) const;
  double relative() const;  ///< RMSE by the source's own RMS; 0 for a tensor of zeros
};

struct Report {
  std::vector<TensorReport> tensors;  ///< one an entry of the plan
  int64_t file_bytes = 0;
  int64_t n_without_importance = 0;  ///< converted tensors that the importance matrix lacks
  std::string first_without_importance;
};

struct ReportFacts {
  std::string in, out, target;
  std::string isa;
  int n_threads = 0;
  double seconds = 0.0;
  bool best = false;
  std::string imatrix;  ///< file, or empty
};

/// As one JSON object: the facts, totals, and for each tensor types, bytes, why and errors.
std::string report_json(const Plan& plan, const Report& report, const ReportFacts& facts);

}  // namespace infer::quantize
