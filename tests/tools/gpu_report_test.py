"""tools/gpu-report where there is no GPU: its page, its models, its predictions.

usage: gpu_report_test.py ROOT [INFER_GGUF]
"""

import html.parser
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest

ROOT, INFER_GGUF = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
TOOL = os.path.join(ROOT, "tools", "gpu-report")
sys.path.insert(0, TOOL)

import cards  # noqa: E402
import kernels as K  # noqa: E402
import make_model  # noqa: E402
import steps  # noqa: E402

_spec = importlib.util.spec_from_file_location("gpu_report", os.path.join(TOOL, "gpu-report.py"))
gpu_report = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gpu_report)


def run(name, *args, **options):
    return subprocess.run([sys.executable, "-B", os.path.join(TOOL, name), *args], capture_output=True, text=True, check=False, **options)


class Balanced(html.parser.HTMLParser):
    """Fails on tags that are not closed in order."""
    ALONE = {"meta"}

    def __init__(self):
        super().__init__()
        self.open, self.count = [], {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in self.ALONE:
            self.open.append(tag)
        for key, value in attrs:
            assert key not in ("src", "href"), f"a page that needs {value}"

    def handle_startendtag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another one"


class GpuReport(unittest.TestCase):
    def test_page_of_the_example(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("gpu-report.py", "--dry-run", "--out", folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(os.path.join(folder, "gpu-report.html"), encoding="utf-8") as file:
                text = file.read()
            with open(os.path.join(folder, "gpu-report.json"), encoding="utf-8") as file:
                report = json.load(file)
        page = Balanced()
        page.feed(text)
        self.assertEqual(page.open, [])
        predicted = [k for k in report["kernels"] if k.get("predicted_us")]
        self.assertEqual(page.count["circle"], len(predicted))
        self.assertEqual(len(predicted), len(report["kernels"]))
        self.assertGreaterEqual(page.count["svg"], 5)
        self.assertIn("invented", text)
        self.assertNotIn("nan", text.lower().split())

    def test_no_gpu_is_one_line(self):
        done = run("gpu-report.py", env={"PATH": "/nonexistent"})
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("no NVIDIA GPU here", done.stderr)

    def test_unknown_type_is_refused(self):
        done = run("gpu-report.py", "--types", "Q4_0,Q9")
        self.assertEqual(done.returncode, 1)
        self.assertIn("Q9", done.stderr)

    def test_document_is_what_predict_writes(self):
        done = run("predict.py", "--check")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_models_are_files_that_infer_reads(self):
        shape = steps.Shape("tiny", n_embd=256, n_layer=3, n_head=2, n_kv_head=1, head_dim=128, n_ff=512, n_vocab=300)
        for model_type in steps.TYPES:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "tiny.gguf")
                make_model.write(path, shape, model_type)
                if INFER_GGUF:
                    done = subprocess.run([INFER_GGUF, "check", path], capture_output=True, text=True, check=False)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_no_prediction_beats_the_card(self):
        registers = K.Registers()
        for card in cards.CARDS:
            for shape in steps.SHAPES:
                for model_type in steps.TYPES:
                    for m in (1, 512):
                        for _, work in steps.step(shape, model_type, m, m, card.n_sm):
                            p = K.predict(work, card, registers, graph=m == 1)
                            self.assertGreater(p.seconds, work.bytes / card.bandwidth, work)
                            if work.unit:
                                self.assertGreater(p.seconds, work.ops / K.peak_of(work, card), work)

    def test_cards_are_known_by_what_the_runtime_says(self):
        def device(name, architecture, n_sm, memory):
            return {"name": name, "architecture": architecture, "n_sm": n_sm, "memory_bytes": memory, "clock_hz": 1.8e9,
                    "memory_clock_hz": 9e9, "bus_bits": 256, "l2_bytes": 4 << 20}
        found = [cards.card_of_device(d).name for d in (
            device("NVIDIA GeForce RTX 3060", 86, 28, 12 << 30), device("NVIDIA GeForce RTX 4090", 89, 128, 24 << 30),
            device("NVIDIA A100-SXM4-80GB", 80, 108, 80 << 30), device("NVIDIA H100 80GB HBM3", 90, 132, 80 << 30))]
        self.assertEqual(found, [c.name for c in cards.CARDS])
        other = cards.card_of_device(device("NVIDIA GeForce RTX 3060 Ti", 86, 38, 8 << 30))
        self.assertEqual(other.bandwidth, 576e9)

    def test_lines_of_ctest(self):
        for line, expected in (("1/2 Test #72: cuda_weight_layout ...............   Passed    0.01 sec", "Passed"),
                               (" 2/11 Test  #75: cuda_gemv_gpu ...........***Skipped   0.01 sec", "Skipped"),
                               ("3/11 Test  #76: cuda_rows_gpu ...........***Failed   1.50 sec", "Failed"),
                               ("4/11 Test  #77: cuda_moe_gpu ..........***Exception: SegFault  0.10 sec", "Exception:")):
            self.assertEqual(gpu_report.TEST_LINE.match(line)[3].split()[0], expected)

    def test_launches_of_a_token_keep_the_design(self):
        for shape in steps.SHAPES:
            self.assertEqual(len(steps.step(shape, "Q4_0", 1, 64, 128)), 6 * shape.n_layer + 4)

    def test_every_kernel_has_registers(self):
        registers = K.Registers()
        for model_type in steps.TYPES:
            for m in (1, 8, 64, 512):
                for _, work in steps.step(steps.SHAPES[1], model_type, m, m, 128):
                    if work.kernel:
                        self.assertGreater(registers.of(work.kernel, 80), 0, work)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
