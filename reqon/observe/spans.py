"""One span, and its form in OTLP/HTTP JSON (spec/runtime.md 15.4): hex ids, times as decimal strings of nanoseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from reqon.clock import SYSTEM
from reqon.secrets import SECRETS
from reqon.tracing import generate_span_id, generate_trace_id
from reqon.values import Value

INTERNAL, CLIENT = 1, 3
UNSET, OK, ERROR = 0, 1, 2
MAX_EVENTS = 128  # of one span, as OpenTelemetry's own libraries keep; more are counted
_TEXT_LIMIT = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(moment: datetime) -> int:
    """Since 1970, exactly."""
    past = moment - _EPOCH
    return ((past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds) * 1000


@dataclass(slots=True, kw_only=True)
class Span:
    """A piece of work with its time. `end` None: it is not over."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None = None
    kind: int = INTERNAL
    start: int = 0
    end: int | None = None
    attributes: dict[str, Value] = field(default_factory=dict)
    events: list[tuple[int, str, Mapping[str, Value]]] = field(default_factory=list)
    dropped_events: int = 0
    status: int = UNSET
    message: str = ""

    def add_event(self, name: str, at: int, attributes: Mapping[str, Value]) -> None:
        """Something that happened within it; beyond 128 they are only counted."""
        if len(self.events) < MAX_EVENTS:
            self.events.append((at, name, attributes))
        else:
            self.dropped_events += 1

    def to_otlp(self) -> dict[str, Any]:
        """The span's JSON form."""
        shown: dict[str, Any] = {
            "traceId": self.trace_id,
            "spanId": self.span_id,
            "name": SECRETS.redact(self.name),
            "kind": self.kind,
            "startTimeUnixNano": str(self.start),
            "endTimeUnixNano": str(self.end if self.end is not None else self.start),
            "attributes": attributes_of(self.attributes),
            "status": {"code": self.status, **({"message": SECRETS.redact(self.message)} if self.message else {})},
        }
        if self.parent_id is not None:
            shown["parentSpanId"] = self.parent_id
        if self.events:
            shown["events"] = [
                {"timeUnixNano": str(at), "name": name, "attributes": attributes_of(given)}
                for at, name, given in self.events
            ]
        if self.dropped_events:
            shown["droppedEventsCount"] = self.dropped_events
        return shown


def attributes_of(attributes: Mapping[str, Value]) -> list[dict[str, Any]]:
    """Attributes as OTLP has them; what is None is left out."""
    return [{"key": name, "value": _any(value)} for name, value in attributes.items() if value is not None]


def _any(value: Value) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_any(one) for one in value]}}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": attributes_of({str(k): v for k, v in value.items()})}}
    text = SECRETS.redact(str(value)).encode("utf-8", "replace").decode()
    return {"stringValue": text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + "…"}


class SpanBuilder:
    """Makes a span by hand; each setter answers the builder."""

    def __init__(self, name: str) -> None:
        self._span = Span(name=name, trace_id="", span_id="")

    def set_trace_id(self, trace_id: str) -> Self:
        """The trace that it belongs to: 32 hex digits. Without, it gets one of its own."""
        self._span.trace_id = trace_id
        return self

    def set_span_id(self, span_id: str) -> Self:
        """Its id: 16 hex digits. Without, one is made."""
        self._span.span_id = span_id
        return self

    def set_parent(self, span_id: str) -> Self:
        """The id of the span that it stands under."""
        self._span.parent_id = span_id
        return self

    def set_attribute(self, name: str, value: Value) -> Self:
        """A fact about it: a JSON value."""
        self._span.attributes[name] = value
        return self

    def set_start_time(self, at: datetime) -> Self:
        """When it began, an aware datetime. Without, it has no length."""
        self._span.start = nanoseconds(at)
        return self

    def add_event(self, name: str, attributes: Mapping[str, Value] | None = None, at: datetime | None = None) -> Self:
        """Something that happened within it, now unless told otherwise; 128 are kept, the others counted."""
        self._span.add_event(name, nanoseconds(at or SYSTEM.now()), attributes or {})
        return self

    def build(self, end: datetime | None = None) -> Span:
        """The span, ended now unless told otherwise; ids and times that were not given are made."""
        span = self._span
        span.trace_id = span.trace_id or generate_trace_id()
        span.span_id = span.span_id or generate_span_id()
        span.end = nanoseconds(end or SYSTEM.now())
        span.start = span.start or span.end
        return span
