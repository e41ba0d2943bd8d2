"""A remote store's records as they were when a loop began, for a loop that goes through them while it writes."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reqon.lang.handles import Backed
from reqon.stores.adapter import BATCH
from reqon.stores.waiting import wait_for
from reqon.values import Record

if TYPE_CHECKING:
    from reqon.stores.remote import RemoteStore


class RemoteSnapshot(Sequence[Record]):
    """The records under some keys, read some hundred at a time when their turn comes.

    What this run overwrites or deletes before its turn is read before, and kept in memory until then.
    """

    __slots__ = ("__weakref__", "_ahead", "_at", "_lock", "_old", "_ready", "keys", "store")

    def __init__(self, store: "RemoteStore", keys: list[str]) -> None:
        self.store = store
        self.keys = keys
        self._at = 0  # all before were read
        self._ready: dict[int, Record] = {}  # were read and not yet given
        self._ahead: set[str] | None = None
        self._old: dict[str, Record] = {}
        self._lock = asyncio.Lock()
        store.watch(self)

    def keep(self, key: str) -> None:
        """Told before a record changes."""
        if self._ahead is None:
            self._ahead = set(self.keys[self._at :])
        if key in self._ahead and key not in self._old and (record := self.store.get(key)) is not None:
            self._old[key] = record

    def keep_all(self) -> None:
        """Told before all records go."""
        ahead = [key for key in self.keys[self._at :] if key not in self._old]
        for at in range(0, len(ahead), BATCH):
            self._old.update(wait_for(self.store.adapter.get_many(ahead[at : at + BATCH])))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        """A record that was read and whose turn has not come yet; nothing else is at hand."""
        return self._ready[range(len(self.keys))[index]]

    def __iter__(self) -> Iterator[Record]:
        return self.since(0)

    def since(self, start: int) -> Iterator[Record]:
        """The records from the start-th on."""
        self._at = start
        return _Records(self, start)

    def take(self, index: int) -> Record:
        """The record whose turn has come."""
        if index not in self._ready:
            wait_for(self._load(index))
        key = self.keys[index]
        record = self._ready.pop(index)
        partial = self.store.partial
        return Backed(record, {"_partial": partial[key]}) if key in partial else record

    async def _load(self, index: int) -> None:
        async with self._lock:
            while index >= self._at:
                batch = self.keys[self._at : self._at + BATCH]
                wanted = [key for key in batch if key not in self._old]
                found: Mapping[str, Record] = await self.store.adapter.get_many(wanted)
                for at, key in enumerate(batch, self._at):
                    old = self._old.pop(key, None)
                    self._ready[at] = old if old is not None else found.get(key, {})
                self._at += len(batch)
                if self._ahead is not None:
                    self._ahead.difference_update(batch)


class _Records(Iterator[Record]):
    """Gives each record once, whichever of several workers asks."""

    __slots__ = ("_items", "_next")

    def __init__(self, items: RemoteSnapshot, start: int) -> None:
        self._items = items
        self._next = start

    def __next__(self) -> Record:
        index = self._next
        if index >= len(self._items):
            raise StopIteration
        self._next = index + 1
        return self._items.take(index)
