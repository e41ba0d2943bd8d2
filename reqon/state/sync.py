"""How far each source's endpoint is synced: `sync-checkpoints.json` (spec/state.md 6, spec/runtime.md 8).

A key belongs to the mission that used it first; another mission's entry is `<Mission>/<key>`, so that no two missions
move each other's time. An entry without a mission, written by hand or by another program, is taken over by the first
mission that uses it. What else stands in an entry stays there.
"""

from collections.abc import Mapping

from reqon.clock import parse_rfc3339, rfc3339
from reqon.errors import StateError
from reqon.files import DamagedFileError
from reqon.state.backend import SyncCheckpoint
from reqon.state.directory import StateDirectory
from reqon.values import JsonError, Record, Value, decode, encode


class SyncCheckpoints:
    """The file, read anew at each call; changes are made under its lock, in one replace."""

    def __init__(self, directory: StateDirectory) -> None:
        self._directory = directory
        self._path = directory.sync_checkpoints

    def of(self, mission: str) -> dict[str, SyncCheckpoint]:
        """See `StateBackend.sync_checkpoints`."""
        return {
            _key(place, entry, mission): self._checkpoint(place, entry)
            for place, entry in self._read().items()
            if _owner(entry) in (mission, None)
        }

    def put(self, mission: str, changes: Mapping[str, SyncCheckpoint]) -> None:
        """See `StateBackend.put_sync`. A time never moves back, nor past now."""
        if not changes:
            return
        now = self._directory.clock.now()
        with self._directory.shared_lock(self._path):
            entries = self._read()
            own = {_key(place, e, mission): place for place, e in entries.items() if _owner(e) == mission}
            for key, change in changes.items():
                place = own.get(key) or _free_place(entries, mission, key)
                entry = entries.get(place, {})
                before = self._checkpoint(place, entry) if entry else None
                last_sync = min(change.last_sync, now)
                if before:
                    last_sync = max(last_sync, before.last_sync)
                total = change.items_synced + (before.items_synced if before else 0)
                moved = {"lastSync": rfc3339(last_sync), "itemsSynced": total, "mission": mission}
                if _plain_key(place, mission) != key:
                    moved["key"] = key
                entries[place] = {**entry, **moved}
            self._write(entries)

    def clear(self, key: str | None) -> int:
        """See `StateBackend.clear_sync`. Clearing all is how a damaged file is got rid of: it goes to quarantine."""
        if not self._path.exists():
            return 0  # nothing to clear, and maybe no directory to lock in
        with self._directory.shared_lock(self._path):
            try:
                entries = self._read()
            except DamagedFileError:
                if key is not None:
                    raise
                self._directory.quarantine(self._path, "could not be read and was cleared", kind="sync")
                return 0
            gone = list(entries) if key is None else [k for k in entries if k == key]
            if gone:
                self._write({k: v for k, v in entries.items() if k not in gone})
            return len(gone)

    def _read(self) -> dict[str, Value]:
        try:
            entries = decode(self._directory.disk.read(self._path))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateError(f"cannot read {self._path}: {error.strerror}") from error
        except (JsonError, DamagedFileError) as error:
            raise self._damaged(error.message) from error
        if not isinstance(entries, dict):
            raise self._damaged("it is no JSON object")
        return entries

    def _write(self, entries: Record) -> None:
        try:
            self._directory.disk.replace(self._path, encode(entries, pretty=True) + b"\n", "sync-checkpoints")
        except OSError as error:
            raise self._directory.write_error(self._path, error) from error

    def _checkpoint(self, key: str, entry: Value) -> SyncCheckpoint:
        try:
            last_sync = parse_rfc3339(entry["lastSync"])
            items = entry.get("itemsSynced", 0)
            if not isinstance(items, int) or isinstance(items, bool):
                raise TypeError  # noqa: TRY301  # one fault among others
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            raise self._damaged(f"the entry {key!r} has no lastSync or a wrong itemsSynced") from None
        return SyncCheckpoint(last_sync, items, _owner(entry))

    def _damaged(self, reason: str) -> DamagedFileError:
        return DamagedFileError(
            f"{self._path} cannot be used: {reason}. Without it nobody knows what is synced",
            hint="mend the file, or ask for a full sync: clear_sync_checkpoints(), or remove the file",
        )


def _owner(entry: Value) -> str | None:
    owner = entry.get("mission") if isinstance(entry, dict) else None
    return owner if isinstance(owner, str) else None


def _plain_key(place: str, mission: str) -> str:
    return place.removeprefix(mission + "/")


def _key(place: str, entry: Value, mission: str) -> str:
    """Which key an entry is for: what its place says, unless that would be taken for another key."""
    if _owner(entry) is None:
        return place
    key = entry.get("key")
    return key if isinstance(key, str) else _plain_key(place, mission)


def _free_place(entries: Record, mission: str, key: str) -> str:
    """Under which name the first entry of a mission for a key will stand."""
    if key not in entries or _owner(entries[key]) is None:
        return key
    own = f"{mission}/{key}"
    # Another mission's key may look like ours.
    return next(place for place in (own, *(f"{own}#{n}" for n in range(2, 1000))) if place not in entries)
