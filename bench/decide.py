"""Deciding: ours beside the engines a Python user would pick, how it grows, and how far it is from the floor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench import peers
from bench.documents import NOW, facts, sources
from bench.peers import Prepared
from bench.report import Section, Target, times, us
from bench.timing import Contestant, race, threaded
from bench.workload import SEED, SHARES, Question, Rule, Workload
from policyguard.conditions.ast import shape
from policyguard.conditions.codegen import compile_shape
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.policy import PolicySet
from policyguard.policy.loader import load

OURS = "policyguard"
OURS_WHOLE = "policyguard, admission too"
BY_HAND = ("regorus_by_value",)
"""Rows shown beside the peers and not counted as one: an index that the host wrote for this very lab."""
THREADS = 4
SLOW_PEERS = ("pycasbin", "pycasbin_functions")
EQUAL_FIRST = {
    "queue_ceiling": ("queue",),
    "queue_limit": ("queue",),
    "late_deadline": ("queue",),
    "pinned_image": ("image_digest",),
    "banned_image": ("image_digest",),
    "reserved": ("reservation",),
    "project_label": ("labels", "project"),
    "embargo": ("labels", "embargo"),
}
"""The attribute that a shape demands to equal its first constant."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a run may take: rounds in turns, and seconds for each engine in each round."""

    rounds: int
    budget_s: float
    checked: int
    """Questions that casbin, which takes up to a second for each, must agree on; all others answer all."""


FULL = Effort(rounds=5, budget_s=0.25, checked=40)
QUICK = Effort(rounds=3, budget_s=0.05, checked=4)


@cache
def lab(size: int, unindexed: int = SHARES["unindexed"]) -> Workload:
    """Return the lab of this size, built once a run."""
    return Workload.build(size, seed=SEED, shares={**SHARES, "unindexed": unindexed})


@cache
def policy_set(size: int, unindexed: int = SHARES["unindexed"]) -> PolicySet:
    """Return the lab as our loader reads it from YAML."""
    return load(sources(lab(size, unindexed)))


@cache
def snapshot(size: int, unindexed: int = SHARES["unindexed"]) -> Snapshot:
    """Return our compiled form of the lab."""
    policies = policy_set(size, unindexed)
    return Snapshot.of(policies, assign_roles(policies.roles, policies.bindings, policies.exclusions))


@cache
def ours(size: int, unindexed: int = SHARES["unindexed"]) -> Prepared:
    """Return this package's `evaluate`: facts admitted beforehand, a full `Decision` out; checked like every peer."""
    snapshot_ = snapshot(size, unindexed)
    evaluate = Engine(snapshot_).evaluate

    def allowed(admitted: Any) -> bool:
        return evaluate(admitted).allowed

    admitted = [snapshot_.admit(facts(question), NOW) for question in lab(size, unindexed).questions]
    prepared = Prepared(admitted, allowed)
    peers.check(OURS, prepared, lab(size, unindexed))
    return prepared


@cache
def ours_whole(size: int, unindexed: int = SHARES["unindexed"]) -> Prepared:
    """Return this package's `decide`: claims checked against the schema, then `evaluate`."""
    decide = Engine(snapshot(size, unindexed)).decide

    def allowed(claims: Any) -> bool:
        return decide(claims, NOW).allowed

    prepared = Prepared([facts(question) for question in lab(size, unindexed).questions], allowed)
    peers.check(OURS_WHOLE, prepared, lab(size, unindexed))
    return prepared


def beside_peers(sizes: Sequence[int], names: Sequence[str], effort: Effort) -> list[Section]:
    """Return the table of engines by number of rules, and that of four threads, after checking that all agree."""
    single = Section(
        "Deciding, beside the peers",
        ("engine", "rules", "p50", "p99", "x policyguard", "calls"),
        notes=[
            "every engine gives the naive evaluation's answer to every question; half are allowed",
            "policyguard takes admitted facts, as each peer takes its own prepared form; the row below admits too",
            "x policyguard: median over rounds of (median call / median call of policyguard in the same round)",
        ],
    )
    together = Section(
        f"Deciding, {THREADS} threads",
        (
            "engine",
            "rules",
            "1 thread, calls/s",
            f"{THREADS} threads, calls/s",
            f"p50, {THREADS} threads",
            f"p99, {THREADS} threads",
        ),
    )
    for size in sizes:
        engines = {OURS: ours(size), OURS_WHOLE: ours_whole(size)}
        engines |= {peers.module(name).NAME: _peer(name, size, effort) for name in names}
        contestants = {name: Contestant(engine.decide, engine.requests) for name, engine in engines.items()}
        race(contestants, rounds=effort.rounds, budget_s=effort.budget_s)
        single.rows += [_row(name, size, contestant, contestants[OURS]) for name, contestant in contestants.items()]
        single.targets += _targets(size, contestants)
        together.rows += [_threads(name, size, engine, effort) for name, engine in engines.items()]
    return [single, together]


def _peer(name: str, size: int, effort: Effort) -> Prepared:
    prepared = peers.prepare(name, lab(size))
    peers.check(name, prepared, lab(size), first=effort.checked if name in SLOW_PEERS else None)
    return prepared


def _row(name: str, size: int, contestant: Contestant, ours_: Contestant) -> Sequence[str]:
    ratio = "" if contestant is ours_ else times(contestant.ratio_to(ours_))
    return name, f"{size:,}", us(contestant.p50_us), us(contestant.p99_us), ratio, f"{contestant.calls:,}"


def _targets(size: int, contestants: Mapping[str, Contestant]) -> Iterable[Target]:
    not_peers = {OURS, OURS_WHOLE, *(peers.module(name).NAME for name in BY_HAND)}
    ratios = {
        name: contestant.ratio_to(contestants[OURS])
        for name, contestant in contestants.items()
        if name not in not_peers
    }
    if size == 10_000:
        yield Target("evaluate at 10,000 rules, median us", contestants[OURS].p50_us, 5)
    wanted = {10: 1, 1_000: 10, 10_000: 15}
    if ratios and size in wanted:
        fastest = min(ratios, key=lambda name: ratios[name])
        yield Target(f"fastest peer ({fastest}) at {size:,} rules, times slower", ratios[fastest], wanted[size], True)
    casbin = peers.module("pycasbin").NAME
    if size == 1_000 and casbin in ratios:
        yield Target(f"{casbin} at 1,000 rules, times slower", ratios[casbin], 5_000, True)


def _threads(name: str, size: int, engine: Prepared, effort: Effort) -> Sequence[str]:
    one = threaded(engine.for_thread, engine.requests, threads=1, budget_s=effort.budget_s)
    four = threaded(engine.for_thread, engine.requests, threads=THREADS, budget_s=effort.budget_s)
    if four.failure is not None:
        return name, f"{size:,}", f"{one.rate_per_s:,.0f}", f"raises {four.failure}", "", ""
    return name, f"{size:,}", f"{one.rate_per_s:,.0f}", f"{four.rate_per_s:,.0f}", us(four.p50_us), us(four.p99_us)


def growth(sizes: Sequence[int], effort: Effort) -> Section:
    """Return our cost at each size, and beside it the floor: the same conditions run on candidates known beforehand."""
    section = Section(
        "Growth and floor",
        ("rules", "p50", "p99", "floor p50", "x floor", "conditions a request"),
        notes=["floor: only the conditions of the rules that a perfect index finds, attributes at hand, no `Decision`"],
    )
    sized: dict[int, Contestant] = {}
    contestants: dict[str, Contestant] = {}
    for size in sizes:
        engine = ours(size)
        sized[size] = contestants[f"{size}"] = Contestant(engine.decide, engine.requests)
        contestants[f"floor {size}"] = Contestant(_run_all, [_candidates(size, q) for q in lab(size).questions])
    race(contestants, rounds=effort.rounds, budget_s=effort.budget_s)
    for size in sizes:
        floor, measured = contestants[f"floor {size}"], sized[size]
        count = sum(len(runs) for runs, _ in floor.inputs) / len(floor.inputs)
        section.rows.append(
            (
                f"{size:,}",
                us(measured.p50_us),
                us(measured.p99_us),
                us(floor.p50_us),
                times(measured.ratio_to(floor)),
                f"{count:.1f}",
            )
        )
    if {100, 10_000} <= sized.keys():
        section.targets.append(Target("growth from 100 to 10,000 rules, times", sized[10_000].ratio_to(sized[100]), 4))
    if 10_000 in sized:
        above = sized[10_000].ratio_to(contestants["floor 10000"])
        section.targets.append(Target("cost at 10,000 rules, times the floor", above, 4))
    return section


Candidates = tuple[list[tuple[Callable[..., bool], tuple[Any, ...]]], tuple[Any, ...]]


def _run_all(candidates: Candidates) -> int:
    """Run every condition; an error counts as true, as it would for a deny."""
    runs, entities = candidates
    fired = 0
    for run, constants in runs:
        try:
            if run(*entities, constants):
                fired += 1
        except Exception:  # noqa: BLE001 - the compiled conditions raise whatever Python raises
            fired += 1
    return fired


def _candidates(size: int, question: Question) -> Candidates:
    roles = lab(size).held.get((question.subject, question.team), frozenset())
    compiled = _compiled(size)
    runs = [compiled[rule.id] for rule in lab(size).rules if _is_candidate(rule, question, roles)]
    claims = facts(question)
    resource = {path.partition(".")[2]: fact.value for path, fact in claims.entries.items()}
    resource |= {"id": question.id, "type": question.kind, "domain": question.team}
    subject = {"id": question.subject, "type": "user"}
    return runs, (subject, resource, {}, question.action, NOW)


@cache
def _compiled(size: int) -> dict[str, tuple[Callable[..., bool], tuple[Any, ...]]]:
    compiled: dict[Any, Callable[..., bool]] = {}
    by_rule = {}
    for rule in policy_set(size).rules:
        if rule.when is not None:
            form, constants = shape(rule.when.expression)
            if form not in compiled:
                compiled[form] = compile_shape(form)
            by_rule[rule.id] = (compiled[form], constants)
    return by_rule


def _is_candidate(rule: Rule, question: Question, roles: frozenset[str]) -> bool:
    """Does all of the rule match but its condition, and the value that its condition demands by equality?"""
    return (
        rule.action in (None, question.action)
        and rule.kind in (None, question.kind)
        and rule.team in (None, question.team)
        and (rule.role is None or rule.role in roles)
        and (not rule.area or question.path.startswith(rule.area + "/"))
        and _meets_equality(rule, question)
    )


def _meets_equality(rule: Rule, question: Question) -> bool:
    path = EQUAL_FIRST.get(rule.shape)
    if path is None:
        return True
    value: Any = question.attributes
    for name in path:
        value = value.get(name, {})
    return bool(value == rule.constants[0])


def unindexed(effort: Effort, size: int = 10_000, per_mille: Sequence[int] = (0, 2, 10, 50)) -> Section:
    """Return our cost as more of the rules are such that nothing but running them can exclude them."""
    section = Section(f"Rules that cannot be indexed, at {size:,} rules", ("share", "such rules", "p50", "p99"))
    engines = {share: ours(size, share) for share in per_mille}
    contestants = {f"{share}": Contestant(engine.decide, engine.requests) for share, engine in engines.items()}
    race(contestants, rounds=effort.rounds, budget_s=effort.budget_s)
    for share in per_mille:
        contestant = contestants[f"{share}"]
        count = sum(rule.id.startswith("unindexed") for rule in lab(size, share).rules)
        section.rows.append((f"{share / 10:.1f} %", f"{count:,}", us(contestant.p50_us), us(contestant.p99_us)))
    return section
