"""A file store's records as they were at one moment, for a loop that goes through them while others write."""

from collections.abc import Iterator, Sequence
from typing import Any

from reqon.lang.operators import Backed
from reqon.stores.file import FileStore
from reqon.values import Record


class StoreSnapshot(Sequence[Record]):
    """The records under some keys, in their order, each read when its turn comes.

    What is overwritten or deleted before its turn is kept in memory until then. Records that iteration has passed
    are as they are now.
    """

    __slots__ = ("__weakref__", "_ahead", "_at", "_old", "keys", "store")

    def __init__(self, store: FileStore, keys: list[str]) -> None:
        self.store = store
        self.keys = keys
        self._at = 0
        self._ahead: set[str] | None = None  # made when the first write comes: most loops see none
        self._old: dict[str, bytes] = {}
        store.watch(self._keep)

    def _keep(self, key: str) -> None:
        """Told before a record changes."""
        if self._ahead is None:
            self._ahead = set(self.keys[self._at :])
        if key in self._ahead and key not in self._old:
            data = self.store.raw(key)
            if data is not None:
                self._old[key] = data

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [r for k in self.keys[index] if (r := self._read(k)) is not None]
        record = self._read(self.keys[index])
        if record is None:
            raise IndexError(index)
        return record

    def __iter__(self) -> Iterator[Record]:
        return self.since(0)

    def since(self, start: int) -> Iterator[Record]:
        """The records from the start-th on."""
        for at in range(start, len(self.keys)):
            key = self.keys[at]
            record = self._read(key)
            self._at = at + 1
            if self._ahead is not None:
                self._ahead.discard(key)
                self._old.pop(key, None)
            yield record if record is not None else {}

    def _read(self, key: str) -> Record | None:
        record = self.store.built(self._old[key]) if key in self._old else self.store.get(key)
        partial = self.store.partial
        if record is None or key not in partial:
            return record
        return Backed(record, {"_partial": partial[key]})
