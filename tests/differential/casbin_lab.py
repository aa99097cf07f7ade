"""A small lab for differential tests: every feature of the policy language once, in one set of documents."""

from __future__ import annotations

from policyguard.model.policy import PolicySet
from policyguard.policy.loader import load

SCHEMA = """
apiVersion: policyguard/v1
kind: Schema
metadata: {name: lab}
subjects:
  user:
    attributes:
      level: {type: int, optional: true}
  job: {}
resources:
  job:
    id: team/{team}/**
    actions: [submit, kill]
    attributes:
      gpus: {type: int, optional: true}
      queue: {type: string, enum: [batch, interactive], optional: true}
      dirty: {type: bool, assurance: measured, optional: true}
      image: {type: string, optional: true, assurance: observed, maxAge: 1h}
      started: {type: timestamp, optional: true}
      limit: {type: duration, optional: true}
      labels: {type: "map(string, string)", optional: true}
      checkpoints: {type: list(checkpoint_ref), optional: true}
      hosts: {type: list(string), optional: true}
  queue:
    id: queue/{team}
    actions: [drain, "job:kill"]
  model:
    actions: [read]
    attributes: {path: {type: string, optional: true}}
context:
  attributes:
    address: {type: string, optional: true}
records:
  checkpoint_ref:
    attributes:
      format: {type: string, enum: [pickle, safetensors]}
      producer: {type: string}
"""

ROLES = """
apiVersion: policyguard/v1
kind: Roles
metadata: {name: roles}
roles:
  - {name: researcher}
  - {name: lead, inherits: [researcher]}
  - {name: admin, inherits: [lead, auditor]}
  - {name: auditor}
---
apiVersion: policyguard/v1
kind: Bindings
metadata: {name: bindings}
bindings:
  - {subject: "user:alice", role: researcher, domain: vision}
  - {subject: "user:bob", role: lead, domain: vision}
  - {subject: "user:carol", role: lead, domain: vision}
  - {subject: "user:dave", role: admin, domain: "*"}
  - {subject: "user:erin", role: auditor, domain: speech}
  - subject: "user:erin"
    role: researcher
    domain: speech
    notBefore: "2026-01-01T00:00:00Z"
    expires: "2026-02-01T00:00:00Z"
  - {subject: "job:nightly", role: researcher, domain: "*", expires: "2026-01-15T00:00:00Z"}
---
apiVersion: policyguard/v1
kind: Persons
metadata: {name: persons}
persons:
  - {id: alice, accounts: ["user:alice"]}
  - {id: bob, accounts: ["user:bob", "user:bob-admin"]}
  - {id: carol, accounts: ["user:carol"]}
  - {id: dave, accounts: ["user:dave"]}
  - {id: erin, accounts: ["user:erin"]}
---
apiVersion: policyguard/v1
kind: Quorums
metadata: {name: quorums}
quorums:
  - {id: two-leads, approvers: [{count: 2, roles: [lead]}]}
  - id: lead-and-auditor
    approvers: [{count: 1, roles: [lead]}, {count: 1, roles: [auditor], domain: "*"}]
    maxAge: 1h
"""

RULES = """
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs}
rules:
  - id: researchers-submit
    effect: allow
    roles: [researcher]
    actions: ["job:submit"]
    resources: {type: job, id: "team/{team}/**"}
    when: resource.gpus <= 64 && resource.dirty == false
  - id: leads-kill
    effect: allow
    roles: [lead]
    actions: ["job:kill"]
    resources: {type: [job, queue]}
  - id: auditors-read
    effect: allow
    roles: [auditor]
    actions: ["model:read"]
    resources: {type: model}
    when: glob(resource.path, "/weights/*/final/**") || under(resource.path, "/public")
  - id: nightly-may
    effect: allow
    subjects: ["job:nightly", "user:zoe"]
    actions: ["job:submit"]
    resources: {type: job, id: "team/vision/nightly-*"}
    when: resource.queue in ["batch"] && has(resource.limit)
    notBefore: "2025-12-01T00:00:00Z"
  - id: drainers
    effect: allow
    roles: [lead, auditor]
    actions: ["queue:drain"]
    resources: {type: queue}
  - id: pickle
    effect: deny
    actions: ["job:submit"]
    resources: {type: job}
    when: resource.checkpoints.exists(c, c.format == "pickle" && c.producer != subject.id)
    reason: ckpt.pickle
  - id: freeze
    effect: deny
    actions: ["*"]
    when: now >= timestamp("2026-01-20T00:00:00Z") && now < timestamp("2026-01-21T00:00:00Z")
    notBefore: "2026-01-01T00:00:00Z"
    expires: "2026-03-01T00:00:00Z"
  - id: outside
    effect: deny
    actions: ["job:submit"]
    resources: {type: job}
    when: ip.in(context.address, "10.0.0.0/8") == false
  - id: interactive-hours
    effect: deny
    roles: [researcher]
    actions: ["job:submit"]
    resources: {type: job}
    when: resource.queue == "interactive" && now.getHours("UTC") < 7
  - id: big
    effect: require
    actions: ["job:submit"]
    resources: {type: job}
    when: resource.gpus >= 32
    quorum: two-leads
  - id: unlabelled
    effect: require
    actions: ["job:kill"]
    resources: {type: job}
    when: resource.labels["owner"] != subject.id
    quorum: lead-and-auditor
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: vision-only}
scope: vision
rules:
  - id: vision-old-images
    effect: deny
    actions: ["job:submit"]
    resources: {type: job}
    when: resource.image.startsWith("old/") || resource.hosts.all(h, h.endsWith(".old"))
  - id: vision-anyone-kills-nightly
    effect: allow
    actions: ["job:kill"]
    resources: {type: job, id: "team/{team}/nightly-*"}
    when: resource.started + resource.limit < now
"""


def lab(extra: str = "") -> PolicySet:
    """Return the loaded lab; `extra` are more documents."""
    return load({"schema.yaml": SCHEMA.encode(), "people.yaml": ROLES.encode(), "rules.yaml": (RULES + extra).encode()})
