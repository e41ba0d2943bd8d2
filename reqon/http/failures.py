"""Failed requests as errors and as values: what they say, and the envelope a `match` looks at (spec/runtime.md 2.7)."""

from http import HTTPStatus

from reqon.errors import CircuitBreakerError, FetchError, RateLimitError
from reqon.http.addresses import host_of, origin_of
from reqon.http.body import decode_body
from reqon.http.messages import Headers, SourceSettings
from reqon.http.retry import is_retryable_status
from reqon.http.transport import RawAnswer, TransportError
from reqon.secrets import SECRETS
from reqon.values import Value

_SAID_FIELDS = ("error", "message", "detail", "title", "error_description")
_SAID_CHARACTERS = 300


def envelope(error: FetchError) -> dict[str, Value]:
    """A failure as the value that a guarding `match` looks at."""
    body = error.body
    fields: dict[str, Value] = dict(body) if isinstance(body, dict) else {}
    if fields.get("error") is None:
        message = fields.get("message")
        fields["error"] = message if isinstance(message, str) else _name_of(error)
    fields["code"] = error.status_code
    fields["kind"] = error.kind
    fields.setdefault("status", error.status_code)
    if error.retry_after is not None:
        fields.setdefault("retryAfter", error.retry_after)
    if error.page:
        fields.setdefault("page", error.page)
    fields["headers"] = error.headers
    fields["body"] = body
    if isinstance(error, CircuitBreakerError):
        fields |= {"circuitOpen": True, "service": error.source, "openedAt": error.opened_at}
    if errors := getattr(error, "errors", None):
        fields["validationErrors"] = list(errors)
    return fields


def from_answer(answer: RawAnswer, settings: SourceSettings, retry_after: float | None) -> FetchError:
    """The error of an answer that is no success."""
    status = answer.status
    body = _body(answer)
    text = f"{status} {_phrase(status)}".strip()
    hint = _said(body)
    limits = settings.rate_limit
    error: FetchError
    if status == 429 and limits is not None and limits.strategy == "fail":
        error = RateLimitError(text, kind="rate_limit", retry_after=retry_after, hint=hint)
    else:
        if status == 401 and hint is None:
            hint = f"check the credentials of source '{settings.name}'"
        kind = "redirect" if 300 <= status < 400 else "http"
        error = FetchError(text, kind=kind, retry_after=retry_after, hint=hint)
    error.status_code, error.headers, error.body = status, Headers(answer.pairs), body
    return error


def from_transport(failure: TransportError, settings: SourceSettings) -> FetchError:
    """The error of a request that got no usable answer."""
    hint = None
    if failure.kind == "too_large":
        hint = "ask for smaller pages, or raise maxResponseBytes of the source"
    elif failure.kind == "timeout":
        hint = f"raise timeout of source '{settings.name}', if the API is known to be slow"
    elif not failure.sent and failure.kind == "network":
        host = host_of(origin_of(settings.base))
        hint = f"is {host} the right host, and can this machine reach it?"
        if failure.message.startswith("no TLS"):
            hint = f"does {host} speak https on this port? If it is plain, write http://"
        elif failure.message.endswith("connection refused"):
            hint = f"nothing listens there: are {host} and the port right, and does the API run?"
    return FetchError(failure.message, kind=failure.kind, hint=hint)


def failure_reason(error: FetchError) -> str:
    """Why a request goes again, as events say it: rate_limit, http_503, network, timeout."""
    status = error.status_code
    return "rate_limit" if status == 429 else f"http_{status}" if status else error.kind


def is_retryable(error: FetchError) -> bool:
    """Whether the same request may well succeed later."""
    return is_retryable_status(error.status_code) or error.kind in ("timeout", "network", "circuit_open", "rate_limit")


def _name_of(error: FetchError) -> str:
    if error.status_code == 429:
        return "rate_limit"
    if error.kind != "http":
        return error.kind
    return f"HTTP {error.status_code} {_phrase(error.status_code)}".strip()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _body(answer: RawAnswer) -> Value:
    """An error answer's body as far as it can be read; null if not."""
    try:
        return decode_body(answer.body, answer.headers.get("Content-Type"))[0]
    except FetchError:
        return None


def _said(body: Value) -> str | None:
    """What the API itself says about a failure: short, on one line; nothing for HTML pages."""
    said = body
    if isinstance(body, dict):
        said = next((body[name] for name in _SAID_FIELDS if body.get(name)), None)
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail")
    if not isinstance(said, str) or said.lstrip()[:1] in ("", "<"):
        return None
    text = "".join(c if c.isprintable() else " " for c in SECRETS.excerpt(said, _SAID_CHARACTERS))
    return f'the API says: "{text}"'
