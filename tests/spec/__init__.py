"""The oracle and the proofs that it is one. `decide` is the naive rule; it shares no code with the engine."""

from policyguard.analysis.oracle import decide as decide
from policyguard.analysis.plain import plain_facts as plain_facts
from policyguard.analysis.plain import plain_policy as plain_policy
