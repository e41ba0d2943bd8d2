"""Which adapter a store's words mean, and where its files lie (spec/runtime.md 9.5 to 9.7)."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from reqon.errors import ConfigurationError
from reqon.files import DISK, FileSystem
from reqon.stores.adapter import Adapter
from reqon.stores.base import LocalStore
from reqon.stores.config import ChosenStore, StoreConfiguration, choose
from reqon.stores.file import FileStore
from reqon.stores.lines import last_number
from reqon.stores.memory import MemoryStore
from reqon.stores.remote import RemoteStore
from reqon.stores.store_file import StoreFile
from reqon.values import Value, decode

if TYPE_CHECKING:
    from reqon.http.connections import Connections

log = logging.getLogger("reqon")

BUILT_IN_ADAPTERS = ("file", "memory", "nosql", "postgrest", "sql")
MAX_FILE_NAME = 200
_EVERYTHING = 1 << 62

# A user's own: called with the identifier and its entry of the store configuration, answers the adapter.
AdapterFactory = Callable[[str, Mapping[str, Value]], Any]

_NONE = StoreConfiguration()
DRIVERS = {
    "postgres": ("psycopg", "postgres"),
    "mysql": ("pymysql", "mysql"),
}  # the package, and our extra that brings it
REGISTERED: dict[str, AdapterFactory] = {}
_registered = REGISTERED
_PERSIST = ("immediate", "batch", "debounce")


def register_store_adapter(name: str, factory: AdapterFactory) -> None:
    """Make `name("identifier")` a store of the user's own.

    Raises:
        ConfigurationError: the name is no identifier, or one of ours.
    """
    check_adapter_name(name)
    _registered[name] = factory


def check_adapter_name(name: str) -> None:
    """Refuse a name that no adapter of a user's own can have.

    Raises:
        ConfigurationError: it is no identifier, or one of ours.
    """
    if name in BUILT_IN_ADAPTERS:
        raise ConfigurationError(f"the store adapter '{name}' is built in and cannot be replaced")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigurationError(f"'{name}' cannot be the name of a store adapter", hint="use letters, digits and _")


def known_adapters() -> tuple[str, ...]:
    """The words that may stand in a store's declaration, sorted."""
    return tuple(sorted({*BUILT_IN_ADAPTERS, *_registered}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where stores lie: files that name no `dir` in `directory`; a relative `dir` starts from the mission's."""

    directory: Path
    mission_directory: Path

    @property
    def database(self) -> Path:
        """The SQLite file of `sql` stores that name no other."""
        return self.directory / "sql.db"


def chosen_store(
    word: str,
    identifier: str,
    options: Mapping[str, Value],
    *,
    store: str = "",
    configuration: StoreConfiguration = _NONE,
    adapters: Mapping[str, AdapterFactory] = REGISTERED,
) -> ChosenStore:
    """What `store: word("identifier", { options })` is, its options checked; nothing is opened.

    Raises:
        ConfigurationError: an unknown type or option, a missing driver, or an identifier that can be no file or table.
    """
    known = (*BUILT_IN_ADAPTERS, *adapters)
    if word not in known:
        raise ConfigurationError(f"no store adapter named '{word}'", hint=f"known: {', '.join(sorted(known))}")
    chosen = choose(word, store or identifier, identifier, options, configuration, adapters)
    if chosen.kind in DRIVERS:
        driver, extra = DRIVERS[chosen.kind]
        if find_spec(driver) is None:
            raise ConfigurationError(
                f"{chosen.kind} stores need the package {driver}", hint=f"pip install 'reqon[{extra}]'"
            )
    return chosen


def open_store(
    kind: str,
    identifier: str,
    options: Mapping[str, Value],
    *,
    directory: Path,
    mission_directory: Path,
    track: bool = False,
    store: str = "",
    configuration: StoreConfiguration = _NONE,
    connections: "Connections | None" = None,
    adapters: Mapping[str, AdapterFactory] = REGISTERED,
    disk: FileSystem = DISK,
    settle: bool = True,
    by: str = "",
) -> LocalStore:
    """The store that `kind("identifier", { options })` declares. Close it when the execution ends.

    A file that somebody else writes to is waited for, up to 30 s: not a call for an event loop. A `RemoteStore` is
    still to be opened. Without `settle` a file store waits for its `settle`; `by` is the execution it is opened for.
    With `track` a memory store keeps its writes for `take_entries`.

    Raises:
        ConfigurationError: an unknown kind or option, or an identifier that can be no file or table.
        StoreError: the file cannot be used (`operation` is init); it is left as it is.
    """
    if (adapter := configuration.adapters.get(store)) is not None:
        return RemoteStore(identifier, "custom", Adapter(store, adapter, borrowed=True))
    chosen = chosen_store(kind, identifier, options, store=store, configuration=configuration, adapters=adapters)
    places = Places(directory=directory, mission_directory=mission_directory)
    if chosen.kind == "memory":
        return MemoryStore(identifier, track=track)
    if chosen.kind == "file":
        if chosen.stand_in:
            _warn_stand_in(store, identifier)
        return _open_file(chosen, places, disk, settle=settle, by=by)
    counted = chosen.option("countChanges", bool, True)
    if chosen.kind in adapters:
        made = Adapter(
            identifier,
            make=adapters[chosen.kind],
            arguments=(identifier, dict(chosen.options)),
            counts_changes=counted,
        )
    else:
        made = Adapter(identifier, _built(chosen, places, counted, connections), counts_changes=counted)
    return RemoteStore(identifier, chosen.kind, made)


def _built(chosen: ChosenStore, places: Places, counted: bool, connections: "Connections | None") -> object:
    """An adapter of ours, not connected yet."""
    if chosen.kind == "postgrest":
        from reqon.stores.postgrest import PostgrestAdapter  # noqa: PLC0415  # with its client

        return PostgrestAdapter.of(chosen, connections)
    from reqon.stores.databases import sql_url  # noqa: PLC0415  # SQLAlchemy takes 0.2 s to import
    from reqon.stores.sql import SqlAdapter  # noqa: PLC0415  # as above

    url = sql_url(chosen.kind, chosen.option("url", str), places.database)
    return SqlAdapter(chosen.kind, chosen.identifier, url, schema=chosen.option("schema", str), blind=not counted)


_warned: set[str] = set()


def _warn_stand_in(store: str, identifier: str) -> None:
    if identifier not in _warned:
        _warned.add(identifier)
        log.warning(
            "store '%s' is nosql(\"%s\") without an entry in the store configuration: a file stands in for it",
            store or identifier,
            identifier,
        )


def written_position(chosen: ChosenStore | None, places: Places) -> int:
    """What `LocalStore.position` would answer once the store is open, found without opening it; see `open_store`.

    Stores that keep no log of their own, those given in Python (None) among them, hold what they were told.
    """
    if chosen is None or chosen.kind != "file":
        return _EVERYTHING
    return last_number(file_of(chosen, places))


def file_of(chosen: ChosenStore, places: Places) -> Path:
    """Where a file store lies."""
    own = chosen.option("dir", str, "")
    return _path_of(chosen.identifier, places.mission_directory / own if own else places.directory)


def file_name(identifier: str) -> str:
    """The stem of the files of a store: what could mean something to a file system is written %XX.

    Raises:
        ConfigurationError: it is empty, or too long.
    """
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else _escaped(c) for c in identifier)
    if name.startswith("."):
        name = "%2E" + name[1:]
    if not name:
        raise ConfigurationError("a file store needs a name", hint='as in file("orders")')
    if len(name) > MAX_FILE_NAME:
        raise ConfigurationError(
            f"the name of the file store '{identifier[:40]}…' takes {len(name)} characters, "
            f"the limit is {MAX_FILE_NAME}"
        )
    return name


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Shared:
    file: StoreFile
    users: int = 0
    opened: bool = False
    lock: Lock = field(default_factory=Lock)


_shared: dict[str, _Shared] = {}
_sharing = Lock()


PEEK_LIMIT = 64 * 1024 * 1024


def peek_store(chosen: ChosenStore, places: Places) -> MemoryStore | None:
    """A copy of what a local store holds, for a dry run; None: nobody knows without asking, or it is too large.

    Takes no lock, makes and changes nothing.

    Raises:
        ConfigurationError, StoreError: a run could not open it.
    """
    if chosen.kind == "memory":
        return MemoryStore(chosen.identifier)
    if chosen.kind != "file":
        return None
    path, _, _ = _file_options(chosen, places)
    if sum(file.stat().st_size for file in (path, path.with_suffix(".log")) if file.exists()) > PEEK_LIMIT:
        return None
    copy = MemoryStore(chosen.identifier)
    copy.put_many([(key, decode(data)) for key, data in StoreFile(path).peek().items()])
    return copy


def _file_options(chosen: ChosenStore, places: Places) -> tuple[Path, str, bool]:
    """Where a file store lies, its `persist` and its `pretty`."""
    persist = chosen.option("persist", str, "batch")
    if persist not in _PERSIST:
        raise ConfigurationError(f"persist must be immediate, batch or debounce, not '{persist}'")
    chosen.option("debounceMs", int, 100)
    return file_of(chosen, places), persist, chosen.option("pretty", bool, True)


def _open_file(chosen: ChosenStore, places: Places, disk: FileSystem, *, settle: bool, by: str) -> FileStore:
    path, persist, pretty = _file_options(chosen, places)
    quarantine = places.directory.parent / "quarantine"
    with _sharing:
        shared = _shared.get(str(path))
        if shared is None:
            shared = _shared[str(path)] = _Shared(StoreFile(path, pretty=pretty, quarantine=quarantine, disk=disk))
        shared.users += 1
        shared.file.shared = shared.file.shared or shared.users > 1
    try:
        with shared.lock:
            if not shared.opened:
                shared.file.open(settle=settle, by=by)
                shared.opened = True
    except BaseException:
        _forget(shared)
        raise
    return FileStore(
        chosen.identifier,
        shared.file,
        immediate=persist == "immediate",
        release=lambda keep=False: _release(shared, keep=keep),
        alone=lambda: shared.users == 1,
    )


def _path_of(identifier: str, directory: Path) -> Path:
    # Links are followed here and nowhere else, so that two ways to one directory are one store.
    return Path(os.path.realpath(directory)) / f"{file_name(identifier)}.json"


def _release(shared: _Shared, *, keep: bool) -> None:
    with shared.lock:
        if _forget(shared):
            shared.file.close(keep=keep)
        else:
            shared.file.flush()


def _forget(shared: _Shared) -> bool:
    """One user less; whether that was the last."""
    with _sharing:
        shared.users -= 1
        if not shared.users:
            del _shared[str(shared.file.path)]
        return not shared.users
