"""Records in a JSON file that people can read (spec/runtime.md 9.5).

`<id>.json` is a snapshot, `<id>.log` what was written since: numbered, checksummed lines that hold whole records, so
that reading one twice changes nothing. Memory holds where each record lies, not the records.
"""

import errno
import os
import socket
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakMethod
from zlib import crc32

from reqon.clock import SYSTEM, wait_blocking
from reqon.errors import ReqonError, StateError, StoreError
from reqon.files import (
    DISK,
    SEAL_LENGTH,
    DamagedFileError,
    FileSystem,
    Lock,
    Log,
    make_directory,
    open_regular,
    seal,
)
from reqon.stores.base import WriteCounts, WriteMode, absent
from reqon.stores.snapshot import (
    COMPACT,
    EMPTY,
    PRETTY,
    ForeignLayoutError,
    Layout,
    UnreadableStoreError,
    indented,
    index,
    layout_of,
    read_foreign,
)
from reqon.values import OWN_DEPTH, JsonError, Raw, Record, decode, encode, equal_json, skim

LOCK_WAIT_SECONDS = 30.0
MIN_FOLD_BYTES = 1 << 20
_MUCH_TOO_LONG = 16
_PENDING_BYTES = 8 << 20
_BATCH = 256
_PIECE = 1 << 20
_NEAR = 64 << 10

# Where a record lies, in one integer: offset, 28 bits of length, whether in the log; or one of these.
_UNWRITTEN = -1
_FOREIGN = -2
_LENGTH = (1 << 28) - 1


def _place(offset: int, length: int, in_log: int = 0) -> int:
    return offset << 29 | length << 1 | in_log


def last_number(path: Path) -> int:
    """The number of the last line that the log of a store's file holds, read without a lock; 0: none, or no store.

    What stands behind damage does not count. Snapshots without the log that goes on from them count as nothing.
    """
    number = 0
    log = Log(path.with_suffix(".log"), what="store")
    with suppress(DamagedFileError, JsonError):
        for _, content in log.lines():
            line = skim(content, _Line)
            number = 0 if line.base and not path.exists() else line.n
    return number


@dataclass(slots=True)
class _Line:
    """One line of the log. `clear` comes before `delete`, and that before `put`.

    `base` is the number of records in the snapshot that the log began with. `fold` is the size and checksum of a
    snapshot that holds all lines so far, if it was put in place. `shared`: several executions had the file open.
    """

    n: int
    clear: bool = False
    delete: list[str] = field(default_factory=list)
    put: dict[str, Raw] = field(default_factory=dict)
    base: int = 0
    fold: tuple[int, int] | None = None
    shared: bool = False


class StoreFile:
    """One store's files in this process, for all executions that use them; `FileStore` is what each of them sees.

    Attributes:
        index: key -> where its record lies, in the order of insertion.
        number: of the last line written.
        warnings: what was found when it was opened, for people.
    """

    def __init__(
        self, path: Path, *, pretty: bool = True, quarantine: Path | None = None, disk: FileSystem = DISK
    ) -> None:
        self.path = path
        self.index: dict[str, int] = {}
        self.number = 0
        self.warnings: list[str] = []
        self.lock = RLock()  # index and files; held for microseconds, but by a fold
        self._syncing = RLock()  # taken before `lock`: a sync waits for the disk without holding up writers
        self._layout = PRETTY if pretty else COMPACT
        self._quarantine = quarantine
        self._disk = disk
        self._owner = Lock(path.with_suffix(".lock") if path.suffix == ".json" else path)
        self._log = self._new_log()
        self._snapshot: int | None = None
        self._snapshot_size = 0
        self._snapshot_layout: Layout | None = None
        self._foreign: Mapping[str, bytes] = {}
        self._unwritten: dict[str, bytes] = {}
        self._unwritten_bytes = 0
        self._deleted: dict[str, None] = {}
        self._cleared = False
        self._unfolded = False
        self.shared = False  # several executions have used it at one time since it was opened
        self._watchers: list[WeakMethod[Callable[[str], None]]] = []

    def _new_log(self) -> Log:
        return Log(self.path.with_suffix(".log"), what="store", disk=self._disk)

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self, *, wait_seconds: float = LOCK_WAIT_SECONDS, settle: bool = True) -> None:
        """Wait for the file's lock, find the records, fold what an earlier process left in the log.

        Without `settle` the log stays as it is, for whoever resumes a killed run; see there.

        Raises:
            UnreadableStoreError: the files cannot be used; they are left as they are.
        """
        try:
            if not self.path.parent.is_dir():
                make_directory(self.path.parent)
                self._disk.sync_dir(self.path.parent.parent)
            self._wait_for_lock(wait_seconds)
            self._load()
            if settle and self._unfolded:
                self.fold()
        except BaseException as error:
            self._let_go()
            if isinstance(error, ReqonError | OSError) and not isinstance(error, UnreadableStoreError):
                raise self._unreadable(error) from error
            raise

    def _unreadable(self, error: ReqonError | OSError) -> UnreadableStoreError:
        if isinstance(error, ReqonError):
            return UnreadableStoreError(f"cannot open the store {self.path}: {error.message}")
        file = "" if error.filename in (None, str(self.path)) else f"{error.filename}: "
        hint = f"check the folder {self.path.parent} and its rights"
        return UnreadableStoreError(f"cannot open the store {self.path}: {file}{error.strerror}", hint=hint)

    def peek(self) -> dict[str, bytes]:
        """The JSON of each record as it lies there now, for whoever only looks: takes no lock and changes nothing.

        Raises:
            UnreadableStoreError: a run could not use the files either.
        """
        try:
            while True:
                found = self._peeked()
                here = None if self._snapshot is None else os.fstat(self._snapshot).st_ino
                self._let_go()
                # Another process may have folded its log into a new snapshot in between.
                if here == (self.path.stat().st_ino if self.path.exists() else None):
                    return found
        except UnreadableStoreError:
            raise
        except (ReqonError, OSError) as error:
            raise self._unreadable(error) from error
        finally:
            self._let_go()

    def _peeked(self) -> dict[str, bytes]:
        self.index.clear()
        self._open_snapshot()
        found = dict(zip(self.index, self.read_many(list(self.index)), strict=True))
        folded = 0
        with suppress(DamagedFileError):
            folded = self._folded_lines()
        with suppress(DamagedFileError):
            for number, (_, content) in enumerate(self._log.lines()):
                line = skim(content, _Line)
                if number < folded:
                    continue
                if line.clear:
                    found.clear()
                for key in line.delete:
                    found.pop(key, None)
                found |= {key: bytes(raw) for key, raw in line.put.items()}
        return found

    def _wait_for_lock(self, wait_seconds: float) -> None:
        deadline = SYSTEM.monotonic() + wait_seconds
        pause = 0.001
        while not self._owner.take(note=f"process {os.getpid()} on {socket.gethostname()}"):
            if SYSTEM.monotonic() >= deadline:
                raise UnreadableStoreError(
                    f"the store {self.path} is in use by {self._owner.note() or 'another process'}",
                    hint=f"waited {wait_seconds:g} s; one process at a time can write to a store file",
                )
            wait_blocking(pause)
            pause = min(pause * 2, 0.05)

    def _load(self) -> None:
        self._open_snapshot()
        try:
            folded = self._folded_lines()
        except DamagedFileError as error:
            kept = self._keep_damaged()
            self.warnings.append(f"{error.message}; what stood behind that is not in the store; a copy is {kept}")
            folded = 0
        with suppress(DamagedFileError):
            for number, (offset, content) in enumerate(self._log.lines()):
                self._replay(skim(content, _Line), offset, content, known=number < folded)
        if self._log.size or self.warnings:
            self._log.open(forget_tail=True)

    def settle(self, number: int | None) -> None:
        """Forget the lines above this number, which a killed run wrote and is going to write again; fold the rest.

        What it had written for the item in work is so undone, as if it had been killed before that item. Lines that
        may be somebody else's stay, and those that are in the snapshot already.

        Raises:
            OSError: the store is as good as before.
        """
        with self._syncing, self.lock:
            end = None if number is None or self.shared else self._end_of(number)
            if end is not None:
                self._log.close()
                self._log.open_at(end)
                self._log.sync()
                if self._snapshot is not None:
                    os.close(self._snapshot)
                    self._snapshot = None
                self.index.clear()
                self._foreign, self._unfolded, self.number = {}, False, 0
                self._load()
            if self._unfolded:
                self.fold()

    def _end_of(self, number: int) -> int | None:
        """Where the lines up to a number end, if all behind them may go; None: nothing is to go."""
        if number >= self.number:
            return None
        folded, end = self._folded_lines(), 0
        for at, (offset, content) in enumerate(self._log.lines()):
            line = skim(content, _Line)
            if line.n <= number:
                end = offset + len(content) + SEAL_LENGTH
            elif line.shared or at < folded or (not end and line.n > number + 1):
                return None
        return end

    def _open_snapshot(self) -> None:
        try:
            self._snapshot = open_regular(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return
        self._snapshot_size = size = os.fstat(self._snapshot).st_size
        self._snapshot_layout = layout_of(os.pread(self._snapshot, 16, 0))
        if self._snapshot_layout is not None:
            with suppress(ForeignLayoutError):
                self._find_records(self._snapshot, size, self._snapshot_layout)
                return
        self.index.clear()
        self._snapshot_layout = None
        self._foreign = read_foreign(self.path, self._snapshot, size)
        self.index = dict.fromkeys(self._foreign, _FOREIGN)

    def _find_records(self, fd: int, size: int, layout: Layout) -> None:
        for entries in index(fd, size, layout):
            known = len(self.index)
            self.index.update(
                zip(entries.keys, [offset << 29 | length << 1 for offset, length in entries.places], strict=True)
            )
            if len(self.index) != known + len(entries.keys):
                raise ForeignLayoutError  # a key that is there twice; the slow way names it

    def _folded_lines(self) -> int:
        """How many lines the snapshot has: a process died after putting it in place, before emptying the log."""
        folded = 0
        for number, (_, content) in enumerate(self._log.lines()):
            if b'"fold":[' in content[:64] and (fold := skim(content, _Line).fold):
                size, checksum = fold
                if size == self._snapshot_size and self._snapshot is not None and checksum == _checksum(self._snapshot):
                    folded = number + 1
        return folded

    def _keep_damaged(self) -> Path:
        directory = self._quarantine or self.path.parent
        make_directory(directory)
        taken = set(self._disk.list(directory))
        names = (f"{self._log.path.name}-{number}" for number in range(1, len(taken) + 2))
        kept = directory / next(name for name in names if name not in taken)
        fd = open_regular(self._log.path, os.O_RDONLY)
        with os.fdopen(fd, "rb") as log:

            def content() -> Iterator[bytes]:
                log.seek(0)
                return iter(lambda: log.read(_PIECE), b"")

            self._disk.replace(kept, content, "quarantine")
        return kept

    def _replay(self, line: _Line, offset: int, content: bytes, *, known: bool) -> None:
        self.number = line.n
        if line.base and self._snapshot is None:
            # The records that this log goes on from were taken away: nothing may rely on their numbers any more.
            self.warnings.append(f"{self.path} is gone; its {line.base} records are no longer in the store")
            self.number = 0
        if not (line.clear or line.delete or line.put):
            return
        self._unfolded = True
        if known:  # in the snapshot already; only the log is still to be emptied
            return
        if line.clear:
            self.index.clear()
        for key in line.delete:
            self.index.pop(key, None)
        offset += content.find(b'"put":{') + len(b'"put":{')
        for key, raw in line.put.items():
            offset += len(encode(key)) + 1
            self.index[key] = _place(offset, len(raw), 1)
            offset += len(raw) + 1

    # --- records ------------------------------------------------------------------------------------------------------

    def read(self, key: str) -> bytes | None:
        """The record's JSON as it stands in the file, or None."""
        place = self.index.get(key)
        if place is None:
            return None
        if place >= 0:
            return self._read_at(place >> 29, place >> 1 & _LENGTH, in_log=place & 1)
        return self._unwritten[key] if place == _UNWRITTEN else self._foreign[key]

    def _read_at(self, offset: int, length: int, *, in_log: int) -> bytes:
        if in_log:
            return self._log.read_at(offset, length)
        assert self._snapshot is not None
        return os.pread(self._snapshot, length, offset)

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """The JSON of those that are there. For keys in the order of the index, with few reads."""
        windows = _Window(self, 0), _Window(self, 1)
        for key in keys:
            place = self.index.get(key)
            if place is None:
                continue
            if place >= 0:
                yield windows[place & 1].read(place >> 29, place >> 1 & _LENGTH)
            else:
                yield self._unwritten[key] if place == _UNWRITTEN else self._foreign[key]

    def write(self, key: str, data: bytes) -> None:
        """Take a record; it is in the log after the next flush."""
        if self._watchers and key in self.index:
            self._warn(key)
        self.index[key] = _UNWRITTEN
        self._unwritten[key] = data
        self._unwritten_bytes += len(data)
        if self._unwritten_bytes > _PENDING_BYTES:
            self.flush()

    def delete(self, key: str) -> bool:
        """Forget a record; False if it isn't there."""
        if self._watchers and key in self.index:
            self._warn(key)
        if self.index.pop(key, None) is None:
            return False
        self._unwritten.pop(key, None)
        self._deleted[key] = None
        return True

    def clear(self) -> int:
        """Forget all records; how many there were."""
        if self._watchers:
            for key in self.index:
                self._warn(key)
        count = len(self.index)
        self.index.clear()
        self._unwritten.clear()
        self._unwritten_bytes = 0
        self._deleted.clear()
        self._cleared = True
        return count

    def watch(self, told: Callable[[str], None]) -> None:
        """Tell a method of each key whose record is about to change, as long as its object lives."""
        self._watchers.append(WeakMethod(told, self._watchers.remove))

    def _warn(self, key: str) -> None:
        for watcher in self._watchers:
            if (told := watcher()) is not None:
                told(key)

    # --- writing ------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write one line with all that is new.

        Raises:
            OSError: nothing of it is in the log; it is still to be written.
        """
        with self.lock:
            if not (self._unwritten or self._deleted or self._cleared):
                return
            line = b'{"n":%d' % (self.number + 1)
            if self.shared:
                line += b',"shared":true'
            if self._cleared:
                line += b',"clear":true'
            if self._deleted:
                line += b',"delete":' + encode(list(self._deleted))
            line += b',"put":{'
            self._log.open()
            at = self._log.size + len(line)
            members, places = [], []
            for key, data in self._unwritten.items():
                name = encode(key)
                at += len(name) + 1
                places.append(at << 29 | len(data) << 1 | 1)
                at += len(data) + 1
                members.append(name + b":" + data)
            self._log.append(seal(line + b",".join(members) + b"}}"))
            self.number += 1
            self.index.update(zip(self._unwritten, places, strict=True))
            self._unwritten = {}
            self._unwritten_bytes = 0
            self._deleted.clear()
            self._cleared = False
            self._unfolded = True

    def sync(self) -> None:
        """Return when all that was written survives a power loss.

        Raises:
            OSError: it may not.
        """
        with self._syncing:
            self.flush()
            self._log.sync()

    def fold_if_long(self, number: int | None) -> None:
        """Fold a log that has grown too long, if `number` is its last line: what is folded can't be undone.

        A run's journal relies on that line then, and a resume has no lines behind it to forget. None: no journal does.
        One much too long is folded in any case: in parallel loops there is always somebody who just wrote.

        Raises:
            OSError: the store is as good as before.
        """
        with self._syncing, self.lock:
            limit = max(MIN_FOLD_BYTES, self._snapshot_size)
            if self._log.size <= limit:
                return
            settled = number is None or (
                number == self.number and not (self._unwritten or self._deleted or self._cleared)
            )
            if settled or self._log.size > _MUCH_TOO_LONG * limit:
                self.fold()

    @property
    def unfolded(self) -> bool:
        """Whether the log holds what the snapshot does not."""
        return self._unfolded

    def fold(self) -> None:
        """Put a new snapshot in place, durable, then begin the log anew.

        Raises:
            OSError: the store is as good as before.
        """
        with self._syncing, self.lock:
            self.flush()
            self._log.sync()
            places = array("Q")
            self._disk.replace(self.path, lambda: self._new_snapshot(places), "store-snapshot")
            snapshot = open_regular(self.path, os.O_RDONLY)
            if self._snapshot is not None:
                os.close(self._snapshot)
            self._snapshot, self._snapshot_size = snapshot, os.fstat(snapshot).st_size
            self._snapshot_layout, self._foreign = self._layout, {}
            for key, place in zip(self.index, places, strict=True):
                self.index[key] = place
            self._disk.replace(self._log.path, self._first_line(), "store-log")
            self._log.close()
            self._log = self._new_log()
            self._unfolded = False

    def _first_line(self) -> bytes:
        return seal(encode({"n": self.number, "base": len(self.index)}))

    def _new_snapshot(self, places: "array[int]") -> Iterator[bytes]:
        """The snapshot in pieces, and in `places` where each record will lie.

        Last, before it is put in place, the log learns what will make all its lines superfluous.
        """
        del places[:]
        head = b"{" if self.index else EMPTY
        yield head
        at, checksum, comma = len(head), crc32(head), b""
        for entries, found in self._entries():
            text = comma + entries
            at += len(comma)
            places.extend([at + offset << 29 | length << 1 for offset, length in found])
            at += len(entries)
            checksum, comma = crc32(text, checksum), b","
            yield text
        if self.index:
            at += 3
            checksum = crc32(b"\n}\n", checksum)
            yield b"\n}\n"
        self._log.append(seal(encode({"n": self.number, "fold": [at, checksum]})))

    def _entries(self) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
        """The entries of the new snapshot, some at a time, with the places of the records in them."""
        same_layout = self._snapshot_layout is self._layout
        stay: list[tuple[str, int]] = []  # records that lie in the old snapshot one behind the other
        move: list[str] = []
        end = 0
        for key, place in self.index.items():
            if same_layout and place >= 0 and not place & 1:
                if move:
                    yield self._moved(move)
                    move = []
                offset = place >> 29
                if stay and (offset - end != len(key) + self._gap or offset - (stay[0][1] >> 29) > _PIECE):
                    yield self._stayed(stay)
                    stay = []
                stay.append((key, place))
                end = offset + (place >> 1 & _LENGTH)
                continue
            if stay:
                yield self._stayed(stay)
                stay = []
            move.append(key)
            if len(move) >= _BATCH:
                yield self._moved(move)
                move = []
        if stay:
            yield self._stayed(stay)
        if move:
            yield self._moved(move)

    @property
    def _gap(self) -> int:
        """What lies between two records beside the letters of the key."""
        return len(self._layout.before) + len(self._layout.between) + len(',""')

    def _stayed(self, run: Sequence[tuple[str, int]]) -> tuple[bytes, list[tuple[int, int]]]:
        head = self._layout.before + encode(run[0][0]) + self._layout.between
        first, last = run[0][1], run[-1][1]
        start = first >> 29
        shift = len(head) - start
        text = head + self._read_at(start, (last >> 29) - start + (last >> 1 & _LENGTH), in_log=0)
        return text, [((place >> 29) + shift, place >> 1 & _LENGTH) for _, place in run]

    def _moved(self, keys: Sequence[str]) -> tuple[bytes, list[tuple[int, int]]]:
        records = list(self.read_many(keys))
        if not self._layout.pretty:
            records = [data if b"\n" not in data else encode(decode(data, depth=OWN_DEPTH)) for data in records]
        return self._layout.values(keys, records)

    # --- closing ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is left, fold the log, release the lock.

        Raises:
            OSError: what was flushed before is safe; the rest may not be.
        """
        try:
            with self._syncing, self.lock:
                self.flush()
                if self._unfolded:
                    self.fold()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._log.close()
        if self._snapshot is not None:
            os.close(self._snapshot)
            self._snapshot = None
        self._owner.release()


class _Window:
    """Reads records one behind the other in large pieces, others alone."""

    __slots__ = ("_data", "_end", "_file", "_in_log", "_start")

    def __init__(self, file: StoreFile, in_log: int) -> None:
        self._file = file
        self._in_log = in_log
        self._data = b""
        self._start = self._end = -1

    def read(self, offset: int, length: int) -> bytes:
        start, end = self._start, offset + length
        if start <= offset and end <= self._end:
            return self._data[offset - start : end - start]
        near = 0 <= offset - self._end <= _NEAR or start <= offset <= self._end
        self._data = self._file._read_at(offset, max(length, _NEAR) if near else length, in_log=self._in_log)  # noqa: SLF001  # a part of it
        self._start, self._end = offset, offset + len(self._data)
        return self._data[:length]


def _checksum(fd: int) -> int:
    at = checksum = 0
    while piece := os.pread(fd, _PIECE, at):
        at += len(piece)
        checksum = crc32(piece, checksum)
    return checksum


_RECORD = dict[str, Any]  # our own data: JSON for certain, so the limits for strangers' need no second look


class FileStore:
    """What one execution sees of a store file: the records that all share, and counts of its own.

    Attributes:
        partial: for each key the `partial` option of the last step that wrote one; offered as `._partial`.
    """

    kind = "file"

    __slots__ = ("_alone", "_file", "_immediate", "_release", "counts", "name", "partial")

    def __init__(
        self,
        name: str,
        file: StoreFile,
        *,
        immediate: bool = False,
        release: Callable[[], None] | None = None,
        alone: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.counts = WriteCounts()
        self.partial: dict[str, bool] = {}
        self._file = file
        self._immediate = immediate
        self._release: Callable[[], None] | None = release or file.close
        self._alone = alone  # whether nobody else has the file open

    @property
    def warnings(self) -> Sequence[str]:
        """What was found when the file was opened, for people."""
        return self._file.warnings

    def get(self, key: str) -> Record | None:
        file = self._file
        with file.lock:
            try:
                data = file.read(key)
            except OSError as error:
                raise self._failed(error, "get", key) from error
        return None if data is None else self._built(data, key)

    def raw(self, key: str) -> bytes | None:
        """The record's JSON as it is stored."""
        return self._file.read(key)

    def built(self, data: bytes) -> Record:
        """A record of what `raw` gave."""
        return self._built(data)

    def watch(self, told: Callable[[str], None]) -> None:
        """Tell a method of each key whose record is about to change, as long as its object lives."""
        self._file.watch(told)

    def _built(self, data: bytes, key: str | None = None) -> Record:
        try:
            record: Record = skim(data, _RECORD)
        except JsonError as error:
            raise StoreError(
                f"a record of the store {self._file.path} cannot be read: {error.message}",
                store=self.name,
                operation="get",
                key=key,
            ) from error
        return record

    def put(self, key: str, record: Record, mode: WriteMode = WriteMode.REPLACE) -> None:
        file = self._file
        with file.lock:
            try:
                if key in file.index:
                    self._rewrite(key, record, mode)
                elif mode is WriteMode.UPDATE:
                    raise absent(self.name, key)
                else:
                    file.write(key, encode(record))
                    self.counts.added += 1
            except (OSError, JsonError) as error:
                raise self._failed(error, "set", key) from error
        if self._immediate:
            self.flush()

    def put_many(self, items: Sequence[tuple[str, Record]], mode: WriteMode = WriteMode.REPLACE) -> None:
        file, counts = self._file, self.counts
        index, write = file.index, file.write
        key = ""
        with file.lock:
            try:
                for key, record in items:
                    if key in index:
                        self._rewrite(key, record, mode)
                    elif mode is WriteMode.UPDATE:
                        raise absent(self.name, key)
                    else:
                        write(key, encode(record))
                        counts.added += 1
            except (OSError, JsonError) as error:
                raise self._failed(error, "set", key) from error
        if self._immediate:
            self.flush()

    def _rewrite(self, key: str, record: Record, mode: WriteMode) -> None:
        file = self._file
        old = file.read(key)
        assert old is not None
        if mode is not WriteMode.REPLACE:
            stored = self._built(old, key)
            record = {**stored, **record}
            if equal_json(record, stored):
                self.counts.unchanged += 1
                return
        new = encode(record)
        if new == old or indented(record) == old or equal_json(self._built(old, key), self._built(new, key)):
            self.counts.unchanged += 1
        else:
            file.write(key, new)
            self.counts.updated += 1

    def delete(self, key: str) -> None:
        with self._file.lock:
            if self._file.delete(key):
                self.counts.deleted += 1
                self.partial.pop(key, None)
        if self._immediate:
            self.flush()

    def clear(self) -> None:
        with self._file.lock:
            self.counts.deleted += self._file.clear()
            self.partial.clear()
        if self._immediate:
            self.flush()

    def count(self) -> int:
        return len(self._file.index)

    def keys(self) -> list[str]:
        return list(self._file.index)

    def records(self, start: int = 0) -> Iterator[Record]:
        file = self._file
        keys = self.keys()
        for at in range(start, len(keys), _BATCH):
            with file.lock:
                try:
                    batch = list(file.read_many(keys[at : at + _BATCH]))
                except OSError as error:
                    raise self._failed(error, "list") from error
            for data in batch:
                yield self._built(data)

    def flush(self) -> None:
        try:
            self._file.flush()
        except (OSError, StateError) as error:
            raise self._failed(error, "set") from error

    def sync(self) -> None:
        try:
            self._file.sync()
        except (OSError, StateError) as error:
            raise self._failed(error, "set") from error

    def fold(self) -> None:
        self.sync()
        # A fold holds the file's lock for long: another run's writes would wait. The last one to close folds then.
        if self._alone() and self._file.unfolded:
            try:
                self._file.fold()
            except (OSError, StateError) as error:
                raise self._failed(error, "set") from error

    def fold_if_long(self, number: int | None) -> None:
        try:
            self._file.fold_if_long(number)
        except (OSError, StateError) as error:
            raise self._failed(error, "set") from error

    def settle(self, number: int | None) -> None:
        """A killed run is resumed: what it wrote behind line `number` is undone. None: it relies on nothing here."""
        try:
            self._file.settle(number)
        except (OSError, StateError) as error:
            raise self._failed(error, "set") from error

    def position(self) -> int:
        return self._file.number

    def close(self) -> None:
        """Flush; the last one that uses the file folds the log and releases the lock. Fine to call twice."""
        release, self._release = self._release, None
        if release is not None:
            try:
                release()
            except (OSError, StateError) as error:
                raise self._failed(error, "set") from error

    def _failed(self, error: OSError | ReqonError, operation: str, key: str | None = None) -> StoreError:
        reason = error.message if isinstance(error, ReqonError) else error.strerror
        verb = "write to" if operation == "set" else "read"
        return StoreError(
            f"cannot {verb} the store {self._file.path}: {reason}",
            store=self.name,
            operation=operation,
            key=key,
            code=None if isinstance(error, ReqonError) else errno.errorcode.get(error.errno or 0),
        )
