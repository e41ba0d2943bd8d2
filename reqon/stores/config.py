"""Which store stands behind a mission's words: the store configuration (spec/runtime.md 9.6)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reqon.diagnostics import did_you_mean
from reqon.errors import ConfigurationError, ReqonError
from reqon.files import DISK
from reqon.http.auth import interpolate
from reqon.secrets import SECRETS, is_secret_variable
from reqon.values import Record, Value, decode

Entry = Mapping[str, Value]

_FILE_LIMIT = 1 << 20
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)|([A-Za-z_][A-Za-z0-9_]*))")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

LATER = ("mongodb", "redis", "dynamodb")
_WRITES = ("countChanges",)
# What an entry of each type, or the second argument in a mission, may say.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "memory": (),
    "file": ("dir", "pretty", "persist", "debounceMs"),
    "sqlite": ("url", *_WRITES),
    "postgres": ("url", "schema", *_WRITES),
    "mysql": ("url", *_WRITES),
    "postgrest": ("url", "apiKey", "headers", "primaryKey", "schema", "poolSize", "dataColumn", *_WRITES),
}
_BY_SCHEME = {
    "sqlite": "sqlite",
    "postgres": "postgres",
    "postgresql": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "http": "postgrest",
    "https": "postgrest",
}


@dataclass(frozen=True, slots=True)
class StoreConfiguration:
    """What `--store-config` or Python says of stores.

    Attributes:
        entries: by a store's own name, or by the adapter's word in missions.
        adapters: stores given as objects, by their names in missions.
        development_mode: whether `nosql` without an entry is a file.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    adapters: Mapping[str, object] = field(default_factory=dict)
    development_mode: bool = True


@dataclass(frozen=True, slots=True)
class ChosenStore:
    """One store, decided: its kind, the name of its table or file, its options. `stand_in`: for want of an entry."""

    kind: str
    identifier: str
    options: Record
    stand_in: bool = False

    def option(self, name: str, wanted: type, default: Any = None) -> Any:
        """An option's value.

        Raises:
            ConfigurationError: it is of another kind.
        """
        value = self.options.get(name)
        if value is None:
            return default
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            noun = {str: "a text", bool: "true or false", int: "a whole number", dict: "an object"}[wanted]
            raise ConfigurationError(f"option '{name}' of a {self.kind} store must be {noun}")
        return value


def load_store_config(path: Path, environment: Mapping[str, str]) -> Mapping[str, Entry]:
    """The entries of a `--store-config` file, its variables filled in, its secrets known from now on.

    Raises:
        ConfigurationError: it cannot be read, is no such object, or names an unset variable.
    """
    try:
        content = decode(DISK.read(path.resolve(strict=True), _FILE_LIMIT))
    except OSError as error:
        message = f"cannot read the store configuration {path}: {error.strerror}"
        raise ConfigurationError(message, hint="check the path and its rights") from error
    except ReqonError as error:
        raise ConfigurationError(f"the store configuration {path} cannot be used: {error.message}") from error
    return store_entries(content, environment, str(path))


def store_entries(content: Value, environment: Mapping[str, str], place: str) -> Mapping[str, Entry]:
    """The entries of a store configuration, plain or inside `{"stores": …}`.

    Raises:
        ConfigurationError: it is no such object, or names an unset variable.
    """
    where = "$"
    if isinstance(content, Mapping) and set(content) == {"stores"} and _is_wrapping(content["stores"]):
        content, where = content["stores"], "$.stores"
    if not _is_entries(content):
        raise ConfigurationError(
            f"{place} must be one JSON object of entries",
            hint='the form is { "sql": { "type": "postgres", "url": "${DATABASE_URL}" } }',
        )
    for name in _variables(content):
        if is_secret_variable(name):
            SECRETS.add(environment.get(name))
    entries: Mapping[str, Entry] = interpolate(content, environment, place, where)
    for entry in entries.values():
        remember_secrets(entry)
    return entries


def _is_entries(content: Value) -> bool:
    return isinstance(content, Mapping) and all(isinstance(entry, Mapping) for entry in content.values())


def _is_wrapping(content: Value) -> bool:
    """Whether what stands under `stores` holds entries, and is not the entry of a store of that name."""
    return isinstance(content, Mapping) and all(isinstance(entry, Mapping | list) for entry in content.values())


def _variables(value: Value) -> set[str]:
    if isinstance(value, str):
        return {bare or braced for braced, bare in _VARIABLE.findall(value)}
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return set().union(*map(_variables, inner))


def remember_secrets(entry: Value, name: str = "") -> None:
    """Tell the registry what must not be shown: keys, passwords, those inside of URLs, and secret headers."""
    if isinstance(entry, Mapping):
        for key, value in entry.items():
            if name == "headers":
                SECRETS.add_header(key)
                SECRETS.add(value if isinstance(value, str) else None)
            else:
                remember_secrets(value, key)
    elif isinstance(entry, list):
        for value in entry:
            remember_secrets(value, name)
    elif isinstance(entry, str):
        if is_secret_variable(_HUMP.sub("_", name)):
            SECRETS.add(entry)
        if "://" in entry:
            try:
                SECRETS.add(urlsplit(entry).password)
            except ValueError:
                SECRETS.add(entry)


def choose(
    word: str,
    store: str,
    identifier: str,
    options: Entry,
    configuration: StoreConfiguration,
    registered: Mapping[str, Any],
) -> ChosenStore:
    """What the store `store: word("identifier", { options })` of a mission is.

    Raises:
        ConfigurationError: there is no such type or option, or an entry is needed and missing.
    """
    known = configuration.entries
    entry = known.get(store)
    if entry is None:
        entry = known.get(word)
    if entry is None and word == "postgrest":
        entry = known.get("sql")
    merged = {**(entry or {}), **options}
    if word == "nosql" and entry is None and "type" not in options:
        return _nosql_file(store, identifier, merged, configuration)
    kind = merged.pop("type", None) or _usual(word, merged)
    if kind in LATER:
        raise ConfigurationError(
            f"store '{store}': this release has no {kind} stores", hint="use sql, or register an adapter of your own"
        )
    if kind not in OPTIONS and kind not in registered:
        names = (*OPTIONS, *registered)
        raise ConfigurationError(
            f"store '{store}': there is no type of store '{kind}'", hint=did_you_mean(str(kind), names, "types")
        )
    chosen = ChosenStore(str(kind), identifier, merged)
    _refuse_unknown(chosen)
    return chosen


def _usual(word: str, entry: Entry) -> str:
    """The type of an entry that names none."""
    scheme = str(entry.get("url", "")).partition(":")[0].partition("+")[0]
    if word == "sql":
        return _BY_SCHEME.get(scheme, "sqlite")
    if word == "nosql":
        raise ConfigurationError('the entry "nosql" of the store configuration needs a type', hint='"type": "file"')
    return word


def _nosql_file(store: str, identifier: str, options: Entry, configuration: StoreConfiguration) -> ChosenStore:
    if not configuration.development_mode:
        raise ConfigurationError(
            f"store '{store}' is nosql, and the store configuration has no entry for it",
            hint='with development_mode it would be a file; name one: { "nosql": { "type": "file" } }',
        )
    chosen = ChosenStore("file", identifier, dict(options), stand_in=True)
    _refuse_unknown(chosen)
    return chosen


def _refuse_unknown(chosen: ChosenStore) -> None:
    known = OPTIONS.get(chosen.kind)
    for name in chosen.options if known is not None else ():
        if name not in (known or ()):
            raise ConfigurationError(
                f"unknown option '{name}' for a {chosen.kind} store",
                hint=f"valid options: {', '.join(known)}" if known else "it takes none",
            )
