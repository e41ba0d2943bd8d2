"""What systemd is told: ready, alive, stopping (sd_notify(3)). Says nothing when nobody asked."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from reqon.clock import SYSTEM, Clock


@dataclass(frozen=True, slots=True)
class Systemd:
    """The supervisor's socket. `address` is None outside `Type=notify` units; then every call does nothing."""

    address: str | None = None
    watchdog_seconds: float | None = None  # half of what the unit allows: how often `alive` is due
    clock: Clock = SYSTEM

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> "Systemd":
        """What `NOTIFY_SOCKET` and `WATCHDOG_USEC` say, if they are meant for this process."""
        address = environ.get("NOTIFY_SOCKET") or None
        meant_for = environ.get("WATCHDOG_PID")
        micros = environ.get("WATCHDOG_USEC", "")
        watchdog = None
        if micros.isdigit() and int(micros) and (meant_for is None or meant_for == str(pid or os.getpid())):
            watchdog = int(micros) / 2_000_000
        return cls(address, watchdog)

    def ready(self, status: str) -> None:
        """Missions are checked, orphans closed, sockets bound."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """The watchdog's sign of life: only the scheduler's own loop may give it."""
        if self.watchdog_seconds is not None:
            self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self.clock.monotonic() * 1_000_000)}")

    def reloaded(self, status: str) -> None:
        self.ready(status)

    def stopping(self, *, within_seconds: float) -> None:
        """Draining has begun; the supervisor is asked for so much time."""
        self._tell("STOPPING=1", "STATUS=draining")
        self.extend(within_seconds)

    def extend(self, seconds: float) -> None:
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _tell(self, *lines: str) -> None:
        if self.address is None:
            return
        # An abstract socket is written with @ and addressed with NUL.
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        # Nobody listens any more: the service goes on, it only cannot say so.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.sendto(message, address)
