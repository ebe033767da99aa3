#!/usr/bin/env python3
"""Writes pretokenize.json: words that Hugging Face `tokenizers` cuts texts into, for tests/unit/tokenizer_pretokenize_test.cpp.

usage: PYTHONPATH=DIR make_pretokenize.py > pretokenize.json     (DIR: tests/golden/fetch_oracles.sh DIR tokenizers)

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
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"


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
    "deepseek-coder": [split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), DIGITS],
}

TEXTS = [
    "Hello, world! How are you today?",
    "I'll say it's DON'T, we'Re, they'VE; o'clock 'S s'il",
    "CamelCaseWords and HTTPServer, iPhone XMLHttpRequest, \u00c9cole\u00c9t\u00e9L\u00c0",
    "in 1984, 12345678 and 3.14159, 1,000,000; \u0663\u0664\u0665 \u096a\u096b\u096c \u2167 \u00bd x\u00b2",
    "  two  spaces,\ttabs\t\there \n new\r\nlines\n\n\n  and   \n",
    "a(b)c|d.e,f!g?h\u2026i\u3002j\uff0ck\u3001l\u0964m\u06d4n\u060co",
    "if (x == 1) {\n    return foo(bar[3], \"baz\");  // done\n}\n",
    "$foo %bar &baz /path/to/file.txt https://example.com/a?b=c#d",
    "\uc548\ub155\ud558\uc138\uc694, \uc138\uacc4! \ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8\uc785\ub2c8\ub2e4.",
    "\u4e2d\u6587\u6d4b\u8bd5\uff0c\u6ca1\u6709\u7a7a\u683c\u3002\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u30ab\u30bf\u30ab\u30ca\u3002",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u041a\u0430\u043a \u0434\u0435\u043b\u0430? \u042d\u0422\u041e\u0422\u0435\u0441\u0442",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e\u0964 \u092f\u0939 \u0939\u093f\u0928\u094d\u0926\u0940 \u0939\u0948\u0965",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064a\u0641 \u062d\u0627\u0644\u0643\u061f \u0627\u0631\u062f\u0648 \u0632\u0628\u0627\u0646\u06d4",
    "e\u0301le\u0300ve n\u0303 \u0928\u093f \u0e01\u0e33",
    "emoji \U0001f600\U0001f603\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1ee end",
    "\u00a0nbsp\u3000wide\u2003em\u200bzero\u180emongol\u0085nel\u2028line",
    "\u01c4ungla \u01c5abc \u01c6abc \u02b0a \u00aab",
    "x = y+z <= w^2 ~ `tick` a|b",
    "tail spaces   ",
    "\n\n",
    " ",
    "a",
]


def random_texts(count):
    rng = random.Random(7)
    parts = [" ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'", ".", ",", "\u2026", "\u0964", "(", ")|", "/", "!?", "1", "234", "a", "Bc",
             "DE", "\u00e9", "\u0416", "\u0436", "\ud55c", "\u6f22", "\u306e", "\u093f", "\u0928", "\u060c", "\u0663", "\u00b2", "\U0001f600", "\u00a0", "\u3000", "_", "-", "\u01c5", "\u00aa"]
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
