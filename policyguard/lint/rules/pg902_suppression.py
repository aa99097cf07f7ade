"""A suppression has no reason or no end date, has expired, or silences nothing."""

from __future__ import annotations

CODE = "PG902"
NAME = "suppression-unused"
SEVERITY = "warning"
HELP = 'write `# policyguard: ignore PG215 until=2027-01-01 reason="..."`, or remove the comment'
FIXABLE = True
PRODUCED_BY = "suppressions"
