#!/usr/bin/env python3
"""Every type that `quantize` writes against llama.cpp's file of the same name (../shared/golden/quantize-tiny.json).

    quantize_tiny.py QUANTIZE SHARED WORK_DIR

The legacy types must have its bytes; K-quants and IQ4_NL its type for each tensor and an error that is no larger.
Needs gguf-py and numpy (PyPI); exit code 77 without them.
"""
import hashlib, json, pathlib, subprocess, sys

try:
    import gguf, numpy as np
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

SOURCE_SHA256 = "07d458480fba8c11006efb85ed5e3657325f676a8cda02d42931ca2bfbcd2eab"
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

def values(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64).reshape(-1)

def main():
    quantize, shared, work = (pathlib.Path(p).resolve() for p in sys.argv[1:4])
    expected = shared / "golden/quantize-tiny.json"
    if not expected.is_file():
        print("skipped: no shared data")
        sys.exit(77)
    work.mkdir(parents=True, exist_ok=True)
    path = source(shared, work)
    truth = {t.name: values(t) for t in gguf.GGUFReader(path).tensors}
    problems = 0
    for name, golden in json.loads(expected.read_text()).items():
        out = work / f"tiny-{name}.gguf"
        subprocess.run([quantize, path, out, name, "-t", "2"], check=True)
        tensors = {t.name: t for t in gguf.GGUFReader(out).tensors}
        same = worst = 0
        if tensors.keys() != golden["tensors"].keys():
            print(f"{name}: other tensors")
            problems += 1
        for key, want in golden["tensors"].items():
            got = tensors[key]
            if got.tensor_type.name != want["type"]:
                print(f"{name} {key}: {got.tensor_type.name}, not {want['type']}")
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
            rmse = float(np.sqrt(np.mean((values(got) - truth[key]) ** 2)))
            worst = max(worst, rmse / want["rmse"])
            if not rmse <= want["rmse"]:
                print(f"{name} {key} {want['type']}: RMSE {rmse:.6g}, the reference's is {want['rmse']:.6g}")
                problems += 1
        print(f"{name}: {same} of {len(tensors)} tensors byte for byte, worst RMSE of the others {worst:.4f} x; "
              f"{out.stat().st_size} bytes, the reference has {golden['file_bytes']}")
        out.unlink()
    sys.exit(1 if problems else 0)

if __name__ == "__main__":
    main()
