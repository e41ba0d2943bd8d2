"""`state.db`, and rows of it or of PostgreSQL, are damaged: their mission says so, others run (spec/state.md 11)."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from reqon.errors import ReqonError
from reqon.state.choice import StateStores
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionStatus
from tests.runtime.test_resume import Site, interrupted
from tests.support import postgres
from tests.support.damages import DAMAGES, seen
from tests.support.missions import Bench, Ran, mission
from tests.support.rights import bound_by_file_modes
from tests.support.servers import ScriptedServer

SLOW = bool(os.environ.get("REQON_SLOW"))
STEPS = """
    get "/list/l" { since: lastSync }
    store response -> side
    get "/list/k"
    for k in response { post "/y/{k.id}" }
    for r in side { post "/x/{r.id}"
      store { id: r.id } -> more }"""
STORES = 'store side: file("side")\nstore more: file("more")'
OTHER = mission('get "/list/o"\nstore response -> mine', stores='store mine: file("mine")').replace(
    "mission M {", "mission Other {"
)


def mine(store: str) -> str:
    return mission(STEPS, stores=STORES, options=f"stateStore: {store}")


async def resumed(bench: Bench, text: str) -> tuple[Ran | None, str]:
    """A resume, and what it said when it failed."""
    try:
        ran = await bench.resume(text)
    except ReqonError as error:
        return None, error.message
    return ran, " ".join(error.message for error in ran.outcome.errors)


@pytest.fixture(autouse=True)
def _modes_count() -> Iterator[None]:
    with bound_by_file_modes():
        yield


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_state_db_is_named_and_kept_and_others_run(
    name: str, api: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D8, for the database of `stateStore: sqlite`: never taken for an empty one."""
    site, text = Site(api), mine("sqlite")
    first = Bench(api, tmp_path / "whole")
    (await first.run(text)).ok()
    killed = await interrupted(first, site, text, "kill", 7)
    site.at = 0
    for beside in killed.state.glob("state.db-*"):
        beside.unlink()
    fold(first.state / "state.db", killed.state / "state.db")
    path = killed.state / "state.db"
    DAMAGES[name](path)
    before = seen(path)
    caplog.clear()
    assert (await killed.run(OTHER)).ok().stores["mine"]
    ran, said = await resumed(killed, text)
    if name in ("doubled", "bad UTF-8") and ran is not None:
        assert ran.outcome.success  # SQLite looks at no byte behind its last page
        return
    assert "state.db" in said + caplog.text, (said, caplog.text)
    assert any(seen(p) == before for p in killed.state.rglob("*")), said
    assert ran is None or list((killed.state / "quarantine").glob("*state.db*")), said


ROWS = {
    "record": "records",
    "journal fields": "journal",
    "journal body": "journal",
    "sync time": "sync",
    "sync count": "sync",
}
COLUMNS = {"record": "record", "journal fields": "fields", "journal body": "body", "sync time": "last_sync"}
SPOILED = [n for n in DAMAGES if n not in ("1 GiB", "a link", "a FIFO", "a directory", "unreadable")]


class Rows:
    """The tables of one state store, asked beside Reqon."""

    def __init__(self, store: str, database: Path, url: str) -> None:
        self.store, self._database, self._url = store, database, url

    def ask(self, query: str) -> list[tuple[object, ...]]:
        if self.store == "postgres":
            return postgres.ask(self._url, query)
        with sqlite3.connect(self._database) as connection:
            found = connection.execute(query).fetchall()
        connection.close()
        return found

    def table(self, kind: str) -> str:
        return f"reqon.{ROWS[kind]}" if self.store == "postgres" else ROWS[kind]

    def blob(self, content: bytes) -> str:
        return f"'\\x{content.hex()}'::bytea" if self.store == "postgres" else f"x'{content.hex()}'"


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.node.callspec.params["store"] != "postgres":
        yield ""
        return
    with postgres.database() as found:
        yield found


def spoil(rows: Rows, kind: str, name: str, folder: Path) -> None:
    """Damage one row of this kind as the file of its content would be."""
    if kind == "sync count":
        rows.ask("UPDATE sync SET items = 'many'")
        return
    column = COLUMNS[kind]
    where = {
        "record": "status <> 'completed'",
        "journal fields": "kind = 'loop'",
        "journal body": "body IS NOT NULL",
        "sync time": "1 = 1",
    }[kind]
    found = rows.ask(f"SELECT {column} FROM {rows.table(kind)} WHERE {where} ORDER BY 1 LIMIT 1")  # our own
    assert found, (kind, rows.ask(f"SELECT kind FROM {rows.table(kind)}"))
    value = found[0][0]
    path = folder / "content"
    path.write_bytes(value.encode() if isinstance(value, str) else bytes(value))  # type: ignore[call-overload]
    DAMAGES[name](path)
    content = path.read_bytes()
    shown = "'" + content.decode("utf-8", "replace").replace("\0", "?").replace("'", "''") + "'"
    new = shown if isinstance(value, str) else rows.blob(content)
    rows.ask(f"UPDATE {rows.table(kind)} SET {column} = {new} WHERE {where}")  # as above


@pytest.mark.parametrize(
    ("store", "kind"),
    [("sqlite", kind) for kind in ROWS] + [("postgres", kind) for kind in ROWS if kind != "sync count"],
)
async def test_a_damaged_row_is_named_and_kept_and_others_run(
    store: str, kind: str, url: str, api: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D8, for the rows of `stateStore: sqlite` and of `stateStore: postgres`."""
    site, text = Site(api), mine(store)
    for number, name in enumerate(SPOILED if kind != "sync count" else ["wrong type"]):
        if not SLOW and number % 3 != len(kind) % 3 and kind != "sync count":
            continue
        bench = Bench(api, tmp_path / f"state{number}", environment={"REQON_STATE_URL": url} if url else {})
        site.at = 0
        (await bench.run(text)).ok()
        bench.clock.advance(60)  # so that there is a last one
        await interrupted(bench, site, text, "fail", 7)
        site.at = 0
        rows = Rows(store, bench.state / "state.db", url)
        spoil(rows, kind, name, tmp_path)
        before = rows.ask(f"SELECT count(*) FROM {rows.table(kind)}")  # as above
        caplog.clear()
        if kind == "record" and name != "doubled":
            stores = StateStores(StateDirectory(bench.state), environment=bench.environment)
            for shown in (stores.list("M", limit=1), stores.list("M"), stores.list(limit=1), stores.latest()):
                assert [record.status for record in shown] == [ExecutionStatus.COMPLETED], "the one before it is seen"
            stores.close()
        assert (await bench.run(OTHER)).ok().stores["mine"], name
        ran, said = await resumed(bench, text)
        about = f"{kind}, {name}: {said} {caplog.text}"
        assert "internal error" not in said, about
        if name != "doubled" or kind == "sync time":
            where = str(bench.state / "state.db") if store == "sqlite" else "PostgreSQL"
            assert where in said + caplog.text or "the journal is damaged" in said, about
        if ran is None or not ran.outcome.success:
            assert rows.ask(f"SELECT count(*) FROM {rows.table(kind)}") >= before, about  # as above
        if url:
            postgres.ask(url, "DROP SCHEMA reqon CASCADE")


def fold(log_of: Path, into: Path) -> None:
    """The database with all that its log holds, in one file, as after a clean end."""
    shutil.copy(log_of, into)
    for suffix in ("-wal", "-shm"):
        if (found := log_of.with_name(log_of.name + suffix)).exists():
            shutil.copy(found, into.with_name(into.name + suffix))
    with sqlite3.connect(into) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
