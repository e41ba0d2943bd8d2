"""A small HTTP server that answers as a test says, down to the byte."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived. Header names in lower case; `raw` is the head's bytes."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answer = bytes | Script | Callable[[Seen], bytes]


def reply(
    status: int = 200,
    *,
    data: Any = None,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    content_type: str | None = "application/json",
) -> bytes:
    """The bytes of an answer: JSON of `data`, or `body` as it is; always with a Content-Length."""
    content = json.dumps(data).encode() if body is None else body
    if status in (204, 304):
        content = b""
    lines = {"Content-Length": str(len(content)), **(headers or {})}
    if content_type and content:
        lines.setdefault("Content-Type", content_type)
    head = f"HTTP/1.1 {status} Status\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    return head.encode("latin-1") + content


def redirect(location: str, status: int = 302) -> bytes:
    return reply(status, body=b"", headers={"Location": location})


@dataclass(slots=True)
class ScriptedServer:
    """Answers on 127.0.0.1, any free port: `answers[path]` in order, the last one for ever; else 404.

    An answer is bytes, a function of the request that gives bytes, or a coroutine function that gets the connection.
    """

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def on(self, path: str, *answers: Answer) -> Self:
        self.answers[path] = list(answers)
        return self

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.seen]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while (request := await _read_request(reader)) is not None:
                self.seen.append(request)
                if not await self._answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _answer(self, request: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        script = self.answers.get(request.path) or self.answers.get("*") or [reply(404, data={"error": "not found"})]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, bytes):
            writer.write(answer)
        elif asyncio.iscoroutinefunction(answer):
            await answer(reader, writer)
            return False
        else:
            made = answer(request)  # type: ignore[call-arg,arg-type]  # a function of the request
            assert isinstance(made, bytes)
            writer.write(made)
        await writer.drain()
        return True


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    first, *lines = raw[:-4].split(b"\r\n")
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.decode("latin-1").partition(":") for line in lines)}
    body = b""
    if length := int(headers.get("content-length", 0)):
        body = await reader.readexactly(length)
    return Seen(method, target, headers, body, raw)
