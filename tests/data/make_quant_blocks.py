#!/usr/bin/env python3
"""Writes quant_blocks.bin: blocks of every weight type we compute with and their f32 values by gguf-py's dequantize.

Needs the packages gguf and numpy. Records, little endian, until the end of the file:
  u32 gguf type id, u32 number of elements, u32 number of block bytes, the blocks, f32 [number of elements].
Levels and sub-scales are random bytes; the half scales are random, with zero, subnormals and the extremes among them.
"""
import struct
import sys

import gguf
import numpy as np

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K",
         "Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS"]
HALF_OFFSETS = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
                "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
                "Q2_K": [80, 82], "Q3_K": [108], "IQ4_NL": [0], "IQ4_XS": [0]}
EDGES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF]


def blocks_of(name, rng):
    qtype = gguf.GGMLQuantizationType[name]
    if name in ("F32", "F16", "BF16"):
        width = 4 if name == "F32" else 2
        x = rng.standard_normal(96).astype(np.float32)
        raw = x.view(np.uint32)
        if name == "F32":
            return raw.view(np.uint8).reshape(1, -1)
        half = x.astype(np.float16).view(np.uint16) if name == "F16" else (raw >> 16).astype(np.uint16)
        half[: len(EDGES)] = EDGES
        return half.view(np.uint8).reshape(1, -1)
    length, size = gguf.GGML_QUANT_SIZES[qtype]
    count = 16 if length == 32 else 10
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for offset in HALF_OFFSETS[name]:
        half = (rng.standard_normal(count) * 0.05).astype(np.float16).view(np.uint16)
        half[: len(EDGES)] = np.roll(EDGES, offset)
        data[:, offset : offset + 2] = half.view(np.uint8).reshape(count, 2)
    return data


def main(path):
    rng = np.random.default_rng(20240607)
    with open(path, "wb") as f:
        for name in TYPES:
            qtype = gguf.GGMLQuantizationType[name]
            data = blocks_of(name, rng)
            if name == "F32":
                values = data.view(np.float32)
            elif name == "F16":
                values = data.view(np.float16).astype(np.float32)
            else:
                values = gguf.quants.dequantize(data, qtype)
            values = values.astype("<f4").reshape(-1)
            f.write(struct.pack("<III", int(qtype), values.size, data.size))
            f.write(data.tobytes())
            f.write(values.tobytes())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests/data/quant_blocks.bin")
