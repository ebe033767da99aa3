"""Writes corpus/hf_folder: packed folders (see hf_folder_fuzz.cpp) of small models, right and wrong.

usage: make_hf_folder_corpus.py (in tests/fuzz)
"""

import json
import os
import struct

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "hf_folder")
N_EMBD, N_FF, N_VOCAB, N_HEAD, N_EXPERT = 8, 6, 4, 2, 2
SIZES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I32": 4}
TOKENIZER = {"added_tokens": [{"id": 3, "content": "</s>", "special": True, "rstrip": True}],
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
             "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}
BASE = {"hidden_size": N_EMBD, "intermediate_size": N_FF, "num_hidden_layers": 1, "num_attention_heads": N_HEAD,
        "num_key_value_heads": N_HEAD, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "vocab_size": N_VOCAB,
        "tie_word_embeddings": True}


def write(name, config, tensors, tokenizer=TOKENIZER):
    header, at = {}, 0
    for tensor, (dtype, shape) in tensors.items():
        n = SIZES[dtype]
        for d in shape:
            n *= d
        header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
        at += n
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (config, header, tokenizer)]
    data = bytes(i * 7 % 120 for i in range(at))
    with open(os.path.join(FOLDER, name), "wb") as f:
        f.write(struct.pack(">4H", *map(len, parts), at) + b"".join(parts) + data)


def decoder(layer):
    names = {"embed_tokens": [N_VOCAB, N_EMBD], "norm": [N_EMBD], "layers.0.input_layernorm": [N_EMBD],
             "layers.0.post_attention_layernorm": [N_EMBD], **{"layers.0." + k: v for k, v in layer.items()}}
    return {"model." + k + ".weight": ("BF16", v) for k, v in names.items()}


SQUARE = [N_EMBD, N_EMBD]
ATTN = {"self_attn." + p + "_proj": SQUARE for p in "qkvo"}
MLP = {"mlp.gate_proj": [N_FF, N_EMBD], "mlp.up_proj": [N_FF, N_EMBD], "mlp.down_proj": [N_EMBD, N_FF]}


def llama():
    config = {"architectures": ["LlamaForCausalLM"], **BASE}
    good = decoder({**ATTN, **MLP})
    write("llama", config, good)
    write("llama3_rope", {**config, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, good)
    write("missing", config, {k: v for k, v in good.items() if "q_proj" not in k})
    write("stray", config, {**good, "model.layers.0.x": ("F32", [1])})
    q = "model.layers.0.self_attn.q_proj.weight"
    scaled = {**good, q: ("F8_E4M3", SQUARE), q + "_scale_inv": ("F32", [3, 2])}
    write("float8", {**config, "quantization_config": {"quant_method": "fp8", "weight_block_size": [3, 4]}}, scaled)
    write("float8_ints", config, {**scaled, q + "_scale_inv": ("I32", [N_EMBD, 1])})


def experts():
    sizes = {"num_local_experts": N_EXPERT, "num_experts_per_tok": 1}
    config = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", **BASE, **sizes}
    moe = "block_sparse_moe."
    layer = {**ATTN, moe + "gate": [N_EXPERT, N_EMBD]}
    for e in range(N_EXPERT):
        layer.update({f"{moe}experts.{e}.w{i}": [N_EMBD, N_FF] if i == 2 else [N_FF, N_EMBD] for i in (1, 2, 3)})
    write("mixtral", config, decoder(layer))
    write("expert_4095", config, decoder({**layer, moe + "experts.4095.w1": [N_FF, N_EMBD]}))
    fused = {"mlp.experts.gate_up_proj": [N_EXPERT, 2 * N_FF, N_EMBD], "mlp.experts.down_proj": [N_EXPERT, N_EMBD, N_FF]}
    fused = {"model.layers.0." + k: ("BF16", v) for k, v in fused.items()}
    gate = {"mlp.gate": [N_EXPERT, N_EMBD]}
    write("mixtral_fused", config, {**decoder({**ATTN, **gate}), **fused})
    norms = {"self_attn.q_norm": [N_EMBD // N_HEAD], "self_attn.k_norm": [N_EMBD // N_HEAD]}
    config = {"architectures": ["Qwen3MoeForCausalLM"], **BASE, "num_experts": N_EXPERT, "num_experts_per_tok": 1,
              "moe_intermediate_size": N_FF, "norm_topk_prob": True}
    write("qwen3_moe", config, {**decoder({**ATTN, **gate, **norms}), **fused})


def others():
    phi = {"self_attn.qkv_proj": [3 * N_EMBD, N_EMBD], "self_attn.o_proj": SQUARE, "mlp.gate_up_proj": [2 * N_FF, N_EMBD],
           "mlp.down_proj": [N_EMBD, N_FF]}
    rope = {"type": "longrope", "long_factor": [1.0, 2.0], "short_factor": [1.0, 1.0]}
    write("phi3", {"architectures": ["Phi3ForCausalLM"], **BASE, "original_max_position_embeddings": 32, "rope_scaling": rope},
          decoder(phi))
    norms = {"pre_feedforward_layernorm": [N_EMBD], "post_feedforward_layernorm": [N_EMBD],
             "self_attn.q_norm": [N_EMBD // N_HEAD], "self_attn.k_norm": [N_EMBD // N_HEAD]}
    text = {**BASE, "head_dim": N_EMBD // N_HEAD, "query_pre_attn_scalar": N_EMBD // N_HEAD, "sliding_window": 8}
    gemma = {k.replace("model.", "language_model.model.", 1): v for k, v in decoder({**ATTN, **MLP, **norms}).items()}
    write("gemma3", {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text},
          {**gemma, "vision_tower.x": ("F32", [1])})
    n = N_EMBD
    norm = {f"h.0.ln_{i}.{p}": [n] for i in (1, 2) for p in ("weight", "bias")}
    gpt2 = {"wte.weight": [N_VOCAB, n], "wpe.weight": [8, n], "ln_f.weight": [n], "ln_f.bias": [n], **norm,
            "h.0.attn.c_attn.weight": [n, 3 * n], "h.0.attn.c_attn.bias": [3 * n], "h.0.attn.c_proj.weight": [n, n],
            "h.0.attn.c_proj.bias": [n], "h.0.mlp.c_fc.weight": [n, 4 * n], "h.0.mlp.c_fc.bias": [4 * n],
            "h.0.mlp.c_proj.weight": [4 * n, n], "h.0.mlp.c_proj.bias": [n]}
    write("gpt2", {"architectures": ["GPT2LMHeadModel"], "n_embd": n, "n_layer": 1, "n_head": N_HEAD, "n_positions": 8,
                   "n_ctx": 8, "layer_norm_epsilon": 1e-5, "vocab_size": N_VOCAB},
          {"transformer." + k: ("F32", v) for k, v in gpt2.items()})
    norm = {f"h.0.{p}_layernorm.{w}": [n] for p in ("input", "post_attention") for w in ("weight", "bias")}
    bloom = {"word_embeddings.weight": [N_VOCAB, n], "word_embeddings_layernorm.weight": [n], "ln_f.weight": [n],
             "word_embeddings_layernorm.bias": [n], "ln_f.bias": [n], **norm,
             "h.0.self_attention.query_key_value.weight": [3 * n, n], "h.0.self_attention.query_key_value.bias": [3 * n],
             "h.0.self_attention.dense.weight": [n, n], "h.0.self_attention.dense.bias": [n],
             "h.0.mlp.dense_h_to_4h.weight": [4 * n, n], "h.0.mlp.dense_h_to_4h.bias": [4 * n],
             "h.0.mlp.dense_4h_to_h.weight": [n, 4 * n], "h.0.mlp.dense_4h_to_h.bias": [n]}
    write("bloom", {"architectures": ["BloomForCausalLM"], "hidden_size": n, "n_layer": 1, "n_head": N_HEAD,
                    "layer_norm_epsilon": 1e-5, "vocab_size": N_VOCAB}, {k: ("F16", v) for k, v in bloom.items()})


def main():
    os.makedirs(FOLDER, exist_ok=True)
    llama()
    experts()
    others()
    with open(os.path.join(FOLDER, "short"), "wb") as f:
        f.write(b"\xff\xff\xff{")


if __name__ == "__main__":
    main()
