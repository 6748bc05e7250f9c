"""Render the template TOOLS of ../template.rs as transformers does: jinja2 with the settings of its chat templates.

    python chat.py > tools.txt            (needs jinja2)
"""
import json, pathlib, re, sys

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """The mark around what the assistant wrote; only its content matters here."""
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True))


source = (pathlib.Path(__file__).parent.parent / "template.rs").read_text()
template = re.search(r'const TOOLS: &str = r#"(.*?)"#;', source, re.S).group(1)
environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
environment.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
    x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi <&> "},
            {"role": "assistant", "content": "Hello", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1, "y": ["é", "<"]}}}]},
            {"role": "user", "content": "Bye"}]
tools = [{"name": "f", "description": "it's <b>", "z": 1.5, "a": None, "empty": {}}]
sys.stdout.write(environment.from_string(template).render(messages=messages, tools=tools, bos_token="<s>", eos_token="</s>", add_generation_prompt=False))
