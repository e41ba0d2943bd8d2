"""What happens, as one frozen class each, and the bus that tells whoever listens (spec/runtime.md 15).

The engine writes the record or checkpoint first and emits afterwards. An event that nobody listens to is never built:
ask `bus.wants(Kind)` before you make one on a busy path.
"""

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from reqon.clock import rfc3339
from reqon.values import Struct


class Event(Struct, frozen=True, kw_only=True):
    """The base of all.

    Attributes:
        type: the public name.
        internal: no event of the public table: for our own listeners; it takes no sequence number.
        own: fields that only our own listeners read: they are no part of the payload.
        also: properties that the payload holds beside the fields, for the names that two documents use.
    """

    type: ClassVar[str] = "event"
    internal: ClassVar[bool] = False
    own: ClassVar[frozenset[str]] = frozenset()
    also: ClassVar[tuple[str, ...]] = ()

    def payload(self) -> dict[str, Any]:
        """The public payload: camelCase, JSON-ready, absent fields left out."""
        names = (*(n for n in self.__struct_fields__ if n not in self.own), *self.also)
        found = ((camel(name), getattr(self, name)) for name in names)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in found if v is not None}


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
        """The public name of what happened, such as `fetch.complete`."""
        return self.event.type

    def __getattr__(self, name: str) -> Any:
        return getattr(self.event, name)

    def to_dict(self) -> dict[str, Any]:
        """The public JSON form, camelCase, absent fields left out."""
        shown: dict[str, Any] = {
            "type": self.type,
            "seq": self.seq,
            "executionId": self.execution_id,
            "mission": self.mission,
            "action": self.action,
            "timestamp": rfc3339(self.timestamp),
            "duration": self.duration,
            "payload": self.event.payload(),
        }
        return {k: v for k, v in shown.items() if v is not None}


@cache
def camel(name: str) -> str:
    """`item_count` as `itemCount`."""
    first, *rest = name.split("_")
    return first + "".join("OAS" if w == "oas" else w.capitalize() for w in rest)


class MissionStarted(Event, frozen=True, kw_only=True):
    """An execution begins: its sources and stores are ready. `metadata`: what started it, such as the slot."""

    type: ClassVar[str] = "mission.start"
    own: ClassVar[frozenset[str]] = frozenset(("scheduled_for",))
    stage_count: int
    is_resume: bool
    trigger: str
    resume_from_stage: int | None = None
    metadata: dict[str, Any] | None = None
    scheduled_for: datetime | None = None


class MissionEnded(Event, frozen=True, kw_only=True):
    """The last event of an execution, whatever its end; the three public names are its subclasses."""

    own: ClassVar[frozenset[str]] = frozenset(("status", "items_processed", "duration_seconds"))
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
    own: ClassVar[frozenset[str]] = MissionEnded.own | {"stages_completed", "error_count"}
    reason: str  # signal, webhook or pause
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
    error: str | None = None
    items_processed: int | None = None


class ActionStarted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "action.start"
    action_name: str
    stage_index: int
    attempt: int


class ActionEnded(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "action.complete"
    own: ClassVar[frozenset[str]] = frozenset(("duration_seconds",))
    action_name: str
    success: bool
    items_processed: int
    duration_seconds: float
    error: str | None = None


class StepStarted(Event, frozen=True, kw_only=True):
    """A step begins, also one inside a loop or an arm. `step_path`: `Action.2.0`, the place in the action's tree."""

    type: ClassVar[str] = "step.start"
    action_name: str
    step_index: int
    step_type: str
    step_path: str


class StepEnded(Event, frozen=True, kw_only=True):
    """A step is over. `flow`: the directive that ended it (skip, retry, jump, queue, abort), which is a success."""

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
    """One attempt that got an answer or failed, for metrics. `code` is the status, or the failure kind."""

    type: ClassVar[str] = "fetch.attempt"
    internal: ClassVar[bool] = True
    source: str
    method: str
    code: str
    seconds: float
    remaining: int | None = None  # requests the API says are left, if it does


class FetchCompleted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "fetch.complete"
    also: ClassVar[tuple[str, ...]] = ("status_code",)
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

    @property
    def status_code(self) -> int:
        return self.status


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
    """A `map` or `apply` has built a value; `fields_mapping`: how many fields it writes."""

    type: ClassVar[str] = "data.transform"
    input_count: int
    output_count: int
    fields_mapping: int
    target_schema: str | None = None


class DataValidated(Event, frozen=True, kw_only=True):
    """A `validate` step, or the check of an answer against its specification.

    Attributes:
        passed: nothing of severity error is wrong, so that the step goes on; valid: nothing is wrong at all.
        rules, errors: the constraints, and those that do not hold, as the mission writes them: no data.
    """

    type: ClassVar[str] = "data.validate"
    target: str
    passed: bool
    valid: bool
    warning_count: int
    error_count: int
    rules: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class DataRefused(DataValidated, frozen=True, kw_only=True):
    """A validation that found something. A class of its own, so that who wants only these costs the others nothing."""


class DataStored(Event, frozen=True, kw_only=True):
    """Writes to one store since the last such event: one store step, or a batch of a loop's.

    `operation` is set, update or upsert.
    """

    type: ClassVar[str] = "data.store"
    own: ClassVar[frozenset[str]] = frozenset(("deleted",))
    also: ClassVar[tuple[str, ...]] = ("store", "count")
    store_name: str
    store_type: str
    operation: str
    item_count: int
    added: int
    updated: int
    unchanged: int
    deleted: int = 0
    key: str | None = None

    @property
    def store(self) -> str:
        return self.store_name

    @property
    def count(self) -> int:
        return self.item_count


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


class MatchAttempted(Event, frozen=True, kw_only=True):
    """A `match` begins. `schemas`: its arms' patterns in order, those that take anything left out."""

    type: ClassVar[str] = "match.attempt"
    schemas: tuple[str, ...]
    has_default: bool


class MatchDecided(Event, frozen=True, kw_only=True):
    """The arm that was chosen, by its pattern; neither pattern nor default: none was."""

    type: ClassVar[str] = "match.result"
    is_default: bool
    matched_schema: str | None = None
    flow_directive: str | None = None


class WebhookRegistered(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "webhook.register"
    registration_id: str
    path: str
    webhook_url: str
    timeout: int
    expected_events: int


class WebhookReceived(Event, frozen=True, kw_only=True):
    """An event was accepted, or filtered out."""

    type: ClassVar[str] = "webhook.event"
    registration_id: str
    event_index: int
    total_expected: int
    filtered: bool


class WebhookRejected(Event, frozen=True, kw_only=True):
    """A call was refused: with which status, and why."""

    type: ClassVar[str] = "webhook.rejected"
    path: str
    status: int
    reason: str


class WebhookCompleted(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "webhook.complete"
    registration_id: str
    events_received: int
    timed_out: bool
    stored_to: str | None = None


class Progressed(Event, frozen=True, kw_only=True):
    """How far an action is, a few times a second. `total` is None while unknown."""

    type: ClassVar[str] = "progress"
    internal: ClassVar[bool] = True
    action: str
    step: str
    current: int
    total: int | None
    items_processed: int


class ErrorRecorded(Event, frozen=True, kw_only=True):
    """One more entry of the record's `errors`, for callbacks. `location` is `file:line:col`, if known."""

    type: ClassVar[str] = "error"
    internal: ClassVar[bool] = True
    message: str
    kind: str
    step: str | None = None
    location: str | None = None


class ItemsCounted(Event, frozen=True, kw_only=True):
    """Items that were skipped, or failed a `validate`, since the last such event, for metrics."""

    type: ClassVar[str] = "items"
    internal: ClassVar[bool] = True
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


TOKENS_NOT_KEPT = "the new tokens could not be kept"
"""How the error of an `AuthRefreshed` begins whose token works, but would be gone after a restart."""


class AuthRefreshed(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "auth.refresh"
    own: ClassVar[frozenset[str]] = frozenset(("expires_at",))
    source: str
    reason: str
    success: bool
    error: str | None = None
    expires_at: datetime | None = None


class Noticed(Event, frozen=True, kw_only=True):
    """A line for the log that no other event carries: a warning in a run. `level` is debug, info, warning or error."""

    type: ClassVar[str] = "notice"
    internal: ClassVar[bool] = True
    level: str
    message: str
    location: str | None = None


# What happens for each item of a loop. Where nobody listens to one of these, generated code does not even ask.
PER_ITEM: tuple[type[Event], ...] = (
    StepStarted,
    StepEnded,
    LoopStarted,
    LoopIteration,
    LoopEnded,
    DataTransformed,
    DataValidated,
    MatchAttempted,
    MatchDecided,
)

# The action that the running task belongs to: for events of rooms that know none.
ACTION: ContextVar[str | None] = ContextVar("reqon_action", default=None)

Handler = Callable[[Emitted], None]


def event_kinds() -> dict[str, tuple[type[Event], ...]]:
    """Public name -> its classes, of all events of the public table."""
    found: dict[str, tuple[type[Event], ...]] = {}
    pending = list(Event.__subclasses__())
    while pending:
        kind = pending.pop(0)
        pending += kind.__subclasses__()
        if not kind.internal and kind.type != Event.type and kind.__module__ == __name__:
            found[kind.type] = (*found.get(kind.type, ()), kind)
    return found


class EventBus:
    """Calls handlers in order, in the emitting task. A handler is quick or keeps a queue of its own.

    One that raises is counted in `failures`, and logged the first time; neither the run nor other handlers notice.
    """

    def __init__(self) -> None:
        self._failed: set[Handler] = set()
        self._by_kind: dict[type[Event], tuple[Handler, ...]] = {}
        self._listeners: list[tuple[type[Event], Handler, bool]] = []
        self.failures = 0

    def on(self, kind: type[Event], handler: Handler, *, exactly: bool = False) -> Callable[[], None]:
        """Tell `handler` of this kind and, unless `exactly`, its subclasses; `on(Event, …)` hears all.

        Answers how to stop it.
        """
        entry = (kind, handler, exactly)
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

    def kinds(self) -> tuple[tuple[type[Event], bool], ...]:
        """What somebody listens to, each with whether exactly that."""
        return tuple(sorted({(k, exactly) for k, _, exactly in self._listeners}, key=lambda pair: pair[0].__name__))

    def emit(self, emitted: Emitted) -> None:
        for handler in self._handlers(type(emitted.event)):
            try:
                handler(emitted)
            except Exception:  # one of the four walls: a subscriber's fault must not reach a run
                self.failures += 1
                if handler not in self._failed:
                    self._failed.add(handler)
                    logging.getLogger("reqon").exception("an event subscriber failed on %s", emitted.type)

    def _handlers(self, kind: type[Event]) -> Sequence[Handler]:
        handlers = self._by_kind.get(kind)
        if handlers is None:
            handlers = tuple(
                h for k, h, exactly in self._listeners if kind is k or (not exactly and issubclass(kind, k))
            )
            self._by_kind[kind] = handlers
        return handlers
