"""Records, journals, sync checkpoints and leases in PostgreSQL, for several machines (`stateStore: postgres`).

All of it lies in a schema named `reqon` of the database that REQON_STATE_URL names (spec/state.md 10).

- Who runs a mission holds its lease, by the server's clock: 60 s, renewed while it runs (spec/reliability.md 2). Within
  one state directory locks decide, as ever: a killed process's mission goes on at once on its own machine.
- A record's `attempt` fences: once another machine has resumed an execution, nothing that its former owner still sends
  is written.
- A commit that must survive a power loss waits for the server's disk; progress does not (`synchronous_commit`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from reqon.clock import SYSTEM, wait_blocking
from reqon.errors import ConfigurationError, StateError
from reqon.secrets import SECRETS
from reqon.state.directory import LeaseLostError, StateDirectory, StateWriteError
from reqon.state.journal import DEFAULT_MAX_BYTES
from reqon.state.records import ExecutionRecord, to_json
from reqon.state.tables import Entry, Row, Session, TableBackend, row_of
from reqon.values import Value

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
log = logging.getLogger("reqon")

VARIABLE = "REQON_STATE_URL"
SCHEMA = "reqon"
RETRY_SECONDS = 8.0  # how long a connection that broke is tried again: a server that restarts is back by then
DOWN_SECONDS = 3.0  # how long a server that cannot be reached is not tried again
_CONNECT_SECONDS = 5
_STATEMENT_MILLISECONDS = 30_000
_MIGRATION_LOCK = 0x7265716F6E  # any number, the same for all of us
# One step for each layout, never changed once it was released.
_STEPS = (
    """
CREATE TABLE records (
    name text COLLATE "C" PRIMARY KEY, id text COLLATE "C" NOT NULL, mission text COLLATE "C" NOT NULL,
    begun text COLLATE "C" NOT NULL, status text NOT NULL, record bytea NOT NULL, attempt integer NOT NULL
);
CREATE INDEX records_by_id ON records (id);
CREATE INDEX records_by_time ON records (begun, id);
CREATE INDEX records_by_mission ON records (mission, begun, id);
CREATE INDEX records_by_status ON records (status, begun);
CREATE TABLE journal (
    name text COLLATE "C" NOT NULL, n bigint NOT NULL, kind text NOT NULL, fields bytea NOT NULL, body bytea,
    PRIMARY KEY (name, n)
);
CREATE TABLE sync (
    mission text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, last_sync text NOT NULL, items bigint NOT NULL,
    PRIMARY KEY (mission, key)
);
CREATE TABLE leases (mission text COLLATE "C" PRIMARY KEY, owner text NOT NULL, until timestamptz NOT NULL);
""",
)
LAYOUT = len(_STEPS)
_TAKE_LEASE = """
INSERT INTO leases (mission, owner, until) VALUES (?, ?, clock_timestamp() + ?::float8 * interval '1 second')
ON CONFLICT (mission) DO UPDATE SET owner = excluded.owner, until = excluded.until
WHERE leases.owner = excluded.owner OR leases.until <= clock_timestamp()
"""
_APPEND = """
INSERT INTO journal (name, n, kind, fields, body)
SELECT ?, e.n, e.kind, e.fields, e.body
FROM unnest(?::bigint[], ?::text[], ?::bytea[], ?::bytea[]) AS e (n, kind, fields, body)
WHERE EXISTS (SELECT FROM records WHERE name = ? AND attempt <= ?)
ON CONFLICT (name, n) DO NOTHING
"""


class _Session:
    """See `reqon.state.tables.Session`: its marks as the driver wants them."""

    def __init__(self, connection: "psycopg.Connection[Row]") -> None:
        self._connection = connection

    def execute(self, query: str, values: Sequence[Value] = (), /) -> Any:
        return self._connection.execute(_marked(query), list(values))

    def executemany(self, query: str, rows: Sequence[Sequence[Value]], /) -> object:
        cursor = self._connection.cursor()
        cursor.executemany(_marked(query), rows)
        return cursor


def _marked(query: str) -> bytes:
    return query.replace("?", "%s").encode()


class Database:
    """See `reqon.state.tables.Database`. A connection that broke is made again, for a few seconds.

    Raises:
        ConfigurationError: no driver, no URL, or one that cannot be read.
        StateWriteError: the server cannot be reached, or refuses.
    """

    def __init__(
        self, directory: StateDirectory, url: str | None, *, steps: tuple[str, ...] = _STEPS, schema: str = SCHEMA
    ) -> None:
        try:
            import psycopg  # noqa: PLC0415  # an extra, and 60 ms that nobody else need pay
            from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "stateStore: postgres needs the PostgreSQL driver",
                code="state-store",
                hint="pip install 'reqon[postgres]'",
            ) from None
        if not url:
            raise ConfigurationError(
                f"stateStore: postgres needs {VARIABLE}",
                code="state-store",
                hint=f"such as {VARIABLE}=postgresql://user:password@host:5432/database",
            )
        SECRETS.add(url)
        try:
            parts = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise ConfigurationError(f"{VARIABLE} is no URL of a PostgreSQL database", code="state-store") from None
        password = parts.get("password")
        if isinstance(password, str):
            SECRETS.add(password, quote(password))
        self.directory = directory
        self._psycopg = psycopg
        self._url = url
        self._parts = parts
        self._steps = steps
        self._schema = schema
        self._connection: psycopg.Connection[Row] | None = None
        self._lock = RLock()
        self._down: tuple[float, str] | None = None  # until when it is not tried again, and what was wrong
        self._connected = False  # ever: a server that was never there is told at once
        self._durable = True
        self._layout: int | None = None  # None: not looked at; 0: no tables

    @property
    def shown(self) -> str:
        host, port, name = (self._parts.get(key) for key in ("host", "port", "dbname"))
        return f"PostgreSQL {name or 'database'} at {host or 'the local socket'}" + (f":{port}" if port else "")

    @property
    def exists(self) -> bool:
        if not self._layout:
            self._retried(self._look)
        if self._layout and self._layout < len(self._steps):
            self._retried(self._bring_forward)
        return bool(self._layout)

    def layout(self) -> int:
        """The layout of the tables that are there, 0 if there are none."""
        self._retried(self._look)
        return self._layout or 0

    # --- the connection ---

    def _open(self) -> "psycopg.Connection[Row]":
        options: dict[str, Any] = {
            "connect_timeout": _CONNECT_SECONDS,
            "application_name": "reqon",
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        }
        for name in options.keys() & self._parts.keys():
            del options[name]  # the URL decides
        connection = self._psycopg.connect(self._url, autocommit=True, prepare_threshold=None, **options)
        connection.execute(f"SET search_path TO {self._schema}".encode())
        connection.execute(f"SET statement_timeout TO {_STATEMENT_MILLISECONDS:d}".encode())
        self._durable = True
        return connection

    def _look(self, connection: "psycopg.Connection[Row]") -> None:
        """Find out which layout the tables have.

        Raises:
            StateError: one that we do not know.
        """
        found = connection.execute("SELECT to_regclass(%s)", [f"{self._schema}.layout"]).fetchone()
        if found is None or found[0] is None:
            self._layout = 0
            return
        row = connection.execute(b"SELECT max(number) FROM layout").fetchone()
        number = int(row[0] or 0) if row is not None else 0
        if number > len(self._steps):
            raise StateError(
                f"a newer Reqon wrote {self.shown} (layout {number}, this one knows {len(self._steps)}); "
                "nothing was changed",
                code="newer-state",
                hint="use that version, or a newer one",
            )
        self._layout = number

    def _bring_forward(self, connection: "psycopg.Connection[Row]") -> None:
        """Take the steps that the tables lack, all or none, one machine at a time."""
        if self._layout == len(self._steps):
            return
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATION_LOCK])
            found = connection.execute("SELECT to_regnamespace(%s)", [self._schema]).fetchone()
            if found is None or found[0] is None:
                connection.execute(f"CREATE SCHEMA {self._schema}".encode())
            connection.execute(b"CREATE TABLE IF NOT EXISTS layout (number integer PRIMARY KEY)")
            self._look(connection)
            for number in range(self._layout or 0, len(self._steps)):
                connection.execute(self._steps[number].encode())
                connection.execute("INSERT INTO layout VALUES (%s)", [number + 1])
        self._layout = len(self._steps)

    def _retried(self, use: "Callable[[psycopg.Connection[Row]], T]") -> T:
        """What `use` answers; called again on a new connection where the old one broke."""
        with self._lock:
            give_up = SYSTEM.monotonic() + RETRY_SECONDS
            pause = 0.0
            if self._connection is None and self._down is not None and SYSTEM.monotonic() < self._down[0]:
                raise StateWriteError(self._down[1])  # whoever asks next need not wait for it too
            while True:
                try:
                    if self._connection is None:
                        self._connection = self._open()
                        self._connected, self._down = True, None
                    return use(self._connection)
                except self._psycopg.Error as error:
                    # What the server refuses leaves the connection as good as before.
                    broken = self._connection is None or self._connection.closed or self._connection.broken
                    if not (broken and self._connected) or SYSTEM.monotonic() + pause >= give_up:
                        failed = self._failed(error)
                        if broken:
                            self._down = (SYSTEM.monotonic() + DOWN_SECONDS, failed.message)
                        raise failed from error
                    self._drop()
                    if not pause:
                        log.warning("the connection to %s broke; trying again", self.shown)
                wait_blocking(pause)
                pause = min(2.0, pause * 2 or 0.05)

    def _failed(self, error: Exception) -> StateWriteError:
        self.directory.write_errors += 1
        reason = " ".join(str(error).split()) or type(error).__name__
        return StateWriteError(f"cannot use {self.shown}: {reason}", hint=f"see {VARIABLE}, and `reqon doctor`")

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(Exception):  # it is broken already
                self._connection.close()
            self._connection = None

    # --- using it ---

    def rows(self, query: str, *values: Value) -> list[Row]:
        return self._retried(lambda connection: _Session(connection).execute(query, values).fetchall())

    def change(self, body: Callable[[Session], T], *, durable: bool, single: bool = False) -> T:
        """See `reqon.state.tables.Database`."""

        def changed(connection: "psycopg.Connection[Row]") -> T:
            self._bring_forward(connection)
            if durable is not self._durable:
                connection.execute(b"SET synchronous_commit TO on" if durable else b"SET synchronous_commit TO off")
                self._durable = durable
            if single:
                return body(_Session(connection))
            with connection.transaction():
                return body(_Session(connection))

        return self._retried(changed)

    def close(self) -> None:
        with self._lock:
            self._drop()


class PostgresBackend(TableBackend):
    """See `reqon.state.backend.StateBackend`."""

    name = "postgres"
    leases = True

    def __init__(
        self,
        directory: StateDirectory,
        environment: Mapping[str, str],
        *,
        journal_max: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self._postgres = Database(directory, environment.get(VARIABLE))
        super().__init__(directory, self._postgres, journal_max=journal_max)

    def layout(self) -> int:
        """The layout of the tables that are there, 0 if there are none; nothing is made or brought forward."""
        return self._postgres.layout()

    def insert_record(self, session: Session, record: ExecutionRecord) -> bool:
        made = session.execute(
            "INSERT INTO records (name, id, mission, begun, status, record, attempt) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (*row_of(record), record.attempt),
        )
        return bool(made.rowcount)

    def update_record(self, session: Session, record: ExecutionRecord) -> None:
        changed = session.execute(
            "UPDATE records SET status = ?, record = ?, attempt = ? WHERE name = ? AND attempt <= ?",
            (record.status.value, to_json(record), record.attempt, record.file_name, record.attempt),
        )
        if not changed.rowcount:
            self._refuse_if_resumed(session, record)

    def insert_entries(self, session: Session, record: ExecutionRecord, entries: Sequence[Entry]) -> None:
        columns = [list(column) for column in zip(*entries, strict=True)]
        added = session.execute(_APPEND, (record.file_name, *columns, record.file_name, record.attempt))
        if added.rowcount != len(entries):
            self._refuse_if_resumed(session, record)  # else a commit whose answer was lost: they are there

    def _refuse_if_resumed(self, session: Session, record: ExecutionRecord) -> None:
        found = session.execute("SELECT attempt FROM records WHERE name = ?", (record.file_name,)).fetchone()
        if found is None or found[0] > record.attempt:
            what = "was deleted" if found is None else "was resumed elsewhere"
            raise LeaseLostError(f"{record.execution_id} of {record.mission} {what}: nothing more of this run is kept")

    def runs_elsewhere(self, record: ExecutionRecord) -> bool:
        if record.owner is None or record.owner.instance == self.directory.instance:
            return False
        query = "SELECT 1 FROM leases WHERE mission = ? AND owner = ? AND until > clock_timestamp()"
        return bool(self.database.rows(query, record.mission, record.owner.instance))

    def lease(self, mission: str, owner: str, ttl_seconds: float) -> bool:
        def take(session: Session) -> bool:
            if ttl_seconds > 0:
                return bool(session.execute(_TAKE_LEASE, (mission, owner, ttl_seconds)).rowcount)
            gone = "DELETE FROM leases WHERE mission = ? AND (owner = ? OR until <= clock_timestamp())"
            session.execute(gone, (mission, owner))
            return session.execute("SELECT 1 FROM leases WHERE mission = ?", (mission,)).fetchone() is None

        return self.database.change(take, durable=False, single=ttl_seconds > 0)
