"""A run as the dispatcher sees it: asked for, under way, over."""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime

from reqon.runtime.request import CancelReason, RunRequest
from reqon.state.records import ExecutionRecord, ExecutionStatus, Trigger
from reqon_daemon.catalog import Loaded
from reqon_daemon.happenings import RunOutcome


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A run that was asked for. `due` is its slot's due time; `attempt` counts runs of it, reruns included."""

    mission: str
    trigger: Trigger
    due: datetime | None = None
    attempt: int = 1
    resume: bool = False
    force: bool = False
    execution_id: str | None = None

    def request(self, loaded: Loaded) -> RunRequest:
        """What the runner is asked for."""
        return RunRequest(
            mission=self.mission,
            path=str(loaded.unit),
            definition_hash=loaded.plan.definition_hash,
            trigger=self.trigger,
            execution_id=self.execution_id,
            resume=self.resume,
            force=self.force,
            scheduled_for=self.due,
        )


@dataclass(slots=True, eq=False)
class Running:
    """A run under way. Moments are monotonic seconds; `headway` is the last one at which it got on."""

    job: Job
    loaded: Loaded
    task: "asyncio.Task[None]"
    started_at: datetime
    began: float
    headway: float
    execution_id: str | None
    reason: CancelReason | None = None
    progress: tuple[int, int] = (0, 0)

    def overdue(self, moment: float) -> CancelReason | None:
        """Why it must be ended now, by its mission's own limits."""
        policy = self.loaded.policy
        if policy.timeout_seconds is not None and moment - self.began >= policy.timeout_seconds:
            return CancelReason.TIMEOUT
        if policy.stuck_after_seconds is not None and moment - self.headway >= policy.stuck_after_seconds:
            return CancelReason.STUCK
        return None

    def cancel(self, reason: CancelReason) -> None:
        """Tell it to end, once."""
        if self.reason is None:
            self.reason = reason
            self.task.cancel(reason.value)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended. `error_type` is a kind of spec/language.md 7.12, or timeout, stuck, config, internal."""

    outcome: RunOutcome
    record: ExecutionRecord | None = None
    error: str | None = None
    error_type: str | None = None
    execution_id: str | None = None


def ended_by_cancel(run: Running) -> Ending:
    """The ending of a run whose task was cancelled, for the reason that it was."""
    policy = run.loaded.policy
    outcome, error, kind = RunOutcome.INTERRUPTED, "the daemon was stopped", None
    match run.reason:
        case CancelReason.TIMEOUT:
            outcome, error, kind = RunOutcome.FAILURE, f"not done after {policy.timeout_seconds:g} s", "timeout"
        case CancelReason.STUCK:
            error = f"no item, page or step was finished for {policy.stuck_after_seconds:g} s"
            outcome, kind = RunOutcome.FAILURE, "stuck"
        case CancelReason.OPERATOR:
            outcome, error = RunOutcome.CANCELLED, "cancelled by the operator"
    return Ending(outcome, None, error, kind, run.execution_id)


def ended_by_record(run: Running, record: ExecutionRecord) -> Ending:
    """The ending of a run that gave its record, even though it was cancelled perhaps."""
    if run.reason is not None and record.status is not ExecutionStatus.COMPLETED:
        return replace(ended_by_cancel(run), record=record, execution_id=record.execution_id)
    if record.status is ExecutionStatus.COMPLETED:
        return Ending(RunOutcome.SUCCESS, record, execution_id=record.execution_id)
    failed = record.status is ExecutionStatus.FAILED
    first = record.errors[0] if record.errors else None
    return Ending(
        RunOutcome.FAILURE if failed else RunOutcome.INTERRUPTED,
        record,
        first.message if first else None,
        first.type if first else None,
        record.execution_id,
    )
