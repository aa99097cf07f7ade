"""Manifests as statements: each member of another kind is refused, and each alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from policyguard.attest.manifest_statement import Manifest, check_members, check_origin, parse_manifest
from policyguard.errors import VerificationError
from policyguard.values import canonical

A, B = "a" * 64, "b" * 64
MANIFEST = Manifest(
    name="run-17",
    resources=(("config.json", A), ("weights/model.safetensors", B)),
    producer="service:trainer",
    run="run-17",
    step=0,
    created_at=1_800_000_000 * 10**9,
    previous=A,
    data_class="internal",
)
GOOD = MANIFEST.to_statement()


def test_a_manifest_reads_as_it_was_written() -> None:
    """With a class and a step before it, and without."""
    assert parse_manifest(GOOD) == MANIFEST
    first = Manifest(name="n", resources=(("a", A),), producer="user:x", run="r", step=1, created_at=0)
    assert parse_manifest(first.to_statement()) == first


Change = Callable[[dict[str, Any]], object]
STATEMENTS: dict[str, tuple[Change, str, str]] = {
    "another statement": (lambda d: d.update(_type="https://in-toto.io/Statement/v0.1"), "V5", "predicate type"),
    "another predicate": (lambda d: d.update(predicateType="x"), "V5", "predicate type is `x`"),
    "a member more": (lambda d: d.update(extra=1), "V1", "canonical form"),
    "another root": (lambda d: d["subject"][0].update(digest={"sha256": A}), "V1", "root digest"),
    "no files": (lambda d: d["predicate"].update(resources=[]), "V1", "must be there"),
    "no producer": (lambda d: d["predicate"]["policyguard"].pop("producer"), "V1", "producer"),
    "a list": (lambda d: d.update(predicate=[]), "V1", "not a manifest"),
}


@pytest.mark.parametrize(("change", "step", "words"), STATEMENTS.values(), ids=STATEMENTS)
def test_a_statement_of_another_make_is_no_manifest(change: Change, step: str, words: str) -> None:
    """V5 where it is a statement about something else, else V1."""
    data = json.loads(GOOD)
    change(data)
    with pytest.raises(VerificationError) as refusal:
        parse_manifest(canonical(data))
    assert refusal.value.step == step
    assert words in refusal.value.message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trainer", "r", 0), "producer: "),
        ((5, "r", 0), "producer: found an integer"),
        (("service:t", "", 0), "run: "),
        (("service:t", 5, 0), "run: "),
        (("service:t", "r", -1), "step: found -1"),
        (("service:t", "r", True), "step: found True"),
        (("service:t", "r", 0, "Internal"), "class: found `Internal`"),
        (("service:t", "r", 0, 5), "class: found `5`"),
        (("service:t", "r", 0, ()), r"class: found `\(\)`"),
    ],
)
def test_an_origin_of_another_kind_is_refused_before_files_are_read(arguments: Any, words: str) -> None:
    """Each member alone; hashing a checkpoint takes hours."""
    check_origin("service:t", "r", 0, "")
    with pytest.raises(ValueError, match=words):
        check_origin(*arguments)


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": ""}, "must be there"),
    "a number for a name": ({"name": 5}, "must be there"),
    "no file": ({"resources": ()}, "must be there"),
    "a file without a name": ({"resources": (("", A),)}, "must be there"),
    "a number for a file": ({"resources": ((5, A),)}, "must be there"),
    "files out of order": ({"resources": (("b", A), ("a", B))}, "must be sorted"),
    "a file twice": ({"resources": (("a", A), ("a", B))}, "must be sorted"),
    "a file from the root": ({"resources": (("/a", A),)}, "must be sorted"),
    "a file above the folder": ({"resources": (("a/../../b", A),)}, "must be sorted"),
    "a short digest": ({"resources": (("a", "a" * 63),)}, "digests must be"),
    "a number for a digest": ({"resources": (("a", 5),)}, "digests must be"),
    "a step before that is none": ({"previous": "x"}, "digests must be"),
    "a producer that is none": ({"producer": "x"}, "producer"),
}


@pytest.mark.parametrize(("changes", "words"), FILES.values(), ids=FILES)
def test_files_that_no_folder_has_are_refused(changes: dict[str, Any], words: str) -> None:
    """Nothing outside the folder, nothing twice, nothing without a digest."""
    members = {name: getattr(MANIFEST, name) for name in MANIFEST.__struct_fields__}
    check_members(Manifest(**members))
    with pytest.raises(ValueError, match=words):
        check_members(Manifest(**{**members, **changes}))
