"""A reset is accepted by the operator, with a reason, and by the witness; a rotation is a link that auditors check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey, sign_note
from policyguard.audit.check import check_chain
from policyguard.audit.continuity import accept_reset, rotate
from policyguard.audit.head import HeadLocation, read_head
from policyguard.audit.links import parse_link
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError, ConfigurationError
from policyguard.guard import log_origin
from tests.attacks import test_policy_rollback as policies
from tests.attacks.test_log_continuity import KEY, Lab, ask, delete, prepare

WITNESS = PrivateKey.generate(bytes(range(1, 33)))
WITNESS_KEY = NoteKey("witness.example/w", WITNESS.public)
NOW = 1_800_000_000 * 10**9


@pytest.fixture(params=[None, "state"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    return Lab(tmp_path, request.param)


def place(lab: Lab) -> HeadLocation:
    return HeadLocation.of(lab.log, lab.state)


def accept(lab: Lab, **options: object) -> int:
    return accept_reset(str(lab.log), KEY, place(lab), reason="disk lost", now=NOW, **options)  # type: ignore[arg-type]


def test_a_reset_names_the_old_head(lab: Lab) -> None:
    """Deleted: refused; accepted: the new log says what was before, and why."""
    prepare(lab)
    delete(lab)
    with pytest.raises(AuditError):
        lab.decide()
    assert accept(lab) == 0
    assert lab.decide() == [1]
    with SqliteStore.open(lab.log, read_only=True) as store:
        link = parse_link(next(iter(store.read(0, 1))).leaf, 0)
    assert (link.event, link.reason, link.old.size, link.old.origin) == (
        "reset",
        "disk lost",
        3,
        log_origin(KEY.public),
    )
    # The log that was given up cannot come back.
    with pytest.raises(ConfigurationError, match="goes on from its head file"):
        accept(lab)


def test_the_log_that_was_given_up_is_refused(lab: Lab) -> None:
    prepare(lab)
    lab.log.rename(lab.folder / "kept.db")
    accept(lab)
    delete(lab)
    (lab.folder / "kept.db").rename(lab.log)
    with pytest.raises(AuditError, match=r"is a fork"):
        lab.decide()


def test_a_reset_needs_a_reason(lab: Lab) -> None:
    prepare(lab)
    delete(lab)
    with pytest.raises(ConfigurationError, match="--reason"):
        accept_reset(str(lab.log), KEY, place(lab), reason=" ", now=NOW)


def test_a_reset_needs_the_witness(lab: Lab) -> None:
    """Where a witness is configured, the operator alone cannot give up what it has seen."""
    prepare(lab)
    head = read_head(place(lab), log_origin(KEY.public))
    assert head is not None
    checkpoint = head.checkpoint()
    assert checkpoint is not None
    delete(lab)
    with pytest.raises(ConfigurationError, match="--witness is missing"):
        accept(lab, witness=WITNESS_KEY)
    for text, key, match in (
        (checkpoint.to_text(), KEY, "carries no signature|does not verify"),
        (checkpoint.to_text().replace(b"\n3\n", b"\n2\n"), WITNESS, "is about 2 entries"),
    ):
        note = sign_note(text, NoteKey(WITNESS_KEY.name, key.public), key)
        with pytest.raises(ConfigurationError, match=match):
            accept(lab, witness=WITNESS_KEY, countersigned=note)
    with pytest.raises(AuditError):
        lab.decide()
    accept(lab, witness=WITNESS_KEY, countersigned=sign_note(checkpoint.to_text(), WITNESS_KEY, WITNESS))
    assert lab.decide() == [1]


def test_a_head_file_that_was_lost_is_accepted_with_a_reason(lab: Lab) -> None:
    prepare(lab)
    for path in Path(place(lab).state_dir).glob("*.head"):
        path.unlink()
    assert accept(lab) == 3
    assert lab.decide() == [4]


def test_a_log_of_another_key_is_not_accepted(lab: Lab) -> None:
    """A reset changes which log counts, not who may have written it."""
    prepare(lab)
    with pytest.raises(AuditError, match="no signature"):
        accept_reset(str(lab.log), WITNESS, place(lab), reason="why", now=NOW)


# ---- rotation


def test_a_rotation_is_linked_and_goes_on(lab: Lab) -> None:
    prepare(lab)
    target = rotate(str(lab.log), KEY, place(lab), archive=None, reason="monthly", now=NOW)
    assert target == f"{lab.log}.3"
    assert lab.decide(2) == [1, 2]
    with SqliteStore.open(target, read_only=True) as old, SqliteStore.open(lab.log, read_only=True) as new:
        assert check_chain([old, new], None).checkpoint.size == 3
        with pytest.raises(AuditError, match="entry 0 is no link to an older log, expected one after a rotation"):
            check_chain([new, old], None)
        with pytest.raises(AuditError, match="entry 0 names a log of 3 entries"):
            check_chain([new, new], None)
    # A second one has a link to the first.
    again = rotate(str(lab.log), KEY, place(lab), archive=str(lab.log) + ".second", reason="monthly", now=NOW)
    assert lab.decide() == [1]
    logs = [SqliteStore.open(path, read_only=True) for path in (target, again, lab.log)]
    assert check_chain(logs, None).checkpoint.size == 2


def test_the_old_log_put_back_after_a_rotation_is_refused(lab: Lab) -> None:
    prepare(lab)
    target = rotate(str(lab.log), KEY, place(lab), archive=None, reason="monthly", now=NOW)
    delete(lab)
    Path(target).rename(lab.log)
    with pytest.raises(AuditError):
        lab.decide()


def test_a_guard_that_runs_during_a_rotation_refuses(lab: Lab) -> None:
    """What it would add would be in the archive, after the link."""
    prepare(lab)
    with lab.guard() as guard:
        ask(guard)
        rotate(str(lab.log), KEY, place(lab), archive=None, reason="monthly", now=NOW)
        with pytest.raises(AuditError, match=r"was replaced|was cut|is gone"):
            ask(guard)
    assert lab.decide() == [1]


@pytest.mark.parametrize("step", ["made", "head", "moved"])
def test_a_rotation_that_was_stopped_is_finished(lab: Lab, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash after each step: guards refuse or go on with the old log, and the next rotation ends it."""
    prepare(lab)
    module = "policyguard.audit.continuity"

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "made":
            patch.setattr("policyguard.audit.head.HeadFile.reset", crash)
        elif step == "head":
            patch.setattr(f"{module}._move", crash)
        else:
            patch.setattr(f"{module}.sync_folder", crash)
        with pytest.raises(KeyboardInterrupt):
            rotate(str(lab.log), KEY, place(lab), archive=None, reason="monthly", now=NOW)
    if step == "made":
        assert lab.decide() == [3]
    elif step == "head":
        with pytest.raises(AuditError):
            lab.decide()
    target = rotate(str(lab.log), KEY, place(lab), archive=None, reason="monthly", now=NOW)
    assert lab.decide() == [1]
    with SqliteStore.open(target, read_only=True) as old, SqliteStore.open(lab.log, read_only=True) as new:
        check_chain([old, new], None)
    assert not Path(f"{lab.log}.next").exists()


def test_an_archive_is_never_overwritten(lab: Lab) -> None:
    prepare(lab)
    Path(f"{lab.log}.3").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        rotate(str(lab.log), KEY, place(lab), archive=None, reason="monthly", now=NOW)
    assert lab.decide() == [3]
    assert json.dumps(Path(f"{lab.log}.3").read_text()) == '"mine"'


def test_policies_do_not_go_back_by_a_reset(tmp_path: Path) -> None:
    """The log that goes on has seen newer policies than the head that is given up: its own count."""
    lab = Lab(tmp_path)
    policies.decide(lab, policies.compiled(lab, 3))
    (head,) = lab.log.parent.glob("*.head")
    given_up = head.read_bytes()
    for path in lab.log.parent.iterdir():
        path.unlink()
    policies.decide(lab, policies.compiled(lab, 5))
    head.write_bytes(given_up)
    accept(lab)
    with pytest.raises(ConfigurationError, match="are of epoch 4, expected at least 5"):
        policies.decide(lab, policies.compiled(lab, 4))
    policies.decide(lab, policies.compiled(lab, 5))
