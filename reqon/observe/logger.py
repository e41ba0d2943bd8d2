"""The structured logger of the Python API (spec/runtime.md 15.3): levels, contexts, spans, any number of outputs."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import IO, Self, overload

from reqon.clock import SYSTEM, Clock
from reqon.events import Emitted, EventBus, Noticed
from reqon.observe.emitter import EventEmitter
from reqon.observe.levels import LEVELS, kinds_shown, level_of
from reqon.observe.outputs import ORDER, ConsoleOutput, EventOutput, JsonLinesOutput, LogEntry, LogfmtOutput, LogOutput
from reqon.tracing import generate_span_id
from reqon.values import Value


class _Outputs:
    """What a logger and its children share: outputs and the least level."""

    def __init__(self, level: str) -> None:
        self.outputs: list[LogOutput] = []
        self.level = _rank(level)

    def write(self, entry: LogEntry) -> None:
        for output in tuple(self.outputs):
            try:
                output.write(entry)
            except Exception as error:  # noqa: BLE001  # a broken output ends nothing; it is dropped, and that said once
                self.outputs.remove(output)
                logging.getLogger("reqon").warning("the log output %s is dropped: %s", type(output).__name__, error)


def _rank(level: str) -> int:
    name = "warn" if level.lower() == "warning" else level.lower()
    if name not in ORDER:
        raise ValueError(f"log level must be one of {', '.join(ORDER)}, not '{level}'")
    return ORDER.index(name)


class StructuredLogger:
    """Writes lines with a message and a context to its outputs; see `create_structured_logger`."""

    def __init__(
        self,
        shared: _Outputs,
        context: Mapping[str, Value],
        *,
        clock: Clock = SYSTEM,
        span_id: str | None = None,
        parent_span_id: str | None = None,
    ) -> None:
        self._shared = shared
        self._context = dict(context)
        self._clock = clock
        self._span_id = span_id
        self._parent_span_id = parent_span_id

    def debug(self, message: str, context: Mapping[str, Value] | None = None) -> None:
        """Write a line of level debug, with fields of its own."""
        self._log("debug", message, context)

    def info(self, message: str, context: Mapping[str, Value] | None = None) -> None:
        """Write a line of level info, with fields of its own."""
        self._log("info", message, context)

    def warn(self, message: str, context: Mapping[str, Value] | None = None) -> None:
        """Write a line of level warn, with fields of its own."""
        self._log("warn", message, context)

    def error(self, message: str, context: Mapping[str, Value] | None = None) -> None:
        """Write a line of level error, with fields of its own."""
        self._log("error", message, context)

    def child(self, context: Mapping[str, Value]) -> "StructuredLogger":
        """A logger whose lines carry this context too."""
        merged = {**self._context, **context}
        return StructuredLogger(
            self._shared, merged, clock=self._clock, span_id=self._span_id, parent_span_id=self._parent_span_id
        )

    def span(self, name: str) -> "LogSpan":
        """A piece of work: a logger whose `end()` writes how long it took."""
        return LogSpan(self._shared, self._context, name, parent=self._span_id, clock=self._clock)

    def set_level(self, level: str) -> None:
        """Show nothing below this level: debug, info, warn or error."""
        self._shared.level = _rank(level)

    def add_output(self, output: LogOutput) -> None:
        """Write to this one as well."""
        self._shared.outputs.append(output)

    def attach(self, bus: EventBus) -> Callable[[], None]:
        """Write a line for each event of a runner that has one of this level, from now on. Answers how to stop it."""
        least = LEVELS[ORDER[self._shared.level]]
        offs = [bus.on(kind, self._told, exactly=True) for kind in kinds_shown(least)]

        def detach() -> None:
            for off in offs:
                off()

        return detach

    def _told(self, emitted: Emitted) -> None:
        event = emitted.event
        level = level_of(event)
        message, context = emitted.type, event.payload()
        if isinstance(event, Noticed):
            message = context.pop("message")
            context.pop("level")
        if emitted.duration is not None:
            context["duration"] = emitted.duration
        about = {"mission": emitted.mission, "execution_id": emitted.execution_id, "action": emitted.action}
        self._log("warn" if level == "warning" else level, message, context, about)

    def _log(
        self,
        level: str,
        message: str,
        context: Mapping[str, Value] | None,
        about: Mapping[str, Value] | None = None,
        duration: int | None = None,
    ) -> None:
        if ORDER.index(level) < self._shared.level:
            return
        self._shared.write(
            LogEntry(
                level=level,
                message=message,
                timestamp=self._clock.now(),
                context={**self._context, **(context or {})},
                about={k: v for k, v in (about or {}).items() if v is not None},
                span_id=self._span_id,
                parent_span_id=self._parent_span_id,
                duration=duration,
            )
        )


class LogSpan(StructuredLogger):
    """A logger for a piece of work; its lines carry its `id`."""

    def __init__(
        self, shared: _Outputs, context: Mapping[str, Value], name: str, *, parent: str | None, clock: Clock
    ) -> None:
        self.id = generate_span_id()
        super().__init__(shared, context, clock=clock, span_id=self.id, parent_span_id=parent)
        self._name = name
        self._started = clock.monotonic()

    def add_context(self, context: Mapping[str, Value]) -> Self:
        """Let this span's further lines carry this too."""
        self._context |= context
        return self

    @overload
    def child(self, context: str) -> "LogSpan": ...
    @overload
    def child(self, context: Mapping[str, Value]) -> StructuredLogger: ...
    def child(self, context: Mapping[str, Value] | str) -> StructuredLogger:
        """A piece of this work, by its name; or a logger whose lines carry this context too."""
        return self.span(context) if isinstance(context, str) else super().child(context)

    def end(self) -> int:
        """The work is over: the milliseconds it took; `span:end` at debug says so."""
        milliseconds = round((self._clock.monotonic() - self._started) * 1000)
        self._log("debug", "span:end", {"span": self._name}, duration=milliseconds)
        return milliseconds


def _console(prefix: str) -> LogOutput:
    form = os.environ.get("REQON_LOG_FORMAT") or "text"
    if form == "json":
        return JsonLinesOutput(lambda: sys.stderr)
    return LogfmtOutput() if form == "logfmt" else ConsoleOutput(prefix)


def create_structured_logger(
    prefix: str = "Reqon",
    level: str | None = None,
    console: bool = True,
    json_lines: bool = False,
    json_stream: IO[str] | None = None,
    context: Mapping[str, Value] | None = None,
    event_emitter: EventEmitter | None = None,
    silent: bool = False,
    *,
    clock: Clock = SYSTEM,
) -> StructuredLogger:
    """A logger with the outputs that are asked for; `silent`: none. More come by `add_output`.

    With `execute(…, logger=logger)` every event of the run becomes a line.

    `prefix` is what console lines begin with; `level` is debug, info, warn or error, without it REQON_LOG_LEVEL, else
    info. `console` writes text to stderr, `json_lines` JSON to `json_stream`, else stdout; `context` are fields of
    every line, and `event_emitter` gets each line as an event of type `log`. How the console's lines are
    written says REQON_LOG_FORMAT: text, json or logfmt.

    Raises:
        ValueError: there is no such level.
    """
    shared = _Outputs(level or os.environ.get("REQON_LOG_LEVEL") or "info")
    logger = StructuredLogger(shared, context or {}, clock=clock)
    if not silent:
        if console:
            logger.add_output(_console(prefix))
        if json_lines or json_stream is not None:
            logger.add_output(JsonLinesOutput(json_stream))
        if event_emitter is not None:
            logger.add_output(EventOutput(event_emitter))
    return logger
