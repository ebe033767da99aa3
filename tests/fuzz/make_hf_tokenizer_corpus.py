#!/usr/bin/env python3
"""Writes corpus/hf_tokenizer: small tokenizer files, good and bad. usage: make_hf_tokenizer_corpus.py FOLDER"""
import json
import os
import struct
import sys


def varint(v):
    out = b""
    while v >= 0x80:
        out += bytes([v & 0x7F | 0x80])
        v >>= 7
    return out + bytes([v])


def field(number, body):
    return varint(number << 3 | 2) + varint(len(body)) + body


def number(n, v):
    return varint(n << 3) + varint(v & (1 << 64) - 1)


def piece(text, score, kind):
    return field(1, field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + number(3, kind))


def model(kind=2, charsmap=b""):
    pieces = [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("\u2581a", -1, 1), ("\u2581", -2, 1), ("a", -3, 1), ("<0x0A>", 0, 6), ("  ", 0, 4)]
    trainer = number(3, kind) + number(35, 1) + number(40, 0) + number(43, -1)
    normalizer = field(1, b"nmt") + field(2, charsmap) + number(3, 1) + number(4, 1)
    return b"".join(piece(*p) for p in pieces) + field(2, trainer) + field(3, normalizer)


def tokenizer(pre, normalizer=None, **parts):
    body = {"added_tokens": [{"id": 7, "content": "<s>", "special": True}], "normalizer": normalizer, "pre_tokenizer": pre,
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u2581": 4, "<0x0A>": 5, "<unk>": 6}, "merges": [["a", "b"]]}}
    body["model"].update(parts)
    return json.dumps(body, separators=(",", ":")).encode()


def split(pattern, behavior, invert=False):
    return {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}, {"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}]}


def main():
    good = model()
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}
    replace = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    config = json.dumps({"bos_token": "<s>", "eos_token_id": [1, 7], "chat_template": [{"name": "default", "template": "x"}], "added_tokens_decoder": {"9": {"content": "<|x|>"}}}).encode()
    files = {
        "model": b"\0" + good, "model_cut": b"\0" + good[: len(good) // 2], "model_unigram": b"\0" + model(1),
        "model_charsmap": b"\0" + model(2, b"\4\0\0\0abcd"), "model_long": b"\0" + varint(10) + varint(1 << 60),
        "bpe": b"\1" + tokenizer({"type": "ByteLevel", "add_prefix_space": False}),
        "bpe_rules": b"\1" + tokenizer(split("(?i:'s)|\\p{L}+|[^\\s\\p{N}&&[^a]]++|\\s{1,2}+", "MergedWithNext", True), {"type": "NFKC"}),
        "bpe_blow_up": b"\1" + tokenizer(split("(?:(?:a+)+)+[^a]c|b", "Contiguous")),
        "metaspace": b"\1" + tokenizer({"type": "Metaspace", "replacement": "\u2581"}, byte_fallback=True, unk_token="<unk>", merges=["a b"]),
        "prepend": b"\1" + tokenizer(None, replace, byte_fallback=True),
        "wordpiece": b"\1" + tokenizer(None, type="WordPiece"), "deep": b"\1" + b'{"a":' + b"[" * 80,
        "config": b"\2" + tokenizer({"type": "ByteLevel"}, post_processor=template) + b"\0" + config,
    }
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, body in files.items():
        with open(os.path.join(sys.argv[1], name), "wb") as file:
            file.write(body)


if __name__ == "__main__":
    main()
