"""The oracle is a second opinion only while it shares nothing with the first."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ANALYSIS = Path(__file__).parents[2] / "policyguard" / "analysis"
OWN = {"policyguard.analysis.oracle_cel"}


@pytest.mark.parametrize("module", ["oracle.py", "oracle_cel.py"])
def test_the_oracle_imports_nothing_of_the_engine(module: str) -> None:
    """I3: the standard library, and the oracle's own other half."""
    for node in ast.walk(ast.parse((ANALYSIS / module).read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
        for name in names:
            assert name in OWN or name.split(".")[0] in sys.stdlib_module_names, f"{module} imports {name}"


def test_the_translation_imports_nouns_only() -> None:
    """I3: what turns nouns into plain data knows the nouns and no procedure."""
    tree = ast.parse((ANALYSIS / "plain.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    inside = {module for module in modules if module and module.startswith("policyguard")}
    assert inside == {
        "policyguard.model.expression",
        "policyguard.model.facts",
        "policyguard.model.policy",
        "policyguard.values",
    }
