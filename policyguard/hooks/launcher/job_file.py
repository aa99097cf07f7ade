"""The job file: what a person asks for when a command is started under policyguard.

    resource: job:team/vision/run-17        # required
    action: job:submit                      # this if not given
    subject: user:alice                     # the account of the process if not given
    properties: {gpus: 8}                   # what is claimed of the job
    context: {ticket: OPS-17}
    files: [configs/vision.yaml]            # measured, beside the program itself
    checkpoints: [weights/base.safetensors] # measured and scanned, files or folders

Takes decoded data, opens nothing. Everything in it but `files` and `checkpoints` is a claim.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from policyguard.errors import RequestError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.identity import account_name
from policyguard.model.request import Request
from policyguard.text import quoted_list
from policyguard.values import Value, name_of

DEFAULT_ACTION = "job:submit"

_FIELDS = ("resource", "action", "subject", "properties", "context", "files", "checkpoints")


def read_job(
    data: Value, argv: Sequence[str], directory: str, environment: Mapping[str, str]
) -> tuple[Request, JobInputs]:
    """Return the request and what is to be measured, from a decoded job file and the command it is for.

    Raises:
        RequestError: a field is unknown, missing or malformed; `.path` says which.
    """
    if not isinstance(data, Mapping):
        raise RequestError(f"found {name_of(data)}, expected a map with {quoted_list(_FIELDS)}")
    for name in data:
        if name not in _FIELDS:
            raise RequestError(f"unknown field `{name}`, expected one of {quoted_list(_FIELDS)}", path=f"$.{name}")
    if "resource" not in data:
        raise RequestError("`resource` is missing, expected `type:id` such as `job:team/vision/run-17`")
    subject_type, subject_id = _split(data.get("subject", _own_account()), "$.subject")
    resource_type, resource_id = _split(data["resource"], "$.resource")
    request = Request.from_data(
        {
            "subject": {"type": subject_type, "id": subject_id},
            "action": {"name": data.get("action", DEFAULT_ACTION)},
            "resource": {"type": resource_type, "id": resource_id, "properties": data.get("properties", {})},
            "context": data.get("context", {}),
        }
    )
    inputs = JobInputs(
        argv=tuple(argv),
        directory=directory,
        environment=dict(environment),
        files=_names(data.get("files", ()), "$.files"),
        checkpoints=_names(data.get("checkpoints", ()), "$.checkpoints"),
    )
    return request, inputs


def _own_account() -> str:
    uid = os.getuid()
    account = account_name(uid)
    if account is None:
        raise RequestError(f"`subject` is missing, and uid {uid} has no account name to stand for it", path="$.subject")
    return f"user:{account}"


def _split(data: Value, path: str) -> tuple[str, str]:
    if not isinstance(data, str) or ":" not in data:
        found = f"`{data}`" if isinstance(data, str) else name_of(data)
        raise RequestError(f"found {found}, expected `type:id` such as `user:alice`", path=path)
    kind, _, identifier = data.partition(":")
    return kind, identifier


def _names(data: Value, path: str) -> tuple[str, ...]:
    if not isinstance(data, tuple):
        raise RequestError(f"found {name_of(data)}, expected a list of file names", path=path)
    for index, name in enumerate(data):
        if not isinstance(name, str) or not name:
            raise RequestError(f"found {name_of(name)}, expected a file name", path=f"{path}[{index}]")
    return tuple(str(name) for name in data)
