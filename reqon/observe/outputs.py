"""Where lines of a structured logger go (spec/runtime.md 15.3): console, JSON lines, a list, events, spans."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, Protocol

from reqon.clock import rfc3339
from reqon.diagnostics import escape_controls
from reqon.observe.emitter import EventEmitter
from reqon.observe.otlp import OTLPExporter
from reqon.observe.plain import line_safe, safe_field
from reqon.observe.spans import ERROR, UNSET, Span, nanoseconds
from reqon.secrets import SECRETS
from reqon.tracing import generate_span_id, generate_trace_id
from reqon.values import Value, encode

ORDER = ("debug", "info", "warn", "error")
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warn": "\x1b[33m", "error": "\x1b[31m"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line. `about` holds what says whose line it is (mission, execution_id, action), beside the context.

    `duration` is in milliseconds; `span_id` and `parent_span_id` are those of the logger's span.
    """

    level: str
    message: str
    timestamp: datetime
    context: Mapping[str, Value] = field(default_factory=dict)
    about: Mapping[str, Value] = field(default_factory=dict)
    span_id: str | None = None
    parent_span_id: str | None = None
    duration: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: every text masked and cut to 8 KiB."""
        shown: dict[str, Any] = {
            "level": self.level,
            "message": safe_field(self.message),
            "timestamp": rfc3339(self.timestamp),
            "context": {name: safe_field(value) for name, value in self.context.items()},
            "spanId": self.span_id,
            "parentSpanId": self.parent_span_id,
            "duration": self.duration,
            **{name: safe_field(value) for name, value in self.about.items()},
        }
        return {name: value for name, value in shown.items() if value is not None and value != {}}


class LogOutput(Protocol):
    """Takes the lines of a logger. One that raises is dropped, with one note."""

    def write(self, entry: LogEntry) -> None: ...


class ConsoleOutput:
    r"""`[Reqon] INFO  fetch.complete path="/parcels" status=200 duration=87ms` on stderr, or another stream.

    Control characters are escaped. `colors` None: on a terminal.
    """

    def __init__(
        self, prefix: str = "Reqon", colors: bool | None = None, stream: Callable[[], IO[str]] = lambda: sys.stderr
    ) -> None:
        self._prefix = prefix
        self._colors = colors
        self._stream = stream

    def write(self, entry: LogEntry) -> None:
        """Write the line, and flush."""
        stream = self._stream()
        level = f"{entry.level.upper():<5}"
        if stream.isatty() if self._colors is None else self._colors:
            level = f"{_COLOURS[entry.level]}{level}\x1b[0m"
        fields = {k: v for k, v in {**entry.about, **entry.context}.items() if k != "duration" and v is not None}
        parts = [f"{name}={_shown(value)}" for name, value in fields.items()]
        duration = entry.duration if entry.duration is not None else entry.context.get("duration")
        if duration is not None:
            parts.append(f"duration={_shown(duration)}ms")
        text = " ".join([SECRETS.redact(entry.message), *parts])
        print(f"[{self._prefix}] {level} {escape_controls(text)}", file=stream, flush=True)  # its purpose


def _shown(value: Value) -> str:
    return encode(safe_field(value)).decode()


class LogfmtOutput:
    """`level=info message=fetch.complete path="/parcels" status=200` on stderr, or another stream."""

    def __init__(self, stream: Callable[[], IO[str]] = lambda: sys.stderr) -> None:
        self._stream = stream

    def write(self, entry: LogEntry) -> None:
        fields = entry.to_dict()
        context = fields.pop("context", {})
        parts = [f"{name}={_word(value)}" for name, value in {**fields, **context}.items() if value is not None]
        print(escape_controls(" ".join(parts)), file=self._stream(), flush=True)  # its purpose


def _word(value: Value) -> str:
    text = _shown(value)
    plain = text[1:-1]
    return plain if isinstance(value, str) and plain and not set(plain) & set(' "=\\') else text


class JsonLinesOutput:
    """One JSON object a line, on stdout or another stream."""

    def __init__(self, stream: IO[str] | Callable[[], IO[str]] | None = None) -> None:
        self._stream = stream

    def write(self, entry: LogEntry) -> None:
        """Write the line, and flush."""
        stream = sys.stdout if self._stream is None else self._stream
        if callable(stream):
            stream = stream()
        stream.write(line_safe(encode(entry.to_dict()).decode()) + "\n")
        stream.flush()


class BufferOutput:
    """Keeps the lines, the newest `limit` of them."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self.entries: list[LogEntry] = []

    def write(self, entry: LogEntry) -> None:
        """Keep the line; the oldest goes above the limit."""
        self.entries.append(entry)
        if len(self.entries) > self._limit:
            del self.entries[: len(self.entries) - self._limit]

    def find(self, message: str) -> LogEntry | None:
        """The first line whose message holds this text."""
        return next((entry for entry in self.entries if message in entry.message), None)

    def filter(
        self, level: str | None = None, *, where: Callable[[LogEntry], bool] | None = None
    ) -> Sequence[LogEntry]:
        """The lines of a level, or of all, for which `where` holds."""
        return [e for e in self.entries if level in (None, e.level) and (where is None or where(e))]

    def clear(self) -> None:
        """Keep none of them any longer."""
        self.entries.clear()


class EventOutput:
    """Makes each line an event of type `log`, with level, message and context as its payload."""

    def __init__(self, emitter: EventEmitter) -> None:
        self._emitter = emitter
        self._busy = False

    def write(self, entry: LogEntry) -> None:
        """Tell the emitter's handlers, unless one of them wrote the line."""
        if self._busy:
            return  # a handler that logs must not hear of that for ever
        self._busy = True
        try:
            shown = entry.to_dict()
            payload: dict[str, Any] = {name: shown[name] for name in ("level", "message", "context") if name in shown}
            self._emitter.emit("log", payload, duration=entry.duration)
        finally:
            self._busy = False


_OPEN_SPANS = 1_000


class OTelLogOutput:
    """Gives the logger's spans to an exporter: `span:end` ends one, other lines within it are its events.

    A line outside of spans becomes a span without length. Of more than a thousand spans that were begun and not ended,
    the oldest is given away as it is, marked `reqon.unended`.
    """

    def __init__(self, exporter: OTLPExporter) -> None:
        self._exporter = exporter
        self._trace = generate_trace_id()
        self._lines: OrderedDict[str, list[LogEntry]] = OrderedDict()

    def write(self, entry: LogEntry) -> None:
        """Keep the line for its span, or give the span that it ends to the exporter."""
        at = nanoseconds(entry.timestamp)
        if entry.span_id is None:
            self._exporter.export((self._span(entry, entry.message, generate_span_id(), at, at),))
        elif entry.message == "span:end" and entry.duration is not None:
            name = str(entry.context.get("span", "span"))
            span = self._span(entry, name, entry.span_id, at - entry.duration * 1_000_000, at)
            self._export(span, self._lines.pop(entry.span_id, ()))
        else:
            kept = self._lines.setdefault(entry.span_id, [])
            if len(kept) < 128:
                kept.append(entry)
            if len(self._lines) > _OPEN_SPANS:
                self._give_up(*self._lines.popitem(last=False))

    def _give_up(self, span_id: str, lines: Sequence[LogEntry]) -> None:
        first, last = lines[0], lines[-1]
        span = self._span(first, "span", span_id, nanoseconds(first.timestamp), nanoseconds(last.timestamp))
        span.attributes["reqon.unended"] = True
        self._export(span, lines)

    def _export(self, span: Span, lines: Sequence[LogEntry]) -> None:
        for line in lines:
            span.add_event(line.message, nanoseconds(line.timestamp), {"level": line.level, **line.context})
            span.status = ERROR if line.level == "error" else span.status
        self._exporter.export((span,))

    def _span(self, entry: LogEntry, name: str, span_id: str, start: int, end: int) -> Span:
        return Span(
            name=name,
            trace_id=self._trace,
            span_id=span_id,
            parent_id=entry.parent_span_id,
            start=start,
            end=end,
            attributes={"level": entry.level, **entry.context},
            status=ERROR if entry.level == "error" else UNSET,
        )
