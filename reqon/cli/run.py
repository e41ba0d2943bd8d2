"""`reqon PATH…`: run missions now, or hand over to the daemon (spec/daemon.md 1)."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from reqon import collector
from reqon.cli import show
from reqon.cli.durations import seconds
from reqon.cli.effective import Asked, effective
from reqon.cli.environment import environment
from reqon.cli.exits import Done
from reqon.cli.options import Argument, Option
from reqon.cli.services import service
from reqon.clock import rfc3339
from reqon.errors import ConfigurationError, ReqonError
from reqon.extensions import registered
from reqon.lang.loader import load
from reqon.lang.program import MissionProgram, Program
from reqon.runner import AlreadyRunningError, Outcome, ResumeRefusedError, Runner, RunnerSettings
from reqon.runtime.request import RunRequest
from reqon.state.records import ExecutionStatus, Trigger

if TYPE_CHECKING:
    from reqon.observe.otlp import OTLPExporter

_DAEMON = "Daemon"
_RESUME = "Resume"
_CRON = "Cron texts"
_WEBHOOKS = "Webhooks"

Paths = Annotated[list[Path] | None, Argument(metavar="PATH...", help="Mission files or folders.")]


def run(
    paths: Paths = None,
    daemon: Annotated[
        bool, Option("--daemon", help="Stay and run missions on their schedules.", panel=_DAEMON)
    ] = False,
    once: Annotated[bool, Option("--once", help="Run every scheduled mission once, then exit.")] = False,
    resume: Annotated[
        bool, Option("--resume", help="Go on where the latest execution stopped.", panel=_RESUME)
    ] = False,
    execution: Annotated[
        str | None,
        Option("--execution", metavar="ID", help="Which execution to resume.", panel=_RESUME),
    ] = None,
    force: Annotated[
        bool,
        Option("--force", help="Start a changed mission again from its first action.", panel=_RESUME),
    ] = False,
    explain: Annotated[
        bool, Option("--explain", help="With --resume: only say what it would do.", panel=_RESUME)
    ] = False,
    mission: Annotated[
        list[str] | None, Option("--mission", metavar="NAME", help="Only this mission (repeatable).")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be done; send nothing, write nothing.")] = False,
    keep_going: Annotated[bool, Option("--keep-going", help="Run what is right when other files are wrong.")] = False,
    set: Annotated[  # noqa: A002  # its flag's name
        list[str] | None,
        Option("--set", metavar="NAME=VALUE", help='What env("NAME") is for these missions (repeatable).'),
    ] = None,
    auth: Annotated[
        Path | None, Option("--auth", metavar="FILE", help="Credentials: one JSON object, source -> record.")
    ] = None,
    env: Annotated[Path | None, Option("--env", metavar="FILE", help="Read variables from this file alone.")] = None,
    store_config: Annotated[
        Path | None,
        Option("--store-config", metavar="FILE", help="Which databases stand behind sql, nosql and postgrest."),
    ] = None,
    output: Annotated[
        Path | None,
        Option("--output", metavar="PATH", help="Write the stores' records as JSON: a folder, or one .json file."),
    ] = None,
    state_dir: Annotated[
        Path | None, Option("--state-dir", metavar="DIR", help="Where state lives. [.vague-data]")
    ] = None,
    state_store: Annotated[
        str | None, Option("--state-store", metavar="NAME", help="Keep all executions in this state store.")
    ] = None,
    no_oas_cache: Annotated[
        bool, Option("--no-oas-cache", help="Download OpenAPI documents anew, and keep what comes.")
    ] = False,
    verbose: Annotated[bool, Option("--verbose", "-v", help="Show what happens, line by line.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No bars, no summary, no warnings.")] = False,
    debug: Annotated[bool, Option("--debug", help="Stop before each step and ask what to do, on a terminal.")] = False,
    journal_max: Annotated[
        str | None, Option("--journal-max", metavar="SIZE", help="Most bytes of a journal. [1GiB]")
    ] = None,
    validate_cron: Annotated[
        str | None,
        Option("--validate-cron", metavar="TEXT", help="Check a cron text and show its next runs.", panel=_CRON),
    ] = None,
    timezone: Annotated[
        str | None, Option("--timezone", metavar="ZONE", help="The zone it is read in.", panel=_CRON)
    ] = None,
    webhook: Annotated[bool, Option("--webhook", help="Receive what missions wait for.", panel=_WEBHOOKS)] = False,
    webhook_host: Annotated[
        str | None,
        Option("--webhook-host", metavar="H", help="The address it listens on. [127.0.0.1]", panel=_WEBHOOKS),
    ] = None,
    webhook_port: Annotated[
        int | None, Option("--webhook-port", metavar="N", help="Its port; 0 picks one. [3000]", panel=_WEBHOOKS)
    ] = None,
    webhook_url: Annotated[
        str | None,
        Option(
            "--webhook-url",
            metavar="URL",
            help="What the URLs for senders begin with. [http://localhost:PORT]",
            panel=_WEBHOOKS,
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        Option("--metrics-port", metavar="N", help="Serve Prometheus metrics; 0 picks a port.", panel=_DAEMON),
    ] = None,
    metrics_host: Annotated[
        str | None,
        Option("--metrics-host", metavar="H", help="The address they listen on. [127.0.0.1]", panel=_DAEMON),
    ] = None,
    health_port: Annotated[
        int | None,
        Option("--health-port", metavar="N", help="Serve /health, /livez, /readyz.", panel=_DAEMON),
    ] = None,
    alert_on_failure: Annotated[
        bool,
        Option("--alert-on-failure", help="Tell on-call when a run fails or did not happen.", panel=_DAEMON),
    ] = False,
    alert_url: Annotated[
        list[str] | None,
        Option("--alert-url", metavar="URL", help="Whom to tell (repeatable).", panel=_DAEMON),
    ] = None,
    alert_repeat: Annotated[
        str | None,
        Option("--alert-repeat", metavar="T", help="How often an open alert is told again. [4h]", panel=_DAEMON),
    ] = None,
    heartbeat_url: Annotated[
        str | None, Option("--heartbeat-url", metavar="URL", help="Ping while alive.", panel=_DAEMON)
    ] = None,
    check_interval: Annotated[
        str | None,
        Option(
            "--check-interval",
            metavar="T",
            help="How often the clock is looked at; a second at most. [1s]",
            panel=_DAEMON,
        ),
    ] = None,
    no_reload: Annotated[bool, Option("--no-reload", help="Do not watch the files.", panel=_DAEMON)] = False,
    reload_poll: Annotated[
        str | None,
        Option("--reload-poll", metavar="T", help="How often the files are scanned. [10s]", panel=_DAEMON),
    ] = None,
    no_resume: Annotated[
        bool, Option("--no-resume", help="Leave interrupted executions alone.", panel=_DAEMON)
    ] = False,
    max_running: Annotated[
        int | None,
        Option("--max-running", metavar="N", help="Most executions at once. [32]", panel=_DAEMON),
    ] = None,
    workers: Annotated[
        int | None,
        Option("--workers", metavar="N", min=0, help="Run missions in N processes. [0: in this one]", panel=_DAEMON),
    ] = None,
    worker_memory: Annotated[
        str | None,
        Option("--worker-memory", metavar="SIZE", help="Kill a worker that holds more; its runs go on.", panel=_DAEMON),
    ] = None,
    shutdown_grace: Annotated[
        str | None, Option("--shutdown-grace", metavar="T", help="How long running work may finish. [25s]")
    ] = None,
    misfire_grace: Annotated[
        str | None,
        Option("--misfire-grace", metavar="T", help="From when on a start counts as late. [60s]", panel=_DAEMON),
    ] = None,
    state_retention: Annotated[
        str | None, Option("--state-retention", metavar="T", help="Keep records this long. [for ever]")
    ] = None,
) -> None:
    """Run every mission that the paths hold, now; or stay as a daemon."""
    given = dict(locals())
    if validate_cron is not None:
        from reqon.cli.cron import show_cron  # noqa: PLC0415

        raise Done(show_cron(validate_cron, timezone))
    if not paths:
        raise ConfigurationError("no mission file or folder was named", hint="reqon ./missions/, or reqon --help")
    if daemon and once:
        raise ConfigurationError("--daemon and --once exclude each other")
    asked = effective(given, paths)
    if debug and (daemon or once or asked.dry_run):
        raise ConfigurationError("--debug is for runs without --daemon, --once and --dry-run")
    if debug and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigurationError("--debug needs a terminal", hint="run it by hand, without pipes")
    if daemon or once:
        if resume or output:
            raise ConfigurationError("--resume and --output are for runs without --daemon and --once")
        if not asked.dry_run:
            left_out = ("daemon", "validate_cron", "timezone", "resume", "execution", "force", "explain", "output")
            flags = {name: value for name, value in given.items() if name not in left_out}
            raise Done(service("daemon")({**flags, "paths": tuple(paths)}))
    if explain:
        if not resume:
            raise ConfigurationError("--explain goes with --resume", code="bad-option", hint="--resume --explain")
        from reqon.cli.resume import explained  # noqa: PLC0415  # only where asked for

        explained(paths, execution, force, mission or (), False, env, state_dir, state_store)
    settings = RunnerSettings(
        state_directory=asked.state_dir,
        auth_file=asked.auth,
        store_config=asked.store_config,
        output=asked.output,
        state_store=asked.state_store,
        checkpoint_seconds=seconds("REQON_CHECKPOINT_INTERVAL", os.environ.get("REQON_CHECKPOINT_INTERVAL") or "1s"),
        retention_seconds=asked.state_retention,
        no_oas_cache=asked.no_oas_cache,
        webhooks=_webhooks(asked, webhook_host, webhook_port, webhook_url),
    )
    if asked.journal_max is not None:
        settings = replace(settings, journal_max_bytes=asked.journal_max)
    job = OneShot(
        paths=paths,
        settings=settings,
        variables={**environment(asked.env), **asked.set} if asked.set else environment(asked.env),
        resume=resume,
        execution=execution,
        force=force,
        only=asked.mission,
        dry_run=asked.dry_run,
        keep_going=asked.keep_going or daemon,  # a broken file never stops a daemon
        verbose=asked.verbose,
        quiet=asked.quiet,
        grace_seconds=asked.shutdown_grace,
        given=_given(
            {
                "--auth": auth,
                "--env": env,
                "--store-config": store_config,
                "--state-dir": state_dir,
                "--state-store": state_store,
                "--set": set,
                "--webhook": True if webhook else None,
                "--webhook-host": webhook_host,
                "--webhook-port": webhook_port,
                "--webhook-url": webhook_url,
            }
        ),
        scheduled=daemon or once,
        debug=debug,
    )
    raise Done(job.run())


def _webhooks(asked: Asked, host: str | None, port: int | None, url: str | None) -> Any:
    """The webhook server that was asked for; None: none was. The others are the flags that were given."""
    if not asked.webhook:
        for flag, value in (("--webhook-host", host), ("--webhook-port", port), ("--webhook-url", url)):
            if value is not None:
                raise ConfigurationError(f"{flag} goes with --webhook", code="bad-option", hint=f"--webhook {flag} …")
        return None
    from reqon.webhooks.server import DEFAULT_HOST, DEFAULT_PORT, WebhookServer  # noqa: PLC0415  # only where asked for

    chosen = DEFAULT_PORT if asked.webhook_port is None else asked.webhook_port
    if not 0 <= chosen <= 65_535:
        raise ConfigurationError(f"--webhook-port: '{chosen}' is no port", code="bad-option", hint="0 to 65535")
    return WebhookServer(host=asked.webhook_host or DEFAULT_HOST, port=chosen, url=asked.webhook_url)


def _given(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The options that were given, as words of a command line."""
    words: list[str] = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [] if one is None else [name] if one is True else [name, str(one)]
    return tuple(words)


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
        runner = self.runner
        runner.open()
        self._name_unused(runner, missions)
        collector.settle()
        outcomes = asyncio.run(self._all(runner, missions))
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
            dry = DryRun(plan, store=lambda name, plan=plan: runner.chosen_store(plan, name))  # type: ignore[misc]
            for name, settings in dry.settings().items():
                try:
                    runner.credentials(settings)
                except ReqonError as error:
                    show.err(warning(error.locate(mission.sources[name].name.span)))
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
        missions = list(program.missions)
        if self.only:
            by_name = {m.name: m for m in missions}
            for name in self.only:
                if name not in by_name:
                    raise unknown_mission(name, by_name)
            missions = [by_name[name] for name in self.only]
        if not missions:
            raise Done(2) if program.has_errors else ConfigurationError("there is no mission to run")
        if self.execution is not None and not self.resume:
            raise ConfigurationError(
                "--execution goes with --resume", hint=f"reqon … --resume --execution {self.execution}"
            )
        return missions

    async def _all(self, runner: Runner, missions: Sequence[MissionProgram]) -> list[Outcome | ReqonError]:
        bars = self._listen(runner)
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
                    show.err(error.format())
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
            show.err(error.format())
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

    def _listen(self, runner: Runner) -> Any:
        if self.verbose:
            from reqon.observe import logs  # noqa: PLC0415  # structlog costs 80 ms

            logs.configure(level=os.environ.get("REQON_LOG_LEVEL") or "info")
            logs.EventLog(runner.bus, level=os.environ.get("REQON_LOG_LEVEL") or "info")
            return None
        from reqon.observe.plain import PlainWarnings  # noqa: PLC0415

        if not self.quiet:
            PlainWarnings(runner.bus)
        if self.quiet or self.debug or not sys.stderr.isatty():
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


def unknown_mission(name: str, known: Mapping[str, Any]) -> ConfigurationError:
    from reqon.diagnostics import did_you_mean  # noqa: PLC0415

    return ConfigurationError(
        f"there is no mission '{name}'", code="unknown-mission", hint=did_you_mean(name, list(known), "missions")
    )


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
