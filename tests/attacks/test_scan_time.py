"""Files that would keep a careless reader busy for hours: the time of a scan is at most in proportion to the size."""

from __future__ import annotations

import time

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.source import BytesSource

N = 200_000
SECONDS = 8.0
"""Of the processor, for some 200 kB; what takes the square of the size takes hours."""

TEXTS: dict[str, tuple[str, str]] = {
    "comments without end": ("", "{" + "/*" * N),
    "quotes without end": ("", "{" + '"\\' * N),
    "single quotes without end": ("", "[1, " + "'\\" * N),
    "a requirement of exclamation marks": ("requirements.txt", "a" + "!" * N + "$\n"),
    "a requirement of spaces": ("requirements.txt", "a==1" + " " * N + "$\n"),
    "a requirement of commas": ("requirements.txt", "a" + "==1," * N + "$\n"),
    "empty lines": ("", "\n" * N + "x"),
    "spaces in a line of INI": ("", "[a]\nb = x" + " " * N + "y\n"),
    "a shell substitution without end": ("a.json", '{"a": "' + "$(" * N + '"}'),
    "underscores in a value": ("a.json", '{"a": "(' + "_" * N + '"}'),
    "dunders in a value": ("a.json", '{"a": "(' + "__a" * N + '"}'),
    "base64 in a value": ("tokenizer.json", '{"a": "' + "QUFB" * N + '=="}'),
    "a path as a key of an override": ("a.json", '{"a": "' + "a." * N + '=x"}'),
    "colons in a value": ("a.json", '{"a": "' + "a:" * N + '("}'),
    "slashes in a value": ("a.json", '{"a": "' + "a/" * N + '.p("}'),
    "resolvers in a value": ("a.json", '{"a": "' + "${a" * N + '"}'),
    "references in a value": ("a.json", '{"a": "$' + "@a::" * N + '("}'),
    "a template with quotes without end": ("", "x {{" + '"\\' * N),
    "braces": ("", "x " + "{{" * N),
    "blocks": ("chat_template.jinja", "{% if x %}" * (N // 10)),
    "brackets in a template": ("chat_template.jinja", "{{ x" + "[0]" * N + " }}"),
    "filters in a template": ("chat_template.jinja", "{{ x" + "|map(attribute='a'" * (N // 20) + " }}"),
    "comments in a template": ("chat_template.jinja", "{#" * N),
    "strings in a template": ("chat_template.jinja", "{{ '" + "\\" * N + " }}"),
    "anchors": ("a.yaml", "".join(f"a{i}: &x{i} [1]\nb{i}: *x{i}\n" for i in range(N // 20))),
    "dots": ("a.yaml", "...\n" * N),
    "documents": ("a.yaml", "---\n" * (N // 4)),
    "flow maps": ("a.yaml", "a: " + "{" * 20_000),
    "question marks": ("a.yaml", "? " * 20_000),
    "keys of TOML": ("a.toml", "".join(f"a{i}.b = 1\n" for i in range(N // 20))),
    "a key with many dots": ("a.toml", "a." * 400 + "b = 1\n"),
    "keys that name paths, in each other": ("a.json", '{"weight_map": ' * 400 + "1" + ',"a":"b"}' * 400),
    "keys that name code, in each other": ("a.json", '{"auto_map": ' * 400 + "1" + ',"a":"b.C"}' * 400),
    "JSON in JSON": ("a.json", '{"a": "' + '[\\"' * 1000 + '"}'),
    "many lines of JSON": ("", '{"a": 1}\n' * (N // 10)),
    "an entry in depth": ("a.json", '{"a":' * 900 + "[" + '"x.y",' * (N // 6) + '"x"]' + "}" * 900),
}
PICKLES: dict[str, bytes] = {
    "zeros of a memo index": b"I1\ng" + b"0" * N + b"x\n.",
    "spaces of a number": b"I" + b" " * N + b"x\n.",
    "spaces of a memo index": b"I1\np" + b" " * N + b"x\n.",
    "underscores of a number": b"L" + b"_" * N + b"x\n.",
    "quotes of a string": b"S'" + b"\\x" * N + b"'\n.",
    "marks": b"(" * N + b"t" * N + b".",
    "tuples of tuples": b")" + b"\x85" * N + b".",
    "a tuple doubled": b")" + b"2\x86" * N + b".",
    "pops": b"(" + b"N0" * N + b".",
    "lists appended to themselves": b"]" + b"2a" * N + b".",
    "a list of names": b"]" + b"(" + b"cos\npath\n" * (N // 10) + b"e.",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_takes_no_more_time_than_its_size(name: str) -> None:
    """INVARIANT I18: bounded time, whatever a regular expression would make of it."""
    file, text = TEXTS[name]
    assert _seconds(text.encode(), file) < SECONDS


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_takes_no_more_time_than_its_size(name: str) -> None:
    """INVARIANT I18: the same for opcodes with lines of any length."""
    assert _seconds(PICKLES[name], "") < SECONDS


def _seconds(data: bytes, name: str) -> float:
    findings, began = Findings(name=name), time.process_time()
    scan_content(BytesSource(data), findings)
    assert findings.verdict in Verdict
    return time.process_time() - began
