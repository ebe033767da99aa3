#!/usr/bin/env python3
"""Writes recipe_types.json: the type that llama.cpp's quantizer gives each tensor of models of many shapes.

    LLAMA_CPP_LIB_PATH=... tests/data/make_recipe_types.py    # needs gguf, numpy, llama-cpp-python (0.3.36 was used)

The models are headers alone (sparse files whose tensor data is a hole); llama_model_quantize runs with dry_run and says in
its log what it would do.
"""
import ctypes
import json
import os
import re
import sys
import tempfile

import gguf
import llama_cpp as L
import numpy as np

TARGETS = {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10,
           "Q2_K_S": 21, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16,
           "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25}
GGML = {t.name.lower(): t.value for t in gguf.GGMLQuantizationType}


def dense(e, f, kv=None, fused=False, gate=True, norms=("attn_norm", "ffn_norm")):
    kv = kv or e
    attn = [["attn_qkv.weight", [e, e + 2 * kv]]] if fused else [
        ["attn_q.weight", [e, e]], ["attn_k.weight", [e, kv]], ["attn_v.weight", [e, kv]]]
    ffn = ([["ffn_gate.weight", [e, f]]] if gate else []) + [["ffn_up.weight", [e, f]], ["ffn_down.weight", [f, e]]]
    return [[n + ".weight", [e]] for n in norms] + attn + [["attn_output.weight", [e, e]]] + ffn


def experts(e, f, n, kv, shared=0):
    each = [["attn_norm.weight", [e]], ["ffn_norm.weight", [e]], ["attn_q.weight", [e, e]], ["attn_k.weight", [e, kv]],
            ["attn_v.weight", [e, kv]], ["attn_output.weight", [e, e]], ["ffn_gate_inp.weight", [e, n]],
            ["ffn_gate_exps.weight", [e, f, n]], ["ffn_up_exps.weight", [e, f, n]], ["ffn_down_exps.weight", [f, e, n]]]
    if shared:
        each += [["ffn_gate_shexp.weight", [e, shared]], ["ffn_up_shexp.weight", [e, shared]],
                 ["ffn_down_shexp.weight", [shared, e]], ["ffn_gate_inp_shexp.weight", [e]]]
    return each


def model(arch, layers, e, f, heads, kv_heads, each, tied=False, once=(), vocab=512, **keys):
    all_keys = {"context_length": 512, "embedding_length": e, "block_count": layers, "feed_forward_length": f,
                "attention.head_count": heads, "attention.head_count_kv": kv_heads, **keys}
    tensors = [["token_embd.weight", [e, vocab]], ["output_norm.weight", [e]], *once]
    if not tied:
        tensors.append(["output.weight", [e, vocab]])
    return {"arch": arch, "keys": all_keys, "once": tensors, "each": each}


RMS = {"attention.layer_norm_rms_epsilon": 1e-5}
LN = {"attention.layer_norm_epsilon": 1e-5}
BIASED = [["attn_qkv.bias", [2304]], ["attn_norm.bias", [768]]]
MODELS = {
    "smollm2": model("llama", 30, 576, 1536, 9, 3, dense(576, 1536, 192), tied=True, **RMS),
    "tiny": model("llama", 4, 256, 768, 4, 2, dense(256, 768, 128), **RMS),
    "many_layers": model("llama", 40, 512, 1536, 8, 8, dense(512, 1536), **RMS),
    "gqa8": model("llama", 17, 1024, 2816, 16, 2, dense(1024, 2816, 128), **RMS),
    "shape_70b": model("llama", 80, 1024, 2816, 64, 8, dense(1024, 2816, 128), **RMS),
    "moe8": model("llama", 16, 512, 768, 8, 2, experts(512, 768, 8, 128),
                  **{"expert_count": 8, "expert_used_count": 2, **RMS}),
    "qwen2": model("qwen2", 24, 896, 4864, 14, 2, dense(896, 4864, 128), tied=True, **RMS),
    "qwen2moe": model("qwen2moe", 24, 512, 1408, 8, 8, experts(512, 512, 60, 512, 1408),
                      **{"expert_count": 60, "expert_used_count": 4, "expert_feed_forward_length": 512,
                         "expert_shared_feed_forward_length": 1408, **RMS}),
    "qwen3moe": model("qwen3moe", 12, 512, 768, 16, 2, experts(512, 256, 16, 128),
                      **{"expert_count": 16, "expert_used_count": 4, "expert_feed_forward_length": 256, **RMS}),
    "gemma3": model("gemma3", 18, 640, 2048, 4, 1, dense(640, 2048, 256, norms=(
        "attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")), tied=True,
        **{"attention.sliding_window": 512, "attention.key_length": 256, "attention.value_length": 256, **RMS}),
    "phi3": model("phi3", 32, 512, 1536, 8, 8, dense(512, 1536, fused=True, gate=False),
                  **{"rope.dimension_count": 64, **RMS}),
    "gpt2": model("gpt2", 12, 768, 3072, 12, 12, dense(768, 3072, fused=True, gate=False) + BIASED, tied=True,
                  once=[["position_embd.weight", [768, 64]]], **LN),
    "bloom": model("bloom", 24, 1024, 4096, 16, 16, dense(1024, 4096, fused=True, gate=False),
                   once=[["token_embd_norm.weight", [1024]]], **LN),
    "falcon": model("falcon", 32, 1024, 4096, 16, 1, dense(1024, 4096, 64, fused=True, gate=False), **LN),
    "odd_rows": model("llama", 4, 80, 208, 4, 4, dense(80, 208), **RMS),
}
OPTIONS = [{}, {"imatrix": True}, {"pure": True}, {"leave_output": True}, {"output_type": "q5_k"},
           {"embedding_type": "q8_0"}, {"tensor_types": [["attn_v", "q8_0"], ["blk\\.[01]\\.ffn", "q6_k"]]}]
FLAG_TARGETS = ("Q8_0", "Q4_0", "Q5_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_S", "IQ4_NL")  # those asked with options
FLAGGED = ("smollm2", "tiny", "moe8")      # the models that are asked with all options


def write_header(m, path):
    out = gguf.GGUFWriter(path, m["arch"])
    for key, value in m["keys"].items():
        (out.add_float32 if isinstance(value, float) else out.add_uint32)(f"{m['arch']}.{key}", value)
    end = 0
    names = list(m["once"]) + [[f"blk.{i}.{n}", s] for i in range(m["keys"]["block_count"]) for n, s in m["each"]]
    for name, shape in names:
        single = len(shape) == 1
        size = int(np.prod(shape)) * (4 if single else 2)
        out.add_tensor_info(name, shape[::-1], np.dtype(np.float32 if single else np.float16), size)
        end += (size + 31) // 32 * 32
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    out.close()
    os.truncate(path, (os.path.getsize(path) + 31) // 32 * 32 + end)
    return [n for n, _ in names]


LOG = []
LINE = re.compile(r"\] +(\S+) +- \[[^]]*\], type = +(\S+), size = [^\n]*?(?:\((\S+)\))?\n")


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def log(_level, text, _data):
    LOG.append(text.decode(errors="replace"))


def ask(path, names, target, options):
    params = L.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.dry_run = TARGETS[target], 1, True
    params.pure = options.get("pure", False)
    params.quantize_output_tensor = not options.get("leave_output", False)
    if "output_type" in options:
        params.output_tensor_type = GGML[options["output_type"]]
    if "embedding_type" in options:
        params.token_embedding_type = GGML[options["embedding_type"]]
    keep = []
    if "tensor_types" in options:
        rules = (L.llama_model_tensor_override * (len(options["tensor_types"]) + 1))()
        for i, (pattern, name) in enumerate(options["tensor_types"]):
            rules[i].pattern, rules[i].type = pattern.encode(), GGML[name]
        params.tt_overrides = ctypes.cast(rules, type(params.tt_overrides))
        keep.append(rules)
    if "imatrix" in options:
        data = (ctypes.c_float * 1)(1.0)
        entries = (L.llama_model_imatrix_data * 2)()
        entries[0].name, entries[0].data, entries[0].size = b"none", ctypes.cast(data, ctypes.POINTER(ctypes.c_float)), 1
        params.imatrix = ctypes.cast(entries, type(params.imatrix))
        keep += [data, entries]
    LOG.clear()
    if L.llama_model_quantize(path.encode(), b"", ctypes.byref(params)) != 0:
        raise SystemExit(f"{path} {target} {options}:\n{''.join(LOG)[-2000:]}")
    found = {name: (new or old).lower() for name, old, new in LINE.findall("".join(LOG))}
    return [found[n] for n in names]


def runs(types):
    """[["q4_k", 12], ["q6_k", 1], ...]"""
    out = []
    for t in types:
        if out and out[-1][0] == t:
            out[-1][1] += 1
        else:
            out.append([t, 1])
    return out


def main():
    L.llama_log_set(log, ctypes.c_void_p(0))
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        for name, m in MODELS.items():
            path = os.path.join(folder, name + ".gguf")
            names = write_header(m, path)
            per_layer = len(m["each"])
            n_once = len(m["once"])
            for options in OPTIONS if name in FLAGGED else OPTIONS[:2]:
                for target in FLAG_TARGETS if options else TARGETS:
                    types = ask(path, names, target, options)
                    each = [[types[n_once + l * per_layer + i] for l in range(m["keys"]["block_count"])]
                            for i in range(per_layer)]
                    answers.append({"model": name, "target": target, "options": options, "once": types[:n_once],
                                    "each": [runs(e) for e in each]})
            print(name, len(names), "tensors", file=sys.stderr)
    text = json.dumps({"models": MODELS}, separators=(",", ":"))[:-1] + ',"answers":[\n'
    text += ",\n".join(json.dumps(a, separators=(",", ":")) for a in answers) + "\n]}\n"
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "recipe_types.json"), "w", encoding="ascii") as f:
        f.write(text)


main()
