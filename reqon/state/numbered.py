"""Journals whose entries have numbers: what those in tables and in users' own state stores have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from threading import RLock

from reqon.state.backend import BodyRef
from reqon.values import Value, encode


class NumberedJournal(ABC):
    """Gives entries their numbers, from 0, and keeps below its size. A reference's offset is the entry's number."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._next = -1  # the number of the next entry; -1 until it was looked for
        self._size = 0
        self._full = False
        self._writing = RLock()

    @property
    def size(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        return self._full

    def append(self, kind: str, fields: Mapping[str, Value], *, body: bytes | None = None) -> BodyRef | None:
        """See `Journal.append`."""
        with self._writing:
            if self._next < 0:
                self._look()
            if self._full and kind != "action":
                return None
            data = encode(dict(fields))
            if self._size + len(data) + len(body or b"") > self._max_bytes and not self._full:
                self._full = True
                self._add("full", encode({"max": self._max_bytes}), None)
                if kind != "action":
                    return None
            if body is not None:
                body = body.replace(b"\r", b" ").replace(b"\n", b" ")
            return self._add(kind, data, body)

    @abstractmethod
    def _look(self) -> None:
        """Find the number of the next entry, the size, and whether it is full."""

    @abstractmethod
    def _add(self, kind: str, fields: bytes, body: bytes | None) -> BodyRef | None:
        """Take an entry of the next number."""
