"""What the daemon and its workers say to each other: messages, each with its length, over a pair of sockets.

Both ends run one version of this code and nobody else can reach the pair, so that messages are pickled as they are.
"""

import asyncio
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reqon.events import Emitted, Event
from reqon.lang.program import MissionProgram
from reqon.runner import RunnerSettings
from reqon.runtime.request import CancelReason, RunRequest
from reqon.state.records import ExecutionRecord

_LENGTH = struct.Struct("<I")

# A mission's definition, and whether it runs as the schedule's: what a plan is made of.
PlanKey = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message to a worker: how it runs missions, and which log lines it writes to stderr."""

    settings: RunnerSettings
    environment: Mapping[str, str]
    log_level: str | None


@dataclass(frozen=True, slots=True)
class Begin:
    """Run this. `program` comes along when the worker has not had it yet; `wanted` are the events to send back."""

    number: int
    request: RunRequest
    plan: PlanKey
    program: MissionProgram | None
    wanted: tuple[tuple[type[Event], bool], ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a run, for a reason."""

    number: int
    reason: CancelReason


@dataclass(frozen=True, slots=True)
class Wake:
    """The daemon is stopping: whoever only waits saves itself."""


@dataclass(frozen=True, slots=True)
class Reread:
    """Read the credentials file again."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has started and takes runs."""


@dataclass(frozen=True, slots=True)
class Told:
    """Events of runs, in order."""

    events: tuple[Emitted, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run's record, or why there is none: the code, message, hint and kind of an error; `cancelled` if it was."""

    number: int
    record: ExecutionRecord | None = None
    error: tuple[str, str, str | None, str] | None = None
    cancelled: bool = False


Message = Hello | Begin | Cancel | Wake | Reread | Ready | Told | Ended


class Line:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: Message) -> None:
        """Send in order, without waiting; nothing happens once the other end is gone."""
        if not self._writer.is_closing():
            data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
            self._writer.write(_LENGTH.pack(len(data)) + data)

    async def receive(self) -> Any:
        """The next message; None when the other end is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301  # our own process at the other end
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return
