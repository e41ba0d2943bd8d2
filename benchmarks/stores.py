"""What a flush costs: records a second into each kind of store, in batches of 500 as runs write them.

python -m benchmarks.stores                        all kinds, on the databases of this machine
python -m benchmarks.stores --records 5000 sqlite  some
"""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from reqon.clock import SYSTEM, perf_seconds
from reqon.http.connections import Connections
from reqon.stores.adapter import BATCH, Adapter
from reqon.stores.base import WriteMode
from reqon.stores.databases import sql_url
from reqon.stores.file import FileStore
from reqon.stores.postgrest import PostgrestAdapter
from reqon.stores.sql import SqlAdapter
from reqon.stores.store_file import StoreFile
from reqon.values import Record
from tests.support.databases import mariadb_database, postgres_database
from tests.support.postgrest_server import PostgrestServer

KINDS = ("file", "sqlite", "postgres", "mysql", "postgrest")
Entries = Sequence[tuple[str, Record]]


def entries(number: int, turn: int) -> Entries:
    """Records as an API gives them, about 250 bytes."""
    return [
        (f"cust_{n:07d}", {"id": f"cust_{n:07d}", "name": f"Customer {n}", "total": n * 1.25, "turn": turn,
                           "address": {"street": "1 Long Road", "town": "Springfield", "tags": ["a", "b", "c"]}})
        for n in range(number)
    ]  # fmt: skip


def in_file(directory: Path, number: int) -> None:
    file = StoreFile(directory / "x.json")
    file.open()
    store = FileStore("x", file)

    def write(turn: int) -> None:
        found = entries(number, turn)
        for at in range(0, number, BATCH):
            store.put_many(found[at : at + BATCH])
            store.flush()
        store.sync()

    for what, turn in (("new", 1), ("unchanged", 1), ("changed", 2)):
        began = perf_seconds()
        write(turn)
        tell("file", what, number, began)
    began = perf_seconds()
    assert sum(1 for _ in store.records()) == number
    tell("file", "read", number, began)
    store.close()


async def in_adapter(kind: str, target: Any, number: int) -> None:
    adapter = Adapter("x", target)
    await adapter.open()

    async def write(turn: int) -> None:
        found = entries(number, turn)
        for at in range(0, number, BATCH):
            await adapter.write(found[at : at + BATCH], WriteMode.REPLACE)

    async def read() -> None:
        assert sum([len(batch) async for batch in adapter.entries()]) == number

    async def look_up() -> None:
        for n in range(0, number, max(1, number // 500)):
            assert await adapter.get(f"cust_{n:07d}") is not None

    steps: list[tuple[str, Callable[[], Awaitable[None]], int]] = [
        ("new", lambda: write(1), number),
        ("unchanged", lambda: write(1), number),
        ("changed", lambda: write(2), number),
        ("read", read, number),
        ("one by one", look_up, 500),
    ]
    for what, step, count in steps:
        began = perf_seconds()
        await step()
        tell(kind, what, count, began)
    await adapter.close()


def tell(kind: str, what: str, number: int, began: float) -> None:
    print(f"{kind:<10} {what:<11} {number / (perf_seconds() - began):>12,.0f} records/s")


@contextmanager
def postgrest() -> Iterator[tuple[str, Connections]]:
    """The stand-in of the tests: a figure for our side, not for PostgREST."""
    with postgres_database() as url, PostgrestServer(url) as server:
        server.execute("CREATE TABLE x (id text PRIMARY KEY, data json)")
        yield server.url, Connections(clock=SYSTEM, environment={}, state_directory=None, random=lambda: 0.5)


async def over_http(number: int, url: str, shared: Connections) -> None:
    await in_adapter("postgrest", PostgrestAdapter("x", url, shared, data_column="data"), number)
    await shared.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    arguments.add_argument("--records", type=int, default=20_000)
    chosen = arguments.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for kind in chosen.kinds or KINDS:
            if kind == "file":
                in_file(directory, chosen.records)
            elif kind == "postgrest":
                asyncio.run(over_http(chosen.records, *stack.enter_context(postgrest())))
            else:
                made = {"postgres": postgres_database, "mysql": mariadb_database}
                url = f"sqlite:///{directory}/x.db" if kind == "sqlite" else stack.enter_context(made[kind]())
                target = SqlAdapter(kind, "x", sql_url(kind, url, directory))
                asyncio.run(in_adapter(kind, target, chosen.records))


if __name__ == "__main__":
    main()
