"""Alerts that are not delivered yet, on disk: one file each, one lane per target (spec/reliability.md 7).

A file is written before the first try and removed after the answer is noted, so a crash in between sends again with the
same id. Lanes never wait for each other; within a lane the notices of one incident keep their order.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import structlog

from reqon.clock import SYSTEM, Clock
from reqon.errors import StateError
from reqon.files import DISK, FileSystem, failpoint, is_temporary, make_directory
from reqon.values import JsonError, Value, convert, decode, encode, to_builtins
from reqon_daemon.incidents import Status

CAPACITY = 1000
KEEP_FOR = timedelta(hours=72)
FIRST_BACKOFF_SECONDS = 1.0
LANE_BACKOFF_SECONDS = 60.0
ENTRY_BACKOFF_SECONDS = 300.0
_READ_LIMIT = 1 << 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One notice for one target. `notice` is what the target makes its message from; `id` stays over retries."""

    id: str
    target: str
    status: Status
    incident: str
    created_at: datetime
    number: int
    notice: Value

    @property
    def file_name(self) -> str:
        return f"{self.target}-{self.id}.json"


class Answer(StrEnum):
    """What became of one try."""

    DELIVERED = "delivered"
    REJECTED = "rejected"  # for good
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`reason` is for people; `retry_after` seconds that the target asked for."""

    answer: Answer
    reason: str = ""
    retry_after: float | None = None


class Sender(Protocol):
    """Where a lane leads. `key` names it in files, `shown` to people; neither tells its secret."""

    key: str
    shown: str

    async def send(self, entry: Entry) -> Outcome:
        """Try once, within ten seconds in all. Raises nothing but cancellation."""

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(slots=True)
class Outbox:
    """The entries, in memory and on disk. `add` blocks and belongs in a thread; all else is quick."""

    directory: Path
    disk: FileSystem = DISK
    entries: dict[str, Entry] = field(default_factory=dict)
    dropped: int = 0
    unwritten: int = 0  # entries that are in memory only
    _number: int = 0

    def load(self, set_aside: Callable[[Path, str], object]) -> None:
        """Read what an earlier process left; what cannot be read is logged and set aside.

        What it was writing when it was killed goes: nobody was told of it, and it is judged again.
        """
        for name in self.disk.list(self.directory):
            if is_temporary(name):
                self.disk.remove(self.directory / name)
            if not name.endswith(".json"):
                continue
            try:
                entry = convert(decode(self.disk.read(self.directory / name, _READ_LIMIT)), Entry)
            except (OSError, StateError, JsonError) as error:
                file = str(self.directory / name)
                log.error("an undelivered alert cannot be read", file=file, error=str(error))  # noqa: TRY400  # no bug
                # The same alert, told again, would be written over it.
                set_aside(self.directory / name, f"is no alert: {error}")
                continue
            self.entries[entry.file_name] = entry
            self._number = max(self._number, entry.number)

    def add(self, entries: Iterable[Entry]) -> list[Entry]:
        """Keep these; those that are there already, by target and id, stay as they are.

        A disk that refuses leaves them in memory: `unwritten` counts them. Answers what is new.
        """
        fresh: list[Entry] = []
        for entry in entries:
            if entry.file_name in self.entries:
                continue
            self._number += 1
            kept = replace(entry, number=self._number)
            self._write(kept)
            self.entries[kept.file_name] = kept  # a lane sees it from here on, after it is on disk
            fresh.append(kept)
        self._shrink()
        return [entry for entry in fresh if entry.file_name in self.entries]

    def remove(self, entry: Entry) -> None:
        """The entry is delivered, or never will be."""
        failpoint("before-outbox-remove")
        if self.entries.pop(entry.file_name, None) is not None:
            try:
                self.disk.remove(self.directory / entry.file_name)
            except OSError as error:
                problem = "a delivered alert cannot be removed; it may be sent again"
                log.error(problem, error=str(error))  # noqa: TRY400  # no bug
        failpoint("after-outbox-remove")

    def of(self, target: str) -> list[Entry]:
        """A target's entries, oldest first."""
        return [entry for entry in self._oldest_first() if entry.target == target]

    def waiting_for(self, target: str, incident: str) -> list[Status]:
        """What is still to be said to a target about an incident."""
        return [e.status for e in self.of(target) if e.incident == incident]

    def _write(self, entry: Entry) -> None:
        try:
            make_directory(self.directory)
            self.disk.replace(self.directory / entry.file_name, encode(to_builtins(entry)), "outbox")
        except OSError as error:
            self.unwritten += 1
            problem = "an alert cannot be written down; it is sent from memory"
            log.error(problem, error=str(error))  # noqa: TRY400  # no bug

    def _shrink(self) -> None:
        """Above the capacity repeats go first, then resolved notices, then first notices become one summary."""
        for status in (Status.REPEAT, Status.UPDATE, Status.RESOLVED):
            for entry in self._oldest_first():
                if len(self.entries) <= CAPACITY:
                    return
                if entry.status is status:
                    self.dropped += 1
                    self.remove(entry)
        while len(self.entries) > CAPACITY and self._merge_firsts():
            pass

    def _merge_firsts(self) -> bool:
        """Put half of the first notices of the target that has most into one; False if there is nothing to merge."""
        targets = Counter(entry.target for entry in self._oldest_first())
        target, number = targets.most_common(1)[0]
        merged = self.of(target)[: max(2, number // 2)]
        if len(merged) < 2:
            return False
        oldest = merged[0]
        missions: list[Value] = []
        for entry in merged:
            missions += entry.notice.get("missions", [])
        number = oldest.notice.get("merged", 1) + sum(e.notice.get("merged", 1) for e in merged[1:])
        summary = f"{number} alerts, among them: {oldest.notice.get('summary', '')}"
        notice = {**oldest.notice, "summary": summary, "missions": missions[:CAPACITY], "merged": number}
        one = replace(oldest, id=f"{oldest.id}-merged-{merged[-1].number}", notice=notice)
        self._write(one)
        self.entries[one.file_name] = one
        for entry in merged:
            self.remove(entry)
        return True

    def _oldest_first(self) -> list[Entry]:
        # One step for the interpreter: `add` may be at work in its thread.
        entries = list(self.entries.values())
        return sorted(entries, key=lambda entry: entry.number)


@dataclass(slots=True)
class Lane:
    """Delivers one target's entries until it is cancelled. A target that fails is left alone for a while."""

    sender: Sender
    outbox: Outbox
    clock: Clock = SYSTEM
    told: Callable[[Entry, Outcome], None] | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _failures: int = 0
    _open_at: float = 0.0
    _tries: dict[str, int] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """There is something new."""
        self.idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Send what is there and what comes, for ever."""
        while True:
            self._wake.clear()
            entry = self._next()
            if entry is None:
                self.idle.set()
                await self._wake.wait()
                continue
            self.idle.clear()
            wait = max(self._open_at, self._due.get(entry.file_name, 0.0)) - self.clock.monotonic()
            if wait > 0:
                self.idle.set()  # nothing is in flight, and a stop need not wait for the target to recover
                await self._pause(wait)
                continue
            await self._try(entry)

    def _next(self) -> Entry | None:
        """The entry to try first: the one due soonest whose incident has no older one here."""
        heads: dict[str, Entry] = {}
        for entry in self.outbox.of(self.sender.key):
            heads.setdefault(entry.incident, entry)
        return min(heads.values(), key=lambda e: (self._due.get(e.file_name, 0.0), e.number), default=None)

    async def _pause(self, seconds: float) -> None:
        # New entries may be due sooner; a closed lane stays closed for them all the same.
        async with asyncio.TaskGroup() as either:
            sleeping = either.create_task(self.clock.sleep(seconds))
            waking = either.create_task(self._wake.wait())
            await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
            sleeping.cancel()
            waking.cancel()

    async def _try(self, entry: Entry) -> None:
        name = entry.file_name
        try:
            outcome = await self.sender.send(entry)
        except Exception:  # one of the four walls: a target's fault must not reach the other lanes
            log.exception("sending an alert failed", target=self.sender.shown, alert_id=entry.id)
            outcome = Outcome(Answer.LATER, "a fault of Reqon itself")
        if outcome.answer is Answer.LATER and self.clock.now() - entry.created_at >= KEEP_FOR:
            hours = KEEP_FOR / timedelta(hours=1)
            outcome = Outcome(Answer.REJECTED, f"given up after {hours:.0f} h: {outcome.reason}")
        if outcome.answer is Answer.LATER:
            self._fail(name, outcome.retry_after)
        else:
            self._failures = 0
            self._tries.pop(name, None)
            self._due.clear()  # a target that answers again gets all that waits
            failpoint("before-outbox-note")
        if self.told is not None:
            self.told(entry, outcome)
        if outcome.answer is not Answer.LATER:
            self.outbox.remove(entry)

    def _fail(self, name: str, retry_after: float | None) -> None:
        self._failures += 1
        tries = self._tries[name] = self._tries.get(name, 0) + 1
        now = self.clock.monotonic()
        self._open_at = now + max(retry_after or 0.0, backoff_seconds(self._failures, LANE_BACKOFF_SECONDS))
        self._due[name] = now + max(retry_after or 0.0, backoff_seconds(tries, ENTRY_BACKOFF_SECONDS))


def backoff_seconds(failures: int, ceiling: float) -> float:
    """Seconds to leave a target alone after so many failures in a row: doubling, with a fifth of jitter."""
    wait = min(ceiling, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 30))
    return wait * random.uniform(0.8, 1.0)  # noqa: S311  # spreads load, keeps no secret
