"""Every log store keeps the same contract: that of `Store`, and of the claims beside its rows."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.audit import stores
from policyguard.audit.stores import Row
from policyguard.audit.stores.claims import APPROVAL, RESERVATION, Claim
from policyguard.audit.stores.interface import Store
from policyguard.audit.stores.memory import MemoryStore
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError

ORIGIN = "log.example/contract"

STORES: dict[type[Store], Callable[[Path], Store]] = {
    MemoryStore: lambda _: MemoryStore(ORIGIN),
    SqliteStore: lambda folder: SqliteStore.create(folder / "log.db", ORIGIN),
}
"""Each store, and how a new one is made. A store that is missing here fails `test_every_store_is_here`."""


@pytest.fixture(params=STORES.values(), ids=[kind.__name__ for kind in STORES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = request.param(tmp_path)
    yield made
    if isinstance(made, SqliteStore):
        made.close()


def row(entry: int, *, checkpoint: bytes | None = b"note") -> Row:
    return Row(entry, b"leaf %d" % entry, bytes([entry]) * 32, checkpoint)


def without_leaf(entry: int) -> Row:
    return structs.replace(row(entry), leaf=b"")


def filled(store: Store, count: int = 3) -> Store:
    for entry in range(count):
        store.append(lambda _, entry=entry: [row(entry)])  # type: ignore[misc]
    return store


def claim(name: str, *, scope: str = "vision", entry: int = 0) -> Claim:
    return Claim(name, scope, entry, "{}")


def test_every_store_is_here() -> None:
    """A class of the package with the methods of `Store` is in the table above."""
    methods = {name for name in vars(Store) if not name.startswith("_")}
    modules = [
        importlib.import_module(f"{stores.__name__}.{info.name}") for info in pkgutil.iter_modules(stores.__path__)
    ]
    classes = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    implemented = {kind for kind in classes - {Store} if methods - {"claims"} <= set(dir(kind))}
    assert implemented == set(STORES)


def test_a_new_store_is_empty_and_has_its_name(store: Store) -> None:
    """The twin of all below."""
    assert (store.origin, store.last(), list(store.read(0, 10)), store.claims.is_complete) == (ORIGIN, None, [], True)


def test_rows_are_read_as_they_were_written(store: Store) -> None:
    """Several rows of one transaction keep their order; all but the last have no checkpoint."""
    rows = [row(0, checkpoint=None), row(1, checkpoint=None), row(2)]
    store.append(lambda _: rows)
    assert list(store.read(0, 3)) == rows


def test_the_next_rows_are_made_from_the_last_one(store: Store) -> None:
    """`append` shows the last row without its leaf; nothing for an empty log."""
    seen: list[Row | None] = []
    for entry in range(3):

        def grow(last: Row | None, entry: int = entry) -> list[Row]:
            seen.append(last)
            return [row(entry)]

        store.append(grow)
    assert seen == [None, without_leaf(0), without_leaf(1)]
    assert store.last() == without_leaf(2)


@pytest.mark.parametrize(
    ("start", "stop", "entries"),
    [(0, 3, [0, 1, 2]), (1, 2, [1]), (2, 9, [2]), (3, 9, []), (0, 0, []), (2, 1, []), (-2, 1, [0]), (-2, -1, [])],
)
def test_a_range_is_read_to_before_its_end(store: Store, start: int, stop: int, entries: list[int]) -> None:
    """Indexes count from the first entry, never from the end."""
    assert [item.entry for item in filled(store).read(start, stop)] == entries


def test_no_rows_add_nothing(store: Store) -> None:
    """A transaction that computes no row leaves the log as it was."""
    filled(store).append(lambda _: [])
    assert store.last() == without_leaf(2)


@pytest.mark.parametrize("problem", [AuditError("no"), ValueError("no"), KeyboardInterrupt()], ids=repr)
def test_what_fails_inside_a_transaction_keeps_nothing(store: Store, problem: BaseException) -> None:
    """The error is passed on; neither rows nor claims stay, and the next append works."""
    filled(store).claims.add(APPROVAL, claim("a"))

    def grow(_: Row | None) -> list[Row]:
        store.claims.add(APPROVAL, claim("b"))
        store.claims.replace(APPROVAL, claim("a", entry=9))
        store.claims.remove(APPROVAL, "a")
        raise problem

    with pytest.raises(type(problem)):
        store.append(grow)
    assert store.last() == without_leaf(2)
    assert store.claims.list_all() == [(APPROVAL, claim("a"))]
    store.append(lambda _: [row(3)])
    assert [item.entry for item in store.read(0, 9)] == [0, 1, 2, 3]


def test_claims_of_a_transaction_stay_with_its_rows(store: Store) -> None:
    """The twin: what did not fail is there."""

    def grow(_: Row | None) -> list[Row]:
        store.claims.add(APPROVAL, claim("a"))
        return [row(0)]

    store.append(grow)
    assert store.claims.list_all() == [(APPROVAL, claim("a"))]


def test_a_name_is_taken_once(store: Store) -> None:
    """A second `add` of a kind and name is refused, whatever else it says; the first one stays."""
    store.claims.add(APPROVAL, claim("a"))
    with pytest.raises(AuditError, match="is taken already"):
        store.claims.add(APPROVAL, claim("a", scope="speech", entry=4))
    assert store.claims.find(APPROVAL, ["a"]) == {"a": claim("a")}


def test_kinds_do_not_meet(store: Store) -> None:
    """A reservation and an approval of one name are two claims, found and given back apart."""
    store.claims.add(APPROVAL, claim("a"))
    store.claims.add(RESERVATION, claim("a", entry=1))
    assert store.claims.find(RESERVATION, ["a", "b"]) == {"a": claim("a", entry=1)}
    store.claims.remove(APPROVAL, "a")
    assert store.claims.list_all() == [(RESERVATION, claim("a", entry=1))]


def test_claims_are_listed_by_scope(store: Store) -> None:
    """Only those of the kind and the scope."""
    for name, scope in (("a", "vision"), ("b", "speech"), ("c", "vision")):
        store.claims.add(RESERVATION, claim(name, scope=scope))
    store.claims.add(APPROVAL, claim("d"))
    assert sorted(store.claims.list_scope(RESERVATION, "vision"), key=lambda each: each.name) == [
        claim("a"),
        claim("c"),
    ]


def test_a_claim_is_replaced_whole(store: Store) -> None:
    """`replace` takes a free name, and overwrites all that is known of a taken one."""
    store.claims.replace(RESERVATION, claim("a"))
    store.claims.replace(RESERVATION, Claim("a", "speech", 7, '{"x":1}'))
    assert store.claims.list_all() == [(RESERVATION, Claim("a", "speech", 7, '{"x":1}'))]
    store.claims.remove(RESERVATION, "nobody")
