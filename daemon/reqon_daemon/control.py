"""The control socket: how `reqon trigger`, `pause`, `reload` and their kin talk to the running daemon (daemon.md 1).

One JSON object on a line each way. `{"command": "trigger", "mission": "M"}` is answered `{"ok": true, "result": …}` or
`{"ok": false, "error": "…", "code": "…", "hint": …}`. Only our own user may connect (spec/reliability.md 6).
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from reqon.errors import ConfigurationError, ReqonError
from reqon.secrets import SECRETS
from reqon.values import JsonError, Record, Value, decode, encode

log = logging.getLogger("reqon.control")

SOCKET_NAME = "daemon.sock"
LIMIT_BYTES = 64 * 1024
SECONDS = 5.0
_ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
# A reload reads and compiles every mission; its answer may take longer than a question.
_ANSWER_SECONDS = 60.0
_CONNECTIONS = 32
_LONGEST_ADDRESS = 100

Command = Callable[..., Awaitable[Value]]


class ControlServer:
    """Answers commands on `<state>/daemon.sock`, 0600. `commands` maps a name to a coroutine function."""

    def __init__(self, state_directory: Path, commands: Mapping[str, Command]) -> None:
        self.path = state_directory / SOCKET_NAME
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Bind. A socket that is there belonged to a daemon that is gone: we hold the directory's lock.

        Raises:
            ConfigurationError: it cannot be made.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path.unlink(missing_ok=True)
            with _address(self.path) as address:
                listener.bind(address)
            self.path.chmod(0o600)
        except OSError as error:
            listener.close()
            problem = f"cannot make the control socket {self.path}: {error.strerror}"
            raise ConfigurationError(problem, code="control-socket") from error
        self._server = await asyncio.start_unix_server(self._talk, sock=listener, limit=LIMIT_BYTES)

    async def stop(self) -> None:
        """Take no more commands; those in work get a second."""
        if self._server is not None:
            self._server.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._server.wait_closed()
            self._server = None
        self.path.unlink(missing_ok=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _CONNECTIONS and _peer(writer) == os.geteuid():
                async with asyncio.timeout(SECONDS):
                    line = await reader.readline()
                answer = await self._answer(line)
                writer.write(encode(answer) + b"\n")
                async with asyncio.timeout(SECONDS):
                    await writer.drain()
        except (TimeoutError, ValueError, OSError) as error:  # ValueError: a line above the limit
            log.debug("control connection dropped: %s", error)
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, line: bytes) -> Record:
        try:
            name, arguments = _question(line)
            return {"ok": True, "result": await self._command(name)(**arguments)}
        except ReqonError as error:
            return {"ok": False, "error": error.message, "code": error.diagnostics[0].code, "hint": error.hint}
        except TypeError as error:
            return {"ok": False, "error": SECRETS.redact(str(error)), "code": "bad-arguments", "hint": None}
        except Exception as error:  # one of the four walls: one request's fault must not end the daemon
            log.exception("control command failed")
            problem = SECRETS.redact(f"{type(error).__name__}: {error}")
            return {"ok": False, "error": problem, "code": "internal", "hint": None}

    def _command(self, name: str) -> Command:
        try:
            return self._commands[name]
        except KeyError:
            known = ", ".join(sorted(self._commands))
            raise ReqonError(f"no command '{name}'", code="unknown-command", hint=f"commands: {known}") from None


def _question(line: bytes) -> tuple[str, dict[str, Any]]:
    asked = decode(line)
    if not isinstance(asked, dict) or not isinstance(asked.get("command"), str):
        raise JsonError("a command is a JSON object with a text 'command'")
    return asked.pop("command"), asked


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user id at the other end."""
    connection = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """A text that binds or connects to `path` however long it is: the system takes 107 bytes."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


# --- the other end ---------------------------------------------------------------------------------------------------


def call(state_directory: Path, command: str, *, answer_seconds: float = _ANSWER_SECONDS, **arguments: Value) -> Value:
    """Ask the daemon of a state directory; its result. Blocks.

    Raises:
        ConfigurationError: no daemon answers there.
        ReqonError: the daemon refused, with its reason.
    """
    path = state_directory / SOCKET_NAME
    question = encode({"command": command, **arguments}) + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _address(path) as address:
            connection.settimeout(SECONDS)
            connection.connect(address)
            connection.sendall(question)
            connection.settimeout(answer_seconds)
            answer = _read_line(connection)
    except OSError as error:
        hint = "start one with `reqon PATH --daemon`, or name its directory with --state-dir"
        problem = f"no daemon answers at {path}: {error.strerror or error}"
        raise ConfigurationError(problem, code="no-daemon", hint=hint) from error
    found = decode(answer) if answer else None
    if not isinstance(found, dict) or "ok" not in found:
        raise ConfigurationError(f"the daemon at {path} gave no answer", code="no-daemon")
    if not found["ok"]:
        raise _refusal(found)
    return found.get("result")


def _refusal(answer: Record) -> ReqonError:
    code = str(answer.get("code"))
    kind = ConfigurationError if code in ("unknown-mission", "unknown-command", "bad-arguments") else ReqonError
    return kind(str(answer.get("error")), code=code, hint=answer.get("hint"))


def _read_line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < _ANSWER_LIMIT_BYTES:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    return data
