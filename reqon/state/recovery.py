"""Executions whose owner died: a `running` record becomes `interrupted` (spec/reliability.md 2).

The one place that writes `interrupted` for somebody else. The execution's lock decides: pids say nothing, since
containers reuse them, and neither do clocks. And the one place that knows when to stop trying: a run that brings down
its process may do so three times in a row.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from reqon.errors import StateError
from reqon.state.backend import StateBackend, last_place
from reqon.state.directory import StateDirectory
from reqon.state.records import (
    ExecutionRecord,
    ExecutionStatus,
    Owner,
    RunError,
    Trigger,
    as_interrupted,
    is_newer,
)

MAX_RESUMES_WITHOUT_PROGRESS = 3


def recover(
    backend: StateBackend, directory: StateDirectory, *, mission: str | None = None
) -> Sequence[ExecutionRecord]:
    """Write `interrupted` into the records of dead owners, with the place from the journal; answers those records.

    Also finishes what an owner that died right after `completed` left undone: its journal goes.

    Safe to call at any time and by several processes at once: who holds the execution's lock writes.
    """
    found = []
    for orphan in backend.orphans(mission):
        if is_newer(orphan):
            continue
        lock = directory.execution_lock(orphan.execution_id)
        if not lock.take():
            continue
        try:
            # We hold the lock now, so that it reads as it stands; another process may have been quicker.
            record = backend.load(orphan.execution_id)
            if record is not None and record.status is ExecutionStatus.RUNNING:
                record = as_interrupted(record, last_place(backend.journal(record)))
                backend.save(record)
                found.append(record)
        finally:
            lock.release()
    for record in backend.latest() if mission is None else backend.list(mission, limit=1):
        _forget_journal(backend, directory, record)
    return found


def _forget_journal(backend: StateBackend, directory: StateDirectory, record: ExecutionRecord) -> None:
    """Remove the journal of an execution that completed and was killed before it could do so itself."""
    if record.status is not ExecutionStatus.COMPLETED or is_newer(record) or not backend.journal(record).exists:
        return
    lock = directory.execution_lock(record.execution_id)
    if lock.take():
        try:
            backend.journal(record).discard()
        finally:
            lock.release()


def may_resume(record: ExecutionRecord) -> bool:
    """Whether it ended where a resume may go on; whether there is a journal and an unchanged mission is another matter.

    For a caller who holds the execution's lock: a record that says `running` then has no owner.
    """
    return record.status is not ExecutionStatus.COMPLETED and not is_newer(record)


def gives_up(record: ExecutionRecord) -> bool:
    """Whether it was resumed so often without getting on that another try would only bring down the next process."""
    return record.resumes_without_progress >= MAX_RESUMES_WITHOUT_PROGRESS


def resumed(record: ExecutionRecord, *, owner: Owner, trigger: Trigger = Trigger.RESUME) -> ExecutionRecord:
    """The record as a resume begins: running, one attempt more, counted as without progress until `progressed`.

    Save it, durable, before anything else happens: the count is what ends a loop of crashes.

    Raises:
        StateError: it cannot be resumed.
    """
    if not may_resume(record):
        raise StateError(f"{record.execution_id} of {record.mission} is {record.status}; there is nothing to resume")
    return replace(
        record,
        status=ExecutionStatus.RUNNING,
        trigger=trigger,
        attempt=record.attempt + 1,
        completed_at=None,
        owner=owner,
        resumes_without_progress=record.resumes_without_progress + 1,
    )


def progressed(record: ExecutionRecord) -> ExecutionRecord:
    """The record once the resumed run got further than where it began."""
    return replace(record, resumes_without_progress=0) if record.resumes_without_progress else record


def given_up(record: ExecutionRecord, *, now: datetime) -> ExecutionRecord:
    """The record when no more resumes are tried: failed, and it says so."""
    step = record.active_step
    error = RunError(
        message=f"resume gave up: {record.resumes_without_progress} resumes in a row ended without progress",
        type="stuck",
        at=now,
        action=step.action if step else None,
        step=step.step if step else None,
        item=step.item if step else None,
        hint="find out what ends the process there, then start again with --resume --force",
    )
    return replace(
        record,
        status=ExecutionStatus.FAILED,
        completed_at=now,
        errors=(*record.errors, error),
        errors_total=record.errors_total + 1,
    )
