"""Fails when the compiled kernels are not what the design says: spills, or a tensor core, an asynchronous copy or a wide load missing.

usage: inspect_kernels.py ARCHIVE TOOLS [--json OUT] [--list]
ARCHIVE holds the kernels, TOOLS is the folder of cuobjdump and nvdisasm. Exit code 77: the tools are not there.
"""

import argparse
import json
import os
import re
import sys

import machine_code

# What a kernel must have, by its name: (pattern of the name, lowest architecture, what, pattern of instructions).
# Every kernel that no pattern of HOT names may do as it likes.
RULES = (
    (r"attention_prefill", 75, "tensor cores (f16)", r"HMMA"),
    (r"attention_prefill", 75, "ldmatrix", r"LDSM"),
    (r"attention_prefill", 80, "asynchronous copies", r"LDGSTS"),
    (r"attention_decode", 75, "16-byte loads", r"(LDG\S*\.128|LDGSTS\S*128)"),
    (r"gemm_half", 75, "tensor cores (f16)", r"HMMA"),
    (r"gemm_half", 75, "ldmatrix", r"LDSM"),
    (r"gemm_half", 80, "asynchronous copies", r"LDGSTS"),
    (r"gemm_q8", 75, "tensor cores (int8)", r"IMMA"),
    (r"gemm_q8", 75, "ldmatrix", r"LDSM"),
    (r"gemm_q8", 80, "asynchronous copies", r"LDGSTS"),
    (r"gemv", 75, "wide loads", r"LDG\S*\.(64|128)"),
)
HOT = re.compile(r"attention|gemm|gemv|rope_store|prepare")


def problems(found):
    for architecture, kernels in sorted(found.items()):
        for name, kernel in sorted(kernels.items()):
            where = f"sm_{architecture} {name}"
            if HOT.search(name) and (kernel.stack_bytes or kernel.local_bytes):
                yield f"{where}: spills ({kernel.stack_bytes} bytes of stack, {kernel.local_bytes} of local memory)"
            for pattern, lowest, what, instructions in RULES:
                if re.search(pattern, name) and architecture >= lowest and kernel.count(instructions) == 0:
                    yield f"{where}: no {what}"
        for pattern in sorted({rule[0] for rule in RULES}):
            if not any(re.search(pattern, name) for name in kernels):
                yield f"sm_{architecture}: no kernel's name matches '{pattern}'"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("archive")
    parser.add_argument("tools")
    parser.add_argument("--json")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if not os.access(os.path.join(options.tools, "cuobjdump"), os.X_OK):
        print("skipped: no cuobjdump (tools/fetch-cuda-tools.sh fetches it)")
        sys.exit(77)
    found = machine_code.read(options.archive, options.tools)
    if options.list:
        for architecture, kernels in sorted(found.items()):
            for name, kernel in sorted(kernels.items()):
                print(f"sm_{architecture} {kernel.registers:3} registers {kernel.stack_bytes:4} stack  {name}")
    if options.json:
        everything = {f"sm_{a}": {n: dict(vars(k), instructions=dict(k.instructions)) for n, k in kernels.items()}
                      for a, kernels in found.items()}
        with open(options.json, "w", encoding="ascii") as out:
            json.dump(everything, out, indent=1, sort_keys=True)
    wrong = list(problems(found))
    print("\n".join(wrong))
    n_kernel = sum(len(kernels) for kernels in found.values())
    print(f"{n_kernel} kernels of {len(found)} architectures looked at, {len(wrong)} problems")
    sys.exit(1 if wrong or not found else 0)


main()
