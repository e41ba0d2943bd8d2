"""The lines of a file store's log, and what they say of the stores beside it (spec/reliability.md 1).

An opening is the time for which a process has the file open. It has a name, `<execution>/<word>`, which the first line
that it writes carries, so that a line can be told from another one of its number that was lost with the power.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from reqon.files import DamagedFileError, Log
from reqon.values import JsonError, Raw, skim

MAX_OPENINGS = 1000  # that a store remembers


@dataclass(slots=True)
class Line:
    """One line of the log. `clear` comes before `delete`, and that before `put`.

    Attributes:
        base: the number of records in the snapshot that the log began with.
        fold: size and checksum of a snapshot that holds all lines so far, if it was put in place.
        kept: size and checksum of the snapshot before that one, which is kept until a resume; (0, 0): there was none.
        shared: several executions had the file open.
        opened: the opening that writes from here on.
        openings: in the first line, the last number of each earlier opening.
        after: what is removed is removed only if these stores, by their places from here, hold a line of an opening.
    """

    n: int
    clear: bool = False
    delete: list[str] = field(default_factory=list)
    put: dict[str, Raw] = field(default_factory=dict)
    base: int = 0
    fold: tuple[int, int] | None = None
    kept: tuple[int, int] | None = None
    shared: bool = False
    opened: str = ""
    openings: dict[str, int] = field(default_factory=dict)
    after: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def removes(self) -> bool:
        """Whether records go by it."""
        return self.clear or bool(self.delete)

    @property
    def changes(self) -> bool:
        """Whether it says anything of records."""
        return self.removes or bool(self.put)


def last_number(path: Path) -> int:
    """The number of the last line that the log of a store's file holds, read without a lock; 0: none, or no store.

    What stands behind damage does not count. Snapshots without the log that goes on from them count as nothing.
    """
    number = 0
    log = Log(path.with_suffix(".log"), what="store")
    with suppress(DamagedFileError, JsonError):
        for _, content in log.lines():
            line = skim(content, Line)
            number = 0 if line.base and not path.exists() else line.n
    return number


def reaches(path: Path) -> dict[str, int]:
    """The last number of each opening that a store's file still knows, read without a lock. Damage ends it."""
    found: dict[str, int] = {}
    opening = ""
    with suppress(DamagedFileError, JsonError, OSError):
        for _, content in Log(path.with_suffix(".log"), what="store").lines():
            line = skim(content, Line)
            if line.base and not path.exists():
                return {}
            found |= line.openings
            opening = line.opened or opening
            if opening:
                found[opening] = line.n
    return found
