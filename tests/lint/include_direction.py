"""Fails on an #include that points against the arrows of the house style (section 2.1).

usage: include_direction.py ROOT
A layer may include itself, what its row lists, and nothing else of the project.
"""

import os
import re
import sys

import sources

# (layer, prefixes of its files, prefixes that it may include besides its own). First match names a file's layer.
LAYERS = (
    ("core/base", ("core/base/",), ()),
    ("gguf", ("gguf/",), ("core/base/",)),
    ("core/graph", ("core/graph/",), ("core/base/",)),
    ("core/text", ("core/text/",), ("core/base/", "gguf/")),
    ("core/model", ("core/model/",), ("core/base/", "core/graph/", "core/text/", "gguf/")),
    ("core/runtime", ("core/runtime/",), ("core/base/", "core/graph/", "core/model/", "gguf/")),
    ("core/eval", ("core/eval/",),
     ("core/base/", "core/engine", "core/text/", "core/runtime/activation_tap.h")),
    ("core/engine", ("core/engine",),
     ("core/base/", "core/graph/", "core/text/", "core/model/", "core/runtime/", "gguf/")),
    ("kernels/cpu", ("kernels/cpu/",), ("core/base/", "kernels/params.h")),
    ("kernels/cuda", ("kernels/cuda/",), ("core/base/", "kernels/params.h")),
    ("kernels/vulkan", ("kernels/vulkan/",), ("core/base/", "kernels/params.h")),
    ("kernels", ("kernels/",), ("core/base/",)),
    ("backends/cpu", ("backends/cpu/",), ("core/base/", "core/graph/", "core/runtime/", "kernels/")),
    ("backends/cuda", ("backends/cuda/",), ("core/base/", "core/graph/", "core/runtime/", "kernels/")),
    ("backends/vulkan", ("backends/vulkan/",), ("core/base/", "core/graph/", "core/runtime/", "kernels/")),
    ("backends", ("backends/",), ("core/base/", "core/graph/", "core/runtime/")),
    ("quantize/convert", ("quantize/convert/",),
     ("core/base/", "core/model/", "core/text/", "gguf/", "kernels/cpu/", "quantize/")),
    ("quantize", ("quantize/",), ("core/base/", "gguf/", "kernels/cpu/")),
    ("tools/common", ("tools/common/",), ("core/", "gguf/", "backends/", "quantize/")),
    ("tools/gpu-report", ("tools/gpu-report/",), ("core/base/", "kernels/cuda/")),  # times kernels, nothing above them
    ("tools", ("tools/",), ("core/", "gguf/", "backends/", "quantize/", "tools/common/")),
    ("tests", ("tests/",), ("core/", "gguf/", "kernels/", "backends/", "quantize/", "tools/")),
)

# Files of an ISA level must not emit shared inline functions: none of these there (section 2.6).
ISA_FOLDER = re.compile(r"^(kernels/cpu/(?!generic/)[a-z0-9_]+|quantize/encode)/")
ISA_FORBIDDEN = {"vector", "string", "algorithm", "functional", "map", "unordered_map", "set", "memory", "numeric",
                 "sstream", "iostream", "optional", "variant", "span", "fmt/format.h"}
PROJECT_ROOTS = tuple(f + "/" for f in sources.FOLDERS)

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def layer_of(path):
    for name, prefixes, allowed in LAYERS:
        if path.startswith(prefixes):
            return name, prefixes, allowed
    return None


def tool_folder(path):
    return "/".join(path.split("/")[:2]) + "/"


def may_include(path, target):
    name, own, allowed = layer_of(path)
    if name == "tools":  # one tool knows nothing of another
        own = (tool_folder(path),)
    if name == "backends" and path == "backends/registry.cpp":
        allowed = allowed + ("backends/",)
    if name == "backends":  # backends/registry.h and the like, not the folders below
        own = tuple(p for p in own if "/" not in target[len(p):])
    if target.startswith("core/eval/") and name not in ("core/eval", "tools", "tools/common", "tests"):
        return False
    return target.startswith(tuple(own) + tuple(allowed))


def check_file(root, path):
    if layer_of(path) is None:
        return [f"{path}: in no known layer"]
    problems = []
    text = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), sources.read(root, path))
    for match in INCLUDE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        quoted, angled = match.groups()
        if angled is not None:
            if angled.startswith(PROJECT_ROOTS):
                problems.append(f"{path}:{line}: <{angled}> is ours: write it in quotes")
            elif ISA_FOLDER.match(path) and angled in ISA_FORBIDDEN:
                problems.append(f"{path}:{line}: <{angled}> in a file of an ISA level (style 2.6)")
        elif not os.path.isfile(os.path.join(root, quoted)):
            problems.append(f'{path}:{line}: "{quoted}" is no path from the root')
        elif not may_include(path, quoted):
            problems.append(f'{path}:{line}: {layer_of(path)[0]} may not include "{quoted}"')
    return problems


def main():
    root = sys.argv[1]
    paths = sources.files(root)
    problems = [p for path in paths for p in check_file(root, path)]
    sources.finish(problems, "include direction", len(paths))


if __name__ == "__main__":
    main()
