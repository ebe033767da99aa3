"""What nvcc made of kernels: registers, stack, shared memory and instructions, read from an archive with cuobjdump."""

import collections
import os
import re
import subprocess


class Kernel:
    """One kernel for one architecture."""

    def __init__(self, name):
        self.name = name  # demangled, without parameters and namespace
        self.registers = 0
        self.stack_bytes = 0
        self.local_bytes = 0
        self.shared_bytes = 0  # static only
        self.instructions = collections.Counter()  # by full mnemonic: "LDG.E.128.CONSTANT"

    def count(self, pattern):
        """How many instructions match a regular expression from their beginning."""
        return sum(n for op, n in self.instructions.items() if re.match(pattern, op))


def demangle(names):
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, (short_name(line) for line in out.splitlines())))


def short_name(demangled):
    """'void infer::cuda::gemv<(infer::DType)8, 1>(infer::cuda::Params)' -> 'gemv<(DType)8, 1>'"""
    depth = 0
    end = len(demangled)
    for i, c in enumerate(demangled):  # the parameter list begins at the first '(' outside of template arguments
        if c == "<":
            depth += 1
        elif c == ">":
            depth -= 1
        elif c == "(" and depth == 0:
            end = i
            break
    text = demangled[:end].replace("infer::cuda::", "").replace("infer::", "")
    return text[5:] if text.startswith("void ") else text


def run(tools, *args):
    environment = dict(os.environ, PATH=tools + os.pathsep + os.environ.get("PATH", ""))
    done = subprocess.run([os.path.join(tools, "cuobjdump"), *args], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError("cuobjdump " + " ".join(args) + ": " + (done.stderr.strip() or done.stdout.strip())[:400])
    return done.stdout


ARCH = re.compile(r"^arch = sm_(\d+)")
FUNCTION = re.compile(r"^\s*Function\s*:?\s*([A-Za-z0-9_$.]+)\s*:?\s*$")
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")


def read(archive, tools):
    """{architecture: {kernel name: Kernel}}"""
    found = {}
    for options in (["-res-usage"], ["-sass"]):
        architecture = kernel = None
        for line in run(tools, *options, archive).splitlines():
            if match := ARCH.match(line):
                architecture = int(match[1])
            elif match := FUNCTION.match(line):
                kernels = found.setdefault(architecture, {})
                kernel = kernels.setdefault(match[1], Kernel(match[1]))
            elif kernel is not None and (match := RESOURCES.search(line)):
                kernel.registers, kernel.stack_bytes, kernel.shared_bytes, kernel.local_bytes = map(int, match.groups())
            elif kernel is not None and (match := INSTRUCTION.match(line)):
                kernel.instructions[match[1]] += 1
    names = demangle(sorted({name for kernels in found.values() for name in kernels}))
    for kernels in found.values():
        for mangled in list(kernels):
            kernel = kernels.pop(mangled)
            kernel.name = names[mangled]
            kernels[kernel.name] = kernel
    return found
