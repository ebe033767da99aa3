#!/usr/bin/env python3
"""Every type that `quantize` writes against llama.cpp's file of the same name (../shared/golden/quantize-tiny.json).

    quantize_tiny.py QUANTIZE SHARED WORK_DIR

The legacy types must have its bytes; K-quants and IQ4_NL its type for each tensor and an error that is no larger. What
gguf-py makes of each tensor's first rows must be what `quantize FILE OUT F32` makes of them, bit by bit (numpy takes its
time); errors are those of that file.
Needs gguf-py and numpy (PyPI; fetched into WORK_DIR/oracle where they are not); exit code 77 without them.
"""
import hashlib, json, os, pathlib, struct, subprocess, sys
from typing import NamedTuple

try:
    import gguf, numpy as np
except ImportError:
    oracle = str(pathlib.Path(sys.argv[3]).resolve() / "oracle")
    fetch = pathlib.Path(__file__).with_name("fetch_oracles.sh")
    if subprocess.run(["sh", fetch, oracle, "gguf"], stdout=sys.stderr).returncode != 0:
        print("skipped: gguf-py and numpy cannot be had (tests/golden/fetch_oracles.sh)")
        sys.exit(77)
    sys.path.insert(0, oracle)
    os.environ["PYTHONPATH"] = oracle  # of make_model.py
    import gguf, numpy as np

SOURCE_SHA256 = "07d458480fba8c11006efb85ed5e3657325f676a8cda02d42931ca2bfbcd2eab"
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of the types of keys
SAME_BYTES = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}

def source(shared, work):
    path = work / "tiny.gguf"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SOURCE_SHA256:
        subprocess.run([sys.executable, shared / "bench/make_model.py", "--shape", "tiny", "--seed", "1", "--vocab",
                        shared / "data/tokenizer/gguf-vocab/ggml-vocab-gpt-2.gguf", path], check=True)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SOURCE_SHA256:
        print("skipped: this numpy or gguf makes another source file")
        sys.exit(77)
    return path

ROWS = 1000  # whose decoding is compared

class Tensor(NamedTuple):
    type: "gguf.GGMLQuantizationType"
    data: "np.ndarray"  # [rows, bytes of a row]

def tensors_of(path):
    """GGUFReader takes seconds for a vocabulary of 50,000; only tensors are wanted here."""
    raw = np.memmap(path, mode="r")
    at = 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, raw, at)
        at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def string():
        nonlocal at
        n = take("Q")
        at += n
        return at

    def skip(kind):
        nonlocal at
        if kind == 8:
            string()
        elif kind == 9:
            inner, n = take("IQ")
            if inner == 8:
                for _ in range(n):
                    string()
            else:
                at += n * WIDTHS[inner]
        else:
            at += WIDTHS[kind]

    _, _, n_tensor, n_key = take("IIQQ")
    for _ in range(n_key):
        string()
        skip(take("I"))
    infos = []
    for _ in range(n_tensor):
        begin = at + 8
        name = bytes(raw[begin:string()]).decode()
        shape = [take("Q") for _ in range(take("I"))]
        infos.append((name, shape, gguf.GGMLQuantizationType(take("I")), take("Q")))
    data = -(-at // 32) * 32
    found = {}
    for name, shape, kind, offset in infos:
        length, size = gguf.GGML_QUANT_SIZES[kind]
        row = shape[0] // length * size
        rows = int(np.prod(shape[1:], dtype=np.int64))
        found[name] = Tensor(kind, raw[data + offset : data + offset + rows * row].reshape(rows, row))
    return found

def values(tensor):
    return np.ascontiguousarray(tensor.data).view(np.float32).reshape(-1)

def first_values(tensor):
    return gguf.quants.dequantize(np.ascontiguousarray(tensor.data[:ROWS]), tensor.type).reshape(-1)

def rmse(a, b):
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))

def decoded(quantize, path, work):
    """The file's tensors as our own decoders see them."""
    out = work / "decoded.gguf"
    subprocess.run([quantize, path, out, "F32", "--allow-requantize"], check=True)
    return {name: values(t) for name, t in tensors_of(out).items()}

def main():
    quantize, shared, work = (pathlib.Path(p).resolve() for p in sys.argv[1:4])
    expected = shared / "golden/quantize-tiny.json"
    if not expected.is_file():
        print("skipped: no shared data")
        sys.exit(77)
    work.mkdir(parents=True, exist_ok=True)
    path = source(shared, work)
    truth = decoded(quantize, path, work)
    problems = 0
    for name, golden in json.loads(expected.read_text()).items():
        out = work / f"tiny-{name}.gguf"
        subprocess.run([quantize, path, out, name, "-t", "2"], check=True)
        tensors = tensors_of(out)
        ours = decoded(quantize, out, work)
        same = worst = 0
        if tensors.keys() != golden["tensors"].keys():
            print(f"{name}: other tensors")
            problems += 1
        for key, want in golden["tensors"].items():
            got, first = tensors[key], first_values(tensors[key])
            if not np.array_equal(first.view(np.uint32), ours[key][: first.size].view(np.uint32)):
                print(f"{name} {key}: gguf-py decodes {got.type.name} otherwise")
                problems += 1
            if got.type.name != want["type"]:
                print(f"{name} {key}: {got.type.name}, not {want['type']}")
                problems += 1
                continue
            equal = hashlib.sha256(got.data.tobytes()).hexdigest() == want["sha256"]
            same += equal
            if equal:
                continue
            if want["type"] in SAME_BYTES:
                print(f"{name} {key}: other bytes")
                problems += 1
                continue
            error = rmse(ours[key], truth[key])
            worst = max(worst, error / want["rmse"])
            if not error <= want["rmse"]:
                print(f"{name} {key} {want['type']}: RMSE {error:.6g}, the reference's is {want['rmse']:.6g}")
                problems += 1
        print(f"{name}: {same} of {len(tensors)} tensors byte for byte, worst RMSE of the others {worst:.4f} x; "
              f"{out.stat().st_size} bytes, the reference has {golden['file_bytes']}")
        out.unlink()
    sys.exit(1 if problems else 0)

if __name__ == "__main__":
    main()
