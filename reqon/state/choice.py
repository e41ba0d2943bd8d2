"""Which state store each mission uses, remembered in `state-stores.json`; and all of them as one (spec/state.md 10)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from reqon.errors import ConfigurationError, ReqonError, StateError
from reqon.files import DamagedFileError
from reqon.state.backend import Journal, StateBackend, SyncCheckpoint
from reqon.state.custom import (
    BUILT_IN_STATE_STORES,
    CustomBackend,
    default_state_store,
    registered_state_stores,
)
from reqon.state.directory import StateDirectory
from reqon.state.file import FileBackend
from reqon.state.ids import execution_time
from reqon.state.journal import DEFAULT_MAX_BYTES
from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon.state.sqlite import SqliteBackend
from reqon.values import JsonError, Record, Value, decode, encode

if TYPE_CHECKING:
    from reqon.state.webhooks import WebhookShelf

T = TypeVar("T")
STATE_URL = "REQON_STATE_URL"


class StateStores:
    """All state stores that the missions of a state directory use, as one: see `reqon.state.backend.StateBackend`.

    Readers see every execution, wherever it is kept; a record is changed where it lies.

    Attributes:
        only: the one store that counts, whatever missions say (`--state-store`); None: each mission's own.
    """

    name = "all"

    def __init__(
        self,
        directory: StateDirectory,
        *,
        journal_max: int = DEFAULT_MAX_BYTES,
        only: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.directory = directory
        self.environment = environment  # where REQON_STATE_URL is looked up
        self.only = only
        self._journal_max = journal_max
        self._backends: dict[str, StateBackend] = {}
        self._remembered: dict[str, str] = {}

    # --- which one ---

    def choose(self, wanted: str | None = None, *, retention: bool = False) -> StateBackend:
        """The store that `stateStore: wanted` means; None: the mission says nothing.

        Raises:
            ConfigurationError: no such store, or it cannot do what the mission needs (`retention`: delete records).
        """
        backend = self.open(self.only or wanted or default_state_store())
        if isinstance(backend, CustomBackend):
            backend.check(retention=retention)
        return backend

    def of(self, mission: str, wanted: str | None = None) -> StateBackend:
        """The store for a mission's new executions, `wanted` as its `stateStore` says; it is remembered.

        A mission that changes its store takes its sync checkpoints along.

        Raises:
            ConfigurationError: no such store.
        """
        backend = self.choose(wanted)
        if self._remembered.get(mission) != backend.name:
            self._remember(mission, backend.name)
            self._remembered[mission] = backend.name
        return backend

    def open(self, name: str) -> StateBackend:
        """A store by its name.

        Raises:
            ConfigurationError: there is none of this name; or no REQON_STATE_URL, or no driver for it.
        """
        custom = registered_state_stores().get(name)
        known = self._backends.get(name)
        if known is not None and (not isinstance(known, CustomBackend) or (custom and known.wraps(custom))):
            return known
        made: StateBackend
        if custom is not None:
            made = CustomBackend(self.directory, custom, journal_max=self._journal_max)
        elif name == "file":
            made = FileBackend(self.directory, journal_max=self._journal_max)
        elif name == "sqlite":
            made = SqliteBackend(self.directory, journal_max=self._journal_max)
        elif name == "postgres":
            from reqon.state.postgres import PostgresBackend  # noqa: PLC0415  # only where it is used

            made = PostgresBackend(self.directory, self.environment, journal_max=self._journal_max)
        else:
            names = sorted({*BUILT_IN_STATE_STORES, *registered_state_stores()})
            raise ConfigurationError(
                f"there is no state store '{name}'",
                code="state-store",
                hint=f"known: {', '.join(names)}; your own is made known by set_state_store(store, name='{name}')",
            )
        self._backends[name] = made
        return made

    def names(self, *, set_aside: bool = True) -> list[str]:
        """The names of all stores that may hold something of ours, `file` first.

        What remembers them is moved to quarantine if it cannot be read, unless `set_aside` is False.

        Raises:
            StateError: the directory cannot be read.
        """
        names = dict.fromkeys(["file"])
        if self.directory.database.name in self.directory.names(self.directory.path):
            names["sqlite"] = None
        if self.environment.get(STATE_URL):
            names["postgres"] = None  # other machines' missions may be there
        for entry in self._read(set_aside=set_aside).values():
            names |= dict.fromkeys(_names(entry))
        names[default_state_store()] = None
        return list(names)

    def used(self) -> list[StateBackend]:
        """All that may hold something of ours, `file` first; one that this program does not know is told once."""
        if self.only is not None:
            return [self.open(self.only)]
        found = []
        for name in self.names():
            if name in registered_state_stores() or name in BUILT_IN_STATE_STORES:
                try:
                    found.append(self.open(name))
                except ConfigurationError as error:  # no URL, no driver: what lies elsewhere can be seen all the same
                    self.directory.warn_once(f"executions in the state store '{name}' are not seen: {error.message}")
            else:
                self.directory.warn_once(
                    f"some executions are kept in the state store '{name}', which only the program that "
                    "registers it can read"
                )
        return found

    def _tell_unseen(self, name: str, error: ReqonError) -> None:
        self.directory.warn_once(f"executions in the state store '{name}' are not seen: {error.message}")

    def shared(self) -> list[StateBackend]:
        """Those in use that other machines may share."""
        return [backend for backend in self.used() if backend.leases]

    def _remember(self, mission: str, name: str) -> None:
        known = self._read().get(mission)
        before = _names(known)[0] if known else "file"
        if before == name:
            return
        self._take_along(mission, before, name)
        path = self.directory.state_stores
        with self.directory.shared_lock(path):
            stores = self._read()
            earlier = [n for n in (_names(stores[mission]) if mission in stores else ["file"]) if n != name]
            stores[mission] = {"store": name, "before": earlier}
            if name == "postgres":
                stores[mission]["urlFrom"] = STATE_URL
            try:
                self.directory.disk.replace(path, encode(stores, pretty=True) + b"\n", "state-stores")
            except OSError as error:
                raise self.directory.write_error(path, error) from error

    def _take_along(self, mission: str, before: str, name: str) -> None:
        if before not in BUILT_IN_STATE_STORES and before not in registered_state_stores():
            return
        # A store without sync checkpoints has none to give, or cannot take any; nor has one whose URL is gone.
        with suppress(ConfigurationError):
            old, new = self.open(before).sync_checkpoints(mission), self.open(name)
            own = {key: entry for key, entry in old.items() if entry.mission == mission}
            if own and not new.sync_checkpoints(mission):
                new.put_sync(mission, own)

    def _read(self, *, set_aside: bool = True) -> dict[str, Record]:
        path = self.directory.state_stores
        try:
            value = decode(self.directory.disk.read(path))
            if isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values()):
                return value
            reason = "does not say which state store each mission uses"
        except FileNotFoundError:
            return {}
        except (JsonError, DamagedFileError) as error:
            reason = f"cannot be used: {error.message}"
        except PermissionError:
            reason = "may not be read"
        except OSError as error:
            raise StateError(f"cannot read {path}: {error.strerror}") from error
        if set_aside and self.directory.quarantine(path, reason, kind="state-stores") is None and path.exists():
            raise StateError(f"{path} {reason}, and it cannot be moved to quarantine")
        return {}

    def _holder(self, record: ExecutionRecord) -> StateBackend:
        """The store that a record lies in."""
        used = self.used()
        if len(used) > 1:
            for backend in used:
                if backend.load(record.execution_id) is not None:
                    return backend
            return self._current(record.mission)
        return used[0]

    def _current(self, mission: str) -> StateBackend:
        entry = self._read().get(mission)
        return self.open(self.only or (_names(entry)[0] if entry else default_state_store()))

    # --- records ---

    def create(self, record: ExecutionRecord) -> ExecutionRecord:
        return self._current(record.mission).create(record)

    def save(self, record: ExecutionRecord, *, durable: bool = True) -> None:
        self._holder(record).save(record, durable=durable)

    def load(self, execution_id: str) -> ExecutionRecord | None:
        found = self._asked(lambda backend: backend.load(execution_id))
        return next((record for record in found if record is not None), None)

    def _asked(self, ask: Callable[[StateBackend], T]) -> Iterator[T]:
        """What each store answers. One of several that cannot be reached is told of and hides none of the others."""
        used = self.used()
        for backend in used:
            try:
                answer = ask(backend)
            except StateError as error:
                if len(used) == 1 or backend.name == "file":
                    raise
                self._tell_unseen(backend.name, error)
            else:
                yield answer

    def _merged(
        self, ask: Callable[[StateBackend], Sequence[ExecutionRecord]], limit: int | None = None
    ) -> list[ExecutionRecord]:
        answers = list(self._asked(ask))
        if len(answers) == 1:
            return list(answers[0])
        found = [record for answer in answers for record in answer]
        found.sort(key=lambda record: record.started_at, reverse=True)
        return found[:limit]

    def list(
        self,
        mission: str | None = None,
        *,
        limit: int | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        status: ExecutionStatus | None = None,
    ) -> list[ExecutionRecord]:
        return self._merged(
            lambda backend: backend.list(mission, limit=limit, since=since, before=before, status=status), limit
        )

    def latest(self) -> Sequence[ExecutionRecord]:
        newest: dict[str, ExecutionRecord] = {}
        for record in self._merged(lambda backend: backend.latest()):
            newest.setdefault(record.mission, record)
        return [newest[mission] for mission in sorted(newest)]

    def orphans(self, mission: str | None = None) -> Sequence[ExecutionRecord]:
        return self._merged(lambda backend: backend.orphans(mission))

    def delete(self, record: ExecutionRecord) -> int:
        freed = self._holder(record).delete(record)
        shelf = self._webhooks()
        return freed if shelf is None else freed + shelf.remove(record.execution_id)

    def stored_bytes(self, record: ExecutionRecord) -> int:
        size = self._holder(record).stored_bytes(record)
        shelf = self._webhooks()
        return size if shelf is None else size + shelf.stored_bytes(record.execution_id)

    def _webhooks(self) -> "WebhookShelf | None":
        """What belongs to executions beside their records; None where nobody ever waited."""
        if not self.directory.webhooks.exists():
            return None
        from reqon.state.webhooks import WebhookShelf  # noqa: PLC0415  # few missions wait

        return WebhookShelf(self.directory)

    def journal(self, record: ExecutionRecord) -> Journal:
        return self._holder(record).journal(record)

    def forget_logs(self, *, limit: int = 1000) -> int:
        """Remove log lines whose record another machine deleted; how many executions that were. The oldest first.

        Where no store is shared, a record's lines go with it, and nothing is looked for.

        Raises:
            StateError: a store cannot be asked; nothing is removed on a guess.
        """
        if not self.shared():
            return 0
        used, gone = self.used(), 0
        ids = sorted({name.partition(".")[0] for name in self.directory.disk.list(self.directory.logs)})
        before = self.directory.clock.now() - timedelta(hours=1)
        for execution_id in ids[:limit]:
            began = execution_time(execution_id)
            if began is None or began > before or any(b.load(execution_id) is not None for b in used):
                continue
            lock = self.directory.execution_lock(execution_id)
            if lock.take():
                self.directory.remove_log(execution_id)
                lock.remove()
                gone += 1
        return gone

    # --- sync checkpoints ---

    def sync_checkpoints(self, mission: str) -> Mapping[str, SyncCheckpoint]:
        return self._current(mission).sync_checkpoints(mission)

    def put_sync(self, mission: str, changes: Mapping[str, SyncCheckpoint]) -> None:
        self._current(mission).put_sync(mission, changes)

    def clear_sync(self, key: str | None) -> int:
        return sum(backend.clear_sync(key) for backend in self.used())

    # --- leases ---

    @property
    def leases(self) -> bool:
        return bool(self.shared())

    def lease(self, mission: str, owner: str, ttl_seconds: float) -> bool:
        return self._current(mission).lease(mission, owner, ttl_seconds)

    def close(self) -> None:
        for backend in self._backends.values():
            backend.close()


def _names(entry: Value) -> list[str]:
    """The store that an entry names, then those that the mission used before."""
    earlier = entry.get("before")
    names = [entry.get("store"), *(earlier if isinstance(earlier, list) else ())]
    return [name for name in names if isinstance(name, str)] or ["file"]
