"""Ending an execution: what it leaves for a resume, its terminal record, then its event."""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reqon.errors import ConfigurationError, ReqonError, StateError
from reqon.events import Emitted, ErrorRecorded, Event, MissionCompleted, MissionFailed, MissionPaused
from reqon.running.shared import Shared
from reqon.runtime.engine import Engine
from reqon.runtime.execution import Execution
from reqon.runtime.plan import Plan
from reqon.runtime.request import CancelReason
from reqon.state import recovery
from reqon.state.records import ExecutionRecord, ExecutionStatus, RunError

if TYPE_CHECKING:
    from reqon.runtime.endpoints import WaitingRoom

log = logging.getLogger("reqon")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its record, and the failures as they were raised."""

    record: ExecutionRecord
    errors: tuple[ReqonError, ...] = ()

    @property
    def success(self) -> bool:
        return self.record.status is ExecutionStatus.COMPLETED


def finish(
    shared: Shared, x: Execution, engine: Engine, status: ExecutionStatus, *, began: float, reason: str | None
) -> ExecutionRecord:
    """The terminal record, then its event. What cannot be written is told all the same.

    `began` is a moment of the monotonic clock; `reason` why a run was stopped, one of `CancelReason`.
    """
    seconds = shared.clock.monotonic() - began
    x.tell_writes()
    before = x.record
    record = replace(
        x.snapshot(status), completed_at=shared.clock.now(), duration_ms=round(seconds * 1000), owner=before.owner
    )
    if status is ExecutionStatus.COMPLETED:
        record = replace(record, active_step=None, resumes_without_progress=0)
    elif record.items_processed > before.items_processed or len(record.actions_run) > len(before.actions_run):
        record = recovery.progressed(record)
    refused = _save(shared, x, record)
    if refused is not None and status is ExecutionStatus.COMPLETED:
        # The disk says `running`: a resume finds all done. Nobody may be told that it completed.
        status = ExecutionStatus.FAILED
        x.add_error(refused, action=None, step=None)
        record = replace(x.snapshot(status), completed_at=record.completed_at, duration_ms=record.duration_ms)
    if x.room is not None:
        _end_endpoints(x.room, record)
    x.record = record
    x.emit(_end_event(record, engine, seconds, reason), duration_ms=record.duration_ms)
    return record


def _end_event(record: ExecutionRecord, engine: Engine, seconds: float, reason: str | None) -> Event:
    totals: dict[str, Any] = {
        "stages_completed": engine.result.completed,
        "error_count": record.errors_total,
        "items_processed": record.items_processed,
        "duration_seconds": seconds,
        "status": str(record.status),
    }
    if record.status is ExecutionStatus.COMPLETED:
        return MissionCompleted(**totals, stages_failed=engine.result.failed, stages_skipped=engine.result.skipped)
    if record.status is ExecutionStatus.INTERRUPTED:
        return MissionPaused(
            **totals,
            reason="pause" if reason == CancelReason.OPERATOR else "signal",
            stage_index=engine.stage_index,
            step_index=engine.step_index,
        )
    first = record.errors[0] if record.errors else None
    return MissionFailed(
        **totals,
        error=first.message if first else "failed",
        error_type=first.type if first else "internal",
        failed_stage=engine.result.failed_stage,
    )


def _end_endpoints(room: "WaitingRoom", record: ExecutionRecord) -> None:
    """After the record: an endpoint that outlives a completed execution is found by its record, and ended then."""
    try:
        room.close(completed=record.status is ExecutionStatus.COMPLETED)
    except StateError as error:
        log.error("the webhook endpoints of %s could not be ended: %s", record.execution_id, error)  # noqa: TRY400  # no bug


def _save(shared: Shared, x: Execution, record: ExecutionRecord) -> ReqonError | None:
    """Write what a run leaves: for a resume what it had buffered and its journal; its record. What refused it."""
    if x.backend is None or x.journal is None:
        return None
    completed = record.status is ExecutionStatus.COMPLETED

    backend, journal = x.backend, x.journal

    def leave_journal() -> None:
        x.flush_stores()
        if not completed and (record.actions_run or journal.exists or x.active):
            journal.sync()

    refused: ReqonError | None = None
    for write in (leave_journal, lambda: backend.save(record)):
        try:
            write()
        except (OSError, ReqonError) as error:
            log.error("the state of %s could not be written: %s", record.execution_id, error)  # noqa: TRY400  # no bug
            if isinstance(error, OSError):
                shared.directory.write_errors += 1
            refused = error if isinstance(error, ReqonError) else StateError(f"cannot write: {error}")
    if completed and refused is None:
        try:
            journal.discard()
        except (OSError, StateError) as error:
            log.warning("the journal of %s could not be removed: %s", record.execution_id, error)
    return refused


def not_begun(shared: Shared, plan: Plan, record: ExecutionRecord, error: ReqonError, *, began: float) -> Outcome:
    """Stores, sources or credentials are wrong: a failed run with its reason."""
    clock = shared.clock
    failure = RunError(
        message=error.message,
        type="config" if isinstance(error, ConfigurationError) else error.kind,
        at=clock.now(),
        location=error.location,
        hint=error.hint,
    )
    seconds = clock.monotonic() - began
    record = replace(
        record,
        status=ExecutionStatus.FAILED,
        completed_at=clock.now(),
        errors=(failure,),
        errors_total=1,
        duration_ms=round(seconds * 1000),
    )
    if plan.enable_state:
        shared.state_of(plan).save(record)
    told: list[Event] = [
        ErrorRecorded(message=failure.message, kind=failure.type, location=failure.location),
        MissionFailed(
            status="failed",
            stages_completed=0,
            error_count=1,
            items_processed=record.items_processed,
            duration_seconds=seconds,
            error=failure.message,
            error_type=failure.type,
        ),
    ]
    # Only this path has no Execution to emit for it.
    for seq, event in enumerate(told, 1):
        shared.bus.emit(Emitted(event, seq, record.execution_id, record.mission, clock.now(), None, record.duration_ms))
    return Outcome(record, (error,))


def stopped_at_the_door(shared: Shared, plan: Plan, record: ExecutionRecord, *, began: float) -> None:
    """Told to stop while its stores were opened: nothing was done, and the record must not look alive."""
    if not plan.enable_state:
        return
    seconds = shared.clock.monotonic() - began
    record = replace(
        record,
        status=ExecutionStatus.INTERRUPTED,
        completed_at=shared.clock.now(),
        duration_ms=round(seconds * 1000),
    )
    try:
        shared.state_of(plan).save(record)
    except ReqonError as error:
        log.error("the state of %s could not be written: %s", record.execution_id, error)  # noqa: TRY400  # no bug
