#include "quantize/plan.h"

#include <algorithm>
#include <map>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/describe.h"

namespace infer::quantize {
namespace {

double mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

double bits_a_weight(int64_t bytes, int64_t n_elem) {
  return n_elem == 0 ? 0.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(n_elem);
}

struct TypeShare {
  int64_t n_tensors = 0, n_elem = 0, bytes = 0;
};

std::map<DType, TypeShare> shares(const Plan& plan) {
  std::map<DType, TypeShare> out;
  for (const PlanEntry& e : plan.entries) {
    TypeShare& s = out[e.to.type];
    ++s.n_tensors;
    s.n_elem += e.n_elem;
    s.bytes += e.to_bytes;
  }
  return out;
}

}  // namespace

double Plan::bits_per_weight() const { return bits_a_weight(to_bytes, n_elem); }

Result<Plan> make_plan(const gguf::Reader& model, const RecipeOptions& options) {
  INFER_ASSIGN(std::vector<Choice> choices, choose_types(model, options));
  Plan plan;
  plan.path = model.path();
  plan.entries.reserve(choices.size());
  for (size_t i = 0; i < choices.size(); ++i) {
    const gguf::TensorInfo& t = model.tensors()[i];
    PlanEntry e;
    e.name = t.name;
    e.shape.assign(t.view.ne.begin(), t.view.ne.begin() + t.n_dims);
    e.shard = t.shard;
    e.from = t.view.type;
    e.to = std::move(choices[i]);
    e.n_elem = t.view.n_elem();
    e.from_bytes = t.view.n_bytes;
    // The reader has checked n_elem against the file; eight times as many bytes may still wrap.
    const auto bytes = row_bytes(e.to.type, e.shape[0]);
    const auto all = bytes ? checked_mul(*bytes, e.n_row()) : std::nullopt;
    if (!all) {
      return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' is too large as {}", plan.path,
                        gguf::printable(e.name), name_of(e.to.type));
    }
    e.to_bytes = *all;
    plan.n_elem += e.n_elem;
    plan.from_bytes += e.from_bytes;
    const auto total = checked_add(plan.to_bytes, e.to_bytes);
    if (!total) return make_error(ErrorCode::kUnsupported, "{}: is too large", plan.path);
    plan.to_bytes = *total;
    plan.n_fallback += e.to.reason == Reason::kFallback ? 1 : 0;
    plan.entries.push_back(std::move(e));
  }
  return plan;
}

Result<void> check_plan(const Plan& plan, const Target& target, const PlanChecks& checks) {
  for (const PlanEntry& e : plan.entries) {
    if (!e.converts()) continue;
    const bool quantised = quant_type(e.from).block_len > 1;
    if (quantised && !checks.allow_requantize) {
      return make_error(ErrorCode::kUnsupported,
                        "{}: tensor '{}' is {} already: quantising it again loses more than "
                        "starting from the original would (--allow-requantize does it anyway)",
                        plan.path, gguf::printable(e.name), name_of(e.from));
    }
    if (!checks.has_imatrix && needs_imatrix(target, e.to.type, e.name)) {
      return make_error(ErrorCode::kUnsupported,
                        "{}: tensor '{}' as {} in {} needs an importance matrix (--imatrix)",
                        plan.path, gguf::printable(e.name), name_of(e.to.type), target.name);
    }
  }
  if (checks.strict && plan.n_fallback > 0)
    return make_error(ErrorCode::kUnsupported, "{}: --strict: {}", plan.path, fallback_text(plan));
  return {};
}

std::string fallback_text(const Plan& plan) {
  const auto first = std::ranges::find(plan.entries, Reason::kFallback,
                                       [](const PlanEntry& e) { return e.to.reason; });
  if (first == plan.entries.end()) return {};
  return fmt::format(
      "{} of {} tensors cannot have their type; the first, '{}': {}, {} instead of {}",
      plan.n_fallback, plan.entries.size(), gguf::printable(first->name), first->to.why,
      name_of(first->to.type), name_of(first->to.wanted));
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t d = 0; d < shape.size(); ++d)
    out += fmt::format("{}{}", d == 0 ? "" : ", ", shape[d]);
  return out + "]";
}

std::string plan_text(const Plan& plan) {
  size_t name_width = 6, shape_width = 5;
  for (const PlanEntry& e : plan.entries) {
    name_width = std::max(name_width, gguf::printable(e.name).size());
    shape_width = std::max(shape_width, shape_text(e.shape).size());
  }
  std::string out = fmt::format("{:<{}}  {:<{}}  {:<7} {:<7} {:>12} {:>6}  why\n", "tensor",
                                name_width, "shape", shape_width, "from", "to", "bytes", "bits");
  for (const PlanEntry& e : plan.entries) {
    const std::string line =
        fmt::format("{:<{}}  {:<{}}  {:<7} {:<7} {:>12} {:>6.3f}  {}", gguf::printable(e.name),
                    name_width, shape_text(e.shape), shape_width, name_of(e.from),
                    name_of(e.to.type), e.to_bytes, bits_a_weight(e.to_bytes, e.n_elem), e.to.why);
    out.append(line, 0, line.find_last_not_of(' ') + 1).append("\n");
  }
  out += fmt::format("\n{:<8} {:>7} {:>15} {:>15} {:>7}\n", "type", "tensors", "weights", "bytes",
                     "share");
  for (const auto& [type, s] : shares(plan)) {
    const double share = plan.to_bytes == 0
                             ? 0.0
                             : static_cast<double>(s.bytes) / static_cast<double>(plan.to_bytes);
    out += fmt::format("{:<8} {:>7} {:>15} {:>15} {:>6.1f}%\n", name_of(type), s.n_tensors,
                       s.n_elem, s.bytes, 100.0 * share);
  }
  out += fmt::format("{:<8} {:>7} {:>15} {:>15}\n", "all", plan.entries.size(), plan.n_elem,
                     plan.to_bytes);
  out += fmt::format("{:.2f} -> {:.2f} MiB, {:.2f} -> {:.2f} bits per weight\n",
                     mib(plan.from_bytes), mib(plan.to_bytes),
                     bits_a_weight(plan.from_bytes, plan.n_elem), plan.bits_per_weight());
  if (plan.n_fallback > 0) out += fallback_text(plan) + "\n";
  return out;
}

}  // namespace infer::quantize
