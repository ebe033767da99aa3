#!/usr/bin/env python3
"""Rows for tests/ops/encode_test.cpp and what other encoders make of them.

    pip install gguf numpy
    ./make_encode_rows.py --ggml libggml-base.so --shared ../../../shared

encode_legacy.bin   f32 rows [n][256] (count first, u32), then for F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 the bytes
                    that gguf-py's quantize gives for all rows
encode_rows.bin     f16 rows [4 sets][192][256]: Gauss, Laplace, Student-t(4), Gauss with outliers
encode_errors.json  type -> set -> [sum of squared errors, the same weighted with rms(32 neighbours) + |x|] of
                    llama.cpp's reference encoder; set "real": rows of 256 cut from stories260K's matrices
"""
import argparse, ctypes, json, pathlib, struct
import numpy as np, gguf
from gguf import quants

TYPES = {"q2_k": 10, "q3_k": 11, "q4_k": 12, "q5_k": 13, "q6_k": 14, "iq4_nl": 20, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7,
         "q8_0": 8}
N_ROW = 192

def legacy_rows(rng):
    n = 256
    alternating = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    rows = [rng.standard_normal(n), rng.standard_normal(n) * 0.02, np.zeros(n), np.full(n, 0.37), np.full(n, -1.5),
            rng.standard_normal(n) * 1e-7, rng.standard_normal(n) * 1e-20, rng.uniform(-60000, 60000, n), alternating * 0.75,
            -alternating, np.arange(n) / 8.0 - 16.0, rng.standard_t(2, n), np.round(rng.standard_normal(n) * 4) / 2]
    out = rng.standard_normal(n) * 0.01
    out[::37] *= 300
    rows.append(out)
    return np.array(rows, dtype=np.float32)

def draws(rng):
    shape = (N_ROW, 256)
    outliers = rng.standard_normal(shape)
    outliers[rng.random(shape) < 0.004] *= 10
    sets = [rng.standard_normal(shape), rng.laplace(size=shape), rng.standard_t(4, shape), outliers]
    return [(0.02 * s).astype(np.float16) for s in sets]

def stories_rows(path):
    raw = path.read_bytes()
    dim, hidden, n_layer, n_head, n_kv, n_vocab, _ = struct.unpack("7i", raw[:28])
    kv = dim * n_kv // n_head
    x = np.frombuffer(raw[28:], dtype="<f4")
    sizes = [(1, n_vocab * dim), (0, n_layer * dim), (1, n_layer * dim * dim), (1, n_layer * dim * kv), (1, n_layer * dim * kv),
             (1, n_layer * dim * dim), (0, n_layer * dim), (1, n_layer * hidden * dim), (1, n_layer * hidden * dim),
             (1, n_layer * hidden * dim)]
    at, parts = 0, []
    for matrix, n in sizes:
        if matrix:
            parts.append(x[at:at + n][:n // 256 * 256])
        at += n
    return np.concatenate(parts).reshape(-1, 256)

def errors(x, y):
    x, d = x.astype(np.float64).reshape(-1, 32), (y.astype(np.float64) - x.astype(np.float64)).reshape(-1, 32)
    weight = np.sqrt((x * x).mean(axis=1, keepdims=True)) + np.abs(x)
    return [float((d * d).sum()), float((weight * d * d).sum())]

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--ggml", required=True)
    ap.add_argument("--shared", type=pathlib.Path, required=True)
    a = ap.parse_args()
    here = pathlib.Path(__file__).resolve().parent
    rng = np.random.default_rng(1)
    rows = legacy_rows(rng)
    q = gguf.GGMLQuantizationType
    with open(here / "encode_legacy.bin", "wb") as f:
        f.write(struct.pack("<I", len(rows)) + rows.tobytes())
        for t in (q.F16, q.BF16, q.Q8_0, q.Q4_0, q.Q4_1, q.Q5_0, q.Q5_1):
            f.write(quants.quantize(rows, t).tobytes())
    sets = draws(rng)
    (here / "encode_rows.bin").write_bytes(b"".join(s.tobytes() for s in sets))
    named = dict(zip(("gauss", "laplace", "student", "outliers"), (s.astype(np.float32) for s in sets)))
    named["real"] = stories_rows(a.shared / "data/models/stories260K/stories260K.bin").astype(np.float32)
    lib = ctypes.CDLL(a.ggml)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    pointer = lambda v: v.ctypes.data_as(ctypes.c_void_p)
    result = {}
    for name, number in TYPES.items():
        block, size = gguf.GGML_QUANT_SIZES[q(number)]
        result[name] = {}
        for set_name, x in named.items():
            x = np.ascontiguousarray(x)
            out = np.zeros(len(x) * 256 // block * size, dtype=np.uint8)
            lib.ggml_quantize_chunk(ctypes.c_int(number), pointer(x), pointer(out), ctypes.c_int64(0), ctypes.c_int64(len(x)),
                                    ctypes.c_int64(256), None)
            result[name][set_name] = errors(x, quants.dequantize(out.reshape(len(x), -1), q(number)))
    (here / "encode_errors.json").write_text(json.dumps(result, indent=1) + "\n")

if __name__ == "__main__":
    main()
