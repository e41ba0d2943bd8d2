"""Pings to a service that notices their absence, as healthchecks does (spec/daemon.md 6).

A URL with `{mission}` in it is told of runs: `/start`, success, `/fail`, with the execution as `rid`, and of the daemon
itself under the name `daemon`. A URL without it is told of the daemon alone: a daemon's regular ping would hide a
failed run's. The daemon is told of once a minute, and only while its scheduler ticks.
"""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit
from uuid import UUID

import structlog

from reqon.clock import SYSTEM, Clock
from reqon.errors import ConfigurationError
from reqon.events import Emitted, EventBus, MissionCompleted, MissionEnded, MissionFailed, MissionStarted
from reqon_daemon.health import Health
from reqon_daemon.targets import hide_url

if TYPE_CHECKING:
    import aiohttp

EVERY_SECONDS = 60.0
PING_SECONDS = 10.0
PLACE = "{mission}"
DAEMON = "daemon"
_WAITING = 1000
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, of which execution ids are made
_STALE_TICK_SECONDS = 30.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Heartbeat:
    """Sends pings; one that fails is logged once, until one succeeds again. The newest thousand wait."""

    url: str
    health: Health
    clock: Clock = SYSTEM
    _waiting: deque[str] = field(default_factory=lambda: deque(maxlen=_WAITING))
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _told: asyncio.Event = field(default_factory=asyncio.Event)  # nothing of a run waits
    _failing: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError("--heartbeat-url is no http or https URL", code="bad-option")
        hide_url(self.url)
        self._told.set()

    def listen(self, bus: EventBus) -> None:
        """Hear of runs, if the URL has a place for their missions."""
        if PLACE in self.url:
            bus.on(MissionStarted, lambda emitted: self._tell(emitted, "/start"))
            bus.on(MissionEnded, self._on_ended)

    def _on_ended(self, emitted: Emitted) -> None:
        if isinstance(emitted.event, MissionCompleted):
            self._tell(emitted, "")
        elif isinstance(emitted.event, MissionFailed):
            self._tell(emitted, "/fail")

    def _tell(self, emitted: Emitted, what: str) -> None:
        run = run_id(emitted.execution_id)
        self._waiting.append(self.address(emitted.mission, what, run))
        self._told.clear()
        self._wake.set()

    def address(self, mission: str, what: str = "", run: UUID | None = None) -> str:
        """Where a ping goes."""
        base, _, query = self.url.replace(PLACE, quote(mission, safe="")).partition("?")
        pairs = [part for part in (query, f"rid={run}" if run else "") if part]
        return base.rstrip("/") + what + ("?" + "&".join(pairs) if pairs else "")

    async def run(self) -> None:
        """Ping until it is cancelled."""
        import aiohttp  # noqa: PLC0415  # 130 ms that a daemon without pings need not spend

        limit = aiohttp.ClientTimeout(total=PING_SECONDS)
        async with aiohttp.ClientSession(timeout=limit, cookie_jar=aiohttp.DummyCookieJar()) as session:
            due = self.clock.monotonic()
            while True:
                while self._waiting:
                    await self._ping(session, self._waiting.popleft())
                self._told.set()
                if self.clock.monotonic() >= due:
                    due = self.clock.monotonic() + EVERY_SECONDS
                    if self.health.tick_age_seconds() < _STALE_TICK_SECONDS:
                        await self._ping(session, self.address(DAEMON))
                await self._pause(due - self.clock.monotonic())

    async def flush(self, seconds: float) -> None:
        """Wait until all that ended is told, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()

    async def _pause(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as either:
            sleeping = either.create_task(self.clock.sleep(max(0.0, seconds)))
            waking = either.create_task(self._wake.wait())
            await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
            sleeping.cancel()
            waking.cancel()
        self._wake.clear()

    async def _ping(self, session: "aiohttp.ClientSession", address: str) -> None:
        import aiohttp  # noqa: PLC0415  # it is here by now

        try:
            async with session.get(address, allow_redirects=False) as answer:
                problem = "" if answer.status < 300 else f"HTTP {answer.status}"
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            problem = type(error).__name__
        if problem and not self._failing:
            log.warning("heartbeat not delivered", host=urlsplit(self.url).hostname, reason=problem)
        self._failing = bool(problem)


def run_id(execution_id: str) -> UUID | None:
    """The UUID with the bits of an execution's id; None for an id of another form."""
    number = 0
    for letter in execution_id.removeprefix("exec_").lower():
        place = _ALPHABET.find(letter)
        if place < 0:
            return None
        number = number << 5 | place
    return UUID(int=number) if number < 1 << 128 else None
