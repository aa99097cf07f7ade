"""One person against policies that two must sign: alone, with two keys, with a folder, by any verb that decides."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.attest.trust import PolicySigners, parse_trust
from policyguard.errors import ConfigurationError
from policyguard.guard import Guard
from policyguard.keyfiles import write_private_key
from tests.e2e.cli_lab import CliLab, Ended

NAMES = ("sam", "sam2", "tara")
REFUSED = "must sign, expected 2 of `sam`, `tara`"


@pytest.fixture
def lab(lab: CliLab) -> CliLab:
    """A lab whose trust demands that sam and tara sign its policies; sam has two keys. Nothing is compiled yet."""
    for number, name in enumerate(NAMES, 1):
        write_private_key(lab.path(f"{name}.key"), PrivateKey(bytes([number]) * 32))
    keys = {name: PrivateKey(bytes([number]) * 32).public.text for number, name in enumerate(NAMES, 1)}
    trust = lab.path("trust.yaml")
    persons = f"{{sam: [{keys['sam']!r}, {keys['sam2']!r}], tara: [{keys['tara']!r}]}}"
    signers = f"  signers:\n    threshold: 2\n    persons: {persons}\n"
    trust.write_text(trust.read_text().replace("policies:\n", "policies:\n" + signers))
    config = lab.path("policyguard.yaml")
    config.write_text(config.read_text().replace("policies: policies ", "policies: snapshot "))
    return lab


def compiled(lab: CliLab, key: str, *words: str) -> Ended:
    return lab.here("compile", "policies", "-o", "snapshot", "--key", f"{key}.key", *words)


def signed_by_two(lab: CliLab) -> None:
    assert compiled(lab, "sam").code == 0
    assert compiled(lab, "tara", "--cosign").code == 0


def decided(lab: CliLab) -> Ended:
    return lab.here("decide", "requests/allowed.json")


ALONE: dict[str, Callable[[CliLab], object]] = {
    "one person": lambda lab: compiled(lab, "sam"),
    "two keys of one person": lambda lab: compiled(lab, "sam", "--sign", "sam2.key"),
    "two keys of one person, one after the other": lambda lab: (
        compiled(lab, "sam"),
        compiled(lab, "sam2", "--cosign"),
    ),
    "one signature twice": lambda lab: (compiled(lab, "sam"), compiled(lab, "sam", "--cosign")),
    "one person and the guard": lambda lab: compiled(lab, "sam", "--sign", "guard.key"),
}


@pytest.mark.parametrize("sign", ALONE.values(), ids=ALONE)
def test_one_person_signs_no_policies(lab: CliLab, sign: Callable[[CliLab], object]) -> None:
    """`decide` refuses them with what was found and what helps; one step away, tara signs as well."""
    sign(lab)
    ended = decided(lab)
    assert ended.code == 78
    assert REFUSED in ended.err
    assert "--cosign" in ended.err
    assert compiled(lab, "tara", "--cosign").code == 0
    assert decided(lab).code == 0


def test_the_guards_key_alone_signs_no_policies(lab: CliLab) -> None:
    compiled(lab, "guard")
    ended = decided(lab)
    assert (ended.code, "0 of the trusted keys signed" in ended.err) == (78, True)


def test_a_folder_is_signed_by_nobody(lab: CliLab) -> None:
    config = lab.path("policyguard.yaml")
    config.write_text(config.read_text().replace("policies: snapshot ", "policies: policies "))
    ended = decided(lab)
    assert (ended.code, "found a folder" in ended.err) == (78, True)


def test_persons_join_two_keys_that_trust_gives_to_two(lab: CliLab) -> None:
    """Trust was written by name; `Persons` of the policies says that both keys are one human's."""
    persons = lab.path("policies", "persons.yaml")
    texts = [PrivateKey(bytes([number]) * 32).public.text for number in (1, 3)]
    entry = '{id: sam, accounts: ["user:sam"], emails: [sam@lab.example]}'
    assert entry in persons.read_text()
    persons.write_text(persons.read_text().replace(entry, entry.replace("}", f", keys: {json.dumps(texts)}}}")))
    signed_by_two(lab)
    ended = decided(lab)
    assert (ended.code, REFUSED in ended.err) == (78, True)


def test_a_signature_is_added_to_the_same_policies_only(lab: CliLab) -> None:
    """Tara compiles what she reviewed; what sam signed is something else."""
    compiled(lab, "sam")
    roles = lab.path("policies", "jobs.yaml")
    roles.write_text(roles.read_text().replace("resource.gpus > 4096", "resource.gpus > 4095"))
    ended = compiled(lab, "tara", "--cosign")
    assert (ended.code, "other policies" in ended.err) == (78, True)
    assert decided(lab).code == 78


def test_no_way_to_decide_takes_them(lab: CliLab, tmp_path: Path) -> None:
    """`run`, `hook` with a configuration and with options, `Guard.open` and `Guard.from_config`."""
    compiled(lab, "sam")
    config = str(lab.path("policyguard.yaml"))
    request = lab.path("requests", "allowed.json").read_bytes()
    words = [f"{name}={PrivateKey(bytes([number]) * 32).public.text}" for name, number in (("sam", 1), ("tara", 3))]
    trust = PolicySigners.of_texts(words, 2)
    paths = ("--policies", "snapshot", "--key", "guard.key", "--log", "audit.db")
    options = [word for signer in trust.texts for word in ("--policy-signer", signer)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    job = elsewhere / "job.yaml"
    job.write_text("subject: user:alice\nresource: job:team/vision/r\nproperties: {gpus: 1}\n")

    def outcomes() -> list[bool]:
        hooked = lab.process("hook", *paths, *options, "--policy-threshold", "2", stdin=request)
        configured = lab.process("hook", "--config", config, stdin=request)
        ran = lab.process(
            "run", "--config", config, "--subject", "user:alice", "--job", str(job), "--", "true", cwd=elsewhere
        )
        refused = [REFUSED in ended.out + ended.err for ended in (hooked, configured, ran)]
        key, log = lab.path("guard.key"), lab.path("audit.db")
        for way in ("open", "from_config"):
            try:
                if way == "open":
                    Guard.open(lab.path("snapshot"), key=key, log=log, policy_signers=trust).close()
                else:
                    Guard.from_config(config).close()
            except ConfigurationError as problem:
                refused.append(REFUSED in str(problem))
            else:
                refused.append(False)
        return refused

    assert outcomes() == [True] * 5
    compiled(lab, "tara", "--cosign")
    assert outcomes() == [False] * 5


def test_a_worker_refuses_a_decision_whose_policies_one_person_signed(lab: CliLab) -> None:
    """A guard that demands nobody signs decisions; step V9 counts who signed its policies."""
    shutil.copy(lab.path("trust.yaml"), lab.path("strict.yaml"))
    trust = lab.path("trust.yaml")
    lines = trust.read_text().splitlines(keepends=True)
    demands = ("  signers", "    threshold", "    persons")
    trust.write_text("".join(line for line in lines if not line.startswith(demands)))
    compiled(lab, "guard", "--sign", "sam.key")
    assert lab.here("decide", "requests/allowed.json", "--out", "d.json").code == 0
    words = ("verify", "d.json", "--request", "requests/allowed.json", "--audience", "local", "--trust", "strict.yaml")
    ended = lab.here(*words)
    assert (ended.code, "V9: policies are signed by nobody" in ended.err) == (77, True)
    shutil.copy(lab.path("strict.yaml"), trust)
    signed_by_two(lab)
    assert lab.here("decide", "requests/allowed.json", "--out", "e.json").code == 0
    assert lab.here(words[0], "e.json", *words[2:]).code == 0


BAD: dict[str, tuple[object, str]] = {
    "a threshold nobody reaches": ({"threshold": 3, "persons": {"sam": [1], "tara": [2]}}, "expected 1 to 2"),
    "none": ({"threshold": 0, "persons": {"sam": [1]}}, "threshold"),
    "a key of two persons": ({"threshold": 2, "persons": {"sam": [1], "tara": [1]}}, "listed twice"),
    "no persons": ({"threshold": 1, "persons": {}}, "persons"),
    "a person without a key": ({"threshold": 1, "persons": {"sam": []}}, "persons.sam"),
    "a list": ([1], "signers"),
    "an unknown field": ({"threshold": 1, "persons": {"sam": [1]}, "of": 2}, "unknown field"),
}


@pytest.mark.parametrize(("signers", "message"), BAD.values(), ids=BAD)
def test_a_demand_that_cannot_be_met_is_refused(signers: object, message: str) -> None:
    def keys(data: object) -> object:
        if isinstance(data, dict):
            return {name: keys(value) for name, value in data.items()}
        if isinstance(data, list):
            return [PrivateKey(bytes([number]) * 32).public.text for number in data]
        return data

    trust = {
        "apiVersion": "policyguard/v1",
        "kind": "Trust",
        "keys": [{"key": PrivateKey(b"\7" * 32).public.text}],
        "logs": [NoteKey("log", PrivateKey(b"\7" * 32).public).text],
        "audiences": ["local"],
        "policies": {"minEpoch": 1, "signers": keys(signers)},
    }
    with pytest.raises(ConfigurationError, match=message):
        parse_trust(trust)
