"""What executions share: the state directory, connections, credentials, the webhook server; and a mission's stores."""

import asyncio
import logging
import os
import random as chance
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reqon.clock import SYSTEM, Clock
from reqon.errors import ReqonError, StateError
from reqon.events import Event, EventBus
from reqon.files import make_directory
from reqon.http.auth import Credentials, credentials_for, load_auth_file
from reqon.http.client import Client
from reqon.http.connections import Connections, LimitsElsewhere
from reqon.http.messages import SourceSettings
from reqon.lang.operators import StoreHandle
from reqon.lang.program import MissionProgram
from reqon.observe.runlog import RunLogs
from reqon.running.output import writing
from reqon.running.settings import NO_ADDITIONS, Additions, RunnerSettings
from reqon.runtime.execution import OpenStore
from reqon.runtime.plan import Plan
from reqon.runtime.settings import store_settings
from reqon.runtime.stopping import RunClock, StopSignal
from reqon.state.backend import StateBackend
from reqon.state.choice import StateStores
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionRecord, ExecutionStatus, StoreTotals
from reqon.stores.config import ChosenStore, StoreConfiguration, load_store_config, store_entries
from reqon.stores.memory import MemoryStore
from reqon.stores.registry import Places, chosen_store, known_adapters, open_store, peek_store

if TYPE_CHECKING:
    from reqon.http.openapi.loading import Specifications
    from reqon.state.webhooks import WebhookShelf

log = logging.getLogger("reqon")


class Shared:
    """Opens what executions share, once: the bus, the state directory, connections, the webhook server."""

    def __init__(
        self,
        settings: RunnerSettings,
        *,
        clock: Clock = SYSTEM,
        bus: EventBus | None = None,
        environment: Mapping[str, str] | None = None,
        random: Callable[[], float] = chance.random,
        keep_state: bool = True,
        offline: bool = False,
        additions: Additions = NO_ADDITIONS,
        limits: LimitsElsewhere | None = None,
    ) -> None:
        """`offline`: open no socket for specifications and write none, as in a dry run."""
        self.settings = settings
        self.additions = additions
        self.stop = StopSignal()
        self.clock = RunClock(clock, self.stop)
        self.bus = bus if bus is not None else EventBus()
        self.environment = os.environ if environment is None else environment
        self.random = random
        self.directory = StateDirectory(settings.state_directory, clock=clock)
        self.backend = StateStores(
            self.directory,
            journal_max=settings.journal_max_bytes,
            only=settings.state_store,
            environment=self.environment,
        )
        self.logs = RunLogs(self.directory, self.bus)
        self._keep_state = keep_state
        self._offline = offline
        self._limits = limits
        self._opened = False
        self._connections: Connections | None = None
        self._auth: Mapping[str, Any] | None = None
        self._warned: set[str] = set()
        self._stores = StoreConfiguration()
        self.webhooks = settings.webhooks
        self._opened_webhooks = False

    def open(self) -> None:
        """Make and check the state directory, read the credentials file.

        Raises:
            StateError, ConfigurationError: exit 3.
        """
        if not self._opened:
            self.directory.open()
            if self.webhooks is not None:
                self.webhooks.bind()
            self.read_credentials()
            self.read_store_config()
            if self.settings.output is not None:
                # Before the first request: a run of hours must not end in a folder that cannot be.
                with writing(self.settings.output) as output:
                    make_directory(output.parent if output.suffix == ".json" else output)
            self._opened = True

    def read_credentials(self) -> None:
        """Read the `--auth` file again."""
        file = self.settings.auth_file
        self._auth = load_auth_file(file, self.environment, warn=self._warn) if file is not None else None

    def _warn(self, message: str) -> None:
        """Say what is odd about credentials, once in this process."""
        if message not in self._warned:
            self._warned.add(message)
            log.warning("%s", message)

    def read_store_config(self) -> None:
        """Read the `--store-config` file again.

        Raises:
            ConfigurationError: it cannot be used.
        """
        given = self.settings.store_config
        if isinstance(given, Path):
            entries = load_store_config(given, self.environment)
        else:
            entries = store_entries(given, self.environment, "store_config") if given else {}
        self._stores = StoreConfiguration(entries, self.settings.stores or {}, self.settings.development_mode)

    def unused_store_config(self, missions: Iterable[MissionProgram]) -> list[str]:
        """The keys of the store configuration that are no adapter's word and no store's name in these missions."""
        known = {*known_adapters(), *self.additions.registries.adapters}
        known.update(name for mission in missions for name in mission.stores)
        return [key for key in self._stores.entries if key not in known]

    @property
    def connections(self) -> Connections:
        if self._connections is None:
            self._connections = Connections(
                clock=self.clock,
                environment=self.environment,
                state_directory=self.directory.path,
                random=self.random,
                transport=self.additions.transport,
                on_token_refresh=self.additions.on_token_refresh,
                auth_providers=self.additions.registries.auth_providers,
                limits=self._limits,
                set_aside=lambda path, reason: self.directory.quarantine(path, reason, kind="rate-limits"),
            )
        return self._connections

    @cached_property
    def shelf(self) -> "WebhookShelf":
        """Where endpoints and their events lie."""
        from reqon.state.webhooks import WebhookShelf  # noqa: PLC0415  # few missions wait

        return WebhookShelf(self.directory)

    async def start_webhooks(self) -> None:
        """Take webhook calls from now on, until `close`; one that was open before stays open.

        Raises:
            ConfigurationError: the port cannot be had; exit 3.
        """
        server = self.webhooks
        if server is not None and not server.is_open:
            await server.start()
            self._opened_webhooks = True
            server.bus = self.bus
            log.info("webhooks are received at %s; their URLs begin with %s", server.address, server.url)

    async def adopt_webhooks(self) -> None:
        """Take calls for executions that were interrupted as well: for whoever stays, and resumes them."""
        server = self.webhooks
        if server is None:
            return
        known = {endpoint.id for endpoint in server.desk.endpoints()}
        for registration in await asyncio.to_thread(self.shelf.live):
            if registration.id not in known and await asyncio.to_thread(self._may_go_on, registration.execution_id):
                server.adopt(registration, self.shelf, self.environment)

    def _may_go_on(self, execution_id: str) -> bool:
        """Whether an execution may still be resumed. One whose record cannot be read may."""
        try:
            record = self.backend.load(execution_id)
        except StateError as error:
            log.warning("calls for %s are kept, though its record is unknown: %s", execution_id, error.message)
            return True
        return record is not None and record.status is not ExecutionStatus.COMPLETED

    @cached_property
    def specifications(self) -> "Specifications":
        """The OpenAPI documents of missions."""
        from reqon.http.openapi.loading import Specifications  # noqa: PLC0415  # only where a source has one

        return Specifications(
            self.directory.oas_cache,
            environment=self.environment,
            offline=self._offline,
            refresh=self.settings.no_oas_cache,
            keep=not self._offline,
            clock=self.clock,
        )

    async def close(self) -> None:
        """Close connections, the webhook server and the state backend."""
        if self.webhooks is not None and (self._opened_webhooks or not self.webhooks.is_open):
            await self.webhooks.close()
        if self._connections is not None:
            await self._connections.close()
            self._connections = None
        self.backend.close()

    def state_of(self, plan: Plan) -> StateBackend:
        """Where the mission's new executions are kept."""
        return self.backend.of(plan.name, plan.state_store)

    # --- what a mission needs of it -----------------------------------------------------------------------------------

    def open_store(self, plan: Plan, name: str, before: ExecutionRecord, *, settle: bool = True) -> OpenStore:
        """A store of the mission, ready for one execution. Without `settle` a file store waits for its `settle`."""
        definition = plan.program.stores[name]
        chosen = store_settings(definition, plan.evaluate)
        try:
            store = open_store(
                chosen.adapter,
                chosen.identifier,
                chosen.options,
                directory=self.directory.stores,
                mission_directory=mission_directory(plan),
                track=plan.enable_state,
                store=name,
                configuration=self._stores,
                connections=self.connections,
                adapters=self.additions.registries.adapters,
                disk=self.directory.disk,
                settle=settle,
                by=before.execution_id,
            )
        except ReqonError as error:
            raise error.locate(definition.adapter.span) from error
        carried = before.stores.get(name, StoreTotals())
        handle = StoreHandle(name, store, getattr(store, "partial", None))
        return OpenStore(name=name, store=store, handle=handle, before=store.counts.copy(), carried=carried)

    def chosen_store(self, plan: Plan, name: str) -> ChosenStore | None:
        """What a store of the mission is, without opening it; None: an object that was given in Python.

        Raises:
            ConfigurationError: a run would not start.
        """
        definition = plan.program.stores[name]
        if name in self._stores.adapters:
            return None
        chosen = store_settings(definition, plan.evaluate)
        try:
            return chosen_store(
                chosen.adapter,
                chosen.identifier,
                chosen.options,
                store=name,
                configuration=self._stores,
                adapters=self.additions.registries.adapters,
            )
        except ReqonError as error:
            raise error.locate(definition.adapter.span) from error

    def peek_store(self, plan: Plan, name: str) -> MemoryStore | None:
        """A copy of what a local store of the mission holds, for who only looks; None where that is not known.

        Raises:
            ConfigurationError, StoreError: a run would not start.
        """
        chosen = self.chosen_store(plan, name)
        if chosen is None:
            return None
        try:
            return peek_store(
                chosen, Places(directory=self.directory.stores, mission_directory=mission_directory(plan))
            )
        except ReqonError as error:
            raise error.locate(plan.program.stores[name].adapter.span) from error

    def dead_letters_of(self, plan: Plan) -> Path | None:
        """The mission's own dead-letter file, if it has one."""
        path = self.directory.dead_letters(plan.name)
        there = path.exists() or path.with_suffix(".log").exists()
        return path if there and "dlq" not in plan.program.stores else None

    def dead_letters(self, plan: Plan, execution_id: str = "", *, settle: bool = True) -> OpenStore:
        """The mission's own dead-letter store, opened. Close it when the execution ends."""
        path = self.directory.dead_letters(plan.name)
        store = open_store(
            "file",
            path.stem,
            {},
            directory=path.parent,
            mission_directory=mission_directory(plan),
            settle=settle,
            by=execution_id,
            disk=self.directory.disk,
        )
        return OpenStore(name="dlq", store=store, handle=StoreHandle("dlq", store), before=store.counts.copy())

    def clients(self, plan: Plan, emit: Callable[[Event], None], wants: Callable[..., bool]) -> dict[str, Client]:
        """A client for each source.

        Raises:
            ConfigurationError: no base, no credentials; exit 3.
        """
        made: dict[str, Client] = {}
        for name, definition in plan.program.sources.items():
            settings = plan.source_settings(definition)
            if settings.validation != "off":
                plan.prepare_answers(name)
            try:
                credentials = self.credentials(settings)
            except ReqonError as error:
                raise error.locate(definition.name.span) from error
            made[name] = self.connections.client(settings, credentials, emit, wants)
        return made

    def credentials(self, settings: SourceSettings) -> Credentials | None:
        """What a source presents, from Python, the file, the mission or the environment.

        Raises:
            ConfigurationError: nothing found, or it does not fit; names the variable to set.
        """
        return credentials_for(settings, self._auth, self.environment, given=self.settings.auth, warn=self._warn)


def mission_directory(plan: Plan) -> Path:
    """The folder that a mission's own paths start from."""
    path = plan.program.path
    return path if path.is_dir() else path.parent
