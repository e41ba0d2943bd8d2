"""Missions run now, one after the other, in this process: from loading to the exit code."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reqon import collector
from reqon.cli import show
from reqon.cli.ahead import load_client
from reqon.cli.choosing import named
from reqon.cli.exits import Done
from reqon.cli.services import service
from reqon.clock import rfc3339
from reqon.errors import ConfigurationError, ReqonError
from reqon.event_loop import loop_factory
from reqon.extensions import registered
from reqon.lang import flow
from reqon.lang.loader import load
from reqon.lang.program import MissionProgram, Program
from reqon.runner import AlreadyRunningError, Outcome, ResumeRefusedError, Runner, RunnerSettings
from reqon.runtime.request import RunRequest
from reqon.state.records import ExecutionStatus, Trigger

if TYPE_CHECKING:
    from reqon.observe.otlp import OTLPExporter


class OneShot:
    """One command line's runs, in order, from loading to the exit code."""

    def __init__(
        self,
        *,
        paths: Sequence[Path],
        settings: RunnerSettings,
        variables: Mapping[str, str],
        resume: bool,
        execution: str | None,
        force: bool,
        only: tuple[str, ...],
        dry_run: bool,
        keep_going: bool,
        verbose: bool,
        quiet: bool,
        grace_seconds: float,
        given: tuple[str, ...] = (),
        scheduled: bool = False,
        debug: bool = False,
    ) -> None:
        self.paths, self.settings, self.variables = paths, settings, variables
        self.resume, self.execution, self.force = resume, execution, force
        self.only, self.dry_run, self.keep_going = only, dry_run, keep_going
        self.verbose, self.quiet, self.grace_seconds = verbose, quiet, grace_seconds
        self.given = given  # options that a resume needs as well
        self.scheduled = scheduled  # a dry run shows when they would run
        self.debug = debug
        self.signal: int | None = None
        self.runner = Runner(settings, environment=variables, offline=dry_run)

    def run(self) -> int:
        program = self._load()
        missions = self._chosen(program)
        broken = 2 if program.has_errors else 0
        if self.dry_run:
            self._show_plan(missions)
            return broken
        sends = any(flow.sends_requests(mission.actions.values()) for mission in missions)
        if sends:
            load_client()
        runner = self.runner
        self._log(runner)
        runner.open()
        self._name_unused(runner, missions)
        collector.settle()
        with asyncio.Runner(loop_factory=loop_factory() if sends else None) as loop:
            outcomes = loop.run(self._all(runner, missions))
        code = _exit_code(outcomes)
        if self.signal is not None:
            return 128 + self.signal
        return code or broken

    def _show_plan(self, missions: Sequence[MissionProgram]) -> None:
        """What would be done, on stdout; credentials that are missing here only warn."""
        from reqon.runtime.dryrun import DryRun, warning  # noqa: PLC0415  # only where asked for

        runner = self.runner
        runner.read_credentials()
        runner.read_store_config()
        self._name_unused(runner, missions)
        for mission in missions:
            plan = runner.plan(mission)
            dry = DryRun(plan, partial(runner.chosen_store, plan), partial(runner.peek_store, plan))
            for name, settings in dry.settings().items():
                try:
                    runner.credentials(settings)
                except ReqonError as error:
                    show.rendered(warning(error.locate(mission.sources[name].name.span)))
            if self.scheduled:
                show.out(self._when(mission))
            for line in dry.lines():
                show.out(line)

    def _when(self, mission: MissionProgram) -> str:
        from reqon.runtime.plan import Plan  # noqa: PLC0415  # as above

        made = Plan(mission, environment=self.variables)
        slots = service("slot-preview")(made, self.settings.state_directory, count=1)
        if slots is None:
            return f"would run {mission.name} when it is triggered"
        due = "now" if slots.at_load else rfc3339(slots.next[0].due) if slots.next else "never again"
        return f"would run {mission.name} {slots.text}, first {due}"

    def _load(self) -> Program:
        known = registered(lambda: self.runner.specifications)
        program = load(self.paths, known=known, skip=(self.settings.state_directory,))
        show.findings(program.all_diagnostics, quiet=self.quiet)
        if program.has_errors and not self.keep_going:
            raise Done(2)
        return program

    def _name_unused(self, runner: Runner, missions: Sequence[MissionProgram]) -> None:
        """A slip in a key of the store configuration would be a store in the wrong place."""
        for key in runner.unused_store_config(missions) if not (self.quiet or self.only) else ():
            show.err(f"warning: {self.settings.store_config}: no mission here has a store or an adapter '{key}'")

    def _chosen(self, program: Program) -> list[MissionProgram]:
        missions = named(program.missions, self.only)
        if not missions:
            raise Done(2) if program.has_errors else ConfigurationError("there is no mission to run")
        if self.execution is not None and not self.resume:
            raise ConfigurationError(
                "--execution goes with --resume", hint=f"reqon … --resume --execution {self.execution}"
            )
        return missions

    async def _all(self, runner: Runner, missions: Sequence[MissionProgram]) -> list[Outcome | ReqonError]:
        bars = self._bars(runner)
        traces = self._trace(runner)
        outcomes: list[Outcome | ReqonError] = []
        task = asyncio.current_task()
        assert task is not None
        self._catch_signals(runner, task)
        try:
            await self._receive_webhooks(runner)
            for mission in missions:
                if self.signal is not None:
                    break
                if self.execution is not None and not self._owns(runner, mission):
                    continue
                try:
                    outcome: Outcome | ReqonError = await self._one(runner, mission)
                except ReqonError as error:
                    outcome = error
                    show.rendered(error.format())
                except asyncio.CancelledError:
                    break
                outcomes.append(outcome)
            if self.execution is not None and not outcomes and self.signal is None:
                raise ConfigurationError(f"no mission here has an execution {self.execution}", hint="see reqon history")
        finally:
            if bars is not None:
                bars.stop()
            await runner.close()
            if traces is not None:
                await asyncio.to_thread(traces.shutdown)
        return outcomes

    def _trace(self, runner: Runner) -> "OTLPExporter | None":
        """Spans to the collector that REQON_OTEL_ENDPOINT names."""
        if not self.variables.get("REQON_OTEL_ENDPOINT"):
            return None
        from reqon.observe.traces import trace  # noqa: PLC0415  # only where asked for

        return trace(runner.bus, self.variables)

    async def _receive_webhooks(self, runner: Runner) -> None:
        """Take calls before the first mission begins; say where."""
        await runner.start_webhooks()
        if runner.webhooks is not None and not self.quiet and not self.verbose:
            server = runner.webhooks
            show.err(f"webhooks are received at {server.address}; their URLs begin with {server.url}")

    def _owns(self, runner: Runner, mission: MissionProgram) -> bool:
        record = runner.backend.load(self.execution or "")
        return record is not None and record.mission == mission.name

    async def _one(self, runner: Runner, mission: MissionProgram) -> Outcome:
        plan = runner.plan(mission)
        if self.debug:
            from reqon.cli.debug import TerminalDebugger  # noqa: PLC0415  # only where asked for

            plan.debugged(TerminalDebugger(lambda: self._quit(runner)))
        request = RunRequest(
            mission=mission.name,
            path=str(mission.path),
            definition_hash=mission.definition_hash,
            trigger=Trigger.MANUAL,
            resume=self.resume,
            force=self.force,
            execution_id=self.execution,
        )
        outcome = await runner.execute(plan, request)
        for error in outcome.errors:
            show.rendered(error.format())
        if not self.quiet:
            summary(outcome, resume=self._resume_command(outcome))
        return outcome

    def _quit(self, runner: Runner) -> None:
        """Whoever debugs has seen enough: as after a Ctrl+C."""
        self.signal = signal.SIGINT
        runner.stop.request()

    def _resume_command(self, outcome: Outcome) -> str:
        """The command line that goes on with it: this one's paths and files, as they were given."""
        words = ["reqon", *map(str, self.paths), *self.given, "--resume", "--execution", outcome.record.execution_id]
        return shlex.join(words)

    def _log(self, runner: Runner) -> None:
        """Before the state directory is opened, about which there may be something to say."""
        if self.verbose:
            from reqon.observe import logs  # noqa: PLC0415  # structlog costs 80 ms

            logs.EventLog(runner.bus, level=logs.configure())
            return
        from reqon.observe.plain import PlainWarnings  # noqa: PLC0415

        PlainWarnings(None if self.quiet else runner.bus)

    def _bars(self, runner: Runner) -> Any:
        if self.verbose or self.quiet or self.debug or not sys.stderr.isatty():
            return None
        from rich.console import Console  # noqa: PLC0415  # only a terminal has bars

        from reqon.observe.progress import ProgressBars  # noqa: PLC0415

        bars = ProgressBars(runner.bus, Console(stderr=True))
        bars.start()
        return bars

    def _catch_signals(self, runner: Runner, task: "asyncio.Task[Any]") -> None:
        """First: finish the item in work, save, leave. Second: out at once; what was checkpointed is safe."""
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            if self.signal is not None:
                os._exit(128 + number)
            self.signal = number
            if not self.quiet:
                show.err("stopping after the item in work; once more to leave at once")
            runner.stop.request()
            loop.call_later(self.grace_seconds, task.cancel, "stop")
            loop.call_later(self.grace_seconds + 4, os._exit, 128 + number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)


def summary(outcome: Outcome, *, resume: str) -> None:
    """What a run did, on stdout, and how to go on with it where that can be done."""
    record = outcome.record
    head = f"{record.mission}: {record.status} in {show.length(record.duration_ms)}"
    parts = [f"{record.items_processed:,} items", f"{record.requests:,} requests"]
    if record.retries:
        parts.append(f"{record.retries:,} retries")
    if record.invalid:
        parts.append(f"{record.invalid:,} invalid")
    show.out(f"{head}, {', '.join(parts)}  ({record.execution_id})")
    if record.actions_run:
        show.out(f"  actions  {', '.join(record.actions_run)}")
    for name, totals in record.stores.items():
        counts = [f"{totals.added:,} added", f"{totals.updated or 0:,} updated", f"{totals.unchanged or 0:,} unchanged"]
        if totals.deleted:
            counts.append(f"{totals.deleted:,} deleted")
        show.out(
            f"  store    {name}: {totals.count if totals.count is not None else '?':,} records ({', '.join(counts)})"
        )
    if record.status in (ExecutionStatus.FAILED, ExecutionStatus.INTERRUPTED):
        show.out(f"  resume   {resume}")


def _exit_code(outcomes: Sequence[Outcome | ReqonError]) -> int:
    """The worst of all: configuration before failure before done."""
    code = 0
    for outcome in outcomes:
        if isinstance(outcome, AlreadyRunningError):
            continue
        if isinstance(outcome, ResumeRefusedError):
            code = max(code, 1)
        elif isinstance(outcome, ReqonError):
            code = max(code, outcome.exit_code)
        elif outcome.record.status is not ExecutionStatus.COMPLETED:
            code = max(code, 1, *(e.exit_code for e in outcome.errors if e.exit_code == 3))
    return code
