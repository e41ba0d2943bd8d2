"""Values that carry more than they show (spec/language.md 0)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from reqon.values import Record, Value


class Backed(dict[str, Any]):
    """A record and its `backing`, asked only when a field is absent. Equality, JSON and schemas see the dict alone."""

    __slots__ = ("backing",)

    def __init__(self, fields: Mapping[str, Value], backing: Value) -> None:
        super().__init__(fields)
        self.backing = backing


class PagedResult(dict[str, Any]):
    """The last page's body, its list field holding all items; stands for their list wherever one is wanted."""

    __slots__ = ("items_",)

    def __init__(self, body: Mapping[str, Value], items: Sequence[Value]) -> None:
        super().__init__(body)
        self.items_ = items


class ErrorResponse(dict[str, Any]):
    """The outcome of a failed fetch (spec/language.md 7.2). Patterns of a `match` on it also look at its `body`."""

    __slots__ = ()


class ValidationErrors(list[str]):
    """The texts of a response validation: `includes` looks inside each of them."""

    __slots__ = ()


class ReadableStore(Protocol):
    """What a handle needs of a store."""

    def get(self, key: str) -> Record | None: ...
    def count(self) -> int: ...
    def keys(self) -> Collection[str]: ...
    def records(self) -> Iterable[Record]: ...


class StoreHandle:
    """A store's name used as a value: the array of its records, but for indexing and `.get`.

    `partials`, where given, tells for a key the `partial` value of the last `store` step that wrote it; records read
    are then backed by `{_partial: …}` (spec/language.md 7.6).
    """

    __slots__ = ("name", "partials", "store")

    def __init__(self, name: str, store: ReadableStore, partials: Mapping[str, bool] | None = None) -> None:
        self.name = name
        self.store = store
        self.partials = partials

    def get(self, key: str) -> Record | None:
        """The record under a key, None if there is none."""
        record = self.store.get(key)
        if record is None or not self.partials or key not in self.partials:
            return record
        return Backed(record, {"_partial": self.partials[key]})

    def count(self) -> int:
        return self.store.count()

    def records(self) -> list[Record]:
        """A snapshot of all records, in the store's order."""
        partials = self.partials
        if not partials:
            return list(self.store.records())
        # A store that has to be asked over a network tells both at once, since others may write in between.
        pairs = getattr(self.store, "pairs", None)
        entries = pairs() if pairs is not None else zip(self.store.keys(), self.store.records(), strict=True)
        return [Backed(record, {"_partial": partials[key]}) if key in partials else record for key, record in entries]

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<store {self.name}>"
