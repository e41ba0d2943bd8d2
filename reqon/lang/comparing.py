"""Which values are equal, which comes first, which holds which (spec/language.md 3.1, 3.5)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cmp_to_key
from typing import Any

from reqon.errors import EvaluatorError
from reqon.lang.arithmetic import numeric
from reqon.lang.forms import described, elements, is_integer, is_number, kind_of, text
from reqon.lang.handles import PagedResult
from reqon.lang.instants import date_text, read_instant
from reqon.values import Value


def equal(a: Value, b: Value) -> bool:
    """Deep and type-strict; an absent field equals null, a datetime the text of its instant (spec/language.md 3.5).

    Raises:
        EvaluatorError: the values are nested too deeply to compare.
    """
    try:
        return _equal(a, b)
    except RecursionError:
        raise EvaluatorError("the values are nested too deeply to compare") from None


def _equal(a: Value, b: Value) -> bool:
    if a is b:
        return True
    ta, tb = type(a), type(b)
    if ta is bool or tb is bool or a is None or b is None:
        return False
    if ta is tb and ta in _PLAIN:
        return bool(a == b)
    if isinstance(a, datetime):
        return (read_instant(b) if isinstance(b, str) else b) == a
    if isinstance(b, datetime):
        return isinstance(a, str) and read_instant(a) == b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return _equal_objects(a, b)
    first, second = elements(a), elements(b)
    if first is not None and second is not None:
        return len(first) == len(second) and all(map(_equal, first, second))
    return is_number(a) and is_number(b) and bool(a == b)


_PLAIN = frozenset((str, int, float, datetime, timedelta))


def _equal_objects(a: Mapping[str, Value], b: Mapping[str, Value]) -> bool:
    for key, value in a.items():
        if not _equal(value, b.get(key)):
            return False
    return all(key in a or value is None for key, value in b.items())


def identity(value: Value) -> Any:
    """Something hashable, the same for two values exactly when they are equal, if neither `is_twofold`.

    Raises:
        EvaluatorError: nested too deeply.
    """
    try:
        return _identity(value)
    except RecursionError:
        raise EvaluatorError("the value is nested too deeply to compare") from None


def _identity(value: Value) -> Any:
    if type(value) is bool:  # Python's True equals 1
        return ("boolean", value)
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return frozenset((key, _identity(inner)) for key, inner in value.items() if inner is not None)
    listed = elements(value)
    return value if listed is None else ("array", *map(_identity, listed))


def is_twofold(value: Value) -> bool:
    """Whether a datetime, which equals texts, or a paged result, which equals a list, stands anywhere in the value."""
    stack = [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, datetime | PagedResult):
            return True
        if isinstance(inner, Mapping):
            stack.extend(inner.values())
        elif not isinstance(inner, str):
            stack.extend(elements(inner) or ())
    return False


def order(a: Value, b: Value, operator: str = "<") -> int:
    """Below 0, 0 or above 0 as `a` comes before, beside or after `b`; neither is null (spec/language.md 3.5).

    Raises:
        EvaluatorError: values of kinds that have no order among each other.
    """
    ta, tb = type(a), type(b)
    if ta is str and tb is str:
        a, b = _text_pair(a, b)
    elif (ta not in _ORDERED or ta is not tb) and not (is_number(a) and is_number(b)):
        a, b = _mixed_pair(a, b, operator)
    return int(a > b) - int(a < b)


_ORDERED = frozenset((bool, timedelta, datetime))


def _text_pair(a: str, b: str) -> tuple[Any, Any]:
    first, second = date_text(a), date_text(b)
    if first is not None and second is not None:
        return first, second
    if a and b and a[0] in _NUMBER_STARTS and b[0] in _NUMBER_STARTS:
        left, right = numeric(a), numeric(b)
        if left is not None and right is not None:
            return left, right
    return a, b


_NUMBER_STARTS = frozenset("0123456789+-.")


def _mixed_pair(a: Value, b: Value, operator: str) -> tuple[Any, Any]:
    first, second = a, b
    if isinstance(a, datetime) and isinstance(b, str):
        second = date_text(b)
    elif isinstance(b, datetime) and isinstance(a, str):
        first = date_text(a)
    elif is_number(a) and isinstance(b, str):
        second = numeric(b)
    elif is_number(b) and isinstance(a, str):
        first = numeric(a)
    else:
        first = None
    if first is None or second is None:
        raise EvaluatorError(f"'{operator}' cannot compare {described(a)} with {described(b)}")
    return first, second


def less(a: Value, b: Value) -> bool:
    return a is not None and b is not None and order(a, b, "<") < 0


def less_equal(a: Value, b: Value) -> bool:
    return a is not None and b is not None and order(a, b, "<=") <= 0


def greater(a: Value, b: Value) -> bool:
    return a is not None and b is not None and order(a, b, ">") > 0


def greater_equal(a: Value, b: Value) -> bool:
    return a is not None and b is not None and order(a, b, ">=") >= 0


def within(value: Value, low: Value, high: Value) -> bool:
    """`value in low..high`, both ends included; false if any of them is null."""
    return greater_equal(value, low) and less_equal(value, high)


def ordered(values: Sequence[Value], key: Callable[[Value], Value] | None = None) -> list[Value]:
    """Sorted ascending by the value or its key, stable, nulls last.

    Raises:
        EvaluatorError: values that have no order among each other.
    """
    keys = list(values) if key is None else [key(value) for value in values]
    ranks = _ranks(keys)
    present = [at for at, rank in enumerate(keys) if rank is not None]
    if ranks is None:
        in_order = cmp_to_key(lambda a, b: order(a, b, "sort"))
        ranks = [in_order(rank) for rank in keys]
    present.sort(key=list(ranks).__getitem__)
    return [values[at] for at in present] + [values[at] for at, rank in enumerate(keys) if rank is None]


def _ranks(keys: list[Value]) -> list[Any] | None:
    """What Python can sort by directly, where all keys are of one simple kind; None where each pair must be asked."""
    kinds = {type(key) for key in keys} - {type(None)}
    if kinds <= {int, float} or kinds in ({bool}, {timedelta}, {datetime}):
        return keys
    if kinds == {str}:
        texts = [key for key in keys if key is not None]
        if all(not key or key[0] not in _NUMBER_STARTS for key in texts):
            return keys
        dates = [None if key is None else date_text(key) for key in keys]
        if dates.count(None) == keys.count(None):
            return dates
    return None


def contains(whole: Value, part: Value) -> bool:
    """Substring of a string, element of an array or store, key of an object; false if either side is null.

    Raises:
        EvaluatorError: the left side holds nothing.
    """
    if whole is None or part is None:
        return False
    if isinstance(whole, str):
        return text_form(part, "contains") in whole
    if isinstance(whole, Mapping):
        if isinstance(part, str) and part in whole:
            return True
        if not isinstance(whole, PagedResult):
            return text(part) in whole
    listed = elements(whole)
    if listed is None:
        raise EvaluatorError(f"'contains' needs a string, an array, an object or a store, not {described(whole)}")
    return has_element(listed, part)


def counts(value: Value, least: int, most: int) -> bool:
    """Whether a value is an array of `least` to `most` elements."""
    listed = elements(value)
    return listed is not None and least <= len(listed) <= most


def in_date_range(value: Value, low: Value, high: Value) -> bool:
    """Whether a date lies within years or dates, both ends included; a bound without a time of day is the whole day."""
    instant = value if isinstance(value, datetime) else read_instant(value)
    return instant is not None and _bound(low)[0] <= instant < _bound(high)[1]


def _bound(bound: Value) -> tuple[datetime, datetime]:
    """The first instant of a bound and the first after it."""
    if is_integer(bound):
        return (
            datetime(int(bound), 1, 1, tzinfo=UTC),
            datetime(int(bound), 12, 31, tzinfo=UTC) + timedelta(days=1),
        )
    start = bound if isinstance(bound, datetime) else read_instant(text(bound))
    if start is None:
        raise EvaluatorError(f"{described(bound)} is no date to compare with")
    whole_day = isinstance(bound, str) and len(bound) == 10
    return start, start + (timedelta(days=1) if whole_day else timedelta(milliseconds=1))


def is_in(part: Value, whole: Value) -> bool:
    """`part in whole`: `whole contains part`."""
    return contains(whole, part)


def has_element(listed: Iterable[Value], value: Value) -> bool:
    """Whether some element equals the value."""
    return any(equal(element, value) for element in listed)


def starts_with(a: Value, b: Value) -> bool:
    """Both as text; false if either is null."""
    return a is not None and b is not None and text(a).startswith(text(b))


def ends_with(a: Value, b: Value) -> bool:
    """Both as text; false if either is null."""
    return a is not None and b is not None and text(a).endswith(text(b))


def text_form(value: Value, function: str) -> str:
    """The text form of a scalar.

    Raises:
        EvaluatorError: an array, an object or a store; names the function.
    """
    if type(value) is str:
        return value
    if kind_of(value) in ("array", "object", "store"):
        raise EvaluatorError(f"{function}() needs a string, not {described(value)}")
    return text(value)


# What a chain of arms gives where none of them took the value and others follow.
NOT_YET = object()


def first_taken(*chains: Callable[[], Value]) -> Value:
    """What the first chain of arms gives that takes the value; null where none does."""
    for chain in chains:
        value = chain()
        if value is not NOT_YET:
            return value
    return None
