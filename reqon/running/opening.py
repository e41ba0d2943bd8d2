"""Opening an execution: its stores, clients and journal, and what the interrupted run knew."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from reqon.errors import ReqonError
from reqon.running.shared import Shared
from reqon.runtime.execution import Execution, OpenStore
from reqon.runtime.kept import given_back, kept
from reqon.runtime.paging import changes_of
from reqon.runtime.plan import Plan
from reqon.runtime.request import OnlyItem
from reqon.runtime.resume import KeptBack, ResumePoint
from reqon.runtime.sync import PendingSync
from reqon.state.backend import Journal, StateBackend
from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon.stores.base import LocalStore, WriteMode
from reqon.stores.file import FileStore
from reqon.stores.memory import MemoryStore
from reqon.stores.remote import RemoteStore
from reqon.values import Value

log = logging.getLogger("reqon")

STORES_SECONDS = 2.0  # how long a run that was told to stop may write to remote stores


@dataclass(slots=True)
class Opening:
    """One execution that is about to begin or to go on."""

    shared: Shared
    plan: Plan
    record: ExecutionRecord
    resumed: bool
    only: OnlyItem | None = None
    stores: dict[str, OpenStore] = field(default_factory=dict)
    journal: Journal | None = None

    async def execution(self) -> Execution:
        """Stores, clients, journal; what the interrupted run knew, when it is resumed.

        Raises:
            ReqonError: it cannot begin; nothing stays open.
        """
        shared, plan = self.shared, self.plan
        plan.begin()
        backend = shared.state_of(plan) if plan.enable_state else None
        if backend is not None:
            self.journal = backend.journal(self.record)
        self.stores = await asyncio.to_thread(self._open_stores)
        try:
            await self._connect_stores()
            return await self._begin(backend)
        except BaseException:
            await self._let_go()  # else the next run would wait for a store that is ours
            raise

    async def _begin(self, backend: StateBackend | None) -> Execution:
        plan = self.plan
        lets = plan.evaluate_lets() if plan.program.lets else {}
        sync = self._sync(backend)
        resume: ResumePoint | None = None
        if self.resumed and self.journal is not None:
            resume = await self._resume_point(self.journal)
            lets |= {n: given_back(v, resume, lambda name: self.stores[name].handle) for n, v in resume.lets.items()}
            sync.restore(resume.sync, resume.synced)
        elif self.journal is not None and (lets or sync.known):
            self.journal.append("start", {"lets": {n: kept(v) for n, v in lets.items()}, "sync": sync.begun_with()})
        x = self._execution(backend, lets, sync, resume)
        x.clients = self.shared.clients(plan, x.emit, x.wants)
        self._open_endpoints(x)
        return x

    def _execution(
        self, backend: StateBackend | None, lets: Mapping[str, Value], sync: PendingSync, resume: ResumePoint | None
    ) -> Execution:
        shared, plan = self.shared, self.plan
        x = Execution(
            plan,
            self.record,
            clock=shared.clock,
            stop=shared.stop,
            bus=shared.bus,
            backend=backend,
            journal=self.journal,
            stores=self.stores,
            clients={},
            lets=lets,
            sync=sync,
            resume=resume,
            random=shared.random,
            checkpoint_seconds=shared.settings.checkpoint_seconds,
            dead_letters=lambda: shared.dead_letters(plan, self.record.execution_id),
            hooks=shared.additions.hooks,
        )
        x.only = self.only
        if resume is not None and resume.totals is not None:
            x.carry(resume.totals)
        return x

    def _sync(self, backend: StateBackend | None) -> PendingSync:
        plan = self.plan
        if not plan.reads_sync or backend is None:
            return PendingSync()
        last = next(iter(self.shared.backend.list(plan.name, limit=1, status=ExecutionStatus.COMPLETED)), None)
        return PendingSync(
            backend.sync_checkpoints(plan.name), last_success=last.completed_at if last is not None else None
        )

    async def _resume_point(self, journal: Journal) -> ResumePoint:
        """Where the interrupted run had got to; its stores are as they were there."""
        positions = {n: s.store.position() for n, s in self.stores.items() if not s.is_memory}
        openings = {n: s.store.openings() for n, s in self.stores.items() if isinstance(s.store, FileStore)}
        resume, memory = ResumePoint.read(journal, positions, openings)
        await asyncio.to_thread(_settle, self.stores, resume.reached, self.record.execution_id)
        if journal.exists:
            journal.append("resumed", {})  # what does not count now will not count again
        for name, changes in changes_of(memory, journal):
            if isinstance(kept_here := self.stores[name].store, MemoryStore):
                kept_here.restore(changes)
        for opened in self.stores.values():
            opened.before = opened.store.counts.copy()
        for name, back in resume.kept.items():
            _bring_back(self.stores[name].store, back)
        return resume

    def _open_endpoints(self, x: Execution) -> None:
        server = self.shared.webhooks
        if server is not None and self.plan.waits is not None:
            from reqon.runtime.endpoints import WaitingRoom  # noqa: PLC0415  # few missions wait
            from reqon.state.webhooks import HeldShelf  # noqa: PLC0415  # as above

            x.room = WaitingRoom(x, server, self.shared.shelf if x.keeps_state else HeldShelf())
            x.world.endpoint_url = x.room.url
            if self.resumed:
                x.room.load()

    def _open_stores(self) -> dict[str, OpenStore]:
        opened: dict[str, OpenStore] = {}
        try:
            # Always in one order, so that two processes never wait for each other's files.
            for name in sorted(self.plan.program.stores):
                opened[name] = self.shared.open_store(
                    self.plan, name, self.record, settle=not self.resumed or self.journal is None
                )
            if self.resumed and self.journal is not None and self.shared.dead_letters_of(self.plan) is not None:
                # Where the run had got to may rely on what it had set aside.
                opened["dlq"] = self.shared.dead_letters(self.plan, self.record.execution_id, settle=False)
        except BaseException:
            for store in opened.values():
                if isinstance(store.store, FileStore):
                    store.store.keep = self.resumed
                if store.remote is None:
                    store.store.close()
            raise
        return opened

    async def _connect_stores(self) -> None:
        """Open what answers over a network or through a driver."""
        for name in sorted(self.stores):
            if (remote := self.stores[name].remote) is not None:
                try:
                    await remote.open()
                except ReqonError as error:
                    raise error.locate(self.plan.program.stores[name].adapter.span) from error

    async def _let_go(self) -> None:
        """Close stores and journal, each whatever the others do. A new journal has nothing on disk, and stays so."""
        for opened in self.stores.values():
            if opened.remote is not None:
                await close_remote(opened.remote)
        closing = [opened.store.close for opened in self.stores.values() if opened.remote is None]
        if self.resumed and self.journal is not None:
            for opened in self.stores.values():
                if isinstance(opened.store, FileStore):
                    opened.store.keep = True  # the next resume undoes what this one would have
            closing.append(self.journal.close)
        await asyncio.to_thread(close_each, closing)


def close_each(closing: Iterable[Callable[[], None]]) -> None:
    """Close all of them. What they claimed to hold, they held before; one that will not close fails nothing."""
    for close in closing:
        try:
            close()
        except ReqonError as error:
            log.error("%s", error.message)  # noqa: TRY400  # no bug


async def close_remote(store: RemoteStore) -> None:
    """Let a remote store go. What it holds is written by now; one that will not close fails nothing."""
    try:
        async with asyncio.timeout(STORES_SECONDS):
            await store.aclose()
    except (ReqonError, TimeoutError) as error:
        log.warning("the store '%s' could not be closed: %s", store.name, error)


def _bring_back(store: LocalStore, back: KeptBack) -> None:
    """What a killed run had not written to its remote store; to whatever the store is by now."""
    if isinstance(store, RemoteStore):
        store.restore([back.changes[number] for number in sorted(back.changes)], last=back.last, done=back.done)
        return
    for _, what, key, record in back.changes.values():
        if what == "clear":
            store.clear()
        elif what == "delete":
            store.delete(key)
        else:
            store.put(key, record, WriteMode(what))


def _settle(stores: Mapping[str, OpenStore], reached: Mapping[str, int], execution_id: str) -> None:
    """What a run had stored behind the last place its journal knows is undone: that is done again.

    In all stores or in none: a record may have been moved from one to another.
    """
    files = {name: opened.store for name, opened in stores.items() if isinstance(opened.store, FileStore)}
    whole = not any(store.loses_by_staying(reached.get(name), by=execution_id) for name, store in files.items())
    for name, store in files.items():
        store.settle(reached.get(name) if whole else store.position(), by=execution_id)
