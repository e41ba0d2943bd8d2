"""The budget of a `retry` directive, and how its request goes again (spec/language.md 7.10, runtime.md 5.6)."""

from datetime import timedelta
from typing import Any

from reqon.errors import RetryExhaustedError
from reqon.events import FetchRetried
from reqon.http.failures import failure_reason
from reqon.http.retry import RetryPolicy
from reqon.runtime.frame import Frame
from reqon.runtime.signals import RetryFetch
from reqon.values import Value

DEFAULT_ATTEMPTS = 3


def may_retry(f: Frame, target: str, directive: str, maximum: Value) -> bool:
    """Whether a directive's budget, the first execution included, allows one more."""
    allowed = maximum if isinstance(maximum, int) and not isinstance(maximum, bool) else DEFAULT_ATTEMPTS
    return executions(f, target, directive) < allowed


def executions(f: Frame, target: str, directive: str) -> int:
    """How often a request was executed for a directive, the first time included."""
    return f.tries.get(target, {}).get(directive, 1)


def exhausted(cause: Exception | None, attempts: int) -> RetryExhaustedError:
    error = RetryExhaustedError(
        "retry is used up" + (f": {cause}" if cause is not None else ""),
        hint="a later arm that ends in abort, skip or queue decides what happens then",
    )
    error.__cause__ = cause
    error.attempts = attempts
    return error


def go_back(f: Frame, target: str, directive: str, options: dict[str, Any], *, no_delay: bool = False) -> RetryFetch:
    """The signal that repeats a request: counts, and says how long to wait."""
    tries = f.tries.setdefault(target, {})
    executed = tries.get(directive, 1)
    tries[directive] = executed + 1
    delay = _seconds(options.get("delay"))
    if delay is None and not no_delay and f.failure is not None:
        delay = f.failure.retry_after
    if delay is None:
        delay = 0.0 if no_delay and not options else policy(options).delay_before(executed + 1, f.x.random)
    maximum = options.get("maxAttempts")
    allowed = maximum if isinstance(maximum, int) and not isinstance(maximum, bool) else DEFAULT_ATTEMPTS
    return RetryFetch(target, delay, executed, max(allowed, executed + 1))


def policy(options: dict[str, Any]) -> RetryPolicy:
    """Retry options as written; values that make no sense fall back to the default."""
    made: dict[str, Any] = {}
    if (attempts := options.get("maxAttempts")) is not None:
        made["max_attempts"] = attempts
    if options.get("backoff") in ("exponential", "linear", "constant"):
        made["backoff"] = options["backoff"]
    for key, name in (
        ("initialDelay", "initial_delay_seconds"),
        ("maxDelay", "max_delay_seconds"),
        ("delay", "delay_seconds"),
    ):
        seconds = _seconds(options.get(key))
        if seconds is not None:
            made[name] = seconds
    if isinstance(options.get("jitter"), int | float):
        made["jitter"] = options["jitter"]
    return RetryPolicy(**made)


def _seconds(value: Value) -> float | None:
    if isinstance(value, timedelta):
        value = value.total_seconds() * 1000
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return value / 1000


async def repeat(f: Frame, signal: RetryFetch) -> None:
    """Wait, then let the request go once more, as a single attempt."""
    x, work = f.x, f.work
    item = f.index if f.loop is work else f.item
    if work is not None and x.resume is not None and x.resume.knows_more(work.f.key, work.spec.path, item):
        return  # it went already, before the process ended
    x.retries += 1
    if x.wants(FetchRetried):
        source, path = f.called
        failure = f.failure
        status = failure.status_code if failure is not None else 0
        x.emit(
            FetchRetried(
                source=source,
                path=path,
                attempt=signal.attempt,
                max_attempts=signal.max_attempts,
                reason=failure_reason(failure) if failure is not None else "retry",
                wait_ms=round(signal.delay_seconds * 1000),
                status_code=status or None,
            ),
            action=f.action,
        )
    await x.clock.sleep(signal.delay_seconds)
    f.single = True
