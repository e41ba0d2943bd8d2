"""What goes to an API and what comes back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from reqon.http.retry import RetryPolicy, http_date
from reqon.values import Value


class Headers(Mapping[str, str]):
    """Header lines by name, whatever its case; equal names are joined with a comma. Without Set-Cookie."""

    __slots__ = ("_pairs", "_sorted")

    def __init__(
        self, lines: "Mapping[str, str] | Sequence[tuple[str, str]] | Sequence[tuple[bytes, bytes]] | None" = None
    ) -> None:
        self._pairs = lines
        self._sorted: dict[str, tuple[str, str]] | None = None

    @property
    def _lines(self) -> dict[str, tuple[str, str]]:
        # Most answers' headers are never looked at, so that they are sorted when somebody does.
        found = self._sorted
        if found is None:
            found = self._sorted = {}
            pairs = self._pairs.items() if isinstance(self._pairs, Mapping) else self._pairs or ()
            for raw_name, raw_value in pairs:
                name, value = _text(raw_name), _text(raw_value)
                key = name.lower()
                if key != "set-cookie":
                    known = found.get(key)
                    found[key] = (known[0], f"{known[1]}, {value}") if known else (name, value)
        return found

    def __getitem__(self, name: str) -> str:
        return self._lines[name.lower()][1]

    def get(self, name: str, default: Any = None) -> Any:
        found = self._lines.get(name.lower())
        return found[1] if found else default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._lines

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._lines.values())

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self)})"


def _text(raw: str | bytes) -> str:
    if isinstance(raw, str):
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


# Request and Reply are named tuples: as frozen dataclasses the two would cost a tenth of a local request.


class Request(NamedTuple):
    """One request as a mission means it; credentials, source headers and base are the client's to add.

    Attributes:
        method: upper case.
        target: the assembled path with its query ("/parcels/7?x=1"), or an absolute URL; see `paths.assemble`.
        template: the path template of spec/runtime.md 2.1, for events, metrics and sync keys.
        params: query parameters in order, later ones replacing earlier ones of the same name; values are JSON values.
        headers: request headers; a None value leaves the header out.
        body: a value, sent when `has_body`. For a GET the caller has put it into `params` already.
        retry: the effective policy; `retry_written` when the request itself has a `retry` block.
        effect_key: what an Idempotency-Key is made of; None: no key.
        as_bytes: the answer's body is wanted as it came: `Reply.value` stays None.
        rate_limit: the fetch's own `rateLimit` block: a second quota for its source, method and template.
    """

    method: str
    target: str
    template: str
    params: tuple[tuple[str, Value], ...] = ()
    headers: tuple[tuple[str, Value], ...] = ()
    body: Value = None
    has_body: bool = False
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    retry_written: bool = False
    effect_key: str | None = None
    operation_id: str | None = None
    rate_limit: "RateLimitSettings | None" = None
    as_bytes: bool = False


class Reply(NamedTuple):
    """A successful answer (2xx, 304), its body decoded.

    Attributes:
        value: the parsed body, the text of a text type, or None when empty.
        raw: the body's bytes as received, after content decoding.
        sent_at: our clock just before the first attempt was sent.
    """

    status: int
    headers: Headers
    value: Value
    raw: bytes
    is_json: bool
    url: str
    attempts: int
    sent_at: datetime

    @property
    def date(self) -> datetime | None:
        """The instant of the answer's `Date` header."""
        return http_date(self.headers.get("Date"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitSettings:
    """`rateLimit: { … }` of a source; durations in seconds."""

    requests_per_minute: float = 60
    strategy: Literal["pause", "throttle", "fail"] = "pause"
    max_wait_seconds: float = 60
    adaptive: bool = False
    notify_at_seconds: float = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """`circuitBreaker: { … }` of a source; durations in seconds."""

    failure_threshold: int = 5
    reset_timeout_seconds: float = 30
    success_threshold: int = 2
    failure_window_seconds: float = 60
    failure_status_codes: frozenset[int] = field(default_factory=lambda: frozenset(range(500, 600)))
    count_network_errors: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """A source's options, evaluated and typed.

    Attributes:
        base: absolute http(s) URL without trailing slash.
        auth: none, bearer, basic, api_key, oauth2, or a registered name; None: the type of the credentials found.
        inline: credential fields written in the mission, by the names of the credential file.
        variables: the environment variables that the mission reads such fields from, for hints.
        headers: sent with every request to `base`; a value may be a function, which is asked for each request.
        base_trusted: False for a base that the mission did not write: private addresses are closed to it.
        validation: what happens to answers of `call` that don't fit their OpenAPI schema.
        literal_origins: scheme://host:port of every URL that stands in a string literal of the mission.
    """

    name: str
    base: str
    auth: str | None = None
    inline: Mapping[str, Value] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    headers: tuple[tuple[str, Value | Callable[[], Value]], ...] = ()
    timeout_seconds: float = 30
    connect_timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    rate_limit: RateLimitSettings | None = None
    breaker: BreakerSettings | None = None
    idempotency_header: str | None = None
    allow_origins: frozenset[str] = frozenset()
    literal_origins: frozenset[str] = frozenset()
    max_response_bytes: int = 64 * 1024 * 1024
    max_redirects: int = 5
    propagate_trace: bool = False
    base_trusted: bool = True
    validation: Literal["off", "warn", "strict"] = "off"
