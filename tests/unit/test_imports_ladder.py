"""What a process imports: the package nothing, a hook on a compiled snapshot neither yaml, casbin, CEL nor click."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.audit.checkpoint import open_checkpoint
from policyguard.audit.receipt import SignedDecision, check_inclusion, leaf_hash_of
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.decide.compiled_form import compile_policy
from policyguard.keyfiles import write_private_key
from policyguard.policy.bundle import seal
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
from policyguard.values import canonical

ROOT = Path(__file__).parents[2]
KEY = PrivateKey.generate(bytes(range(32)))

POLICIES = b"""\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [submit], attributes: {gpus: {type: int}}}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: small, effect: allow, actions: [job:submit], resources: {type: job}, when: resource.gpus <= 64}
"""

SOURCE = b"""\
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: trainer}]
---
apiVersion: policyguard/v1
kind: Bindings
source: {adapter: csv, path: rows.csv}
"""

STARTS = {
    "python -m policyguard": ["-m", "policyguard"],
    "the console script": ["-c", "import sys; from policyguard.cli.main import main; sys.exit(main())"],
}

DOORS = {"yaml", "_yaml", "casbin", "cel_expr_python", "google", "re2", "_re2", "click", "rich", "simpleeval"}
"""Behind these stand loading from source and the command line."""

SLOW = {
    "ast",
    "asyncio",
    "concurrent",
    "dataclasses",
    "difflib",
    "dis",
    "email",
    "html",
    "http",
    "importlib.metadata",
    "inspect",
    "ipaddress",
    "logging",
    "multiprocessing",
    "pathlib",
    "platform",
    "pickle",
    "random",
    "secrets",
    "selectors",
    "shutil",
    "socket",
    "statistics",
    "subprocess",
    "struct",
    "tempfile",
    "textwrap",
    "tokenize",
    "unittest",
    "urllib",
    "xml",
    "zipfile",
}
"""Of the standard library, what costs a millisecond or more and answers nothing here."""

OWN = {
    "policyguard.analysis",
    "policyguard.assembly",
    "policyguard.audit.approval_use_scan",
    "policyguard.audit.batch",
    "policyguard.audit.check",
    "policyguard.audit.continuity",
    "policyguard.audit.handover",
    "policyguard.audit.links",
    "policyguard.audit.policy_epoch_scan",
    "policyguard.audit.reservation_events",
    "policyguard.audit.reservations",
    "policyguard.audit.stores.memory",
    "policyguard.attest.revocation",
    "policyguard.cli.group",
    "policyguard.cli.files",
    "policyguard.cli.options",
    "policyguard.cli.settings",
    "policyguard.conditions.check",
    "policyguard.conditions.decoding",
    "policyguard.conditions.lexing",
    "policyguard.config.file",
    "policyguard.casbin_compat",
    "policyguard.evidence.repository",
    "policyguard.hooks.launcher",
    "policyguard.lint",
    "policyguard.model.static_explanation",
    "policyguard.policy.loader",
    "policyguard.policy.reader",
    "policyguard.policy_store.folder",
    "policyguard.verify",
}
"""Rooms that a decision from a compiled snapshot never enters."""

MAX_MODULES = 96
"""Modules of our own that a hook loads at most. Each costs it a tenth of a millisecond: merge, or import at need."""

UNUSED_BY_US = {"msgspec.inspect", "msgspec.toml", "msgspec.yaml"}
"""Of msgspec, what `import msgspec` imports and a decision never calls."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a compiled snapshot and the key that signed it."""
    folder = tmp_path_factory.mktemp("hook")
    policy_set = load({"policies.yaml": POLICIES})
    (folder / "compiled").write_bytes(seal(compile_policy(policy_set, grants_of(policy_set)), [KEY]))
    write_private_key(folder / "guard.key", KEY)
    return folder


def python(*words: str, cwd: Path, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *words],
        input=text,
        capture_output=True,
        check=False,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": os.defpath},
    )


def imported(report: bytes) -> set[str]:
    """Return the modules that `-X importtime` reports."""
    lines = report.decode().splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def request(gpus: int) -> bytes:
    return json.dumps(
        {
            "subject": {"type": "user", "id": "alice"},
            "action": {"name": "job:submit"},
            "resource": {"type": "job", "id": "team/vision/run", "properties": {"gpus": gpus}},
        }
    ).encode()


def hook(lab: Path, start: list[str], gpus: int, policies: str = "compiled") -> subprocess.CompletedProcess[bytes]:
    words = ["hook", "--policies", policies, "--key", "guard.key", "--log", "audit.db"]
    return python("-X", "importtime", *start, *words, cwd=lab, text=request(gpus))


def test_importing_the_package_imports_nothing_else(tmp_path: Path) -> None:
    """`import policyguard` costs next to nothing; names load on first use."""
    bare = imported(python("-X", "importtime", "-c", "pass", cwd=tmp_path).stderr)
    found = imported(python("-X", "importtime", "-c", "import policyguard", cwd=tmp_path).stderr)
    assert found - bare <= {"policyguard", "__future__"}
    named = python("-c", "import policyguard; print(policyguard.Request.__name__)", cwd=tmp_path)
    assert named.stdout == b"Request\n"


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
@pytest.mark.parametrize(("gpus", "code"), [(8, 0), (128, 77)], ids=["allowed", "denied"])
def test_a_hook_on_a_compiled_snapshot_imports_little(lab: Path, start: list[str], gpus: int, code: int) -> None:
    """Neither the doors to loading from source nor slow rooms of the standard library, however it is started."""
    bare = imported(python("-X", "importtime", "-c", "pass", cwd=lab).stderr)
    # What `-m` itself imports is the interpreter's choice.
    bare |= imported(python("-X", "importtime", "-m", "this", cwd=lab).stderr)
    done = hook(lab, start, gpus)
    assert done.returncode == code
    found = imported(done.stderr) - bare
    refused = OWN | SLOW | UNUSED_BY_US
    assert {name for name in found if name in refused or name.split(".")[0] in DOORS | SLOW} == set()
    assert {"policyguard.hooks.stdio", "policyguard.decide.snapshot", "msgspec"} <= found
    assert len([name for name in found if name.split(".")[0] == "policyguard"]) <= MAX_MODULES


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
def test_a_hook_that_ends_at_once_has_logged_what_it_answered(lab: Path, start: list[str]) -> None:
    """The process leaves without taking itself apart; its answer is whole, and in the log under a signed checkpoint."""
    answer = json.loads(hook(lab, start, 8).stdout)
    signed = SignedDecision.from_json(canonical(answer["signed"]))
    with SqliteStore.open(lab / "audit.db", read_only=True) as store:
        [entry] = store.read(signed.receipt.index, signed.receipt.index + 1)
        assert entry.leaf == signed.envelope.to_bytes()
        checkpoint = open_checkpoint(signed.receipt.checkpoint, (NoteKey(store.origin, KEY.public),))
    check_inclusion(leaf_hash_of(signed.envelope), signed.receipt, checkpoint)


def test_placeholders_give_way_to_the_modules_they_replace() -> None:
    """A name that is asked of a placeholder imports its module; nothing of a placeholder stays in `sys.modules`."""
    code = (
        "import sys; from policyguard.cli import main; placeholder = main._Placeholder('textwrap'); "
        "print(placeholder.dedent(' a'), type(sys.modules['textwrap']).__name__, hasattr(placeholder, '__path__'))"
    )
    assert python("-c", code, cwd=ROOT).stdout == b"a module False\n"


def test_a_hook_on_a_folder_still_finds_what_it_needs(lab: Path) -> None:
    """What was kept out while the hook's own modules loaded is there for those that need it: the loader's imports."""
    (lab / "policies").mkdir()
    (lab / "policies" / "policies.yaml").write_bytes(POLICIES)
    done = hook(lab, STARTS["the console script"], 8, "policies")
    assert (done.returncode, json.loads(done.stdout)["decision"]) == (0, True)
    modules = imported(done.stderr)
    assert {"yaml", "cel_expr_python"} <= modules
    assert "casbin" not in modules


def test_only_bindings_from_an_adapter_import_casbin(lab: Path) -> None:
    """A folder pays for casbin if one of its `Bindings` documents names a `source:`."""
    folder = lab / "with-source"
    folder.mkdir()
    (folder / "policies.yaml").write_bytes(POLICIES + SOURCE)
    (folder / "rows.csv").write_text("g, user:alice, role:trainer, vision\n")
    done = hook(lab, STARTS["the console script"], 8, "with-source")
    assert (done.returncode, json.loads(done.stdout)["decision"]) == (0, True)
    assert "casbin" in imported(done.stderr)
