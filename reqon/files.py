"""Files: every byte of state goes through here, and nothing else syncs (spec/reliability.md 1).

Eight operations behind a protocol, so that tests can put a disk that loses power in their place; failpoints before and
after each sync and replace; advisory locks; and `Log`, the checksummed line log of journals and stores.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from threading import Lock as ThreadLock
from typing import Protocol
from zlib import crc32

from reqon.clock import SYSTEM, wait_blocking
from reqon.errors import StateError

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
READ_LIMIT = 256 * 1024 * 1024
RECORD_READ_LIMIT = 64 * 1024 * 1024
_PIECE_BYTES = 1 << 20


class DamagedFileError(StateError):
    """A state file is there but cannot be what it should be: too large, not a regular file, cut, not its checksum."""

    slug = "bad-state"


class LockTakenError(StateError):
    """Somebody else holds the lock."""

    slug = "locked"


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


# A file's new bytes; or what yields them in pieces, called again if they must be written a second time.
Content = bytes | Callable[[], Iterable[bytes]]


# --- the eight operations --------------------------------------------------------------------------------------------


class FileSystem(Protocol):
    """What a disk must be able to do. All blocking; paths absolute or relative to the process."""

    def append(self, fd: int, data: bytes) -> None:
        """Write all of `data` at the end of an `O_APPEND` descriptor, in one write where the system allows it.

        Raises:
            OSError: nothing of `data` counts; the caller truncates to the last good length.
        """

    def sync(self, fd: int, what: str) -> None:
        """Return when the file's bytes survive a power loss. `what` names the failpoints, as in `before-store-sync`."""

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
        """Put `data` in the place of the file at once: readers see the old content or the new one.

        Durable on return. With `durable=False` it survives a SIGKILL only, and a power loss may leave rubbish under the
        name: then keep the last durable content under a second name, `spare`, which a durable call writes along.

        `last` is asked, once all of `data` is safe, for what is to follow it: that much is not synced.

        Raises:
            OSError: the old content stands.
        """

    def create(self, path: Path, data: bytes, what: str, *, spare: Path | None = None) -> bool:
        """Make a file that nobody else made, its content there at once and durable; False if the name is taken."""

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
        written = os.write(fd, data)
        if written != len(data):  # a disk that fills up, or above 2 GiB
            view = memoryview(data)
            while view := view[written:]:
                written = os.write(fd, view)

    def sync(self, fd: int, what: str) -> None:
        failpoint(f"before-{what}-sync")
        os.fdatasync(fd)
        failpoint(f"after-{what}-sync")

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
        temporary = self._temporary(path, data, what, durable=durable)
        try:
            if last is not None:
                self._add_to(temporary, last())
            failpoint(f"before-{what}-replace")
            if spare is not None:
                # First the spare: while it is changed, the other name still has what was there.
                self._second_name(temporary, spare, data, what)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        if durable:
            self.sync_dir(path.parent)
        failpoint(f"after-{what}-replace")

    def create(self, path: Path, data: bytes, what: str, *, spare: Path | None = None) -> bool:
        temporary = self._temporary(path, data, what, durable=True)
        try:
            failpoint(f"before-{what}-replace")
            if not self._claim(temporary, path):
                return False
            if spare is not None:
                self._second_name(path, spare, data, what)
        finally:
            with suppress(OSError):
                os.unlink(temporary)
        self.sync_dir(path.parent)
        failpoint(f"after-{what}-replace")
        return True

    def _temporary(self, path: Path, data: Content, what: str, *, durable: bool) -> Path:
        """Write `data` to a new file beside `path`."""
        for again in (True, False):
            temporary = temporary_beside(path)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
            try:
                for piece in (data,) if isinstance(data, bytes) else data():
                    self.append(fd, piece)
                if durable:
                    try:
                        self.sync(fd, what)
                    except OSError:
                        if not again:
                            raise
                        # What a failed sync leaves counts as lost, and a second sync of it would lie: a new file.
                        os.unlink(temporary)
                        continue
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
            else:
                return temporary
            finally:
                os.close(fd)
        raise AssertionError("unreachable")

    def _add_to(self, temporary: Path, data: bytes) -> None:
        fd = open_regular(temporary, os.O_WRONLY | os.O_APPEND)
        try:
            if data:
                self.append(fd, data)
        finally:
            os.close(fd)

    def _second_name(self, written: Path, name: Path, data: Content, what: str) -> None:
        link = temporary_beside(name)
        try:
            os.link(written, link)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
                raise
            link = self._temporary(name, data, what, durable=True)  # a file system without hard links
        os.replace(link, name)

    def _claim(self, written: Path, path: Path) -> bool:
        try:
            os.link(written, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
                raise
            if not create_exclusive(path):
                return False
            os.replace(written, path)
        return True

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


def read_at(fd: int, offset: int, length: int) -> bytes:
    """So many bytes of an open file; fewer at its end."""
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def make_directory(path: Path) -> None:
    """Make a directory and its parents, 0700; one that was there keeps its mode."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.mkdir(path, DIRECTORY_MODE)
        except FileExistsError:
            if not path.is_dir():  # else another process was quicker
                raise


def temporary_beside(path: Path) -> Path:
    """A name in the same directory that nobody else has; see `is_temporary`."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file name is one that a killed process may have left behind half written."""
    return name.startswith(".") and name.endswith(".tmp")


def create_exclusive(path: Path) -> bool:
    """Make an empty file that nobody else made; False if the name is taken."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    except FileExistsError:
        return False
    return True


def copy_file(path: Path, target: Path) -> None:
    """Copy a regular file to a name that nobody has, whatever its size; durable on return."""
    source = open_regular(path, os.O_RDONLY)
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            while part := os.read(source, 1 << 20):
                DISK.append(fd, part)
            os.fsync(fd)
        finally:
            os.close(fd)
    finally:
        os.close(source)


def append_lines(path: Path, lines: bytes) -> int:
    """Add lines for people to a file, made if need be, with its directory; its size then. They survive SIGKILL only.

    Raises:
        OSError: they may be there in part: the next lines begin on a line of their own all the same.
    """
    make_directory(path.parent)
    try:
        fd = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    except DamagedFileError as error:
        raise OSError(errno.EINVAL, "it is no regular file", str(path)) from error
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        DISK.append(fd, lines)
        return size + len(lines)
    finally:
        os.close(fd)


def replace_older(path: Path, older: Path) -> None:
    """Put a file in the place of an older one that may go."""
    os.replace(path, older)


def write_report(path: Path, data: bytes) -> None:
    """Write a file that a person asked for (an export, a dry run's output), at once, with the user's own mode."""
    temporary = temporary_beside(path)
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

    @property
    def stands(self) -> bool:
        """Whether it is held and keeps others away: not where its file was removed, or another put in its place."""
        if self._fd is None:
            return False
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._fd), os.stat(self.path, follow_symlinks=False))
        return False

    def take(self, *, note: str = "") -> bool:
        """Take it without waiting; False if somebody else has it.

        Raises:
            StateError: the file system has no flock, or the file cannot be opened or written.
        """
        if self._fd is not None:
            return True
        try:
            fd = open_regular(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StateError(f"cannot open the lock {self.path}: {error.strerror}") from error
        try:
            taken = _flock(fd)
        except OSError as error:
            os.close(fd)
            raise StateError(f"{self.path}: this file system has no locks ({error.strerror})") from error
        if not taken:
            os.close(fd)
            return False
        try:
            if note:
                os.ftruncate(fd, 0)
                os.pwrite(fd, note.encode(), 0)
        except OSError as error:
            os.close(fd)
            raise StateError(f"cannot write the lock {self.path}: {error.strerror}") from error
        self._fd = fd
        return True

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def remove(self) -> None:
        """Remove the file and release: only where nobody will ever want this lock again."""
        if self._fd is not None:
            with suppress(OSError):
                os.unlink(self.path)
            self.release()

    def note(self) -> str:
        """What the holder, or the last one, left."""
        try:
            return DISK.read(self.path, 4096).decode(errors="replace").strip()
        except (OSError, StateError):
            return ""


_GLANCES_SECONDS = (0.0005, 0.002)


def _flock(fd: int) -> bool:
    # Whoever asks `lock_is_free` holds it for a few microseconds: look again before saying no.
    for pause in (*_GLANCES_SECONDS, 0.0):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            if pause:
                wait_blocking(pause)
        else:
            return True
    return False


def lock_is_free(path: Path) -> bool:
    """Whether nobody holds the lock now; a file that isn't there is free. Leaves no trace."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # nobody can tell, so nobody may take its owner for dead
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
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


SEAL_LENGTH = 10  # what `seal` adds


def seal(line: bytes) -> bytes:
    """A line with its TAB, checksum and line break. `line` holds neither TAB-and-checksum nor a line break."""
    return b"%b\t%08x\n" % (line, crc32(line))


class Log:
    """An append-only file of checksummed lines.

    `append` buffers nothing: the bytes survive a SIGKILL when it returns. `sync` makes them survive a power loss. A cut
    last line is dropped on open; a bad line before good ones is damage, and `open` says so after what it could read.

    One thread may append while another syncs; whoever syncs waits for a sync that is under way.

    Attributes:
        size: the good length; all of the file once it is open.
    """

    def __init__(self, path: Path, *, what: str, disk: FileSystem = DISK) -> None:
        self.path = path
        self.size = 0
        self._what = what
        self._disk = disk
        self._fd: int | None = None
        self._read = False  # `size` is known to be the end of the good lines
        self._dirty = False
        self._new = False  # its name does not survive a power loss yet
        self._torn = False  # half a line stands behind `size`
        self._broken = False  # a sync failed and the content could not be brought to safety
        self._syncing = ThreadLock()  # taken before `_writing`: a sync holds up no writer
        self._writing = ThreadLock()

    @property
    def is_open(self) -> bool:
        return self._fd is not None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The good lines with their offsets, without checksum, up to the first bad one; `size` ends behind them.

        Raises:
            DamagedFileError: after the last good line, when good lines follow a bad one; `size` is the good length.
        """
        end = 0
        try:
            fd = open_regular(self.path, os.O_RDONLY)
        except FileNotFoundError:
            self._end_at(0, whole=True)
            return
        self._end_at(0, whole=False)
        with open(fd, "rb", buffering=1 << 20) as stream:
            for line in stream:
                content = unseal(line)
                if content is None:
                    if any(unseal(rest) is not None for rest in stream):
                        raise DamagedFileError(f"{self.path} is damaged at byte {end}")
                    break
                offset, end = end, end + len(line)
                self._end_at(end, whole=False)
                yield offset, content
        self._end_at(end, whole=True)

    def _end_at(self, size: int, *, whole: bool) -> None:
        if self._fd is None:  # an open log knows better
            self.size, self._read = size, whole

    def open(self, *, forget_tail: bool = False) -> None:
        """Open for appending behind the good lines, made if need be. Reads them unless `lines` was read to its end.

        Raises:
            DamagedFileError: see `lines`; copy the file to quarantine, then call `open` again with `forget_tail`.
        """
        if self._fd is None:
            if not self._read:
                try:
                    for _ in self.lines():
                        pass
                except DamagedFileError:
                    if not (forget_tail and self.path.is_file()):
                        raise
            self.open_at(self.size)

    def open_at(self, size: int) -> None:
        """Open for appending with all behind `size` cut off."""
        try:
            fd = open_regular(self.path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            fd = open_regular(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self._new = True
        try:
            self._cut(fd, size)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self.size, self._read = fd, size, True

    def _cut(self, fd: int, size: int) -> None:
        found = os.fstat(fd).st_size
        if found < size:
            raise DamagedFileError(f"{self.path} has {found} bytes, {size} were read before")
        if found > size:
            self._disk.truncate(fd, size)
            self._dirty = True

    def append(self, lines: bytes) -> int:
        """Add sealed lines in one write; the offset at which they begin.

        Raises:
            OSError: they are not in the log; what was half written is cut off.
        """
        with self._writing:
            if self._fd is None:
                self.open()
            assert self._fd is not None
            self._refuse_if_broken()
            if self._torn:
                self._disk.truncate(self._fd, self.size)
                self._torn = False
            offset = self.size
            try:
                self._disk.append(self._fd, lines)
            except BaseException:
                self._torn = True
                with suppress(OSError):
                    self._disk.truncate(self._fd, offset)
                    self._torn = False
                raise
            self.size += len(lines)
            self._dirty = True
            return offset

    def sync(self) -> None:
        """Return when all that was appended survives a power loss.

        Raises:
            OSError: it may not; nothing can be appended any more.
        """
        with self._syncing:
            if self._fd is None or not (self._dirty or self._new):
                return
            self._refuse_if_broken()
            self._dirty = False  # what another thread appends from here on makes it dirty again
            try:
                self._disk.sync(self._fd, self._what)
            except OSError:
                # What a failed sync leaves counts as lost, and a second one would lie: write it all to a new file.
                with self._writing:
                    self._dirty = self._broken = True
                    self._rewrite()
                    self._dirty = self._broken = False
            if self._new:
                self._disk.sync_dir(self.path.parent)
                self._new = False

    def _refuse_if_broken(self) -> None:
        if self._broken:
            reason = f"{os.strerror(errno.EIO)} (an earlier sync of this file failed)"
            raise OSError(errno.EIO, reason, str(self.path))

    def _rewrite(self) -> None:
        if self.size > READ_LIMIT:
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} (a sync failed)", str(self.path))
        content = self.read_at(0, self.size)
        if len(content) != self.size or any(unseal(line) is None for line in BytesIO(content)):
            reason = f"{os.strerror(errno.EIO)} (a sync failed, and what was written is lost)"
            raise OSError(errno.EIO, reason, str(self.path))
        self._disk.replace(self.path, content, self._what)
        self._go_on_at(self.size)

    def cut_out(self, kept: Sequence[tuple[int, int]], *, upto: int, done: Callable[[], None]) -> None:
        """Of the first `upto` bytes keep these parts only, and all that follows; durable on return.

        Others append meanwhile, but not while `done` is called, when the places of the parts have just changed.

        Raises:
            OSError: the file is as it was.
        """

        def parts() -> Iterator[bytes]:
            for begin, end in kept:
                for at in range(begin, end, _PIECE_BYTES):
                    yield self.read_at(at, min(end - at, _PIECE_BYTES))

        def rest() -> bytes:
            held.enter_context(self._writing)
            return self.read_at(upto, self.size - upto)

        with self._syncing, ExitStack() as held:
            self._refuse_if_broken()
            try:
                self._disk.replace(self.path, parts, self._what, last=rest)
            except OSError:
                # Did the new file get its name, only that is not safe yet, then nobody may go on in the old one.
                self._broken = self._is_another_file()
                raise
            self._go_on_at(self.size - upto + sum(end - begin for begin, end in kept))
            self._dirty, self._new = True, False  # what followed is not synced
            done()

    def _is_another_file(self) -> bool:
        assert self._fd is not None
        try:
            return self.path.stat().st_ino != os.fstat(self._fd).st_ino
        except OSError:
            return True

    def _go_on_at(self, size: int) -> None:
        """The name has been given to a new file of this size: go on there. Never without an open file in between."""
        try:
            fd = open_regular(self.path, os.O_RDWR | os.O_APPEND)
        except OSError:
            self._broken = True
            raise
        old, self._fd, self.size = self._fd, fd, size
        if old is not None:
            os.close(old)

    @property
    def writing(self) -> AbstractContextManager[bool]:
        """Held while lines are appended, or change their places."""
        return self._writing

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the file, as appended."""
        if self._fd is None:
            self.open()
        assert self._fd is not None
        return read_at(self._fd, offset, length)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def unseal(line: bytes) -> bytes | None:
    """The content of a line as read, its line break included; None if it is cut or its checksum is wrong."""
    if len(line) < 10 or line[-1:] != b"\n" or line[-10:-9] != b"\t":
        return None
    content = line[:-10]
    return content if b"%08x" % crc32(content) == line[-9:-1] else None
