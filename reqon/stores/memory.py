"""Records in this process, for the time of one execution (spec/runtime.md 9.4)."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from types import NoneType
from typing import NamedTuple

from reqon.stores.base import WriteCounts, WriteMode, absent
from reqon.values import Record, Value, decode, encode, equal_json, is_plain

# What a resume needs of one write: the key and the whole record, or None where it was deleted.
Change = tuple[str, Record | None]


class Pages(NamedTuple):
    """Items of a paginated fetch, as the journal has them: those from number `first` on of the fetch at `origin`."""

    origin: str
    first: int


_UNCHANGING = frozenset((str, int, float, bool, NoneType))


class MemoryStore:
    """A dict with the manners of a store. Nothing is copied on the way in, so a write costs next to nothing.

    Attributes:
        partial: for each key the `partial` option of the last step that wrote one; offered as `._partial`.
    """

    kind = "memory"

    __slots__ = ("_changes", "_entries", "_plain", "_records", "counts", "name", "partial")

    def __init__(self, name: str = "", *, track: bool = False) -> None:
        self.name = name
        self.counts = WriteCounts()
        self.partial: dict[str, bool] = {}
        self._records: dict[str, Record] = {}
        self._changes: list[Change] | None = [] if track else None
        self._entries: list[dict[str, Value]] = []  # for the journal, of what preceded `_changes`
        self._plain = 0  # so many records, the first ones, are known to be as any store gives them back

    def get(self, key: str) -> Record | None:
        record = self._records.get(key)
        return None if record is None else as_stored(record)

    def put(self, key: str, record: Record, mode: WriteMode = WriteMode.REPLACE) -> None:
        records = self._records
        if key in records:
            self._rewrite(key, record, mode)
            return
        if mode is WriteMode.UPDATE:
            raise absent(self.name, key)
        if record.__class__ is not dict:
            record = dict(record)  # what stands behind it stays behind
        records[key] = record
        self.counts.added += 1
        if self._changes is not None:
            self._changes.append((key, record))

    def put_many(self, items: Sequence[tuple[str, Record]], mode: WriteMode = WriteMode.REPLACE) -> None:
        if self._add_new(items, mode):
            if self._changes is not None:
                self._changes += items
            return
        for key, record in items:
            self.put(key, record, mode)

    def put_plain(
        self,
        items: Sequence[tuple[str, Record]],
        mode: WriteMode = WriteMode.REPLACE,
        *,
        pages: Pages | None = None,
    ) -> None:
        """As `put_many`, for records that came from JSON and are as they came: reading them needs no look at them.

        Where the journal has them already, as `pages`, it is only told their keys.
        """
        known = self._plain == len(self._records)
        if pages is None or self._changes is None:
            self.put_many(items, mode)
        elif self._add_new(items, mode):
            self._end_changes(self._changes)
            self._entries.append({"pages": pages.origin, "first": pages.first, "keys": [key for key, _ in items]})
        else:
            for key, record in items:
                self.put(key, record, mode)
        if known:
            self._plain = len(self._records)

    def _add_new(self, items: Sequence[tuple[str, Record]], mode: WriteMode) -> bool:
        """Add all of them at once if each has a key of its own that is not there yet; else do nothing."""
        records = self._records
        if mode is WriteMode.UPDATE:
            return False
        fresh = dict(items)
        if len(fresh) != len(items) or not records.keys().isdisjoint(fresh):
            return False
        records.update(fresh)
        self.counts.added += len(fresh)
        return True

    def _rewrite(self, key: str, record: Record, mode: WriteMode) -> None:
        old = self._records[key]
        new = dict(record) if mode is WriteMode.REPLACE else {**old, **record}
        if equal_json(old, new) or equal_json(as_stored(old), as_stored(new)):
            self.counts.unchanged += 1
            return
        self._records[key] = new
        self._plain = 0
        self.counts.updated += 1
        if self._changes is not None:
            self._changes.append((key, new))

    def delete(self, key: str) -> None:
        if self._records.pop(key, None) is not None:
            self.counts.deleted += 1
            self._plain = 0
            self.partial.pop(key, None)
            if self._changes is not None:
                self._changes.append((key, None))

    def clear(self) -> None:
        self.counts.deleted += len(self._records)
        if self._changes is not None:
            self._changes += [(key, None) for key in self._records]
        self._records.clear()
        self._plain = 0
        self.partial.clear()

    def count(self) -> int:
        return len(self._records)

    def keys(self) -> list[str]:
        return list(self._records)

    def records(self, start: int = 0) -> Iterator[Record]:
        records = list(self._records.values())
        plain = self._plain
        yield from islice(records, start, plain)
        for record in islice(records, max(start, plain), None):
            yield as_stored(record)

    def take_entries(self) -> list[dict[str, Value]]:
        """What was written since the last call, in order, as entries for a journal; empty unless the store tracks.

        `{"changes": […]}` or, of items that the journal has in pages, `{"pages": origin, "first": n, "keys": […]}`.
        """
        if self._changes:
            self._end_changes(self._changes)
        entries, self._entries = self._entries, []
        return entries

    def _end_changes(self, changes: list[Change]) -> None:
        if changes:
            self._entries.append({"changes": changes})
            self._changes = []

    def restore(self, changes: Iterable[Change]) -> None:
        """Apply what an earlier process wrote. Counts and tracks nothing."""
        self._plain = 0
        for key, record in changes:
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record

    def flush(self) -> None:
        """Nothing to do: the journal keeps the changes of a memory store."""

    def sync(self) -> None:
        """Nothing to do."""

    def fold(self) -> None:
        """Nothing to do."""

    def fold_if_long(self, number: int | None) -> None:
        """Nothing to do."""

    def position(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing to do."""


def as_stored(record: Record) -> Record:
    """The record as any store would give it back: plain dicts, instants as text, durations as milliseconds."""
    if type(record) is dict and (_UNCHANGING.issuperset(map(type, record.values())) or is_plain(record)):
        return record
    return {name: _plain(value) for name, value in record.items()}


def _plain(value: Value) -> Value:
    if type(value) in _UNCHANGING:
        return value
    if isinstance(value, dict):
        return as_stored(value)
    if isinstance(value, datetime | timedelta):
        return decode(encode(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Sequence):
        return [_plain(v) for v in value]
    return value
