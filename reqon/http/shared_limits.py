"""Limits and breakers for several processes of one machine: one holds them, the others ask over a socket.

Each question is one round trip of some 50 µs, answered by a thread: whoever holds the state need not be idle. Both ends
run one version of this code, and the socket is a pair that nobody else can reach.
"""

import asyncio
import pickle
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

from reqon.http.breaker import Transition
from reqon.http.connections import Connections, LimitsKey
from reqon.http.limits import Admission, Booking, Endpoint, Facts
from reqon.http.messages import BreakerSettings, Headers, RateLimitSettings

_LENGTH = struct.Struct("<I")


class LimitsDesk:
    """Answers what other processes ask of the limits that `connections` holds. One thread for each socket."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._one_at_a_time = threading.Lock()

    def serve(self, channel: socket.socket) -> None:
        """Answer until the other end closes."""
        threading.Thread(target=self._serve, args=(channel,), name="limits", daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with channel:
            while (asked := _receive(channel)) is not None:
                try:
                    answer = True, self._answer(*asked)
                except Exception as error:  # noqa: BLE001  # it is raised where it was asked
                    answer = False, f"{type(error).__name__}: {error}"
                try:
                    _send(channel, answer)
                except OSError:
                    return

    def _answer(self, key: LimitsKey, settings: tuple[Any, Any], question: str, arguments: tuple[Any, ...]) -> Any:
        with self._one_at_a_time:
            if question == "keep":
                self._connections.write_limits()
                return None
            return getattr(self._connections.limits(key, *settings), question)(*arguments)


class LimitsCall:
    """The asking end, a `LimitsElsewhere`. A question blocks for as long as its answer takes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._one_at_a_time = threading.Lock()

    def limits(
        self, key: LimitsKey, rate_limit: RateLimitSettings | None, breaker: BreakerSettings | None
    ) -> "RemoteLimits":
        return RemoteLimits(lambda question, *a: self._ask(key, (rate_limit, breaker), question, a))

    async def keep_limits(self) -> None:
        await asyncio.to_thread(self._ask, ("", "", ""), (None, None), "keep", ())

    def _ask(self, key: LimitsKey, settings: tuple[Any, Any], question: str, arguments: tuple[Any, ...]) -> Any:
        with self._one_at_a_time:
            _send(self._channel, (key, settings, question, arguments))
            answer = _receive(self._channel)
        if answer is None:
            raise ConnectionError("the process that holds the limits is gone")
        good, value = answer
        if not good:
            raise RuntimeError(f"limits could not be asked: {value}")
        return value


class RemoteLimits:
    """See `reqon.http.limits.Limits`."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def admit(self) -> Admission:
        answer: Admission = self._ask("admit")
        return answer

    def judge(self, admission: int, reason: str | None) -> Transition | None:
        change: Transition | None = self._ask("judge", admission, reason)
        return change

    def undecided(self, admission: int) -> None:
        self._ask("undecided", admission)

    def book(self, now: float, most_seconds: float, endpoint: Endpoint | None) -> Booking:
        booking: Booking = self._ask("book", now, most_seconds, endpoint)
        return booking

    def give_back(self, at: float, endpoint: Endpoint | None) -> None:
        self._ask("give_back", at, endpoint)

    def held_until(self, now: float) -> float:
        until: float = self._ask("held_until", now)
        return until

    def learn(self, ticket: int, status: int, headers: Mapping[str, str], retry_after: float | None) -> None:
        told = {name: value for name, value in headers.items() if "ratelimit" in name.lower().replace("-", "")}
        if told or status in (429, 503):  # most answers say nothing about limits
            self._ask("learn", ticket, status, Headers(told), retry_after)

    def facts(self) -> Facts:
        facts: Facts = self._ask("facts")
        return facts


def _send(channel: socket.socket, message: Any) -> None:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def _receive(channel: socket.socket) -> Any:
    """The next message; None at the end."""
    try:
        head = channel.recv(_LENGTH.size, socket.MSG_WAITALL)
        if len(head) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack(head)
        data = channel.recv(length, socket.MSG_WAITALL)
    except OSError:
        return None
    return pickle.loads(data) if len(data) == length else None  # noqa: S301  # our own process at the other end
