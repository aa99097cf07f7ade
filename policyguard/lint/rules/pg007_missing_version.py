"""`apiVersion` is missing, or is not a version that this release reads."""

CODE = "PG007"
NAME = "missing-version"
SEVERITY = "error"
HELP = "write `apiVersion: policyguard/v1`"
PRODUCED_BY = "load"
