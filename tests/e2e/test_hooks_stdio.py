"""The hook as a process: one JSON request in, one JSON answer and an exit code out; when it cannot tell, it denies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.dsse import parse
from policyguard.attest.statement import parse_statement
from policyguard.attest.trust import Trust
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.decide.compiled_form import compile_policy
from policyguard.keyfiles import read_private_key
from policyguard.model.request import Request
from policyguard.policy.bundle import seal
from policyguard.policy_store.folder import grants_of, policy_set_of_folder
from policyguard.values import canonical
from policyguard.verify import verify, verify_origin
from tests.e2e.launcher_lab import SCHEMA, Lab, make_lab

ROOT = Path(__file__).parents[2]

POLICIES = (
    SCHEMA
    + """\
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - id: small-jobs
    effect: allow
    actions: [job:submit]
    resources: {type: job}
    when: resource.gpus <= 8
  - id: not-for-root
    effect: allow
    actions: [job:submit]
    resources: {type: job}
    when: resource.gpus <= 64 && subject.uid >= 1000
"""
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    made = make_lab(tmp_path_factory.mktemp("stdio"))
    (made.folder / "policies" / "jobs.yaml").write_text(POLICIES)
    policy_set = policy_set_of_folder(made.folder / "policies")
    key = read_private_key(made.folder / "guard.key")
    (made.folder / "compiled").write_bytes(seal(compile_policy(policy_set, grants_of(policy_set)), [key]))
    return made


def asked(gpus: int = 8, **subject: object) -> bytes:
    return canonical(
        {
            "subject": {"type": "user", "id": "alice", "properties": subject},
            "action": {"name": "job:submit"},
            "resource": {"type": "job", "id": "team/vision/run-17", "properties": {"gpus": gpus}},
        }
    )


def hook(lab: Lab, text: bytes, *words: str, **options: str) -> tuple[dict[str, Any], int]:
    """Run the hook; the answer and the code must say the same, and standard error must be silent."""
    places = {"policies": "compiled", "key": "guard.key", "log": "hook.db", **options}
    command = [sys.executable, "-c", "from policyguard.cli.main import main; main()", "hook"]
    command += [f"--{name}={value}" for name, value in places.items() if value] + ["--audience", "node-1", *words]
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        cwd=lab.folder,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": os.defpath},
    )
    assert done.stderr == b""
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["decision"] is (done.returncode == 0)
    return answer, done.returncode


def trust_of(lab: Lab) -> Trust:
    return lab.trust


def test_an_allowed_request_exits_with_0_and_its_decision_verifies(lab: Lab) -> None:
    """What the caller passes on is a signed decision like any other."""
    answer, code = hook(lab, asked())
    assert (code, answer["reason_codes"]) == (0, ["rule.allow"])
    carried = canonical(answer["signed"])
    predicate = verify_origin(carried, trust_of(lab)).predicate
    now = int(os.stat(lab.folder / "hook.db").st_mtime_ns)
    verify(carried, trust_of(lab), Request.from_json(asked()), audience="node-1", now=now + 10**9)
    assert predicate.allowed


def test_a_denied_request_exits_with_77_and_is_signed(lab: Lab) -> None:
    """A denial is an answer, not a failure."""
    answer, code = hook(lab, asked(gpus=512))
    assert (code, answer["reason_codes"]) == (77, ["engine.no_allow"])
    assert not verify_origin(canonical(answer["signed"]), trust_of(lab)).predicate.allowed


BAD_INPUT = {
    "nothing": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"subject":"\xff"}',
    "an array": b"[]",
    "a float": asked().replace(b'"gpus":8', b'"gpus":8.0'),
    "a null": asked().replace(b'"gpus":8', b'"gpus":null'),
    "a key twice": asked().replace(b'"gpus":8', b'"gpus":8,"gpus":8'),
    "a missing action": b'{"subject":{"type":"user","id":"a"},"resource":{"type":"job","id":"x"}}',
    "an unknown field": asked()[:-1] + b',"evil":1}',
    "nested for ever": b"[" * 100_000,
    "a megabyte and more": b" " * 1_100_000 + asked(),
}


@pytest.mark.parametrize("text", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_exits_with_65(lab: Lab, text: bytes) -> None:
    """The answer says where; nothing is logged that could not be parsed."""
    answer, code = hook(lab, text)
    assert code == 65
    assert answer["error"]
    assert "signed" not in answer


def test_a_property_outside_the_schema_exits_with_65_and_is_logged(lab: Lab) -> None:
    """The request could be parsed, so its denial is signed."""
    answer, code = hook(lab, asked().replace(b'"gpus":8', b'"gpus":8,"frobs":1'))
    assert (code, answer["reason_codes"]) == (65, ["engine.malformed"])
    assert answer["signed"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"policies": "nonexistent"}, 78),
        ({"policies": "guard.key"}, 78),
        ({"key": "nonexistent"}, 78),
        ({"key": "compiled"}, 78),
        ({"policies": ""}, 78),
        ({"log": "nonexistent/folder/log.db"}, 69),
        ({"log": "compiled"}, 69),
    ],
    ids=["no policies", "no snapshot", "no key", "no key file", "no option", "no log folder", "no log"],
)
def test_what_is_missing_has_its_code(lab: Lab, options: dict[str, str], code: int) -> None:
    """I2: 78 for what the operator set up wrongly, 69 for what is not there now; never 0."""
    answer, found = hook(lab, asked(), **options)
    assert (found, "\n" in answer["error"]) == (code, False)


@pytest.mark.parametrize("words", [("--frob",), ("--audience",), ("frob",), ("--measure=1",)])
def test_wrong_options_are_configuration(lab: Lab, words: tuple[str, ...]) -> None:
    """I2: a hook with a typing error in its set-up does not let jobs through."""
    assert hook(lab, asked(), *words)[1] == 78


def test_a_tampered_snapshot_is_refused(lab: Lab) -> None:
    """I2: one changed byte in the compiled policies."""
    data = (lab.folder / "compiled").read_bytes()
    (lab.folder / "tampered").write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    assert hook(lab, asked(), policies="tampered")[1] == 78


def test_a_signed_snapshot_without_policies_is_refused_and_logged(lab: Lab, tmp_path: Path) -> None:
    """It escaped as a KeyError, and the log had no entry. Its twin as compiled decides, above."""
    key = read_private_key(lab.folder / "guard.key")
    (tmp_path / "empty").write_bytes(seal({"format": "policyguard/compiled/v1", "name": "lab", "places": []}, [key]))
    answer, code = hook(lab, asked(), policies=str(tmp_path / "empty"), log=str(tmp_path / "empty.db"))
    assert code == 78
    assert answer["error"].startswith("compiled snapshot: policy: found ")
    with SqliteStore.open(tmp_path / "empty.db", read_only=True) as store:
        (row,) = store.read(0, 2)
    assert parse_statement(parse(row.leaf).payload).predicate.reason_codes == ("guard.unusable",)


def test_a_claim_is_observed_only_if_the_operator_says_so(lab: Lab) -> None:
    """I1: `subject.uid` counts from observed on; the request alone cannot make it so."""
    assert hook(lab, asked(gpus=64, uid=1000))[1] == 77
    assert hook(lab, asked(gpus=64, uid=1000), "--observed", "subject.uid")[1] == 0
    assert hook(lab, asked(gpus=64, uid=1000), "--observed", "subject.user")[1] == 77
    assert hook(lab, asked(gpus=64, uid=0), "--observed=subject.uid")[1] == 77


def test_the_policies_may_be_a_folder(lab: Lab) -> None:
    """Slower, the same answer."""
    assert hook(lab, asked(), policies="policies")[1] == 0


def test_the_configuration_file_completes_the_options(lab: Lab) -> None:
    """The operator's configuration, named by `--config`; the one in the folder of the hook is not read."""
    (lab.folder / "policyguard.yaml").write_text("policies: compiled\nkey: guard.key\nlog: hook.db\naudience: x\n")
    try:
        assert hook(lab, asked(), policies="", key="", log="", config="policyguard.yaml")[1] == 0
        assert hook(lab, asked(), policies="", key="", log="")[1] == 78
    finally:
        (lab.folder / "policyguard.yaml").unlink()


@pytest.mark.parametrize("option", ["audience", "state-dir", "approvals", "observed"])
def test_an_empty_value_is_no_default(lab: Lab, option: str) -> None:
    """An unset variable in `--audience "$NODE"` must not make decisions for `local`."""
    answer, code = hook(lab, asked(), f"--{option}", "")
    assert (code, answer["error"]) == (78, f"`--{option}`: found empty text, expected a value")
    assert hook(lab, asked(), f"--{option}=")[1] == 78
    assert hook(lab, asked(), "--audience", "local")[1] == 0


@pytest.mark.parametrize(("gpus", "expected"), [(8, 69), (512, 77)])
def test_a_reader_that_is_gone_is_not_an_allow(lab: Lab, gpus: int, expected: int) -> None:
    """I2: the caller closed its end of the pipe; the exit code must not say 0, and a denial stays one."""
    command = [sys.executable, "-c", "from policyguard.cli.main import main; main()", "hook", "--policies", "compiled"]
    process = subprocess.Popen(
        [*command, "--key", "guard.key", "--log", "hook.db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=lab.folder,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write(asked(gpus=gpus))
    process.stdin.close()
    assert process.wait(20) == expected


HEAVY = ("yaml", "casbin", "cel_expr_python", "google", "click", "rich", "sqlalchemy", "subprocess", "argparse")


def test_the_compiled_hook_imports_no_heavy_dependency(lab: Lab) -> None:
    """Neither yaml, casbin nor CEL, nor click: what a hook does not use it does not pay for."""
    code = (
        "import sys; from policyguard.hooks.stdio import main; status = main(sys.argv[1:]); "
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--policies", "compiled", "--key", "guard.key", "--log", "hook.db"],
        input=asked(),
        capture_output=True,
        cwd=lab.folder,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0
    assert not set(done.stderr.decode().split()) & set(HEAVY)
