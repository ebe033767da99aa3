#pragma once

#include <cstdint>
#include <optional>
#include <regex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/result.h"
#include "gguf/reader.h"

/// Which type each tensor gets. Mixes choose as llama.cpp's of the same name do for the same model
/// (llama-quant.cpp of its release b6900 and later; tests/data/recipe_types.json holds its
/// answers).
namespace infer::quantize {

/// A file type that can be asked for.
struct Target {
  std::string_view name;  ///< as users write it: "Q4_K_M"
  uint32_t file_type;     ///< general.file_type
  DType base;             ///< of tensors that no rule names
  bool copy = false;      ///< COPY: every tensor as it is
};

std::span<const Target> targets();
/// By name in any case ("Q4_K" is Q4_K_M, and so on), or by the number of its file type; nullptr
/// for what nothing here writes.
const Target* find_target(std::string_view text);
/// "F32, F16, ...", for messages.
std::string target_names();

/// A type that can be written, by its name in any case. Errors: kInvalidArgument naming `flag`.
Result<DType> parse_written_type(std::string_view text, std::string_view flag);

/// REGEX=TYPE: tensors in whose name the expression is found get the type.
struct TensorTypeRule {
  std::string text;
  std::regex pattern;
  DType type = DType::kF32;
};
/// The expression is ECMAScript and made lower case, as in llama.cpp. Errors: kInvalidArgument.
Result<TensorTypeRule> parse_tensor_type_rule(std::string_view text, std::string_view flag);

struct RecipeOptions {
  const Target* target = nullptr;
  bool pure = false;                         ///< no mix: `target->base` for all
  bool leave_output = false;                 ///< output.weight as it is
  std::optional<DType> output_type;          ///< --output-tensor-type
  std::optional<DType> embedding_type;       ///< --token-embedding-type
  std::vector<TensorTypeRule> tensor_types;  ///< the first that fits counts
  bool has_imatrix = false;                  ///< some mixes choose otherwise with one
  /// The "first layers" of some rules are counted shard after shard instead of layer after layer.
  bool keep_split = false;
};

enum class Reason : uint8_t {
  kKept,      ///< never quantised (norms, vectors, expert gates) or asked to be left
  kRule,      ///< the mix
  kFlag,      ///< an option names it
  kFallback,  ///< the type chosen cannot hold rows of this length
};

struct Choice {
  DType type = DType::kF32;
  DType wanted = DType::kF32;  ///< before a fallback
  Reason reason = Reason::kRule;
  std::string why;  ///< "row of 576 is no multiple of 256"
};

/// One for each tensor of `model`, in its order. Errors: kCorrupt for keys of the wrong kind.
Result<std::vector<Choice>> choose_types(const gguf::Reader& model, const RecipeOptions& options);

/// Without an importance matrix this type would come out useless in this mix.
bool needs_imatrix(const Target& target, DType type, std::string_view tensor);

}  // namespace infer::quantize
