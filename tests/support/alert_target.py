"""A server that takes alerts and answers as told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from reqon.values import decode


@dataclass
class Taken:
    """One request."""

    path: str
    headers: dict[str, str]
    body: Any
    raw: bytes


@dataclass
class AlertTarget:
    """`answers` are statuses for the next requests, the last one for all that follow; `taken` what came."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [200])
    taken: list[Taken] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    hold: asyncio.Event | None = None
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def count(self, number: int, *, seconds: float = 60) -> list[Taken]:
        """What came, as soon as there are so many."""
        async with asyncio.timeout(seconds), self.arrived:
            await self.arrived.wait_for(lambda: len(self.taken) >= number)
        return self.taken

    @property
    def ids(self) -> list[str]:
        return [one.headers["Idempotency-Key"] for one in self.taken]

    @property
    def states(self) -> list[str]:
        return [one.body["status"] for one in self.taken]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.taken.append(Taken(request.path, dict(request.headers), decode(raw) if raw else None, raw))
        async with self.arrived:
            self.arrived.notify_all()
        if self.hold is not None:
            await self.hold.wait()
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers=self.headers, body=self.body)


@asynccontextmanager
async def alert_target(*answers: int) -> AsyncIterator[AlertTarget]:
    """A target on a free port of this machine."""
    target = AlertTarget(answers=list(answers) or [200])
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", target.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    target.url = f"http://127.0.0.1:{port}"
    try:
        yield target
    finally:
        if target.hold is not None:
            target.hold.set()
        await runner.cleanup()
