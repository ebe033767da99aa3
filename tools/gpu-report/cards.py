"""GPUs: what their makers publish as limits, and what others published of llama.cpp on them."""

import dataclasses
import re

# Sources of the limits; docs/cuda.md prints them.
LIMIT_SOURCES = (
    "RTX 3060: 28 SMs, 192 bit at 15 Gbit/s and 1.78 GHz as NVIDIA sells it; rates of its tensor cores are computed from those and the FMA a "
    "clock and SM of GA10x (f16 with f32 sums 256, int8 1024), half of those of f16 sums",
    "RTX 4090: NVIDIA Ada GPU architecture whitepaper, as quoted by waredb.com/processor/nvidia-geforce-rtx-4090 (165.15 TFLOP/s f16 with f32 "
    "sums, 660.6 TOP/s int8, 82.58 TFLOP/s f32, 1008 GB/s)",
    "A100 SXM 80 GB: NVIDIA's data sheet, as quoted by glennklockwood.com/garden/processors/A100 (312 TFLOP/s, 624 TOP/s, 2039 GB/s)",
    "H100 SXM: NVIDIA's data sheet, as quoted by glennklockwood.com/garden/processors/h100 (989.4 TFLOP/s and 1978.9 TOP/s without sparsity, "
    "3.35 TB/s); that mma.sync, which the kernels use, gets 0.62 of that is an assumption: the peak takes wgmma (compare arXiv:2402.13499)",
    "threads, blocks, registers and shared memory of a multiprocessor: CUDA C++ Programming Guide, compute capabilities",
)


@dataclasses.dataclass(frozen=True)
class Card:
    name: str
    architecture: int  # 86: compute capability 8.6
    n_sm: int
    bandwidth: float  # bytes/s
    f16: float  # FLOP/s of mma with f32 sums, dense
    int8: float  # OP/s
    f32: float  # FLOP/s without tensor cores
    memory_bytes: float
    l2_bytes: int
    clock: float  # Hz, boost
    mma_share: float = 1.0  # of those peaks that mma.sync can reach

    @property
    def is_geforce(self):
        return self.architecture in (75, 86, 89, 120)


# Of a multiprocessor: threads, blocks, bytes of shared memory.
SM_LIMITS = {
    75: (1024, 16, 64 << 10), 80: (2048, 32, 164 << 10), 86: (1536, 16, 100 << 10), 89: (1536, 24, 100 << 10),
    90: (2048, 32, 228 << 10), 100: (2048, 32, 228 << 10), 120: (1536, 24, 100 << 10),
}
REGISTERS = 65536
ISSUED = 128  # instructions a clock and multiprocessor, of threads
# FMA a clock and multiprocessor: f16 with f32 sums (GeForce; data centre cards of 8.9 twice as many), int8, f32.
SM_RATES = {
    75: (256, 1024, 64), 80: (1024, 2048, 64), 86: (256, 1024, 128), 89: (256, 1024, 128), 90: (2048, 4096, 128),
    100: (4096, 8192, 128), 120: (256, 1024, 128),
}

CARDS = (
    Card("RTX 3060", 86, 28, 360e9, 25.5e12, 101.9e12, 12.7e12, 12e9, 3 << 20, 1.78e9),
    Card("RTX 4090", 89, 128, 1008e9, 165.2e12, 660.6e12, 82.6e12, 24e9, 72 << 20, 2.52e9),
    Card("A100 SXM 80GB", 80, 108, 2039e9, 312e12, 624e12, 19.5e12, 80e9, 40 << 20, 1.41e9),
    Card("H100 SXM", 90, 132, 3350e9, 989e12, 1979e12, 66.9e12, 80e9, 50 << 20, 1.83e9, 0.62),
)


def limits(architecture):
    """SM_LIMITS of the architecture, or of the next lower one that is known."""
    return SM_LIMITS[max((a for a in SM_LIMITS if a <= architecture), default=75)]


def card_of_device(device):
    """The Card of what kernel_timing says of a device: the published one, or one from clocks and widths."""
    for card in CARDS:
        model = next(word for word in card.name.split() if re.search(r"\d{3}", word))
        if (model in device["name"] and card.architecture == device["architecture"] and card.n_sm == device["n_sm"]
                and abs(device["memory_bytes"] / card.memory_bytes - 1.0) < 0.12):
            return card
    clock = device["clock_hz"]
    rates = SM_RATES[max((a for a in SM_RATES if a <= device["architecture"]), default=75)]
    f16, int8, f32 = (2.0 * rate * device["n_sm"] * clock for rate in rates)
    bandwidth = 2.0 * device["memory_clock_hz"] * device["bus_bits"] / 8.0
    return Card(device["name"], device["architecture"], device["n_sm"], bandwidth, f16, int8, f32,
                device["memory_bytes"], device["l2_bytes"], clock, 0.62 if device["architecture"] == 90 else 1.0)


@dataclasses.dataclass(frozen=True)
class Published:
    """What somebody measured of llama.cpp: tokens/s, 0 where not given."""
    card: str
    model: str
    type: str
    tg: float
    pp: float
    source: int  # index into PUBLISHED_SOURCES, from 1


PUBLISHED_SOURCES = (
    "github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference, May 2024: Llama 3 8B, tg 512 and pp 512. Its H100 is the PCIe card "
    "(2000 GB/s), not the SXM of the predictions; its A100 SXM shows 604 tok/s for F16 prompts, its A100 PCIe 7741",
    "github.com/ggml-org/llama.cpp/pull/7676, June 2024: Llama 3 8B Q4_0, pp512, RTX 4090",
)
PUBLISHED = (
    Published("RTX 4090", "Llama-3-8B", "F16", 54.84, 9382.0, 1),
    Published("RTX 4090", "Llama-3-8B", "Q4_0", 0, 10358.75, 2),
    Published("RTX 4090", "Llama-3-8B", "Q4_K_M", 130.58, 7138.99, 1),
    Published("A100 SXM 80GB", "Llama-3-8B", "F16", 53.49, 603.76, 1),
    Published("A100 SXM 80GB", "Llama-3-8B", "Q4_K_M", 135.04, 5947.64, 1),
    Published("H100 SXM", "Llama-3-8B", "F16", 68.03, 10815.51, 1),
    Published("H100 SXM", "Llama-3-8B", "Q4_K_M", 145.55, 8125.45, 1),
)
NOT_FOUND = (
    "Searched for and not found: figures of llama.cpp's CUDA backend on an RTX 3060 with these models, on an H100 SXM, for Q8_0 on any "
    "of the four cards, for Q4_0 text generation, and for a 1.3B model of this shape. The nearest for a small model is TinyLlama 1.1B "
    "Q4_K_M through Vulkan, an RTX 3060 on a Raspberry Pi: tg128 279, pp512 6744 (github.com/geerlingguy/ai-benchmarks/issues/40); "
    "RTX 4090: tg128 762 (issues/43 there)."
)


def published(card, model, type_name):
    return next((p for p in PUBLISHED if (p.card, p.model, p.type) == (card, model, type_name)), None)
