"""An insider picks numbers whose sum overflows inside a macro: an error, so that no allow fires and every deny does."""

from __future__ import annotations

import pytest

from policyguard import Guard, Request

SCHEMA = """\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {job: {actions: [submit], attributes: {sizes: {type: list(int)}}}}
"""
RULE = """\
---
apiVersion: policyguard/v1
kind: Policy
metadata: {{name: p, owner: platform}}
rules:
  - {{id: everything, effect: allow, actions: ["job:submit"], resources: {{type: job}}}}
  - {{id: rule, effect: {effect}, actions: ["job:submit"], resources: {{type: job}}, when: '{when}'}}
"""
LARGE = 4_503_599_627_370_496
COMPUTED = "[resource.sizes[0], resource.sizes[1]].map(b, b * 1024)"
OVERFLOWS = {
    "a macro's variable over computed values": f"{COMPUTED}.all(x, x + x > 0)",
    "a field of a map literal": '{"k": resource.sizes[0] * 1024}.k + resource.sizes[1] * 1024 > 0',
    "an entry of a map literal": '{"k": resource.sizes[0] * 1024}["k"] + resource.sizes[1] * 1024 > 0',
    "an element of a list literal": "[resource.sizes[0] * 1024][0] + resource.sizes[1] * 1024 > 0",
    "a macro in a macro": f"[{COMPUTED}].all(list, list.all(x, x * 2 > 0))",
    "a variable that hides another": f"resource.sizes.all(x, {COMPUTED}.all(x, x + x > 0))",
    "a filtered list": f"{COMPUTED}.filter(x, x > 0).all(x, x + x > 0)",
    "either branch of a conditional": "(true ? resource.sizes[0] * 1024 : 0) * 2 > 0",
    "a product of facts": "resource.sizes.all(x, x * x * 2 > 0)",
    "a negative one": f"{COMPUTED}.all(x, -x - x - x < 1)",
}


def decision(effect: str, when: str, sizes: list[int]) -> tuple[bool, tuple[str, ...]]:
    """Decide one request under one rule, and say why."""
    text = SCHEMA + RULE.format(effect=effect, when=when)
    if effect == "allow":
        text = text.replace("  - {id: everything", "  # {id: everything")
    with Guard.in_memory(text) as guard:
        signed = guard.decide(Request.of("user:a", "job:submit", "job:x", sizes=sizes))
    return signed.decision.allowed, signed.decision.reason_codes


@pytest.mark.parametrize("when", OVERFLOWS.values(), ids=OVERFLOWS)
def test_an_overflow_inside_a_condition_never_grants(when: str) -> None:
    """An allow whose condition overflows does not fire, and a deny whose condition overflows does."""
    assert decision("allow", when, [LARGE, LARGE]) == (False, ("engine.no_allow",))
    assert decision("deny", when, [LARGE, LARGE]) == (False, ("engine.error",))


@pytest.mark.parametrize("when", OVERFLOWS.values(), ids=OVERFLOWS)
def test_the_same_conditions_decide_on_small_numbers(when: str) -> None:
    """The twin: without an overflow the allow fires."""
    assert decision("allow", when, [1, 1])[0] is True
