"""Records in a table of SQLite, PostgreSQL or MariaDB, by SQLAlchemy (spec/runtime.md 9.6).

One table for each store: `key`, `data` (the record as JSON text, so that integers of any size stay exact), `seq` (the
order of insertion). Keys compare by their bytes, whatever the database's collation. All methods block and are safe in
any thread. Imported only when a mission has such a store.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from reqon.clock import wait_blocking
from reqon.errors import ConfigurationError, StoreError
from reqon.files import create_exclusive, make_directory
from reqon.stores.base import WriteCounts, absent
from reqon.stores.databases import DIALECTS, ENGINES, BinaryKey, PlainKey, code_of
from reqon.stores.filters import EVERYTHING, StoreFilter
from reqon.stores.sql_conditions import condition_of
from reqon.values import OWN_DEPTH, Record, decode, encode, equal_json

T = TypeVar("T")
Records: TypeAlias = list[Record]
Names: TypeAlias = list[str]
ATTEMPTS = 5
_PAUSE_SECONDS = 0.05
_READ = 500
_EXACT = 2**53
# What a database says when a transaction only came at a bad moment: deadlock, serialization, lock timeout.
_TRY_AGAIN = frozenset(("40001", "40P01", "55P03", "1205", "1213", "SQLITE_BUSY", "SQLITE_LOCKED"))


class SqlAdapter:
    """One table, as a `StoreAdapter` with all optional methods."""

    thread_safe = True
    filter_operators = ("eq", "neq", "gt", "gte", "lt", "lte")

    def __init__(self, kind: str, identifier: str, url: URL, *, schema: str | None = None, blind: bool = False) -> None:
        self.kind = kind
        self.identifier = identifier
        self.url = url
        self._dialect = DIALECTS[kind]
        self._blind = blind  # writes without looking what is there
        if self._dialect.schemas and schema is None and "." in identifier:
            schema, identifier = identifier.split(".", 1)
        for name in filter(None, (schema, identifier)):
            if len(name.encode()) > self._dialect.longest_name or "\0" in name:
                raise ConfigurationError(
                    f"'{name[:40]}' cannot be the name of a table: {kind} takes {self._dialect.longest_name} bytes"
                )
        if not identifier:
            raise ConfigurationError(f"a {kind} store needs the name of a table", hint='as in sql("orders")')
        self._name, self._schema = identifier, schema
        self._engine: Engine | None = None
        self._narrows = True

    @cached_property
    def _table(self) -> sa.Table:
        kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
            "sqlite": (sa.Text(), sa.Integer(), {"autoincrement": False}),
            "postgres": (PlainKey(collation="C"), sa.BigInteger(), {"server_default": sa.Identity()}),
            "mysql": (BinaryKey(1024), sa.BigInteger(), {"server_default": sa.FetchedValue()}),
        }
        key, seq, numbered = kinds[self.kind]
        return sa.Table(
            self._name,
            sa.MetaData(),
            sa.Column("key", key, primary_key=True, nullable=False, autoincrement=False),
            sa.Column("data", sa.Text(), nullable=False),
            sa.Column("seq", seq, nullable=False, unique=True, **numbered),
            schema=self._schema,
        )

    # --- opening ------------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, and make the table if there is none.

        Raises:
            ConfigurationError: the driver is not installed. StoreError: the database cannot be used.
        """
        if self.kind == "sqlite" and (path := self.url.database) and path != ":memory:":
            make_directory(Path(path).parent)
            create_exclusive(Path(path))  # ours alone; the files beside it take its mode
        try:
            self._engine = ENGINES.take(self.kind, self.url)
        except ModuleNotFoundError as error:
            extra = self._dialect.extra
            raise ConfigurationError(
                f"{self.kind} stores need the package {self._dialect.package}", hint=f"pip install 'reqon[{extra}]'"
            ) from error
        self._try(self._prepare, "init")

    def _prepare(self, connection: Connection) -> None:
        table = self._table
        found = sa.inspect(connection)
        self._refuse_other_case(found)
        if not found.has_table(self._name, schema=self._schema):
            try:
                with self._transaction(connection):
                    self._create(connection)
            except DBAPIError:
                # Another process may have made it in this moment.
                if not sa.inspect(connection).has_table(self._name, schema=self._schema):
                    raise
            return
        columns = {column["name"] for column in found.get_columns(self._name, schema=self._schema)}
        if missing := [c.name for c in table.columns if c.name not in columns]:
            raise StoreError(
                f"the table {self._name} has no column {', '.join(missing)}: it is not one that Reqon made",
                store=self.identifier,
                operation="init",
                hint="name another table; postgrest stores write into columns of your own",
            )

    def _create(self, connection: Connection) -> None:
        if self.kind != "mysql":
            self._table.create(connection)
            return
        # SQLAlchemy numbers primary keys only.
        name = connection.dialect.identifier_preparer.format_table(self._table)
        connection.exec_driver_sql(
            f"CREATE TABLE IF NOT EXISTS {name} (`key` VARBINARY(1024) NOT NULL PRIMARY KEY, "
            "data LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, "
            "seq BIGINT NOT NULL AUTO_INCREMENT UNIQUE) ENGINE=InnoDB"
        )

    def _refuse_other_case(self, found: sa.Inspector) -> None:
        if self.kind != "sqlite":
            return
        for name in found.get_table_names():
            if name.lower() == self._name.lower() and name != self._name:
                raise StoreError(
                    f"there is a table {name}, and to SQLite {self._name} is the same name",
                    store=self.identifier,
                    operation="init",
                    hint="give one of the stores another name",
                )

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            ENGINES.give_back(self.url)

    # --- transactions -------------------------------------------------------------------------------------------------

    def _try(self, work: Callable[[Connection], T], operation: str, key: str | None = None) -> T:
        """What some work answers; done again if the connection broke or another transaction was in its way."""
        attempt = 1
        while True:
            assert self._engine is not None
            try:
                with self._engine.connect() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                if isinstance(getattr(error, "orig", None), UnicodeEncodeError):
                    raise self._half(operation, key) from error
                code = code_of(error)
                broken = isinstance(error, DBAPIError) and error.connection_invalidated
                raced = isinstance(error, IntegrityError) and operation == "set" and attempt < 3
                if attempt >= ATTEMPTS or not (broken or raced or code in _TRY_AGAIN):
                    raise self._failed(error, operation, key, code) from error
            except UnicodeEncodeError as error:
                raise self._half(operation, key) from error
            wait_blocking(_PAUSE_SECONDS * 2**attempt)
            attempt += 1

    def _half(self, operation: str, key: str | None) -> StoreError:
        return StoreError(
            f"the {self.kind} store '{self.identifier}' cannot hold a key with half a character in it",
            store=self.identifier,
            operation=operation,
            key=key,
            refused=True,
        )

    def _failed(self, error: SQLAlchemyError, operation: str, key: str | None, code: str | None) -> StoreError:
        original: Any = getattr(error, "orig", None)
        numbered = self.kind == "mysql" and len(getattr(original, "args", ())) > 1
        told = original.args[1] if numbered else original or error
        reason = (str(told).strip() or type(error).__name__).splitlines()[0][:300]
        kinds = ("IntegrityError", "DataError")
        return StoreError(
            f"the {self.kind} store '{self.identifier}' {_VERBS[operation]}: {reason}",
            store=self.identifier,
            operation=operation,
            key=key,
            code=code,
            refused=operation == "set" and type(error).__name__ in kinds,
        )

    @contextmanager
    def _transaction(self, connection: Connection) -> Iterator[None]:
        in_hand = self.kind == "sqlite"  # the write lock at once: two that read first would stand in each other's way
        if in_hand:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield
            if in_hand:
                connection.exec_driver_sql("COMMIT")
            else:
                connection.commit()
        except BaseException:
            if in_hand:
                with suppress(SQLAlchemyError):
                    connection.exec_driver_sql("ROLLBACK")
            else:
                connection.rollback()
            raise

    # --- writing ------------------------------------------------------------------------------------------------------

    def bulk_upsert(self, records: Sequence[tuple[str, Record]], mode: str) -> WriteCounts:
        """Write a batch in one transaction."""
        key = records[0][0] if len(records) == 1 else None
        texts = [(name, encode(record).decode()) for name, record in records]
        if self._blind and mode == "set":
            return self._try(lambda connection: self._overwrite(connection, texts), "set", key)
        return self._try(lambda connection: self._merge(connection, records, texts, mode), "set", key)

    def _merge(
        self, connection: Connection, records: Sequence[tuple[str, Record]], texts: Sequence[tuple[str, str]], mode: str
    ) -> WriteCounts:
        counts = WriteCounts()
        with self._transaction(connection):
            stored = self._lock_rows(connection, {key for key, _ in records})
            now: dict[str, str] = dict(stored)
            for (key, record), (_, text) in zip(records, texts, strict=True):
                old = now.get(key)
                if old is None:
                    if mode == "update":
                        raise absent(self.identifier, key)
                    now[key] = text
                    counts.added += 1
                    continue
                new = text if mode == "set" else _merged(old, record)
                if _same(old, new):
                    counts.unchanged += 1
                else:
                    now[key] = new
                    counts.updated += 1
            self._insert(connection, [(key, text) for key, text in now.items() if key not in stored])
            changed = [(key, text) for key, text in now.items() if key in stored and text is not stored[key]]
            if changed and self.kind == "mysql":
                # Its driver sends many rows at once for an INSERT only.
                connection.execute(self._upsert(), [{"key": key, "data": text} for key, text in changed])
            elif changed:
                t = self._table
                statement = t.update().where(t.c.key == sa.bindparam("k")).values(data=sa.bindparam("d"))
                connection.execute(statement, [{"k": key, "d": text} for key, text in changed])
        return counts

    def _lock_rows(self, connection: Connection, keys: Iterable[str]) -> dict[str, str]:
        t = self._table
        found: dict[str, str] = {}
        ordered = sorted(keys)  # always in one order, so that two batches do not wait for each other
        for at in range(0, len(ordered), _READ):
            query = sa.select(t.c.key, t.c.data).where(t.c.key.in_(ordered[at : at + _READ])).order_by(t.c.key)
            if self.kind != "sqlite":
                query = query.with_for_update()
            found.update((row.key, row.data) for row in connection.execute(query))
        return found

    def _insert(self, connection: Connection, rows: Sequence[tuple[str, str]]) -> None:
        if not rows:
            return
        connection.execute(self._table.insert().inline(), self._numbered(connection, rows))

    def _numbered(self, connection: Connection, rows: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """The rows as parameters; in SQLite with the numbers that other databases give by themselves."""
        if self.kind != "sqlite":
            return [{"key": key, "data": text} for key, text in rows]
        last = connection.execute(sa.select(sa.func.max(self._table.c.seq))).scalar() or 0
        return [{"key": key, "data": text, "seq": last + n} for n, (key, text) in enumerate(rows, 1)]

    def _overwrite(self, connection: Connection, texts: Sequence[tuple[str, str]]) -> WriteCounts:
        """Insert or replace, without looking what is there."""
        rows = list(dict(texts).items())
        with self._transaction(connection):
            connection.execute(self._upsert(), self._numbered(connection, rows))
        return WriteCounts(added=len(texts))

    def _upsert(self) -> Any:
        """The statement that inserts rows, or replaces their data where the key is there; each database has its own."""
        if self.kind == "mysql":
            from sqlalchemy.dialects.mysql import insert  # noqa: PLC0415  # as said

            made = insert(self._table)
            return made.on_duplicate_key_update(data=made.inserted.data)
        from sqlalchemy.dialects import postgresql, sqlite  # noqa: PLC0415  # as said

        dialect: Any = postgresql if self.kind == "postgres" else sqlite
        written = dialect.insert(self._table).inline()
        return written.on_conflict_do_update(index_elements=["key"], set_={"data": written.excluded.data})

    def set(self, key: str, value: Record) -> None:
        self.bulk_upsert([(key, value)], "set")

    def update(self, key: str, partial: Record) -> None:
        self.bulk_upsert([(key, partial)], "merge")

    def delete(self, key: str) -> int:
        return self.delete_many([key])

    def delete_many(self, keys: Sequence[str]) -> int:
        """Remove records in one transaction; how many were there."""

        def work(connection: Connection) -> int:
            with self._transaction(connection):
                gone = 0
                for at in range(0, len(keys), _READ):
                    part = self._table.c.key.in_(keys[at : at + _READ])
                    gone += connection.execute(self._table.delete().where(part)).rowcount
                return gone

        return self._try(work, "delete", keys[0] if len(keys) == 1 else None)

    def clear(self) -> int:
        def work(connection: Connection) -> int:
            with self._transaction(connection):
                return connection.execute(self._table.delete()).rowcount

        return self._try(work, "clear")

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, key: str) -> Record | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[str]) -> dict[str, Record]:
        t = self._table

        def work(connection: Connection) -> dict[str, Record]:
            found: dict[str, Record] = {}
            for at in range(0, len(keys), _READ):
                query = sa.select(t.c.key, t.c.data).where(t.c.key.in_(keys[at : at + _READ]))
                found.update((row.key, self._built(row.data, row.key)) for row in connection.execute(query))
            return found

        return self._try(work, "get", keys[0] if len(keys) == 1 else None)

    def _built(self, data: str, key: str) -> Record:
        record = decode(data, depth=OWN_DEPTH)
        if not isinstance(record, dict):
            raise StoreError(
                f"the record '{key}' of the {self.kind} store '{self.identifier}' is no JSON object",
                store=self.identifier,
                operation="get",
                key=key,
            )
        return record

    def count(self, filter: StoreFilter | None = None) -> int:  # noqa: A002  # documented so
        if filter is not None and filter.clauses:
            return sum(1 for _ in self.iterate(replace(filter, limit=None, offset=0)))
        return self._try(
            lambda connection: int(
                connection.execute(sa.select(sa.func.count()).select_from(self._table)).scalar() or 0
            ),
            "count",
        )

    def list(self, filter: StoreFilter | None = None) -> Records:  # noqa: A002  # documented so
        return [record for _, record in self.iterate(filter)]

    def keys(self, filter: StoreFilter | None = None) -> Names:  # noqa: A002  # as in list
        """The keys of the records that match, in order."""
        wanted = filter or EVERYTHING
        if wanted.clauses:
            return [key for key, _ in self.iterate(wanted)]
        query = sa.select(self._table.c.key).order_by(self._table.c.seq)
        return self._try(lambda connection: list(connection.execute(query).scalars()), "list")

    def iterate(
        self,
        filter: StoreFilter | None = None,  # noqa: A002  # documented so
        batch_size: int = 500,
    ) -> Iterator[tuple[str, Record]]:
        """Keys and records in order. Each batch is a query of its own, so that no connection is held in between."""
        wanted = filter or EVERYTHING
        at, left = 0, wanted.limit
        skip = wanted.offset
        while left is None or left > 0:
            rows = self._rows_after(at, wanted, batch_size)
            for seq, key, data in rows:
                at = seq
                record = self._built(data, key)
                if not wanted.admits(record):
                    continue
                if skip:
                    skip -= 1
                    continue
                if left is not None:
                    if not left:
                        return
                    left -= 1
                yield key, record
            if len(rows) < batch_size:
                return

    def _rows_after(self, at: int, wanted: StoreFilter, number: int) -> Sequence[Any]:
        t = self._table
        every = sa.select(t.c.seq, t.c.key, t.c.data).where(t.c.seq > at).order_by(t.c.seq).limit(number)
        conditions: list[sa.ColumnElement[bool]] = []
        if self._narrows:
            asked = [condition_of(self.kind, t.c.data, clause) for clause in wanted.clauses]
            conditions = [condition for condition in asked if condition is not None]
        if conditions:
            narrowed = every.where(*conditions)
            try:
                return self._try(lambda connection: connection.execute(narrowed).fetchall(), "list")
            except StoreError:
                self._narrows = False  # its JSON functions do not read all that is there: Python alone decides
        return self._try(lambda connection: connection.execute(every).fetchall(), "list")


def _merged(old: str, record: Record) -> str:
    return encode({**decode(old, depth=OWN_DEPTH), **record}).decode()


def _same(old: str, new: str) -> bool:
    return old == new or equal_json(decode(old, depth=OWN_DEPTH), decode(new, depth=OWN_DEPTH))


_VERBS = {
    "init": "cannot be opened",
    "get": "cannot be read",
    "list": "cannot be read",
    "count": "cannot be counted",
    "set": "refused a write",
    "delete": "cannot delete",
    "clear": "cannot be cleared",
}
