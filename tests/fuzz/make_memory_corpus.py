"""Writes the seeds of fuzz_session and fuzz_adapter.

usage: make_memory_corpus.py CORPUS_FOLDER
The session's layout is core/engine_session.h's, the adapter's the GGUF specification's.
"""

import os
import struct
import sys


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def session(n_tok, version=1):
    out = b"INFERSES" + struct.pack("<IIQQIIIIQ", version, 0, 1, 0, 1, 0, 2, 0, n_tok)
    out += b"".join(struct.pack("<i", i % 100) for i in range(n_tok))
    for window in (0, 40):
        first = max(0, n_tok - window + 1) // 32 * 32 if window else 0
        rows = n_tok - first
        out += struct.pack("<IIII", 1, 2, 2, first) + bytes(4 * rows) + bytes(8 * rows)
    return out + struct.pack("<I", crc32c(out))


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def adapter(tensor, k, n, rank=2, kind="adapter"):
    keys = [("general.type", 8, text(kind)), ("general.architecture", 8, text("llama")),
            ("adapter.type", 8, text("lora")), ("adapter.lora.alpha", 6, struct.pack("<f", 4.0))]
    tensors = [(tensor + ".lora_a", (k, rank)), (tensor + ".lora_b", (rank, n))]
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, kind_id, value in keys:
        out += text(key) + struct.pack("<I", kind_id) + value
    offset = 0
    for name, shape in tensors:
        out += text(name) + struct.pack("<I", 2) + struct.pack("<QQ", *shape) + struct.pack("<IQ", 0, offset)
        offset += (4 * shape[0] * shape[1] + 31) // 32 * 32
    out += bytes(-len(out) % 32)
    return out + bytes(offset)


def main():
    files = {"session/empty": session(0), "session/short": session(3), "session/window": session(100),
             "session/version": session(3, 2), "session/cut": session(3)[:70],
             "adapter/good": adapter("blk.0.attn_q.weight", 32, 32), "adapter/down": adapter("blk.1.ffn_down.weight", 48, 32),
             "adapter/embedding": adapter("token_embd.weight", 32, 264), "adapter/shape": adapter("blk.0.attn_k.weight", 32, 32),
             "adapter/model": adapter("blk.0.attn_q.weight", 32, 32, kind="model")}
    for name, data in files.items():
        path = os.path.join(sys.argv[1], name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(data)


if __name__ == "__main__":
    main()
