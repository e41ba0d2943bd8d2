"""`+ - * / %` on numbers, instants, durations, texts and arrays of them (spec/language.md 3.5)."""

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import reduce
from typing import Any, NoReturn

from reqon.errors import EvaluatorError
from reqon.lang import instants
from reqon.lang.forms import (
    MAX_TEXT,
    described,
    elements,
    text,
    too_large,
)
from reqon.lang.instants import date_text
from reqon.values import Value, milliseconds

_EXACT = 2.0**53
_whole = math.floor  # quicker than int(), and the same for integral numbers
_LARGEST = 10**400  # what JSON may hold as well (reliability.md 6)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_MAX_DIGITS = 400


def numeric(value: str) -> int | float | None:
    """The number that a text spells, without blanks around it; None for any other text."""
    if _NUMBER.fullmatch(value) is None or len(value) > _MAX_DIGITS:
        return None
    if _INTEGER.fullmatch(value):
        return int(value)
    number = float(value)
    return None if math.isinf(number) else exact(number)


def exact(number: float) -> int | float:
    """The number as an integer where it is integral and below 2^53."""
    return int(number) if number.is_integer() and -_EXACT < number < _EXACT else number


def checked(number: Any) -> int | float:
    """The result of arithmetic: integral ones as integers.

    Raises:
        EvaluatorError: infinity, NaN, or an integer of more than 400 digits.
    """
    if type(number) is int:
        if -_LARGEST < number < _LARGEST:
            return number
        raise EvaluatorError("the result has more than 400 digits")
    if isinstance(number, float):
        if -_EXACT < number < _EXACT:
            return int(number) if number.is_integer() else number
        if math.isfinite(number):
            return number
    raise EvaluatorError("the result is too large for a number")


def operand(value: Value, operator: str) -> int | float:
    """A value as a number of an arithmetic operator: numeric strings count, booleans are 1 and 0.

    Raises:
        EvaluatorError: null, or anything else; names the operator.
    """
    if type(value) is int or type(value) is float:
        return value
    if type(value) is bool:
        return int(value)
    if isinstance(value, str):
        number = numeric(value)
        if number is not None:
            return number
    hint = "give a default: (x ?? 0)" if value is None else None
    raise EvaluatorError(f"'{operator}' needs a number, not {described(value)}", hint=hint)


Arithmetic = Callable[[Value, Value], Value]


def _elementwise(apply: Arithmetic, a: Value, b: Value, operator: str) -> list[Value] | None:
    """The operator applied element by element, None where neither side is an array."""
    first = None if type(a) in _SCALARS else elements(a)
    second = None if type(b) in _SCALARS else elements(b)
    if first is None and second is None:
        return None
    if first is not None and second is not None:
        if len(first) != len(second):
            raise EvaluatorError(f"'{operator}' needs arrays of equal length, not {len(first)} and {len(second)}")
        return [apply(x, y) for x, y in zip(first, second, strict=True)]
    if first is not None:
        return [apply(x, b) for x in first]
    return [apply(a, y) for y in second or ()]


_SCALARS = frozenset((type(None), bool, int, float, str, datetime, timedelta, dict))


def _instant_or_duration(value: Value) -> bool:
    return isinstance(value, datetime | timedelta)


def _as_instant(value: Value) -> datetime | None:
    if isinstance(value, datetime):
        return value
    return date_text(value) if isinstance(value, str) else None


def _shifted(instant: datetime, duration: timedelta, operator: str) -> datetime:
    try:
        return instants.to_milliseconds(instant + duration)
    except OverflowError:
        raise EvaluatorError(f"'{operator}' leaves the years 1 to 9999") from None


def add(a: Value, b: Value) -> Value:
    """`a + b`: an instant or duration moved, texts joined (null as ""), numbers added, arrays element by element.

    Raises:
        EvaluatorError: other operands, null without a string beside it, a value that grows too large.
    """
    ta, tb = type(a), type(b)
    if (ta is int or ta is float) and (tb is int or tb is float):
        try:
            result = a + b
        except OverflowError:
            return checked(None)
        if type(result) is int:
            return result if -0x4000_0000_0000_0000 < result < 0x4000_0000_0000_0000 else checked(result)
        if result.is_integer():
            return _whole(result) if -9007199254740992.0 < result < 9007199254740992.0 else checked(result)
        return result if result - result == 0 else checked(result)  # infinity less itself is no number
    return _add_others(a, b)


def _add_others(a: Value, b: Value) -> Value:
    ta, tb = type(a), type(b)
    if ta is timedelta or tb is timedelta:
        if ta is timedelta and tb is timedelta:
            return _duration(lambda: a + b)
        instant, duration = (a, b) if tb is timedelta else (b, a)
        moved = _as_instant(instant)
        if moved is not None:
            return _shifted(moved, duration, "+")
    if isinstance(a, str) or isinstance(b, str):
        joined = text(a) + text(b)
        if len(joined) > MAX_TEXT:
            too_large("a text")
        return joined
    listed = _elementwise(add, a, b, "+")
    return _compute(operand(a, "+"), operand(b, "+"), "+") if listed is None else listed


def add_all(*values: Value) -> Value:
    """`a + b + c …`, from the left."""
    return reduce(add, values)


def subtract(a: Value, b: Value) -> Value:
    """`a - b`: instants give a duration, an instant less a duration an instant, else numbers.

    Raises:
        EvaluatorError: other operands.
    """
    ta, tb = type(a), type(b)
    if (ta is int or ta is float) and (tb is int or tb is float):
        try:
            result = a - b
        except OverflowError:
            return checked(None)
        if type(result) is int:
            return result if -0x4000_0000_0000_0000 < result < 0x4000_0000_0000_0000 else checked(result)
        if result.is_integer():
            return _whole(result) if -9007199254740992.0 < result < 9007199254740992.0 else checked(result)
        return result if result - result == 0 else checked(result)  # infinity less itself is no number
    return _subtract_others(a, b)


def _subtract_others(a: Value, b: Value) -> Value:
    ta, tb = type(a), type(b)
    if ta is timedelta and tb is timedelta:
        return _duration(lambda: a - b)
    instant = _as_instant(a)
    if instant is not None:
        if tb is timedelta:
            return _shifted(instant, -b, "-")
        other = _as_instant(b)
        if other is not None:
            return instant - other
    listed = _elementwise(subtract, a, b, "-")
    return _compute(operand(a, "-"), operand(b, "-"), "-") if listed is None else listed


def multiply(a: Value, b: Value) -> Value:
    """`a * b`: numbers, or a duration by a number.

    Raises:
        EvaluatorError: other operands.
    """
    ta, tb = type(a), type(b)
    if (ta is int or ta is float) and (tb is int or tb is float):
        try:
            result = a * b
        except OverflowError:
            return checked(None)
        if type(result) is int:
            return result if -0x4000_0000_0000_0000 < result < 0x4000_0000_0000_0000 else checked(result)
        if result.is_integer():
            return _whole(result) if -9007199254740992.0 < result < 9007199254740992.0 else checked(result)
        return result if result - result == 0 else checked(result)  # infinity less itself is no number
    return _multiply_others(a, b)


def _multiply_others(a: Value, b: Value) -> Value:
    ta, tb = type(a), type(b)
    listed = _elementwise(multiply, a, b, "*")
    if listed is not None:
        return listed
    if ta is timedelta and tb is not timedelta:
        return _duration(lambda: a * operand(b, "*"))
    if tb is timedelta and ta is not timedelta:
        return _duration(lambda: b * operand(a, "*"))
    return _compute(operand(a, "*"), operand(b, "*"), "*")


def divide(a: Value, b: Value) -> Value:
    """`a / b`: numbers, a duration by a number, or two durations.

    Raises:
        EvaluatorError: division by zero, other operands.
    """
    ta, tb = type(a), type(b)
    if (ta is int or ta is float) and (tb is int or tb is float):
        return _compute(a, b, "/")
    return _divide_others(a, b)


def _divide_others(a: Value, b: Value) -> Value:
    ta, tb = type(a), type(b)
    listed = _elementwise(divide, a, b, "/")
    if listed is not None:
        return listed
    if ta is timedelta:
        if tb is timedelta:
            return _compute(milliseconds(a), milliseconds(b), "/")
        divisor = operand(b, "/")
        if divisor == 0:
            _by_zero("/")
        return _duration(lambda: a / divisor)
    return _compute(operand(a, "/"), operand(b, "/"), "/")


def modulo(a: Value, b: Value) -> Value:
    """`a % b`, floored: the result has the sign of the divisor.

    Raises:
        EvaluatorError: modulo by zero, operands that are no numbers.
    """
    ta, tb = type(a), type(b)
    if (ta is int or ta is float) and (tb is int or tb is float):
        return _compute(a, b, "%")
    listed = _elementwise(modulo, a, b, "%")
    return _compute(operand(a, "%"), operand(b, "%"), "%") if listed is None else listed


def _compute(a: float, b: float, operator: str) -> int | float:
    result: float
    try:
        if operator == "+":
            result = a + b
        elif operator == "-":
            result = a - b
        elif operator == "*":
            result = a * b
        elif b == 0:
            _by_zero(operator)
        elif operator == "%":
            result = a % b
        elif type(a) is int and type(b) is int and a % b == 0:
            result = a // b  # exact where a float is not
        else:
            result = a / b
    except OverflowError:
        result = math.inf
    if -_EXACT < result < _EXACT:
        return result if type(result) is int else exact(result)
    return checked(result)


def _by_zero(operator: str) -> NoReturn:
    word = "modulo" if operator == "%" else "division"
    raise EvaluatorError(f"{word} by zero", hint="guard it: if d == 0 then null else n / d")


def duration(amount: float) -> timedelta:
    """A duration of so many milliseconds.

    Raises:
        EvaluatorError: longer than a duration may be.
    """
    return _duration(lambda: timedelta(milliseconds=amount))


def _duration(compute: Callable[[], timedelta]) -> timedelta:
    try:
        return compute()
    except OverflowError:
        raise EvaluatorError("the duration is too long") from None


def negative(value: Value) -> Value:
    """`-value`.

    Raises:
        EvaluatorError: null, or no number, duration or array of them.
    """
    if type(value) is int:
        return -value
    if isinstance(value, timedelta):
        return -value
    listed = None if type(value) in _SCALARS else elements(value)
    if listed is not None:
        return [negative(element) for element in listed]
    return checked(-operand(value, "-"))


def positive(value: Value) -> Value:
    """`+value`: the value as a number; a duration stays.

    Raises:
        EvaluatorError: null, or no number, duration or array of them.
    """
    if isinstance(value, timedelta):
        return value
    listed = None if type(value) in _SCALARS else elements(value)
    if listed is not None:
        return [positive(element) for element in listed]
    return operand(value, "+")
