#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/reader.h"
#include "quantize/recipe.h"

/// The rules of the mixes: what recipe.h is made of.
namespace infer::quantize {

inline constexpr std::string_view kOutputTensor = "output.weight";
/// token_embd.weight and its kin.
bool is_token_embedding(std::string_view name);

/// What the rules ask about a model.
struct ModelFacts {
  std::string arch;
  int64_t n_layer = 0;
  int64_t n_gqa = 0;  ///< query heads a KV head in the first layer, 0: none
  int64_t n_expert = 0;
  bool is_70b = false;   ///< the shape that the 70B rule is for
  bool tied = true;      ///< there is no output.weight: token embeddings take its place
  int64_t n_attn_v = 0;  ///< attn_v and fused attn_qkv tensors
};
/// Errors: kCorrupt naming the key.
Result<ModelFacts> read_facts(const gguf::Reader& model);

/// Indices of tensors in the order in which llama.cpp counts "the first attn_v" and the like: by
/// layer, then by name; with `by_shard` as the files hold them.
std::vector<size_t> counting_order(std::span<const gguf::TensorInfo> tensors, bool by_shard);

/// Why a tensor is never quantised; empty where it may be.
std::string kept_because(const gguf::TensorInfo& t, std::string_view arch);

class Mix {
 public:
  /// `facts` must outlive it.
  Mix(const RecipeOptions& options, const ModelFacts& facts);
  /// Sets choice->type and why; called once for each tensor, in counting order.
  void refine(const gguf::TensorInfo& t, Choice* choice);

 private:
  struct Pick {
    DType type;
    std::string_view why;
  };
  Pick output(DType type) const;
  Pick attn_v(DType type);
  Pick ffn_down(const gguf::TensorInfo& t, DType type);
  Pick attn_output(DType type) const;
  bool is(std::string_view target) const { return target_ == target; }

  std::string_view target_;
  std::optional<DType> output_type_;
  bool has_imatrix_;
  const ModelFacts& facts_;
  int64_t i_attn_v_ = 0, i_ffn_down_ = 0;
};

}  // namespace infer::quantize
