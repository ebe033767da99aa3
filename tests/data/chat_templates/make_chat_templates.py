#!/usr/bin/env python3
"""Writes expected.json: what Python's jinja2 makes of the templates and snippets in this folder.

usage: make_chat_templates.py [SmolLM2 model.gguf]      (needs the packages jinja2 >= 3.1, and gguf for the model)

The environment is the one that transformers runs chat templates in: ImmutableSandboxedEnvironment with trim_blocks,
lstrip_blocks and loop controls, tojson by json.dumps, raise_exception, strftime_now (here at a fixed time), and a
`generation` tag. With a model its template is written to smollm2.jinja first.
"""
import datetime
import json
import pathlib
import re
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent
NOW = 1753434245  # seconds since 1970; a Friday in July 2025


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_support"), [], [], body).set_lineno(line)

    def _support(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form):
        return (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=NOW)).strftime(form)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


USER = {"role": "user", "content": "What is 2 + 2?"}
ANSWER = {"role": "assistant", "content": "It is 4."}
MORE = {"role": "user", "content": "  And *3*?\nSay \"it\" <b>loud</b> \u00e9\U0001F600  "}
SYSTEM = {"role": "system", "content": "You are terse.\n"}
CHATS = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, ANSWER, MORE],
    "system_turns": [SYSTEM, USER, ANSWER, MORE, ANSWER, USER],
    "answered": [USER, ANSWER],
    "thinking": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is 4."}, MORE, ANSWER],
    "odd_roles": [ANSWER, USER, USER, SYSTEM],
}
TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather.\nOf a place \u2014 now.",
        "parameters": {"type": "object", "required": ["place"], "properties": {
            "place": {"type": "string", "description": "a \"city\""},
            "days": {"type": ["integer", "null"]},
            "tags": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "number"}}}}}}},
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object",
                                                                                      "properties": {}}}},
]
CALLS = [SYSTEM, USER,
         {"role": "assistant", "content": "", "tool_calls": [
             {"id": "abcdefghi", "type": "function",
              "function": {"name": "get_weather", "arguments": {"place": "K\u00f6ln", "days": 2, "tags": []}}}]},
         {"role": "tool", "content": "{\"t\": 21.5}", "tool_call_id": "abcdefghi"},
         ANSWER, MORE]
TOOL_FORMS = ("llama31_tools", "mistral_tools", "qwen25_tools", "command_r_tools", "granite_tools")

VARS = {
    "x": 5, "s": "Hello World", "l": [3, 1, 2], "t": ["a", "b"],
    "d": {"k": "v", "list": [1, 2], "nested": {"a": {"b": 1.5}}, "n": None},
    "lod": [{"a": 3, "g": "x"}, {"a": 1, "g": "y"}, {"a": 2, "g": "x"}],
    "messages": [SYSTEM, USER, ANSWER],
}


def result(env, source, variables):
    try:
        return {"output": env.from_string(source).render(**variables)}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"}


def form_cases(name):
    for chat, messages in CHATS.items():
        for prompt in (True, False):
            yield f"{chat}{'' if prompt else '_closed'}", {"messages": messages, "tools": None,
                                                           "add_generation_prompt": prompt}
    if name in TOOL_FORMS:
        for chat in ("one", "system", "turns"):
            yield f"tools_{chat}", {"messages": CHATS[chat], "tools": TOOLS, "add_generation_prompt": True}
        yield "tools_calls", {"messages": CALLS, "tools": TOOLS, "add_generation_prompt": True}
        yield "tools_in_system", {"messages": CALLS, "tools": TOOLS, "tools_in_user_message": False,
                                  "date_string": "26 Jul 2024", "add_generation_prompt": False}


def main():
    if len(sys.argv) > 1:
        import gguf
        field = gguf.GGUFReader(sys.argv[1]).fields["tokenizer.chat_template"]
        (HERE / "smollm2.jinja").write_bytes(bytes(field.parts[field.data[0]]))
    env = environment()
    forms = []
    for path in sorted(HERE.glob("*.jinja")):
        source = path.read_bytes().decode()
        cases = []
        for case, variables in form_cases(path.stem):
            variables = {"bos_token": "<s>", "eos_token": "</s>", **variables}
            cases.append({"case": case, "vars": variables, **result(env, source, variables)})
        forms.append({"form": path.stem, "cases": cases})
    snippets = []
    for number, line in enumerate((HERE / "snippets.txt").read_text().split("\n"), 1):
        if not line or line.startswith("# "):
            continue
        source = re.sub(r"\\(U[0-9A-Fa-f]{8}|u[0-9A-Fa-f]{4}|n|r|\\)",
                        lambda m: {"n": "\n", "r": "\r", "\\": "\\"}.get(m[1]) or chr(int(m[1][1:], 16)), line)
        snippets.append({"line": number, "source": source, **result(env, source, VARS)})
    out = {"jinja2": jinja2.__version__, "now": NOW, "vars": VARS, "forms": forms, "snippets": snippets}
    (HERE / "expected.json").write_text(json.dumps(out, indent=0) + "\n")
    errors = sum("error" in s for s in snippets)
    print(f"{len(forms)} forms, {sum(len(f['cases']) for f in forms)} cases, {len(snippets)} snippets ({errors} errors)")


if __name__ == "__main__":
    main()
