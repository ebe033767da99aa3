"""Fails on a source file of more than 1000 lines; names those of more than 600.

usage: file_size.py ROOT
"""

import sys

import sources

LIMIT = 1000
WARN = 600
# Generated files and tables of data, by name.
EXEMPT = frozenset()


def main():
    root = sys.argv[1]
    paths = [p for p in sources.files(root, sources.CXX + sources.SCRIPTS) if p not in EXEMPT]
    problems = []
    for path in paths:
        n = sources.read(root, path).count("\n")
        if n > LIMIT:
            problems.append(f"{path}: {n} lines, the limit is {LIMIT}")
        elif n > WARN:
            print(f"{path}: {n} lines: over {WARN} wants a reason")
    sources.finish(problems, "file size", len(paths))


if __name__ == "__main__":
    main()
