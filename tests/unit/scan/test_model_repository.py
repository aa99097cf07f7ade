"""A model repository says which code it brings; unpinned code and code of other repositories are reasons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyguard.scan.model_repository import HubRepository, inspect_repository, is_pinned, load_problem
from policyguard.values import freeze

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def repository(folder: Path, **files: object) -> HubRepository:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return inspect_repository(folder)


def test_plain_weights_bring_no_code(tmp_path: Path) -> None:
    """The twin: a configuration without code names none."""
    found = repository(tmp_path, config__json={"hidden_size": 8, "attn_implementation": "sdpa", "rope": [1.5, None]})
    assert (found.remote_code, found.problems) == (False, ())
    assert load_problem(found, trust_remote_code=True, revision=COMMIT) is None


@pytest.mark.parametrize("file", ["config__json", "tokenizer_config__json", "preprocessor_config__json"])
def test_code_of_the_repository_is_named(file: str, tmp_path: Path) -> None:
    """`auto_map` of model, tokenizer and feature extractor."""
    found = repository(tmp_path, **{file: {"auto_map": {"AutoModel": "modeling_net.Net"}}, "modeling_net__py": "x = 1"})
    assert found.own_code == (f"{file.replace('__', '.')}: modeling_net.Net",)
    assert found.code_files == ("modeling_net.py",)
    assert found.remote_code


@pytest.mark.parametrize("name", ["Net.PY", "old.pyo", "tool.jar", "page.js", "setup.exe"])
def test_code_is_listed_in_any_case_and_language(name: str, tmp_path: Path) -> None:
    """A second list of suffixes had drifted from the scanner's: it knew fewer, in lower case only."""
    found = repository(tmp_path, config__json={})
    (tmp_path / name).write_text("x")
    assert (found.code_files, inspect_repository(tmp_path).code_files) == ((), (name,))


@pytest.mark.parametrize("value", ["other/net--modeling.Net", ["slow.Tok", "other/net--fast.Tok"]])
def test_code_of_another_repository_is_named(value: object, tmp_path: Path) -> None:
    """`auto_map` values are texts or lists of texts; nested configurations count."""
    found = repository(tmp_path, config__json={"text_config": {"auto_map": {"AutoTokenizer": value}}})
    assert found.foreign_code == ("config.json: other/net",)


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "paged|kernels-community/flash-attn@main"},
        {"attn_implementation": {"text": "lab/kernel:forward"}},
        {"use_kernels": True},
    ],
)
def test_remote_kernels_are_named(config: object, tmp_path: Path) -> None:
    """A second door for code, which no argument pins."""
    found = repository(tmp_path, config__json=config)
    assert found.kernels
    assert load_problem(found, trust_remote_code=False, revision=COMMIT) == "hub.remote_kernels"


def test_other_ways_to_load_code_are_named(tmp_path: Path) -> None:
    """Custom pipelines, adapters that import a library, diffusion pipelines with code."""
    found = repository(
        tmp_path,
        config__json={"custom_pipelines": {"generate": {"impl": "pipe.Pipe"}}},
        adapter_config__json={"auto_mapping": {"base_model_class": "Net", "parent_library": "evil_library"}},
        model_index__json={"_class_name": ["pipeline", "MyPipeline"]},
    )
    assert found.own_code == ("config.json: pipe.Pipe", "model_index.json: pipeline.MyPipeline")
    assert found.imports == ("adapter_config.json: evil_library",)


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", COMMIT[:39], COMMIT.upper(), COMMIT + "0", "", None])
def test_unpinned_remote_code_is_a_reason(revision: str | None, tmp_path: Path) -> None:
    """Scenario 18: a branch, a tag or a short commit can be moved."""
    found = repository(tmp_path, config__json={"auto_map": {"AutoModel": "modeling.Net"}})
    assert load_problem(found, trust_remote_code=True, revision=revision) == "hub.unpinned_remote_code"
    assert not is_pinned(revision)


def test_pinned_code_of_its_own_is_none(tmp_path: Path) -> None:
    """The twin of scenario 18."""
    found = repository(tmp_path, config__json={"auto_map": {"AutoModel": "modeling.Net"}})
    assert load_problem(found, trust_remote_code=True, revision=COMMIT) is None


PINNING = [(None, "hub.code_revision_unpinned"), ("main", "hub.code_revision_unpinned"), (COMMIT, None)]


@pytest.mark.parametrize(("code_revision", "reason"), PINNING)
def test_code_of_another_repository_needs_its_own_revision(
    code_revision: str | None, reason: str | None, tmp_path: Path
) -> None:
    """INVARIANT I17, scenario 19: `revision` pins the weights, not the other repository's code."""
    found = repository(tmp_path, config__json={"auto_map": {"AutoModel": "other/net--modeling.Net"}})
    assert load_problem(found, trust_remote_code=True, revision=COMMIT, code_revision=code_revision) == reason


@pytest.mark.parametrize("text", ["{", '{"a": 1, "a": 2}', "[" * 100_000, "\ud7ff" * 2])
def test_a_configuration_that_cannot_be_read_is_remote_code(text: str, tmp_path: Path) -> None:
    """INVARIANT I17: broken, duplicated or absurd JSON never hides code."""
    found = repository(tmp_path, config__json=text)
    assert found.problems
    assert found.remote_code


def test_a_number_that_only_python_writes_is_no_remote_code(tmp_path: Path) -> None:
    """Trainer writes the losses of a run that diverged as NaN, and every loader of the file is Python."""
    found = repository(tmp_path, trainer_state__json='{"loss": NaN, "max": Infinity, "min": -Infinity}')
    assert found.problems == ()
    assert not found.remote_code
    assert repository(tmp_path, trainer_state__json='{"loss": NaN, "auto_map": {"a": "o/n--m.N"}}').foreign_code


def test_a_configuration_that_is_no_file_is_remote_code(tmp_path: Path) -> None:
    """INVARIANT I17: a dangling link or a folder in its place."""
    (tmp_path / "config.json").symlink_to("nowhere")
    assert inspect_repository(tmp_path).remote_code
    assert inspect_repository(tmp_path / "missing").problems


def test_the_revision_is_the_snapshots(tmp_path: Path) -> None:
    """A hub cache names the commit in the path; a folder elsewhere has none."""
    snapshot = tmp_path / "models--lab--net" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    assert inspect_repository(snapshot).pinned
    assert not inspect_repository(tmp_path).pinned


def test_the_revision_is_that_of_all_download_records(tmp_path: Path) -> None:
    """Files fetched into a folder carry their commit; two commits are none."""
    records = tmp_path / ".cache" / "huggingface" / "download"
    records.mkdir(parents=True)
    (records / "config.json.metadata").write_text(f"{COMMIT}\netag\n1.0\n")
    assert inspect_repository(tmp_path).revision == COMMIT
    (records / "model.safetensors.metadata").write_text(f"{COMMIT[::-1]}\netag\n1.0\n")
    assert inspect_repository(tmp_path).revision == ""


def test_the_repository_is_a_fact_value(tmp_path: Path) -> None:
    """No nulls, no floats."""
    value = repository(tmp_path, config__json={}).to_value()
    assert freeze(value) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"m": {"_target_": "os.system"}}'),
        ("hparams.yaml", "a: !!python/object/apply:os.system [x]\n"),
        ("modules.json", '[{"idx": 0, "name": "0", "path": "", "type": "lab_modules.Head"}]'),
        ("MLmodel", "loader_module: lab_loader\n"),
    ],
)
def test_settings_that_run_what_they_name_are_remote_code(name: str, text: str, tmp_path: Path) -> None:
    """INVARIANT I17: the scan of the file and the answer about the folder agree."""
    (tmp_path / name).write_text(text)
    found = inspect_repository(tmp_path)
    assert found.named_code
    assert found.remote_code


@pytest.mark.parametrize(
    "folder", sorted((Path(__file__).parents[2] / "data/scan/folders").iterdir()), ids=lambda p: p.name
)
def test_ordinary_folders_name_no_code(folder: Path) -> None:
    """The twin: what libraries write."""
    assert not inspect_repository(folder).remote_code
    assert inspect_repository(folder).named_code == ()
