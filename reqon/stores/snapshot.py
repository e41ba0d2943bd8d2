"""The JSON file of a store: one object, key -> record (spec/runtime.md 9.5).

We write each record under a line of its own that begins with its key, so that where a record lies can be found without
building any. A file that somebody else wrote in another form is read whole, once.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reqon.errors import StoreError
from reqon.files import READ_LIMIT, RECORD_READ_LIMIT
from reqon.values import JsonError, Raw, Record, Value, decode, encode, repeated_names, skim

_PIECE = 1 << 20


class UnreadableStoreError(StoreError):
    """A store cannot be used: its file, which is left as it is, or its database cannot be opened."""

    def __init__(
        self,
        message: str,
        *,
        store: str = "",
        code: str | None = None,
        status: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, store=store, operation="init", code=code, status=status, hint=hint)


class ForeignLayoutError(Exception):
    """The file isn't in the form we write; says nothing about whether it is JSON."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a snapshot is written. `entry` finds the keys: no line inside a record can look like one."""

    pretty: bool
    before: bytes  # a key
    between: bytes  # a key and its record
    entry: re.Pattern[bytes]

    def values(self, keys: Sequence[str], records: Sequence[bytes]) -> tuple[bytes, list[tuple[int, int]]]:
        """The entries of a batch of compact records, with commas between; offset and length of each record in them."""
        names = [encode(key) for key in keys]
        if self.pretty and (laid_out := _all_indented(names, records)) is not None:
            starts = list(self.entry.finditer(laid_out))
            ends = [match.start() - 1 for match in starts[1:]]
            ends.append(len(laid_out))
            return laid_out, [(match.end(), end - match.end()) for match, end in zip(starts, ends, strict=True)]
        parts, places, at = [], [], 0
        extra = len(self.before) + len(self.between)
        for name, record in zip(names, records, strict=True):
            at += len(name) + extra
            places.append((at, len(record)))
            at += len(record) + 1
            parts.append(self.before + name + self.between + record)
        return b",".join(parts), places


def _all_indented(names: Sequence[bytes], records: Sequence[bytes]) -> bytes | None:
    members = b",".join(map(b":".join, zip(names, records, strict=True)))
    try:
        return encode(decode(b"{%b}" % members), pretty=True)[1:-2]
    except JsonError:
        return None  # deeper than we read inside a file: it stays on one line


def indented(record: Record) -> bytes:
    """A record as it stands in a pretty snapshot."""
    return encode(record, pretty=True).replace(b"\n", b"\n  ")


PRETTY = Layout(True, b"\n  ", b": ", re.compile(rb'\n  ("(?:[^"\\\n]|\\.)*"): (?=\{)'))
COMPACT = Layout(False, b"\n", b":", re.compile(rb'\n("(?:[^"\\\n]|\\.)*"):(?=\{)'))
EMPTY = b"{}\n"


@dataclass(frozen=True, slots=True)
class Entries:
    """Where some records lie: `places` holds offset and length of each key's record."""

    keys: list[str]
    places: list[tuple[int, int]]


def layout_of(head: bytes) -> Layout | None:
    """The layout of a file that begins so, if it is one of ours."""
    if head.startswith(b'{\n  "'):
        return PRETTY
    return COMPACT if head.startswith(b'{\n"') else None


def index(fd: int, size: int, layout: Layout) -> Iterator[Entries]:
    """Where the records of a file in our own layout lie, some thousand at a time. All of it is checked to be JSON.

    Raises:
        ForeignLayoutError: it is not in this layout after all, or not JSON. What was yielded does not count.
    """
    text, base, read = b"", 1, 1
    while read < size:
        piece = os.pread(fd, max(_PIECE, len(text)), read)
        if not piece:
            raise ForeignLayoutError
        text, read = text + piece, read + len(piece)
        if read >= size:
            break
        if len(text) > RECORD_READ_LIMIT:
            raise ForeignLayoutError
        found = list(layout.entry.finditer(text))
        if len(found) > 1:
            end = found[-1].start()
            if text[end - 1 : end] != b",":
                raise ForeignLayoutError
            yield _entries(text, base, found[:-1], end - 1)
            text, base = text[end:], base + end
    body = text.rstrip()
    if body[-2:] != b"\n}":
        raise ForeignLayoutError
    yield _entries(text, base, list(layout.entry.finditer(text)), len(body) - 2)


def _entries(text: bytes, base: int, found: Sequence[re.Match[bytes]], end: int) -> Entries:
    if not found or found[0].start() != 0:
        raise ForeignLayoutError
    try:
        keys = list(skim(b"{%b}" % text[:end], dict[str, Raw]))
    except JsonError as error:
        raise ForeignLayoutError from error
    # The object has exactly the keys we found, in this order: so what lies between two of them is a whole record.
    if b"[%b]" % b",".join(match[1] for match in found) != encode(keys):
        raise ForeignLayoutError
    starts = [match.end() for match in found]
    ends = [match.start() - 1 for match in found[1:]]
    ends.append(end)
    return Entries(keys, [(base + start, stop - start) for start, stop in zip(starts, ends, strict=True)])


def read_foreign(path: Path, fd: int, size: int) -> dict[str, bytes]:
    """The records of a file in any layout, each as compact JSON: an object, or an array whose records have ids.

    Raises:
        UnreadableStoreError: not JSON, not records, two of one key, above 256 MiB.
    """
    if size > READ_LIMIT:
        raise UnreadableStoreError(f"{path} has {size} bytes in a form that is not ours; the limit is {READ_LIMIT}")
    data = _whole(fd)
    try:
        value = decode(data)
        if isinstance(value, dict) and (names := repeated_names(data)):
            raise UnreadableStoreError(f"{path} has the key '{names[0]}' twice", hint=_MEND)
    except JsonError as error:
        what = error.message if data.strip() else "it is empty, and an empty store would be {}"
        raise UnreadableStoreError(f"cannot read the store {path}: {what}", hint=_MEND) from error
    return _records(path, value)


_MEND = "mend the file, or move it away to begin with an empty store"


def _whole(fd: int) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while piece := os.pread(fd, _PIECE, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _records(path: Path, value: Value) -> dict[str, bytes]:
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, list):
        members = [(_key(record, number), record) for number, record in enumerate(value)]
    else:
        raise UnreadableStoreError(f"{path} holds {_noun(value)}, not an object of records", hint=_MEND)
    found: dict[str, bytes] = {}
    for key, record in members:
        if not isinstance(record, dict):
            raise UnreadableStoreError(f"{path}: the record '{key}' is {_noun(record)}, not an object", hint=_MEND)
        if key in found:
            raise UnreadableStoreError(f"{path} has two records with the id '{key}'", hint=_MEND)
        found[key] = encode(record)
    return found


def _key(record: Value, number: int) -> str:
    """The key of an array's record: its `id` as a text, else one made of its place."""
    identifier = record.get("id") if isinstance(record, dict) else None
    if isinstance(identifier, str) and identifier:
        return identifier
    if isinstance(identifier, bool | int | float):
        whole = isinstance(identifier, float) and identifier.is_integer()
        return encode(int(identifier) if whole else identifier).decode()
    return f"auto_{number}"


def _noun(value: Value) -> str:
    if value is None or isinstance(value, bool):
        return encode(value).decode()
    return "an array" if isinstance(value, list) else "a text" if isinstance(value, str) else "a number"
