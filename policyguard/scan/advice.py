"""Advice for each reason code: what a loader would do with the file, and how to make it acceptable.

`policyguard scan --explain CODE` prints it. A code is advised by its own row, else by the row of its family.
"""

from __future__ import annotations

from dataclasses import dataclass

from policyguard.scan.reasons import REASONS, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a loader does with such a file, and what to do about it."""

    does: str
    accept: str


_ASK = "Do not load it. Ask who wrote it, and keep the file."
_APPROVE = "Review the file, then approve its digest (`policyguard approve`)."
_AGAIN = "Write the file again, or fetch it again, and compare its digest with the producer's."
_ROWS: dict[str, tuple[str, str]] = {
    "ckpt.pickle": (
        "`pickle.load` imports and calls what the stream names, before the program sees any data.",
        "Save weights as safetensors, or list the class with `--class` or `checkpoints: {classes: ...}`.",
    ),
    "ckpt.pickle_unlisted": (
        "`pickle.load` imports the class and builds an object of it; nobody here has reviewed that class.",
        "List it with `--class MODULE.NAME`, have the producer sign a manifest, or approve the digest.",
    ),
    "ckpt.target": (
        "hydra, jsonargparse, torchtune and others import the name and call it with the entries beside it.",
        "Name a listed class, or review the configuration and approve its digest.",
    ),
    "ckpt.expression": (
        "The loader evaluates the text as Python when it reads the settings.",
        "Write the value itself, or review the configuration and approve its digest.",
    ),
    "ckpt.yaml": (
        "`yaml.unsafe_load` and loaders built on it import what the tag names, and call it.",
        "Remove the tag: write plain values; then `yaml.safe_load` reads the file.",
    ),
    "ckpt.shell": ("A tool that reads these settings hands the text to a shell.", _APPROVE),
    "ckpt.requirement": (
        "pip installs from the address, and runs the build script that lies there.",
        "Name packages of the configured index with versions.",
    ),
    "ckpt.unsafe_switch": (
        "The loader then runs code that comes with the model, or unpickles data.",
        "Set it to false, or review the code and approve the digest.",
    ),
    "ckpt.pickled_column": (
        "The reader unpickles the data that lies beside the settings.",
        "Use a codec for plain data.",
    ),
    "ckpt.config_broken": (
        "A loader refuses the file, or reads the part before the place that breaks.",
        "Correct the syntax at that place.",
    ),
    "ckpt.template_code": (
        "A renderer without a sandbox follows the name to Python's functions (CVE-2024-34359).",
        _ASK,
    ),
    "ckpt.template_unread": (
        "The template computes a name when it is rendered; only names that are written out can be judged.",
        "Write the key out, or review the template and pin its digest.",
    ),
    "ckpt.external": (
        "The loader opens another file, with the rights of the account that loads.",
        "Keep the data in the same folder under a plain name, and scan the folder.",
    ),
    "ckpt.keras": (
        "Keras imports the class, or runs the byte code of a Lambda, while it rebuilds the model.",
        "Rebuild the model in code and load its weights alone.",
    ),
    "ckpt.code_file": (
        "Nothing, as data; a loader that is allowed to run code imports it.",
        "Move code into the reviewed repository, or approve the digest of the folder.",
    ),
    "hub.own_code": (
        "With `trust_remote_code`, or always for some libraries, the loader imports this code from the folder.",
        "Pin the revision, review the code, and approve the digest.",
    ),
    "hub.foreign_code": (
        "The loader fetches code from another repository, which `revision` does not pin.",
        "Copy the code into the reviewed repository, or pin `code_revision`.",
    ),
    "hub.remote_kernels": (
        "The loader fetches compiled kernels by name; no argument pins them.",
        "Choose a built-in implementation of attention.",
    ),
    "ckpt.archive": (
        "Readers of the archive differ in what they take from it, or write outside of the folder.",
        "Pack the files again with the standard tool.",
    ),
    "ckpt.missing": ("Nothing: there is no such file.", "Correct the path."),
    "ckpt.empty": ("Nothing: the file has no content.", _AGAIN),
    "ckpt.changed": ("It may load another content than was scanned.", "Stop the writer, then scan again."),
    "ckpt.symlink": ("It follows the link out of the folder.", "Copy the file into the folder."),
    "ckpt.unreadable": ("It fails to open the file.", "Make the file readable for this account."),
    "ckpt.not_regular": ("It reads from a device or a pipe.", "Name a regular file."),
    "ckpt.too": ("It reads more than this scan does.", "Raise nothing: unpack the file and scan its parts."),
    "ckpt.timeout": ("Nothing is known of the rest of the file.", "Unpack the file and scan its parts."),
}
_BY_VERDICT = {
    Verdict.UNKNOWN: ("A loader may refuse the file, or read something that is not understood here.", _AGAIN),
    Verdict.HOSTILE: ("A loader runs code, or reads something else than its name promises.", _ASK),
}


def advice(code: str) -> Advice:
    """Return the advice for a reason code.

    Raises:
        KeyError: there is no such code.
    """
    verdict, _ = REASONS[code]
    key = code
    while key not in _ROWS and "_" in key:
        key = key.rpartition("_")[0]
    does, accept = _ROWS.get(key, _BY_VERDICT[verdict])
    return Advice(does=does, accept=_ASK if verdict is Verdict.HOSTILE and key != code else accept)
