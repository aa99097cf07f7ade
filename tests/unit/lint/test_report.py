"""Reports say where, what and what to do, in five formats, and nothing in a policy can forge a line of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema_rs
import pytest

from policyguard.errors import ConfigurationError
from policyguard.lint.baseline import parse_baseline, to_baseline
from policyguard.lint.catalogue import catalogue
from policyguard.lint.formats import FORMATS
from policyguard.lint.formats.github import to_github
from policyguard.lint.formats.json import to_json
from policyguard.lint.formats.junit import to_junit
from policyguard.lint.formats.sarif import to_sarif
from policyguard.lint.formats.text import to_text
from policyguard.lint.report import Report
from policyguard.lint.rule import Finding
from policyguard.lint.runner import lint
from policyguard.values import Span, parse_instant

DATA = Path(__file__).parents[2] / "data"
BASE = (DATA / "lint" / "base.yaml").read_bytes()
NOW = parse_instant("2026-06-01T12:00:00Z")


def fixture(*names: str) -> Report:
    """Lint the bad fixtures of these codes together."""
    sources = {"_base.yaml": BASE}
    sources |= {f"{name}.yaml": (DATA / "lint" / name / "bad.yaml").read_bytes() for name in names}
    return lint(sources, NOW)


HOSTILE = Report(
    findings=(
        Finding(
            code="PG003",
            name="unknown-field",
            severity="error",
            span=Span("a\x1b[2J,b:c\n::error::x.yaml", 1, 3),
            message="found `\x1b[31m\u202e\nforged.yaml:1:1: error` 100%",
            help="try\r\n::warning::y",
        ),
    ),
    sources={"a\x1b[2J,b:c\n::error::x.yaml": "a \x1b]0;title\x07\u200bb: c\n"},
)


def test_text_shows_the_line_with_a_caret_under_the_mistake() -> None:
    """Place first, then severity, code and name, the line itself, and the help."""
    lines = to_text(fixture("PG101")).split("\n")
    assert lines[0].startswith("PG101.yaml:7:15: error PG101 unknown-action: unknown action `job:cancle`, expected")
    assert lines[1] == "  7 |     actions: [job:cancle]  # finding: PG101"
    assert lines[2] == "    |               ^^^^^^^^^^"
    assert lines[3] == "  help: did you mean `job:cancel`?"
    assert lines[-2:] == ["1 error", ""]


def test_text_without_findings_says_so() -> None:
    """An empty report is one line."""
    assert to_text(lint({"base.yaml": BASE}, NOW)) == "no findings\n"


def test_colour_is_only_there_when_asked_for() -> None:
    """Plain output holds no escape sequence, coloured output is the same text with them."""
    plain, coloured = to_text(fixture("PG101")), to_text(fixture("PG101"), colour=True)
    assert "\x1b" not in plain
    assert "\x1b[31merror\x1b[0m" in coloured


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_in_a_policy_forges_a_line_of_a_report(name: str) -> None:
    """I7: control and direction characters of file names, messages and sources are escaped, in every format."""
    text = FORMATS[name](HOSTILE)
    assert not set(text) & set("\x1b\x07\r\u202e\u200b")
    assert not any(line.startswith(("::error::", "::warning::", "forged.yaml")) for line in text.split("\n"))
    if name == "github":
        assert text.count("\n") == 1


def test_github_escapes_properties_and_data() -> None:
    """A comma or colon in a file name does not end the property, a per cent sign is data."""
    command = to_github(HOSTILE)
    assert command.startswith("::error file=a\\x1b[2J%2Cb%3Ac\\n%3A%3Aerror%3A%3Ax.yaml,line=1,col=3,title=PG003")
    assert "100%25" in command


def sarif_validator() -> Any:
    """Return a validator for the published SARIF 2.1.0 schema.

    One pattern of the published text (`run.language`) has a stray bracket that strict regular expressions refuse; we
    write no language, so it is dropped.
    """
    schema = json.loads((DATA / "sarif" / "sarif-2.1.0-rtm.5.json").read_text())
    for definition in schema["definitions"].values():
        definition.get("properties", {}).get("language", {}).pop("pattern", None)
    return jsonschema_rs.validator_for(schema)


def test_sarif_is_valid_against_the_published_schema() -> None:
    """Findings, suppressed findings, related places and the whole catalogue as rules: all valid SARIF 2.1.0."""
    found = fixture("PG304", "PG902", "PG216", "PG601")
    suppressed = lint({"_base.yaml": BASE, "x.yaml": (DATA / "lint" / "PG902" / "good.yaml").read_bytes()}, NOW)
    validator = sarif_validator()
    for report in (found, suppressed, HOSTILE, Report(findings=())):
        validator.validate(json.loads(to_sarif(report)))
    broken = json.loads(to_sarif(found)) | {"version": "2.0.0"}
    assert not validator.is_valid(broken)


def test_sarif_names_rule_place_and_fingerprint_of_each_finding() -> None:
    """What a code-scanning service needs to show a finding and to know it again."""
    found = fixture("PG216")
    run = json.loads(to_sarif(found))["runs"][0]
    result = run["results"][0]
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
    assert (result["ruleId"], rule["id"], result["level"]) == ("PG216", "PG216", "warning")
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "PG216.yaml"
    assert place["region"] == {"startLine": 8, "startColumn": 15}
    assert {"policyguard/v1": found.fingerprints()[0]} == result["partialFingerprints"]
    assert len(catalogue()) == len(run["tool"]["driver"]["rules"])
    assert catalogue()["PG216"].help in rule["help"]["text"]


def test_sarif_marks_suppressed_findings_as_such() -> None:
    """A suppressed finding is in the log with its reason and end, and is no open result."""
    report = lint({"_base.yaml": BASE, "x.yaml": (DATA / "lint" / "PG902" / "good.yaml").read_bytes()}, NOW)
    results = json.loads(to_sarif(report))["runs"][0]["results"]
    assert len(results) == 2
    assert all(result["suppressions"][0]["kind"] == "inSource" for result in results)
    assert "until 2027-01-01: alone on call until the team has grown" in json.dumps(results)


def test_junit_has_one_failed_case_a_finding_and_one_passed_without_any() -> None:
    """A build server counts findings as failures."""
    suites = ElementTree.fromstring(to_junit(fixture("PG216")))
    assert (suites.get("tests"), suites.get("failures")) == ("1", "1")
    failure = suites.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("type") == "warning"
    clean = ElementTree.fromstring(to_junit(Report(findings=())))
    assert (clean.get("tests"), clean.get("failures")) == ("1", "0")


def test_json_counts_and_lists_everything() -> None:
    """Counts by severity, each finding with place and fingerprint, suppressed ones with their reason."""
    data = json.loads(to_json(fixture("PG902")))
    assert data["counts"] == {"error": 0, "warning": 5, "information": 0, "suppressed": 0, "baselined": 0}
    assert data["clean"] is False
    first = data["findings"][0]
    assert {
        "code",
        "name",
        "severity",
        "file",
        "line",
        "column",
        "message",
        "help",
        "fixable",
        "stops_load",
        "related",
        "fingerprint",
    } == set(first)


def test_information_alone_keeps_a_report_clean() -> None:
    """PG602 is a notice: nobody's build fails on it."""
    report = fixture("PG602")
    assert [finding.severity for finding in report.findings] == ["information"]
    assert report.clean
    assert not fixture("PG216").clean


def test_a_fingerprint_survives_lines_added_above() -> None:
    """Adding comments above a finding changes its line, not its fingerprint; equal lines differ by their number."""
    source = (DATA / "lint" / "PG205" / "bad.yaml").read_bytes()
    before = lint({"_base.yaml": BASE, "x.yaml": source}, NOW)
    after = lint({"_base.yaml": BASE, "x.yaml": b"# one more line\n" + source}, NOW)
    assert before.findings != after.findings
    assert before.fingerprints() == after.fingerprints()
    assert len(set(before.fingerprints())) == len(before.findings) == 2


def test_a_baseline_hides_known_findings_and_no_new_one() -> None:
    """What was there stays quiet, what came since is reported."""
    known = parse_baseline(to_baseline(fixture("PG216")))
    assert fixture("PG216").without(known).findings == ()
    later = fixture("PG216", "PG215").without(known)
    assert [finding.code for finding in later.findings] == ["PG215"]
    assert later.baselined == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2, "findings": []}', '{"format": 1, "findings": [{}]}', "[" * 100_000]
)
def test_what_is_no_baseline_is_refused(text: str) -> None:
    """A damaged baseline is a configuration error, never an empty one."""
    with pytest.raises(ConfigurationError):
        parse_baseline(text)
