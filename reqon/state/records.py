"""The public record of an execution: one JSON object with the keys of the specification (spec/state.md 2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from reqon.values import Value


class ExecutionStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Trigger(StrEnum):
    """Why an execution began."""

    MANUAL = "manual"
    SCHEDULE = "schedule"
    RETRY = "retry"
    RESUME = "resume"
    WEBHOOK = "webhook"
    API = "api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who runs it; for people. The lock it holds is what counts."""

    host: str
    pid: int
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveStep:
    """Where the run is, or would resume. `index` is the 0-based place in the outermost loop's list; `item` a preview."""

    action: str
    step: str | None = None
    index: int | None = None
    item: Value = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How far one action got. `page` and `cursor` of its fetch, `index` in its loop."""

    items_processed: int
    at: datetime
    page: int | None = None
    cursor: Value = None
    index: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """One failure. `type` is a kind of spec/language.md 7.12, or timeout, stuck, config, internal."""

    message: str
    type: str
    at: datetime
    action: str | None = None
    step: str | None = None
    location: str | None = None
    item: Value = None
    status: int | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTotals:
    """What an execution did to one store; `count` is the store's size. A store that cannot tell has None."""

    count: int | None = None
    added: int = 0
    updated: int | None = 0
    unchanged: int | None = 0
    deleted: int = 0


MAX_ERRORS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """One execution. `file_name` is the stem of its files; `unknown` keeps keys that a newer version wrote."""

    execution_id: str
    mission: str
    started_at: datetime
    status: ExecutionStatus
    completed_at: datetime | None = None
    trigger: Trigger = Trigger.MANUAL
    attempt: int = 1
    resumed_from: str | None = None
    mission_hash: str = ""
    actions_run: tuple[str, ...] = ()
    active_step: ActiveStep | None = None
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    items_processed: int = 0
    requests: int = 0
    retries: int = 0
    invalid: int = 0
    errors: tuple[RunError, ...] = ()
    errors_total: int = 0
    stores: Mapping[str, StoreTotals] = field(default_factory=dict)
    owner: Owner | None = None
    duration_ms: int | None = None
    scheduled_for: datetime | None = None
    reqon_version: str = ""
    resumes_without_progress: int = 0
    file_name: str = ""
    unknown: Mapping[str, Value] = field(default_factory=dict)
