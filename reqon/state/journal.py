"""The journal of one execution: a file of checksummed lines beside its record (spec/state.md 3).

A line is `{"t":<kind>, …fields…, "body":<JSON as received>}`, TAB, checksum. Since the body stands last, a reader can
take the fields without reading it, and a body is fetched later by its place in the file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import Lock

from reqon.errors import StateError
from reqon.files import SEAL_LENGTH, DamagedFileError, Log, open_regular, read_at, seal, unseal
from reqon.state.backend import BodyRef, JournalEntry
from reqon.state.compaction import PASSING, is_worth_it, runs_kept, superseded
from reqon.state.directory import StateDirectory
from reqon.values import OWN_DEPTH, JsonError, Value, decode, encode

DEFAULT_MAX_BYTES = 1 << 30
_BODY = b',"body":'
_TAIL_BYTES = 64 * 1024
_PASSING = tuple(b'{"t":"%b"' % kind.encode() for kind in PASSING)
_LINE_BREAKS_TO_BLANKS = bytes(32 if c in b"\r\n" else c for c in range(256))


class FileJournal:
    """See `reqon.state.backend.Journal`. One thread may append and write while another syncs.

    Attributes:
        max_bytes: past this size the journal is `full`.
    """

    def __init__(self, path: Path, directory: StateDirectory, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._directory = directory
        self._log = Log(path, what="journal", disk=directory.disk)
        self._buffer: list[bytes] = []
        self._writing = Lock()  # a sync in another thread must not take the buffer from under an append
        self._reader: int | None = None
        self._end = -1  # where the next line will begin; -1 until the file was looked at
        self._good = -1  # where the good entries end; -1 until all were read
        self._full = False
        self._passing = 0  # bytes of entries that later ones may have superseded
        # A reference says where a body lay when it was appended; what was cut out since has moved it.
        self._moved: dict[int, int] = {}
        self._cut = 0

    def append(self, kind: str, fields: Mapping[str, Value], *, body: bytes | None = None) -> BodyRef | None:
        if self._end < 0:
            self._look()
        if self._full and kind != "action":
            return None
        line = encode({"t": kind, **fields})
        if body is None:
            sealed = seal(line)
            ref = None
        else:
            head = line[:-1] + _BODY
            ref = BodyRef(self._end + len(head), len(body))
            if b"\n" in body or b"\r" in body:
                body = body.translate(_LINE_BREAKS_TO_BLANKS)
            sealed = seal(b"%b%b}" % (head, body))
        if kind in PASSING:
            self._passing += len(sealed)
        if self._end - self._cut + len(sealed) > self.max_bytes and not self._full:
            self._full = True
            self._add(seal(encode({"t": "full", "max": self.max_bytes})))
            if kind != "action":
                return None
        self._add(sealed)
        return ref

    def _add(self, sealed: bytes) -> None:
        with self._writing:
            self._buffer.append(sealed)
        self._end += len(sealed)

    def _look(self) -> None:
        if self._good < 0:
            for _ in self.entries():
                pass
        self._end = self._good

    def _open(self) -> None:
        if not self._log.is_open:
            if self._good < 0:
                self._look()
            self._log.open_at(self._good)

    def write(self) -> None:
        with self._writing:
            if self._buffer:
                try:
                    self._open()
                    self._log.append(b"".join(self._buffer))
                except OSError as error:
                    raise self._directory.write_error(self.path, error) from error
                self._buffer.clear()

    def sync(self) -> None:
        self.write()
        try:
            self._log.sync()
        except OSError as error:
            raise self._directory.write_error(self.path, error) from error

    def entries(self) -> Iterator[JournalEntry]:
        """See `Journal.entries`. A damaged journal is copied to quarantine, and what precedes the damage counts."""
        good = 0
        try:
            for offset, content in self._log.lines():
                good = offset
                entry = _entry(content, offset)
                good = offset + len(content) + SEAL_LENGTH
                self._full = self._full or entry.kind == "full"
                yield entry
        except DamagedFileError:
            self._set_aside()
        except OSError as error:
            raise StateError(f"cannot read {self.path}: {error.strerror}") from error
        self._good = good

    def _set_aside(self) -> None:
        if self.path.is_file() and not self.path.is_symlink():
            self._directory.quarantine(self.path, "is damaged; what precedes counts", kind="journal", copy=True)
        else:
            self._directory.quarantine(self.path, "is not a regular file", kind="journal")

    def last(self, *kinds: str) -> JournalEntry | None:
        # Whoever only shows where a run is has no use for a fault here; `entries` will find it.
        with suppress(DamagedFileError, OSError):
            for offset, line in _lines_from_end(self.path):
                content = unseal(line)
                if content is not None and (entry := _entry(content, offset)).kind in kinds:
                    return entry
        return None

    # --- cutting out what later entries superseded ---

    def compact(self, safe: Mapping[str, int]) -> None:
        """See `Compacting`. What cannot be cut out now is cut out when there is as much again."""
        if not self._log.is_open or not is_worth_it(self._passing, self._log.size, self.max_bytes):
            return
        self._passing = 0
        size = self._log.size
        lines: list[tuple[int, int]] = []
        passing: list[tuple[int, JournalEntry]] = []
        bodies: list[int] = []
        for begin, content in self._contents(size):
            known = _entry(content, begin) if content.startswith(_PASSING) or _BODY in content else None
            if known is not None and known.kind in PASSING:
                passing.append((len(lines), known))
            if known is not None and known.body is not None:
                bodies.append(known.body.offset)
            lines.append((begin, begin + len(content) + SEAL_LENGTH))
        if gone := list(superseded(passing, safe)):
            kept = runs_kept(lines, gone)
            with suppress(OSError):
                self._log.cut_out(kept, upto=size, done=lambda: self._note_moves(kept, bodies, size))

    def _contents(self, size: int) -> Iterator[tuple[int, bytes]]:
        """The lines that end before `size`, with where they begin."""
        begin = 0
        with os.fdopen(open_regular(self.path, os.O_RDONLY), "rb", buffering=1 << 20) as stream:
            for line in stream:
                if begin + len(line) > size:
                    return
                content = unseal(line)
                if content is None:
                    raise DamagedFileError(f"{self.path} is damaged at byte {begin}")
                yield begin, content
                begin += len(line)

    def _note_moves(self, kept: Sequence[tuple[int, int]], bodies: Sequence[int], size: int) -> None:
        """Every body that stayed has another place now. References go on naming the old one."""
        named = {now: then for then, now in self._moved.items()}
        self._moved = {}
        begin = number = 0
        for first, end in kept:
            while number < len(bodies) and bodies[number] < end:
                body = bodies[number]
                if body >= first:
                    self._moved[named.get(body, body + self._cut)] = begin + body - first
                number += 1
            begin += end - first
        self._cut += size - begin

    def read_body(self, ref: BodyRef) -> bytes:
        with self._log.writing:
            if self._log.is_open:
                at = self._moved.get(ref.offset, ref.offset - self._cut)
                body = self._log.read_at(at, ref.length)
            else:
                body = self._read_only(ref)
        if len(body) != ref.length:
            raise DamagedFileError(f"{self.path} ends before byte {ref.offset + ref.length}")
        return body

    def _read_only(self, ref: BodyRef) -> bytes:
        # Bodies are asked for while entries are read: nothing is opened for appending, or cut, before that is over.
        try:
            if self._reader is None:
                self._reader = open_regular(self.path, os.O_RDONLY)
            return read_at(self._reader, ref.offset, ref.length)
        except OSError as error:
            raise DamagedFileError(f"{self.path} cannot be read: {error.strerror}") from error

    @property
    def size(self) -> int:
        """Bytes written so far; 0 for a journal that is there but was not looked at yet."""
        return self._log.size if self._log.is_open else max(self._good, 0)

    @property
    def exists(self) -> bool:
        return self._log.is_open or self.path.exists()

    @property
    def full(self) -> bool:
        return self._full

    def close(self) -> None:
        """Write what is buffered, and let the file go."""
        try:
            self.write()
        finally:
            if self._log.is_open:
                self._good = self._log.size
                self._end, self._cut, self._moved = -1, 0, {}
                self._log.close()
            self._close_reader()

    def _close_reader(self) -> None:
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None

    def discard(self) -> None:
        self._buffer.clear()
        self._log.close()
        self._close_reader()
        self._directory.disk.remove(self.path)
        self._log = Log(self.path, what="journal", disk=self._directory.disk)
        self._end = self._good = -1
        self._cut, self._moved, self._passing = 0, {}, 0
        self._full = False


def _entry(content: bytes, offset: int) -> JournalEntry:
    """The entry that a line's content holds. Its checksum was right, so that a fault here is no cut tail."""
    start = content.find(_BODY)
    while start >= 0:
        # A member of the same name inside the fields leaves the head with open brackets.
        try:
            fields = decode(content[:start] + b"}", depth=OWN_DEPTH)
        except JsonError:
            start = content.find(_BODY, start + 1)
        else:
            first = start + len(_BODY)
            return JournalEntry(fields.pop("t", ""), fields, BodyRef(offset + first, len(content) - 1 - first))
    try:
        fields = decode(content, depth=OWN_DEPTH)
        return JournalEntry(fields.pop("t"), fields, None)
    except (JsonError, AttributeError, KeyError, TypeError) as error:
        raise DamagedFileError(f"no journal entry at byte {offset}") from error


def _lines_from_end(path: Path) -> Iterator[tuple[int, bytes]]:
    """A file's lines with their offsets, the last first, reading no more than is asked for."""
    try:
        fd = open_regular(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        start = os.fstat(fd).st_size
        rest = b""
        block = _TAIL_BYTES
        while start > 0:
            begin = max(0, start - block)
            rest = os.pread(fd, start - begin, begin) + rest
            start = begin
            block *= 2
            first, *lines = BytesIO(rest).readlines() if start else [b"", *BytesIO(rest).readlines()]
            end = start + len(rest)
            for line in reversed(lines):
                end -= len(line)
                yield end, line
            rest = first
    finally:
        os.close(fd)
