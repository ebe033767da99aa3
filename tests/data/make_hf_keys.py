"""Writes hf_keys.json: what llama.cpp's converter writes for the checkpoints of golden/hf.

usage: make_hf_keys.py LLAMA_CPP GOLDEN_HF OUT      (needs Python packages gguf's, numpy; torch is not needed)
For each checkpoint the keys after general.*, in their order with type and value, and for each tensor its name in the
GGUF. The converter's own classes run, with stand-ins for torch and transformers: no tensor is computed.
"""

import json
import pathlib
import sys
import tempfile
import types
from unittest import mock

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-05}
QWEN = {"hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "vocab_size": 151936}
# Configurations as they are published, with what decides the keys; weights are not needed.
CONFIGS = {
    "Llama-3.1-8B": {**LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
                     "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
                     "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                      "original_max_position_embeddings": 8192, "rope_type": "llama3"},
                     "rope_theta": 500000.0, "vocab_size": 128256},
    "Llama-2-7b": {**LLAMA, "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
                   "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
                   "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 10000.0, "vocab_size": 32000},
    "Mistral-Nemo": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
                     "head_dim": 128, "hidden_size": 5120, "intermediate_size": 14336,
                     "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 40,
                     "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None,
                     "vocab_size": 131072},
    "Mixtral-8x7B": {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_act": "silu",
                     "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
                     "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
                     "num_key_value_heads": 8, "num_local_experts": 8, "rms_norm_eps": 1e-05,
                     "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32000},
    "Qwen2.5-7B-yarn": {**QWEN, "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584,
                        "intermediate_size": 18944, "max_position_embeddings": 32768, "max_window_layers": 28,
                        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
                        "sliding_window": 131072, "use_sliding_window": False,
                        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn",
                                         "beta_fast": 32, "beta_slow": 1}},
    "Qwen1.5-MoE-A2.7B": {**QWEN, "architectures": ["Qwen2MoeForCausalLM"], "hidden_size": 2048,
                          "intermediate_size": 5632, "max_position_embeddings": 8192, "moe_intermediate_size": 1408,
                          "norm_topk_prob": False, "num_attention_heads": 16, "num_experts": 60,
                          "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
                          "shared_expert_intermediate_size": 5632, "decoder_sparse_step": 1},
    "Qwen3-30B-A3B": {**QWEN, "architectures": ["Qwen3MoeForCausalLM"], "decoder_sparse_step": 1, "head_dim": 128,
                      "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
                      "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": True,
                      "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
                      "num_hidden_layers": 48, "num_key_value_heads": 4, "rope_scaling": None},
    "Phi-3.5-mini": {"architectures": ["Phi3ForCausalLM"], "hidden_act": "silu", "hidden_size": 3072,
                     "intermediate_size": 8192, "max_position_embeddings": 131072, "num_attention_heads": 32,
                     "num_hidden_layers": 32, "num_key_value_heads": 32, "original_max_position_embeddings": 4096,
                     "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 262144, "vocab_size": 32064,
                     "rope_scaling": {"long_factor": [1.0 + i for i in range(48)], "short_factor": [1.0] * 48,
                                      "type": "longrope"}},
    "Phi-4-mini": {"architectures": ["Phi3ForCausalLM"], "hidden_act": "silu", "hidden_size": 3072,
                   "intermediate_size": 8192, "max_position_embeddings": 131072, "num_attention_heads": 24,
                   "num_hidden_layers": 32, "num_key_value_heads": 8, "original_max_position_embeddings": 4096,
                   "partial_rotary_factor": 0.75, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
                   "sliding_window": 262144, "vocab_size": 200064,
                   "rope_scaling": {"long_factor": [1.0 + i for i in range(48)], "short_factor": [1.0] * 48,
                                    "type": "longrope"}},
    "gemma-2-2b": {"architectures": ["Gemma2ForCausalLM"], "attn_logit_softcapping": 50.0,
                   "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
                   "hidden_size": 2304, "intermediate_size": 9216, "max_position_embeddings": 8192,
                   "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4,
                   "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
                   "sliding_window": 4096, "vocab_size": 256000},
    "gemma-3-1b": {"architectures": ["Gemma3ForCausalLM"], "attn_logit_softcapping": None,
                   "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
                   "hidden_size": 1152, "intermediate_size": 6912, "max_position_embeddings": 32768,
                   "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
                   "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
                   "rope_theta": 1000000, "rope_scaling": None, "sliding_window": 512, "sliding_window_pattern": 6,
                   "vocab_size": 262144},
    # The text part of a model with pictures names only what differs from transformers' own values.
    "gemma-3-4b": {"architectures": ["Gemma3ForConditionalGeneration"], "hidden_size": 2560,
                   "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024,
                   "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
    "pythia-160m": {"architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu", "hidden_size": 768,
                    "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
                    "num_attention_heads": 12, "num_hidden_layers": 12, "rotary_emb_base": 10000, "rotary_pct": 0.25,
                    "use_parallel_residual": True, "vocab_size": 50304},
    "gpt2": {"architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05,
             "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257},
    "bloom-560m": {"architectures": ["BloomForCausalLM"], "hidden_size": 1024, "layer_norm_epsilon": 1e-05,
                   "n_head": 16, "n_layer": 24, "seq_length": 2048, "n_inner": None, "vocab_size": 250880},
    "mpt-7b": {"architectures": ["MPTForCausalLM"], "d_model": 4096, "expansion_ratio": 4, "max_seq_len": 2048,
               "n_heads": 32, "n_layers": 32, "no_bias": True, "norm_type": "low_precision_layernorm",
               "vocab_size": 50432,
               "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_type": "multihead_attention",
                               "clip_qkv": None, "prefix_lm": False, "qk_ln": False, "softmax_scale": None}},
}
# What AutoConfig adds before the converter sees it.
FILLED = {"gemma-3-4b": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-06,
                         "max_position_embeddings": 131072, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
                         "vocab_size": 262208}}


class Module(types.ModuleType):
    """Any attribute is there; classes made of them work."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (), {}) if name[0].isupper() else mock.MagicMock(name=name)
        setattr(self, name, value)
        return value


def stand_in(*names):
    for name in names:
        sys.modules[name] = Module(name)


def keys_of(model, gguf):
    if "Phi3" in type(model).__name__:
        list(model.generate_extra_tensors())  # writes a key
    model.set_gguf_parameters()
    out = []
    for key, value in model.gguf_writer.kv_data[0].items():
        if not key.startswith("general."):
            out.append([key, gguf.GGUFValueType(value.type).name, value.value])
    return out


def convert(folder, conversion, gguf):
    with open(folder / "config.json", encoding="utf-8") as f:
        name = json.load(f)["architectures"][0]
    cls = conversion.get_model_class("MPTForCausalLM" if name == "MptForCausalLM" else name)
    model = cls(folder, gguf.LlamaFileType.ALL_F32, pathlib.Path("/dev/null"))
    # Names of settings that transformers 5 no longer writes.
    if "n_positions" in model.hparams:
        model.hparams.setdefault("n_ctx", model.hparams["n_positions"])
    model.hparams.setdefault("rotary_pct", model.rope_parameters.get("partial_rotary_factor", 0.25))
    names = {}
    for hf in sorted(model.model_tensors):
        try:
            names[hf] = model.map_tensor_name(hf.removeprefix("transformer.") if name.startswith("Bloom") else hf)
        except ValueError:  # experts: merged under another name before they are looked up
            continue
    return {"keys": keys_of(model, gguf), "tensors": names}


def main():
    root, golden, out = map(pathlib.Path, sys.argv[1:4])
    sys.path[:0] = [str(root), str(root / "gguf-py")]
    for name in ("torch", "transformers"):
        sys.modules[name] = Module(name)
    import conversion
    import gguf
    checkpoints = {}
    for folder in sorted(golden.iterdir()):
        if folder.name != "mamba":
            checkpoints[folder.name] = convert(folder, conversion, gguf)
    configs = {}
    for name, config in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps({**config, **FILLED.get(name, {})})
            (pathlib.Path(folder) / "config.json").write_text(text, encoding="utf-8")
            keys = convert(pathlib.Path(folder), conversion, gguf)["keys"]
        configs[name] = {"config": config, "keys": keys}
    text = json.dumps({"checkpoints": checkpoints, "configs": configs}, separators=(",", ":"))
    out.write_text(text.replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main()
