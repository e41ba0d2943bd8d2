"""The files of a store (spec/runtime.md 9.5): a snapshot that people can read, and a log of what was written since.

`<id>.json` is the snapshot, `<id>.log` numbered, checksummed lines that hold whole records, so that reading one twice
changes nothing. Memory holds where each record lies, not the records.
"""

import os
import socket
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock
from weakref import WeakMethod
from zlib import crc32

from reqon.clock import SYSTEM, wait_blocking
from reqon.errors import ReqonError
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
from reqon.stores.lines import MAX_OPENINGS, Line, reaches
from reqon.stores.snapshot import (
    COMPACT,
    EMPTY,
    PRETTY,
    ForeignLayoutError,
    Layout,
    UnreadableStoreError,
    index,
    layout_of,
    read_foreign,
)
from reqon.values import OWN_DEPTH, decode, encode, skim

LOCK_WAIT_SECONDS = 30.0
MIN_FOLD_BYTES = 1 << 20
_MUCH_TOO_LONG = 16
_PENDING_BYTES = 8 << 20
BATCH = 256
_PIECE = 1 << 20
_NEAR = 64 << 10
_TRIES = 8  # to fold while others write what must be safe before
_NO_SNAPSHOT = (0, 0)

# Where a record lies, in one integer: offset, 28 bits of length, whether in the log; or one of these.
_UNWRITTEN = -1
_FOREIGN = -2
_LENGTH = (1 << 28) - 1


def _place(offset: int, length: int, in_log: int = 0) -> int:
    return offset << 29 | length << 1 | in_log


class StoreFile:
    """One store's files in this process, for all executions that use them; `FileStore` is what each of them sees.

    Attributes:
        index: key -> where its record lies, in the order of insertion.
        number: of the last line written.
        warnings: what was found when it was opened, for people.
        opening: the name of this opening, see `lines`.
        began: the number of the last line before it.
        due: the number of the line that has, or will have, what was put last.
        safe: the number of the last line that survives a power loss.
    """

    def __init__(
        self, path: Path, *, pretty: bool = True, quarantine: Path | None = None, disk: FileSystem = DISK
    ) -> None:
        self.path = path
        self.index: dict[str, int] = {}
        self.number = self.due = self.safe = self.began = 0
        self.opening = ""
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
        self._wrote = False  # since it was opened
        self._is_named = False  # the log has the name of this opening
        self._openings: dict[str, int] = {}  # earlier ones that it knows, and their last numbers
        # What removals follow, as line numbers of other files: those still to be written, and those to be folded.
        self._after: dict[StoreFile, int] = {}
        self._follows: dict[StoreFile, int] = {}
        self.followed = 0  # the highest number of ours that a removal elsewhere follows

    @property
    def kept_path(self) -> Path:
        """Where the snapshot lies that a resume goes back to."""
        return self.path.with_name(f".{self.path.name}.before")

    def _new_log(self) -> Log:
        return Log(self.path.with_suffix(".log"), what="store", disk=self._disk)

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self, *, wait_seconds: float = LOCK_WAIT_SECONDS, settle: bool = True, by: str = "") -> None:
        """Wait for the file's lock, find the records, fold what an earlier process left in the log.

        Without `settle` the log stays as it is, for whoever resumes a killed run; see there. `by`: which execution.

        Raises:
            UnreadableStoreError: the files cannot be used; they are left as they are.
        """
        try:
            if not self.path.parent.is_dir():
                make_directory(self.path.parent)
                self._disk.sync_dir(self.path.parent.parent)
            self._wait_for_lock(wait_seconds)
            self.opening = f"{by}/{os.urandom(4).hex()}"
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
        folded, elsewhere = 0, dict[str, dict[str, int]]()
        with suppress(DamagedFileError):
            folded, _ = self._folded_lines()
        with suppress(DamagedFileError):
            for number, (_, content) in enumerate(self._log.lines()):
                line = skim(content, Line)
                if number < folded:
                    continue
                if all(self._holds(store, place, elsewhere) for store, place in line.after.items()):
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
            folded, _ = self._folded_lines()
        except DamagedFileError as error:
            kept = self._keep_damaged()
            self.warnings.append(f"{error.message}; what stood behind that is not in the store; a copy is {kept}")
            folded = 0
        opening, elsewhere = "", dict[str, dict[str, int]]()
        with suppress(DamagedFileError):
            for number, (offset, content) in enumerate(self._log.lines()):
                line = skim(content, Line)
                self._openings |= line.openings
                opening = line.opened or opening
                if opening:
                    self._openings[opening] = line.n
                removes = all(self._holds(store, place, elsewhere) for store, place in line.after.items())
                self._replay(line, offset, content, known=number < folded, removes=removes)
        self.due = self.safe = self.began = self.number
        if self._log.size or self.warnings:
            self._log.open(forget_tail=True)

    def _holds(self, store: str, place: tuple[str, int], elsewhere: dict[str, dict[str, int]]) -> bool:
        """Whether another store has a line that a removal here follows."""
        if store not in elsewhere:
            elsewhere[store] = reaches(self.path.parent / store)
        opening, number = place
        return elsewhere[store].get(opening, -1) >= number

    def settle(self, number: int | None, *, by: str) -> None:
        """Forget the lines above this number, which the execution `by` wrote and will write again; fold the rest.

        What it had written for the item in work is so undone, as if it had ended before that item. None: it relies on
        nothing, so that all it wrote goes. Others' lines stay, and what is in the snapshot, unless that one before it
        was kept.

        Raises:
            OSError: the store is as good as before.
        """
        with self._syncing, self.lock:
            undo = self._undo(number, by)
            if undo is not None:
                end, snapshot = undo
                if snapshot is not None:
                    self._go_back(snapshot)
                self._log.close()
                self._log.open_at(end)
                self._log.sync()
                if self._snapshot is not None:
                    os.close(self._snapshot)
                    self._snapshot = None
                self.index.clear()
                self._foreign, self._unfolded, self.number = {}, False, 0
                self._openings.clear()
                self._load()
        if self._unfolded:
            self.fold()

    def loses_by_staying(self, number: int | None, *, by: str) -> bool:
        """Whether `settle` would leave removals of the execution in place that were to be undone.

        Then nothing that it did in other stores may be undone either, or what it moved would be in none.
        """
        with self._syncing, self.lock:
            if self._undo(number, by) is not None:
                return False
            return any(line.removes for line in self._lines_of(number, by))

    def _lines_of(self, number: int | None, by: str) -> Iterator[Line]:
        """The lines above a number that the execution wrote, perhaps with others."""
        opening = ""
        for _, content in self._log.lines():
            line = skim(content, Line)
            opening = line.opened or opening
            if line.n > (number or 0) and (line.shared or opening.partition("/")[0] == by):
                yield line

    def _undo(self, number: int | None, by: str) -> tuple[int, tuple[int, int] | None] | None:
        """Where the log ends without the lines above a number, and which snapshot goes with that, if another one does.

        None: nothing is to go, or something of it is not this execution's alone, or can't be had back.
        """
        if self.shared:
            return None
        folded, kept = self._folded_lines()
        opening, end, goes = "", 0, False
        for at, (offset, content) in enumerate(self._log.lines()):
            line = skim(content, Line)
            opening = line.opened or opening
            own = opening.partition("/")[0] == by
            if number is None and own and line.changes:
                number = line.n - 1
            if number is None or line.n <= number:
                end = offset + len(content) + SEAL_LENGTH
                continue
            in_snapshot = at < folded and kept is None
            if line.shared or not own or in_snapshot or (at == 0 and (line.n > number + 1 or not line.changes)):
                return None
            goes = goes or line.changes
        return (end, kept if folded else None) if goes else None

    def _go_back(self, snapshot: tuple[int, int]) -> None:
        """Put the snapshot back that was there before the last fold."""
        if snapshot == _NO_SNAPSHOT:
            self._disk.remove(self.path)
            self._disk.sync_dir(self.path.parent)
            return
        fd = open_regular(self.kept_path, os.O_RDONLY)
        try:
            self._disk.replace(self.path, lambda: _pieces(fd), "store-snapshot")
        finally:
            os.close(fd)

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

    def _folded_lines(self) -> tuple[int, tuple[int, int] | None]:
        """How many lines the snapshot has, and the snapshot before it, if that can be had.

        A process died after putting it in place, before emptying the log; or it kept what a resume may undo.
        """
        folded, kept = 0, None
        for number, (_, content) in enumerate(self._log.lines()):
            if b'"fold":[' in content[:64] and (fold := skim(content, Line)).fold:
                size, checksum = fold.fold
                if size == self._snapshot_size and self._snapshot is not None and checksum == _checksum(self._snapshot):
                    folded, kept = number + 1, fold.kept
        return folded, kept if kept is not None and self._can_go_back(kept) else None

    def _can_go_back(self, snapshot: tuple[int, int]) -> bool:
        if snapshot == _NO_SNAPSHOT:
            return True
        try:
            fd = open_regular(self.kept_path, os.O_RDONLY)
        except OSError:
            return False
        try:
            return snapshot == (os.fstat(fd).st_size, _checksum(fd))
        finally:
            os.close(fd)

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

    def _replay(self, line: Line, offset: int, content: bytes, *, known: bool, removes: bool) -> None:
        self.number = line.n
        if line.base and self._snapshot is None:
            # The records that this log goes on from were taken away: nothing may rely on their numbers any more.
            self.warnings.append(f"{self.path} is gone; its {line.base} records are no longer in the store")
            self.number = 0
            self._openings.clear()
        if not line.changes:
            return
        self._unfolded = True
        if known:  # in the snapshot already; only the log is still to be emptied
            return
        if line.clear and removes:
            self.index.clear()
        for key in line.delete:
            if removes or key in line.put:
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
        self.due = self.number + 1
        if self._unwritten_bytes > _PENDING_BYTES:
            self.flush()

    def delete(self, key: str) -> bool:
        """Forget a record; False if it isn't there.

        Raises:
            OSError: nothing is forgotten.
        """
        if self.followed > self.number and key in self._unwritten:
            self.flush()  # a removal elsewhere counts on its being written
        if self._watchers and key in self.index:
            self._warn(key)
        if self.index.pop(key, None) is None:
            return False
        self._unwritten.pop(key, None)
        self._deleted[key] = None
        return True

    def follow(self, others: Sequence["StoreFile"]) -> None:
        """What was just removed may go only where what is put into these by now has been written."""
        for other in others:
            if other.due > other.safe:
                self._after[other] = other.followed = other.due

    def clear(self) -> int:
        """Forget all records; how many there were.

        Raises:
            OSError: nothing is forgotten.
        """
        if self.followed > self.number:
            self.flush()  # as above
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
            if not self._is_named:
                line += b',"opened":' + encode(self.opening)
            if self._after:
                line += self._following()
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
            self._wrote = self._is_named = True
            self._after.clear()
            self.index.update(zip(self._unwritten, places, strict=True))
            self._unwritten = {}
            self._unwritten_bytes = 0
            self._deleted.clear()
            self._cleared = False
            self._unfolded = True

    def _following(self) -> bytes:
        """For the line to be written: the lines of other files that its removals follow, if those may yet be lost."""
        follows = {other: number for other, number in self._after.items() if number > other.safe}
        if not follows:
            return b""
        self._follows |= follows
        places = {
            os.path.relpath(other.path, self.path.parent): [other.opening, number] for other, number in follows.items()
        }
        return b',"after":' + encode(places)

    def sync(self) -> None:
        """Return when all that was written survives a power loss.

        Raises:
            OSError: it may not.
        """
        with self._syncing:
            self.flush()
            number = self.number
            self._log.sync()
            self.safe = max(self.safe, number)

    def _sync_followed(self) -> None:
        """What removals here follow is safe: before they are folded, and hang on nothing any more.

        Not with a lock of ours held: the other file may wait for us likewise.
        """
        for other, number in [*self._follows.items(), *self._after.items()]:
            if number > other.safe:
                other.sync()

    def _may_fold(self) -> bool:
        followed = [*self._follows.items(), *self._after.items()]
        return all(number <= other.safe for other, number in followed)

    def fold_if_long(self, number: int | None) -> None:
        """Fold a log that has grown too long, if `number` is its last line: what is folded can't be undone.

        A run's journal relies on that line then, and a resume has no lines behind it to forget. None: no journal does.
        One much too long is folded in any case: in parallel loops there is always somebody who just wrote.

        Raises:
            OSError: the store is as good as before.
        """
        limit = max(MIN_FOLD_BYTES, self._snapshot_size)
        if self._log.size <= limit:
            return
        self._sync_followed()
        with self._syncing, self.lock:
            settled = number is None or (
                number == self.number and not (self._unwritten or self._deleted or self._cleared)
            )
            if settled or self._log.size > _MUCH_TOO_LONG * limit:
                self._fold()

    @property
    def unfolded(self) -> bool:
        """Whether the log holds what the snapshot does not."""
        return self._unfolded

    def fold(self, *, keep: bool = False) -> None:
        """Put a new snapshot in place, durable, then begin the log anew.

        With `keep` the log stays, and the snapshot that was there under another name, so that a resume can undo what
        it is going to do again; whoever opens the file otherwise folds it for good.

        Raises:
            OSError: the store is as good as before.
        """
        for _ in range(_TRIES):
            self._sync_followed()
            with self._syncing, self.lock:
                if self._fold(keep=keep):
                    return

    def _fold(self, *, keep: bool = False) -> bool:
        """The same; False, and nothing is done, where removals follow what may yet be lost."""
        self.flush()
        if not self._may_fold():
            return False
        self._log.sync()
        before = self._keep_snapshot() if keep else None
        places = array("Q")
        self._disk.replace(self.path, lambda: self._new_snapshot(places, before), "store-snapshot")
        snapshot = open_regular(self.path, os.O_RDONLY)
        if self._snapshot is not None:
            os.close(self._snapshot)
        self._snapshot, self._snapshot_size = snapshot, os.fstat(snapshot).st_size
        self._snapshot_layout, self._foreign = self._layout, {}
        for key, place in zip(self.index, places, strict=True):
            self.index[key] = place
        self._follows.clear()
        self.safe = self.number
        self._unfolded = False
        if keep:
            return True
        self._openings[self.opening] = self.number
        self._disk.replace(self._log.path, self._first_line(), "store-log")
        self._log.close()
        self._log = self._new_log()
        self._is_named = False
        if self.kept_path.exists():
            self._disk.remove(self.kept_path)
        return True

    def _keep_snapshot(self) -> tuple[int, int]:
        """Copy the snapshot aside; its size and checksum."""
        fd = self._snapshot
        if fd is None:
            return _NO_SNAPSHOT
        self._disk.replace(self.kept_path, lambda: _pieces(fd), "store-kept")
        return self._snapshot_size, _checksum(fd)

    def _first_line(self) -> bytes:
        known = dict(list(self._openings.items())[-MAX_OPENINGS:])
        return seal(encode({"n": self.number, "base": len(self.index), "openings": known}))

    def _new_snapshot(self, places: "array[int]", before: tuple[int, int] | None) -> Iterator[bytes]:
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
        kept = {} if before is None else {"kept": before}
        self._log.append(seal(encode({"n": self.number, "fold": [at, checksum], **kept})))

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
            if len(move) >= BATCH:
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

    def close(self, *, keep: bool = False) -> None:
        """Write what is left, fold the log, release the lock.

        `keep`: what a resume may undo stays so, see `fold`; where nothing was written, all stays as it was found.

        Raises:
            OSError: what was flushed before is safe; the rest may not be.
        """
        try:
            self.flush()
            if self._unfolded and (self._wrote or not keep):
                self.fold(keep=keep and not self.shared)
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


def _pieces(fd: int) -> Iterator[bytes]:
    at = 0
    while piece := os.pread(fd, _PIECE, at):
        at += len(piece)
        yield piece


def _checksum(fd: int) -> int:
    checksum = 0
    for piece in _pieces(fd):
        checksum = crc32(piece, checksum)
    return checksum
