"""Replay of the incident: twelve steps of an insider's attack, on real files, git, keys and processes.

`replay.py` runs them, `steps_*.py` are the steps, `lab.py` is where they happen, `story.py` tells and remembers.
"""
