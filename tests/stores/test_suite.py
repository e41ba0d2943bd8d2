"""All our stores, and users' own adapters, pass one suite."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reqon.stores.databases import sql_url
from reqon.stores.file import FileStore
from reqon.stores.filters import StoreFilter, chosen
from reqon.stores.memory import MemoryStore
from reqon.stores.sql import SqlAdapter
from reqon.stores.store_file import StoreFile
from reqon.testing import Check, store_suite
from reqon.values import Record
from tests.support.databases import mariadb_database, postgres_database, sqlite_database

Make = Callable[[], Any]


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with (
        sqlite_database(tmp_path_factory.mktemp("sqlite")) as sqlite,
        postgres_database() as postgres,
        mariadb_database() as mysql,
    ):
        yield {"sqlite": sqlite, "postgres": postgres, "mysql": mysql}


def sql(kind: str, databases: dict[str, str], **options: Any) -> SqlAdapter:
    """A table of its own."""
    return SqlAdapter(kind, f"t_{secrets.token_hex(4)}", sql_url(kind, databases[kind], Path("unused")), **options)


class Plain:
    """What a user would write first: the six methods, plain."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def get(self, key: str) -> Record | None:
        return self.records.get(key)

    def set(self, key: str, value: Record) -> None:
        self.records[key] = value

    def update(self, key: str, partial: Record) -> None:
        self.records[key] = {**self.records.get(key, {}), **partial}

    def delete(self, key: str) -> None:
        self.records.pop(key, None)

    def list(self, filter: StoreFilter | None = None) -> "list[Record]":  # noqa: A002
        return chosen(self.records.values(), filter)

    def clear(self) -> None:
        self.records.clear()


class Async:
    """The same, all coroutine functions, with an iterator."""

    def __init__(self) -> None:
        self._plain = Plain()

    async def get(self, key: str) -> Record | None:
        return self._plain.get(key)

    async def set(self, key: str, value: Record) -> None:
        self._plain.set(key, value)

    async def update(self, key: str, partial: Record) -> None:
        self._plain.update(key, partial)

    async def delete(self, key: str) -> None:
        self._plain.delete(key)

    async def list(self, filter: StoreFilter | None = None) -> "list[Record]":  # noqa: A002
        return self._plain.list(filter)

    async def clear(self) -> None:
        self._plain.clear()

    async def iterate(self, filter: StoreFilter | None = None, batch_size: int = 500) -> Any:  # noqa: A002
        for key, record in list(self._plain.records.items()):
            if chosen([record], filter):
                yield key, record


class Asked(Plain):
    """One that is asked for all that a loop compares."""

    filter_operators = ("eq", "neq", "gt", "gte", "lt", "lte", "contains")


def checks() -> list[Check]:
    return store_suite(Plain)


def named(name: str, *, ordered: bool = True) -> Callable[[Make], Check]:
    """The check of this name for whatever is made."""
    return lambda make: next(check for check in store_suite(make, ordered=ordered) if check.name == name)


each = pytest.mark.parametrize("check", [named(check.name) for check in checks()], ids=[c.name for c in checks()])


@each
def test_a_memory_store_passes(check: Callable[[Make], Check]) -> None:
    """R10"""
    check(MemoryStore)()


@each
def test_a_file_store_passes(check: Callable[[Make], Check], tmp_path: Path) -> None:
    """R10"""

    def make() -> FileStore:
        file = StoreFile(tmp_path / "x.json")
        file.open()
        return FileStore("x", file)

    check(make)()


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mysql"])
@each
def test_a_table_passes(check: Callable[[Make], Check], kind: str, databases: dict[str, str]) -> None:
    """R10"""
    check(lambda: sql(kind, databases))()


@pytest.mark.parametrize("make", [Plain, Async, Asked])
@each
def test_an_adapter_of_a_users_own_passes(check: Callable[[Make], Check], make: Make) -> None:
    check(make)()


def test_the_suite_finds_an_adapter_that_compares_too_strictly() -> None:
    class Strict(Asked):
        def list(self, filter: StoreFilter | None = None) -> "list[Record]":  # noqa: A002
            return super().list(replace(filter, rechecked=False) if filter is not None else None)

    check = named("a filter that is rechecked loses nothing")
    check(Asked)()
    with pytest.raises(AssertionError, match="n eq None, rechecked: f must stay in"):
        check(Strict)()


def test_the_suite_finds_an_adapter_that_forgets() -> None:
    class Forgetful(Plain):
        def set(self, key: str, value: Record) -> None:
            super().set(key.lower(), {k: v for k, v in value.items() if v is not None})

    failed = []
    for check in store_suite(Forgetful):
        try:
            check()
        except AssertionError:
            failed.append(check.name)
    assert "what is set is got, to the last digit" in failed and "odd keys stay apart" in failed
