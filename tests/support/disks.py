"""Disks that fail, and disks that lose power (spec/reliability.md 1)."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from reqon.files import Content, Disk, is_temporary


class PowerLoss(BaseException):
    """The machine stops here."""


class FailingDisk(Disk):
    """Refuses the n-th write or sync, as a full or broken disk does. Counts from 1; 0 refuses none.

    With `for_ever` all later ones are refused as well. A refused write leaves half of its bytes.
    """

    def __init__(self, *, write: int = 0, sync: int = 0, number: int = errno.ENOSPC, for_ever: bool = False) -> None:
        self._write, self._sync = write, sync
        self._number = number
        self._for_ever = for_ever
        self.writes = self.syncs = self.refused = 0

    def _refuses(self, count: int, at: int) -> bool:
        refuses = bool(at) and (count == at or (self._for_ever and count > at))
        self.refused += refuses
        return refuses

    def append(self, fd: int, data: bytes) -> None:
        self.writes += 1
        if self._refuses(self.writes, self._write):
            os.write(fd, data[: len(data) // 2])
            raise OSError(self._number, os.strerror(self._number))
        super().append(fd, data)

    def sync(self, fd: int, what: str) -> None:
        self.syncs += 1
        if self._refuses(self.syncs, self._sync):
            raise OSError(self._number, os.strerror(self._number))
        super().sync(fd, what)


class UnreadableDisk(Disk):
    """Refuses to read some files. File modes cannot do that here: tests may run as root."""

    def __init__(self, refuses: Callable[[Path], bool], number: int = errno.EACCES) -> None:
        self.refuses = refuses
        self._number = number

    def read(self, path: Path, limit: int = 1 << 28) -> bytes:
        if self.refuses(path):
            raise OSError(self._number, os.strerror(self._number), str(path))
        return super().read(path, limit)


def _common(a: bytes, b: bytes) -> int:
    """How many bytes two files begin with in common."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class _File:
    """One file's bytes: those that a sync made safe, and those that are there now."""

    def __init__(self, fd: int) -> None:
        self._fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)  # kept open: no other file gets this inode
        self.safe = b""

    def now(self) -> bytes:
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

    def close(self) -> None:
        os.close(self._fd)

    def after_power_loss(self, random: Random) -> bytes:
        """Un-synced bytes survive as any prefix, as zeros, or not at all."""
        now = self.now()
        if random.random() < 0.3 or now == self.safe:
            return random.choice((self.safe, now))
        kept = _common(self.safe, now)
        cut = random.randint(kept, len(now))
        zeros = random.choice((0, len(now) - cut, random.randint(0, 64)))
        return now[:cut] + bytes(zeros)


class PowerDisk(Disk):
    """The machine's disk under `root`, which loses power before its n-th operation; counts from 1, 0 never.

    `after_power_loss` builds what such a machine may find when it comes up again: un-synced bytes as above, un-synced
    names (new, replaced or removed) as before or as after, each by itself.
    """

    def __init__(self, root: Path, *, power_off_at: int = 0) -> None:
        self.root = root
        self.operations = 0
        self._power_off_at = power_off_at
        self._files: dict[int, _File] = {}
        self._safe_names: dict[Path, dict[str, int]] = {}
        self._names_since: dict[Path, dict[str, list[int | None]]] = {}

    def start_up(self) -> None:
        """All that is there by now survived the last power loss; operations count from here."""
        for directory in [self.root, *(p for p in self.root.rglob("*") if p.is_dir())]:
            self._safe_names[directory] = self._names(directory)
            for name in self._safe_names[directory]:
                fd = os.open(directory / name, os.O_RDONLY)
                file = self._file(fd)
                file.safe = file.now()
                os.close(fd)
        self._names_since.clear()
        self.operations = 0

    def _step(self) -> None:
        self.operations += 1
        if self.operations == self._power_off_at:
            raise PowerLoss

    def _file(self, fd: int) -> _File:
        inode = os.fstat(fd).st_ino
        if inode not in self._files:
            self._files[inode] = _File(fd)
        return self._files[inode]

    # --- the operations that a machine can lose ---

    def append(self, fd: int, data: bytes) -> None:
        self._file(fd)
        self._step()
        super().append(fd, data)

    def sync(self, fd: int, what: str) -> None:
        self._step()
        file = self._file(fd)
        now = file.now()  # what others append meanwhile is not safe yet
        super().sync(fd, what)
        file.safe = now

    def truncate(self, fd: int, length: int) -> None:
        self._step()
        file = self._file(fd)
        if not file.safe and os.fstat(fd).st_size:
            file.safe = file.now()  # it was there before this disk was
        super().truncate(fd, length)

    def sync_dir(self, path: Path) -> None:
        self._step()
        super().sync_dir(path)
        self._safe_names[path] = self._names(path)
        self._names_since.pop(path, None)

    def replace(
        self,
        path: Path,
        data: Content,
        what: str,
        *,
        durable: bool = True,
        spare: Path | None = None,
        last: Callable[[], bytes] | None = None,
    ) -> None:
        super().replace(path, data, what, durable=durable, spare=spare, last=last)
        self._note(path)

    def remove(self, path: Path) -> None:
        self._step()
        self._note(path)
        super().remove(path)
        self._note(path)

    def _names(self, directory: Path) -> dict[str, int]:
        with os.scandir(directory) as found:
            return {entry.name: entry.inode() for entry in found if entry.is_file() and not is_temporary(entry.name)}

    def _note(self, path: Path) -> None:
        inode = path.stat().st_ino if path.exists() else None
        self._names_since.setdefault(path.parent, {}).setdefault(path.name, []).append(inode)

    # --- what is found afterwards ---

    def after_power_loss(self, target: Path, random: Random) -> Path:
        """Make a directory as the machine may find it. The operations since count as neither done nor undone."""
        for directory in [self.root, *(p for p in self.root.rglob("*") if p.is_dir())]:
            place = target / directory.relative_to(self.root)
            place.mkdir(parents=True, exist_ok=True)
            safe, now = self._safe_names.get(directory, {}), self._names(directory)
            since = self._names_since.get(directory, {})
            by_inode = {inode: directory / name for name, inode in now.items()}
            for name in sorted(safe.keys() | now.keys()):
                states = [safe.get(name), *since.get(name, ()), now.get(name)]
                inode = random.choice(states)
                if inode in self._files:
                    (place / name).write_bytes(self._files[inode].after_power_loss(random))
                elif inode is not None and inode in by_inode:
                    (place / name).write_bytes(by_inode[inode].read_bytes())
        return target

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
