"""Events for users of the Python API: handlers by public name, plain or async (spec/runtime.md 15.1)."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from reqon.clock import SYSTEM, Clock
from reqon.diagnostics import did_you_mean
from reqon.events import Emitted, Event, EventBus, event_kinds

log = logging.getLogger("reqon")

EventHandler = Callable[[Emitted], Awaitable[object] | object]

# Filtered views of one event: name -> the state that it shows.
_VIEWS = {"circuit.open": "open", "circuit.halfopen": "half_open", "circuit.close": "closed"}
_STATE = "circuitbreaker.state"


class CustomEvent(Event, frozen=True, kw_only=True):
    """An event of the user's own, given to `EventEmitter.emit` by name."""

    given: Mapping[str, Any]

    def payload(self) -> dict[str, Any]:
        return dict(self.given)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.given:
            raise AttributeError(name)
        return self.given[name]


@cache
def _custom(name: str) -> type[CustomEvent]:
    return type("CustomEvent", (CustomEvent,), {"type": name, "__annotations__": {"type": ClassVar[str]}})


@dataclass(slots=True, eq=False)
class _Subscription:
    """One handler: of one public name (None: of all), of one breaker state if it is such a view."""

    handler: EventHandler
    type: str | None
    state: str | None
    emitter: "EventEmitter"
    failed: bool = False

    def takes(self, emitted: Emitted) -> bool:
        return self.type in (None, emitted.type) and self.state in (None, getattr(emitted.event, "state", None))

    def __call__(self, emitted: Emitted) -> None:
        if not self.takes(emitted):
            return
        try:
            answer = self.handler(emitted)
        except Exception as error:  # noqa: BLE001  # one of the four walls: a subscriber's fault must not reach a run
            self._note(error)
            return
        if inspect.isawaitable(answer):
            self.emitter._schedule(self._finish(answer))  # noqa: SLF001  # two halves of one thing

    async def _finish(self, answer: Awaitable[object]) -> None:
        try:
            await answer
        except Exception as error:  # noqa: BLE001  # the same wall, one turn later
            self._note(error)

    def _note(self, error: Exception) -> None:
        """Log a handler's failure, the first time."""
        if not self.failed:
            self.failed = True
            log.error("a handler of %s failed", self.type or "all events", exc_info=error)


class EventEmitter:
    """Tells handlers what happens in the runs it is given to, by `execute(…, event_emitter=emitter)`.

    Handlers are called in order, in the run's own task, with an `Emitted`: `event.type`, `event.mission`,
    `event.execution_id`, `event.timestamp`, `event.duration`, and each payload field as an attribute. What a handler
    raises is logged once. Coroutine functions are scheduled; `drain` waits for them, as `execute` does at its end.
    What nobody asks for is never built.
    """

    def __init__(self, execution_id: str | None = None, mission: str | None = None, *, clock: Clock = SYSTEM) -> None:
        self.execution_id = execution_id
        self.mission = mission
        self._clock = clock
        self._seq = 0
        self._subscriptions: list[_Subscription] = []
        self._attached: list[tuple[EventBus, dict[_Subscription, list[Callable[[], None]]]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def on(self, type: str, handler: EventHandler) -> Callable[[], None]:  # noqa: A002  # the documented name
        """Call `handler` on each event of a type, or of `circuit.open`, `circuit.halfopen`, `circuit.close`.

        Answers how to stop it.

        Raises:
            ValueError: the name is nearly one of ours. Names of your own, for `emit`, are taken as they are.
        """
        kinds = event_kinds()
        if type in _VIEWS:
            return self._add(_Subscription(handler, _STATE, _VIEWS[type], self))
        rooms = {name.partition(".")[0] for name in (*kinds, *_VIEWS)}
        if type not in kinds and type.partition(".")[0] in rooms:
            raise ValueError(f"there is no event '{type}'; {did_you_mean(type, [*kinds, *_VIEWS], 'events')}")
        return self._add(_Subscription(handler, type, None, self))

    def on_all(self, handler: EventHandler) -> Callable[[], None]:
        """Call `handler` on every event. Answers how to stop it."""
        return self._add(_Subscription(handler, None, None, self))

    def clear(self) -> None:
        """Forget all handlers."""
        for subscription in list(self._subscriptions):
            self._remove(subscription)

    def emit(
        self,
        event: Event | Emitted | str,
        payload: Mapping[str, Any] | None = None,
        *,
        action: str | None = None,
        duration: int | None = None,
    ) -> None:
        """Tell the handlers of an event: one of ours, or one of your own by its name, with its payload.

        Runs tell theirs by themselves.
        """
        if isinstance(event, str):
            event = _custom(event)(given=payload or {})
        if not isinstance(event, Emitted):
            self._seq += 1
            event = Emitted(
                event,
                self._seq,
                self.execution_id or "",
                self.mission or "",
                self._clock.now(),
                action,
                duration,
            )
        for subscription in tuple(self._subscriptions):
            subscription(event)

    async def drain(self) -> None:
        """Wait for coroutines that handlers have begun."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    # --- runs ---------------------------------------------------------------------------------------------------------

    def attach(self, bus: EventBus) -> Callable[[], None]:
        """Hear what a runner's bus tells, from now on; also by handlers that come later. Answers how to stop it."""
        entry: tuple[EventBus, dict[_Subscription, list[Callable[[], None]]]] = (bus, {})
        self._attached.append(entry)
        for subscription in self._subscriptions:
            entry[1][subscription] = self._listen(bus, subscription)

        def detach() -> None:
            if entry in self._attached:
                self._attached.remove(entry)
                for offs in entry[1].values():
                    for off in offs:
                        off()

        return detach

    def _listen(self, bus: EventBus, subscription: _Subscription) -> list[Callable[[], None]]:
        def told(emitted: Emitted) -> None:
            self.execution_id, self.mission = emitted.execution_id, emitted.mission
            subscription(emitted)

        kinds = event_kinds()
        wanted = sum(kinds.values(), ()) if subscription.type is None else kinds.get(subscription.type, ())
        return [bus.on(kind, told, exactly=True) for kind in wanted]

    def _add(self, subscription: _Subscription) -> Callable[[], None]:
        self._subscriptions.append(subscription)
        for bus, offs in self._attached:
            offs[subscription] = self._listen(bus, subscription)
        return lambda: self._remove(subscription)

    def _remove(self, subscription: _Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            for _, offs in self._attached:
                for off in offs.pop(subscription, ()):
                    off()

    def _schedule(self, work: "Any") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def create_emitter(execution_id: str | None = None, mission: str | None = None) -> EventEmitter:
    """A new emitter. The ids are those of what `emit` tells; a run fills in its own."""
    return EventEmitter(execution_id, mission)
