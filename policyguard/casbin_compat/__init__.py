"""Everything that imports casbin: bindings from its adapters, import of its models, and a second opinion.

No decision depends on casbin. Read in this order: `adapters.py` and
`sqlalchemy_adapter.py` (bindings from adapters); `importer.py` with `conf.py`, `definitions.py`, `matcher.py`,
`patterns.py`, `source.py`, `draft.py` and `documents.py` (models and policies to our documents);
`second_opinion.py` (our policies to casbin, for `policyguard check-engine`).
"""
