"""Parses the definitions in a casbin `model.conf`, and refuses those that cannot be translated.

Pure. Everything that casbin would silently ignore is refused with its position.
"""

from __future__ import annotations

from dataclasses import dataclass

from policyguard.casbin_compat.conf import Conf, Text
from policyguard.casbin_compat.matcher import Alternative, alternatives
from policyguard.errors import PolicyError
from policyguard.values import Span

PARTS = {
    "sub": "sub",
    "subject": "sub",
    "user": "sub",
    "obj": "obj",
    "object": "obj",
    "resource": "obj",
    "thing": "obj",
    "act": "act",
    "action": "act",
    "dom": "dom",
    "domain": "dom",
    "tenant": "dom",
}

EFFECTS = {
    "some(where(p.eft==allow))": ("allow",),
    "some(where(p.eft==allow))&&!some(where(p.eft==deny))": ("allow", "deny"),
}


@dataclass(frozen=True, slots=True)
class Definitions:
    """The definitions of a model: `requests` maps request tokens to parts, `groups` kinds of row to column counts."""

    requests: dict[str, str]
    columns: tuple[str, ...]
    groups: dict[str, int]
    effects: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    matcher: Span


def read_definitions(conf: Conf) -> Definitions:
    """Read the definitions of a model file.

    Raises:
        PolicyError: a definition has no counterpart here.
    """
    _single(conf)
    return Definitions(
        requests=_request_parts(conf.r["r"]),
        columns=tuple(column.strip() for column in conf.p["p"].text.split(",")),
        groups={name: _group_width(name, text) for name, text in conf.g.items()},
        effects=_effects(conf.e["e"]),
        alternatives=alternatives(conf.m["m"]),
        matcher=conf.m["m"].at(0),
    )


def _single(conf: Conf) -> None:
    for letter in "rpem":
        section: dict[str, Text] = getattr(conf, letter)
        if letter not in section:
            raise PolicyError(f"the model has no `{letter}`", span=Span("model.conf", 1, 1), code="PG003")
        for key, text in section.items():
            if key != letter:
                raise PolicyError(
                    f"found `{key}`, expected only `{letter}`: casbin ignores it unless asked in code",
                    span=text.at(0),
                    code="PG109",
                )


def _request_parts(definition: Text) -> dict[str, str]:
    tokens = [token.strip() for token in definition.text.split(",")]
    parts = {token: PARTS.get(token.lower(), "") for token in tokens}
    if "" in parts.values() or len(set(parts.values())) != len(tokens):
        raise PolicyError(
            f"found the request `{definition.text}`, expected `sub`, `dom`, `obj`, `act` at most once",
            span=definition.at(0),
            code="PG109",
        )
    return parts


def _group_width(name: str, definition: Text) -> int:
    shape = definition.text.replace(" ", "")
    if shape not in ("_,_", "_,_,_"):
        raise PolicyError(
            f"found `{name} = {definition.text}`, expected `_, _` or `_, _, _`",
            span=definition.at(0),
            code="PG109",
            help="roles with conditions need `notBefore` and `expires`",
        )
    return shape.count("_")


def _effects(definition: Text) -> tuple[str, ...]:
    shape = definition.text.replace(" ", "").replace("p_eft", "p.eft")
    if shape in EFFECTS:
        return EFFECTS[shape]
    if shape == "!some(where(p.eft==deny))":
        raise PolicyError(
            "this effect allows what nothing matches (H5)",
            span=definition.at(0),
            code="PG220",
            help="write `some(where (p.eft == allow)) && !some(where (p.eft == deny))`",
        )
    code = "PG312" if "riority" in shape else "PG109"
    raise PolicyError(
        f"found the effect `{definition.text}`, expected allow-override or deny-override",
        span=definition.at(0),
        code=code,
        help="our rules have no priorities: deny trumps",
    )
