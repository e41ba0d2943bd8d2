"""Local time: a zone's offset at an instant, and when it changes. Seconds since 1970, UTC, throughout."""

import os
from bisect import bisect_right
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_CHUNK = 400 * 86_400
_STEP = 6 * 3600  # no zone changes twice within six hours


class Zone:
    """One time zone. Its changes are searched once per stretch of 400 days and kept."""

    def __init__(self, name: str, rules: ZoneInfo) -> None:
        self.name = name
        self.rules = rules
        self._chunks: dict[int, tuple[int, ...]] = {}

    def offset(self, at: int) -> int:
        """Seconds that local time is ahead of UTC."""
        if self.name == "UTC":
            return 0
        ahead = datetime.fromtimestamp(at, self.rules).utcoffset()
        assert ahead is not None
        return ahead.days * 86_400 + ahead.seconds

    def change_after(self, at: int, until: int) -> int | None:
        """The first instant in (`at`, `until`] whose offset differs from that of the second before."""
        for chunk in range(at // _CHUNK, until // _CHUNK + 1):
            changes = self._changes(chunk)
            place = bisect_right(changes, at)
            if place < len(changes):
                return changes[place] if changes[place] <= until else None
        return None

    def change_before(self, at: int, since: int) -> int | None:
        """The last such instant in (`since`, `at`]."""
        for chunk in range(at // _CHUNK, since // _CHUNK - 1, -1):
            changes = self._changes(chunk)
            place = bisect_right(changes, at)
            if place:
                return changes[place - 1] if changes[place - 1] > since else None
        return None

    def instant_of(self, local: datetime) -> datetime:
        """The instant at which clocks show `local`: in its first pass, or right after the gap it lies in."""
        shown = int(local.replace(tzinfo=UTC, microsecond=0).timestamp())
        early = shown - max(self.offset(shown - 86_400), self.offset(shown + 86_400))
        late = shown - min(self.offset(shown - 86_400), self.offset(shown + 86_400))
        for at in (early, late):
            if at + self.offset(at) == shown:
                return datetime.fromtimestamp(at, UTC)
        change = self.change_after(early - 1, late + 1)
        return datetime.fromtimestamp(late if change is None else change, UTC)

    def _changes(self, chunk: int) -> tuple[int, ...]:
        known = self._chunks.get(chunk)
        if known is None:
            known = self._chunks[chunk] = () if self.name == "UTC" else tuple(self._search(chunk * _CHUNK))
        return known

    def _search(self, start: int) -> list[int]:
        """The changes in [`start`, `start` + 400 days)."""
        found = []
        before = self.offset(start - 1)
        for low in range(start - 1, start + _CHUNK - 1, _STEP):
            high = low + _STEP
            after = self.offset(high)
            if after != before:
                left, right = low, high
                while right - left > 1:
                    middle = (left + right) // 2
                    if self.offset(middle) == before:
                        left = middle
                    else:
                        right = middle
                found.append(right)
            before = after
        return found


@lru_cache(maxsize=1024)
def zone(name: str) -> Zone:
    """The zone of an IANA name.

    Raises:
        LookupError: there is no zone of this name.
    """
    try:
        return Zone(name, ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise LookupError(f"unknown time zone '{name}'") from error


def system_zone() -> Zone:
    """The machine's own zone: `TZ`, else what /etc/localtime is, else UTC."""
    named = os.environ.get("TZ", "").lstrip(":")
    local = Path("/etc/localtime")
    target = os.fspath(local.resolve()) if local.is_symlink() else ""
    for name in (named, target.partition("zoneinfo/")[2], _written("/etc/timezone")):
        if name:
            try:
                return zone("UTC" if name in ("Etc/UTC", "UTC") else name)
            except LookupError:
                continue
    return zone("UTC")


def _written(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
