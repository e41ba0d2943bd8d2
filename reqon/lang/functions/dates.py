"""Built-in functions on datetimes and durations, all in UTC."""

from datetime import datetime, timedelta

from reqon.errors import EvaluatorError
from reqon.lang.functions.numbers import number
from reqon.lang.functions.registry import World, builtin, fail, whole
from reqon.lang.instants import add_months, format_instant, from_epoch, read_instant, to_milliseconds
from reqon.lang.operators import greater, is_number, less, text_form
from reqon.values import Value

_DAY = timedelta(days=1)


def instant(function: str, x: Value) -> datetime:
    """What `parseDate` makes of a datetime, a text or an epoch number.

    Raises:
        EvaluatorError: nothing; names the function.
    """
    if isinstance(x, datetime):
        return x
    found = None
    if isinstance(x, str):
        found = read_instant(x.strip())
    elif is_number(x):
        try:
            found = from_epoch(x)
        except OverflowError:
            raise EvaluatorError(f"{function}(): {x} is outside the years 1 to 9999") from None
    if found is None:
        fail(function, "a date", x)
    return found


@builtin("parseDate", 1)
def parse_date(x: Value) -> datetime | None:
    return None if x is None else instant("parseDate", x)


@builtin("fromUnix", 1)
def from_unix(n: Value) -> datetime | None:
    return None if n is None else instant("fromUnix", number("fromUnix", n))


@builtin("formatDate", 1, 2)
def format_date(d: Value, pattern: Value = "YYYY-MM-DD") -> str | None:
    return None if d is None else format_instant(instant("formatDate", d), text_form(pattern, "formatDate"))


@builtin("year", 1)
def year(d: Value) -> int | None:
    return None if d is None else instant("year", d).year


@builtin("month", 1)
def month(d: Value) -> int | None:
    return None if d is None else instant("month", d).month


@builtin("day", 1)
def day(d: Value) -> int | None:
    return None if d is None else instant("day", d).day


@builtin("hour", 1)
def hour(d: Value) -> int | None:
    return None if d is None else instant("hour", d).hour


@builtin("minute", 1)
def minute(d: Value) -> int | None:
    return None if d is None else instant("minute", d).minute


@builtin("second", 1)
def second(d: Value) -> int | None:
    return None if d is None else instant("second", d).second


@builtin("dayOfWeek", 1)
def day_of_week(d: Value) -> int | None:
    """0 for Sunday to 6 for Saturday."""
    return None if d is None else instant("dayOfWeek", d).isoweekday() % 7


def _moved(function: str, d: Value, n: Value, unit: timedelta) -> datetime:
    start = instant(function, d)
    try:
        return to_milliseconds(start + unit * number(function, n))
    except OverflowError:
        raise EvaluatorError(f"{function}() leaves the years 1 to 9999") from None


@builtin("addDays", 2)
def add_days(d: Value, n: Value) -> datetime | None:
    return None if d is None else _moved("addDays", d, n, _DAY)


@builtin("subtractDays", 2)
def subtract_days(d: Value, n: Value) -> datetime | None:
    return None if d is None else _moved("subtractDays", d, n, -_DAY)


@builtin("addHours", 2)
def add_hours(d: Value, n: Value) -> datetime | None:
    return None if d is None else _moved("addHours", d, n, timedelta(hours=1))


@builtin("addMonths", 2)
def add_months_(d: Value, n: Value) -> datetime | None:
    """The same day so many months later, clamped to the last day of the month."""
    if d is None:
        return None
    try:
        return add_months(instant("addMonths", d), whole("addMonths", n, "the months"))
    except OverflowError:
        raise EvaluatorError("addMonths() leaves the years 1 to 9999") from None


@builtin("diffDays", 2)
def diff_days(a: Value, b: Value) -> int | None:
    """Whole days of `a - b`, cut towards zero."""
    if a is None or b is None:
        return None
    gap = instant("diffDays", a) - instant("diffDays", b)
    return gap // _DAY if gap >= timedelta() else -(-gap // _DAY)


@builtin("isBefore", 2)
def is_before(a: Value, b: Value) -> bool:
    return less(a, b)


@builtin("isAfter", 2)
def is_after(a: Value, b: Value) -> bool:
    return greater(a, b)


def _duration(function: str, n: Value, unit: timedelta) -> timedelta | None:
    if n is None:
        return None
    try:
        return unit * number(function, n)
    except OverflowError:
        raise EvaluatorError(f"{function}() of {n} is too long") from None


@builtin("weeks", 1)
def weeks(n: Value) -> timedelta | None:
    return _duration("weeks", n, timedelta(weeks=1))


@builtin("days", 1)
def days(n: Value) -> timedelta | None:
    return _duration("days", n, _DAY)


@builtin("hours", 1)
def hours(n: Value) -> timedelta | None:
    return _duration("hours", n, timedelta(hours=1))


@builtin("minutes", 1)
def minutes(n: Value) -> timedelta | None:
    return _duration("minutes", n, timedelta(minutes=1))


@builtin("seconds", 1)
def seconds(n: Value) -> timedelta | None:
    return _duration("seconds", n, timedelta(seconds=1))


@builtin("now", 0, world=True)
def now(world: World) -> datetime:
    return to_milliseconds(world.now())


@builtin("today", 0, world=True)
def today(world: World) -> str:
    return format_instant(now(world), "YYYY-MM-DD")


@builtin("daysAgo", 1, world=True)
def days_ago(world: World, n: Value) -> str | None:
    return None if n is None else format_instant(_moved("daysAgo", now(world), n, -_DAY), "YYYY-MM-DD")


@builtin("daysFromNow", 1, world=True)
def days_from_now(world: World, n: Value) -> str | None:
    return None if n is None else format_instant(_moved("daysFromNow", now(world), n, _DAY), "YYYY-MM-DD")
