"""`reqon PATH…`: run missions now, or hand over to the daemon (spec/daemon.md 1)."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from reqon.cli.effective import Asked, effective, was_given
from reqon.cli.environment import environment
from reqon.cli.exits import Done
from reqon.cli.flags import (
    AuthFile,
    Debug,
    EnvFile,
    JournalMax,
    KeepGoing,
    MissionNames,
    NoOasCache,
    OutputPath,
    Paths,
    Quiet,
    Set,
    ShutdownGrace,
    StateDir,
    StateRetention,
    StateStore,
    StoreConfigFile,
    Verbose,
    Webhook,
    WebhookHost,
    WebhookPort,
    WebhookUrl,
)
from reqon.cli.oneshot import OneShot
from reqon.cli.options import Option, parameters
from reqon.cli.services import service
from reqon.errors import ConfigurationError
from reqon.runner import RunnerSettings
from reqon.running.settings import checkpoint_seconds

_DAEMON = "Daemon"
_RESUME = "Resume"
_CRON = "Cron texts"


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
    mission: MissionNames = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be done; send nothing, write nothing.")] = False,
    keep_going: KeepGoing = False,
    set: Set = None,  # noqa: A002  # its flag's name
    auth: AuthFile = None,
    env: EnvFile = None,
    store_config: StoreConfigFile = None,
    output: OutputPath = None,
    state_dir: StateDir = None,
    state_store: StateStore = None,
    no_oas_cache: NoOasCache = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    debug: Debug = False,
    journal_max: JournalMax = None,
    validate_cron: Annotated[
        str | None,
        Option("--validate-cron", metavar="TEXT", help="Check a cron text and show its next runs.", panel=_CRON),
    ] = None,
    timezone: Annotated[
        str | None, Option("--timezone", metavar="ZONE", help="The zone it is read in.", panel=_CRON)
    ] = None,
    webhook: Webhook = False,
    webhook_host: WebhookHost = None,
    webhook_port: WebhookPort = None,
    webhook_url: WebhookUrl = None,
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
    shutdown_grace: ShutdownGrace = None,
    misfire_grace: Annotated[
        str | None,
        Option("--misfire-grace", metavar="T", help="From when on a start counts as late. [60s]", panel=_DAEMON),
    ] = None,
    state_retention: StateRetention = None,
) -> None:
    """Run every mission that the paths hold, now; or stay as a daemon."""
    given = dict(locals())
    if validate_cron is not None:
        from reqon.cli.cron import show_cron  # noqa: PLC0415

        raise Done(show_cron(validate_cron, timezone))
    _refuse_companions(given)
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
            raise _goes_with("--explain", "--resume", "--resume --explain")
        from reqon.cli.explaining import explained  # noqa: PLC0415  # only where asked for

        explained(paths, execution, force, mission or (), False, env, state_dir, state_store)
    settings = RunnerSettings(
        state_directory=asked.state_dir,
        auth_file=asked.auth,
        store_config=asked.store_config,
        output=asked.output,
        state_store=asked.state_store,
        checkpoint_seconds=checkpoint_seconds(os.environ),
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


def _refuse_companions(given: Mapping[str, Any]) -> None:
    """Refuse flags that have no effect without another one, which was probably forgotten."""
    if given["timezone"]:
        raise _goes_with("--timezone", "--validate-cron", 'in a mission write timezone: "Europe/Oslo"')
    if given["force"] and not given["resume"]:
        raise _goes_with("--force", "--resume", "--resume --force")
    for parameter in () if given["daemon"] or given["once"] else parameters(run):
        written = parameter.written
        if isinstance(written, Option) and written.panel == _DAEMON and was_given(given[parameter.name]):
            raise _goes_with(written.flags[0], "--daemon", f"--daemon {written.flags[0]} …")


def _goes_with(flag: str, other: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"{flag} goes with {other}", code="bad-option", hint=hint)


def _webhooks(asked: Asked, host: str | None, port: int | None, url: str | None) -> Any:
    """The webhook server that was asked for; None: none was. The others are the flags that were given."""
    if not asked.webhook:
        for flag, value in (("--webhook-host", host), ("--webhook-port", port), ("--webhook-url", url)):
            if value is not None:
                raise _goes_with(flag, "--webhook", f"--webhook {flag} …")
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
