"""Words that lint recognises in names: verbs, types and attributes of training labs.

The policy language does not know what "delete" means. These lists are a guess, kept short so that a hit is rarely
wrong. Only whole words match: `checkpoint:delete` has the word delete, `force-push` the words force and push,
`gpu_hours` the words gpu and hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from policyguard.conditions.queries import Path

_WORD = re.compile(r"[a-z]+|[0-9]+")


def _set(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


START_VERBS = _set("submit launch start run resize scale")
SUBMIT_VERBS = _set("submit")
RUN_VERBS = _set("launch start run")
GROW_VERBS = _set("modify update prioritize preempt requeue")
"""Verbs of actions by which a job that exists gets more, or gets it earlier."""
DESTROY_VERBS = _set("delete destroy purge overwrite erase wipe truncate write")
EXPORT_VERBS = _set("export publish download upload egress share release")
CHANGE_VERBS = _set(
    "write update edit change set create add grant assign bind approve rotate delete remove revoke push merge "
    "import administer manage"
)
DATA_TYPES = _set("checkpoint checkpoints weights model dataset datasets artifact adapter")
POWER_TYPES = _set(
    "policy policies role roles binding bindings quorum quorums approval approvals person persons trust key keys "
    "permission permissions"
)
POLICY_WORDS = _set("policy policies policyguard trust authz")
REPOSITORY_TYPES = _set("repository repositories repo branch ref path file environment")
WORKLOADS = _set("job workload service runner worker bot pipeline node agent")
QUANTITIES = _set("gpu gpus node nodes hours gpuhours accelerators devices tpus")
MEASURES = _set(
    "memory mem size duration timeout disk storage walltime bandwidth age lifetime budget cost ram vram quota "
    "interval period"
)
UNITS = _set(
    "s ms us ns sec secs seconds second min mins minutes minute h hours hour days day d bytes byte b kb mb gb tb "
    "kib mib gib tib percent pct usd eur cents count mbps gbps bps tokens steps bits"
)
VERDICTS = _set("verdict verdicts")
CLASSES = _set(
    "class classification sensitivity license licence visibility public tier confidentiality released destination "
    "export"
)
EXCEPTION_WORDS = _set("exception exemption waiver temporary temporarily interim workaround")

_BREAK_GLASS = frozenset({("break", "glass"), ("emergency", "access"), ("emergency", "override")})


def split_words(name: str) -> tuple[str, ...]:
    """Split a name into words: `force-push`, `force_push` and `forcePush` have two."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return tuple(_WORD.findall(spaced.lower()))


def verb_words(action: str) -> frozenset[str]:
    """Return the words of an action's verb, without the type before the colon."""
    return frozenset(split_words(action.rpartition(":")[2]))


def type_words(action: str) -> frozenset[str]:
    """Return the words of an action's type."""
    return frozenset(split_words(action.partition(":")[0]))


def with_verb(actions: Iterable[str], verbs: frozenset[str]) -> Iterator[str]:
    """Yield the actions whose verb contains one of these words."""
    return (action for action in actions if verb_words(action) & verbs)


def names_break_glass(name: str) -> bool:
    """Return True if the name says that it is for emergencies."""
    name_words = split_words(name)
    return "breakglass" in name_words or not _BREAK_GLASS.isdisjoint(pairwise(name_words))


def last_words(path: Path) -> frozenset[str]:
    """Return the words of a path's last name."""
    return frozenset(split_words(path[-1]))
