"""YAML tags: the objects that a loader builds for them.

Source: PyYAML 6 `constructor.py`. Its safe loader refuses every tag but the standard ones; its other loaders import
what a Python tag names, and call it.
"""

from __future__ import annotations

from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.settings.names import judge_name

_STANDARD = "tag:yaml.org,2002:"
_PLAIN = names("str int float bool null map seq set omap pairs binary timestamp merge value yaml")
_PYTHON = names("none bool str unicode bytes int long float complex list tuple dict")
_BUILT = (
    *("python/object/apply:", "python/object/new:", "python/object:"),
    *("python/name:", "python/module:"),
)
_OF_APPLICATIONS = ("!new:", "!apply:", "!name:", "!module:")
"""HyperPyYAML builds or calls what they name, in SpeechBrain's `hyperparams.yaml`."""

_SAFE = names("""
    pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath pathlib.PureWindowsPath collections.OrderedDict
    datetime.timedelta datetime.date argparse.Namespace uuid.UUID decimal.Decimal fractions.Fraction
""")


class Tags:
    """The tags of one text, judged as they occur, and reported if the whole text is YAML."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._reasons: list[tuple[str, str, str]] = []

    def record(self, tag: str, node: object, location: str) -> None:  # noqa: ARG002
        """Judge one resolved tag.

        Args:
            tag: the tag, resolved.
            node: what has it.
            location: its `line:column`.
        """
        # INVARIANT I18: a tag that builds an object is harmless only if it is listed.
        name = tag.removeprefix(_STANDARD)
        kind = next((kind for kind in _BUILT if name.startswith(kind)), "")
        target = name.removeprefix(kind)
        if name == tag:
            # A tag of its own is refused by every loader but the one that defines it.
            kind = next((kind for kind in _OF_APPLICATIONS if tag.startswith(kind)), "")
            is_call = kind != "" and judge_name(tag.removeprefix(kind)) is Verdict.HOSTILE
            self._reasons.append(("ckpt.yaml_call" if is_call else "ckpt.yaml_tag", tag, location))
        elif kind:
            if target not in _SAFE:
                code = "ckpt.yaml_call" if judge_name(target) is Verdict.HOSTILE else "ckpt.yaml_tag"
                self._reasons.append((code, name, location))
        elif name not in _PLAIN and name.removeprefix("python/") not in _PYTHON:
            self._reasons.append(("ckpt.yaml_tag", name, location))

    @property
    def are_harmful(self) -> bool:
        """True if a tag occurred that some loader builds an object for; `[![a](b)](c)` in a page is a tag, too."""
        return any(not tag.startswith("!") or tag.startswith(_OF_APPLICATIONS) for _, tag, _ in self._reasons)

    def report(self) -> None:
        """Add the recorded tags to the findings."""
        for code, detail, location in self._reasons[:64]:
            self._findings.add(code, detail, location)
