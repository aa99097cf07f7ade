"""Draw the floors of the package for `docs/architecture.md`, from `FLOORS` and the imports that are really there.

    python -m tests.unit.architecture     # writes the drawing into the page

`test_architecture.py` compares the page with what this draws now.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.unit.test_layers import FLOORS, HEIGHT, SIDEWAYS, imports, modules, room

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
BEGIN, END = "<!-- floors: written by `python -m tests.unit.architecture` -->", "<!-- /floors -->"

Graph = dict[str, set[str]]


def import_graph() -> Graph:
    """Map each room to the rooms that one of its modules imports."""
    graph: Graph = {name: set() for name in HEIGHT}
    for path in modules():
        here = room(path)
        if here in graph:
            names = [name.split(".")[1] for name in imports(ast.parse(path.read_text())) if name.count(".")]
            graph[here] |= {name for name in names if name in HEIGHT and name != here}
    return graph


def direct(graph: Graph) -> Graph:
    """Leave out each import of a room that another imported room imports as well, near or far."""
    below: Graph = {}
    for name in sorted(graph, key=HEIGHT.__getitem__):
        below[name] = set().union(*({there} | below[there] for there in graph[name]))
    return {
        name: {there for there in rooms if not any(there in below[o] for o in rooms)} for name, rooms in graph.items()
    }


def node(name: str) -> str:
    """Write a room as a mermaid node."""
    return f'{name.strip("_")}_["{name}"]'


def draw() -> str:
    """Draw the floors from the top to the ground, with the imports between them."""
    graph = import_graph()
    sideways = {(here, there) for here, there in SIDEWAYS if there in graph[here]}
    for here, there in sideways:
        graph[here].discard(there)
    lines = ["```mermaid", "flowchart TB"]
    for height, rooms in reversed(list(enumerate(FLOORS, 1))):
        lines.append(f'  subgraph floor{height}["{height}"]')
        lines += [f"    {node(name)}" for name in sorted(rooms)]
        lines.append("  end")
    for name, rooms in sorted(direct(graph).items(), key=lambda item: (-HEIGHT[item[0]], item[0])):
        lines += [f"  {name.strip('_')}_ --> {there}_" for there in sorted(rooms)]
    lines += [f"  {here}_ -.-> {there}_" for here, there in sorted(sideways)]
    return "\n".join([*lines, "```"])


def with_drawing(text: str) -> str:
    """Put the drawing of now between the markers of a page."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{draw()}\n\n{END}", text)


if __name__ == "__main__":
    PAGE.write_text(with_drawing(PAGE.read_text()))
