#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "gguf/reader.h"
#include "quantize/recipe.h"

/// What a run will do, tensor by tensor, before it does any of it.
namespace infer::quantize {

struct PlanEntry {
  std::string name;
  std::vector<int64_t> shape;  ///< shape[0] is the contiguous dimension
  int shard = 0;               ///< of the input
  DType from = DType::kF32;
  Choice to;
  int64_t n_elem = 0;
  int64_t from_bytes = 0, to_bytes = 0;

  int64_t n_row() const { return n_elem / shape[0]; }
  bool converts() const { return from != to.type; }
};

struct Plan {
  std::string path;                ///< of the input, for messages
  std::vector<PlanEntry> entries;  ///< one a tensor, in the input's order
  int64_t n_elem = 0;
  int64_t from_bytes = 0, to_bytes = 0;
  int64_t n_fallback = 0;

  double bits_per_weight() const;
};

/// Errors: those of choose_types.
Result<Plan> make_plan(const gguf::Reader& model, const RecipeOptions& options);

struct PlanChecks {
  bool strict = false;            ///< a fallback is an error
  bool allow_requantize = false;  ///< else an input that is quantised already is one
  bool has_imatrix = false;
};
/// Whether the plan may be carried out. Errors: kUnsupported naming file and tensor; for strict and
/// allow_requantize the flag.
Result<void> check_plan(const Plan& plan, const Target& target, const PlanChecks& checks);

/// A table for people: tensor, shape, from, to, bytes, bits per weight and why; then the share of
/// each type and the totals.
std::string plan_text(const Plan& plan);
/// "30 of 272 tensors cannot be Q4_K_M and fall back: ...", empty without one.
std::string fallback_text(const Plan& plan);
/// "[576, 1536]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace infer::quantize
