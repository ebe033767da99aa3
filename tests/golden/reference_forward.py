#!/usr/bin/env python3
"""A plain forward pass of llama and gemma3 GGUF files with numpy: the source of numbers that tests state for real files.

It shares nothing with the project: `gguf` reads and dequantises the file, numpy computes. Greedy ids, and the four best
tokens of each step with their logits:

    pip install gguf numpy
    ./reference_forward.py MODEL.gguf N_STEP ID ID ID ...
"""
import math
import sys

import numpy as np
from gguf import GGUFReader, dequantize


def load(path):
    reader = GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    weights = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32).reshape(tuple(reversed(t.shape))) for t in reader.tensors}
    return keys, weights


def inv_freqs(key, weights, head_dim, base):
    """Frequencies of the pairs after the file's scaling, and the factor of cos and sin."""
    pairs = np.arange(head_dim // 2)
    freqs = base ** (-2 * pairs / head_dim)
    if "rope_freqs.weight" in weights:
        freqs = freqs / weights["rope_freqs.weight"]
    kind, factor = key("rope.scaling.type"), key("rope.scaling.factor")
    if kind == "linear":
        return freqs / factor, 1.0
    if kind != "yarn":
        return freqs, 1.0
    n_old = key("rope.scaling.original_context_length")
    pair_of = lambda turns: head_dim * math.log(n_old / (turns * 2 * math.pi)) / (2 * math.log(base))
    low, high = max(0, math.floor(pair_of(32))), min(head_dim - 1, math.ceil(pair_of(1)))
    ramp = np.clip((pairs - low) / max(0.001, high - low), 0, 1)
    return freqs / factor * ramp + freqs * (1 - ramp), 1 + 0.1 * math.log(factor)


def forward(keys, weights, ids):
    """Logits [len(ids), n_vocab]."""
    arch = keys["general.architecture"]
    key = lambda name, default=None: keys.get(f"{arch}.{name}", default)
    gemma = arch == "gemma3"
    n_head, n_kv_head, n_embd = key("attention.head_count"), key("attention.head_count_kv"), key("embedding_length")
    head_dim = key("attention.key_length") or n_embd // n_head
    eps, window, n = key("attention.layer_norm_rms_epsilon"), key("attention.sliding_window", 0), len(ids)
    rms = lambda x, w: x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w

    def rotate(x, freqs, scale):
        angle = np.arange(n)[:, None] * freqs
        cos, sin = (np.cos(angle) * scale)[:, None], (np.sin(angle) * scale)[:, None]
        first, second = (slice(0, head_dim // 2), slice(head_dim // 2, None)) if gemma else (slice(0, None, 2), slice(1, None, 2))
        out = np.empty_like(x)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., second] * cos + x[..., first] * sin
        return out

    x = weights["token_embd.weight"][ids]
    if gemma:
        x = x * math.sqrt(n_embd)
    for il in range(key("block_count")):
        w = lambda name: weights[f"blk.{il}.{name}.weight"]
        local = window > 0 and (not gemma or (il + 1) % 6 != 0)
        h = rms(x, w("attn_norm"))
        q = (h @ w("attn_q").T).reshape(n, n_head, head_dim)
        k = (h @ w("attn_k").T).reshape(n, n_kv_head, head_dim)
        v = (h @ w("attn_v").T).reshape(n, n_kv_head, head_dim)
        if gemma:
            q, k = rms(q, w("attn_q_norm")), rms(k, w("attn_k_norm"))
        if gemma and local:
            freqs, scale = 10000.0 ** (-2 * np.arange(head_dim // 2) / head_dim), 1.0
        else:
            freqs, scale = inv_freqs(key, weights, head_dim, key("rope.freq_base"))
        q, k = rotate(q, freqs, scale), rotate(k, freqs, scale)
        k, v = np.repeat(k, n_head // n_kv_head, 1), np.repeat(v, n_head // n_kv_head, 1)
        scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(head_dim)
        i, j = np.arange(n)[:, None], np.arange(n)[None]
        scores = np.where((j <= i) & ((j > i - window) if local else True), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        out = np.einsum("hij,jhd->ihd", p, v).reshape(n, -1) @ w("attn_output").T
        x = x + (rms(out, w("post_attention_norm")) if gemma else out)
        h = rms(x, w("ffn_norm"))
        gate, up = h @ w("ffn_gate").T, h @ w("ffn_up").T
        if gemma:
            act = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        else:
            act = gate / (1 + np.exp(-gate))
        out = (act * up) @ w("ffn_down").T
        x = x + (rms(out, w("post_ffw_norm")) if gemma else out)
    return rms(x, weights["output_norm.weight"]) @ weights.get("output.weight", weights["token_embd.weight"]).T


def main():
    keys, weights = load(sys.argv[1])
    ids = [int(a) for a in sys.argv[3:]]
    for _ in range(int(sys.argv[2])):
        logits = forward(keys, weights, ids)[-1]
        best = np.argsort(-logits)[:4]
        print(" ".join(f"{i} {keys['tokenizer.ggml.tokens'][i]!r} {logits[i]:.3f}" for i in best))
        ids.append(int(best[0]))


if __name__ == "__main__":
    main()
