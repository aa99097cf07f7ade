"""Accept and reject vectors for verifiers written by others, in `tests/data/dsse/vectors.json`.

Every signed decision in the file is checked with the same trust, request, measurements, audience and time. The file is
made from the attacks of `test_verify_steps.py`; `python -m tests.unit.test_verify_vectors` writes it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.trust import parse_trust
from policyguard.audit.receipt import SignedDecision
from policyguard.errors import VerificationError
from policyguard.model.request import Request
from policyguard.values import format_instant, freeze, parse_instant
from policyguard.verify import verify
from tests.attacks.test_verify_steps import ACCEPTED, REFUSED, Attempt
from tests.attest_lab import AUDIENCE, BOUND, NOW, REQUEST, Lab, trust_data

FILE = Path(__file__).parents[1] / "data/dsse/vectors.json"


def text_of(attempt: Attempt) -> str | None:
    """The signed decision of an attempt that differs in nothing else, if it is text of a reasonable size."""
    if attempt.options or attempt.trust is not None:
        return None
    signed = attempt.lab.issue() if attempt.signed is None else attempt.signed
    data = signed.to_json() if isinstance(signed, SignedDecision) else signed
    return data.decode() if len(data) < 20_000 else None


def vectors() -> dict[str, Any]:
    accept = [{"name": name, "signed": text} for name, make in ACCEPTED.items() if (text := text_of(make()))]
    reject = [
        {"name": name, "step": step, "signed": text}
        for name, (step, _, make) in REFUSED.items()
        if (text := text_of(make())) is not None
    ]
    return {
        "source": "policyguard tests/attacks/test_verify_steps.py; keys are made from the seeds in tests/attest_lab.py",
        "trust": trust_data(Lab().trust()),
        "request": REQUEST.to_data(),
        "bound": BOUND,
        "audience": AUDIENCE,
        "now": format_instant(NOW),
        "accept": accept,
        "reject": reject,
    }


def as_text(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def test_file_is_what_the_attacks_make() -> None:
    """The committed file is regenerated and compared."""
    assert as_text(vectors()) == FILE.read_text()


KEPT = json.loads(FILE.read_text()) if FILE.exists() else {"accept": [], "reject": []}


def check(signed: str) -> None:
    bound = freeze(KEPT["bound"])
    assert isinstance(bound, dict)
    verify(
        signed.encode(),
        parse_trust(KEPT["trust"]),
        Request.from_data(KEPT["request"]),
        audience=KEPT["audience"],
        now=parse_instant(KEPT["now"]),
        bound=bound,
    )


@pytest.mark.parametrize("case", KEPT["accept"], ids=lambda case: case["name"])
def test_vector_is_accepted(case: dict[str, str]) -> None:
    check(case["signed"])


@pytest.mark.parametrize("case", KEPT["reject"], ids=lambda case: case["name"])
def test_vector_is_refused_at_its_step(case: dict[str, str]) -> None:
    with pytest.raises(VerificationError) as caught:
        check(case["signed"])
    assert case["step"] == caught.value.step


def test_more_is_refused_than_accepted() -> None:
    """The set is worth something: more reject vectors than accept vectors, over most steps."""
    assert len(KEPT["reject"]) > len(KEPT["accept"]) >= 3
    assert {case["step"] for case in KEPT["reject"]} >= {f"V{n}" for n in (1, 2, 3, 4, 5, 8, 9, 10)}


if __name__ == "__main__":
    FILE.write_text(as_text(vectors()))
