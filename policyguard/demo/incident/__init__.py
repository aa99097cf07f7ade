"""Replay of the incident: twelve steps of an insider's attack, on real files, git, keys and processes.

`replay.py` runs the steps in `steps_*.py`; `lab.py` builds the lab, and `story.py` prints and collects the outcomes.
"""
