"""Approvals that must not count, each with its own reason; one step away stands the one that does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from policyguard.attest.approval import APPROVAL_PAYLOAD_TYPE, APPROVAL_TYPE
from policyguard.attest.dsse import sign as sign_envelope
from policyguard.attest.keys import decode_base64, encode_base64
from policyguard.attest.sshsig import ED25519
from policyguard.evidence.approvals.verify import MAX_FILE_BYTES, MAX_FILES
from policyguard.values import canonical
from tests.attacks.approvals_lab import HOUR, KEYS, NOW, Lab, because, codes, make_lab, ssh_line
from tests.attacks.git_lab import git

Attack = Callable[[Lab], object]
"""Does something, and returns the lab to decide in if that is another one."""


def after(attack: Attack, lab: Lab) -> Lab:
    changed = attack(lab)
    return changed if isinstance(changed, Lab) else lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Dan has approved as he should; the quorum lacks one lead."""
    made = make_lab(tmp_path)
    made.put("dan")
    return made


def _put(**options: object) -> Attack:
    return lambda lab: lab.put("carol", **options)  # type: ignore[arg-type]


def _edited(lab: Lab) -> None:
    path = lab.put("carol")
    path.write_bytes(path.read_bytes().replace(b"reviewed", b"rewieved"))


def _grown(lab: Lab) -> Lab:
    lab.put("carol")
    larger = lab.asking(gpus=512)
    larger.put("dan")
    return larger


def _grown_over_limit(lab: Lab) -> Lab:
    tree = {name: lab.target.measured_digests[name] for name in ("tree", "command")}
    lab.put("dan", subjects=tree, limits={"gpus": 512})
    lab.put("carol", subjects=tree, limits={"gpus": 8})
    return lab.asking(gpus=512)


def _unnamed_property(lab: Lab) -> Lab:
    tree = {name: lab.target.measured_digests[name] for name in ("tree", "command")}
    lab.put("dan", subjects=tree, limits={"gpus": 512, "queue": "prod"})
    lab.put("carol", subjects=tree, limits={"gpus": 512})
    return lab.asking(gpus=512, queue="prod")


def _other_value(lab: Lab) -> Lab:
    tree = {name: lab.target.measured_digests[name] for name in ("tree", "command")}
    lab.put("dan", subjects=tree, limits={"gpus": 512, "queue": "prod"})
    lab.put("carol", subjects=tree, limits={"gpus": 512, "queue": "test"})
    return lab.asking(gpus=512, queue="prod")


def _other_tree(lab: Lab) -> None:
    lab.put("carol")
    (lab.root / "train.py").write_text("print('changed after the review')\n")
    git(lab.root, "commit", "-qam", "after the review")
    lab.put("dan")


def _other_command(lab: Lab) -> Lab:
    lab.put("carol")
    changed = replace(lab, inputs=msgspec.structs.replace(lab.inputs, argv=("python3", "-c", "evil")))
    changed.put("dan")
    return changed


def _without(name: str) -> Attack:
    def attack(lab: Lab) -> None:
        subjects = {**lab.target.measured_digests, "request": lab.target.request_digest}
        del subjects[name]
        lab.put("carol", subjects=subjects)

    return attack


def _too_many_subjects(lab: Lab) -> None:
    subjects = {**lab.target.measured_digests, "request": lab.target.request_digest, "checkpoint": "0" * 64}
    lab.put("carol", subjects=subjects)


def _revoked(lab: Lab) -> Lab:
    lab.put("carol")
    return lab.pin("revoked_keys", f"# left the team\n{ssh_line('carol')} carol@laptop\n")


def _window(options: str) -> Attack:
    def attack(lab: Lab) -> Lab:
        lab.put("carol")
        return lab.pin("allowed_signers", f"carol@lab {options} {ssh_line('carol')}\n")

    return attack


def _two_persons(lab: Lab) -> Lab:
    lab.put("carol")
    return lab.pin("allowed_signers", f"*@lab {ssh_line('carol')}\n")


def _nobody_known(lab: Lab) -> Lab:
    lab.put("carol", key="ssh-only")
    return lab.pin("allowed_signers", f"stranger@elsewhere {ssh_line('ssh-only')}\n")


def _envelope_of(key: str, who: str = "carol") -> Attack:
    def attack(lab: Lab) -> None:
        envelope = sign_envelope(lab.statement(who).payload, APPROVAL_PAYLOAD_TYPE, [KEYS[key]])
        (lab.folder / "carol.json").write_bytes(envelope.to_bytes() + b"\n")

    return attack


def _envelope_signed_by(*keys: str, kind: str = APPROVAL_PAYLOAD_TYPE) -> Attack:
    def attack(lab: Lab) -> None:
        envelope = sign_envelope(lab.statement("carol").payload, kind, [KEYS[key] for key in keys])
        (lab.folder / "carol.json").write_bytes(envelope.to_bytes())

    return attack


def _envelope_with_stolen_keyid(lab: Lab) -> None:
    payload = lab.statement("carol").payload
    data = sign_envelope(payload, APPROVAL_PAYLOAD_TYPE, [KEYS["mallory"]]).to_bytes()
    (lab.folder / "carol.json").write_bytes(data.replace(KEYS["mallory"].keyid.encode(), KEYS["carol"].keyid.encode()))


def _file(content: bytes, signature: bytes | None = None) -> Attack:
    def attack(lab: Lab) -> None:
        (lab.folder / "carol.json").write_bytes(content)
        if signature is not None:
            (lab.folder / "carol.json.sig").write_bytes(signature)

    return attack


def _truncated(lab: Lab) -> None:
    path = lab.put("carol")
    lab.put("carol", path.read_bytes()[:-20])


def _truncated_signature(lab: Lab) -> None:
    path = lab.put("carol").with_name("carol.json.sig")
    path.write_bytes(path.read_bytes()[:120])


def _other_spelling(lab: Lab) -> None:
    lab.put("carol", lab.statement("carol").payload + b"\n")


def _too_long_lived(lab: Lab) -> None:
    payload = lab.statement("carol").payload
    lab.put("carol", payload.replace(b'"expires":"2030', b'"expires":"2031'))


def _decision_statement(lab: Lab) -> None:
    payload = lab.statement("carol").payload
    lab.put("carol", payload.replace(APPROVAL_TYPE.encode(), b"urn:policyguard:decision:v1"))


def _link(lab: Lab) -> None:
    path = lab.put("carol")
    path.rename(lab.folder / "elsewhere")
    path.symlink_to(lab.folder / "elsewhere")


def _fifo(lab: Lab) -> None:
    os.mkfifo(lab.folder / "carol.json")


def _rsa(lab: Lab) -> None:
    path = lab.put("carol").with_name("carol.json.sig")
    blob = decode_base64(b"".join(path.read_bytes().split(b"\n")[1:-2])) or b""
    blob = blob.replace(ED25519.encode(), b"ecdsa-ssh25", 1)
    text = encode_base64(blob)
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    path.write_bytes(b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""]))


ATTACKS: dict[str, tuple[str, Attack]] = {
    "edited after it was signed": ("approval.forged", _edited),
    "signature over another payload": ("approval.forged", _put(over=b"something else")),
    "an envelope whose key id is carol's and whose key is mallory's": ("approval.forged", _envelope_with_stolen_keyid),
    "an envelope signed for another purpose": ("approval.malformed", _envelope_signed_by("carol", kind="text/plain")),
    "an envelope that two signed": ("approval.malformed", _envelope_signed_by("carol", "mallory")),
    "by a key that was not yet carol's when it was signed": (
        "approval.key_window",
        _window('valid-after="20300317174000Z"'),
    ),
    "by a key that is no longer carol's since it was signed": (
        "approval.key_window",
        _window('valid-before="20300317174000Z"'),
    ),
    "for 256 GPUs, when 512 are asked for": ("approval.other_request", _grown),
    "up to 8 GPUs, when 512 are asked for": ("approval.over_limit", _grown_over_limit),
    "with a limit for GPUs only, when a queue is asked for too": ("approval.no_limit", _unnamed_property),
    "for the queue test, when prod is asked for": ("approval.other_value", _other_value),
    "for the tree before the last commit": ("approval.other_tree", _other_tree),
    "for another command": ("approval.other_command", _other_command),
    "that names no tree": ("approval.no_tree", _without("tree")),
    "that names no command": ("approval.no_command", _without("command")),
    "that names a checkpoint nobody looked at": ("approval.no_checkpoint", _too_many_subjects),
    "expired a moment ago": ("approval.expired", _put(approved_at=NOW - 2 * HOUR, expires=NOW)),
    "that begins in an hour": ("approval.not_yet_valid", _put(approved_at=NOW + HOUR, expires=NOW + 2 * HOUR)),
    "older than the quorum takes": ("approval.too_old", _put(approved_at=NOW - 49 * HOUR, expires=NOW + HOUR)),
    "by a revoked key": ("approval.revoked_key", _revoked),
    "by a key whose time is over": ("approval.key_window", _window('valid-before="20200101Z"')),
    "by a key whose time has not begun": ("approval.key_window", _window('valid-after="20990101Z"')),
    "by a key that may sign commits only": ("approval.wrong_namespace", _window('namespaces="git"')),
    "signed as a commit would be": ("approval.wrong_namespace", _put(namespace="git")),
    "by a key that nobody knows": ("approval.unknown_signer", _put(key="mallory")),
    "an envelope by a key that nobody knows": ("approval.unknown_signer", _envelope_of("mallory")),
    "by a signer that Persons does not know": ("approval.unknown_person", _nobody_known),
    "by a key that speaks for everybody": ("approval.ambiguous_key", _two_persons),
    "in carol's name, by erin's key": ("approval.not_the_signer", _put(key="erin")),
    "in the name of an account that carol does not have": ("approval.not_the_signer", _put(approver="user:root")),
    "by the requester": ("approval.contributor", lambda lab: lab.put("alice") and None),
    "by the requester's second account": (
        "approval.same_person",
        lambda lab: lab.put("alice", approver="user:alice-lead"),
    ),
    "by the other approver's second account": (
        "approval.same_person",
        lambda lab: lab.put("dan", approver="user:dan-admin", name="carol"),
    ),
    "by somebody who is no lead": ("approval.no_role", lambda lab: lab.put("erin") and None),
    "that is empty": ("approval.malformed", _file(b"")),
    "that is not JSON": ("approval.malformed", _file(b"\xff\xfe{", b"no signature")),
    "that is truncated": ("approval.malformed", _truncated),
    "whose signature is truncated": ("approval.malformed", _truncated_signature),
    "in another form": ("approval.malformed", _other_spelling),
    "for more than a week": ("approval.malformed", _too_long_lived),
    "that is a decision": ("approval.malformed", _decision_statement),
    "of nested lists": ("approval.malformed", _file(b"[" * 50_000)),
    "by a key of another kind": ("approval.key_type", _rsa),
    "that is huge": ("approval.unreadable", _file(b" " * (MAX_FILE_BYTES + 1))),
    "that is a symbolic link": ("approval.unreadable", _link),
    "that is a FIFO": ("approval.unreadable", _fifo),
}


@pytest.mark.parametrize(("code", "attack"), ATTACKS.values(), ids=ATTACKS)
def test_an_approval_does_not_count(lab: Lab, code: str, attack: Attack) -> None:
    """I5, I8, I9 and I10: denied, with the reason code of what is wrong, and nothing is raised."""
    decision = after(attack, lab).decide()
    assert not decision.allowed
    assert decision.unmet_approvals[0].needed == 1, because(decision)
    assert codes(decision) == {code}, because(decision)


TWINS: dict[str, Attack] = {
    "with an SSH signature": _put(),
    "in an envelope": _envelope_of("carol"),
    "up to 512 GPUs, when 512 are asked for": lambda lab: (
        lab.put("dan", subjects=dict(lab.target.measured_digests), limits={"gpus": 512})
        and lab.put("carol", subjects=dict(lab.target.measured_digests), limits={"gpus": 512})
        and lab.asking(gpus=512)
    ),
    "for a pattern of resources": lambda lab: lab.put(
        "carol",
        subjects=dict(lab.target.measured_digests),
        limits={"gpus": 256},
        resource="job:team/vision/**",
        resource_is_pattern=True,
    ),
    "for whatever command": lambda lab: lab.put(
        "carol", subjects={"tree": lab.target.measured_digests["tree"]}, limits={"gpus": 256}, any_command=True
    ),
    "that expires in a moment": _put(approved_at=NOW - 2 * HOUR, expires=NOW + 1000),
    "that begins now": _put(approved_at=NOW, expires=NOW + HOUR),
    "by a key within its time": _window('valid-after="20200101Z",valid-before="20990101Z"'),
    "by a key that may sign approvals": _window('namespaces="git,policyguard-approval@v*"'),
    "by a key that only the file of allowed signers knows": lambda lab: (
        lab.put("carol", key="ssh-only") and lab.pin("allowed_signers", f"carol@lab {ssh_line('ssh-only')}\n")
    ),
    "when somebody else's key is revoked": lambda lab: (
        lab.put("carol") and lab.pin("revoked_keys", f"{ssh_line('erin')}\n")
    ),
    "beside files that are no approvals": lambda lab: (
        lab.put("carol") and (lab.folder / "README.md").write_bytes(b"\xff")
    ),
    "beside a file whose name is no UTF-8": lambda lab: (
        lab.put("carol") and Path(os.fsdecode(os.fsencode(lab.folder) + b"/\xff\n.json")).write_bytes(b"{}")
    ),
}


@pytest.mark.parametrize("attack", TWINS.values(), ids=TWINS)
def test_an_approval_counts(lab: Lab, attack: Attack) -> None:
    """The twins, one step away from the attacks."""
    decision = after(attack, lab).decide()
    assert decision.allowed, because(decision)


BROKEN_FILES: dict[str, tuple[str, str, int]] = {
    "a certificate authority": ("allowed_signers", f"*@lab cert-authority {ssh_line('carol')}\n", 0o644),
    "an unknown option": ("allowed_signers", f"carol@lab verify-required {ssh_line('carol')}\n", 0o644),
    "a damaged key": ("allowed_signers", "carol@lab ssh-ed25519 AAAA\n", 0o644),
    "a time that is none": ("allowed_signers", f'carol@lab valid-after="tomorrow" {ssh_line("carol")}\n', 0o644),
    "a file that everybody may write to": ("allowed_signers", f"carol@lab {ssh_line('carol')}\n", 0o666),
    "a revoked key that cannot be read": ("revoked_keys", "ssh-ed25519 AAAA\n", 0o644),
    "an accepted id that is none": ("reviewed_commits", "main\n", 0o644),
}


@pytest.mark.parametrize(("name", "text", "mode"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_pinned_file_with_a_mistake_approves_nothing(lab: Lab, name: str, text: str, mode: int) -> None:
    """I2 and I8: the operator's own files are understood as a whole or nobody is independent."""
    lab.put("carol")
    decision = lab.pin(name, text, mode).decide()
    assert not decision.allowed
    assert "approval.unreadable" in codes(decision)


def test_a_missing_pinned_file_approves_nothing(lab: Lab) -> None:
    """I2: a path that leads nowhere is no empty list."""
    lab.put("carol")
    assert not lab.pinning(revoked_keys=lab.folder / "nowhere").decide().allowed
    assert not lab.pinning(approvals=lab.folder / "nowhere").decide().allowed
    assert lab.decide().allowed


def test_a_flood_of_files_denies_and_is_named(lab: Lab) -> None:
    """More files than are read are said to be too many; what is read still counts."""
    lab.put("carol", name="zz-carol")
    for number in range(MAX_FILES):
        (lab.folder / f"flood-{number:05d}.json").write_bytes(b"{}")
    decision = lab.decide()
    assert not decision.allowed
    assert codes(decision) == {"approval.malformed", "approval.too_many"}
    assert len(because(decision)) < 10


def test_every_explanation_is_bounded_text(lab: Lab) -> None:
    """What an attacker writes into an approval reaches the explanation on one line, escaped and cut."""
    reason = canonical("x\n\x1b[31m" * 20).decode()[1:-1]
    payload = lab.statement("carol").payload.replace(b"user:carol", f"user:{'x' * 250}".encode())
    lab.put("carol", payload.replace(b"reviewed", reason.encode()))
    (lab.folder / "a\nb\x1b.json").write_bytes(b"{}")
    for line in because(lab.decide()):
        assert line.isprintable()
        assert len(line) <= 300
