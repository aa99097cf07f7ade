"""`policyguard import casbin MODEL POLICY`: translate a casbin model and its rows, exactly or not at all."""

from __future__ import annotations

from pathlib import Path

import click

from policyguard.casbin_compat.importer import import_casbin
from policyguard.cli.files import write_new
from policyguard.cli.options import json_option
from policyguard.cli.output import echo, say, say_json
from policyguard.errors import ConfigurationError, PolicyError, PolicyErrors
from policyguard.fs.safe_open import read_bounded

FILE_NAME = "imported.yaml"
MAX_MODEL_BYTES = 1_048_576
MAX_ROWS_BYTES = 16_777_216

_FILE = click.Path(path_type=Path)


@click.group("import")
def command() -> None:
    """Translate the policies of another engine into policy documents."""


@command.command("casbin")
@click.argument("model", type=_FILE)
@click.argument("policy", type=_FILE)
@click.option("--action", "actions", multiple=True, help="An action that no row names by itself.")
@click.option("-o", "--out", type=_FILE, help="A folder for the file `imported.yaml`; standard output if not given.")
@json_option
def casbin(model: Path, policy: Path, actions: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Translate the casbin MODEL (.conf) and the rows in POLICY (.csv) into equivalent YAML documents.

    What cannot be translated exactly is refused with file, line and column; exits with 65.
    """
    imported = import_casbin(
        _text(model, MAX_MODEL_BYTES),
        _text(policy, MAX_ROWS_BYTES),
        model_file=str(model),
        policy_file=str(policy),
        actions=actions,
    )
    if out is not None:
        _write_documents(out, imported.documents)
    if as_json:
        say_json(
            {
                "documents": imported.documents,
                "actions": sorted(imported.names.actions),
                "domains": imported.names.domains,
                "out": None if out is None else str(out),
            }
        )
    elif out is None:
        echo(imported.documents, nl=False)
    else:
        say(f"{out / FILE_NAME}: {len(imported.names.actions)} actions; try")
        say(f"  policyguard lint {out}")


def _write_documents(folder: Path, documents: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as problem:
        raise ConfigurationError(
            f"{folder}: cannot be made: {(getattr(problem, 'strerror', '') or str(problem)).lower()}"
        ) from problem
    write_new(folder / FILE_NAME, documents.encode())


def _text(path: Path, max_bytes: int) -> str:
    data = read_bounded(path, max_bytes)
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise PolicyErrors(
            [PolicyError(f"{path}: found a byte that is not UTF-8 at offset {problem.start}")]
        ) from problem
