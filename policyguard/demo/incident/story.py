"""Prints each attempt of the replay with its outcome, and where the log shows it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

from policyguard.audit.receipt import SignedDecision
from policyguard.cli.output import say
from policyguard.errors import VerificationError

_EVIDENCE = ("because", "missing", "must", "           ")
_MAX_LINES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt ended; `entry` is its index in the log, None if nothing was decided."""

    step: int
    what: str
    text: str
    entry: int | None
    good: bool


@dataclass(slots=True)
class Story:
    """Prints the replay and collects the outcomes."""

    root: str
    """The folder of the lab; removed from printed lines."""
    step: int = 0
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.good]

    def title(self, text: str) -> None:
        self.step += 1
        say()
        say(f"{self.step}. {text}", bold=True)

    def tried(self, text: str) -> None:
        self._print("tried", text)

    def denied(self, what: str, signed: SignedDecision, *reasons: str, naming: str = "") -> None:
        """Report a decision that must be a denial, with these reasons and this text in its explanation.

        Args:
            what: what was tried.
            signed: the decision.
            naming: a text in its explanation.
        """
        decision, explanation = signed.decision, signed.decision.explain()
        good = not decision.allowed and set(reasons) <= set(decision.reason_codes) and naming in explanation
        self._tell(what, "DENY   " + ", ".join(decision.reason_codes), signed.receipt.index, good)
        self._evidence(explanation, naming)

    def allowed(self, what: str, signed: SignedDecision, reason: str, obligation: str = "") -> None:
        """Report a decision that must be an allow, with this reason and obligation.

        Args:
            what: what was tried.
            signed: the decision.
            reason: a reason code.
            obligation: an obligation.
        """
        decision = signed.decision
        good = decision.allowed and reason in decision.reason_codes
        good = good and (not obligation or obligation in decision.obligations)
        summary = ", ".join(decision.reason_codes) + (f", {obligation}" if obligation else "")
        self._tell(what, f"ALLOW  {summary}", signed.receipt.index, good)
        if not good:
            self._evidence(decision.explain(), "")

    def refused(self, what: str, step: str, check: Callable[[], object]) -> None:
        """Report a check that must fail at this step of the verifier.

        Args:
            what: what was tried.
            step: the expected step.
            check: the check.
        """
        try:
            check()
        except VerificationError as problem:
            self._tell(what, f"REFUSED  {problem}", None, problem.step == step)
        else:
            self._tell(what, "accepted", None, False)

    def fact(self, what: str, text: str, good: bool, entry: int | None = None) -> None:
        """Report an observation that must be true.

        Args:
            what: what was observed.
            text: the text to print.
            good: whether it is as expected.
            entry: the index in the log.
        """
        self._tell(what, text, entry, good)

    def _tell(self, what: str, text: str, entry: int | None, good: bool) -> None:
        self.outcomes.append(Outcome(step=self.step, what=what, text=text, entry=entry, good=good))
        say("   ok      " if good else "   FAILED  ", nl=False, fg="green" if good else "red", bold=True)
        say(what)
        self._print("", text + (f"   (log entry {entry})" if entry is not None else ""))

    def _evidence(self, explanation: str, naming: str) -> None:
        lines = [line for line in explanation.splitlines() if line.startswith(_EVIDENCE)]
        first = [line for line in lines if naming and naming in line]
        for line in (first or [line for line in lines if line.startswith(("because", "missing"))])[:_MAX_LINES]:
            self._print("evidence", " ".join(line.split()))

    def _print(self, head: str, text: str) -> None:
        text = text.replace(f"{self.root}/", "")
        lines = textwrap.wrap(text, width=104, subsequent_indent=" " * 13) or [""]
        say(f"   {head:<9} ", nl=False, dim=True)
        say("\n".join(lines), dim=head == "evidence")
