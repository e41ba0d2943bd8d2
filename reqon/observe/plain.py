"""Warnings of one-shot runs as plain lines, and text that moves no cursor."""

import logging
import re
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

from reqon.clock import rfc3339
from reqon.diagnostics import escape_controls
from reqon.events import Emitted, EventBus, FetchRetried, Noticed
from reqon.secrets import SECRETS
from reqon.values import to_builtins

FIELD_LIMIT = 8 * 1024
_HARMLESS = frozenset((int, float, bool))  # nothing to mask or cut, and most fields of most lines
_BREAKS = re.compile(r"[\x7f-\x9f\u2028\u2029]")


def line_safe(json: str) -> str:
    """JSON in which what some readers take for a line break is escaped too."""
    return _BREAKS.sub(lambda m: f"\\u{ord(m[0]):04x}", json)


def safe_field(value: Any) -> Any:
    """A value as a log line may show it: JSON-like, every secret masked, texts cut to 8 KiB."""
    if value is None or type(value) in _HARMLESS:
        return value
    if isinstance(value, datetime):
        return rfc3339(value)
    safe = SECRETS.redact_value(to_builtins(value) if not isinstance(value, str) else value)
    if isinstance(safe, str):
        if not safe.isascii():
            safe = safe.encode("utf-8", "backslashreplace").decode()
        return safe if len(safe) <= FIELD_LIMIT else safe[:FIELD_LIMIT] + "…"
    return safe


class PlainWarnings(logging.Handler):
    """`warning: …` on stderr for what the log would say at warning level or above. No logging library is imported.

    Without a bus: errors only.
    """

    def __init__(self, bus: EventBus | None) -> None:
        super().__init__(logging.ERROR if bus is None else logging.WARNING)
        if bus is not None:
            bus.on(Noticed, self._noticed)
            bus.on(FetchRetried, self._retried)
        logger = logging.getLogger("reqon")
        logger.handlers[:] = [self]
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        word = "warning" if record.levelno < logging.ERROR else "error"
        self._line(f"{word}: {record.getMessage()}")
        if record.exc_info:
            for line in SECRETS.redact(logging.Formatter().formatException(record.exc_info)).split("\n"):
                self._line(f"    {line}")

    def _noticed(self, emitted: Emitted) -> None:
        event = emitted.event
        assert isinstance(event, Noticed)
        if event.level in ("warning", "error"):
            place = f"{event.location}: " if event.location else f"{emitted.mission}: "
            self._line(f"{place}{event.level}: {event.message}")

    def _retried(self, emitted: Emitted) -> None:
        event = emitted.event
        assert isinstance(event, FetchRetried)
        self._line(
            f"{emitted.mission}: retrying {event.source} {event.path} in {event.wait_ms / 1000:.1f} s "
            f"(attempt {event.attempt} of {event.max_attempts}: {event.reason})"
        )

    def _line(self, text: str) -> None:
        with suppress(OSError):  # a closed stderr ends nothing
            print(escape_controls(SECRETS.redact(text)), file=sys.stderr)  # noqa: T201  # this is the log here
