"""Files: every byte of state goes through here, and nothing else syncs (spec/reliability.md 1).

Eight operations behind a protocol, so that tests can put a disk that loses power in their place; failpoints before and
after each sync and replace; advisory locks; and `Log`, the checksummed line log of journals and stores.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from zlib import crc32

from reqon.clock import SYSTEM, wait_blocking
from reqon.errors import StateError

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
READ_LIMIT = 256 * 1024 * 1024
RECORD_READ_LIMIT = 64 * 1024 * 1024


class DamagedFileError(StateError):
    """A state file is there but cannot be what it should be: too large, not a regular file, cut, not its checksum."""

    code = "bad-state"


class LockTakenError(StateError):
    """Somebody else holds the lock."""

    code = "locked"


# --- failpoints ------------------------------------------------------------------------------------------------------

Failpoint = Callable[[str], None]
_failpoints: dict[str, Failpoint] = {}


def arm(name: str, action: Failpoint | None) -> None:
    """Tests only: call `action` whenever the code passes the failpoint; None disarms it. `*` hears every one."""
    if action is None:
        _failpoints.pop(name, None)
    else:
        _failpoints[name] = action


def failpoint(name: str) -> None:
    """Pass a named place. Costs a dictionary look-up when nothing is armed."""
    if _failpoints:
        for key in (name, "*"):
            if action := _failpoints.get(key):
                action(name)


# --- the eight operations --------------------------------------------------------------------------------------------


class FileSystem(Protocol):
    """What a disk must be able to do. All blocking; paths absolute or relative to the process."""

    def append(self, fd: int, data: bytes) -> None:
        """Write all of `data` at the end of an `O_APPEND` descriptor, in one write where the system allows it.

        Raises:
            OSError: nothing of `data` counts; the caller truncates to the last good length.
        """

    def sync(self, fd: int, what: str) -> None:
        """Return when the file's bytes survive a power loss. `what` names the failpoints `before-/after-<what>-sync`."""

    def replace(self, path: Path, data: bytes, what: str) -> None:
        """Put `data` in the place of the file at once: readers see the old content or the new one. Durable on return."""

    def sync_dir(self, path: Path) -> None:
        """Return when the directory's entries survive a power loss."""

    def truncate(self, fd: int, length: int) -> None: ...

    def read(self, path: Path, limit: int = READ_LIMIT) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: it isn't there.
            DamagedFileError: a link, a device, a directory, or above `limit` bytes.
            OSError: it cannot be read; never to be taken for "not there".
        """

    def list(self, directory: Path) -> list[str]:
        """The names in it, sorted; empty if the directory isn't there."""

    def remove(self, path: Path) -> None:
        """Remove a file; fine if it isn't there."""


class Disk:
    """The machine's own file system."""

    __slots__ = ()

    def append(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def sync(self, fd: int, what: str) -> None:
        failpoint(f"before-{what}-sync")
        os.fdatasync(fd)
        failpoint(f"after-{what}-sync")

    def replace(self, path: Path, data: bytes, what: str) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            try:
                self.append(fd, data)
                self.sync(fd, what)
            finally:
                os.close(fd)
            failpoint(f"before-{what}-replace")
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self.sync_dir(path.parent)
        failpoint(f"after-{what}-replace")

    def sync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def read(self, path: Path, limit: int = READ_LIMIT) -> bytes:
        fd = open_regular(path, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            if size > limit:
                raise DamagedFileError(f"{path} has {size} bytes, the limit is {limit}")
            parts = []
            while part := os.read(fd, 1 << 20):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def list(self, directory: Path) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []

    def remove(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)


DISK: FileSystem = Disk()


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file, never through a link, never waiting for a pipe's other end.

    Raises:
        FileNotFoundError: it isn't there (and `flags` don't create it).
        DamagedFileError: something else than a regular file stands there.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise DamagedFileError(f"{path} is not a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise DamagedFileError(f"{path} is not a regular file")
    return fd


def make_directory(path: Path) -> None:
    """Make a directory and its parents, 0700; one that was there keeps its mode."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, DIRECTORY_MODE)


def create_exclusive(path: Path) -> bool:
    """Make an empty file that nobody else made; False if the name is taken."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    except FileExistsError:
        return False
    return True


def write_report(path: Path, data: bytes) -> None:
    """Write a file that a person asked for (an export, a dry run's output), at once, with the user's own mode."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


# --- locks -----------------------------------------------------------------------------------------------------------


class Lock:
    """An flock on a file that is never unlinked; the kernel frees it with its process.

    The holder may leave a text in the file (`note`), for people; it says nothing about whether the lock is held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def take(self, *, note: str = "") -> bool:
        """Take it without waiting; False if somebody else has it.

        Raises:
            StateError: the file system has no flock, or the file cannot be opened.
        """
        if self._fd is not None:
            return True
        try:
            fd = open_regular(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StateError(f"cannot open the lock {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
                return False
            raise StateError(f"{self.path}: this file system has no locks ({error.strerror})") from error
        self._fd = fd
        if note:
            os.ftruncate(fd, 0)
            os.pwrite(fd, note.encode(), 0)
        return True

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def note(self) -> str:
        """What the holder, or the last one, left."""
        try:
            return DISK.read(self.path, 4096).decode(errors="replace").strip()
        except (OSError, StateError):
            return ""


def lock_is_free(path: Path) -> bool:
    """Whether nobody holds the lock now; a file that isn't there is free. Leaves no trace."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


@contextmanager
def locked(path: Path, *, wait_seconds: float = 30.0) -> Iterator[None]:
    """Hold a lock around a short read-modify-write; wait for it with small steps.

    Raises:
        LockTakenError: still taken after `wait_seconds`.
    """
    lock = Lock(path)
    deadline = SYSTEM.monotonic() + wait_seconds
    pause = 0.001
    while not lock.take():
        if SYSTEM.monotonic() >= deadline:
            raise LockTakenError(f"{path} is held by another process for more than {wait_seconds:.0f} s")
        wait_blocking(pause)
        pause = min(pause * 2, 0.05)
    try:
        yield
    finally:
        lock.release()


# --- checksummed line logs -------------------------------------------------------------------------------------------


def seal(line: bytes) -> bytes:
    """A line with its TAB, checksum and line break. `line` holds neither TAB-and-checksum nor a line break."""
    return b"%b\t%08x\n" % (line, crc32(line))


class Log:
    """An append-only file of checksummed lines.

    `append` buffers nothing: the bytes survive a SIGKILL when it returns. `sync` makes them survive a power loss. A cut
    last line is dropped on open; a bad line before good ones is damage, and `open` says so after what it could read.
    """

    def __init__(self, path: Path, *, what: str, disk: FileSystem = DISK) -> None:
        self.path = path
        self.size = 0
        self._what = what
        self._disk = disk
        self._fd: int | None = None
        self._dirty = False

    @property
    def is_open(self) -> bool:
        return self._fd is not None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The good lines with their offsets, without checksum, up to the first bad one; `size` ends behind them.

        Raises:
            DamagedFileError: after the last good line, when good lines follow a bad one. `size` is still the good length.
        """
        self.size = 0
        try:
            fd = open_regular(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return
        with open(fd, "rb", buffering=1 << 20) as stream:
            for line in stream:
                content = unseal(line)
                if content is None:
                    if any(unseal(rest) is not None for rest in stream):
                        raise DamagedFileError(f"{self.path} is damaged at byte {self.size}")
                    return
                offset = self.size
                self.size += len(line)
                yield offset, content

    def open(self) -> None:
        """Open for appending behind the good lines, made if need be. Reads them unless `lines` was read to its end.

        Raises:
            DamagedFileError: see `lines`; copy the file to quarantine, then call `open` again with `forget_tail`.
        """
        if self._fd is None:
            if not self.size:
                for _ in self.lines():
                    pass
            self.open_at(self.size)

    def open_at(self, size: int) -> None:
        """Open for appending with all behind `size` cut off."""
        fd = open_regular(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        if os.fstat(fd).st_size != size:
            self._disk.truncate(fd, size)
        self._fd, self.size = fd, size

    def append(self, lines: bytes) -> int:
        """Add sealed lines in one write; the offset at which they begin.

        Raises:
            OSError: they are not in the log; what was half written is cut off.
        """
        if self._fd is None:
            self.open()
        assert self._fd is not None
        offset = self.size
        try:
            self._disk.append(self._fd, lines)
        except OSError:
            with suppress(OSError):
                self._disk.truncate(self._fd, offset)
            raise
        self.size += len(lines)
        self._dirty = True
        return offset

    def sync(self) -> None:
        """Return when all that was appended survives a power loss. After an OSError the log is not to be trusted."""
        if self._fd is not None and self._dirty:
            self._disk.sync(self._fd, self._what)
            self._dirty = False

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the file, as appended."""
        if self._fd is None:
            self.open()
        assert self._fd is not None
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def unseal(line: bytes) -> bytes | None:
    """The content of a line as read, its line break included; None if it is cut or its checksum is wrong."""
    if len(line) < 10 or line[-1:] != b"\n" or line[-10:-9] != b"\t":
        return None
    content = line[:-10]
    try:
        return content if crc32(content) == int(line[-9:-1], 16) else None
    except ValueError:
        return None
