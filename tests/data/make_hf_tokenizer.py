#!/usr/bin/env python3
"""Writes hf_tokenizer.json.gz: tokenizer files and what Hugging Face `tokenizers` and `sentencepiece` make of texts with
them, for tests/unit/hf_tokenizer_test.cpp and tests/golden/hf_tokenizer_test.cpp.

usage: make_hf_tokenizer.py SHARED > hf_tokenizer.json.gz     (needs the packages tokenizers, sentencepiece, protobuf)

Contents:
  golden  ids of 2,000 lines (rule: `lines`) by the tokenizers of SHARED/golden/hf/{llama,gpt2}
  rules   pre-tokenizers (some as their models publish them, some odd) with the words they cut `texts` into, each word
          spelled in GPT-2's letters
  folders small tokenizer.json files with the ids of `texts`
"""
import gzip
import json
import random
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from make_pretokenize import BLOOM, CAPITALS, ENDS, LETTERS, SHORT, TAIL, TEXTS, random_texts

MARK = "\u2581"


def unescape(line):
    out, i = bytearray(), 0
    while i < len(line):
        c = line[i]
        i += 1
        if c != "\\":
            out += c.encode()
            continue
        c = line[i]
        i += 1
        if c == "x":
            out.append(int(line[i : i + 2], 16))
            i += 2
        elif c == "u":
            end = line.index("}", i)
            out += chr(int(line[i + 1 : end], 16)).encode()
            i = end + 1
        else:
            out += {"n": b"\n", "r": b"\r", "t": b"\t"}.get(c, c.encode())
    return bytes(out)


def cut(raw, size):
    """At most `size` bytes, cut before a character."""
    if len(raw) > size:
        while raw[size] & 0xC0 == 0x80:
            size -= 1
    return raw[:size]


def lines(shared):
    """The hard cases that are UTF-8, then beginnings of lines that are not blank: WikiText and HellaSwag in turn."""
    found = []
    for line in open(shared + "/data/tokenizer/tricky.txt", encoding="utf-8").read().split("\n")[:-1]:
        raw = unescape(line)
        try:
            raw.decode()
        except UnicodeDecodeError:
            continue
        found.append(raw)
    sources = []
    for name in ("wikitext-2/wiki.test.raw.gz", "hellaswag/hellaswag_val_full.txt.gz"):
        rows = gzip.open(shared + "/data/" + name).read().split(b"\n")
        sources.append([cut(row, 100) for row in rows if row.strip(b" ")])
    for i in range(2000 - len(found)):
        found.append(sources[i % 2][i])
    return [raw.decode() for raw in found]


def byte_letters():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters, extra = {}, 0
    for b in range(256):
        letters[b] = chr(b) if b in printable else chr(256 + extra)
        extra += b not in printable
    return letters


LETTER_OF = byte_letters()
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = dict(BYTE_LEVEL, use_regex=True)


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def digits(single):
    return {"type": "Digits", "individual_digits": single}


CLK = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}%s|" + TAIL
V3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)
# (what it is, steps, name in tokenizer.ggml.pre, whether that name stands for exactly these rules, ignore_merges)
RULES = [
    ("gpt-2", [GPT2], "gpt-2", True, False),
    ("llama-3", [split(CLK % "{1,3}"), BYTE_LEVEL], "llama-bpe", True, True),
    ("llama-3 without ignore_merges", [split(CLK % "{1,3}"), BYTE_LEVEL], "dbrx", True, False),
    ("llama-3, the rest removed", [split(CLK % "{1,3}", "Removed", True), BYTE_LEVEL], "llama-bpe", True, True),
    ("qwen2", [split(CLK % ""), BYTE_LEVEL], "qwen2", True, False),
    ("qwen2, another spelling", [split(CLK.replace(SHORT, "'(?i:[sdmt]|ll|ve|re)").replace(" ?", "\\x20?") % "{1}"), BYTE_LEVEL], "qwen2", True, False),
    ("starcoder", [digits(True), GPT2], "smollm", True, False),
    ("bloom", [split(BLOOM), BYTE_LEVEL], "bloom", True, False),
    ("viking", [split(BLOOM), digits(True), BYTE_LEVEL], "viking", True, False),
    ("tekken", [split(LETTERS + "|" + CAPITALS + r"|\p{N}|" + ENDS), BYTE_LEVEL], "tekken", True, True),
    ("gpt-4o", [split(LETTERS + SHORT + "?|" + CAPITALS + SHORT + r"?|\p{N}{1,3}|" + ENDS), BYTE_LEVEL], "gpt-4o", True, False),
    ("deepseek-coder", [split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), digits(True), BYTE_LEVEL], "deepseek-coder", True, False),
    ("deepseek-v3", [split("\\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(V3), BYTE_LEVEL], "deepseek-v3", True, False),
    ("falcon", [{"type": "Punctuation", "behavior": "Contiguous"}, GPT2, digits(False), split("[0-9][0-9][0-9]")], "falcon", False, False),
    ("prefix space", [dict(GPT2, add_prefix_space=True)], "default", False, False),
    ("digits, then prefix space", [digits(False), dict(GPT2, add_prefix_space=True)], "default", False, False),
    ("merged with previous", [split(" ", "MergedWithPrevious", kind="String"), BYTE_LEVEL], "default", False, False),
    ("merged with next, inverted", [split("\\w+", "MergedWithNext", True), BYTE_LEVEL], "default", False, False),
    ("contiguous", [split("[aeiou\\d]", "Contiguous"), BYTE_LEVEL], "default", False, False),
    ("contiguous, inverted", [split("[\\w&&[^aeiou]]", "Contiguous", True), BYTE_LEVEL], "default", False, False),
    ("removed", [split("[ \\t]+", "Removed"), BYTE_LEVEL], "default", False, False),
    ("only words", [split("(?i:[a-z]+)|\\p{Han}{1,2}+", "Removed", True), BYTE_LEVEL], "default", False, False),
    ("empty matches", [split("x*|(?=[A-Z])"), BYTE_LEVEL], "default", False, False),
    ("empty matches, merged", [split("(?<=[a-z])(?=[A-Z])|,", "MergedWithPrevious"), BYTE_LEVEL], "default", False, False),
    ("lines", [split("^[^\\n]+$\\n?"), BYTE_LEVEL], "default", False, False),
    ("possessive", [split("[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s++$|\\s*[\\r\\n]|\\s+(?!\\S)|\\s"), BYTE_LEVEL], "default", False, False),
    ("classes", [split("[\\p{L}[\\d_]&&[^\\p{Han}\\p{Hiragana}]]+|[[:punct:]]|[^\\S\\n]+|\\h"), BYTE_LEVEL], "default", False, False),
    ("borders", [split("\\b|\\u00e9"), BYTE_LEVEL], "default", False, False),
    ("letters, then digits of letters", [BYTE_LEVEL, digits(True), split("\u0120", kind="String")], "default", False, False),
    ("whitespace", [{"type": "Whitespace"}, BYTE_LEVEL], "default", False, False),
    ("whitespace split", [{"type": "WhitespaceSplit"}, BYTE_LEVEL], "default", False, False),
    ("punctuation and delimiter", [{"type": "Punctuation", "behavior": "MergedWithNext"}, {"type": "CharDelimiterSplit", "delimiter": "."}, BYTE_LEVEL], "default", False, False),
    ("nested", [{"type": "Sequence", "pretokenizers": [split("[0-9]"), {"type": "Sequence", "pretokenizers": [split("\\|", "Removed")]}]}, BYTE_LEVEL], "default", False, False),
]


def pre_tokenizer(steps):
    """Through a tokenizer.json: what the C++ side reads is what the words come from."""
    body = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps},
            "post_processor": None, "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []}}
    return Tokenizer.from_str(json.dumps(body)).pre_tokenizer, body["pre_tokenizer"]


def rule_case(what, steps, name, exact, ignore_merges, texts):
    pre, node = pre_tokenizer(steps)
    words = [[word for word, _ in pre.pre_tokenize_str(text)] for text in texts]
    return {"what": what, "pre_tokenizer": node, "pre": name, "exact": exact, "ignore_merges": ignore_merges, "words": words}


def ids(tokenizer, texts):
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def metaspace_folders(shared, texts):
    """The golden SentencePiece model as tokenizer.json files spell it, with the merges that `transformers` derives."""
    model = proto.ModelProto()
    model.ParseFromString(open(shared + "/golden/hf/llama/tokenizer.model", "rb").read())
    vocab = {p.piece: i for i, p in enumerate(model.pieces)}
    merges = []
    for p in model.pieces:
        local = [(p.piece[:i], p.piece[i:]) for i in range(1, len(p.piece)) if p.piece[:i] in vocab and p.piece[i:] in vocab]
        merges += [(p.score, pair) for pair in sorted(local, key=lambda pair: (vocab[pair[0]], vocab[pair[1]])) if p.type == 1]
    merges = [list(pair) for _, pair in sorted(merges, key=lambda m: -m[0])]
    added = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, c in enumerate(["<unk>", "<s>", "</s>"])]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    forms = {
        "llama-2": ({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, replace]}, None),
        "mistral": (None, {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False}),
        "gemma": (replace, {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}),
    }
    out = []
    for what, (normalizer, pre) in forms.items():
        body = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
                "pre_tokenizer": pre,
                "post_processor": {"type": "TemplateProcessing",
                                   "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                                   "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                                   "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
                "decoder": None,
                "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                          "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                          "vocab": vocab, "merges": merges if what == "mistral" else [" ".join(m) for m in merges]}}
        out.append({"what": what, "n_vocab": 520, "tokenizer": body, "ids": ids(Tokenizer.from_str(json.dumps(body)), texts)})
    return out


def odd_folder(texts):
    """A trained byte-level BPE with a normalizer and a pre-tokenizer that no name stands for."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Sequence([normalizers.NFKC()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"(?<=[a-z])(?=[A-Z])|[aeiou]{2,}|\p{N}{1,2}"), "merged_with_previous"),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=sorted(LETTER_OF.values()))
    t.train_from_iterator(TEXTS * 3 + random_texts(60), trainer)
    t.add_tokens([AddedToken("=>", normalized=False), AddedToken("  ", normalized=False)])
    t.add_special_tokens(["<|im_end|>"])
    body = json.loads(t.to_str())
    return {"what": "odd", "n_vocab": 430, "tokenizer": body, "ids": ids(t, texts)}


def main():
    shared = sys.argv[1]
    texts = TEXTS + random_texts(60) + ["", "\u212b \ufb01x \u2460\uff21", "x=>y  z<|im_end|>a B"]
    chosen = lines(shared)
    sp = sentencepiece.SentencePieceProcessor(model_file=shared + "/golden/hf/llama/tokenizer.model")
    bpe = Tokenizer.from_file(shared + "/golden/hf/gpt2/tokenizer.json")
    out = {
        "golden": {"sentencepiece": [sp.encode(line) for line in chosen], "bpe": ids(bpe, chosen)},
        "texts": texts,
        "rules": [rule_case(*rule, texts) for rule in RULES],
        "folders": [*metaspace_folders(shared, texts), odd_folder(texts)],
    }
    body = json.dumps(out, ensure_ascii=False, separators=(",", ":")).encode()
    sys.stdout.buffer.write(gzip.compress(body, 9, mtime=0))


if __name__ == "__main__":
    main()
