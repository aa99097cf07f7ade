"""Facts about data: its class is what a pinned producer signed over these very files, its verdict what they hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.evidence.collector import JobInputs, gather
from policyguard.evidence.dataset import DatasetCollector
from policyguard.model.facts import Assurance, Facts
from policyguard.model.request import Request
from policyguard.scan.files import scan_paths
from policyguard.scan.manifest import MANIFEST_NAME, manifest_of, sign_manifest

KEY = PrivateKey.generate(b"d" * 32)
OWNER = "service:annotation"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir(mode=0o700)
    (folder / "labels.json").write_text('[{"frame": 1, "cat": true}]')
    return folder


def signed(folder: Path, data_class: str, key: PrivateKey = KEY) -> None:
    manifest = manifest_of(
        folder, scan_paths([folder]), producer=OWNER, run="release", step=3, now=1, data_class=data_class
    )
    (folder / MANIFEST_NAME).write_bytes(sign_manifest(manifest, [key]).to_bytes())


def looked(*names: Path) -> Facts:
    inputs = JobInputs(directory="/", files=tuple(map(str, names)))
    claimed: dict[str, Any] = {"class": "public"}
    request = Request.of("user:a", "dataset:read", "dataset:team/v/frames", **claimed)
    return gather(request, [DatasetCollector(producers={OWNER: [KEY.public]})], inputs, lambda: 1)


def test_the_class_is_attested_by_the_producer(data: Path) -> None:
    """INVARIANT I1: the request's own word for it never counts."""
    signed(data, "restricted")
    fact = looked(data).entries["resource.class"]
    assert (fact.value, fact.assurance, fact.bound) == ("restricted", Assurance.ATTESTED, True)


def changed(data: Path) -> None:
    (data / "labels.json").write_text('[{"frame": 1, "cat": false}]')


def added(data: Path) -> None:
    (data / "more.json").write_text("[]")


def unsigned(data: Path) -> None:
    (data / MANIFEST_NAME).unlink()


def signed_by_a_stranger(data: Path) -> None:
    (data / MANIFEST_NAME).unlink()
    signed(data, "public", PrivateKey.generate(b"s" * 32))


def without_a_class(data: Path) -> None:
    (data / MANIFEST_NAME).unlink()
    signed(data, "")


@pytest.mark.parametrize("spoil", [changed, added, unsigned, signed_by_a_stranger, without_a_class])
def test_data_that_does_not_fit_has_no_class(spoil: object, data: Path) -> None:
    """INVARIANT I1: absent, so that rules which ask for a class deny."""
    signed(data, "public")
    spoil(data)  # type: ignore[operator]
    assert "resource.class" not in looked(data).entries


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1",)


def test_data_that_runs_code_is_hostile(data: Path) -> None:
    """A pickle among the data counts for all of it."""
    assert looked(data).entries["resource.verdict"].value == "clean"
    (data / "cache.pkl").write_bytes(pickle.dumps(Runs()))
    facts = looked(data)
    assert facts.entries["resource.verdict"].value == "hostile"
    assert facts.entries["resource.reasons"].value == ("ckpt.pickle_global",)


def test_exactly_one_folder_is_measured(data: Path, tmp_path: Path) -> None:
    """None, two or an empty one: everything is missing, and the reason says what was expected."""
    (tmp_path / "empty").mkdir()
    for names, words in (((), "0 paths"), ((data, data), "2 paths"), ((tmp_path / "empty",), "no files")):
        facts = looked(*names)
        assert not {path for path in facts.entries if path.startswith("resource.")}
        assert words in str(facts.missing["resource.verdict"])


def test_a_class_is_one_word(data: Path) -> None:
    """The twin stands above; what is no word is refused before anything is signed."""
    with pytest.raises(ValueError, match="expected a word such as"):
        signed(data, "Top Secret")
