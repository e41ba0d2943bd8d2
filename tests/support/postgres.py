"""A PostgreSQL database of a test's own, on the server of this machine; dropped afterwards."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.support.peers import needs


@contextmanager
def database() -> Iterator[str]:
    """The URL of a new, empty database. Skips, or fails, where there is no server: see `peers`."""
    server = f"postgresql://postgres@{needs('postgresql')}"
    name = f"reqon_test_{secrets.token_hex(6)}"
    ask(f"{server}/postgres", f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        yield f"{server}/{name}"
    finally:
        ask(f"{server}/postgres", f"DROP DATABASE {name} WITH (FORCE)")


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    """What a statement answers, asked beside Reqon; nothing for one that changes."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []
