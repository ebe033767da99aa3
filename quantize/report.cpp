#include "quantize/report.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/base/quant_types.h"

namespace infer::quantize {
namespace {

using nlohmann::ordered_json;

std::string_view name_of(Reason reason) {
  constexpr std::string_view kNames[] = {"kept", "rule", "flag", "fallback"};
  return kNames[static_cast<size_t>(reason)];
}

ordered_json tensor_json(const PlanEntry& e, const TensorReport& t) {
  ordered_json j = {{"name", e.name},
                    {"shape", e.shape},
                    {"from", infer::name_of(e.from)},
                    {"to", infer::name_of(e.to.type)},
                    {"wanted", infer::name_of(e.to.wanted)},
                    {"reason", name_of(e.to.reason)},
                    {"why", e.to.why},
                    {"bytes_in", e.from_bytes},
                    {"bytes_out", e.to_bytes},
                    {"bits_per_weight", 8.0 * static_cast<double>(e.to_bytes) /
                                            static_cast<double>(std::max<int64_t>(e.n_elem, 1))}};
  j["rmse"] = t.rmse(e.n_elem);
  j["max_error"] = t.errors.max_error;
  j["relative_error"] = t.relative();
  return j;
}

}  // namespace

void ErrorSums::add(const ErrorSums& o) {
  sum_sq_error += o.sum_sq_error;
  sum_sq += o.sum_sq;
  max_error = std::max(max_error, o.max_error);
}

double TensorReport::rmse(int64_t n_elem) const {
  return n_elem == 0 ? 0.0 : std::sqrt(errors.sum_sq_error / static_cast<double>(n_elem));
}

double TensorReport::relative() const {
  return errors.sum_sq > 0.0 ? std::sqrt(errors.sum_sq_error / errors.sum_sq) : 0.0;
}

std::string report_json(const Plan& plan, const Report& report, const ReportFacts& facts) {
  ordered_json j = {
      {"in", facts.in},
      {"out", facts.out},
      {"type", facts.target},
      {"isa", facts.isa},
      {"threads", facts.n_threads},
      {"seconds", facts.seconds},
      {"best", facts.best},
      {"imatrix", facts.imatrix.empty() ? ordered_json(nullptr) : ordered_json(facts.imatrix)}};
  TensorReport converted;
  int64_t n_elem = 0;
  int64_t n_converted = 0;
  ordered_json tensors = ordered_json::array();
  for (size_t i = 0; i < plan.entries.size(); ++i) {
    tensors.push_back(tensor_json(plan.entries[i], report.tensors[i]));
    if (!report.tensors[i].measured) continue;
    converted.errors.add(report.tensors[i].errors);
    n_elem += plan.entries[i].n_elem;
    ++n_converted;
  }
  j["totals"] = {{"tensors", plan.entries.size()},
                 {"converted", n_converted},
                 {"fallbacks", plan.n_fallback},
                 {"without_importance", report.n_without_importance},
                 {"weights", plan.n_elem},
                 {"bytes_in", plan.from_bytes},
                 {"bytes_out", plan.to_bytes},
                 {"file_bytes", report.file_bytes},
                 {"bits_per_weight", plan.bits_per_weight()},
                 {"rmse", converted.rmse(n_elem)},
                 {"max_error", converted.errors.max_error},
                 {"relative_error", converted.relative()}};
  j["tensors"] = std::move(tensors);
  return j.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace infer::quantize
