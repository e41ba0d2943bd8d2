"""The kinds of values, their truth and their text (spec/language.md 0, 3.5, 3.6)."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NoReturn

from reqon.errors import EvaluatorError
from reqon.lang.handles import PagedResult, StoreHandle
from reqon.lang.instants import instant_text, read_instant
from reqon.secrets import SECRETS
from reqon.values import JsonError, Value, encode, milliseconds

# One value: 64 MiB of text, or as many bytes of list slots (spec/reliability.md 6).
MAX_TEXT = 64 * 1024 * 1024
MAX_ITEMS = MAX_TEXT // 8
_SHOWN = 40

# Of all values only these can be falsy, and then exactly when Python says so.
FALSY_TYPES = frozenset((type(None), bool, int, float, str))


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
    return f"the {kind} {shown}" if len(shown) <= _SHOWN else f"the {kind} {SECRETS.excerpt(shown, _SHOWN)}…"


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
