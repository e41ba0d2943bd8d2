"""Everybody who hears of one run of the Python API: callbacks, hooks, emitter, logger, traces."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, Self

from reqon.callbacks import CircuitBreakerCallbacks, ProgressCallbacks, RateLimitCallbacks, Teller
from reqon.events import EventBus
from reqon.observe.emitter import EventEmitter
from reqon.runner import Runner

if TYPE_CHECKING:  # what only some runs use is imported when they do
    from reqon.observe.otlp import OTLPExporter


class RunListener(Protocol):
    """Whoever can be attached to a run's events: a structured logger, or your own."""

    def attach(self, bus: EventBus) -> Callable[[], None]: ...


_GIVEN_BY = {
    "progress_callbacks": (ProgressCallbacks, "ProgressCallbacks(on_progress=…)"),
    "rate_limit_callbacks": (RateLimitCallbacks, "RateLimitCallbacks(on_waiting=…)"),
    "circuit_breaker_callbacks": (CircuitBreakerCallbacks, "CircuitBreakerCallbacks(on_open=…)"),
    "event_emitter": (EventEmitter, "create_emitter()"),
}


def refuse_wrong_listeners(options: Mapping[str, object]) -> None:
    """Look at what `execute` is given for listening before anything begins.

    Raises:
        TypeError: one is of another kind; the message says what it is made by.
    """
    for name, (kind, made) in _GIVEN_BY.items():
        given = options.get(name)
        if given is not None and not isinstance(given, kind):
            raise TypeError(f"write {name}={made}, not {type(given).__name__}")
    logger = options.get("logger")
    if logger is not None and not hasattr(logger, "attach"):
        raise TypeError(f"write logger=create_structured_logger(), not {type(logger).__name__}")


class Listeners:
    """Attached to a runner while the block lasts. `calls`: whether the teller has anybody to call."""

    def __init__(
        self,
        runner: Runner,
        *,
        progress: ProgressCallbacks | None = None,
        limits: RateLimitCallbacks | None = None,
        breakers: CircuitBreakerCallbacks | None = None,
        emitter: EventEmitter | None = None,
        logger: RunListener | None = None,
        verbose: bool = False,
    ) -> None:
        self.teller = Teller(runner.bus)
        self._runner = runner
        self._breakers = breakers
        self._emitter = emitter
        self._loggers = [logger] if logger is not None else []
        self._offs: list[Callable[[], None]] = []
        self._exporter: OTLPExporter | None = None
        hook = runner.additions.hooks.on_error
        self.calls = any(one is not None for one in (progress, limits, breakers)) or bool(hook)
        if progress is not None:
            self.teller.follow(progress)
        if limits is not None:
            self.teller.follow_limits(limits)
        if breakers is not None:
            self.teller.follow_breakers(breakers)
        if hook:
            self.teller.follow_errors(hook)
        if verbose:
            from reqon.observe.logger import create_structured_logger  # noqa: PLC0415  # only where asked for

            self._loggers.append(create_structured_logger())

    def __enter__(self) -> Self:
        runner = self._runner
        if self._breakers is not None:
            self._breakers.watch(runner.connections)
        listening = [self._emitter, *self._loggers]
        self._offs += [one.attach(runner.bus) for one in listening if one is not None]
        if runner.environment.get("REQON_OTEL_ENDPOINT"):
            from reqon.observe.traces import trace  # noqa: PLC0415  # only where asked for

            self._exporter = trace(runner.bus, runner.environment)
        return self

    def __exit__(self, *_: object) -> None:
        if self._breakers is not None:
            self._breakers.watch(None)
        for off in self._offs:
            off()

    async def drain(self) -> None:
        """Wait for coroutines that the emitter's handlers have begun, and let spans go out, within 5 s."""
        if self._emitter is not None:
            await self._emitter.drain()
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.shutdown)
