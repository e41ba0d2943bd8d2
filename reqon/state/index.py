"""Which executions a user's own store holds, for one that cannot list them: ids in `state.db` (spec/state.md 10)."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from reqon.clock import rfc3339
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionRecord
from reqon.state.sqlite import Database

_PAGE = 200
_MILLISECOND = timedelta(milliseconds=1)
_TABLE = """
CREATE TABLE IF NOT EXISTS ids (
    store TEXT NOT NULL, id TEXT NOT NULL, mission TEXT NOT NULL, begun TEXT NOT NULL, status TEXT NOT NULL,
    PRIMARY KEY (store, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ids_by_time ON ids (store, begun);
CREATE INDEX IF NOT EXISTS ids_by_mission ON ids (store, mission, begun);
"""


class IdIndex:
    """The ids of one store's executions, with what it takes to choose among them."""

    def __init__(self, directory: StateDirectory, store: str) -> None:
        self._database = Database(directory)
        self._store = store
        self._ready = False

    def put(self, record: ExecutionRecord) -> None:
        """Add an execution, or note its new status."""
        self._prepare()
        values = (self._store, record.execution_id, record.mission, rfc3339(record.started_at), record.status.value)
        with self._database.write(durable=True) as connection:
            connection.execute(
                "INSERT INTO ids VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET status = excluded.status", values
            )

    def remove(self, execution_id: str) -> None:
        self._prepare()
        with self._database.write(durable=True) as connection:
            connection.execute("DELETE FROM ids WHERE store = ? AND id = ?", (self._store, execution_id))

    def ids(
        self,
        mission: str | None,
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        words: Sequence[str] | None = None,
    ) -> Iterator[str]:
        """Ids, newest first; `words` are the statuses that count. Times are cut to milliseconds: look again."""
        where, values = ["store = ?"], [self._store]
        for condition, value in (
            ("mission = ?", mission),
            ("begun >= ?", rfc3339(since) if since else None),
            ("begun <= ?", rfc3339(before + _MILLISECOND) if before else None),
        ):
            if value is not None:
                where.append(condition)
                values.append(value)
        if words is not None:
            where.append(f"status IN ({', '.join('?' * len(words))})")
            values += words
        query = f"SELECT id FROM ids WHERE {' AND '.join(where)} ORDER BY begun DESC, id DESC LIMIT ? OFFSET ?"  # noqa: S608  # marks
        for offset in range(0, 1 << 40, _PAGE):
            page = self._rows(query, *values, _PAGE, offset)
            yield from (execution_id for (execution_id,) in page)
            if len(page) < _PAGE:
                return

    def missions(self) -> list[str]:
        return [mission for (mission,) in self._rows("SELECT DISTINCT mission FROM ids WHERE store = ?", self._store)]

    def close(self) -> None:
        self._database.close()
        self._ready = False

    def _rows(self, query: str, *values: str | int) -> list[tuple[Any, ...]]:
        if not self._database.directory.database.exists():
            return []  # looking makes nothing
        self._prepare()
        return self._database.rows(query, *values)

    def _prepare(self) -> None:
        if not self._ready:
            with self._database.use() as connection:
                connection.executescript(_TABLE)
            self._ready = True
