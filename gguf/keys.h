#pragma once

#include <string>
#include <string_view>

/// Names of metadata keys. Those without a dot in front stand as they are; those of `arch_key`
/// follow "<arch>.". Source: the GGUF specification and gguf-py's constants.
namespace infer::gguf::keys {

inline constexpr std::string_view kArchitecture = "general.architecture";
inline constexpr std::string_view kAlignment = "general.alignment";
inline constexpr std::string_view kName = "general.name";
inline constexpr std::string_view kType = "general.type";
inline constexpr std::string_view kFileType = "general.file_type";
inline constexpr std::string_view kQuantizationVersion = "general.quantization_version";
inline constexpr std::string_view kSizeLabel = "general.size_label";
inline constexpr std::string_view kLicense = "general.license";

inline constexpr std::string_view kSplitNo = "split.no";
inline constexpr std::string_view kSplitCount = "split.count";
inline constexpr std::string_view kSplitTensorsCount = "split.tensors.count";

inline constexpr std::string_view kTokenizerModel = "tokenizer.ggml.model";
inline constexpr std::string_view kTokenizerPre = "tokenizer.ggml.pre";
inline constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
inline constexpr std::string_view kTokenTypes = "tokenizer.ggml.token_type";
inline constexpr std::string_view kScores = "tokenizer.ggml.scores";
inline constexpr std::string_view kMerges = "tokenizer.ggml.merges";
inline constexpr std::string_view kBosId = "tokenizer.ggml.bos_token_id";
inline constexpr std::string_view kEosId = "tokenizer.ggml.eos_token_id";
inline constexpr std::string_view kEotId = "tokenizer.ggml.eot_token_id";
inline constexpr std::string_view kEomId = "tokenizer.ggml.eom_token_id";
inline constexpr std::string_view kUnknownId = "tokenizer.ggml.unknown_token_id";
inline constexpr std::string_view kSeparatorId =
    "tokenizer.ggml.seperator_token_id";  // misspelt in every file
inline constexpr std::string_view kPaddingId = "tokenizer.ggml.padding_token_id";
inline constexpr std::string_view kClsId = "tokenizer.ggml.cls_token_id";
inline constexpr std::string_view kMaskId = "tokenizer.ggml.mask_token_id";
inline constexpr std::string_view kAddBos = "tokenizer.ggml.add_bos_token";
inline constexpr std::string_view kAddEos = "tokenizer.ggml.add_eos_token";
inline constexpr std::string_view kAddSep = "tokenizer.ggml.add_sep_token";
inline constexpr std::string_view kAddSpacePrefix = "tokenizer.ggml.add_space_prefix";
inline constexpr std::string_view kRemoveExtraWhitespaces =
    "tokenizer.ggml.remove_extra_whitespaces";
inline constexpr std::string_view kChatTemplate = "tokenizer.chat_template";
inline constexpr std::string_view kChatTemplates = "tokenizer.chat_templates";

// Ours: what a tokenizer.json says and no key of llama.cpp's can. They go before what
// tokenizer.ggml.pre stands for; other readers pass over them.
inline constexpr std::string_view kInferPreRules = "infer.tokenizer.pre.rules";
inline constexpr std::string_view kInferNormalizer = "infer.tokenizer.normalizer";
inline constexpr std::string_view kInferSpacePrefix = "infer.tokenizer.space_prefix";
inline constexpr std::string_view kInferIgnoreMerges = "infer.tokenizer.ignore_merges";
inline constexpr std::string_view kInferStripsRight = "infer.tokenizer.strips_right";

// After "<arch>.": `arch_key("llama", kBlockCount)` is "llama.block_count".
inline constexpr std::string_view kVocabSize = "vocab_size";
inline constexpr std::string_view kContextLength = "context_length";
inline constexpr std::string_view kEmbeddingLength = "embedding_length";
inline constexpr std::string_view kBlockCount = "block_count";
inline constexpr std::string_view kFeedForwardLength = "feed_forward_length";
inline constexpr std::string_view kUseParallelResidual = "use_parallel_residual";
inline constexpr std::string_view kExpertCount = "expert_count";
inline constexpr std::string_view kExpertUsedCount = "expert_used_count";
inline constexpr std::string_view kLogitScale = "logit_scale";
inline constexpr std::string_view kResidualScale = "residual_scale";
inline constexpr std::string_view kEmbeddingScale = "embedding_scale";
inline constexpr std::string_view kAttnLogitSoftcapping = "attn_logit_softcapping";
inline constexpr std::string_view kFinalLogitSoftcapping = "final_logit_softcapping";
inline constexpr std::string_view kHeadCount = "attention.head_count";
inline constexpr std::string_view kHeadCountKv = "attention.head_count_kv";
inline constexpr std::string_view kKeyLength = "attention.key_length";
inline constexpr std::string_view kValueLength = "attention.value_length";
inline constexpr std::string_view kLayerNormEpsilon = "attention.layer_norm_epsilon";
inline constexpr std::string_view kLayerNormRmsEpsilon = "attention.layer_norm_rms_epsilon";
inline constexpr std::string_view kAttentionScale = "attention.scale";
inline constexpr std::string_view kAttentionCausal = "attention.causal";
inline constexpr std::string_view kMaxAlibiBias = "attention.max_alibi_bias";
inline constexpr std::string_view kClampKqv = "attention.clamp_kqv";
inline constexpr std::string_view kSlidingWindow = "attention.sliding_window";
inline constexpr std::string_view kSlidingWindowPattern = "attention.sliding_window_pattern";
inline constexpr std::string_view kRopeDimensionCount = "rope.dimension_count";
inline constexpr std::string_view kRopeFreqBase = "rope.freq_base";
inline constexpr std::string_view kRopeFreqBaseSwa = "rope.freq_base_swa";
inline constexpr std::string_view kRopeScaleLinear =
    "rope.scale_linear";  // before rope.scaling.* existed
inline constexpr std::string_view kRopeScalingType = "rope.scaling.type";
inline constexpr std::string_view kRopeScalingFactor = "rope.scaling.factor";
inline constexpr std::string_view kRopeScalingAttnFactor = "rope.scaling.attn_factor";
inline constexpr std::string_view kRopeScalingOrigCtx = "rope.scaling.original_context_length";
inline constexpr std::string_view kRopeScalingFinetuned = "rope.scaling.finetuned";
inline constexpr std::string_view kRopeScalingYarnLogMul = "rope.scaling.yarn_log_multiplier";
inline constexpr std::string_view kRopeScalingYarnExtFactor = "rope.scaling.yarn_ext_factor";
inline constexpr std::string_view kRopeScalingYarnAttnFactor = "rope.scaling.yarn_attn_factor";
inline constexpr std::string_view kRopeScalingYarnBetaFast = "rope.scaling.yarn_beta_fast";
inline constexpr std::string_view kRopeScalingYarnBetaSlow = "rope.scaling.yarn_beta_slow";

/// "<arch>.<key>"
inline std::string arch_key(std::string_view arch, std::string_view key) {
  std::string out;
  out.reserve(arch.size() + 1 + key.size());
  out.append(arch).append(1, '.').append(key);
  return out;
}

}  // namespace infer::gguf::keys
