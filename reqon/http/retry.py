"""Whether a failed request goes again, and after how long (spec/runtime.md 5). Decides; never waits."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

Backoff = Literal["exponential", "linear", "constant"]

_REPEATABLE = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))
_NEVER_TAKEN = frozenset((429, 503))  # by these statuses a server says that it has not acted
_LONGEST_SECONDS = 100 * 365 * 86_400.0  # nobody waits so long, and its end is still a date
_SECONDS = re.compile(r"\d{1,300}(\.\d{1,20})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`retry: { … }`, complete, in seconds. `max_delay_seconds` None: the default of 30 s, never below `initial`."""

    max_attempts: int = 3
    backoff: Backoff = "exponential"
    initial_delay_seconds: float = 1.0
    max_delay_seconds: float | None = None
    delay_seconds: float | None = None
    jitter: float = 0.1

    def delay_before(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait before attempt `attempt`, which is at least 2. `random` gives numbers in [0, 1).

        Raises:
            ValueError: there is no wait before the first attempt.
        """
        if attempt < 2:
            raise ValueError(f"no wait before attempt {attempt}")
        if self.delay_seconds is not None:
            return self.delay_seconds
        factor = {"exponential": 2.0 ** min(attempt - 2, 64), "linear": attempt - 1.0, "constant": 1.0}[self.backoff]
        spread = 1 + self.jitter * (2 * random() - 1)
        ceiling = max(30.0, self.initial_delay_seconds) if self.max_delay_seconds is None else self.max_delay_seconds
        return round(min(self.initial_delay_seconds * factor * spread, ceiling), 3)


def is_retryable_status(status: int) -> bool:
    """Whether the same request may well succeed later."""
    return status in (408, 425, 429) or (500 <= status <= 599 and status not in (501, 505))


def may_repeat(method: str, *, status: int, sent: bool, keyed: bool) -> bool:
    """Whether a retryable failure of this method may be repeated without doing its effect twice.

    `status` is 0 without an answer, `sent` False when no connection came about; `keyed`: the mission says that a
    repetition is safe, by a `retry` block of the request or an idempotency key.
    """
    return method in _REPEATABLE or keyed or not sent or status in _NEVER_TAKEN


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """What `Retry-After` asks for, in seconds; a date is taken against the answer's own `Date` if it has one.

    Negative, past and unreadable values are None.
    """
    text = headers.get("Retry-After")
    if text is None:
        return None
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), _LONGEST_SECONDS)
    until = http_date(text)
    if until is None:
        return None
    seconds = (until - (http_date(headers.get("Date")) or now)).total_seconds()
    return min(seconds, _LONGEST_SECONDS) if seconds >= 0 else None


def http_date(text: str | None) -> datetime | None:
    """The instant of an HTTP date, in UTC; None if it is none."""
    if not text:
        return None
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
