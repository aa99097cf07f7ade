"""SSH signatures in process and by ssh-keygen say the same."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey, decode_base64, encode_base64
from policyguard.attest.sshsig import (
    ED25519,
    MAX_ARMOUR_BYTES,
    SK_ED25519,
    SshKey,
    SshSignature,
    SshSignatureError,
    fingerprint_of_line,
    parse_key,
    parse_key_blob,
    parse_signature,
    sign,
    signed_bytes,
)

NAMESPACE = "policyguard-approval@v1"
KEY = PrivateKey(b"\1" * 32)
MESSAGE = b"approved\n"
ARMOUR = sign(MESSAGE, NAMESPACE, KEY)

ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def armoured(blob: bytes, width: int = 70) -> bytes:
    text = encode_base64(blob)
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    return b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""])


def blob_of(armour: bytes) -> bytes:
    found = decode_base64(b"".join(armour.split(b"\n")[1:-2]))
    assert found is not None
    return found


BLOB = blob_of(ARMOUR)


def test_a_signature_covers_its_message_in_its_namespace_only() -> None:
    """I10."""
    parsed = parse_signature(ARMOUR)
    assert parsed.key == SshKey(KEY.public.raw)
    assert parsed.covers(MESSAGE, NAMESPACE)
    assert not parsed.covers(MESSAGE, "git")
    assert not parsed.covers(MESSAGE + b"x", NAMESPACE)


def test_a_signature_in_another_namespace_does_not_become_ours() -> None:
    """I10: exchanging the name in the blob breaks the signature, which covers it."""
    forged = sign(MESSAGE, "policyguard-approval@v0", KEY)
    renamed = parse_signature(armoured(blob_of(forged).replace(b"approval@v0", b"approval@v1")))
    assert renamed.namespace == NAMESPACE
    assert not renamed.covers(MESSAGE, NAMESPACE)


def test_a_signature_that_names_another_namespace_does_not_count_although_it_covers_ours() -> None:
    """I10: what the signature says of itself, and what was signed, must both be ours."""
    renamed = parse_signature(armoured(BLOB.replace(b"approval@v1", b"approval@v0")))
    assert renamed.namespace == "policyguard-approval@v0"
    assert not renamed.covers(MESSAGE, NAMESPACE)
    assert not renamed.covers(MESSAGE, renamed.namespace)


@ssh_keygen
@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
def test_ssh_keygen_signs_and_we_verify(tmp_path: Path, hash_name: str) -> None:
    """`ssh-keygen -Y sign`, with both hashes."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id")], check=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-O", f"hashalg={hash_name}", "-n", NAMESPACE]
    done = subprocess.run([*command, "-f", str(tmp_path / "id")], input=MESSAGE, capture_output=True, check=True)
    parsed = parse_signature(done.stdout)
    line = (tmp_path / "id.pub").read_text()
    assert parsed.hash_name == hash_name
    assert parsed.key == parse_key(line)
    assert parsed.covers(MESSAGE, NAMESPACE)
    told = subprocess.run(["ssh-keygen", "-l", "-f", str(tmp_path / "id.pub")], capture_output=True, check=True)
    assert parsed.key.fingerprint in told.stdout.decode()
    assert parsed.key.text == " ".join(line.split()[:2])


@ssh_keygen
@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
def test_we_sign_and_ssh_keygen_verifies(tmp_path: Path, hash_name: str) -> None:
    """`ssh-keygen -Y verify`, and a changed message as twin."""
    (tmp_path / "signers").write_text(f"carol {SshKey(KEY.public.raw).text}\n")
    (tmp_path / "sig").write_bytes(sign(MESSAGE, NAMESPACE, KEY, hash_name))
    command = ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", "carol", "-f", str(tmp_path / "signers")]
    command += ["-s", str(tmp_path / "sig")]
    assert subprocess.run(command, input=MESSAGE, capture_output=True, check=False).returncode == 0
    assert subprocess.run(command, input=MESSAGE + b"x", capture_output=True, check=False).returncode != 0


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def blob(
    *,
    magic: bytes = b"SSHSIG",
    version: int = 1,
    key: bytes = SshKey(KEY.public.raw).blob,
    namespace: bytes = b"n",
    reserved: bytes = b"",
    hash_name: bytes = b"sha512",
    kind: bytes = b"ssh-ed25519",
    signature: bytes = b"\0" * 64,
    inner_tail: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    fields = (key, namespace, reserved, hash_name, string(kind) + string(signature) + inner_tail)
    return magic + version.to_bytes(4, "big") + b"".join(map(string, fields)) + tail


BAD_BLOBS: dict[str, tuple[bytes, str]] = {
    "another magic": (blob(magic=b"SSHSIX"), "expected `SSHSIG`"),
    "version 2": (blob(version=2), "version 2, expected 1"),
    "no namespace": (blob(namespace=b""), "no namespace"),
    "namespace that is no UTF-8": (blob(namespace=b"\xff"), "not UTF-8"),
    "something reserved": (blob(reserved=b"x"), "reserved field"),
    "sha1": (blob(hash_name=b"sha1"), "expected sha256 or sha512"),
    "63 bytes of signature": (blob(signature=b"\0" * 63), "63 bytes"),
    "signature of another kind": (blob(kind=b"ssh-rsa"), "expected 64 of `ssh-ed25519`"),
    "bytes at the end": (blob(tail=b"\0"), "followed by 1 more bytes"),
    "bytes after the key": (blob(key=SshKey(KEY.public.raw).blob + b"x"), "SSH public key is followed by 1 more bytes"),
    "bytes after the signature proper": (
        blob(signature=b"\0" * 64, kind=b"ssh-ed25519", inner_tail=b"x"),
        "SSH signature is followed by 1 more bytes",
    ),
    "65 bytes of signature": (blob(signature=b"\0" * 65), "65 bytes"),
    "33 bytes of key": (blob(key=string(b"ssh-ed25519") + string(b"\0" * 33)), "33 bytes, expected 32"),
    "a kind that is no name": (blob(key=string(b"\x1b[31m") + string(b"x")), "expected an SSH key type"),
    "31 bytes of key": (blob(key=string(b"ssh-ed25519") + string(b"\0" * 31)), "31 bytes, expected 32"),
    "an RSA key": (blob(key=string(b"ssh-rsa") + string(b"x")), "`ssh-rsa` keys are not verified here"),
    "an ECDSA key": (blob(key=string(b"ecdsa-sha2-nistp256") + string(b"x")), "`ecdsa-sha2-nistp256` keys"),
    "a certificate": (blob(key=string(b"ssh-ed25519-cert-v01@openssh.com")), "cert-v01@openssh.com` keys"),
    "a length beyond the end": (b"SSHSIG" + (1).to_bytes(4, "big") + b"\xff\xff\xff\xff", "in the middle"),
    "nothing": (b"", "in the middle"),
}


@pytest.mark.parametrize(("data", "words"), BAD_BLOBS.values(), ids=BAD_BLOBS)
def test_a_bad_blob_is_refused_by_name(data: bytes, words: str) -> None:
    """I5 and I10."""
    with pytest.raises(SshSignatureError, match=words):
        parse_signature(armoured(data) if data else b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----")


def test_the_blob_of_the_bad_ones_is_good() -> None:
    """The twin: the same builder, nothing changed."""
    assert parse_signature(armoured(blob())).signature == b"\0" * 64


@pytest.mark.parametrize("length", range(0, len(BLOB), 7))
def test_every_truncation_is_refused(length: int) -> None:
    """No prefix of a signature is one."""
    with pytest.raises(SshSignatureError):
        parse_signature(armoured(BLOB[:length]))


BAD_ARMOURS: dict[str, bytes] = {
    "empty": b"",
    "no end": ARMOUR.replace(b"-----END", b"-----FIN"),
    "text before": b"x\n" + ARMOUR,
    "text behind": ARMOUR + b"x\n",
    "spaces in a line": ARMOUR.replace(b"U1NI", b"U1 NI"),
    "an empty line": ARMOUR.replace(b"U1NI", b"\nU1NI"),
    "carriage returns": ARMOUR.replace(b"\n", b"\r\n"),
    "one long line": armoured(BLOB, 4096),
    "no beginning": ARMOUR.replace(b"-----BEGIN", b"-----BEGUN"),
    "a beginning and an end alone": b"-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n",
    "too long": b"-----BEGIN SSH SIGNATURE-----\n" + b"A" * MAX_ARMOUR_BYTES,
}


@pytest.mark.parametrize("armour", BAD_ARMOURS.values(), ids=BAD_ARMOURS)
def test_a_bad_armour_is_refused(armour: bytes) -> None:
    """The envelope of lines is strict as well."""
    with pytest.raises(SshSignatureError):
        parse_signature(armour)


def test_too_much_is_refused_before_it_is_read() -> None:
    """By its size, whatever it holds; at the limit it is read, and here it is no signature."""
    for size, words in ((MAX_ARMOUR_BYTES, "found no SSH signature"), (MAX_ARMOUR_BYTES + 1, "at most 8192")):
        with pytest.raises(SshSignatureError, match=words) as refusal:
            parse_signature(b"x" * size)
        assert refusal.value.code == "malformed"
    with pytest.raises(SshSignatureError, match="found no SSH public key"):
        parse_key(f"{ED25519} {'A' * (MAX_ARMOUR_BYTES + 4)}")


def test_a_kind_we_do_not_verify_is_no_mistake_and_a_kind_of_no_name_is() -> None:
    """I10: by their codes they are told apart."""
    for line, code in (("ssh-rsa AAAA", "key_type"), ("SSH/RSA AAAA", "malformed")):
        with pytest.raises(SshSignatureError) as refusal:
            parse_key(line)
        assert refusal.value.code == code


def test_lines_may_be_wrapped_elsewhere() -> None:
    """Other programs wrap at 76 or 64; the end of the last line may be missing."""
    for width in (64, 76):
        assert parse_signature(armoured(BLOB, width).rstrip(b"\n")).covers(MESSAGE, NAMESPACE)


def security_key(flags: int, *, application: str = "ssh:", message: bytes = MESSAGE) -> SshSignature:
    """Sign as a FIDO token does (PROTOCOL.u2f): over the application's hash, flags, counter and the message's hash."""
    told = bytes([flags]) + (7).to_bytes(4, "big")
    inner = hashlib.sha256(signed_bytes(message, NAMESPACE, "sha512")).digest()
    made = KEY.sign(hashlib.sha256(application.encode()).digest() + told + inner)
    key = SshKey(KEY.public.raw, application)
    tail = string(string(SK_ED25519.encode()) + string(made) + told)
    fields = b"".join(map(string, (key.blob, NAMESPACE.encode(), b"", b"sha512")))
    return parse_signature(armoured(b"SSHSIG" + (1).to_bytes(4, "big") + fields + tail))


def test_a_security_key_counts_if_it_was_touched() -> None:
    """`sk-ssh-ed25519`: user presence is demanded; the key is another one than the plain key of the same bytes."""
    assert security_key(1).covers(MESSAGE, NAMESPACE)
    assert security_key(5).covers(MESSAGE, NAMESPACE)
    assert not security_key(0).covers(MESSAGE, NAMESPACE)
    assert not security_key(1).covers(MESSAGE + b"x", NAMESPACE)
    assert security_key(1).key != SshKey(KEY.public.raw)
    assert parse_key_blob(security_key(1).key.blob) == security_key(1).key


BAD_KEYS = {
    "nothing": "",
    "a type alone": ED25519,
    "no base64": f"{ED25519} !!!",
    "another type inside": f"{ED25519} {encode_base64(SshKey(KEY.public.raw, 'ssh:').blob).decode()}",
    "an RSA key": "ssh-rsa AAAAB3NzaC1yc2E=",
    "not ASCII": f"{ED25519} \N{CYRILLIC SMALL LETTER A}AAA",
}


@pytest.mark.parametrize("text", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_key_line_is_refused(text: str) -> None:
    """I10."""
    with pytest.raises(SshSignatureError):
        parse_key(text)


def line_of(kind: str, blob: bytes) -> str:
    return f"{kind} {encode_base64(blob).decode()}"


NO_LINES = {
    "a key of 31 bytes": line_of(ED25519, string(ED25519.encode()) + string(b"\0" * 31)),
    "a key that says another kind": line_of("ssh-rsa", SshKey(KEY.public.raw).blob),
    "no base64": "ssh-rsa AAAA!",
    "other letters": "ssh-rsa \u0410\u0410\u0410\u0410",
    "no key": "ssh-rsa",
    "a key without a kind in it": line_of("ssh-rsa", b""),
    "more than any key": line_of("ssh-rsa", string(b"ssh-rsa") + b"x" * MAX_ARMOUR_BYTES),
}


@pytest.mark.parametrize("text", NO_LINES.values(), ids=NO_LINES)
def test_what_is_no_public_key_line_has_no_fingerprint(text: str) -> None:
    """A fingerprint of something else would revoke nothing."""
    with pytest.raises(SshSignatureError) as refusal:
        fingerprint_of_line(text)
    assert refusal.value.code == "malformed"


def test_a_key_that_is_not_verified_here_can_still_be_named() -> None:
    """The fingerprint of an RSA key is that of its blob, as `ssh-keygen -l` prints it."""
    blob = string(b"ssh-rsa") + string(b"x")
    expected = encode_base64(hashlib.sha256(blob).digest()).decode().rstrip("=")
    assert fingerprint_of_line(line_of("ssh-rsa", blob) + " ann@laptop") == f"SHA256:{expected}"
