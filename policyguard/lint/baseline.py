"""A baseline: the findings when lint was introduced, so that a build fails only for new ones.

    {"format": 1, "findings": [{"fingerprint": "9f2c...", "code": "PG215", "file": "jobs.yaml"}, ...]}

Only `fingerprint` is compared; code and file are for people. A baseline never hides errors that stop the load
(`Report.without`). It has no reasons and no end dates, so use it once at the start and suppressions later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from policyguard.errors import ConfigurationError
from policyguard.lint.report import Report

FORMAT = 1


def to_baseline(report: Report) -> str:
    """Format the report's findings as a baseline, one line each, ordered by span."""
    entries = [
        json.dumps({"fingerprint": fingerprint, "code": finding.code, "file": finding.span.file})
        for finding, fingerprint in zip(report.findings, report.fingerprints(), strict=True)
        if not finding.stops_load
    ]
    body = ",\n    ".join(entries)
    return f'{{\n  "format": {FORMAT},\n  "findings": [\n    {body}\n  ]\n}}\n'


def parse_baseline(text: str | bytes) -> frozenset[str]:
    """Parse a baseline to its fingerprints.

    Raises:
        ConfigurationError: the text is not a baseline.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ConfigurationError(f"baseline is not JSON: {str(problem).lower()}") from problem
    if not isinstance(data, Mapping) or data.get("format") != FORMAT or not isinstance(data.get("findings"), list):
        raise ConfigurationError(f"found no baseline, expected an object with `format` {FORMAT} and a list `findings`")
    fingerprints = set()
    for number, entry in enumerate(data["findings"]):
        fingerprint = entry.get("fingerprint") if isinstance(entry, Mapping) else None
        if not isinstance(fingerprint, str):
            raise ConfigurationError(f"findings[{number}]: `fingerprint` is missing, expected text")
        fingerprints.add(fingerprint)
    return frozenset(fingerprints)
