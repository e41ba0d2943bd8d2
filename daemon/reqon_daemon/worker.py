"""A worker: a process that runs missions for the daemon, and tells it all that happens (spec/daemon.md 9).

Started by `reqon_daemon.workers` only: `python -m reqon_daemon.worker LINE LIMITS LIFE`, three inherited descriptors.
Signals are the daemon's business: a terminal or a service manager sends them to every process of a group, and a worker
must not stop before it is told. When the daemon is gone, it leaves at once, as if it had been killed with it.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reqon import collector
from reqon.clock import SYSTEM
from reqon.errors import ReqonError
from reqon.event_loop import loop_factory
from reqon.events import Emitted, Event, EventBus
from reqon.http.shared_limits import LimitsCall
from reqon.lang.program import MissionProgram
from reqon.observe import logs
from reqon.runner import Runner
from reqon.runtime.plan import Plan
from reqon_daemon.plans import SCHEDULED
from reqon_daemon.relay import Begin, Cancel, Ended, Hello, Line, PlanKey, Ready, Reread, Told, Wake

_PLANS = 1000


class RelayBus(EventBus):
    """Sends on what somebody in the daemon listens to; nothing else is even built."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._wanted: tuple[tuple[type[Event], bool], ...] = ()
        self._is_wanted: dict[type[Event], bool] = {}
        self._waiting: list[Emitted] = []

    def want(self, wanted: tuple[tuple[type[Event], bool], ...]) -> None:
        """Which kinds, and whether exactly these."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._is_wanted.clear()

    def wants(self, *kinds: type[Event]) -> bool:
        return super().wants(*kinds) or any(map(self._relays, kinds))

    def emit(self, emitted: Emitted) -> None:
        super().emit(emitted)
        if self._relays(type(emitted.event)):
            if not self._waiting:
                asyncio.get_running_loop().call_soon(self.flush)
            self._waiting.append(emitted)

    def flush(self) -> None:
        """Send what has gathered in this turn of the loop."""
        if self._waiting:
            self._line.send(Told(tuple(self._waiting)))
            self._waiting.clear()

    def _relays(self, kind: type[Event]) -> bool:
        known = self._is_wanted.get(kind)
        if known is None:
            known = any(kind is k or (not exactly and issubclass(kind, k)) for k, exactly in self._wanted)
            self._is_wanted[kind] = known
        return known


@dataclass(slots=True)
class Worker:
    """Runs what the line says until the line ends."""

    line: Line
    limits: LimitsCall
    runner: Runner = field(init=False)
    bus: RelayBus = field(init=False)
    environment: Mapping[str, str] = field(default_factory=dict)
    programs: dict[str, MissionProgram] = field(default_factory=dict)
    plans: dict[PlanKey, Plan] = field(default_factory=dict)
    runs: "dict[int, asyncio.Task[None]]" = field(default_factory=dict)

    async def serve(self) -> None:
        hello = await self.line.receive()
        if not isinstance(hello, Hello):
            return
        logs.configure(level=hello.log_level, environment=hello.environment)
        self.bus = RelayBus(self.line)
        self.environment = hello.environment
        self.runner = Runner(
            hello.settings, clock=SYSTEM, bus=self.bus, environment=hello.environment, limits=self.limits
        )
        self.runner.open()
        collector.settle()
        self.line.send(Ready())
        async with asyncio.TaskGroup() as group:
            while (message := await self.line.receive()) is not None:
                self._take(message, group)

    def _take(self, message: Any, group: asyncio.TaskGroup) -> None:
        match message:
            case Begin():
                self.bus.want(message.wanted)
                task = group.create_task(self._run(message), name=f"run {message.request.mission}")
                self.runs[message.number] = task
            case Cancel():
                if message.number in self.runs:
                    self.runs[message.number].cancel(message.reason.value)
            case Wake():
                self.runner.stop.wake()
            case Reread():
                self.runner.read_credentials()

    async def _run(self, begin: Begin) -> None:
        ended = Ended(begin.number, cancelled=True)
        try:
            record = await self.runner.run(self._plan(begin), begin.request)
            ended = Ended(begin.number, record)
        except ReqonError as error:
            finding = error.diagnostics[0]
            ended = Ended(begin.number, error=(finding.code, error.message, error.hint, error.kind))
        except asyncio.CancelledError:
            return
        except Exception as error:  # noqa: BLE001  # told to the daemon, which logs it as its own
            ended = Ended(begin.number, error=("internal", f"{type(error).__name__}: {error}", None, "internal"))
        finally:
            self.bus.flush()
            self.runs.pop(begin.number, None)
            self.line.send(ended)

    def _plan(self, begin: Begin) -> Plan:
        definition, scheduled = begin.plan
        if begin.program is not None:
            self.programs[definition] = begin.program
        plan = self.plans.get(begin.plan)
        if plan is None:
            environment = {**self.environment, SCHEDULED: "true"} if scheduled else self.environment
            if len(self.plans) >= _PLANS:
                self.plans.clear()
            plan = self.plans[begin.plan] = self.runner.bare_plan(self.programs[definition], environment).compile()
            self.runner.backend.choose(plan.state_store, retention=plan.retention_seconds is not None)
        return plan


def leave_with(life: int) -> None:
    """End this process at once when the other end of a pipe is closed: nobody is left to work for."""

    def watch() -> None:
        while os.read(life, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="life", daemon=True).start()


async def _serve(line: int, limits: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=line))
    await Worker(Line(reader, writer), LimitsCall(socket.socket(fileno=limits))).serve()


def main() -> None:
    """Run until the daemon hangs up."""
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line, limits, life = map(int, sys.argv[1:4])
    leave_with(life)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(line, limits))


if __name__ == "__main__":
    main()
