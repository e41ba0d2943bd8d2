"""Records, journals and sync checkpoints as rows of a database: what `sqlite` and `postgres` have in common.

The statements are plain SQL that both understand, with `?` for values. What differs is how a database is opened, how a
commit is made durable, and who tells whether an owner lives: see `Database`, and the hooks of `TableBackend`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from threading import RLock
from typing import Any, Protocol, TypeVar
from zlib import crc32

from reqon.clock import parse_rfc3339, rfc3339
from reqon.errors import StateError
from reqon.files import DamagedFileError, lock_is_free
from reqon.state.backend import BodyRef, JournalEntry, SyncCheckpoint, last_place
from reqon.state.compaction import PASSING, is_worth_it, superseded
from reqon.state.directory import StateDirectory, safe_name
from reqon.state.ids import is_execution_id
from reqon.state.numbered import NumberedJournal
from reqon.state.records import (
    ExecutionRecord,
    ExecutionStatus,
    NewerRecordError,
    as_interrupted,
    as_seen,
    from_json,
    is_newer,
    to_json,
)
from reqon.values import OWN_DEPTH, JsonError, Value, decode

T = TypeVar("T")
Row = tuple[Any, ...]
Entry = tuple[int, str, bytes, bytes | None]  # number, kind, fields, body
_RUNNING, _INTERRUPTED = ExecutionStatus.RUNNING, ExecutionStatus.INTERRUPTED

# Each mission's newest row, found along the index: as quick with a hundred thousand records as with ten.
_LATEST = """
WITH RECURSIVE names (mission) AS (
    SELECT min(mission) FROM records
    UNION ALL
    SELECT (SELECT min(r.mission) FROM records AS r WHERE r.mission > names.mission)
    FROM names WHERE names.mission IS NOT NULL
)
SELECT r.name, r.record, r.mission FROM names JOIN records AS r ON r.mission = names.mission
WHERE r.begun = (SELECT max(n.begun) FROM records AS n WHERE n.mission = names.mission) ORDER BY r.mission, r.id DESC
"""
_BYTES = (
    "SELECT coalesce((SELECT length(record) FROM records WHERE name = ?), 0) + "
    "coalesce((SELECT sum(length(fields) + coalesce(length(body), 0)) FROM journal WHERE name = ?), 0)"
)
_JOURNAL_END = (
    "SELECT coalesce(max(n) + 1, 0), coalesce(sum(length(fields) + coalesce(length(body), 0)), 0), "
    "coalesce(max(CASE WHEN kind = 'full' THEN 1 ELSE 0 END), 0) FROM journal WHERE name = ?"
)
_PUT_SYNC = (
    "INSERT INTO sync (mission, key, last_sync, items) VALUES (?, ?, ?, ?) ON CONFLICT (mission, key) DO UPDATE SET "
    "last_sync = excluded.last_sync, items = excluded.items"
)


class Session(Protocol):
    """A transaction that is open."""

    def execute(self, query: str, values: Sequence[Value] = (), /) -> Any:
        """The cursor: `rowcount`, `fetchone()`, `fetchall()`."""

    def executemany(self, query: str, rows: Sequence[Sequence[Value]], /) -> object: ...


class Database(Protocol):
    """One connection for all threads of the process, opened when it is first used.

    Raises:
        StateWriteError: it refused or cannot be reached; StateError: it holds something else, or a newer layout.
    """

    @property
    def shown(self) -> str:
        """What messages call it; no secret."""

    @property
    def exists(self) -> bool:
        """Whether our tables are there. Looking makes nothing."""

    def rows(self, query: str, *values: Value) -> list[Row]: ...

    def change(self, body: Callable[[Session], T], *, durable: bool, single: bool = False) -> T:
        """What `body` answers, all of it done or nothing. `body` may be called again when a connection broke.

        `single`: it is one statement, which needs no transaction around it. Not durable: survives SIGKILL only.
        """

    def close(self) -> None: ...


class TableBackend:
    """See `reqon.state.backend.StateBackend`."""

    name = "tables"
    leases = False

    def __init__(self, directory: StateDirectory, database: Database, *, journal_max: int) -> None:
        self.directory = directory
        self.database = database
        self._journal_max = journal_max
        self._adding = RLock()

    # --- what a database may do in its own way ---

    def insert_record(self, session: Session, record: ExecutionRecord) -> bool:
        """Add its row; False if the name is taken."""
        made = session.execute(
            "INSERT INTO records (name, id, mission, begun, status, record) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            row_of(record),
        )
        return bool(made.rowcount)

    def update_record(self, session: Session, record: ExecutionRecord) -> None:
        session.execute(
            "UPDATE records SET status = ?, record = ? WHERE name = ?",
            (record.status.value, to_json(record), record.file_name),
        )

    def insert_entries(self, session: Session, record: ExecutionRecord, entries: Sequence[Entry]) -> None:
        session.executemany(
            "INSERT INTO journal (name, n, kind, fields, body) VALUES (?, ?, ?, ?, ?)",
            [(record.file_name, *entry) for entry in entries],
        )

    def runs_elsewhere(self, record: ExecutionRecord) -> bool:  # noqa: ARG002  # where there is no elsewhere
        """Whether its owner lives, though nobody on this machine holds the execution's lock."""
        return False

    def lease(self, mission: str, owner: str, ttl_seconds: float) -> bool:  # noqa: ARG002  # locks decide
        """See `StateBackend.lease`."""
        return True

    # --- records ---

    def create(self, record: ExecutionRecord) -> ExecutionRecord:
        base = f"{safe_name(record.mission)}-{record.started_at.astimezone(UTC):%Y-%m-%dT%H-%M-%S}"

        def insert(session: Session) -> ExecutionRecord:
            for number in count(1):
                named = replace(record, file_name=base if number == 1 else f"{base}-{number}")
                if self.insert_record(session, named):
                    return named
                # A commit whose answer was lost: it is ours already.
                (taken_by,) = session.execute("SELECT id FROM records WHERE name = ?", (named.file_name,)).fetchone()
                if taken_by == record.execution_id:
                    return named
            raise AssertionError("unreachable")

        return self.database.change(insert, durable=True)

    def save(self, record: ExecutionRecord, *, durable: bool = True) -> None:
        self._refuse_newer(record)
        self.database.change(lambda session: self.update_record(session, record), durable=durable, single=True)

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
        tests, values = ["1 = 1"], list[Value]()
        for test, value in (
            ("mission = ?", mission),
            ("begun >= ?", since and rfc3339(since)),
            ("begun < ?", before and rfc3339(before)),
            ("status = ?", None if status is _INTERRUPTED else status and status.value),
        ):
            if value is not None:
                tests.append(test)
                values.append(value)
        if status is _INTERRUPTED:
            # A dead owner's record says `running` and counts as interrupted.
            tests.append("status IN ('running', 'interrupted')")
        query = f"SELECT name, record FROM records WHERE {' AND '.join(tests)} ORDER BY begun DESC, id DESC"  # noqa: S608  # fixed texts
        if limit is not None and status not in (_RUNNING, _INTERRUPTED):
            return [self._shown(record) for record in self._first(max(0, limit), query, *values)]
        shown = (self._shown(record) for record in self._read(query, *values))
        found = [record for record in shown if status in (None, record.status)]
        return found if limit is None else found[: max(0, limit)]

    def _first(self, limit: int, query: str, *values: Value) -> Sequence[ExecutionRecord]:
        """The first good records of a query: a damaged one hides none behind it."""
        found: list[ExecutionRecord] = []
        looked = 0
        while len(found) < limit and self.database.exists:
            wanted = limit - len(found)
            rows = self.database.rows(f"{query} LIMIT {wanted:d} OFFSET {looked:d}", *values)
            found += self._good(rows)
            looked += len(rows)
            if len(rows) < wanted:
                break
        return found

    def latest(self) -> Sequence[ExecutionRecord]:
        if not self.database.exists:
            return []
        newest: dict[str, ExecutionRecord] = {}
        rows = self.database.rows(_LATEST)
        for record in self._good(rows):
            newest.setdefault(record.mission, record)
        damaged = [mission for _, _, mission in rows if mission not in newest]
        newest |= {mission: record for mission in damaged for record in self.list(mission, limit=1)}
        return [self._shown(newest[mission]) for mission in sorted(newest)]

    def orphans(self, mission: str | None = None) -> Sequence[ExecutionRecord]:
        found = self._read("SELECT name, record FROM records WHERE status = 'running' ORDER BY begun DESC")
        return [r for r in found if mission in (None, r.mission) and not self._is_alive(r)]

    def delete(self, record: ExecutionRecord) -> int:
        self._refuse_newer(record)
        lock = self.directory.execution_lock(record.execution_id)
        if not lock.take():
            raise StateError(f"{record.execution_id} of {record.mission} is running", code="running")
        try:
            if record.status is _RUNNING and self.runs_elsewhere(record):
                raise StateError(f"{record.execution_id} of {record.mission} is running elsewhere", code="running")
            freed = self.stored_bytes(record)

            def remove(session: Session) -> None:
                session.execute("DELETE FROM journal WHERE name = ?", (record.file_name,))
                session.execute("DELETE FROM records WHERE name = ?", (record.file_name,))

            self.directory.remove_log(record.execution_id)
            self.database.change(remove, durable=True)
            lock.remove()
        finally:
            lock.release()
        return freed

    def stored_bytes(self, record: ExecutionRecord) -> int:
        ((size,),) = self.database.rows(_BYTES, record.file_name, record.file_name)
        return int(size) + self.directory.log_bytes(record.execution_id)

    def _read(self, query: str, *values: Value) -> Sequence[ExecutionRecord]:
        # Looking makes nothing.
        return self._good(self.database.rows(query, *values)) if self.database.exists else []

    def _good(self, rows: Sequence[Row]) -> Sequence[ExecutionRecord]:
        """The records of rows that begin with name and content; a damaged one is told of and stays where it is."""
        records = []
        for name, data, *_ in rows:
            try:
                records.append(from_json(data, file_name=name))
            except (DamagedFileError, NewerRecordError) as error:
                self.directory.warn_once(f"the record {name} in {self.database.shown} {error.message}")
        return records

    def _shown(self, record: ExecutionRecord) -> ExecutionRecord:
        if record.status is not _RUNNING:
            return record
        if self._is_alive(record):
            return as_seen(record, last_place(self.journal(record)))
        # It may have ended between the two looks.
        again = self._read("SELECT name, record FROM records WHERE name = ?", record.file_name)
        record = again[0] if again else record
        if record.status is not _RUNNING:
            return record
        return as_interrupted(record, last_place(self.journal(record)))

    def _is_alive(self, record: ExecutionRecord) -> bool:
        path = self.directory.execution_lock_path(record.execution_id)
        return not lock_is_free(path) or self.runs_elsewhere(record)

    def _refuse_newer(self, record: ExecutionRecord) -> None:
        if is_newer(record):
            raise StateError(
                f"{record.execution_id} was written by Reqon {record.reqon_version} and is left as it is",
                hint="use that version, or a newer one",
            )

    def journal(self, record: ExecutionRecord) -> "TableJournal":
        return TableJournal(self, record, self._journal_max)

    # --- sync checkpoints ---

    def sync_checkpoints(self, mission: str) -> Mapping[str, SyncCheckpoint]:
        if not self.database.exists:
            return {}
        rows = self.database.rows("SELECT key, last_sync, items FROM sync WHERE mission = ?", mission)
        return {key: self._sync_checkpoint(mission, key, at, items) for key, at, items in rows}

    def _sync_checkpoint(self, mission: str, key: str, at: Value, items: Value) -> SyncCheckpoint:
        try:
            if not isinstance(items, int):
                raise TypeError  # noqa: TRY301  # one fault among others
            return SyncCheckpoint(parse_rfc3339(at), items, mission)
        except (TypeError, AttributeError, ValueError, OverflowError):
            raise DamagedFileError(
                f"the sync checkpoint {key!r} of {mission} in {self.database.shown} cannot be used: it has no time, or "
                "a wrong number of items. Without it nobody knows what is synced",
                hint=f"mend it, or ask for a full sync: clear_sync_checkpoint({key!r})",
            ) from None

    def put_sync(self, mission: str, changes: Mapping[str, SyncCheckpoint]) -> None:
        now = self.directory.clock.now()
        with self._adding:
            # Sums are made here, so that a change that is repeated adds nothing. Only one process runs a mission.
            before = self.sync_checkpoints(mission)
            rows = []
            for key, change in changes.items():
                known = before.get(key)
                at = min(change.last_sync, now)
                items = change.items_synced + (known.items_synced if known else 0)
                rows.append((mission, key, rfc3339(max(at, known.last_sync) if known else at), items))
            self.database.change(lambda session: session.executemany(_PUT_SYNC, rows), durable=True)

    def clear_sync(self, key: str | None) -> int:
        if not self.database.exists:
            return 0

        def clear(session: Session) -> int:
            if key is None:
                return int(session.execute("DELETE FROM sync").rowcount)
            query = "DELETE FROM sync WHERE key = ? OR mission || '/' || key = ?"
            return int(session.execute(query, (key, key)).rowcount)

        return self.database.change(clear, durable=True, single=True)

    def close(self) -> None:
        self.database.close()


def row_of(record: ExecutionRecord) -> tuple[Value, ...]:
    """The columns that every database has: name, id, mission, begun, status, record."""
    about = (record.file_name, record.execution_id, record.mission, rfc3339(record.started_at))
    return (*about, record.status.value, to_json(record))


class TableJournal(NumberedJournal):
    """See `reqon.state.backend.Journal`. A reference's offset is the entry's number."""

    def __init__(self, backend: TableBackend, record: ExecutionRecord, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._backend = backend
        self._database = backend.database
        self._record = record
        self._name = record.file_name
        self._buffer: list[Entry] = []
        self._dirty = False
        self._passing = 0  # bytes of entries that later ones may have superseded
        self._sums: dict[int, bytes] = {}  # of bodies, by the number of their entry
        self._damaged: int | None = None  # the entry from which on nothing counts

    def _add(self, kind: str, fields: bytes, body: bytes | None) -> BodyRef | None:
        number = self._next
        fields += b"\t%08x%08x" % (crc32(fields), crc32(body or b""))
        self._buffer.append((number, kind, fields, body))
        self._next += 1
        length = len(fields) + len(body or b"")
        self._size += length
        if kind in PASSING:
            self._passing += length
        return None if body is None else BodyRef(number, len(body))

    def _look(self) -> None:
        if self._damaged is not None:
            self._set_aside(self._damaged)
            self._damaged = None
        if not self._database.exists:
            self._next, self._size, self._full = 0, 0, False
            return
        ((number, size, full),) = self._database.rows(_JOURNAL_END, self._name)
        self._next, self._size, self._full = number, int(size), bool(full)

    def _set_aside(self, number: int) -> None:
        """Keep the entries from here on under another name, where nothing reads them, so that new ones count."""
        name = f"{self._name} damaged {rfc3339(self._backend.directory.clock.now())}"
        move = "UPDATE journal SET name = ? WHERE name = ? AND n >= ?"
        self._database.change(lambda s: s.execute(move, (name, self._name, number)), durable=True, single=True)

    def write(self) -> None:
        self._commit(durable=False)

    def sync(self) -> None:
        self._commit(durable=True)

    def _commit(self, *, durable: bool) -> None:
        with self._writing:
            entries = tuple(self._buffer)
            if not entries and not (durable and self._dirty):
                return

            def put(session: Session) -> None:
                if entries:
                    self._backend.insert_entries(session, self._record, entries)
                else:
                    # A commit that changes nothing makes nothing durable of what the quick ones left.
                    session.execute("UPDATE journal SET kind = kind WHERE name = ? AND n = 0", (self._name,))

            self._database.change(put, durable=durable, single=not entries)
            self._dirty = not durable
            self._buffer.clear()

    def compact(self, safe: Mapping[str, int]) -> None:
        """See `Compacting`."""
        if not is_worth_it(self._passing, self._size, self._max_bytes):
            return
        self._passing = 0
        marks = ", ".join("?" * len(PASSING))
        query = f"SELECT n, kind, fields, length(body) FROM journal WHERE name = ? AND kind IN ({marks}) ORDER BY n"  # noqa: S608  # marks
        sizes: dict[int, int] = {}
        passing: list[tuple[int, JournalEntry]] = []
        for row in self._database.rows(query, self._name, *PASSING):
            sizes[row[0]] = len(row[2]) + (row[3] or 0)
            passing.append((row[0], self._entry(*row)))
        gone = list(superseded(passing, safe))
        if not gone:
            return

        def drop(session: Session) -> None:
            session.executemany("DELETE FROM journal WHERE name = ? AND n = ?", [(self._name, n) for n in gone])

        with self._writing:
            self._database.change(drop, durable=True)
            self._size -= sum(sizes[number] for number in gone)

    def entries(self) -> Iterator[JournalEntry]:
        query = "SELECT n, kind, fields, length(body) FROM journal WHERE name = ? ORDER BY n"
        for row in self._database.rows(query, self._name) if self.exists else ():
            try:
                entry = self._entry(*row)
            except DamagedFileError as error:
                self._damaged = row[0]
                self._backend.directory.warn_once(f"{error.message}; what precedes counts")
                return
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
        # Whoever only shows where a run is has no use for a fault here; `entries` will find it.
        with suppress(DamagedFileError):
            return next((self._entry(*row) for row in self._database.rows(query, self._name, *kinds)), None)
        return None

    def read_body(self, ref: BodyRef) -> bytes:
        rows = self._database.rows("SELECT body FROM journal WHERE name = ? AND n = ?", self._name, ref.offset)
        if not rows or rows[0][0] is None:
            raise DamagedFileError(f"the journal of {self._name} has no entry {ref.offset}")
        body = bytes(rows[0][0])
        if self._sums.get(ref.offset, b"%08x" % crc32(body)) != b"%08x" % crc32(body):
            raise self._fault(ref.offset, "its body has another checksum")
        return body

    def _entry(self, number: int, kind: str, fields: bytes, length: int | None) -> JournalEntry:
        content, tab, sums = bytes(fields).partition(b"\t")  # a tab inside a text is escaped
        if tab and sums[:8] != b"%08x" % crc32(content):
            raise self._fault(number, "it has another checksum")
        if tab and length is not None:
            self._sums[number] = sums[8:]
        try:
            known = decode(content, depth=OWN_DEPTH)
        except JsonError as error:
            raise self._fault(number, error.message) from error
        if not isinstance(known, dict):
            raise self._fault(number, "it is no JSON object")
        return JournalEntry(kind, known, None if length is None else BodyRef(number, length))

    def _fault(self, number: int, reason: str) -> DamagedFileError:
        return DamagedFileError(
            f"entry {number} of the journal {self._name} in {self._database.shown} is damaged: {reason}",
            hint="run the mission without --resume to begin anew",
        )

    @property
    def exists(self) -> bool:
        if not self._database.exists:
            return False
        return bool(self._database.rows("SELECT 1 FROM journal WHERE name = ? LIMIT 1", self._name))

    def close(self) -> None:
        self.write()

    def discard(self) -> None:
        with self._writing:
            self._buffer.clear()
            if self._database.exists:
                remove = "DELETE FROM journal WHERE name = ?"
                self._database.change(lambda s: s.execute(remove, (self._name,)), durable=False, single=True)
            self._next, self._size, self._full, self._dirty = -1, 0, False, False
