"""Writes corpus/safetensors: small files, right and wrong, and configurations.

usage: make_safetensors_corpus.py (in tests/fuzz)
"""

import json
import os
import struct

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "safetensors")


def write(name, data):
    with open(os.path.join(FOLDER, name), "wb") as f:
        f.write(data)


def file_of(header, data=b"", n_header=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if n_header is None else n_header) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def main():
    os.makedirs(FOLDER, exist_ok=True)
    sizes = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
             "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
    header = {"__metadata__": {"format": "pt"}}
    at = 0
    for dtype, n in sizes.items():
        header["t." + dtype] = entry(dtype, [3, 1], at, at + 3 * n)
        at += 3 * n
    write("types", file_of(header, bytes(range(at))))
    write("scalar_and_empty", file_of({"a": entry("F32", [], 0, 4), "b": entry("F32", [0, 7], 4, 4)}, bytes(4)))
    write("overlap", file_of({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(12)))
    write("outside", file_of({"a": entry("F32", [2], 0, 8)}, bytes(4)))
    write("overflow", file_of({"a": entry("F32", [1 << 32, 1 << 32], 0, 0)}))
    write("long_header", file_of({"a": entry("F32", [1], 0, 4)}, bytes(4), 1 << 63))
    write("twice", file_of(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                           b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)))
    write("deep", file_of(b'{"a":' * 200))
    write("config.json", json.dumps({"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-6, "x": [1, None, {}],
                                     "rope_scaling": {"factor": 2.0, "type": "linear"}}).encode())


if __name__ == "__main__":
    main()
