"""A stand-in for PostgREST in front of a real PostgreSQL: the part of its protocol that our store and its tests use.

The real server cannot be had here. That this one speaks the protocol is checked by driving it with the official
Python client (tests/stores/test_postgrest.py). Filters, order, pages, upserts, counts, schemas, errors with SQLSTATE.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg import sql

_OPERATORS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_RESERVED = {"select", "order", "limit", "offset", "on_conflict", "columns", "or"}
_STATUS = {"23503": 409, "23505": 409, "42P01": 404, "42883": 404, "42501": 403}


@dataclass
class PostgrestServer:
    """Serves one database on 127.0.0.1, any free port.

    Attributes:
        token: what `Authorization: Bearer` has to be, if anything.
        seen: method, target and headers of the requests, in order.
        fail: statuses to answer the next requests with, before anything is done.
        most: the most rows that a page has, as `db-max-rows` sets it.
    """

    database: str
    token: str | None = None
    most: int = 10_000
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    fail: list[int] = field(default_factory=list)
    lock: Any = field(default_factory=Lock)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run SQL behind the server's back."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []


class _Refused(Exception):  # noqa: N818  # an answer
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for the client's delayed acknowledgement
    server_of: PostgrestServer

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = self.server_of
        with server.lock:
            server.seen.append((self.command, self.path, dict(self.headers)))
            failing = server.fail.pop(0) if server.fail else None
        try:
            self._check(failing)
            status, headers, content = _Query(self, body).answer()
        except _Refused as refused:
            content = {"code": refused.code, "message": refused.message, "details": None, "hint": None}
            status, headers = refused.status, {}
        except psycopg.Error as error:
            code = error.sqlstate or "XX000"
            message = (error.diag.message_primary or str(error)).strip()
            content = {"code": code, "message": message, "details": error.diag.message_detail, "hint": None}
            status, headers = _STATUS.get(code, 400), {}
        self._send(status, headers, content)

    def _check(self, failing: int | None) -> None:
        if failing is not None:
            raise _Refused(failing, "XX000", "told to fail")
        token = self.server_of.token
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            raise _Refused(401, "PGRST301", "JWT invalid")

    def _send(self, status: int, headers: dict[str, str], content: Any) -> None:
        data = b"" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
        with suppress(ConnectionError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if content is not None:
                self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815  # the library's names


class _Query:
    def __init__(self, request: _Handler, body: bytes) -> None:
        self.method = request.command
        self.server = request.server_of
        parts = urlsplit(request.path)
        self.table = unquote(parts.path.strip("/"))
        self.pairs = parse_qsl(parts.query, keep_blank_values=True)
        self.options = dict(self.pairs)
        self.prefer = {p.strip() for line in request.headers.get_all("Prefer") or [] for p in line.split(",")}
        profile = "Accept-Profile" if self.method in ("GET", "HEAD") else "Content-Profile"
        self.schema = request.headers.get(profile) or "public"
        self.body = body
        self.values: list[Any] = []

    # --- the parts of a statement -------------------------------------------------------------------------------------

    @property
    def name(self) -> sql.Composable:
        return sql.Identifier(self.schema, self.table)

    def _value(self, value: Any) -> sql.Composable:
        self.values.append(value)
        return sql.Placeholder()

    def _column(self, written: str) -> sql.Composable:
        first, *rest = re.split(r"(->>|->)", written)
        column: sql.Composable = sql.Identifier(first.strip('"'))
        for arrow, name in zip(rest[::2], rest[1::2], strict=True):
            column = sql.SQL("({} {} {})").format(column, sql.SQL(arrow), sql.Literal(name))
        return column

    def _condition(self, column: str, written: str) -> sql.Composable:
        negated = written.startswith("not.")
        operator, _, value = written.removeprefix("not.").partition(".")
        left = self._column(column)
        if operator in _OPERATORS:
            # As a literal of unknown type, which takes the type of the column.
            test = sql.SQL("{} {} {}").format(left, sql.SQL(_OPERATORS[operator]), sql.Literal(value))
        elif operator == "like":
            test = sql.SQL("{} LIKE {}").format(left, sql.Literal(value.replace("*", "%")))
        elif operator == "cs":
            test = sql.SQL("{} @> {}").format(left, sql.Literal(value))
        elif operator == "is" and value in ("null", "true", "false"):
            test = sql.SQL("{} IS {}").format(left, sql.SQL(value))
        elif operator == "in":
            inside = sql.SQL(", ").join(map(sql.Literal, _listed(value)))
            test = sql.SQL("{} IN ({})").format(left, inside)
        else:
            raise _Refused(400, "PGRST100", f'"failed to parse filter ({written})"')
        return sql.SQL("NOT ({})").format(test) if negated else test

    def _where(self) -> sql.Composable:
        tests = [self._condition(name, value) for name, value in self.pairs if name not in _RESERVED]
        for name, value in self.pairs:
            if name == "or":
                either = [self._condition(*part.split(".", 1)) for part in _listed(value)]
                tests.append(sql.SQL("({})").format(sql.SQL(" OR ").join(either)))
        return sql.SQL(" WHERE ") + sql.SQL(" AND ").join(tests) if tests else sql.SQL("")

    def _order(self) -> sql.Composable:
        terms = []
        for term in filter(None, self.options.get("order", "").split(",")):
            column, *how = term.split(".")
            terms.append(self._column(column) + sql.SQL(" DESC" if "desc" in how else " ASC"))
        return sql.SQL(" ORDER BY ") + sql.SQL(", ").join(terms) if terms else sql.SQL("")

    def _selected(self) -> sql.Composable:
        written = self.options.get("select", "*")
        if written == "*":
            return sql.SQL("*")
        return sql.SQL(", ").join(self._column(name) for name in written.split(","))

    # --- answering ----------------------------------------------------------------------------------------------------

    def answer(self) -> tuple[int, dict[str, str], Any]:
        with psycopg.connect(self.server.database) as connection:
            if self.method in ("GET", "HEAD"):
                return self._read(connection)
            if self.method == "POST":
                return self._insert(connection)
            if self.method == "PATCH":
                return self._update(connection)
            return self._delete(connection)

    def _read(self, connection: "psycopg.Connection[Any]") -> tuple[int, dict[str, str], Any]:
        where = self._where()
        offset = int(self.options.get("offset", 0))
        limit = min(int(self.options.get("limit", self.server.most)), self.server.most)
        statement = sql.SQL("SELECT {} FROM {}{}{} LIMIT {} OFFSET {}").format(
            self._selected(), self.name, where, self._order(), sql.Literal(limit), sql.Literal(offset)
        )
        rows = self._as_json(connection, statement)
        total = "*"
        if "count=exact" in self.prefer:
            counted = sql.SQL("SELECT count(*) FROM {}{}").format(self.name, where)
            total = str(connection.execute(counted).fetchone()[0])  # type: ignore[index]
        shown = f"{offset}-{offset + len(rows) - 1}" if rows else "*"
        return 200, {"Content-Range": f"{shown}/{total}"}, _rows(rows)

    def _as_json(self, connection: "psycopg.Connection[Any]", statement: sql.Composable) -> Sequence[str]:
        """Each row as JSON text, made by PostgreSQL itself."""
        wrapped = sql.SQL("WITH r AS ({}) SELECT row_to_json(r)::text FROM r").format(statement)
        return [row[0] for row in connection.execute(wrapped, self.values or None)]

    def _insert(self, connection: "psycopg.Connection[Any]") -> tuple[int, dict[str, str], Any]:
        given = json.loads(self.body)
        rows = given if isinstance(given, list) else [given]
        names = list(rows[0]) if rows else []
        if any(list(row) != names and set(row) != set(names) for row in rows):
            raise _Refused(400, "PGRST102", "All object keys must match")
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        statement = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM json_populate_recordset(null::{}, {}::json)").format(
            self.name,
            columns,
            columns,
            self.name,
            self._value(self.body.decode() if isinstance(given, list) else json.dumps(rows)),
        )
        if "resolution=merge-duplicates" in self.prefer:
            key = self.options.get("on_conflict", "id").split(",")
            changed = [n for n in names if n not in key]
            what = sql.SQL(", ").join(
                sql.SQL("{} = EXCLUDED.{}").format(sql.Identifier(n), sql.Identifier(n)) for n in changed
            )
            then = sql.SQL("DO UPDATE SET ") + what if changed else sql.SQL("DO NOTHING")
            target = sql.SQL(", ").join(map(sql.Identifier, key))
            statement += sql.SQL(" ON CONFLICT ({}) ").format(target) + then
        return self._changed(connection, statement, 201)

    def _update(self, connection: "psycopg.Connection[Any]") -> tuple[int, dict[str, str], Any]:
        given = json.loads(self.body)
        names = list(given)
        what = sql.SQL(", ").join(sql.SQL("{} = p.{}").format(sql.Identifier(n), sql.Identifier(n)) for n in names)
        record = sql.SQL("json_populate_record(null::{}, {}::json)").format(self.name, self._value(self.body.decode()))
        chosen = sql.SQL(", ").join(map(sql.Identifier, names))
        statement = sql.SQL("UPDATE {} SET {} FROM (SELECT {} FROM {}) p{}").format(
            self.name, what, chosen, record, self._where()
        )
        return self._changed(connection, statement, 200)

    def _delete(self, connection: "psycopg.Connection[Any]") -> tuple[int, dict[str, str], Any]:
        if not any(name not in _RESERVED for name, _ in self.pairs):
            raise _Refused(400, "21000", "DELETE requires a WHERE clause")
        return self._changed(connection, sql.SQL("DELETE FROM {}{}").format(self.name, self._where()), 200)

    def _changed(
        self, connection: "psycopg.Connection[Any]", statement: sql.Composable, status: int
    ) -> tuple[int, dict[str, str], Any]:
        returning = statement + sql.SQL(" RETURNING {}.*").format(self.name)
        rows = self._as_json(connection, returning)
        headers = {"Content-Range": f"*/{len(rows)}"} if "count=exact" in self.prefer else {}
        if "return=representation" in self.prefer:
            return status, headers, _rows(rows)
        return (201 if status == 201 else 204), headers, None


def _rows(rows: Sequence[str]) -> bytes:
    return ("[" + ", ".join(rows) + "]").encode()


def _listed(written: str) -> list[str]:
    """The elements of `(a,"b,c")`, quotes and backslashes resolved; a quoted part of an element stays in it."""
    found, current, quoted, escaped = [], "", False, False
    for character in written.removeprefix("(").removesuffix(")"):
        if escaped:
            current, escaped = current + character, False
        elif character == "\\" and quoted:
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            found.append(current)
            current = ""
        else:
            current += character
    return [*found, current]
