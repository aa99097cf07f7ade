"""Collectors: each measures something and supplies facts with their assurance.

Promises: if a collector fails, its facts are absent, with a reason, and a claim never replaces them. Large measurements
are in `scan/`, `git/`, `environment/` and `program/`; what only one collector needs is beside it. Leaves to others:
deciding (`decide/`), and which collectors run (`assembly/`).

Read in this order: `collector.py` (the interface), `identity.py`, `platform.py` and `quota.py` (short ones); for a job
`job.py`, `injection.py` with `injected.py`, `program.py`, `named_paths.py` with `settings_texts.py`, `scale.py`,
`gpu_grants.py`, `environment_collector.py` with `editable.py`, `confinement.py`, `from_commit.py` with `moved_job.py`;
for its code `repository.py`, `uncommitted.py`, `contributors.py`, `accepted_history.py`; for data `checkpoint.py` with
`checkpoint_folders.py`, and `dataset.py`; for a running job `processes.py` and `running_scale.py`; for reviews
`breakglass.py`, `approvals/`; for pushes `push/`.

To add a collector of `resource.cooling`:

1. Write `cooling.py` with a class that has `name`, `declares = ("resource.cooling",)` and `collect`, as `Collector` in
   `collector.py` says. Raise `EvidenceError` for what cannot be measured; never return a default.
2. Add it to `job_collectors` in `assembly/jobs.py`, or to `assembly/requests.py` for requests without a command.
3. Describe the fact and its assurance in `docs/facts.md`, and declare it in `policies/schema.yaml` if a rule reads it.
"""
