#!/usr/bin/env python3
"""Writes a Llama GGUF of a named shape with random weights: the bytes and the work of a real model, no meaning.

    tools/gpu-report/make_model.py --shape Llama-3-8B --type Q4_0 out.gguf

Types of tensors are those that `quantize` would choose. Blocks are written as they are, from some noise a type over and over,
so that 8B take as long as the disk does. Weights are about as large as trained ones, so that activations stay finite.
"""

import argparse
import random
import struct
import sys

import kernels as K
import steps

GGUF_IDS = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "q4_k": 12, "q6_k": 14}
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}
ALIGN = 32
NOISE_BLOCKS = 1024


def half(x):
    return struct.pack("<e", x)


def block(type_name, rng):
    """A block whose values are about N(0, 0.02)."""
    if type_name == "f16":
        return half(rng.gauss(0.0, 0.02))
    if type_name == "q4_0":
        return half(0.0043) + rng.randbytes(16)
    if type_name == "q8_0":
        return half(0.00027) + rng.randbytes(32)
    if type_name == "q4_k":
        return half(0.0001) + half(0.00075) + rng.randbytes(12 + 128)
    if type_name == "q6_k":
        return rng.randbytes(128 + 64 + 16) + half(1.5e-5)
    raise ValueError(type_name)


def noise(type_name, rng):
    n = NOISE_BLOCKS * (256 if type_name == "f16" else 1)
    return b"".join(block(type_name, rng) for _ in range(n))


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(x):
    """Type and bytes of a metadata value."""
    if isinstance(x, str):
        return struct.pack("<I", 8) + string(x)
    if isinstance(x, float):
        return struct.pack("<If", 6, x)
    if isinstance(x, int):
        return struct.pack("<II", 4, x)
    if isinstance(x[0], str):
        return struct.pack("<IIQ", 9, 8, len(x)) + b"".join(string(s) for s in x)
    return struct.pack("<IIQ", 9, 5, len(x)) + struct.pack(f"<{len(x)}i", *x)


def byte_tokens():
    """GPT-2's names of the 256 bytes: printable ones stand for themselves, the others for U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {b: chr(b) for b in plain}
    for b in range(256):
        names.setdefault(b, chr(256 + len(names) - len(plain)))
    return [names[b] for b in range(256)]


def metadata(shape, model_type):
    tokens = byte_tokens() + ["\u0120t"]
    tokens += [f"<unused{i}>" for i in range(shape.n_vocab - len(tokens))]
    types = [1] * 257 + [5] * (shape.n_vocab - 257)
    types[-1] = 3  # control: the end of a text
    return {
        "general.architecture": "llama", "general.name": shape.name + " (random weights)",
        "general.file_type": FILE_TYPES[model_type], "general.quantization_version": 2,
        "llama.block_count": shape.n_layer, "llama.context_length": 8192, "llama.embedding_length": shape.n_embd,
        "llama.feed_forward_length": shape.n_ff, "llama.attention.head_count": shape.n_head,
        "llama.attention.head_count_kv": shape.n_kv_head, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.head_dim, "llama.rope.freq_base": 500000.0, "llama.vocab_size": shape.n_vocab,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": ["\u0120 t"],
        "tokenizer.ggml.bos_token_id": shape.n_vocab - 1, "tokenizer.ggml.eos_token_id": shape.n_vocab - 1,
    }


def tensors(shape, model_type):
    """[(name, type, rows, columns)]; rows 0: a vector."""
    s = shape
    t = lambda part, il: steps.type_of(model_type, part, il, s)  # noqa: E731
    q, kv = s.n_head * s.head_dim, s.n_kv_head * s.head_dim
    yield "token_embd.weight", t("embed", 0), s.n_vocab, s.n_embd
    yield "output_norm.weight", "f32", 0, s.n_embd
    yield "output.weight", t("output", 0), s.n_vocab, s.n_embd
    for il in range(s.n_layer):
        at = f"blk.{il}."
        yield at + "attn_norm.weight", "f32", 0, s.n_embd
        yield at + "attn_q.weight", t("q", il), q, s.n_embd
        yield at + "attn_k.weight", t("k", il), kv, s.n_embd
        yield at + "attn_v.weight", t("v", il), kv, s.n_embd
        yield at + "attn_output.weight", t("o", il), s.n_embd, q
        yield at + "ffn_norm.weight", "f32", 0, s.n_embd
        yield at + "ffn_gate.weight", t("gate", il), s.n_ff, s.n_embd
        yield at + "ffn_up.weight", t("up", il), s.n_ff, s.n_embd
        yield at + "ffn_down.weight", t("down", il), s.n_embd, s.n_ff


def n_bytes(type_name, rows, columns):
    return 4 * columns if type_name == "f32" else K.weight_bytes(type_name, rows, columns)


def write(path, shape, model_type):
    keys = metadata(shape, model_type)
    parts = list(tensors(shape, model_type))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(parts), len(keys))
    head += b"".join(string(k) + value(v) for k, v in keys.items())
    offset = 0
    for name, type_name, rows, columns in parts:
        dims = [columns, rows] if rows else [columns]
        head += string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        head += struct.pack("<IQ", GGUF_IDS[type_name], offset)
        offset += -(-n_bytes(type_name, rows, columns) // ALIGN) * ALIGN
    rng = random.Random(1)
    patterns = {}
    with open(path, "wb") as out:
        out.write(head + bytes(-len(head) % ALIGN))
        for _, type_name, rows, columns in parts:
            size = n_bytes(type_name, rows, columns)
            if type_name == "f32":
                pattern = struct.pack("<f", 1.0) * columns
            else:
                pattern = patterns.setdefault(type_name, None) or noise(type_name, rng)
                patterns[type_name] = pattern
            for at in range(0, size, len(pattern)):
                out.write(pattern[:size - at])
            out.write(bytes(-size % ALIGN))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out")
    parser.add_argument("--shape", choices=[s.name for s in steps.SHAPES], default="Llama-3-8B")
    parser.add_argument("--type", choices=steps.TYPES, default="Q4_0")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    options = parser.parse_args()
    shape = next(s for s in steps.SHAPES if s.name == options.shape)
    if options.layers:
        shape = steps.Shape(**{**vars(shape), "n_layer": options.layers})
    write(options.out, shape, options.type)


if __name__ == "__main__":
    sys.exit(main())
