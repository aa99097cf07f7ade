"""`policyguard manifest sign|verify`: record which run wrote a checkpoint, at which step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from policyguard.attest.keys import PublicKey
from policyguard.cli.files import check_replaceable, replace_file
from policyguard.cli.options import json_option, key_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import needed, settings
from policyguard.cli.verbs.scan_ import progress_bar, scan_options
from policyguard.errors import ConfigurationError, RequestError
from policyguard.fs.safe_open import read_bounded
from policyguard.keyfiles import read_passphrase, read_private_key, read_public_key
from policyguard.scan.files import scan_paths
from policyguard.scan.findings import Verdict
from policyguard.scan.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    Manifest,
    check_chain,
    check_files,
    check_origin,
    manifest_of,
    sign_manifest,
    verify_manifest,
)
from policyguard.text import printable

folder_argument = click.argument("checkpoint", type=click.Path(path_type=Path))
producer_key_option = click.option(
    "--producer-key", multiple=True, metavar="TYPE:ID=KEY", help="A producer's public key, `ed25519:...` or a file."
)


@click.group("manifest")
def command() -> None:
    """Sign and verify which run wrote a checkpoint."""


@command.command("sign")
@folder_argument
@key_option
@click.option("--producer", required=True, help="The run's own identity, `service:run-1234`.")
@click.option("--run", required=True, help="The run's name.")
@click.option("--step", required=True, type=int, help="The training step.")
@click.option("--previous", type=click.Path(path_type=Path), help="The checkpoint of the step before, or its manifest.")
@click.option("--class", "data_class", default="", help="Of data: its class, as the schema names it, `internal`.")
@producer_key_option
def sign(
    checkpoint: Path,
    key: Path | None,
    producer: str,
    run: str,
    step: int,
    previous: Path | None,
    data_class: str,
    producer_key: tuple[str, ...],
) -> None:
    """Scan and sign CHECKPOINT, a file or a folder; the manifest is written next to the file or into the folder.

    Sign as the run, right after writing. A hostile checkpoint is not signed. With --previous, the step before is
    verified and linked to, so that no step can be omitted or replaced.
    """
    _check_origin(producer, run, step, data_class)
    path = manifest_path(checkpoint)
    check_replaceable(path)
    private = read_private_key(needed(settings(key=key), "key"), passphrase=read_passphrase())
    keys = _producers(producer_key)
    keys.setdefault(producer, (private.public,))
    before = verify_manifest(_read(manifest_path(previous)), keys) if previous is not None else None
    config = settings()
    with progress_bar([checkpoint]) as progress:
        scans = scan_paths([checkpoint], scan_options(config, progress=progress))
    try:
        origin: dict[str, Any] = {"producer": producer, "run": run, "step": step, "data_class": data_class}
        manifest = manifest_of(checkpoint, scans, now=time.time_ns(), previous=before, **origin)
        envelope = sign_manifest(manifest, (private,))
    except ValueError as problem:
        raise RequestError(f"manifest: {problem}") from problem
    replace_file(path, envelope.to_bytes())
    count, start = len(manifest.resources), manifest.digest[:16]
    say(printable(f"{path}: step {step} of {run} by {producer}, {count} files, {start}"))


def _check_origin(producer: str, run: str, step: int, data_class: str) -> None:
    try:
        check_origin(producer, run, step, data_class)
    except ValueError as problem:
        raise click.UsageError(f"--{problem}") from problem


@command.command("verify")
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CHECKPOINT...")
@producer_key_option
@json_option
def verify(checkpoints: tuple[Path, ...], producer_key: tuple[str, ...], as_json: bool) -> None:
    """Check that each CHECKPOINT is what its producer signed; several must form one chain, oldest first.

    Exits with 77 and names the step, V1 to V7, where it does not hold.
    """
    producers = _producers(producer_key)
    if not producers:
        raise ConfigurationError(
            "no producer is known, expected the keys of those who may sign",
            help="give --producer-key TYPE:ID=KEY, or `checkpoints: {producers: ...}` in a policyguard.yaml",
        )
    manifests: list[Manifest] = []
    config = settings()
    with progress_bar(checkpoints) as progress:
        for checkpoint in checkpoints:
            manifest = verify_manifest(_read(manifest_path(checkpoint)), producers)
            scans = scan_paths([checkpoint], scan_options(config, progress=progress))
            check_files(manifest, checkpoint, scans)
            manifests.append(manifest)
            worst = max((scan.verdict for scan in scans), key=list(Verdict).index)
            _say(checkpoint, manifest, worst, as_json)
    if len(manifests) > 1:
        check_chain(manifests)


def manifest_path(checkpoint: Path) -> Path:
    """Return the path of a checkpoint's manifest; the path of a manifest is returned unchanged."""
    if checkpoint.name.endswith(".dsse.json"):
        return checkpoint
    return checkpoint / MANIFEST_NAME if checkpoint.is_dir() else checkpoint.with_name(checkpoint.name + ".dsse.json")


def _read(path: Path) -> bytes:
    return read_bounded(path, MAX_MANIFEST_BYTES)


def _producers(chosen: tuple[str, ...]) -> dict[str, tuple[PublicKey, ...]]:
    """Return the pinned keys of each producer, from the configuration and the options."""
    producers = {who: tuple(keys) for who, keys in settings().measurement.checkpoints.producers.items()}
    for text in chosen:
        who, equals, key = text.partition("=")
        if not equals or ":" not in who:
            raise click.UsageError(f"--producer-key: found `{text}`, expected TYPE:ID=KEY")
        public = PublicKey.from_text(key) if key.startswith("ed25519:") else read_public_key(key)
        producers[who] = (*producers.get(who, ()), public)
    return producers


def _say(checkpoint: Path, manifest: Manifest, worst: Verdict, as_json: bool) -> None:
    if as_json:
        say_json(
            {
                "verified": True,
                "checkpoint": str(checkpoint),
                "producer": manifest.producer,
                "run": manifest.run,
                "step": manifest.step,
                "digest": manifest.digest,
                "previous": manifest.previous or "",
                "verdict": worst.value,
            }
        )
        return
    say("verified", nl=False, fg="green", bold=True)
    say(
        printable(
            f"  {checkpoint}: step {manifest.step} of {manifest.run} by {manifest.producer}, scan says {worst.value}"
        )
    )
