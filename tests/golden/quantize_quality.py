#!/usr/bin/env python3
"""What a quantised file lost, as llama.cpp sees it: mean KL divergence to a base file and perplexity.

    pip install llama-cpp-python numpy
    quantize_quality.py --text wiki.test.raw.gz [--chunks 20] BASE.gguf FILE.gguf...

Chunks of 512 tokens with BOS where the model adds one, second halves counted, as llama-perplexity does. Also the
greedy continuation of a sentence, to see that every file loads and runs.
"""
import argparse, gzip
import numpy as np
import llama_cpp as L

N_CTX = 512

# Called until the very end, when models are freed.
SILENCE = L.llama_log_callback(lambda level, text, data: None)

def log_softmax(x):
    x = x.astype(np.float32)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x

class Model:
    def __init__(self, path, threads):
        self.llm = L.Llama(path, n_ctx=N_CTX, n_batch=N_CTX, n_threads=threads, n_threads_batch=threads, logits_all=True,
                           verbose=False)

    def log_probs(self, tokens):
        self.llm.reset()
        self.llm.eval(tokens)
        return log_softmax(self.llm.scores[N_CTX // 2 : N_CTX - 1])

    def greedy(self, text):
        return self.llm(text, max_tokens=24, temperature=0.0)["choices"][0]["text"]

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("base")
    ap.add_argument("files", nargs="*")
    ap.add_argument("--text", required=True)
    ap.add_argument("--chunks", type=int, default=20)
    ap.add_argument("-t", "--threads", type=int, default=2)
    a = ap.parse_args()
    L.llama_log_set(SILENCE, None)
    opener = gzip.open if a.text.endswith(".gz") else open
    text = opener(a.text, "rt", encoding="utf-8").read()
    base = Model(a.base, a.threads)
    models = {f: Model(f, a.threads) for f in a.files}
    tokens = base.llm.tokenize(text[: a.chunks * N_CTX * 8].encode(), add_bos=True, special=False)
    kld = {f: [] for f in a.files}
    nll = {f: [] for f in [a.base, *a.files]}
    for c in range(a.chunks):
        chunk = tokens[c * N_CTX : (c + 1) * N_CTX]
        if len(chunk) < N_CTX:
            break
        if base.llm.token_bos() == tokens[0]:
            chunk[0] = base.llm.token_bos()
        targets = np.array(chunk[N_CTX // 2 + 1 :])
        rows = np.arange(len(targets))
        p = base.log_probs(chunk)
        nll[a.base].append(-p[rows, targets].mean())
        for f, m in models.items():
            q = m.log_probs(chunk)
            nll[f].append(-q[rows, targets].mean())
            kld[f].append(float((np.exp(p) * (p - q)).sum(axis=1).mean()))
    sentence = "The capital of France is"
    print(f"{a.base}: perplexity {np.exp(np.mean(nll[a.base])):.4f}, {sentence!r} -> {base.greedy(sentence)!r}")
    for f, m in models.items():
        error = np.std(kld[f], ddof=1) / np.sqrt(len(kld[f]))
        print(f"{f}: perplexity {np.exp(np.mean(nll[f])):.4f}, KLD {np.mean(kld[f]):.5f} +- {error:.5f} (of chunk means), -> "
              f"{m.greedy(sentence)!r}")
    for m in (base, *models.values()):
        m.llm.close()

if __name__ == "__main__":
    main()
