"""An allow trusts a name that can be moved to other content: an image tag, a branch or a version tag."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policyguard.conditions.queries import Path, literals_equal_to, text_of, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import START_VERBS, last_words, with_verb
from policyguard.model.expression import Constant

CODE = "PG217"
NAME = "mutable-reference"
SEVERITY = "warning"
HELP = "compare a digest or a commit: `image@sha256:...`, `resource.code.commit`"

_DIGEST = re.compile(r"(?:.*@)?(?:sha(?:1|256|384|512):)?[0-9a-f]{40,128}", re.ASCII)
_FIXED = frozenset({"digest", "commit", "sha", "sha256", "oid"})
_IMAGES = frozenset({"image", "container"})
_NAMES = frozenset({"branch", "tag", "ref", "revision"})


def check(context: Context) -> Iterator[Hit]:
    """Yield, in an allow to start something, each comparison of an image or a revision with a name that can move."""
    for rule, condition in context.conditions("allow"):
        if next(with_verb(rule.actions, START_VERBS), None) is None:
            continue
        if any(last_words(path) & _FIXED for path, _ in value_reads(condition.expression)):
            continue
        for path, literal in literals_equal_to(condition.expression):
            if _can_move(path, literal):
                span = condition.at(literal.offset)
                yield Hit(span, f"`{text_of(literal)}` can be moved to other content after this rule was written")


def _can_move(path: Path, literal: Constant) -> bool:
    if not isinstance(literal.value, str) or not literal.value or _DIGEST.fullmatch(literal.value):
        return False
    return bool(last_words(path) & _IMAGES) or (len(path) > 2 and bool(last_words(path) & _NAMES))
