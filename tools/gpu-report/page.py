"""One self-contained page from a report (gpu-report.json): tables, and plots as inline SVG."""

import html
import math

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #68717f; --line: #d5dae1; --paper: #fff; --a: #2f6fde; --b: #d9822b; --c: #8a94a3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #98a2b0; --line: #3a4250; --paper: #151a21; --a: #6ea0ff; --b: #f0a85c; --c: #7d8797; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; width: 100% }
th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid var(--line) } th { color: var(--soft); font-weight: 500 }
th:first-child, td:first-child { text-align: left } .scroll { overflow-x: auto } .note { color: var(--soft) }
.warn { border-left: 4px solid var(--b); padding: .4rem .8rem } .bad { color: var(--b); font-weight: 600 }
svg { width: 100%; height: auto } svg text { fill: var(--ink); font: 11px system-ui, sans-serif } svg .soft { fill: var(--soft) }
svg .grid { stroke: var(--line) } svg .a { fill: var(--a) } svg .b { fill: var(--b) } svg .c { fill: var(--c) } svg .limit { stroke: var(--soft); stroke-dasharray: 4 3 }
"""
COLOURS = {"memory": "a", "compute": "b", "launch": "c"}


def e(text):
    return html.escape(str(text))


def table(header, rows):
    cells = lambda tag, row: "".join(f"<{tag}>{c}</{tag}>" for c in row)  # noqa: E731
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells("th", header)}</tr>{body}</table></div>'


def legend(entries, y=14):
    out, x = [], 60
    for colour, text in entries:
        out.append(f'<rect class="{colour}" x="{x}" y="{y - 9}" width="10" height="10"/><text x="{x + 15}" y="{y}">{e(text)}</text>')
        x += 32 + 6.5 * len(text)
    return "".join(out)


def scatter(points):
    """Measured over predicted time, both logarithmic; points: (predicted us, measured us, bound, title)."""
    if not points:
        return ""
    low = math.floor(math.log10(min(min(p[0], p[1]) for p in points)))
    high = max(low + 1, math.ceil(math.log10(max(max(p[0], p[1]) for p in points))))
    width, height, left, top = 720, 420, 60, 30
    x = lambda v: left + (math.log10(v) - low) / (high - low) * (width - left - 20)  # noqa: E731
    y = lambda v: height - 40 - (math.log10(v) - low) / (high - low) * (height - 40 - top)  # noqa: E731
    tilt = -math.degrees(math.atan2(height - 40 - top, width - left - 20))
    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="measured over predicted time">']
    for p in range(low, high + 1):
        v = 10.0 ** p
        out.append(f'<line class="grid" x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top}" y2="{height - 40}"/>'
                   f'<line class="grid" x1="{left}" x2="{width - 20}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
                   f'<text class="soft" x="{x(v):.1f}" y="{height - 24}" text-anchor="middle">{v:g}</text>'
                   f'<text class="soft" x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>')
    for factor, name in ((1, "as predicted"), (3, "three times")):
        a, b = 10.0 ** low, 10.0 ** high / factor
        if b > a:
            out.append(f'<line class="limit" x1="{x(a):.1f}" y1="{y(a * factor):.1f}" x2="{x(b):.1f}" y2="{y(b * factor):.1f}"/>'
                       f'<text class="soft" transform="translate({x(a) + 14:.1f} {y(a * factor) - 13:.1f}) rotate({tilt:.1f})">{name}</text>')
    for predicted, measured, bound, title in points:
        out.append(f'<circle class="{COLOURS[bound]}" cx="{x(predicted):.1f}" cy="{y(measured):.1f}" r="3.5" fill-opacity=".75">'
                   f"<title>{e(title)}: {measured:.1f} us, predicted {predicted:.1f}</title></circle>")
    out.append(legend([(c, f"bound by {b}") for b, c in COLOURS.items()]))
    out.append(f'<text class="soft" x="{width / 2}" y="{height - 6}" text-anchor="middle">predicted, us</text>'
               f'<text class="soft" transform="translate(14 {height / 2}) rotate(-90)" text-anchor="middle">measured, us</text></svg>')
    return "".join(out)


def bars(rows, unit, limit=None, limit_name=""):
    """Horizontal bars; rows: (label, [(colour, value, title)])."""
    rows = [r for r in rows if any(v for _, v, _ in r[1])]
    if not rows:
        return ""
    most = max([v for _, series in rows for _, v, _ in series] + ([limit] if limit else []))
    left, width, thick = 285, 780, 11
    height = 30 + sum(thick * len(s) + 7 for _, s in rows) + 20
    scale = (width - left - 70) / most
    out, y = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{e(unit)}">'], 24
    for label, series in rows:
        out.append(f'<text x="{left - 8}" y="{y + thick * len(series) / 2 + 4:.1f}" text-anchor="end">{e(label)}</text>')
        for colour, v, title in series:
            if v:
                out.append(f'<rect class="{colour}" x="{left}" y="{y}" width="{max(1.0, v * scale):.1f}" height="{thick - 2}"><title>{e(title)}'
                           f'</title></rect><text class="soft" x="{left + v * scale + 4:.1f}" y="{y + thick - 2}">{v:.3g}</text>')
            y += thick
        y += 7
    if limit:
        at = left + limit * scale
        out.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="18" y2="{y}"/><text class="soft" x="{at:.1f}" y="14" '
                   f'text-anchor="end">{e(limit_name)}</text>')
    out.append(f'<text class="soft" x="{left}" y="14">{e(unit)}</text></svg>')
    return "".join(out)


def tests_part(report):
    tests = report.get("tests", [])
    if not tests:
        return '<p class="note">Not run.</p>'
    n = {r: sum(t["result"] == r for t in tests) for r in ("Passed", "Skipped", "Failed")}
    failed = sum(n.values()) < len(tests) or n["Failed"]
    text = f"{n['Passed']} passed, {n['Skipped']} skipped, {len(tests) - n['Passed'] - n['Skipped']} failed."
    rows = [(e(t["name"]), e(t["result"]) if t["result"] in ("Passed", "Skipped") else f'<span class="bad">{e(t["result"])}</span>',
             f'{t["seconds"]:.1f}') for t in tests]
    return f'<p class="{"bad" if failed else ""}">{text}</p>' + table(("test", "result", "s"), rows)


def speed_part(report):
    rows, plots = [], {"tg": [], "pp": []}
    for run in report.get("speed", []):
        for kind, name in (("tg", "tg128"), ("pp", "pp512")):
            measured, predicted, known = run.get(kind), run.get(kind + "_predicted"), run.get(kind + "_published")
            if not measured:
                continue
            ratio = f"{measured / predicted:.2f}" if predicted else ""
            rows.append((e(run["name"]), name, f"{measured:.1f}", f"{predicted:.1f}" if predicted else "", ratio,
                         f"{known:.1f}" if known else ""))
            plots[kind].append((run["name"], [("a", measured, "measured"), ("b", predicted or 0, "predicted"),
                                              ("c", known or 0, "llama.cpp, published")]))
    if not rows:
        return '<p class="note">Not measured.</p>'
    note = '<svg viewBox="0 0 720 20">' + legend([("a", "measured"), ("b", "predicted"), ("c", "llama.cpp, published")]) + "</svg>"
    return (note + bars(plots["tg"], "text generation, tokens/s") + bars(plots["pp"], "prompt, tokens/s")
            + table(("model", "test", "measured", "predicted", "measured : predicted", "llama.cpp, published"), rows))


def kernels_part(report):
    kernels = report.get("kernels", [])
    if not kernels:
        return '<p class="note">Not timed.</p>'
    known = [k for k in kernels if k.get("predicted_us")]
    points = [(k["predicted_us"], k["us"], k["bound"], k["title"]) for k in known]
    card = report["card"]
    moved = [(k["title"], [("a", k["bytes"] / k["us"] / 1e3, "GB/s")]) for k in known if k["bound"] == "memory" and k["us"] > 8]
    rates = {unit: [(k["title"], [("b", k["ops"] / k["us"] / 1e6, "TFLOP/s")]) for k in known if k["bound"] == "compute" and k["unit"] == unit]
             for unit in ("f16", "int8")}
    rows = [(e(k["title"]), f'{k["us"]:.1f}', f'{k["predicted_us"]:.1f}' if k.get("predicted_us") else "",
             f'{k["us"] / k["predicted_us"]:.2f}' if k.get("predicted_us") else "", e(k.get("bound", "")),
             f'{k["bytes"] / k["us"] / 1e3:.0f}' if k.get("bytes") else "", f'{k["ops"] / k["us"] / 1e6:.2f}' if k.get("ops") else "")
            for k in kernels]
    return (f'<p class="note">Medians of 20 launches by events, the second level cache overwritten before each; an empty pair of events takes '
            f'{report.get("empty_us", 0):.1f} us, which is in every time.</p>' + scatter(points)
            + "<h3>Bandwidth of those bound by memory</h3>" + bars(moved, "GB/s", card["bandwidth"] / 1e9, "published bandwidth")
            + "<h3>Rate of those bound by tensor cores</h3>" + bars(rates["f16"], "TFLOP/s, f16 with f32 sums", card["f16"] / 1e12, "published rate")
            + bars(rates["int8"], "TOP/s, int8", card["int8"] / 1e12, "published rate")
            + "<h3>All</h3>" + table(("kernel", "us", "predicted", "ratio", "bound", "GB/s", "TFLOP/s"), rows))


def page(report):
    device = report["device"]
    banner = '<p class="warn">An example: the numbers of this page are invented.</p>' if report.get("example") else ""
    problems = "".join(f'<p class="warn">{e(p)}</p>' for p in report.get("problems", []))
    card = report["card"]
    facts = table(("architecture", "SMs", "GB/s", "f16 TFLOP/s", "int8 TOP/s", "memory GB", "driver", "runtime"),
                  [(f'sm_{device["architecture"]}', device["n_sm"], f'{card["bandwidth"] / 1e9:.0f}', f'{card["f16"] / 1e12:.1f}',
                    f'{card["int8"] / 1e12:.1f}', f'{device["memory_bytes"] / 1e9:.1f}', device["driver"], device["runtime"])])
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f'<title>infer on {e(device["name"])}</title><style>{STYLE}</style></head><body>'
            f'<h1>infer on {e(device["name"])}</h1><p class="note">{e(report["when"])}, commit {e(report["commit"])}</p>{banner}{problems}'
            f"{facts}<p class=\"note\">Limits are published ones, or for other cards from clocks and widths. Predictions: docs/cuda.md.</p>"
            f"<h2>Tests</h2>{tests_part(report)}<h2>Tokens/s</h2>{speed_part(report)}<h2>Kernels</h2>{kernels_part(report)}</body></html>\n")
