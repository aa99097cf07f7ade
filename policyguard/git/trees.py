"""Trees and their entries: what a commit contains, by path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policyguard.errors import EvidenceError
from policyguard.git.objects import ObjectReader
from policyguard.text import printable_name

MAX_ENTRIES = 500_000
MAX_DEPTH = 128

GITLINK, SYMLINK, EXECUTABLE = 0o160000, 0o120000, 0o100755
TREE = 0o040000
_MODES = frozenset({GITLINK, SYMLINK, EXECUTABLE, 0o100644, 0o100664, TREE})


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree: git's mode and the id of its content."""

    mode: int
    oid: str


def tree_of(reader: ObjectReader, commit: str) -> str:
    """Return the tree id of a commit, from its first line.

    Raises:
        EvidenceError: the commit is malformed.
    """
    first = reader.read(commit, "commit").split(b"\n", 1)[0]
    word, _, tree = first.partition(b" ")
    if word != b"tree" or len(tree) != len(commit):
        raise EvidenceError(f"object `{commit}`: found `{printable_name(first[:80])}`, expected `tree` and an id")
    return tree.decode("ascii", "replace")


def files_of(reader: ObjectReader, tree: str) -> dict[bytes, Entry]:
    """List every file of a tree and its subtrees, by path.

    Raises:
        EvidenceError: the tree has too many files or is nested too deep.
    """
    files: dict[bytes, Entry] = {}
    waiting = [(b"", tree, 0)]
    while waiting:
        prefix, oid, depth = waiting.pop()
        if depth > MAX_DEPTH or len(files) > MAX_ENTRIES:
            raise EvidenceError(f"tree `{tree}`: expected at most {MAX_ENTRIES} files and {MAX_DEPTH} folders deep")
        for name, entry in parse_tree(reader.read(oid, "tree"), len(tree) // 2):
            if entry.mode == TREE:
                waiting.append((prefix + name + b"/", entry.oid, depth + 1))
            else:
                files[prefix + name] = entry
    return files


def entry_at(reader: ObjectReader, tree: str, path: bytes) -> Entry | None:
    """Return the entry of a tree at one path; None if there is none. Reads no folder beside the path.

    Args:
        reader: of the repository.
        tree: the id of the tree.
        path: relative to the tree, with `/` between its names.

    Raises:
        EvidenceError: a folder on the path is malformed.
    """
    entry: Entry | None = Entry(TREE, tree)
    for name in path.split(b"/"):
        if entry is None or entry.mode != TREE:
            return None
        entry = dict(parse_tree(reader.read(entry.oid, "tree"), len(tree) // 2)).get(name)
    return entry


def parse_tree(content: bytes, oid_bytes: int) -> Iterator[tuple[bytes, Entry]]:
    """Yield name and entry of each line of a tree object: tree = *( mode SP name NUL oid ).

    Raises:
        EvidenceError: an entry is malformed.
    """
    position = 0
    seen: set[bytes] = set()
    while position < len(content):
        end = content.find(b"\0", position)
        mode_text, _, name = content[position:end].partition(b" ")
        position = end + 1 + oid_bytes
        known = mode_text.isdigit() and len(mode_text) <= 6 and set(mode_text) <= set(b"01234567")
        mode = int(mode_text, 8) if known else 0
        # INVARIANT I16: a tree with names no working tree can have, or with one name twice, is not judged.
        bad_name = not name or b"/" in name or name in (b".", b"..") or name.lower() == b".git" or name in seen
        if end < 0 or position > len(content) or bad_name or mode not in _MODES:
            raise EvidenceError(
                f"found a tree with the entry `{printable_name(mode_text[:10])} {printable_name(name[:80])}`, no file"
            )
        seen.add(name)
        yield name, Entry(mode, content[end + 1 : position].hex())
