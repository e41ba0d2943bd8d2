"""What a loop goes through: lists, paged items, records of stores, what its `where` keeps (spec/language.md 7.3)."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

from reqon.errors import EvaluatorError
from reqon.lang.instants import date_text
from reqon.lang.operators import PagedResult, StoreHandle, described, numeric
from reqon.runtime.frame import Frame
from reqon.stores.base import LocalStore
from reqon.stores.file import FileStore
from reqon.stores.filters import Clause, StoreFilter
from reqon.stores.frozen import StoreSnapshot
from reqon.stores.remote import RemoteStore
from reqon.stores.remote_frozen import RemoteSnapshot
from reqon.values import Record, Value


class Kept(Sequence[Value]):
    """The elements of a list that a loop's `where` kept."""

    def __init__(self, items: Sequence[Value], kept: Sequence[int]) -> None:
        self.items = items
        self.kept = kept

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.items[i] for i in self.kept[index]]
        return self.items[self.kept[index]]

    def __iter__(self) -> Iterator[Value]:
        return (self.items[i] for i in self.kept)


class FrozenRecords(list[Record]):
    """The records of a memory store when the loop began, held: they are shared and never changed in place."""

    __slots__ = ("keys", "store")

    def __init__(self, store: LocalStore, keys: list[str], records: Iterable[Record]) -> None:
        super().__init__(records)
        self.store = store
        self.keys = keys


class NarrowedStore(StoreHandle):
    """A store as a loop's collection, and what at least must be so of its records for the loop's `where` to hold."""

    __slots__ = ("wanted",)

    def __init__(self, handle: StoreHandle, wanted: StoreFilter) -> None:
        super().__init__(handle.name, handle.store, handle.partials)
        self.wanted = wanted


_FILTERS = {
    "==": "eq", "!=": "neq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "contains": "contains",
}  # fmt: skip
Condition: TypeAlias = tuple[str, str, Value]  # a field, which may be dotted, an operator of the language, a value


def narrowed(collection: Value, wanted: Callable[[], Sequence[Condition]]) -> Value:
    """The collection of a loop; a remote store with the conditions that it can look for itself."""
    if not isinstance(collection, StoreHandle) or not isinstance(collection.store, RemoteStore):
        return collection
    try:
        conditions = wanted()
    except EvaluatorError:
        return collection  # the condition itself says so, if there is a record to judge
    clauses = asked_of(conditions, collection.store.adapter.filter_operators)
    return NarrowedStore(collection, StoreFilter(clauses, rechecked=True)) if clauses else collection


def asked_of(conditions: Sequence[Condition], operators: Collection[str] | None) -> list[Clause]:
    """What of a loop's conditions a store is asked for, by the operators that it knows.

    Only what it can judge without leaving out a record for which the condition holds. One that says nothing is asked
    as all were before there was something to say: for `==` with a text or a whole number in a field of the record.
    """
    clauses: list[Clause] = []
    for field, operator, value in conditions:
        name = _FILTERS[operator]
        plain = name == "eq" and type(value) in (str, int) and "." not in field
        if plain if operators is None else name in operators and _can_be_asked(field, name, value):
            clauses.append(Clause(field=field, operator=name, value=value))
    return clauses


def _can_be_asked(field: str, name: str, value: Value) -> bool:
    kind = type(value)
    if name == "eq":
        return kind in _SCALARS
    if name == "neq":
        return kind in _SCALARS and not (value is None and "." in field)
    if name == "contains":
        return kind in _SCALARS and value is not None and "." not in field
    # The language orders texts that read as numbers or dates as what they say.
    return kind in (int, float) or (isinstance(value, str) and numeric(value) is None and date_text(value) is None)


_SCALARS = frozenset((str, int, float, bool, type(None)))


def loop_input(collection: Value, f: Frame, location: str | None = None) -> Sequence[Value]:
    """What a loop goes through: a list, a paged result's items, the records of a store; nothing for null.

    Raises:
        EvaluatorError: anything else; the hint names the fields of an object that are lists.
    """
    if collection is None:
        f.x.notice("a loop's collection is null: no iterations", location=location)
        return ()
    if isinstance(collection, PagedResult):
        items: Sequence[Value] = collection.items_
        return items
    if isinstance(collection, StoreHandle):
        store = f.x.stores[collection.name].store
        if store.kind == "memory":
            return FrozenRecords(store, store.keys(), collection.records())
        if isinstance(store, RemoteStore):
            return store.frozen(collection.wanted if isinstance(collection, NarrowedStore) else None)
        assert isinstance(store, FileStore)
        return StoreSnapshot(store, store.keys())
    if isinstance(collection, Sequence) and not isinstance(collection, str):
        return collection
    hint = None
    if isinstance(collection, dict):
        lists = [k for k, v in collection.items() if isinstance(v, list)]
        if lists:
            hint = "its lists are: " + ", ".join(f".{k}" for k in lists[:5])
    raise EvaluatorError(f"for needs a list, not {described(collection)}", hint=hint)


def iterate(items: Sequence[Value], start: int) -> Iterable[Value]:
    if start == 0 and not isinstance(items, RemoteSnapshot):
        return items
    if isinstance(items, StoreSnapshot | RemoteSnapshot):
        return items.since(start)
    if isinstance(items, list | tuple):
        return islice(items, start, None)
    return (items[i] for i in range(start, len(items)))


def filtered(items: Sequence[Value], keep: Callable[[Value], object] | None) -> Sequence[Value]:
    """The elements for which `keep` holds, judged before the first iteration."""
    if keep is None:
        return items
    if isinstance(items, StoreSnapshot):
        pairs = zip(items.keys, items, strict=True)
        return StoreSnapshot(items.store, [key for key, record in pairs if keep(record)])
    if isinstance(items, RemoteSnapshot):
        return RemoteSnapshot(items.store, [key for key, record in zip(items.keys, items, strict=True) if keep(record)])
    if isinstance(items, FrozenRecords):
        kept = [pair for pair in zip(items.keys, items, strict=True) if keep(pair[1])]
        return FrozenRecords(items.store, [key for key, _ in kept], [record for _, record in kept])
    if isinstance(items, list | tuple):
        return [item for item in items if keep(item)]
    return Kept(items, [i for i, item in enumerate(items) if keep(item)])
