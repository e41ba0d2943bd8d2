"""X2: a hundred thousand records, and `status` and `history` answer at once, wherever they are kept.

In seconds of this process, since others may be busy. A tenth of the number by default.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from reqon.clock import rfc3339
from reqon.state.backend import StateBackend
from reqon.state.choice import StateStores
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionRecord, ExecutionStatus, to_json
from tests.support import postgres
from tests.support.state_contract import T0, a_record

NUMBER = 100_000 if os.environ.get("REQON_SLOW") else 10_000
MISSIONS = 50
SECONDS = 0.5


def records() -> Iterator[ExecutionRecord]:
    """One a minute, of fifty missions in turn."""
    for n in range(NUMBER):
        at = T0 + timedelta(minutes=n)
        status = ExecutionStatus.FAILED if n % 1000 == 7 else ExecutionStatus.COMPLETED
        record = a_record(f"M{n % MISSIONS}", at=at, status=status)
        yield record


def row(record: ExecutionRecord) -> tuple[object, ...]:
    stem = f"{record.mission}-{record.started_at:%Y-%m-%dT%H-%M-%S}"
    began = rfc3339(record.started_at)
    return (stem, record.execution_id, record.mission, began, record.status.value, to_json(record))


def fill_files(directory: StateDirectory, _: StateBackend) -> None:
    for record in records():
        (directory.executions / f"{row(record)[0]}.json").write_bytes(to_json(record))


def fill_sqlite(directory: StateDirectory, backend: StateBackend) -> None:
    backend.create(a_record(at=T0 - timedelta(days=1), status=ExecutionStatus.COMPLETED))
    with sqlite3.connect(directory.database) as connection:
        connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", map(row, records()))
    connection.close()


def fill_postgres(url: str, backend: StateBackend) -> None:
    backend.create(a_record(at=T0 - timedelta(days=1), status=ExecutionStatus.COMPLETED))
    with psycopg.connect(url) as connection:
        with connection.cursor().copy("COPY reqon.records FROM STDIN") as copy:
            for record in records():
                copy.write_row((*row(record), 1))
        connection.execute("ANALYZE reqon.records")


@contextmanager
def filled(store: str, path: Path) -> Iterator[tuple[StateBackend, str]]:
    directory = StateDirectory(path / "state").open()
    if store != "postgres":
        backend = StateStores(directory, only=store).open(store)
        (fill_files if store == "file" else fill_sqlite)(directory, backend)
        yield backend, ""
        backend.close()
        return
    with postgres.database() as url:
        backend = StateStores(directory, environment={"REQON_STATE_URL": url}).open(store)
        fill_postgres(url, backend)
        yield backend, url
        backend.close()


@pytest.mark.slow
@pytest.mark.parametrize("store", ["file", "sqlite", "postgres"])
def test_history_and_status_of_a_hundred_thousand_records_take_half_a_second(store: str, tmp_path: Path) -> None:
    """X2."""
    with filled(store, tmp_path) as (backend, url):
        newest = T0 + timedelta(minutes=NUMBER - 1)
        looks: list[tuple[Callable[[], object], int]] = [
            (lambda: backend.list(limit=10), 10),
            (lambda: backend.list("M7", limit=10), 10),
            (lambda: backend.list(since=newest - timedelta(minutes=9)), 10),
            (backend.latest, MISSIONS + (store != "file")),
        ]
        for look, count in looks:
            begun = time.process_time()
            found = look()
            assert time.process_time() - begun < SECONDS
            assert isinstance(found, list) and len(found) == count
        failed = backend.list(status=ExecutionStatus.FAILED, limit=3)
        assert [record.mission for record in failed] == ["M7"] * 3
        if url:
            for query in (
                "SELECT name, record FROM reqon.records ORDER BY begun DESC, id DESC LIMIT 10",
                "SELECT name FROM reqon.records WHERE mission = 'M7' ORDER BY begun DESC, id DESC LIMIT 10",
            ):
                plan = str(postgres.ask(url, f"EXPLAIN {query}"))
                assert "Index" in plan and "Seq Scan" not in plan, "the server does not look at them all either"
