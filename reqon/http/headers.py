"""Request headers: which of several wins, and which values may be sent (spec/runtime.md 2.4)."""

import re
from collections.abc import Iterable, Mapping

from reqon.errors import FetchError
from reqon.http.paths import text_of
from reqon.values import Value

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\x00\r\n]|[^\x00-\xff]")
_OURS = frozenset(("host", "content-length", "transfer-encoding", "connection"))

Pairs = Iterable[tuple[str, Value]]


def merged(*layers: Pairs) -> dict[str, tuple[str, str]]:
    """Lower-case name to name and value, later layers winning; a null in a layer leaves the header out.

    Raises:
        FetchError: kind bad_header: a name or value that must not be sent.
    """
    chosen: dict[str, tuple[str, str]] = {}
    for layer in layers:
        for name, value in layer:
            key = name.lower()
            if value is None:
                chosen.pop(key, None)
            else:
                chosen[key] = checked(name, value)
    return chosen


def checked(name: str, value: Value) -> tuple[str, str]:
    """A header as it may be sent. Lists are joined with a comma.

    Raises:
        FetchError: kind bad_header.
    """
    if not _NAME.fullmatch(name):
        raise _bad(f"{name!r} is not a header name")
    if name.lower() in _OURS:
        raise _bad(f"the header {name} is set by the connection, not by a mission")
    text = ", ".join(_text(name, v) for v in value if v is not None) if isinstance(value, list) else _text(name, value)
    if wrong := _FORBIDDEN.search(text):
        raise _bad(f"the header {name} holds {wrong[0]!r}, which a header cannot")
    return name, text


def _text(name: str, value: Value) -> str:
    text = text_of(value)
    if text is None:
        raise _bad(f"the header {name} needs a text, a number, a boolean or a list of them")
    return text


def _bad(message: str) -> FetchError:
    return FetchError(message, kind="bad_header")


def pairs(headers: Mapping[str, tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What `merged` chose, as they are sent."""
    return tuple(headers.values())
