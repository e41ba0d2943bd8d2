"""JSON in and out: the only importer of orjson and msgspec.

A mission's value is null, a boolean, a number, a string, a list, a dict with string keys, a datetime (aware, UTC) or a
timedelta (a duration). Values are never changed in place once they are made, so they may be shared freely.
Whatever `decode` accepts, `encode` can write again (spec/reliability.md 1).
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, TypeVar, overload

import msgspec
import msgspec.structs
import orjson

from reqon.errors import ReqonError

Value: TypeAlias = Any
Record: TypeAlias = dict[str, Any]
Fragment = orjson.Fragment
# For classes that are many or made often: quicker to define and to fill than dataclasses.
Struct = msgspec.Struct
changed = msgspec.structs.replace
Raw = msgspec.Raw  # a part that `skim` leaves as text: bytes(raw), len(raw)

T = TypeVar("T")

MAX_DEPTH = 250
OWN_DEPTH = 300  # our own files, which hold such values some levels deeper
_MAX_DIGITS = 400
_LONG_NUMBER = re.compile(rb"\d{%d}" % (_MAX_DIGITS + 1))
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_DIGITS_TO_ZERO = bytes(ord("0") if ord("0") <= c <= ord("9") else c for c in range(256))
_NOT_BRACKETS = bytes(c for c in range(256) if c not in b"[]{}")
# orjson reads integers beyond 64 bits as floats; msgspec reads them exactly, as quickly. orjson writes faster.
_decode = msgspec.json.Decoder().decode
_WRITE = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_PRETTY = _WRITE | orjson.OPT_INDENT_2


class JsonError(ReqonError):
    """A text is not the JSON that was asked for."""

    slug = "parse"
    kind = "parse"


@overload
def decode(data: bytes | bytearray | memoryview | str, *, depth: int = MAX_DEPTH) -> Value: ...
@overload
def decode(data: bytes | bytearray | memoryview | str, into: type[T], *, depth: int = MAX_DEPTH) -> T: ...


def decode(data: bytes | bytearray | memoryview | str, into: type[T] | None = None, *, depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text, or the typed object it describes. Integers are exact whatever their size.

    Raises:
        JsonError: not JSON, nested deeper than `depth`, a number of more than 400 digits, NaN or Infinity, a lone
            surrogate; or not the shape of `into`: the message ends with its place, as in `$.mission`.
    """
    value = _read(data, depth)
    if into is None:
        return value
    try:
        return msgspec.convert(value, into)
    except (msgspec.ValidationError, TypeError) as error:
        raise JsonError(str(error).replace("`", "")) from error


def convert(value: Value, into: type[T]) -> T:
    """The typed object that a decoded value describes.

    Raises:
        JsonError: it has another shape; the message ends with the place.
    """
    try:
        return msgspec.convert(value, into)
    except (msgspec.ValidationError, TypeError) as error:
        raise JsonError(str(error).replace("`", "")) from error


_skimmers: dict[Any, msgspec.json.Decoder[Any]] = {}


def skim(data: bytes, into: type[T]) -> T:
    """The typed object of a JSON text, whose parts of type `Raw` are checked to be JSON but not built.

    Raises:
        JsonError: not JSON, or not the shape of `into`. Depth and long numbers inside a `Raw` are not looked at.
    """
    try:
        str(data, "utf-8")
        decoder = _skimmers.get(into) or _skimmers.setdefault(into, msgspec.json.Decoder(into))
        skimmed: T = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JsonError(f"not JSON: {error}") from error
    except RecursionError:
        raise JsonError(f"JSON is nested deeper than {MAX_DEPTH} levels") from None
    return skimmed


def repeated_names(data: bytes) -> list[str]:
    """The names that a JSON object gives to more than one of its own members. Slow; for texts that others wrote."""
    outermost: list[tuple[str, Value]] = []

    def members(pairs: list[tuple[str, Value]]) -> None:
        nonlocal outermost
        outermost = pairs  # objects end from the inside out

    json.loads(data, object_pairs_hook=members, parse_int=str, parse_float=str)
    return [name for name, times in Counter(name for name, _ in outermost).items() if times > 1]


def to_builtins(value: Any) -> Value:
    """A dataclass, enum or container of them as plain JSON values; datetimes stay."""
    return msgspec.to_builtins(value, builtin_types=(datetime, timedelta), enc_hook=_plain_text)


def _plain_text(value: Any) -> str:
    """A text that carries more than itself, as the text it is."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _read(data: bytes | bytearray | memoryview | str, deepest: int) -> Value:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    if len(raw) > _MAX_DIGITS:
        _refuse_long_numbers(raw)
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JsonError(f"not JSON: {error}") from error
    except RecursionError:
        raise JsonError(f"JSON is nested deeper than {deepest} levels") from None
    if len(raw) > 2 * deepest and _may_be_deep(raw, deepest) and _depth(value, deepest) > deepest:
        raise JsonError(f"JSON is nested deeper than {deepest} levels")
    return value


def _refuse_long_numbers(raw: bytes) -> None:
    # 401 digits in a row cover 16 neighbours of every 25th byte: a look at those costs next to nothing.
    may_be = b"0" * 16 in raw[::25].translate(_DIGITS_TO_ZERO) and _LONG_NUMBER.search(raw)
    if may_be and _LONG_NUMBER.search(_TEXT.sub(b'""', raw)):  # texts may be as long as they like
        raise JsonError(f"a number has more than {_MAX_DIGITS} digits")


def _may_be_deep(raw: bytes, limit: int) -> bool:
    """False when the brackets alone show that nothing is nested too deeply; those inside texts may mislead it."""
    left = raw.translate(None, _NOT_BRACKETS)
    for _ in range(8):  # each round folds the innermost level
        if len(left) < limit:
            return False
        left = left.replace(b"{}", b"").replace(b"[]", b"")
    return len(left) >= limit


def _depth(value: Value, limit: int) -> int:
    deepest = 0
    stack = [(value, 1)]
    while stack and deepest <= limit:
        item, level = stack.pop()
        deepest = max(deepest, level)
        inner = item.values() if isinstance(item, dict) else item
        stack.extend((v, level + 1) for v in inner if isinstance(v, dict | list))
    return deepest if isinstance(value, dict | list) else 0


def encode(value: Value, *, pretty: bool = False) -> bytes:
    """The JSON text of a value, UTF-8: datetimes as RFC 3339 with milliseconds, durations as milliseconds.

    NaN and Infinity are no values, and looking for them in every record would cost more than writing it: they are
    refused where they could enter, by `decode`, by arithmetic, and by `refuse_no_value` for what users' code gives.
    One that comes here all the same is written as null.

    Raises:
        JsonError: half a character, or an object that is no value.
    """
    try:
        return orjson.dumps(value, default=_default, option=_PRETTY if pretty else _WRITE)
    except orjson.JSONEncodeError:
        return _write_slowly(value, pretty=pretty)


def is_plain(value: Value) -> bool:
    """Whether a value is JSON as it stands: no instants, durations, nor anything that carries more than it shows.

    Writing it is the quickest way to look at all of it: a tenth of what a walk takes.
    """
    try:
        orjson.dumps(value, option=_WRITE)
    except orjson.JSONEncodeError:
        return False
    return True


def _default(value: Any) -> Any:
    if isinstance(value, datetime):
        instant = value.astimezone(UTC)
        return instant.strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}Z"
    if isinstance(value, timedelta):
        return milliseconds(value)
    if isinstance(value, dict):  # a PagedResult, or a record with something behind it
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        return str.__str__(value)
    if callable(records := getattr(value, "records", None)):  # a store as a value
        return records()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _write_slowly(value: Value, *, pretty: bool) -> bytes:
    try:
        text = json.dumps(
            value,
            default=_default,
            ensure_ascii=False,
            allow_nan=False,
            indent=2 if pretty else None,
            separators=(",", ": ") if pretty else (",", ":"),
        )
        return text.encode("utf-8")
    except (ValueError, TypeError, UnicodeEncodeError, RecursionError) as error:
        raise JsonError(f"cannot be written as JSON: {error}") from error


def refuse_no_value(value: Any) -> None:
    """Look at what code that is not ours gave, before it is taken for a value.

    Raises:
        JsonError: NaN, Infinity, a name that is no text, or an object that is no value; with its place, as `$.a[1]`.
    """
    waiting = [(value, "")]
    while waiting:
        item, place = waiting.pop()
        if item is None or isinstance(item, str | int | timedelta):
            continue
        if isinstance(item, dict):
            for name, inner in item.items():
                if not isinstance(name, str):
                    raise _no_value(f"the name {name!r} is no text", place)
                waiting.append((inner, f"{place}.{name}"))
        elif isinstance(item, Sequence) and not isinstance(item, bytes | bytearray | memoryview):
            waiting += [(inner, f"{place}[{number}]") for number, inner in enumerate(item)]
        elif isinstance(item, float):
            if item - item != 0:
                raise _no_value(f"{item!r} is no number of JSON", place)
        elif isinstance(item, datetime):
            if item.tzinfo is None:
                raise _no_value(f"{item.isoformat()} has no time zone", place)
        else:
            raise _no_value(f"{type(item).__name__} is no JSON value", place)


def _no_value(problem: str, place: str) -> JsonError:
    return JsonError(f"{problem}, at ${place}" if place else problem)


def milliseconds(duration: timedelta) -> int | float:
    """The milliseconds of a duration; an integer when it is one."""
    micros = (duration.days * 86_400 + duration.seconds) * 1_000_000 + duration.microseconds
    return micros // 1000 if micros % 1000 == 0 else micros / 1000


def equal_json(a: Value, b: Value) -> bool:
    """Whether two values are the same JSON: `1` is `1.0`, but neither is `true`; key order does not matter."""
    if a is b:
        return True
    if a != b:
        return False
    # Python says True == 1; only then is a closer look worth its time.
    return _same_booleans(a, b)


def _same_booleans(a: Value, b: Value) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict):
        return all(_same_booleans(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return all(map(_same_booleans, a, b))
    return True
