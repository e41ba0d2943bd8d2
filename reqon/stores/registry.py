"""Which adapter a store's words mean, and where its files lie (spec/runtime.md 9.5 to 9.7)."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from reqon.errors import ConfigurationError
from reqon.stores.base import LocalStore
from reqon.stores.file import FileStore, StoreFile
from reqon.stores.memory import MemoryStore
from reqon.values import Value

BUILT_IN_ADAPTERS = ("file", "memory", "nosql", "postgrest", "sql")
MAX_FILE_NAME = 200

# A user's own: called with the identifier and its entry of the store configuration, answers the adapter.
AdapterFactory = Callable[[str, Mapping[str, Value]], Any]

_registered: dict[str, AdapterFactory] = {}
_FILE_OPTIONS = ("dir", "pretty", "persist", "debounceMs")
_PERSIST = ("immediate", "batch", "debounce")


def register_store_adapter(name: str, factory: AdapterFactory) -> None:
    """Make `name("identifier")` a store of the user's own.

    Raises:
        ConfigurationError: the name is no identifier, or one of ours.
    """
    if name in BUILT_IN_ADAPTERS:
        raise ConfigurationError(f"the store adapter '{name}' is built in and cannot be replaced")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigurationError(f"'{name}' cannot be the name of a store adapter", hint="use letters, digits and _")
    _registered[name] = factory


def known_adapters() -> tuple[str, ...]:
    """The words that may stand in a store's declaration, sorted."""
    return tuple(sorted({*BUILT_IN_ADAPTERS, *_registered}))


def open_store(
    kind: str,
    identifier: str,
    options: Mapping[str, Value],
    *,
    directory: Path,
    mission_directory: Path,
    track: bool = False,
) -> LocalStore:
    """The store that `kind("identifier", { options })` declares, ready for use. Close it when the execution ends.

    A file that somebody else writes to is waited for, up to 30 s: not a call for an event loop.

    Files that name no `dir` lie in `directory`; a relative `dir` starts from `mission_directory`. With `track` a memory
    store keeps its changes for `take_changes`.

    Raises:
        ConfigurationError: an unknown kind or option, or an identifier that can be no file.
        StoreError: the file cannot be used (`operation` is init); it is left as it is.
    """
    if kind == "memory":
        _refuse_unknown(kind, options, ())
        return MemoryStore(identifier, track=track)
    if kind == "file":
        return _open_file(identifier, options, directory, mission_directory)
    if kind in _registered or kind in BUILT_IN_ADAPTERS:
        raise ConfigurationError(
            f"{kind} stores are not built yet: '{identifier}' cannot be opened", hint='use file("…") for now'
        )
    raise ConfigurationError(f"no store adapter named '{kind}'", hint=f"known: {', '.join(known_adapters())}")


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


def _open_file(identifier: str, options: Mapping[str, Value], directory: Path, mission_directory: Path) -> FileStore:
    _refuse_unknown("file", options, _FILE_OPTIONS)
    quarantine = directory.parent / "quarantine"
    if own := _option(options, "dir", str, ""):
        directory = mission_directory / own
    persist = _option(options, "persist", str, "batch")
    if persist not in _PERSIST:
        raise ConfigurationError(f"persist must be immediate, batch or debounce, not '{persist}'")
    _option(options, "debounceMs", int, 100)
    pretty = _option(options, "pretty", bool, True)
    # Links are followed here and nowhere else, so that two ways to one directory are one store.
    path = Path(os.path.realpath(directory)) / f"{file_name(identifier)}.json"
    with _sharing:
        shared = _shared.get(str(path))
        if shared is None:
            shared = _shared[str(path)] = _Shared(StoreFile(path, pretty=pretty, quarantine=quarantine))
        shared.users += 1
    try:
        with shared.lock:
            if not shared.opened:
                shared.file.open()
                shared.opened = True
    except BaseException:
        _forget(shared)
        raise
    return FileStore(
        identifier,
        shared.file,
        immediate=persist == "immediate",
        release=lambda: _release(shared),
        alone=lambda: shared.users == 1,
    )


def _release(shared: _Shared) -> None:
    with shared.lock:
        if _forget(shared):
            shared.file.close()
        else:
            shared.file.flush()


def _forget(shared: _Shared) -> bool:
    """One user less; whether that was the last."""
    with _sharing:
        shared.users -= 1
        if not shared.users:
            del _shared[str(shared.file.path)]
        return not shared.users


def _refuse_unknown(kind: str, options: Mapping[str, Value], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise ConfigurationError(
                f"unknown option '{name}' for a {kind} store",
                hint=f"valid options: {', '.join(known)}" if known else "it takes none",
            )


def _option(options: Mapping[str, Value], name: str, kind: type, default: Any) -> Any:
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        noun = {str: "a text", bool: "true or false", int: "a number of milliseconds"}[kind]
        raise ConfigurationError(f"option '{name}' of a file store must be {noun}")
    return value
