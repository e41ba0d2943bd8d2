"""What can be wrong with a state directory, looked at without touching anything: the findings of `reqon doctor`.

Nothing is written, moved, locked or brought forward, not even what a reader would set aside on its way.
"""

import os
import resource
import shutil
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from reqon.clock import rfc3339
from reqon.errors import ConfigurationError, ReqonError, StateError
from reqon.files import DamagedFileError, is_temporary, lock_is_free
from reqon.state.choice import STATE_URL, StateStores
from reqon.state.directory import StateDirectory
from reqon.state.postgres import LAYOUT as POSTGRES_LAYOUT
from reqon.state.postgres import PostgresBackend
from reqon.state.records import ExecutionRecord, ExecutionStatus, NewerRecordError, from_json
from reqon.state.sqlite import LAYOUT as SQLITE_LAYOUT
from reqon.values import JsonError, decode

OK, WARNING, ERROR = "ok", "warning", "error"
LOW_BYTES = 100 * 1024 * 1024
LOW_SHARE = 0.02
FEW_DESCRIPTORS = 1024
MOST_FILES = 20_000  # looked at one by one; a directory with more is looked at in part, and that is said
NEWEST_RECORDS = 1_000
_NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is (`ok`, `warning`, `error`), what is so, and what to do about it."""

    check: str
    level: str
    message: str
    hint: str | None = None

    def to_dict(self) -> dict[str, str]:
        known = {"check": self.check, "level": self.level, "message": self.message, "hint": self.hint}
        return {name: value for name, value in known.items() if value is not None}


def findings(stores: StateStores) -> Iterator[Finding]:
    """All that can be said of a state directory and of the stores that its missions use."""
    directory = stores.directory
    if not os.path.lexists(directory.path):
        yield _absent(directory)
    else:
        usable = list(_directory(directory))
        yield from usable
        if any(finding.level == ERROR for finding in usable):
            return
        for look in (_modes, _daemon, _records, _journals, _leftovers, _shared_files, _quarantine, _alerts):
            yield from look(directory)
        yield from _database(directory)
    yield from _disk(directory)
    yield from _postgres(stores)
    yield from _executions(stores)
    yield _descriptors()


def _absent(directory: StateDirectory) -> Finding:
    parent = directory.path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if os.access(parent, os.W_OK | os.X_OK):
        return Finding("state directory", OK, f"{directory.path} is not there yet; the first run makes it")
    hint = "choose another one with --state-dir or REQON_STATE_DIR"
    return Finding("state directory", ERROR, f"{directory.path} cannot be made: {parent} cannot be written", hint)


def _directory(directory: StateDirectory) -> Iterator[Finding]:
    path = directory.path
    try:
        found = path.stat()
    except OSError as error:
        yield Finding("state directory", ERROR, f"{path}: {error.strerror}", "check who may enter the folders above")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Finding("state directory", ERROR, f"{path} is no directory", "move it away, or name another one")
        return
    if (refused := _refused(path)) is not None:
        yield refused
        return
    if os.geteuid() not in (0, found.st_uid) and found.st_uid != 0:
        about = f"{path} belongs to uid {found.st_uid}, we are uid {os.geteuid()}"
        yield Finding("state directory", ERROR, about, f"run as uid {found.st_uid}, or name another directory")
        return
    refused = next(filter(None, (_refused(inner) for inner in sorted(path.iterdir()) if inner.is_dir())), None)
    if refused is not None:  # somebody else made it, as root does by sudo
        yield refused
        return
    yield Finding("state directory", OK, f"{path} can be written")
    yield _format(directory)


def _refused(folder: Path) -> Finding | None:
    """What is wrong with a folder in which we may not do everything."""
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return None
    found = folder.stat()
    mode, owner = stat.S_IMODE(found.st_mode), found.st_uid
    about = f"{folder} cannot be written (mode {mode:o}, owner uid {owner}, we are uid {os.geteuid()})"
    return Finding("state directory", ERROR, about, f"chown or chmod it, or run as uid {owner}")


def _format(directory: StateDirectory) -> Finding:
    path = directory.path / ".format"
    try:
        text = directory.disk.read(path, 64).decode("ascii", "replace").strip()
    except PermissionError as error:
        return Finding("format", ERROR, f"{path}: {error.strerror}", "check its owner and mode")
    except (OSError, DamagedFileError):
        return Finding("format", OK, "no format number; the next run writes it")
    if text.isdigit() and int(text) > directory.format:
        hint = "use that version, or a newer one"
        return Finding(
            "format", ERROR, f"a newer Reqon wrote it: format {text}, this one knows {directory.format}", hint
        )
    return Finding("format", OK, f"format {text}")


def _modes(directory: StateDirectory) -> Iterator[Finding]:
    open_to_others: list[Path] = []
    looked = 0
    for looked, path in enumerate(_files(directory.path), 1):
        with suppress(OSError):
            if path.lstat().st_mode & 0o077 and not path.is_symlink():
                open_to_others.append(path)
        if looked >= MOST_FILES:
            break
    if open_to_others:
        about = f"{_number(len(open_to_others), 'file')} can be read by other users, such as {open_to_others[0]}"
        yield Finding("permissions", WARNING, about, f"chmod -R go= {directory.path}")
    else:
        part = f" (of the first {MOST_FILES:,})" if looked >= MOST_FILES else ""
        yield Finding("permissions", OK, f"no file can be read by other users{part}")


def _files(path: Path) -> Iterator[Path]:
    yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)


def _daemon(directory: StateDirectory) -> Iterator[Finding]:
    lock = directory.path / "daemon.lock"
    if not lock_is_free(lock):
        holder = directory.daemon_lock.note()
        yield Finding("daemon", OK, f"runs{f' (pid {holder})' if holder else ''}")
    else:
        yield Finding("daemon", OK, "does not run here")
    held = [name for name in directory.disk.list(directory.locks) if not lock_is_free(directory.locks / name)]
    missions = [name for name in held if name.startswith("mission-")]
    yield Finding("locks", OK, f"{_number(len(missions), 'mission')} running" if missions else "no mission is running")


def _records(directory: StateDirectory) -> Iterator[Finding]:
    """The newest records, read as they stand."""
    damaged, newer, ahead = [], [], []
    now = directory.clock.now()
    names = [name for name in directory.disk.list(directory.executions) if name.endswith(".json")]
    for name in sorted(names, key=lambda name: name[-25:], reverse=True)[:NEWEST_RECORDS]:
        try:
            record = from_json(directory.disk.read(directory.executions / name), file_name=name[:-5])
        except FileNotFoundError:
            continue
        except NewerRecordError:
            newer.append(name)
        except (OSError, StateError):
            damaged.append(name)
        else:
            if record.started_at > now:
                ahead.append(record)
    if damaged:
        about = f"{_number(len(damaged), 'record')} cannot be read, such as {damaged[0]}"
        yield Finding("records", WARNING, about, "`reqon status` moves them to quarantine/ and goes on without them")
    if newer:
        about = f"{_number(len(newer), 'record')} of a newer Reqon, such as {newer[0]}"
        yield Finding("records", WARNING, about, "they are shown and left alone; use that version to resume them")
    if not damaged and not newer:
        yield Finding("records", OK, f"{_number(len(names), 'record')} in files")
    if ahead:
        about = (
            f"{_number(len(ahead), 'execution')} began after now, {ahead[0].started_at:%Y-%m-%d %H:%M:%S} UTC the last"
        )
        yield Finding("clock", WARNING, about, "the clock went back, or was ahead: see timedatectl")
    else:
        zone = now.astimezone().tzname()
        yield Finding("clock", OK, f"{rfc3339(now)}, local zone {zone}")


def _journals(directory: StateDirectory) -> Iterator[Finding]:
    stale, size = [], 0
    present = set(directory.disk.list(directory.executions))
    journals = [name for name in present if name.endswith(".journal")]
    for name in sorted(journals):
        with suppress(OSError):
            size += (directory.executions / name).stat().st_size
        if f"{name.removesuffix('.journal')}.json" not in present:
            stale.append(name)
    if stale:
        about = f"{_number(len(stale), 'journal')} without a record, such as {stale[0]}"
        yield Finding("journals", WARNING, about, "its execution cannot be resumed: remove the file")
    elif journals:
        yield Finding("journals", OK, f"{_number(len(journals), 'journal')}, {size:,} bytes, to go on from")
    else:
        yield Finding("journals", OK, "nothing is half done")


def _leftovers(directory: StateDirectory) -> Iterator[Finding]:
    left = [
        name
        for folder in (directory.path, directory.executions, directory.stores)
        for name in directory.disk.list(folder)
        if is_temporary(name)
    ]
    if left:
        yield Finding(
            "leftovers", OK, f"{_number(len(left), 'file')} half written by killed processes; a later run removes them"
        )


def _shared_files(directory: StateDirectory) -> Iterator[Finding]:
    remedies = {
        directory.sync_checkpoints: "mend it, or ask for a full sync: clear_sync_checkpoints(), or remove the file",
        directory.state_stores: "the next run moves it to quarantine/ and begins anew",
        directory.tokens: "mend it, or sign in again and remove it",
        directory.rate_limits: "the next run moves it to quarantine/; waits are found out again",
    }
    broken = 0
    for path, hint in remedies.items():
        try:
            value = decode(directory.disk.read(path))
        except FileNotFoundError:
            continue
        except (JsonError, DamagedFileError) as error:
            broken += 1
            yield Finding("files", ERROR, f"{path} cannot be used: {error.message}", hint)
        except OSError as error:
            broken += 1
            yield Finding("files", ERROR, f"{path}: {error.strerror}", "check its owner and mode")
        else:
            if not isinstance(value, dict):
                broken += 1
                yield Finding("files", ERROR, f"{path} is no JSON object", hint)
    if not broken:
        yield Finding("files", OK, "shared files can be read")


def _quarantine(directory: StateDirectory) -> Iterator[Finding]:
    aside = directory.disk.list(directory.quarantine_directory)
    if aside:
        about = f"{_number(len(aside), 'file')} set aside, {aside[-1]} the last"
        yield Finding("quarantine", WARNING, about, f"look at {directory.quarantine_directory}, then remove them")
    else:
        yield Finding("quarantine", OK, "nothing was set aside")


def _alerts(directory: StateDirectory) -> Iterator[Finding]:
    waiting = [name for name in directory.disk.list(directory.alerts / "outbox") if name.endswith(".json")]
    if waiting:
        about = f"{_number(len(waiting), 'notice')} not delivered yet"
        yield Finding("alerts", WARNING, about, "`reqon test-alert` shows what each target answers; they go for 72 h")
    else:
        yield Finding("alerts", OK, "none is waiting to be delivered")


def _database(directory: StateDirectory) -> Iterator[Finding]:
    path = directory.database
    if not path.exists():
        return
    if not path.stat().st_size:
        yield Finding("sqlite", ERROR, f"{path} is empty", "restore it; the next run moves it to quarantine/")
        return
    try:
        with closing(_opened(directory)) as connection:
            (layout,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        yield Finding("sqlite", ERROR, f"{path} cannot be used: {error}", "restore it, or move it away to begin anew")
        return
    if layout > SQLITE_LAYOUT:
        about = f"{path}: layout {layout} of a newer Reqon, this one knows {SQLITE_LAYOUT}"
        yield Finding("sqlite", ERROR, about, "use that version, or a newer one")
    else:
        yield Finding("sqlite", OK, f"{path}, {path.stat().st_size:,} bytes")


def _opened(directory: StateDirectory) -> sqlite3.Connection:
    path = directory.database.absolute()
    # Without a log beside it nobody is writing; then not even the files that readers share are made.
    immutable = "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
    return sqlite3.connect(f"{path.as_uri()}?mode=ro{immutable}", uri=True)


def _disk(directory: StateDirectory) -> Iterator[Finding]:
    path = directory.path.absolute()
    while not path.exists():
        path = path.parent
    usage, inodes = shutil.disk_usage(path), os.statvfs(path)
    about = f"{usage.free // (1 << 20):,} MiB free of {usage.total // (1 << 20):,}"
    if usage.free < min(LOW_BYTES, usage.total * LOW_SHARE):
        yield Finding("disk", ERROR, about, "make room: reqon cleanup --older-than 7d")
    elif inodes.f_files and inodes.f_favail < inodes.f_files * LOW_SHARE:
        yield Finding("disk", ERROR, f"{about}, but hardly a file more can be made", "reqon cleanup --older-than 7d")
    else:
        yield Finding("disk", OK, about)
    if (kind := _file_system(path)) in _NETWORK:
        about = f"{path} lies on {kind}: locks and syncs may not be what they say"
        yield Finding("file system", WARNING, about, "keep state on a local disk; share it by stateStore: postgres")


def _file_system(path: Path) -> str:
    """The type of the file system that a path lies on, as Linux tells it."""
    best = ("", "")
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines():
            _, place, kind, *_ = line.split(" ")
            if (str(path) + "/").startswith(place.rstrip("/") + "/") and len(place) > len(best[0]):
                best = (place, kind)
    return best[1]


def _postgres(stores: StateStores) -> Iterator[Finding]:
    """Only where it is used, or could be."""
    used = "postgres" in stores.names(set_aside=False)
    if not used and not stores.environment.get(STATE_URL):
        return
    try:
        backend = stores.open("postgres")
        assert isinstance(backend, PostgresBackend)
        layout = backend.layout()
    except ConfigurationError as error:
        yield Finding("postgres", ERROR if used else WARNING, error.message, error.hint)
    except StateError as error:
        hint = error.hint if error.slug == "newer-state" else f"check {STATE_URL}, the server and who may connect"
        yield Finding("postgres", ERROR if used else WARNING, error.message, hint)
    else:
        yield Finding("postgres", OK, "answers" if layout else "answers; nothing is kept there yet")


def _executions(stores: StateStores) -> Iterator[Finding]:
    """Those whose process is gone, wherever they are kept."""
    if not stores.directory.path.is_dir():
        return
    lost, unfinished = [], []
    for record in (*_file_records(stores.directory), *_database_records(stores.directory)):
        if record.status is ExecutionStatus.RUNNING:
            if lock_is_free(stores.directory.execution_lock_path(record.execution_id)):
                lost.append(record)
        elif record.status is ExecutionStatus.INTERRUPTED:
            unfinished.append(record)
    if "postgres" in stores.names(set_aside=False):
        with suppress(ReqonError):  # told of already
            backend = stores.open("postgres")
            if isinstance(backend, PostgresBackend) and backend.layout() == POSTGRES_LAYOUT:
                lost += backend.orphans()
    gone = {record.execution_id: record for record in lost}
    if gone:
        first = next(iter(gone.values()))
        about = f"{_number(len(gone), 'execution')} lost with {'their processes' if len(gone) > 1 else 'its process'}"
        about += f", such as {first.execution_id} of {first.mission}"
        yield Finding(
            "executions", WARNING, about, "reqon resume PATH --explain shows how it goes on; a daemon resumes it"
        )
    elif unfinished:
        about = f"{_number(len(unfinished), 'execution')} interrupted, such as {unfinished[0].execution_id}"
        yield Finding("executions", OK, about, "reqon resume PATH --explain shows how to go on")
    else:
        yield Finding("executions", OK, "none was cut off")


def _file_records(directory: StateDirectory) -> Iterator[ExecutionRecord]:
    names = [name for name in directory.disk.list(directory.executions) if name.endswith(".json")]
    for name in sorted(names, key=lambda name: name[-25:], reverse=True)[:NEWEST_RECORDS]:
        with suppress(OSError, StateError):
            yield from_json(directory.disk.read(directory.executions / name), file_name=name[:-5])


def _database_records(directory: StateDirectory) -> Iterator[ExecutionRecord]:
    if directory.database.exists():
        query = (
            "SELECT name, record FROM records WHERE status IN ('running', 'interrupted') ORDER BY begun DESC LIMIT ?"
        )
        with suppress(sqlite3.Error), closing(_opened(directory)) as connection:
            for name, data in connection.execute(query).fetchmany(NEWEST_RECORDS):
                with suppress(StateError):
                    yield from_json(data, file_name=name)


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_DESCRIPTORS:
        hint = "ulimit -n 4096, LimitNOFILE= of the unit, or --ulimit of the container"
        return Finding("descriptors", WARNING, f"{soft} open files at most (hard limit {hard})", hint)
    return Finding("descriptors", OK, f"{soft:,} open files at most")


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def worst(found: Iterable[Finding]) -> str:
    """The worst level of all."""
    levels = {finding.level for finding in found}
    return ERROR if ERROR in levels else WARNING if WARNING in levels else OK
