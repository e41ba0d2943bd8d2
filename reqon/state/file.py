"""Records as files, one JSON object each, named after their mission and second (spec/state.md 1, 2).

Beside a running record stands its last synced content under a hidden name, so that the quick saves of progress, which
do not sync, can never cost a record.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, groupby, islice
from pathlib import Path

from reqon.errors import StateError
from reqon.files import RECORD_READ_LIMIT, DamagedFileError, lock_is_free
from reqon.state.backend import SyncCheckpoint, last_place, was_asked_for
from reqon.state.directory import StateDirectory, safe_name
from reqon.state.ids import execution_time
from reqon.state.journal import DEFAULT_MAX_BYTES, FileJournal
from reqon.state.records import (
    ExecutionRecord,
    ExecutionStatus,
    NewerRecordError,
    as_interrupted,
    as_seen,
    from_json,
    is_newer,
    to_json,
)
from reqon.state.sync import SyncCheckpoints

_STAMP = "%Y-%m-%dT%H-%M-%S"
_STAMP_WIDTH = 19
_NUMBER_WIDTH = 6
_NUMBERED = re.compile(r"(.+)-(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)-(\d{1,6})", re.DOTALL)
_NAME_SLACK = timedelta(seconds=5)
_RUNNING = ExecutionStatus.RUNNING


class FileBackend:
    """See `reqon.state.backend.StateBackend`. Needs no `open` directory for reading."""

    name = "file"
    leases = False

    def __init__(self, directory: StateDirectory, *, journal_max: int = DEFAULT_MAX_BYTES) -> None:
        self.directory = directory
        self._journal_max = journal_max
        self._disk = directory.disk
        self._sync = SyncCheckpoints(directory)

    # --- writing ---

    def create(self, record: ExecutionRecord) -> ExecutionRecord:
        at = execution_time(record.execution_id) or record.started_at
        base = f"{safe_name(record.mission)}-{at.astimezone(UTC).strftime(_STAMP)}"
        for number in count(1):
            record = replace(record, file_name=base if number == 1 else f"{base}-{number}")
            if self._journal_path(record).exists():
                continue  # a record that was there left it behind
            path = self._path(record.file_name)
            try:
                if self._disk.create(path, to_json(record), "record", spare=self._spare_for(record)):
                    break
            except OSError as error:
                raise self.directory.write_error(path, error) from error
        return record

    def save(self, record: ExecutionRecord, *, durable: bool = True) -> None:
        """See `StateBackend.save`.

        Raises:
            StateError: a newer major version wrote the record; StateWriteError: the disk refused.
        """
        self._refuse_newer(record)
        spare = self._spare(record.file_name)
        if not durable:
            durable = not spare.exists()
        try:
            self._disk.replace(
                self._path(record.file_name),
                to_json(record),
                "record",
                durable=durable,
                spare=self._spare_for(record) if durable else None,
            )
            if record.status is not _RUNNING:
                self._disk.remove(spare)
        except OSError as error:
            raise self.directory.write_error(self._path(record.file_name), error) from error

    def delete(self, record: ExecutionRecord) -> int:
        self._refuse_newer(record)
        lock = self.directory.execution_lock(record.execution_id)
        if not lock.take():
            raise StateError(f"{record.execution_id} of {record.mission} is running", code="running")
        try:
            freed = self.stored_bytes(record)
            # The record last: as long as it is there, it names the rest.
            self.directory.remove_log(record.execution_id)
            for path in (self._journal_path(record), self._spare(record.file_name), self._path(record.file_name)):
                self._disk.remove(path)
            lock.remove()
        except OSError as error:
            raise self.directory.write_error(self._path(record.file_name), error) from error
        finally:
            lock.release()
        return freed

    def stored_bytes(self, record: ExecutionRecord) -> int:
        total = 0
        for path in (self._path(record.file_name), self._journal_path(record)):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total + self.directory.log_bytes(record.execution_id)

    def lease(self, mission: str, owner: str, ttl_seconds: float) -> bool:  # noqa: ARG002  # locks decide
        return True

    def journal(self, record: ExecutionRecord) -> FileJournal:
        return FileJournal(self._journal_path(record), self.directory, max_bytes=self._journal_max)

    # --- reading ---

    def load(self, execution_id: str) -> ExecutionRecord | None:
        """See `StateBackend.load`.

        Raises:
            StateError: the record is there, but cannot be read for now.
        """
        at = execution_time(execution_id)
        stamp = at.strftime(_STAMP) if at else None
        unread: StateError | None = None
        for stem in self._stems(stamp=stamp):
            try:
                record = self._read(stem, containing=execution_id)
            except OSError as error:
                if stamp is not None:
                    unread = StateError(f"cannot read {self._path(stem)}: {error.strerror}")
                continue
            if record is not None and record.execution_id == execution_id:
                return self._shown(record)
        if unread is not None:
            raise unread  # that may have been it
        return None

    def list(
        self,
        mission: str | None = None,
        *,
        limit: int | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        status: ExecutionStatus | None = None,
    ) -> list[ExecutionRecord]:
        if limit is not None and limit <= 0:
            return []
        # A dead owner's record says `running` and counts as interrupted.
        word = None if status in (None, ExecutionStatus.INTERRUPTED) else status.value
        records = self._records(self._stems(mission, since=since, before=before), containing=word)
        asked = (record for record in records if was_asked_for(record, mission, since=since, before=before))
        shown = (record for record in map(self._shown, asked) if status in (None, record.status))
        return [*islice(_newest_first(shown), limit)]

    def latest(self) -> Sequence[ExecutionRecord]:
        found: dict[str, ExecutionRecord] = {}
        for name, newest in self._newest_keys().items():
            record = next(self._records([_stem_of(newest)]), None)
            if record is None:  # set aside, or gone: the one before it
                record = next(self._records(self._stems(name, is_safe=True)), None)
            if record is not None:
                found[record.mission] = self._shown(record)
        return [found[mission] for mission in sorted(found)]

    def _newest_keys(self) -> dict[str, str]:
        """Each safe mission name's greatest key, in one look at the names and without sorting them."""
        newest: dict[str, str] = {}
        for name in self.directory.names(self.directory.executions):
            if name.endswith(".json"):
                belongs_to, at, number = _parts(name[:-5])
                if at and (key := _key_of(at, number, name[:-5])) > newest.get(belongs_to, ""):
                    newest[belongs_to] = key
        return newest

    def orphans(self, mission: str | None = None) -> Sequence[ExecutionRecord]:
        running = self._records(self._stems(mission), containing=_RUNNING.value)
        return [
            record
            for record in running
            if record.status is _RUNNING and mission in (None, record.mission) and not self._is_alive(record)
        ]

    def _shown(self, record: ExecutionRecord) -> ExecutionRecord:
        """The record as readers see it: interrupted if its owner is dead."""
        if record.status is not _RUNNING:
            return record
        if self._is_alive(record):
            return as_seen(record, last_place(self.journal(record)))
        with suppress(OSError):
            # It may have ended between the two looks.
            record = self._read(record.file_name) or record
        if record.status is not _RUNNING:
            return record
        return as_interrupted(record, last_place(self.journal(record)))

    def _is_alive(self, record: ExecutionRecord) -> bool:
        return not lock_is_free(self.directory.execution_lock_path(record.execution_id))

    def _records(self, stems: Sequence[str], *, containing: str | None = None) -> Iterator[ExecutionRecord]:
        for stem in stems:
            try:
                record = self._read(stem, containing=containing)
            except OSError as error:
                self.directory.warn_once(f"cannot read {self._path(stem)}: {error.strerror}")
                continue
            if record is not None:
                yield record

    def _read(self, stem: str, *, containing: str | None = None) -> ExecutionRecord | None:
        """A record; None if it is gone, damaged, too new to be understood, or without the JSON text `containing`."""
        path = self._path(stem)
        try:
            data = self._disk.read(path, RECORD_READ_LIMIT)
            if containing is not None and _surely_lacks(data, containing):
                return None
            return from_json(data, file_name=stem)
        except FileNotFoundError:
            return None
        except NewerRecordError as error:
            self.directory.warn_once(f"{path} {error.message} and is left alone")
            return None
        except DamagedFileError as error:
            return self._from_spare(stem, error.message)

    def _from_spare(self, stem: str, reason: str) -> ExecutionRecord | None:
        """What a power loss in a quick save left: the last synced content, put back; else the record is set aside."""
        path = self._path(stem)
        reason = reason.removeprefix(f"{path} ")
        try:
            data = self._disk.read(self._spare(stem), RECORD_READ_LIMIT)
            record = from_json(data, file_name=stem)
        except (FileNotFoundError, DamagedFileError, NewerRecordError):
            self.directory.quarantine(path, reason, kind="record")
            return None
        if not self._is_alive(record) and self.directory.quarantine(path, reason, kind="record", copy=True):
            self._disk.replace(path, data, "record")
        return record

    # --- names ---

    def _path(self, stem: str) -> Path:
        assert stem, "a record gets its file by create"
        return self.directory.executions / f"{stem}.json"

    def _spare(self, stem: str) -> Path:
        return self.directory.executions / f".{stem}.spare"

    def _spare_for(self, record: ExecutionRecord) -> Path | None:
        return self._spare(record.file_name) if record.status is _RUNNING else None

    def _journal_path(self, record: ExecutionRecord) -> Path:
        return self.directory.executions / f"{record.file_name}.journal"

    def _stems(
        self,
        mission: str | None = None,
        *,
        stamp: str | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        is_safe: bool = False,
    ) -> Sequence[str]:
        """The records' file names without `.json`, newest first, chosen by what the names say.

        `is_safe`: the mission's name is given as it stands in file names.
        """
        wanted = None if mission is None else mission if is_safe else safe_name(mission)
        prefix = wanted or ""
        # The time in a name is that of the id, which may differ a little from `startedAt`.
        first = "" if since is None else (since.astimezone(UTC) - _NAME_SLACK).strftime(_STAMP)
        last = "9999" if before is None else (before.astimezone(UTC) + _NAME_SLACK).strftime(_STAMP)
        keys: list[str] = []
        for name in self.directory.names(self.directory.executions):
            if name.endswith(".json") and name.startswith(prefix) and (not stamp or stamp in name):
                belongs_to, at, number = _parts(name[:-5])
                if at and first <= at <= last and wanted in (None, belongs_to):
                    keys.append(_key_of(at, number, name[:-5]))
        keys.sort(reverse=True)
        return [_stem_of(key) for key in keys]

    # --- sync checkpoints ---

    def sync_checkpoints(self, mission: str) -> Mapping[str, SyncCheckpoint]:
        return self._sync.of(mission)

    def put_sync(self, mission: str, changes: Mapping[str, SyncCheckpoint]) -> None:
        self._sync.put(mission, changes)

    def clear_sync(self, key: str | None) -> int:
        return self._sync.clear(key)

    def close(self) -> None:
        """Nothing is kept open."""

    def _refuse_newer(self, record: ExecutionRecord) -> None:
        if is_newer(record):
            raise StateError(
                f"{record.execution_id} was written by Reqon {record.reqon_version} and is left as it is",
                hint="use that version, or a newer one",
            )


def _newest_first(records: Iterable[ExecutionRecord]) -> Iterator[ExecutionRecord]:
    """Records in the order of their names, which know the second only, in the order in which they began."""
    for _, same_second in groupby(records, key=lambda record: _parts(record.file_name)[1]):
        yield from sorted(same_second, key=lambda record: record.started_at, reverse=True)


def _key_of(at: str, number: str, stem: str) -> str:
    """What a record is sorted by: its time, then its number, as wide as the widest."""
    return at + number.rjust(_NUMBER_WIDTH) + stem


def _stem_of(key: str) -> str:
    return key[_STAMP_WIDTH + _NUMBER_WIDTH :]


def _parts(stem: str) -> tuple[str, str, str]:
    """The safe mission name, time and number of a file name; no time if it is no record's."""
    at = stem[-_STAMP_WIDTH:]
    # Nearly all, told without a regular expression: there may be a hundred thousand.
    if at[10:11] == "T" and at[:4].isdecimal() and stem[-_STAMP_WIDTH - 1 : -_STAMP_WIDTH] == "-":
        return stem[: -_STAMP_WIDTH - 1], at, "1"
    match = _NUMBERED.fullmatch(stem)
    return (match[1], match[2], match[3]) if match else (stem, "", "")


def _surely_lacks(record: bytes, text: str) -> bool:
    """Whether a whole record holds no such JSON text; a look that spares reading most of a hundred thousand."""
    # What lacks its closing brace is damaged, and must not be passed over in silence.
    return f'"{text}"'.encode() not in record and b"\\u" not in record and record.rstrip().endswith(b"}")
