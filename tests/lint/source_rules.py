"""Fails on what the house rules forbid in sources: characters beyond ASCII, code switched off by #if 0, headers
without #pragma once, and, below tools/, printing, ending the process or reading the environment.

usage: source_rules.py ROOT
"""

import re
import sys

import sources

DEAD_CODE = re.compile(r"^[ \t]*#[ \t]*if[ \t]+(0|false)\b", re.MULTILINE)
# The library is silent and owns no process (section 2.3).
OWNS_PROCESS = re.compile(
    r"\b(?:(?:getenv|secure_getenv|setenv|putenv|exit|_exit|_Exit|quick_exit|at_quick_exit|atexit|abort|terminate"
    r"|printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|fputc|perror|assert)[ \t]*\("
    r"|std::(?:cout|cerr|clog)\b|stdout\b|stderr\b|fmt::print\b)")
# A member function of ours may be called by such a name.
MEMBER = re.compile(r"(?:\.|->)[ \t]*$")
LIBRARY = ("core/", "gguf/", "kernels/", "backends/", "quantize/")
# INFER_CHECK ends here: our own bug, one line on stderr, then abort.
ALLOWED = {"core/base/check.cpp"}


def check_ascii(path, text):
    problems = []
    for number, line in enumerate(text.split("\n"), 1):
        for c in line:
            if ord(c) > 126 or (ord(c) < 32 and c not in "\t\r"):
                problems.append(f"{path}:{number}: character U+{ord(c):04X}: sources are ASCII, write an escape")
                break
    return problems


def check_code(path, text):
    problems = []
    code = sources.code_only(text)
    for match in DEAD_CODE.finditer(code):
        problems.append(f"{path}:{code.count(chr(10), 0, match.start()) + 1}: code switched off: delete it")
    if path.endswith((".h", ".cuh")) and not re.search(r"^#pragma once$", code, re.MULTILINE):
        problems.append(f"{path}:1: a header without #pragma once")
    if path.startswith(LIBRARY) and path not in ALLOWED:
        for match in OWNS_PROCESS.finditer(code):
            if MEMBER.search(code[:match.start()]):
                continue
            line = code.count("\n", 0, match.start()) + 1
            word = match.group(0).rstrip(" (")
            problems.append(f"{path}:{line}: {word} in the library: return an error, log, or take an option")
    return problems


def main():
    root = sys.argv[1]
    cxx = sources.files(root)
    everything = sources.files(root, sources.CXX + sources.SCRIPTS)
    problems = [p for path in everything for p in check_ascii(path, sources.read(root, path))]
    problems += [p for path in cxx for p in check_code(path, sources.read(root, path))]
    sources.finish(problems, "source rules", len(everything))


if __name__ == "__main__":
    main()
