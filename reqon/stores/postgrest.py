"""Records in a table behind PostgREST, by our own HTTP client (spec/runtime.md 9.6).

Without `dataColumn` a record's fields are columns of the user's own table: what a record leaves out keeps its value,
and a column without a value reads as null. With it the row is `{key, data}`. Order is that of the keys.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias
from urllib.parse import quote

from reqon.errors import ConfigurationError, FetchError, StoreError
from reqon.http.connections import Connections
from reqon.http.messages import Reply, Request, SourceSettings
from reqon.http.retry import RetryPolicy
from reqon.stores.base import WriteCounts, absent
from reqon.stores.config import ChosenStore
from reqon.stores.filters import EVERYTHING, Clause, StoreFilter, chosen
from reqon.values import JsonError, Record, Value, decode, encode, equal_json

TIMEOUT_SECONDS = 30
ATTEMPTS = 3
PAGE = 1000
_ROWS = 500
_URL_CHARACTERS = 6000  # many servers stop at 8,000
_RETRY = RetryPolicy(max_attempts=ATTEMPTS, max_delay_seconds=5)
# Parameters of the protocol: a column of such a name cannot be asked about.
_RESERVED = frozenset(("select", "order", "limit", "offset", "columns", "on_conflict", "or", "and", "not"))
_ORDERS = frozenset(("gt", "gte", "lt", "lte"))
_EXACT = 2**53
Records: TypeAlias = list[Record]
Names: TypeAlias = list[str]


class PostgrestAdapter:
    """One table, as a `StoreAdapter` with all optional methods."""

    filter_operators = ("eq", "neq", "gt", "gte", "lt", "lte", "contains")

    def __init__(
        self,
        table: str,
        url: str,
        connections: Connections,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        primary_key: str = "id",
        schema: str | None = None,
        pool_size: int = 10,
        data_column: str | None = None,
        blind: bool = False,
    ) -> None:
        if schema is None and "." in table:
            schema, table = table.split(".", 1)
        if not table:
            raise ConfigurationError("a postgrest store needs the name of a table", hint='as in postgrest("orders")')
        own: dict[str, str] = {}
        if api_key:
            own |= {"apikey": api_key, "Authorization": f"Bearer {api_key}"}
        if schema:
            own |= {"Accept-Profile": schema, "Content-Profile": schema}
        replaced = {name.lower() for name in headers or {}}
        own = {name: value for name, value in own.items() if name.lower() not in replaced} | dict(headers or {})
        self.table = table
        self.key = primary_key
        self._path = "/" + quote(table, safe="")
        self._column = data_column
        self._blind = blind
        self._numeric: dict[str, bool] = {}
        self._slots = asyncio.Semaphore(pool_size)
        settings = SourceSettings(
            name=table,
            base=url.rstrip("/"),
            auth="none",
            headers=tuple(own.items()),
            timeout_seconds=TIMEOUT_SECONDS,
            retry=_RETRY,
            max_redirects=0,
        )
        self._client = connections.client(settings, None, lambda _: None, lambda *_: False)

    @classmethod
    def of(cls, store: ChosenStore, connections: Connections | None) -> "PostgrestAdapter":
        """The adapter of an entry.

        Raises:
            ConfigurationError: it has no url, or an option of another kind.
        """
        url = store.option("url", str)
        if not url:
            raise ConfigurationError(
                f"the postgrest store '{store.identifier}' needs a url",
                hint='in its configuration: { "type": "postgrest", "url": "https://db.example.org/rest/v1" }',
            )
        assert connections is not None
        return cls(
            store.identifier,
            url,
            connections,
            api_key=store.option("apiKey", str),
            headers={name: str(value) for name, value in store.option("headers", dict, {}).items()},
            primary_key=store.option("primaryKey", str, "id"),
            schema=store.option("schema", str),
            pool_size=max(1, store.option("poolSize", int, 10)),
            data_column=store.option("dataColumn", str),
            blind=not store.option("countChanges", bool, True),
        )

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _send(
        self,
        method: str,
        query: Sequence[tuple[str, str]],
        operation: str,
        *,
        key: str | None = None,
        body: Value = None,
        prefer: str = "",
    ) -> Reply:
        """One request. All that are sent here may be repeated: they say what shall be, not what shall change."""
        written = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
        request = Request(
            method=method,
            target=f"{self._path}?{written}" if written else self._path,
            template=self._path,
            headers=(("Prefer", prefer),) if prefer else (),
            body=body,
            has_body=body is not None,
            retry=_RETRY,
            retry_written=True,
        )
        try:
            async with self._slots:
                return await self._client.send(request)
        except FetchError as error:
            raise self._failed(error, operation, key) from error
        except UnicodeEncodeError as error:
            raise StoreError(
                f"the postgrest store '{self.table}' cannot hold a text with half a character in it",
                store=self.table, operation=operation, key=key, refused=True,
            ) from error  # fmt: skip

    def _failed(self, error: FetchError, operation: str, key: str | None) -> StoreError:
        body = error.body if isinstance(error.body, Mapping) else {}
        said = body.get("message")
        status = error.status_code or None
        code = body.get("code")
        return StoreError(
            f"the postgrest store '{self.table}' failed: {said if isinstance(said, str) else error.message}",
            store=self.table,
            operation=operation,
            key=key,
            code=str(code) if code is not None else None,
            status=status,
            refused=operation == "set" and status in (400, 409, 413, 422),
            hint=str(body["hint"]) if body.get("hint") else None,
        )

    def _is(self, keys: Sequence[str]) -> tuple[str, str]:
        if len(keys) == 1:
            return self.key, f"eq.{keys[0]}"
        return self.key, "in.(" + ",".join(map(_quoted, keys)) + ")"

    def _portions(self, keys: Sequence[str]) -> Iterable[Sequence[str]]:
        """Keys, as many as fit into one URL."""
        portion: list[str] = []
        length = 0
        for key in keys:
            size = len(quote(_quoted(key), safe="")) + 3
            if portion and (length + size > _URL_CHARACTERS or len(portion) == _ROWS):
                yield portion
                portion, length = [], 0
            portion.append(key)
            length += size
        if portion:
            yield portion

    # --- rows and records ---------------------------------------------------------------------------------------------

    def _row(self, key: str, record: Record) -> Record:
        return {self.key: key, self._column: record} if self._column else {**record, self.key: key}

    def _entry(self, row: Record) -> tuple[str, Record]:
        key = row.get(self.key)
        name = key if isinstance(key, str) else encode(key).decode()
        record = row.get(self._column) if self._column else row
        return name, record if isinstance(record, dict) else {}

    def _same(self, stored: Record, record: Record) -> bool:
        """Whether writing a record's fields would change nothing."""
        if self._column:
            return equal_json(stored, record)
        return all(equal_json(stored.get(name), value) for name, value in record.items() if name != self.key)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def get(self, key: str) -> Record | None:
        reply = await self._send("GET", [self._is([key]), ("limit", "1")], "get", key=key)
        rows = self._rows(reply, "get")
        return self._entry(rows[0])[1] if rows else None

    def _rows(self, reply: Reply, operation: str) -> Records:
        if not isinstance(reply.value, list):
            raise StoreError(
                f"the postgrest store '{self.table}' answered no list of rows: is its url that of PostgREST?",
                store=self.table,
                operation=operation,
                status=reply.status,
            )
        return reply.value

    async def get_many(self, keys: Sequence[str]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for portion in self._portions(keys):
            reply = await self._send("GET", [self._is(portion)], "get")
            found.update(map(self._entry, self._rows(reply, "get")))
        return found

    async def count(self, filter: StoreFilter | None = None) -> int:  # noqa: A002  # documented so
        if filter is not None and filter.clauses:
            return len([key async for key, _ in self.iterate(filter)])
        reply = await self._send("HEAD", [("select", self.key)], "count", prefer="count=exact")
        total = _total(reply)
        if total is None:
            raise StoreError(
                f"the postgrest store '{self.table}' did not say how many rows there are",
                store=self.table,
                operation="count",
                status=reply.status,
            )
        return total

    async def list(self, filter: StoreFilter | None = None) -> Records:  # noqa: A002  # documented so
        wanted = filter or EVERYTHING
        if wanted.limit == 0:
            return []
        found = [record async for _, record in self.iterate(wanted)]
        return chosen(found, StoreFilter(limit=wanted.limit, offset=wanted.offset))

    async def keys(self, filter: StoreFilter | None = None) -> Names:  # noqa: A002  # as in list
        """The keys of the records that match, in order."""
        if filter is not None and filter.clauses:
            return [key async for key, _ in self.iterate(filter)]
        return [self._entry(row)[0] async for row in self._every([("select", self.key)])]

    async def iterate(
        self,
        filter: StoreFilter | None = None,  # noqa: A002  # documented so
        batch_size: int = PAGE,  # noqa: ARG002  # pages are of one size
    ) -> AsyncIterator[tuple[str, Record]]:
        """Keys and records in the order of keys, page by page."""
        wanted = replace(filter or EVERYTHING, limit=None, offset=0)
        narrowed = [condition for clause in wanted.clauses for condition in await self._conditions(clause)]
        async for row in self._narrowed(narrowed):
            key, record = self._entry(row)
            if wanted.admits(record):
                yield key, record

    async def _narrowed(self, conditions: Sequence[tuple[str, str]]) -> AsyncIterator[Record]:
        given = False
        try:
            async for row in self._every(conditions):
                given = True
                yield row
        except StoreError as error:
            if given or not conditions or error.status is None or error.status >= 500:
                raise
            # A column that is not there, or a value it cannot be compared with: then the server leaves out nothing.
            async for row in self._every([]):
                yield row

    async def _every(self, conditions: Sequence[tuple[str, str]]) -> AsyncIterator[Record]:
        last: str | None = None
        while True:
            after = [] if last is None else [(self.key, f"gt.{last}")]
            query = [*conditions, *after, ("order", self.key), ("limit", str(PAGE))]
            rows = self._rows(await self._send("GET", query, "list"), "list")
            for row in rows:
                yield row
            # A server may give less than it was asked for; only an empty page is surely the last.
            if not rows:
                return
            last = self._entry(rows[-1])[0]

    async def _conditions(self, clause: Clause) -> Sequence[tuple[str, str]]:
        """What the server can leave out already: all that match stay in; what is left is looked at here.

        It compares as the column's type does, which may be a text that reads as a number, or JSON. So numbers have an
        order only where a column is known to hold nothing else, and texts, whose order is the database's own, none.
        """
        operator, value = clause["operator"], clause["value"]
        first, *rest = clause["field"].split(".")
        if self._column:
            first, rest = self._column, [first, *rest]
        if first in _RESERVED:
            return []
        name = "->".join([first, *rest[:-1]]) + (f"->>{rest[-1]}" if rest else "")
        if operator == "eq" and isinstance(value, str):
            return [_equal_text(name, value, inside=bool(rest))]
        if rest:
            return []
        if operator == "neq" and value is None:
            return [(name, "not.is.null")]
        if operator == "contains" and isinstance(value, str) and not any(c in value for c in "*%_\\"):
            return [(name, f"like.*{value}*")]
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= _EXACT:
            return []
        # A number of many digits reads as one of seventeen here: what is near stays in.
        if operator == "eq":
            return [(name, f"gt.{math.floor(value) - 1}"), (name, f"lt.{math.ceil(value) + 1}")]
        if operator in _ORDERS and await self._is_numeric(name):
            near = math.floor(value) - 1 if operator in ("gt", "gte") else math.ceil(value) + 1
            return [(name, f"{operator}.{near}")]
        return []

    async def _is_numeric(self, column: str) -> bool:
        """Whether a column holds numbers and can hold nothing else; of one without values nothing is known."""
        if column not in self._numeric:
            try:
                reply = await self._send("GET", [("select", column), (column, "not.is.null"), ("limit", "1")], "list")
                rows = self._rows(reply, "list")
                if not rows:
                    return False
                found = all(type(value) in (int, float) for value in rows[0].values())
                self._numeric[column] = found and not await self._holds_json(column)
            except StoreError as error:
                if error.status is None or error.status >= 500:
                    raise
                self._numeric[column] = False
        return self._numeric[column]

    async def _holds_json(self, column: str) -> bool:
        try:
            await self._send("GET", [("select", self.key), (column, "cs.5"), ("limit", "1")], "list")
        except StoreError as error:
            if error.code == "42883":  # the type has no operator for "contains", which JSON has
                return False
            raise
        return True

    # --- writing ------------------------------------------------------------------------------------------------------

    async def set(self, key: str, value: Record) -> None:
        await self._upsert([(key, value)])

    async def update(self, key: str, partial: Record) -> None:
        await self.bulk_upsert([(key, partial)], "merge")

    async def bulk_upsert(self, records: Sequence[tuple[str, Record]], mode: str) -> WriteCounts:
        """Write a batch. Rows of different columns go in requests of their own: all or nothing holds for each."""
        counts = WriteCounts()
        merges = mode != "set" or self._column is None
        look = not self._blind or mode == "update" or (merges and self._column is not None)
        stored = await self.get_many(list(dict.fromkeys(key for key, _ in records))) if look else {}
        changed: dict[str, Record] = {}
        for key, record in records:
            old = changed.get(key, stored.get(key))
            if old is None and mode == "update":
                raise absent(self.table, key)
            # Without a data column the server itself merges; only what is written again in this batch is merged here.
            before = (old if self._column else changed.get(key)) if merges else None
            new = {**before, **record} if before is not None else record
            if old is None:
                counts.added += 1
            elif look and self._same(old, new if self._column else record):
                counts.unchanged += 1
                continue
            else:
                counts.updated += 1
            changed[key] = new
        if mode == "update":
            for key, record in changed.items():
                await self._patch(key, record)
        else:
            await self._upsert(list(changed.items()))
        return counts

    async def _upsert(self, records: Sequence[tuple[str, Record]]) -> None:
        groups: dict[frozenset[str], list[Record]] = {}
        for key, record in records:
            row = self._row(key, record)
            groups.setdefault(frozenset(row), []).append(row)
        for rows in groups.values():
            for at in range(0, len(rows), _ROWS):
                part = rows[at : at + _ROWS]
                only = str(part[0][self.key]) if len(part) == 1 else None
                query = [("on_conflict", self.key)]
                wanted = "resolution=merge-duplicates,return=minimal"
                await self._send("POST", query, "set", key=only, body=part, prefer=wanted)

    async def _patch(self, key: str, record: Record) -> None:
        body = {name: value for name, value in self._row(key, record).items() if name != self.key}
        reply = await self._send("PATCH", [self._is([key])], "set", key=key, body=body, prefer="return=representation")
        if not self._rows(reply, "update"):
            raise absent(self.table, key)

    async def delete(self, key: str) -> int:
        return await self.delete_many([key])

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove records; how many the server says there were."""
        gone = 0
        for portion in self._portions(keys):
            key = portion[0] if len(portion) == 1 else None
            reply = await self._send("DELETE", [self._is(portion)], "delete", key=key, prefer=_COUNTED)
            total = _total(reply)
            gone += len(portion) if total is None else total
        return gone

    async def clear(self) -> int:
        reply = await self._send("DELETE", [(self.key, "not.is.null")], "clear", prefer=_COUNTED)
        return _total(reply) or 0

    async def connect(self) -> None:
        """See that the table is there."""
        await self._send("GET", [("select", self.key), ("limit", "1")], "init")


_COUNTED = "return=minimal,count=exact"


def _equal_text(name: str, value: str, *, inside: bool) -> tuple[str, str]:
    if not inside:
        with suppress(JsonError):
            decode(value.encode("utf-8", "surrogatepass"))
            # A column of JSON would take it for what it says.
            return "or", f"({name}.eq.{_quoted(value)},{name}.eq.{_quoted(encode(value).decode())})"
    return name, f"eq.{value}"


def _quoted(value: str) -> str:
    """A value inside of parentheses."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _total(reply: Reply) -> int | None:
    """How many rows a request was about, from `Content-Range: 0-24/3573`."""
    _, _, total = (reply.headers.get("Content-Range") or "").partition("/")
    return int(total) if total.isdigit() else None
