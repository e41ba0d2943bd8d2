"""The API that the corpus is run against: every answer follows from the request and how often it was asked.

/echo                 what was asked: method, path, query, some headers as `sent`, body
/rows?page=N          { rows, page, pages }: five rows, two on a page; `start` and `after` page by offset and cursor
/plain?page=N         the same rows as a bare array
/linked?page=N        the same, the next page in a Link header
/status/N             that status with { message, code: "E-N" }
/flaky/N/…            503 N times, then { ok: true, calls }
/busy/N/…             429 with Retry-After: 2, N times, then { ok: true, calls }
/expired              401 until POST /login was called, then { ok: true }
/text /empty /broken  plain text; 204; what claims to be JSON and is not
/token                an OAuth token that says what was asked for
/spec/…               a document with the operation echo, for who has one of SPEC_KEYS in a header or the query
/rows/ID              one row, or 404
/calls?to=URL         POST: before it answers { called: [statuses] }, it calls the URL with each element of its body
"""

import asyncio
import json
from collections import Counter
from typing import Any
from urllib.parse import parse_qsl

from tests.support.servers import Answer, ScriptedServer, Seen, reply
from tests.support.webhooks import call

ROWS: list[dict[str, Any]] = [
    {"id": f"r-{n}", "n": n, "kind": "odd" if n % 2 else "even", "tags": ["a"] * n, "at": f"2026-02-0{n}T00:00:00Z"}
    for n in range(1, 6)
]
SIZE = 2
SPEC_KEYS = (
    "Bearer corpus-token-1234", "Basic YW5uOmNvcnB1cy10b2tlbi0xMjM0", "corpus-token-1234", "Key corpus-token-1234",
    "Bearer client_credentials///me",
)  # fmt: skip
_SHOWN_HEADERS = ("authorization", "content-type", "x-api-key", "x-trace", "x-from")


class CorpusApi:
    """Answers for one mission's run."""

    def __init__(self, server: ScriptedServer) -> None:
        self._asked: Counter[str] = Counter()
        self._logged_in = False
        answer: Answer = self._answer
        server.on("*", answer)
        server.on("/calls", self._call_back)
        self._server = server

    async def _call_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = self._server.seen[-1]
        statuses = [(await call(seen.query["to"], event)).status for event in json.loads(seen.body)]
        writer.write(reply(202, data={"called": statuses}, headers={"Connection": "close"}))
        await writer.drain()
        writer.close()

    def _answer(self, seen: Seen) -> bytes:
        self._asked[seen.path] += 1
        word, *rest = seen.path.strip("/").split("/")
        answer = getattr(self, f"_{word}", None)
        return reply(404, data={"message": f"no {seen.path}"}) if answer is None else answer(seen, rest)

    def _echo(self, seen: Seen, rest: list[str]) -> bytes:
        body = json.loads(seen.body) if _is_json(seen) else seen.body.decode() or None
        shown = {name: seen.headers[name] for name in _SHOWN_HEADERS if name in seen.headers}
        told = {"method": seen.method, "path": seen.path, "query": seen.query, "sent": shown, "body": body}
        return reply(data=told, headers={"X-Total": "12"})

    def _rows(self, seen: Seen, rest: list[str]) -> bytes:
        if rest:
            found = next((row for row in ROWS if row["id"] == rest[0]), None)
            return reply(404, data={"message": f"no row {rest[0]}"}) if found is None else reply(data=found)
        start, number = _start(seen)
        page = ROWS[start : start + SIZE]
        following = page[-1]["id"] if start + SIZE < len(ROWS) else None
        return reply(data={"rows": page, "page": number, "pages": 3, "next": following, "total": len(ROWS)})

    def _plain(self, seen: Seen, rest: list[str]) -> bytes:
        start, _ = _start(seen)
        return reply(data=ROWS[start : start + SIZE])

    def _linked(self, seen: Seen, rest: list[str]) -> bytes:
        start, number = _start(seen)
        link = {"Link": f'</linked?page={number + 1}>; rel="next"'} if start + SIZE < len(ROWS) else {}
        return reply(data={"rows": ROWS[start : start + SIZE]}, headers=link)

    def _token(self, seen: Seen, rest: list[str]) -> bytes:
        form = dict(parse_qsl(seen.body.decode()))
        words = (form["grant_type"], form.get("scope", ""), form.get("audience", ""), form.get("client_id", ""))
        return reply(data={"access_token": "/".join(words), "token_type": "Bearer", "expires_in": 3600})

    def _spec(self, seen: Seen, rest: list[str]) -> bytes:
        if not set(SPEC_KEYS) & {*seen.headers.values(), *seen.query.values()}:
            return reply(401, data={"message": "who asks?"})
        operation = {"operationId": "echo", "responses": {"200": {"description": "back"}}}
        paths = {"/echo": {"get": operation}}
        return reply(data={"openapi": "3.0.3", "info": {"title": "Echo", "version": "1"}, "paths": paths})

    def _status(self, seen: Seen, rest: list[str]) -> bytes:
        return reply(int(rest[0]), data={"message": f"status {rest[0]}", "code": f"E-{rest[0]}"})

    def _flaky(self, seen: Seen, rest: list[str]) -> bytes:
        calls = self._asked[seen.path]
        if calls <= int(rest[0]):
            return reply(503, data={"message": "not now"})
        return reply(data={"ok": True, "calls": calls})

    def _busy(self, seen: Seen, rest: list[str]) -> bytes:
        calls = self._asked[seen.path]
        if calls <= int(rest[0]):
            return reply(429, data={"message": "slow down"}, headers={"Retry-After": "2"})
        return reply(data={"ok": True, "calls": calls})

    def _expired(self, seen: Seen, rest: list[str]) -> bytes:
        return reply(data={"ok": True}) if self._logged_in else reply(401, data={"message": "log in"})

    def _login(self, seen: Seen, rest: list[str]) -> bytes:
        self._logged_in = True
        return reply(data={"access_token": "fresh-token-1234"})

    def _text(self, seen: Seen, rest: list[str]) -> bytes:
        return reply(body=b"plain words", content_type="text/plain")

    def _empty(self, seen: Seen, rest: list[str]) -> bytes:
        return reply(204)

    def _broken(self, seen: Seen, rest: list[str]) -> bytes:
        return reply(body=b"{ not json")


def _is_json(seen: Seen) -> bool:
    return bool(seen.body) and "json" in seen.headers.get("content-type", "")


def _start(seen: Seen) -> tuple[int, int]:
    """Where a page begins among the rows, and its number."""
    if "after" in seen.query:
        return next(n for n, row in enumerate(ROWS, 1) if row["id"] == seen.query["after"]), 0
    if "start" in seen.query:
        return int(seen.query["start"]), 0
    number = int(seen.query.get("page", 1))
    return (number - 1) * SIZE, number
