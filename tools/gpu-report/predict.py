#!/usr/bin/env python3
"""Writes what kernels.py and steps.py predict into the tables of docs/cuda.md, between its markers.

    tools/gpu-report/predict.py                                    writes docs/cuda.md
    tools/gpu-report/predict.py --check                            exit code 1 where it would change
    tools/gpu-report/predict.py --registers build/ci/tests/cuda_inspection/kernels.json
                                                                   takes over what nvcc needed (registers.json) first
"""

import argparse
import json
import os
import re
import sys

import cards
import kernels as K
import steps

HERE = os.path.dirname(os.path.abspath(__file__))
DOCUMENT = os.path.join(HERE, "..", "..", "docs", "cuda.md")
REGISTERS = os.path.join(HERE, "registers.json")
TEXTS = ("at", "architecture", "type", "type, card")  # second columns that are no numbers


def take_registers(path):
    with open(path, encoding="ascii") as file:
        found = json.load(file)
    short = {a: {n: k["registers"] for n, k in sorted(kernels.items())} for a, kernels in sorted(found.items())
             if a in ("sm_75", "sm_80")}
    with open(REGISTERS, "w", encoding="ascii") as file:
        json.dump(short, file, indent=0)
        file.write("\n")


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(" --- " if i < (2 if header[1] in TEXTS else 1) else " ---: " for i in range(len(header))) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def limits_table():
    rows = []
    for c in cards.CARDS:
        threads, blocks, shared = cards.limits(c.architecture)
        rows.append([c.name, f"sm_{c.architecture}", str(c.n_sm), f"{c.bandwidth / 1e9:.0f}", f"{c.f16 / 1e12:.1f}", f"{c.int8 / 1e12:.1f}",
                     f"{c.f32 / 1e12:.1f}", f"{c.l2_bytes >> 20}", f"{threads} / {blocks}", f"{shared >> 10}"])
    return table(["card", "architecture", "SMs", "GB/s", "f16 TFLOP/s (f32 sums)", "int8 TOP/s", "f32 TFLOP/s", "L2 MiB",
                  "threads / blocks of an SM", "shared KiB of an SM"], rows)


def amount(n):
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= limit:
            return f"{n / limit:.3g} {unit}"
    return f"{n:.0f}"


def chosen_works(shape):
    """(where, Work of a card's number of SMs): the kernels at the shapes of one layer."""
    def part(model_type, m, name, index=0, il=0):
        def make(n_sm):
            found = [w for p, w in steps.step(shape, model_type, m, 64 if m == 1 else m, n_sm) if p == name]
            return found[index]
        return make
    kv = shape.n_kv_head
    yield "decode", part("F16", 1, "qkv")
    yield "decode", part("Q8_0", 1, "gate_up")
    yield "decode", part("Q4_0", 1, "qkv")
    yield "decode", part("Q4_0", 1, "gate_up")
    yield "decode", part("Q4_K_M", 1, "gate_up")
    yield "decode", part("Q4_K_M", 1, "down")
    yield "decode", part("Q4_K_M", 1, "output")
    yield "decode", part("Q4_0", 1, "rope_store")
    yield "decode", part("Q4_0", 1, "attention")
    yield "decode", lambda n_sm: K.attention_decode(1, shape.n_head, kv, shape.head_dim, 4096, n_sm=n_sm)
    yield "decode", part("Q4_0", 1, "sample")
    yield "8 rows", lambda n_sm: K.gemv("q4_0", [shape.n_ff, shape.n_ff], shape.n_embd, 8, True, n_sm)
    yield "batch", lambda n_sm: K.gemm_q8("q4_0", [shape.n_ff, shape.n_ff], shape.n_embd, 64, True, n_sm)
    yield "batch", lambda n_sm: K.gemm_q8("q4_k", [shape.n_ff, shape.n_ff], shape.n_embd, 64, True, n_sm)
    yield "prompt", part("Q4_0", 512, "gate_up", 0)
    yield "prompt", part("Q4_0", 512, "gate_up", 1)
    yield "prompt", part("Q4_K_M", 512, "gate_up", 1)
    yield "prompt", part("F16", 512, "gate_up", 1)
    yield "prompt", part("Q4_0", 512, "rope_store")
    yield "prompt", part("Q4_0", 512, "attention")


def kernel_tables(registers):
    shape = steps.SHAPES[1]
    what, times = [], []
    for where, make in chosen_works(shape):
        base = make(cards.CARDS[1].n_sm)
        n_register = registers.of(base.kernel, 80)
        fits, cells = [], []
        for card in cards.CARDS:
            work = make(card.n_sm)
            p = K.predict(work, card, registers, where == "decode")
            fits.append(f"{p.blocks_per_sm} ({100 * p.threads_share:.0f} %)")
            if p.bound != "compute":
                reached = p.bandwidth / card.bandwidth
            elif work.unit:
                reached = p.rate / K.peak_of(work, card)
            else:
                reached = work.instructions / p.seconds / (cards.ISSUED * card.clock * card.n_sm)
            cells.append(f"{1e6 * p.seconds:.1f} ({100 * reached:.0f} % {p.bound})")
        what.append([base.op, f"{where}: {base.detail}", amount(base.bytes) + "B", amount(base.ops), str(base.threads),
                     str(n_register) if n_register else "-", f"{base.shared / 1024:.1f}", *fits])
        times.append([base.op, f"{where}: {base.detail}", *cells])
    names = [c.name for c in cards.CARDS]
    return (table(["kernel", "at", "moved", "operations", "threads", "registers", "shared KiB", *names], what),
            table(["kernel", "at", *names], times))


def tokens_table(registers):
    rows = []
    for shape in steps.SHAPES:
        for type_name in steps.TYPES:
            for card in cards.CARDS:
                tg, pp = steps.tokens_per_second(shape, type_name, card, registers)
                known = cards.published(card.name, shape.name, type_name)
                said = lambda v, known=known: f"{v:.0f} [{known.source}]" if known and v else "none found"  # noqa: E731
                fits = tg > 0
                rows.append([shape.name, f"{type_name}, {card.name}", f"{tg:.0f}" if fits else "does not fit",
                             said(known.tg if known else 0) if fits else "", f"{pp:.0f}" if fits else "does not fit",
                             said(known.pp if known else 0) if fits else ""])
    return table(["model", "type, card", "tg128 predicted", "llama.cpp tg", "pp512 predicted", "llama.cpp pp"], rows)


def launches_table(registers):
    rows = []
    for shape in steps.SHAPES:
        for type_name in steps.TYPES:
            decode = steps.step(shape, type_name, 1, 64, 128)
            moved = sum(w.bytes for _, w in decode)
            rows.append([shape.name, type_name, str(len(decode)), f"{(len(decode) - 4) / shape.n_layer:.2f}", f"{moved / 1e9:.3f}"])
    return table(["model", "type", "launches a token", "of them a layer", "GB moved a token"], rows)


def paths_table(registers):
    """Prompts by either product of quantised weights."""
    rows = []
    for card in cards.CARDS:
        row = [card.name]
        for type_name in ("Q4_0", "Q4_K_M"):
            for q8_rows in (0, 512):
                row.append(f"{steps.tokens_per_second(steps.SHAPES[1], type_name, card, registers, q8_rows=q8_rows)[1]:.0f}")
        rows.append(row)
    return table(["card", "Q4_0, gemm_half", "Q4_0, gemm_q8", "Q4_K_M, gemm_half", "Q4_K_M, gemm_q8"], rows)


def published_share(registers):
    """What llama.cpp's published text generation is of ours as predicted."""
    lines = []
    for known in cards.PUBLISHED:
        card = next(c for c in cards.CARDS if c.name == known.card)
        shape = next(s for s in steps.SHAPES if s.name == known.model)
        tg = steps.tokens_per_second(shape, known.type, card, registers)[0]
        if known.tg and card.architecture != 90:  # the published one is another card
            lines.append(f"{known.card} {known.type} {known.tg / tg:.2f}")
    return "llama.cpp's published text generation is of the predicted one: " + ", ".join(lines) + "."


def sections(registers):
    kernel_facts, kernel_times = kernel_tables(registers)
    sources = lambda lines: "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))  # noqa: E731
    percent = lambda shares: ", ".join(f"{name} {a:.2f} and {b:.2f}" for name, (a, b) in shares.items())  # noqa: E731
    return {
        "limits": limits_table(),
        "limit sources": "\n".join("* " + line for line in cards.LIMIT_SOURCES),
        "assumptions": f"* of the published bandwidth {K.BANDWIDTH_SHARE:.2f} can be had, if enough bytes are under way to cover "
                       f"{K.LATENCY_S * 1e9:.0f} ns of latency (resident threads times what a thread has under way)\n"
                       f"* of the rate of tensor cores, on data centre cards and on GeForce, where they are slower and more hides behind them: "
                       f"{percent(K.TENSOR_SHARE)}; of the instructions that an SM can issue "
                       f"{K.ISSUE_SHARE:.2f}\n"
                       f"* instructions of gemv a weight: unpacking {K.GEMV_INSTRUCTIONS['quantised'][0]}, for each row of "
                       f"activations {K.GEMV_INSTRUCTIONS['quantised'][1]} (weights of 16 bits: "
                       f"{K.GEMV_INSTRUCTIONS['f16'][0]}, {K.GEMV_INSTRUCTIONS['f16'][1]})\n"
                       f"* start and end of a kernel: {K.GAP_S[True] * 1e6:.1f} us in a graph, {K.GAP_S[False] * 1e6:.1f} us launched "
                       f"eagerly; between two tokens {K.HOST_S * 1e6:.0f} us on the host",
        "kernels": kernel_facts,
        "times": kernel_times,
        "launches": launches_table(registers),
        "tokens": tokens_table(registers),
        "paths": paths_table(registers),
        "share": published_share(registers),
        "published": sources(cards.PUBLISHED_SOURCES) + "\n\n" + cards.NOT_FOUND,
    }


def filled(text, parts):
    for name, content in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, n = pattern.subn(lambda m, content=content: m[1] + content + "\n" + m[2], text)
        if n != 1:
            raise SystemExit(f"docs/cuda.md: {n} places for '{name}', one is needed")
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--registers")
    options = parser.parse_args()
    if options.registers:
        take_registers(options.registers)
    with open(DOCUMENT, encoding="utf-8") as file:
        before = file.read()
    after = filled(before, sections(K.Registers()))
    if options.check:
        if before != after:
            raise SystemExit("docs/cuda.md is not what tools/gpu-report/predict.py writes: run it")
        print("docs/cuda.md is up to date")
        return
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write(after)


if __name__ == "__main__":
    sys.exit(main())
