"""The event loop of a process that sends requests, and what is loaded before its first one."""

import asyncio
from collections.abc import Callable
from threading import Thread


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster loop, where it is installed."""
    try:
        import uvloop  # noqa: PLC0415  # optional, and of no use to commands that send nothing
    except ImportError:
        return None
    return uvloop.new_event_loop


def load_client_ahead() -> None:
    """Load aiohttp in a thread of its own, for a process that is about to send requests.

    Half of those 0.1 s are spent on reading certificates, which lets other threads run: here, all that precedes the
    first request. That request's own import waits for this one.
    """
    Thread(target=_load, name="load-client").start()


def _load() -> None:
    import aiohttp  # noqa: F401, PLC0415  # for those who import it later
