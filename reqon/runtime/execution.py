"""One execution: what it carries, its totals, and how it saves where it is."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from reqon.clock import Clock
from reqon.errors import ReqonError
from reqon.events import (
    ACTION,
    PER_ITEM,
    CheckpointSaved,
    DataStored,
    Emitted,
    ErrorRecorded,
    Event,
    EventBus,
    ItemsCounted,
    Noticed,
    Progressed,
)
from reqon.runtime.hooks import NO_HOOKS, Hooks
from reqon.runtime.request import OnlyItem
from reqon.runtime.stopping import StopRun, StopSignal
from reqon.runtime.world import RunWorld
from reqon.secrets import SECRETS
from reqon.state.backend import Journal, StateBackend
from reqon.state.compaction import Compacting
from reqon.state.records import (
    MAX_ERRORS,
    ActiveStep,
    Checkpoint,
    ExecutionRecord,
    ExecutionStatus,
    RunError,
    StoreTotals,
)
from reqon.stores.base import LocalStore, WriteCounts
from reqon.stores.file import FileStore
from reqon.stores.remote import RemoteStore, WriteThrough
from reqon.stores.waiting import bridged
from reqon.values import Value

if TYPE_CHECKING:
    from reqon.http.client import Client
    from reqon.lang.operators import StoreHandle
    from reqon.runtime.endpoints import WaitingRoom
    from reqon.runtime.engine import Engine
    from reqon.runtime.plan import Plan
    from reqon.runtime.resume import ResumePoint
    from reqon.runtime.sync import PendingSync

log = logging.getLogger("reqon")
T = TypeVar("T")

PREVIEW_BYTES = 200
RECORD_INTERVAL_SECONDS = 0.1
PROGRESS_INTERVAL_SECONDS = 0.1
WRITE_OUT_SECONDS = 1.0  # how long a remote store's writes may be kept back


@dataclass(slots=True)
class OpenStore:
    """A store of this execution, with what it had counted before we came."""

    name: str
    store: LocalStore
    handle: "StoreHandle"
    before: WriteCounts
    carried: StoreTotals = field(default_factory=StoreTotals)
    told: WriteCounts = field(default_factory=WriteCounts)

    @property
    def is_memory(self) -> bool:
        return self.store.kind == "memory"

    @property
    def remote(self) -> RemoteStore | None:
        return self.store if isinstance(self.store, RemoteStore) else None

    @property
    def through(self) -> "LocalStore | WriteThrough":
        """The store for steps whose failure somebody sees, so that nothing may be kept back."""
        return self.store if self.remote is None else WriteThrough(self.remote)

    def totals(self) -> StoreTotals:
        """What was done to it; `count` of a remote one as it was last asked for."""
        remote = self.remote
        return replace(self.totals_without_count(), count=self.store.count() if remote is None else remote.size)

    def totals_without_count(self) -> StoreTotals:
        own = self.store.counts - self.before
        carried = self.carried
        if self.remote is not None and not self.remote.adapter.counts_changes:
            return StoreTotals(
                added=carried.added + own.added, updated=None, unchanged=None, deleted=carried.deleted + own.deleted
            )
        return StoreTotals(
            added=carried.added + own.added,
            updated=(carried.updated or 0) + own.updated,
            unchanged=(carried.unchanged or 0) + own.unchanged,
            deleted=carried.deleted + own.deleted,
        )


def internal_error(error: BaseException, execution_id: str) -> ReqonError:
    """What is raised by a bug of ours, as a failure of its run; the log gets its traceback."""
    log.error("a bug in Reqon ended %s", execution_id, exc_info=error)
    return ReqonError(
        f"internal error: {type(error).__name__}: {error}", hint="this is a bug in Reqon; the log has its traceback"
    )


class Execution:
    """Passed down to every step of a run, never global.

    The order of a commit is always: the stores' lines, the journal's entries, the record, the event.
    """

    def __init__(
        self,
        plan: "Plan",
        record: ExecutionRecord,
        *,
        clock: Clock,
        stop: StopSignal,
        bus: EventBus,
        backend: StateBackend | None,
        journal: Journal | None,
        stores: Mapping[str, OpenStore],
        clients: "Mapping[str, Client]",
        lets: Mapping[str, Value],
        sync: "PendingSync",
        resume: "ResumePoint | None" = None,
        random: Callable[[], float],
        checkpoint_seconds: float = 1.0,
        dead_letters: "Callable[[], OpenStore] | None" = None,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self.plan = plan
        self.hooks = hooks
        self.record = record
        self.clock = clock
        self.stop = stop
        self.bus = bus
        self.backend = backend
        self.journal = journal
        self.stores = dict(stores)
        self.clients = clients
        self.lets = lets
        self.sync = sync
        self.world = RunWorld(clock, plan.environment, sync)
        self.resume = resume
        self.random = random
        self.checkpoint_seconds = checkpoint_seconds
        self.seq = 0
        self.actions_run: list[str] = list(record.actions_run)
        if resume is not None and len(resume.completed) > len(self.actions_run):
            # The journal is written first: the record may not have heard of the last one.
            self.actions_run = [key.partition("/")[2] for key in resume.completed]
        self.errors: list[RunError] = []
        self.errors_total = 0
        self.raised: list[ReqonError] = []
        self.active: dict[str, ActiveStep] = {}
        self.checkpoints: dict[str, Checkpoint] = dict(record.checkpoints)
        self.loop_items = 0
        self.stored_items = 0
        self.fetched_items = 0
        self._began_work = 0
        self.requests = record.requests
        self.retries = record.retries
        self.invalid = record.invalid
        self._told_invalid = self.invalid
        self.written_key: str | None = None  # of the last store step that wrote one record
        self._skipped = 0
        self._notices: dict[str, int] = {}
        self._dead_letters = dead_letters
        self._started = clock.monotonic()
        self._record_at = 0.0
        self.paged = False  # whether a page was fetched and journaled
        self._told_advance = False
        self._opened: dict[str, tuple[str, int]] = {}  # what the journal knows of these stores being open
        # Store lines on which the journal's last entry relies that relies on any.
        self.relied: Mapping[str, int] = resume.reached if resume is not None else {}
        self._progress_at = 0.0
        self._sync_lock = asyncio.Lock()
        self.room: WaitingRoom | None = None  # where a webhook server runs
        self.waited = False  # at an endpoint: a run that waits in peace is no poison, however often it is resumed
        # It failed because too few events came, and is resumed: then they are waited for once more.
        self.retries_timeout = any(error.type == "webhook_timeout" for error in record.errors)
        self.only: OnlyItem | None = None
        self.engine: Engine
        self.background: asyncio.TaskGroup | None = None
        # File stores are flushed before anything that relies on them; memory ones are journaled instead.
        self._file_stores = [s for s in self.stores.values() if not s.is_memory and s.remote is None]
        self._join_stores()
        self._memory_stores = [s for s in self.stores.values() if s.is_memory]
        self._remotes = {s.name: s.remote for s in self.stores.values() if s.remote is not None}
        self._dirty = asyncio.Event()
        for remote in self._remotes.values():
            remote.changed = self._dirty.set
        self._wants_progress = bus.wants(Progressed)

    def _join_stores(self) -> None:
        files = [opened.store for opened in self._file_stores if isinstance(opened.store, FileStore)]
        for store in files:
            store.join(files)

    # --- telling ------------------------------------------------------------------------------------------------------

    def emit(self, event: Event, *, action: str | None = None, duration_ms: int | None = None) -> None:
        """Tell whoever listens; stamps execution, mission, action and time."""
        if self.bus.wants(type(event)):
            if not event.internal:
                self.seq += 1
            record, action = self.record, action or ACTION.get()
            self.bus.emit(
                Emitted(event, self.seq, record.execution_id, record.mission, self.clock.now(), action, duration_ms)
            )

    def since(self, started: float) -> int:
        """The milliseconds from a moment of the monotonic clock until now."""
        return round((self.clock.monotonic() - started) * 1000)

    @property
    def watched(self) -> bool:
        """Whether somebody wants to hear of each item. Actions that begin then are compiled to tell it."""
        return self.bus.wants(*PER_ITEM)

    def wants(self, *kinds: type[Event]) -> bool:
        return self.bus.wants(*kinds)

    def notice(self, message: str, *, level: str = "warning", location: str | None = None, limit: int = 100) -> None:
        """A line for the log; of equal ones at most `limit`, and one that says so."""
        seen = self._notices[message] = self._notices.get(message, 0) + 1
        if seen <= limit:
            self.emit(Noticed(level=level, message=SECRETS.redact(message), location=location))
        elif seen == limit + 1:
            self.emit(Noticed(level=level, message=f"{SECRETS.redact(message)} (more of these are only counted)"))

    # --- totals -------------------------------------------------------------------------------------------------------

    @property
    def items_processed(self) -> int:
        """Iterations of outermost loops plus records stored as lists; fetched items when there is neither."""
        return self.loop_items + self.stored_items or self.fetched_items

    @property
    def elapsed_seconds(self) -> float:
        return self.clock.monotonic() - self._started

    def add_error(self, error: ReqonError, *, action: str | None, step: str | None, item: Value = None) -> RunError:
        """Keep a failure for the record: the first hundred, and the number of all."""
        found = RunError(
            message=error.message,
            type=error.kind,
            at=self.clock.now(),
            action=error.action or action,
            step=error.step or step,
            location=error.location,
            item=item,
            status=getattr(error, "status_code", None) or getattr(error.__cause__, "status_code", None) or None,
            hint=error.hint,
        )
        self.errors_total += 1
        if len(self.raised) < MAX_ERRORS:
            self.raised.append(error)
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(found)
        self.emit(
            ErrorRecorded(message=found.message, kind=found.type, step=found.step, location=found.location),
            action=found.action,
        )
        return found

    def snapshot(self, status: ExecutionStatus | None = None, **changes: Any) -> ExecutionRecord:
        """The record as it is now."""
        advanced = self._advanced()
        return replace(
            self.record,
            resumes_without_progress=0 if advanced else self.record.resumes_without_progress,
            status=status or self.record.status,
            actions_run=tuple(self.actions_run),
            active_step=next(iter(self.active.values()), None),
            checkpoints=dict(self.checkpoints),
            items_processed=self.items_processed,
            requests=self.requests,
            retries=self.retries,
            invalid=self.invalid,
            errors=tuple(self.errors),
            errors_total=self.errors_total,
            stores={name: s.totals() for name, s in self.stores.items()},
            **changes,
        )

    def _advanced(self) -> bool:
        """Whether this attempt got further than where it began. Fetching again what was there does not count."""
        work = self.loop_items + self.stored_items
        return (
            self.waited
            or self.paged
            or work > self._began_work
            or (not work and self.fetched_items > self.record.items_processed)
            or len(self.actions_run) > len(self.record.actions_run)
        )

    # --- saving -------------------------------------------------------------------------------------------------------

    @property
    def keeps_state(self) -> bool:
        return self.journal is not None

    def flush_stores(self) -> None:
        """What was written to stores survives SIGKILL on return: files have it, the journal's buffer the rest.

        That is what memory stores hold, and what remote ones still keep back.
        """
        for opened in self._file_stores:
            opened.store.flush()
        journal = self.journal
        if journal is not None:
            for opened in self._memory_stores:
                for entry in opened.store.take_entries():  # type: ignore[attr-defined]
                    journal.append("memory", {"store": opened.name, **entry})
            for name, remote in self._remotes.items():
                if kept_back := remote.take_changes():
                    journal.append("kept", {"store": name, "changes": kept_back})
                if (done := remote.take_done()) is not None:
                    journal.append("written", {"store": name, **done})

    def with_stores(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """A coroutine for a task of its own, ready to ask remote stores."""
        return bridged(work) if self._remotes else work

    async def write_out(self) -> None:
        """Remote stores have all that was written to them.

        Raises:
            StoreError: one refused something, or cannot be reached.
        """
        for remote in self._remotes.values():
            await remote.drain()

    async def keep_writing_out(self) -> None:
        """Write to remote stores at least once a second, while there is something to write."""
        while self._remotes:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self.clock.sleep(WRITE_OUT_SECONDS)
            except StopRun:
                return
            await self.write_out()

    async def ask_sizes(self) -> None:
        """Ask remote stores how many records they hold."""
        for remote in self._remotes.values():
            await remote.ask_count()

    def write_buffers(self) -> None:
        """What stores and journal have in their buffers survives SIGKILL on return."""
        self.flush_stores()
        if self.journal is not None:
            self.journal.write()

    def rely(self) -> Mapping[str, int]:
        """What the journal's next entry relies on: the last line of each file store, by now."""
        self.relied = self.store_positions()
        if self._opened.keys() != self.relied.keys() and self.journal is not None:
            self._opened = {s.name: s.store.opening for s in self._file_stores if isinstance(s.store, FileStore)}
            self.journal.append("opened", {"o": self._opened})
        return self.relied

    def store_positions(self) -> dict[str, int]:
        """The number of the last line of each file store."""
        return {s.name: s.store.position() for s in self._file_stores}

    def write_progress(self, kind: str, fields: Mapping[str, Value], *, at_once: bool = True) -> None:
        """Store lines first, then this entry, in one write each: both survive SIGKILL on return, if `at_once`."""
        self.flush_stores()
        journal = self.journal
        if journal is not None:
            self.note(kind, fields)
            if at_once:
                journal.write()
            self.tell_advance()

    def tell_advance(self) -> None:
        """An attempt that got further says so at once, in the record: a kill in the next moment must not be poison."""
        if self.record.resumes_without_progress and not self._told_advance and self._advanced():
            self._told_advance = True
            self.save_record(force=True)

    def note(self, kind: str, fields: Mapping[str, Value], *, body: bytes | None = None) -> None:
        """Append an entry to the journal that relies on all that stores have in their files by now."""
        assert self.journal is not None
        self.journal.append(kind, {**fields, "n": self.rely(), "totals": self.totals()}, body=body)

    def totals(self) -> dict[str, Value]:
        """What a resume goes on counting from."""
        stores = {}
        for name, opened in self.stores.items():
            now = opened.totals_without_count()
            stores[name] = [now.added, now.updated, now.unchanged, now.deleted]
        items = [self.loop_items, self.stored_items, self.fetched_items]
        return {"i": items, "c": [self.requests, self.retries, self.invalid], "s": stores}

    def carry(self, totals: Mapping[str, Value]) -> None:
        """Go on counting where an interrupted run had got to."""
        self.loop_items, self.stored_items, self.fetched_items = totals["i"]
        self._began_work = self.loop_items + self.stored_items
        requests, retries, self.invalid = totals["c"]
        # What was asked for was asked for, also by what is done again now.
        self.requests, self.retries = max(self.requests, requests), max(self.retries, retries)
        self._told_invalid = self.invalid
        for name, (added, updated, unchanged, deleted) in totals["s"].items():
            if name in self.stores:
                self.stores[name].carried = StoreTotals(
                    added=added, updated=updated, unchanged=unchanged, deleted=deleted
                )

    async def checkpoint(
        self, *, reason: str, action: str, step: int, variables: int = 0, index: int | None = None
    ) -> None:
        """Make everything so far survive a power loss: stores, then journal, then the record; then say so."""
        async with self._sync_lock:
            await self.write_out()
            self.flush_stores()
            await asyncio.to_thread(self._sync)
        self.save_record(force=True)
        self.tell_writes(action)
        self.tell_checkpoint(reason, action, step, variables, index=index)

    def tell_checkpoint(
        self,
        reason: str,
        action: str,
        step: int,
        variables: int,
        *,
        index: int | None = None,
        page: int | None = None,
    ) -> None:
        """What was done so far is safe now."""
        if self.bus.wants(CheckpointSaved):
            self.emit(
                CheckpointSaved(
                    stage_index=self.engine.stage_index,
                    step_index=step,
                    reason=reason,
                    variable_count=variables,
                    index=index,
                    page=page,
                ),
                action=action,
            )

    def _sync(self) -> None:
        """Stores, then the journal that counts on them (O1). Only then is folded what it counts on."""
        relied, safe = self.relied, self.store_positions()
        self.sync_stores()
        journal = self.journal
        if journal is not None:
            journal.sync()
            if isinstance(journal, Compacting):
                journal.compact(safe)
        for opened in self._file_stores:
            opened.store.fold_if_long(None if journal is None else relied.get(opened.name, -1))

    def sync_stores(self) -> None:
        """What file stores have written survives a power loss on return. Blocks."""
        for opened in self._file_stores:
            opened.store.sync()

    def save_record(self, *, force: bool = False) -> None:
        """Show progress in the record, at most ten times a second. The journal is the truth, this its picture."""
        if self.backend is None:
            return
        now = self.clock.monotonic()
        if force or now >= self._record_at:
            self._record_at = now + RECORD_INTERVAL_SECONDS
            self.backend.save(self.snapshot(), durable=False)

    def tell_writes(self, action: str | None = None) -> None:
        """One event per store for what was written since the last one."""
        if self.bus.wants(DataStored):
            key, self.written_key = self.written_key, None
            for opened in self.stores.values():
                now = opened.store.counts - opened.before
                change = now - opened.told
                if change.written or change.deleted:
                    opened.told = now
                    self.emit(
                        DataStored(
                            store_name=opened.name,
                            store_type=opened.store.kind,
                            operation=self.plan.store_operations.get(opened.name, "upsert"),
                            item_count=change.written,
                            added=change.added,
                            updated=change.updated,
                            unchanged=change.unchanged,
                            deleted=change.deleted,
                            key=key if change.written == 1 else None,
                        ),
                        action=action,
                    )
        if (self.invalid > self._told_invalid or self._skipped) and self.bus.wants(ItemsCounted):
            self.emit(ItemsCounted(skipped=self._skipped, invalid=self.invalid - self._told_invalid))
            self._told_invalid, self._skipped = self.invalid, 0

    def count_skipped(self, number: int) -> None:
        self._skipped += number

    def tell_progress(self, action: str, step: str, current: int, total: int | None, *, force: bool = False) -> None:
        """How far an action is, at most ten times a second."""
        now = self.clock.monotonic()
        if force or now >= self._progress_at:
            self._progress_at = now + PROGRESS_INTERVAL_SECONDS
            self.tell_writes(action)
            self.save_record()
            self.emit(
                Progressed(
                    action=action, step=step, current=current, total=total, items_processed=self.items_processed
                ),
                action=action,
            )

    def dead_letters(self) -> OpenStore:
        """The mission's own dead-letter store, opened when it is first needed."""
        assert self._dead_letters is not None
        opened = self.stores.get("dlq")
        if opened is None:
            opened = self._dead_letters()
            self.stores[opened.name] = opened
            self._file_stores.append(opened)
            self._join_stores()
        return opened

    def handle(self, name: str) -> "StoreHandle":
        """A store of the mission as a value."""
        return self.stores[name].handle

    def now(self) -> datetime:
        return self.clock.now()


def preview(item: Value, key: str = "id") -> Value:
    """What a record shows of an item: its key field if it has one, at most 200 bytes, secrets redacted."""
    if isinstance(item, Mapping):
        if key in item:
            return {key: _short(item[key])}
        for name, value in item.items():
            if isinstance(value, str | int | float):
                return {name: _short(value)}
        return None
    return _short(item) if isinstance(item, str | int | float) else None


def _short(value: Value) -> Value:
    if isinstance(value, str):
        text = SECRETS.redact(value)
        return text if len(text.encode()) <= PREVIEW_BYTES else text.encode()[:PREVIEW_BYTES].decode(errors="ignore")
    return value if isinstance(value, bool | int | float) or value is None else None
