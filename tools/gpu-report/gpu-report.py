#!/usr/bin/env python3
"""What infer does on this machine's GPU: builds it, runs the CUDA tests on it, measures models and kernels, compares with the
predictions of docs/cuda.md.

    tools/gpu-report/gpu-report.py                  everything; some 20 minutes, 5 GB of disk for each 8B model
    tools/gpu-report/gpu-report.py --no-8b          without the 8B models
    tools/gpu-report/gpu-report.py --dry-run        only the page, of a stored example

Writes gpu-report.json and gpu-report.html. Exit code 1: no GPU, or it cannot be built; what fails later is told in the report.
"""

import argparse
import dataclasses
import datetime
import json
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import cards  # noqa: E402
import kernels as K  # noqa: E402
import make_model  # noqa: E402
import page  # noqa: E402
import steps  # noqa: E402

EXAMPLE = os.path.join(HERE, "example.json")
TEST_LINE = re.compile(r"^\s*\d+/\d+ Test\s+#\d+: (\S+) \.+\s*(\*{3})?(.*?)\s+([0-9.]+) sec")


def say(text):
    print(f"gpu-report: {text}", file=sys.stderr, flush=True)


def die(text):
    say(text)
    sys.exit(1)


def run(command, **options):
    say(" ".join(command))
    return subprocess.run(command, cwd=ROOT, text=True, check=False, **options)


def gpu_names():
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU \d+: (.*?) \(UUID", done.stdout, re.MULTILINE) if done.returncode == 0 else []


def find_cmake():
    for name in ("cmake", "/usr/bin/cmake"):
        try:
            version = subprocess.run([name, "--version"], capture_output=True, text=True, check=False).stdout
        except OSError:
            continue
        found = re.search(r"version (\d+)\.(\d+)", version)
        if found and (int(found[1]), int(found[2])) >= (3, 25):
            return name
    return None


def build(options):
    cmake = find_cmake() or die("no cmake of 3.25 or later")
    # The emulator's tests say nothing about a GPU and take long to build: ./check --all runs those.
    if run([cmake, "--preset", "cuda", "-DINFER_CUDA_EMULATION=OFF"], stdout=sys.stderr).returncode != 0:
        die("configuring failed: is nvcc installed (CUDA toolkit 12 or later)?")
    targets = ["infer-bench", "kernel_timing", "cuda_gpu_tests"]
    if run([cmake, "--build", "--preset", "cuda", "-j", str(options.jobs), "--target", *targets],
           stdout=sys.stderr).returncode != 0:
        die("the build failed")


def run_tests(report):
    done = run(["ctest", "--test-dir", "build/cuda", "-L", "cuda", "--output-on-failure"], stdout=subprocess.PIPE)
    sys.stderr.write(done.stdout)
    for line in done.stdout.splitlines():
        if match := TEST_LINE.match(line):
            result = match[3].strip()
            report["tests"].append({"name": match[1], "result": result.split()[0] if result else "Failed", "seconds": float(match[4])})
    if done.returncode != 0:
        failed = [t["name"] for t in report["tests"] if t["result"] not in ("Passed", "Skipped")]
        report["problems"].append("tests failed: " + (", ".join(failed) or f"ctest's exit code is {done.returncode}"))
        report["test_log"] = done.stdout[-20000:]


def program(name):
    return os.path.join(ROOT, "build", "cuda", "bin", name)


def bench(report, name, path, flags, shape=None, model_type=None):
    done = run([program("infer-bench"), "run", "-m", path, "-p", "512", "-n", "128", "-r", "5", "--json", *flags],
               stdout=subprocess.PIPE)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        report["problems"].append(f"infer-bench run of {name} failed with exit code {done.returncode}")
        return
    speed = {"name": name, "bench": result}
    for test in result["tests"]:
        speed["tg" if test["n_gen"] else "pp"] = test["median"]
    if shape is not None:
        card = cards.Card(**report["card"])
        speed["tg_predicted"], speed["pp_predicted"] = steps.tokens_per_second(shape, model_type, card, K.Registers())
        if known := cards.published(card.name, shape.name, model_type):
            speed["tg_published"], speed["pp_published"] = known.tg, known.pp
    report["speed"].append(speed)


def bench_models(report, options):
    fetched = run(["tools/fetch-model.sh", "smollm2"], stdout=subprocess.PIPE)
    demo = fetched.stdout.strip()
    if fetched.returncode == 0 and demo:
        bench(report, "SmolLM2-135M Q4_1, CPU", demo, ["-ngl", "0"])
        bench(report, "SmolLM2-135M Q4_1", demo, ["-ngl", "all"])
    else:
        report["problems"].append("the demo model could not be fetched")
    for shape in steps.SHAPES:
        if options.no_8b and shape.name.endswith("8B"):
            continue
        for model_type in options.types.split(","):
            name = f"{shape.name} {model_type}"
            needed = steps.memory_bytes(shape, model_type)
            if needed > 0.95 * report["device"]["memory_bytes"]:
                report["problems"].append(f"{name} left out: it needs {needed / 1e9:.1f} GB of device memory")
                continue
            os.makedirs(options.models, exist_ok=True)
            if shutil.disk_usage(options.models).free < 1.1 * needed:
                report["problems"].append(f"{name} left out: it needs {needed / 1e9:.1f} GB of disk in {options.models}")
                continue
            path = os.path.join(options.models, f"random-{shape.name}-{model_type}.gguf".lower())
            say(f"writing {path}")
            try:
                make_model.write(path, shape, model_type)
                bench(report, name, path, ["-ngl", "all"], shape, model_type)
            finally:
                if os.path.exists(path) and not options.keep_models:
                    os.remove(path)


# Kernel, and bytes read an element.
ROW_OPS = {"embed": ("embed_rows", 18 / 32), "gather": ("gather_live_rows", 4), "gate_add": ("gate_add_rows", 8)}


def work_of(timed, n_sm):
    """The Work of what kernel_timing timed; None for what has no prediction."""
    t = timed
    if t["op"] in ("gemv", "gemm_q8", "gemm_half"):
        return getattr(K, t["op"])(t["type"], t["n"], t["k"], t["m"], t["glu"], n_sm)
    if t["op"] == "attention_decode":
        return K.attention_decode(t["m"], t["n_head"], t["n_kv_head"], t["head_dim"], t["n_kv"], n_sm=n_sm)
    if t["op"] == "attention_prefill":
        return K.attention_prefill(t["m"], t["n_head"], t["n_kv_head"], t["head_dim"], n_sm)
    if t["op"] == "rope_store":
        return K.rope_store(t["m"], t["n_head"], t["n_kv_head"], t["head_dim"])
    if t["op"] == "prepare":
        return K.prepare(t["k"], t["m"], t["form"])
    if t["op"] == "epilogue" and t["glu"]:
        return K.epilogue(t["n"][0], t["m"])
    if t["op"] in ROW_OPS:
        kernel, read = ROW_OPS[t["op"]]
        return K.rows_op(t["op"], kernel, t["m"], read * t["k"], 4 * t["k"])
    if t["op"] == "sample":
        return K.sample(t["n_vocab"], t["m"])
    return None


def with_predictions(timings, card):
    """What kernel_timing printed of each kernel, with what was predicted."""
    registers = K.Registers()
    for timed in timings:
        work = work_of(timed, card.n_sm)
        size = timed["model"].rsplit("-", maxsplit=1)[-1]
        timed["title"] = f"{size} {timed['op']}"
        if work is None:
            continue
        prediction = K.predict(work, card, registers, graph=True)
        glu = ", glu" if timed.get("glu") else ""
        timed.update(title=f"{size} {work.op} {work.detail}{glu}", predicted_us=1e6 * prediction.seconds, bound=prediction.bound,
                     bytes=work.bytes, ops=work.ops, unit=work.unit, registers=prediction.registers,
                     blocks_per_sm=prediction.blocks_per_sm)
    return timings


def time_kernels(report):
    done = run([program("kernel_timing")], stdout=subprocess.PIPE)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        report["problems"].append(f"kernel_timing failed with exit code {done.returncode}")
        return
    report["empty_us"] = result["empty_us"]
    report["kernels"] = with_predictions(result["kernels"], cards.Card(**report["card"]))


def write(report, folder):
    os.makedirs(folder, exist_ok=True)
    paths = [os.path.join(folder, "gpu-report" + ending) for ending in (".json", ".html")]
    with open(paths[0], "w", encoding="utf-8") as out:
        json.dump(report, out, indent=1)
        out.write("\n")
    with open(paths[1], "w", encoding="utf-8") as out:
        out.write(page.page(report))
    for path in paths:
        say(f"wrote {path}")


def fresh_report():
    device = json.loads(run([program("kernel_timing"), "--device"], stdout=subprocess.PIPE).stdout or "{}").get("device")
    if device is None:
        die("the CUDA runtime finds no GPU, although nvidia-smi does")
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {"when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": commit.stdout.strip() or "unknown",
            "device": device, "card": dataclasses.asdict(cards.card_of_device(device)), "problems": [], "tests": [], "speed": [], "kernels": []}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", default=".", help="folder for gpu-report.json and gpu-report.html (default: here)")
    parser.add_argument("--no-8b", action="store_true", help="leave the 8B models out")
    parser.add_argument("--types", default="Q4_0,Q4_K_M", help="of the models with random weights: " + ", ".join(steps.TYPES))
    parser.add_argument("--models", default=os.path.join(ROOT, "build", "gpu-report"), help="where those are written")
    parser.add_argument("--keep-models", action="store_true", help="do not delete them afterwards")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--dry-run", action="store_true", help="only write the page of a stored example")
    options = parser.parse_args()
    if unknown := set(options.types.split(",")) - set(steps.TYPES):
        die(f"--types: unknown {', '.join(sorted(unknown))}")
    if options.dry_run:
        with open(EXAMPLE, encoding="utf-8") as file:
            report = json.load(file)
        report["kernels"] = with_predictions(report["kernels"], cards.Card(**report["card"]))
        write(report, options.out)
        return
    names = gpu_names()
    if not names:
        die("no NVIDIA GPU here (nvidia-smi finds none); --dry-run shows what the report looks like")
    say(f"on {names[0]}")
    build(options)
    report = fresh_report()
    if not options.no_tests:
        run_tests(report)
    time_kernels(report)
    bench_models(report, options)
    write(report, options.out)


if __name__ == "__main__":
    main()
