"""What a store can do, as the runtime needs it (spec/runtime.md 9).

Two levels. A `LocalStore` is what missions see: it answers at once, so loops call it without an await. A `StoreAdapter`
is what answers over a network or through a driver; `remote.py` makes a `LocalStore` of it, which keeps writes until
they are flushed in batches.
"""

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from reqon.errors import StoreError
from reqon.stores.filters import StoreFilter
from reqon.values import Record


class WriteMode(StrEnum):
    """What a write does to a record that is there (spec/language.md 7.6)."""

    REPLACE = "set"
    MERGE = "merge"  # shallow; a new key is inserted
    UPDATE = "update"  # shallow; a new key is StoreError(not_found)


@dataclass(slots=True)
class WriteCounts:
    """Running totals of one store in one execution; `count` is asked for at the end."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0

    def __sub__(self, other: "WriteCounts") -> "WriteCounts":
        return WriteCounts(
            self.added - other.added,
            self.updated - other.updated,
            self.unchanged - other.unchanged,
            self.deleted - other.deleted,
        )

    def copy(self) -> "WriteCounts":
        """The totals as they are now."""
        return WriteCounts(self.added, self.updated, self.unchanged, self.deleted)

    @property
    def written(self) -> int:
        """How many records were written, those that were there already included."""
        return self.added + self.updated + self.unchanged


@runtime_checkable
class LocalStore(Protocol):
    """A store in this process or on this disk. Every call is quick and blocks; nothing here awaits.

    Records are shared, never changed in place: a merge makes a new dict. Keys are texts. Iteration is in insertion
    order, and an update keeps its place. Writes are counted in `counts`; a write that changes nothing as JSON counts as
    `unchanged` and is not done.
    """

    name: str  # the identifier of the adapter call: memory("x")
    kind: str  # memory, file
    counts: WriteCounts
    partial: dict[str, bool]  # for each key the `partial` option last written with it

    def get(self, key: str) -> Record | None: ...

    def put(self, key: str, record: Record, mode: WriteMode = WriteMode.REPLACE) -> None:
        """Write one record. Raises StoreError."""

    def put_many(self, items: Sequence[tuple[str, Record]], mode: WriteMode = WriteMode.REPLACE) -> None:
        """Write a batch in order; equal keys apply in order. Raises StoreError."""

    def delete(self, key: str) -> None:
        """Remove one record; fine if it isn't there."""

    def clear(self) -> None: ...

    def count(self) -> int: ...

    def keys(self) -> list[str]: ...

    def records(self, start: int = 0) -> Iterator[Record]:
        """The records from the start-th on, in order, lazily. Not for use while writing: take `keys()` first then."""

    def flush(self) -> None:
        """Hand everything written to the system in one write: it survives SIGKILL on return."""

    def sync(self) -> None:
        """Flush, and return when it survives a power loss too."""

    def fold(self) -> None:
        """Sync, and bring what people read up to date, unless another run writes there still. Raises StoreError."""

    def fold_if_long(self, number: int | None) -> None:
        """Keep its log short: fold a long one whose last line has this `number`, on which a journal on disk relies.

        None: no journal relies on anything. Raises StoreError.
        """

    def position(self) -> int:
        """The number of the last log line written (0: none, or nothing durable here): what checkpoints rely on."""

    def close(self) -> None:
        """Flush, fold the log where there is one, release the lock."""


T = TypeVar("T")
MaybeAwaitable: TypeAlias = T | Awaitable[T]


class StoreAdapter(Protocol):
    """A store behind a driver or a network, ours or a user's own. Each method may be plain or async.

    Plain ones are called in a thread. Calls for different keys may come at the same time, for one key they never do.
    What it raises becomes a StoreError; keys are texts, records JSON objects.
    """

    def get(self, key: str) -> MaybeAwaitable[Record | None]:
        """The record of a key, None if there is none."""

    def set(self, key: str, value: Record) -> MaybeAwaitable[None]:
        """Insert, or replace the whole record; that keeps its place in the order."""

    def update(self, key: str, partial: Record) -> MaybeAwaitable[None]:
        """Merge fields into the record, one level deep; a new key is inserted."""

    def delete(self, key: str) -> MaybeAwaitable[None]:
        """Remove a record; fine if it isn't there. May answer how many went."""

    def list(self, filter: StoreFilter | None = None) -> MaybeAwaitable[list[Record]]:  # noqa: A002  # documented so
        """The records that are asked for, in order of insertion."""

    def clear(self) -> MaybeAwaitable[None]:
        """Remove all records. May answer how many went."""


class FullStoreAdapter(StoreAdapter, Protocol):
    """The optional methods: with them a store is quicker, counts better, or needs less memory."""

    def count(self, filter: StoreFilter | None = None) -> MaybeAwaitable[int]:  # noqa: A002  # documented so
        """How many records match; `limit` and `offset` are ignored."""

    def get_many(self, keys: Sequence[str]) -> MaybeAwaitable[Mapping[str, Record]]:
        """The records that are there, by key."""

    def bulk_upsert(self, records: Sequence[tuple[str, Record]], mode: str) -> MaybeAwaitable[WriteCounts]:
        """Write a batch, all or nothing, equal keys in order. `mode`: set, merge, or update (a new key is an error)."""

    def iterate(
        self,
        filter: StoreFilter | None = None,  # noqa: A002  # documented so
        batch_size: int = 500,
    ) -> AsyncIterator[tuple[str, Record]] | Iterator[tuple[str, Record]]:
        """Keys and records in order, read some at a time."""

    def connect(self) -> MaybeAwaitable[None]: ...

    def flush(self) -> MaybeAwaitable[None]: ...

    def close(self) -> MaybeAwaitable[None]: ...


def absent(store: str, key: str) -> StoreError:
    """What a write that only updates answers when the key isn't there."""
    error = StoreError(
        f"store '{store}' has no record '{key}' to update",
        store=store,
        operation="update",
        key=key,
        code="not_found",
        refused=True,
        hint="leave out upsert: false to insert it",
    )
    error.kind = "not_found"
    return error
