"""What a path argument means: files, mission folders, collections (spec/language.md 6.1, 6.2)."""

import errno
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".vague", ".reqon")
ROOTS = ("mission.vague", "mission.reqon")
_SKIPPED = frozenset(("node_modules", "__pycache__"))


@dataclass(frozen=True, slots=True)
class FileUnit:
    """One file with any number of missions. `path` as it was given or found."""

    path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)


@dataclass(frozen=True, slots=True)
class FolderUnit:
    """One mission in several files. `roots` has two members when the folder is ambiguous; `parts` in loading order."""

    path: Path
    roots: tuple[Path, ...]
    parts: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.roots, *self.parts)


def units_of(path: Path, *, skip: Collection[Path] = ()) -> list[FileUnit | FolderUnit]:
    """The units that a path means, in order. `skip` holds folders that are none of them, such as the data folder.

    Raises:
        FileNotFoundError: there is no such path.
        OSError: a folder cannot be read.
    """
    if not path.is_dir():
        path.stat()  # raises when it is not there; anything else is read as a file
        return [FileUnit(path)]
    skipped = {os.path.realpath(folder) for folder in skip}
    return sorted(_units(path, skipped, frozenset()), key=lambda unit: path_order(unit.files[0]))


def is_mission_folder(path: Path) -> bool:
    """Whether a folder is one multi-file mission."""
    return any((path / name).is_file() for name in ROOTS)


def mission_files(path: Path, *, at_most: int) -> Iterator[Path]:
    """Every mission file below a folder, at any depth, but for folders that are missions of their own.

    Raises:
        OSError: a folder cannot be read, or they hold more than `at_most` files and folders.
    """
    yield from _files_below(path, set(), frozenset((os.path.realpath(path),)), _Counted(at_most))


def refuse_no_file(path: Path) -> None:
    """Let nobody wait for a pipe, or read a device, that lies among mission files. The shell's own may be named.

    Raises:
        OSError: it is neither a regular file nor below /dev; or it isn't there.
    """
    if not stat.S_ISREG(path.stat().st_mode) and not str(path).startswith("/dev/"):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def path_order(path: Path) -> str:
    """What paths are sorted by: code points, the separator first."""
    return str(path).replace(os.sep, "\0")


def _units(folder: Path, skipped: set[str], above: frozenset[str]) -> Iterator[FileUnit | FolderUnit]:
    if is_mission_folder(folder):
        yield _folder_unit(folder, skipped)
        return
    here = above | {os.path.realpath(folder)}
    for entry in _entries(folder):
        if entry.is_dir():
            if _is_entered(entry, skipped, here):
                yield from _units(entry, skipped, here)
        elif entry.suffix in SUFFIXES:
            yield FileUnit(entry)


def _folder_unit(folder: Path, skipped: set[str]) -> FolderUnit:
    roots = tuple(folder / name for name in ROOTS if (folder / name).is_file())
    here = frozenset((os.path.realpath(folder),))
    parts = [path for path in _files_below(folder, skipped, here, _Counted(None)) if path not in roots]
    parts.sort(key=lambda path: (_group(path.relative_to(folder)), path_order(path)))
    return FolderUnit(folder, roots, tuple(parts))


def _group(part: Path) -> int:
    """Schemas come before everything else, actions after it."""
    return {"schemas": 0, "actions": 2}.get(part.parts[0], 1) if len(part.parts) > 1 else 1


class _Counted:
    """How many files and folders were looked at."""

    def __init__(self, at_most: int | None) -> None:
        self._left = self._at_most = at_most

    def look(self, number: int) -> None:
        if self._left is not None:
            self._left -= number
            if self._left < 0:
                raise OSError(errno.E2BIG, f"more than {self._at_most:,} files and folders")


def _files_below(folder: Path, skipped: set[str], above: frozenset[str], counted: _Counted) -> Iterator[Path]:
    entries = _entries(folder)
    counted.look(len(entries))
    for entry in entries:
        if entry.is_dir():
            if _is_entered(entry, skipped, above) and not is_mission_folder(entry):
                yield from _files_below(entry, skipped, above | {os.path.realpath(entry)}, counted)
        elif entry.suffix in SUFFIXES:
            yield entry


def _entries(folder: Path) -> list[Path]:
    found = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name not in _SKIPPED]
    return sorted(found, key=lambda entry: entry.name)


def _is_entered(folder: Path, skipped: set[str], above: frozenset[str]) -> bool:
    """Whether a folder is looked into: not the data folder, and not one that a link leads back to."""
    real = os.path.realpath(folder)
    return real not in skipped and real not in above
