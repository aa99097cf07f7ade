"""A stock casbin enforcer from texts, and a one-rule world of ours, for the fences."""

from __future__ import annotations

import warnings
from typing import Any

import casbin
from casbin.persist.adapters import StringAdapter

from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load

ALLOW = "some(where (p.eft == allow))"
DENY_OVERRIDE = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"


def conf(matcher: str, *, p: str = "sub, obj, act", g: str = "", effect: str = ALLOW, r: str = "sub, obj, act") -> str:
    """Return a model text."""
    roles = f"[role_definition]\ng = {g}\n" if g else ""
    return (
        f"[request_definition]\nr = {r}\n[policy_definition]\np = {p}\n{roles}"
        f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n"
    )


def stock(model: str, policy: str = "") -> Any:
    """Return a plain `casbin.Enforcer`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapter = StringAdapter(policy) if policy else None
        return casbin.Enforcer(casbin.Enforcer.new_model(text=model), adapter)


EQUAL = "r.sub == p.sub && r.obj == p.obj && r.act == p.act"

WORLD = """
apiVersion: policyguard/v1
kind: Schema
metadata: {name: fence}
subjects: {user: {}}
resources:
  data:
    id: "{team}/**"
    actions: [read]
    attributes:
      path: {type: string, optional: true}
      address: {type: string, optional: true}
---
apiVersion: policyguard/v1
kind: Roles
metadata: {name: roles}
roles: [{name: admin}, {name: reader}]
---
apiVersion: policyguard/v1
kind: Bindings
metadata: {name: bindings}
bindings: [{subject: "user:alice", role: reader, domain: vision}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: rules}
rules:
"""


def ours(*rules: str) -> Snapshot:
    """Return a snapshot with these rules, each a YAML flow map."""
    policy_set = load({"fence.yaml": (WORLD + "".join(f"  - {rule}\n" for rule in rules)).encode()})
    return Snapshot.of(policy_set, assign_roles(policy_set.roles, policy_set.bindings))


def allows(snapshot: Snapshot, subject: str = "user:alice", resource: str = "data:vision/x") -> bool:
    """Return what our engine says when nothing but the request is known."""
    return Engine(snapshot).decide(Facts(request=Request.of(subject, "data:read", resource)), 0).allowed


READERS = '{id: readers, effect: allow, roles: [reader], actions: ["data:read"]}'
ANYONE = '{id: anyone, effect: allow, actions: ["data:read"]}'
