"""How much of a webhook server's time and room its callers may take (spec/runtime.md 12.3)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`connections` at once; a request's head and its body each within so many seconds."""

    connections: int = 100
    head_seconds: float = 10.0
    body_seconds: float = 30.0
