"""Models as shapes, and the launches that a step of one makes (backends/cuda)."""

import dataclasses

import kernels as K


@dataclasses.dataclass(frozen=True)
class Shape:
    name: str
    n_embd: int
    n_layer: int
    n_head: int
    n_kv_head: int
    head_dim: int
    n_ff: int
    n_vocab: int


SHAPES = (
    Shape("42dot-1.3B", 2048, 24, 16, 16, 128, 5632, 50304),
    Shape("Llama-3-8B", 4096, 32, 32, 8, 128, 14336, 128256),
)
TYPES = ("F16", "Q8_0", "Q4_0", "Q4_K_M")


def more_bits(il, n_layer):
    """Layers where Q4_K_M takes Q6_K for attn_v and ffn_down (quantize/recipe.cpp)."""
    return il < n_layer // 8 or il >= 7 * n_layer // 8 or (il - n_layer // 8) % 3 == 2


def type_of(model_type, part, il, shape):
    """Type of a tensor: as quantize chooses."""
    if model_type == "F16":
        return "f16"
    if model_type == "Q8_0":
        return "q8_0"
    if part == "output":
        return "q6_k"
    if model_type == "Q4_0":
        return "q4_0"
    return "q6_k" if part in ("v", "down") and more_bits(il, shape.n_layer) else "q4_k"


def groups(shape, model_type, il):
    """(name, [(type, n)], k, glu) of a layer's linear groups."""
    kv = shape.n_kv_head * shape.head_dim
    q = shape.n_head * shape.head_dim
    t = lambda part: type_of(model_type, part, il, shape)  # noqa: E731
    return (
        ("qkv", [(t("q"), q), (t("k"), kv), (t("v"), kv)], shape.n_embd, False),
        ("o", [(t("o"), shape.n_embd)], q, False),
        ("gate_up", [(t("gate"), shape.n_ff), (t("up"), shape.n_ff)], shape.n_embd, True),
        ("down", [(t("down"), shape.n_embd)], shape.n_ff, False),
    )


def by_type(items):
    """One launch for each type among the items."""
    found = {}
    for type_name, n in items:
        found.setdefault(type_name, []).append(n)
    return found.items()


Q8_ROWS = 64  # kQ8Rows in backends/cuda/layout.cpp


def linear(items, k, m, glu, n_sm, q8_rows=Q8_ROWS):
    """linear_path() in backends/cuda/layout.cpp: gemv to 8 rows, int8 to q8_rows, then f16 tiles or cuBLAS."""
    works = []
    if m <= 8:
        return [K.gemv(t, n, k, m, glu, n_sm) for t, n in by_type(items)]
    quantised = items[0][0] not in ("f16", "bf16")
    works.append(K.prepare(k, m, "q8" if quantised and m <= q8_rows else "f16"))
    for type_name, n in by_type(items):
        if quantised:
            make = K.gemm_q8 if m <= q8_rows else K.gemm_half
            works.append(make(type_name, n, k, m, glu, n_sm))
        elif m <= 64:
            works.append(K.gemm_half(type_name, n, k, m, glu, n_sm))
        else:
            works += [K.cublas(type_name, rows, k, m, n_sm) for rows in n]
            if glu:
                works.append(K.epilogue(n[0], m))
    return works


def step(shape, model_type, m, n_kv, n_sm, n_logit_rows=1, q8_rows=Q8_ROWS):
    """All launches of a step of m rows of one sequence, of which the last sees n_kv slots: [(part, Work)]."""
    s = shape
    works = [("embed", K.rows_op("embed", "embed_rows", m, K.weight_bytes(type_of(model_type, "embed", 0, s), 1, s.n_embd),
                                 4 * s.n_embd))]
    for il in range(s.n_layer):
        for name, items, k, glu in groups(s, model_type, il):
            works += [(name, w) for w in linear(items, k, m, glu, n_sm, q8_rows)]
            if name != "qkv":
                continue
            works.append(("rope_store", K.rope_store(m, s.n_head, s.n_kv_head, s.head_dim)))
            attention = (K.attention_decode(m, s.n_head, s.n_kv_head, s.head_dim, n_kv, n_sm=n_sm) if m == 1
                         else K.attention_prefill(m, s.n_head, s.n_kv_head, s.head_dim, n_sm))
            works.append(("attention", attention))
    rows = n_logit_rows
    works.append(("gather", K.rows_op("gather", "gather_live_rows", rows, 4 * s.n_embd, 4 * s.n_embd)))
    works += [("output", w) for w in linear([(type_of(model_type, "output", 0, s), s.n_vocab)], s.n_embd, rows, False, n_sm)]
    works.append(("sample", K.sample(s.n_vocab, rows)))
    return works


def memory_bytes(shape, model_type, n_ctx=4096):
    """Weights and the K and V of one sequence."""
    total = K.weight_bytes(type_of(model_type, "embed", 0, shape), shape.n_vocab, shape.n_embd)
    total += K.weight_bytes(type_of(model_type, "output", 0, shape), shape.n_vocab, shape.n_embd)
    for il in range(shape.n_layer):
        for _, items, k, _ in groups(shape, model_type, il):
            total += sum(K.weight_bytes(t, n, k) for t, n in items)
    return total + 4 * n_ctx * shape.n_layer * shape.n_kv_head * shape.head_dim + 600e6


def tokens_per_second(shape, model_type, card, registers, n_gen=128, n_prompt=512, q8_rows=Q8_ROWS):
    """(tg, pp); (0, 0) where the model does not fit."""
    if memory_bytes(shape, model_type) > card.memory_bytes * 0.97:
        return 0.0, 0.0
    decode = step(shape, model_type, 1, n_gen // 2, card.n_sm)
    token = K.HOST_S + sum(K.predict(w, card, registers, True).seconds for _, w in decode)
    prefill = step(shape, model_type, n_prompt, n_prompt, card.n_sm, q8_rows=q8_rows)
    prompt = K.HOST_S + sum(K.predict(w, card, registers, False).seconds for _, w in prefill)
    return 1.0 / token, n_prompt / prompt
