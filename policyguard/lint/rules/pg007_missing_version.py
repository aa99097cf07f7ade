"""`apiVersion` is absent or not one this version reads."""

CODE = "PG007"
NAME = "missing-version"
SEVERITY = "error"
HELP = "write `apiVersion: policyguard/v1`"
PRODUCED_BY = "load"
