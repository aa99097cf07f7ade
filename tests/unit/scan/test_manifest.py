"""Manifests say who wrote which bytes; the chain shows every step; each refusal has its twin."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyguard.attest.dsse import Envelope, parse, sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import PAYLOAD_TYPE
from policyguard.errors import EvidenceError, VerificationError
from policyguard.scan.files import scan_paths
from policyguard.scan.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    Manifest,
    check_chain,
    check_files,
    check_follows,
    manifest_of,
    sign_manifest,
    verify_manifest,
)
from tests.attacks.checkpoint_lab import EVIL, GOOD, STORAGE, torch_zip

KEY, OTHER = PrivateKey.generate(b"k" * 32), PrivateKey.generate(b"o" * 32)
TRAINER = "service:trainer-17"
PRODUCERS = {TRAINER: [KEY.public], "service:other": [OTHER.public]}
NOW = 1_800_000_000_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.pt").write_bytes(torch_zip(GOOD, **STORAGE))
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.json").write_text("{}")
    return tmp_path


def made(folder: Path, step: int = 1, previous: Manifest | None = None) -> Manifest:
    scans = scan_paths([folder])
    return manifest_of(folder, scans, producer=TRAINER, run="run-17", step=step, now=NOW + step, previous=previous)


def test_a_signed_manifest_verifies_and_fits_its_files(folder: Path) -> None:
    """The twin of every refusal: producer, files and bytes are what was signed."""
    data = sign_manifest(made(folder), [KEY]).to_bytes()
    (folder / MANIFEST_NAME).write_bytes(data)
    manifest = verify_manifest(data, PRODUCERS)
    check_files(manifest, folder, scan_paths([folder]))
    assert [name for name, _ in manifest.resources] == ["model.pt", "shards/a.json"]
    assert manifest == made(folder)


def test_a_single_file_has_a_manifest_too(folder: Path) -> None:
    """Its one resource is named `.`, as model signing does."""
    path = folder / "model.pt"
    manifest = made(path)
    assert [name for name, _ in manifest.resources] == ["."]
    check_files(manifest, path, scan_paths([path]))


@pytest.mark.parametrize("change", ["changed", "missing", "added", "renamed", "link"])
def test_other_files_than_signed_are_refused(change: str, folder: Path) -> None:
    """INVARIANT I17: a changed, missing, added, renamed or linked file is refused by name."""
    manifest = made(folder)
    path = folder / "model.pt"
    if change == "changed":
        path.write_bytes(EVIL)
    elif change == "missing":
        path.unlink()
    elif change == "added":
        (folder / "extra.pt").write_bytes(EVIL)
    elif change == "renamed":
        path.rename(folder / "other.pt")
    else:
        path.unlink()
        path.symlink_to("/etc/passwd")
    with pytest.raises(VerificationError, match=r"V7: `.*(model|extra|other)\.pt"):
        check_files(manifest, folder, scan_paths([folder]))


def test_a_manifest_signed_by_another_producer_is_refused(folder: Path) -> None:
    """INVARIANT I10: naming a producer is a claim; the key decides."""
    with pytest.raises(VerificationError, match="V4: 0 of the trusted keys signed this"):
        verify_manifest(sign_manifest(made(folder), [OTHER]).to_bytes(), PRODUCERS)


def test_a_manifest_of_an_unknown_producer_is_refused(folder: Path) -> None:
    """No pinned keys, no producer."""
    with pytest.raises(VerificationError, match="V4: 0 trusted keys"):
        verify_manifest(sign_manifest(made(folder), [KEY]).to_bytes(), {})


def resigned(envelope: Envelope, change: Callable[[dict[str, object]], object]) -> bytes:
    data = json.loads(envelope.payload)
    change(data)
    payload = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    return sign(payload, PAYLOAD_TYPE, [KEY]).to_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(predicateType="x"), "V5: predicate type is `x`"),
        (lambda d: d["predicate"].pop("policyguard"), "V1: not a manifest"),
        (lambda d: d["subject"][0]["digest"].update(sha256="0" * 64), "V1: the manifest is not in its canonical form"),
        (lambda d: d["predicate"].update(more=1), "V1: the manifest is not in its canonical form"),
        (lambda d: d["predicate"]["resources"].reverse(), "V1: not a manifest: resources must be sorted"),
        (lambda d: d["predicate"]["resources"].clear(), "V1: not a manifest"),
        (lambda d: d["predicate"]["resources"][0].update(name="../x"), "V1: not a manifest"),
        (lambda d: d["predicate"]["resources"][0].update(digest="AB"), "V1: not a manifest"),
        (lambda d: d["predicate"]["policyguard"].update(step=True), "V1: not a manifest"),
        (lambda d: d["predicate"]["policyguard"].update(producer="trainer"), "V1: not a manifest"),
        (
            lambda d: d["predicate"]["policyguard"].update(step=-1),
            "V1: not a manifest: step: found -1, expected a count",
        ),
        (
            lambda d: d["predicate"]["policyguard"].update(run=""),
            "V1: not a manifest: run: found no name, expected one",
        ),
        (lambda d: d["predicate"]["policyguard"].update(run=7), "V1: not a manifest"),
        (lambda d: d["subject"][0].update(name=""), "V1: not a manifest: resources and names"),
        (lambda d: d["subject"].clear(), "V1: not a manifest"),
        (lambda d: d.update(predicate=[]), "V1: not a manifest"),
        (lambda d: d["predicate"]["resources"][0].update(name="/etc/x"), "V1: not a manifest: resources must be"),
        (lambda d: d["predicate"]["resources"][0].update(name="a/../x"), "V1: not a manifest: resources must be"),
    ],
)
def test_a_malformed_manifest_is_refused_though_signed(
    change: Callable[[dict[str, object]], object], message: str, folder: Path
) -> None:
    """INVARIANT I5: a right signature over a wrong statement helps nobody."""
    with pytest.raises(VerificationError, match=message):
        verify_manifest(resigned(sign_manifest(made(folder), [KEY]), change), PRODUCERS)


def test_a_chain_of_steps_holds(folder: Path) -> None:
    """Each manifest names the one before; the whole chain checks."""
    first = made(folder)
    second = made(folder, 2, first)
    third = made(folder, 3, second)
    check_chain([first, second, third])
    assert third.previous == second.digest


@pytest.mark.parametrize("attack", ["empty", "gap", "swapped", "no start", "replay", "other run"])
def test_a_broken_chain_is_refused(attack: str, folder: Path) -> None:
    """INVARIANT I17: a step that was left out, swapped, repeated or taken from another run shows."""
    first = made(folder)
    second = made(folder, 2, first)
    third = made(folder, 3, second)
    chain = {
        "empty": [],
        "gap": [first, third],
        "swapped": [second, first],
        "no start": [second, third],
        "replay": [first, second, second],
        "other run": [first, msgspec.structs.replace(second, run="run-18")],
    }[attack]
    with pytest.raises(VerificationError, match="V7: "):
        check_chain(chain)


def test_a_step_back_does_not_follow(folder: Path) -> None:
    """A later manifest of an earlier step is not the next step."""
    first = made(folder, 5)
    with pytest.raises(VerificationError, match="V7: step 4 does not come after step 5"):
        check_follows(msgspec.structs.replace(made(folder, 6, first), step=4), first)


def test_only_what_would_verify_is_made_and_signed(folder: Path) -> None:
    """I17: who signs is told before anybody else is: no step backwards, no member that would be refused."""
    first = made(folder)
    check_follows(made(folder, 2, first), first)
    with pytest.raises(VerificationError, match="step 1 does not come after step 1"):
        made(folder, 1, first)
    late = msgspec.structs.replace(first, created_at=NOW + 5)
    second = msgspec.structs.replace(made(folder, 6, late), created_at=NOW + 4)
    with pytest.raises(VerificationError, match="step 6 does not come after step 1"):
        check_follows(second, late)
    check_follows(msgspec.structs.replace(second, created_at=NOW + 5), late)
    for wrong in ({"step": -1}, {"run": ""}, {"producer": "trainer"}, {"resources": (("../x", "0" * 64),)}):
        with pytest.raises(ValueError, match=r"must be|expected"):
            sign_manifest(msgspec.structs.replace(first, **wrong), [KEY])
    zero = msgspec.structs.replace(first, step=0)
    assert verify_manifest(sign_manifest(zero, [KEY]).to_bytes(), PRODUCERS) == zero


def test_another_payload_by_the_producers_key_is_no_manifest(folder: Path) -> None:
    """A statement of another payload type, signed for something else, is not read as one."""
    payload = sign_manifest(made(folder), [KEY]).payload
    with pytest.raises(VerificationError, match="V5: payload type is `text/plain`"):
        verify_manifest(sign(payload, "text/plain", [KEY]).to_bytes(), PRODUCERS)


def test_hostile_and_unreadable_files_are_not_vouched_for(folder: Path) -> None:
    """A run does not sign what it cannot have meant."""
    (folder / "evil.pkl").write_bytes(EVIL)
    with pytest.raises(EvidenceError, match="expected nothing hostile in a manifest"):
        made(folder)
    (folder / "evil.pkl").unlink()
    (folder / "link.pt").symlink_to("/etc/passwd")
    with pytest.raises(EvidenceError, match="symbolic link"):
        made(folder)


def test_an_empty_folder_has_no_manifest(tmp_path: Path) -> None:
    """Nothing is not a checkpoint."""
    with pytest.raises(EvidenceError, match="found no files"):
        made(tmp_path)


def test_the_statement_is_model_signings(folder: Path) -> None:
    """Types, subject and resources are those of model signing 1.0, which ignores our member."""
    statement = json.loads(parse(sign_manifest(made(folder), [KEY]).to_bytes()).payload)
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    assert {"serialization", "resources", "policyguard"} == set(statement["predicate"])
    assert {"name", "algorithm", "digest"} == set(statement["predicate"]["resources"][0])


RECORDED = Path(__file__).parents[2] / "data" / "manifest" / "model_signing_1.1.1.json"


def test_the_statement_equals_that_of_model_signing_for_the_same_files(tmp_path: Path) -> None:
    """Recorded output of `model_signing sign key`: same kind, subject, root digest and resources."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}\n")
    (folder / "sub" / "w.bin").write_bytes(b"\0" * 100)
    theirs, ours = json.loads(RECORDED.read_text()), json.loads(made(folder).to_statement())
    for name in ("_type", "predicateType", "subject"):
        assert ours[name] == theirs[name]
    assert ours["predicate"]["resources"] == theirs["predicate"]["resources"]
    assert {**ours["predicate"]["serialization"], "ignore_paths": []} == {
        **theirs["predicate"]["serialization"],
        "ignore_paths": [],
    }


def test_a_statement_of_model_signing_names_no_producer_and_is_refused(folder: Path) -> None:
    """Without our member there is no run and no step: nothing to chain, nobody to have signed as."""
    payload = json.dumps(json.loads(RECORDED.read_text()), sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(VerificationError, match="V1: not a manifest: 'policyguard'"):
        verify_manifest(sign(payload, PAYLOAD_TYPE, [KEY]).to_bytes(), PRODUCERS)


def test_model_signing_reads_our_statement(folder: Path) -> None:
    """Where model-signing is installed: its parser accepts the statement and finds the same files and digests."""
    signing = pytest.importorskip("model_signing._signing.signing")
    manifest = made(folder)
    theirs = signing.dsse_payload_to_manifest(json.loads(manifest.to_statement()))
    found = {each.identifier: each.digest.digest_hex for each in theirs.resource_descriptors()}
    assert found == dict(manifest.resources)


def of_many(count: int, *, producer: str = TRAINER, letters: int = 0) -> Manifest:
    names = (f"mp_rank_00/{'x' * letters}shard-{number:06d}.distcp" for number in range(count))
    resources = tuple((name, hashlib.sha256(name.encode()).hexdigest()) for name in names)
    return Manifest(name="step", resources=resources, producer=producer, run="r", step=1, created_at=NOW)


def test_a_checkpoint_of_twenty_thousand_files_has_a_manifest() -> None:
    """More than other envelopes may hold; it is signed, read again, and says the same."""
    manifest = of_many(20_000)
    data = sign_manifest(manifest, [KEY]).to_bytes()
    assert len(data) > 2**20
    assert verify_manifest(data, PRODUCERS) == manifest


def test_a_large_manifest_of_a_stranger_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """INVARIANT I18: the signature is checked before the statement is parsed; a small one may be parsed first."""
    parsed: list[int] = []
    real = json.loads

    def counted(data: bytes, **options: Any) -> Any:
        parsed.append(len(data))
        return real(data, **options)

    monkeypatch.setattr("json.loads", counted)
    stranger = PrivateKey.generate(b"s" * 32)
    with pytest.raises(VerificationError, match="V4: 0 of the trusted keys signed this"):
        verify_manifest(sign_manifest(of_many(10_000), [stranger]).to_bytes(), PRODUCERS)
    assert parsed == []
    with pytest.raises(VerificationError, match="V4: 0 of the trusted keys signed this"):
        verify_manifest(sign_manifest(of_many(10), [stranger]).to_bytes(), PRODUCERS)
    assert len(parsed) == 1


def test_a_large_manifest_is_signed_by_the_producer_it_names() -> None:
    """INVARIANT I10 holds for large ones too: another pinned producer's key opens it and does not vouch for it."""
    data = sign_manifest(of_many(10_000), [OTHER]).to_bytes()
    with pytest.raises(VerificationError, match="V4: 0 of the trusted keys signed this"):
        verify_manifest(data, PRODUCERS)


def test_a_manifest_that_could_not_be_read_again_is_not_signed() -> None:
    """What the reader would refuse as too large, the signer refuses; nothing is left half-done."""
    with pytest.raises(ValueError, match=r"100000 files take .* bytes, expected at most 33554432"):
        sign_manifest(of_many(100_000, letters=200), [KEY])
    with pytest.raises(VerificationError, match="V1: envelope is"):
        verify_manifest(b" " * (MAX_MANIFEST_BYTES + 1), PRODUCERS)


def test_two_files_of_one_printed_name_are_refused(folder: Path) -> None:
    """INVARIANT I17: bytes that are no UTF-8 are shown as an escape, and a file may be called that escape."""
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.json")).write_text("{}")
    assert ("\\xff.json", hashlib.sha256(b"{}").hexdigest()) in made(folder).resources
    manifest = made(folder)
    (folder / "\\xff.json").write_text("[]")
    with pytest.raises(EvidenceError, match="two files have this name when shown"):
        made(folder)
    with pytest.raises(VerificationError, match=r"V7: .*two files have this name"):
        check_files(manifest, folder, scan_paths([folder]))


def test_a_folder_whose_name_is_no_text_has_a_manifest(tmp_path: Path) -> None:
    """Its name is shown with escapes; signing and reading it agree."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/step-\xff"))
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    manifest = made(folder)
    assert manifest.name == "step-\\xff"
    assert verify_manifest(sign_manifest(manifest, [KEY]).to_bytes(), PRODUCERS) == manifest
