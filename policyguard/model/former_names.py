"""Former names of facts and their values, with the present names.

To rename a fact or one of its values:

1. Rename it where the collector writes it, in `policies/`, docs and tests.
2. Add one row below: `FORMER_FACTS` for a fact, `FORMER_VALUES` for a value of an enumerated text.
3. Add a line marked `*` to CHANGELOG.md.

What a row does for one release: policies and compiled snapshots are read, and their digests computed, as they are
written; `decide/snapshot.py` replaces the former names before deciding; lint reports each use as PG118;
`decide/admission.py` uses a fact under its former name if there is none under the present one. The functions are in
`conditions/former_names.py`. Remove the row after that release.
"""

from __future__ import annotations

from collections.abc import Mapping

FORMER_FACTS: Mapping[str, str] = {
    "resource.concerned": "resource.involved_accounts",
    "resource.env_doors": "resource.code_injecting_env",
}
"""Former path of a fact to its present one, such as `resource.env_doors`; the part before the dot stays the same."""

FORMER_VALUES: Mapping[frozenset[str], Mapping[str, str]] = {
    frozenset({"format", "named_format"}): {"archive": "other"},
}
"""Attributes to the former and present values of each. A row holds for a type that declares all of these attributes."""


def former_values(name: str, declared: Mapping[str, object]) -> Mapping[str, str]:
    """Map an attribute's former values to the present ones, given the attributes of its type."""
    rows = (values for names, values in FORMER_VALUES.items() if name in names and names <= declared.keys())
    return next(rows, {})
