"""From texts to nouns: what a policy set holds after a load, and what only all documents together can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.compiled_form import compile_policy, policy_digest
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyErrors
from policyguard.model.facts import Assurance
from policyguard.model.policy import BindingSource, PolicySet
from policyguard.policy.loader import analyse, load
from policyguard.values import parse_instant

BASE = Path(__file__).parents[2] / "data" / "policy" / "base"


def base(**more: str) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in sorted(BASE.glob("*.yaml"))}
    return files | {f"{name}.yaml": text.encode() for name, text in more.items()}


def document(kind: str, body: str) -> str:
    return f"apiVersion: policyguard/v1\nkind: {kind}\nmetadata: {{name: more, owner: tests}}\n{body}"


def loaded(**more: str) -> PolicySet:
    return load(base(**more))


def codes(**more: str) -> list[str]:
    return [error.code for error in analyse(base(**more)).errors]


def rule(body: str) -> str:
    return document("Policy", f"rules:\n  - {{id: more, {body}}}\n")


def test_a_schema_says_what_exists() -> None:
    """Types, actions with their prefix, attributes with unit, enum, assurance; records by name."""
    schema = loaded().schema
    assert {"job:submit", "job:kill", "policy:publish"} == schema.actions
    job = schema.resources["job"]
    assert job.actions == ("job:submit", "job:kill")
    assert job.id_pattern == "team/{team}/**"
    assert job.attributes["gpus"].unit == "gpu"
    assert job.attributes["code"].type.record == "code"
    assert job.attributes["code"].assurance is Assurance.MEASURED
    assert schema.subjects["user"].attributes["level"].enum == ("junior", "senior")
    assert str(schema.records["code"]["dirty"].type) == "bool"


def test_a_star_is_expanded_and_remembered() -> None:
    """`*` becomes what the schema declares; the author's star is kept for lint."""
    found = loaded(more=rule('effect: deny, actions: ["*"]')).rules[0]
    assert found.actions == ("job:kill", "job:submit", "policy:publish")
    assert found.resource_types == ("job", "policy")
    assert found.any_action
    assert found.any_type


def test_without_resources_a_rule_is_about_the_types_that_know_its_actions() -> None:
    """No `resources` means every type on which one of the actions is possible."""
    found = loaded(more=rule("effect: deny, actions: [policy:publish]")).rules[0]
    assert found.resource_types == ("policy",)


def test_a_rule_may_name_two_types_if_its_condition_means_one_thing() -> None:
    """A condition is checked for each resource type; trees that differ are refused."""
    found = loaded(more=rule('effect: deny, actions: ["*"], resources: {type: [job, policy]}, when: subject.id == "x"'))
    assert found.rules[0].resource_types == ("job", "policy")
    only_jobs = 'effect: deny, actions: ["*"], resources: {type: [job, policy]}, when: resource.gpus > 1'
    messages = [str(error) for error in analyse(base(more=rule(only_jobs))).errors]
    assert len(messages) == 1
    assert "(for resource type `policy`)" in messages[0]


def test_a_star_in_a_document_with_scope_means_the_types_that_belong_to_a_domain() -> None:
    """A rule of team vision about `*` is about jobs; a policy belongs to no team, and a snapshot of the rule loads."""
    scoped = document(
        "Policy", 'scope: vision\nrules:\n  - {id: r, effect: deny, actions: ["*"], resources: {type: "*"}}\n'
    )
    policies = loaded(more=scoped)
    assert next(rule for rule in policies.rules if rule.id == "r").resource_types == ("job",)
    grants = assign_roles(policies.roles, policies.bindings, policies.exclusions, policies.persons)
    compiled = compile_policy(policies, grants)
    assert Snapshot.from_compiled(compiled, policy_digest(compiled)).rules

    nowhere = scoped.replace('["*"]', "[policy:publish]")
    messages = [str(error) for error in analyse(base(more=nowhere)).errors]
    assert codes(more=nowhere) == ["PG108"]
    assert "action `policy:publish` is one of `policy`" in messages[0]


def test_every_field_of_a_rule_arrives() -> None:
    """Times as instants, obligations as a tuple, owner and scope from the document."""
    text = document(
        "Policy",
        """scope: vision
rules:
  - id: all-fields
    effect: allow
    subjects: ["user:alice", "service:ci"]
    actions: [job:submit]
    resources: {type: job, id: "team/{team}/**"}
    when: resource.gpus <= 8
    reason: ok.small
    remedy: >
      ask for
      less
    contact: "#infra"
    obligations: [notify.owner]
    notBefore: 2026-01-01T00:00:00Z
    expires: "2026-02-01T00:00:00+01:00"
    description: everything at once
""",
    )
    found = next(rule for rule in loaded(more=text).rules if rule.id == "all-fields")
    assert found.subjects == ("user:alice", "service:ci")
    assert (found.scope, found.owner, found.reason) == ("vision", "tests", "ok.small")
    assert (found.remedy, found.contact) == ("ask for less", "#infra")
    assert found.obligations == ("notify.owner",)
    assert found.not_before == parse_instant("2026-01-01T00:00:00Z")
    assert found.expires == parse_instant("2026-01-31T23:00:00Z")
    assert found.when is not None
    assert str(found.when.at(9)) == "more.yaml:11:20"
    assert str(found.span) == "more.yaml:6:5"


def test_bindings_may_be_in_a_casbin_adapter() -> None:
    """A `source` is kept as a noun; nothing is opened here."""
    text = document("Bindings", "source: {adapter: csv, path: data/bindings.csv}\n")
    assert (BindingSource(adapter="csv", location="data/bindings.csv"),) == loaded(more=text).binding_sources
    text = document("Bindings", 'source: {adapter: sqlalchemy, url: "sqlite:///bindings.db"}\n')
    assert loaded(more=text).binding_sources[0].location == "sqlite:///bindings.db"


@pytest.mark.parametrize(
    "source",
    [
        "{adapter: csv, path: /etc/passwd}",
        "{adapter: csv, path: a/../../b}",
        "{adapter: csv, url: x}",
        "{adapter: cvs}",
    ],
)
def test_a_binding_source_outside_the_folder_is_refused(source: str) -> None:
    """A path is relative and stays within the policy folder."""
    assert codes(more=document("Bindings", f"source: {source}\n"))


def test_an_empty_list_does_not_mean_everybody() -> None:
    """I6: `roles: []` is an error; a rule for everybody has no `roles` at all."""
    assert codes(more=rule("effect: allow, roles: [], actions: [job:kill], resources: {type: job}")) == ["PG003"]
    assert not codes(more=rule("effect: allow, actions: [job:kill], resources: {type: job}"))


POLARITY = {
    "allow, plainly": ("allow", "has(resource.queue)", True),
    "allow, negated": ("allow", "!has(resource.queue)", False),
    "deny, plainly": ("deny", "has(resource.queue)", False),
    "deny, negated": ("deny", "!has(resource.queue)", True),
}


@pytest.mark.parametrize(("effect", "when", "right"), POLARITY.values(), ids=POLARITY.keys())
def test_has_is_where_absence_takes_access_away(effect: str, when: str, right: bool) -> None:
    """I2: the loader refuses a condition in which a missing fact would grant."""
    text = rule(f"effect: {effect}, actions: [job:kill], resources: {{type: job}}, when: '{when}'")
    assert ([] if right else ["PG115"]) == codes(more=text)


def test_one_id_is_one_rule() -> None:
    """I6: an id that another document uses, or that differs in case only, is refused."""
    for taken in ("submit-small", "Submit-Small"):
        text = document("Policy", f'rules: [{{id: {taken}, effect: deny, actions: ["*"]}}]\n')
        assert codes(more=text) == ["PG006"]


def test_a_cycle_of_roles_is_refused() -> None:
    """I6: named with its members; a diamond is no cycle."""
    cycle = document("Roles", "roles: [{name: a, inherits: [b]}, {name: b, inherits: [a]}]\n")
    assert codes(more=cycle) == ["PG501"]
    diamond = document(
        "Roles", "roles: [{name: a, inherits: [b, c]}, {name: b, inherits: [lead]}, {name: c, inherits: [lead]}]\n"
    )
    assert not codes(more=diamond)


def chain(length: int) -> str:
    roles = [f"  - {{name: r{i}, inherits: [r{i + 1}]}}\n" for i in range(length - 1)]
    return document("Roles", "roles:\n" + "".join(roles) + f"  - {{name: r{length - 1}}}\n")


def test_inheritance_of_64_levels_is_accepted_and_of_65_refused() -> None:
    """Longer chains are an error, never cut in silence; ten thousand levels need no recursion."""
    assert not codes(more=chain(64))
    assert codes(more=chain(65)) == ["PG502"]
    assert codes(more=chain(10_000)) == ["PG502"]


def bound(*bindings: str) -> str:
    return document("Bindings", "bindings:\n" + "".join(f"  - {{{binding}}}\n" for binding in bindings))


LEAD, AUDITOR = 'subject: "user:a", role: lead, domain: vision', 'subject: "user:a", role: auditor, domain: vision'
UNTIL, FROM = "expires: 2026-02-01T00:00:00Z", "notBefore: 2026-02-01T00:00:00Z"
ONE_PERSON = "---\n" + document("Persons", 'persons: [{id: a, accounts: ["user:a", "user:a2"]}]\n')

SEPARATION = {
    "two roles in one team": (bound(LEAD, AUDITOR), True),
    "the same in two teams": (bound(LEAD, AUDITOR.replace("vision", "llm")), False),
    "one of them in every team": (bound(LEAD, AUDITOR.replace("vision", '"*"')), True),
    "two persons": (bound(LEAD, AUDITOR.replace("user:a", "user:b")), False),
    "one after the other": (bound(f"{LEAD}, {UNTIL}", f"{AUDITOR}, {FROM}"), False),
    "a second together": (bound(f"{LEAD}, {UNTIL.replace('00Z', '01Z')}", f"{AUDITOR}, {FROM}"), True),
    "two accounts of one person": (bound(LEAD, AUDITOR.replace("user:a", "user:a2")) + ONE_PERSON, True),
}


@pytest.mark.parametrize(("text", "apart"), SEPARATION.values(), ids=SEPARATION.keys())
def test_static_separation_of_duty(text: str, apart: bool) -> None:
    """I8: nobody holds roles that exclude each other at one time in one domain, inheritance and accounts included."""
    assert (["PG506"] if apart else []) == codes(more=text)


def test_a_role_that_inherits_both_sides_is_refused() -> None:
    """I8: inheritance may not join what an exclusion keeps apart."""
    assert codes(more=document("Roles", "roles: [{name: both, inherits: [lead, auditor]}]\n")) == ["PG506"]


def test_subjects_have_one_encoding() -> None:
    """A ref that is not in composed form could be a second subject that reads the same; it is refused (PG011)."""
    assert codes(more=bound('subject: "user:e\u0301", role: lead, domain: x')) == ["PG011"]
    assert not codes(more=bound('subject: "user:\u00e9", role: lead, domain: x'))


def test_an_analysis_keeps_what_could_be_read() -> None:
    """Lint sees documents, nodes and the nouns without errors, also when the load fails."""
    analysis = analyse(base(more=rule("effect: allow, actions: [job:fly]")))
    assert analysis.policy_set is None
    assert analysis.draft is not None
    assert [found.id for found in analysis.draft.rules] == ["submit-small"]
    assert {"Policy", "Quorums", "Roles", "Schema"} == {found.kind for found in analysis.documents}


def test_one_load_raises_all_errors_in_order() -> None:
    """Two files with one error each: both, sorted by place."""
    sources = base(a=rule("effect: allow, actions: [job:fly]"), b=rule("effect: alow, actions: [job:kill]"))
    with pytest.raises(PolicyErrors) as caught:
        load(sources)
    assert [error.span.file for error in caught.value.errors if error.span] == ["a.yaml", "b.yaml", "b.yaml"]


def generated(number: int) -> str:
    rules = [
        f"  - id: rule-{i}\n    effect: allow\n    roles: [researcher]\n    actions: [job:submit]\n"
        f'    resources: {{type: job, id: "team/{{team}}/**"}}\n'
        f"    when: resource.gpus <= {i} && resource.code.dirty == false\n"
        for i in range(number)
    ]
    return document("Policy", "rules:\n" + "".join(rules))


def test_a_thousand_rules_load() -> None:
    """As many as `bench/loading.py` times, every one of them there."""
    assert len(load(base(more=generated(1000))).rules) == 1001


TWO_SIZES = """apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job: {actions: [see], attributes: {size: {type: int}, count: {type: int}}}
  file: {actions: ["job:see"], attributes: {size: {type: string}, count: {type: int}}}
"""


def test_one_text_that_means_two_things_is_refused() -> None:
    """Equality of integers for one type and of texts for the other is two conditions, not one."""
    text = 'rules: [{{id: a, effect: deny, actions: ["job:see"], when: resource.{0} == resource.{0}}}]\n'
    sources = {"s.yaml": TWO_SIZES.encode(), "p.yaml": document("Policy", text.format("size")).encode()}
    (error,) = analyse(sources).errors
    assert "means different things for `file`, `job`" in error.message
    sources["p.yaml"] = document("Policy", text.format("count")).encode()
    assert len(load(sources).rules) == 1


def test_documents_are_limited_over_all_files() -> None:
    """Twelve files of a thousand empty documents: reading stops at the eleventh, with one line that says so."""
    files = {f"{number:02d}.yaml": b"--- {}\n" * 1_000 for number in range(12)}
    limits = [error for error in analyse(files).errors if error.code == "PG010"]
    assert [str(error) for error in limits] == [
        "10.yaml:1:1: found more than 10000 documents in all files up to this one"
    ]
    few = {name: data for name, data in files.items() if name < "10"}
    assert [error for error in analyse(few).errors if error.code == "PG010"] == []
