"""One step on either side of each rule's line: what fires it, and what only looks as if it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.conditions.queries import base_name
from policyguard.lint.catalogue import catalogue
from policyguard.lint.runner import lint
from policyguard.lint.stars import matches_everything
from policyguard.lint.vocabulary import names_break_glass, split_words, verb_words
from policyguard.values import parse_instant

BASE = (Path(__file__).parents[2] / "data" / "lint" / "base.yaml").read_bytes()
NOW = parse_instant("2026-06-01T12:00:00Z")
HEAD = "apiVersion: policyguard/v1\nkind: Policy\nmetadata: {name: case}\n"
OTHERS = ("PG206", "PG209", "PG216", "PG218")


def codes(policy: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """Return the codes that a policy's rules fire on top of the clean base."""
    report = lint({"_base.yaml": BASE, "case.yaml": (HEAD + policy).encode()}, NOW)
    assert not any(finding.stops_load for finding in report.findings), report.findings
    return [finding.code for finding in report.findings if finding.code not in but]


def allow(when: str, action: str = "job:cancel") -> list[str]:
    """Return what an allow for leads with this condition fires, bounds and assurance aside."""
    return codes(
        f"rules:\n  - id: case\n    effect: allow\n    roles: [lead]\n    actions: [{action}]\n"
        f"    resources: {{type: {action.partition(':')[0]}}}\n    when: |\n      {when}\n",
        but=OTHERS,
    )


def deny(when: str) -> list[str]:
    """Return what a deny with this condition fires."""
    return codes(
        "rules:\n  - id: case\n    effect: deny\n    actions: [job:submit]\n    resources: {type: job}\n"
        f"    when: |\n      {when}\n"
    )


CONDITIONS = {
    "all over a list that is asked for": ('resource.labels != [] && resource.labels.all(l, l == "a")', []),
    "all beside an exists": ('resource.labels.exists(l, l > "b") && resource.labels.all(l, l > "a")', []),
    "all beside a size": ('resource.labels.size() > 0 || resource.labels.all(l, l == "a")', ["PG313"]),
    "all over a literal list": ('["a", "b"].all(l, l in resource.labels)', []),
    "exists is never vacuous": ('resource.labels.exists(l, l == "a")', []),
    "a negated bool is plain": ("!resource.code.dirty", []),
    "a negated conjunction": ("!(resource.code.dirty && resource.gpus > 8)", []),
    "a negated membership": ('!(resource.image in ["a@sha256:00"])', []),
    "a negated inequality": ("!(resource.gpus != 8)", ["PG308"]),
    "a comparison with itself in an or": ("resource.gpus == resource.gpus || resource.code.dirty", ["PG307"]),
    "a comparison of two attributes": ("resource.image == resource.code.path", []),
    "a literal inside a comparison is no constant": ("resource.gpus > 2 * 4", []),
    "two literals compared": ("resource.gpus > 2 && 1 < 2", ["PG307"]),
    "an hour with an offset": ('now.getHours("+02:00") > 8', []),
    "an hour in UTC, written": ('now.getHours("UTC") > 8', []),
    "a weekday without a zone": ("now.getDayOfWeek() == 1", ["PG404"]),
    "the seconds of a duration": ('duration("90s").getSeconds() < resource.gpus', []),
    "a glob with a limit": ('glob(resource.id, "team/*/**")', []),
    "a glob of stars alone": ('glob(resource.id, "**/*")', ["PG205"]),
    "one segment is a limit": ('glob(resource.id, "*")', []),
}


@pytest.mark.parametrize(("when", "expected"), CONDITIONS.values(), ids=CONDITIONS)
def test_conditions_of_an_allow(when: str, expected: list[str]) -> None:
    """Conditions that differ in one step."""
    assert allow(when) == expected


DENIALS = {
    "an optional attribute, read": ("resource.hours == 72", ["PG105"]),
    "an optional attribute, asked for first": ("!has(resource.hours) || resource.hours == 72", []),
    "the same attribute twice is one finding": ("resource.hours > 72 && resource.hours < 99", ["PG105"]),
    "all in a deny denies more": ('resource.labels.all(l, l == "a")', []),
    "an unanchored pattern in a deny": ('resource.image.matches("nightly")', []),
    "a claimed attribute in a deny": ('resource.priority == "high"', []),
}


@pytest.mark.parametrize(("when", "expected"), DENIALS.values(), ids=DENIALS)
def test_conditions_of_a_deny(when: str, expected: list[str]) -> None:
    """What is dangerous in an allow may be harmless in a deny, and the other way round."""
    assert deny(when) == expected


PATTERNS = {
    "^a$": False,
    "a": True,
    "^a": True,
    "a$": True,
    "^a|b$": True,
    "^(a|b)$": False,
    ".*a$": False,
    "^a.*": False,
    "^a\\\\$": True,
    "^[|]$": False,
    "^(a$)|^(b$)": True,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_anchored_on_both_ends_or_says_that_it_is_not(pattern: str) -> None:
    """`matches` looks anywhere, so an allow must tie its pattern to both ends or write `.*`."""
    policy = (
        "rules:\n  - id: case\n    effect: allow\n    roles: [lead]\n    actions: [job:cancel]\n"
        f'    resources: {{type: job}}\n    when: |\n      resource.image.matches("{pattern}")\n'
    )
    assert (["PG206"] if PATTERNS[pattern] else []) == codes(policy)


CEILING = ", when: 'resource.gpus < 1 || resource.gpus > 512'}\n"


def test_a_guard_for_some_only_does_not_silence_a_finding() -> None:
    """A bound that holds for one team, or for other actions, leaves the allow unbounded."""
    rule = "rules:\n  - {id: a, effect: allow, roles: [lead], actions: [job:submit], resources: {type: job}}\n"
    ceiling = "  - {id: d, effect: deny, actions: [%s], resources: {type: job%s}" + CEILING
    assert codes(rule + ceiling % ("job:submit", ", id: team/vision/**")) == ["PG216"]
    assert codes(rule + ceiling % ("job:cancel", "")) == ["PG216"]
    assert codes(rule + ceiling % ("job:submit", "")) == []
    assert codes(rule + ceiling % ("job:submit, job:cancel", "")) == []


def test_a_guard_is_searched_action_by_action() -> None:
    """A bound on submitting is enough for an allow of more actions; a pattern of all ids is no limit."""
    rule = (
        "rules:\n  - {id: a, effect: allow, roles: [lead], actions: [job:cancel, job:submit], resources: {type: job}}\n"
    )
    ceiling = "  - {id: d, effect: deny, actions: [job:submit], resources: {type: job%s}" + CEILING
    assert codes(rule + ceiling % "") == []
    assert codes(rule + ceiling % ', id: "team/{team}/**"') == []
    assert codes(rule + ceiling % ', id: "team/*/scratch/**"') == ["PG216"]


BOUNDS = {
    "from both sides": ("resource.gpus >= 1 && resource.gpus <= 8", []),
    "the other way round": ("1 <= resource.gpus && 8 >= resource.gpus", []),
    "negated": ("!(resource.gpus > 8) && !(resource.gpus < 1)", []),
    "as one number": ("resource.gpus == 8", []),
    "from a list": ("resource.gpus in [1, 2, 4, 8]", []),
    "from above alone": ("resource.gpus <= 8", ["PG223"]),
    "from above alone, the other way round": ("8 >= resource.gpus", ["PG223"]),
    "from above alone, negated": ("!(resource.gpus > 8)", ["PG223"]),
    "from above, by all but one number": ("resource.gpus <= 8 && resource.gpus != 0", ["PG223"]),
}


@pytest.mark.parametrize(("when", "expected"), BOUNDS.values(), ids=BOUNDS)
def test_a_number_is_bounded_on_the_side_that_the_operator_says(when: str, expected: list[str]) -> None:
    """A comparison may be mirrored or negated; `!= 0` leaves every negative number."""
    rule = (
        "rules:\n  - {id: a, effect: allow, roles: [lead], actions: [job:submit], resources: {type: job}, when: '%s'}\n"
    )
    assert codes(rule % when, but=("PG308",)) == expected


def test_a_ceiling_of_a_role_is_not_covered_by_a_higher_one_for_everyone() -> None:
    """4096 for all is no ceiling of 8 for interns; 8 for all, without further conditions, is."""
    base = BASE.replace(b"[submit, cancel]", b"[submit, cancel, modify]").replace(
        b"  - name: researcher\n", b"  - name: researcher\n  - name: intern\n"
    )
    both = "actions: [job:submit, job:modify], resources: {type: job}"
    rules = (
        "rules:\n"
        f"  - {{id: a, effect: allow, roles: [intern], {both}, when: %s}}\n"
        "  - {id: i, effect: deny, roles: [intern], actions: [%s], resources: {type: job}, when: resource.gpus > 8}\n"
        f"  - {{id: e, effect: deny, {both}, when: resource.gpus > %d}}\n"
    )

    def linted(actions: str, limit: int) -> list[str]:
        policy = HEAD + rules % ("resource.gpus >= 1", actions, limit)
        report = lint({"_base.yaml": base, "case.yaml": policy.encode()}, NOW)
        return [finding.code for finding in report.findings if finding.code.startswith("PG222")]

    assert linted("job:submit", 4096) == ["PG222"]
    assert linted("job:modify", 4096) == ["PG222"]
    assert linted("job:submit", 8) == linted("job:submit, job:modify", 4096) == []


def test_a_start_may_be_limited_by_the_fact_in_its_own_condition() -> None:
    """A deny for some roles is no measurement that everybody needs; a `require` and the allow itself are."""
    case = (Path(__file__).parents[2] / "data" / "lint" / "PG225" / "bad.yaml").read_text()

    def linted(text: str) -> list[str]:
        report = lint({"case.yaml": text.encode()}, NOW)
        return [finding.code for finding in report.findings if finding.code.startswith("PG225")]

    assert linted(case) == ["PG225"]
    assert linted(case.replace("resource.owner == subject.id", "resource.dirty == false")) == []
    assert (
        linted(
            case.replace(
                "id: uncommitted\n    effect: deny", "id: uncommitted\n    effect: deny\n    roles: [researcher]"
            )
        )
        == []
    )
    assert linted(case.replace("dirty: {type: bool, assurance: measured}", "dirty: {type: bool}")) == []


def test_a_quorum_counts_persons_and_not_accounts() -> None:
    """Two accounts of one person fill one place; an account nobody knows fills none."""
    documents = (
        "---\napiVersion: policyguard/v1\nkind: Roles\nroles: [{name: reviewer}]\n"
        "---\napiVersion: policyguard/v1\nkind: Quorums\nquorums:\n"
        "  - {id: two, approvers: [{count: 2, roles: [reviewer]}]}\n"
        "---\napiVersion: policyguard/v1\nkind: Persons\npersons: [%s]\n"
        "---\napiVersion: policyguard/v1\nkind: Bindings\nbindings:\n"
        '  - {subject: "user:pat", role: reviewer, domain: vision}\n'
        '  - {subject: "user:pat2", role: reviewer, domain: vision}\n'
        '  - {subject: "user:quin", role: reviewer, domain: speech}\n'
    )
    rule = "rules: [{id: r, effect: require, actions: [job:cancel], resources: {type: job}, quorum: two}]\n"
    one = '{id: pat, accounts: ["user:pat", "user:pat2"]}, {id: quin, accounts: ["user:quin"]}'
    two = '{id: pat, accounts: ["user:pat"]}, {id: pata, accounts: ["user:pat2"]}'
    unknown = '{id: pat, accounts: ["user:pat"]}'
    assert codes(rule + documents % one) == ["PG604"]
    assert codes(rule + documents % unknown, but=("PG512",)) == ["PG604"]
    assert codes(rule + documents % two, but=("PG512",)) == []


BREAK_GLASS = (
    "rules:\n  - id: break-glass\n    effect: allow\n    roles: [lead]\n    actions: [job:cancel]\n"
    "    resources: {type: job}\n"
)
NEEDS_TWO = "  - {id: two, effect: require, actions: [job:cancel], resources: {type: job}, quorum: two-leads}\n"


def test_a_way_around_the_rules_has_an_end_a_reason_and_a_notice() -> None:
    """Each may come in more than one way; a quorum ends each use and tells somebody."""
    ticket = "    when: has(context.ticket)\n"
    assert codes(BREAK_GLASS) == ["PG219"]
    assert codes(BREAK_GLASS + ticket) == ["PG219"]
    assert codes(BREAK_GLASS + ticket + "    obligations: [notify.oncall]\n") == ["PG219"]
    assert codes(BREAK_GLASS + ticket + '    obligations: [notify.oncall]\n    expires: "2026-12-01T00:00:00Z"\n') == []
    assert codes(BREAK_GLASS + ticket + NEEDS_TWO) == []
    assert codes(BREAK_GLASS.replace("break-glass", "stop-in-an-emergency")) == []


def test_a_role_for_emergencies_is_bound_with_an_end_and_a_reason() -> None:
    """Who holds a break-glass role for ever holds it every day."""
    rest = (
        "rules: [{id: r, effect: allow, roles: [break-glass], actions: [job:cancel], resources: {type: job}}]\n"
        "---\napiVersion: policyguard/v1\nkind: Roles\nroles: [{name: break-glass}]\n"
        "---\napiVersion: policyguard/v1\nkind: Bindings\nbindings:\n"
        '  - {subject: "user:dan", role: break-glass, domain: vision%s}\n'
    )
    timed = ', expires: "2026-12-01T00:00:00Z", reason: on call'
    assert codes(rest % "") == ["PG219"]
    assert codes(rest % ", reason: on call") == ["PG219"]
    assert codes(rest % timed) == []


def test_an_expired_binding_is_information_and_an_expired_rule_a_warning() -> None:
    """Last week's shift is history; a rule that says nothing any more reads as if it did."""
    binding = (
        "rules: [{id: r, effect: allow, roles: [lead], actions: [job:cancel], resources: {type: job}}]\n"
        "---\napiVersion: policyguard/v1\nkind: Bindings\nbindings:\n"
        '  - {subject: "user:dan", role: lead, domain: vision, expires: "2026-05-01T00:00:00Z"}\n'
    )
    report = lint({"_base.yaml": BASE, "case.yaml": (HEAD + binding).encode()}, NOW)
    assert [(finding.code, finding.severity) for finding in report.findings] == [("PG601", "information")]
    assert report.clean


SECRETS = {
    "-----BEGIN OPENSSH PRIVATE KEY-----": True,
    "-----BEGIN PUBLIC KEY-----": False,
    "ghp_" + "a1B2" * 9: True,
    "xoxb-" + "1234567890-abcdefghij": True,
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4IiwiaWF0IjoxfQ.c2lnbmF0dXJlLi4u": True,
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJhc2U2NCBvZiBhIHB1YmxpYyBrZXk": False,
    "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae": False,
    "a description that speaks of AKIA and ghp_ tokens": False,
}


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_known_by_forms_that_nothing_else_has(text: str) -> None:
    """Tokens and private keys are found, digests and public keys are not."""
    rule = "rules:\n  - {id: r, effect: allow, roles: [lead], actions: [job:cancel], description: '%s'}\n"
    assert (["PG212"] if SECRETS[text] else []) == codes(rule % text)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("team-1", "team-l", True),
        ("team_1", "team-1", True),
        ("run-10", "run-lo", False),
        ("gpu0", "gpuo", True),
        ("arnie", "amie", False),
        ("alice", "alicia", False),
    ],
)
def test_accounts_are_similar_by_single_characters_only(one: str, other: str, alike: bool) -> None:
    """People keep their names; a digit among digits is read as a digit."""
    bindings = (
        "rules: [{id: r, effect: allow, roles: [lead], actions: [job:cancel], resources: {type: job}}]\n"
        "---\napiVersion: policyguard/v1\nkind: Bindings\nbindings:\n"
        f'  - {{subject: "user:{one}", role: lead, domain: vision}}\n'
        f'  - {{subject: "user:{other}", role: lead, domain: vision}}\n'
    )
    assert (["PG012"] if alike else []) == codes(bindings, but=("PG512",))


def test_two_alphabets_in_one_name_are_reported() -> None:
    """A Cyrillic letter among Latin ones is seen by lint if not by the reviewer."""
    bindings = (
        "rules: [{id: r, effect: allow, roles: [lead], actions: [job:cancel], resources: {type: job}}]\n"
        "---\napiVersion: policyguard/v1\nkind: Bindings\nbindings:\n"
        '  - {subject: "user:%s", role: lead, domain: vision}\n'
    )
    assert codes(bindings % "\u0430lice", but=("PG512",)) == ["PG012"]
    assert codes(bindings % "\u0430\u043b\u0438\u0441\u0430", but=("PG512",)) == []
    assert codes(bindings % "j\u00fcrg", but=("PG512",)) == []


def test_names_are_read_by_whole_words() -> None:
    """`undelete` is no deletion; `force-push` and `forcePush` are two words."""
    assert ("force", "push") == split_words("force-push") == split_words("forcePush") == split_words("force_push")
    assert frozenset({"undelete"}) == verb_words("job:undelete")
    assert names_break_glass("break-glass-kill")
    assert names_break_glass("breakglass")
    assert not names_break_glass("emergency-stop")
    assert not names_break_glass("glass-break")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**", True),
        ("**/**", True),
        ("*/**", True),
        ("**/*", True),
        ("*", False),
        ("*/*", False),
        ("*/*/**", False),
        ("team/**", False),
        ("{team}/**", False),
    ],
)
def test_a_pattern_of_stars_alone_is_a_star(pattern: str, expected: bool) -> None:
    """Any id has one segment at least, so one `*` beside `**` asks for nothing."""
    assert matches_everything(pattern) is expected


@pytest.mark.parametrize(
    ("overload", "expected"),
    [
        ("less_equals_int64", "less_equals"),
        ("less_int64", "less"),
        ("equals", "equals"),
        ("not_equals", "not_equals"),
        ("in_list", "in"),
        ("size_list", "size"),
        ("list_size", "size"),
        ("index_map", "index"),
        ("int64_to_string", "int64_to_string"),
        ("matches_string", "matches"),
        ("glob_string_string", "glob"),
    ],
)
def test_overloads_are_known_by_their_operator(overload: str, expected: str) -> None:
    """The type suffix of an overload does not count."""
    assert base_name(overload) == expected


def test_the_catalogue_has_every_number_that_the_first_issue_asks_for() -> None:
    """PG201 to PG219 and the others that the language has; what it has not is in `docs/lint/index.md`."""
    asked = [f"PG2{n:02d}" for n in range(1, 20)] + ["PG304", "PG307", "PG308", "PG403", "PG405", "PG604", "PG902"]
    assert [code for code in asked if code not in catalogue()] == []
