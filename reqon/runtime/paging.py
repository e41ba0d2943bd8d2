"""Items of many pages: in memory while they are few, else read from the journal (spec/runtime.md 4.5, 4.6)."""

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reqon.http.pagination import Place, find_items, items_at
from reqon.lang.operators import PagedResult
from reqon.state.backend import BodyRef, Journal
from reqon.values import Value, decode

if TYPE_CHECKING:
    from reqon.runtime.resume import JournaledPage, MemoryWrites, ResumePoint
    from reqon.stores.memory import Change

# Decoded items take about five times their text; beyond this many bytes of it they stay in the journal.
KEEP_BYTES = 4 * 1024 * 1024


class PagedItems(list[Value]):
    """All items of a paginated fetch, in memory. `origin` is where the journal has their pages, once it does.

    `complete`: it has all of them.
    """

    __slots__ = ("complete", "origin", "pending")

    def __init__(self, items: Sequence[Value] = ()) -> None:
        super().__init__(items)
        self.origin: str | None = None
        self.complete = False
        self.pending: tuple[Mapping[str, Value], bytes] | None = None


class JournaledItems(Sequence[Value]):
    """All items of a paginated fetch, read from the journal when asked for; one page at a time is in memory."""

    def __init__(self, journal: Journal, origin: str) -> None:
        self.origin = origin
        self.complete = True
        self.pending = None
        self._journal = journal
        self._pages: list[tuple[BodyRef, Place] | list[Value]] = []
        self._ends: list[int] = []
        self._cached = -1
        self._cache: list[Value] = []

    def add(self, body: BodyRef, place: Place, count: int) -> None:
        """One more page: where its body lies, where the items are in it, and how many."""
        self._pages.append((body, place))
        self._ends.append(len(self) + count)

    def keep(self, items: Sequence[Value]) -> None:
        """One more page, which the journal no longer took: its cap is reached."""
        self.complete = False
        self._pages.append(list(items))
        self._ends.append(len(self) + len(items))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def page(self, number: int) -> list[Value]:
        """The items of one page, counted from 0."""
        if number != self._cached:
            known = self._pages[number]
            if isinstance(known, list):
                return known
            body, place = known
            value = decode(self._journal.read_body(body))
            self._cache = (items_at(value, place) if place else value) or []
            self._cached = number
        return self._cache

    def __iter__(self) -> Iterator[Value]:
        for number in range(len(self._pages)):
            yield from self.page(number)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._slice(*index.indices(len(self)))
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return self.page(number)[index - (self._ends[number - 1] if number else 0)]

    def _slice(self, start: int, stop: int, step: int) -> list[Value]:
        if step != 1:
            return [self[i] for i in range(start, stop, step)]
        out: list[Value] = []
        number = bisect_right(self._ends, start)
        while start < stop and number < len(self._pages):
            first = self._ends[number - 1] if number else 0
            out += self.page(number)[start - first : stop - first]
            start = self._ends[number]
            number += 1
        return out


class Pages:
    """The pages of one fetch as they come in: their items, and what `response` will be.

    Items beyond `KEEP_BYTES` of text are left in the journal, unless they are `held` in memory anyway.
    """

    def __init__(self, journal: Journal | None, origin: str | None, *, held: bool = False) -> None:
        self._journal = journal
        self._origin = origin
        self._keep_bytes = sys.maxsize if held else KEEP_BYTES
        self._kept = PagedItems()
        self._spilled: JournaledItems | None = None
        self._known: list[tuple[BodyRef, Place, int]] = []
        self._bytes = 0
        self.count = 0
        self.place: Place | None = None
        self.last: Value = None

    def add(self, body: Value, items: Sequence[Value], place: Place | None, *, size: int, ref: BodyRef | None) -> None:
        """One more page; `ref` says where the journal has it, if it has."""
        self.last = body
        if place is not None:
            self.place = place
        self.count += len(items)
        self._bytes += size
        if self._spilled is not None:
            if ref is None:
                self._spilled.keep(items)
            else:
                self._spilled.add(ref, place or (), len(items))
            return
        self._kept.extend(items)
        if ref is None:
            return
        self._known.append((ref, place or (), len(items)))
        if (
            self._bytes > self._keep_bytes
            and self._is_complete
            and self._journal is not None
            and self._origin is not None
        ):
            self._spilled = JournaledItems(self._journal, self._origin)
            for known in self._known:
                self._spilled.add(*known)
            self._kept = PagedItems()

    @property
    def _is_complete(self) -> bool:
        """Whether the journal has every page so far."""
        return sum(n for _, _, n in self._known) == self.count

    def result(self, pending: tuple[Mapping[str, Value], bytes] | None) -> Value:
        """What `response` becomes: the list of all items, or the last page with all items in its list's place."""
        items: Sequence[Value] = self._kept
        if self._spilled is not None:
            items = self._spilled
        elif self._known:
            self._kept.origin = self._origin
            self._kept.complete = self._is_complete
        elif pending is not None:
            self._kept.pending = pending
            self._kept.origin = self._origin
            self._kept.complete = True
        if not isinstance(self.last, dict):
            return items
        if self.place is None:
            return self.last
        return PagedResult(_with_items(self.last, self.place, items), items)


def _with_items(body: Value, place: Place, items: Sequence[Value]) -> Any:
    if not place:
        return items
    return {**body, place[0]: _with_items(body.get(place[0]), place[1:], items)}


def items_of(value: Value) -> PagedItems | JournaledItems | None:
    """The items behind a paginated fetch's response, if this is one."""
    items = value.items_ if isinstance(value, PagedResult) else value
    return items if isinstance(items, PagedItems | JournaledItems) else None


def journaled_origin(value: Value, journal: Journal) -> str | None:
    """Where the journal has the pages of this response; a single page that was held back is appended now."""
    items = items_of(value)
    if items is None or items.origin is None:
        return None
    if items.pending is not None:
        fields, body = items.pending
        journal.append("page", fields, body=body)
        items.pending = None
    return items.origin


def complete_origin(value: Value, journal: Journal | None) -> str | None:
    """As `journaled_origin`, if the journal has every item of it."""
    items = items_of(value)
    return journaled_origin(value, journal) if items is not None and items.complete and journal is not None else None


def changes_of(writes: "Sequence[MemoryWrites]", journal: Journal) -> "Iterator[tuple[str, Iterable[Change]]]":
    """What was written to memory stores, in order: a store's name, and changes. A page is read once, if it can be."""
    read: tuple[BodyRef | None, Sequence[Value]] = None, ()
    for written in writes:
        if written.keys is None:
            yield written.store, written.changes
            continue
        found: list[Value] = []
        first = written.first
        for page in written.pages:
            if page.body != read[0]:
                read = page.body, find_items(decode(journal.read_body(page.body)), path=page.place, until_path=None)[0]
            found += read[1][max(0, first - page.first) : first + len(written.keys) - page.first]
        yield written.store, zip(written.keys, found, strict=True)


def restored(resume: "ResumePoint", origin: str) -> Value:
    """The response of a fetch whose pages are in the journal."""
    pages = Pages(resume.journal, origin)
    for page in resume.pages.get(origin, ()):
        add_journaled(pages, resume, page)
    return pages.result(None)


def add_journaled(pages: Pages, resume: "ResumePoint", page: "JournaledPage") -> tuple[Value, Sequence[Value]]:
    """Take a page from the journal; its body and items."""
    raw = resume.journal.read_body(page.body)
    body = decode(raw)
    items, place = find_items(body, path=page.place, until_path=None)
    pages.add(body, items, place, size=len(raw), ref=page.body)
    return body, items
