"""Databases of tests' own, on the servers of this machine, dropped afterwards."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pymysql
import pytest

POSTGRES = os.environ.get("REQON_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")
MARIADB = "127.0.0.1"
CONNECT_SECONDS = 10


def missing(server: str, error: Exception) -> None:
    """Skip with one clear line; where everything is required, fail."""
    line = f"no {server} on this machine: {str(error).strip().splitlines()[0]}"
    if os.environ.get("REQON_TEST_REQUIRE") == "all":
        pytest.fail(line)
    pytest.skip(line)


@contextmanager
def postgres_database() -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    name = f"reqon_{secrets.token_hex(6)}"
    try:
        server = psycopg.connect(f"{POSTGRES}/postgres", autocommit=True, connect_timeout=CONNECT_SECONDS)
    except psycopg.OperationalError as error:
        missing("PostgreSQL", error)
        raise
    with server:
        server.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield f"{POSTGRES}/{name}"
        finally:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@contextmanager
def mariadb_database() -> Iterator[str]:
    """The URL of an empty MariaDB database, whose collation takes case pairs and accents for equal."""
    name = f"reqon_{secrets.token_hex(6)}"
    try:
        server = pymysql.connect(host=MARIADB, user="root", connect_timeout=CONNECT_SECONDS)
    except pymysql.err.OperationalError as error:
        missing("MariaDB", error)
        raise
    with server, server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        try:
            yield f"mariadb://root@{MARIADB}/{name}"
        finally:
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")


@contextmanager
def sqlite_database(directory: Path) -> Iterator[str]:
    """The URL of a SQLite file that is still to be made."""
    yield f"sqlite:///{directory / 'test.db'}"
