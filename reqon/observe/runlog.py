"""What each execution did, line by line, in its own file of the state directory: what `reqon logs` shows.

Kept for every run whose record is kept, whatever the log of the process shows; lines are those of level info and above,
without the ones that come per item. Bounded: the newest megabyte or two of an execution. No promise hangs on a line, so
none is synced, and a disk that takes none ends no run. They go with the execution's record.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import RLock
from typing import Any

from reqon.clock import SYSTEM, rfc3339
from reqon.events import (
    CheckpointResumed,
    DataRefused,
    DataStored,
    Emitted,
    ErrorRecorded,
    Event,
    EventBus,
    FetchCompleted,
    FetchFailed,
    FetchRetried,
    MissionEnded,
    Noticed,
    StageEnded,
    camel,
)
from reqon.files import append_lines, replace_older
from reqon.observe.levels import kinds_shown, level_of
from reqon.observe.plain import safe_field
from reqon.state.directory import StateDirectory
from reqon.state.records import MAX_ERRORS
from reqon.values import encode

FILE_BYTES = 1 << 20  # of each of the two files
MOST = 200  # lines about what may happen once per item, of each kind; a mission may send a million requests
STORE_SECONDS = 10.0
_FLUSH_SECONDS = 0.2
_FLUSH_BYTES = 64 * 1024
_AT_MOST = dict.fromkeys((FetchCompleted, FetchRetried, FetchFailed, DataRefused), MOST) | {ErrorRecorded: MAX_ERRORS}
# What else tells where a run failed or went on.
_ALSO: Mapping[type[Event], str] = {ErrorRecorded: "error", CheckpointResumed: "info"}
_COUNTS = ("added", "updated", "unchanged", "deleted")

_current: "ContextVar[_Lines | None]" = ContextVar("reqon_run_log", default=None)


class RunLogs:
    """The logs of a process's executions: hears their events, and what is logged while they run."""

    def __init__(self, directory: StateDirectory, bus: EventBus) -> None:
        self._directory = directory
        self._bus = bus
        self._open: dict[str, _Lines] = {}
        self._listening: dict[type[Event], Callable[[], None]] = {}  # with how to stop it
        self._tees = False

    @contextmanager
    def of(self, execution_id: str, mission: str) -> Iterator[None]:
        """Keep the lines of this execution, which runs in here."""
        for kind in (*kinds_shown(logging.INFO), *_ALSO):
            if kind not in self._listening:
                self._listening[kind] = self._bus.on(kind, self._heard, exactly=True)
        if not self._tees:
            self._tees = True
            logging.getLogger("reqon").addFilter(_tee)
        lines = self._open[execution_id] = _Lines(self._directory, execution_id, mission)
        token = _current.set(lines)
        try:
            yield
        finally:
            _current.reset(token)
            del self._open[execution_id]
            lines.close()

    def _heard(self, emitted: Emitted) -> None:
        lines = self._open.get(emitted.execution_id)
        if lines is not None:
            lines.hear(emitted)
            kind = type(emitted.event)
            if lines.has_enough(kind) and all(other.has_enough(kind) for other in self._open.values()):
                self._listening.pop(kind)()  # nobody makes an event of each request for a line that is not kept


def _tee(record: logging.LogRecord) -> bool:
    """Let a logged line through, and keep a copy for the execution in whose context it is logged."""
    lines = _current.get()
    if lines is not None and record.levelno >= logging.INFO:
        fields = {"message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        lines.add(record.levelname.lower(), fields)
    return True


class _Lines:
    """One execution's lines on their way to its files; any thread may add some."""

    def __init__(self, directory: StateDirectory, execution_id: str, mission: str) -> None:
        self._directory = directory
        self._older, self._path = directory.log_files(execution_id)
        self._about = {"mission": mission, "execution_id": execution_id}
        self._buffer: list[bytes] = []
        self._bytes = 0
        self._written_at = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._lock = RLock()  # a warning about these lines is a line itself
        self._closed = False
        self._told: dict[type[Event], int] = {}
        self._stored: dict[str, dict[str, int]] = {}  # by store: what was written since the last line about it
        self._stored_at = SYSTEM.monotonic()

    def hear(self, emitted: Emitted) -> None:
        event = emitted.event
        kind = type(event)
        level = _ALSO.get(kind) or level_of(event)
        if level == "debug":
            return
        if (most := _AT_MOST.get(kind)) is not None:
            told = self._told[kind] = self._told.get(kind, 0) + 1
            if told > most:
                if told == most + 1:
                    self.add("info", {"message": f"{most} lines of {emitted.type}; more are only counted"})
                return
        if isinstance(event, DataStored):
            counts = self._stored.setdefault(event.store_name, dict.fromkeys(_COUNTS, 0))
            for name in _COUNTS:
                counts[name] += getattr(event, name)
            if SYSTEM.monotonic() - self._stored_at >= STORE_SECONDS:
                self._tell_stored()
            return
        if isinstance(event, StageEnded | MissionEnded):
            self._tell_stored()
        fields = {camel(name): getattr(event, name) for name in event.__struct_fields__}
        if isinstance(event, Noticed):
            del fields["level"]
        fields.setdefault("message", emitted.type)
        self.add(level, {**fields, "action": emitted.action, "duration": emitted.duration})

    def has_enough(self, kind: type[Event]) -> bool:
        """Whether it keeps no more lines about events of this kind."""
        return self._told.get(kind, 0) > _AT_MOST.get(kind, sys.maxsize)

    def _tell_stored(self) -> None:
        self._stored_at = SYSTEM.monotonic()
        stored, self._stored = self._stored, {}
        for name, counts in stored.items():
            self.add("info", {"message": DataStored.type, "storeName": name, **counts})

    def add(self, level: str, fields: Mapping[str, Any]) -> None:
        """Keep a line; its texts masked and cut."""
        shown = {"timestamp": rfc3339(SYSTEM.now()), "level": level, "message": fields["message"], **self._about}
        shown |= {name: value for name, value in fields.items() if value is not None}
        line = encode({name: safe_field(value) for name, value in shown.items()}) + b"\n"
        with self._lock:
            if self._closed:
                return  # what outlives the run: its record may be gone by now
            self._buffer.append(line)
            self._bytes += len(line)
            if self._bytes >= _FLUSH_BYTES or SYSTEM.monotonic() - self._written_at >= _FLUSH_SECONDS:
                self._write()
            elif self._later is None:
                with suppress(RuntimeError):  # a thread beside the loop: the next line takes it along
                    self._later = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._write_later)

    def _write_later(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self._buffer:
            return
        lines, self._buffer, self._bytes = b"".join(self._buffer), [], 0
        self._written_at = SYSTEM.monotonic()
        try:
            if append_lines(self._path, lines) >= FILE_BYTES:
                replace_older(self._path, self._older)
        except OSError as error:
            self._directory.warn_once(f"log lines of executions are not kept: {self._path.parent}: {error.strerror}")

    def close(self) -> None:
        self._tell_stored()
        with self._lock:
            self._write()
            self._closed = True
