"""Mutation testing of the checks that decide, sign, log and verify. Run as `python -m tests.mutants`."""
