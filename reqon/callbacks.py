"""What users of the Python API are told while a mission runs (spec/state.md 9)."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from reqon.events import (
    ActionEnded,
    ActionStarted,
    BreakerChanged,
    Emitted,
    ErrorRecorded,
    Event,
    EventBus,
    FetchFailed,
    Progressed,
    RateLimitHit,
    RateLimitResumed,
    RateLimitWaiting,
)

log = logging.getLogger("reqon")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReport:
    """One failure of a run, as it is recorded.

    Attributes:
        kind: http, validation, store, abort, …: the words of spec/language.md 7.12.
        action, step: where in the mission; None for what belongs to no action.
        location: `file:line:col`, if known.
    """

    message: str
    kind: str
    action: str | None = None
    step: str | None = None
    location: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an action is: `current` of `total` items, pages or records; `total` is None while unknown."""

    action: str
    step: str
    current: int
    total: int | None


Callback = Callable[..., Awaitable[object] | object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressCallbacks:
    """What is called while a mission runs. Plain functions or coroutine functions.

    Plain ones are called at once, in the run's own event loop: be quick. Coroutine functions are awaited one after
    another beside the run, which waits for them only at its end. One that raises is logged; the run goes on.

    Attributes:
        on_action_start: called with the action's name.
        on_action_complete: with the action's name and how long it took, in milliseconds. Not for one that failed.
        on_error: with an `ErrorReport`, for every failure that the record keeps.
        on_progress: with a `Progress`, at most ten times a second.
    """

    on_action_start: Callback | None = None
    on_action_complete: Callback | None = None
    on_error: Callback | None = None
    on_progress: Callback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitCallbacks:
    """What is called around waits for a rate limit, ours or the API's; each with the event, `event.source` and so on.

    Attributes:
        on_rate_limited: a request has to wait, or is refused: `ratelimit.hit`.
        on_waiting: it still waits: first after `notifyAt`, then every 10 s: `ratelimit.wait`.
        on_resumed: the wait is over: `ratelimit.resume`.
    """

    on_rate_limited: Callback | None = None
    on_waiting: Callback | None = None
    on_resumed: Callback | None = None


@dataclass(slots=True, kw_only=True)
class CircuitBreakerCallbacks:
    """What is called when a circuit breaker changes, with the event; and, while a run goes on, a way to look at them.

    Attributes:
        on_open, on_half_open, on_close: `circuitbreaker.state` with that state.
        on_rejected: a request was refused because the breaker is open: `fetch.error` of kind circuit_open.
    """

    on_open: Callback | None = None
    on_half_open: Callback | None = None
    on_close: Callback | None = None
    on_rejected: Callback | None = None
    _breakers: "Breakers | None" = field(default=None, repr=False)

    def status(self, source: str) -> Mapping[str, object] | None:
        """`state, failures, successes, last_failure_time, next_attempt_time` of a breaker; None without one."""
        return None if self._breakers is None else self._breakers.breaker_status(source)

    def reset(self, source: str) -> None:
        """Close a source's breaker by hand."""
        if self._breakers is not None:
            self._breakers.reset_breaker(source)

    def watch(self, breakers: "Breakers | None") -> None:
        """Look at these from now on: a run has begun."""
        self._breakers = breakers


class Breakers(Protocol):
    """Whoever holds the breakers of a run."""

    def breaker_status(self, source: str) -> Mapping[str, object] | None: ...
    def reset_breaker(self, source: str) -> None: ...


class Teller:
    """Calls a user's callbacks: plain functions from the bus, coroutine functions in order from a task of their own."""

    def __init__(self, bus: EventBus) -> None:
        self._waiting: asyncio.Queue[Awaitable[object] | None] = asyncio.Queue()
        self._bus = bus

    def follow_limits(self, callbacks: RateLimitCallbacks) -> None:
        """Tell of waits for rate limits."""
        self._on(RateLimitHit, callbacks.on_rate_limited, lambda e: (e,))
        self._on(RateLimitWaiting, callbacks.on_waiting, lambda e: (e,))
        self._on(RateLimitResumed, callbacks.on_resumed, lambda e: (e,))

    def follow_breakers(self, callbacks: CircuitBreakerCallbacks) -> None:
        """Tell of circuit breakers."""
        states = {
            "open": callbacks.on_open,
            "half_open": callbacks.on_half_open,
            "closed": callbacks.on_close,
        }
        for state, callback in states.items():
            self._on(BreakerChanged, callback, _in_state(state))
        self._on(FetchFailed, callbacks.on_rejected, lambda e: (e,) if e.kind == "circuit_open" else None)

    def follow_errors(self, hook: Callback) -> None:
        """Call `hook(error report, where)` for every failure that a record keeps."""

        def where(e: Emitted) -> dict[str, object]:
            about = {"mission": e.mission, "execution_id": e.execution_id, "action": e.action, "step": e.event.step}  # type: ignore[attr-defined]
            return {k: v for k, v in about.items() if v is not None}

        self._on(ErrorRecorded, hook, lambda e: (*_report(e), where(e)))

    def follow(self, callbacks: ProgressCallbacks) -> None:
        """Tell of actions, progress and errors."""
        self._on(ActionStarted, callbacks.on_action_start, lambda e: (e.action_name,))
        self._on(
            ActionEnded,
            callbacks.on_action_complete,
            lambda e: (e.action_name, round(e.duration_seconds * 1000)) if e.success else None,
        )
        self._on(ErrorRecorded, callbacks.on_error, _report)
        self._on(Progressed, callbacks.on_progress, _progress)

    def _on(
        self, kind: type[Event], callback: Callback | None, arguments: Callable[[Any], tuple[object, ...] | None]
    ) -> None:
        if callback is None:
            return

        def tell(emitted: Emitted) -> None:
            given = arguments(emitted)
            if given is not None:
                # What it raises is logged by the bus.
                answer = callback(*given)
                if inspect.isawaitable(answer):
                    self._waiting.put_nowait(answer)

        self._bus.on(kind, tell)

    def end(self) -> None:
        """Nothing more will come."""
        self._waiting.put_nowait(None)

    async def work(self) -> None:
        """Await what coroutine functions gave, until the end."""
        while (answer := await self._waiting.get()) is not None:
            try:
                await answer
            except Exception:
                # One of the four walls: a subscriber's fault must not reach a run.
                log.exception("a progress callback failed")


def _in_state(state: str) -> Callable[[Any], tuple[object, ...] | None]:
    return lambda event: (event,) if event.state == state else None


def _report(event: Any) -> tuple[ErrorReport]:
    report = ErrorReport(
        message=event.message, kind=event.kind, action=event.action, step=event.step, location=event.location
    )
    return (report,)


def _progress(event: Any) -> tuple[Progress]:
    # The action stands in the event too; the envelope's is the same.
    return (Progress(action=event.event.action, step=event.step, current=event.current, total=event.total),)
