"""Runs cases through the engine. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyErrors
from policyguard.model.decision import Decision
from policyguard.policy.loader import analyse
from policyguard.policy_store.folder import grants_of
from policyguard.testing.cases import NOT_ALLOWED, Case, read_cases


class Outcome(msgspec.Struct, frozen=True):
    """What became of a case: `problem` says how the decision differs from what was expected, "" if it does not."""

    case: Case
    decision: Decision | None
    problem: str = ""

    @property
    def result(self) -> str:
        """Return `passed`, `failed` or `skipped`."""
        return "skipped" if self.decision is None else "failed" if self.problem else "passed"

    @property
    def passed(self) -> bool:
        return self.result == "passed"


def count_results(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Count the outcomes that passed, failed and were skipped."""
    results = [outcome.result for outcome in outcomes]
    return {result: results.count(result) for result in ("passed", "failed", "skipped")}


def run_tests(sources: dict[str, bytes]) -> tuple[Outcome, ...]:
    """Run every test of a policy folder.

    Args:
        sources: the files of the folder, by name, as `policy.files.read_folder` reads them.

    Raises:
        PolicyErrors: the policies or the tests have errors; all of them are included.
    """
    analysis = analyse(sources)
    cases, errors = read_cases(analysis)
    if errors or analysis.policy_set is None:
        raise PolicyErrors(errors)
    policies = analysis.policy_set
    return run_cases(Snapshot.of(policies, grants_of(policies)), cases)


def run_cases(snapshot: Snapshot, cases: Iterable[Case]) -> tuple[Outcome, ...]:
    """Decide each case that is not skipped, and compare."""
    engine = Engine(snapshot)
    return tuple(_outcome(engine, case) for case in cases)


def verdict(decision: Decision) -> str:
    """Name a decision as tests do: allow, needs-approval if only approvals are missing, or deny."""
    if decision.allowed:
        return "allow"
    return "needs-approval" if decision.unmet_approvals and not decision.errored else "deny"


def _outcome(engine: Engine, case: Case) -> Outcome:
    if case.skip is not None:
        return Outcome(case, None)
    decision = engine.decide(case.facts, case.now)
    return Outcome(case, decision, "; ".join(_differences(case, decision)))


def _differences(case: Case, decision: Decision) -> list[str]:
    differences = []
    as_expected = not decision.allowed if case.expect == NOT_ALLOWED else verdict(decision) == case.expect
    if not as_expected:
        differences.append(f"expected {case.expect}, found {verdict(decision)}")
    if case.reason is not None and case.reason not in decision.reason_codes:
        differences.append(f"expected the reason `{case.reason}`, found {', '.join(decision.reason_codes)}")
    absent = [name for name in case.obligations if name not in decision.obligations]
    if absent:
        differences.append(
            f"expected the obligations {', '.join(absent)}, found {', '.join(decision.obligations) or 'none'}"
        )
    return differences
