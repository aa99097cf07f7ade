"""Random small casbin models and rows, every request of their world: the import decides like a stock enforcer."""

from __future__ import annotations

import itertools
import random

import pytest

from policyguard.casbin_compat.importer import import_casbin
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyErrors
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load
from tests.fences.casbin_stock import ALLOW, DENY_OVERRIDE, conf, stock

USERS = ("alice", "bob", "carol", "root")
ROLES = ("admin", "reader", "ops")
OBJECTS = ("a", "a/b", "a/b/c", "b", "ab")
ACTIONS = ("read", "write")
DOMAINS = ("d1", "d2")
SUBJECT = ("r.sub == p.sub", "g(r.sub, p.sub)", '(g(r.sub, p.sub) || p.sub == "any")', 'r.sub in ["alice", "bob"]')
OBJECT = (
    "r.obj == p.obj",
    "keyMatch(r.obj, p.obj)",
    "keyMatch2(r.obj, p.obj)",
    'r.obj != "b"',
    "globMatch(r.obj, p.obj)",
)
ACTION = ("r.act == p.act", "regexMatch(r.act, p.act)", 'r.act in ["read"]')
ROOT = ("", ' || r.sub == "root"', ' || r.act == "read" && r.obj == "ab"')


class World:
    """A model, rows, and what may be asked."""

    def __init__(self, seed: int) -> None:
        pick = random.Random(seed)
        self.domains = pick.random() < 0.4
        subject, obj, act = pick.choice(SUBJECT), pick.choice(OBJECT), pick.choice(ACTION)
        if self.domains:
            subject = subject.replace("g(r.sub, p.sub)", "g(r.sub, p.sub, r.dom)") + " && r.dom == p.dom"
        parts = [subject, obj, act]
        pick.shuffle(parts)
        deny = pick.random() < 0.6
        columns = "sub, dom, obj, act" if self.domains else "sub, obj, act"
        self.model = conf(
            " && ".join(parts) + pick.choice(ROOT),
            r=columns,
            p=columns + (", eft" if deny else ""),
            g="_, _, _" if self.domains else "_, _",
            effect=DENY_OVERRIDE if deny else ALLOW,
        )
        objects = [*OBJECTS, *(["a/*", "*"] if "eyMatch" in obj else []), *(["a/:x"] if "keyMatch2" in obj else [])]
        rows = []
        for _ in range(pick.randrange(1, 7)):
            row = ["p", pick.choice([*USERS, *ROLES, "any"]), *([pick.choice(DOMAINS)] if self.domains else [])]
            row += [pick.choice(objects), pick.choice(ACTIONS)]
            row += [pick.choice(["allow", "allow", "deny"])] if deny else []
            rows.append(", ".join(row))
        for _ in range(pick.randrange(5)):
            child, parent = pick.choice([*USERS, *ROLES[:2]]), pick.choice(ROLES)
            if child not in ROLES or ROLES.index(child) < ROLES.index(parent):
                rows.append(", ".join(["g", child, parent, *([pick.choice(DOMAINS)] if self.domains else [])]))
        self.policy = "\n".join(dict.fromkeys(rows))


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_every_request_of_a_small_world_is_decided_alike(first: int) -> None:
    """I6: thirty worlds a case; names that are roles are left out as subjects (H12). Most worlds are translated."""
    translated = 0
    for seed in range(first, first + 30):
        world = World(seed)
        try:
            found = import_casbin(world.model, world.policy, actions=ACTIONS)
        except PolicyErrors:
            continue
        translated += 1
        policy_set = load({"imported.yaml": found.documents.encode()})
        ours = Snapshot.of(policy_set, assign_roles(policy_set.roles, policy_set.bindings))
        theirs = stock(world.model, world.policy)
        domains = (*DOMAINS, "d3") if world.domains else ("",)
        for user, domain, obj, action in itertools.product((*USERS, "any"), domains, OBJECTS, ACTIONS):
            request = Request.of(*found.names.request(user, action, obj, domain))
            asked = (user, domain, obj, action) if world.domains else (user, obj, action)
            expected = theirs.enforce(*asked)
            assert Engine(ours).decide(Facts(request=request), 0).allowed is expected, (
                seed,
                world.model,
                world.policy,
                asked,
            )
    assert translated >= 12
