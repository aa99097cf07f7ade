"""Fuzz target: bytes to documents. Run `python tests/fuzz/fuzz_yaml.py [CORPUS] [libFuzzer options]`.

Nothing but the errors that are collected may come out, whatever goes in, and every offset of every text must lead back
into the file. A finding becomes a case of the unit tests before it is fixed.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["policyguard.policy"]):
    from policyguard.errors import PolicyError
    from policyguard.policy.loader import analyse
    from policyguard.policy.nodes import Scalar, walk
    from policyguard.policy.reader import parse


def one_input(data: bytes) -> None:
    """Read one input in every way that a file can be read."""
    errors: list[PolicyError] = []
    for document in parse(data, "a.yaml", errors):
        for node in walk(document):
            if isinstance(node, Scalar):
                origins = node.origins()
                assert len(origins) == len(node.text)
                assert all(node.index <= origin <= node.end for origin in origins)
                assert node.at(len(node.text)).line >= node.line
    analysis = analyse({"a.yaml": data})
    assert (analysis.policy_set is None) == bool(analysis.errors)
    assert all(error.span is not None for error in analysis.errors)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
