"""The event loop of a process that sends requests."""

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster loop, where it is installed."""
    try:
        import uvloop  # noqa: PLC0415  # optional, and of no use to commands that send nothing
    except ImportError:
        return None
    return uvloop.new_event_loop
