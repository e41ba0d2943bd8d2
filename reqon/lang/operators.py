"""What `.` `[]` `+` `==` `<` `contains` and their kin mean on a mission's values (spec/language.md 3).

These are the complete rules. Generated code tests for the everyday case in place and calls here for all others, so
nothing in this module knows where an expression stands: errors are raised without a place.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cmp_to_key, reduce
from typing import Any, NoReturn, Protocol

from reqon.errors import EvaluatorError
from reqon.lang import instants
from reqon.lang.instants import date_text, instant_text, read_instant
from reqon.values import JsonError, Record, Value, encode, milliseconds

# One value: 64 MiB of text, or as many bytes of list slots (spec/reliability.md 6).
MAX_TEXT = 64 * 1024 * 1024
MAX_ITEMS = MAX_TEXT // 8
_EXACT = 2.0**53
_whole = math.floor  # quicker than int(), and the same for integral numbers
_LARGEST = 10**400  # what JSON may hold as well (reliability.md 6)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_MAX_DIGITS = 400
_SHOWN = 40

# Of all values only these can be falsy, and then exactly when Python says so.
FALSY_TYPES = frozenset((type(None), bool, int, float, str))


# --- values that carry more than they show ---------------------------------------------------------------------------


class Backed(dict[str, Any]):
    """A record and its `backing`, asked only when a field is absent. Equality, JSON and schemas see the dict alone."""

    __slots__ = ("backing",)

    def __init__(self, fields: Mapping[str, Value], backing: Value) -> None:
        super().__init__(fields)
        self.backing = backing


class PagedResult(dict[str, Any]):
    """The last page's body, its list field holding all items; stands for their list wherever one is wanted."""

    __slots__ = ("items_",)

    def __init__(self, body: Mapping[str, Value], items: Sequence[Value]) -> None:
        super().__init__(body)
        self.items_ = items


class ErrorResponse(dict[str, Any]):
    """The outcome of a failed fetch (spec/language.md 7.2). Patterns of a `match` on it also look at its `body`."""

    __slots__ = ()


class ValidationErrors(list[str]):
    """The texts of a response validation: `includes` looks inside each of them."""

    __slots__ = ()


class ReadableStore(Protocol):
    """What a handle needs of a store."""

    def get(self, key: str) -> Record | None: ...
    def count(self) -> int: ...
    def keys(self) -> Collection[str]: ...
    def records(self) -> Iterable[Record]: ...


class StoreHandle:
    """A store's name used as a value: the array of its records, but for indexing and `.get`.

    `partials`, where given, tells for a key the `partial` value of the last `store` step that wrote it; records read are
    then backed by `{_partial: …}` (spec/language.md 7.6).
    """

    __slots__ = ("name", "partials", "store")

    def __init__(self, name: str, store: ReadableStore, partials: Mapping[str, bool] | None = None) -> None:
        self.name = name
        self.store = store
        self.partials = partials

    def get(self, key: str) -> Record | None:
        """The record under a key, None if there is none."""
        record = self.store.get(key)
        if record is None or not self.partials or key not in self.partials:
            return record
        return Backed(record, {"_partial": self.partials[key]})

    def count(self) -> int:
        return self.store.count()

    def records(self) -> list[Record]:
        """A snapshot of all records, in the store's order."""
        records = list(self.store.records())
        partials = self.partials
        if not partials:
            return records
        return [
            Backed(record, {"_partial": partials[key]}) if key in partials else record
            for key, record in zip(self.store.keys(), records, strict=True)
        ]

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<store {self.name}>"


# --- kinds -----------------------------------------------------------------------------------------------------------


def kind_of(value: Value) -> str:
    """The kind of a value as missions call it: null boolean number string array object datetime duration store."""
    known = _KINDS.get(type(value))
    if known is not None:
        return known
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, Sequence) else type(value).__name__


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    datetime: "datetime",
    timedelta: "duration",
    StoreHandle: "store",
}


def described(value: Value) -> str:
    """A value as a message names it: its kind, and itself where it is short. `the string "abc"`, `an array`, `null`."""
    kind = kind_of(value)
    if kind == "null":
        return "null"
    if kind in ("array", "object"):
        return f"an {kind}"
    if kind == "store":
        return f"the store '{value.name}'"
    shown = f'"{value}"' if kind == "string" else text(value)
    return f"the {kind} {shown}" if len(shown) <= _SHOWN else f"the {kind} {shown[:_SHOWN]}…"


def is_object(value: Value) -> bool:
    """Whether a value is an object, a paged result included."""
    return isinstance(value, Mapping)


def elements(value: Value) -> Sequence[Value] | None:
    """The elements of what stands for an array: an array, a paged result, a store. None for all else."""
    if type(value) is list:
        return value
    if isinstance(value, PagedResult):
        return value.items_
    if isinstance(value, StoreHandle):
        return value.records()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    return None


def is_integer(value: Value) -> bool:
    """Whether a value is an integral number: 3.0 is, true is not."""
    return type(value) is int or (type(value) is float and value.is_integer())


def is_number(value: Value) -> bool:
    return type(value) is int or type(value) is float


def is_date(value: Value) -> bool:
    """Whether a value is a datetime, or a string that `parseDate` accepts."""
    return isinstance(value, datetime) or (isinstance(value, str) and read_instant(value) is not None)


def truthy(value: Value) -> bool:
    """null, false, 0 and "" are falsy; everything else, empty arrays and objects included, is truthy."""
    return bool(value) or type(value) not in FALSY_TYPES


TYPE_TESTS: dict[str, Callable[[Value], bool]] = {
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: type(v) is bool,
    "bool": lambda v: type(v) is bool,
    "number": is_number,
    "decimal": is_number,
    "float": is_number,
    "double": is_number,
    "int": is_integer,
    "integer": is_integer,
    "array": lambda v: elements(v) is not None,
    "object": is_object,
    "date": is_date,
    "datetime": is_date,
    "null": lambda v: v is None,
    "undefined": lambda v: v is None,
    "any": lambda _: True,
}


# --- text ------------------------------------------------------------------------------------------------------------


def text(value: Value) -> str:
    """The text form: strings unchanged, null "", numbers in their shortest form, datetimes ISO, containers JSON.

    Raises:
        EvaluatorError: larger than 64 MiB, or no JSON.
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if type(value) is int:
        return str(value)
    if type(value) is float:
        return number_text(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, timedelta):
        return text(milliseconds(value))
    if isinstance(value, str):
        return str(value)
    return _json_text(value)


def number_text(number: float) -> str:
    """The shortest decimal text that reads back as this number, as JSON writes it: `5`, `0.1`, `1e21`, `1e-7`."""
    if number.is_integer() and -1e16 < number < 1e16:
        return str(int(number))
    shown = repr(number)
    if "e" in shown:
        digits, _, exponent = shown.partition("e")
        return f"{digits}e{int(exponent)}"
    return shown


def _json_text(value: Value) -> str:
    try:
        raw = encode(value)
    except JsonError:
        try:
            raw = encode(plain(value))
        except JsonError as error:
            raise EvaluatorError(f"{described(value)} has no text form: {error.message}") from error
    if len(raw) > MAX_TEXT:
        too_large("a text")
    return raw.decode("utf-8")


def plain(value: Value) -> Value:
    """A copy of nothing but JSON's own containers: stores as lists, header maps and lazy lists read out.

    Raises:
        EvaluatorError: nested too deeply.
    """
    try:
        return _plain(value)
    except RecursionError:
        raise EvaluatorError("the value is nested too deeply") from None


def _plain(value: Value) -> Value:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    listed = elements(value)
    return value if listed is None else [_plain(inner) for inner in listed]


def too_large(what: str) -> NoReturn:
    """Refuse a value beyond the limit of reliability.md 6."""
    raise EvaluatorError(
        f"{what} grew beyond the limit of {MAX_TEXT // 1024 // 1024} MiB for one value",
        hint="store or send the parts one by one",
    )


def bounded(value: Value) -> Value:
    """The value itself, if it is no larger than one value may be."""
    if type(value) is str:
        if len(value) > MAX_TEXT:
            too_large("a text")
    elif type(value) is list and len(value) > MAX_ITEMS:
        too_large("an array")
    return value


# --- members and indices ---------------------------------------------------------------------------------------------


def member(value: Value, key: str) -> Value:
    """`value.key`: an object's field, its backing record's, an array's length or projection; else null. Never fails."""
    if isinstance(value, dict):
        if key in value:
            return value[key]
        if isinstance(value, Backed):
            found = _own(value.backing, key)
            return None if found is _ABSENT else found
        if key == "length" and isinstance(value, PagedResult):
            return len(value.items_)
        return None
    if value is None:
        return None
    if isinstance(value, str):
        return len(value) if key == "length" else None
    if isinstance(value, Mapping):
        return value.get(key)
    if isinstance(value, StoreHandle) and key == "length":
        return value.count()
    listed = elements(value)
    if listed is None:
        return None
    return len(listed) if key == "length" else _projection(listed, key)


_ABSENT = object()


def _projection(listed: Sequence[Value], key: str) -> list[Value] | None:
    found = [_own(element, key) for element in listed]
    if all(value is _ABSENT for value in found):
        return None
    return [None if value is _ABSENT else value for value in found]


def _own(value: Value, key: str) -> Value:
    """A field of an object or of what backs it, `_ABSENT` where there is none."""
    while isinstance(value, Mapping):
        if key in value:
            return value[key]
        if not isinstance(value, Backed):
            break
        value = value.backing
    return _ABSENT


def response_member(value: Value, key: str, meta: Mapping[str, Value] | None) -> Value:
    """`response.key`: the body's own field, or what an array has; else the virtual field of the fetch; else null."""
    if isinstance(value, Mapping):
        found = _own(value, key)
        if found is not _ABSENT:
            return found
        if isinstance(value, PagedResult) and key == "length":
            return len(value.items_)
    else:
        found = member(value, key)
        if found is not None:
            return found
    return None if meta is None else meta.get(key)


def pattern_field(value: Value, key: str, meta: Mapping[str, Value] | None) -> Value:
    """What an object pattern finds under a key: the value's field, else the virtual one; null if absent."""
    found = _own(value, key)
    if found is not _ABSENT:
        return found
    return None if meta is None else meta.get(key)


def index(value: Value, at: Value) -> Value:
    """`value[at]` (spec/language.md 3.4).

    Raises:
        EvaluatorError: a value without elements or fields, or an array's index that is no integer.
    """
    if value is None:
        return None
    if isinstance(value, StoreHandle):
        return None if at is None else value.get(text(at))
    if isinstance(value, Mapping):
        if isinstance(value, PagedResult) and is_number(at):
            return _element(value.items_, at)
        found = _own(value, text(at))
        return None if found is _ABSENT else found
    if isinstance(value, str):
        return _element(value, at)
    listed = elements(value)
    if listed is None:
        raise EvaluatorError(f"[…] needs an array, an object, a string or a store, not {described(value)}")
    return _element(listed, at)


def _element(listed: Sequence[Value], at: Value) -> Value:
    if not is_integer(at):
        raise EvaluatorError(f"an index must be an integer, not {described(at)}")
    where, size = int(at), len(listed)
    return listed[where] if -size <= where < size else None


def record_of(value: Value, key: Value) -> Value:
    """`store.get(key)`.

    Raises:
        EvaluatorError: the value is no store.
    """
    if not isinstance(value, StoreHandle):
        raise EvaluatorError(f"get() is for stores, not for {described(value)}", hint="write value[key]")
    return index(value, key)


def where(value: Value, holds: Callable[[Value], object]) -> list[Value]:
    """The elements for which `holds` answers what Python takes as true; of null, none.

    Raises:
        EvaluatorError: not an array, a store or null.
    """
    return [element for element in iterable(value, "where") if holds(element)]


def any_of(value: Value, holds: Callable[[Value], object] | None = None) -> bool:
    """Whether some element satisfies the condition; without one, whether there is any element.

    Raises:
        EvaluatorError: not an array, a store or null.
    """
    listed = iterable(value, "any of")
    return len(listed) > 0 if holds is None else any(holds(element) for element in listed)


def all_match(value: Value, matches: Callable[[Value], bool]) -> bool:
    """Whether a value is an array, perhaps empty, whose elements all match."""
    listed = elements(value)
    return listed is not None and all(map(matches, listed))


def iterable(value: Value, operator: str) -> Sequence[Value]:
    """The elements of an array or store; none of null.

    Raises:
        EvaluatorError: anything else; names the operator.
    """
    if value is None:
        return ()
    listed = elements(value)
    if listed is None:
        raise EvaluatorError(f"'{operator}' needs an array or a store, not {described(value)}")
    return listed


# --- equality --------------------------------------------------------------------------------------------------------


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
    """Something hashable, the same for two values exactly when they are equal; not so for a datetime and its text.

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


def holds_datetime(value: Value) -> bool:
    """Whether a datetime stands anywhere in the value."""
    stack = [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, datetime):
            return True
        if isinstance(inner, Mapping):
            stack.extend(inner.values())
        elif not isinstance(inner, str):
            stack.extend(elements(inner) or ())
    return False


# --- ordering --------------------------------------------------------------------------------------------------------


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


# --- contains --------------------------------------------------------------------------------------------------------


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


# --- numbers ---------------------------------------------------------------------------------------------------------


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
    raise EvaluatorError("the result is no number: it is too large, or undefined")


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


# --- construction ----------------------------------------------------------------------------------------------------


def spread_elements(value: Value) -> Sequence[Value]:
    """What `...value` adds to an array or to arguments; nothing for null.

    Raises:
        EvaluatorError: no array or store.
    """
    if value is None:
        return ()
    listed = elements(value)
    if listed is None:
        raise EvaluatorError(f"'...' needs an array or a store here, not {described(value)}")
    return listed


def spread_fields(value: Value) -> Mapping[str, Value]:
    """What `...value` adds to an object; nothing for null. Backing records are not spread.

    Raises:
        EvaluatorError: no object.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise EvaluatorError(f"'...' needs an object here, not {described(value)}")
    return value


def array_of(value: Value) -> Sequence[Value] | None:
    """The elements that an array pattern sees, None for what is no array."""
    return value if type(value) is list else elements(value)


def snapshot(value: Value) -> Value:
    """A store as the list of its records; any other value as it is."""
    return value.records() if isinstance(value, StoreHandle) else value
