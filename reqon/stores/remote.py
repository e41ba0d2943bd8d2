"""A remote store as missions see it: writes are kept, and go out in batches (spec/runtime.md 9.3).

Every read sees what is kept. What is kept survives a kill by the journal: the runtime takes it from `take_changes`
before it notes any progress, and `restore` brings it back, so that progress never counts what would be lost. All
batches are whole values in order, so that writing one twice changes nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from reqon.errors import StoreError
from reqon.stores.adapter import BATCH, Adapter
from reqon.stores.base import WriteCounts, WriteMode
from reqon.stores.filters import StoreFilter
from reqon.stores.memory import as_stored
from reqon.stores.remote_frozen import RemoteSnapshot
from reqon.stores.waiting import is_bridged, wait_for
from reqon.values import JsonError, Record, Value, encode

BUFFER_BYTES = 8 << 20
_DELETE, _CLEAR = "delete", "clear"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to be done to the store. `number` rises by one for each."""

    number: int
    what: str  # a WriteMode, delete, or clear
    key: str = ""
    record: Record | None = None
    size: int = 0


class RemoteStore:
    """A `LocalStore` on top of an adapter. Reading, and writing much, waits: it wants a bridged run.

    Attributes:
        partial: for each key the `partial` option of the last step that wrote one; offered as `._partial`.
        changed: called when something is to be written that nothing else was waiting for.
        size: how many records it held when it was last asked; None before.
    """

    def __init__(self, name: str, kind: str, adapter: Adapter, *, changed: Callable[[], None] | None = None) -> None:
        self.name = name
        self.kind = kind
        self.counts = WriteCounts()
        self.partial: dict[str, bool] = {}
        self.changed = changed
        self.size: int | None = None
        self.adapter = adapter
        self._changes: deque[Change] = deque()
        self._next = 1
        self._bytes = 0
        self._latest: dict[str, Change] = {}
        self._cleared = 0
        self._aside: list[Change] = []  # what the store refused; kept for a resume
        self._journaled = 0
        self._told_done = 0
        self._lock = asyncio.Lock()
        self._snapshots: WeakSet[RemoteSnapshot] = WeakSet()

    async def open(self) -> None:
        """Connect.

        Raises:
            UnreadableStoreError: it cannot be used.
        """
        await self.adapter.open()

    async def aclose(self) -> None:
        await self.adapter.close()

    # --- writing ------------------------------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether something is to be written."""
        return bool(self._changes)

    def put(self, key: str, record: Record, mode: WriteMode = WriteMode.REPLACE) -> None:
        if mode is WriteMode.UPDATE:
            self.put_through([(key, record)], mode)
            return
        self._keep(mode, key, record)
        self._make_room()

    def put_many(self, items: Sequence[tuple[str, Record]], mode: WriteMode = WriteMode.REPLACE) -> None:
        if mode is WriteMode.UPDATE:
            self.put_through(items, mode)
            return
        for key, record in items:
            self._keep(mode, key, record)
        self._make_room()

    def put_through(self, items: Sequence[tuple[str, Record]], mode: WriteMode = WriteMode.REPLACE) -> None:
        """Write now, past what is kept, which goes out before. Raises StoreError; nothing of it is tried again then."""
        for key, record in items:
            self._measured(key, record)
            self._tell_snapshots(key)
        wait_for(self._write_through(items, mode))

    async def _write_through(self, items: Sequence[tuple[str, Record]], mode: WriteMode) -> None:
        await self.drain()
        async with self._lock:
            for at in range(0, len(items), BATCH):
                batch = [(key, as_stored(record)) for key, record in items[at : at + BATCH]]
                self._count(await self.adapter.write(batch, mode))
            await self.adapter.flush()

    def delete(self, key: str) -> None:
        self._tell_snapshots(key)
        self.partial.pop(key, None)
        self._add(Change(self._next, _DELETE, key))
        self._make_room()

    def clear(self) -> None:
        for snapshot in list(self._snapshots):
            snapshot.keep_all()
        self.partial.clear()
        self._latest.clear()
        self._cleared = self._next
        self._add(Change(self._next, _CLEAR))

    def _keep(self, mode: WriteMode, key: str, record: Record) -> None:
        size = self._measured(key, record)
        self._tell_snapshots(key)
        self._add(Change(self._next, mode, key, as_stored(record), size))

    def _measured(self, key: str, record: Record) -> int:
        try:
            return len(encode(record))
        except JsonError as error:
            raise StoreError(
                f"cannot write to the store '{self.name}': {error.message}", store=self.name, key=key
            ) from error

    def _add(self, change: Change) -> None:
        if not self._changes and self.changed is not None:
            self.changed()
        self._changes.append(change)
        if change.what != _CLEAR:
            self._latest[change.key] = change
        self._next = change.number + 1
        self._bytes += change.size

    def _make_room(self) -> None:
        if len(self._changes) >= BATCH or self._bytes >= BUFFER_BYTES:
            wait_for(self.drain())

    def _tell_snapshots(self, key: str) -> None:
        for snapshot in list(self._snapshots):
            snapshot.keep(key)

    async def drain(self) -> None:
        """Write all that is kept.

        Raises:
            StoreError: of what the store refuses the first; all that it takes is written. Or the store cannot be
                reached, and all is kept.
        """
        refused: list[StoreError] = []
        wrote = False
        async with self._lock:
            while self._changes:
                batch = self._leading()
                try:
                    await self._apply(batch)
                except StoreError as error:
                    if not error.refused:
                        raise
                    refused += await self._one_by_one(batch)
                else:
                    self._done(len(batch))
                wrote = True
            self._latest.clear()
            self._bytes = 0
            if wrote:
                await self.adapter.flush()
        if refused:
            raise _told(refused)

    def _leading(self) -> list[Change]:
        """The first changes of one kind."""
        what = self._changes[0].what
        batch: list[Change] = []
        for change in self._changes:
            if change.what != what or len(batch) == BATCH:
                break
            batch.append(change)
        return batch

    async def _one_by_one(self, batch: Sequence[Change]) -> list[StoreError]:
        """Find out which records of a batch are refused, and write the others."""
        refused = []
        for change in batch:
            try:
                await self._apply([change])
            except StoreError as error:
                if not error.refused:
                    raise
                self._aside.append(change)
                refused.append(error)
            self._done(1)
        return refused

    def _done(self, number: int) -> None:
        for _ in range(number):
            self._changes.popleft()

    async def _apply(self, batch: Sequence[Change]) -> None:
        first = batch[0]
        if first.what == _CLEAR:
            self.counts.deleted += await self.adapter.clear()
        elif first.what == _DELETE:
            self.counts.deleted += await self.adapter.delete([change.key for change in batch])
        else:
            records = [(change.key, change.record or {}) for change in batch]
            self._count(await self.adapter.write(records, WriteMode(first.what)))

    def _count(self, counts: WriteCounts) -> None:
        self.counts.added += counts.added
        self.counts.updated += counts.updated
        self.counts.unchanged += counts.unchanged

    # --- what a resume needs ------------------------------------------------------------------------------------------

    def take_changes(self) -> list[Value]:
        """What is kept and was not taken before."""
        new = [change for change in self._changes if change.number > self._journaled]
        self._journaled = self._next - 1
        return [[change.number, change.what, change.key, change.record] for change in new]

    def take_done(self) -> Value:
        """What of the taken is in the store by now, if that is news: all up to a number, but for some."""
        done = self._changes[0].number - 1 if self._changes else self._next - 1
        done = min(done, self._journaled)
        if done <= self._told_done:
            return None
        self._told_done = done
        return {"done": done, "but": [change.number for change in self._aside]}

    def restore(self, changes: Sequence[Value], *, last: int, done: int) -> None:
        """Keep what earlier processes kept and did not write.

        `last` is the number of the last change they took, `done` what they last said of those that were written.
        """
        for number, what, key, record in changes:
            if what == _CLEAR:
                self._cleared = number
                self._latest.clear()
            self._add(Change(number, what, key, record))
        self._journaled, self._next, self._told_done = last, last + 1, done

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, key: str) -> Record | None:
        if self._changes:
            change = self._latest.get(key)
            if change is not None:
                if change.what == WriteMode.REPLACE:
                    return change.record
                if change.what == _DELETE:
                    return None
                wait_for(self.drain())
            elif self._cleared >= self._changes[0].number:
                return None  # `clear` forgot what was to be written before it
        return wait_for(self.adapter.get(key))

    def count(self) -> int:
        return wait_for(self.ask_count())

    async def ask_count(self) -> int:
        await self.drain()
        self.size = await self.adapter.count()
        return self.size

    def keys(self) -> list[str]:
        return wait_for(self._keys(None))

    async def _keys(self, wanted: StoreFilter | None) -> list[str]:
        await self.drain()
        if self.adapter.can_iterate:
            return await self.adapter.keys(wanted)
        return [key async for batch in self.adapter.entries(wanted) for key, _ in batch]

    def records(self, start: int = 0) -> Iterator[Record]:
        if self._changes:
            wait_for(self.drain())
        if not is_bridged():
            yield from wait_for(self._list(StoreFilter(offset=start) if start else None))
            return
        batches = self.adapter.entries()
        while batch := wait_for(_next(batches)):
            if start >= len(batch):
                start -= len(batch)
                continue
            for _, record in batch[start:]:
                yield record
            start = 0

    def pairs(self) -> list[tuple[str, Record]]:
        """All keys and records as they are at one time."""
        return wait_for(self._pairs())

    async def _pairs(self) -> list[tuple[str, Record]]:
        await self.drain()
        return [entry async for batch in self.adapter.entries() for entry in batch]

    def frozen(self, wanted: StoreFilter | None = None) -> RemoteSnapshot | list[Record]:
        """The records as a loop goes through them. All in memory, if the adapter cannot tell their keys."""
        if not self.adapter.can_iterate:
            return wait_for(self._list(wanted))
        return RemoteSnapshot(self, self.keys() if wanted is None else wait_for(self._keys(wanted)))

    async def _list(self, wanted: StoreFilter | None) -> list[Record]:
        await self.drain()
        return await self.adapter.list(wanted)

    def watch(self, snapshot: RemoteSnapshot) -> None:
        """Tell a snapshot of each key whose record is about to change, as long as it lives."""
        self._snapshots.add(snapshot)

    # --- the rest of a local store ------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write all that is kept, now."""
        if self._changes:
            wait_for(self.drain())

    def sync(self) -> None:
        self.flush()

    def fold(self) -> None:
        self.flush()

    def fold_if_long(self, number: int | None) -> None:
        """Nothing to do."""

    def position(self) -> int:
        return 0

    def close(self) -> None:
        wait_for(self.aclose())


async def _next(batches: Any) -> Sequence[tuple[str, Record]]:
    async for batch in batches:
        if batch:
            return batch  # type: ignore[no-any-return]
    return ()


def _told(refused: Sequence[StoreError]) -> StoreError:
    """The first of several refusals, saying how many more there are."""
    first = refused[0]
    if len(refused) == 1:
        return first
    return StoreError(
        f"{first.message} (and {len(refused) - 1} more records were refused)",
        store=first.store_name,
        operation=first.operation,
        key=first.key,
        code=first.code,
        status=first.status,
        refused=True,
        hint=first.hint,
    )


class WriteThrough:
    """A remote store for steps whose failure somebody sees: nothing they write is kept back."""

    __slots__ = ("_store",)

    def __init__(self, store: RemoteStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, record: Record, mode: WriteMode = WriteMode.REPLACE) -> None:
        self._store.put_through([(key, record)], mode)

    def put_many(self, items: Sequence[tuple[str, Record]], mode: WriteMode = WriteMode.REPLACE) -> None:
        self._store.put_through(items, mode)

    def delete(self, key: str) -> None:
        self._store.delete(key)
        self._store.flush()

    def clear(self) -> None:
        self._store.clear()
        self._store.flush()
