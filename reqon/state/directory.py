"""The state directory: every path and every lock in it, in one place (spec/state.md 1, spec/reliability.md 2)."""

import logging
import os
import pwd
import re
import secrets
import socket
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

from reqon.clock import SYSTEM, Clock
from reqon.errors import StateError
from reqon.files import DISK, DamagedFileError, FileSystem, Lock, copy_file, is_temporary, locked, make_directory
from reqon.state.ids import is_execution_id

DEFAULT_STATE_DIRECTORY = ".vague-data"
_LONGEST_NAME = 120
_LEFTOVER_SECONDS = 3600.0
_PROBE = b"\0" * 4096
_PLACE = re.compile(r"[0-9a-f]{8}")

log = logging.getLogger("reqon")


def safe_name(name: str) -> str:
    """A mission's or store's name as a file name: letters, digits, `._-` stay, the rest is `%XX`; long ones are cut.

    Names that differ stay different, but for their case: see `StateDirectory.file_for`.
    """
    safe = quote(name, safe="").replace("~", "%7E")
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    if len(safe) > _LONGEST_NAME:
        safe = f"{safe[:_LONGEST_NAME]}~{crc32(name.encode()):08x}"
    return safe


# What brings a directory of each earlier layout forward, the first from 1 to 2. Never changed once released; after a
# kill each is begun again.
UPGRADES: "tuple[Callable[[StateDirectory], None], ...]" = ()


class LeaseLostError(StateError):
    """Another machine runs the mission now: this run's lease ran out. Nothing of it is written any more."""

    slug = "lease-lost"


class StateWriteError(StateError):
    """State could not be written in mid-run: no space, a broken disk. The run ends failed, and can be resumed."""

    slug = "state-write"


class StateDirectory:
    """One state directory. Making this object touches nothing; `open` makes and checks the directory for writing.

    Attributes:
        disk: what writes its files.
        quarantined: how many files were set aside since the start, by kind (`record`, `journal`, …).
        write_errors: how many writes of state failed since the start.
        warn: told one sentence for what a person should know; the log by default.
    """

    def __init__(
        self,
        path: Path | str = DEFAULT_STATE_DIRECTORY,
        *,
        disk: FileSystem = DISK,
        clock: Clock = SYSTEM,
        warn: Callable[[str], None] | None = None,
        upgrades: "tuple[Callable[[StateDirectory], None], ...]" = UPGRADES,
    ) -> None:
        self.path = Path(path)
        self._upgrades = upgrades
        self.disk = disk
        self.clock = clock
        self.quarantined: Counter[str] = Counter()
        self.write_errors = 0
        self.warn: Callable[[str], None] = warn or log.warning
        self._warned: set[str] = set()
        self._place = ""

    # --- what is where ---

    @property
    def executions(self) -> Path:
        return self.path / "execution"

    @property
    def stores(self) -> Path:
        return self.path / "stores"

    @property
    def schedule(self) -> Path:
        return self.path / "schedule"

    @property
    def alerts(self) -> Path:
        return self.path / "alerts"

    @property
    def webhooks(self) -> Path:
        return self.path / "webhooks"

    @property
    def oas_cache(self) -> Path:
        return self.path / "oas-cache"

    @property
    def mcp(self) -> Path:
        return self.path / "mcp"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    @property
    def quarantine_directory(self) -> Path:
        return self.path / "quarantine"

    @property
    def sync_checkpoints(self) -> Path:
        return self.path / "sync-checkpoints.json"

    @property
    def state_stores(self) -> Path:
        return self.path / "state-stores.json"

    @property
    def tokens(self) -> Path:
        return self.path / "tokens.json"

    @property
    def rate_limits(self) -> Path:
        return self.path / "rate-limits.json"

    @property
    def database(self) -> Path:
        return self.path / "state.db"

    @property
    def daemon_socket(self) -> Path:
        return self.path / "daemon.sock"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log_files(self, execution_id: str) -> tuple[Path, Path]:
        """Where the log lines of an execution lie: the older ones, the newer ones; either may not be there."""
        return self.logs / f"{execution_id}.1.log", self.logs / f"{execution_id}.log"

    def log_bytes(self, execution_id: str) -> int:
        """The size of an execution's log lines, as far as it can be seen."""
        total = 0
        for path in self.log_files(execution_id):
            with suppress(OSError):
                total += path.stat().st_size
        return total

    def remove_log(self, execution_id: str) -> None:
        """Remove an execution's log lines: they go with its record.

        Raises:
            StateWriteError: they cannot be removed.
        """
        for path in self.log_files(execution_id):
            try:
                with suppress(NotADirectoryError):
                    self.disk.remove(path)
            except OSError as error:
                raise self.write_error(path, error) from error

    @property
    def instance(self) -> str:
        """Who works here, for other machines: the host, and a word of this directory's own once it was `named`.

        Within one directory locks say who lives; between directories that share a state store, leases do.
        """
        if not self._place:
            with suppress(OSError, DamagedFileError):
                found = self.disk.read(self.path / ".place", 64).decode("ascii", "replace").strip()
                self._place = found if _PLACE.fullmatch(found) else ""
        return f"{socket.gethostname()}-{self._place}" if self._place else socket.gethostname()

    def named(self) -> str:
        """The `instance`, with a word of its own for good: two machines may have one host name.

        Raises:
            StateWriteError: the word cannot be kept.
        """
        if self.instance == socket.gethostname():
            path = self.path / ".place"
            try:
                # Whoever was quicker has named it.
                self.disk.create(path, secrets.token_hex(4).encode() + b"\n", "place")
            except OSError as error:
                raise self.write_error(path, error) from error
        return self.instance

    def dead_letters(self, mission: str) -> Path:
        return self.file_for(self.path / "dead-letter", mission, ".json")

    def file_for(self, directory: Path, name: str, suffix: str) -> Path:
        """The file that belongs to a name: `<name><suffix>`.

        A name that differs from an older one by case only gets a mark: some file systems would give both one file.
        """
        wanted = safe_name(name) + suffix
        for present in self.disk.list(directory):
            if present != wanted and present.casefold() == wanted.casefold():
                return directory / f"{safe_name(name)}~{crc32(name.encode()):08x}{suffix}"
        return directory / wanted

    # --- locks, always taken in this order: daemon, mission, execution, stores by name, shared files ---

    @property
    def daemon_lock(self) -> Lock:
        """Held by the one daemon of this directory."""
        return Lock(self.path / "daemon.lock")

    def mission_lock(self, mission: str) -> Lock:
        """Held by the one process that runs this mission."""
        name = safe_name(mission)
        if name != name.lower():
            name = f"{name}~{crc32(mission.encode()):08x}"
        return self._lock(self.locks / f"mission-{name}.lock")

    def execution_lock(self, execution_id: str) -> Lock:
        """Held as long as the execution runs; free means that its owner is dead."""
        return self._lock(self.execution_lock_path(execution_id))

    def execution_lock_path(self, execution_id: str) -> Path:
        """Where it is; for asking whether it is free.

        Raises:
            StateError: the id cannot be one.
        """
        if not is_execution_id(execution_id):
            raise StateError(f"{execution_id!r} is no execution id", code="bad-execution-id")
        return self.locks / f"execution-{execution_id}.lock"

    def shared_lock(self, path: Path, *, wait_seconds: float = 30.0) -> AbstractContextManager[None]:
        """Hold around reading, changing and writing a shared file: `tokens.lock` for `tokens.json`.

        Raises:
            LockTakenError: somebody held it for longer than `wait_seconds`.
        """
        return locked(path.with_suffix(".lock"), wait_seconds=wait_seconds)

    def _lock(self, path: Path) -> Lock:
        make_directory(path.parent)
        return Lock(path)

    # --- life ---

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    def open(self) -> "StateDirectory":
        """Make the directory if need be, and make sure that it can be written, locked and is ours.

        Raises:
            StateError: it cannot be used; one line with its path, the reason and the effective user.
        """
        try:
            self._make()
            self._check_owner()
            self._check_format()  # before anything is made in there: one of a newer release stays untouched
            self._make_rooms()
            self._check_writing()
        except OSError as error:
            raise self.unusable(error) from error
        self._sweep()
        return self

    def _make(self) -> None:
        fresh = not self.path.exists()
        make_directory(self.path)
        if fresh:
            self.disk.replace(self.path / ".gitignore", b"*\n", "gitignore")
            self.disk.sync_dir(self.path.parent)

    def _make_rooms(self) -> None:
        fresh = False
        for inner in (self.executions, self.stores, self.locks):
            if not inner.is_dir():
                make_directory(inner)
                fresh = True
        if fresh:
            self.disk.sync_dir(self.path)

    def _check_owner(self) -> None:
        found = self.path.stat()
        if os.geteuid() not in (0, found.st_uid) and found.st_uid != 0:
            raise self._unusable(f"it belongs to {_user(found.st_uid)}")
        if stat.S_IMODE(found.st_mode) & 0o077:
            self.warn_once(
                f"{self.path} can be read by other users (mode {stat.S_IMODE(found.st_mode):o}); "
                f"it holds business data: chmod 700 {self.path}"
            )

    def _check_format(self) -> None:
        path = self.path / ".format"
        try:
            text = self.disk.read(path, 64).decode("ascii", "replace").strip()
        except FileNotFoundError:
            self._say_format(self.format)  # every release writes it: there is nothing to bring forward
            return
        except DamagedFileError:
            text = ""
        if not text.isdigit():
            if self.quarantine(path, "is no format number", kind="format") is None and os.path.lexists(path):
                raise self._unusable(f"{path} is no format number")
            self._say_format(self.format)
        elif int(text) > self.format:
            raise self._unusable(
                f"a newer Reqon wrote it (format {text}, this one knows {self.format}); nothing was changed"
            )
        else:
            for number in range(int(text), self.format):
                self._upgrades[number - 1](self)
                self._say_format(number + 1)

    @property
    def format(self) -> int:
        """The layout that this release writes."""
        return 1 + len(self._upgrades)

    def _say_format(self, number: int) -> None:
        self.disk.replace(self.path / ".format", b"%d\n" % number, "format")

    def _check_writing(self) -> None:
        probe = self.path / ".probe"
        self.disk.replace(probe, _PROBE, "probe")
        self.disk.remove(probe)
        lock = self._lock(self.locks / "probe.lock")
        try:
            lock.take()  # taken by another start-up is fine: then there are locks
        finally:
            lock.release()

    def _sweep(self) -> None:
        """Remove what killed processes left half written, an hour later."""
        before = self.clock.now().timestamp() - _LEFTOVER_SECONDS
        for directory in (self.path, self.executions, self.stores):
            for name in self.names(directory):
                if is_temporary(name):
                    with suppress(OSError):
                        if (directory / name).lstat().st_mtime < before:
                            self.disk.remove(directory / name)

    def names(self, folder: Path) -> list[str]:
        """What is in one of its folders, sorted; nothing where there is no such folder.

        Raises:
            StateError: it cannot be read; one line as from `open`.
        """
        try:
            return self.disk.list(folder)
        except OSError as error:
            raise self.unusable(error) from error

    def unusable(self, error: OSError) -> StateError:
        """The error to raise for what the system says about the directory or something in it."""
        if isinstance(error, FileExistsError | NotADirectoryError):
            path = self.path if self.path.is_file() else error.filename
            return self._unusable(f"{path} is a file, not a directory")
        what = error.strerror or str(error)
        inside = error.filename is not None and Path(error.filename) != self.path
        return self._unusable(f"{error.filename}: {what}" if inside else what)

    def _unusable(self, reason: str) -> StateError:
        return StateError(
            f"state directory {self.path} cannot be used: {reason} (effective user {_user(os.geteuid())})",
            hint="choose another one with --state-dir or REQON_STATE_DIR, or mend this one",
        )

    # --- what cannot be written or read ---

    def write_error(self, path: Path, error: OSError) -> StateWriteError:
        """The error to raise for a failed write; counts it."""
        self.write_errors += 1
        return StateWriteError(f"cannot write {path}: {error.strerror or error}")

    def quarantine(self, path: Path, reason: str, *, kind: str, copy: bool = False) -> Path | None:
        """Set a file aside that cannot be read, never deleting it; with `copy` the original stays too.

        Counts it and warns. Answers its new place, None if it could not be moved (it stays where it is then).
        """
        stamp = self.clock.now().strftime("%Y%m%dT%H%M%SZ")
        place = self.quarantine_directory / f"{stamp}-{path.name.lstrip('.')}"
        try:
            make_directory(self.quarantine_directory)
            number = 1
            while os.path.lexists(place):
                number += 1
                place = self.quarantine_directory / f"{stamp}-{number}-{path.name.lstrip('.')}"
            if copy:
                copy_file(path, place)
            else:
                path.rename(place)
                self.disk.sync_dir(path.parent)
            self.disk.sync_dir(self.quarantine_directory)
        except FileNotFoundError:
            return None  # another process was quicker
        except (OSError, StateError) as error:
            why = error.strerror if isinstance(error, OSError) else error.message
            self.warn_once(f"{path} {reason}; it could not be moved to quarantine ({why})")
            return None
        self.quarantined[kind] += 1
        self.warn_once(f"{path} {reason}; {'a copy is' if copy else 'it was moved to'} {place}")
        return place

    def warn_once(self, sentence: str) -> None:
        """Warn of something that stays as it is: once for this object's life."""
        if sentence not in self._warned:
            self._warned.add(sentence)
            self.warn(sentence)


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name}, uid {uid}"
    except KeyError:
        return f"uid {uid}"
