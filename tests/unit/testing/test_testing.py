"""Tests of policies: every one that is written is run, and says so if the policies do not do what it wants."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.cli.group import run as run_command
from policyguard.errors import PolicyErrors
from policyguard.keyfiles import write_private_key
from policyguard.policy.files import read_folder
from policyguard.testing.junit import to_junit
from policyguard.testing.run import run_tests

EXAMPLES = Path(__file__).parents[3] / "policies"

POLICIES = """\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {attributes: {level: {type: string, optional: true, assurance: observed}}}}
resources:
  job:
    id: "team/{team}/**"
    actions: [submit, kill]
    attributes:
      gpus: {type: int}
      clean: {type: bool, optional: true, assurance: measured}
context: {attributes: {ticket: {type: string, optional: true}}}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: lead}, {name: trainer}]
---
apiVersion: policyguard/v1
kind: Bindings
bindings:
  - {subject: "user:ann", role: trainer, domain: red}
  - {subject: "user:bob", role: lead, domain: red}
---
apiVersion: policyguard/v1
kind: Persons
persons: [{id: ann, accounts: ["user:ann"]}, {id: bob, accounts: ["user:bob"]}]
---
apiVersion: policyguard/v1
kind: Quorums
quorums: [{id: one-lead, approvers: [{count: 1, roles: [lead]}]}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: small, effect: allow, roles: [trainer], actions: [job:submit], resources: {type: job},
     when: resource.gpus <= 64 && resource.clean, reason: ok.small, obligations: [warn.owner]}
  - {id: large, effect: require, actions: [job:submit], resources: {type: job},
     when: resource.gpus > 8, quorum: one-lead}
  - {id: late, effect: deny, actions: [job:submit], resources: {type: job},
     when: now >= timestamp("2030-06-01T00:00:00Z"), reason: time.late}
"""

REQUEST = 'request: {subject: "user:ann", action: "job:submit", resource: job:team/red/x}'
CLEAN = "facts: {resource.gpus: 8, resource.clean: true}"


def document(*cases: str, **fields: str) -> str:
    head = "apiVersion: policyguard/v1\nkind: Tests\nmetadata: {name: t, owner: platform}\n"
    lines = [f"{name}: {value}\n" for name, value in fields.items()]
    return head + "".join(lines) + ("cases:\n" + "".join(f"  - {{{case}}}\n" for case in cases) if cases else "")


def sources(text: str) -> dict[str, bytes]:
    return {"policies.yaml": POLICIES.encode(), "tests.yaml": text.encode()}


def problems(*cases: str, **fields: str) -> list[str]:
    return [outcome.problem for outcome in run_tests(sources(document(*cases, **fields)))]


def errors(*cases: str, **fields: str) -> list[str]:
    with pytest.raises(PolicyErrors) as caught:
        run_tests(sources(document(*cases, **fields)))
    return [str(error) for error in caught.value.errors]


def case(expect: str, facts: str = CLEAN, **fields: str) -> str:
    more = "".join(f", {name}: {value}" for name, value in fields.items())
    return f"name: a test, {REQUEST}, {facts}, expect: {expect}{more}"


def test_the_tests_of_the_example_policies_pass() -> None:
    """Each cell of their tables, and none is left out."""
    outcomes = run_tests(read_folder(EXAMPLES))
    assert [(str(outcome.case.span), outcome.problem) for outcome in outcomes if outcome.problem] == []
    assert all(outcome.passed for outcome in outcomes)
    written = [
        name
        for path in EXAMPLES.glob("*.yaml")
        for name in re.findall(r"(?m)^  - name: \"?(.*?)\"?$", path.read_text())
    ]
    assert len(written) > 80
    assert set(written) <= {outcome.case.name for outcome in outcomes}


def test_a_rule_that_was_deleted_fails_the_test_that_asserts_it() -> None:
    """What nobody noticed before: policies without a deny load, lint and compile."""
    files = read_folder(EXAMPLES)
    name = next(name for name in files if name.endswith("jobs.yaml"))
    rules = files[name].decode()
    start = rules.index("  - id: program-of-the-commit")
    files[name] = (rules[:start] + rules[rules.index("  - id: ignored-code") :]).encode()
    failed = {outcome.case.name for outcome in run_tests(files) if outcome.problem}
    assert "a medium job starts no script from outside of the commit" in failed


def test_what_a_decision_must_be() -> None:
    assert (
        problems(case("allow"), case("allow", reason="ok.small"), case("allow", obligations="[warn.owner]")) == [""] * 3
    )
    large = "facts: {resource.gpus: 16, resource.clean: true}"
    assert problems(case("needs-approval", large, contributors="[]")) == [""]
    assert problems(case("allow", large, contributors="[]", approvals='["user:bob"]')) == [""]
    assert problems(case("needs-approval", large, contributors='["user:bob"]', approvals='["user:bob"]')) == [""]


def test_a_difference_is_reported() -> None:
    assert problems(case("deny")) == ["expected deny, found allow"]
    assert problems(case("allow", reason="ok.other")) == ["expected the reason `ok.other`, found ok.small"]
    assert problems(case("allow", obligations="[stop.job]")) == ["expected the obligations stop.job, found warn.owner"]
    assert problems(case("deny", "facts: {resource.gpus: 16, resource.clean: true}")) == [
        "expected deny, found needs-approval"
    ]


def test_a_fact_is_as_sure_as_its_attribute_asks_unless_a_test_says_otherwise() -> None:
    claimed = "facts: {resource.gpus: 8, resource.clean: {value: true, assurance: claimed}}"
    assert problems(case("deny", claimed)) == [""]
    assert problems(case("allow", claimed)) == ["expected allow, found deny"]


def test_the_time_is_that_of_the_test() -> None:
    late = "2030-06-01T00:00:00Z"
    assert problems(case("allow"), case("deny", now=late)) == ["", ""]
    assert problems(case("deny", reason="time.late"), now=late) == [""]


def test_a_matrix_denies_what_it_does_not_list() -> None:
    row = '[{subject: "user:ann", resource: job:team/red/x, use: [clean], allow: [%s]}]'
    facts = "{clean: {resource.gpus: 8, resource.clean: true}}"
    assert problems(matrix=row % "job:submit", facts=facts) == ["", ""]
    assert problems(matrix=row % "job:kill", facts=facts) == [
        "expected not allow, found allow",
        "expected allow, found deny",
    ]


def test_a_skipped_test_is_counted_and_not_run() -> None:
    (outcome,) = run_tests(sources(document(case("deny", skip="until the quota is decided"))))
    assert outcome.decision is None
    assert not outcome.passed
    assert not outcome.problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (case("allow", "facts: {resource.gpu: 8}"), "tests.yaml:5:"),
        (case("allow", "facts: {resource.gpu: 8}"), "unknown attribute `resource.gpu`"),
        (case("allow", "facts: {subject.uid: 8}"), "unknown attribute `subject.uid`"),
        (case("allow", use="[clean]"), "unknown name of facts `clean`"),
        (case("allow").replace("job:submit", "job:fly"), "unknown action `job:fly`"),
        (case("allow").replace("user:ann", "robot:ann"), "unknown subject type `robot`"),
        (case("allow").replace("job:team", "disk:team"), "unknown resource type `disk`"),
        (case("perhaps"), "perhaps"),
        (case("allow", "facts: {resource.clean: {value: true, assurance: sure}}"), "unknown assurance `sure`"),
        (case("allow", "facts: {resource.gpus: 0.5}"), "0.5"),
    ],
)
def test_a_test_about_what_does_not_exist_is_an_error_with_its_place(text: str, message: str) -> None:
    assert any(message in error for error in errors(text))


def test_a_document_without_tests_is_an_error() -> None:
    assert "found no tests" in errors()[0]


def write(folder: Path, *cases: str) -> Path:
    for name, data in sources(document(*cases)).items():
        (folder / name).write_bytes(data)
    return folder


def test_the_verb_exits_with_one_if_a_test_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, case("allow"), case("deny"))
    assert run_command(["test", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "expected deny, found allow" in printed
    assert "1 test passed, 1 failed, 0 skipped" in printed
    assert run_command(["test", str(write(tmp_path, case("allow")))]) == 0


def test_the_verb_exits_with_one_if_there_is_no_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    assert run_command(["test", str(tmp_path)]) == 1
    assert "no tests" in capsys.readouterr().err


def test_the_verb_exits_with_one_if_no_test_was_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All skipped, or a slip of the pen in -k: nothing was shown to hold."""
    write(tmp_path, case("deny", skip="later"))
    assert run_command(["test", str(tmp_path)]) == 1
    assert "0 tests passed, 0 failed, 1 skipped" in capsys.readouterr().out
    assert run_command(["test", str(write(tmp_path, case("allow"))), "-k", "a tset"]) == 1
    assert "no test has `a tset` in its name" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["lint", "compile"])
def test_who_does_not_run_tests_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    write(folder, case("deny"))
    (folder / "never.yaml").write_text(
        "apiVersion: policyguard/v1\nkind: Invariants\nmetadata: {name: i, owner: o}\n"
        "invariants: [{id: one, never: resource.gpus > 8}]\n"
    )
    key = tmp_path / "guard.key"
    write_private_key(key, PrivateKey.generate(b"\7" * 32))
    options = ["-o", str(tmp_path / "out"), "--key", str(key)] if verb == "compile" else []
    run_command([verb, str(folder), *options])
    printed = capsys.readouterr().err
    assert f"1 document of tests not run; `policyguard test {folder}` runs them" in printed
    assert "1 document of invariants not checked" in printed


def test_the_verb_prints_json_and_junit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, case("allow"), case("deny"), case("deny", skip="later"))
    assert run_command(["test", str(tmp_path), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [test["outcome"] for test in data["tests"]] == ["passed", "failed", "skipped"]
    suites = ElementTree.fromstring(to_junit(run_tests(read_folder(tmp_path))))
    assert suites.attrib == {"name": "policyguard", "tests": "3", "failures": "1"}
    assert len(suites.findall(".//failure")) == len(suites.findall(".//skipped")) == 1
