"""The databases behind `sql` stores: their drivers, types and connections (spec/runtime.md 9.6).

Imported only when a mission has such a store: SQLAlchemy takes 0.2 s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import VARBINARY
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.types import TypeDecorator

from reqon.errors import ConfigurationError
from reqon.secrets import SECRETS

CONNECT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the databases."""

    driver: str
    package: str
    extra: str
    longest_name: int
    schemas: bool = False


DIALECTS = {
    "sqlite": Dialect("sqlite+pysqlite", "sqlite3", "", 250),
    "postgres": Dialect("postgresql+psycopg", "psycopg", "postgres", 63, schemas=True),
    "mysql": Dialect("mysql+pymysql", "pymysql", "mysql", 64),
}


class PlainKey(TypeDecorator[str]):
    """A key as text; U+0000, which PostgreSQL has no place for, is written as U+001A 0, and U+001A twice."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:  # noqa: ARG002  # SQLAlchemy's
        return None if value is None else value.replace("\x1a", "\x1a\x1a").replace("\0", "\x1a0")

    def process_result_value(self, value: str | None, dialect: object) -> str | None:  # noqa: ARG002  # SQLAlchemy's
        if value is None or "\x1a" not in value:
            return value
        return "\x1a".join(part.replace("\x1a0", "\0") for part in value.split("\x1a\x1a"))


class BinaryKey(TypeDecorator[str]):
    """A key as its UTF-8 bytes: MariaDB's collations take keys for equal that are not, blanks at the end included."""

    impl = VARBINARY
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> bytes | None:  # noqa: ARG002  # SQLAlchemy's
        return None if value is None else value.encode()

    def process_result_value(self, value: bytes | None, dialect: object) -> str | None:  # noqa: ARG002  # SQLAlchemy's
        return None if value is None else bytes(value).decode()


def sql_url(kind: str, written: str | None, default: Path) -> URL:
    """Where a store's database is; its password is known as a secret from now on.

    Raises:
        ConfigurationError: the url is missing, unreadable, or of another kind of database.
    """
    if not written:
        if kind == "sqlite":
            return URL.create(DIALECTS[kind].driver, database=str(default))
        raise ConfigurationError(
            f"a {kind} store needs a url",
            hint=f'in the store configuration: {{ "type": "{kind}", "url": "{kind}://…" }}',
        )
    try:
        url = make_url(written)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(f"the url of the {kind} store cannot be read") from error
    SECRETS.add(url.password)
    names = {"sqlite": ("sqlite",), "postgres": ("postgres", "postgresql"), "mysql": ("mysql", "mariadb")}[kind]
    if url.get_backend_name() not in names:
        raise ConfigurationError(
            f"the url of a {kind} store begins with {names[-1]}://, not {url.drivername}://",
            hint=f'for another database write another "type": {", ".join(DIALECTS)}',
        )
    return url.set(drivername=DIALECTS[kind].driver)


def code_of(error: SQLAlchemyError) -> str | None:
    """The database's own code: SQLSTATE of PostgreSQL, number of MariaDB, name of SQLite."""
    original: Any = getattr(error, "orig", None)
    for name in ("sqlstate", "sqlite_errorname"):
        if code := getattr(original, name, None):
            return str(code)
    arguments = getattr(original, "args", ())
    return str(arguments[0]) if arguments and isinstance(arguments[0], int) else None


class Engines:
    """Connections by database, shared by all stores of this process."""

    def __init__(self) -> None:
        self._engines: dict[str, tuple[Engine, int]] = {}
        self._lock = Lock()

    def take(self, kind: str, url: URL) -> Engine:
        name = url.render_as_string(hide_password=False)
        with self._lock:
            engine, users = self._engines.get(name) or (_engine(kind, url), 0)
            self._engines[name] = engine, users + 1
            return engine

    def give_back(self, url: URL) -> None:
        name = url.render_as_string(hide_password=False)
        with self._lock:
            engine, users = self._engines.pop(name)
            if users > 1:
                self._engines[name] = engine, users - 1
                return
        engine.dispose()


ENGINES = Engines()


def _engine(kind: str, url: URL) -> Engine:
    options: dict[str, Mapping[str, Any]] = {
        "sqlite": {"connect_args": {"timeout": 30, "check_same_thread": False}, "isolation_level": "AUTOCOMMIT"},
        "postgres": {"connect_args": {"connect_timeout": CONNECT_SECONDS, "application_name": "reqon"}},
        "mysql": {
            "connect_args": {
                "connect_timeout": CONNECT_SECONDS,
                "charset": "utf8mb4",
                # Nothing is cut to fit, and no mode of the server's changes what our statements mean.
                "init_command": "SET SESSION sql_mode='STRICT_ALL_TABLES'",
            },
            "isolation_level": "READ COMMITTED",
        },
    }
    own: dict[str, Any] = dict(options[kind])
    engine = sa.create_engine(url, pool_pre_ping=kind != "sqlite", hide_parameters=True, **own)
    if kind == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
