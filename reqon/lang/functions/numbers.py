"""Built-in functions on numbers and on arrays of them."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

from reqon.errors import EvaluatorError
from reqon.lang.functions.lists import Element, listed
from reqon.lang.functions.registry import builtin, fail, whole
from reqon.lang.instants import epoch_milliseconds
from reqon.lang.operators import add, checked, divide, elements, exact, multiply, numeric, order
from reqon.values import Value, milliseconds

_whole_below = math.floor
_DIGITS = 800
_BITS = 1330  # of an integer of 400 digits
_DECIMAL = Context(prec=_DIGITS, Emin=-2000, Emax=2000)
_HALF = Decimal("0.5")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)


def number(function: str, value: Value) -> int | float:
    """A number, or what counts as one in arithmetic.

    Raises:
        EvaluatorError: neither; names the function.
    """
    if type(value) is int or type(value) is float:
        return value
    if type(value) is bool:
        return int(value)
    found = numeric(value) if isinstance(value, str) else None
    if found is None:
        fail(function, "a number", value)
    return found


@builtin("round", 1, 2)
def round_(x: Value, digits: Value = 0) -> int | float | None:
    """The nearest number with so many decimals, ties towards +∞, judged on the decimal text: 1.005 to 2 is 1.01."""
    if type(x) is float and digits == 0:
        below = _whole_below(x)
        return below if x - below < 0.5 else below + 1
    if x is None or (type(x) is int and digits == 0):
        return x
    value, places = number("round", x), whole("round", digits, "the decimals")
    if type(value) is float and 0 < places < 10 and abs(value) < 1e6:
        scaled = value * 10**places
        if abs(scaled - math.floor(scaled) - 0.5) > 1e-6:  # no tie near: Python's own rounding is the same and quicker
            return exact(round(value, places))
    return _to_places(value, places, lambda d: (d + _HALF).to_integral_value(ROUND_FLOOR))


@builtin("floor", 1, 2)
def floor(x: Value, digits: Value = 0) -> int | float | None:
    if x is None:
        return None
    return _to_places(
        number("floor", x), whole("floor", digits, "the decimals"), lambda d: d.to_integral_value(ROUND_FLOOR)
    )


@builtin("ceil", 1, 2)
def ceil(x: Value, digits: Value = 0) -> int | float | None:
    if x is None:
        return None
    return _to_places(
        number("ceil", x), whole("ceil", digits, "the decimals"), lambda d: d.to_integral_value(ROUND_CEILING)
    )


def _to_places(value: float, places: int, cut: Callable[[Decimal], Decimal]) -> int | float:
    if type(value) is int and places >= 0:
        return value
    decimals = Decimal(repr(value))
    places = max(-_DIGITS // 2, min(places, _DIGITS // 2))
    result = _DECIMAL.scaleb(cut(_DECIMAL.scaleb(decimals, places)), -places)
    return int(result) if result == result.to_integral_value() and type(value) is int else checked(_narrow(result))


def _narrow(result: Decimal) -> int | float:
    return int(result) if abs(result) < 2**53 and result == result.to_integral_value() else float(result)


@builtin("abs", 1)
def abs_(x: Value) -> Value:
    if x is None:
        return None
    return abs(x) if isinstance(x, timedelta) else exact_abs(number("abs", x))


def exact_abs(value: float) -> int | float:
    """The absolute value, integral ones as integers."""
    return abs(value) if type(value) is int else checked(abs(value))


@builtin("sqrt", 1)
def sqrt(x: Value) -> int | float | None:
    if x is None:
        return None
    value = number("sqrt", x)
    if value < 0:
        raise EvaluatorError(f"sqrt() of the negative number {value}")
    try:
        return checked(math.sqrt(value))
    except OverflowError:
        raise EvaluatorError("sqrt() of a number that is too large") from None


@builtin("pow", 2)
def pow_(x: Value, y: Value) -> int | float | None:
    if x is None or y is None:
        return None
    base, exponent = number("pow", x), number("pow", y)
    try:
        if type(base) is int and type(exponent) is int and exponent >= 0:
            # Too many digits are found out before they are made.
            return checked(base**exponent if abs(base) < 2 or base.bit_length() * exponent < 2 * _BITS else math.inf)
        return checked(math.pow(base, exponent))
    except OverflowError:
        raise EvaluatorError("pow() has a result that is too large") from None
    except ValueError:
        raise EvaluatorError(f"pow() of {base} to the power of {exponent} is no number") from None


@builtin("toNumber", 1)
def to_number(x: Value) -> int | float | None:
    """A number, numeric text, 1 or 0 of a boolean, the epoch milliseconds of a datetime, those of a duration."""
    if x is None:
        return None
    if isinstance(x, datetime):
        return epoch_milliseconds(x)
    if isinstance(x, timedelta):
        return milliseconds(x)
    return number("toNumber", x.strip() if isinstance(x, str) else x)


@builtin("parseDecimal", 1)
def parse_decimal(s: Value) -> int | float | None:
    """The number of a decimal text, which may have thousands commas."""
    if s is None:
        return None
    if isinstance(s, str):
        text = s.strip()
        s = text.replace(",", "") if _THOUSANDS.fullmatch(text) else text
    return number("parseDecimal", s)


# --- aggregates ------------------------------------------------------------------------------------------------------


def _present(function: str, xs: Value, f: Element | None) -> list[Value]:
    if xs is None:
        return []
    found: Sequence[Value] | map[Value] = listed(function, xs)
    return [x for x in (found if f is None else map(f, found)) if x is not None]


def total(values: Sequence[Value], function: str = "sum") -> Value:
    """The sum of numbers, or of durations; of nothing 0.

    Raises:
        EvaluatorError: something else among them; names the function.
    """
    if all(type(x) is int for x in values):
        return checked(sum(values))
    if any(isinstance(x, timedelta) for x in values):
        return _total_duration(values, function)
    numbers = [number(function, x) for x in values]
    if all(type(x) is int for x in numbers):
        return checked(sum(numbers))
    try:
        # Exact whatever the order, and the same on every Python.
        return checked(math.fsum(numbers))
    except OverflowError:
        raise EvaluatorError(f"{function}() has a result that is too large") from None


def _total_duration(values: Sequence[Value], function: str) -> timedelta:
    result = timedelta()
    for x in values:
        if not isinstance(x, timedelta):
            fail(function, "durations only, as some are", x)
        result = add(result, x)
    return result


def average(values: Sequence[Value]) -> Value:
    """The mean, null of nothing."""
    return divide(total(values, "avg"), len(values)) if values else None


def smallest(values: Sequence[Value], function: str = "min") -> Value:
    """The first of the least values by their order, null of nothing."""
    if not values:
        return None
    least = values[0]
    for x in values[1:]:
        if order(x, least, function) < 0:
            least = x
    return least


def largest(values: Sequence[Value], function: str = "max") -> Value:
    """The first of the greatest values by their order, null of nothing."""
    if not values:
        return None
    most = values[0]
    for x in values[1:]:
        if order(x, most, function) > 0:
            most = x
    return most


@builtin("sum", 1, None, element=(1,), aggregate=True)
def sum_(xs: Value, f: Element | None = None) -> Value:
    return total(_present("sum", xs, f))


@builtin("avg", 1, None, element=(1,), aggregate=True)
def avg(xs: Value, f: Element | None = None) -> Value:
    return average(_present("avg", xs, f))


@builtin("min", 1, None, element=(1,), aggregate=True)
def min_(xs: Value, f: Element | None = None) -> Value:
    return smallest(_present("min", xs, f))


@builtin("max", 1, None, element=(1,), aggregate=True)
def max_(xs: Value, f: Element | None = None) -> Value:
    return largest(_present("max", xs, f))


_OF_VALUES: dict[str, Callable[[Sequence[Value]], Value]] = {
    "sum": total,
    "avg": average,
    "min": smallest,
    "max": largest,
}


def of_arguments(function: str, *arguments: Value) -> Value:
    """`sum avg min max` over the arguments themselves, nulls left out.

    Raises:
        EvaluatorError: the first argument is an array.
    """
    if arguments and elements(arguments[0]) is not None:
        raise EvaluatorError(f"{function}() of an array takes one more argument at most, got {len(arguments) - 1}")
    return _OF_VALUES[function]([x for x in arguments if x is not None])


def of_either(body: Callable[[Value, Element], Value], name: str, first: Value, f: Element, current: Value) -> Value:
    """`max(a, b)`: over the elements of an array by `f`; else over `a` and what `f` gives for the current item."""
    return body(first, f) if elements(first) is not None else of_arguments(name, first, f(current))


@builtin("median", 1)
def median(xs: Value) -> int | float | None:
    """The middle number, or the mean of the two in the middle; null of nothing."""
    numbers = sorted(number("median", x) for x in _present("median", xs, None))
    if not numbers:
        return None
    middle = len(numbers) // 2
    return numbers[middle] if len(numbers) % 2 else _mean(numbers[middle - 1], numbers[middle])


def _mean(a: float, b: float) -> int | float:
    result: int | float = divide(add(a, b), 2)
    return result


@builtin("product", 1)
def product(xs: Value) -> int | float | None:
    numbers = [number("product", x) for x in _present("product", xs, None)]
    if not numbers:
        return None
    result: int | float = 1
    for x in numbers:
        result = multiply(result, x)
    return result
