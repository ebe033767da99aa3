"""What each kernel of kernels/cuda is launched with, what it moves and computes, and how long that should take.

Grids, block sizes and shared memory are those of the launchers; the comment names the place in the code. Times are
max(bytes / achievable bandwidth, operations / achievable rate) + the gap between launches.
"""

import dataclasses
import json
import math
import os
import re

import cards

# name: (number in the enum DType, block length, bytes of a block, k of a gemv unit: kUnit in quant_dot.cuh, weight_units.cuh)
TYPES = {
    "f16": (1, 1, 2, 8), "bf16": (2, 1, 2, 8),
    "q4_0": (8, 32, 18, 32), "q8_0": (12, 32, 34, 16), "q4_k": (16, 256, 144, 32), "q6_k": (18, 256, 210, 32),
}
# What is assumed, not known.
BANDWIDTH_SHARE = 0.90  # of the published bandwidth that a long stream of reads gets
ISSUE_SHARE = 0.60  # of the multiprocessors' instructions
# Instructions of gemv a weight: unpacking it, and for each row of activations.
GEMV_INSTRUCTIONS = {"quantised": (0.9, 0.45), "f16": (1.0, 1.1)}
LATENCY_S = 650e-9  # of a load from memory under load: what is in flight has to cover it
# Of the published rate of tensor cores, as mma.sync reaches it: where they are fast (data centre cards), and where a product takes
# four times as many clocks and more hides behind it (GeForce).
TENSOR_SHARE = {"gemm_half": (0.60, 0.80), "gemm_half_quantised": (0.50, 0.75), "gemm_q8": (0.35, 0.45),
                "attention_decode": (0.30, 0.30), "attention_prefill": (0.40, 0.60), "cublas": (0.75, 0.90)}
GAP_S = {True: 1.5e-6, False: 2.5e-6}  # start and end of a kernel: in a graph, launched eagerly
HOST_S = 20e-6  # of a decoded token: reading ids back, choosing, sending the next step


def ceil_div(a, b):
    return -(-a // b)


def weight_bytes(type_name, n, k):
    _, length, size, _ = TYPES[type_name]
    return n * k // length * size


@dataclasses.dataclass
class Work:
    """One launch."""
    op: str
    kernel: str  # regular expression of the name in the inspection's JSON
    threads: int
    shared: int
    blocks: int
    read: float
    written: float
    ops: float = 0.0
    unit: str = ""  # whose rate counts: f16, int8 (tensor cores); "": that of instructions
    instructions: float = 0.0  # of all threads
    share: tuple = (1.0, 1.0)  # of that rate, a TENSOR_SHARE
    in_flight: float = 16.0  # bytes that a thread has under way
    detail: str = ""

    @property
    def bytes(self):
        return self.read + self.written


def gemv(type_name, n, k, m=1, glu=False, n_sm=128):
    """launch_rows() in gemv.cuh: 256 threads, two rows of weights a lane, as many blocks as tiles up to 6 a multiprocessor."""
    number, _, _, unit = TYPES[type_name]
    units = ceil_div(k, unit)
    lanes = 32 if units >= 64 else 16 if units >= 32 else 8
    tile_rows = 8 * (32 // lanes) * 2 // (2 if glu else 1)
    n_tile = sum(ceil_div(rows, tile_rows) for rows in (n[:1] if glu else n))
    f32 = type_name in ("f16", "bf16")
    rows = min(1 << (m - 1).bit_length(), 4 if f32 else 8)  # a pass; instantiations for 1, 2, 4 and, 8-bit activations, 8 rows
    unpack, each = GEMV_INSTRUCTIONS["f16" if f32 else "quantised"]
    header = 8 * 8 * 4 + 2 * 8 * 4  # Header in gemv_act.cuh
    room = (48 * 1024 - header) // rows * 4 // (16 if f32 else 5)
    turn = max(lanes * unit, 128)
    chunk = ceil_div(k, 128) * 128 if k <= room // 128 * 128 else room // turn * turn
    shared = header + rows * (4 * chunk if f32 else chunk + chunk // 4)
    weights = ceil_div(m, rows) * sum(weight_bytes(type_name, rows_n, k) for rows_n in n)
    outputs = n[0] if glu else sum(n)
    return Work("gemv", rf"gemv_kernel<.*DType\){number}>, {rows}, {'true' if f32 else 'false'},", 256, shared,
                min(n_tile, 6 * n_sm), weights + 4 * m * k + 4 * k, 4 * m * outputs, 2 * m * sum(n) * k,
                instructions=sum(n) * k * (unpack * ceil_div(m, rows) + each * m),
                in_flight=2 * unit * weight_bytes(type_name, 1, 256) / 256, detail=f"{type_name} {sum(n)}x{k}, m={m}")


def gemm_half(type_name, n, k, m, glu=False, n_sm=128):
    """launch_half_shape() in gemm_half.cuh, choose_tile() in linear_gemm.cu: 128 x 128 with 256 threads or 64 x 64 with 128."""
    number = TYPES[type_name][0]
    large = m > 64 and ceil_div(m, 128) * (sum(n) // 128) >= 128
    rows, width, threads = (128, 128, 256) if large else (64, 64, 128)
    columns = width // 2 if glu else width
    tiles = sum(ceil_div(rows_n, columns) for rows_n in (n[:1] if glu else n))
    outputs = n[0] if glu else sum(n)
    weights = sum(weight_bytes(type_name, rows_n, k) for rows_n in n)
    shape = r"HalfShape<64, 2, 4>" if large else r"HalfShape<32, 2, 2>"
    share = TENSOR_SHARE["gemm_half" if type_name in ("f16", "bf16") else "gemm_half_quantised"]
    return Work("gemm_half", rf"gemm_half<\(DType\){number}, .*{shape}", threads, 2 * (rows + width) * 32 * 2,
                ceil_div(m, rows) * tiles, weights + 2 * m * k, 4 * m * outputs,
                2.0 * ceil_div(m, rows) * rows * tiles * width * k, "f16",
                share=share, in_flight=32, detail=f"{type_name} {sum(n)}x{k}, m={m}")


def gemm_q8(type_name, n, k, m, glu=False, n_sm=128):
    """launch_q8() in gemm_q8.cuh: 64 rows x 64 weights, 256 threads, two buffers of 128 along k."""
    number, length, _, _ = TYPES[type_name]
    columns = 32 if glu else 64
    tiles = sum(ceil_div(rows_n, columns) for rows_n in (n[:1] if glu else n))
    scales = 8 if type_name == "q6_k" else 4
    has_min = type_name == "q4_k"
    shared = 2 * 64 * 128 * 2 + 2 * 4 * 64 * 8 + 2 * scales * 64 * (8 if has_min else 4)
    weights = sum(weight_bytes(type_name, rows_n, k) for rows_n in n)
    outputs = n[0] if glu else sum(n)
    padded = ceil_div(m, 16) * 16  # rows of activations come in groups of 16
    return Work("gemm_q8", rf"gemm_q8<\(DType\){number}>", 256, shared, ceil_div(m, 64) * tiles,
                weights + m * k * 1.25, 4 * m * outputs, 2.0 * padded * tiles * 64 * k, "int8", share=TENSOR_SHARE["gemm_q8"],
                in_flight=2 * weight_bytes(type_name, 1, 256) / 16, detail=f"{type_name} {sum(n)}x{k}, m={m}")


def cublas(type_name, n, k, m, n_sm=128):
    """cuBLAS, one call an item (backends/cuda/linear.cpp); tiles of 128 x 128 are a guess."""
    tiles = ceil_div(n, 128) * ceil_div(m, 128)
    return Work("cublas", "", 256, 64 << 10, tiles, 2 * n * k + 2 * m * k, 4 * m * n, 2.0 * m * n * k, "f16",
                share=TENSOR_SHARE["cublas"], in_flight=64, detail=f"{type_name} {n}x{k}, m={m}")


def epilogue(n, m):
    """linear_epilogue() in linear_gemm.cu: a thread an output."""
    return Work("epilogue", "finish_products", 256, 0, ceil_div(n, 256) * m, 8 * m * n, 4 * m * n, in_flight=8,
                detail=f"{m}x{n}")


def prepare(k, m, form):
    """prepare_act() in prepare_act.cu: a block a row, a thread four neighbours."""
    threads = min(256, ceil_div(k, 128) * 32)
    written = {"q8": 1.25, "f16": 2.0}[form] * m * k
    return Work("prepare", "prepare_rows", threads, 64, m, 4 * m * k + 4 * k, written, in_flight=16, detail=f"{form} {m}x{k}")


def rope_store(m, n_head, n_kv_head, head_dim):
    """rope_store() in rope_store.cu: a warp a (row, head), four a block; f16 pool."""
    heads = n_head + 2 * n_kv_head
    return Work("rope_store", "norm_rope_store", 128, 4 * 4 * head_dim, ceil_div(m * heads, 4),
                4 * m * heads * head_dim + 8 * m * head_dim // 2, m * head_dim * (4 * n_head + 4 * n_kv_head),
                in_flight=4 * head_dim / 32, detail=f"m={m}")


def attention_split(n_sm, n_head, n_kv_head, head_dim, n_visible):
    """attention_split() in kernels/cuda/attention.cpp."""
    blocks = n_kv_head * ceil_div(n_head // n_kv_head, 16)
    return max(1, min(n_sm * (2 if head_dim == 256 else 3) // blocks, 128, ceil_div(n_visible, 128)))


def attention_blocks(n_sm, m, n_head, n_kv_head, head_dim, n_split):
    """attention_blocks() there."""
    blocks = n_kv_head * ceil_div(n_head // n_kv_head, 16)
    room = max(1, min(n_sm * (2 if head_dim == 256 else 3) // (min(m, 64) * blocks), n_split))
    return ceil_div(n_split, ceil_div(n_split, room))


def attention_decode(m, n_head, n_kv_head, head_dim, n_kv, n_ctx=4096, n_sm=128):
    """attention_decode() in kernels/cuda/attention.cpp: grid (n_block, KV heads, rows), four warps; f16 pool."""
    split = attention_split(n_sm, n_head, n_kv_head, head_dim, n_ctx)
    shared = head_dim // 16 * 512 + max(2 * head_dim // 2 * 128, 16 * head_dim * 4) + 2 * 2 * 2 * 32 * 4 + 132
    parts = ceil_div(n_kv, 128 * ceil_div(n_kv, 128 * split))  # of whole multiples of four KV blocks of 32
    busy = min(parts, attention_blocks(n_sm, m, n_head, n_kv_head, head_dim, split))  # the others leave at once
    partial = 4 * m * n_head * parts * (head_dim + 2) if parts > 1 else 0
    return Work("attention_decode", rf"attention_decode_part<{head_dim}>", 128, shared, busy * n_kv_head * m,
                m * n_kv * n_kv_head * head_dim * 4 + 4 * m * n_head * head_dim + partial,
                4 * m * n_head * head_dim + partial, 4.0 * m * 16 * n_kv_head * head_dim * n_kv, "f16", share=TENSOR_SHARE["attention_decode"],
                in_flight=64, detail=f"m={m}, n_kv={n_kv}")


def attention_prefill(m, n_head, n_kv_head, head_dim, n_sm=128):
    """attention_prefill() in kernels/cuda/attention.cpp: 64 (token, head) rows a block, tokens of K and V in steps of 32 (16 for 256)."""
    group = n_head // n_kv_head
    tile = 64 // min(group, 64)
    n_tile = ceil_div(m, tile)
    shared = 256 * head_dim
    seen = sum(min(m, (i + 1) * tile) for i in range(n_tile))
    return Work("attention_prefill", rf"attention_prefill_tile<{head_dim}>", 128, shared, n_tile * n_kv_head,
                4 * m * n_head * head_dim + 4 * m * n_kv_head * head_dim, 4 * m * n_head * head_dim,
                4.0 * 64 * head_dim * seen * n_kv_head, "f16",
                share=TENSOR_SHARE["attention_prefill"], in_flight=64, detail=f"m={m}")


def rows_op(op, kernel, m, read, written):
    """embed, gather_rows: row_chunk.cuh, 256 threads and 1024 elements a block."""
    return Work(op, kernel, 256, 0, m * ceil_div(int(written) // 4, 1024), m * read, m * written, in_flight=16, detail=f"m={m}")


def sample(n_vocab, m=1):
    """sample() in sample.cu: 256 threads, about 4096 logits a block, at most 64 blocks a row."""
    return Work("sample", "sample_rows", 256, 2560, m * min(64, ceil_div(n_vocab, 4096)), 4 * m * n_vocab, 1024 * m,
                in_flight=16, detail=f"{n_vocab} logits")


class Registers:
    """Registers of kernels by name, from registers.json (tests/cuda_inspection writes the long form)."""

    def __init__(self, path=os.path.join(os.path.dirname(os.path.abspath(__file__)), "registers.json")):
        with open(path, encoding="ascii") as file:
            self.known = json.load(file)

    def of(self, pattern, architecture):
        """0 where the kernel is not there. Of several, the most."""
        kernels = self.known["sm_80" if architecture >= 80 else "sm_75"]
        return max((r for name, r in kernels.items() if pattern and re.search(pattern, name)), default=0)


def occupancy(work, card, registers):
    """Blocks of a launch that fit on a multiprocessor."""
    threads, blocks, shared = cards.limits(card.architecture)
    most = [threads // work.threads, blocks, shared // (work.shared + 1024)]
    if registers > 0:  # in units of 256 a warp
        most.append(cards.REGISTERS // (ceil_div(registers * 32, 256) * 256 * (work.threads // 32)))
    return max(1, min(most))


@dataclasses.dataclass
class Prediction:
    seconds: float
    registers: int
    blocks_per_sm: int
    threads_share: float  # of the multiprocessor's threads
    bound: str  # "memory", "compute" or "launch"
    bandwidth: float  # bytes/s reached
    rate: float  # operations/s reached


def peak_of(work, card):
    """Published rate of what the launch computes with."""
    return {"f16": card.f16, "int8": card.int8}.get(work.unit, card.f32)


def predict(work, card, registers, graph):
    n_register = registers.of(work.kernel, card.architecture)
    fit = occupancy(work, card, n_register)
    resident = min(fit, max(1.0, work.blocks / card.n_sm))
    busy_sm = min(1.0, work.blocks / card.n_sm)
    in_flight = resident * busy_sm * work.threads * work.in_flight * card.n_sm
    share = BANDWIDTH_SHARE * min(1.0, in_flight / (card.bandwidth * LATENCY_S))
    memory = work.bytes / (card.bandwidth * share)
    # Whole blocks on whole multiprocessors: the last ones leave some idle.
    last = math.ceil(work.blocks / card.n_sm) * card.n_sm / work.blocks
    compute = last * work.instructions / (cards.ISSUED * card.clock * card.n_sm * ISSUE_SHARE)
    if work.unit:
        mma_share = 1.0 if work.op == "cublas" else card.mma_share  # cuBLAS has the faster instructions
        compute = max(compute, last * work.ops / (peak_of(work, card) * work.share[card.is_geforce] * mma_share))
    gap = GAP_S[graph]
    busy = max(memory, compute)
    seconds = busy + gap
    bound = "launch" if gap > busy else "memory" if memory >= compute else "compute"
    return Prediction(seconds, n_register, fit, fit * work.threads / cards.limits(card.architecture)[0], bound,
                      work.bytes / seconds, work.ops / seconds)
