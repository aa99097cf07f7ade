"""Demonstrations in a temporary lab with real processes: `quick.py`, and the replay of the incident.

Promises: everything is in one new folder, and the exit code is 0 only if every step behaves as expected.
"""
