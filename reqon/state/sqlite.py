"""Records, journals and sync checkpoints in one `state.db` (`stateStore: sqlite`, spec/state.md 10).

WAL mode: a commit survives SIGKILL, and with `synchronous=FULL` a power loss too; what is quick commits with NORMAL.
Locks stay files of the state directory, since the kernel frees them with their owner and a database does not.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from threading import RLock

from reqon.clock import parse_rfc3339, rfc3339
from reqon.errors import StateError
from reqon.files import DamagedFileError, create_exclusive, lock_is_free
from reqon.state.backend import BodyRef, JournalEntry, SyncCheckpoint, last_place
from reqon.state.directory import StateDirectory, StateWriteError, safe_name
from reqon.state.ids import is_execution_id
from reqon.state.journal import DEFAULT_MAX_BYTES
from reqon.state.records import (
    ExecutionRecord,
    ExecutionStatus,
    NewerRecordError,
    as_interrupted,
    from_json,
    is_newer,
    to_json,
)
from reqon.values import OWN_DEPTH, Value, decode, encode

LAYOUT = 1
_RUNNING = ExecutionStatus.RUNNING
_WAIT_SECONDS = 30.0
_TABLES = """
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
"""


class Database:
    """One connection, for all threads of the process; opened when it is first used.

    Raises:
        StateWriteError: the disk refused; StateError: the file is no database of ours.
    """

    def __init__(self, directory: StateDirectory) -> None:
        self.directory = directory
        self._connection: sqlite3.Connection | None = None
        self._lock = RLock()
        self._synchronous = ""

    def _open(self) -> sqlite3.Connection:
        path = self.directory.database
        create_exclusive(path)  # ours alone; the files beside it take its mode
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            self._check_layout(connection.execute("PRAGMA user_version").fetchone()[0])
            connection.executescript(_TABLES)
            connection.execute(f"PRAGMA user_version={LAYOUT:d}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_layout(self, layout: int) -> None:
        if layout > LAYOUT:
            path = self.directory.database
            raise StateError(f"a newer Reqon wrote {path} (layout {layout}, this one knows {LAYOUT})")

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
                raise StateWriteError(f"cannot use {self.directory.database}: {error}") from error
            except sqlite3.DatabaseError as error:
                hint = "move it away to begin without it; nothing writes over it"
                raise StateError(f"{self.directory.database} is damaged: {error}", hint=hint) from error

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

    def rows(self, query: str, *values: Value) -> list[tuple[Value, ...]]:
        with self.use() as connection:
            return connection.execute(query, values).fetchall()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class SqliteBackend:
    """See `reqon.state.backend.StateBackend`."""

    name = "sqlite"

    def __init__(self, directory: StateDirectory, *, journal_max: int = DEFAULT_MAX_BYTES) -> None:
        self.directory = directory
        self._journal_max = journal_max
        self._database = Database(directory)

    # --- records ---

    def create(self, record: ExecutionRecord) -> ExecutionRecord:
        base = f"{safe_name(record.mission)}-{record.started_at.astimezone(UTC):%Y-%m-%dT%H-%M-%S}"
        with self._database.write(durable=True) as connection:
            for number in count(1):
                record = replace(record, file_name=base if number == 1 else f"{base}-{number}")
                row = (record.file_name, record.execution_id, record.mission, rfc3339(record.started_at))
                made = connection.execute(
                    "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?)",
                    (*row, record.status.value, to_json(record)),
                )
                if made.rowcount:
                    break
        return record

    def save(self, record: ExecutionRecord, *, durable: bool = True) -> None:
        self._refuse_newer(record)
        with self._database.write(durable=durable) as connection:
            connection.execute(
                "UPDATE records SET status = ?, record = ? WHERE name = ?",
                (record.status.value, to_json(record), record.file_name),
            )

    def load(self, execution_id: str) -> ExecutionRecord | None:
        if not is_execution_id(execution_id):
            return None
        found = self._read("SELECT name, record FROM records WHERE id = ?", execution_id)
        return next((self._shown(record) for record in found), None)

    def list(
        self,
        mission: str | None = None,
        *,
        limit: int | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        status: ExecutionStatus | None = None,
    ) -> list[ExecutionRecord]:
        tests, values = ["1"], list[Value]()
        for test, value in (
            ("mission = ?", mission),
            ("begun >= ?", since and rfc3339(since)),
            ("begun < ?", before and rfc3339(before)),
            ("status = ?", None if status is ExecutionStatus.INTERRUPTED else status and status.value),
        ):
            if value is not None:
                tests.append(test)
                values.append(value)
        if status is ExecutionStatus.INTERRUPTED:
            # A dead owner's record says `running` and counts as interrupted.
            tests.append("status IN ('running', 'interrupted')")
        query = f"SELECT name, record FROM records WHERE {' AND '.join(tests)} ORDER BY begun DESC, id DESC"  # noqa: S608  # fixed texts
        if limit is not None and status not in (_RUNNING, ExecutionStatus.INTERRUPTED):
            query += f" LIMIT {max(0, limit):d}"
        shown = (self._shown(record) for record in self._read(query, *values))
        found = [record for record in shown if status in (None, record.status)]
        return found if limit is None else found[: max(0, limit)]

    def latest(self) -> Sequence[ExecutionRecord]:
        query = "SELECT name, record, max(begun) FROM records GROUP BY mission ORDER BY mission"
        return [self._shown(record) for record in self._read(query)]

    def orphans(self, mission: str | None = None) -> Sequence[ExecutionRecord]:
        found = self._read("SELECT name, record FROM records WHERE status = 'running' ORDER BY begun DESC")
        return [r for r in found if mission in (None, r.mission) and not self._is_alive(r)]

    def delete(self, record: ExecutionRecord) -> int:
        self._refuse_newer(record)
        lock = self.directory.execution_lock(record.execution_id)
        if not lock.take():
            raise StateError(f"{record.execution_id} of {record.mission} is running", code="running")
        try:
            freed = self.stored_bytes(record)
            with self._database.write(durable=True) as connection:
                connection.execute("DELETE FROM journal WHERE name = ?", (record.file_name,))
                connection.execute("DELETE FROM records WHERE name = ?", (record.file_name,))
            lock.remove()
        finally:
            lock.release()
        return freed

    def stored_bytes(self, record: ExecutionRecord) -> int:
        ((size,),) = self._database.rows(
            "SELECT coalesce((SELECT length(record) FROM records WHERE name = ?1), 0) + "
            "coalesce((SELECT sum(length(fields) + coalesce(length(body), 0)) FROM journal WHERE name = ?1), 0)",
            record.file_name,
        )
        return int(size)

    def _read(self, query: str, *values: Value) -> Sequence[ExecutionRecord]:
        if not self.directory.database.exists():
            return []  # looking makes nothing
        records = []
        for name, data, *_ in self._database.rows(query, *values):
            try:
                records.append(from_json(data, file_name=name))
            except (DamagedFileError, NewerRecordError) as error:
                self.directory.warn_once(f"the record {name} in {self.directory.database} {error.message}")
        return records

    def _shown(self, record: ExecutionRecord) -> ExecutionRecord:
        if record.status is not _RUNNING or self._is_alive(record):
            return record
        # It may have ended between the two looks.
        again = self._read("SELECT name, record FROM records WHERE name = ?", record.file_name)
        record = again[0] if again else record
        if record.status is not _RUNNING:
            return record
        return as_interrupted(record, last_place(self.journal(record)))

    def _is_alive(self, record: ExecutionRecord) -> bool:
        return not lock_is_free(self.directory.execution_lock_path(record.execution_id))

    def _refuse_newer(self, record: ExecutionRecord) -> None:
        if is_newer(record):
            raise StateError(
                f"{record.execution_id} was written by Reqon {record.reqon_version} and is left as it is",
                hint="use that version, or a newer one",
            )

    def journal(self, record: ExecutionRecord) -> "SqliteJournal":
        return SqliteJournal(self._database, record.file_name, self._journal_max)

    # --- sync checkpoints ---

    def sync_checkpoints(self, mission: str) -> Mapping[str, SyncCheckpoint]:
        if not self.directory.database.exists():
            return {}
        rows = self._database.rows("SELECT key, last_sync, items FROM sync WHERE mission = ?", mission)
        return {key: SyncCheckpoint(parse_rfc3339(at), items, mission) for key, at, items in rows}

    def put_sync(self, mission: str, changes: Mapping[str, SyncCheckpoint]) -> None:
        now = self.directory.clock.now()
        rows = [(mission, key, rfc3339(min(c.last_sync, now)), c.items_synced) for key, c in changes.items()]
        with self._database.write(durable=True) as connection:
            connection.executemany(
                "INSERT INTO sync VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "last_sync = max(last_sync, excluded.last_sync), items = items + excluded.items",
                rows,
            )

    def clear_sync(self, key: str | None) -> int:
        with self._database.write(durable=True) as connection:
            if key is None:
                return connection.execute("DELETE FROM sync").rowcount
            query = "DELETE FROM sync WHERE key = ?1 OR mission || '/' || key = ?1"
            return connection.execute(query, (key,)).rowcount

    def close(self) -> None:
        self._database.close()


class SqliteJournal:
    """See `reqon.state.backend.Journal`. A reference's offset is the entry's number."""

    def __init__(self, database: Database, name: str, max_bytes: int) -> None:
        self._database = database
        self._name = name
        self._max_bytes = max_bytes
        self._buffer: list[tuple[str, int, str, bytes, bytes | None]] = []
        self._next = -1  # the number of the next entry; -1 until the table was looked at
        self._size = 0
        self._full = False
        self._dirty = False
        self._writing = RLock()

    def append(self, kind: str, fields: Mapping[str, Value], *, body: bytes | None = None) -> BodyRef | None:
        with self._writing:
            if self._next < 0:
                self._look()
            if self._full and kind != "action":
                return None
            data = encode(dict(fields))
            if self._size + len(data) + len(body or b"") > self._max_bytes and not self._full:
                self._full = True
                self._add("full", encode({"max": self._max_bytes}), None)
                if kind != "action":
                    return None
            if body is not None:
                body = body.replace(b"\r", b" ").replace(b"\n", b" ")
            return self._add(kind, data, body)

    def _add(self, kind: str, fields: bytes, body: bytes | None) -> BodyRef | None:
        number = self._next
        self._buffer.append((self._name, number, kind, fields, body))
        self._next += 1
        self._size += len(fields) + len(body or b"")
        return None if body is None else BodyRef(number, len(body))

    def _look(self) -> None:
        ((number, size, full),) = self._database.rows(
            "SELECT coalesce(max(n) + 1, 0), coalesce(sum(length(fields) + coalesce(length(body), 0)), 0), "
            "coalesce(max(kind = 'full'), 0) FROM journal WHERE name = ?",
            self._name,
        )
        self._next, self._size, self._full = number, size, bool(full)

    def write(self) -> None:
        self._commit(durable=False)

    def sync(self) -> None:
        self._commit(durable=True)

    def _commit(self, *, durable: bool) -> None:
        with self._writing:
            if self._buffer or (durable and self._dirty):
                with self._database.write(durable=durable) as connection:
                    connection.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?)", self._buffer)
                    if durable:
                        # A commit that changes nothing syncs nothing of what the quick ones left.
                        connection.execute("UPDATE journal SET kind = kind WHERE name = ? AND n = 0", (self._name,))
                self._dirty = not durable
                self._buffer.clear()

    def entries(self) -> Iterator[JournalEntry]:
        query = "SELECT n, kind, fields, length(body) FROM journal WHERE name = ? ORDER BY n"
        for row in self._database.rows(query, self._name) if self.exists else ():
            entry = _entry(*row)
            self._full = self._full or entry.kind == "full"
            yield entry

    def last(self, *kinds: str) -> JournalEntry | None:
        if not self.exists:
            return None
        marks = ", ".join("?" * len(kinds))
        query = (
            f"SELECT n, kind, fields, length(body) FROM journal WHERE name = ? AND kind IN ({marks}) "  # noqa: S608  # marks
            "ORDER BY n DESC LIMIT 1"
        )
        return next((_entry(*row) for row in self._database.rows(query, self._name, *kinds)), None)

    def read_body(self, ref: BodyRef) -> bytes:
        rows = self._database.rows("SELECT body FROM journal WHERE name = ? AND n = ?", self._name, ref.offset)
        if not rows or rows[0][0] is None:
            raise DamagedFileError(f"the journal of {self._name} has no entry {ref.offset}")
        return bytes(rows[0][0])

    @property
    def size(self) -> int:
        return self._size

    @property
    def exists(self) -> bool:
        if not self._database.directory.database.exists():
            return False
        return bool(self._database.rows("SELECT 1 FROM journal WHERE name = ? LIMIT 1", self._name))

    @property
    def full(self) -> bool:
        return self._full

    def close(self) -> None:
        self.write()

    def discard(self) -> None:
        with self._writing:
            self._buffer.clear()
            with self._database.write(durable=False) as connection:
                connection.execute("DELETE FROM journal WHERE name = ?", (self._name,))
            self._next, self._size, self._full, self._dirty = -1, 0, False, False


def _entry(number: int, kind: str, fields: bytes, length: int | None) -> JournalEntry:
    return JournalEntry(kind, decode(fields, depth=OWN_DEPTH), None if length is None else BodyRef(number, length))
