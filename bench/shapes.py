"""The conditions of the generated lab: one row a shape, with its CEL text and the same thing in plain Python.

The Python side is the meaning that every engine is held to. No shape errs on a generated request: an optional
attribute is either tested (`has`, positive in allow, negative in deny) or read behind a conjunct that is false where it
is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Attributes: TypeAlias = Mapping[str, Any]
Constants: TypeAlias = tuple[Any, ...]
Holds: TypeAlias = Callable[[Attributes, str, Constants], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A condition with holes: `{0}` and `{1}` of the CEL text are the constants of one rule."""

    name: str
    cel: str
    holds: Holds
    """Attributes of the resource, id of the subject, constants -> is the condition true?"""

    def text(self, constants: Constants) -> str:
        """Return the CEL text of one rule."""
        return self.cel.format(*constants)


def _foreign_pickle(attributes: Attributes, subject: str, constants: Constants) -> bool:
    return attributes["gpus"] >= constants[0] and any(
        checkpoint["format"] == "pickle" and checkpoint["producer"] != subject
        for checkpoint in attributes["checkpoints"]
    )


ALLOWING = (
    Shape(
        name="small_clean",
        cel="resource.gpus <= {0} && resource.code.dirty == false",
        holds=lambda a, _, c: a["gpus"] <= c[0] and not a["code"]["dirty"],
    ),
    Shape(
        name="queue_ceiling",
        cel='resource.queue == "{0}" && resource.gpus <= {1}',
        holds=lambda a, _, c: a["queue"] == c[0] and a["gpus"] <= c[1],
    ),
    Shape(
        name="pinned_image",
        cel='resource.image_digest == "{0}" && resource.code.dirty == false',
        holds=lambda a, _, c: a["image_digest"] == c[0] and not a["code"]["dirty"],
    ),
    Shape(
        name="safe_checkpoints",
        cel='resource.gpus <= {0} && resource.checkpoints.all(c, c.format == "safetensors")',
        holds=lambda a, _, c: a["gpus"] <= c[0] and all(k["format"] == "safetensors" for k in a["checkpoints"]),
    ),
    Shape(
        name="project_label",
        cel='"project" in resource.labels && resource.labels["project"] == "{0}"',
        holds=lambda a, _, c: a["labels"].get("project") == c[0],
    ),
    Shape(
        name="reserved",
        cel='has(resource.reservation) && resource.reservation == "{0}"',
        holds=lambda a, _, c: a.get("reservation") == c[0],
    ),
)

DENYING = (
    Shape(
        name="large_dirty",
        cel="resource.gpus > {0} && resource.code.dirty",
        holds=lambda a, _, c: a["gpus"] > c[0] and a["code"]["dirty"],
    ),
    Shape(
        name="queue_limit",
        cel='resource.queue == "{0}" && resource.gpus > {1}',
        holds=lambda a, _, c: a["queue"] == c[0] and a["gpus"] > c[1],
    ),
    Shape(
        name="banned_image",
        cel='resource.image_digest == "{0}"',
        holds=lambda a, _, c: a["image_digest"] == c[0],
    ),
    Shape(
        name="foreign_pickle",
        cel=(
            'resource.gpus >= {0} && resource.checkpoints.exists(c, c.format == "pickle" && c.producer != subject.id)'
        ),
        holds=_foreign_pickle,
    ),
    Shape(
        name="embargo",
        cel='"embargo" in resource.labels && resource.labels["embargo"] == "{0}"',
        holds=lambda a, _, c: a["labels"].get("embargo") == c[0],
    ),
    Shape(
        name="no_ticket",
        cel='resource.gpus > {0} && (!has(resource.ticket) || resource.ticket != "{1}")',
        holds=lambda a, _, c: a["gpus"] > c[0] and a.get("ticket") != c[1],
    ),
    Shape(
        name="late_deadline",
        cel='resource.queue == "{0}" && resource.deadline_h > {1}',
        holds=lambda a, _, c: a["queue"] == c[0] and a["deadline_h"] > c[1],
    ),
)

SHAPES: Mapping[str, Shape] = {shape.name: shape for shape in (*ALLOWING, *DENYING)}

CHECKPOINT_SHAPES = frozenset({"project_label", "embargo"})
"""Shapes that read only what checkpoints have too."""
