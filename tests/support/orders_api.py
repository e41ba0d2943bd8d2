"""The example shop as a real server on a free port, for one test."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from examples.api.server import TOKEN, Fault, Hold, Mood, Shop, make_app, start

T = TypeVar("T")


class OrdersApi:
    """Answers in a thread of its own until the block ends. What it holds is the same each time.

    Attributes:
        url: `http://127.0.0.1:PORT`.
        token: what `/secure/...` wants to see.
        reached: set while a held request waits; see `hold`.
    """

    token = TOKEN

    def __init__(self, *, customers: int = 250, orders: int = 600) -> None:
        self.url = ""
        self.reached = threading.Event()
        self._shop = Shop(customers, orders)
        self._mood = Mood(on_reached=self.reached.set)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, name="orders-api", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = self._ready.result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        runner: web.AppRunner | None = None
        try:
            runner, url = await start(make_app(self._shop, self._mood), 0)
            self._ready.set_result(url)
            await self._stop.wait()
        except OSError as error:
            self._ready.set_exception(error)
        finally:
            if runner is not None:
                await runner.cleanup()

    def _do(self, work: Callable[[], T]) -> T:
        """Do it in the server's thread, between two requests."""

        async def done() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    # --- how it behaves -----------------------------------------------------------------------------------------------

    def fail(
        self, what: str | int, path: str = "/", *, times: int = 1, method: str = "", retry_after: float | None = None
    ) -> None:
        """Spoil the next requests whose path begins so: a status, or garbage, html, silence, reset, cut."""
        self._do(lambda: self._mood.faults.append(Fault(str(what), path, method, times, retry_after)))

    def heal(self) -> None:
        """Spoil nothing more."""
        self._do(self._mood.faults.clear)

    def hold(self, path: str, *, at: int = 1, method: str = "") -> None:
        """Let the `at`-th next request of the path wait for `release`; `reached` is set when it has come."""
        self.reached.clear()
        self._do(lambda: self._mood.holds.append(Hold(path, at, method)))

    def release(self) -> None:
        """Answer what is held, and hold nothing more."""

        def let_go() -> None:
            self._mood.release()
            self._mood.holds.clear()

        self._do(let_go)
        self.reached.clear()

    def latency(self, seconds: float) -> None:
        """Answer so much later."""
        self._do(lambda: setattr(self._mood, "latency_seconds", seconds))

    def rate_limit(self, per_minute: int) -> None:
        """Answer 429 above so many requests a minute; 0: never."""
        self._do(lambda: setattr(self._mood, "rate_limit", per_minute))

    def reset(self) -> None:
        """As at the start."""
        self._do(self._shop.reset)
        self._do(self._mood.reset)

    def touch(self, count: int = 1) -> list[str]:
        """Change orders as if somebody had worked on them now; their ids."""
        return self._do(lambda: self._shop.touch(count))

    # --- what it holds and saw ----------------------------------------------------------------------------------------

    def customers(self) -> dict[str, dict[str, Any]]:
        return self._do(lambda: dict(self._shop.customers))

    def orders(self) -> dict[str, dict[str, Any]]:
        return self._do(lambda: dict(self._shop.orders))

    def notes(self) -> list[dict[str, Any]]:
        """All notes, in the order in which they were made for each order."""
        return self._do(lambda: [note for notes in self._shop.notes.values() for note in notes])

    def alerts(self) -> list[Any]:
        """The bodies posted to `/_alerts`."""
        return self._do(lambda: list(self._shop.alerts))

    def requests(self, path: str = "/") -> list[dict[str, Any]]:
        """The requests whose path begins so, in order: method, path, query."""
        return self._do(lambda: [r for r in self._mood.requests if r["path"].startswith(path)])

    def count(self) -> int:
        """How many requests there were."""
        return len(self._mood.requests)  # needs no look from the server's own thread

    def stats(self) -> dict[str, int]:
        """How many requests each path saw."""
        return self._do(lambda: dict(self._mood.seen))
