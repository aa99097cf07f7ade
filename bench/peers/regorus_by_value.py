"""Rego on regorus' VM once more, with the constants of equalities as keys too: an index written in Rego's data.

This is the fastest arrangement of this lab that we found; it is what an engine's compiler would have to do by itself.
"""

from __future__ import annotations

from bench.peers import Prepared, regorus
from bench.workload import Workload

NAME = "regorus VM, indexed by hand"
DISTRIBUTION = regorus.DISTRIBUTION


def prepare(lab: Workload) -> Prepared:
    """Return a VM whose tables are keyed by (team, action, role, value of the equality)."""
    return regorus.prepare(lab, by_value=True)
