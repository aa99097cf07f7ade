"""Checkpoint facts: what the job really loads, who attests it, and nothing for what nobody looked at."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.evidence.checkpoint import CheckpointCollector, JobCheckpoints
from policyguard.evidence.collector import JobInputs, gather
from policyguard.fs.mounts import file_system
from policyguard.fs.safe_open import version_of
from policyguard.model.facts import Assurance, Facts
from policyguard.model.request import Request
from policyguard.scan.digest_cache import QUIET_S, DigestCache
from policyguard.scan.files import Options, scan_paths
from policyguard.scan.manifest import MANIFEST_NAME, manifest_of, sign_manifest
from tests.attacks.checkpoint_lab import EVIL, GOOD, STORAGE, safetensors, torch_zip

KEY = PrivateKey.generate(b"k" * 32)
RUN = "service:run-17"
PRODUCERS = {RUN: [KEY.public]}
PLAIN = safetensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    (tmp_path / "step1").mkdir(0o700)
    (tmp_path / "step1" / "model.pt").write_bytes(torch_zip(GOOD, **STORAGE))
    return tmp_path


def signed(path: Path) -> None:
    manifest = manifest_of(path, scan_paths([path]), producer=RUN, run="run-17", step=1, now=1)
    (path / MANIFEST_NAME).write_bytes(sign_manifest(manifest, [KEY]).to_bytes())


def test_every_scan_hashes_anew_what_the_cache_does_not_vouch_for(folder: Path) -> None:
    """I16: digests of an earlier look are no facts of this one; those of a quiet file are, by the cache's rules."""
    model = folder / "step1" / "model.pt"
    inputs = JobInputs(argv=("python",), directory=str(folder), checkpoints=("step1/model.pt",))
    cache = DigestCache(filesystems=frozenset({file_system(folder) or ""}))
    options = Options(cache=cache)
    wrong, key = "0" * 64, version_of(model.stat())
    options.digests[key] = wrong

    def digest() -> object:
        facts = gather(Request.of("user:a", "job:submit", "job:x"), [JobCheckpoints(options)], inputs, lambda: 1)
        return facts.entries["resource.checkpoints"].value[0]["digest"]  # type: ignore[index, call-overload]

    assert digest() == hashlib.sha256(model.read_bytes()).hexdigest()
    assert cache.entries == {}
    cache.remember(model.stat(), model, wrong, time.time_ns() + 2 * QUIET_S * 10**9)
    assert digest() == wrong


def about_job(folder: Path, *argv: str, files: tuple[str, ...] = ()) -> list[dict[str, object]]:
    inputs = JobInputs(argv=("python", *argv), directory=str(folder), files=files)
    found = gather(
        Request.of("user:a", "job:submit", "job:team/v/x"), [JobCheckpoints(producers=PRODUCERS)], inputs, lambda: 1
    )
    fact = found.entries["resource.checkpoints"]
    assert (fact.assurance, fact.bound) == (Assurance.MEASURED, True)
    return [dict(item) for item in fact.value]  # type: ignore[union-attr, arg-type]


def about_checkpoint(folder: Path, *files: str) -> Facts:
    inputs = JobInputs(directory=str(folder), files=files)
    request = Request.of("user:a", "checkpoint:load", "checkpoint:team/v/x", verdict="clean", format="safetensors")
    return gather(request, [CheckpointCollector(producers=PRODUCERS)], inputs, lambda: 1)


def value(facts: Facts, name: str) -> object:
    return facts.entries[f"resource.{name}"].value


@pytest.mark.parametrize("argv", [("--resume", "step1/model.pt"), ("--resume=step1/model.pt",), ("step1",)])
def test_a_checkpoint_among_the_arguments_is_measured(argv: tuple[str, ...], folder: Path) -> None:
    """A job cannot hide what it loads by not naming it."""
    (record,) = about_job(folder, "train.py", *argv)
    assert (
        record["path"],
        record["format"],
        record["verdict"],
        record["producer"],
        record["manifest_matches"],
    ) == ("step1/model.pt", "pickle", "clean", "", False)


def test_a_job_without_checkpoints_has_an_empty_list(folder: Path) -> None:
    """Looked and found none is a fact, not a gap."""
    (folder / "train.py").write_text("print()")
    assert about_job(folder, "train.py", "--lr=0.1", "missing.pt") == []


def test_a_hostile_checkpoint_is_reported_with_what_it_imports(folder: Path) -> None:
    """The record a rule decides on."""
    (folder / "weights.safetensors").write_bytes(EVIL)
    (record,) = about_job(folder, files=("weights.safetensors",))
    assert record["verdict"] == "hostile"
    assert {"ckpt.format_spoof", "ckpt.pickle_global"} <= set(record["reasons"])  # type: ignore[call-overload]
    assert record["pickle_globals"] == ("os.system",)


def test_a_named_file_that_is_missing_is_a_record(folder: Path) -> None:
    """What the job names and nobody can read is unknown, not absent."""
    (record,) = about_job(folder, files=("gone.pt",))
    assert (record["verdict"], record["reasons"]) == ("unknown", ("ckpt.missing",))


def test_a_signed_manifest_attests_the_producer(folder: Path) -> None:
    """Scenario 17: the digests are those the producing run signed."""
    signed(folder / "step1")
    assert [record["producer"] for record in about_job(folder, "step1")] == [RUN]
    facts = about_checkpoint(folder, "step1")
    assert (value(facts, "producer"), value(facts, "manifest_matches")) == (RUN, True)
    assert facts.entries["resource.producer"].assurance is Assurance.ATTESTED


def test_a_changed_file_has_no_producer(folder: Path) -> None:
    """The twin: one byte more, and nobody vouches for it."""
    signed(folder / "step1")
    with open(folder / "step1" / "model.pt", "ab") as file:
        file.write(b"x")
    facts = about_checkpoint(folder, "step1")
    assert value(facts, "manifest_matches") is False
    assert "resource.producer" in facts.missing


def test_claims_about_a_checkpoint_do_not_count(folder: Path) -> None:
    """The request said safetensors and clean; what was measured stands."""
    facts = about_checkpoint(folder, "step1/model.pt")
    assert (value(facts, "format"), value(facts, "verdict"), value(facts, "named_format")) == (
        "pickle",
        "clean",
        "pickle",
    )


def test_without_files_nothing_is_known(folder: Path) -> None:
    """Nobody looked, so nothing is a fact, the request's own claims least of all."""
    facts = about_checkpoint(folder)
    assert "resource.verdict" not in facts.entries
    assert "no files are named" in str(facts.missing["resource.verdict"])


def test_renamed_weights_show_in_two_formats(folder: Path) -> None:
    """Scenario 16: what the name says and what the content is."""
    (folder / "model.safetensors").write_bytes(torch_zip(GOOD, **STORAGE))
    facts = about_checkpoint(folder, "model.safetensors")
    assert (value(facts, "named_format"), value(facts, "format")) == ("safetensors", "pickle")


def test_plain_weights_are_what_they_say(folder: Path) -> None:
    """The twin of scenario 16."""
    (folder / "model.safetensors").write_bytes(PLAIN)
    facts = about_checkpoint(folder, "model.safetensors")
    assert tuple(value(facts, name) for name in ("named_format", "format", "verdict")) == (
        "safetensors",
        "safetensors",
        "clean",
    )


def test_others_who_may_write_are_seen(folder: Path) -> None:
    """A group-writable folder is a fact."""
    assert value(about_checkpoint(folder, "step1/model.pt"), "others_may_write") is False
    (folder / "step1").chmod(0o770)
    assert value(about_checkpoint(folder, "step1/model.pt"), "others_may_write") is True


def test_a_repository_with_code_of_another_says_so(folder: Path) -> None:
    """Scenario 19's facts come from the files."""
    net = folder / "net"
    net.mkdir(0o700)
    (net / "model.safetensors").write_bytes(PLAIN)
    (net / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "other/net--modeling.Net"}}))
    facts = about_checkpoint(folder, "net")
    assert (value(facts, "remote_code"), value(facts, "foreign_code"), value(facts, "format")) == (
        True,
        True,
        "safetensors",
    )
    assert "resource.revision" in facts.missing
