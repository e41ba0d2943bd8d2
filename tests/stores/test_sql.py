"""Tables under stress: broken connections, several writers, refusals, foreign tables, odd names."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reqon
from reqon.errors import ConfigurationError, StoreError
from reqon.stores.base import WriteCounts
from reqon.stores.databases import ENGINES, sql_url
from reqon.stores.filters import Clause, StoreFilter, chosen
from reqon.stores.sql import SqlAdapter
from reqon.values import decode, encode
from tests.support.databases import MARIADB, mariadb_database, postgres_database, sqlite_database
from tests.support.store_contract import ODD_FIELDS, keys, records, scalars

KINDS = ("sqlite", "postgres", "mysql")


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    directory = tmp_path_factory.mktemp("sqlite")
    with sqlite_database(directory) as sqlite, postgres_database() as postgres, mariadb_database() as mysql:
        yield {"sqlite": sqlite, "postgres": postgres, "mysql": mysql}


@pytest.fixture
def open_table(urls: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Any]:
    """Opens tables, and closes them."""
    opened: list[SqlAdapter] = []

    def table(kind: str, name: str = "", **options: Any) -> SqlAdapter:
        adapter = SqlAdapter(
            kind, name or request.node.name[-40:], sql_url(kind, urls[kind], Path("unused")), **options
        )
        adapter.connect()
        opened.append(adapter)
        return adapter

    yield table
    for adapter in opened:
        adapter.close()


every = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_a_connection_that_broke_is_made_anew(kind: str, open_table: Any, urls: dict[str, str]) -> None:
    table = open_table(kind)
    table.set("a", {"n": 1})
    database = urls[kind].rpartition("/")[2]
    if kind == "postgres":
        with psycopg.connect(urls[kind], autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                          " AND datname = current_database()")  # fmt: skip
    else:
        with pymysql.connect(host=MARIADB, user="root") as server, server.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (database,))
            for (number,) in cursor.fetchall():
                cursor.execute(f"KILL {number}")
    assert table.get("a") == {"n": 1}
    assert table.bulk_upsert([("b", {"n": 2})], "set") == WriteCounts(added=1)


@every
def test_merges_of_several_writers_lose_nothing(kind: str, open_table: Any) -> None:
    """Each of four threads adds its own field to the same new records, in another order."""
    table = open_table(kind)
    names = [f"k{n}" for n in range(30)]
    start = threading.Barrier(4)

    def work(number: int) -> WriteCounts:
        start.wait(30)
        total = WriteCounts()
        for turn in range(5):
            order = names if number % 2 else names[::-1]
            counts: WriteCounts = table.bulk_upsert([(key, {f"f{number}": turn}) for key in order], "merge")
            total.added += counts.added
            total.updated += counts.updated
        return total

    with ThreadPoolExecutor(4) as threads:
        totals = list(threads.map(work, range(4)))
    assert all(table.get(key) == {f"f{n}": 4 for n in range(4)} for key in names)
    assert sum(t.added for t in totals) == 30 and sum(t.updated for t in totals) == 4 * 5 * 30 - 30


@every
def test_a_batch_is_written_as_a_whole_or_not_at_all(kind: str, open_table: Any) -> None:
    table = open_table(kind)
    table.set("old", {"n": 1})
    with pytest.raises(StoreError, match="no record 'new'"):
        table.bulk_upsert([("old", {"n": 2}), ("new", {"n": 2})], "update")
    assert table.get("old") == {"n": 1} and table.count() == 1


def test_a_constraint_of_the_users_own_is_told_with_its_code(open_table: Any, urls: dict[str, str]) -> None:
    table = open_table("postgres", "limited")
    with psycopg.connect(urls["postgres"], autocommit=True) as other:
        other.execute("ALTER TABLE limited ADD CHECK (length(data) < 50)")
    with pytest.raises(StoreError) as caught:
        table.bulk_upsert([("a", {"text": "x" * 60})], "set")
    error = caught.value
    assert (error.code, error.key, error.refused, error.operation) == ("23514", "a", True, "set")
    assert "x" * 60 not in error.message


@every
def test_a_table_that_is_not_ours_is_left_alone(kind: str, open_table: Any, urls: dict[str, str]) -> None:
    make = "CREATE TABLE foreign_one (id integer PRIMARY KEY, data text)"
    if kind == "sqlite":
        with sqlite3.connect(urls[kind].removeprefix("sqlite:///")) as other:
            other.execute(make)
        other.close()
    elif kind == "postgres":
        with psycopg.connect(urls[kind], autocommit=True) as server:
            server.execute(make.encode())
    else:
        with pymysql.connect(host=MARIADB, user="root", database=urls[kind].rpartition("/")[2]) as my, my.cursor() as c:
            c.execute(make)
    with pytest.raises(StoreError, match="no column key, seq") as caught:
        open_table(kind, "foreign_one")
    assert caught.value.operation == "init"


def test_two_names_that_sqlite_takes_for_one_are_refused(open_table: Any) -> None:
    open_table("sqlite", "Orders")
    with pytest.raises(StoreError, match="the same name"):
        open_table("sqlite", "orders")


@every
def test_a_name_with_quotes_is_a_name(kind: str, open_table: Any) -> None:
    table = open_table(kind, "a'b\"c`d;-- e")
    table.set("x", {"n": 1})
    assert table.list() == [{"n": 1}]


@pytest.mark.parametrize(("kind", "length"), [("postgres", 63), ("mysql", 64)])
def test_a_name_that_would_be_cut_is_refused(kind: str, length: int, open_table: Any) -> None:
    open_table(kind, "t" * length)
    with pytest.raises(ConfigurationError, match="cannot be the name of a table"):
        open_table(kind, "t" * (length + 1))


def test_postgres_takes_a_schema(open_table: Any, urls: dict[str, str]) -> None:
    with psycopg.connect(urls["postgres"], autocommit=True) as other:
        other.execute("CREATE SCHEMA books")
    open_table("postgres", "books.lines").set("a", {"n": 1})
    assert open_table("postgres", "lines", schema="books").get("a") == {"n": 1}


@every
def test_without_counting_writes_replace_blindly(kind: str, open_table: Any) -> None:
    table = open_table(kind, blind=True)
    first = [("a", {"n": 1}), ("b", {"n": 1})]
    assert table.bulk_upsert(first, "set") == WriteCounts(added=2)
    assert table.bulk_upsert([("b", {"n": 2}), ("c", {"n": 2}), ("b", {"n": 3})], "set") == WriteCounts(added=3)
    assert list(table.iterate()) == [("a", {"n": 1}), ("b", {"n": 3}), ("c", {"n": 2})]


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_half_a_character_is_refused_and_not_changed(kind: str, open_table: Any) -> None:
    table = open_table(kind)
    with pytest.raises(StoreError, match="half a character"):
        table.set("\ud800", {"n": 1})
    assert table.count() == 0


@every
def test_a_big_record_is_kept_whole(kind: str, open_table: Any) -> None:
    table = open_table(kind)
    record = {"text": "ü" * 600_000, "deep": [[[[[[]]]]]]}
    table.set("a", record)
    assert table.get("a") == record


@every
def test_what_the_database_leaves_out_never_matches(kind: str, open_table: Any) -> None:
    """A property: with any records and any clause, the answer is that of looking at every record."""
    table = open_table(kind)

    @settings(max_examples=25, deadline=None)
    @given(st.dictionaries(keys, records, max_size=6), st.sampled_from(("a", "b", "Ada", "no")), scalars)
    def holds(stored: dict[str, Any], field: str, value: Any) -> None:
        table.clear()
        entries = [(key, {**record, "b": value} if len(key) % 2 else record) for key, record in stored.items()]
        if entries:
            table.bulk_upsert(entries, "set")
        everything = table.list()
        for operator in ("eq", "neq"):
            wanted = StoreFilter([Clause(field=field, operator=operator, value=value)])
            assert table.list(wanted) == chosen(everything, wanted)
        assert table._narrows

    holds()


@every
def test_what_a_database_leaves_out_is_of_the_values_type_and_does_not_fit(kind: str, open_table: Any) -> None:
    """A property: what a loop's own condition must judge, texts beside numbers among it, always stays in."""
    table = open_table(kind)
    numbers = (1, 4, 5, 5.0, 4.999999999999999, 5.000000000000001, -7, 0, 2**53, 2**70, -(2**70), 1e300)
    others: tuple[Any, ...] = ("7", "x", "X", "ä", "", True, False, None, [5], {"n": 5}, "2026-01-01", "\u0000", "a\\u")
    stored = {str(n): {"n": value} for n, value in enumerate((*numbers, *others))}
    table.bulk_upsert([*stored.items(), ("absent", {})], "set")
    for operator in ("eq", "neq", "lt", "lte", "gt", "gte"):
        for value in (5, 0, -7, 2**53 - 1, 4.5, "x", "7", "ä", "a", None, True):
            wanted = StoreFilter([Clause(field="n", operator=operator, value=value)], rechecked=True)
            needed = {key for key, record in stored.items() if wanted.admits(record)}
            needed |= {"absent"} if wanted.admits({}) else set()
            assert set(table.keys(wanted)) == needed, (operator, value)
    assert table._narrows


@every
def test_a_database_leaves_out_what_it_can_itself(kind: str, open_table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_table(kind)
    table.bulk_upsert([(str(n), {"n": n, "s": f"s{n}"}) for n in range(9)], "set")
    read: list[str] = []
    built = SqlAdapter._built

    def noted(self: SqlAdapter, data: str, key: str) -> Any:
        read.append(key)
        return built(self, data, key)

    monkeypatch.setattr(SqlAdapter, "_built", noted)
    for operator, value, expected in (
        ("eq", 3, "3"), ("lt", 3, "012"), ("gte", 6.5, "78"), ("neq", 4, "01235678"), ("eq", "s3", "3"),
        ("lt", "s3", "012"), ("gte", "s7", "78"), ("neq", "s4", "01235678"),
    ):  # fmt: skip
        read.clear()
        field = "s" if isinstance(value, str) else "n"
        table.list(StoreFilter([Clause(field=field, operator=operator, value=value)], rechecked=True))
        if kind != "mysql" or operator == "eq" or field == "n":
            assert "".join(read) == expected, (operator, value)


@every
def test_no_database_leaves_out_what_select_would_not(kind: str, open_table: Any) -> None:
    table = open_table(kind)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(ODD_FIELDS, max_size=8), ODD_FIELDS, st.booleans())
    def holds(stored: list[Any], value: Any, rechecked: bool) -> None:
        table.clear()
        table.bulk_upsert([(str(n), {"n": found, "in": {"n": found}}) for n, found in enumerate(stored)], "set")
        everything = table.list()
        for operator in ("eq", "neq", "lt", "lte", "gt", "gte", "contains"):
            for field in ("n", "in.n"):
                wanted = StoreFilter([Clause(field=field, operator=operator, value=value)], rechecked=rechecked)
                assert table.list(wanted) == wanted.select(everything), (operator, field)

    holds()
    assert table._narrows


@every
def test_a_loop_over_a_table_finds_what_one_over_memory_does(kind: str, urls: dict[str, str], tmp_path: Path) -> None:
    values = [1, 4, 5, 5.0, 9, "7", "03", None, 2**60]
    mission = f"""mission M {{
      store all: sql("hints")
      store plain: memory("plain")
      store out: file("out")
      action A {{
        for v in {encode(values).decode()} {{ let key = uuid()
          store {{ id: key, n: v }} -> all
          store {{ id: key, n: v }} -> plain }}
      }}
      action B {{
        {loops("all")}
        {loops("plain")}
      }}
      run A then B
    }}"""
    config = {"sql": {"type": kind, "url": urls[kind]}}
    result = asyncio.run(reqon.execute(mission, state_dir=tmp_path / "state", store_config=config))
    assert result.success, result.errors
    out = decode((tmp_path / "state" / "stores" / "out.json").read_bytes())
    for number in range(len(CONDITIONS)):
        of = {
            name: sorted(key.split()[2] for key in out if key.startswith(f"{name} {number} "))
            for name in ("all", "plain")
        }
        assert of["all"] == of["plain"] != [], CONDITIONS[number]


CONDITIONS = (
    "r.n < 5", "r.n <= 5", "5 < r.n", ".n >= 5 and .n != 9", "r.n != 5", "r.n != '7'", "r.n == 5", "r.n == null",
    "r.n != null and .n < 4.5", "r.n > '6'", ".n is string and .n < 'x'",
)  # fmt: skip


def loops(store: str) -> str:
    return "\n".join(
        f"for r in {store} where {condition} {{ store {{ id: concat('{store} {n} ', r.id) }} -> out }}".replace(
            "'", '"'
        )
        for n, condition in enumerate(CONDITIONS)
    )


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from reqon.stores import registry  # noqa: PLC0415

    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="need the package psycopg") as caught:
        registry.chosen_store("sql", "t", {"type": "postgres", "url": "postgresql://h"})
    assert caught.value.hint == "pip install 'reqon[postgres]'"


@pytest.mark.parametrize(
    ("kind", "url", "message"),
    [
        ("postgres", None, "needs a url"),
        ("postgres", "mysql://h/x", "begins with postgresql://"),
        ("mysql", "not a url", "cannot be read"),
        ("sqlite", "oracle://h", "begins with sqlite://"),
    ],
)
def test_a_wrong_url_is_named(kind: str, url: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        sql_url(kind, url, Path("x.db"))


def test_stores_of_one_database_share_its_connections(open_table: Any) -> None:
    one, two = open_table("postgres", "one"), open_table("postgres", "two")
    assert one._engine is two._engine and len(ENGINES._engines) >= 1
