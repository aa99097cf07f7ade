"""A text in a policy has the format of a key or a token."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit

CODE = "PG212"
NAME = "secret-in-policy"
SEVERITY = "error"
HELP = "revoke it, take it out of the history, and name the secret instead of writing it down"
NEEDS_POLICY_SET = False

SECRETS = {
    "a private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY",
    "an AWS access key": r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])",
    "a GitHub token": r"(?<![A-Za-z0-9_])(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})",
    "a GitLab token": r"(?<![A-Za-z0-9_-])glpat-[A-Za-z0-9_-]{20}",
    "a Slack token": r"(?<![A-Za-z0-9])xox[abpors]-[0-9]{6,}-[A-Za-z0-9-]{10,}",
    "a Google API key": r"(?<![A-Za-z0-9_-])AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",
    "a Hugging Face token": r"(?<![A-Za-z0-9_])hf_[A-Za-z]{34}(?![A-Za-z0-9])",
    "a JSON web token": r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
}
"""Kind of secret to its format as documented by the issuer; only formats that nothing else has."""

_MIN_LENGTH = 20
_ANY = re.compile("|".join(f"(?:{form})" for form in SECRETS.values()), re.ASCII)


def check(context: Context) -> Iterator[Hit]:
    """Yield each scalar that contains a secret; the message does not repeat the secret."""
    for scalar in context.scalars():
        match = _ANY.search(scalar.text) if len(scalar.text) >= _MIN_LENGTH else None
        if match is not None:
            what = next(name for name, form in SECRETS.items() if re.match(form, match[0]))
            yield Hit(scalar.at(match.start()), f"found {what}, `{match[0][:4]}...`, expected none in a policy")
