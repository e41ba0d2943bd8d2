"""Records in a JSON file that people can read, as one execution sees them (spec/runtime.md 9.5)."""

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reqon.errors import ReqonError, StateError, StoreError
from reqon.stores.base import WriteCounts, WriteMode, absent
from reqon.stores.snapshot import indented
from reqon.stores.store_file import BATCH, StoreFile
from reqon.values import JsonError, Record, encode, equal_json, skim

_RECORD = dict[str, Any]  # our own data: JSON for certain, so the limits for strangers' need no second look


class FileStore:
    """What one execution sees of a store file: the records that all share, and counts of its own.

    Attributes:
        partial: for each key the `partial` option of the last step that wrote one; offered as `._partial`.
        keep: closing leaves what a resume needs to undo what the execution wrote last.
    """

    kind = "file"

    __slots__ = ("_alone", "_file", "_immediate", "_others", "_release", "counts", "keep", "name", "partial")

    def __init__(
        self,
        name: str,
        file: StoreFile,
        *,
        immediate: bool = False,
        release: Callable[..., None] | None = None,
        alone: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.counts = WriteCounts()
        self.partial: dict[str, bool] = {}
        self._file = file
        self._immediate = immediate
        self._release: Callable[..., None] | None = release or file.close
        self._others: Sequence[StoreFile] = ()  # what the same execution writes to
        self.keep = False
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
            if self._removed(lambda: self._file.delete(key)):
                self._file.follow(self._others)
                self.counts.deleted += 1
                self.partial.pop(key, None)
        if self._immediate:
            self.flush()

    def clear(self) -> None:
        with self._file.lock:
            self.counts.deleted += self._removed(self._file.clear)
            self._file.follow(self._others)
            self.partial.clear()
        if self._immediate:
            self.flush()

    def _removed(self, remove: Callable[[], int]) -> int:
        try:
            return remove()
        except (OSError, StateError) as error:
            raise self._failed(error, "set") from error

    def count(self) -> int:
        return len(self._file.index)

    def keys(self) -> list[str]:
        return list(self._file.index)

    def records(self, start: int = 0) -> Iterator[Record]:
        file = self._file
        keys = self.keys()
        for at in range(start, len(keys), BATCH):
            with file.lock:
                try:
                    batch = list(file.read_many(keys[at : at + BATCH]))
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

    def settle(self, number: int | None, *, by: str) -> None:
        """The execution `by` is resumed: what it wrote behind line `number` is undone. None: it relies on nothing."""
        try:
            self._file.settle(number, by=by)
        except (OSError, StateError) as error:
            raise self._failed(error, "set") from error

    def loses_by_staying(self, number: int | None, *, by: str) -> bool:
        """See `StoreFile.loses_by_staying`."""
        try:
            return self._file.loses_by_staying(number, by=by)
        except (OSError, StateError) as error:
            raise self._failed(error, "get") from error

    def openings(self) -> Mapping[str, int]:
        """The last line of each time that the file was open, as far as it knows, by name."""
        return {**self._file._openings, self._file.opening: self._file.number}  # noqa: SLF001  # its like

    @property
    def opening(self) -> tuple[str, int]:
        """The name of the opening that goes on, and the number of the last line before it."""
        return self._file.opening, self._file.began

    def join(self, stores: Sequence["FileStore"]) -> None:
        """These are written to by one execution: what is removed here never survives what it had put there before."""
        self._others = [store._file for store in stores if store._file is not self._file]  # noqa: SLF001  # its like

    def position(self) -> int:
        return self._file.number

    def close(self) -> None:
        """Flush; the last one that uses the file folds the log and releases the lock. Fine to call twice."""
        release, self._release = self._release, None
        if release is not None:
            try:
                release(keep=self.keep)
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
