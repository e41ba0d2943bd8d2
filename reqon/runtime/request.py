"""What starts an execution: serialisable, so that it can run in another process or on another machine."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from reqon.state.records import Trigger
from reqon.values import Value


class CancelReason(StrEnum):
    """Why a run was cancelled: the message given to `task.cancel`, the first argument of the CancelledError.

    `timeout` and `stuck` end the run `failed` with that error type; the others leave it `interrupted`.
    """

    STOP = "stop"
    OPERATOR = "cancelled"
    TIMEOUT = "timeout"
    STUCK = "stuck"

    @property
    def told(self) -> str:
        """What a record says of a run that ended so."""
        match self:
            case CancelReason.TIMEOUT:
                return "stopped: it ran for longer than its timeout"
            case CancelReason.STUCK:
                return "stopped: no item, page or step was done for as long as its stuckAfter allows"
            case _:
                return f"cancelled: {self.value}"

    @property
    def hint(self) -> str:
        """What to do about it."""
        option = "timeout" if self is CancelReason.TIMEOUT else "stuckAfter"
        return f"a resume goes on where it was; if it needs more time, give the mission a longer {option}"


@dataclass(frozen=True, slots=True)
class OnlyItem:
    """One item that was set aside, done again: the step of its action that set it aside, for this item alone."""

    action: str
    step: int
    item: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Run this mission once.

    Attributes:
        path: where the mission's text lies; definition_hash: which version of it is meant.
        execution_id: the execution to resume, with `resume`; None: the latest one that can be.
        force: with `resume`, start a changed mission again from its first action, as a new execution.
        scheduled_for: the slot's due time.
        only: run nothing but this.
    """

    mission: str
    path: str
    definition_hash: str
    trigger: Trigger = Trigger.MANUAL
    execution_id: str | None = None
    resume: bool = False
    force: bool = False
    scheduled_for: datetime | None = None
    dry_run: bool = False
    only: OnlyItem | None = None
