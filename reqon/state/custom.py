"""A user's own state store: an object with `save` and `load`, and whatever else it can do (spec/state.md 10).

Its methods may be plain or coroutine functions. All are called in one thread that belongs to the store, one after
another, coroutines on that thread's own event loop: what they open there stays usable.
"""

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Protocol, runtime_checkable

from reqon.clock import rfc3339
from reqon.errors import ConfigurationError, ReqonError, StateError
from reqon.files import DamagedFileError, lock_is_free
from reqon.state.backend import BodyRef, Journal, JournalEntry, SyncCheckpoint, last_place, was_asked_for
from reqon.state.compaction import PASSING, is_worth_it, superseded
from reqon.state.directory import StateDirectory, StateWriteError
from reqon.state.file import FileBackend
from reqon.state.index import IdIndex
from reqon.state.journal import DEFAULT_MAX_BYTES
from reqon.state.numbered import NumberedJournal
from reqon.state.records import (
    ExecutionRecord,
    ExecutionStatus,
    NewerRecordError,
    as_interrupted,
    as_seen,
    from_dict,
    is_newer,
    to_json,
)
from reqon.state.sync import SyncCheckpoints
from reqon.values import OWN_DEPTH, Record, Value, decode, encode

log = logging.getLogger("reqon")

JOURNAL_MAX_BYTES = 256 * 1024 * 1024  # held in memory while it is in use
CALL_SECONDS = 60.0
_RUNNING, _INTERRUPTED = ExecutionStatus.RUNNING, ExecutionStatus.INTERRUPTED
_SIGNATURES = {
    "save": "save(state)",
    "load": "load(execution_id)",
    "list": "list(mission, limit, since, status)",
    "delete": "delete(id)",
    "append": "append(id, entries)",
    "replay": "replay(id)",
    "discard": "discard(id)",
    "forget": "forget(id, numbers)",
    "get_sync": "get_sync(key)",
    "put_sync": "put_sync(changes)",
    "clear_sync": "clear_sync(key)",
    "lease": "lease(mission, owner, ttl)",
}
_TOGETHER = (("append", "replay", "discard"), ("get_sync", "put_sync", "clear_sync"))


@runtime_checkable
class StateStore(Protocol):
    """What a state store must do; `reqon.testing.state_store_suite` says what each of the other methods must.

    `state` is the execution record as a JSON object with the documented keys (spec/state.md 2).
    """

    def save(self, state: Record) -> Value:
        """Keep the record, in place of what was kept under its `executionId`. Called many times in a run."""

    def load(self, execution_id: str) -> Value:
        """The record last saved under this id, None if there is none."""


class CustomStore:
    """A registered store: calls its methods, plain or coroutine functions, in the store's own thread.

    Raises:
        ConfigurationError: a method is missing that it cannot be without; the sentence names it.
    """

    def __init__(self, name: str, store: object, *, seconds: float = CALL_SECONDS) -> None:
        """`seconds`: how long a call is waited for, those before it included."""
        self.name = name
        self.seconds = seconds
        self.store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"reqon-state-{name}")
        self._loop = asyncio.Runner()
        self.require("save", "load")
        for group in _TOGETHER:
            if any(self.can(method) for method in group):
                self.require(*group)

    def can(self, *methods: str) -> bool:
        return all(callable(getattr(self.store, method, None)) for method in methods)

    def require(self, *methods: str, purpose: str = "") -> None:
        """Refuse what the store cannot do.

        Raises:
            ConfigurationError: names the first method that is missing, and what it is needed for.
        """
        for method in methods:
            if not self.can(method):
                raise ConfigurationError(
                    f"the state store '{self.name}' has no {_SIGNATURES[method]}" + (f": {purpose}" if purpose else ""),
                    code="state-store",
                    hint=f"add the method {method} to the object given to set_state_store, or use stateStore: file",
                )

    def submit(self, method: str, *arguments: Value, **named: Value) -> "Future[Value]":
        """Begin a call; those begun earlier are done first."""
        return self._thread.submit(self._run, method, arguments, named)

    def _run(self, method: str, arguments: tuple[Value, ...], named: Mapping[str, Value]) -> Value:
        result = getattr(self.store, method)(*arguments, **named)
        if not hasattr(result, "__await__"):
            return result

        async def finish() -> Value:
            return await result

        return self._loop.run(finish())

    def call(self, method: str, *arguments: Value, **named: Value) -> Value:
        """What a method answers.

        Raises:
            StateWriteError: it raised, which says what, or has not answered for `seconds`.
        """
        return self.finished(method, self.submit(method, *arguments, **named))

    def finished(self, method: str, future: "Future[Value]") -> Value:
        try:
            error = future.exception(self.seconds)
        except TimeoutError as late:
            raise StateWriteError(
                f"the state store '{self.name}' has not answered {method}() for {self.seconds:g} s",
                hint="give its calls a deadline of their own, so that they say what they wait for",
            ) from late
        if error is None:
            return future.result()
        if isinstance(error, ReqonError) or not isinstance(error, Exception):
            raise error
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise StateWriteError(f"the state store '{self.name}' failed in {method}(): {reason}") from error

    def close(self) -> None:
        """End its thread and event loop. The object itself is the user's."""
        self._thread.submit(self._loop.close)
        self._thread.shutdown(wait=False)  # a call that never ends keeps nobody


_stores: dict[str, CustomStore] = {}
_default: str | None = None
BUILT_IN_STATE_STORES = ("file", "postgres", "sqlite")
DEFAULT_NAME = "custom"


def set_state_store(store: object | None, *, name: str | None = None) -> None:
    """Keep executions in a store of your own.

    With a name, missions that say `stateStore: <name>` use it; without one, all that say nothing about it do. None
    takes it away again. The object has `save(state)` and `load(execution_id)`, plain or coroutine functions; the more
    of the other methods of spec/state.md 10 it has, the more is kept there.

    Raises:
        ConfigurationError: the name is one of ours or no identifier, or a method is missing; names it.
    """
    global _default  # noqa: PLW0603  # a registry of the process, like the stores' own
    if name is not None and (name in BUILT_IN_STATE_STORES or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)):
        problem = "is built in" if name in BUILT_IN_STATE_STORES else "is no identifier"
        raise ConfigurationError(f"'{name}' cannot be the name of a state store: it {problem}")
    chosen = name or DEFAULT_NAME
    made = None if store is None else CustomStore(chosen, store)
    before = _stores.pop(chosen, None)
    if before is not None:
        before.close()
    if made is not None:
        _stores[chosen] = made
    if name is None:
        _default = None if made is None else chosen


def registered_state_stores() -> Mapping[str, CustomStore]:
    """The user's own stores by name."""
    return _stores


def default_state_store() -> str:
    """Where missions that say nothing about it keep their executions."""
    return _default or "file"


class CustomBackend:
    """See `reqon.state.backend.StateBackend`. What the store has no methods for stays on this disk, or is refused."""

    def __init__(self, directory: StateDirectory, store: CustomStore, *, journal_max: int = DEFAULT_MAX_BYTES) -> None:
        self.directory = directory
        self.name = store.name
        self._store = store
        self._index = None if store.can("list") else IdIndex(directory, store.name)
        self._local = FileBackend(directory, journal_max=journal_max)
        self._journal_max = min(journal_max, JOURNAL_MAX_BYTES)
        self._sync = _Sync(directory, store)
        self._pending: dict[str, _Pending] = {}
        self.leases = store.can("lease")

    def wraps(self, store: CustomStore) -> bool:
        """Whether it works for this registered store."""
        return self._store is store

    def check(self, *, retention: bool) -> None:
        """Refuse a mission before it begins.

        Raises:
            ConfigurationError: it keeps records for a time only, and the store cannot delete.
        """
        if retention:
            self._store.require("delete", purpose="stateRetention cannot be kept")

    # --- writing ---

    def create(self, record: ExecutionRecord) -> ExecutionRecord:
        record = replace(record, file_name=record.execution_id)
        if self._index is not None:
            # First, so that no record is ever without its entry; an entry without a record is passed over.
            self._index.put(record)
        self._call("save", _state(record))
        return record

    def save(self, record: ExecutionRecord, *, durable: bool = True) -> None:
        """See `StateBackend.save`. A save that is not durable does not wait for the store."""
        if is_newer(record):
            raise _newer(record)
        if durable:
            if self._index is not None:
                self._index.put(record)
            self._call("save", _state(record))
            self._pending.pop(record.execution_id, None)
            return
        # Of progress that the store has not come round to yet only the newest is worth its time.
        pending = self._pending.get(record.execution_id)
        if pending is not None and not pending.future.running() and pending.future.cancel():
            pending = None
        elif pending is not None and pending.future.done():
            self._report(pending)
        self._pending[record.execution_id] = _Pending(self._store.submit("save", _state(record)))

    def _report(self, pending: "_Pending") -> None:
        error = None if pending.future.cancelled() else pending.future.exception()
        if error is not None:
            self.directory.warn_once(f"the state store '{self.name}' failed in save(): {type(error).__name__}: {error}")

    def delete(self, record: ExecutionRecord) -> int:
        if is_newer(record):
            raise _newer(record)
        self._store.require("delete", purpose=f"{record.execution_id} of {record.mission} stays")
        lock = self.directory.execution_lock(record.execution_id)
        if not lock.take():
            raise StateError(f"{record.execution_id} of {record.mission} is running", code="running")
        try:
            if record.status is _RUNNING and self.leases and self._runs_elsewhere(record):
                raise StateError(f"{record.execution_id} of {record.mission} is running elsewhere", code="running")
            freed = self.stored_bytes(record)
            self.journal(record).discard()
            self.directory.remove_log(record.execution_id)
            self._call("delete", record.execution_id)
            if self._index is not None:
                self._index.remove(record.execution_id)
            lock.remove()
        finally:
            lock.release()
        return freed

    def stored_bytes(self, record: ExecutionRecord) -> int:
        found = self._read(record.execution_id)
        if found is None:
            return 0
        size = len(to_json(found)) + self.directory.log_bytes(record.execution_id)
        if self._store.can("replay"):
            return size + sum(len(encode(entry)) for entry in self._call("replay", record.execution_id) or ())
        return len(to_json(found)) + self._local.stored_bytes(found)

    def _call(self, method: str, *arguments: Value, **named: Value) -> Value:
        try:
            return self._store.call(method, *arguments, **named)
        except StateWriteError:
            self.directory.write_errors += 1
            raise

    # --- reading ---

    def load(self, execution_id: str) -> ExecutionRecord | None:
        record = self._read(execution_id)
        return None if record is None else self._shown(record)

    def _read(self, execution_id: str) -> ExecutionRecord | None:
        state = self._call("load", execution_id)
        return None if state is None else self._understood(state)

    def _understood(self, state: Value) -> ExecutionRecord | None:
        """A state as its record; what is none is told once, and passed over."""
        what = f"a record in the state store '{self.name}'"
        if not isinstance(state, Mapping):
            self.directory.warn_once(f"{what} is no JSON object but {type(state).__name__}")
            return None
        # Names that begin so are the database's own, such as _id.
        own = {key: value for key, value in state.items() if not str(key).startswith("_")}
        try:
            return from_dict(own, file_name=str(own.get("executionId", "")))
        except (DamagedFileError, NewerRecordError) as error:
            self.directory.warn_once(f"{what} {error.message}")
            return None

    def list(
        self,
        mission: str | None = None,
        *,
        limit: int | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        status: ExecutionStatus | None = None,
    ) -> list[ExecutionRecord]:
        if limit is not None and limit <= 0:
            return []
        records = self._records(mission, limit=limit, since=since, before=before, status=status)
        asked = (record for record in records if was_asked_for(record, mission, since=since, before=before))
        shown = (record for record in map(self._shown, asked) if status in (None, record.status))
        return [*islice(shown, limit)]

    def _records(
        self,
        mission: str | None,
        *,
        limit: int | None,
        since: datetime | None,
        before: datetime | None,
        status: ExecutionStatus | None,
    ) -> Iterator[ExecutionRecord]:
        # A dead owner's record says `running` and counts as interrupted.
        words = None if status is None else [status.value, _RUNNING.value][: 2 if status is _INTERRUPTED else 1]
        if self._index is not None:
            for execution_id in self._index.ids(mission, since=since, before=before, words=words):
                if (record := self._read(execution_id)) is not None:
                    yield record
            return
        named: dict[str, Value] = {"mission": mission, "since": rfc3339(since) if since else None}
        # Some of what it answers may not count: then it must not stop at the limit.
        named["limit"] = limit if before is None and status is not _RUNNING else None
        states: list[Value] = []
        for word in [None] if words is None else words:
            if word == _RUNNING.value:
                named["limit"] = None
            states += self._call("list", **named, status=word) or ()
        records = [record for state in states if (record := self._understood(state)) is not None]
        yield from sorted(records, key=lambda r: (r.started_at, r.execution_id), reverse=True)

    def latest(self) -> Sequence[ExecutionRecord]:
        newest: dict[str, ExecutionRecord] = {}
        if self._index is not None:
            for mission in self._index.missions():
                newest |= {r.mission: r for r in self.list(mission, limit=1)}
        else:
            for record in self.list():
                newest.setdefault(record.mission, record)
        return [newest[mission] for mission in sorted(newest)]

    def orphans(self, mission: str | None = None) -> Sequence[ExecutionRecord]:
        running = self._records(mission, limit=None, since=None, before=None, status=_RUNNING)
        return [
            record
            for record in running
            if record.status is _RUNNING and mission in (None, record.mission) and not self._is_alive(record)
        ]

    def _shown(self, record: ExecutionRecord) -> ExecutionRecord:
        """The record as readers see it: interrupted if its owner is dead."""
        if record.status is not _RUNNING:
            return record
        if self._is_alive(record):
            # A store's own journal is read as a whole: too much for a look.
            return record if self._store.can("replay") else as_seen(record, last_place(self.journal(record)))
        # It may have ended between the two looks.
        record = self._read(record.execution_id) or record
        if record.status is not _RUNNING:
            return record
        return as_interrupted(record, last_place(self.journal(record)))

    def _is_alive(self, record: ExecutionRecord) -> bool:
        if not lock_is_free(self.directory.execution_lock_path(record.execution_id)):
            return True
        return self.leases and self._runs_elsewhere(record)

    def _runs_elsewhere(self, record: ExecutionRecord) -> bool:
        """Whether another machine holds the mission's lease. Ours is no answer: here the lock decides."""
        here = self.directory.instance
        if record.owner is None or record.owner.instance == here:
            return False
        # Nobody's name: it takes nothing that anybody has.
        return not self.lease(record.mission, f"{here}?", 0.0)

    # --- journals and sync checkpoints ---

    def journal(self, record: ExecutionRecord) -> Journal:
        if self._store.can("append"):
            return CustomJournal(self._store, record.execution_id, self._journal_max)
        return self._local.journal(replace(record, file_name=record.execution_id))

    def sync_checkpoints(self, mission: str) -> Mapping[str, SyncCheckpoint]:
        self._store.require("get_sync", purpose=f"the sync checkpoints of mission '{mission}' have no place")
        return self._sync.of(mission)

    def put_sync(self, mission: str, changes: Mapping[str, SyncCheckpoint]) -> None:
        self._store.require("put_sync", purpose=f"the sync checkpoints of mission '{mission}' have no place")
        self._sync.put(mission, changes)

    def clear_sync(self, key: str | None) -> int:
        return self._sync.clear(key) if self._store.can("clear_sync") else 0

    def lease(self, mission: str, owner: str, ttl_seconds: float) -> bool:
        return not self.leases or bool(self._call("lease", mission, owner, ttl_seconds))

    def close(self) -> None:
        """Wait for saves that are under way. The store itself stays registered."""
        for pending in self._pending.values():
            self._report(pending)
        self._pending.clear()
        if self._index is not None:
            self._index.close()


@dataclass(frozen=True, slots=True)
class _Pending:
    """A save of progress that nobody waits for."""

    future: "Future[Value]"


def _state(record: ExecutionRecord) -> Record:
    """The record as a JSON object, secrets redacted, at most 1 MiB as text."""
    state: Record = decode(to_json(record), depth=OWN_DEPTH)
    return state


def _newer(record: ExecutionRecord) -> StateError:
    return StateError(
        f"{record.execution_id} was written by Reqon {record.reqon_version} and is left as it is",
        hint="use that version, or a newer one",
    )


class CustomJournal(NumberedJournal):
    """See `reqon.state.backend.Journal`. Entries go to the store as `{"n", "kind", "fields", "body"?}`, `n` from 0.

    A reference's offset is the entry's `n`. Bodies stay in memory until `close`.
    """

    def __init__(self, store: CustomStore, execution_id: str, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._store = store
        self._id = execution_id
        self._buffer: list[Record] = []
        self._bodies: dict[int, bytes] = {}
        self._written = False
        self._taken = -1  # the number of the last entry that the store has taken
        self._forgets = store.can("forget")
        self._passing: list[tuple[int, JournalEntry]] = []  # what later entries may supersede
        self._passing_bytes = 0

    def _add(self, kind: str, fields: bytes, body: bytes | None) -> BodyRef | None:
        number = self._next
        entry: Record = {"n": number, "kind": kind, "fields": decode(fields, depth=OWN_DEPTH)}
        self._next += 1
        self._size += len(fields) + len(body or b"")
        ref = None
        if body is not None:
            entry["body"] = body.decode()
            self._bodies[number] = body
            ref = BodyRef(number, len(body))
        self._buffer.append(entry)
        if self._forgets and kind in PASSING:
            self._passing.append((number, JournalEntry(kind, entry["fields"], ref)))
            self._passing_bytes += len(fields) + len(body or b"")
        return ref

    def _replayed(self) -> list[Record]:
        """What the store has, in order; an entry that was appended twice counts once."""
        by_number = {entry["n"]: entry for entry in self._store.call("replay", self._id) or ()}
        return [by_number[n] for n in sorted(by_number)]

    def _look(self) -> None:
        for _ in self.entries():
            pass

    def write(self) -> None:
        # The run goes on while a checkpoint writes in another thread: what comes meanwhile is the next call's.
        taken, self._buffer = self._buffer, []
        if taken:
            try:
                self._store.call("append", self._id, taken)
            except BaseException:
                self._buffer = taken + self._buffer
                raise
            self._written = True
            self._taken = max(self._taken, taken[-1]["n"])

    def sync(self) -> None:
        """As `write`: what a store has taken, it keeps."""
        self.write()

    def entries(self) -> Iterator[JournalEntry]:
        found = self._replayed()
        self._next = max(self._next, found[-1]["n"] + 1 if found else 0)
        self._taken = found[-1]["n"] if found else -1
        self._size = self._passing_bytes = 0
        self._passing = []
        for stored in found:
            body = stored.get("body")
            if body is not None:
                self._bodies[stored["n"]] = body.encode()
            length = len(encode(stored["fields"])) + len(body or "")
            self._size += length
            self._full = self._full or stored["kind"] == "full"
            if self._forgets and stored["kind"] in PASSING:
                self._passing.append((stored["n"], self._entry(stored)))
                self._passing_bytes += length
        for stored in found:
            yield self._entry(stored)

    def _entry(self, stored: Record) -> JournalEntry:
        body = self._bodies.get(stored["n"])
        return JournalEntry(stored["kind"], stored["fields"], None if body is None else BodyRef(stored["n"], len(body)))

    def compact(self, safe: Mapping[str, int]) -> None:
        """See `Compacting`. A store that has no `forget` keeps everything until the execution completes."""
        if not self._forgets or not is_worth_it(self._passing_bytes, self._size, self._max_bytes):
            return
        # What the store has not taken yet counts for nothing. An entry that comes just now may be overlooked: it stays.
        known, self._passing, self._passing_bytes = self._passing, [], 0
        gone = set(superseded([(number, entry) for number, entry in known if number <= self._taken], safe))
        self._passing = [(number, entry) for number, entry in known if number not in gone] + self._passing
        if gone:
            self._store.call("forget", self._id, sorted(gone))
            self._size -= sum(_bytes_of(entry) for number, entry in known if number in gone)
            for number in gone:
                self._bodies.pop(number, None)

    def last(self, *kinds: str) -> JournalEntry | None:
        return next((entry for entry in reversed(list(self.entries())) if entry.kind in kinds), None)

    def read_body(self, ref: BodyRef) -> bytes:
        if ref.offset not in self._bodies:
            self._look()
        try:
            return self._bodies[ref.offset]
        except KeyError:
            raise DamagedFileError(f"the journal of {self._id} has no entry {ref.offset}") from None

    @property
    def exists(self) -> bool:
        return self._written or bool(self._replayed())

    def close(self) -> None:
        self.write()
        self._bodies.clear()

    def discard(self) -> None:
        self._buffer.clear()
        self._bodies.clear()
        self._store.call("discard", self._id)
        self._next, self._size, self._full, self._written = -1, 0, False, False
        self._passing, self._passing_bytes, self._taken = [], 0, -1


def _bytes_of(entry: JournalEntry) -> int:
    return len(encode(dict(entry.fields))) + (entry.body.length if entry.body is not None else 0)


class _Sync(SyncCheckpoints):
    """Sync checkpoints whose entries the store keeps; the rules are the file's."""

    def __init__(self, directory: StateDirectory, store: CustomStore) -> None:
        super().__init__(directory)
        self._store = store
        self._known: Record = {}

    def clear(self, key: str | None) -> int:
        entries = self._read()
        gone = len(entries) if key is None else int(key in entries)
        if gone:
            self._store.call("clear_sync", key)
        return gone

    def _read(self) -> dict[str, Value]:
        entries = self._store.call("get_sync", None) or {}
        if not isinstance(entries, Mapping):
            raise self._damaged("get_sync(None) answered no mapping of keys to entries")
        self._known = dict(entries)
        return dict(entries)

    def _write(self, entries: Record) -> None:
        self._store.call("put_sync", {k: v for k, v in entries.items() if self._known.get(k) != v})
