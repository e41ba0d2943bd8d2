"""Sending a mission's requests: options, pages, incremental sync, what is journaled (spec/runtime.md 2, 4, 8)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from reqon.clock import parse_rfc3339, rfc3339
from reqon.diagnostics import Span
from reqon.errors import EvaluatorError, FetchError, PaginationError
from reqon.events import FetchCompleted, FetchFailed, FetchStarted, PageFetched
from reqon.http.client import Client
from reqon.http.failures import envelope
from reqon.http.messages import Headers, Reply, Request
from reqon.http.pagination import CursorPages, LinkPages, NumberedPages, OffsetPages, Pagination, find_items
from reqon.lang import instants
from reqon.lang.functions import dates
from reqon.lang.operators import ErrorResponse, described
from reqon.runtime.execution import Execution
from reqon.runtime.frame import Frame
from reqon.runtime.paging import Pages, add_journaled
from reqon.runtime.settings import retry_policy, seconds
from reqon.runtime.stopping import StopRun
from reqon.secrets import SECRETS
from reqon.state.ids import derived_key
from reqon.state.records import Checkpoint
from reqon.values import Value, decode, encode

EFFECTS = frozenset(("POST", "PUT", "PATCH", "DELETE"))
MAX_PAGES = 10_000
Until = Callable[[Value, Mapping[str, Value], Value, bool], object]


@dataclass(frozen=True, slots=True)
class PaginateSpec:
    """`paginate:` as written: its strategy, the parameter, the page size, and what finds a cursor."""

    strategy: str
    parameter: str
    size: int
    find_cursor: Callable[[Value, Mapping[str, str]], Value] | None = None
    relation: str = "next"


@dataclass(frozen=True, slots=True)
class SinceSpec:
    """`since:` as written. `uses_checkpoint`: its value is the fetch's sync checkpoint."""

    uses_checkpoint: bool
    parameter: str = "modified_since"
    format: str = "iso"
    update_from: Callable[[Value], Value] | None = None


@dataclass(frozen=True, slots=True)
class FetchSpec:
    """What is known of a request step before it runs."""

    source: str
    method: str
    path: str
    template: str
    guarded: bool
    shows_request: bool
    step_path: str
    paginate: PaginateSpec | None = None
    since: SinceSpec | None = None
    until_path: tuple[str, ...] | None = None
    keeps_sync: bool = False
    span: Span | None = field(default=None, compare=False)


def sync_key(spec: FetchSpec, target: str, written: Value) -> str:
    """`syncKey`, else `Source-/path` without query and trailing slash."""
    if isinstance(written, str) and written:
        return written
    path = target.partition("?")[0]
    return f"{spec.source}-{path.rstrip('/') or '/'}"


def since_text(value: Value, style: str) -> Value:
    """A checkpoint or expression in a `sinceFormat`.

    Raises:
        EvaluatorError: the value is no date.
    """
    instant = newest(value)
    if instant is None:
        raise EvaluatorError(f"since needs a date, not {described(value)}")
    match style:
        case "iso" | "ISO":
            return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
        case "date-only" | "YYYY-MM-DD":
            return instant.strftime("%Y-%m-%d")
        case "unix" | "timestamp":
            return int(instant.timestamp())
        case "unix-ms" | "epoch":
            return int(instant.timestamp() * 1000)
        case _:
            return instants.format_instant(instant, style)


def newest(value: Value) -> datetime | None:
    """The instant that a value denotes, of a list the newest; None if it denotes none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return max((found for one in value if (found := newest(one)) is not None), default=None)
    try:
        return dates.parse_date(value)
    except EvaluatorError:
        return None


# --- one fetch -------------------------------------------------------------------------------------------------------


async def run_fetch(
    f: Frame,
    spec: FetchSpec,
    target: str,
    options: Mapping[str, Value] | None,
    until: Until | None,
    indices: tuple[int, ...],
) -> tuple[Value, Mapping[str, Value] | None]:
    """Do a request step: `response` and what lies behind it. A guarded one delivers failures as error responses.

    `indices` are the rounds of the loops inside the outermost one.

    Raises:
        FetchError: it failed for good and no match looks at it.
    """
    x = f.x
    client = x.clients[spec.source]
    options = options or _NOTHING
    loop = f.loop
    if loop is not None:
        # Whatever happens to this item's request: those before it are done.
        done = loop.done if loop.spec.parallel else f.index
        loop.count(done)
        loop.write(done)
    elif f.key is not None:
        # Who looks, or finds us dead, sees which request we wait for.
        x.save_record()
    key = None
    if spec.keeps_sync:
        key = sync_key(spec, target, options.get("syncKey"))
    f.failure = None
    single, f.single = f.single, False
    try:
        request = _request(f, spec, target, options, key, indices)
        if spec.shows_request:
            f.request = _shown(spec, request)
        if x.wants(FetchStarted):
            x.emit(
                FetchStarted(
                    source=spec.source,
                    method=request.method,
                    path=spec.template,
                    url=url_of(client, request),
                    has_pagination=spec.paginate is not None,
                    has_since=spec.since is not None,
                ),
                action=f.action,
            )
        if spec.paginate is not None:
            return await _all_pages(f, spec, client, request, options, until, key)
        return await _one(f, spec, client, request, key, single=single)
    except FetchError as error:
        if key is not None:
            x.sync.fail(key)
            if x.journal is not None:
                x.journal.append("sync", {"k": key, "failed": True})
        return failed(f, spec, error)


_NOTHING: Mapping[str, Value] = {}


def failed(f: Frame, spec: FetchSpec, error: FetchError) -> tuple[Value, Mapping[str, Value] | None]:
    """A request's failure as an error response where a match looks at it; else it is raised."""
    error.source = error.source or spec.source
    # A match may raise it again: it is the request's all the same.
    error.locate(spec.span)
    x = f.x
    x.requests += error.attempts
    x.retries += max(0, error.attempts - 1)
    x.emit(
        FetchFailed(
            source=spec.source,
            method=spec.method.upper(),
            path=spec.template,
            url=error.url,
            error=error.message,
            kind=error.kind,
            retryable=False,
            delivered=spec.guarded,
            attempts=error.attempts,
            status_code=error.status_code or None,
        ),
        action=f.action,
    )
    if not spec.guarded:
        raise error
    f.failure = error
    return ErrorResponse(envelope(error)), None


def url_of(client: Client, request: Request) -> str:
    """The URL as events show it: without the parameters, secrets masked."""
    target = request.target
    return SECRETS.redact(target if target.startswith("http") else client.settings.base + target)


def _request(
    f: Frame, spec: FetchSpec, target: str, options: Mapping[str, Value], key: str | None, indices: tuple[int, ...]
) -> Request:
    x = f.x
    params: list[tuple[str, Value]] = []
    for name in ("params", "query"):
        given = options.get(name)
        if isinstance(given, Mapping):
            params += given.items()
        elif given is not None:
            raise EvaluatorError(f"{name} must be an object, not {described(given)}")
    body = options.get("body")
    has_body = "body" in options
    if has_body and spec.method == "get":
        if isinstance(body, Mapping):
            params += body.items()
        has_body, body = False, None
    if spec.since is not None:
        since = _since(x, spec.since, options, key)
        if since is not None:
            params.append((str(options.get("sinceParam") or spec.since.parameter), since))
    headers = options.get("headers")
    if headers is not None and not isinstance(headers, Mapping):
        raise EvaluatorError(f"headers must be an object, not {described(headers)}")
    method = spec.method.upper()
    retry = options.get("retry")
    effect = None
    if method in EFFECTS:
        effect = derived_key("", x.record.execution_id, f"{f.origin}:{spec.step_path}", f.index, *indices)
    timeout = options.get("timeout")
    return Request(
        method=method,
        target=target,
        template=spec.template,
        params=tuple(params),
        headers=tuple(headers.items()) if isinstance(headers, Mapping) else (),
        body=body,
        has_body=has_body,
        timeout_seconds=None if timeout is None else seconds(timeout, 30.0),
        retry=None if retry is None else retry_policy(retry, x.clients[spec.source].settings.retry),
        retry_written=retry is not None,
        effect_key=effect,
    )


def _since(x: Execution, spec: SinceSpec, options: Mapping[str, Value], key: str | None) -> Value:
    value: Value
    if spec.uses_checkpoint:
        assert key is not None
        value = x.sync.since(key)
    else:
        value = options.get("since")
    if value is None:
        return None
    overlap = options.get("sinceOverlap")
    if overlap is not None and isinstance(value, datetime):
        value = value - timedelta(seconds=seconds(overlap, 0.0))
    return since_text(value, str(options.get("sinceFormat") or spec.format))


def _shown(spec: FetchSpec, request: Request) -> Value:
    return {
        "method": request.method,
        "source": spec.source,
        "path": request.target,
        "params": SECRETS.redact_value(dict(request.params)),
        "body": SECRETS.redact_value(request.body),
        "operationId": request.operation_id,
        "attempt": 1,
    }


async def _one(
    f: Frame, spec: FetchSpec, client: Client, request: Request, key: str | None, *, single: bool
) -> tuple[Value, Mapping[str, Value] | None]:
    x = f.x
    outermost = f.loop is None and f.key is not None
    if outermost and x.resume is not None:
        known = x.resume.take_reply(f.key or "", spec.step_path)
        if known is not None and known.body is not None:
            x.fetched_items += 1
            return _from_journal(f, known.fields, x.resume.journal.read_body(known.body))
    if outermost:
        _save_before(f, request.method)
    reply = await client.send(request, single=single)
    x.requests += reply.attempts
    x.retries += reply.attempts - 1
    if outermost:
        items, _ = find_items(reply.value)
        x.fetched_items += len(items) or (reply.value is not None)
        f.raw_response, f.raw_of = reply.raw if reply.is_json and reply.raw else None, reply.value
        if request.method in EFFECTS and x.journal is not None:
            x.journal.append(
                "response",
                {"a": f.key, "p": spec.step_path, "st": reply.status, "h": dict(reply.headers)},
                body=reply.raw if reply.is_json and reply.raw else encode(reply.value),
            )
            x.journal.write()
    if key is not None:
        items, _ = find_items(reply.value)
        _note_sync(f, key, reply.sent_at, reply.date, len(items) or (reply.value is not None), spec, reply.value)
    _tell_completed(f, spec, client, request, reply, pages=None, records=None)
    return reply.value, {"code": reply.status, "headers": reply.headers}


def _save_before(f: Frame, method: str) -> None:
    """Before a request outside of loops leaves: what has been done so far is in the journal.

    The first request of a run has nothing to save yet, unless it has an effect: small missions need no journal.
    """
    x = f.x
    if x.journal is not None and (method in EFFECTS or x.requests or x.journal.exists):
        x.engine.bind(f)
        x.write_progress("progress", {"a": f.key})


def _from_journal(f: Frame, fields: Mapping[str, Value], raw: bytes) -> tuple[Value, Mapping[str, Value] | None]:

    f.raw_response = raw
    value = f.raw_of = decode(raw)
    return value, {"code": fields["st"], "headers": Headers(fields["h"])}


def _tell_completed(
    f: Frame, spec: FetchSpec, client: Client, request: Request, reply: Reply, *, pages: int | None, records: int | None
) -> None:
    x = f.x
    if x.wants(FetchCompleted):
        if records is None:
            records = len(find_items(reply.value)[0]) or (1 if reply.value is not None else 0)
        x.emit(
            FetchCompleted(
                source=spec.source,
                method=request.method,
                path=spec.template,
                url=url_of(client, request),
                status=reply.status,
                record_count=records,
                bytes_received=len(reply.raw),
                attempts=reply.attempts,
                pages_fetched=pages,
            ),
            action=f.action,
        )


def _note_sync(
    f: Frame, key: str, sent_at: datetime, date: datetime | None, items: int, spec: FetchSpec, value: Value
) -> None:
    x = f.x
    moment = min(sent_at, date) if date is not None else sent_at
    if spec.since is not None and spec.since.update_from is not None:
        found = newest(spec.since.update_from(value))
        if found is None:
            x.notice("updateFrom names no date in the answer: the sync checkpoint is the time of the fetch")
        else:
            moment = min(found, x.now())
    x.sync.note(key, moment, items)
    if x.journal is not None:
        x.journal.append("sync", {"k": key, "at": rfc3339(moment), "c": items})


# --- pages -----------------------------------------------------------------------------------------------------------


def strategy(spec: PaginateSpec, params: Mapping[str, Value], *, until: bool) -> Pagination:
    """The decider for one fetch. A number under the parameter's name in `params` is where it starts."""
    start = params.get(spec.parameter)
    first = start if isinstance(start, int) and not isinstance(start, bool) else None
    match spec.strategy:
        case "offset":
            return OffsetPages(spec.parameter, spec.size, not until, first or 0)
        case "page":
            return NumberedPages(spec.parameter, spec.size, not until, 1 if first is None else first)
        case "cursor":
            assert spec.find_cursor is not None
            return CursorPages(spec.parameter, spec.find_cursor, start)
        case _:
            return LinkPages(spec.relation)


async def _all_pages(
    f: Frame,
    spec: FetchSpec,
    client: Client,
    request: Request,
    options: Mapping[str, Value],
    until: Until | None,
    key: str | None,
) -> tuple[Value, Mapping[str, Value] | None]:
    assert spec.paginate is not None
    run = _PageRun(f, spec, client, request, options, until)
    reply = await run.all()
    value = run.pages.result(run.pending)
    if key is not None:
        _note_sync(f, key, run.started_at or f.x.now(), run.first_date, run.pages.count, spec, value)
    if run.outermost:
        f.x.fetched_items += run.pages.count
    if reply is None:
        return value, {"code": 200, "headers": {}}
    _tell_completed(f, spec, client, request, reply, pages=run.number, records=run.pages.count)
    return value, {"code": reply.status, "headers": reply.headers}


class _PageRun:
    """One paginated fetch: asks for page after page, journals each before the next is asked for."""

    def __init__(
        self,
        f: Frame,
        spec: FetchSpec,
        client: Client,
        request: Request,
        options: Mapping[str, Value],
        until: Until | None,
    ) -> None:
        assert spec.paginate is not None
        self.f, self.spec, self.client, self.request, self.until = f, spec, client, request, until
        x = f.x
        self.outermost = f.loop is None and f.key is not None
        self.origin = f"{f.key}:{spec.step_path}" if self.outermost else None
        self.journal = x.journal if self.outermost else None
        self.params = dict(request.params)
        self.decider = strategy(spec.paginate, self.params, until=until is not None)
        self.pages = Pages(self.journal, self.origin)
        items = options.get("items")
        self.items_place = tuple(items.split(".")) if isinstance(items, str) else None
        limit = options.get("maxPages")
        self.max_pages = limit if isinstance(limit, int) else MAX_PAGES
        self.number = 0
        self.pending: tuple[Mapping[str, Value], bytes] | None = None
        self.started_at: datetime | None = None
        self.first_date: datetime | None = None
        self.replayed = False
        self._syncing: asyncio.Task[None] | None = None
        self._fingerprint = ""

    @property
    def fingerprint(self) -> str:
        """What tells a page of this request from one of another: method, source, path and parameters."""
        if not self._fingerprint:
            assert self.spec.paginate is not None
            own = {k: v for k, v in self.params.items() if k != self.spec.paginate.parameter}
            text = encode([self.request.method, self.spec.source, self.request.target, own])
            self._fingerprint = sha256(text).hexdigest()[:16]
        return self._fingerprint

    async def all(self) -> Reply | None:
        """Fetch until the end; the last reply, None if the journal had all pages already."""
        x = self.f.x
        ended = self._replay()
        if self.outermost and not ended:
            _save_before(self.f, self.request.method)
        reply: Reply | None = None
        while not ended:
            if self.number >= self.max_pages:
                raise PaginationError(
                    f"{self.spec.template} has more than maxPages = {self.max_pages} pages",
                    kind="pagination",
                    source=self.spec.source,
                    method=self.request.method,
                    hint="give until: a condition that comes true, or raise maxPages",
                )
            try:
                reply = await self.client.send(self._next_request())
            except FetchError as error:
                if self.replayed and self.number and error.status_code in (400, 404, 410, 422):
                    # The cursor has gone stale while we were down: once, from the first page.
                    x.notice("the API no longer knows where this fetch stopped: it starts over", level="info")
                    self._start_over()
                    continue
                raise
            x.requests += reply.attempts
            x.retries += reply.attempts - 1
            ended = await self._take(reply)
        return reply

    def _next_request(self) -> Request:
        following = self.decider.next_request()
        if following.url is not None:
            return Request(
                method=self.request.method,
                target=following.url,
                template=self.request.template,
                headers=self.request.headers,
                body=self.request.body,
                has_body=self.request.has_body,
                timeout_seconds=self.request.timeout_seconds,
                retry=self.request.retry,
                retry_written=self.request.retry_written,
                effect_key=self.request.effect_key,
            )
        request = self.request
        return Request(
            method=request.method,
            target=request.target,
            template=request.template,
            params=(*request.params, *following.params),
            headers=request.headers,
            body=request.body,
            has_body=request.has_body,
            timeout_seconds=request.timeout_seconds,
            retry=request.retry,
            retry_written=request.retry_written,
            effect_key=request.effect_key,
        )

    async def _take(self, reply: Reply) -> bool:
        """One page: find its items, learn what follows, journal it; whether it was the last."""
        f, x = self.f, self.f.x
        body = reply.value
        items, place = find_items(body, path=self.items_place or self.pages.place, until_path=self.spec.until_path)
        self.number += 1
        if self.started_at is None:
            self.started_at, self.first_date = reply.sent_at, reply.date
        self.decider.advance(body, reply.headers, len(items), reply.url)
        ended = not items or not self.decider.has_more
        if self.until is not None and not ended:
            meta = {"code": reply.status, "headers": reply.headers}
            ended = bool(self.until(body, meta, self.decider.next_value, self.decider.has_more))
        ref = self._journal_page(reply, len(items), place, ended=ended)
        self.pages.add(body, items, place, size=len(reply.raw), ref=ref)
        if x.wants(PageFetched):
            x.emit(
                PageFetched(
                    source=self.spec.source,
                    method=self.request.method,
                    path=self.spec.template,
                    page=self.number,
                    item_count=len(items),
                    total_items=self.pages.count,
                    bytes_received=len(reply.raw),
                    has_more=not ended,
                ),
                action=f.action,
            )
        if self.outermost:
            value = self.decider.next_value
            x.checkpoints[f.action] = Checkpoint(
                items_processed=x.items_processed + self.pages.count,
                at=x.now(),
                page=self.number,
                cursor=value
                if self.spec.paginate and self.spec.paginate.strategy == "cursor" and len(str(value)) <= 1024
                else None,
            )
            x.tell_progress(f.action, f"fetch {self.spec.template}", self.pages.count, None)
            if not ended:
                await self._sync_behind()
                if x.stop.after_item:
                    raise StopRun
        return ended

    def _journal_page(self, reply: Reply, count: int, place: tuple[str, ...] | None, *, ended: bool) -> Any:
        journal = self.journal
        if journal is None or not reply.is_json or not reply.raw:
            return None
        fields: dict[str, Value] = {
            "a": self.f.key,
            "p": self.spec.step_path,
            "k": self.number,
            "st": reply.status,
            "c": count,
            "fp": self.fingerprint,
            "next": {"kind": "end", "value": None} if ended else self.decider.state(),
        }
        if place is not None:
            fields["items"] = list(place)
        if self.number == 1:
            fields["at"] = rfc3339(reply.sent_at)
            if reply.date is not None:
                fields["date"] = rfc3339(reply.date)
        if ended and self.number == 1:
            # A fetch of one page needs no journal yet; who needs it later appends it then.
            self.pending = (fields, reply.raw)
            return None
        self.f.x.engine.bind(self.f)
        ref = journal.append("page", fields, body=reply.raw)
        journal.write()
        return ref

    async def _sync_behind(self) -> None:
        """Sync the journal while the next page is on its way: one round at a time, never waited for."""
        if self._syncing is not None and self._syncing.done():
            await self._syncing
            self._syncing = None
        x = self.f.x
        if self._syncing is None and x.background is not None and self.journal is not None:
            self._syncing = x.background.create_task(asyncio.to_thread(self.journal.sync))

    def _replay(self) -> bool:
        """Take the pages an interrupted run had; whether that was all."""
        x = self.f.x
        if x.resume is None or self.origin is None:
            return False
        known = x.resume.take_pages(self.origin)
        if not known or known[0].fingerprint != self.fingerprint:
            return False
        self.replayed = True
        for page in known:
            body, _ = add_journaled(self.pages, x.resume, page)
            self.number = page.number
            if page.sent_at is not None:
                self.started_at = parse_rfc3339(page.sent_at)
                self.first_date = parse_rfc3339(page.date) if page.date is not None else None
            del body
        last = known[-1].next
        if last["kind"] == "end":
            return True
        self.decider.restore(dict(last))
        return False

    def _start_over(self) -> None:
        assert self.spec.paginate is not None
        self.replayed = False
        self.number = 0
        self.started_at = self.first_date = None
        self.decider = strategy(self.spec.paginate, self.params, until=self.until is not None)
        self.pages = Pages(self.journal, self.origin)
