"""Log lines: structlog, JSON or text, to stderr, every secret masked (spec/daemon.md 8, spec/reliability.md 6 and 8).

The last processor before the renderer is the redaction; no renderer shows local variables of a traceback.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import IO, Any

import structlog

from reqon.clock import SYSTEM, rfc3339
from reqon.diagnostics import escape_controls
from reqon.errors import ConfigurationError
from reqon.events import Emitted, EventBus, Noticed, camel
from reqon.observe.levels import LEVELS, kinds_shown, level_of
from reqon.observe.plain import line_safe, safe_field
from reqon.values import encode

FORMATS = ("json", "logfmt", "text")
_FIRST = ("timestamp", "level", "message", "mission", "execution_id", "slot", "action", "step", "source", "attempt")

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+\-]+")
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}

Entry = MutableMapping[str, Any]


def _not_among(variable: str, words: str, word: str) -> ConfigurationError:
    return ConfigurationError(f"{variable} must be {words}, not '{word}'", code="bad-option")


def configure(
    *,
    stream: IO[str] | None = None,
    form: str | None = None,
    level: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Send all log lines to a stream: text with colours on a terminal, JSON elsewhere, unless told otherwise.

    Returns:
        The least level that is shown.

    Raises:
        ConfigurationError: an unknown format or level.
    """
    stream = sys.stderr if stream is None else stream
    chosen = form or environment.get("REQON_LOG_FORMAT") or ("text" if stream.isatty() else "json")
    if chosen not in FORMATS:
        raise _not_among("REQON_LOG_FORMAT", "json, logfmt or text", chosen)
    least = (level or environment.get("REQON_LOG_LEVEL") or "info").lower()
    if least not in LEVELS:
        raise _not_among("REQON_LOG_LEVEL", "debug, info, warn or error", least)
    render: Callable[[Entry], str] = {"json": as_json, "logfmt": as_logfmt, "text": _text_renderer(stream)}[chosen]
    shared: list[Any] = [structlog.contextvars.merge_contextvars, _level, _timestamp]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[least]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _SteadyHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                lambda _logger, _name, entry: render(redacted(entry)),
            ],
        )
    )
    for name in ("reqon", "reqon_daemon"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(LEVELS[least])
        logger.propagate = False
    return least


class _SteadyHandler(logging.StreamHandler[IO[str]]):
    """A closed stderr or a full log disk ends nothing."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the library's name
        """Say nothing: there is nowhere left to say it."""


def _level(_logger: Any, name: str, entry: Entry) -> Entry:
    entry["level"] = "warning" if name == "warn" else "error" if name == "exception" else name
    return entry


def _timestamp(_logger: Any, _name: str, entry: Entry) -> Entry:
    entry["timestamp"] = rfc3339(SYSTEM.now())
    return entry


def redacted(entry: Entry) -> Entry:
    """The entry with `event` as `message`, its keys in order, every text masked and cut to 8 KiB."""
    known = dict(entry)
    known["message"] = known.pop("event", "")
    if "exception" in known:
        known["exception"] = str(known["exception"])
    ordered = {key: known.pop(key) for key in _FIRST if known.get(key) is not None}
    return {key: safe_field(value) for key, value in {**ordered, **known}.items() if not key.startswith("_")}


def as_json(entry: Entry) -> str:
    """JSON, in which what some readers take for a line break is escaped too."""
    return line_safe(encode(dict(entry)).decode())


def as_json_text(text: str) -> str:
    """A text in quotes, escaped."""
    return line_safe(encode(text).decode())


def as_logfmt(entry: Entry) -> str:
    return " ".join(f"{key}={_logfmt(value)}" for key, value in entry.items())


def _logfmt(value: Any) -> str:
    text = value if isinstance(value, str) else encode(value).decode()
    return text if _PLAIN.fullmatch(text) else as_json_text(text)


def _text_renderer(stream: IO[str]) -> Callable[[Entry], str]:
    coloured = stream.isatty() and "NO_COLOR" not in os.environ

    def render(entry: Entry) -> str:
        entry = dict(entry)
        stamp = str(entry.pop("timestamp", ""))[11:19]
        level = str(entry.pop("level", "info"))
        message = escape_controls(str(entry.pop("message", "")))
        exception = entry.pop("exception", None)
        rest = " ".join(f"{key}={escape_controls(_logfmt(value))}" for key, value in entry.items())
        shown = f"{level.upper():<7}"
        if coloured:
            shown = f"{_COLOURS.get(level, '')}{shown}\x1b[0m"
        line = f"{stamp} {shown} {message}" + (f"  {rest}" if rest else "")
        if exception:
            line += "\n" + "\n".join("    " + escape_controls(part) for part in str(exception).splitlines())
        return line

    return render


# --- events as lines -------------------------------------------------------------------------------------------------


class EventLog:
    """Writes each event as a log line: message = its type, its fields, and which execution."""

    def __init__(self, bus: EventBus, *, level: str = "info") -> None:
        self._log = structlog.get_logger("reqon.events")
        for kind in kinds_shown(LEVELS[level]):
            bus.on(kind, self.write, exactly=True)

    def write(self, emitted: Emitted) -> None:
        event = emitted.event
        named = {name: getattr(event, name) for name in event.__struct_fields__}
        fields = {camel(name): value for name, value in named.items() if value is not None}
        message = emitted.type
        if isinstance(event, Noticed):
            message = fields.pop("message")
            fields.pop("level", None)
        getattr(self._log, level_of(event))(
            message,
            mission=emitted.mission,
            execution_id=emitted.execution_id,
            **({"action": emitted.action} if emitted.action else {}),
            **({"duration": emitted.duration} if emitted.duration is not None else {}),
            **{k: v for k, v in fields.items() if k not in ("mission", "action", "duration")},
        )
