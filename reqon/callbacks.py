"""What users of the Python API are told while a mission runs (spec/state.md 9)."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from reqon.events import ActionEnded, ActionStarted, Emitted, ErrorRecorded, Event, EventBus, Progressed

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


class Teller:
    """Calls a user's callbacks: plain functions from the bus, coroutine functions in order from a task of their own."""

    def __init__(self, callbacks: ProgressCallbacks, bus: EventBus) -> None:
        self._waiting: asyncio.Queue[Awaitable[object] | None] = asyncio.Queue()
        self._bus = bus
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


def _report(event: Any) -> tuple[ErrorReport]:
    report = ErrorReport(
        message=event.message, kind=event.kind, action=event.action, step=event.step, location=event.location
    )
    return (report,)


def _progress(event: Any) -> tuple[Progress]:
    # The action stands in the event too; the envelope's is the same.
    return (Progress(action=event.event.action, step=event.step, current=event.current, total=event.total),)
