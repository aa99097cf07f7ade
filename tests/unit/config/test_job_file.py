"""The job file becomes a request and inputs, or one error with the path of the field."""

from __future__ import annotations

import os
import pwd

import pytest

from policyguard.config.job_file import read_job
from policyguard.errors import RequestError
from policyguard.values import FrozenMap, Value, freeze

ME = f"user:{pwd.getpwuid(os.getuid()).pw_name}"


def job(**fields: object) -> Value:
    return freeze({"resource": "job:team/vision/run-17", **fields})


def test_a_full_job_file_is_read() -> None:
    """Claims go into the request, files into what is measured."""
    data = job(
        subject="user:alice",
        action="job:resume",
        properties={"gpus": 8},
        context={"ticket": "OPS-17"},
        files=["configs/vision.yaml"],
    )
    request, inputs = read_job(data, ["python", "train.py"], "/srv/job", {"LANG": "C"})
    assert (request.subject.ref, request.action, request.resource.ref) == (
        "user:alice",
        "job:resume",
        "job:team/vision/run-17",
    )
    assert (request.resource.properties, request.context) == (FrozenMap(gpus=8), FrozenMap(ticket="OPS-17"))
    assert (inputs.argv, inputs.directory, inputs.files) == (
        ("python", "train.py"),
        "/srv/job",
        ("configs/vision.yaml",),
    )


def test_the_least_job_file_names_the_resource() -> None:
    """The subject is the account of the process, the action to submit."""
    request, _ = read_job(job(), ["x"], "/", {})
    assert (request.subject.ref, request.action) == (ME, "job:submit")


BAD: dict[str, tuple[object, str]] = {
    "no map": ([], "$: found a list"),
    "no resource": ({}, "$: `resource` is missing"),
    "an unknown field": ({"resource": "job:x", "repository": "/clean"}, "$.repository: unknown field"),
    "a bare resource": ({"resource": "run-17"}, "$.resource: found `run-17`"),
    "a resource that is no text": ({"resource": 7}, "$.resource: found an integer"),
    "a bad action": ({"resource": "job:x", "action": "submit"}, "$.action.name: found `submit`"),
    "properties that are no map": ({"resource": "job:x", "properties": [1]}, "$.resource.properties: found a list"),
    "files that are no list": ({"resource": "job:x", "files": "a.yaml"}, "$.files: found text"),
    "a file that is no text": ({"resource": "job:x", "files": ["a", 7]}, "$.files[1]: found an integer"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named_by_its_path(data: object, message: str) -> None:
    """One line, the place first."""
    with pytest.raises(RequestError) as caught:
        read_job(freeze(data), ["x"], "/", {})
    assert str(caught.value).startswith(message)
