"""Sending a mission's requests: options, what is journaled, what an answer becomes (spec/runtime.md 2, 8)."""

from collections.abc import Container, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from types import ModuleType

from reqon.clock import rfc3339
from reqon.errors import EvaluatorError, FetchError
from reqon.events import FetchCompleted, FetchFailed, FetchStarted
from reqon.http.client import Client
from reqon.http.failures import envelope, is_retryable
from reqon.http.messages import Headers, Reply, Request
from reqon.http.pagination import find_items
from reqon.lang.compiler import place_of
from reqon.lang.kinds import read_value
from reqon.lang.operators import ErrorResponse, StoreHandle, ValidationErrors, described, text
from reqon.lang.options import PAGINATE
from reqon.runtime.execution import Execution
from reqon.runtime.fetch_spec import EFFECTS, FetchSpec, SinceSpec, Until
from reqon.runtime.frame import Frame
from reqon.runtime.page_run import PageRun, save_before
from reqon.runtime.replies import ask, note_place
from reqon.runtime.settings import rate_limit, retry_policy, seconds, typed_option
from reqon.runtime.sync import newest, since_text, sync_key
from reqon.secrets import SECRETS
from reqon.state.ids import derived_key
from reqon.values import Value, decode, encode


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
    if f.loop is not None or f.work is not None:
        note_place(f)
    elif f.key is not None:
        # Who looks, or finds us dead, sees which request we wait for.
        x.save_record()
    key = None
    if spec.keeps_sync:
        key = sync_key(spec, target, options.get("syncKey"), options.get("callKey"))
    f.failure = None
    f.called = (spec.source, spec.template)
    single, f.single = f.single, False
    started = x.clock.monotonic()
    told = False
    try:
        request = _request(f, spec, target, options, key, indices)
        if spec.shows_request:
            before = f.request["attempt"] if single and isinstance(f.request, Mapping) else 0
            f.request = _shown(spec, request, before)
        told = True
        tell_start(f, spec, url_of(client, request))
        if spec.paginate is not None:
            return await _all_pages(f, spec, client, request, options, until, key, indices, started)
        return await _one(f, spec, client, request, key, indices, started, single=single)
    except FetchError as error:
        if spec.operation is not None:
            _calling().judge_failure(f, spec, client, error)
        if key is not None:
            x.sync.fail(key)
            # Without a match the run fails, and a resume asks again.
            if x.journal is not None and spec.guarded:
                x.journal.append("sync", {"k": key, "failed": True})
        return failed(f, spec, error, started if told else None)


_NOTHING: Mapping[str, Value] = {}


def tell_start(f: Frame, spec: FetchSpec, url: str) -> None:
    """`fetch.start`: before the first of the request's attempts."""
    if f.x.wants(FetchStarted):
        f.x.emit(
            FetchStarted(
                source=spec.source,
                method=spec.method.upper(),
                path=spec.template,
                url=url,
                is_oas=spec.operation is not None,
                operation_id=None if spec.operation is None else spec.operation.id,
                has_pagination=spec.paginate is not None,
                has_since=spec.since is not None,
            ),
            action=f.action,
        )


def failed(
    f: Frame, spec: FetchSpec, error: FetchError, started: float | None = None
) -> tuple[Value, Mapping[str, Value] | None]:
    """A request's failure as an error response where a match looks at it; else it is raised.

    `started`: when it was begun and told of; None where it could not even be made.
    """
    error.source = error.source or spec.source
    if started is None:
        error.locate(place_of(error))
    # A match may raise it again: it is the request's all the same.
    error.locate(spec.span)
    x = f.x
    if started is not None:
        count_attempts(f, spec, error.attempts)
    x.requests += error.attempts
    x.retries += max(0, error.attempts - 1)
    if started is None:
        tell_start(f, spec, spec.template)
    x.emit(
        FetchFailed(
            source=spec.source,
            method=spec.method.upper(),
            path=spec.template,
            url=error.url,
            error=error.message,
            kind=error.kind,
            retryable=is_retryable(error),
            delivered=spec.guarded,
            attempts=error.attempts,
            status_code=error.status_code or None,
        ),
        action=f.action,
        duration_ms=0 if started is None else x.since(started),
    )
    fields = envelope(error)
    error.envelope = fields
    if not spec.guarded:
        raise error
    f.failure = error
    if "validationErrors" in fields:
        fields["validationErrors"] = ValidationErrors(fields["validationErrors"])
    return ErrorResponse(fields), None


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
    if isinstance(body, StoreHandle):
        body = body.records()
    has_body = "body" in options
    if has_body and spec.method == "get":
        if isinstance(body, Mapping):
            params += body.items()
        has_body, body = False, None
    headers = options.get("headers")
    if headers is not None and not isinstance(headers, Mapping):
        raise EvaluatorError(f"headers must be an object, not {described(headers)}")
    pairs = tuple(headers.items()) if isinstance(headers, Mapping) else ()
    operation_id = None
    if spec.operation is not None:
        operation_id = spec.operation.id
        given = tuple((name, value) for name, value in params if name not in spec.operation.path_parameters)
        others = _added_parameters(spec, options)
        query, pairs = _calling().arranged(spec, x.clients[spec.source], given, pairs, others=others, has_body=has_body)
        params = list(query)
    if spec.since is not None:
        since = _since(x, spec.since, options, key)
        if since is not None:
            params.append((str(options.get("sinceParam") or spec.since.parameter), since))
    method = spec.method.upper()
    retry = typed_option(options, "retry")
    effect = None
    if method in EFFECTS:
        effect = derived_key("", x.record.execution_id, f"{f.origin}:{spec.step_path}", f.index, *indices)
    timeout = typed_option(options, "timeout")
    return Request(
        method=method,
        target=target,
        template=spec.template,
        params=tuple(params),
        headers=pairs,
        body=body,
        has_body=has_body,
        timeout_seconds=None if timeout is None else seconds(timeout, 30.0),
        retry=None if retry is None else retry_policy(retry, x.clients[spec.source].settings.retry),
        retry_written=retry is not None,
        effect_key=effect,
        operation_id=operation_id,
        rate_limit=rate_limit(typed_option(options, "rateLimit")),
    )


def _added_parameters(spec: FetchSpec, options: Mapping[str, Value]) -> list[str]:
    """The query parameters that paging and sync add to a request, on its first page or later."""
    found = [] if spec.paginate is None or not spec.paginate.parameter else [spec.paginate.parameter]
    if spec.since is not None:
        found.append(str(options.get("sinceParam") or spec.since.parameter))
    return found


def _calling() -> ModuleType:
    # The module of those who call operations: others don't load what it needs.
    from reqon.runtime import calling  # noqa: PLC0415

    return calling


def _since(x: Execution, spec: SinceSpec, options: Mapping[str, Value], key: str | None) -> Value:
    value: Value
    if spec.uses_checkpoint:
        assert key is not None
        value = x.sync.since(key)
    else:
        value = options.get("since")
    if value is None:
        return None
    if "sinceFormat" not in options and (
        type(value) in (int, float) or (isinstance(value, str) and newest(value) is None)
    ):
        return value  # an API may count by numbers or tokens of its own
    overlap = options.get("sinceOverlap")
    if overlap is not None and (instant := newest(value)) is not None:
        value = instant - timedelta(seconds=seconds(overlap, 0.0))
    return since_text(value, str(options.get("sinceFormat") or spec.format))


def _shown(spec: FetchSpec, request: Request, before: int) -> dict[str, Value]:
    """`request` as missions read it, secrets masked. `before`: attempts that were made until `retry` repeated it."""
    return {
        "method": request.method,
        "source": spec.source,
        "path": SECRETS.redact(request.target),
        "params": {name: SECRETS.redact_parameter(name, value) for name, value in request.params},
        "body": SECRETS.redact_value(request.body),
        "operationId": request.operation_id,
        "attempt": before + 1,
    }


def count_attempts(f: Frame, spec: FetchSpec, attempts: int) -> None:
    """Put into `request` which attempt the last one was."""
    if spec.shows_request and attempts > 1 and isinstance(f.request, dict):
        f.request = {**f.request, "attempt": f.request["attempt"] + attempts - 1}


async def _one(
    f: Frame,
    spec: FetchSpec,
    client: Client,
    request: Request,
    key: str | None,
    indices: tuple[int, ...],
    started: float,
    *,
    single: bool,
) -> tuple[Value, Mapping[str, Value] | None]:
    x = f.x
    outermost = f.loop is None and f.key is not None
    if outermost and x.resume is not None:
        known = x.resume.take_reply(f.key or "", spec.step_path)
        if known is not None and known.body is not None:
            x.fetched_items += 1
            _tell_kept(f, spec, client, request, known.fields["st"], started)
            return _from_journal(f, spec, client, known.fields, x.resume.journal.read_body(known.body))
    if outermost:
        save_before(f, request.method)
    reply = await ask(f, spec, client, request, indices, single=single)
    count_attempts(f, spec, reply.attempts)
    meta: dict[str, Value] = {"code": reply.status, "headers": reply.headers}
    if spec.operation is not None and (problems := _calling().judged(f, spec, client, reply)):
        meta["validationErrors"] = problems
    x.requests += reply.attempts
    x.retries += max(0, reply.attempts - 1)
    if outermost:
        x.fetched_items += _counted(reply.value)
        f.raw_response, f.raw_of = reply.raw if reply.is_json and reply.raw else None, reply.value
        effect = {"effect": True} if request.method in EFFECTS else {}
        if (effect or spec.before_loop) and x.journal is not None:
            x.journal.append(
                "response",
                {"a": f.key, "p": spec.step_path, "st": reply.status, "h": dict(reply.headers), **effect},
                body=reply.raw if reply.is_json and reply.raw else encode(reply.value),
            )
            x.journal.write()
    if key is not None:
        count = _counted(reply.value) if reply.attempts else 0
        _note_sync(f, key, reply.sent_at, reply.date, count, spec, reply.value)
    if reply.attempts:
        _tell_completed(f, spec, client, request, reply, started)
    else:
        _tell_kept(f, spec, client, request, reply.status, started)
    return reply.value, meta


def _counted(value: Value) -> int:
    """How many items an answer counts as: those of its list, however few; without a list 1."""
    items, place = find_items(value)
    return int(value is not None) if place is None else len(items)


def _from_journal(
    f: Frame, spec: FetchSpec, client: Client, fields: Mapping[str, Value], raw: bytes
) -> tuple[Value, Mapping[str, Value] | None]:
    f.raw_response = raw
    value = f.raw_of = decode(raw)
    meta: dict[str, Value] = {"code": fields["st"], "headers": Headers(fields["h"])}
    if spec.operation is not None and (found := _calling().known_problems(spec, client, meta, value)):
        meta["validationErrors"] = found
    return value, meta


def _tell_kept(f: Frame, spec: FetchSpec, client: Client, request: Request, status: int, started: float) -> None:
    """`fetch.complete` of an answer that the journal had."""
    if f.x.wants(FetchCompleted):
        f.x.emit(
            FetchCompleted(
                source=spec.source,
                method=request.method,
                path=spec.template,
                url=url_of(client, request),
                status=status,
                record_count=0,
                bytes_received=0,
                attempts=0,
                from_cache=True,
            ),
            action=f.action,
            duration_ms=f.x.since(started),
        )


def _tell_completed(
    f: Frame,
    spec: FetchSpec,
    client: Client,
    request: Request,
    reply: Reply,
    started: float,
    *,
    pages: PageRun | None = None,
) -> None:
    x = f.x
    if x.wants(FetchCompleted):
        records = pages.pages.count if pages is not None else _counted(reply.value)
        x.emit(
            FetchCompleted(
                source=spec.source,
                method=request.method,
                path=spec.template,
                url=url_of(client, request),
                status=reply.status,
                record_count=records,
                bytes_received=len(reply.raw) if pages is None else pages.bytes_received,
                attempts=reply.attempts if pages is None else pages.attempts,
                pages_fetched=None if pages is None else pages.number,
            ),
            action=f.action,
            duration_ms=x.since(started),
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


def settled(spec: FetchSpec, sources: Container[str], source: Value, size: Value) -> FetchSpec:
    """The spec with what only the run knows: the source that an expression names, the size of a page.

    Raises:
        EvaluatorError: there is no such source, or the size is no whole number from 1 on.
    """
    if source is not None:
        name = text(source)
        if name not in sources:
            raise EvaluatorError(f"source '{name}' is not declared", code="undefined-source")
        spec = replace(spec, source=name)
    if size is not None and spec.paginate is not None:
        whole = read_value("pageSize", PAGINATE.keys["pageSize"], size)
        spec = replace(spec, paginate=replace(spec.paginate, size=whole))
    return spec


async def _all_pages(
    f: Frame,
    spec: FetchSpec,
    client: Client,
    request: Request,
    options: Mapping[str, Value],
    until: Until | None,
    key: str | None,
    indices: tuple[int, ...],
    started: float,
) -> tuple[Value, Mapping[str, Value] | None]:
    assert spec.paginate is not None
    run = PageRun(f, spec, client, request, options, until, indices)
    reply = await run.all()
    value = run.pages.result(run.pending)
    if key is not None:
        _note_sync(f, key, run.started_at or f.x.now(), run.first_date, run.pages.count, spec, value)
    if run.outermost:
        f.x.fetched_items += run.pages.count
    meta: dict[str, Value] = {"validationErrors": run.problems} if run.problems else {}
    if reply is None:
        _tell_kept(f, spec, client, request, 200, started)
        return value, {"code": 200, "headers": {}, **meta}
    count_attempts(f, spec, reply.attempts)
    _tell_completed(f, spec, client, request, reply, started, pages=run)
    return value, {"code": reply.status, "headers": reply.headers, **meta}
