"""What happens, as one frozen class each, and the bus that tells whoever listens (spec/runtime.md 15).

The engine writes the record or checkpoint first and emits afterwards. An event that nobody listens to is never built:
ask `bus.wants(Kind)` before you make one on a busy path.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from reqon.clock import rfc3339
from reqon.values import Struct


class Event(Struct, frozen=True, kw_only=True):
    """The base of all. `type` is the public name."""

    type: ClassVar[str] = "event"


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event with its envelope: which execution, when, and the milliseconds it took, if it ends something."""

    event: Event
    seq: int
    execution_id: str
    mission: str
    timestamp: datetime
    action: str | None = None
    duration: int | None = None

    @property
    def type(self) -> str:
        return self.event.type

    def __getattr__(self, name: str) -> Any:
        return getattr(self.event, name)

    def to_dict(self) -> dict[str, Any]:
        """The public JSON form, camelCase, absent fields left out."""
        payload = {camel(f): getattr(self.event, f) for f in self.event.__struct_fields__}
        shown: dict[str, Any] = {
            "type": self.type,
            "seq": self.seq,
            "executionId": self.execution_id,
            "mission": self.mission,
            "action": self.action,
            "timestamp": rfc3339(self.timestamp),
            "duration": self.duration,
            "payload": {k: list(v) if isinstance(v, tuple) else v for k, v in payload.items() if v is not None},
        }
        return {k: v for k, v in shown.items() if v is not None}


@cache
def camel(name: str) -> str:
    """`item_count` as `itemCount`."""
    first, *rest = name.split("_")
    return first + "".join("OAS" if w == "oas" else w.capitalize() for w in rest)


class MissionStarted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "mission.start"
    stage_count: int
    is_resume: bool
    trigger: str
    resume_from_stage: int | None = None
    scheduled_for: datetime | None = None


class MissionEnded(Event, frozen=True, kw_only=True):
    """The last event of an execution, whatever its end; the three public names are its subclasses."""

    status: str  # completed, failed, interrupted
    stages_completed: int
    error_count: int
    items_processed: int
    duration_seconds: float


class MissionCompleted(MissionEnded, frozen=True, kw_only=True):
    type: ClassVar[str] = "mission.complete"
    success: bool = True
    stages_failed: int = 0
    stages_skipped: int = 0


class MissionFailed(MissionEnded, frozen=True, kw_only=True):
    type: ClassVar[str] = "mission.failed"
    error: str
    error_type: str
    failed_stage: str | None = None


class MissionPaused(MissionEnded, frozen=True, kw_only=True):
    type: ClassVar[str] = "mission.paused"
    reason: str
    stage_index: int
    step_index: int


class StageStarted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "stage.start"
    stage_index: int
    stage_name: str
    total_stages: int
    is_parallel: bool
    parallel_actions: tuple[str, ...] | None = None


class StageEnded(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "stage.complete"
    stage_index: int
    stage_name: str
    success: bool
    skipped: bool = False
    error: str | None = None
    items_processed: int | None = None


class ActionStarted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "action.start"
    action_name: str
    stage_index: int
    attempt: int


class ActionEnded(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "action.complete"
    action_name: str
    success: bool
    items_processed: int
    duration_seconds: float
    error: str | None = None


class StepStarted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "step.start"
    action_name: str
    step_index: int
    step_type: str
    step_path: str


class StepEnded(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "step.complete"
    action_name: str
    step_index: int
    step_type: str
    step_path: str
    success: bool
    flow: str | None = None
    error: str | None = None


class FetchStarted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "fetch.start"
    source: str
    method: str
    path: str
    url: str
    is_oas: bool = False
    operation_id: str | None = None
    has_pagination: bool = False
    has_since: bool = False


class PageFetched(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "fetch.page"
    source: str
    method: str
    path: str
    page: int
    item_count: int
    total_items: int
    bytes_received: int
    has_more: bool


class RequestAnswered(Event, frozen=True, kw_only=True):
    """One attempt that got an answer or failed; internal, for metrics. `code` is the status, or the failure kind."""

    type: ClassVar[str] = "fetch.attempt"
    source: str
    method: str
    code: str
    seconds: float
    remaining: int | None = None  # requests the API says are left, if it does


class FetchCompleted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "fetch.complete"
    source: str
    method: str
    path: str
    url: str
    status: int
    record_count: int
    bytes_received: int
    attempts: int
    pages_fetched: int | None = None
    from_cache: bool = False


class FetchRetried(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "fetch.retry"
    source: str
    path: str
    attempt: int
    max_attempts: int
    reason: str
    wait_ms: int
    status_code: int | None = None


class FetchFailed(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "fetch.error"
    source: str
    method: str
    path: str
    url: str
    error: str
    kind: str
    retryable: bool
    delivered: bool
    attempts: int
    status_code: int | None = None


class DataTransformed(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "data.transform"
    target_schema: str | None
    input_count: int
    output_count: int
    fields_mapping: int


class DataValidated(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "data.validate"
    target: str
    passed: bool
    warning_count: int
    error_count: int
    rules: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class DataStored(Event, frozen=True, kw_only=True):
    """Writes to one store since the last such event: one store step, or a batch of a loop's."""

    type: ClassVar[str] = "data.store"
    store_name: str
    store_type: str
    operation: str
    item_count: int
    added: int
    updated: int
    unchanged: int
    deleted: int = 0
    key: str | None = None


class DeadLettered(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "data.queue"
    store_name: str
    key: str
    retryable: bool | None = None


class LoopStarted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "loop.start"
    variable: str
    collection_size: int
    has_filter: bool
    concurrency: int


class LoopIteration(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "loop.iteration"
    variable: str
    item_index: int
    total_items: int


class LoopEnded(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "loop.complete"
    variable: str
    total_items: int
    items_processed: int
    items_skipped: int
    items_failed: int


class Progressed(Event, frozen=True, kw_only=True):
    """How far an action is, a few times a second; internal. `total` is None while unknown."""

    type: ClassVar[str] = "progress"
    action: str
    step: str
    current: int
    total: int | None
    items_processed: int


class ErrorRecorded(Event, frozen=True, kw_only=True):
    """One more entry of the record's `errors`; internal, for callbacks. `location` is `file:line:col`, if known."""

    type: ClassVar[str] = "error"
    message: str
    kind: str
    step: str | None = None
    location: str | None = None


class ItemsCounted(Event, frozen=True, kw_only=True):
    """Items that were skipped, or failed a `validate`, since the last such event; internal, for metrics."""

    type: ClassVar[str] = "items"
    skipped: int = 0
    invalid: int = 0


class CheckpointSaved(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "checkpoint.save"
    stage_index: int
    step_index: int
    reason: str
    variable_count: int = 0
    index: int | None = None
    page: int | None = None


class CheckpointResumed(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "checkpoint.resume"
    stage_index: int
    step_index: int
    original_execution_id: str
    stages_skipped: int
    reason: str | None = None


class SyncCheckpointMoved(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "sync.checkpoint"
    checkpoint_key: str
    last_sync_time: str
    records_fetched: int
    is_incremental: bool


class RateLimitHit(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "ratelimit.hit"
    source: str
    wait_seconds: float
    strategy: str
    endpoint: str | None = None
    remaining: int | None = None
    reset_at: str | None = None


class RateLimitWaiting(Event, frozen=True, kw_only=True):
    """A long wait goes on: first after `notifyAt`, then every 10 s."""

    type: ClassVar[str] = "ratelimit.wait"
    source: str
    wait_seconds: float
    elapsed_seconds: float
    strategy: str
    endpoint: str | None = None
    remaining: int | None = None
    reset_at: str | None = None


class RateLimitResumed(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "ratelimit.resume"
    source: str
    waited_seconds: float
    endpoint: str | None = None


class BreakerChanged(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "circuitbreaker.state"
    source: str
    state: str
    previous_state: str
    failures: int
    reason: str | None = None


class AuthRefreshed(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "auth.refresh"
    source: str
    reason: str
    success: bool
    error: str | None = None
    expires_at: datetime | None = None


class Noticed(Event, frozen=True, kw_only=True):
    """A line for the log that no other event carries: a warning in a run. `level` is debug, info, warning or error."""

    type: ClassVar[str] = "notice"
    level: str
    message: str
    location: str | None = None


Handler = Callable[[Emitted], None]


class EventBus:
    """Calls handlers in order, in the emitting task. A handler is quick or keeps a queue of its own.

    One that raises is logged and counted in `failures`; neither the run nor the other handlers notice.
    """

    def __init__(self) -> None:
        self._by_kind: dict[type[Event], tuple[Handler, ...]] = {}
        self._listeners: list[tuple[type[Event], Handler]] = []
        self.failures = 0

    def on(self, kind: type[Event], handler: Handler) -> Callable[[], None]:
        """Tell `handler` of this kind and its subclasses; `on(Event, …)` hears all. Answers how to stop it."""
        entry = (kind, handler)
        self._listeners.append(entry)
        self._by_kind.clear()

        def off() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)
                self._by_kind.clear()

        return off

    def wants(self, *kinds: type[Event]) -> bool:
        """Whether anybody listens to one of these."""
        return any(self._handlers(kind) for kind in kinds)

    def emit(self, emitted: Emitted) -> None:
        for handler in self._handlers(type(emitted.event)):
            try:
                handler(emitted)
            except Exception:  # one of the four walls: a subscriber's fault must not reach a run
                self.failures += 1
                logging.getLogger("reqon").exception("an event subscriber failed on %s", emitted.type)

    def _handlers(self, kind: type[Event]) -> Sequence[Handler]:
        handlers = self._by_kind.get(kind)
        if handlers is None:
            handlers = tuple(h for k, h in self._listeners if issubclass(kind, k))
            self._by_kind[kind] = handlers
        return handlers
