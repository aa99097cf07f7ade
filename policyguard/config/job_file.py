"""The job file: what a user asks for when a command is started under policyguard.

    resource: job:team/vision/run-17        # required
    action: job:submit                      # this if not given
    subject: user:alice                     # must agree with the account of the process; see `run --subject`
    properties: {gpus: 8}                   # what is claimed of the job
    context: {ticket: OPS-17}
    files: [configs/vision.yaml]            # measured, beside the program itself
    checkpoints: [weights/base.safetensors] # measured and scanned, files or folders
    confine: true                           # start the job under Landlock
    from_commit: true                       # start it from an export of its commit
    outputs: {weights: /scratch/run-17}     # with either: folders that it writes
    data: {images: /data/images}            # with either: files and folders that it reads

The first five are claims; what the others name is measured.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import structs

from policyguard.errors import ConfigurationError, PolicyErrors, RequestError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.identity import calling_account
from policyguard.fs.safe_open import read_bounded, reason_of
from policyguard.model.request import Request
from policyguard.policy.problems import nearest
from policyguard.policy.reader import field_span, read_value
from policyguard.text import quoted, quoted_list
from policyguard.values import EMPTY_MAP, LazyPattern, Value, name_of

DEFAULT_ACTION = "job:submit"
MAX_JOB_BYTES = 262_144
_NAME = LazyPattern(r"[A-Za-z0-9_.-]{1,64}")

_EXAMPLES = {"subject": "user:alice", "resource": "job:team/vision/run-17"}
_FIELDS = (
    "resource",
    "action",
    "subject",
    "properties",
    "context",
    "files",
    "checkpoints",
    "confine",
    "from_commit",
    "outputs",
    "data",
)


def read_job_file(
    path: str | Path,
    argv: Sequence[str],
    directory: str | Path | None,
    environment: Mapping[str, str],
    *,
    account: str | None = None,
) -> tuple[Request, JobInputs]:
    """Read a job file; return the request, and what to measure for this command.

    Args:
        path: the job file.
        argv: the command it is for.
        directory: where the command will run; None for the current folder.
        environment: the variables that the command will get.
        account: the subject if the file names none; by default that of the account of this process.

    Raises:
        RequestError: the file cannot be read, or a field in it is unknown, missing or malformed.
        ConfigurationError: the folder does not exist, or not any more.
        TypeError: the command is one text, not a list.
    """
    if isinstance(argv, str | bytes):
        raise TypeError(f"argv: found {quoted(str(argv))}, expected a list such as `['python', 'train.py']`")
    folder = current_folder() if directory is None else os.path.abspath(directory)
    if not os.path.isdir(folder):
        raise ConfigurationError(f"{directory}: found no folder, expected the one in which the command is to run")
    try:
        text = read_bounded(path, MAX_JOB_BYTES)
        data = read_value(text, str(path))
    except ConfigurationError as problem:
        raise RequestError(problem.message.removeprefix(f"{path}: "), path=str(path), help=problem.help) from problem
    except PolicyErrors as problems:
        error = problems.errors[0]
        raise RequestError(error.message, path=str(error.span or path), help=error.help) from problems
    try:
        return read_job(data, argv, folder, environment, account=account)
    except RequestError as problem:
        raise _located(problem, text, str(path)) from problem


def _located(problem: RequestError, text: bytes, file: str) -> RequestError:
    """Put file, line and column before the path of an error."""
    names = problem.path.removeprefix("$").removeprefix(".resource.properties")
    names = names if names == problem.path.removeprefix("$") else f".properties{names}"
    span = field_span(text, file, re.split(r"[.\[]", names)[1:])
    path = str(span) if problem.path == "$" else f"{span}: {problem.path}"
    return RequestError(problem.message, path=path, help=problem.help)


def check_subject(request: Request, subject: str | None) -> None:
    """Check that a job file agrees with `--subject`; None if the option is missing.

    Raises:
        RequestError: the job file names another subject.
    """
    if subject is not None and request.subject.ref != subject:
        raise RequestError(f"found `{request.subject.ref}`, expected `{subject}` as --subject says", path="$.subject")


def with_start(
    inputs: JobInputs, *, confine: bool, from_commit: bool, outputs: Sequence[str], data: Sequence[str]
) -> JobInputs:
    """Add to a job file what options say: `--confine`, `--from-commit`, `--output NAME=DIR`, `--data NAME=PATH`.

    Args:
        inputs: what the job file says.
        confine: start the job confined.
        from_commit: start it from an export of its commit.
        outputs: folders that it may write, as `NAME=DIR`.
        data: files and folders that it may read, as `NAME=PATH`.

    Raises:
        RequestError: an option is malformed, or gives a name another path than the job file.
    """
    return structs.replace(
        inputs,
        confine=confine or inputs.confine,
        from_commit=from_commit or inputs.from_commit,
        outputs=_with_named(inputs.outputs, outputs, "--output"),
        data=_with_named(inputs.data, data, "--data"),
    )


STARTING = ("submit", "start")
"""The verbs of the actions that start a command: `job:submit`, `job:start`."""


def check_starting(request: Request) -> None:
    """Refuse to start a command under a decision about something else, such as reading the logs of a job.

    Raises:
        RequestError: the action does not start anything.
    """
    # INVARIANT I15: the submitter's file says what is asked; only an answer about starting starts something.
    type_, _, verb = request.action.partition(":")
    if verb not in STARTING:
        raise RequestError(
            f"found `{request.action}`, expected `{type_}:submit` or `{type_}:start`: no other action starts a command",
            path="$.action",
        )


def check_declared(inputs: JobInputs) -> None:
    """Refuse outputs and data of a job that starts in its work tree with all rights of the account.

    Raises:
        RequestError: it names some, which would have no effect.
    """
    if (inputs.outputs or inputs.data) and not (inputs.confine or inputs.from_commit):
        raise RequestError(
            "`outputs` and `data` are of a job that starts confined or from its commit, and this one does neither",
            help="add `--confine` or `--from-commit`, or remove them",
        )


def _with_named(named: Mapping[str, str], options: Sequence[str], option: str) -> dict[str, str]:
    merged = dict(named)
    for text in options:
        name, equals, path = text.partition("=")
        if not equals or not path or not _NAME.fullmatch(name):
            raise RequestError(f"{option}: found {quoted(text)}, expected NAME=PATH such as `weights=/scratch/run-17`")
        if merged.setdefault(name, path) != path:
            raise RequestError(
                f"{option}: {quoted(name)} is {quoted(merged[name])} already, expected one path for a name"
            )
    return merged


def current_folder() -> str:
    """Return the current folder; `ConfigurationError` if it does not exist any more."""
    try:
        return os.getcwd()
    except OSError as problem:
        raise ConfigurationError(f"the current folder: {reason_of(problem)}") from problem


def read_job(
    data: Value, argv: Sequence[str], directory: str, environment: Mapping[str, str], *, account: str | None = None
) -> tuple[Request, JobInputs]:
    """Convert a decoded job file to the request, and to what is to be measured for this command.

    Args:
        data: the decoded job file.
        argv: the command.
        directory: where the command runs.
        environment: its environment.

    Raises:
        RequestError: a field is unknown, missing or malformed; `.path` says which.
    """
    fields = _fields(data)
    subject = fields["subject"] if "subject" in fields else account or _own_account()
    subject_type, subject_id = _split(subject, "subject")
    resource_type, resource_id = _split(fields["resource"], "resource")
    request = Request.from_data(
        {
            "subject": {"type": subject_type, "id": subject_id},
            "action": {"name": fields.get("action", DEFAULT_ACTION)},
            "resource": {"type": resource_type, "id": resource_id, "properties": fields.get("properties", {})},
            "context": fields.get("context", {}),
        }
    )
    inputs = JobInputs(
        argv=tuple(argv),
        directory=directory,
        environment=dict(environment),
        files=_names(fields.get("files", ()), "$.files"),
        checkpoints=_names(fields.get("checkpoints", ()), "$.checkpoints"),
        confine=_flag(fields.get("confine", False), "$.confine"),
        from_commit=_flag(fields.get("from_commit", False), "$.from_commit"),
        outputs=_folders(fields.get("outputs", EMPTY_MAP), "$.outputs"),
        data=_folders(fields.get("data", EMPTY_MAP), "$.data"),
    )
    return request, inputs


def _fields(data: Value) -> Mapping[str, Value]:
    if not isinstance(data, Mapping):
        raise RequestError(f"found {name_of(data)}, expected a map with {quoted_list(_FIELDS)}")
    for name in data:
        if name not in _FIELDS:
            near = nearest(name, _FIELDS)
            help = f"did you mean `{near}`?" if near else "what the job claims goes under it: `properties: {gpus: 8}`"
            raise RequestError(
                f"unknown field `{name}`, expected one of {quoted_list(_FIELDS)}", path=f"$.{name}", help=help
            )
    if "resource" not in data:
        raise RequestError(f"`resource` is missing, expected `type:id` such as `{_EXAMPLES['resource']}`")
    return data


def _own_account() -> str:
    caller = calling_account()
    if caller.ref is None:
        raise RequestError(f"`subject` is missing, and {caller.problem}", path="$.subject")
    return caller.ref


def _split(data: Value, field: str) -> tuple[str, str]:
    if not isinstance(data, str) or ":" not in data:
        result = f"`{data}`" if isinstance(data, str) else name_of(data)
        raise RequestError(f"found {result}, expected `type:id` such as `{_EXAMPLES[field]}`", path=f"$.{field}")
    kind, _, identifier = data.partition(":")
    return kind, identifier


def _flag(data: Value, path: str) -> bool:
    if type(data) is not bool:
        raise RequestError(f"found {name_of(data)}, expected `true` or `false`", path=path)
    return data


def _folders(data: Value, path: str) -> dict[str, str]:
    if not isinstance(data, Mapping):
        raise RequestError(f"found {name_of(data)}, expected a map of names to folders", path=path)
    for name, folder in data.items():
        if not _NAME.fullmatch(name):
            raise RequestError(f"found {quoted(name)}, expected a name such as `weights`", path=path)
        if not isinstance(folder, str) or not folder:
            raise RequestError(f"found {name_of(folder)}, expected a folder", path=f"{path}.{name}")
    return {name: str(folder) for name, folder in data.items()}


def _names(data: Value, path: str) -> tuple[str, ...]:
    if not isinstance(data, tuple):
        raise RequestError(f"found {name_of(data)}, expected a list of file names", path=path)
    for index, name in enumerate(data):
        if not isinstance(name, str) or not name:
            raise RequestError(f"found {name_of(name)}, expected a file name", path=f"{path}[{index}]")
    return tuple(str(name) for name in data)
