"""Calls of OpenAPI operations: what is sent where, and what is made of an answer (spec/runtime.md 8, 10)."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from reqon.errors import FetchError, ReqonError, ResponseValidationError
from reqon.events import DataRefused, DataValidated
from reqon.http.client import Client
from reqon.http.messages import Headers, Reply
from reqon.http.openapi.parameters import placed, refuse_missing
from reqon.http.openapi.validation import MAX_ERRORS
from reqon.http.paths import text_of
from reqon.lang.operators import ValidationErrors
from reqon.runtime.fetch_spec import FetchSpec
from reqon.runtime.frame import Frame
from reqon.values import Value

Pairs = tuple[tuple[str, Value], ...]


def chosen(name: str, objects: Sequence[Value], otherwise: Value) -> Value:
    """The value of a path parameter: of several objects the last that has it, else a variable's."""
    for given in reversed(objects):
        if isinstance(given, Mapping) and name in given:
            return given[name]
    return otherwise


def call_key(spec: FetchSpec, values: Sequence[Value]) -> str:
    """The sync key of a call: `Source-operationId`, with the path's parameters, sorted, where it has any."""
    operation = spec.operation
    assert operation is not None
    pairs = zip(operation.path_parameters, values, strict=True)
    texts = sorted(f"{quote(name, safe='')}={quote(_text(value), safe='')}" for name, value in pairs)
    return f"{spec.source}-{operation.id}" + (f"?{'&'.join(texts)}" if texts else "")


def _text(value: Value) -> str:
    return "" if value is None else text_of(value) or ""


def arranged(
    spec: FetchSpec, client: Client, given: Pairs, headers: Pairs, *, others: Sequence[str], has_body: bool
) -> tuple[Pairs, Pairs]:
    """A call's query and headers. `others` are query parameters that paging and sync will add.

    Raises:
        FetchError: a required parameter is missing, or a value has no form at its place.
    """
    operation = spec.operation
    assert operation is not None
    known = operation.by_name
    made = placed(given, known)
    cookies = [value for name, value in (*made.headers, *headers) if name.lower() == "cookie" and value]
    if len(cookies) > 1:
        joined: Pairs = (("Cookie", "; ".join(map(str, cookies))),)
        headers = (*(pair for pair in headers if pair[0].lower() != "cookie"), *joined)
    sent = {name.lower() for name, value in (*made.headers, *headers) if value is not None}
    own = client.adds
    refuse_missing(
        operation.parameters,
        present={*(name for name, value in given if value is not None), *others, *own},
        headers={*sent, *own},
        operation=f"{spec.source}.{operation.id}",
    )
    body_type = operation.body_type
    if has_body and body_type is not None and "content-type" not in sent | own:
        headers = (("Content-Type", body_type), *headers)
    return made.query, (*made.headers, *headers)


# --- answers ---------------------------------------------------------------------------------------------------------


def judged(f: Frame, spec: FetchSpec, client: Client, reply: Reply) -> ValidationErrors:
    """What does not fit in a successful answer; nothing where nobody asked.

    Raises:
        ResponseValidationError: something doesn't, and the source's mode is strict.
    """
    if client.settings.validation == "off" or spec.operation is None or reply.status in _NO_CONTENT:
        return _NONE
    if spec.method == "head":
        return _NONE
    problems = _problems(f, spec, reply.status, reply.headers, reply.value)
    if not problems:
        return _NONE
    if client.settings.validation == "warn":
        _warn(f, spec, problems)
        return problems
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    error = ResponseValidationError(
        f"the answer does not fit the specification: {problems[0]}{more}",
        kind="validation_failed",
        status_code=reply.status,
        headers=reply.headers,
        body=reply.value,
        hint='validationMode: "warn" would let it through and name what does not fit',
    )
    error.errors, error.operation_id = tuple(problems), spec.operation.id
    raise error.concerning(source=spec.source, method=spec.method.upper(), url=reply.url, attempts=reply.attempts)


def judge_failure(f: Frame, spec: FetchSpec, client: Client, error: FetchError) -> None:
    """Give a failed answer that does not fit its schema the list of what doesn't."""
    if client.settings.validation == "off" or spec.operation is None or error.body is None or error.kind != "http":
        return
    headers = error.headers if isinstance(error.headers, Headers) else Headers()
    problems = _problems(f, spec, error.status_code, headers, error.body)
    if problems:
        _warn(f, spec, problems)
        error.errors = tuple(problems)  # type: ignore[attr-defined]  # the envelope shows it


def merged(known: ValidationErrors, more: ValidationErrors) -> ValidationErrors:
    """The problems of several pages, a hundred at most."""
    return known if not more or len(known) >= MAX_ERRORS else ValidationErrors([*known, *more][:MAX_ERRORS])


def known_problems(spec: FetchSpec, client: Client, meta: Mapping[str, Value], value: Value) -> ValidationErrors:
    """What did not fit in an answer that an interrupted run had: it was told then, and is only found again."""
    operation, document = spec.operation, spec.document
    if client.settings.validation == "off" or operation is None or document is None or value is None:
        return _NONE
    check = document.check(operation, meta["code"], meta["headers"].get("Content-Type"))
    return _NONE if check is None else ValidationErrors(check.problems(value))


_NO_CONTENT = frozenset((204, 205, 304))
_NONE = ValidationErrors()


def _problems(f: Frame, spec: FetchSpec, status: int, headers: Headers, value: Value) -> ValidationErrors:
    x = f.x
    operation, document = spec.operation, spec.document
    assert operation is not None
    assert document is not None
    try:
        check = document.check(operation, status, headers.get("Content-Type"))
    except ReqonError as error:
        raise error.locate(spec.span) from error
    if check is None:
        x.notice(f"{spec.source}.{operation.id}: the specification has no schema for status {status}", level="debug")
        return _NONE
    problems = ValidationErrors(check.problems(value))
    kind = DataRefused if problems else DataValidated
    if x.wants(kind):
        strict = x.clients[spec.source].settings.validation == "strict"
        event = kind(
            target="response",
            passed=not (strict and problems),
            valid=not problems,
            warning_count=0 if strict else len(problems),
            error_count=len(problems) if strict else 0,
            rules=(operation.id,),
            errors=tuple(problems),
        )
        x.emit(event, action=f.action)
    return problems


def _warn(f: Frame, spec: FetchSpec, problems: ValidationErrors) -> None:
    assert spec.operation is not None
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    name = f"{spec.source}.{spec.operation.id}"
    f.x.notice(f"an answer of {name} does not fit the specification: {problems[0]}{more}", location=str(spec.span))
