"""Limits and breakers that processes share: asked for over a socket they are what they are at home."""

import multiprocessing
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from reqon.clock import SYSTEM
from reqon.http.connections import Connections
from reqon.http.messages import BreakerSettings, Headers, RateLimitSettings
from reqon.http.shared_limits import LimitsCall, LimitsDesk, RemoteLimits

KEY = ("Shop", "https://shop.example.org", "fingerprint")
QUOTA = RateLimitSettings(requests_per_minute=50)


@pytest.fixture
def desk() -> LimitsDesk:
    connections = Connections(clock=SYSTEM, environment={}, state_directory=None, random=lambda: 0.5)
    return LimitsDesk(connections)


@pytest.fixture
def channel(desk: LimitsDesk) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    desk.serve(ours)
    with theirs:
        yield theirs


def book_all(channel: Any, booked: Any) -> None:
    limits = LimitsCall(channel).limits(KEY, QUOTA, None)
    while True:
        booking = limits.book(SYSTEM.monotonic(), 0.0, None)
        if not booking.ticket:
            break
        booked.put(booking.ticket)
    booked.put(None)


def test_processes_that_ask_at_once_never_overshoot_together(desk: LimitsDesk) -> None:
    """runtime.md 6.2: permits are reserved under a lock, also those of worker processes."""
    context = multiprocessing.get_context("spawn")
    booked = context.Queue()
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, _ in pairs:
        desk.serve(ours)
    processes = [context.Process(target=book_all, args=(theirs, booked)) for _, theirs in pairs]
    for process in processes:
        process.start()
    tickets: list[int] = []
    ended = 0
    while ended < len(processes):
        ticket = booked.get(timeout=60)
        if ticket is None:
            ended += 1
        else:
            tickets.append(ticket)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(tickets) == list(range(1, 51))
    for _, theirs in pairs:
        theirs.close()


def test_what_one_process_learned_holds_for_the_other(channel: socket.socket, desk: LimitsDesk) -> None:
    first = LimitsCall(channel).limits(KEY, None, BreakerSettings(failure_threshold=2))
    ours, theirs = socket.socketpair()
    desk.serve(ours)
    with theirs:
        second = LimitsCall(theirs).limits(KEY, None, BreakerSettings(failure_threshold=2))
        now = SYSTEM.monotonic()
        ticket = first.book(now, 0.0, None).ticket
        first.learn(ticket, 200, Headers({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"}), None)
        assert second.held_until(now) > now + 25
        assert second.book(now, 1.0, None).ticket == 0
        assert second.facts().remaining == 0
        for limits in (first, second):
            number = limits.admit().number
            assert number is not None
            change = limits.judge(number, "HTTP 500")
        assert change is not None
        assert change.state == "open"
        refused = first.admit()
        assert refused.number is None
        assert refused.state == "open"
        assert 29 < refused.seconds_left <= 30


def test_a_fault_is_told_where_it_was_asked(channel: socket.socket) -> None:
    limits = RemoteLimits(lambda question, *a: LimitsCall(channel)._ask(KEY, (None, None), question, a))
    with pytest.raises(RuntimeError, match="limits could not be asked"):
        limits.held_until("soon")  # type: ignore[arg-type]
    assert limits.held_until(5.0) == 5.0


def test_when_the_holder_is_gone_the_asker_is_told() -> None:
    ours, theirs = socket.socketpair()
    limits = LimitsCall(theirs).limits(KEY, None, None)
    ours.close()
    with pytest.raises((ConnectionError, OSError)):
        limits.held_until(0.0)
    theirs.close()
