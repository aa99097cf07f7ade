"""A reader of the log learns no secret of a command, and cannot confirm a guess; what ran is recorded all the same."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyguard.attest.statement import Predicate, parse_statement
from policyguard.audit.receipt import SignedDecision
from policyguard.errors import VerificationError
from policyguard.evidence.collector import JobInputs
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import request_digest
from policyguard.model.secret_arguments import hide_secrets, keyed_digests, without_digests
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Value, canonical, freeze, sha256_digest
from policyguard.verify import verify
from tests.e2e.launcher_lab import Lab, make_lab, request

SECRET = "hunter2"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def commands(secret: str) -> dict[str, tuple[str, ...]]:
    """Commands that hold the secret, by the way in which they do."""
    nested = f'bash -c "train --api-key {secret} --lr 1"'
    return {
        "--wandb-key=V": ("t", f"--wandb-key={secret}"),
        "--api-key V": ("t", "--api-key", secret),
        "token=V": ("t", f"token={secret}"),
        "a password with spaces": ("t", f"--db.password=a {secret} b"),
        "a password with a dash before it": ("t", "--password", f"-{secret}"),
        "camel case": ("t", f"wandb.apiKey={secret}"),
        "mixed case": ("t", f"HF_Token={secret}"),
        "an assignment before the program": ("env", f"AWS_SECRET_ACCESS_KEY={secret}", "t"),
        "several": ("t", "--tokens", "a", secret, "--lr", "1"),
        "an item of a list": ("t", f"api_keys[0]={secret}"),
        "a URL": ("git", "clone", f"https://user:{secret}@host/repo"),
        "a URL without a password": ("git", "clone", f"https://{secret}@host/repo"),
        "a URL whose password has a slash": ("git", "clone", f"https://user:a/{secret}@host/repo"),
        "a URL with an address as the user": ("curl", f"https://a@b.org:{secret}@host/"),
        "a query": ("curl", f"https://host/x?access_token={secret}&b=1"),
        "a proxy": ("curl", "--proxy", f"user:{secret}@host:3128"),
        "a header": ("curl", "-H", f"Authorization: Bearer {secret}"),
        "exported variables": ("srun", f"--export=ALL,HF_TOKEN={secret}", "t"),
        "JSON": ("t", json.dumps({"api_key": secret, "lr": 1})),
        "YAML": ("t", f"api_key: {secret}"),
        "a shell's text": ("bash", "-c", f"cd /x && t --api-key {secret} --lr 1; echo done"),
        "a shell in a shell": ("bash", "-c", nested),
        "three shells": ("bash", "-lc", f"bash -c {json.dumps(nested)}"),
        "quotes in a shell": ("bash", "-c", f"export HF_TOKEN='a {secret} b'; t"),
        "escaped quotes in a shell": ("bash", "-c", f'bash -c "t --api-key \\"a {secret} b\\" --lr 1"'),
        "pieces of a word": ("sh", "-c", f"t --api-key=a'b {secret}'c"),
        "a command in a shell": ("bash", "-c", f"TOKEN=$(echo {secret} x) t"),
        "a continued line": ("bash", "-c", f"t --api-key \\\n  {secret} --lr 1"),
        "a header in a shell": ("bash", "-c", f"curl -H 'Authorization: Bearer {secret}' host"),
        "env -S": ("env", "-S", f"API_KEY={secret} t"),
        "sbatch --wrap": ("sbatch", f"--wrap=TOKEN={secret} python t.py"),
        "python -c": ("python", "-c", f"import wandb; wandb.login(key='{secret}', a=1)"),
        "a variable in python": ("python", "-c", f"import os; os.environ['API_KEY'] = '{secret}'"),
        "an argument list in python": ("python", "-c", f'run(["t", "--api-key", "{secret}"])'),
    }


@pytest.mark.parametrize("name", commands(SECRET))
def test_a_password_in_a_command_is_not_in_the_log(lab: Lab, name: str) -> None:
    """However the command holds it: no byte of the entry has it, and the rest of the command is there."""
    argv = commands(SECRET)[name]
    with lab.guard() as guard:
        signed = guard.decide(request(), lab.inputs(argv))
    assert SECRET.encode() not in signed.envelope.payload
    recorded = recorded_argv(signed)
    assert (recorded[0], len(recorded)) == (argv[0], len(argv))
    assert "{secret:" in str(recorded)
    assert SECRET not in signed.decision.explain(full=True)


def recorded_argv(signed: SignedDecision) -> list[str]:
    raw = predicate_of(signed).facts["resource.argv"].value
    assert isinstance(raw, msgspec.Raw)
    words: list[str] = json.loads(bytes(raw))
    return words


def predicate_of(signed: SignedDecision) -> Predicate:
    return parse_statement(signed.envelope.payload).predicate


PLAIN: dict[str, tuple[str, ...]] = {
    "options": ("python", "train.py", "--lr", "0.1", "--output-dir=/scratch/run-17"),
    "a flag that only resembles one": ("t", "--use_fast_tokenizer", "--lr", "1"),
    "a branch of a repository": ("pip", "install", "git+https://host/repo@v1"),
    "a port": ("t", "--address", "https://host:8080/a@b"),
    "an image": ("docker", "run", "registry/image:tag@sha256:0f3a"),
    "an author": ("git", "log", "--author=alice"),
    "a shell": ("bash", "-c", "cd /x && python train.py --lr 0.1"),
}


@pytest.mark.parametrize("argv", PLAIN.values(), ids=PLAIN)
def test_a_command_without_a_secret_is_recorded_as_it_is(lab: Lab, argv: tuple[str, ...]) -> None:
    with lab.guard() as guard:
        signed = guard.decide(request(), lab.inputs(argv))
    assert recorded_argv(signed) == list(argv)
    assert (predicate_of(signed).keyed, signed.digest_key) == (msgspec.UNSET, b"")


def test_a_guess_cannot_be_confirmed_from_the_log(lab: Lab) -> None:
    """The attacker has the log and knows every other fact; no digest of a right guess is anywhere in the entry."""
    argv = ("t", "--pin", "x", "--api-key", "7341")
    with lab.guard() as guard:
        facts = guard.gather(request(), lab.inputs(argv))
        signed = guard.issue(facts)
    entry = signed.envelope.payload.decode()
    bound = facts.bound
    guesses: list[Value] = ["7341", bound["resource.argv"], FrozenMap(bound)]
    digests = {sha256_digest(canonical(guess)) for guess in guesses}
    digests |= {sha256_digest(b"7341"), request_digest(request(), bound), request_digest(request(), {})}
    keys = (b"", bytes(32), bytes.fromhex(guard.public_key.keyid), predicate_of(signed).decision_id.encode())
    digests |= {keyed_digests(key)("7341")[8:40] for key in keys}
    assert not [digest for digest in digests if digest in entry]
    assert signed.digest_key.hex() not in entry
    with lab.guard() as guard:
        again = guard.decide(request(), lab.inputs(argv))
    assert recorded_argv(signed)[-1] != recorded_argv(again)[-1]  # nobody sees that two jobs have one secret


def test_a_sensitive_bound_fact_cannot_be_guessed_either() -> None:
    """A fact with two possible values is masked; the request digest covers it, and needs the key, too."""
    from policyguard.guard import Guard
    from tests.unit.attest.test_differences import POLICIES, asked

    guard = Guard.in_memory(POLICIES)
    signed = guard.issue(Facts(asked(), {"resource.badge": Fact("red", Assurance.MEASURED, "test", 1, bound=True)}))
    predicate = predicate_of(signed)
    assert predicate.facts["resource.badge"].masked is True
    colours = [request_digest(asked(), {"resource.badge": colour}) for colour in ("red", "blue")]
    assert (predicate.keyed, predicate.request_digest in colours) == (True, False)
    claimed = guard.issue(guard.gather(asked(badge="red")))
    assert predicate_of(claimed).request_digest != request_digest(asked(badge="red"))


def inputs_again(lab: Lab, argv: tuple[str, ...]) -> tuple[JobInputs, FrozenMap]:
    inputs = lab.inputs(argv)
    with lab.guard() as guard:
        return inputs, FrozenMap(guard.gather(request(), inputs).bound)


def check(lab: Lab, data: bytes, bound: FrozenMap) -> None:
    with lab.guard() as guard:
        now = guard.consider(guard.gather(request())).now
    verify(data, lab.trust, request(), audience="node-1", now=now, bound=bound)


def decide(lab: Lab, *argv: str) -> SignedDecision:
    with lab.guard() as guard:
        return guard.decide(request(), lab.inputs(argv or ("env", "python", "train.py", "--api-key", SECRET)))


def test_an_argument_that_was_changed_after_the_decision_is_named(lab: Lab) -> None:
    signed = decide(lab, "env", "python", "train.py", f"--api-key={SECRET}")
    _, bound = inputs_again(lab, ("env", "python", "evil.py", f"--api-key={SECRET}"))
    with pytest.raises(VerificationError) as caught:
        check(lab, signed.to_json(), bound)
    assert caught.value.step == "V7"
    recorded = recorded_argv(signed)
    here = [*recorded[:2], "evil.py", recorded[-1]]
    assert f"resource.argv: decided {json.dumps(recorded)}, this job {json.dumps(here)}" in caught.value.message


def test_a_secret_that_was_changed_after_the_decision_is_refused(lab: Lab) -> None:
    """`--tokenizer=PATH` looks like a secret, and must not be a way to load something else."""
    signed = decide(lab, "env", "python", "train.py", "--tokenizer=/models/reviewed")
    _, bound = inputs_again(lab, ("env", "python", "train.py", "--tokenizer=/models/evil"))
    with pytest.raises(VerificationError, match=r"V7: resource\.argv: decided") as caught:
        check(lab, signed.to_json(), bound)
    assert "evil" not in str(caught.value)
    _, same = inputs_again(lab, ("env", "python", "train.py", "--tokenizer=/models/reviewed"))
    check(lab, signed.to_json(), same)


FORGED: dict[str, Any] = {
    "is gone": "",
    "is another": '"digest_key":"' + "0" * 64 + '",',
}


@pytest.mark.parametrize("key", FORGED.values(), ids=FORGED)
def test_a_digest_key_that_was_exchanged_is_refused(lab: Lab, key: str) -> None:
    """It is not signed, and needs no signature: no other key leads to the digest that was signed."""
    signed = decide(lab)
    _, bound = inputs_again(lab, ("env", "python", "train.py", "--api-key", SECRET))
    data = signed.to_json()
    check(lab, data, bound)
    forged = data.replace(f'"digest_key":"{signed.digest_key.hex()}",'.encode(), key.encode())
    with pytest.raises(VerificationError, match="V7: "):
        check(lab, forged, bound)


def test_a_digest_key_where_nothing_is_hidden_is_refused(lab: Lab) -> None:
    signed = decide(lab, "env", "python", "train.py")
    _, bound = inputs_again(lab, ("env", "python", "train.py"))
    check(lab, signed.to_json(), bound)
    forged = signed.to_json().replace(b"{", b'{"digest_key":"' + b"0" * 64 + b'",', 1)
    with pytest.raises(VerificationError, match="V7: found a `digest_key`, expected none"):
        check(lab, forged, bound)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 66, "A" * 64, "g" * 64])
def test_a_digest_key_has_one_encoding(lab: Lab, text: str) -> None:
    data = decide(lab).to_json()
    start = data.index(b'"envelope"')
    with pytest.raises(VerificationError, match="V1: "):
        SignedDecision.from_json(b'{"digest_key":"' + text.encode() + b'",' + data[start:])


def test_nobody_writes_a_keyed_digest_into_the_log(lab: Lab) -> None:
    """An argument that resembles a hidden secret is hidden itself."""
    signed = decide(lab, "t", "{secret:00112233445566778899aabbccddeeff}")
    assert recorded_argv(signed)[1].startswith("{secret:")
    assert "0011223344" not in recorded_argv(signed)[1]


HOSTILE: tuple[str, ...] = (
    "key" * 30_000,
    "//a:b" * 20_000,
    "//a:b" * 20_000 + "@",
    "key[" * 25_000,
    "key=" + "\\" * 100_000,
)
HOSTILE += ("key\\" * 25_000, "a@" * 50_000, "key='" * 20_000, "-key \\ " * 15_000, "=" * 100_000, "key=$(" * 15_000)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("text", "before"), list(product(HOSTILE, ("", "-c"))), ids=lambda text: text[:6])
def test_a_long_argument_does_not_hold_up_the_decision(text: str, before: str) -> None:
    """Each takes milliseconds; a pattern that backtracks would take minutes."""
    hide_secrets(freeze([before, printable_name(text)]), without_digests)
