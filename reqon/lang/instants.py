"""Datetimes as missions write and read them: UTC, millisecond precision (spec/language.md 0, 3.8)."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A number from here on is read as milliseconds since 1970, below it as seconds.
_MILLISECONDS_FROM = 1e11
_MILLISECOND = timedelta(milliseconds=1)

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)? ?(Z|z|UTC|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_ISO_BASIC = re.compile(r"\d{8}T\d{4}(\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?|\d{4}-?W\d\d-?\d(T.*)?", re.ASCII)
_RFC_2822 = re.compile(
    r"(?:[A-Za-z]{3},\s*)?\d{1,2}\s+[A-Za-z]{3}\s+\d{2,4}\s+\d\d?:\d\d(?::\d\d)?\s*(?:[+-]\d{4}|[A-Za-z]{1,5})?",
    re.ASCII,
)


def to_milliseconds(instant: datetime) -> datetime:
    """The instant in UTC, cut to whole milliseconds."""
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    rest = instant.microsecond % 1000
    return instant.replace(microsecond=instant.microsecond - rest) if rest else instant


@lru_cache(maxsize=8192)
def read_instant(text: str) -> datetime | None:
    """The instant that a text denotes, None if it denotes none.

    ISO 8601 (a date alone is its midnight; no zone is UTC; `T` or a space; `Z`, an offset or ` UTC`) and RFC 2822.
    """
    iso = _ISO.fullmatch(text)
    try:
        if iso is not None:
            return _from_iso(iso)
        if _ISO_BASIC.fullmatch(text):
            found = datetime.fromisoformat(text)
            return to_milliseconds(found if found.tzinfo else found.replace(tzinfo=UTC))
        if _RFC_2822.fullmatch(text):
            from email.utils import parsedate_to_datetime  # noqa: PLC0415  # 10 ms that few missions need

            found = parsedate_to_datetime(text)
            return to_milliseconds(found if found.tzinfo else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        pass
    return None


def _from_iso(found: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    micros = int((fraction or "0")[:3].ljust(3, "0")) * 1000
    instant = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micros, tzinfo=UTC
    )
    if zone is None or zone in ("Z", "z", "UTC"):
        return instant
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    offset = timedelta(hours=hours, minutes=minutes)
    return instant - offset if zone[0] == "+" else instant + offset


def is_date_text(text: str) -> bool:
    """Whether a text starts `YYYY-MM-DD` and denotes an instant (spec/language.md 3.5)."""
    return len(text) >= 10 and text[4] == "-" and text[7] == "-" and read_instant(text) is not None


def date_text(text: str) -> datetime | None:
    """The instant of a date text, None for any other text."""
    return read_instant(text) if len(text) >= 10 and text[4] == "-" and text[7] == "-" else None


def from_epoch(number: float) -> datetime:
    """The instant of epoch seconds, or of milliseconds from 1e11 on.

    Raises:
        OverflowError: beyond year 9999 or before year 1.
    """
    millis = number if abs(number) >= _MILLISECONDS_FROM else number * 1000
    return EPOCH + timedelta(milliseconds=int(millis // 1))


def epoch_milliseconds(instant: datetime) -> int:
    """Whole milliseconds since 1970."""
    return (instant - EPOCH) // _MILLISECOND


def instant_text(instant: datetime) -> str:
    """`YYYY-MM-DDTHH:MM:SS.sssZ`."""
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return instant.isoformat(timespec="milliseconds")[:23] + "Z"


def add_months(instant: datetime, months: int) -> datetime:
    """The same day and time so many months later; the last day of the month where that day is missing.

    Raises:
        OverflowError: beyond year 9999 or before year 1.
    """
    years, month = divmod(instant.month - 1 + months, 12)
    year = instant.year + years
    if not 1 <= year <= 9999:
        raise OverflowError(f"year {year}")
    return instant.replace(year=year, month=month + 1, day=min(instant.day, _days_in(year, month + 1)))


def _days_in(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


_TOKENS: dict[str, Callable[[datetime], str]] = {
    "YYYY": lambda d: f"{d.year:04d}",
    "YY": lambda d: f"{d.year % 100:02d}",
    "MMMM": lambda d: MONTHS[d.month - 1],
    "MMM": lambda d: MONTHS[d.month - 1][:3],
    "MM": lambda d: f"{d.month:02d}",
    "M": lambda d: str(d.month),
    "DD": lambda d: f"{d.day:02d}",
    "D": lambda d: str(d.day),
    "dddd": lambda d: WEEKDAYS[d.weekday()],
    "ddd": lambda d: WEEKDAYS[d.weekday()][:3],
    "HH": lambda d: f"{d.hour:02d}",
    "H": lambda d: str(d.hour),
    "hh": lambda d: f"{d.hour % 12 or 12:02d}",
    "h": lambda d: str(d.hour % 12 or 12),
    "mm": lambda d: f"{d.minute:02d}",
    "m": lambda d: str(d.minute),
    "ss": lambda d: f"{d.second:02d}",
    "s": lambda d: str(d.second),
    "SSS": lambda d: f"{d.microsecond // 1000:03d}",
    "A": lambda d: "AM" if d.hour < 12 else "PM",
    "a": lambda d: "am" if d.hour < 12 else "pm",
    "X": lambda d: str(epoch_milliseconds(d) // 1000),
    "x": lambda d: str(epoch_milliseconds(d)),
}
_TOKEN = re.compile(r"\[([^\]]*)\]|" + "|".join(sorted(_TOKENS, key=len, reverse=True)))


def format_instant(instant: datetime, pattern: str) -> str:
    """The instant in UTC, tokens replaced (spec/language.md 3.8, `formatDate`), `[…]` taken literally."""
    utc = instant.astimezone(UTC)
    return _TOKEN.sub(lambda m: m[1] if m[1] is not None else _TOKENS[m[0]](utc), pattern)
