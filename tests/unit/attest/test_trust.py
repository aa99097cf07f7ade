"""Trust documents: parsed with paths, nothing empty, nothing guessed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from policyguard.attest.note import NoteKey
from policyguard.attest.trust import RevocationTrust, Trust, TrustedKey, parse_trust
from policyguard.errors import ConfigurationError
from policyguard.model.decision import MAX_LIFETIME_S
from tests.attest_lab import LOG_KEY, NOW, ORIGIN, POLICY_DIGEST, SECOND_SIGNER, SIGNER, key_of, trust_data

LOG = NoteKey(ORIGIN, LOG_KEY.public)
DOCUMENT: dict[str, Any] = {
    "apiVersion": "policyguard/v1",
    "kind": "Trust",
    "keys": [
        {
            "key": SIGNER.public.text,
            "name": "launcher",
            "notBefore": "2026-01-01T00:00:00Z",
            "expires": "2027-01-01T00:00:00Z",
        },
        {"key": SECOND_SIGNER.public.text, "heldBy": "service"},
    ],
    "selfIssued": "accept",
    "threshold": 2,
    "logs": [LOG.text],
    "audiences": ["cluster-a"],
    "policies": {"digests": [POLICY_DIGEST], "minEpoch": 3},
}


def test_document_reads_and_writes_back() -> None:
    """What is parsed is what was written, and writing it gives the document again; the input is not changed."""
    before = copy.deepcopy(DOCUMENT)
    trust = parse_trust(DOCUMENT)
    assert before == DOCUMENT == trust_data(trust)
    assert trust.threshold == 2
    assert trust.keys[0].is_valid(NOW)
    assert trust.logs == (LOG,)
    assert (trust.policy_digests, trust.min_epoch) == (frozenset({POLICY_DIGEST}), 3)


def test_threshold_is_one_by_default() -> None:
    assert parse_trust({name: DOCUMENT[name] for name in DOCUMENT if name != "threshold"}).threshold == 1


Change = Callable[[dict[str, Any]], object]

REFUSED: dict[str, tuple[Change, str]] = {
    "a holder in other letters": (
        lambda d: d["keys"][1].update(heldBy="Service"),
        "$.keys[1].heldBy: found `Service`, expected `service`, `self`",
    ),
    "a holder that is a list": (lambda d: d["keys"][0].update(heldBy=["service"]), "$.keys[0].heldBy: found a list"),
    "self-issued true": (lambda d: d.update(selfIssued=True), "$.selfIssued: found a bool, expected `accept`"),
    "self-issued in other letters": (
        lambda d: d.update(selfIssued="Accept"),
        "$.selfIssued: found `Accept`, expected `accept`",
    ),
    "no keys": (lambda d: d.update(keys=[]), "$.keys: found none, expected 1 to 64"),
    "no logs": (lambda d: d.update(logs=[]), "$.logs: found none"),
    "no audiences": (lambda d: d.update(audiences=[]), "$.audiences: found none"),
    "no digests": (lambda d: d["policies"].update(digests=[]), "$.policies.digests: found none"),
    "no pinned policy": (lambda d: d.update(policies={}), "$.policies: found neither `digests` nor `minEpoch`"),
    "threshold zero": (lambda d: d.update(threshold=0), "$.threshold: found 0, expected an integer of at least 1"),
    "threshold true": (lambda d: d.update(threshold=True), "$.threshold: found a bool, expected an integer"),
    "threshold above the keys": (lambda d: d.update(threshold=3), "$.threshold: found 3, expected 1 to 2"),
    "a key twice": (lambda d: d.update(keys=[d["keys"][0], d["keys"][0]]), "$.keys: the same key is listed twice"),
    "a log twice": (lambda d: d.update(logs=[LOG.text, LOG.text]), "$.logs: two log keys share their name and hash"),
    "a malformed key": (lambda d: d["keys"][1].update(key="x"), "$.keys[1].key: found no public key"),
    "an integer for a key": (lambda d: d["keys"][1].update(key=1), "$.keys[1].key: found an integer, expected text"),
    "a malformed log": (lambda d: d.update(logs=["x"]), "$.logs[0]: found no verifier key"),
    "a malformed time": (lambda d: d["keys"][0].update(expires="soon"), "$.keys[0].expires: found `soon`"),
    "a window that ends before it begins": (
        lambda d: d["keys"][0].update(expires="2025-01-01T00:00:00Z"),
        "$.keys[0].expires: found `2025-01-01T00:00:00Z`, expected a time after",
    ),
    "a short digest": (
        lambda d: d["policies"].update(digests=["ab"]),
        "$.policies.digests[0]: found `ab`, expected 64",
    ),
    "a negative epoch": (lambda d: d["policies"].update(minEpoch=-1), "$.policies.minEpoch: found -1"),
    "an unknown field": (lambda d: d.update(treshold=1), "$: unknown field `treshold`, expected"),
    "a missing field": (lambda d: d.pop("audiences"), "$: `audiences` is missing"),
    "another kind": (lambda d: d.update(kind="Policy"), "$: expected `apiVersion: policyguard/v1` and `kind: Trust`"),
    "text for a list": (lambda d: d.update(audiences="cluster-a"), "$.audiences: found text, expected a list"),
    "an empty audience": (lambda d: d.update(audiences=[""]), "$.audiences[0]: found empty text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_document_that_trusts_wrongly_is_refused(case: str) -> None:
    """One line, with the JSON path. Invariant I10."""
    change, wording = REFUSED[case]
    data = copy.deepcopy(DOCUMENT)
    change(data)
    with pytest.raises(ConfigurationError) as caught:
        parse_trust(data)
    assert caught.value.message.startswith(wording)


@pytest.mark.parametrize("data", [None, [], "text", 1], ids=["null", "a list", "text", "an integer"])
def test_what_is_no_document_is_refused(data: object) -> None:
    with pytest.raises(ConfigurationError, match=r"\$: found .*, expected a map with `apiVersion`"):
        parse_trust(data)


def test_trust_built_in_code_keeps_the_same_rules() -> None:
    """Invariant I10: an empty trust cannot be made, from whatever side."""
    parts: dict[str, Any] = {
        "keys": (TrustedKey(key=SIGNER.public),),
        "logs": (LOG,),
        "audiences": frozenset({"a"}),
        "min_epoch": 1,
    }
    Trust(**parts)
    for name in ("keys", "logs", "audiences"):
        with pytest.raises(ConfigurationError, match=f"{name}: found none"):
            Trust(**{**parts, name: type(parts[name])()})


def test_a_revocation_list_without_a_key_or_an_age_is_not_pinned() -> None:
    """Invariant I10, also in code: nobody could sign the list, or it would never be too old; the longest age is one."""
    key = key_of("revoker").public
    assert RevocationTrust(source="list.json", keys=(key,), max_age_s=MAX_LIFETIME_S).max_age_s == MAX_LIFETIME_S
    for keys in ((), (key, key)):
        with pytest.raises(ConfigurationError, match="at least one key, each listed once"):
            RevocationTrust(source="list.json", keys=keys, max_age_s=1)
    for age_s in (0, -1, MAX_LIFETIME_S + 1):
        with pytest.raises(ConfigurationError, match=f"found {age_s} s"):
            RevocationTrust(source="list.json", keys=(key,), max_age_s=age_s)
