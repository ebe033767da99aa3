#!/usr/bin/env python3
"""llama.cpp, through its C API, measured as `infer-bench run --json` measures us, and with the same fields.

    pip install llama-cpp-python numpy           # or its bindings alone with LLAMA_CPP_LIB_PATH at libraries of your own
    tools/infer-bench/peer.py -m model.gguf -t 2 -p 512 -n 128 -r 5
    tools/infer-bench/peer.py --quantize f16.gguf out.gguf q4_k_m

Use it with `infer-bench compare`: on a shared machine only ratios of runs in turn mean something. Memory is what loading
and computing added to the interpreter's own. No test needs this file.
"""
import argparse
import ctypes
import json
import random
import time

import llama_cpp as L

FTYPES = {"f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q4_k_m": 15}


def resident():
    """RssAnon and RssFile in MiB."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as f:
        lines = dict(line.split(":", 1) for line in f)
    return tuple(int(lines[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile"))


def quantize(source, target, ftype):
    params = L.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = FTYPES[ftype], 2, True
    if L.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) != 0:
        raise SystemExit(f"{source}: llama.cpp cannot quantize it to {ftype}")


class Peer:
    def __init__(self, args):
        self.args, self.rng = args, random.Random(1)
        self.base = resident()
        start = time.perf_counter()
        params = L.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = L.llama_model_load_from_file(args.m.encode(), params)
        if not self.model:
            raise SystemExit(f"{args.m}: llama.cpp cannot load it")
        self.n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model))
        params = L.llama_context_default_params()
        params.n_ctx = args.b * (args.d + max(args.p, args.n) + 8)
        params.n_batch, params.n_ubatch, params.n_seq_max = 2048, 512, args.b
        params.n_threads = params.n_threads_batch = args.t
        params.flash_attn_type, params.no_perf = args.fa, True
        self.context = L.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"{args.m}: llama.cpp makes no context of {params.n_ctx} tokens")
        self.load_ms = 1e3 * (time.perf_counter() - start)
        self.batch = L.llama_batch_init(4096, 0, 1)
        self.fill(0, 1)
        self.first_token_ms = 1e3 * (time.perf_counter() - start)
        self.n_filled = 0  # sequences whose first d tokens are in the cache

    def put(self, rows):
        self.batch.n_tokens = len(rows)
        for i, (pos, seq, want) in enumerate(rows):
            self.batch.token[i], self.batch.pos[i] = self.rng.randrange(self.n_vocab), pos
            self.batch.n_seq_id[i], self.batch.seq_id[i][0], self.batch.logits[i] = 1, seq, want
        if L.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")
        L.llama_synchronize(self.context)

    def fill(self, seq, n, begin=0):
        for at in range(0, n, 2048):
            self.put([(begin + at + i, seq, at + i == n - 1) for i in range(min(2048, n - at))])

    def rewind(self, n_seq):
        """Leaves the first d tokens of n_seq sequences in the cache; they are computed once."""
        for seq in range(n_seq):
            L.llama_memory_seq_rm(L.llama_get_memory(self.context), seq, self.args.d if seq < self.n_filled else 0, -1)
            if seq >= self.n_filled:
                self.fill(seq, self.args.d)
        self.n_filled = max(self.n_filled, n_seq)

    def time(self, n_tok, n_seq, run):
        """Speeds of r runs after one that does not count, each behind a cache of d tokens a sequence."""
        wall, cpu = [], []
        for _ in range(self.args.r + 1):
            self.rewind(n_seq)
            c, w = time.process_time(), time.perf_counter()
            run()
            wall.append(round(n_tok / (time.perf_counter() - w), 3))
            cpu.append(round(n_tok / (time.process_time() - c), 3))
        return {"tok_s": wall[1:], "cpu_tok_s": cpu[1:]}

    def prompt(self):
        return {"n": self.args.p, **self.time(self.args.p, 1, lambda: self.fill(0, self.args.p, self.args.d))}

    def generate(self):
        a = self.args

        def run():
            for i in range(a.n):
                self.put([(a.d + i, seq, 1) for seq in range(a.b)])
        return {"n": a.n, "batch": a.b, **self.time(a.b * a.n, a.b, run)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quantize", nargs=3, metavar=("IN", "OUT", "TYPE"), help="types: " + ", ".join(FTYPES))
    ap.add_argument("-m", help="model file")
    for flag, default, words in (("-t", 2, "threads"), ("-p", 512, "tokens of the prompt"), ("-n", 128, "tokens to generate"),
                                 ("-r", 5, "repetitions"), ("-d", 0, "tokens in the cache before"),
                                 ("-b", 1, "sequences that generate together"), ("-fa", 1, "flash attention")):
        ap.add_argument(flag, type=int, default=default, help=words)
    args = ap.parse_args()
    silent = L.llama_log_callback(lambda level, text, data: None)
    L.llama_log_set(silent, ctypes.c_void_p(0))
    L.llama_backend_init()
    if args.quantize:
        return quantize(*args.quantize)
    peer = Peer(args)
    out = {"engine": "llama.cpp", "model": args.m, "threads": args.t, "depth": args.d}
    if args.p:
        out["pp"] = peer.prompt()
    if args.n:
        out["tg"] = peer.generate()
    out["load_ms"], out["first_token_ms"] = round(peer.load_ms, 3), round(peer.first_token_ms, 3)
    anon, mapped = (now - before for now, before in zip(resident(), peer.base))
    out["rss_anon_mib"], out["rss_file_mib"] = round(anon, 1), round(mapped, 1)
    out["rss_mib"] = round(anon + mapped, 1)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
