"""What the policy author reads when something is wrong: every error at once, at its line and column.

`tests/data/policy/wrong/NAME.yaml` is loaded beside the small base policy; `NAME.golden` is what must be said. To write
the goldens anew after a change of wording, delete them and run with POLICYGUARD_WRITE_GOLDENS=1, then read the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from policyguard.errors import PolicyErrors
from policyguard.policy.loader import analyse, load

DATA = Path(__file__).parents[2] / "data" / "policy"
WRONG = sorted((DATA / "wrong").glob("*.yaml"))
OWN_BASE = {"schema": "schema.yaml"}


def base() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((DATA / "base").glob("*.yaml"))}


def report(sources: dict[str, bytes]) -> str:
    errors = analyse(sources).errors
    return "".join(f"{error} [{error.code}]" + (f" ({error.help})" if error.help else "") + "\n" for error in errors)


def sources_of(path: Path) -> dict[str, bytes]:
    sources = base()
    sources.pop(OWN_BASE.get(path.stem, ""), None)
    return sources | {f"wrong-{path.name}": path.read_bytes()}


def test_the_base_is_right() -> None:
    """The twin of every case below: the base policy alone loads."""
    assert len(load(base()).rules) == 1


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_wrong_policies_are_explained(path: Path) -> None:
    """All errors of the file, in order, with line, column, code, what was found, what was expected and a near match."""
    golden = path.with_suffix(".golden")
    found = report(sources_of(path))
    if os.environ.get("POLICYGUARD_WRITE_GOLDENS") and not golden.exists():
        golden.write_text(found)
    assert golden.read_text() == found


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_errors_are_worded_as_the_house_words_them(path: Path) -> None:
    """One line, lower case, no full stop, no Python type names, a place on each; all of them in one exception."""
    with pytest.raises(PolicyErrors) as caught:
        load(sources_of(path))
    for error in caught.value.errors:
        assert error.span is not None
        assert re.fullmatch(r"PG\d{3}", error.code)
        assert re.fullmatch(r"[^\n]*[^.\n]", error.message)
        assert not re.match(r"[A-Z][a-z]", error.message)
        assert not re.search(r"\b(str|dict|None|NoneType|tuple)\b", error.message)


def test_nothing_at_all_is_refused() -> None:
    """No files is not an empty policy set, it is an error."""
    assert "found no files" in report({})


def test_a_policy_set_without_rules_is_refused() -> None:
    """A schema alone is no policy."""
    sources = base()
    del sources["policy.yaml"]
    assert "found no rules in any document" in report(sources)


def test_a_schema_is_mandatory() -> None:
    """Without a schema nothing can be checked, so nothing is loaded."""
    sources = base()
    del sources["schema.yaml"]
    assert "found no `Schema`" in report(sources)


def test_what_a_broken_file_may_have_declared_is_not_called_unknown() -> None:
    """When the roles cannot be read, rules that name roles are not blamed for it."""
    sources = base() | {"roles.yaml": b"apiVersion: policyguard/v1\nkind: Roles\nroles: [\n"}
    assert "unknown role" not in report(sources)
    assert "not YAML" in report(sources)
