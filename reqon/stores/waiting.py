"""Waiting for a remote store in the midst of code that has no await: expressions, bodies of loops.

A mission's expressions are plain Python functions, and most stores answer them at once. One that is asked over a
network cannot. What may ask it is therefore run by `bridged`: its coroutine goes on inside a greenlet, so that
`wait_for`, called at any depth, suspends the whole stack and lets the event loop work until the answer is there.
Nothing of this is imported or paid for by runs whose stores are all local.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from importlib import import_module
from threading import Thread
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_bridges: set[int] = set()  # greenlets that `bridged` made, by identity, while they live


async def bridged(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine answers, run so that `wait_for` works in whatever it calls. Tasks it makes are not."""
    return await _drive(work)  # type: ignore[no-any-return]


@coroutine
def _drive(work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    greenlets: Any = import_module("greenlet")
    carrier = greenlets.greenlet(_stretches(work, greenlets.getcurrent))
    carrier.gr_context = greenlets.getcurrent().gr_context
    _bridges.add(id(carrier))
    value: Any = None
    failure: BaseException | None = None
    try:
        while True:
            carrier.parent = greenlets.getcurrent()  # another one each time, if this runs inside a bridged run
            kind, answer = carrier.switch(value) if failure is None else carrier.throw(failure)
            if kind is _ENDED:
                return answer
            value, failure = None, None
            try:
                value = (yield answer) if kind is _PAUSED else (yield from answer.__await__())
            except BaseException as error:  # noqa: BLE001  # handed to whoever waits
                failure = error
    finally:
        _bridges.discard(id(carrier))


_PAUSED, _WAITS, _ENDED = object(), object(), object()  # what a carrier switches back for


def _stretches(work: Coroutine[Any, Any, Any], here: Callable[[], Any]) -> Callable[[Any], tuple[object, Any]]:
    """The work as a greenlet runs it: from one of its own awaits to the next."""

    def run(value: Any) -> tuple[object, Any]:
        failure: BaseException | None = None
        while True:
            try:
                answer = work.send(value) if failure is None else work.throw(failure)
            except StopIteration as end:
                return _ENDED, end.value
            failure = None
            try:
                value = here().parent.switch((_PAUSED, answer))
            except BaseException as error:  # noqa: BLE001  # the work's own to handle
                failure = error

    return run


def is_bridged() -> bool:
    """Whether `wait_for` would let an event loop go on."""
    greenlets: Any = import_module("greenlet")
    return id(greenlets.getcurrent()) in _bridges


def wait_for(answer: Coroutine[Any, Any, T]) -> T:
    """What an awaitable answers. In a bridged run the event loop goes on meanwhile; elsewhere the thread blocks.

    Raises:
        RuntimeError: called by a task of a running event loop that nobody has bridged.
    """
    greenlets: Any = import_module("greenlet")
    here = greenlets.getcurrent()
    if id(here) in _bridges:
        found: T = here.parent.switch((_WAITS, answer))
        return found
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(answer)
    answer.close()
    raise RuntimeError("a remote store was asked outside of a bridged run")


def wait_elsewhere(ask: Callable[[], T]) -> T:
    """What a function answers that waits for remote stores, for callers that may be inside a running event loop.

    It blocks them. With a loop in this thread the function runs in a thread of its own.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return ask()
    found: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(ask())
        except BaseException as error:  # noqa: BLE001  # raised again where it was asked for
            failed.append(error)

    thread = Thread(target=work, name="reqon-store")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
