"""Plain words: identifiers, docstrings, comments, messages, documentation and examples avoid a private vocabulary.

The rules are in `CONTRIBUTING.md`. A real use of a banned word gets an entry in `ALLOWED`, with its reason.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for folder in ("policyguard", "bench") for path in (ROOT / folder).rglob("*.py"))

WORD = re.compile(r"\w+")
NAMES = frozenset(
    WORD.findall("""
        about across answers asked beside complain cut each every flat found given kept least left most of one_line
        own_word place places questions said short shown spelled stated told unique visible whoever whom why words
    """)
)
"""Identifiers that do not name the thing."""

NAME_PARTS = frozenset(
    WORD.findall("""
        door doors kept least look looking looks most said shown spelled spelling spellings spelt stand standing stands
        told
    """)
)
"""Words that no identifier contains."""

PROSE = re.compile(
    r"\b(look|looks|looked|looking|told|stands?|standing|doors?|spell(?:s|ed|ings?)?|spelt|whoever|whom|whosoever"
    r"|held +against|hold +against|holds +against|so +many|so +much|so +well|another +than"
    r"|counts? +no +more|as +said|Return +what|Findings +hold|is +no +more|thereof|therein|hitherto|whence|lest)\b",
    re.IGNORECASE,
)
PLAIN_USES = re.compile(
    r"\b(look(s|ed|ing)?[ -]?ups?|look(s|ed|ing)? up|stand[- ]alone|look-?behind|look-?ahead)\b", re.IGNORECASE
)
"""Standard terms that contain a banned word."""

ALLOWED: dict[tuple[str, str], str] = {
    ("CHANGELOG.md", "look"): "the former name of an option, `--look`",
    ("bench/soak.py", "questions"): "the requests of a lab, each with the answer that is expected",
    ("bench/workload.py", "questions"): "the requests of a lab, each with the answer that is expected",
    ("policyguard/audit/head.py", "of"): "a constructor",
    ("policyguard/cli/verbs/approve_/listing.py", "standing"): "a key of the JSON output, which programs read",
    ("policyguard/decide/role_grants.py", "of"): "a constructor",
    ("policyguard/decide/snapshot.py", "of"): "a constructor",
    ("policyguard/hooks/former_options.py", "look"): "the former name of an option",
    ("policyguard/lint/rule.py", "of"): "a constructor",
    ("policyguard/model/policy.py", "of"): "a key of the policy language: what a quorum approves",
    ("policyguard/model/request.py", "of"): "a public constructor, `Request.of`",
}
"""(path, word in lower case) -> why it is right there."""

RULES_PAGE = ROOT / "CONTRIBUTING.md"
"""Lists the banned words, so it cannot be held to them."""

DOCUMENTS = (
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "policies").rglob("*.yaml"),
    ROOT / "Makefile",
)
PAGES = sorted(str(page.relative_to(ROOT)) for page in DOCUMENTS if page != RULES_PAGE)


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each name that this module introduces, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif (isinstance(node, ast.ExceptHandler) and node.name) or (
            isinstance(node, ast.MatchAs | ast.MatchStar) and node.name
        ):
            yield node.name, node.lineno


def words_of(name: str) -> list[str]:
    """Split `snake_case` and `CamelCase` into lower-case words."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def prose(text: str) -> Iterator[tuple[str, int]]:
    """Yield each banned word of a text, and its line; a phrase may run over a line break."""
    plain = PLAIN_USES.sub(
        lambda match: "x" * len(match[0]), re.sub(r"\n[ #]*", lambda m: "\n" + " " * (len(m[0]) - 1), text)
    )
    flat = re.sub(r"\s", " ", plain)
    for match in PROSE.finditer(flat):
        yield " ".join(match[0].lower().split()), plain.count("\n", 0, match.start()) + 1


def offences(path: Path) -> list[str]:
    """List what a module says in words of its own, as `path:line: word`."""
    source = path.read_text()
    relative = str(path.relative_to(ROOT))
    lines: list[tuple[str, int]] = []
    for name, line in identifiers(ast.parse(source)):
        bad = [name] if name.strip("_").lower() in NAMES else [word for word in words_of(name) if word in NAME_PARTS]
        lines += [(name, line) for _ in bad[:1]]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(tokenize, "FSTRING_MIDDLE", -1):
            lines += [(word, token.start[0] + line - 1) for word, line in prose(token.string)]
    return [f"{relative}:{line}: {word}" for word, line in lines if (relative, word.lower()) not in ALLOWED]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_uses_plain_words(path: Path) -> None:
    """No identifier, docstring, comment or message uses a banned word."""
    assert offences(path) == []


TESTS = sorted((ROOT / "tests").rglob("*.py"))


def banned_test_names(source: str) -> list[str]:
    """List the test functions whose name has a banned word: the threat model prints them."""
    banned = {*NAME_PARTS, "looked", "whoever", "whom"}
    nodes = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return [name for name in nodes if name.startswith("test_") and banned & set(name.split("_"))]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_test_has_a_plain_name(path: Path) -> None:
    """No name of a test uses a banned word; what is tested reads as a sentence."""
    assert banned_test_names(path.read_text()) == []


def test_the_name_of_a_test_is_searched_and_its_helpers_are_not() -> None:
    """The twin: the word within another word, or in the name of a helper."""
    refused, accepted = "test_" + "whoever_asks", "test_a_doorbell"
    assert banned_test_names(f"def {refused}(): pass\ndef {accepted}(): pass\ndef shown(): pass") == [refused]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_uses_plain_words(page: str) -> None:
    """No page of the documentation and no example policy uses a banned word."""
    banned = [(page, word, line) for word, line in prose((ROOT / page).read_text()) if (page, word) not in ALLOWED]
    assert banned == []


def test_every_exception_is_used() -> None:
    """An entry of `ALLOWED` whose word is gone goes too."""
    texts = {path: (ROOT / path).read_text().lower() for path, _ in ALLOWED}
    assert [(path, word) for path, word in ALLOWED if word not in texts[path]] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Return what is told.", ["return what", "told"]),
        ("a look-up, looks up", []),
        ("it counts\n    no more", ["counts no more"]),
        ("one spelling, spelled out; a misspelled name", ["spelling", "spelled"]),
    ],
)
def test_the_search_finds_phrases_over_line_breaks_and_leaves_standard_terms(text: str, words: list[str]) -> None:
    """A twin for each kind: a phrase that is banned, and a standard term that is not."""
    assert [word for word, _ in prose(text)] == words
