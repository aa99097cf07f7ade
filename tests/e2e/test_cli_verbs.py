"""Every verb does what its help says, with the exit codes and the JSON that programs rely on."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.cli.group import VERBS
from tests.e2e.cli_lab import CliLab, Ended, files_below

GROUPS = {
    "keys": ("new", "show"),
    "audit": ("verify", "show", "prove", "tail", "open-reviews", "review"),
    "import": ("casbin",),
}


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(verb: str, here: Callable[..., Ended]) -> None:
    """`VERB --help` and `-h` print the usage on standard output and leave with 0; so do verbs of a group."""
    for words in ((verb,), *((verb, each) for each in GROUPS.get(verb, ()))):
        for option in ("--help", "-h"):
            ended = here(*words, option)
            assert (ended.code, ended.err) == (0, "")
            assert ended.out.startswith(f"Usage: policyguard {' '.join(words)}")


def test_help_lists_every_verb(here: Callable[..., Ended]) -> None:
    """The table of verbs and the help are one list."""
    listed = [
        line.split()[0] for line in here("--help").out.split("Commands:")[1].splitlines() if re.match("  \\S", line)
    ]
    assert [verb for verb in listed if verb in VERBS] == list(VERBS)


def test_version_is_printed(here: Callable[..., Ended]) -> None:
    """`--version` names the program and its version."""
    ended = here("--version")
    assert (ended.code, ended.out) == (0, "policyguard, version 0.1.0\n")


USAGE = {
    "no verb": ((), "Usage: policyguard"),
    "a verb that does not exist": (("nosuch",), "found `nosuch`, expected a verb"),
    "an option that does not exist": (("decide", "--nosuch"), "no such option '--nosuch'"),
    "an argument is missing": (("decide",), "missing argument 'REQUEST | SUBJECT ACTION RESOURCE"),
    "one argument too many": (("decide", "a", "b"), "found 2 words, expected REQUEST"),
    "a group without its verb": (("audit",), "Usage: policyguard audit"),
    "an entry that is no number": (("audit", "show", "x"), "found `x`, expected a whole number of at least 0"),
    "an entry beyond what SQLite counts": (("audit", "show", str(2**64)), "expected a whole number of at least 0"),
    "two things to prove": (("audit", "prove", "0", "--since", "0"), "give either ENTRY or --since"),
    "neither request nor job to verify": (("verify", "x"), "give either --request FILE, or --job FILE"),
    "a job to verify without its command": (("verify", "x", "--job", "j"), "--job needs the command it is for"),
    "run without a command": (("run", "--job", "j"), "missing argument '-- CMD...'"),
    "run without a job file": (("run", "--", "true"), "missing option '--job'"),
    "compile without a place": (("compile",), "missing option '-o' / '--out'"),
    "a format that does not exist": (("lint", "--format", "xml"), "'xml' is not one of"),
}


@pytest.mark.parametrize(("words", "part"), USAGE.values(), ids=list(USAGE))
def test_wrong_usage_is_64(words: tuple[str, ...], part: str, lab: CliLab) -> None:
    """A command line that cannot be read is exit code 64, and nothing is decided."""
    ended = lab.here(*words)
    assert (ended.code, ended.out) == (64, "")
    assert part in ended.err
    assert lab.entries() == []


def test_init_leaves_everything_a_first_decision_needs(lab: CliLab) -> None:
    """Policies, requests, a key of mode 0600, trust and a configuration; the examples decide as their names say."""
    names = {"policies", "requests", "guard.key", "guard.key.pub", "trust.yaml", "policyguard.yaml"}
    assert {path.name for path in lab.folder.iterdir()} == names
    assert stat.S_IMODE(lab.path("guard.key").stat().st_mode) == 0o600
    codes = {"allowed": 0, "denied-unknown-attribute": 65}
    requests = sorted(lab.path("requests").iterdir())
    assert len(requests) >= 5
    for request in requests:
        assert lab.here("decide", str(request)).code == codes.get(request.stem, 77), request.name
    assert [entry["decision"] for entry in lab.entries()].count("allow") == 1
    assert len(lab.entries()) == len(requests)


def test_init_says_what_it_made(tmp_path: Path, here: Callable[..., Ended]) -> None:
    """`init --json` names the folder and what is in it now; folders above are made."""
    folder = tmp_path / "a" / "b"
    ended = here("init", str(folder), "--json")
    assert ended.data == {"folder": str(folder), "made": sorted(ended.data["made"], key=ended.data["made"].index)}
    assert sorted(ended.data["made"]) == sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "name", ["policies", "requests", "guard.key", "guard.key.pub", "trust.yaml", "policyguard.yaml"]
)
def test_init_never_overwrites(name: str, tmp_path: Path, here: Callable[..., Ended]) -> None:
    """Whatever of its names is there, init stops before it writes anything; a dangling link counts as there."""
    (tmp_path / name).symlink_to("nowhere")
    ended = here("init", str(tmp_path))
    assert ended.code == 78
    assert ended.complaint == f"policyguard: {tmp_path / name}: exists already, expected a folder without it"
    assert files_below(tmp_path) == [name]


def test_init_goes_beside_what_is_there(tmp_path: Path, here: Callable[..., Ended]) -> None:
    """A folder with other files is no obstacle, and they stay as they are."""
    (tmp_path / "mine").write_text("mine")
    assert here("init", str(tmp_path)).code == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_decide_prints_the_explanation(lab: CliLab) -> None:
    """Text names the decision, the reason, the rule with its place and the policies."""
    ended = lab.here("decide", "requests/allowed.json")
    assert ended.err == ""
    assert ended.out.startswith("ALLOW  user:alice  repo:read  repo:team/vision/trainer\n")
    assert "rule `read-own-team` allows  (policies/repositories.yaml:" in ended.out
    denied = lab.here("decide", "requests/denied-ceiling.json")
    assert denied.code == 77
    assert "quota.role_ceiling" in denied.out
    assert "\nask " in denied.out


def test_decide_as_json(lab: CliLab) -> None:
    """`--json` prints one object with the decision, why, and what travels to the worker."""
    data = lab.here("decide", "--json", "requests/allowed.json").data
    assert {"decision", "reason_codes", "determining", "errored", "signed"} <= set(data)
    assert (data["decision"], data["determining"], data["errored"]) == (True, ["read-own-team"], [])
    denied = lab.here("decide", "--json", "requests/denied-stranger.json")
    assert (denied.code, denied.data["decision"], denied.data["reason_codes"]) == (77, False, ["engine.no_allow"])
    assert denied.data["signed"]


def test_decide_out_is_what_verify_takes(lab: CliLab) -> None:
    """`--out` writes the SignedDecision, the same that `--json` prints; writing again replaces the file."""
    for _ in range(2):
        ended = lab.here("decide", "--json", "--out", "signed.json", "requests/allowed.json")
        assert json.loads(lab.path("signed.json").read_text()) == ended.data["signed"]
    verified = lab.here("verify", "signed.json", "--request", "requests/allowed.json", "--json")
    assert (verified.code, verified.data["verified"], verified.data["log"]["index"]) == (0, True, 1)
    assert not [path for path in lab.folder.iterdir() if path.name.startswith(".")]


def test_decide_reads_standard_input(lab: CliLab) -> None:
    """`-` is standard input."""
    text = lab.path("requests", "allowed.json").read_bytes()
    assert lab.process("decide", "-", stdin=text).code == 0


def test_explain_signs_and_logs_nothing(lab: CliLab) -> None:
    """Explain answers as decide would, with the trace on demand, and leaves no log."""
    ended = lab.here("explain", "requests/denied-ceiling.json")
    assert ended.code == 77
    full = lab.here("explain", "--full", "requests/denied-ceiling.json")
    assert len(full.out) > len(ended.out)
    data = lab.here("explain", "--json", "requests/allowed.json").data
    assert (data["decision"], "explanation" in data, "signed" in data) == (True, True, False)
    assert not lab.path("audit.db").exists()


def test_compiled_policies_decide_alike(lab: CliLab) -> None:
    """The compiled file has the folder's policy digest, and every example gets the same answer by it."""
    compiled = lab.here("compile", "policies", "-o", "snapshot", "--json").data
    assert set(compiled) == {"digest", "epoch", "rules", "size_bytes"}
    for request in sorted(lab.path("requests").iterdir()):
        by_folder = lab.here("decide", "--json", str(request))
        by_file = lab.here("decide", "--json", "--policies", "snapshot", str(request))
        assert by_folder.code == by_file.code
        for name in ("decision", "reason_codes", "determining", "errored", "gaps", "policy"):
            assert by_folder.data[name] == by_file.data[name]
        assert by_file.data["policy"]["digest"] == compiled["digest"]
    assert lab.here("explain", "--policies", "snapshot", "requests/allowed.json").code == 0


def test_compiling_twice_is_the_same_but_for_nothing(lab: CliLab) -> None:
    """Compilation is reproducible: the same folder and key give the same bytes."""
    lab.here("compile", "-o", "one")
    lab.here("compile", "-o", "two")
    assert lab.path("one").read_bytes() == lab.path("two").read_bytes()


def test_a_snapshot_of_another_key_is_refused(lab: CliLab) -> None:
    """What a stranger has compiled and signed decides nothing."""
    lab.here("keys", "new", "stranger.key")
    lab.here("compile", "--key", "stranger.key", "-o", "snapshot")
    ended = lab.here("decide", "--policies", "snapshot", "requests/allowed.json")
    assert ended.code == 78
    assert "compiled snapshot: 0 of the trusted keys signed this" in ended.complaint
    assert lab.entries() == []


def test_the_hook_answers_by_a_compiled_snapshot(lab: CliLab) -> None:
    """The hook answers in JSON with the exit code of the decision; by a snapshot it loads neither yaml nor casbin."""
    lab.here("compile", "-o", "snapshot")
    words = ("hook", "--policies", "snapshot", "--key", "guard.key", "--log", "audit.db")
    ended = lab.process(*words, stdin=lab.path("requests", "allowed.json").read_bytes())
    assert (ended.code, ended.data["decision"], ended.err) == (0, True, "")
    denied = lab.process(*words, stdin=lab.path("requests", "denied-stranger.json").read_bytes())
    assert (denied.code, denied.data["decision"], denied.data["reason_codes"]) == (77, False, ["engine.no_allow"])
    traced = lab.process(*words, stdin=b"{}", variables={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in traced.err.splitlines()}
    assert not loaded & {"yaml", "casbin", "cel_expr_python", "google", "click"}
    assert len(lab.entries()) == 2


def test_lint_of_the_example_finds_nothing(lab: CliLab) -> None:
    """The example policies are clean in every format, and a mistake is exit code 1 with its place."""
    for form in ("text", "json", "sarif", "github", "junit"):
        assert lab.here("lint", "policies", "--format", form).code == 0
    assert lab.here("lint", "--json").data is not None
    with lab.path("policies", "jobs.yaml").open("a") as file:
        file.write("  - {id: broken, effect: allow, actions: [job:submit], resource: {type: job}}\n")
    ended = lab.here("lint")
    assert ended.code == 1
    assert "unknown field `resource`" in ended.out


def test_keys_are_made_and_printed(lab: CliLab) -> None:
    """`keys new` makes a private file of mode 0600 and a public one; `keys show` prints the same id."""
    made = lab.here("keys", "new", "new.key", "--json").data
    assert stat.S_IMODE(lab.path("new.key").stat().st_mode) == 0o600
    assert lab.here("keys", "show", "new.key", "--json").data == made
    assert made["public"].removeprefix("ed25519:") in lab.path("new.key.pub").read_text()
    assert made["keyid"] in lab.here("keys", "show", "new.key").out


def test_keys_never_overwrite(lab: CliLab) -> None:
    """With either file there, neither is written."""
    before = lab.path("guard.key").read_bytes()
    assert lab.here("keys", "new", "guard.key").code == 78
    assert lab.path("guard.key").read_bytes() == before
    lab.path("other.key.pub").write_text("mine")
    ended = lab.here("keys", "new", "other.key")
    assert ended.code == 78
    assert "exists already" in ended.complaint
    assert not lab.path("other.key").exists()


def test_wrapped_keys_need_their_passphrase(lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapped key signs with the passphrase in the environment, and with no other."""
    assert lab.here("keys", "new", "w.key", "--wrap").code == 78
    monkeypatch.setenv("POLICYGUARD_PASSPHRASE", "correct horse")
    assert lab.here("keys", "new", "w.key", "--wrap").code == 0
    assert lab.here("keys", "show", "w.key").code == 0
    monkeypatch.setenv("POLICYGUARD_PASSPHRASE", "wrong")
    assert lab.here("keys", "show", "w.key").code == 78
    monkeypatch.setenv("POLICYGUARD_PASSPHRASE", os.fsdecode(b"\xff\xfe"))
    assert lab.here("keys", "show", "w.key").code == 78


def test_check_engine_agrees_on_the_example(lab: CliLab) -> None:
    """Engine, oracle and stock casbin agree on the example lab."""
    ended = lab.here("check-engine", "--requests", "60", "--seed", "1", "--json")
    assert (ended.code, ended.data["agree"], ended.data["failures"]) == (0, True, [])
    assert "agree" in lab.here("check-engine", "policies", "--requests", "20").out


def test_doctor_is_well_in_a_fresh_lab(lab: CliLab) -> None:
    """Every check passes; after the key is opened to others the doctor says so and leaves with 1."""
    ended = lab.here("doctor", "--json")
    assert (ended.code, ended.data["healthy"]) == (0, True)
    assert all(problems == [] for problems in ended.data["checks"].values())
    lab.path("guard.key").chmod(0o640)
    ill = lab.here("doctor")
    assert ill.code == 1
    assert "has mode 0640, expected 0600" in ill.out


def test_options_win_over_the_configuration(lab: CliLab) -> None:
    """What is said on the command line is used, what is not comes from policyguard.yaml."""
    lab.here("decide", "--audience", "cluster-b", "--log", "other.db", "--out", "s.json", "requests/allowed.json")
    assert lab.entries() == []
    assert lab.path("other.db").exists()
    words = ("verify", "s.json", "--request", "requests/allowed.json")
    assert lab.here(*words).complaint.startswith("policyguard: V8: ")


def test_the_variable_names_the_configuration(lab: CliLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`POLICYGUARD_CONFIG` wins over the folder's file; paths in it are relative to it, not to where we stand."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    request = lab.path("requests", "allowed.json")
    monkeypatch.chdir(elsewhere)
    assert lab.here("decide", str(request)).code == 78
    monkeypatch.setenv("POLICYGUARD_CONFIG", str(lab.path("policyguard.yaml")))
    assert lab.here("decide", str(request)).code == 0
    assert len(lab.entries()) == 1
    assert list(elsewhere.iterdir()) == []


def test_import_gives_policies_that_lint_and_decide(lab: CliLab) -> None:
    """A casbin model becomes a folder that lints, decides and is never written twice."""
    examples = Path(__file__).parents[1] / "data" / "casbin" / "examples"
    words = ("import", "casbin", str(examples / "rbac_model.conf"), str(examples / "rbac_policy.csv"))
    printed = lab.here(*words)
    assert (printed.code, printed.err) == (0, "")
    assert lab.here(*words, "-o", "imported").code == 0
    assert lab.path("imported", "imported.yaml").read_text() == printed.out
    assert lab.here(*words, "-o", "imported").code == 78
    assert "error" not in lab.here("lint", "imported").out
    request = lab.write_request(
        "casbin.json",
        subject={"type": "user", "id": "alice"},
        action={"name": "object:read"},
        resource={"type": "object", "id": "data2"},
    )
    assert lab.here("decide", "--policies", "imported", request).code == 0
    assert sorted(lab.here(*words, "--json").data["actions"]) == ["read", "write"]


def test_import_refuses_with_place_and_reason(lab: CliLab) -> None:
    """What cannot be translated exactly is exit code 65, file, line and column; nothing is written."""
    examples = Path(__file__).parents[1] / "data" / "casbin" / "examples"
    model = examples / "priority_model.conf"
    ended = lab.here("import", "casbin", str(model), str(examples / "priority_policy.csv"), "-o", "imported")
    assert ended.code == 65
    assert ended.err.startswith(f"{model}:11:5: ")
    assert not lab.path("imported").exists()


def test_a_folder_that_moved_is_still_a_lab(lab: CliLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in what init wrote is an absolute path."""
    shutil.move(lab.folder, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert lab.here("decide", "requests/allowed.json").code == 0
