"""Makes imatrix/: small importance matrices in llama.cpp's two forms, for unit tests and as a fuzzing corpus.

usage: make_imatrix.py FOLDER      (needs gguf and numpy)
The GGUF form is written by gguf-py, the legacy one by struct, in the layout of llama.cpp's tools/imatrix.
"""

import os
import struct
import sys

import gguf
import numpy as np

# name, columns, tokens that each matrix saw
TENSORS = (
    ("blk.0.attn_q.weight", 4, (10,)),
    ("blk.0.ffn_down_exps.weight", 3, (7, 0, 3)),  # the second expert was never used
    ("output.weight", 2, (10,)),
)


def sums(n_k, counts):
    """Sum of column i of matrix m: counts[m] * (m + 1) * (i + 0.5)."""
    return np.array([[n * (m + 1) * (i + 0.5) for i in range(n_k)] for m, n in enumerate(counts)], np.float32)


def write_gguf(path):
    out = gguf.GGUFWriter(path, "")
    out.kv_data[0].clear()  # llama.cpp writes no architecture
    out.add_string("general.type", "imatrix")
    out.add_array("imatrix.datasets", ["a.txt", "b.txt"])
    out.add_uint32("imatrix.chunk_count", 2)
    out.add_uint32("imatrix.chunk_size", 5)
    for name, n_k, counts in TENSORS:
        out.add_tensor(name + ".in_sum2", sums(n_k, counts))
        out.add_tensor(name + ".counts", np.array(counts, np.float32).reshape(-1, 1))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def legacy(chunk, trailer):
    """Means times calls; one count for all experts, ones for an expert that was never used."""
    out = struct.pack("<i", len(TENSORS))
    for name, n_k, counts in TENSORS:
        n_call = -(-max(counts) // chunk)
        n = np.array(counts, np.float32).reshape(-1, 1)
        means = np.where(n > 0, sums(n_k, counts) / np.maximum(n, 1), 1).astype(np.float32)
        values = (means * n_call).ravel()
        out += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", n_call, len(values))
        out += values.astype("<f4").tobytes()
    if trailer:
        out += struct.pack("<ii", 2, len("a.txt")) + b"a.txt"
    return out


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    write_gguf(os.path.join(folder, "small.gguf"))
    for name, data in (("small.dat", legacy(5, True)), ("old.dat", legacy(5, False))):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(data)


if __name__ == "__main__":
    main()
