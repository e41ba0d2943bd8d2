"""What a state store can do: records, journals, sync checkpoints (spec/state.md 10). All calls block."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon.values import Value


@dataclass(frozen=True, slots=True)
class BodyRef:
    """Where a journaled body lies: bytes of the journal, read with `Journal.read_body`."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One entry: its kind, its fields, and where its body lies, if it has one.

    Kinds: `page`, `response`, `loop`, `bind`, `memory`, `progress`, `checkpoint`, `action`; `held`, `skipped` and
    `decided` for what conditions said; `opened` for the openings of file stores that what follows relies on; `resumed`,
    behind which writes to memory stores that did not count never will; `again` where an action began anew, so that what
    came before of it counts no more; and `full` where the journal reached its cap: what follows are `action` entries
    only, so that the action in work must start again.
    """

    kind: str
    fields: Mapping[str, Value]
    body: BodyRef | None


class Journal(Protocol):
    """What a resume needs beside the record. Made on disk by the first `write` after an `append`; until `discard`."""

    def append(self, kind: str, fields: Mapping[str, Value], *, body: bytes | None = None) -> BodyRef | None:
        """Add an entry to the buffer. `body` is JSON text kept as received (line breaks between tokens become blanks).

        The reference it answers can be read once `write` has returned. Past the cap (`full`) only `action` entries are
        taken, and the answer is None: whoever needs the body keeps it.
        """

    def write(self) -> None:
        """Hand all buffered entries to the system in one write: they survive SIGKILL on return."""

    def sync(self) -> None:
        """`write`, and return when everything survives a power loss too."""

    def entries(self) -> Iterator[JournalEntry]:
        """All entries that are whole, in order. What follows the first damaged line is cut off and does not count."""

    def last(self, *kinds: str) -> JournalEntry | None:
        """The newest entry of these kinds, found from the end: cheap, for those who only show where a run is."""

    def read_body(self, ref: BodyRef) -> bytes:
        """The JSON text of a body.

        Raises:
            DamagedFileError: the journal does not hold it.
        """

    @property
    def size(self) -> int:
        """Bytes written so far."""

    @property
    def exists(self) -> bool: ...

    @property
    def full(self) -> bool:
        """Whether the cap is reached: a crash now costs the work of the active action."""

    def close(self) -> None: ...

    def discard(self) -> None:
        """Remove it."""


def last_place(journal: Journal) -> Mapping[str, Value]:
    """The fields of the newest entry that says where a run is; nothing where its record alone knows."""
    entry = journal.last("progress", "checkpoint", "action")
    return {} if entry is None or entry.kind == "action" else entry.fields


@dataclass(frozen=True, slots=True)
class SyncCheckpoint:
    """How far one source's endpoint is synced. `items_synced` is a running total."""

    last_sync: datetime
    items_synced: int
    mission: str | None


LEASE_SECONDS = 60.0


class StateBackend(Protocol):
    """Where records, journals and sync checkpoints live. All writes are durable when they return, unless it says so.

    Attributes:
        leases: whether several machines may share it, so that a mission's runner must hold its lease.
    """

    name: str

    @property
    def leases(self) -> bool: ...

    def create(self, record: ExecutionRecord) -> ExecutionRecord:
        """Save a new record; answers it with its `file_name`."""

    def save(self, record: ExecutionRecord, *, durable: bool = True) -> None:
        """Replace a record. Not durable: survives SIGKILL, not a power loss (progress, at most ten times a second)."""

    def load(self, execution_id: str) -> ExecutionRecord | None: ...

    def list(
        self,
        mission: str | None = None,
        *,
        limit: int | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        status: ExecutionStatus | None = None,
    ) -> list[ExecutionRecord]:
        """Newest first, begun at `since` or later and earlier than `before`. Reads only as many as it must.

        A running record whose owner is dead is shown as interrupted, here and in `load`.
        """

    def latest(self) -> Sequence[ExecutionRecord]:
        """Each mission's last execution, by mission name."""

    def orphans(self, mission: str | None = None) -> Sequence[ExecutionRecord]:
        """Records that say `running` though their owner is dead, as they stand; for `recovery`."""

    def delete(self, record: ExecutionRecord) -> int:
        """Remove a record and its journal; the bytes that went.

        Raises:
            StateError: it is running, or a newer major version wrote it.
        """

    def stored_bytes(self, record: ExecutionRecord) -> int:
        """What `delete` would free."""

    def journal(self, record: ExecutionRecord) -> Journal: ...

    def sync_checkpoints(self, mission: str) -> Mapping[str, SyncCheckpoint]:
        """The mission's entries, by key (its own `<Mission>/<key>` entries under the bare key).

        Raises:
            StateError: the file cannot be read. Nobody guesses then: a full sync must be asked for.
        """

    def put_sync(self, mission: str, changes: Mapping[str, SyncCheckpoint]) -> None:
        """Write them all in one replace. `items_synced` of a change is added to the entry's total."""

    def clear_sync(self, key: str | None) -> int:
        """Remove one entry, or all; how many went."""

    def lease(self, mission: str, owner: str, ttl_seconds: float) -> bool:
        """Take or renew a mission's lease for so many seconds from now; False while another owner has it.

        With 0 it is given back; for an owner that has none that is the question whether somebody else has it.
        """

    def close(self) -> None: ...


def was_asked_for(
    record: ExecutionRecord, mission: str | None, *, since: datetime | None, before: datetime | None
) -> bool:
    """Whether a record is of this mission, if one is named, and began in [since, before), as far as given."""
    return (
        mission in (None, record.mission)
        and (since is None or record.started_at >= since)
        and (before is None or record.started_at < before)
    )
