"""What values an option takes: read strictly when written as constants, leniently when evaluated, with one wording.

The tables of the language's own options are in options.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from reqon.errors import EvaluatorError
from reqon.lang import nodes
from reqon.values import Value, changed


class BadOptionError(EvaluatorError):
    """An option's value has the wrong type, range or word."""

    slug = "bad-option-value"


class _Unreadable(Exception):  # noqa: N818  # never leaves this module
    """A value that a kind does not take; the code and hint to report it under, if they are special."""

    def __init__(self, code: str | None = None, message: str | None = None, hint: str | None = None) -> None:
        super().__init__(message or "")
        self.code = code
        self.message = message
        self.hint = hint


# --- kinds of values -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """What values a key takes. This one takes any."""

    @property
    def expected(self) -> str:
        """What to say it must be."""
        return "a value"

    def read(self, value: Value, *, lenient: bool) -> Any:
        """An evaluated value in its typed form. `lenient` takes numbers and truths as texts, as `env` gives them."""
        del lenient
        return value


@dataclass(frozen=True, slots=True)
class Expr(Kind):
    """An expression that is evaluated in its own surroundings (a key, a filter, a body); never read here."""


@dataclass(frozen=True, slots=True)
class Flag(Kind):
    @property
    def expected(self) -> str:
        return "true or false"

    def read(self, value: Value, *, lenient: bool) -> bool:
        if isinstance(value, bool):
            return value
        if lenient and isinstance(value, str) and value.lower() in ("true", "false", "1", "0", "yes", "no"):
            return value.lower() in ("true", "1", "yes")
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number within bounds."""

    low: int = 0
    high: int | None = None

    @property
    def expected(self) -> str:
        bound = f"{self.low} or more" if self.high is None else f"{self.low} to {self.high}"
        return f"a whole number, {bound}"

    def read(self, value: Value, *, lenient: bool) -> int:
        number = _number(value, lenient=lenient)
        if number != int(number) or number < self.low or (self.high is not None and number > self.high):
            raise _Unreadable
        return int(number)


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A number within bounds; `positive` leaves the lower bound itself out."""

    low: float = 0
    high: float | None = None
    positive: bool = False

    @property
    def expected(self) -> str:
        if self.high is not None:
            return f"a number from {self.low:g} to {self.high:g}"
        return f"a number above {self.low:g}" if self.positive else f"a number, {self.low:g} or more"

    def read(self, value: Value, *, lenient: bool) -> float:
        number = _number(value, lenient=lenient)
        low = number <= self.low if self.positive else number < self.low
        if low or (self.high is not None and number > self.high):
            raise _Unreadable
        return number


@dataclass(frozen=True, slots=True)
class Milliseconds(Kind):
    """A number of milliseconds or a duration; read as float seconds.

    `positive` leaves 0 out. `short` marks the options whose bare values below 1000 were probably meant as seconds.
    """

    positive: bool = True
    short: bool = False

    @property
    def expected(self) -> str:
        kind = "milliseconds or a duration such as 30 seconds"
        return f"{kind}, above 0" if self.positive else f"{kind}, not below 0"

    def read(self, value: Value, *, lenient: bool) -> float:
        seconds = value.total_seconds() if isinstance(value, timedelta) else _number(value, lenient=lenient) / 1000
        if seconds < 0 or (self.positive and seconds == 0):
            raise _Unreadable
        return float(seconds)


@dataclass(frozen=True, slots=True)
class Duration(Kind):
    """A duration with its unit; read as float seconds."""

    @property
    def expected(self) -> str:
        return "a duration such as 7 days"

    def read(self, value: Value, *, lenient: bool) -> float:
        del lenient
        if isinstance(value, timedelta) and value > timedelta():
            return value.total_seconds()
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise _Unreadable("bad-duration", f"{{key}} {value} has no unit", f"for example {value} days")
        if isinstance(value, str) and (written := re.fullmatch(r"\s*(\d+)\s*([a-z]+)\s*", value)):
            unit = _UNIT_LETTERS.get(written[2], written[2])
            if unit in nodes.UNIT_MILLISECONDS or f"{unit}s" in nodes.UNIT_MILLISECONDS:
                raise _Unreadable(None, None, f"write {written[1]} {unit}, without quotes")
        raise _Unreadable


_HOST = re.compile(r"[^\s*\\]+")
_UNIT_LETTERS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """A text. `secret` ones must not be written in a mission."""

    secret: bool = False

    @property
    def expected(self) -> str:
        return "a text"

    def read(self, value: Value, *, lenient: bool) -> str:
        if isinstance(value, str):
            return value
        if lenient and isinstance(value, int | float) and not isinstance(value, bool):
            return f"{value}"
        raise _Unreadable


# RFC 9110, section 5.6.2; and what the connection itself says.
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADERS_OF_CONNECTIONS = frozenset(("host", "content-length", "transfer-encoding", "connection"))


def can_be_sent(header: str) -> bool:
    """Whether a mission may send a header of this name (spec/runtime.md 2.4)."""
    return bool(_HEADER_NAME.fullmatch(header)) and header.lower() not in _HEADERS_OF_CONNECTIONS


@dataclass(frozen=True, slots=True)
class HeaderName(Text):
    """The name of a header; of one that a mission may send, unless it is only looked for in what is `received`."""

    received: bool = False

    @property
    def expected(self) -> str:
        return "the name of a header" if self.received else "the name of a header that can be sent"

    def read(self, value: Value, *, lenient: bool) -> str:
        del lenient
        if isinstance(value, str) and (_HEADER_NAME.fullmatch(value) if self.received else can_be_sent(value)):
            return value
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class Texts(Kind):
    """A list of texts; `single` takes one text as a list of one."""

    single: bool = False

    @property
    def expected(self) -> str:
        return "a text or a list of texts" if self.single else "a list of texts"

    def read(self, value: Value, *, lenient: bool) -> tuple[str, ...]:
        del lenient
        if self.single and isinstance(value, str):
            return (value,)
        if _is_list(value) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class Origins(Texts):
    """A list of origins, scheme and authority of URLs; one text is a list of one."""

    single: bool = True

    @property
    def expected(self) -> str:
        return 'a list of origins such as ["https://files.example.com"]'

    def read(self, value: Value, *, lenient: bool) -> tuple[str, ...]:
        origins = super(Origins, self).read(value, lenient=lenient)
        if not all(map(_is_origin, origins)):
            raise _Unreadable
        return origins


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    return parts.scheme in ("http", "https") and bool(host and _HOST.fullmatch(host)) and port != 0 and not more


@dataclass(frozen=True, slots=True)
class Codes(Kind):
    """A list of HTTP status codes."""

    @property
    def expected(self) -> str:
        return "a list of status codes such as [500, 503]"

    def read(self, value: Value, *, lenient: bool) -> frozenset[int]:
        del lenient
        if _is_list(value) and all(isinstance(code, int) and 100 <= code <= 599 for code in value):
            return frozenset(value)
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class Fields(Kind):
    """An object whose keys are free: headers, params."""

    @property
    def expected(self) -> str:
        return "an object"

    def read(self, value: Value, *, lenient: bool) -> Mapping[str, Value]:
        del lenient
        if isinstance(value, Mapping):
            return value
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class Headers(Fields):
    """Headers to send. A name that cannot be sent fails the request, as `bad_header`; the check says so before."""


@dataclass(frozen=True, slots=True)
class Words(Kind):
    """One of a few words, bare or as a text; read as the first spelling. `open`: other texts are taken as they are."""

    words: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    open: bool = False

    @property
    def expected(self) -> str:
        return one_of(self.words)

    def read(self, value: Value, *, lenient: bool) -> str:
        del lenient
        if isinstance(value, str):
            word = self.aliases.get(value, value)
            if self.open or word in self.words:
                return word
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class Registered(Kind):
    """A word that names something built in or registered: `what` is auth, pagination or state store."""

    what: str
    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        return one_of(self.words)

    def read(self, value: Value, *, lenient: bool) -> str:
        del lenient
        if isinstance(value, str):
            return value
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class Zone(Kind):
    """An IANA time zone."""

    @property
    def expected(self) -> str:
        return "an IANA time zone such as Europe/Oslo"

    def read(self, value: Value, *, lenient: bool) -> str:
        del lenient
        if not isinstance(value, str):
            raise _Unreadable
        if not is_time_zone(value):
            raise _Unreadable("bad-timezone", f"unknown time zone '{value}'", zone_hint(value))
        return value


@dataclass(frozen=True, slots=True)
class Param(Kind):
    """The name of a query parameter, bare or as a text."""

    @property
    def expected(self) -> str:
        return "a parameter name"

    def read(self, value: Value, *, lenient: bool) -> str:
        del lenient
        if isinstance(value, str) and value:
            return value
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class SourceName(Kind):
    """A source, by its name, a text or an expression."""

    @property
    def expected(self) -> str:
        return "the name of a source"

    def read(self, value: Value, *, lenient: bool) -> str:
        del lenient
        if isinstance(value, str):
            return value
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class StoreName(Kind):
    """A declared store, by its bare name."""

    @property
    def expected(self) -> str:
        return "the name of a store"


@dataclass(frozen=True, slots=True)
class Paging(Kind):
    """`offset(p, size)` and its kin, or the object form."""

    @property
    def expected(self) -> str:
        return "offset(…), page(…), cursor(…), link(…) or an object"


@dataclass(frozen=True, slots=True)
class SinceValue(Kind):
    """`lastSync` in its forms, or an expression."""


@dataclass(frozen=True, slots=True)
class Either(Kind):
    """A value of one of several kinds: the first that takes it reads it."""

    kinds: tuple[Kind, ...]

    @property
    def expected(self) -> str:
        return " or ".join(kind.expected for kind in self.kinds)

    def read(self, value: Value, *, lenient: bool) -> Any:
        for kind in self.kinds:
            try:
                return kind.read(value, lenient=lenient)
            except _Unreadable:
                continue
        raise _Unreadable


@dataclass(frozen=True, slots=True)
class Only(Kind):
    """Exactly this value."""

    value: bool

    @property
    def expected(self) -> str:
        return "true" if self.value else "false"

    def read(self, value: Value, *, lenient: bool) -> bool:
        if Flag().read(value, lenient=lenient) is not self.value:
            raise _Unreadable
        return self.value


@dataclass(frozen=True, slots=True)
class Block(Kind):
    """A brace list with keys of its own."""

    table: "Table"

    @property
    def expected(self) -> str:
        return f"a block such as {{ {self.table.example} }}"

    def read(self, value: Value, *, lenient: bool) -> dict[str, Any]:
        del lenient
        if not isinstance(value, Mapping):
            raise _Unreadable
        return self.table.read(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The keys of one brace list. `place` says where it is, as in "unknown option 'x' in rateLimit"."""

    place: str
    keys: Mapping[str, Kind]
    aliases: Mapping[str, str] = field(default_factory=dict)
    example: str = "…"

    def kind(self, key: str) -> Kind | None:
        """What a key takes, by any of its spellings; None: no such key."""
        return self.keys.get(self.aliases.get(key, key))

    @property
    def spellings(self) -> tuple[str, ...]:
        return (*self.keys, *self.aliases)

    def read(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Evaluated options in their typed form: documented spelling, seconds, nested blocks read too.

        A null counts as an option that is not written. A key's documented spelling beats its alias. Raises
        BadOptionError, with the words the checker has for the same mistake.
        """
        found: dict[str, Any] = {}
        for key, value in values.items():
            name = self.aliases.get(key, key)
            kind = self.keys.get(name)
            if kind is None:
                raise BadOptionError(f"unknown option '{key}' {self.place}", code="unknown-option")
            if value is not None and not (name != key and name in values):
                found[name] = read_value(key, kind, value)
        return found


def read_value(key: str, kind: Kind, value: Value, *, lenient: bool = True, written: str | None = None) -> Any:
    """One evaluated option in its typed form; `written` is how messages show the value. Raises BadOptionError."""
    try:
        return kind.read(value, lenient=lenient)
    except _Unreadable as problem:
        message = problem.message or f"{{key}} must be {kind.expected}, not {written or shown(value)}"
        raise BadOptionError(message.replace("{key}", key), code=problem.code, hint=problem.hint) from None


# --- values written as constants -------------------------------------------------------------------------------------


NOT_CONSTANT: Final = object()

Constant: TypeAlias = Any


def constant(expression: object, kind: Kind | None = None) -> Constant:
    """The value that an expression has whatever happens, or NOT_CONSTANT. Durations are timedeltas.

    Where `kind` takes words, a bare word is a text.
    """
    match expression:
        case nodes.Literal_(value=value):
            # `${NAME}` in a source is filled in from the environment when the mission starts.
            return NOT_CONSTANT if isinstance(value, str) and "${" in value else value
        case nodes.DurationLiteral():
            return _timedelta(expression.milliseconds)
        case nodes.Name(name=name):
            return name if kind is not None and takes_word(kind) else NOT_CONSTANT
        case nodes.Unary(operator="-", operand=operand):
            value = constant(operand)
            return (
                -value if isinstance(value, int | float | timedelta) and not isinstance(value, bool) else NOT_CONSTANT
            )
        case nodes.ArrayLiteral(elements=elements):
            values = [constant(element) for element in elements]
            return NOT_CONSTANT if any(value is NOT_CONSTANT for value in values) else values
        case nodes.ObjectLiteral(entries=entries):
            return _constant_object(entries)
        case _:
            return NOT_CONSTANT


def takes_word(kind: Kind) -> bool:
    """Whether a bare word under this kind is the word itself and names nothing (spec/language.md 1.5)."""
    if isinstance(kind, Either):
        return any(takes_word(one) for one in kind.kinds)
    return isinstance(kind, Words | Registered | Param)


def worded(value: nodes.Expression, kind: Kind | None) -> nodes.Expression:
    """A written option value with its bare words as texts, those of inner brace lists too."""
    if kind is None:
        return value
    if isinstance(value, nodes.Name) and takes_word(kind):
        return nodes.Literal_(value.name, span=value.span)
    table = block_of(kind) if isinstance(value, nodes.ObjectLiteral) else None
    if table is None or not isinstance(value, nodes.ObjectLiteral):
        return value
    entries = [
        changed(entry, value=worded(entry.value, table.kind(entry.key))) if isinstance(entry, nodes.Entry) else entry
        for entry in value.entries
    ]
    return nodes.ObjectLiteral(tuple(entries), span=value.span)


def block_of(kind: Kind) -> Table | None:
    """The table of the brace list that a kind takes, if it takes one."""
    if isinstance(kind, Either):
        return next((table for one in kind.kinds if (table := block_of(one)) is not None), None)
    return kind.table if isinstance(kind, Block) else None


def shown(value: Value) -> str:
    """A value as a message shows it."""
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}…'"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, timedelta):
        return f"{value.total_seconds() * 1000:g} ms"
    if isinstance(value, int | float):
        return f"{value}"
    return "an object" if isinstance(value, Mapping) else "a list" if _is_list(value) else type(value).__name__


def one_of(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def is_time_zone(name: str) -> bool:
    """Whether an IANA zone of this name is known."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415  # only missions with a zone pay for it

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def zone_hint(name: str) -> str | None:
    """A zone that was probably meant."""
    from zoneinfo import available_timezones  # noqa: PLC0415

    from reqon.diagnostics import nearest  # noqa: PLC0415

    zones = available_timezones()
    places = {zone.rpartition("/")[2]: zone for zone in sorted(zones)}
    guess = nearest(name, zones) or places.get(name.rpartition("/")[2].replace(" ", "_"))
    return f"did you mean '{guess}'?" if guess else "write an IANA name such as Europe/Oslo"


def _timedelta(milliseconds: float) -> Constant:
    try:
        return timedelta(milliseconds=milliseconds)
    except OverflowError:
        return NOT_CONSTANT


def _constant_object(entries: Sequence[nodes.Entry | nodes.Spread]) -> Constant:
    found: dict[str, Value] = {}
    for entry in entries:
        value = constant(entry.value) if isinstance(entry, nodes.Entry) else NOT_CONSTANT
        if value is NOT_CONSTANT or isinstance(entry, nodes.Spread):
            return NOT_CONSTANT
        found[entry.key] = value
    return found


def _number(value: Value, *, lenient: bool) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if lenient and isinstance(value, str) and re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", value):
        return float(value) if "." in value else int(value)
    raise _Unreadable


def _is_list(value: Value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
