"""What a store can do, as the runtime needs it (spec/runtime.md 9).

Two levels. A *local* store (memory, file) answers at once, so loops call it without an await. A *remote* one is async
and gets its writes in batches. A user's own adapter (async or plain `get set update delete list clear`) is wrapped as
remote by `registry.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from reqon.errors import StoreError
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
        return WriteCounts(self.added, self.updated, self.unchanged, self.deleted)

    @property
    def written(self) -> int:
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

    def position(self) -> int:
        """The number of the last log line written (0: none, or nothing durable here): what checkpoints rely on."""

    def close(self) -> None:
        """Flush, fold the log where there is one, release the lock."""


def absent(store: str, key: str) -> StoreError:
    """What a write that only updates answers when the key isn't there."""
    error = StoreError(
        f"store '{store}' has no record '{key}' to update",
        store=store,
        operation="update",
        key=key,
        code="not_found",
        hint="leave out upsert: false to insert it",
    )
    error.kind = "not_found"
    return error
