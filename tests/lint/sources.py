"""What the lint tests share: the project's own files, and C++ text without comments and literals."""

import os
import re
import sys

FOLDERS = ("core", "gguf", "kernels", "backends", "quantize", "tools", "tests")
CXX = (".h", ".cpp", ".cuh", ".cu")
SCRIPTS = (".py", ".sh", ".cmake", ".comp", ".glsl", ".awk")

_TOKENS = re.compile(
    r"""//[^\n]*|/\*.*?\*/|R"(?P<tag>[^()\\\s]{0,16})\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'""",
    re.DOTALL)


def files(root, endings=CXX):
    """Paths relative to root, with forward slashes, sorted."""
    found = []
    for folder in FOLDERS:
        for here, folders, names in os.walk(os.path.join(root, folder)):
            folders[:] = [f for f in folders if not f.startswith((".", "__")) and f not in ("corpus",)]
            for name in names:
                if name.endswith(endings) or (name == "CMakeLists.txt" and ".cmake" in endings):
                    found.append(os.path.relpath(os.path.join(here, name), root).replace(os.sep, "/"))
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def code_only(text):
    """Blanks comments, strings and characters, and keeps the line numbers."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return _TOKENS.sub(blank, text)


def finish(problems, what, n_files):
    """Prints the problems and leaves with the test's exit code. No file at all is a problem too."""
    if n_files == 0:
        problems = [f"no file to look at ({what}): wrong root?"]
    for p in problems:
        print(p)
    print(f"{what}: {n_files} files, {len(problems)} problems")
    sys.exit(1 if problems else 0)
