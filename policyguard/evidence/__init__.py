"""Collectors: each measures something and supplies facts with their assurance.

Promises: if a collector fails, its facts are absent, with a reason, and a claim never replaces them. Leaves measuring
to `scan/`, `git/` and `environment/`, deciding to `decide/`, and choosing collectors to `assembly/`. Read
`collector.py`, then any collector, such as `job.py`. `approvals/` and `push/` have several files each.
"""
