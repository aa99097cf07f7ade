"""Runs lint: loads the policies, runs the rules, applies suppressions, orders the findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from policyguard.errors import PolicyError
from policyguard.lint.catalogue import catalogue
from policyguard.lint.context import Context
from policyguard.lint.report import Report
from policyguard.lint.rule import LINT, Finding, Rule
from policyguard.lint.suppressions import Suppression, suppressions
from policyguard.policy.loader import analyse
from policyguard.text import quoted_list
from policyguard.values import NO_SPAN, Instant, Span

SUPPRESSION = "PG902"


def lint(
    sources: Mapping[str, bytes],
    now: Instant,
    *,
    unread: Sequence[PolicyError] = (),
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> Report:
    """Lint policy files.

    Policies without errors load in the engine: both read through `policy.loader.analyse`. If the load fails, the
    report has its errors and the findings of rules that need no policy set.

    Args:
        sources: file name to content; nothing else is read.
        now: the time for rules about expiry and for end dates of suppressions.
        unread: errors of the folder, such as files that would not be read; they stop a load.
        select, ignore: codes or prefixes of codes, `PG215` or `PG2`. Errors that stop the load are always reported.

    Raises:
        ValueError: no code begins with a selected or ignored one.
    """
    chosen = _chosen(tuple(select), tuple(ignore))
    # INVARIANT I20: load and lint use one front end, and its errors are findings.
    analysis = analyse(sources)
    context = Context(analysis, now)
    findings = [_load_finding(error) for error in (*unread, *analysis.errors)]
    findings += _checked(context, chosen)
    texts = {file: data.decode("utf-8", "replace") for file, data in sources.items()}
    written = _written(texts, context, now)
    active, suppressed = _apply(findings, written)
    if SUPPRESSION in chosen:
        used = {(by.span, finding.code) for finding, by in suppressed}
        active += _check_suppressions(written, used, chosen if analysis.policy_set is not None else {})
    return Report(
        findings=tuple(sorted(set(active), key=lambda f: f.order)), suppressed=tuple(suppressed), sources=texts
    )


def _written(texts: Mapping[str, str], context: Context, now: Instant) -> list[Suppression]:
    return [
        _extend_to_item(suppression, context)
        for file, text in texts.items()
        for suppression in suppressions(file, text, now)
        if not context.is_text(suppression.span)
    ]


def _chosen(select: Sequence[str], ignore: Sequence[str]) -> dict[str, Rule]:
    for wanted in (*select, *ignore):
        if not any(code.startswith(wanted) for code in catalogue()):
            raise ValueError(f"found the rule `{wanted}`, expected a code such as `PG215` or its first characters")
    return {
        code: rule
        for code, rule in catalogue().items()
        if (not select or code.startswith(tuple(select))) and not (ignore and code.startswith(tuple(ignore)))
    }


def _load_finding(error: PolicyError) -> Finding:
    rule = catalogue().get(error.code)
    return Finding(
        code=error.code,
        name=rule.name if rule is not None else "load-error",
        severity="error",
        span=error.span if error.span is not None else NO_SPAN,
        message=error.message,
        help=error.help or (rule.help if rule is not None else None),
        stops_load=True,
    )


def _checked(context: Context, chosen: Mapping[str, Rule]) -> Iterator[Finding]:
    for rule in chosen.values():
        if rule.check is not None and (context.analysis.policy_set is not None or not rule.needs_policy_set):
            for hit in rule.check(context):
                yield rule.finding(hit)


def _extend_to_item(suppression: Suppression, context: Context) -> Suppression:
    """Extend a suppression to the end of the list item below it."""
    if suppression.line == suppression.span.line:
        return suppression
    last_line = context.last_line_of_item(Span(suppression.span.file, suppression.line, 1))
    return replace(suppression, last_line=last_line or suppression.line)


def _apply(
    findings: Sequence[Finding], written: Sequence[Suppression]
) -> tuple[list[Finding], list[tuple[Finding, Suppression]]]:
    active: list[Finding] = []
    suppressed: list[tuple[Finding, Suppression]] = []
    for finding in findings:
        # INVARIANT I20: what stops the load cannot be suppressed.
        by = None if finding.stops_load else next((s for s in written if s.covers(finding.code, finding.span)), None)
        if by is None:
            active.append(finding)
        else:
            suppressed.append((finding, by))
    return active, suppressed


def _check_suppressions(
    written: Sequence[Suppression], used: set[tuple[Span, str]], ran: Mapping[str, Rule]
) -> list[Finding]:
    """Report PG902 for each suppression that is invalid, or that silenced nothing although its rules ran."""
    # INVARIANT I20: findings about suppressions are added after suppressing, so none can be suppressed.
    rule = catalogue()[SUPPRESSION]
    findings = []
    for suppression in written:
        message = suppression.problem or _needless(suppression, used, ran)
        if message is not None:
            findings.append(
                Finding(
                    code=rule.code,
                    name=rule.name,
                    severity=rule.severity,
                    span=suppression.span,
                    message=message,
                    help=rule.help,
                    fixable=rule.fixable,
                )
            )
    return findings


def _needless(suppression: Suppression, used: set[tuple[Span, str]], ran: Mapping[str, Rule]) -> str | None:
    for code in suppression.codes:
        rule = catalogue().get(code)
        if rule is None:
            return f"suppression of the unknown rule `{code}`"
        if LINT not in rule.produced_by:
            return f"suppression of `{code}`, which cannot be suppressed"
    idle = [code for code in suppression.codes if code in ran and (suppression.span, code) not in used]
    return f"suppression of {quoted_list(idle)} silences nothing" if idle else None
