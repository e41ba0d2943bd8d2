"""Which entries of a journal later ones have made useless (spec/state.md 3).

A loop notes where it is before each request: a million items leave a million lines, of which one counts. What an item
was answered counts as long as that item is in work.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from reqon.state.backend import JournalEntry
from reqon.values import Value

PLACES = ("progress", "checkpoint")  # where a loop is
OF_ITEMS = ("reply", "failed")  # what belongs to one item of a loop
OF_STORES = ("kept", "written")  # what is to be written to a remote store, and that it was
PASSING = (*PLACES, *OF_ITEMS, *OF_STORES)  # kinds of entries that others of their kind follow without end
WORTH_BYTES = 4 << 20

# A loop inside an item's, in work: its path, the round, how many there are, and a checksum of its list.
InnerRound: TypeAlias = tuple[str, int, int, int]


@runtime_checkable
class Compacting(Protocol):
    """A journal that can do without what later entries made useless."""

    def compact(self, safe: Mapping[str, int]) -> None:
        """Drop what is superseded, if it is worth it; durable on return. Call it where others sync.

        `safe` is the number of the last line of each store that survives a power loss.
        """


def is_worth_it(passing: int, size: int, limit: int) -> bool:
    """Whether so many bytes of passing entries in a journal of this size and cap should be looked through."""
    return passing > min(max(WORTH_BYTES, size // 4), limit // 4)


def holds(fields: Mapping[str, Value], positions: Mapping[str, int]) -> bool:
    """Whether the stores hold every line that an entry relies on (spec/reliability.md, O2)."""
    relies = fields.get("n")
    return not relies or all(positions.get(store, 0) >= number for store, number in relies.items())


def is_behind(kept: Mapping[str, Value], place: Mapping[str, Value]) -> bool:
    """Whether what is kept for an item belongs to what a place of its loop says is done."""
    index, now = kept["i"], place["i"]
    if index != now:
        return bool(index < now or index in (place.get("done") or ()))
    for (path, round_), (known, at, *_) in zip(kept.get("in") or (), place.get("in") or (), strict=False):
        if path != known or round_ > at:
            return False  # of a loop that is over, which is gone through once more
        if round_ < at:
            return True
    return False


def superseded(entries: Iterable[tuple[int, JournalEntry]], safe: Mapping[str, int]) -> Iterator[int]:
    """The numbers of the entries that no resume needs, given (number, entry) of all of `PASSING` kind in order.

    Of each loop everything counts from its last place on that would hold after a power loss.
    """
    every = list(entries)
    yield from _written(every)
    known = [(number, entry) for number, entry in every if entry.kind not in OF_STORES]
    anchors: dict[tuple[str, str], tuple[int, Mapping[str, Value]]] = {}
    for number, entry in known:
        if entry.kind in PLACES and "p" in entry.fields and holds(entry.fields, safe):
            anchors[entry.fields["a"], entry.fields["p"]] = number, entry.fields
    for number, entry in known:
        last, place = anchors.get((entry.fields["a"], entry.fields.get("p", "")), (-1, _NOWHERE))
        if number < last and (entry.kind in PLACES or is_behind(entry.fields, place)):
            yield number


_NOWHERE: Mapping[str, Value] = {}


def _written(entries: Iterable[tuple[int, JournalEntry]]) -> Iterator[int]:
    """The numbers of the entries about remote stores that say what is written by now, but for the last that says so."""
    about = [(number, entry.kind, entry.fields) for number, entry in entries if entry.kind in OF_STORES]
    last = {fields["store"]: (number, fields) for number, kind, fields in about if kind == "written"}
    for number, kind, fields in about:
        until, written = last.get(fields["store"], (-1, _NOWHERE))
        if number >= until:
            continue
        if kind == "written" or all(
            change[0] <= written["done"] and change[0] not in written["but"] for change in fields["changes"]
        ):
            yield number


def runs_kept(lines: Sequence[tuple[int, int]], dropped: Iterable[int]) -> list[tuple[int, int]]:
    """The parts of a file that stay, each as long as can be, given the (begin, end) of its lines and which go."""
    gone = set(dropped)
    parts: list[tuple[int, int]] = []
    for number, (begin, end) in enumerate(lines):
        if number in gone:
            continue
        if parts and parts[-1][1] == begin:
            parts[-1] = parts[-1][0], end
        else:
            parts.append((begin, end))
    return parts
