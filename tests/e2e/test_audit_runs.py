"""What an auditor asks a year later: which commit did alice run on that day, with how many GPUs? And the export."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.dsse import sign
from policyguard.attest.statement import PAYLOAD_TYPE
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.program import ProgramCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.guard import Guard
from policyguard.keyfiles import read_private_key
from policyguard.policy_store.load import load_snapshot
from policyguard.values import parse_instant
from tests.attacks.git_lab import git
from tests.e2e.cli_lab import CliLab, Ended
from tests.e2e.launcher_lab import Lab, make_lab, request

DAY = "2027-01-05"


@pytest.fixture
def runs(tmp_path: Path) -> Lab:
    """Two days of two accounts: each time with another commit, number of GPUs and argument."""
    lab = make_lab(tmp_path)
    decide(lab, "2027-01-04T23:59:59.999999999Z", gpus=1)
    commit(lab, "second")
    decide(lab, f"{DAY}T00:00:00Z", gpus=4, words=("--lr=0.1", "--api-key", "hunter2"))
    decide(lab, f"{DAY}T12:00:00Z", gpus=8, user="bob")
    commit(lab, "third")
    decide(lab, f"{DAY}T23:59:59.999999999Z", gpus=64)
    decide(lab, "2027-01-06T00:00:00Z", gpus=2)
    return lab


def commit(lab: Lab, text: str) -> str:
    (lab.job / "notes.txt").write_text(text)
    git(lab.job, "add", ".")
    git(lab.job, "commit", "-qm", text)
    return head(lab)


def head(lab: Lab) -> str:
    return git(lab.job, "rev-parse", "HEAD").strip()


def decide(lab: Lab, at: str, *, gpus: int, user: str = "alice", words: Sequence[str] = ()) -> SignedDecision:
    """Decide at this time, as `policyguard run` does."""
    key = read_private_key(lab.folder / "guard.key")
    with Log.open(lab.folder / "audit.db", key, create=True) as log:
        guard = Guard(
            load_snapshot(lab.folder / "policies", (key.public,)),
            key,
            log,
            collectors=(IdentityCollector(), JobCollector(), RepositoryCollector(), ProgramCollector()),
            clock=lambda: parse_instant(at),
        )
        return guard.decide(request(gpus=gpus, user=user), lab.inputs((sys.executable, "train.py", *words)))


@pytest.fixture
def audit(runs: Lab, lab: CliLab) -> Callable[..., Ended]:
    """Run `policyguard audit` about the log of `runs`."""

    def run(verb: str, *words: str) -> Ended:
        return lab.here("audit", verb, *words, "--log", str(runs.folder / "audit.db"))

    return run


def test_which_commit_did_alice_run_on_that_day_with_how_many_gpus(runs: Lab, audit: Callable[..., Ended]) -> None:
    """The question of the design, for people and for programs: one command, and no entry of another day or account."""
    words = ("--subject", "user:alice", "--since", DAY, "--until", DAY)
    shown = audit("show", *words, "--decision", "allow")
    assert shown.code == 0, shown.err
    (commit_line,) = [line for line in shown.out.splitlines() if line.split()[0] == "commit"]
    second = git(runs.job, "rev-parse", "HEAD~1").strip()
    tree = git(runs.job, "rev-parse", "HEAD~1^{tree}").strip()
    assert commit_line.split(maxsplit=1)[1] == f"{second}, tree {tree}, unchanged"
    assert "gpus         4 (claimed)" in shown.out
    assert '"--lr=0.1", "--api-key", "{secret:' in shown.out
    assert "hunter2" not in shown.out
    records = [json.loads(line) for line in audit("show", *words, "--json").out.splitlines()]
    assert [(record["ran"]["commit"], record["ran"]["gpus"]) for record in records] == [(second, 4), (head(runs), 64)]
    assert [record["statement"]["predicate"]["decision"] for record in records] == ["allow", "deny"]
    assert records[0]["ran"]["directory"] == str(runs.job)
    assert records[0]["ran"]["program"]["origin"] == "commit"


def test_one_entry_shows_its_bound_values(audit: Callable[..., Ended]) -> None:
    shown = audit("show", "1")
    for name in ("commit", "gpus", "argv", "program", "directory", "resource.executable", "resource.files"):
        assert any(line.split()[0] == name for line in shown.out.splitlines()), name
    assert '"predicateType"' not in shown.out
    assert audit("show", "1", "--json").data["statement"]["predicate"]["bound"]


FILTERS: dict[str, tuple[tuple[str, ...], list[int]]] = {
    "an account": (("--subject", "user:bob"), [2]),
    "an account that did nothing": (("--subject", "user:mallory"), []),
    "a name that begins alike": (("--subject", "user:ali"), []),
    "an action": (("--action", "job:submit"), [0, 1, 2, 3, 4]),
    "another action": (("--action", "job:stop"), []),
    "a resource": (("--resource", "job:team/vision/run-17"), [0, 1, 2, 3, 4]),
    "the resource above": (("--resource", "job:team/vision"), []),
    "from a day on": (("--since", DAY), [1, 2, 3, 4]),
    "to a day": (("--until", DAY), [0, 1, 2, 3]),
    "from a time on": (("--since", f"{DAY}T12:00:00Z"), [2, 3, 4]),
    "before a time": (("--until", f"{DAY}T12:00:00Z"), [0, 1]),
    "a time in another zone": (("--since", f"{DAY}T13:00:00+01:00", "--until", f"{DAY}T12:00:01Z"), [2]),
    "denials": (("--decision", "deny"), [2, 3]),
    "a reason": (("--reason", "rule.allow"), [0, 1, 4]),
    "a reason that begins alike": (("--reason", "rule"), []),
    "all at once": (("--subject", "user:alice", "--since", DAY, "--until", DAY, "--decision", "deny"), [3]),
}


@pytest.mark.parametrize(("words", "expected"), FILTERS.values(), ids=FILTERS)
def test_entries_are_chosen(words: tuple[str, ...], expected: list[int], audit: Callable[..., Ended]) -> None:
    """`show`, `tail` and `export` choose the same entries."""
    ended = [audit("show", *words, "--json"), audit("tail", *words, "--json"), audit("export", *words)]
    assert [one.code for one in ended] == [0, 0, 0]
    for one in ended:
        assert [json.loads(line)["entry"] for line in one.out.splitlines()] == expected
    assert ended[0].err == ("" if expected else "no entry matches\n")


def test_tail_counts_what_matches(audit: Callable[..., Ended]) -> None:
    lines = audit("tail", "-n", "1", "--subject", "user:bob").out.splitlines()
    assert [line.split()[0] for line in lines] == ["2"]


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "a pattern": (("--subject", "user:*"), "ids are literal"),
    "a pattern of resources": (("--resource", "job:team/**"), "ids are literal"),
    "a bare name": (("--subject", "alice"), "ids are literal"),
    "no action": (("--action", "submit"), "expected `type:verb`"),
    "no decision": (("--decision", "maybe"), "maybe"),
    "no reason": (("--reason", "a b"), "expected a reason code"),
    "an empty reason": (("--reason", ""), "expected a reason code"),
    "no date": (("--since", "yesterday"), "expected a date such as"),
    "a day that does not exist": (("--since", "2027-02-30"), "expected a date such as"),
    "a time without a zone": (("--until", f"{DAY}T09:00:00"), "expected a date such as"),
    "other digits": (("--since", "２０２７-01-05"), "expected a date such as"),
    "an end before the start": (("--since", DAY, "--until", "2027-01-04"), "`--until` is before `--since`"),
}


@pytest.mark.parametrize(("words", "problem"), BAD.values(), ids=BAD)
def test_a_filter_that_cannot_match_is_one_line(
    words: tuple[str, ...], problem: str, audit: Callable[..., Ended]
) -> None:
    for verb in ("show", "tail", "export"):
        ended = audit(verb, *words)
        assert (ended.code, ended.out) == (64, ""), ended.err
        assert problem in ended.complaint


def test_show_asks_for_an_entry_or_a_filter(audit: Callable[..., Ended]) -> None:
    assert audit("show").code == audit("show", "1", "--subject", "user:bob").code == 64


def exported(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_export_is_complete_and_private(runs: Lab, tmp_path: Path, audit: Callable[..., Ended]) -> None:
    out = tmp_path / "all.jsonl"
    ended = audit("export", "--output", str(out))
    assert (ended.code, ended.out, ended.err) == (0, "", f"{out}: 5 entries\n")
    rows = exported(out)
    assert [(row["entry"], row["kind"], row["subject"], row["gpus"]) for row in rows[:3]] == [
        (0, "decision", "user:alice", 1),
        (1, "decision", "user:alice", 4),
        (2, "decision", "user:bob", 8),
    ]
    assert rows[4]["commit"] == head(runs)
    assert rows[1]["statement"]["predicate"]["decision_id"] == rows[1]["decision_id"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.read_text() == audit("export").out
    assert "hunter2" not in out.read_text()


def test_an_export_overwrites_nothing_unasked(tmp_path: Path, audit: Callable[..., Ended]) -> None:
    out = tmp_path / "all.jsonl"
    out.write_text("precious")
    ended = audit("export", "--output", str(out))
    assert (ended.code, out.read_text()) == (78, "precious")
    assert "exists already" in ended.complaint
    assert audit("export", "--output", str(out), "--force", "--subject", "user:bob").code == 0
    assert len(exported(out)) == 1
    link = tmp_path / "link"
    link.symlink_to(out)
    assert audit("export", "--output", str(link), "--force").code == 78
    assert len(exported(out)) == 1


def test_an_export_that_fails_leaves_nothing(
    tmp_path: Path, audit: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full in the middle: no file of that name, no other one, and what was there is as it was."""
    folder = tmp_path / "exports"
    folder.mkdir()
    out = folder / "all.jsonl"

    def full(row: object, **_: object) -> str:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("policyguard.cli.verbs.audit_.export.json.dumps", full)
    ended = audit("export", "--output", str(out))
    assert (ended.code, list(folder.iterdir())) == (78, [])
    assert "no space left on device" in ended.complaint
    out.write_text("yesterday")
    assert audit("export", "--output", str(out), "--force").code == 78
    assert [path.read_text() for path in folder.iterdir()] == ["yesterday"]


def test_what_cannot_be_read_is_skipped_and_reported(runs: Lab, tmp_path: Path, audit: Callable[..., Ended]) -> None:
    key = read_private_key(runs.folder / "guard.key")
    with Log.open(runs.folder / "audit.db", key) as log:
        log.append(sign(b"{}", PAYLOAD_TYPE, (key,)).to_bytes())
    out = tmp_path / "all.jsonl"
    for words in (("--output", str(out)), ()):
        ended = audit("export", *words)
        assert ended.code == 1
        assert "skipped: entry 5" in ended.err
    assert len(exported(out)) == 5
    assert audit("show", "--subject", "user:bob").code == 1


def test_parquet_needs_a_file(audit: Callable[..., Ended]) -> None:
    assert audit("export", "--format", "parquet").code == audit("export", "--force").code == 64


def test_parquet_without_pyarrow_is_one_line(
    tmp_path: Path, audit: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "policyguard.cli.verbs.audit_.parquet", raising=False)
    out = tmp_path / "all.parquet"
    ended = audit("export", "--format", "parquet", "--output", str(out))
    assert (ended.code, out.exists()) == (78, False)
    assert ended.complaint == "policyguard: Parquet needs pyarrow, which is not installed"
    assert "policyguard-engine[parquet]" in ended.err


def test_parquet_has_what_json_lines_have(runs: Lab, tmp_path: Path, audit: Callable[..., Ended]) -> None:
    """pyarrow reads the columns that the question needs, with their types, and the statement as it was signed."""
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "all.parquet"
    ended = audit("export", "--format", "parquet", "--output", str(out))
    assert (ended.code, ended.err) == (0, f"{out}: 5 entries\n")
    table = parquet.read_table(out).to_pylist()
    assert [(row["entry"], row["subject"], row["gpus"]) for row in table[:2]] == [
        (0, "user:alice", 1),
        (1, "user:alice", 4),
    ]
    assert table[4]["commit"] == head(runs)
    assert table[1]["argv"][1:3] == ["train.py", "--lr=0.1"]
    assert str(parquet.read_schema(out).field("occurred_at").type) == "timestamp[us, tz=UTC]"
    lines = [json.loads(line) for line in audit("export").out.splitlines()]
    assert [json.loads(row["statement"]) for row in table] == [line["statement"] for line in lines]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_duckdb_answers_the_question(runs: Lab, tmp_path: Path, audit: Callable[..., Ended]) -> None:
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    out = tmp_path / "all.parquet"
    audit("export", "--format", "parquet", "--output", str(out))
    query = f"""
        SELECT commit, gpus FROM '{out}'
        WHERE subject = 'user:alice' AND occurred_at >= TIMESTAMPTZ '{DAY} 00:00:00+00'
          AND occurred_at < TIMESTAMPTZ '{DAY} 00:00:00+00' + INTERVAL 1 DAY AND decision = 'allow'
    """
    second = git(runs.job, "rev-parse", "HEAD~1").strip()
    assert duckdb.sql(query).fetchall() == [(second, 4)]


def test_a_hostile_statement_does_not_spoil_a_parquet_file(tmp_path: Path) -> None:
    """A value of another type, which only who holds the guard's key can sign, is an empty cell of its own row."""
    parquet = pytest.importorskip("pyarrow.parquet")
    from policyguard.cli.verbs.audit_.parquet import parquet_rows

    good = {"entry": 0, "occurred_at": f"{DAY}T00:00:00Z", "directory": "/a", "gpus": 8, "argv": ["t", {"digest": "x"}]}
    bad = {**good, "entry": 1, "directory": 5, "gpus": 2**70, "checkpoints": "none", "program": [1], "argv": "t"}
    out = tmp_path / "rows.parquet"
    with out.open("wb") as file, parquet_rows(file) as add:
        add(good)
        add(bad)
    rows = parquet.read_table(out).to_pylist()
    assert [(row["entry"], row["directory"], row["gpus"]) for row in rows] == [(0, "/a", 8), (1, None, None)]
    assert [row["argv"] for row in rows] == [["t", '{"digest":"x"}'], None]


def test_a_log_without_entries_is_an_empty_file(tmp_path: Path, lab: CliLab) -> None:
    key = read_private_key(lab.path("guard.key"))
    with Log.open(lab.path("audit.db"), key, create=True):
        pass
    assert lab.here("audit", "export").out == ""
    assert lab.here("audit", "export", "--output", str(tmp_path / "x")).code == 0
    assert (tmp_path / "x").read_bytes() == b""
    parquet = pytest.importorskip("pyarrow.parquet")
    assert lab.here("audit", "export", "--format", "parquet", "--output", str(tmp_path / "y")).code == 0
    assert parquet.read_table(tmp_path / "y").num_rows == 0


def test_an_export_needs_little_memory(runs: Lab, tmp_path: Path) -> None:
    """Ten thousand entries pass through: the peak stays far below their size."""
    import tracemalloc

    from policyguard.cli.verbs.audit_.entries import EntryText
    from policyguard.cli.verbs.audit_.export import _json_lines, row_of

    statement = {"predicate": {"facts": {}, "bound": [], "padding": "x" * 5_000}}
    with (tmp_path / "x").open("wb") as file, _json_lines(file) as write:
        tracemalloc.start()
        for number in range(10_000):
            write(row_of(number, EntryText("", {}, statement, "decision", f"{DAY}T00:00:00Z")))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (tmp_path / "x").stat().st_size > 50_000_000
    assert peak < 1_000_000
