"""YAML as events, from libyaml or PyYAML's own parser. The only module that imports PyYAML; opens no file.

`yaml.load` and `yaml.compose` are never called: they build objects, follow aliases without a limit, and libyaml's
composer recurses. Readers build nodes from events: `policy/reader.py` strictly, `scan/settings/yaml_tree.py`
tolerantly.
"""

from __future__ import annotations

from typing import Any

import yaml

AliasEvent = yaml.AliasEvent
DocumentEndEvent = yaml.DocumentEndEvent
MappingEndEvent = yaml.MappingEndEvent
MappingStartEvent = yaml.MappingStartEvent
MarkedYAMLError = yaml.MarkedYAMLError
ScalarEvent = yaml.ScalarEvent
SequenceEndEvent = yaml.SequenceEndEvent
SequenceStartEvent = yaml.SequenceStartEvent
StreamEndEvent = yaml.StreamEndEvent
YAMLError = yaml.YAMLError


def event_parser(text: str, *, pure: bool = False) -> Any:
    """Create a parser whose `get_event` returns the next event.

    Args:
        text: the whole stream.
        pure: use PyYAML's own parser, which accepts a little more than libyaml does and is 20 times slower.
    """
    if yaml.__with_libyaml__ and not pure:
        return yaml.CSafeLoader(text)
    return yaml.SafeLoader(text)
