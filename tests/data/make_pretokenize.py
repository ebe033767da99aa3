#!/usr/bin/env python3
"""Writes pretokenize.json: words that Hugging Face `tokenizers` cuts texts into, for tests/unit/tokenizer_pretokenize_test.cpp.

usage: PYTHONPATH=DIR make_pretokenize.py > pretokenize.json     (DIR: tests/golden/fetch_oracles.sh DIR)

The patterns are those of the models' own tokenizer.json, not llama.cpp's versions of them, and run in another engine
(Oniguruma). A text is a JSON string; its words are given by their lengths in bytes.
"""
import json
import random
import sys

from tokenizers import Regex, pre_tokenizers

LETTERS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
CAPITALS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
ENDS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def gpt2(*before):
    return [*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]


DIGITS = pre_tokenizers.Digits(individual_digits=True)
MODELS = {
    "gpt-2": gpt2(),
    "smollm": gpt2(DIGITS),
    "llama-bpe": [split(SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + TAIL)],
    "qwen2": [split(SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + TAIL)],
    "bloom": [split(BLOOM)],
    "viking": [split(BLOOM), DIGITS],
    "tekken": [split(LETTERS + "|" + CAPITALS + r"|\p{N}|" + ENDS)],
    "gpt-4o": [split(LETTERS + SHORT + "?|" + CAPITALS + SHORT + r"?|\p{N}{1,3}|" + ENDS)],
    "seed-coder": [
        split(SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+")
    ],
    "deepseek-coder": [split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"), DIGITS],
}

TEXTS = [
    "Hello, world! How are you today?",
    "I'll say it's DON'T, we'Re, they'VE; o'clock 'S s'il",
    "CamelCaseWords and HTTPServer, iPhone XMLHttpRequest, ÉcoleÉtéLÀ",
    "in 1984, 12345678 and 3.14159, 1,000,000; ٣٤٥ ४५६ Ⅷ ½ x²",
    "  two  spaces,\ttabs\t\there \n new\r\nlines\n\n\n  and   \n",
    "a(b)c|d.e,f!g?h…i。j，k、l।m۔n،o",
    "if (x == 1) {\n    return foo(bar[3], \"baz\");  // done\n}\n",
    "$foo %bar &baz /path/to/file.txt https://example.com/a?b=c#d",
    "안녕하세요, 세계! 한국어 텍스트입니다.",
    "中文测试，没有空格。日本語のテキスト、カタカナ。",
    "Привет, мир! Как дела? ЭТОТест",
    "नमस्ते दुनिया। यह हिन्दी है॥",
    "مرحبا بالعالم، كيف حالك؟ اردو زبان۔",
    "e\u0301le\u0300ve n\u0303 \u0928\u093f \u0e01\u0e33",
    "emoji 😀😃👩‍👩‍👧 🇫🇮 end",
    "\u00a0nbsp\u3000wide\u2003em\u200bzero\u180emongol\u0085nel\u2028line",
    "Ǆungla ǅabc ǆabc ʰa ªb",
    "x = y+z <= w^2 ~ `tick` a|b",
    "tail spaces   ",
    "\n\n",
    " ",
    "a",
]


def random_texts(count):
    rng = random.Random(7)
    parts = [" ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'", ".", ",", "…", "।", "(", ")|", "/", "!?", "1", "234", "a", "Bc",
             "DE", "é", "Ж", "ж", "한", "漢", "の", "ि", "न", "،", "٣", "²", "😀", "\u00a0", "\u3000", "_", "-", "ǅ", "ª"]
    return ["".join(rng.choice(parts) for _ in range(rng.randint(2, 14))) for _ in range(count)]


def words(steps, text):
    sequence = pre_tokenizers.Sequence(steps)
    spans = [span for _, span in sequence.pre_tokenize_str(text)]
    assert "".join(text[a:b] for a, b in spans) == text, (text, spans)
    return [len(text[a:b].encode()) for a, b in spans]


def main():
    texts = TEXTS + random_texts(60)
    out = {"texts": texts, "words": {name: [words(steps, t) for t in texts] for name, steps in MODELS.items()}}
    json.dump(out, sys.stdout, ensure_ascii=True, separators=(",", ":"))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
