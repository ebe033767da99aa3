"""Compiles every header by itself.

usage: headers_alone.py ROOT COMPILER WORK_FOLDER
A header that compiled before and whose includes have not changed since is not compiled again.
"""

import concurrent.futures
import os
import subprocess
import sys

import sources

# Flags by the folder of an ISA level; a level that this compiler cannot target is left out.
ISA_FLAGS = {
    "kernels/cpu/avx2/": ("x86_64", ["-mavx2", "-mfma", "-mf16c"]),
    "kernels/cpu/avx512/": ("x86_64", ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma",
                                    "-mf16c"]),
    "kernels/cpu/neon/": ("aarch64", ["-march=armv8.2-a+fp16+dotprod"]),
}
# Folders whose headers need the CUDA toolkit's (and Boost.Context's): left out where those are not installed.
CUDA_FOLDERS = ("kernels/cuda/", "backends/cuda/", "tests/cuda_on_cpu/")


def cuda_flags():
    for root in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        include = os.path.join(root or "", "include")
        if os.path.isfile(os.path.join(include, "cuda_runtime.h")):
            has_fibers = os.path.isfile("/usr/include/boost/context/detail/fcontext.hpp")
            # nvcc's "#pragma unroll" says nothing to g++.
            return ["-isystem", include, "-Wno-unknown-pragmas"] if has_fibers else None
    return None


def flags_of(path, machine):
    if path.startswith(CUDA_FOLDERS):
        return cuda_flags()
    for prefix, (cpu, flags) in ISA_FLAGS.items():
        if path.startswith(prefix):
            return flags if machine.startswith(cpu) else None
    return []


def up_to_date(stamp, depfile):
    """The stamp is younger than every file that the compiler read."""
    try:
        with open(depfile, encoding="utf-8") as f:
            inputs = f.read().replace("\\\n", " ").split(":", 1)[1].split()
        made = os.path.getmtime(stamp)
        return all(os.path.getmtime(i) < made for i in inputs)
    except (OSError, IndexError):
        return False


def compile_alone(root, compiler, work, path, flags):
    name = path.replace("/", "_")
    unit, stamp, deps = (os.path.join(work, name + end) for end in (".cpp", ".ok", ".d"))
    if up_to_date(stamp, deps):
        return None
    line = f'#include "{path}"\n'
    with open(unit, "w", encoding="utf-8") as f:
        f.write(line + line)  # twice: the guard works
    command = [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-Wno-unused",
               "-I", root, "-MMD", "-MF", deps, *flags, unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        with open(stamp, "w", encoding="utf-8"):
            pass
        return None
    return f"{path}: does not compile alone:\n" + "\n".join(done.stderr.splitlines()[:12])


def main():
    root, compiler, work = sys.argv[1:4]
    os.makedirs(work, exist_ok=True)
    machine = subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    jobs = [(path, flags_of(path, machine)) for path in sources.files(root, (".h", ".cuh"))]
    jobs = [(path, flags) for path, flags in jobs if flags is not None]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        results = pool.map(lambda job: compile_alone(root, compiler, work, *job), jobs)
    sources.finish([r for r in results if r], "headers alone", len(jobs))


if __name__ == "__main__":
    main()
