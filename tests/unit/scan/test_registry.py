"""The table of formats: every row is complete, and names agree with contents."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from policyguard.decide.engine import Engine
from policyguard.evidence.checkpoint import CheckpointCollector
from policyguard.evidence.collector import Collector, JobInputs, gather
from policyguard.evidence.dataset import DatasetCollector
from policyguard.model.request import Request
from policyguard.policy_store.folder import snapshot_of_folder
from policyguard.scan.files import scan_file
from policyguard.scan.findings import Verdict
from policyguard.scan.formats.registry import (
    BY_NAME,
    BY_SUFFIX,
    FORMATS,
    Format,
    category_by_suffix,
    format_category,
    is_named_as_checkpoint,
    promised_format,
)

ROOT = Path(__file__).parents[3]
BENIGN = ROOT / "tests" / "data" / "scan" / "benign"
FILES = sorted(path for path in BENIGN.iterdir() if path.is_file())
TABLES = tuple(path for path in FILES if path.suffix in (".parquet", ".arrow", ".feather"))
POLICIES = snapshot_of_folder(ROOT / "policies")
CATEGORIES = ("safetensors", "pickle", "other", "side file", "unknown")


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_every_format_has_a_category_a_reader_and_a_way_to_be_recognised(one: Format) -> None:
    """A row with a gap would be a format that nobody reads."""
    assert one.category in CATEGORIES
    assert callable(one.scan)
    assert one.magic or one.recognise
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in one.suffixes)
    assert one.suffixes or not one.is_exclusive
    # `named_format` has no word for it.
    assert one.category != "side file" or not one.suffixes


def test_every_name_and_every_suffix_is_of_one_format() -> None:
    """Two rows with one name or suffix would give two answers."""
    assert len(BY_NAME) == len(FORMATS)
    suffixes = [suffix for one in FORMATS for suffix in one.suffixes]
    assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize(
    "path", sorted(path for path in BENIGN.iterdir() if path.is_file()), ids=lambda path: path.name
)
def test_a_harmless_sample_is_a_format_of_the_table(path: Path) -> None:
    """What a scan says is a row, and a suffix that one format owns holds it."""
    scan = scan_file(path)
    assert scan.format in BY_NAME
    assert promised_format(path.suffix) in (None, scan.format)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
@pytest.mark.parametrize("type_", ["checkpoint", "dataset"])
def test_a_clean_table_is_no_format_spoof(type_: str, path: Path) -> None:
    """Name and content of a Parquet, Arrow or Feather file are one category under the example policies."""
    assert len(TABLES) == 9
    collector: Collector = CheckpointCollector() if type_ == "checkpoint" else DatasetCollector()
    action = "checkpoint:load" if type_ == "checkpoint" else "dataset:read"
    request = Request.of("user:alice", action, f"{type_}:team/vision/table")
    facts = gather(request, [collector], JobInputs(files=(str(path),)), time.time_ns)
    decision = Engine(POLICIES).decide(facts, time.time_ns())
    assert "ckpt.format_spoof" not in decision.reason_codes
    scan = scan_file(path)
    assert (scan.verdict, format_category(scan), category_by_suffix(path.name)) == (Verdict.CLEAN, "other", "other")


def test_a_table_is_no_checkpoint_by_its_name() -> None:
    """A folder of Parquet files is data to train on; one of weights is scanned when it is an argument."""
    assert [is_named_as_checkpoint(f"a{suffix}") for suffix in (".parquet", ".feather", ".pt", ".txt")] == [
        False,
        False,
        True,
        False,
    ]


def test_a_program_of_torch_export_is_named_pt2() -> None:
    """The suffix was TorchScript's, which is saved as `.pt`."""
    assert BY_SUFFIX[".pt2"].name == "torch_export"
