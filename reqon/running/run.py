"""Carrying one execution, from its opened stores to its terminal record."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reqon.clock import rfc3339
from reqon.errors import ReqonError
from reqon.events import MissionStarted
from reqon.running.ending import Outcome, finish, not_begun, stopped_at_the_door
from reqon.running.opening import STORES_SECONDS, Opening, close_each, close_remote
from reqon.running.output import export_stores
from reqon.running.shared import Shared
from reqon.runtime.engine import Engine
from reqon.runtime.execution import Execution, internal_error
from reqon.runtime.plan import Plan
from reqon.runtime.request import CancelReason, OnlyItem
from reqon.runtime.stopping import StopRun
from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon.stores.base import LocalStore
from reqon.stores.file import FileStore

log = logging.getLogger("reqon")


@dataclass(frozen=True, slots=True)
class Run:
    """One execution, under a record that is saved already."""

    shared: Shared
    plan: Plan
    record: ExecutionRecord
    resumed: bool
    only: OnlyItem | None = None

    async def execute(self) -> Outcome:
        """Run it to its end, whatever that is.

        Raises:
            asyncio.CancelledError: told to stop; the record says `interrupted`.
        """
        began = self.shared.clock.monotonic()
        try:
            x = await Opening(self.shared, self.plan, self.record, self.resumed, self.only).execution()
        except Exception as error:  # noqa: BLE001  # the wall around one run begins with its opening
            failure = error if isinstance(error, ReqonError) else internal_error(error, self.record.execution_id)
            return not_begun(self.shared, self.plan, self.record, failure, began=began)
        except asyncio.CancelledError:
            stopped_at_the_door(self.shared, self.plan, self.record, began=began)
            raise
        engine = Engine(x)
        try:
            self._tell_start(x, engine)
            return await self._pipeline(x, engine, began)
        finally:
            for opened in x.stores.values():
                if opened.remote is not None:
                    await close_remote(opened.remote)
            _keep_for_resume(x)
            # Closing folds what was written, which takes its time.
            closing = [opened.store.close for opened in x.stores.values() if opened.remote is None]
            await asyncio.to_thread(close_each, [*_safe_first(x), *closing])

    def _tell_start(self, x: Execution, engine: Engine) -> None:
        due = self.record.scheduled_for
        x.emit(
            MissionStarted(
                stage_count=len(self.plan.stages),
                is_resume=self.resumed,
                trigger=str(self.record.trigger),
                resume_from_stage=engine.first_stage if self.resumed else None,
                metadata=None if due is None else {"scheduledFor": rfc3339(due)},
                scheduled_for=due,
            )
        )

    async def _pipeline(self, x: Execution, engine: Engine, began: float) -> Outcome:
        try:
            async with asyncio.TaskGroup() as background:
                x.background = background
                writing = background.create_task(x.keep_writing_out())
                success = await x.with_stores(engine.run())
                writing.cancel()
            if success:
                await x.with_stores(self._make_safe(x))
            status = ExecutionStatus.COMPLETED if success else ExecutionStatus.FAILED
        except asyncio.CancelledError as cancelled:
            reason = str(cancelled.args[0]) if cancelled.args else CancelReason.STOP
            failed = reason in (CancelReason.TIMEOUT, CancelReason.STUCK)
            if failed:
                _note(x, CancelReason(reason))
            await _write_rest(x, seconds=STORES_SECONDS)
            record = finish(
                self.shared,
                x,
                engine,
                ExecutionStatus.FAILED if failed else ExecutionStatus.INTERRUPTED,
                began=began,
                reason=reason,
            )
            if failed:
                return Outcome(record, tuple(x.raised))
            raise
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            if isinstance(first, StopRun):
                await _write_rest(x, seconds=STORES_SECONDS)
                return Outcome(
                    finish(self.shared, x, engine, ExecutionStatus.INTERRUPTED, began=began, reason=CancelReason.STOP)
                )
            _failed(x, first)
            status = ExecutionStatus.FAILED
        except Exception as error:  # noqa: BLE001  # one of the four walls: around one run; logged with its traceback
            _failed(x, error)
            status = ExecutionStatus.FAILED
        if status is ExecutionStatus.FAILED:
            await _write_rest(x)
        record = finish(self.shared, x, engine, status, began=began, reason=None)
        return Outcome(record, tuple(x.raised))

    async def _make_safe(self, x: Execution) -> None:
        """Everything that a success claims is on disk before it is claimed: stores, then sync checkpoints.

        The stores' files as people read them. First the journal says that all was done: what is folded can't be undone,
        and a run that ends meanwhile, by a kill or without power, must repeat nothing of it.
        """
        await x.write_out()
        x.flush_stores()
        await x.ask_sizes()
        stores = [s.store for s in x.stores.values() if not s.is_memory and s.remote is None]
        if stores:
            await asyncio.to_thread(_fold, x, stores)
        changes = x.sync.changes(self.plan.name)
        if changes and x.backend is not None:
            await asyncio.to_thread(x.backend.put_sync, self.plan.name, changes)
            x.sync.tell(x.emit)
        if self.shared.settings.output is not None:
            export_stores(x.stores.values(), self.shared.settings.output)


def _safe_first(x: Execution) -> list[Callable[[], None]]:
    """What comes before stores are closed, and so folded: they and the journal that relies on them are safe."""
    if x.journal is None:
        return []
    return [x.sync_stores, *([x.journal.sync] if x.journal.exists else []), x.journal.close]


def _keep_for_resume(x: Execution) -> None:
    """A run that did not complete may have written for an item that it did not get done: a resume undoes that."""
    if x.journal is None or x.record.status is ExecutionStatus.COMPLETED:
        return
    for name, opened in x.stores.items():
        if isinstance(opened.store, FileStore):
            opened.store.keep = opened.store.position() != x.relied.get(name)


async def _write_rest(x: Execution, *, seconds: float | None = None) -> None:
    """What a run that did not complete had written before goes to its remote stores; what cannot is journaled."""
    try:
        async with asyncio.timeout(seconds):
            await x.write_out()
            await x.ask_sizes()
    except TimeoutError:
        x.notice("a remote store takes long: what was to be written is kept for the resume", level="warning")
    except ReqonError as error:
        if all(error.message != known.message for known in x.raised):
            _failed(x, error)


def _failed(x: Execution, error: BaseException) -> None:
    failure = error if isinstance(error, ReqonError) else internal_error(error, x.record.execution_id)
    x.add_error(failure, action=failure.action, step=failure.step)


def _note(x: Execution, reason: CancelReason) -> None:
    """The run was stopped amid what it was doing."""
    error = ReqonError(reason.told, hint=reason.hint)
    error.kind = reason
    at = next(iter(x.active.values()), None)
    x.add_error(error, action=at.action if at else None, step=at.step if at else None)


def _fold(x: Execution, stores: Sequence[LocalStore]) -> None:
    x.sync_stores()
    if x.journal is not None and x.journal.exists:
        x.journal.sync()
    for store in stores:
        store.fold()
