"""Paths and queries from values, so that no value can leave its place (spec/runtime.md 2.1 and 2.3)."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from reqon.clock import rfc3339
from reqon.errors import FetchError
from reqon.values import Value, encode, milliseconds

MAX_URL = 16 * 1024


class PartKind(Enum):
    """How a part of a path is encoded."""

    TEXT = auto()  # a literal's own characters
    VALUE = auto()  # one segment
    JOINED = auto()  # an operand of `+` or concat: as VALUE, but `/` stays
    RAW = auto()  # the whole path is one expression
    SEGMENTS = auto()  # pathSegments(x): several segments, each as VALUE


class PathPart(NamedTuple):
    """A part of a path: its text or value, and the source text of the expression it came from."""

    kind: PartKind
    value: Value
    expression: str = ""


# A segment that means "here" or "up", however it is written, once its percent signs are decoded.
_DOTS = re.compile(r"(?i)(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?=[/\\]|%2f|%5c|$)")
_LEGAL_PATH = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*")
_LEGAL_QUERY = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\#]")
_ABSOLUTE = ("http://", "https://")
_PATH_SAFE = "!$&'()*+,;=:@/%"
_QUERY_SAFE = _PATH_SAFE + "?"


def template_of(parts: Iterable[PathPart]) -> str:
    """The path with `{expression}` in place of each value, without its query: for events, metrics and sync keys."""
    written = "".join(p.value if p.kind is PartKind.TEXT else f"{{{p.expression}}}" for p in parts)
    path = written.partition("?")[0]
    return path if path.startswith(("/", "{", *_ABSOLUTE)) else "/" + path


def assemble(parts: Sequence[PathPart]) -> str:
    """The path and query to ask for: begins with `/`, or is an absolute URL where a text or raw part is one.

    Raises:
        FetchError: kind bad_path, naming the expression: a value that is null, empty, a list or an object; a dot
            segment; a backslash, `#` or control character outside values.
    """
    out: list[str] = []
    in_query = False
    for index, (kind, value, expression) in enumerate(parts):
        if kind is PartKind.TEXT:
            piece = _text(value, in_query=in_query)
            in_query = in_query or "?" in piece
        elif kind is PartKind.RAW or (kind is PartKind.JOINED and index == 0 and _is_path(value)):
            piece = _raw(value, expression)
            in_query = in_query or "?" in piece
        else:
            text = _scalar(value, expression)
            if in_query or kind is PartKind.VALUE:
                piece = quote(text, safe="")
            elif kind is PartKind.JOINED:
                piece = quote(text, safe="/")
            else:
                piece = "/".join(quote(_scalar(s, expression), safe="") for s in text.strip("/").split("/"))
        out.append(piece)
    return _checked("".join(out), parts)


def _checked(target: str, parts: Sequence[PathPart]) -> str:
    if not target.startswith(("/", *_ABSOLUTE)):
        target = "/" + target
    path = target.partition("?")[0]
    if "://" in path[:8]:
        path = path.split("://", 1)[1].partition("/")[2]
    if ("." in path or "%2" in path) and _DOTS.search(path):
        names = ", ".join(f"{{{p.expression}}}" for p in parts if p.kind is not PartKind.TEXT and p.expression)
        raise _bad(f"the path has a segment '.' or '..'{f' (from {names})' if names else ''}")
    return target


def _is_path(value: Value) -> bool:
    return isinstance(value, str) and value.startswith(("/", *_ABSOLUTE))


def _raw(value: Value, expression: str) -> str:
    if not isinstance(value, str) or not _is_path(value):
        what = "is empty" if value == "" else f"is {_kind_of(value)}" if not isinstance(value, str) else "is neither"
        raise _bad(f"{{{expression}}} must be a path that begins with '/' or an absolute URL; it {what}")
    return _text(value, in_query=False, expression=expression)


@lru_cache(maxsize=512)
def _text(text: str, *, in_query: bool, expression: str = "") -> str:
    """A literal's characters: legal ones and valid %XX stay, others are encoded."""
    if wrong := _CONTROL.search(text):
        place = f"{{{expression}}}" if expression else "the path"
        raise _bad(f"{place} holds {wrong[0]!r}, which a path cannot")
    if in_query:
        return _legal(text, _LEGAL_QUERY, _QUERY_SAFE)
    path, mark, query = text.partition("?")
    if path.startswith(_ABSOLUTE):
        scheme, _, rest = path.partition("://")
        host, slash, rest = rest.partition("/")
        path = f"{scheme}://{host}{slash}{_legal(rest, _LEGAL_PATH, _PATH_SAFE)}"
    else:
        path = _legal(path, _LEGAL_PATH, _PATH_SAFE)
    return path + mark + _legal(query, _LEGAL_QUERY, _QUERY_SAFE)


def _legal(text: str, legal: re.Pattern[str], safe: str) -> str:
    if "%" in text:
        text = _BAD_PERCENT.sub("%25", text)
    return text if legal.fullmatch(text) else _quote(text, safe, "the path")


def _quote(text: str, safe: str, where: str) -> str:
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:
        raise _bad(f"{where} holds half a character (a lone surrogate)") from None


def _scalar(value: Value, expression: str) -> str:
    """The text of a value in a path, not yet encoded; never empty."""
    if isinstance(value, str):
        if not value:
            raise _bad(f"{{{expression}}} in the path is an empty string")
        if not value.isascii():
            _quote(value, "", f"{{{expression}}}")
        return value
    if isinstance(value, bool | int | float | datetime):
        text = text_of(value)
        if text is not None:
            return text
    raise _bad(f"{{{expression}}} in the path is {_kind_of(value)}")


def _kind_of(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, float):
        return "not a number"
    if isinstance(value, int):
        return "a number"
    return "a duration" if isinstance(value, timedelta) else "a list"


def _bad(message: str) -> FetchError:
    return FetchError(
        message, kind="bad_path", hint="a path takes texts, numbers and booleans; check where the value comes from"
    )


class Encoded(str):
    """A value for a query that is percent-encoded already."""

    __slots__ = ()


# --- queries ---------------------------------------------------------------------------------------------------------


def text_of(value: Value) -> str | None:
    """A scalar as APIs read it: `true`, `7`, `1.5`, RFC 3339 in UTC, milliseconds; None for NaN and infinities."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime):
        return rfc3339(value)
    return str(milliseconds(value)) if isinstance(value, timedelta) else None


def encode_query(params: Iterable[tuple[str, Value]], written: str = "") -> str:
    """The query, without `?`: what the path wrote, then the parameters, later ones replacing all of the same name.

    Null leaves a parameter out, and removes an earlier one of its name only if it has a value. Lists repeat the name,
    objects are JSON text.

    Raises:
        FetchError: kind bad_path: a value is not a finite number, or holds half a character.
    """
    chosen: dict[str, str] = {}
    for name, value in params:
        if value is None:
            continue
        if type(value) is Encoded:
            encoded = f"{_name(name)}={value}"
        elif isinstance(value, str):
            encoded = f"{_name(name)}={quote(value, safe='') if value.isascii() else _quote(value, '', name)}"
        elif isinstance(value, int) and not isinstance(value, bool):
            encoded = f"{_name(name)}={value}"
        elif isinstance(value, Sequence):
            encoded = "&".join(f"{_name(name)}={_component(name, v)}" for v in value if v is not None)
        else:
            encoded = f"{_name(name)}={_component(name, value)}"
        chosen.pop(name, None)
        chosen[name] = encoded
    if written:
        kept = [p for p in written.split("&") if p and unquote_plus(p.partition("=")[0]) not in chosen]
        return "&".join([*kept, *filter(None, chosen.values())])
    return "&".join(filter(None, chosen.values()))


@lru_cache(maxsize=512)
def _name(name: str) -> str:
    return _quote(name, "", "a parameter's name")


def _component(name: str, value: Value) -> str:
    text = text_of(value)
    if text is None:
        if isinstance(value, float):
            raise _bad(f"parameter '{name}' is not a finite number")
        text = encode(value).decode()
    return _quote(text, "", f"parameter '{name}'")
