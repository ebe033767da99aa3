#!/usr/bin/env python3
"""Ids of independent tokenizers, for tests/golden/tokenizer_oracle_test.cpp.

usage: tokenizer_oracle.py KIND FILE [FILE] < texts.jsonl > ids.jsonl

KIND            FILE
bpe             vocab.json merges.txt   GPT-2's own files, Hugging Face `tokenizers`
sp              tokenizer.model         `sentencepiece`
gguf-bpe        model.gguf              `tokenizers` built from the GGUF's tables (pre smollm or gpt-2)
gguf-bpe-added  model.gguf              the same, with its control tokens read in the text
gguf-sp         model.gguf              `sentencepiece` built from the GGUF's tables

Each line of standard input is a JSON string, each line of output the list of its ids without BOS and EOS. The GGUF reader
and the ModelProto writer here share no code with the project.
"""

import json
import struct
import sys

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_gguf_keys(path):
    with open(path, "rb") as f:

        def number(fmt):
            return struct.unpack("<" + fmt, f.read(struct.calcsize(fmt)))[0]

        def text():
            return f.read(number("Q"))

        def value(kind):
            if kind == 8:
                return text()
            if kind == 9:
                elem, n = number("I"), number("Q")
                return [value(elem) for _ in range(n)]
            return number(SCALARS[kind])

        assert f.read(4) == b"GGUF" and number("I") in (2, 3)
        number("Q")
        return {text().decode(): value(number("I")) for _ in range(number("Q"))}


def bpe_encoder(vocab, merges, digits):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


def gguf_bpe(path, added):
    from tokenizers import AddedToken

    keys = read_gguf_keys(path)
    pre = keys["tokenizer.ggml.pre"].decode()
    assert pre in ("smollm", "gpt-2"), pre
    tokens = [t.decode() for t in keys["tokenizer.ggml.tokens"]]
    merges = [tuple(m.decode().split(" ")) for m in keys["tokenizer.ggml.merges"]]
    tokenizer = bpe_encoder({t: i for i, t in enumerate(tokens)}, merges, pre == "smollm")
    if added:
        control = [t for t, k in zip(tokens, keys["tokenizer.ggml.token_type"]) if k == 3]
        tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, body):
    if isinstance(body, int):
        return varint(number << 3) + varint(body)
    if isinstance(body, float):
        return varint(number << 3 | 5) + struct.pack("<f", body)
    return varint(number << 3 | 2) + varint(len(body)) + body


def gguf_sp(path):
    import sentencepiece

    keys = read_gguf_keys(path)
    assert keys["tokenizer.ggml.model"] == b"llama"
    unk = keys["tokenizer.ggml.unknown_token_id"]
    rows = zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.scores"], keys["tokenizer.ggml.token_type"])
    model = bytearray()
    for i, (piece, score, kind) in enumerate(rows):
        if kind == 4:  # GGUF converters write real spaces into user-defined tokens
            piece = piece.replace(b" ", "\u2581".encode())
        model += field(1, field(1, piece) + field(2, float(score)) + field(3, 2 if i == unk else kind))
    model += field(2, field(3, 2) + field(35, 1))  # TrainerSpec: model_type BPE, byte_fallback
    prefix = 1 if keys.get("tokenizer.ggml.add_space_prefix", True) else 0
    # NormalizerSpec: name, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces
    model += field(3, field(1, b"identity") + field(3, prefix) + field(4, 0) + field(5, 1))
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(bytes(model))
    return processor.EncodeAsIds


def encoder(kind, files):
    if kind == "bpe":
        with open(files[0], encoding="utf-8") as f:
            vocab = json.load(f)
        with open(files[1], encoding="utf-8") as f:
            merges = [tuple(line.rstrip("\n").split(" ")) for line in f if not line.startswith("#version")]
        tokenizer = bpe_encoder(vocab, merges, False)
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    if kind == "sp":
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_file=files[0]).EncodeAsIds
    if kind == "gguf-sp":
        return gguf_sp(files[0])
    return gguf_bpe(files[0], {"gguf-bpe": False, "gguf-bpe-added": True}[kind])


def main():
    encode = encoder(sys.argv[1], sys.argv[2:])
    for line in sys.stdin.buffer:
        print(json.dumps(encode(json.loads(line)), separators=(",", ":")))


if __name__ == "__main__":
    main()
