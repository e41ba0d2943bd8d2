"""Reqon from Python: run missions, follow them, look at their state (spec/state.md 9). All names are `reqon`'s own.

Every coroutine function has a blocking twin with `_sync` behind its name in `blocking.py`.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from reqon.callbacks import CircuitBreakerCallbacks, ProgressCallbacks, RateLimitCallbacks, Teller
from reqon.clock import SYSTEM, Clock
from reqon.diagnostics import Source, did_you_mean
from reqon.errors import ConfigurationError, ParseError, ReqonError
from reqon.extensions import registered, specifications_in
from reqon.http.transport import Answering, FunctionTransport, Transport
from reqon.lang.check import Registered
from reqon.lang.loader import load, load_text, no_such_path
from reqon.lang.program import MissionProgram, Program
from reqon.listeners import Listeners, RunListener, refuse_wrong_listeners
from reqon.observe.emitter import EventEmitter
from reqon.runner import Additions, Outcome, Runner, RunnerSettings
from reqon.running.settings import checkpoint_seconds
from reqon.runtime.execution import OpenStore
from reqon.runtime.hooks import NO_HOOKS, Hooks
from reqon.runtime.plan import Plan
from reqon.runtime.registries import GLOBAL, Registries
from reqon.runtime.request import RunRequest
from reqon.state.choice import StateStores
from reqon.state.custom import set_state_store
from reqon.state.directory import DEFAULT_STATE_DIRECTORY, StateDirectory
from reqon.state.records import (
    ExecutionRecord,
    ExecutionStatus,
    RunError,
    StoreTotals,
    Trigger,
    from_json,
    to_json,
)
from reqon.stores.file import FileStore
from reqon.stores.waiting import wait_elsewhere
from reqon.values import Record, Value
from reqon.webhooks.server import WebhookServer

__all__ = [
    "ExecutionOptions",
    "ExecutionResult",
    "StoreResult",
    "clear_sync_checkpoint",
    "clear_sync_checkpoints",
    "execute",
    "from_file",
    "from_path",
    "get_execution_history",
    "get_execution_state",
    "parse",
    "register_auth_provider",
    "register_function",
    "register_pagination_strategy",
    "register_step_handler",
    "register_store_adapter",
    "set_state_store",
]

T = TypeVar("T")
log = logging.getLogger("reqon")

# Of the process as a whole; `Reqon()` has its own of each.
register_function = GLOBAL.register_function
register_store_adapter = GLOBAL.register_store_adapter
register_auth_provider = GLOBAL.register_auth_provider
register_pagination_strategy = GLOBAL.register_pagination_strategy
register_step_handler = GLOBAL.register_step_handler

# --- what a run answers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreResult:
    """What a run did to one store. `count` is its size now; numbers that a store cannot tell are None."""

    count: int | None
    added: int
    updated: int | None
    unchanged: int | None
    deleted: int
    _read: Callable[[], list[Record]] = field(repr=False, compare=False)

    def records(self) -> list[Record]:
        """All records, in the store's order. A file is read when this is called.

        Raises:
            StoreError: it cannot be read.
        """
        return self._read()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """How an execution ended.

    Attributes:
        success: whether the mission completed.
        duration: in milliseconds.
        actions_run: the pipeline's actions that completed, in order of completion.
        errors: the first hundred failures, with message, type, action, step, location, status and hint.
        stores: by the names that the mission gives them.
        execution_id: for `get_execution_state` and `resume`; empty after a dry run.
        state: the execution's record, as `get_execution_state` answers it; None after a dry run.
    """

    success: bool
    duration: int
    actions_run: tuple[str, ...] = ()
    errors: tuple[RunError, ...] = ()
    stores: Mapping[str, StoreResult] = field(default_factory=dict)
    execution_id: str = ""
    state: ExecutionRecord | None = None


class ExecutionOptions(TypedDict, total=False):
    """The options of `execute`, `from_file` and `from_path`; all may be left out.

    auth: credentials by source, `{"Shop": {"token": "…"}}`, or the path of a file that holds them.
    environment: what `env("NAME")` reads, instead of the process's variables.
    mission: which one, when the text or folder holds several.
    mission_dir: where imports and relative paths of a text start; the working directory.
    progress_callbacks: what to call while it runs.
    resume: go on with the mission's latest execution, where that was cut off; or with the one of this id.
    force: with resume, start a changed mission again from its first action.
    dry_run: print what would be done; send nothing, write nothing.
    state_dir: where state lives; else REQON_STATE_DIR, else `.vague-data` in the working directory.
    state_store: keep it in this store, whatever the mission says: file, sqlite, postgres, or one of your own.
    store_config: which databases stand behind `sql`, `nosql` and `postgrest`: the path of a file, or its content.
    stores: adapters of your own by the names that the mission gives its stores. They are connected, never closed.
    development_mode: False: a `nosql` store that nothing configures is an error, not a file.
    event_emitter: whose handlers hear what happens: `create_emitter()`, or `create_otel_listener(exporter)`.
    logger: a structured logger that writes each event as a line: `create_structured_logger()`.
    verbose: write each event of level info or above to stderr.
    rate_limit_callbacks, circuit_breaker_callbacks: what to call around waits and breakers.
    on_token_refresh: awaited with a source and its new OAuth tokens, before they are used.
    http_transport: what answers requests, for tests: a function of method, URL, headers and body that gives status,
        headers and body; or a whole transport.
    output: write the stores' records as JSON when it completed: into a folder, or one file that ends in .json.
    webhook_server: what receives the calls that the mission waits for: a `WebhookServer`; True: one with defaults.
    clock: another clock, for tests.
    """

    auth: Mapping[str, Mapping[str, Value]] | Path | str | None
    environment: Mapping[str, str] | None
    mission: str | None
    mission_dir: Path | str | None
    progress_callbacks: ProgressCallbacks | None
    resume: bool | str
    force: bool
    dry_run: bool
    state_dir: Path | str | None
    state_store: str | None
    store_config: Mapping[str, Mapping[str, Value]] | Path | str | None
    stores: Mapping[str, object] | None
    development_mode: bool
    event_emitter: EventEmitter | None
    logger: RunListener | None
    verbose: bool
    rate_limit_callbacks: RateLimitCallbacks | None
    circuit_breaker_callbacks: CircuitBreakerCallbacks | None
    on_token_refresh: Callable[[str, Record], Awaitable[None]] | None
    http_transport: Answering | Transport | None
    output: Path | str | None
    webhook_server: WebhookServer | bool | None
    clock: Clock


# --- running ---------------------------------------------------------------------------------------------------------


def parse(source: str, *, name: str = "<source>", mission_dir: Path | str | None = None) -> Program:
    """The checked missions of a text. Warnings are in `all_diagnostics`.

    Raises:
        ParseError: the text is wrong; `diagnostics` holds every finding, `format()` prints them.
    """
    return _parse(source, name=name, mission_dir=mission_dir)


def _parse(
    source: str,
    *,
    name: str = "<source>",
    mission_dir: Path | str | None = None,
    registries: Registries = GLOBAL,
) -> Program:
    if "\n" not in source and source.endswith(".vague"):
        raise ParseError(f"'{source}' is no mission's text", hint="to run a file: from_file(path)")
    folder = None if mission_dir is None else Path(mission_dir)
    return _sound(
        load_text(Source(name, source), known=_registered(registries, _state_path(None), folder), folder=folder)
    )


async def execute(source: str | Program | MissionProgram, **options: Unpack[ExecutionOptions]) -> ExecutionResult:
    """Run a mission once: its text, or what `parse` made of it. See `ExecutionOptions`.

    A run that fails answers `success=False`. What keeps it from starting is raised:

    Raises:
        ParseError: the text is wrong.
        ConfigurationError, StateError: credentials, options, state directory; what exits with 3 on the command line.
        ResumeRefusedError: it cannot be resumed, and why.
        AlreadyRunningError: the mission runs, and does not run twice at once.
        TypeError: an option that there is not, or one that is given by something of another kind.
    """
    return await _execute(source, options)


async def _execute(
    source: str | Program | MissionProgram,
    options: ExecutionOptions,
    *,
    registries: Registries = GLOBAL,
    hooks: Hooks = NO_HOOKS,
) -> ExecutionResult:
    """`execute`, with the extensions and hooks of the process or of one `Reqon`."""
    _refuse_unknown(options)
    program = await _parsed(source, options, registries, hooks) if isinstance(source, str) else _made(source)
    mission = program if isinstance(program, MissionProgram) else _chosen(program, options.get("mission"))
    await hooks.before_execute(mission)
    runner = _KeepingRunner(_settings(options), options, registries, hooks)
    for name in options.get("stores") or {}:
        if name not in mission.stores:
            hint = did_you_mean(name, list(mission.stores), "stores")
            raise ConfigurationError(f"stores: mission '{mission.name}' has no store '{name}'", hint=hint)
    await asyncio.to_thread(runner.read_documents, mission)
    plan = runner.plan(mission)
    if options.get("dry_run"):
        _show(runner, plan)
        return ExecutionResult(success=True, duration=0)
    try:
        outcome = await _told(runner, plan, options)
    finally:
        await runner.close()
    for error in outcome.errors:
        if error.exit_code == ConfigurationError.exit_code:
            raise error
    result = runner.result(plan, outcome)
    await hooks.after_execute(result)
    return result


def _made(program: Any) -> Program | MissionProgram:
    if isinstance(program, Program | MissionProgram):
        return program
    kind = type(program).__name__
    raise TypeError(f"execute() runs a mission's text or program, not {kind}; to run a file: from_file(path)")


async def _parsed(source: str, options: ExecutionOptions, registries: Registries, hooks: Hooks) -> Program:
    """The program of a text, with the hooks around parsing."""
    text = await hooks.before_parse(source)
    program = _parse(
        text if isinstance(text, str) else source, mission_dir=options.get("mission_dir"), registries=registries
    )
    other = await hooks.after_parse(program)
    return other if isinstance(other, Program) else program


async def from_file(path: Path | str, **options: Unpack[ExecutionOptions]) -> ExecutionResult:
    """Run the mission of one file; see `execute`.

    Raises:
        ConfigurationError: there is no such file.
    """
    return await _execute(await asyncio.to_thread(_loaded, Path(path), options, folders=False), options)


async def from_path(path: Path | str, **options: Unpack[ExecutionOptions]) -> ExecutionResult:
    """Run the mission of a file or folder; see `execute`. With several, `mission` says which.

    Raises:
        ConfigurationError: there is no such path.
    """
    return await _execute(await asyncio.to_thread(_loaded, Path(path), options), options)


def _registered(
    registries: Registries, state: Path, folder: Path | None = None, *, offline: bool = False
) -> Registered:
    """What is known of the language now, OpenAPI documents included."""
    return registered(specifications_in(state, os.environ, offline=offline), folder=folder, registries=registries)


def _loaded(path: Path, options: ExecutionOptions, *, folders: bool = True, registries: Registries = GLOBAL) -> Program:
    _refuse_unknown(options)
    if not path.exists():
        raise no_such_path(path)
    if not folders and not path.is_file():
        raise ConfigurationError(
            f"'{path}' is no mission file", code="path-not-found", hint="from_path(path) runs a mission folder"
        )
    state = _state_path(options.get("state_dir"), options.get("environment"))
    known = _registered(registries, state, offline=bool(options.get("dry_run")))
    return _sound(load([path], known=known, skip=(state,)))


def _refuse_unknown(options: ExecutionOptions) -> None:
    known = list(ExecutionOptions.__annotations__)
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known, "options")
            raise TypeError(f"'{name}' is no option of execute(); {hint}")
    refuse_wrong_listeners(options)


def _sound(program: Program) -> Program:
    if program.has_errors or not program.missions:
        raise ParseError.of(sorted(program.all_diagnostics, key=lambda finding: finding.severity != "error"))
    return program


def _chosen(program: Program, name: str | None) -> MissionProgram:
    missions = {mission.name: mission for mission in program.missions}
    if name is None and len(missions) == 1:
        return next(iter(missions.values()))
    if name is None:
        raise ConfigurationError(
            f"there are {len(missions)} missions: {', '.join(missions)}", hint="say which: mission='…'"
        )
    if name not in missions:
        raise ConfigurationError(
            f"there is no mission '{name}'",
            code="unknown-mission",
            hint=did_you_mean(name, list(missions), "missions"),
        )
    return missions[name]


def _settings(options: ExecutionOptions) -> RunnerSettings:
    auth, output, config = options.get("auth"), options.get("output"), options.get("store_config")
    credentials = auth if isinstance(auth, Mapping) else None
    return RunnerSettings(
        state_directory=_state_path(options.get("state_dir"), options.get("environment")),
        auth_file=Path(auth) if isinstance(auth, Path | str) else None,
        auth=credentials,
        store_config=Path(config) if isinstance(config, str) else config,
        stores=options.get("stores"),
        development_mode=options.get("development_mode", True),
        output=None if output is None else Path(output),
        checkpoint_seconds=checkpoint_seconds(os.environ),
        state_store=options.get("state_store"),
        webhooks=_webhooks(options),
    )


def _webhooks(options: ExecutionOptions) -> WebhookServer | None:
    asked = options.get("webhook_server")
    return WebhookServer(clock=options.get("clock", SYSTEM)) if asked is True else asked or None


def _state_path(given: Path | str | None, environment: Mapping[str, str] | None = None) -> Path:
    known = os.environ if environment is None else environment
    return Path(given or known.get("REQON_STATE_DIR") or DEFAULT_STATE_DIRECTORY)


class _KeepingRunner(Runner):
    """A runner that remembers the stores it opened, so that a result can show what they hold."""

    def __init__(
        self,
        settings: RunnerSettings,
        options: ExecutionOptions,
        registries: Registries = GLOBAL,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        given = options.get("http_transport")
        super().__init__(
            settings,
            clock=options.get("clock", SYSTEM),
            environment=options.get("environment"),
            offline=bool(options.get("dry_run")),
            additions=Additions(
                registries=registries,
                hooks=hooks,
                transport=FunctionTransport(given) if callable(given) else given,
                on_token_refresh=options.get("on_token_refresh"),
            ),
        )
        self._seen: dict[str, OpenStore] = {}
        self._options = options

    def open_store(self, plan: Plan, name: str, before: ExecutionRecord, *, settle: bool = True) -> OpenStore:
        opened = super().open_store(plan, name, before, settle=settle)
        self._seen[name] = opened
        return opened

    def result(self, plan: Plan, outcome: Outcome) -> ExecutionResult:
        # As whoever looks it up later reads it: times cut to milliseconds, secrets redacted.
        record = from_json(to_json(outcome.record), file_name=outcome.record.file_name)
        stores = {name: self._store_result(plan, name, totals, record) for name, totals in record.stores.items()}
        return ExecutionResult(
            success=outcome.success,
            duration=record.duration_ms or 0,
            actions_run=record.actions_run,
            errors=record.errors,
            stores=stores,
            execution_id=record.execution_id,
            state=record,
        )

    async def _read_remote(self, plan: Plan, name: str, record: ExecutionRecord) -> list[Record]:
        again = _KeepingRunner(self.settings, self._options)
        again.read_store_config()
        remote = Runner.open_store(again, plan, name, record).remote
        assert remote is not None
        await remote.open()
        try:
            return await remote.adapter.list()
        finally:
            await remote.aclose()
            await again.close()

    def _store_result(self, plan: Plan, name: str, totals: StoreTotals, record: ExecutionRecord) -> StoreResult:
        def read() -> list[Record]:
            known = self._seen.get(name)
            if known is not None and known.is_memory:
                return list(known.store.records())
            if known is not None and known.remote is not None:
                return wait_elsewhere(lambda: asyncio.run(self._read_remote(plan, name, record)))
            open_store = super(_KeepingRunner, self).open_store
            opened = (
                self.dead_letters(plan, settle=False) if known is None else open_store(plan, name, record, settle=False)
            )
            if isinstance(opened.store, FileStore):
                opened.store.keep = True  # whoever looks at a failed run must not spoil its resume
            try:
                return list(opened.store.records())
            finally:
                opened.store.close()

        return StoreResult(
            count=totals.count,
            added=totals.added,
            updated=totals.updated,
            unchanged=totals.unchanged,
            deleted=totals.deleted,
            _read=read,
        )


async def _told(runner: Runner, plan: Plan, options: ExecutionOptions) -> Outcome:
    """Run it, telling whoever asked to be told."""
    resume = options.get("resume", False)
    request = RunRequest(
        mission=plan.name,
        path=str(plan.program.path),
        definition_hash=plan.definition_hash,
        trigger=Trigger.API,
        resume=bool(resume),
        force=options.get("force", False),
        execution_id=resume if isinstance(resume, str) else None,
    )
    listeners = Listeners(
        runner,
        progress=options.get("progress_callbacks"),
        limits=options.get("rate_limit_callbacks"),
        breakers=options.get("circuit_breaker_callbacks"),
        emitter=options.get("event_emitter"),
        logger=options.get("logger"),
        verbose=options.get("verbose", False),
    )
    with listeners:
        try:
            if not listeners.calls:
                return await runner.execute(plan, request)
            return await _telling(runner, plan, request, listeners.teller)
        finally:
            await listeners.drain()


async def _telling(runner: Runner, plan: Plan, request: RunRequest, teller: Teller) -> Outcome:
    """Run it, and beside it what coroutine functions among the callbacks do."""
    answer: Outcome | ReqonError
    async with asyncio.TaskGroup() as beside:
        beside.create_task(teller.work())
        try:
            answer = await runner.execute(plan, request)
        except ReqonError as error:
            answer = error  # a group would wrap it
        teller.end()
    if isinstance(answer, ReqonError):
        raise answer
    return answer


def _show(runner: Runner, plan: Plan) -> None:
    """What would be done, on stdout; credentials that are missing here only warn."""
    from reqon.runtime.dryrun import DryRun  # noqa: PLC0415  # only where asked for

    runner.read_credentials()
    runner.read_store_config()
    dry = DryRun(plan, partial(runner.chosen_store, plan), partial(runner.peek_store, plan))
    for settings in dry.settings().values():
        try:
            runner.credentials(settings)
        except ReqonError as error:
            log.warning("%s", error.message)
    for line in dry.lines():
        sys.stdout.write(line + "\n")


# --- looking at state ------------------------------------------------------------------------------------------------


async def get_execution_state(
    mission: str,
    execution_id: str | None = None,
    *,
    state_dir: Path | str | None = None,
    state_store: str | None = None,
) -> ExecutionRecord | None:
    """A mission's last execution, or the one of this id; None if there is none. `to_dict()` gives its JSON form.

    Raises:
        ConfigurationError: no such state store.
        StateError: it is there, but cannot be read.
    """

    def look(stores: StateStores) -> ExecutionRecord | None:
        if execution_id is None:
            return next(iter(stores.list(mission, limit=1)), None)
        found = stores.load(execution_id)
        return found if found is not None and found.mission == mission else None

    return await _look(look, state_dir, state_store)


async def get_execution_history(
    mission: str | None = None,
    *,
    limit: int | None = 10,
    since: datetime | None = None,
    status: ExecutionStatus | str | None = None,
    state_dir: Path | str | None = None,
    state_store: str | None = None,
) -> list[ExecutionRecord]:
    """Past executions, of one mission or of all, newest first; `limit=None`: every one.

    `since`: those that began then or later; a moment without a time zone is UTC.

    Raises:
        ConfigurationError: no such status, no such state store.
        StateError: the state cannot be read.
        TypeError: `since` is no datetime.
    """
    wanted = None if status is None else _status(status)
    if since is not None and not isinstance(since, datetime):
        raise TypeError(f"since is a datetime, not a {type(since).__name__}")
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    return await _look(
        lambda stores: stores.list(mission, limit=limit, since=since, status=wanted), state_dir, state_store
    )


async def clear_sync_checkpoints(*, state_dir: Path | str | None = None, state_store: str | None = None) -> int:
    """Forget how far everything is synced, so that the next runs fetch all of it; how many entries went.

    Raises:
        ConfigurationError: no such state store.
        StateError: the state cannot be read or written. A file of entries that is damaged is set aside.
    """
    return await _look(lambda stores: stores.clear_sync(None), state_dir, state_store)


async def clear_sync_checkpoint(
    key: str, *, state_dir: Path | str | None = None, state_store: str | None = None
) -> bool:
    """Forget one entry of `sync-checkpoints.json`, such as `API-/customers`; whether it was there.

    Raises:
        ConfigurationError: no such state store.
        StateError: the state cannot be read or written; what is damaged is left as it is.
    """
    return await _look(lambda stores: stores.clear_sync(key) > 0, state_dir, state_store)


def _status(status: str) -> ExecutionStatus:
    try:
        return ExecutionStatus(status)
    except ValueError:
        words = ", ".join(ExecutionStatus)
        raise ConfigurationError(f"'{status}' is no status", hint=f"one of: {words}") from None


async def _look(ask: Callable[[StateStores], T], state_dir: Path | str | None, state_store: str | None) -> T:
    def answer() -> T:
        stores = StateStores(StateDirectory(_state_path(state_dir)), only=state_store)
        try:
            return ask(stores)
        finally:
            stores.close()

    return await asyncio.to_thread(answer)
