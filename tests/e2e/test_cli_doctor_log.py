"""`doctor` says where the log and its head file are, what is wrong with either, and what is not configured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyguard.fs import mounts
from tests.e2e.cli_lab import CliLab


def decide(lab: CliLab) -> None:
    assert lab.here("decide", "requests/allowed.json").code == 0


def configure(lab: CliLab, state: Path | None) -> None:
    path = lab.path("policyguard.yaml")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("stateDir:")]
    path.write_text("\n".join([*lines, *([] if state is None else [f"stateDir: {state}"]), ""]))


def head(folder: Path) -> Path:
    (path,) = folder.glob("*.head")
    return path


def test_the_place_of_log_and_head_file_are_named(lab: CliLab) -> None:
    configure(lab, None)
    details = lab.here("doctor", "--json").data["details"]["log"]
    assert len(details) == 1
    assert details[0].endswith("there is no log yet")
    decide(lab)
    said = lab.here("doctor")
    assert said.code == 0
    kind = mounts.file_system(lab.path("audit.db"))
    assert f"audit.db: on {kind}" in said.out
    assert f"head file {head(lab.path())}; `stateDir:` is not configured" in said.out


def test_the_state_folder_is_named(lab: CliLab, tmp_path: Path) -> None:
    state = tmp_path / "state"
    configure(lab, state)
    decide(lab)
    said = lab.here("doctor")
    assert (said.code, "not configured" in said.out) == (0, False)
    assert f"head file {head(state)}" in said.out


def test_what_is_not_configured_is_reported(lab: CliLab) -> None:
    lab.path("policyguard.yaml").write_text("{}\n")
    ended = lab.here("doctor", "--json")
    assert ended.code == 0
    assert ended.data["details"] == {title: ["not configured"] for title in ("key", "log", "policies", "trust")}


def test_a_head_file_that_is_gone_makes_the_doctor_report_it(lab: CliLab) -> None:
    decide(lab)
    head(lab.path()).unlink()
    ill = lab.here("doctor")
    assert ill.code == 1
    assert "is not there: no such file" in ill.out
    assert lab.here("decide", "requests/allowed.json").code == 69


@pytest.mark.parametrize(("mode", "code"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o660, 1), (0o602, 1)])
def test_a_head_file_that_others_may_change_is_refused(lab: CliLab, mode: int, code: int) -> None:
    decide(lab)
    head(lab.path()).chmod(mode)
    assert lab.here("doctor").code == code
    assert (lab.here("decide", "requests/allowed.json").code == 69) == bool(code)


def test_a_log_that_is_older_than_its_head_is_reported(lab: CliLab) -> None:
    decide(lab)
    older = lab.path("audit.db").read_bytes()
    decide(lab)
    lab.path("audit.db").write_bytes(older)
    ill = lab.here("doctor")
    assert (ill.code, "the end was cut off" in ill.out) == (1, True)


def test_a_log_on_a_file_system_of_other_machines_is_reported(
    lab: CliLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = lab.path().stat().st_dev
    table = tmp_path / "mountinfo"
    table.write_text(f"26 1 {os.major(device)}:{os.minor(device)} / / rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(mounts.file_system, "__defaults__", (str(table),))
    monkeypatch.setattr(mounts.shared_file_system, "__defaults__", (str(table),))
    ill = lab.here("doctor")
    assert ill.code == 1
    assert "lies on `nfs4`" in ill.out
    assert "audit.db: on nfs4" in ill.out
