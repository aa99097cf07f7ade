"""Every rule of the catalogue fires where its fixture says, and nowhere in its clean twin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policyguard.casbin_compat.importer import import_casbin
from policyguard.errors import PolicyErrors
from policyguard.lint.catalogue import catalogue
from policyguard.lint.report import Report
from policyguard.lint.rule import LINT
from policyguard.lint.runner import lint
from policyguard.values import parse_instant

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests" / "data" / "lint"
PAGES = ROOT / "docs" / "lint"
NOW = parse_instant("2026-06-01T12:00:00Z")
CODES = sorted(path.parent.name for path in FIXTURES.glob("*/bad.yaml"))
IMPORTED = sorted(path.parent.name for path in FIXTURES.glob("*/bad.conf"))
"""The codes of casbin models that cannot be translated; their fixtures are models."""

MARKER = re.compile(r"# finding: (?P<codes>PG\d{3}(?:, PG\d{3})*)\s*$", re.MULTILINE)


def linted(path: Path) -> Report:
    """Return the report on a fixture, together with the base unless the fixture stands alone."""
    sources = {path.name: path.read_bytes()}
    if not sources[path.name].startswith(b"# base: none"):
        sources["_base.yaml"] = (FIXTURES / "base.yaml").read_bytes()
    return lint(sources, NOW)


def marked(path: Path) -> set[tuple[str, int]]:
    """Return the (code, line) pairs that a fixture's comments announce."""
    lines = path.read_text().split("\n")
    found = [(number, MARKER.search(line)) for number, line in enumerate(lines, start=1)]
    return {(code, number) for number, match in found if match for code in match["codes"].split(", ")}


@pytest.mark.parametrize("code", CODES)
def test_a_rule_fires_on_the_marked_lines_and_nowhere_else(code: str) -> None:
    """The fixture's findings are exactly those that its comments announce, and its own code is among them."""
    path = FIXTURES / code / "bad.yaml"
    report = linted(path)
    expected = marked(path)
    assert code in {named for named, _ in expected}
    assert expected == {(finding.code, finding.span.line) for finding in report.findings}, "\n".join(
        f"{finding.span}: {finding.code} {finding.message}" for finding in report.findings
    )


@pytest.mark.parametrize("code", IMPORTED)
def test_a_casbin_model_is_refused_at_the_marked_line_and_its_twin_is_not(code: str) -> None:
    """What import refuses has a code with a page; a comment that stands alone marks the line below it."""
    folder = FIXTURES / code
    policy = (folder / "policy.csv").read_text()
    with pytest.raises(PolicyErrors) as caught:
        import_casbin((folder / "bad.conf").read_text(), policy)
    expected = marked(folder / "bad.conf") | {(named, line + 1) for named, line in marked(folder / "policy.csv")}
    assert expected == {(error.code, error.span.line) for error in caught.value.errors if error.span}
    assert import_casbin((folder / "good.conf").read_text(), policy).documents


@pytest.mark.parametrize("code", CODES)
def test_the_clean_twin_has_no_finding_of_any_rule(code: str) -> None:
    """One step away from the mistake nothing is reported: false positives never."""
    assert [f"{f.span}: {f.code} {f.message}" for f in linted(FIXTURES / code / "good.yaml").findings] == []


def test_the_base_of_all_fixtures_is_clean() -> None:
    """What every fixture builds on has no finding."""
    report = lint({"base.yaml": (FIXTURES / "base.yaml").read_bytes()}, NOW)
    assert report.findings == ()


def test_rules_pages_and_fixtures_name_the_same_codes() -> None:
    """One rule is one file, one page and one fixture."""
    rules = set(catalogue())
    pages = {path.stem for path in PAGES.glob("PG*.md")}
    assert rules == pages == {*CODES, *IMPORTED}


def test_a_rule_file_is_named_for_its_code() -> None:
    """`rules/pg215_direct_user_grant.py` declares PG215."""
    files = sorted((ROOT / "policyguard" / "lint" / "rules").glob("pg*.py"))
    assert len(files) == len(catalogue())
    for file in files:
        assert f'CODE = "{file.name[:5].upper()}"' in file.read_text()


@pytest.mark.parametrize("code", [*CODES, *IMPORTED])
def test_each_page_shows_what_to_avoid_what_to_prefer_and_why(code: str) -> None:
    """A page starts with code and name and has three sections."""
    page = (PAGES / f"{code}.md").read_text()
    rule = catalogue()[code]
    assert page.startswith(f"# {code} {rule.name}\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == ["Avoid", "Prefer", "Why"]
    assert rule.summary in page
    assert f"Severity: {rule.severity}." in page


@pytest.mark.parametrize("code", CODES)
def test_messages_are_worded_as_the_house_words_them(code: str) -> None:
    """Messages and help: lower case or a literal first, no full stop, no line break, something to do."""
    for finding in linted(FIXTURES / code / "bad.yaml").findings:
        for text in (finding.message, finding.help or ""):
            assert "\n" not in text
            assert not text.endswith(".")
            assert text[:1].islower() or text[:1] in "`!" or text.startswith(("CEL", "RFC")), text
        assert finding.help


BLOCK = re.compile(r"^## (?P<title>Avoid|Prefer)\n\n```yaml\n(?P<text>.*?)```", re.MULTILINE | re.DOTALL)
HEAD = "apiVersion: policyguard/v1\nkind: Policy\nmetadata: {name: page}\nrules:\n"


def examples(code: str) -> dict[str, str]:
    """Return the two blocks of a page as policies, if they are lists of rules and nothing else."""
    blocks = {match["title"]: match["text"] for match in BLOCK.finditer((PAGES / f"{code}.md").read_text())}
    assert {"Avoid", "Prefer"} == set(blocks)
    if all(text.startswith("- id:") and "\n---" not in text for text in blocks.values()):
        return {title: HEAD + text for title, text in blocks.items()}
    return {}


@pytest.mark.parametrize("code", [code for code in CODES if examples(code)])
def test_examples_of_a_page_do_what_the_page_says(code: str) -> None:
    """What the page says to avoid fires its rule, what it says to prefer fires none."""
    base = (FIXTURES / "base.yaml").read_bytes()
    avoid, prefer = (
        lint({"_base.yaml": base, "page.yaml": examples(code)[title].encode()}, NOW) for title in ("Avoid", "Prefer")
    )
    assert code in {finding.code for finding in avoid.findings}
    assert prefer.findings == ()


PRODUCED_BY_LOAD = re.compile(r'"(PG(?!000)\d{3})"')


def test_every_code_that_the_front_end_raises_is_in_the_catalogue() -> None:
    """A load error leads to a page, whichever room found it."""
    raised = {
        code
        for room in ("policy", "conditions", "decide")
        for path in (ROOT / "policyguard" / room).glob("*.py")
        for code in PRODUCED_BY_LOAD.findall(path.read_text())
    }
    unknown = {code for code in raised if code not in catalogue() or catalogue()[code].produced_by == LINT}
    assert set() == unknown
