"""What happens in the daemon, as one frozen class each, and who is told: metrics, alerts and logs only listen."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from reqon.diagnostics import Diagnostic
from reqon.state.records import ExecutionRecord, Trigger


class SlotOutcome(StrEnum):
    """What became of a due slot; the label of `reqon_schedule_slots_total`."""

    FIRED = "fired"
    CAUGHT_UP = "caught_up"
    SKIPPED_OVERLAP = "skipped_overlap"
    SKIPPED_PAUSED = "skipped_paused"
    COALESCED = "coalesced"
    MISSED = "missed"

    @property
    def runs(self) -> bool:
        """Whether the slot starts a run."""
        return self in (SlotOutcome.FIRED, SlotOutcome.CAUGHT_UP)


class RunOutcome(StrEnum):
    """How a run ended; the label of `reqon_mission_runs_total`."""

    SUCCESS = "success"
    FAILURE = "failure"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """The base of all; `at` is the instant."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerTicked(Happening):
    """The scheduler looked at the clock, as it does each second while it is well. `queued`: runs without a place."""

    queued: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJumped(Happening):
    """Wall time and monotonic time disagree since the last tick; a negative `by` is a clock set back."""

    by: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotDecided(Happening):
    """A due slot got its one decision, and it is on disk.

    `count` slots from `first_due` to `due` share it; 1000 may mean more.
    """

    mission: str
    due: datetime
    outcome: SlotOutcome
    reason: str
    first_due: datetime
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQueued(Happening):
    mission: str
    trigger: Trigger
    due: datetime | None
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Happening):
    """The dispatcher let a run go. `lag_seconds`: how long after its due time; None for a run without slot."""

    mission: str
    trigger: Trigger
    due: datetime | None
    lag_seconds: float | None
    attempt: int
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Happening):
    """A run is over. `record` is None when it was cancelled or never got one; `will_retry` when a rerun is planned.

    `error` and `error_type` say why, if it was no success; the type is a kind of language.md 7.12, or timeout, stuck,
    config, internal.
    """

    mission: str
    trigger: Trigger
    due: datetime | None
    outcome: RunOutcome
    duration_seconds: float
    execution_id: str | None = None
    record: ExecutionRecord | None = None
    error: str | None = None
    error_type: str | None = None
    will_retry: bool = False
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNotBegun(Happening):
    """A run that was let go did not begin after all: another process runs the mission, or it was cancelled at once."""

    mission: str
    due: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPlanned(Happening):
    """A failed run will be resumed. `attempt` counts runs, the first included."""

    mission: str
    execution_id: str
    attempt: int
    due: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionPaused(Happening):
    mission: str
    until: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionUnpaused(Happening):
    mission: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionsReloaded(Happening):
    """The folder was read again and something differs. `changed` maps a mission to its old and new definition hash.

    `broken` maps a path to its errors, those that were known already included.
    """

    added: tuple[str, ...]
    changed: dict[str, tuple[str, str]]
    removed: tuple[str, ...]
    broken: dict[str, tuple[Diagnostic, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTroubled(Happening):
    """The ledger could not be written; nothing starts until it can."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecovered(Happening):
    """The ledger can be written again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileQuarantined(Happening):
    """A state file was damaged and moved aside."""

    kind: str
    path: str
    reason: str


H = TypeVar("H", bound=Happening)


class Happenings:
    """Calls listeners in order, at once. A listener is quick; one that raises is logged, counted, and stops nobody."""

    def __init__(self) -> None:
        self._listeners: list[tuple[type[Happening], Callable[[Any], None]]] = []
        self.failures = 0

    def on(self, kind: type[H], listener: Callable[[H], None]) -> None:
        """Tell `listener` of this kind and its subclasses."""
        self._listeners.append((kind, listener))

    def emit(self, happening: Happening) -> None:
        for kind, listener in self._listeners:
            if isinstance(happening, kind):
                try:
                    listener(happening)
                except Exception:  # one of the four walls: a listener's fault must not reach the scheduler
                    self.failures += 1
                    logging.getLogger("reqon").exception("a listener failed on %s", type(happening).__name__)
