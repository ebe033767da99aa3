#include "quantize/recipe.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/describe.h"
#include "quantize/mix.h"

namespace infer::quantize {
namespace {

constexpr Target kTargets[] = {
    {"F32", 0, DType::kF32},        {"F16", 1, DType::kF16},
    {"BF16", 32, DType::kBF16},     {"Q8_0", 7, DType::kQ8_0},
    {"Q4_0", 2, DType::kQ4_0},      {"Q4_1", 3, DType::kQ4_1},
    {"Q5_0", 8, DType::kQ5_0},      {"Q5_1", 9, DType::kQ5_1},
    {"Q2_K", 10, DType::kQ2_K},     {"Q2_K_S", 21, DType::kQ2_K},
    {"Q3_K_S", 11, DType::kQ3_K},   {"Q3_K_M", 12, DType::kQ3_K},
    {"Q3_K_L", 13, DType::kQ3_K},   {"Q4_K_S", 14, DType::kQ4_K},
    {"Q4_K_M", 15, DType::kQ4_K},   {"Q5_K_S", 16, DType::kQ5_K},
    {"Q5_K_M", 17, DType::kQ5_K},   {"Q6_K", 18, DType::kQ6_K},
    {"IQ4_NL", 25, DType::kIQ4_NL}, {"COPY", 0, DType::kF32, /*copy=*/true},
};

constexpr std::pair<std::string_view, std::string_view> kAliases[] = {
    {"Q3_K", "Q3_K_M"}, {"Q4_K", "Q4_K_M"}, {"Q5_K", "Q5_K_M"}};

constexpr DType kWritten[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,  DType::kQ4_0,
                              DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ2_K,  DType::kQ3_K,
                              DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL};

std::string upper(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::toupper(c); });
  return out;
}

}  // namespace

std::span<const Target> targets() { return kTargets; }

const Target* find_target(std::string_view text) {
  std::string name = upper(text);
  for (const auto& [alias, full] : kAliases) {
    if (name == alias) name = full;
  }
  for (const Target& t : kTargets) {
    if (t.name == name) return &t;
  }
  uint32_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return nullptr;
  for (const Target& t : kTargets) {
    if (t.file_type == number) return &t;  // COPY, which has none, comes last
  }
  return nullptr;
}

std::string target_names() {
  std::string out;
  for (const Target& t : kTargets) out.append(out.empty() ? "" : ", ").append(t.name);
  return out;
}

Result<DType> parse_written_type(std::string_view text, std::string_view flag) {
  const std::optional<DType> type = dtype_from_name(text);
  if (type && std::ranges::find(kWritten, *type) != std::end(kWritten)) return *type;
  std::string names;
  for (const DType t : kWritten) names.append(names.empty() ? "" : ", ").append(name_of(t));
  return make_error(ErrorCode::kInvalidArgument, "{}: '{}' is no type that can be written ({})",
                    flag, gguf::printable(text), names);
}

Result<TensorTypeRule> parse_tensor_type_rule(std::string_view text, std::string_view flag) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return make_error(ErrorCode::kInvalidArgument, "{} '{}': REGEX=TYPE is expected", flag,
                      gguf::printable(text));
  }
  TensorTypeRule rule;
  rule.text = text;
  INFER_ASSIGN(rule.type, parse_written_type(text.substr(equals + 1), flag));
  std::string pattern(text.substr(0, equals));
  std::ranges::transform(pattern, pattern.begin(), [](unsigned char c) { return std::tolower(c); });
  try {
    rule.pattern = std::regex(pattern);
  } catch (const std::regex_error&) {
    return make_error(ErrorCode::kInvalidArgument, "{} '{}': is no regular expression", flag,
                      gguf::printable(text));
  }
  return rule;
}

bool needs_imatrix(const Target& target, DType type, std::string_view tensor) {
  return target.name == "Q2_K_S" && type == DType::kQ2_K && !is_token_embedding(tensor) &&
         tensor != kOutputTensor;
}

namespace {

/// What may hold rows of n where `type` cannot; F16 where no block fits.
DType fallback(DType type, int64_t n) {
  DType other = type;
  if (type == DType::kQ2_K || type == DType::kQ3_K) other = DType::kQ4_0;
  if (type == DType::kQ4_K) other = DType::kQ5_0;
  if (type == DType::kQ5_K) other = DType::kQ5_1;
  if (type == DType::kQ6_K) other = DType::kQ8_0;
  return n % quant_type(other).block_len == 0 ? other : DType::kF16;
}

class Chooser {
 public:
  Chooser(const RecipeOptions& options, ModelFacts facts)
      : options_(options), facts_(std::move(facts)), mix_(options, facts_) {}

  Choice choose(const gguf::TensorInfo& t) {
    Choice c{t.view.type, t.view.type, Reason::kKept, kept_because(t, facts_.arch)};
    if (options_.target->copy) c.why = "copied";
    if (c.why.empty() && options_.leave_output && t.name == kOutputTensor) {
      c.reason = Reason::kFlag;
      c.why = "--leave-output-tensor";
    }
    if (!c.why.empty()) return c;
    pick(t, &c);
    c.wanted = c.type;
    const int64_t block = quant_type(c.type).block_len;
    if (t.view.ne[0] % block != 0) {
      c.type = fallback(c.type, t.view.ne[0]);
      c.reason = Reason::kFallback;
      c.why = fmt::format("row of {} is no multiple of {}", t.view.ne[0], block);
    }
    return c;
  }

 private:
  const TensorTypeRule* rule_for(std::string_view name) const {
    for (const TensorTypeRule& r : options_.tensor_types) {
      if (std::regex_search(name.begin(), name.end(), r.pattern)) return &r;
    }
    return nullptr;
  }

  void by_flag(DType type, std::string why, Choice* c) {
    c->type = type;
    c->reason = Reason::kFlag;
    c->why = std::move(why);
  }

  void pick(const gguf::TensorInfo& t, Choice* c) {
    const TensorTypeRule* rule = rule_for(t.name);
    // The table of embeddings per layer is large: a rule may name it in spite of the other flag.
    const bool named = t.name == "per_layer_token_embd.weight" && rule != nullptr;
    if (options_.embedding_type && is_token_embedding(t.name) && !named)
      return by_flag(*options_.embedding_type, "--token-embedding-type", c);
    if (options_.output_type && t.name == kOutputTensor)
      return by_flag(*options_.output_type, "--output-tensor-type", c);
    if (rule != nullptr) return by_flag(rule->type, "--tensor-type " + rule->text, c);
    c->type = options_.target->base;
    c->reason = options_.pure ? Reason::kFlag : Reason::kRule;
    c->why = options_.pure ? "--pure" : "";
    if (!options_.pure && quant_type(c->type).block_len > 1) mix_.refine(t, c);
  }

  const RecipeOptions& options_;
  ModelFacts facts_;
  Mix mix_;
};

}  // namespace

Result<std::vector<Choice>> choose_types(const gguf::Reader& model, const RecipeOptions& options) {
  INFER_ASSIGN(ModelFacts facts, read_facts(model));
  const std::vector<size_t> order = counting_order(model.tensors(), options.keep_split);
  Chooser chooser(options, std::move(facts));
  std::vector<Choice> choices(model.tensors().size());
  for (const size_t i : order) choices[i] = chooser.choose(model.tensors()[i]);
  return choices;
}

}  // namespace infer::quantize
