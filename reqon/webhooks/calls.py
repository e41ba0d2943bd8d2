"""A call to an endpoint, and what it is answered. Knows nothing of sockets (spec/runtime.md 12.3)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from urllib.parse import parse_qsl, quote, unquote

from reqon.http.body import is_charset
from reqon.secrets import SECRETS
from reqon.values import JsonError, Record, Value, decode

TOKEN_HEADER = "x-reqon-webhook-token"  # noqa: S105  # a header's name
TOKEN_PARAMETER = "token"  # noqa: S105  # a parameter's name
DELIVERY_HEADERS = ("webhook-id", "x-webhook-id", "x-github-delivery", "idempotency-key")
_LONGEST_ID = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. Header names in lower case; `path` is canonical, without query."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    received_at: datetime
    body: bytes = b""

    @property
    def token(self) -> str:
        """What it brings as a token, in the header or in the query."""
        return self.headers.get(TOKEN_HEADER) or self.query.get(TOKEN_PARAMETER) or ""

    @property
    def delivery(self) -> str | None:
        """What its sender calls this delivery; a repeated one has the same."""
        for name in DELIVERY_HEADERS:
            if value := self.headers.get(name):
                if len(value) > _LONGEST_ID:
                    value = hashlib.sha256(value.encode("utf-8", "backslashreplace")).hexdigest()
                return f"{name}:{value}"
        return None

    def with_body(self, body: bytes) -> "Call":
        return replace(self, body=body)

    def shown_headers(self) -> dict[str, str]:
        """The headers as they may be kept."""
        return {name: SECRETS.redact_header(name, value) for name, value in self.headers.items()}

    def shown_query(self) -> dict[str, str]:
        """The query as it may be kept."""
        return {name: SECRETS.redact(f"?{name}={value}").partition("=")[2] for name, value in self.query.items()}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call is answered; `reason` is for our log alone."""

    status: int
    body: Record = field(default_factory=dict)
    reason: str = ""
    retry_after_seconds: int | None = None

    @property
    def refuses(self) -> bool:
        return self.status >= 400


NOT_FOUND = Answer(404, {"error": "Not found"}, "no such path, or no or a wrong token")
GONE = Answer(410, {"error": "Gone"}, "the registration expired")
COMPLETE = Answer(410, {"error": "Gone"}, "all events that were waited for have come")
TOO_LARGE = Answer(413, {"error": "Payload too large"}, "the body is larger than 1 MiB")
TOO_SLOW = Answer(408, {"error": "Request timeout"}, "the body did not come in time")
TOO_MANY = Answer(429, {"error": "Too many events"}, "10,000 events are waiting", 30)
NOT_READY = Answer(503, {"error": "Not ready"}, "its execution is not running, so its signature cannot be checked", 30)
UNWRITABLE = Answer(503, {"error": "Not ready"}, "the event could not be written", 30)
NOT_ALLOWED = Answer(405, {"error": "Method not allowed"}, "only POST, PUT and PATCH")
FILTERED = Answer(202, {"success": True, "filtered": True})
DUPLICATE = Answer(200, {"success": True, "duplicate": True})


class BadBodyError(Exception):
    """A body is not what its Content-Type says."""


def canonical(path: str) -> str:
    """A path in the one spelling by which endpoints are found, whatever a proxy made of its percent signs."""
    return "/".join(quote(unquote(segment, errors="replace"), safe="") for segment in path.split("/"))


def read_body(call: Call) -> tuple[Value, str | None]:
    """The value of a body, and its text where it was no JSON.

    Raises:
        BadBodyError: it is not what its Content-Type says, or no text at all.
    """
    if not call.body:
        return None, None
    written = call.headers.get("content-type", "")
    kind, charset = _content_type(written)
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return decode(call.body.removeprefix(b"\xef\xbb\xbf")), None
        except JsonError as error:
            raise BadBodyError(error.message) from error
    try:
        text = call.body.decode(charset) if is_charset(charset) else None
    except ValueError:
        text = None
    if text is None:
        raise BadBodyError(f"the body is no text in {charset[:_LONGEST_ID]}")
    if kind == "application/x-www-form-urlencoded":
        return _form(text), text
    if not written:
        try:
            return decode(call.body), None
        except JsonError:
            pass
    return text, text


def _content_type(written: str) -> tuple[str, str]:
    """The kind in lower case and the charset, UTF-8 if none is named."""
    kind, *parameters = written.split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"') or charset
    return kind.strip().lower(), charset


def _form(text: str) -> Record:
    """A form as an object; a name that is given repeatedly has a list."""
    found: Record = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=10_000)
    except ValueError as error:
        raise BadBodyError(f"the body is no form: {error}") from error
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found
