"""Looks at the symbols of what was built.

usage: symbols.py isa SCOPE OBJECT...     every symbol that an ISA level's objects define for others, weak ones above
                                          all, lies in infer::SCOPE (kern::avx2): the linker may keep any copy of a
                                          shared inline function, and this one would crash older CPUs (section 2.6)
       symbols.py library ARCHIVE...      no library calls for the process's output, end or environment (section 2.3)
"""

import re
import subprocess
import sys

FORBIDDEN = re.compile(
    r"^(getenv|secure_getenv|setenv|putenv|exit|_exit|_Exit|quick_exit|abort|printf|__printf_chk|fprintf|__fprintf_chk"
    r"|vfprintf|__vfprintf_chk|puts|fputs|putchar|perror|stdout|stderr|_ZSt4cout|_ZSt4cerr|_ZSt4clog"
    r"|_ZNSt8ios_base4InitC1Ev|__assert_fail)$")
# core/base/check.cpp: INFER_CHECK says what is wrong and aborts.
ALLOWED = {("check.cpp.o", name) for name in ("abort", "stderr", "fprintf", "__fprintf_chk")}


def nm(options, path):
    out = subprocess.run(["nm", *options, path], capture_output=True, text=True, check=False)
    if out.returncode != 0:
        raise SystemExit(f"nm {path}: {out.stderr.strip()}")
    return out.stdout.splitlines()


def isa_problems(namespace, path):
    """Mangled names are matched: a demangled one may merely mention the namespace in a template argument."""
    scope = "5infer" + "".join(f"{len(part)}{part}" for part in namespace.split("::"))
    ours = re.compile(rf"^_Z(?:GV|GR|T[VISTC])?Z*(?:NK?)?{scope}")
    problems = []
    for line in nm(["--defined-only", "--extern-only", "--format=posix"], path):
        fields = line.split()
        if len(fields) < 2 or ours.match(fields[0]) or fields[0].startswith("DW.ref."):
            continue
        problems.append(f"{path}: symbol {fields[0]} (type {fields[1]}) lies outside infer::{namespace}")
    return problems


def library_problems(path):
    problems = []
    member = path
    for line in nm(["--undefined-only", "--format=posix"], path):
        head = re.match(r"^.*\[([^\]]+)\]:$", line)
        if head:
            member = head.group(1)
            continue
        name = line.split()[0].split("@")[0] if line.split() else ""
        if FORBIDDEN.match(name) and (member, name) not in ALLOWED:
            problems.append(f"{path}: {member} calls for {name}")
    return problems


def main():
    kind = sys.argv[1]
    if kind == "isa":
        namespace, paths = sys.argv[2], sys.argv[3:]
        problems = [p for path in paths for p in isa_problems(namespace, path)]
    else:
        paths = sys.argv[2:]
        problems = [p for path in paths for p in library_problems(path)]
    for p in problems:
        print(p)
    print(f"symbols ({kind}): {len(paths)} files, {len(problems)} problems")
    sys.exit(1 if problems or not paths else 0)


if __name__ == "__main__":
    main()
