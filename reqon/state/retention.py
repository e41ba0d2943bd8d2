"""Which records may go: a pure function of records and now (spec/state.md 7). And how ages are written."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from reqon.state.records import ExecutionRecord, ExecutionStatus

_UNITS = {
    "ms": 0.001,
    "millisecond": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86_400.0,
    "day": 86_400.0,
    "w": 604_800.0,
    "week": 604_800.0,
}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_LONGEST_SECONDS = 36_500 * 86_400.0


def parse_duration(text: str) -> float:
    """Seconds of `30d`, `7 days`, `90 s`, `1.5h`; a number without a unit is milliseconds. Units: ms s m h d w.

    Raises:
        ValueError: no such duration, or more than a hundred years.
    """
    match = _DURATION.fullmatch(text)
    word = (match[2].lower() if match else "") or "ms"
    singular = word.removesuffix("s")
    factor = _UNITS.get(word) or (_UNITS.get(singular) if len(singular) > 2 else None)
    if match is None or factor is None:
        raise ValueError(f"{text!r} is no duration; write 30d, 7 days, 12h, 90m, 45s, or milliseconds")
    seconds = float(match[1]) * factor
    if seconds > _LONGEST_SECONDS:
        raise ValueError(f"{text!r} is longer than a hundred years")
    return seconds


def parse_age(text: str) -> float:
    """Seconds of an age that decides what is deleted: as `parse_duration`, and never without a unit.

    Raises:
        ValueError: no such duration, or a mere number, which might be meant in days.
    """
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ValueError(str(error).replace(", or milliseconds", " or 4w")) from None
    if not text.strip()[-1:].isalpha():
        raise ValueError(f"{text!r} has no unit; write 30d, 7 days, 12h, 90m, 45s or 4w")
    return seconds


def expired(records: Iterable[ExecutionRecord], *, now: datetime, keep_seconds: float) -> list[ExecutionRecord]:
    """The records that ended, or began if nobody knows when they ended, longer ago; never a running one.

    An age counts by the clock of now, so that a clock that was ahead keeps a record rather than losing one.
    """
    limit = now - timedelta(seconds=keep_seconds)
    return [r for r in records if r.status is not ExecutionStatus.RUNNING and (r.completed_at or r.started_at) < limit]
