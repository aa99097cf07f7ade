"""The modules whose checks are mutated, and the tests that may kill a mutant. All of them run in this process."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "policyguard"

MODULES: tuple[str, ...] = (
    "policyguard/verify.py",
    "policyguard/decide",
    "policyguard/conditions",
    "policyguard/attest",
    "policyguard/audit",
    "policyguard/issuer.py",
)
"""Files, and folders with everything below them."""

TESTS: dict[str, tuple[str, ...]] = {
    "policyguard/decide": (
        "tests/unit/decide",
        "tests/unit/model/test_former_names.py",
        "tests/unit/policy_store",
        "tests/attacks/test_decide_*.py",
        "tests/attacks/test_claims.py",
        "tests/attacks/test_approvals_contributors.py",
        "tests/attacks/test_ids_are_literal.py",
        "tests/properties/test_theorems.py",
        "tests/properties/test_index_*.py",
        "tests/properties/test_roots_agree.py",
        "tests/unit/test_guard_decisions.py",
    ),
    "policyguard/conditions": (
        "tests/unit/conditions",
        "tests/unit/model/test_former_names.py",
        "tests/unit/lint/test_edges.py",
        "tests/attacks/test_conditions_*.py",
        "tests/differential/test_conditions_*.py",
        "tests/properties/test_conditions_*.py",
        "tests/fences/test_cel_checker_traps.py",
        "tests/unit/policy",
    ),
    "policyguard/attest": (
        "tests/unit/attest",
        "tests/unit/evidence/test_approvals_*.py",
        "tests/unit/scan/test_manifest.py",
        "tests/unit/test_keyfiles.py",
        "tests/unit/test_guard_issue.py",
        "tests/unit/test_verify_vectors.py",
        "tests/unit/audit/test_checkpoint.py",
        "tests/unit/evidence/test_dataset.py",
        "tests/attacks/test_approvals_hostile.py",
        "tests/attacks/test_checkpoint_hostile.py",
        "tests/attacks/test_ids_are_literal.py",
        "tests/attacks/test_key*.py",
        "tests/attacks/test_lifetimes.py",
        "tests/attacks/test_revocation.py",
        "tests/attacks/test_verify_steps.py",
    ),
    "policyguard/audit": (
        "tests/unit/audit",
        "tests/unit/test_guard_*.py",
        "tests/attacks/test_checkpoint_hostile.py",
        "tests/attacks/test_claims_table.py",
        "tests/attacks/test_key_rotation.py",
        "tests/attacks/test_log_*.py",
        "tests/attacks/test_once_approvals.py",
        "tests/attacks/test_policy_rollback.py",
        "tests/attacks/test_quota_race.py",
        "tests/attacks/test_revocation.py",
        "tests/attacks/test_single_use.py",
        "tests/attacks/test_verify_steps.py",
        "tests/e2e/test_approvals_logged.py",
        "tests/e2e/test_log_verbs.py",
        "tests/properties/test_audit_merkle.py",
        "tests/properties/test_once_theorem.py",
    ),
    "policyguard/issuer.py": (
        "tests/unit/test_guard_*.py",
        "tests/attacks/test_internal_errors.py",
        "tests/attacks/test_lifetimes.py",
        "tests/attacks/test_once_approvals.py",
        "tests/attacks/test_policy_rollback.py",
        "tests/attacks/test_quota_race.py",
        "tests/properties/test_once_theorem.py",
    ),
    "policyguard/verify.py": (
        "tests/unit/test_verify_vectors.py",
        "tests/attacks/test_verify_steps.py",
        "tests/attacks/test_key*.py",
        "tests/attacks/test_revocation.py",
        "tests/attacks/test_lifetimes.py",
        "tests/attacks/test_single_use.py",
    ),
}
"""First part of a module's path -> the tests that may kill. Which of them run for a mutant is measured line by line."""


def modules(selected: tuple[str, ...]) -> list[str]:
    """List the files of the selected modules and folders, relative to the root."""
    files: list[str] = []
    for name in selected or MODULES:
        path = ROOT / name
        inside = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        files += [str(file.relative_to(ROOT)) for file in inside if file.name != "__init__.py"]
    return files


def tests(files: list[str]) -> list[str]:
    """List the test files and folders for these modules."""
    patterns: list[str] = []
    for start, more in TESTS.items():
        if any(file.startswith(start) for file in files):
            patterns += more
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(str(path.relative_to(ROOT)) for path in paths)
