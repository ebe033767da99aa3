#!/usr/bin/env python3
"""Times `quantize` and llama.cpp's quantizer on the same file, in turns.

    pip install llama-cpp-python
    quantize_peer.py --quantize build/release/bin/quantize [-t 2] [-r 5] IN.gguf TYPE...

Both write into --folder (same disk); the input is read once before each run, so that the page cache has it. `copy` is
what reading the input and writing as many bytes as the output takes: plain reads and writes of 1 MiB, one thread.
"""
import argparse, ctypes, os, pathlib, statistics, subprocess, time

FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_S": 14, "Q4_K_M": 15,
              "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25}

def importance(path):
    """An imatrix file (GGUF form) as the C API wants it, and what must stay alive meanwhile."""
    import gguf, llama_cpp as L, numpy as np
    tensors = {t.name: np.array(t.data, dtype=np.float32) for t in gguf.GGUFReader(path).tensors}
    entries, alive = [], []
    for name, sums in tensors.items():
        if not name.endswith(".in_sum2"):
            continue
        counts = tensors[name[: -len("in_sum2")] + "counts"].reshape(-1, 1)
        means = np.ascontiguousarray((sums.reshape(counts.shape[0], -1) / counts).reshape(-1))
        alive.append(means)
        entries.append(L.llama_model_imatrix_data(name[: -len(".in_sum2")].encode(),
                                                  means.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), means.size))
    entries.append(L.llama_model_imatrix_data(None, None, 0))
    return (L.llama_model_imatrix_data * len(entries))(*entries), alive

KEPT = []  # what C code may call until the very end

def peer(source, out, name, threads, imatrix=None):
    import llama_cpp as L
    KEPT.append(L.llama_log_callback(lambda level, text, data: None))
    L.llama_log_set(KEPT[-1], None)
    params = L.llama_model_quantize_default_params()
    params.nthread, params.ftype = threads, FILE_TYPES[name]
    if imatrix:
        entries, alive = importance(imatrix)
        params.imatrix = ctypes.cast(entries, ctypes.POINTER(L.llama_model_imatrix_data))
    if L.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params)) != 0:
        raise SystemExit("llama.cpp's quantizer failed")

def ours(program, source, out, name, threads):
    subprocess.run([program, source, out, name, "-t", str(threads)], check=True, capture_output=True)

def copy(source, out, n_bytes):
    block = bytearray(1 << 20)
    with open(source, "rb", buffering=0) as i, open(out, "wb", buffering=0) as o:
        while n := i.readinto(block):
            part = min(n_bytes, n)
            o.write(memoryview(block)[:part])
            n_bytes -= part
        while n_bytes > 0:
            n_bytes -= o.write(memoryview(block)[: min(n_bytes, len(block))])

def warm(path):
    with open(path, "rb", buffering=0) as f:
        block = bytearray(1 << 22)
        while f.readinto(block):
            pass

def timed(fn, source, out):
    if os.path.exists(out):
        os.unlink(out)
    os.sync()
    warm(source)
    start = time.monotonic()
    fn()
    return time.monotonic() - start

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("source")
    ap.add_argument("types", nargs="+")
    ap.add_argument("--quantize", default="build/release/bin/quantize")
    ap.add_argument("--folder", default=".")
    ap.add_argument("-t", "--threads", type=int, default=2)
    ap.add_argument("-r", "--repetitions", type=int, default=5)
    ap.add_argument("--write", help="write llama.cpp's file of the first type here, and time nothing")
    ap.add_argument("--imatrix", help="with --write: its importance matrix, in the GGUF form")
    a = ap.parse_args()
    if a.write:
        peer(a.source, a.write, a.types[0], a.threads, a.imatrix)
        return
    outs = {who: str(pathlib.Path(a.folder) / f"bench-{who}.gguf") for who in ("ours", "peer", "copy")}
    for name in a.types:
        times = {who: [] for who in outs}
        sizes = {}
        for _ in range(a.repetitions):
            times["ours"].append(timed(lambda: ours(a.quantize, a.source, outs["ours"], name, a.threads), a.source, outs["ours"]))
            sizes["ours"] = os.path.getsize(outs["ours"])
            times["copy"].append(timed(lambda: copy(a.source, outs["copy"], sizes["ours"]), a.source, outs["copy"]))
            times["peer"].append(timed(lambda: peer(a.source, outs["peer"], name, a.threads), a.source, outs["peer"]))
            sizes["peer"] = os.path.getsize(outs["peer"])
        median = {who: statistics.median(t) for who, t in times.items()}
        pairs = [p / o for p, o in zip(times["peer"], times["ours"])]
        shares = [c / o for c, o in zip(times["copy"], times["ours"])]
        print(f"{name}: ours {median['ours']:.2f} s, llama.cpp {median['peer']:.2f} s, copy {median['copy']:.2f} s; "
              f"{statistics.median(pairs):.2f} x as fast ({min(pairs):.2f}..{max(pairs):.2f}), "
              f"{statistics.median(shares):.2f} of the copy's speed ({min(shares):.2f}..{max(shares):.2f}); "
              f"bytes {sizes['ours']} and {sizes['peer']}", flush=True)
    for out in outs.values():
        os.unlink(out)

if __name__ == "__main__":
    main()
