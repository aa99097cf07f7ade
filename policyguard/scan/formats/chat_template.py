"""Chat templates: Jinja that loaders render, some without a sandbox. Harmless if only plain data is reachable.

Loaders have rendered templates of GGUF files with a plain Jinja environment (CVE-2024-34359 of llama-cpp-python), in
which attributes of attributes lead to every Python function. So each attribute and key must be written out in the
template as a plain name; a computed one cannot be judged.

    template = *( text / "{{" tokens "}}" / "{%" tokens "%}" / "{#" comment "#}" )

The only check of templates, wherever they are: in GGUF metadata, a tokenizer's settings, a text in any settings, or a
file.

Source: the Jinja 3.1 template documentation and its lexer's rules for strings and brackets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Findings

MAX_TEMPLATE = 2**20
MAX_DEPTH = 100
"""Brackets in each other. Jinja writes Python, whose parser takes 200."""

_OPEN = re.compile(r"\{%|\{\{|\{#")
_END = {"{%": re.compile(r"[-+]?%\}"), "{{": re.compile(r"-?\}\}")}
_END_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_TOKEN = re.compile(
    r"""\s+|(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<name>[^\W\d]\w*)|(?P<number>\d[\w.]*)"""
    r"""|(?P<sign>//|\*\*|==|!=|>=|<=|[-+*/%~|.,:;()\[\]{}<>=])""",
    re.DOTALL,
)
_COUNTED = re.compile(r"(?:[\d:+-]|loop\.(?:index0?|revindex0?|length))+")
_ESCAPE = re.compile(r"\\(x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {"\n": "", "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_PAIRS = {")": "(", "]": "[", "}": "{"}
_DUNDER = re.compile(r"__\w+__")
_KNOWN_DUNDER = re.compile(
    r"__(?:class|mro|bases?|subclasses|globals|builtins|init|import|dict|getattribute|getattr|code|self|func|module|"
    r"reduce|reduce_ex|call|getitem|new|closure|wrapped|loader|spec|subclasshook|init_subclass|file|name|qualname)__"
)
"""Names allowed inside quoted text, where words between underscores are only printed."""
_GADGETS = names("""
    ag_code ag_frame co_code cr_code cr_frame f_back f_builtins f_code f_globals f_locals func_code func_globals
    gi_code gi_frame gi_yieldfrom im_class im_func mro tb_frame tb_next
""")
"""Attributes without underscores that lead from a generator, a traceback or a class to the interpreter."""
_UNREAD_NAMES = {"config", "cycler", "joiner", "lipsum", "request", "self"}
_UNREAD_METHODS = {"format", "format_map"}
"""Methods that read attributes named in the text they format."""
_TAGS = names("""
    break call continue elif else endcall endfilter endfor endgeneration endif endmacro endset endwith filter for
    generation if macro set with
""")
_FILTERS = names("""
    abs batch capitalize center count d default dictsort e escape first float forceescape from_json fromjson indent int
    items last length list lower pprint reject replace reverse round safe select slice string striptags title to_json
    tojson trim truncate upper urlencode wordcount wordwrap
""")
_BY_ATTRIBUTE = {
    **dict.fromkeys(names("groupby join map max min sort sum unique"), 9),
    **dict.fromkeys(names("rejectattr selectattr"), 2),
}
"""Filters whose arguments can name attributes, with the maximum number of such arguments."""

_OPERATORS = {"and", "else", "if", "in", "is", "not", "or"}

Token = tuple[str, str]
_RAW: list[Token] = [("name", "raw")]


class _Unread(Exception):
    """The template computes a value or uses syntax that this reader does not know."""


class _Malformed(_Unread):
    """No template engine accepts this text: rendering it is an error."""


def is_template(text: str) -> bool:
    """Return True for a text with a template block, which a template engine would run."""
    return ("{{" in text and "}}" in text) or ("{%" in text and "%}" in text)


def check_template(text: str | None, findings: Findings, where: str = "", *, is_declared: bool = True) -> None:
    """Record the template's digest; add a finding if it reaches for code or computes a name.

    Args:
        text: None for a template too long to be kept.
        findings: receives the findings.
        where: the path to the template, where it is not a file of its own; else the line and column are recorded.
        is_declared: False for a text that is a template only by its braces: what does not parse is then no template.
    """
    at = 0
    named: list[tuple[str, int]] = []
    try:
        if text is None or len(text) > MAX_TEMPLATE:
            raise _Unread("more than 1 MiB")
        findings.template(text)
        code = []
        for at, tokens, is_tag in _code_of(text, findings.check_time):
            named.extend((name, at) for name in _reached(tokens))
            code.append((at, tokens, is_tag))
        for start, tokens, is_tag in code:
            at = start
            if is_declared or tokens != _RAW:
                _check(tokens, is_tag)
    except _Malformed as problem:
        # A page may quote braces; one that also names what leads to the interpreter is not believed.
        if not is_declared and not _KNOWN_DUNDER.search(text or ""):
            return
        findings.add("ckpt.template_unread", str(problem), where or _line(text, at))
    except _Unread as problem:
        findings.add("ckpt.template_unread", str(problem), where or _line(text, at))
    for name, start in named:
        # INVARIANT I18: a template reaches only what it names, and no name in it is one of the interpreter's own.
        findings.add("ckpt.template_code", name, where or _line(text, start))


def _line(text: str | None, at: int) -> str:
    before = (text or "")[:at]
    return f"{before.count(chr(10)) + 1}:{at - before.rfind(chr(10))}"


def _code_of(text: str, check_time: Callable[[], None]) -> Iterator[tuple[int, list[Token], bool]]:
    at = 0
    while opening := _OPEN.search(text, at):
        check_time()
        at = start = opening.end()
        if opening[0] == "{#":
            at = text.find("#}", at) + 2
            if at < 2:
                raise _Malformed("a comment without end")
            continue
        if text[at : at + 1] in ("-", "+"):
            at += 1
        tokens, at = _tokens(text, at, _END[opening[0]])
        if tokens == _RAW:
            # What does not parse in here is text, and what follows is code again.
            if (behind := _END_RAW.search(text, at)) is None:
                raise _Malformed("a raw block without end")
            at = behind.end()
        yield start, tokens, opening[0] == "{%"


def _tokens(text: str, at: int, end: re.Pattern[str]) -> tuple[list[Token], int]:
    tokens: list[Token] = []
    brackets: list[str] = []
    while True:
        if not brackets and (stop := end.match(text, at)):
            return tokens, stop.end()
        match = _TOKEN.match(text, at)
        if match is None:
            # Names have letters that are no letters for a regular expression, such as U+2118.
            raise (_Malformed if text[at : at + 1].isascii() else _Unread)("code that does not parse")
        at = match.end()
        if (kind := match.lastgroup) is None:
            continue
        if match[0] in ("(", "[", "{"):
            brackets.append(match[0])
            if len(brackets) > MAX_DEPTH:
                raise _Unread(f"brackets nested deeper than {MAX_DEPTH} levels")
        elif match[0] in _PAIRS and (not brackets or brackets.pop() != _PAIRS[match[0]]):
            raise _Malformed("brackets that do not match")
        tokens.append((kind, _unescaped(match[0]) if kind == "text" else match[0]))


def _unescaped(literal: str) -> str:
    return _ESCAPE.sub(_escaped, literal[1:-1])


def _escaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "01234567":
        return chr(int(code, 8))
    if len(code) > 1:
        return chr(min(int(code[1:], 16), 0x10FFFF))
    if code in "xuUN":
        raise _Unread("an escape that does not parse")
    return _ESCAPES.get(code, code)


def _reached(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield each name of the interpreter's internals, including names concatenated from texts."""
    run = ""
    for kind, text in tokens:
        if kind == "name" and (_DUNDER.search(text) or text in _GADGETS):
            yield text
        if kind == "text":
            run += text
        if kind != "text" and (kind, text) not in (("sign", "~"), ("sign", "+")):
            if _KNOWN_DUNDER.search(run) or run in _GADGETS:
                yield run
            run = ""
    if _KNOWN_DUNDER.search(run) or run in _GADGETS:
        yield run


def _check(tokens: Sequence[Token], is_tag: bool) -> None:
    if is_tag and (not tokens or tokens[0][1] not in _TAGS):
        raise _Unread(f"tag {tokens[0][1] if tokens else 'of nothing'}")
    if is_tag and tokens[0][1] == "filter":
        tokens = [("sign", "|"), *tokens[1:]]
    for index, (kind, text) in enumerate(tokens):
        before = tokens[index - 1] if index else ("sign", "")
        after = tokens[index + 1] if index + 1 < len(tokens) else ("", "")
        if kind == "name" and before[1] != "." and text in _UNREAD_NAMES:
            raise _Unread(text)
        if (kind, text) == ("name", "loop") and not (before[1] == "." or after[1] in (".", "(")):
            raise _Unread("a name that hides the loop's own")
        if (kind, text) == ("sign", "|"):
            _check_filter(tokens, index + 1)
        elif (kind, text) == ("sign", ".") and (not after[1] or not _is_plain(after[1])):
            raise _Unread("an attribute that is no plain name")
        elif (kind, text) == ("sign", "[") and _is_value(before, tokens[index - 2] if index > 1 else before):
            _check_key(_inside(tokens, index + 1, "["))


def _is_value(token: Token, before: Token) -> bool:
    """Return True if a bracket after this token selects a key instead of starting a list."""
    kind, text = token
    if kind == "sign":
        return text in (")", "]", "}")
    return kind != "name" or before[1] == "." or text not in _OPERATORS


def _is_plain(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split(".")) and name not in _UNREAD_METHODS


def _inside(tokens: Sequence[Token], start: int, opening: str) -> Sequence[Token]:
    """List the tokens up to the matching closing bracket."""
    depth = 1
    for index in range(start, len(tokens)):
        kind, text = tokens[index]
        depth += kind == "sign" and text in ("(", "[", "{")
        depth -= kind == "sign" and text in _PAIRS
        if not depth:
            return tokens[start:index]
    raise _Unread(f"`{opening}` without end")


def _check_key(tokens: Sequence[Token]) -> None:
    """Check a key: it must be a literal text, a number or a loop counter; a computed text could be any name."""
    if len(tokens) == 1 and tokens[0][0] == "text":
        if not _is_plain(tokens[0][1]):
            raise _Unread(f"key {tokens[0][1]}")
        return
    if any(kind == "text" for kind, _ in tokens) or not _COUNTED.fullmatch("".join(text for _, text in tokens)):
        raise _Unread("a computed key")


def _check_filter(tokens: Sequence[Token], at: int) -> None:
    name = tokens[at][1] if at < len(tokens) and tokens[at][0] == "name" else ""
    if name in _FILTERS:
        return
    if name not in _BY_ATTRIBUTE:
        raise _Unread(f"filter {name}")
    has_arguments = at + 1 < len(tokens) and tokens[at + 1][1] == "("
    arguments = _arguments(_inside(tokens, at + 2, "(")) if has_arguments else []
    if name == "map" and arguments and arguments[0][0][0] == "text":
        if arguments[0][0][1] not in _FILTERS:
            raise _Unread(f"filter {arguments[0][0][1]}")
        arguments = []
    for argument in _naming(name, arguments):
        value = argument[2:] if len(argument) > 2 and argument[1][1] == "=" else argument
        if len(value) != 1 or value[0][1] in _UNREAD_METHODS or not _is_written_out(value[0]):
            raise _Unread(f"a computed argument of {name}")


def _naming(name: str, arguments: Sequence[Sequence[Token]]) -> Sequence[Sequence[Token]]:
    """Return the arguments of a filter that may name an attribute; the first of `join` is its separator."""
    if name == "join" and arguments and not any(text in ("=", "*", "**") for _, text in arguments[0]):
        return arguments[1:]
    return arguments[: _BY_ATTRIBUTE[name]]


def _is_written_out(token: Token) -> bool:
    kind, text = token
    return kind == "number" or (kind == "text" and _is_plain(text)) or text.casefold() in ("true", "false", "none")


def _arguments(tokens: Sequence[Token]) -> list[list[Token]]:
    arguments: list[list[Token]] = [[]]
    depth = 0
    for kind, text in tokens:
        depth += (text in ("(", "[", "{")) - (text in _PAIRS) if kind == "sign" else 0
        if (kind, text, depth) == ("sign", ",", 0):
            arguments.append([])
        else:
            arguments[-1].append((kind, text))
    return [argument for argument in arguments if argument]
