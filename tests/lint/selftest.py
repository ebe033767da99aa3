"""Plants one violation after another in a small tree and sees each lint test fail on it, and only on it.

usage: selftest.py COMPILER
"""

import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
COMPILER = sys.argv[1]

CLEAN = {
    "core/base/check.h": "#pragma once\n#include <string>\nnamespace infer { inline int one() { return 1; } }\n",
    "core/base/check.cpp": '#include "core/base/check.h"\n#include <cstdio>\n#include <cstdlib>\n'
                           'void f() { std::fprintf(stderr, "x"); std::abort(); }\n',
    "core/runtime/backend.h": '#pragma once\n#include "core/base/check.h"\n',
    "core/engine.h": '#pragma once\n#include "core/runtime/backend.h"\n',
    "gguf/reader.h": '#pragma once\n#include "core/base/check.h"\n',
    "kernels/cpu/avx2/math.h": "#pragma once\n#include <cstdint>\n",
    "backends/cpu/ops.cpp": '#include "kernels/cpu/avx2/math.h"\n#include "core/runtime/backend.h"\n',
    "backends/registry.cpp": '#include "core/base/check.h"\n',
    "tools/infer-cli/main.cpp": '#include "core/engine.h"\n#include <cstdio>\nint main() { std::printf("x"); }\n',
    "tests/unit/a_test.cpp": '#include "kernels/cpu/avx2/math.h"\n#include "backends/cpu/ops.h"\n',
    "backends/cpu/ops.h": "#pragma once\nstruct Ops;\n",
}

# (script, file, text, what the report must say)
PLANTED = (
    ("include_direction", "core/base/bad.h", '#include "gguf/reader.h"\n', "core/base may not include"),
    ("include_direction", "core/runtime/bad.cpp", '#include "backends/cpu/ops.h"\n', "core/runtime may not include"),
    ("include_direction", "core/graph/bad.cpp", '  #  include "gguf/reader.h"\n', "core/graph may not include"),
    ("include_direction", "kernels/cpu/bad.cpp", '#include "core/runtime/backend.h"\n', "kernels/cpu may not include"),
    ("include_direction", "gguf/bad.cpp", '#include "core/engine.h"\n', "gguf may not include"),
    ("include_direction", "backends/cpu/bad.cpp", '#include "core/engine.h"\n', "backends/cpu may not include"),
    ("include_direction", "backends/bad.h", '#include "backends/cpu/ops.h"\n', "backends may not include"),
    ("include_direction", "quantize/bad.cpp", '#include "core/engine.h"\n', "quantize may not include"),
    ("include_direction", "core/engine.cpp", '#include "core/eval/stats.h"\n', "no path from the root"),
    ("include_direction", "tools/infer-cli/bad.cpp", '#include "kernels/cpu/avx2/math.h"\n', "tools may not include"),
    ("include_direction", "tools/quantize/bad.cpp", '#include "tools/infer-cli/main.cpp"\n', "tools may not include"),
    ("include_direction", "gguf/bad.cpp", '#include "reader.h"\n', "no path from the root"),
    ("include_direction", "gguf/bad.cpp", "#include <core/base/check.h>\n", "write it in quotes"),
    ("include_direction", "kernels/cpu/avx2/bad.cpp", "#include <vector>\n", "ISA level"),
    ("include_direction", "core/other/bad.cpp", "int i;\n", "in no known layer"),
    ("file_size", "gguf/bad.cpp", "\n" * 1001, "1001 lines"),
    ("source_rules", "gguf/bad.cpp", "#if 0\nint i;\n#endif\n", "code switched off"),
    ("source_rules", "gguf/bad.cpp", "# if false\nint i;\n#endif\n", "code switched off"),
    ("source_rules", "gguf/bad.h", "int i;\n", "without #pragma once"),
    ("source_rules", "gguf/bad.cpp", "// caf\u00e9\n", "U+00E9"),
    ("source_rules", "tools/bad.sh", "# \u2192\n", "U+2192"),
    ("source_rules", "core/model/bad.cpp", 'int f() { return getenv("X") != nullptr; }\n', "getenv"),
    ("source_rules", "core/model/bad.cpp", "void f() { std::exit(1); }\n", "exit"),
    ("source_rules", "kernels/cpu/bad.cpp", "void f() { abort(); }\n", "abort"),
    ("source_rules", "backends/cpu/bad.cpp", 'void f() { std::printf("x"); }\n', "printf"),
    ("source_rules", "quantize/bad.cpp", 'void f() { std::cout << "x"; }\n', "std::cout"),
    ("source_rules", "quantize/bad.cpp", "void f(int* p) { assert(p); }\n", "assert"),
    ("headers_alone", "gguf/bad.h", "#pragma once\nstd::vector<int> v();\n", "does not compile alone"),
    ("headers_alone", "gguf/bad.h", "inline int twice() { return 2; }\n", "does not compile alone"),
)

# Text that looks like a violation and is none.
INNOCENT = (
    ("source_rules", "gguf/good.cpp", '// exit(1), getenv("x"), #if 0\nconst char* s = "printf(std::cout)";\n'),
    ("source_rules", "gguf/good.cpp", "void f(Ops& o, Ops* p) { o.exit(); p->exit(); }\nint n = 1'000'000;\n"),
    ("source_rules", "gguf/good.cpp", "int f(char* b) { return std::snprintf(b, 4, kFormat); }\n#if 01\n#endif\n"),
    ("include_direction", "gguf/good.cpp", '// #include "core/engine.h"\n/*\n#include "core/engine.h"\n*/\n'),
    ("include_direction", "backends/registry.cpp", '#include "backends/cpu/ops.h"\n'),
    ("file_size", "gguf/good.cpp", "\n" * 1000),
)

# (what, kind, source, what the report must say or None)
OBJECTS = (
    ("isa", "namespace infer::kern::avx2 { void f() {} template <class T> T g(T t) { return t; } template int g(int); }"
            "namespace { int x = 1; } int use(); static int y() { return x; } namespace infer::kern::avx2 {"
            " int h() { return y(); } }", None),
    ("isa", "void outside() {}", "_Z7outsidev"),
    ("isa", "namespace infer { inline int shared(int i) { return i; } } int (*p)(int) = infer::shared;", "6shared"),
    ("isa", "#include <vector>\nnamespace infer::kern::avx2 { void f(std::vector<int>& v) { v.push_back(1); } }", "_ZN"),
    ("isa", "namespace infer::kern::avx2 { struct S {}; } template <class T> void t(T) {} "
            "template void t(infer::kern::avx2::S);", "_Z1t"),
    ("library", "int f(int i) { return i; }", None),
    ("library", "#include <cstdlib>\nbool f() { return std::getenv(\"X\") != nullptr; }", "getenv"),
    ("library", "#include <cstdlib>\nvoid f() { std::abort(); }", "abort"),
    ("library", "#include <iostream>\nvoid f() { std::cout << 1; }", "_ZSt4cout"),
)


def write(root, files):
    for path, text in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)


def lint(script, root, work):
    extra = [COMPILER, work] if script == "headers_alone" else []
    command = [sys.executable, "-B", os.path.join(HERE, script + ".py"), root, *extra]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def expect_fail(name, done, words):
    if done.returncode == 1 and words in done.stdout:
        return 0
    print(f"{name}: not seen; exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return 1


def expect_pass(name, done):
    if done.returncode == 0:
        return 0
    print(f"{name}: refused without a reason\n{done.stdout}{done.stderr}")
    return 1


def check_trees(top):
    bad = 0
    cases = [(s, p, t, w) for s, p, t, w in PLANTED] + [(s, p, t, None) for s, p, t in INNOCENT]
    cases += [(s, None, None, None) for s in ("include_direction", "file_size", "source_rules", "headers_alone")]
    for number, (script, path, text, words) in enumerate(cases):
        root = os.path.join(top, str(number))
        write(root, {**CLEAN, **({path: text} if path else {})})
        done = lint(script, root, os.path.join(top, "work" + str(number)))
        name = f"{script} on {path or 'a clean tree'}: {(text or '')[:60]!r}"
        bad += expect_fail(name, done, words) if words else expect_pass(name, done)
    empty = os.path.join(top, "empty")
    os.makedirs(empty)
    bad += expect_fail("an empty tree", lint("file_size", empty, empty), "wrong root")
    return bad, len(cases) + 1


def check_objects(top):
    bad = 0
    for number, (kind, source, words) in enumerate(OBJECTS):
        unit = os.path.join(top, f"object{number}.cpp")
        obj = unit[:-4] + ".o"
        with open(unit, "w", encoding="utf-8") as f:
            f.write(source + "\n")
        subprocess.run([COMPILER, "-std=c++20", "-O0", "-c", unit, "-o", obj], check=True, stderr=subprocess.DEVNULL)
        args = [kind, "kern::avx2", obj] if kind == "isa" else [kind, obj]
        done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "symbols.py"), *args], capture_output=True,
                              text=True, check=False)
        name = f"symbols {kind}: {source[:60]!r}"
        bad += expect_fail(name, done, words) if words else expect_pass(name, done)
    return bad, len(OBJECTS)


def check_format(top):
    """A badly laid out file, and the same tree after --fix."""
    root = os.path.join(top, "format")
    write(root, {"core/bad.cpp": "int   x ;\n"})
    project = os.path.dirname(os.path.dirname(HERE))
    shutil.copytree(os.path.join(project, "tools", "sh"), os.path.join(root, "tools", "sh"))
    shutil.copy(os.path.join(project, ".clang-format"), root)

    def run(*args):
        command = [os.path.join(root, "tools", "sh", "format.sh"), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)
    first = run()
    if first.returncode == 77:
        return 0, 0
    bad = expect_fail("format", first, "core/bad.cpp")
    run("--fix")
    return bad + expect_pass("format after --fix", run()), 2


def main():
    with tempfile.TemporaryDirectory() as top:
        bad_trees, n_trees = check_trees(top)
        bad_objects, n_objects = check_objects(top)
        bad_format, n_format = check_format(top)
    bad = bad_trees + bad_objects + bad_format
    print(f"lint selftest: {n_trees + n_objects + n_format} cases, {bad} wrong")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
