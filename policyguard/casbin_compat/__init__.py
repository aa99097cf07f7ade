"""Everything that imports casbin: bindings from its adapters, import of its models, and a second opinion.

No decision depends on casbin. Read in this order: `adapters.py` (bindings from any adapter); `importer.py` with
`conf.py`, `definitions.py`, `matcher.py`, `source.py` and `draft.py` (models and policies to our documents);
`second_opinion.py` (our policies to casbin, for `policyguard check-engine`).
"""
