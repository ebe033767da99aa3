#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Seeing what meets the weight matrices of a model: how importance matrices are collected.
/// Not public; EngineOptions::tap hands one to the backends.
namespace infer::runtime {

/// Of the input rows x [n_k] that met one tensor, experts (matrices of a 3-D tensor) apart.
struct ActivationSums {
  int64_t n_k = 0;
  std::vector<double> sum_sq;  ///< [n_mat][n_k] sum over rows of x[k] * x[k]
  std::vector<int64_t> n_row;  ///< [n_mat]
};

/// Where backends add what they see. The sums do not depend on threads nor, for one sequence after
/// the other, on the size of a batch: each column is one chain in f64, rows in order.
/// Threads: a backend writes while a step runs; read when none does. Must outlive the engine.
class ActivationTap {
 public:
  using Wanted = std::function<bool(std::string_view tensor)>;
  /// `wanted` is asked for each matrix when an engine is made; empty: all.
  explicit ActivationTap(Wanted wanted = {}) : wanted_(std::move(wanted)) {}

  /// For backends, while they compile: where the rows that meet `tensor` (GGUF's name) are added,
  /// good as long as the tap lives; nullptr when nobody wants them.
  ActivationSums* watch(std::string_view tensor, int64_t n_k, int64_t n_mat) {
    if (wanted_ && !wanted_(tensor)) return nullptr;
    ActivationSums& sums = sums_[std::string(tensor)];
    sums.n_k = n_k;
    sums.sum_sq.resize(static_cast<size_t>(n_k * n_mat));
    sums.n_row.resize(static_cast<size_t>(n_mat));
    return &sums;
  }

  /// By tensor name.
  const std::map<std::string, ActivationSums>& sums() const { return sums_; }

 private:
  Wanted wanted_;
  std::map<std::string, ActivationSums> sums_;
};

}  // namespace infer::runtime
