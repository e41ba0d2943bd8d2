"""Which trace the running task belongs to, and new ids for traces and spans (W3C Trace Context)."""

from contextvars import ContextVar
from secrets import token_hex

# Trace id and span id of the request in work, set by whoever records spans.
TRACE: ContextVar[tuple[str, str] | None] = ContextVar("reqon_trace", default=None)


def generate_trace_id() -> str:
    """32 hex digits, from the system's secure source."""
    return token_hex(16)


def generate_span_id() -> str:
    """16 hex digits, from the system's secure source."""
    return token_hex(8)


def traceparent() -> str:
    """The header that carries the trace on: of the request in work, else of a new trace that nobody records."""
    known = TRACE.get()
    if known is None:
        return f"00-{generate_trace_id()}-{generate_span_id()}-00"
    return f"00-{known[0]}-{known[1]}-01"
