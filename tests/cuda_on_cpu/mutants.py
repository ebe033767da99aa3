"""Leaves out each barrier and each cp.async wait of the CUDA kernels in turn, and expects a test to notice.

usage: mutants.py KERNELS_DIR BIN_DIR [--only SUBSTRING] [--jobs N]

A mutant is a call of sync_threads, sync_warp or cp_async_wait in KERNELS_DIR, known by file and line. The emulator
leaves it out at run time (left_out.h), so that nothing is compiled. The mutant is caught when the family's test
program fails, crashes or hangs under one of ten seeds. Exempt are calls with a comment that begins
  // redundant: why   (nothing needs it), or
  // unseen: why      (a GPU needs it, the emulator's order of execution cannot show it).
Exit status 1: a mutant survived, or a file with barriers belongs to no family.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time

SEEDS = 10
TIMEOUT_S = 120

# A file belongs to the first family whose pattern its name matches: (pattern, test program, filter of quick tests).
FAMILIES = [
    (r"last_block", "cuda_rows", "Sample.*"),
    (r"rope_store\.", "cuda_rows", "RopeStore.*"),
    (r"(row_|sample)", "cuda_rows", "RowOps.*:Sample.*"),
    (r"attention", "cuda_attention", "*Group:*Lengths:*Trees:*TypeOfPool"),
    (r"gemm_half", "cuda_gemm", "*Half*"),
    (r"gemm_q8", "cuda_gemm", "*Q8*"),
    (r"prepare", "cuda_gemm", "PrepareAct*"),
    (r"linear_gemm", "cuda_gemm", "*Epilogue*"),
    (r"(gemv|linear_tile|act_q8|epilogue|quant_dot)", "cuda_gemv", "*"),
    (r"moe", "cuda_moe", "Moe.*"),
]
NOT_KERNELS = {"device.cuh", "ptx.cuh"}  # where the calls are defined
CALL = re.compile(r"\b(sync_threads|sync_warp|cp_async_wait(?:<[^>]*>)?)\s*\(")
EXEMPT = re.compile(r"//\s*(redundant|unseen): *\S")


class Mutant:
    def __init__(self, file, line, call, program, tests):
        self.place, self.call, self.program, self.tests = f"{file}:{line}", call, program, tests
        self.verdict, self.seconds = "", 0.0


def find_mutants(kernels, problems):
    mutants, exempt = [], []
    for path in sorted(kernels.glob("*.cu*")):
        if path.name in NOT_KERNELS:
            continue
        family = next((f for f in FAMILIES if re.match(f[0], path.name)), None)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            calls = CALL.findall(line.split("//")[0])
            if not calls:
                continue
            place = f"{path.name}:{number}"
            if EXEMPT.search(line):
                exempt.append((place, calls[0], line.split("//")[1].strip()))
            elif len(calls) > 1:
                problems.append(f"{place}: two calls on a line cannot be told apart")
            elif family is None:
                problems.append(f"{place}: {path.name} belongs to no family of mutants.py")
            else:
                mutants.append(Mutant(path.name, number, calls[0], family[1], family[2]))
    return mutants, exempt


def run_tests(bin_dir, program, tests, seed, place):
    """(passed, what happened)"""
    env = dict(os.environ, INFER_CUDA_SEED=str(seed), INFER_CUDA_LEFT_OUT=place)
    command = [bin_dir / program, f"--gtest_filter={tests}", "--gtest_fail_fast", "--gtest_brief=1"]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False, "hangs"
    if done.returncode < 0:
        return False, f"signal {-done.returncode}"
    if done.returncode > 0:
        failed = re.search(r"\[  FAILED  \] ([\w./]+)", done.stdout)
        return False, failed.group(1) if failed else f"exit status {done.returncode}"
    return True, "never reached" if "left out 0 times" in done.stderr else ""


def judge(bin_dir, mutant):
    start = time.monotonic()
    for seed in range(SEEDS):
        passed, what = run_tests(bin_dir, mutant.program, mutant.tests, seed, mutant.place)
        if not passed:
            mutant.verdict = f"seed {seed}: {what}"
            break
        if what:  # no other seed reaches it either
            mutant.verdict = f"SURVIVES, {what}"
            break
    else:
        mutant.verdict = f"SURVIVES {SEEDS} seeds"
    mutant.seconds = time.monotonic() - start
    return mutant


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", type=pathlib.Path)
    parser.add_argument("bin_dir", type=pathlib.Path)
    parser.add_argument("--only", default="", help="mutants whose place contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    problems = []
    mutants, exempt = find_mutants(args.kernels, problems)
    mutants = [m for m in mutants if args.only in m.place]
    for program, tests in sorted({(m.program, m.tests) for m in mutants}):
        if not (args.bin_dir / program).exists():
            problems.append(f"{program}: not built")
        elif not run_tests(args.bin_dir, program, tests, 0, "")[0]:
            problems.append(f"{program}: fails with nothing left out")
    if not problems:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for m in pool.map(lambda m: judge(args.bin_dir, m), mutants):
                print(f"{m.place:28} {m.call:18} {m.seconds:6.1f} s  {m.verdict}", flush=True)
    for place, call, why in exempt:
        print(f"{place:28} {call:18}    exempt  {why}")
    problems += [f"{m.place}: {m.call} can be left out and no test notices" for m in mutants if "SURVIVES" in m.verdict]
    print(f"{len(mutants)} mutants, {len(exempt)} exempt, {len(problems)} problems")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
