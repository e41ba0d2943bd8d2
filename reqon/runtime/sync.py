"""Sync checkpoints of one execution: their keys, what they send, and what they will be (spec/runtime.md 8)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from reqon.clock import parse_rfc3339, rfc3339
from reqon.errors import EvaluatorError
from reqon.events import Event, SyncCheckpointMoved
from reqon.lang import instants
from reqon.lang.functions import dates
from reqon.lang.operators import described
from reqon.runtime.fetch_spec import FetchSpec
from reqon.state.backend import SyncCheckpoint
from reqon.values import Value


@dataclass(slots=True)
class PendingTime:
    """What a fetch's sync checkpoint will be when the mission has completed; `failed`: it will not move."""

    last_sync: datetime
    items: int
    incremental: bool


class PendingSync:
    """Sync checkpoints of one execution: those it began with, and those it will leave."""

    def __init__(
        self, known: Mapping[str, SyncCheckpoint] | None = None, *, last_success: datetime | None = None
    ) -> None:
        self.known = {key: entry.last_sync for key, entry in (known or {}).items()}
        self.last_success = last_success
        self.pending: dict[str, PendingTime] = {}
        self.failed: set[str] = set()

    def since(self, key: str) -> datetime | None:
        """The checkpoint a fetch sends: as it was when the execution began."""
        return self.known.get(key)

    def note(self, key: str, last_sync: datetime, items: int) -> None:
        """A fetch under this key succeeded; of several uses the earliest time counts."""
        known = self.pending.get(key)
        if known is None:
            self.pending[key] = PendingTime(last_sync, items, key in self.known)
        else:
            known.last_sync = min(known.last_sync, last_sync)
            known.items += items

    def fail(self, key: str) -> None:
        """A use of this key failed: it is not saved in this run."""
        self.failed.add(key)

    def changes(self, mission: str) -> dict[str, SyncCheckpoint]:
        """What the mission's completion saves. A key of which any use failed is not saved."""
        return {key: SyncCheckpoint(p.last_sync, p.items, mission) for key, p in self._good()}

    def _good(self) -> list[tuple[str, PendingTime]]:
        return [(key, pending) for key, pending in self.pending.items() if key not in self.failed]

    def begun_with(self) -> dict[str, str]:
        return {key: rfc3339(at) for key, at in self.known.items()}

    def restore(self, begun_with: Mapping[str, Value], synced: Sequence[Mapping[str, Value]]) -> None:
        """Go on as the interrupted run had it."""
        self.known = {key: parse_rfc3339(text) for key, text in begun_with.items()}
        for entry in synced:
            if entry.get("failed"):
                self.fail(entry["k"])
                continue
            self.note(entry["k"], parse_rfc3339(entry["at"]), entry["c"])

    def tell(self, emit: Callable[[Event], None]) -> None:
        """One event for each key that was saved."""
        for key, pending in self._good():
            emit(
                SyncCheckpointMoved(
                    checkpoint_key=key,
                    last_sync_time=rfc3339(pending.last_sync),
                    records_fetched=pending.items,
                    is_incremental=pending.incremental,
                )
            )


def sync_key(spec: FetchSpec, target: str, written: Value, of_call: str | None = None) -> str:
    """`syncKey`, else that of a call, else `Source-/path` without query and trailing slash."""
    if isinstance(written, str) and written:
        return written
    if of_call is not None:
        return of_call
    path = target.partition("?")[0]
    return f"{spec.source}-{path.rstrip('/') or '/'}"


def since_text(value: Value, style: str) -> Value:
    """A checkpoint or expression in a `sinceFormat`.

    Raises:
        EvaluatorError: the value is no date.
    """
    instant = newest(value)
    if instant is None:
        raise EvaluatorError(f"since needs a date, not {described(value)}")
    match style:
        case "iso" | "ISO":
            return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
        case "date-only" | "YYYY-MM-DD":
            return instant.strftime("%Y-%m-%d")
        case "unix" | "timestamp":
            return int(instant.timestamp())
        case "unix-ms" | "epoch":
            return int(instant.timestamp() * 1000)
        case _:
            return instants.format_instant(instant, style)


def newest(value: Value) -> datetime | None:
    """The instant that a value denotes, of a list the newest; None if it denotes none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return max((found for one in value if (found := newest(one)) is not None), default=None)
    try:
        return dates.parse_date(value)
    except EvaluatorError:
        return None
