"""Allowed signers as ssh-keygen reads them, or stricter."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.signers import (
    MAX_LINES,
    MAX_PATTERN,
    MAX_SIGNERS_BYTES,
    Signers,
    UnknownSigner,
    matches,
    parse_allowed_signers,
    parse_revoked,
    person_key,
)
from policyguard.attest.sshsig import SshKey, sign
from policyguard.errors import ConfigurationError
from policyguard.model.policy import Person
from policyguard.values import parse_instant

NAMESPACE = "policyguard-approval@v1"
CAROL, DAN = PrivateKey(b"\1" * 32), PrivateKey(b"\2" * 32)
LINE = SshKey(CAROL.public.raw).text
NOW = parse_instant("2030-06-01T12:00:00Z")
PERSONS = (
    Person(id="carol", accounts=("user:carol",), emails=("carol@lab",)),
    Person(id="dan", accounts=("user:dan",), emails=("dan@lab",), keys=(DAN.public.text,)),
)


def who(text: str, key: PrivateKey = CAROL, *, revoked: str = "", now: int = NOW) -> str:
    """Return the person whose key this is, or the reason code why nobody's."""
    signers = Signers(PERSONS, parse_allowed_signers(text.encode()), parse_revoked(revoked.encode()))
    try:
        return signers.person_of(SshKey(key.public.raw), NAMESPACE, (now,)).id
    except UnknownSigner as problem:
        return problem.code


OTHER_KINDS = ("ssh-rsa", "ssh-dss", "ecdsa-sha2-nistp256", "sk-ecdsa-sha2-nistp256@openssh.com")

CASES: dict[str, tuple[str, str]] = {
    "by e-mail address": (f"carol@lab {LINE}", "carol"),
    "by account": (f"user:carol {LINE}", "carol"),
    "by one of several principals": (f"x@y,carol@lab {LINE} a comment", "carol"),
    "in another case": (f"CAROL@lab {LINE}", "unknown_person"),
    "quoted": (f'"carol@lab" {LINE}', "carol"),
    "after comments and empty lines": (f"# people\n\n  \ncarol@lab {LINE}\n", "carol"),
    "with a pattern that fits one": (f"car*@lab {LINE}", "carol"),
    "with a pattern that fits two": (f"*@lab {LINE}", "ambiguous_key"),
    "with a pattern and an exception": (f"*@lab,!dan@lab {LINE}", "carol"),
    "for nobody we know": (f"zoe@lab {LINE}", "unknown_person"),
    "in our namespace": (f'carol@lab namespaces="{NAMESPACE}" {LINE}', "carol"),
    "in a pattern of namespaces": (f'carol@lab namespaces="git,policyguard-*" {LINE}', "carol"),
    "in another namespace": (f'carol@lab namespaces="git" {LINE}', "wrong_namespace"),
    "in time": (f'carol@lab valid-after="20300101Z",valid-before="20310101Z" {LINE}', "carol"),
    "with capital options": (f'carol@lab Valid-After="20300101Z" {LINE}', "carol"),
    "too early by a second": (f'carol@lab valid-after="20300601120001Z" {LINE}', "key_window"),
    "with lines of other kinds beside it": (
        "\n".join(f"carol@lab {kind} AAAA" for kind in OTHER_KINDS) + f"\ncarol@lab {LINE}",
        "carol",
    ),
    "with options before another kind": (f'carol@lab namespaces="git" ssh-rsa AAAA\ncarol@lab {LINE}', "carol"),
    "too early": (f'carol@lab valid-after="203006011201Z" {LINE}', "key_window"),
    "on the dot": (f'carol@lab valid-after="20300601120000Z" {LINE}', "carol"),
    "too late": (f'carol@lab valid-before="20300601120000Z" {LINE}', "key_window"),
    "without a zone, maybe too early": (f'carol@lab valid-after="203006010001" {LINE}', "key_window"),
    "without a zone, surely in time": (f'carol@lab valid-after="20300531" {LINE}', "carol"),
    "without a zone, maybe too late": (f'carol@lab valid-before="20300602" {LINE}', "key_window"),
    "without a zone, surely not yet too late": (f'carol@lab valid-before="203006020300" {LINE}', "carol"),
    "in one of two lines": (f'carol@lab valid-before="20200101Z" {LINE}\ncarol@lab {LINE}', "carol"),
    "with an RSA line beside it": (f"carol@lab ssh-rsa AAAAB3NzaC1yc2E=\ncarol@lab {LINE}", "carol"),
    "in no line": ("", "unknown_signer"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_whose_key_it_is(text: str, expected: str) -> None:
    """I8 and I10: windows, namespaces and patterns are honoured, and a key is one person's."""
    assert who(text) == expected


def test_a_key_of_persons_needs_no_file() -> None:
    """`Persons.keys`, as `ed25519:` or as an SSH line; where the file names it, the file's window holds."""
    dan = SshKey(DAN.public.raw)
    assert who("", DAN) == "dan"
    assert person_key(dan.text + " dan@laptop") == dan
    assert who(f'dan@lab valid-before="20200101Z" {dan.text}', DAN) == "key_window"
    assert who(f"carol@lab {dan.text}", DAN) == "ambiguous_key"


def test_a_revoked_key_is_nobodys() -> None:
    """I10: by line, by fingerprint and as `ed25519:`; whatever else lists it."""
    for revoked in (LINE, SshKey(CAROL.public.raw).fingerprint + " stolen", CAROL.public.text):
        assert who(f"carol@lab {LINE}", revoked=revoked) == "revoked_key"
    assert who(f"carol@lab {LINE}", revoked=SshKey(DAN.public.raw).fingerprint) == "carol"


MISTAKES: dict[str, tuple[str, str]] = {
    "certificates": (f"*@lab cert-authority {LINE}", "`cert-authority` is not supported"),
    "an unknown option": (f'carol@lab from="x" {LINE}', "option `from`"),
    "an option that begins as a key type": (f'carol@lab ecdsa-from="x" {LINE}', "option `ecdsa-from`"),
    "options that are none": (f'carol@lab namespaces="git"; {LINE}', "found the options"),
    "an option twice": (f'carol@lab namespaces="a",namespaces="b" {LINE}', "once"),
    "an option without value": (f"carol@lab valid-after {LINE}", "valid-after"),
    "a time in words": (f'carol@lab valid-after="tomorrow" {LINE}', "time `tomorrow`"),
    "a thirteenth month": (f'carol@lab valid-after="20301301Z" {LINE}', "line 1"),
    "no key": ("carol@lab ssh-ed25519", "principals, a key type and a key"),
    "a damaged key": ("carol@lab ssh-ed25519 AAAA", "line 1"),
    "an empty principal": (f"carol@lab,, {LINE}", "patterns separated by commas"),
    "a quote after the principals": (f'carol@lab" {LINE}', "quote that is not closed"),
    "a quote before them": (f'"carol@lab {LINE}', "quote that is not closed"),
    "a quote after the key": (f'carol@lab {LINE}"', "quote that is not closed"),
    "a principal that is too long": (f"{'c' * (MAX_PATTERN + 1)} {LINE}", "patterns separated by commas"),
    "an unclosed quote": (f'carol@lab namespaces="git {LINE}', "line 1"),
}


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_refuses_the_whole_file(text: str, words: str) -> None:
    """The line is named."""
    with pytest.raises(ConfigurationError, match="line 1") as refusal:
        parse_allowed_signers(text.encode())
    assert words in refusal.value.message


def test_bytes_that_are_no_text_refuse_the_file() -> None:
    """Neither list may hold anything but UTF-8."""
    for parse in (parse_allowed_signers, parse_revoked):
        with pytest.raises(ConfigurationError, match="not UTF-8"):
            parse(b"\xff")
    with pytest.raises(ConfigurationError, match="line 1"):
        parse_revoked(b"ssh-ed25519 AAAA")


NOT_REVOKED = {
    "a line of allowed signers": f'carol@lab namespaces="policyguard-approval@v1" {LINE}',
    "a line of allowed signers without options": f"carol@lab {LINE}",
    "principals and a fingerprint": f"carol@lab {SshKey(CAROL.public.raw).fingerprint}",
    "what `ssh-keygen -l` prints": f"256 {SshKey(CAROL.public.raw).fingerprint} carol (ED25519)",
    "two fingerprints": f"SHA256:{'A' * 43} {SshKey(CAROL.public.raw).fingerprint}",
    "two keys": f"{LINE} {LINE}",
    "a comma after a fingerprint": f"{SshKey(CAROL.public.raw).fingerprint},",
    "a padded fingerprint": f"{SshKey(CAROL.public.raw).fingerprint}=",
    "another hash": "MD5:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff",
    "an account": "user:carol",
    "a key in capitals": LINE.upper(),
    "a key without its type": LINE.split()[1],
    "a key type that lies": LINE.replace("ssh-ed25519", "ssh-rsa"),
    "an unknown kind of key": "ssh-new AAAAB3NzaC1yc2E=",
    "a marker of `known_hosts`": f"@revoked * {LINE}",
    "an exclusion": f"!{LINE}",
}


@pytest.mark.parametrize("line", NOT_REVOKED.values(), ids=NOT_REVOKED)
def test_a_line_that_revokes_no_key_refuses_the_file(line: str) -> None:
    """The operator meant to revoke a key: passing the line over would let it count on."""
    with pytest.raises(ConfigurationError, match=r"revoked keys: line 2: .*expected"):
        parse_revoked(f"# who left\n{line}\n".encode())


@pytest.mark.parametrize(
    "line", [LINE, f"{LINE} carol@laptop", CAROL.public.text, f"{SshKey(CAROL.public.raw).fingerprint} left in May"]
)
def test_a_line_that_names_a_key_revokes_it(line: str) -> None:
    """The twin: each documented form."""
    assert who(f"carol@lab {LINE}", revoked=line) == "revoked_key"


def test_a_quote_that_nothing_closes_speaks_for_nobody() -> None:
    """I10: what looks like a word is not read past the quote, whatever the rest says; the twin has both quotes."""
    for line in (f'carol@lab" {LINE}', f'"carol@lab {LINE}', f'carol@lab,"dan@lab {LINE}'):
        with pytest.raises(ConfigurationError, match="line 1: found a quote that is not closed"):
            who(line)
    assert who(f'"carol@lab" {LINE}') == "carol"


def test_a_key_holds_at_every_instant_that_counts() -> None:
    """I10: a window that covers the signature but not the decision covers neither."""
    text = f'carol@lab valid-before="20300601120000Z" {LINE}'
    signers = Signers(PERSONS, parse_allowed_signers(text.encode()))
    key, early = SshKey(CAROL.public.raw), NOW - 1
    assert signers.person_of(key, NAMESPACE, (early, early)).id == "carol"
    for instants in ((early, NOW), (NOW, early)):
        with pytest.raises(UnknownSigner) as refusal:
            signers.person_of(key, NAMESPACE, instants)
        assert refusal.value.code == "key_window"


def test_files_are_limited_in_bytes_and_lines() -> None:
    """At the limit a file is read, one more of either refuses it."""
    assert parse_allowed_signers(b"\n" * (MAX_LINES - 1)) == ()
    with pytest.raises(ConfigurationError, match=f"{MAX_LINES + 1} lines, expected at most"):
        parse_allowed_signers(b"\n" * MAX_LINES)
    assert parse_revoked(b"#" * MAX_SIGNERS_BYTES) == frozenset()
    with pytest.raises(ConfigurationError, match=f"{MAX_SIGNERS_BYTES + 1} bytes, expected at most"):
        parse_revoked(b"#" * (MAX_SIGNERS_BYTES + 1))
    assert len(parse_allowed_signers(f"{'c' * MAX_PATTERN} {LINE}".encode())) == 1


def test_keys_of_other_kinds_are_nobodys() -> None:
    """Passed over in persons, revoked by their fingerprint; the other keys count."""
    rsa, broken = "ssh-rsa AAAAB3NzaC1yc2E=", "ed25519:zz"
    of_rsa = "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(rsa.split()[1])).digest()).decode().rstrip(
        "="
    )
    assert parse_revoked(f"{rsa}\n{LINE}".encode()) == {of_rsa, SshKey(CAROL.public.raw).fingerprint}
    assert person_key(rsa) is person_key(broken) is None
    carol = Person(id="carol", accounts=("user:carol",), keys=(rsa, broken, CAROL.public.text))
    assert Signers((carol,)).person_of(SshKey(CAROL.public.raw), NAMESPACE, (NOW,)).id == "carol"


def test_every_plain_key_is_found_by_its_id() -> None:
    """Those of persons and those of the file."""
    signers = Signers(PERSONS, parse_allowed_signers(f"carol@lab {LINE}".encode()))
    assert set(signers.by_keyid) == {CAROL.public.keyid, DAN.public.keyid}


def test_patterns_match_as_their_definition_says() -> None:
    """All texts up to three and all patterns up to four characters, against a regular expression."""
    texts = ["".join(each) for size in range(4) for each in product("ab", repeat=size)]
    for size in range(1, 5):
        for pattern in map("".join, product("ab*?", repeat=size)):
            meant = re.compile(pattern.replace("*", ".*").replace("?", "."))
            assert [matches(text, (pattern,)) for text in texts] == [bool(meant.fullmatch(text)) for text in texts]


@pytest.mark.parametrize(
    ("text", "patterns", "expected"),
    [
        ("abc", ("a*c",), True),
        ("abc", ("a?c",), True),
        ("abc", ("a?",), False),
        ("", ("*",), True),
        ("abc", ("*", "!abc"), False),
        ("abc", ("!x",), False),
        ("!abc", ("!abc",), False),
        ("a" * 200, ("*a" * 50 + "b",), False),
        ("a[b", ("a[b",), True),
        ("a*b", ("a\\*b",), False),
    ],
)
def test_patterns(text: str, patterns: tuple[str, ...], expected: bool) -> None:
    """`*`, `?` and `!`, nothing else; a pattern cannot make matching slow."""
    assert matches(text, patterns) is expected


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
@pytest.mark.parametrize(
    "text",
    [text for text, expected in CASES.values() if expected in ("carol", "wrong_namespace") and "user:" not in text],
)
def test_ssh_keygen_agrees(tmp_path: Path, text: str) -> None:
    """What counts here counts for `ssh-keygen -Y verify` too, and what is in another namespace for neither."""
    (tmp_path / "signers").write_text(text + "\n")
    (tmp_path / "sig").write_bytes(sign(b"message", NAMESPACE, CAROL))
    command = ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", "carol@lab", "-f", str(tmp_path / "signers")]
    command += ["-s", str(tmp_path / "sig"), "-O", "verify-time=20300601120000Z"]
    done = subprocess.run(command, input=b"message", capture_output=True, check=False)
    assert (done.returncode == 0) == (who(text) == "carol"), done.stderr
