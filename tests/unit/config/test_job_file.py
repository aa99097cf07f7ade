"""The job file becomes a request and inputs, or one error with the path of the field."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from policyguard.config.job_file import read_job, read_job_file
from policyguard.errors import ConfigurationError, RequestError
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


def test_the_shortest_job_file_names_the_resource() -> None:
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


IN_A_FILE: dict[str, tuple[str, str, str | None]] = {
    "a misspelled field": (
        "resource: job:x/1\nsubjct: user:a\n",
        "job.yaml:2:1: $.subjct: unknown field",
        "did you mean `subject`?",
    ),
    "gpus at the top": ("gpus: 1\nresource: job:x/1\n", "job.yaml:1:1: $.gpus: unknown field", "properties: {gpus: 8}"),
    "no resource": ("action: job:submit\n", "job.yaml:1:1: `resource` is missing", None),
    "no YAML": ("a: [\n", "job.yaml:2:1: not YAML", None),
    "a bare resource": ("\nresource: run-17\n", "job.yaml:2:1: $.resource: found `run-17`, expected `type:id`", None),
    "an empty value": ("resource:\n", "job.yaml:1:10: resource: found ", None),
    "a bad action": ("resource: job:x/1\naction: submit\n", "job.yaml:2:1: $.action.name: found `submit`", None),
    "properties that are a list": (
        "resource: job:x/1\nproperties: [1]\n",
        "job.yaml:2:1: $.resource.properties: found a list",
        None,
    ),
}


@pytest.mark.parametrize(("text", "message", "help"), IN_A_FILE.values(), ids=IN_A_FILE.keys())
def test_an_error_in_a_file_has_its_line(
    text: str, message: str, help: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the file once, line and column, and what was probably meant."""
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(text)
    with pytest.raises(RequestError) as caught:
        read_job_file("job.yaml", ["x"], None, {}, account="user:a")
    assert str(caught.value).startswith(message)
    assert str(caught.value).count("job.yaml") == 1
    assert (help or "") in (caught.value.help or "")


def test_an_example_is_of_the_field(tmp_path: Path) -> None:
    """A resource without a type gets the example of a job, a subject that of a user."""
    for field, example in (("resource", "job:team/vision/run-17"), ("subject", "user:alice")):
        with pytest.raises(RequestError, match=f"such as `{example}`"):
            read_job(freeze({"resource": "job:x/1", "subject": "user:a", field: "bare"}), ["x"], "/", {})


def test_a_command_is_a_list_in_a_folder(tmp_path: Path) -> None:
    """One text is no command, and a folder that does not exist is none to run in; both are one line."""
    job_file = tmp_path / "job.yaml"
    job_file.write_text("resource: job:x/1\nsubject: user:a\n")
    with pytest.raises(TypeError, match=r"argv: found `python train\.py`, expected a list such as"):
        read_job_file(job_file, "python train.py", tmp_path, {})
    with pytest.raises(ConfigurationError, match=r"gone: found no folder, expected the one in which"):
        read_job_file(job_file, ["python", "train.py"], tmp_path / "gone", {})
    assert read_job_file(job_file, ["python", "train.py"], tmp_path, {})[1].argv == ("python", "train.py")
