"""Entry of the service: settings, signals, exit codes. Nothing else touches signals (spec/daemon.md 1, 7)."""

import asyncio
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from reqon.errors import ReqonError
from reqon.event_loop import loop_factory
from reqon.observe import logs
from reqon_daemon.settings import DaemonSettings

_STOPPING = (signal.SIGTERM, signal.SIGINT)
# A scrape takes the interpreter ten times; while a mission computes, each time costs this long (Python's own: 5 ms).
_SWITCH_SECONDS = 0.001


@dataclass(slots=True, repr=False)  # signal.signal formats its handlers
class Signals:
    """What the process was told. Set up before anything that blocks; handlers only note it and wake the loop."""

    received: int | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _on_stop: Callable[[], object] | None = None
    _on_reload: Callable[[], object] | None = None
    _before: dict[int, Any] = field(default_factory=dict)

    def install(self) -> None:
        for number in (*_STOPPING, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def connect(
        self, loop: asyncio.AbstractEventLoop, *, stop: Callable[[], object], reload: Callable[[], object]
    ) -> None:
        """Call these in the loop from now on; at once, if a signal came before."""
        self._loop, self._on_stop, self._on_reload = loop, stop, reload
        if self.received is not None:
            stop()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._call(self._on_reload)
            return
        if self.received is not None:
            # Out at once: what was checkpointed is on disk, and a wait may be what the second signal is about.
            os._exit(128 + number)
        self.received = number
        self._call(self._on_stop)

    def _call(self, action: Callable[[], object] | None) -> None:
        if self._loop is not None and action is not None:
            with suppress(RuntimeError):  # the loop is closed: we are on the way out
                self._loop.call_soon_threadsafe(action)


def serve(given: "Mapping[str, Any] | DaemonSettings") -> int:
    """Run the daemon, or with `once` every scheduled mission once; the exit code. Blocks; for the main thread.

    `given` are the flags by option name (`metrics_port`), or settings already read.
    """
    signals = Signals()
    signals.install()
    try:
        return _serve(given, signals)
    except ReqonError as error:
        print(error.format(), file=sys.stderr)  # noqa: T201  # before there is a log, and for people
        return error.exit_code
    finally:
        signals.restore()


def _serve(given: "Mapping[str, Any] | DaemonSettings", signals: Signals) -> int:
    settings = given if isinstance(given, DaemonSettings) else DaemonSettings.read(given)
    os.umask(0o077)
    sys.setswitchinterval(_SWITCH_SECONDS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    level = "debug" if settings.debug or settings.verbose else None
    logs.configure(level=level)

    from reqon.cli.environment import environment  # noqa: PLC0415  # after the log is set up, as all that follows
    from reqon_daemon.sdnotify import Systemd  # noqa: PLC0415
    from reqon_daemon.service import AFTER_GRACE_SECONDS, Service  # noqa: PLC0415

    async def main() -> int:
        variables = environment(settings.env)
        if settings.set:
            variables = {**variables, **settings.set}
        service = Service(settings, environment=variables, systemd=Systemd.from_environment())
        _log_events(service.runner.bus)

        def stop() -> None:
            _leave_anyway(settings.shutdown_grace + AFTER_GRACE_SECONDS, _exit_code(settings, signals, 0))
            service.stop()

        signals.connect(asyncio.get_running_loop(), stop=stop, reload=service.reload_soon)
        await (service.once() if settings.once else service.serve())
        return service.worst

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        worst = runner.run(main())
    return _exit_code(settings, signals, worst)


def _log_events(bus: Any) -> None:
    level = (os.environ.get("REQON_LOG_LEVEL") or "info").lower()
    logs.EventLog(bus, level=level)


def _exit_code(settings: DaemonSettings, signals: Signals, worst: int) -> int:
    if settings.once:
        if signals.received is not None:
            return 128 + signals.received
        return worst
    return 0


def _leave_anyway(seconds: float, code: int) -> None:
    """End the process after so many seconds whatever hangs. State is safe at every moment; only time is not."""
    timer = threading.Timer(seconds, lambda: os._exit(code))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    # `python -m reqon_daemon PATH…`: all else by REQON_… and reqon.toml.
    sys.exit(serve({"paths": tuple(sys.argv[1:])}))
