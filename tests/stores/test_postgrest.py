"""PostgREST stores, against a stand-in in front of a real PostgreSQL, which the official client checks."""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from postgrest import SyncPostgrestClient
from postgrest.exceptions import APIError

from reqon.clock import SYSTEM
from reqon.errors import ConfigurationError, StoreError
from reqon.http.connections import Connections
from reqon.stores.base import WriteCounts
from reqon.stores.config import StoreConfiguration, choose
from reqon.stores.filters import Clause, StoreFilter
from reqon.stores.postgrest import PostgrestAdapter
from reqon.testing import store_suite
from tests.support.databases import postgres_database
from tests.support.postgrest_server import PostgrestServer

PEOPLE = "(id text PRIMARY KEY, name text, age numeric, email text UNIQUE, note jsonb)"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_database() as url:
        yield url


@pytest.fixture
def server(database: str) -> Iterator[PostgrestServer]:
    with PostgrestServer(database) as running:
        yield running


@pytest.fixture
def people(server: PostgrestServer) -> str:
    """A table of its own."""
    name = f"people_{secrets.token_hex(4)}"
    server.execute(f"CREATE TABLE {name} {PEOPLE}")
    return name


def connections() -> Connections:
    return Connections(clock=SYSTEM, environment={}, state_directory=None, random=lambda: 0.5)


def run(server: PostgrestServer, table: str, work: Callable[[PostgrestAdapter], Any], **options: Any) -> Any:
    """What some work with an adapter answers."""

    async def main() -> Any:
        shared = connections()
        try:
            return await work(PostgrestAdapter(table, server.url, shared, **options))
        finally:
            await shared.close()

    return asyncio.run(main())


class _Closing(PostgrestAdapter):
    """One that closes its connections with itself, for the suite."""

    shared: Connections

    async def close(self) -> None:
        await self.shared.close()


CHECKS = store_suite(object, ordered=False)


@pytest.mark.parametrize("number", range(len(CHECKS)), ids=[check.name for check in CHECKS])
def test_a_postgrest_store_passes_the_suite(number: int, server: PostgrestServer) -> None:
    """R10"""
    table = f"t_{secrets.token_hex(4)}"
    server.execute(f'CREATE TABLE {table} (id text COLLATE "C" PRIMARY KEY, data json)')

    def make() -> PostgrestAdapter:
        shared = connections()
        adapter = _Closing(table, server.url, shared, data_column="data")
        adapter.shared = shared
        return adapter

    store_suite(make, ordered=False)[number]()


def test_the_official_client_agrees_with_the_stand_in(server: PostgrestServer, people: str) -> None:
    with SyncPostgrestClient(server.url) as opened:
        client: Any = opened  # its own types are too narrow for rows
        table = client.from_(people)
        assert table.insert([{"id": "a", "age": 1}, {"id": "b", "age": 2}]).execute().data == [
            {"id": "a", "name": None, "age": 1, "email": None, "note": None},
            {"id": "b", "name": None, "age": 2, "email": None, "note": None},
        ]
        upserted = table.upsert([{"id": "b", "age": 3}, {"id": "c", "age": 4}], on_conflict="id").execute()
        assert [row["age"] for row in upserted.data] == [3, 4]
        assert table.update({"note": {"x": {"y": "z"}}}).eq("id", "a").execute().data[0]["note"] == {"x": {"y": "z"}}
        page = table.select("id", count="exact").gte("age", 3).order("id", desc=True).limit(1).execute()
        assert (page.data, page.count) == ([{"id": "c"}], 2)
        assert table.select("id").in_("id", ["a", 'q"', "c,d"]).execute().data == [{"id": "a"}]
        assert table.select("id").is_("name", "null").order("id").execute().data == [
            {"id": "a"},
            {"id": "b"},
            {"id": "c"},
        ]
        assert table.select("id").or_("age.neq.1,name.is.null").not_.eq("id", "b").order("id").execute().data == [
            {"id": "a"}, {"id": "c"},
        ]  # fmt: skip
        assert table.select("id").eq("note->x->>y", "z").execute().data == [{"id": "a"}]
        assert table.select("id").like("id", "*a*").execute().data == [{"id": "a"}]
        assert table.select("*", count="exact", head=True).execute().count == 3
        with pytest.raises(APIError) as caught:
            table.insert({"id": "a"}).execute()
        assert caught.value.code == "23505"
        assert [row["id"] for row in table.delete().eq("id", "a").execute().data] == ["a"]
        with pytest.raises(APIError):
            client.from_("nothing").select("*").execute()


def test_what_we_write_the_official_client_reads(server: PostgrestServer, people: str) -> None:
    async def work(store: PostgrestAdapter) -> None:
        await store.bulk_upsert([("1", {"id": 1, "name": "Ada", "age": 2**70}), ("2", {"name": "Zoë"})], "set")

    run(server, people, work)
    with SyncPostgrestClient(server.url) as client:
        assert client.from_(people).select("id,name").order("id").execute().data == [
            {"id": "1", "name": "Ada"},
            {"id": "2", "name": "Zoë"},
        ]
    assert server.execute(f"SELECT age FROM {people} WHERE id = '1'") == [(2**70,)]


def test_fields_are_columns_and_those_left_out_keep_their_value(server: PostgrestServer, people: str) -> None:
    async def work(store: PostgrestAdapter) -> list[Any]:
        first = await store.bulk_upsert([("a", {"name": "Ada", "age": 36}), ("b", {"name": "Bo"})], "set")
        again = await store.bulk_upsert([("a", {"name": "Ada"}), ("b", {"age": 1}), ("b", {"name": "B"})], "set")
        only = await store.bulk_upsert([("b", {"email": "b@x"})], "update")
        return [first, again, only, await store.get("a"), await store.get("b"), await store.get("c")]

    first, again, only, a, b, nothing = run(server, people, work)
    assert first == WriteCounts(added=2)
    assert again == WriteCounts(updated=2, unchanged=1)
    assert only == WriteCounts(updated=1)
    assert a == {"id": "a", "name": "Ada", "age": 36, "email": None, "note": None}
    assert b == {"id": "b", "name": "B", "age": 1, "email": "b@x", "note": None}
    assert nothing is None
    posts = [target for method, target, _ in server.seen if method == "POST"]
    assert len(posts) == 3 and all("on_conflict=id" in target for target in posts), "one for each set of columns"


def test_columns_are_compared_by_the_server_and_judged_here(server: PostgrestServer, people: str) -> None:
    rows = [(str(n), {"name": f"n{n % 3}", "age": n, "note": {"x": {"y": str(n % 2)}}}) for n in range(9)]

    async def work(store: PostgrestAdapter) -> None:
        await store.bulk_upsert(rows, "set")
        for field, operator, value, expected in (
            ("name", "eq", "n1", "147"), ("age", "gt", 6, "78"), ("age", "lte", 1, "01"),
            ("name", "neq", "n0", "124578"),
            ("note.x.y", "eq", "1", "1357"), ("name", "contains", "n2", "258"), ("email", "eq", None, "012345678"),
            ("ghost", "eq", 1, ""), ("ghost", "neq", 1, "012345678"), ("age", "eq", "1", ""), ("name", "gt", 1, ""),
        ):  # fmt: skip
            wanted = StoreFilter([Clause(field=field, operator=operator, value=value)])
            found = "".join(row["id"] for row in await store.list(wanted))
            assert found == expected, (field, operator, value, found)

    run(server, people, work)


TYPES = ("text", "citext", "char(4)", "int", "real", "double precision", "numeric", "boolean", "json", "jsonb", "date",
         "timestamptz", "uuid", "text[]")  # fmt: skip
CONTENTS: dict[str, Sequence[str]] = {
    "text": ("5", "10", "4.5", "", "a", "B", "ä", "true", "null", "2026-01-02"), "citext": ("a", "A", "5"),
    "char(4)": ("a", "5", "10"), "int": ("5", "-1", "10"), "real": ("0.1", "5"),
    "double precision": ("0.1", "4.5", "9007199254740992"),
    "numeric": ("5", "5.00000000000000000001", "0.1", "4.999999999999999999999"),
    "boolean": ("true", "false"), "json": ("5", '"5"', "null", '"a"', "[5]"),
    "jsonb": ("5", '"5"', '"10"', "null", '"a"', "true", '{"a": 1}', '["a"]'), "date": ("2026-01-02",),
    "timestamptz": ("2026-01-02T05:00:00+09:00",), "uuid": ("0e984725-c51c-4bf4-9960-e1c80e27aba0",),
    "text[]": ("{a,5}",),
}  # fmt: skip
ASKED: Sequence[Any] = (
    5, 4.5, 0.1, -1, 2**53, True, None, "5", "10", "a", "A", "ä", "", "true", "null", "2026-01-02", "0.1", '"5"', "[5]",
    "2026-01-01T20:00:00+00:00", "0E984725-C51C-4BF4-9960-E1C80E27ABA0",
)  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_the_server_leaves_out_nothing_that_a_filter_admits(kind: str, server: PostgrestServer) -> None:
    """Whatever the type of a column makes of a value: what it says of another type, in its own order, stays in."""
    table = f"t_{secrets.token_hex(4)}"
    server.execute("CREATE EXTENSION IF NOT EXISTS citext")
    server.execute(f'CREATE TABLE {table} (id text COLLATE "C" PRIMARY KEY, n {kind})')
    for number, content in enumerate(CONTENTS[kind]):
        server.execute(f"INSERT INTO {table} VALUES (%s, %s)", str(number), content)
    server.execute(f"INSERT INTO {table} VALUES ('none', NULL)")

    async def work(store: PostgrestAdapter) -> None:
        everything = await store.list()
        assert len(everything) == len(CONTENTS[kind]) + 1
        for operator in PostgrestAdapter.filter_operators:
            for value in ASKED:
                clause = Clause(field="n", operator=operator, value=value)
                conditions = await store._conditions(clause)
                left = {row["id"] async for row in store._narrowed(conditions)} if conditions else None
                for rechecked in (False, True):
                    wanted = {row["id"] for row in StoreFilter([clause], rechecked=rechecked).select(everything)}
                    assert left is None or wanted <= left, (clause, rechecked, wanted - left)

    run(server, table, work)


def test_the_server_leaves_out_what_it_can(server: PostgrestServer, people: str) -> None:
    server.execute(f"INSERT INTO {people} (id, name, age) SELECT n::text, 'n' || n, n FROM generate_series(1, 30) n")

    for operator, field, value, most in (
        ("eq", "name", "n7", 1), ("eq", "age", 7, 1), ("gt", "age", 25, 7), ("lte", "age", 2.5, 4),
        ("contains", "name", "n7", 1), ("neq", "email", None, 0),
    ):  # fmt: skip
        read: list[str] = []

        async def work(
            store: PostgrestAdapter, field: str = field, operator: str = operator, value: Any = value
        ) -> None:
            entry = store._entry

            def noted(row: Any) -> Any:
                read.append(row["id"])  # noqa: B023  # called in this round
                return entry(row)

            store._entry = noted  # type: ignore[method-assign]
            await store.list(StoreFilter([Clause(field=field, operator=operator, value=value)], rechecked=True))

        run(server, people, work)
        assert len(set(read)) <= most, (operator, field, value)


@pytest.mark.parametrize("column", ["select", "order", "limit", "offset", "columns", "or", "and", "on_conflict"])
def test_a_column_named_as_a_parameter_is_no_parameter(column: str, server: PostgrestServer) -> None:
    table = f"t_{secrets.token_hex(4)}"
    server.execute(f'CREATE TABLE {table} (id text PRIMARY KEY, "{column}" text)')
    server.execute(f"INSERT INTO {table} VALUES ('a', 'x'), ('b', 'id'), ('c', '1')")

    async def work(store: PostgrestAdapter) -> None:
        for value, key in (("x", "a"), ("id", "b"), ("1", "c")):
            for operator in ("eq", "contains"):
                wanted = StoreFilter([Clause(field=column, operator=operator, value=value)], rechecked=True)
                found = [row["id"] for row in await store.list(wanted)]
                assert found == [key], (operator, value)

    run(server, table, work)
    assert not any(target.count(f"{column}=") > 1 for _, target, _ in server.seen)


def test_rows_that_were_given_are_not_given_again(server: PostgrestServer, people: str) -> None:
    server.most = 2
    server.execute(f"INSERT INTO {people} (id, age) SELECT n::text, 1 FROM generate_series(1, 6) n")
    given: list[str] = []

    async def work(store: PostgrestAdapter) -> None:
        async for key, _ in store.iterate(StoreFilter({"age": 1})):
            given.append(key)
            server.fail = [403]

    with pytest.raises(StoreError):
        run(server, people, work)
    assert given == ["1", "2"]


def test_a_page_may_be_shorter_than_was_asked_for(server: PostgrestServer, people: str) -> None:
    server.most = 7
    server.execute(f"INSERT INTO {people} (id) SELECT to_char(n, 'FM000') FROM generate_series(1, 50) n")

    async def work(store: PostgrestAdapter) -> tuple[int, int]:
        return len(await store.list()), await store.count()

    assert run(server, people, work) == (50, 50)


def test_counting_downloads_no_rows(server: PostgrestServer, people: str) -> None:
    run(server, people, lambda store: store.count())
    assert [(method, "count=exact" in headers["Prefer"]) for method, _, headers in server.seen] == [("HEAD", True)]


def test_a_refused_row_says_code_and_status(server: PostgrestServer, people: str) -> None:
    server.execute(f"INSERT INTO {people} (id, email) VALUES ('a', 'a@x')")
    with pytest.raises(StoreError) as caught:
        run(server, people, lambda store: store.bulk_upsert([("b", {"email": "a@x"})], "set"))
    error = caught.value
    assert (error.code, error.status, error.key, error.refused) == ("23505", 409, "b", True)
    assert "duplicate key" in error.message


def test_a_server_in_trouble_is_asked_three_times(server: PostgrestServer, people: str) -> None:
    server.fail = [503, 500]
    assert run(server, people, lambda store: store.bulk_upsert([("a", {"name": "x"})], "set")) == WriteCounts(added=1)
    server.seen.clear()
    server.fail = [503] * 9
    with pytest.raises(StoreError) as caught:
        run(server, people, lambda store: store.get("a"))
    assert (caught.value.status, caught.value.refused, len(server.seen)) == (503, False, 3)


def test_key_schema_and_headers_are_sent(server: PostgrestServer) -> None:
    server.token = "secret-token"
    server.execute("CREATE SCHEMA IF NOT EXISTS books")
    server.execute('CREATE TABLE IF NOT EXISTS books."my lines" (no text PRIMARY KEY, "a b" text)')

    async def work(store: PostgrestAdapter) -> Any:
        await store.bulk_upsert([("x", {"a b": "1"})], "set")
        return await store.get("x")

    options = {"api_key": "secret-token", "primary_key": "no", "headers": {"apikey": "other"}}
    assert run(server, "books.my lines", work, **options) == {"no": "x", "a b": "1"}
    for _, _, headers in server.seen:
        assert headers["apikey"] == "other" and headers["Authorization"] == "Bearer secret-token"
    with pytest.raises(StoreError) as caught:
        run(server, "books.my lines", work, primary_key="no")
    assert (caught.value.status, caught.value.code) == (401, "PGRST301")


def test_many_keys_are_asked_for_in_several_urls(server: PostgrestServer, people: str) -> None:
    keys = [f"{n:04d}" + "ü" * 100 for n in range(300)]

    async def work(store: PostgrestAdapter) -> tuple[int, int]:
        await store.bulk_upsert([(key, {"name": "x"}) for key in keys], "set")
        return len(await store.get_many(keys)), await store.delete_many(keys)

    assert run(server, people, work) == (300, 300)
    assert max(len(target) for _, target, _ in server.seen) < 8000


def test_without_a_url_the_configuration_is_wrong() -> None:
    chosen = choose("postgrest", "x", "t", {}, StoreConfiguration(), {})
    with pytest.raises(ConfigurationError, match="needs a url"):
        PostgrestAdapter.of(chosen, None)
