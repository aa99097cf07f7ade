"""One front end, one order, one report: what lint promises as a whole."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.errors import PolicyErrors
from policyguard.lint.catalogue import catalogue, table
from policyguard.lint.rule import LINT, Rule
from policyguard.lint.runner import lint
from policyguard.policy.loader import load
from policyguard.values import parse_instant

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests" / "data" / "lint"
BASE = (FIXTURES / "base.yaml").read_bytes()
NOW = parse_instant("2026-06-01T12:00:00Z")
SOURCES = sorted(FIXTURES.glob("PG*/*.yaml"))
GARBAGE = [b"\n", b": ", b'"', b"{", b"|", b"# policyguard: ignore"]


def loads(sources: dict[str, bytes]) -> bool:
    try:
        load(sources)
    except PolicyErrors:
        return False
    return True


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_lint_reports_an_error_wherever_the_load_fails(path: Path) -> None:
    """I20: lint finds what stops the load exactly where the load fails, on every fixture."""
    sources = {path.name: path.read_bytes()}
    if not sources[path.name].startswith(b"# base: none"):
        sources["_base.yaml"] = BASE
    report = lint(sources, NOW)
    assert loads(sources) == (not any(finding.stops_load for finding in report.findings))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_lint_of_damaged_files_never_raises_and_never_passes_what_fails_to_load(data: st.DataObject) -> None:
    """I20: cut and garbled files are reported, whatever is left of them."""
    source = data.draw(st.sampled_from(SOURCES)).read_bytes()
    start = data.draw(st.integers(0, len(source)))
    garbage = data.draw(
        st.binary(max_size=4) | st.sampled_from([b"\n", b": ", b'"', b"{", b"|", b"# policyguard: ignore"])
    )
    sources = {"_base.yaml": BASE, "x.yaml": source[:start] + garbage + source[start + len(garbage) :]}
    report = lint(sources, NOW)
    assert loads(sources) == (not any(finding.stops_load for finding in report.findings))


def test_nothing_to_lint_is_an_error() -> None:
    """An empty folder is no policy set, and no clean one."""
    report = lint({}, NOW)
    assert not report.clean
    assert all(finding.stops_load for finding in report.findings)


def test_findings_come_in_order_of_place_whatever_the_order_of_files() -> None:
    """Two runs over the same files in another order give the same report."""
    sources = {f"{path.parent.name}.yaml": path.read_bytes() for path in SOURCES if path.stem == "bad"}
    chosen = {name: sources[name] for name in ("PG205.yaml", "PG216.yaml", "PG308.yaml", "PG902.yaml")} | {
        "b.yaml": BASE
    }
    one, other = lint(chosen, NOW), lint(dict(reversed(chosen.items())), NOW)
    assert one.findings == other.findings
    assert list(one.findings) == sorted(one.findings, key=lambda finding: finding.span)


def test_select_and_ignore_take_codes_and_their_beginnings() -> None:
    """`PG3` selects all of PG3xx, `ignore` takes away from what is selected."""
    sources = {"_base.yaml": BASE, "x.yaml": (FIXTURES / "PG205" / "bad.yaml").read_bytes()}
    assert len(lint(sources, NOW, select=["PG2"]).findings) == 2
    assert lint(sources, NOW, select=["PG3"]).findings == ()
    assert lint(sources, NOW, select=["PG2"], ignore=["PG205"]).findings == ()
    with pytest.raises(ValueError, match="found the rule `PG999`, expected a code such as `PG215`"):
        lint(sources, NOW, ignore=["PG999"])


def test_a_suppression_of_a_rule_that_did_not_run_is_not_idle() -> None:
    """Linting for one code does not make all suppressions of other codes findings."""
    sources = {"_base.yaml": BASE, "x.yaml": (FIXTURES / "PG902" / "good.yaml").read_bytes()}
    assert lint(sources, NOW, select=["PG902", "PG601"]).findings == ()


@pytest.mark.skipif(not (ROOT / "policies").is_dir(), reason="the example lab is not here")
def test_the_example_lab_lints_clean() -> None:
    """The policies that ship have no error and no warning that is not suppressed with a reason."""
    folder = ROOT / "policies"
    sources = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.yaml"))}
    report = lint(sources, parse_instant("2026-11-22T12:00:00Z"))
    assert report.clean, [str(finding.span) + " " + finding.message for finding in report.findings]
    assert all(by.reason for _, by in report.suppressed)


def test_the_table_in_the_documentation_is_the_catalogue() -> None:
    """`docs/lint/index.md` lists exactly the rules there are."""
    page = (ROOT / "docs" / "lint" / "index.md").read_text()
    listed = page.split("-->\n", 1)[1].split("\n<!-- end table -->")[0]
    assert table() == listed


def test_a_number_is_either_a_rule_or_left_out() -> None:
    """No code is both in the catalogue and in the list of numbers without a rule."""
    page = (ROOT / "docs" / "lint" / "index.md").read_text()
    left_out = page.split("## Numbers without a rule")[1].split("\n\nPG110")[0]
    assert not [code for code in catalogue() if code in left_out]


def test_every_rule_is_declared_whole() -> None:
    """Names are words with hyphens and unlike each other; a rule has a `check` if lint is to find it."""
    rules = list(catalogue().values())
    assert len(rules) == len({rule.name for rule in rules})
    for rule in rules:
        assert rule.name == rule.name.lower().strip("-")
        assert (rule.check is not None) == (LINT in rule.produced_by)
        assert rule.summary.endswith(".")
        assert not rule.help.endswith(".")


def test_a_rule_without_a_check_must_say_who_finds_it() -> None:
    """A module that forgets its `check` is refused, not silently clean."""
    from types import ModuleType

    module = ModuleType("pg000_nothing")
    module.__dict__.update(CODE="PG000", NAME="nothing", SEVERITY="error", HELP="none")
    with pytest.raises(ValueError, match='expected a `check`, or `PRODUCED_BY = "load"` without one'):
        Rule.of(module)
    module.__dict__["PRODUCED_BY"] = "load"
    assert Rule.of(module).code == "PG000"


def test_a_thousand_rules_take_about_a_second() -> None:
    """Lint of 1,000 rules with conditions stays near one second (here: below five, machines differ)."""
    head = b"apiVersion: policyguard/v1\nkind: Policy\nmetadata: {name: big}\nrules:\n"
    rules = "".join(
        f"  - id: rule-{n}\n    effect: deny\n    actions: [job:submit]\n    resources: {{type: job}}\n"
        f'    when: resource.gpus > {n + 600} && resource.code.dirty && resource.image != "image-{n}"\n'
        for n in range(1000)
    )
    sources = {"_base.yaml": BASE, "big.yaml": head + rules.encode()}
    started = time.process_time()
    assert lint(sources, NOW).findings == ()
    assert time.process_time() - started < 5
