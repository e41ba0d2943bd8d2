"""What a journal says of a killed run: where it is, and what it knew (spec/state.md 3, 5)."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from reqon.files import DamagedFileError
from reqon.state.backend import BodyRef, Journal, JournalEntry
from reqon.state.compaction import InnerRound, holds, is_behind
from reqon.stores.lines import MAX_OPENINGS
from reqon.values import Value, decode


@dataclass(slots=True)
class LoopPosition:
    """A loop that had begun. Its list: `keys` of a store, `items` as they were, or evaluated again (`kept` of it).

    `index` is the smallest one not done; `finished` those above it that are.
    """

    index: int = 0
    total: int | None = None
    keys: list[str] | None = None
    items: list[Value] | None = None
    kept: list[int] | None = None
    finished: tuple[int, ...] = ()
    inner: Sequence[InnerRound] = ()  # loops inside item `index`


@dataclass(slots=True)
class JournaledPage:
    """One page of a fetch: where its body lies and what the next request is. `first` is its first item's number."""

    number: int
    first: int
    body: BodyRef
    next: Mapping[str, Value]
    status: int
    count: int
    fingerprint: str
    sent_at: str | None
    date: str | None
    since: Value
    place: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class MemoryWrites:
    """What was written to a memory store: changes; or, under `keys`, the items from number `first` on of pages."""

    store: str
    changes: Sequence[Any] = ()
    keys: Sequence[str] | None = None
    first: int = 0
    pages: Sequence[JournaledPage] = ()  # those that hold them


@dataclass(slots=True)
class ActionPosition:
    """An action that had begun: the step it is in, and what it knew at that step's begin."""

    step: int = 0
    variables: Mapping[str, Value] = field(default_factory=dict)
    response_body: BodyRef | None = None
    is_raw: bool = False  # the body is an answer as it came, else what `kept` made of the response
    failure: Mapping[str, Value] | None = None
    taken: bool = False
    meta: Mapping[str, Value] | None = None
    waits: Mapping[str, int] = field(default_factory=dict)
    webhook: Mapping[str, Value] | None = None  # {"value": …}, or {} where it is the response
    tries: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    again: bool = False  # the step is a request that a `retry` went back to
    loops: dict[str, LoopPosition] = field(default_factory=dict)
    replies: dict[str, JournalEntry] = field(default_factory=dict)
    holds: bool = True  # False: from here on its entries rely on lines that its stores have lost


@dataclass(slots=True)
class KeptBack:
    """What was to be written to a remote store and had not been: changes by their numbers.

    `last` is the highest number, `done` the one up to which all but a few were known to be written.
    """

    changes: dict[int, Value] = field(default_factory=dict)
    last: int = 0
    done: int = 0

    def take(self, entry: JournalEntry) -> None:
        if entry.kind == "kept":
            for change in entry.fields["changes"]:
                self.changes[change[0]] = change
                self.last = max(self.last, change[0])
            return
        done, but = entry.fields["done"], set(entry.fields["but"])
        self.changes = {n: change for n, change in self.changes.items() if n > done or n in but}
        self.last = max(self.last, done)
        self.done = max(self.done, done)


class ResumePoint:
    """All that a resume needs, read once from the journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.actions: dict[str, ActionPosition] = {}
        self.pages: dict[str, list[JournaledPage]] = {}  # by origin: `<action key>:<step path>`
        self.completed: list[str] = []
        self.called: set[str] = set()  # called actions that ended, of steps that did not
        self.skipped: set[int] = set()  # stages whose condition did not hold, by index
        self.held: set[int] = set()  # those whose condition held
        self.decided: dict[str, dict[str, BodyRef]] = {}  # by key: what the step in work had decided, by place
        self.left: dict[str, JournalEntry] = {}  # by key: the entry that has the response with which an action ended
        self.lets: Mapping[str, Value] = {}
        self.sync: Mapping[str, Value] = {}
        self.synced: list[Mapping[str, Value]] = []
        self.totals: Mapping[str, Value] | None = None
        self.relied = 0  # how many entries rely on what the stores hold, and these hold it
        self.reached: dict[str, int] = {}  # the last line of each store that one of them relies on
        self.kept: dict[str, KeptBack] = {}  # by store
        # What the items in work were answered: (action, loop, index) -> request -> its answers in order.
        self.said: dict[tuple[str, str, int], dict[str, deque[JournalEntry]]] = {}

    @classmethod
    def read(
        cls, journal: Journal, positions: Mapping[str, int], openings: Mapping[str, Mapping[str, int]]
    ) -> tuple["ResumePoint", list[MemoryWrites]]:
        """The point, and the writes to memory stores in order.

        `positions` is what each file store really holds, `openings` the last line of each time that it was open: an
        entry that relies on more does not count (O2).

        Raises:
            DamagedFileError: an entry is none of ours.
        """
        point = cls(journal)
        memory: list[MemoryWrites] = []
        counts = 0  # of the writes to memory stores those that something relies on; the others are done again
        held = positions
        for entry in journal.entries():
            relied = point.relied
            try:
                if entry.kind == "memory":
                    memory.append(point._memory_writes(entry.fields))
                elif entry.kind == "resumed":
                    del memory[counts:]
                elif entry.kind == "opened":
                    held = {**positions, **_limits(entry.fields["o"], positions, openings)}
                else:
                    point._take(entry, held)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                # No checksum told: somebody else wrote it, or a database lost a part of it.
                raise DamagedFileError(
                    f"the journal is damaged: an entry '{entry.kind}' is not as it was written ({error!r})",
                    hint="run the mission without --resume to begin anew",
                ) from error
            if point.relied > relied:
                counts = len(memory)
        del memory[counts:]
        return point, memory

    def _memory_writes(self, fields: Mapping[str, Value]) -> MemoryWrites:
        """Pages are those that the journal has by now: the same fetch may be done anew later."""
        store = fields["store"]
        if "pages" not in fields:
            return MemoryWrites(store, fields["changes"])
        keys, first = fields["keys"], fields["first"]
        pages = self.pages[fields["pages"]]
        begin = bisect_right(pages, first, key=attrgetter("first")) - 1
        end = bisect_left(pages, first + len(keys), key=attrgetter("first"))
        return MemoryWrites(store, keys=keys, first=first, pages=pages[begin:end])

    def _take(self, entry: JournalEntry, positions: Mapping[str, int]) -> None:
        fields = entry.fields
        if entry.kind in ("kept", "written"):
            self.kept.setdefault(fields["store"], KeptBack()).take(entry)
            return
        if entry.kind == "start":
            self.lets = fields.get("lets") or {}
            self.sync = fields.get("sync") or {}
            return
        if entry.kind == "sync":
            self.synced.append(fields)
            return
        if entry.kind == "skipped":
            self.skipped.add(fields["stage"])
            return
        if entry.kind == "held":
            self.held.add(fields["stage"])
            return
        if entry.kind == "full":
            # Past its cap the journal knows completed actions only: what was active starts again.
            self.actions.clear()
            return
        key = fields["a"]
        if entry.kind == "again":
            self.forget(key)
            return
        if not holds(fields, positions) or ("left" in fields and fields["left"] not in self.left):
            if entry.kind in ("bind", "loop"):
                # What it begins with has lost its ground, and so has all that follows in this action.
                self.actions.setdefault(key, ActionPosition()).holds = False
            return
        if entry.kind == "action":
            self._rely(fields)
            self.left[key] = entry
            self.completed.append(key)
            self.totals = fields.get("totals") or self.totals
            self.actions.pop(key, None)
            return
        if entry.kind == "called":
            self._rely(fields)
            self.left[key] = entry
            self.called.add(key)
            self.actions.pop(key, None)
            return
        at = self.actions.setdefault(key, ActionPosition())
        if entry.kind == "bind":
            self._rely(fields)
            if at.step != fields["s"] or "again" in fields:
                self.decided.pop(key, None)
            if at.step != fields["s"]:
                at.loops.clear()
            at.holds = True
            at.step = fields["s"]
            at.variables = fields.get("vars") or {}
            having = self.left[fields["left"]] if "left" in fields else entry
            at.response_body = having.body
            at.is_raw = "raw" in having.fields
            at.failure = fields.get("failure")
            at.tries = fields.get("tries") or {}
            at.again = "again" in fields
            self.called.discard(key)
            at.meta = fields.get("meta")
            at.waits = fields.get("waits") or {}
            at.webhook = fields.get("webhook")
        elif entry.kind == "decided":
            assert entry.body is not None
            self.decided.setdefault(key, {})[fields["k"]] = entry.body
        elif entry.kind == "reply":
            self._take_said(key, entry)
        elif entry.kind == "failed" and "p" in fields:
            self._ask_again(key, fields)
        elif entry.kind == "failed":
            at.tries, at.again = {}, False
            if not at.loops:
                # What was only read on the way is read again; the way into a loop stays as it was.
                at.replies = {path: known for path, known in at.replies.items() if "effect" in known.fields}
        elif entry.kind == "loop":
            self.drop_said(key, fields["p"])
            if at.holds:
                self._rely(fields)
                at.loops[fields["p"]] = LoopPosition(
                    total=fields.get("total"),
                    keys=fields.get("keys"),
                    kept=fields.get("kept"),
                    items=decode(self.journal.read_body(entry.body)) if entry.body is not None else None,
                )
        elif entry.kind in ("progress", "checkpoint"):
            if not at.holds:
                return
            self._rely(fields)
            self.totals = fields.get("totals") or self.totals
            if "p" in fields:
                loop = at.loops.setdefault(fields["p"], LoopPosition())
                loop.index = fields["i"]
                loop.finished = tuple(fields.get("done") or ())
                loop.inner = [(path, at, total, checksum) for path, at, total, checksum in fields.get("in") or ()]
                self._forget_said(key, fields)
        elif entry.kind == "page":
            assert entry.body is not None
            pages = self.pages.setdefault(f"{key}:{fields['p']}", [])
            if fields["k"] <= len(pages):
                del pages[fields["k"] - 1 :]
            pages.append(
                JournaledPage(
                    number=fields["k"],
                    first=pages[-1].first + pages[-1].count if pages else 0,
                    body=entry.body,
                    next=fields["next"],
                    status=fields["st"],
                    count=fields["c"],
                    fingerprint=fields["fp"],
                    sent_at=fields.get("at"),
                    date=fields.get("date"),
                    since=fields.get("since"),
                    place=tuple(fields["items"]) if fields.get("items") is not None else None,
                )
            )
        elif entry.kind == "response":
            at.replies[fields["p"]] = entry

    def _rely(self, fields: Mapping[str, Value]) -> None:
        self.relied += 1
        for store, number in (fields.get("n") or {}).items():
            self.reached[store] = max(self.reached.get(store, 0), number)

    # --- what items were answered -------------------------------------------------------------------------------------

    def _take_said(self, key: str, entry: JournalEntry) -> None:
        fields = entry.fields
        of_item = self.said.setdefault((key, fields["p"], fields["i"]), {})
        of_item.setdefault(fields["k"], deque()).append(entry)

    def _forget_said(self, key: str, place: Mapping[str, Value]) -> None:
        """Whatever a place in a loop says is done is not asked for any more."""
        for of in [of for of in self.said if of[:2] == (key, place["p"])]:
            for request, entries in [*self.said[of].items()]:
                while entries and is_behind(entries[0].fields, place):
                    entries.popleft()
                if not entries:
                    del self.said[of][request]
            if not self.said[of]:
                del self.said[of]

    def _ask_again(self, key: str, fields: Mapping[str, Value]) -> None:
        """The item failed: what was only read for it is read anew, what had an effect is not done twice."""
        of_item = self.said.get((key, fields["p"], fields["i"]), {})
        for request, entries in [*of_item.items()]:
            kept = deque(e for e in entries if "effect" in e.fields and "failed" not in e.fields)
            of_item[request] = kept
            if not kept:
                del of_item[request]

    def take_said(self, at: Mapping[str, Value]) -> JournalEntry | None:
        """The next answer to a request of the item in work, if it was the same request."""
        of_item = self.said.get((at["a"], at["p"], at["i"]))
        entries = of_item.get(at["k"]) if of_item else None
        if not of_item or not entries:
            return None
        entry = entries.popleft()
        if entry.fields["fp"] != at["fp"]:
            entries.clear()
            return None
        return entry

    def knows_more(self, key: str | None, path: str, index: int) -> bool:
        """Whether there are answers left for an item."""
        return key is not None and any(self.said.get((key, path, index), {}).values())

    def drop_said(self, key: str | None, path: str) -> None:
        """A loop begins anew."""
        for of in [of for of in self.said if of[:2] == (key, path)]:
            del self.said[of]

    # --- asked by the engine ------------------------------------------------------------------------------------------

    def position(self, key: str) -> ActionPosition | None:
        at = self.actions.get(key)
        return None if at is None or at.taken else at

    def take_position(self, key: str) -> ActionPosition | None:
        """A called action's position, once."""
        at = self.actions.get(key)
        if at is None or at.taken:
            return None
        at.taken = True
        return at

    def knows_inside(self, key: str, step: int) -> bool:
        """Whether it goes on amid a step: in a loop of an arm, or in or behind an action that an arm calls."""
        at = self.actions.get(key)
        if at is not None and any("." in path for path in at.loops):
            return True
        inside = f"{key}('{step}."
        begun = (known for known, at in self.actions.items() if not at.taken)
        return any(known.startswith(inside) for known in (*self.called, *begun))

    def take_called(self, key: str) -> bool:
        """Whether a called action had ended, once."""
        if key not in self.called:
            return False
        self.called.discard(key)
        return True

    def forget(self, key: str) -> None:
        """A completed action runs again, from its beginning."""

        def belongs(other: str) -> bool:
            return other == key or other.startswith((f"{key}:", f"{key}("))

        self.called = {other for other in self.called if not belongs(other)}
        for known in (self.actions, self.pages, self.decided):
            for other in [other for other in known if belongs(other)]:
                del known[other]
        for of in [of for of in self.said if belongs(of[0])]:
            del self.said[of]

    def take_decision(self, key: str, place: str) -> BodyRef | None:
        """What a step had decided at a place, once: a second time it decides anew."""
        return self.decided.get(key, {}).pop(place, None)

    def take_loop(self, key: str | None, path: str) -> LoopPosition | None:
        """The loop's position, once: a second run of the same loop begins anew."""
        at = self.actions.get(key) if key is not None else None
        return at.loops.pop(path, None) if at is not None else None

    def take_pages(self, origin: str) -> list[JournaledPage]:
        """The pages of a fetch, once: a second run of the same step fetches anew."""
        return self.pages.pop(origin, [])

    def take_reply(self, key: str, path: str) -> JournalEntry | None:
        at = self.actions.get(key)
        return at.replies.pop(path, None) if at is not None else None


def _limits(
    opened: Mapping[str, Sequence[Any]], positions: Mapping[str, int], openings: Mapping[str, Mapping[str, int]]
) -> dict[str, int]:
    """The last line of each store that entries of one process may rely on.

    `opened`: by store, its opening then and the number that it began at. Lines of that number may be there by now and
    be another one's: after a power loss, or because they were undone.
    """
    limits = {}
    for store, (opening, began) in opened.items():
        known = openings.get(store)
        if known is not None and (opening in known or len(known) < MAX_OPENINGS):
            limits[store] = min(known.get(opening, began), positions.get(store, 0))
    return limits
