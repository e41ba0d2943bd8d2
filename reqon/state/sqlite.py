"""Records, journals and sync checkpoints in one `state.db` (`stateStore: sqlite`, spec/state.md 10).

WAL mode: a commit survives SIGKILL, and with `synchronous=FULL` a power loss too; what is quick commits with NORMAL.
Locks stay files of the state directory, since the kernel frees them with their owner and a database does not.
"""

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import TypeVar

from reqon.errors import StateError
from reqon.files import create_exclusive
from reqon.state.directory import StateDirectory, StateWriteError
from reqon.state.journal import DEFAULT_MAX_BYTES
from reqon.state.tables import Row, Session, TableBackend
from reqon.values import Value

T = TypeVar("T")

_WAIT_SECONDS = 30.0
# One step for each layout, never changed once it was released: a database is brought forward by those it lacks.
_STEPS = (
    """
CREATE TABLE IF NOT EXISTS records (
    name TEXT PRIMARY KEY, id TEXT NOT NULL, mission TEXT NOT NULL, begun TEXT NOT NULL, status TEXT NOT NULL,
    record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_id ON records (id);
CREATE INDEX IF NOT EXISTS records_by_time ON records (begun);
CREATE INDEX IF NOT EXISTS records_by_mission ON records (mission, begun);
CREATE INDEX IF NOT EXISTS records_by_status ON records (status, begun);
CREATE TABLE IF NOT EXISTS journal (
    name TEXT NOT NULL, n INTEGER NOT NULL, kind TEXT NOT NULL, fields BLOB NOT NULL, body BLOB, PRIMARY KEY (name, n)
);
CREATE TABLE IF NOT EXISTS sync (
    mission TEXT NOT NULL, key TEXT NOT NULL, last_sync TEXT NOT NULL, items INTEGER NOT NULL,
    PRIMARY KEY (mission, key)
);
""",
)
LAYOUT = len(_STEPS)


class Database:
    """See `reqon.state.tables.Database`.

    Raises:
        StateWriteError: the disk refused; StateError: the file is no database of ours.
    """

    def __init__(self, directory: StateDirectory, *, steps: tuple[str, ...] = _STEPS) -> None:
        self.directory = directory
        self._steps = steps
        self._connection: sqlite3.Connection | None = None
        self._lock = RLock()
        self._synchronous = ""

    @property
    def shown(self) -> str:
        return str(self.directory.database)

    @property
    def exists(self) -> bool:
        return self.directory.database.exists()

    def _open(self) -> sqlite3.Connection:
        path = self.directory.database
        if not _has_content(path):
            with self.directory.shared_lock(path):  # whoever makes it has written to it before the lock is free
                self._make(path)
                return self._connect(path)
        return self._connect(path)

    def _make(self, path: Path) -> None:
        """Make the file, unless somebody was quicker. An empty file, to SQLite a new database, is damage."""
        if _has_content(path):
            return
        if os.path.lexists(path):
            beside = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
            for one in filter(os.path.lexists, beside):
                if self.directory.quarantine(one, "is empty", kind="database") is None:
                    raise StateError(f"{path} is empty, and it cannot be moved to quarantine")
        create_exclusive(path)  # ours alone; the files beside it take its mode

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            self._bring_forward(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _bring_forward(self, connection: sqlite3.Connection) -> None:
        """Take the steps that the database lacks, each one whole or not at all."""
        latest = len(self._steps)
        while (layout := connection.execute("PRAGMA user_version").fetchone()[0]) < latest:
            # Whoever was quicker has taken the step when the lock is ours.
            taken = f"PRAGMA user_version={layout + 1:d};"
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] == layout:
                for statement in (self._steps[layout] + taken).split(";"):
                    connection.execute(statement)
            connection.execute("COMMIT")
        if layout > latest:
            raise StateError(
                f"a newer Reqon wrote {self.shown} (layout {layout}, this one knows {latest}); nothing was changed",
                code="newer-state",
                hint="use that version, or a newer one",
            )

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone, errors translated."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except sqlite3.OperationalError as error:
                self.directory.write_errors += 1
                raise StateWriteError(f"cannot use {self.shown}: {error}") from error
            except sqlite3.DatabaseError as error:
                hint = "move it away to begin without it; nothing writes over it"
                raise StateError(f"{self.shown} is damaged: {error}", hint=hint) from error

    @contextmanager
    def write(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """A transaction, all or nothing."""
        with self.use() as connection:
            wanted = "FULL" if durable else "NORMAL"
            if wanted != self._synchronous:
                connection.execute(f"PRAGMA synchronous={wanted}")
                self._synchronous = wanted
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def change(self, body: Callable[[Session], T], *, durable: bool, single: bool = False) -> T:  # noqa: ARG002  # no gain
        """See `reqon.state.tables.Database`."""
        with self.write(durable=durable) as connection:
            return body(connection)

    def rows(self, query: str, *values: Value) -> list[Row]:
        with self.use() as connection:
            return connection.execute(query, values).fetchall()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                self._synchronous = ""


class SqliteBackend(TableBackend):
    """See `reqon.state.backend.StateBackend`."""

    name = "sqlite"

    def __init__(self, directory: StateDirectory, *, journal_max: int = DEFAULT_MAX_BYTES) -> None:
        super().__init__(directory, Database(directory), journal_max=journal_max)


def _has_content(path: Path) -> bool:
    """Whether there is a file with something in it.

    Raises:
        StateError: something else than a file stands there.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise StateError(f"{path} is no regular file", hint="move it away to begin without it; nothing writes over it")
    return found.st_size > 0
