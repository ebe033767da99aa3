#!/usr/bin/env python3
"""Files of `quantize` in llama.cpp, and llama.cpp's in infer-cli: the same greedy text?

    pip install llama-cpp-python numpy
    quantize_interop.py --quantize build/release/bin/quantize --cli build/release/bin/infer-cli --folder DIR IN.gguf TYPE...

IN is quantised by both programs; each of the two files is run by both. Where texts differ, llama.cpp's own logits tell
how near the tie was: the largest gap between its best token and the token that infer-cli chose, along infer-cli's text.
Exit code 1 where a gap is above --tie.
"""
import argparse, pathlib, subprocess, sys
import numpy as np
import llama_cpp as L

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools/infer-bench"))
import quantize_peer

SILENCE = L.llama_log_callback(lambda level, text, data: None)
PROMPTS = ["The capital of France is", "Water boils when", "def fibonacci(n):", "Once upon a time there was a"]

def infer_text(cli, model, prompt, n):
    done = subprocess.run([cli, "-m", model, "-p", prompt, "-n", str(n), "--temp", "0", "-no-cnv", "--no-escape", "-t", "2"],
                          check=True, capture_output=True)
    return done.stdout.decode()

def peer_text(llm, prompt, n):
    return llm(prompt, max_tokens=n, temperature=0.0, repeat_penalty=1.0)["choices"][0]["text"]

def widest_gap(llm, prompt, text):
    """How far below llama.cpp's best token the tokens of `text` are, at worst."""
    head = llm.tokenize(prompt.encode(), add_bos=True, special=False)
    tokens = llm.tokenize((prompt + text).encode(), add_bos=True, special=False)
    if tokens[: len(head)] != head:
        return float("nan")
    llm.reset()
    llm.eval(tokens)
    worst = 0.0
    for i in range(len(head), len(tokens)):
        row = llm.scores[i - 1]
        worst = max(worst, float(row.max() - row[tokens[i]]))
    return worst

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("source")
    ap.add_argument("types", nargs="+")
    ap.add_argument("--quantize", required=True)
    ap.add_argument("--cli", required=True)
    ap.add_argument("--folder", default=".")
    ap.add_argument("-n", type=int, default=32)
    ap.add_argument("--tie", type=float, default=1.0,
                    help="largest gap of logits that counts as a tie; 8-bit activations alone move llama.cpp's by 0.2 (std)")
    a = ap.parse_args()
    L.llama_log_set(SILENCE, None)
    wide = 0
    for name in a.types:
        files = {who: str(pathlib.Path(a.folder) / f"interop-{who}.gguf") for who in ("infer", "llama.cpp")}
        subprocess.run([a.quantize, a.source, files["infer"], name], check=True, capture_output=True)
        quantize_peer.peer(a.source, files["llama.cpp"], name, 2)
        for who, path in files.items():
            llm = L.Llama(path, n_ctx=512, n_threads=2, logits_all=True, verbose=False)
            same, gaps = 0, []
            for prompt in PROMPTS:
                ours, theirs = infer_text(a.cli, path, prompt, a.n).rstrip("\n"), peer_text(llm, prompt, a.n).rstrip("\n")
                if ours.strip() == theirs.strip():
                    same += 1
                    continue
                gaps.append(widest_gap(llm, prompt, ours))
                if not gaps[-1] <= a.tie:
                    wide += 1
                    print(f"  {prompt!r}\n    infer     {ours!r}\n    llama.cpp {theirs!r}")
            llm.close()
            print(f"{name}, file of {who}: {same} of {len(PROMPTS)} texts equal; gaps of the others: "
                  f"{', '.join(f'{g:.3f}' for g in gaps) or '-'}", flush=True)
        for path in files.values():
            pathlib.Path(path).unlink()
    sys.exit(1 if wide else 0)

if __name__ == "__main__":
    main()
