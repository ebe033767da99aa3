#!/usr/bin/env python3
"""Writes hf_folders.json: what transformers' fast tokenizers make of a folder's tokenizer.json and tokenizer_config.json
together, for tests/unit/hf_tokenizer_test.cpp.

usage: make_hf_folders.py > hf_folders.json     (needs the package transformers, 5 or later)

Contents; every tokenizer is 256 letters and "he", byte-level:
  post    post_processors against add_bos_token and add_eos_token: ids of "he", special tokens added
  strips  added tokens with and without rstrip (`added_tokens`, beginning at id 257) and, under `config`, flags that
          tokenizer_config.json gives again: ids of `texts`, none added
"""
import itertools
import json
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import AutoTokenizer, logging  # noqa: E402

logging.set_verbosity_error()


def vocabulary():
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    letters = {chr(b if b in plain else next(spare)): b for b in range(256)}
    return {**letters, "he": 256}


def added(first, *tokens):
    return [{"id": first + i, "content": content, "single_word": False, "lstrip": False, "rstrip": rstrip,
             "normalized": False, "special": special} for i, (content, rstrip, special) in enumerate(tokens)]


def tokenizer(added_tokens, post):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens, "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": post, "decoder": None,
            "model": {"type": "BPE", "vocab": vocabulary(), "merges": ["h e"]}}


def load(body, config):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("tokenizer.json", body), ("tokenizer_config.json", config)):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                json.dump(content, f)
        return AutoTokenizer.from_pretrained(folder)


def post_cases():
    special = {"<s>": 257, "</s>": 258}
    tokens = added(257, ("<s>", False, True), ("</s>", False, True))

    def part(name):
        return {"SpecialToken": {"id": name, "type_id": 0}}

    def template(before, after):
        a, b = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
        return {"type": "TemplateProcessing", "single": [*map(part, before), a, *map(part, after)], "pair": [a, b],
                "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in special.items()}}

    letters = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    posts = [None, letters, template(["<s>"], []), template(["<s>"], ["</s>"]), template([], ["</s>"]),
             {"type": "Sequence", "processors": [letters, template(["<s>"], [])]}]
    out = []
    for post, bos, eos in itertools.product(posts, (None, True, False), (None, True, False)):
        config = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
        config.update({} if bos is None else {"add_bos_token": bos})
        config.update({} if eos is None else {"add_eos_token": eos})
        ids = load(tokenizer(tokens, post), config)("he").input_ids
        out.append({"post_processor": post, "config": config, "ids": ids})
    return out


def strip_cases():
    tokens = added(257, ("<s>", False, True), ("</s>", True, False), ("<|endoftext|>", False, True),
                   ("<|user|>", True, True), ("<|end|>", True, True), ("=>", True, False))
    texts = ["<|user|> \n he", "<s> he</s>  he", "<|endoftext|>  he", "<|end|>\n<|user|>\t\r\n he<|end|>", "x=>  y => z",
             "<|user|>\u3000\u00a0\u2003\u0085he", "<|user|>\u200bhe", "<|end|>   ", "he <|end|>  <s>  <|end|> </s> =>"]
    again = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in tokens}
    again["257"] = {**again["257"], "rstrip": True}
    again["260"] = {**again["260"], "rstrip": False}
    out = []
    for config in ({}, {"added_tokens_decoder": again}):
        config["tokenizer_class"] = "LlamaTokenizerFast"
        t = load(tokenizer(tokens, None), config)
        out.append({"added_tokens": tokens, "config": config, "texts": texts,
                    "ids": [t(text, add_special_tokens=False).input_ids for text in texts]})
    return out


def main():
    cases = {"post": post_cases(), "strips": strip_cases()}
    lines = [f'"{name}":[\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in rows) + "\n]" for name, rows in cases.items()]
    sys.stdout.write("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
