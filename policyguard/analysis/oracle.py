"""A second implementation of the decision procedure, written for clarity instead of speed.

It shares no code with the engine.

Policies and facts are plain dicts and lists (`plain.py` builds them). Everything is searched, nothing is cached. Only
the standard library and `oracle_cel` are imported, which a test checks. The specification is `docs/semantics.md`.
"""

from __future__ import annotations

# INVARIANT I3: the oracle imports nothing of the engine.
from itertools import combinations, permutations
from typing import Any

from policyguard.analysis.oracle_cel import Absent, evaluate, parse_time

Plain = dict[str, Any]


def decide(policy: Plain, facts: Plain, now: int) -> Plain:
    """Decide a request by the rules of `docs/semantics.md`; return the outcome and the rules behind it as data.

    Args:
        policy: the policies, as `plain.py` writes them.
        facts: the facts, as `plain.py` writes them.
        now: the current time.
    """
    reason = refused(policy, facts)
    if reason:
        return answer(False, reason)
    world = admitted(policy, facts, now)
    fired: dict[str, set[str]] = {"deny": set(), "allow": set(), "require": set()}
    errored = set()
    for rule in policy["rules"]:
        if not concerns(policy, rule, facts, now):
            continue
        outcome = condition(rule, seen_by(rule, world, facts))
        if outcome == "error":
            errored.add(rule["id"])
        if outcome == "true" or (outcome == "error" and rule["effect"] != "allow"):
            fired[rule["effect"]].add(rule["id"])
    unmet = {r["quorum"] for r in policy["rules"] if r["id"] in fired["require"] and not met(policy, r, facts, now)}
    if fired["deny"]:
        return answer(False, "deny", fired["deny"], errored, fired["require"])
    if not fired["allow"]:
        return answer(False, "no_allow", set(), errored, fired["require"])
    if unmet:
        return answer(False, "needs_approval", fired["require"], errored, fired["require"], unmet)
    return answer(True, "allow", fired["allow"] | fired["require"], errored, fired["require"])


def answer(allowed: bool, reason: str, *sets: set[str]) -> Plain:
    """Build the result dictionary, with the determining, errored, requiring and unmet sets sorted."""
    names = ("determining", "errored", "requiring", "unmet")
    filled = [sorted(one) for one in sets] + [[]] * (len(names) - len(sets))
    return {"allowed": allowed, "reason": reason, **dict(zip(names, filled, strict=True))}


# --- the request -----------------------------------------------------------------------------------------------------


def refused(policy: Plain, facts: Plain) -> str:
    """Return the reason code if the request is denied before any rule is evaluated, else an empty text."""
    subject_type, resource_type = kind(facts["subject"]), kind(facts["resource"])
    if not policy["rules"]:
        return "no_rules"
    if subject_type not in policy["subjects"] or resource_type not in policy["resources"]:
        return "unknown_type"
    if facts["action"] not in policy["resources"][resource_type]["actions"]:
        return "unknown_action"
    if not glob(name(facts["resource"]), pattern_of(policy, resource_type).replace("{team}", "*")):
        return "malformed"
    for path, fact in facts["entries"].items():
        attribute = declared(policy, facts, path)
        if attribute is None and fact["assurance"] == 1:
            return "malformed"
        if attribute is not None and not fits(policy, attribute, fact["value"]):
            return "malformed"
    return ""


def kind(ref: str) -> str:
    return ref.split(":", 1)[0]


def name(ref: str) -> str:
    return ref.split(":", 1)[1]


def pattern_of(policy: Plain, resource_type: str) -> str:
    return policy["resources"][resource_type]["pattern"] or "**"


def domain(policy: Plain, facts: Plain) -> str | None:
    """Return the segment of the resource's id at the position of `{team}` in its type's pattern."""
    segments = pattern_of(policy, kind(facts["resource"])).split("/")
    if "{team}" not in segments:
        return None
    return str(name(facts["resource"]).split("/")[segments.index("{team}")])


def declared(policy: Plain, facts: Plain, path: str) -> Plain | None:
    entity, attribute = path.split(".", 1)
    where = {
        "subject": policy["subjects"][kind(facts["subject"])]["attributes"],
        "resource": policy["resources"][kind(facts["resource"])]["attributes"],
        "context": policy["context"],
    }[entity]
    fact: Plain | None = where.get(attribute)
    return fact


# --- facts -----------------------------------------------------------------------------------------------------------


def admitted(policy: Plain, facts: Plain, now: int) -> Plain:
    """Select the facts that conditions may read: strong enough, fresh enough and of the declared type.

    Args:
        policy: the policies, as `plain.py` writes them.
        facts: the facts, as `plain.py` writes them.
        now: the current time.
    """
    subject, resource = facts["subject"], facts["resource"]
    world: Plain = {
        "subject": {"id": subject, "type": kind(subject)},
        "resource": {"id": name(resource), "type": kind(resource)},
        "context": {},
        "action": facts["action"],
        "now": now,
    }
    if declared(policy, facts, "subject.name") is None:
        world["subject"]["name"] = name(subject)
    if domain(policy, facts) is not None:
        world["resource"]["domain"] = domain(policy, facts)
    for path, fact in facts["entries"].items():
        entity, attribute = path.split(".", 1)
        rule = declared(policy, facts, path)
        if rule is None or fact["assurance"] < rule["assurance"]:
            continue
        age = now - fact["observed_at"]
        if age >= 0 and (rule["max_age"] is None or age <= rule["max_age"]):
            world[entity][attribute] = converted(policy, rule["type"], fact["value"])
    return world


def fits(policy: Plain, attribute: Plain, value: Any) -> bool:
    """Return True if the value has the declared type and is in the `enum`, if the attribute has one.

    Args:
        policy: the policies, as `plain.py` writes them.
        attribute: the declaration of the attribute.
        value: a value.
    """
    try:
        converted(policy, attribute["type"], value)
    except ValueError:
        return False
    return not attribute["enum"] or value in attribute["enum"]


def converted(policy: Plain, kind_: Any, value: Any) -> Any:
    """Convert a value to the form that conditions compute with; raises `ValueError`.

    Args:
        policy: the policies, as `plain.py` writes them.
        kind_: the declared type.
        value: a value of this type.
    """
    simple: dict[str, type] = {"bool": bool, "int": int, "string": str, "timestamp": str, "duration": str}
    if isinstance(kind_, str) and kind_ in simple:
        if type(value) is not simple[kind_]:
            raise ValueError(kind_)
        return parse_time(kind_, str(value)) if kind_ in ("timestamp", "duration") else value
    shape, inner = kind_
    if shape == "list":
        if not isinstance(value, list | tuple):
            raise ValueError(shape)
        return [converted(policy, inner, item) for item in value]
    if not isinstance(value, dict):
        raise ValueError(shape)
    if shape == "map":
        return {key: converted(policy, inner, item) for key, item in value.items()}
    fields = policy["records"][inner]
    if not all(key in fields and fits(policy, fields[key], item) for key, item in value.items()):
        raise ValueError(inner)
    return {key: converted(policy, fields[key]["type"], item) for key, item in value.items()}


# --- rules -----------------------------------------------------------------------------------------------------------


def concerns(policy: Plain, rule: Plain, facts: Plain, now: int) -> bool:
    """Return True if the rule applies to this request, apart from its condition.

    Args:
        policy: the policies, as `plain.py` writes them.
        rule: a rule of the policies.
        facts: the facts, as `plain.py` writes them.
        now: the current time.
    """
    where = domain(policy, facts)
    held = roles(policy, facts["subject"], where, now)
    return (
        facts["action"] in rule["actions"]
        and kind(facts["resource"]) in rule["types"]
        and (not rule["roles"] or any(role in held for role in rule["roles"]))
        and (not rule["subjects"] or facts["subject"] in rule["subjects"])
        and (rule["scope"] is None or rule["scope"] == where)
        and says_where(rule, pattern_of(policy, kind(facts["resource"])))
        and (rule["pattern"] is None or glob(name(facts["resource"]), rule["pattern"].replace("{team}", where or "")))
        and (rule["since"] is None or rule["since"] <= now)
        and (rule["until"] is None or now < rule["until"])
    )


def says_where(rule: Plain, type_pattern: str) -> bool:
    """Return True if the rule's pattern has `{team}` nowhere, or in the same segment as its type's pattern."""
    segments, own = (rule["pattern"] or "").split("/"), type_pattern.split("/")
    return "{team}" not in segments or ("{team}" in own and segments.index("{team}") == own.index("{team}"))


def seen_by(rule: Plain, world: Plain, facts: Plain) -> Plain:
    """Copy the facts without those below this rule's minimum assurance.

    Args:
        rule: a rule of the policies.
        world: the admitted facts.
        facts: the facts, as `plain.py` writes them.
    """
    seen = {part: dict(value) if isinstance(value, dict) else value for part, value in world.items()}
    for path, floor in rule["floors"].items():
        entity, attribute = path.split(".", 1)
        if path in facts["entries"] and facts["entries"][path]["assurance"] < floor:
            seen[entity].pop(attribute, None)
    return seen


def condition(rule: Plain, world: Plain) -> str:
    """Evaluate to "true", "false" or "error"; a rule without a condition is true."""
    if rule["when"] is None:
        return "true"
    try:
        value = evaluate(rule["when"], world)
    except Absent:
        return "error"
    return {True: "true", False: "false"}.get(value, "error") if type(value) is bool else "error"


def roles(policy: Plain, subject: str, where: str | None, now: int) -> set[str]:
    """List the roles that the subject holds in the domain; a binding in `*` applies to every domain.

    Args:
        policy: the policies, as `plain.py` writes them.
        subject: the subject, `type:id`.
        where: the domain, if any.
        now: the current time.
    """
    held: set[str] = set()
    for binding in policy["bindings"]:
        in_time = (binding["since"] is None or binding["since"] <= now) and (
            binding["until"] is None or now < binding["until"]
        )
        if binding["subject"] == subject and binding["domain"] in ("*", where) and in_time:
            held |= with_parents(policy, binding["role"])
    return held


def with_parents(policy: Plain, role: str) -> set[str]:
    roles = {role}
    for parent in policy["roles"].get(role, []):
        roles |= with_parents(policy, parent)
    return roles


def glob(text: str, pattern: str) -> bool:
    """Match a path segment by segment: `**` is any number of segments, `*` any characters within one."""
    return match_segments(text.split("/"), pattern.split("/"))


def match_segments(segments: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not segments
    if patterns[0] == "**":
        return any(match_segments(segments[skip:], patterns[1:]) for skip in range(len(segments) + 1))
    return bool(segments) and match_part(segments[0], patterns[0]) and match_segments(segments[1:], patterns[1:])


def match_part(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(match_part(text[skip:], pattern[1:]) for skip in range(len(text) + 1))
    return bool(text) and text[0] == pattern[0] and match_part(text[1:], pattern[1:])


# --- quorums ---------------------------------------------------------------------------------------------------------


def met(policy: Plain, rule: Plain, facts: Plain, now: int) -> bool:
    """Return True if distinct, independent persons can fill every seat of the quorum; tries every assignment.

    Args:
        policy: the policies, as `plain.py` writes them.
        rule: a rule of the policies.
        facts: the facts, as `plain.py` writes them.
        now: the current time.
    """
    quorum = policy["quorums"][rule["quorum"]]
    persons = policy["persons"]
    if facts["contributors"] is None:
        return False
    involved = [*facts["contributors"], facts["subject"]]
    if any(account not in persons for account in involved):
        return False
    conflicted = {persons[account] for account in involved}
    accounts = {
        approval["account"]
        for approval in facts["approvals"]
        if approval["assurance"] >= quorum["assurance"]
        and approval["approved_at"] <= now < approval["expires"]
        and (quorum["max_age"] is None or now - approval["approved_at"] <= quorum["max_age"])
        and approval["account"] in persons
        and persons[approval["account"]] not in conflicted
    }
    seats = [seat for seat in quorum["places"] for _ in range(seat["count"])]
    humans = sorted({persons[account] for account in accounts})

    def may_sit(human: str, seat: Plain) -> bool:
        where = seat["domain"] or domain(policy, facts)
        where = None if where == "*" else where
        own = [account for account in accounts if persons[account] == human]
        return any(roles(policy, account, where, now) & set(seat["roles"]) for account in own)

    return any(
        all(may_sit(human, seat) for human, seat in zip(order, seats, strict=True))
        for chosen in combinations(humans, len(seats))
        for order in permutations(chosen)
    )
