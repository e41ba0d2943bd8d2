"""One paginated fetch: page after page, each in the journal before the next is asked for (spec/runtime.md 4)."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from reqon.clock import parse_rfc3339, rfc3339
from reqon.errors import FetchError, PaginationError
from reqon.events import PageFetched
from reqon.http.client import Client
from reqon.http.messages import Reply, Request
from reqon.http.pagination import (
    CursorPages,
    CustomPages,
    LinkPages,
    NumberedPages,
    OffsetPages,
    Pagination,
    Place,
    find_items,
)
from reqon.lang.handles import ValidationErrors
from reqon.runtime.fetch_spec import EFFECTS, FetchSpec, PaginateSpec, Until
from reqon.runtime.frame import Frame
from reqon.runtime.paging import Pages, add_journaled
from reqon.runtime.replies import ask
from reqon.runtime.settings import typed_option
from reqon.runtime.stopping import StopRun
from reqon.state.records import Checkpoint
from reqon.values import Value, encode

MAX_PAGES = 10_000


def save_before(f: Frame, method: str) -> None:
    """Before a request outside of loops leaves: what has been done so far is in the journal.

    The first request of a run has nothing to save yet, unless it has an effect: small missions need no journal.
    """
    x = f.x
    if x.journal is not None and (method in EFFECTS or x.requests or x.journal.exists):
        if f.begun_step == f.step:
            # A resume begins with the step: what this has written since is not to be relied on.
            x.write_buffers()
            x.tell_advance()
            return
        x.engine.bind(f)
        x.write_progress("progress", {"a": f.key})


def strategy(
    spec: PaginateSpec, params: Mapping[str, Value], *, until: bool, options: Mapping[str, Value]
) -> Pagination:
    """The decider for one fetch. A number under the parameter's name in `params` is where it starts."""
    make = spec.custom
    if make is not None:
        shown = {name: value for name, value in options.items() if name != "headers"}
        about = {"args": list(spec.arguments), "fetch": shown}
        return CustomPages(spec.strategy, lambda: make(about))
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


class PageRun:
    """One paginated fetch: asks for page after page, journals each before the next is asked for."""

    def __init__(
        self,
        f: Frame,
        spec: FetchSpec,
        client: Client,
        request: Request,
        options: Mapping[str, Value],
        until: Until | None,
        indices: tuple[int, ...],
    ) -> None:
        assert spec.paginate is not None
        self.indices = indices
        self.f, self.spec, self.client, self.request, self.until = f, spec, client, request, until
        x = f.x
        self.outermost = f.loop is None and f.key is not None
        self.origin = f"{f.key}:{spec.step_path}" if self.outermost else None
        self.journal = x.journal if self.outermost else None
        self.params = dict(request.params)
        self.options = options
        self.decider = strategy(spec.paginate, self.params, until=until is not None, options=options)
        self.pages = self._no_pages()
        items = options.get("items")
        self.items_place = tuple(items.split(".")) if isinstance(items, str) else None
        limit = typed_option(options, "maxPages")
        self.max_pages = limit if isinstance(limit, int) else MAX_PAGES
        self.number = 0
        self.attempts = 0
        self.bytes_received = 0
        self.pending: tuple[Mapping[str, Value], bytes] | None = None
        self.started_at: datetime | None = None
        self.first_date: datetime | None = None
        self.replayed = False
        self.had = 0  # so many pages the interrupted run had
        self.problems = ValidationErrors()
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
            save_before(self.f, self.request.method)
        reply: Reply | None = None
        while not ended:
            if self.number >= self.max_pages:
                endless = PaginationError(
                    f"{self.spec.template} has more than maxPages = {self.max_pages} pages",
                    kind="pagination",
                    source=self.spec.source,
                    method=self.request.method,
                    hint="give until: a condition that comes true, or raise maxPages",
                )
                endless.reason, endless.page = "max_pages", self.number
                raise endless
            try:
                reply = await ask(self.f, self.spec, self.client, self._next_request(), self.indices)
            except FetchError as error:
                error.page = self.number + 1
                if self.replayed and self._is_stale(error):
                    # The cursor has gone stale while we were down: once, from the first page.
                    x.notice("the API no longer knows where this fetch stopped: it starts over", level="info")
                    x.engine.tell_resumed(self.f, "cursor_expired")
                    self._start_over()
                    continue
                raise
            self.attempts += reply.attempts
            self.bytes_received += len(reply.raw)
            x.requests += reply.attempts
            x.retries += max(0, reply.attempts - 1)
            self._judge(reply)
            try:
                ended = await self._take(reply)
            except PaginationError as error:
                error.page = error.page or self.number
                raise
            self.replayed = False  # what the API no longer knows it says at once
        return reply

    def _is_stale(self, error: FetchError) -> bool:
        """Whether the API may have forgotten the cursor or URL that an interrupted run had got."""
        return error.status_code in (400, 404, 410, 422) and self.decider.state()["kind"] in ("cursor", "url")

    def _judge(self, reply: Reply) -> None:
        """A page of a call against its schema."""
        if self.spec.operation is not None:
            from reqon.runtime.calling import judged, merged  # noqa: PLC0415  # only for those who call operations

            self.problems = merged(self.problems, judged(self.f, self.spec, self.client, reply))

    def _next_request(self) -> Request:
        following, request = self.decider.next_request(), self.request
        if following.url is not None:
            return request._replace(target=following.url, params=())
        return request._replace(params=(*request.params, *following.params))

    async def _take(self, reply: Reply) -> bool:
        """One page: find its items, learn what follows, journal it; whether it was the last."""
        f, x = self.f, self.f.x
        body = reply.value
        items, place, own = self._items(body)
        self.number += 1
        if self.started_at is None:
            self.started_at, self.first_date = reply.sent_at, reply.date
        self.decider.advance(body, reply.headers, len(items), reply.url)
        ended = not self.decider.has_more
        if self.until is not None and not ended:
            meta = {"code": reply.status, "headers": reply.headers}
            ended = bool(self.until(body, meta, self.decider.next_value, self.decider.has_more))
        ref = self._journal_page(reply, items, place, own=own, ended=ended)
        self.pages.add(items if own else body, items, place, size=len(reply.raw), ref=ref)
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

    def _items(self, body: Value) -> tuple[Sequence[Value], Place | None, bool]:
        """A page's items, where they are, and whether a strategy of the user's own has found them."""
        if isinstance(self.decider, CustomPages):
            found = self.decider.items_of(body)
            if found is not None:
                return found, (), True
        items, place = find_items(body, path=self.items_place or self.pages.place, until_path=self.spec.until_path)
        return items, place, False

    def _journal_page(
        self, reply: Reply, items: Sequence[Value], place: Place | None, *, own: bool, ended: bool
    ) -> Any:
        journal = self.journal
        if journal is None or not reply.is_json or not reply.raw:
            return None
        fields: dict[str, Value] = {
            "a": self.f.key,
            "p": self.spec.step_path,
            "k": self.number,
            "st": reply.status,
            "c": len(items),
            "fp": self.fingerprint,
            "next": {"kind": "end", "value": None} if ended else self.decider.state(),
        }
        if place is not None:
            fields["items"] = list(place)
        # What a strategy of the user's own has found is kept as it found it: a resume does not ask it again.
        raw = encode(list(items)) if own else reply.raw
        if self.number == 1:
            fields["at"] = rfc3339(reply.sent_at)
            if reply.date is not None:
                fields["date"] = rfc3339(reply.date)
        if ended and self.number == 1 and not self.spec.before_loop:
            # A fetch of one page needs no journal yet; who needs it later appends it then.
            self.pending = (fields, raw)
            return None
        self.f.x.engine.bind(self.f)
        ref = journal.append("page", fields, body=raw)
        journal.write()
        f = self.f
        if self.number > self.had:
            f.x.paged = True
            f.x.tell_advance()
        f.x.tell_checkpoint("page", f.action, f.step, len(f.variables), page=self.number)
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
        self.had = len(known)
        if not known or known[0].fingerprint != self.fingerprint:
            return False
        if isinstance(self.decider, CustomPages) and not self.decider.resumable:
            return False
        self.replayed = True
        for page in known:
            body, _ = add_journaled(self.pages, x.resume, page)
            self.number = page.number
            if page.sent_at is not None:
                self.started_at = parse_rfc3339(page.sent_at)
                self.first_date = parse_rfc3339(page.date) if page.date is not None else None
            if self.spec.operation is not None:
                from reqon.runtime.calling import known_problems, merged  # noqa: PLC0415  # as in _judge

                meta = {"code": page.status, "headers": {}}
                self.problems = merged(self.problems, known_problems(self.spec, self.client, meta, body))
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
        self.decider = strategy(self.spec.paginate, self.params, until=self.until is not None, options=self.options)
        self.pages = self._no_pages()
        self.problems = ValidationErrors()

    def _no_pages(self) -> Pages:
        return Pages(self.journal, self.origin, held=self.spec.held)
