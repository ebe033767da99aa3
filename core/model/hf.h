#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/base/result.h"
#include "gguf/header_builder.h"

/// The Hugging Face side of an architecture: how its configuration becomes keys, and its tensors'
/// names and rows those of a GGUF. Data only: files are read in quantize/convert.
namespace infer::model {

/// A JSON value, without the library that parsed it.
struct HfMember;
struct HfValue {
  using Array = std::vector<HfValue>;
  using Object = std::vector<HfMember>;  ///< no name twice
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value;

  bool is_null() const { return value.index() == 0; }
  /// Member of an object; nullptr when there is none.
  const HfValue* find(std::string_view name) const;
};
struct HfMember {
  std::string name;
  HfValue value;
};

/// Members of config.json, or of an object inside it. null counts as missing. Functions take the
/// spellings of one thing, the first that is there wins; errors name file, key and value. Views:
/// the value must outlive it.
class HfConfig {
 public:
  using Names = std::initializer_list<std::string_view>;
  /// `where` is named in errors: a path, and the key of an inner object.
  HfConfig(const HfValue& object, std::string where) : object_(&object), where_(std::move(where)) {}

  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// Written, and null.
  bool is_null(std::string_view name) const;
  /// Integers in [0, 2^31).
  Result<int64_t> integer(Names names) const;
  Result<int64_t> integer(Names names, int64_t fallback) const;
  Result<double> number(Names names) const;
  Result<double> number(Names names, double fallback) const;
  Result<bool> flag(std::string_view name, bool fallback) const;
  Result<std::string> text(Names names, std::string_view fallback) const;
  /// Arrays; empty when missing.
  Result<std::vector<double>> numbers(std::string_view name) const;
  Result<std::vector<std::string>> texts(std::string_view name) const;
  /// An inner object; an empty one when it is missing.
  Result<HfConfig> object(std::string_view name) const;

  Error unsupported(std::string_view name, std::string_view why) const;
  const std::string& where() const { return where_; }

 private:
  const HfValue* find(std::string_view name) const;
  /// The first of `names` that is there, with its name.
  std::pair<std::string_view, const HfValue*> first(Names names) const;
  Error missing(Names names) const;
  Error bad(std::string_view name, const HfValue& value, std::string_view what) const;

  const HfValue* object_;
  std::string where_;
};

/// Receives keys under "<arch>." and tensors that are computed from the configuration. The first
/// error is kept and makes the rest do nothing.
class HfKeys {
 public:
  struct Tensor {
    std::string name;
    std::vector<float> values;
  };

  HfKeys(std::string arch, gguf::HeaderBuilder* header) : arch_(std::move(arch)), header_(header) {}

  HfKeys& u32(std::string_view key, int64_t value);
  HfKeys& f32(std::string_view key, double value);
  HfKeys& flag(std::string_view key, bool value);
  HfKeys& text(std::string_view key, std::string_view value);
  /// A vector of F32.
  HfKeys& tensor(std::string name, std::vector<float> values);

  const std::string& arch() const { return arch_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Result<void>& status() const { return status_; }

 private:
  template <class T, class V>
  HfKeys& add(std::string_view key, V value);

  std::string arch_;
  gguf::HeaderBuilder* header_;
  std::vector<Tensor> tensors_;
  Result<void> status_;
};

/// What happens to a tensor on the way. Rows are those of the Hugging Face tensor [n_row, n_k].
enum class HfChange : uint8_t {
  kNone,
  kPermuteQ,    ///< rows of each query head from rotate-halves order to adjacent pairs
  kPermuteK,    ///< the same for each KV head
  kAddOne,      ///< norms that multiply by 1 + w
  kTranspose,   ///< stored [n_k, n_row]
  kSplitQkv,    ///< rows [n_head][q, k, v][head_dim] -> [q, k, v][n_head][head_dim]
  kFlatten,     ///< [1, k] -> [k]
  kFirstHalf,   ///< of a fused tensor's rows (of each expert)
  kSecondHalf,  ///< the other half
};

struct HfName {
  std::string_view hf;
  std::string_view gguf;  ///< empty: not written
  HfChange change = HfChange::kNone;
};

struct HfSide {
  std::span<const std::string_view> names;     ///< config.json: architectures[0]
  std::span<const std::string_view> prefixes;  ///< of all tensors; the first that fits is taken off
  std::string_view layers;                     ///< "layers."
  std::span<const HfName> outer;               ///< tensors outside of layers
  std::span<const HfName> inner;               ///< tensors of a layer, after "<layers>N."
  Result<void> (*write_keys)(const HfConfig& config, HfKeys& out) = nullptr;
  std::string_view experts = {};  ///< experts' tensors: "<layers>N.<experts>E.<name>"
  std::span<const HfName> expert_tensors = {};
  std::span<const std::string_view> left_out = {};  ///< prefixes of what is no language model
  bool tied_by_default = false;  ///< where the configuration has no tie_word_embeddings
};

}  // namespace infer::model
