"""`reqon logs EXEC`: the log lines of one execution, while it runs and after (spec/daemon.md 1)."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from reqon.cli import show
from reqon.cli.exits import Done
from reqon.cli.flags import StateDir
from reqon.cli.look import StateStore, the_execution
from reqon.cli.options import Argument, Option
from reqon.cli.state import state_stores
from reqon.clock import rfc3339, wait_blocking
from reqon.diagnostics import escape_controls
from reqon.errors import StateError
from reqon.files import DISK, DamagedFileError
from reqon.state.choice import StateStores
from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon.values import JsonError, decode

_LOOK_SECONDS = 0.2
_KNOWN = ("mission", "execution_id")  # the same in every line
_FIRST_MESSAGE = "mission.start"


def logs(
    execution: Annotated[str, Argument(metavar="EXECUTION", help="The execution's id.")],
    follow: Annotated[bool, Option("--follow", "-f", help="Go on until it ends.")] = False,
    json: Annotated[bool, Option("--json", help="One JSON object a line, as kept.")] = False,
    state_dir: StateDir = None,
    state_store: StateStore = None,
) -> None:
    """Show what one execution did, line by line, while it runs and after."""
    stores = state_stores(state_dir, state_store)
    record = the_execution(stores, None, execution)
    first = True
    for line in _followed(stores, record) if follow else _lines(stores, record):
        if first and line.get("message") != _FIRST_MESSAGE:
            show.err("older lines were not kept")
        first = False
        _show(line, json=json)
    if first:
        show.err(f"no log lines of {execution} are kept on this machine; its record says:")
        for line in _told_by(record):
            _show(line, json=json)
    raise Done


def _lines(stores: StateStores, record: ExecutionRecord) -> Iterator[dict[str, Any]]:
    for path in stores.directory.log_files(record.execution_id):
        yield from _read(path, to_end=record.status is not ExecutionStatus.RUNNING)[0]


def _followed(stores: StateStores, record: ExecutionRecord) -> Iterator[dict[str, Any]]:
    """All lines, then new ones as they come, until the execution has ended."""
    older, newer = stores.directory.log_files(record.execution_id)
    yield from _read(older)[0]
    identity, seen = _identity(newer), 0
    while True:
        # Asked first: what was written before it ended is read after.
        now = stores.load(record.execution_id)
        if _identity(newer) != identity:  # the file was put aside: first the rest of it
            yield from _read(older, seen)[0]
            identity, seen = _identity(newer), 0
        lines, seen = _read(newer, seen)
        yield from lines
        if now is None or now.status is not ExecutionStatus.RUNNING:
            return
        sys.stdout.flush()  # whoever follows wants to see it now, in a pipe too
        wait_blocking(_LOOK_SECONDS)


def _identity(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_ino
    return 0


def _read(path: Path, offset: int = 0, *, to_end: bool = False) -> tuple[list[dict[str, Any]], int]:
    """The whole lines from a place on, and where they end. What is no line of ours is passed over, and counted.

    `to_end`: nobody writes any more, so that a line without its end is none.
    """
    try:
        data = DISK.read(path)[offset:]
    except FileNotFoundError:
        return [], offset
    except DamagedFileError as error:
        if not offset:
            show.warning(error.message)
        return [], offset
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    end = data.rfind(b"\n") + 1
    found = []
    lines = data[:end].split(b"\n")[:-1] + [data[end:]] * (to_end and end < len(data))
    for line in lines:
        with suppress(JsonError):
            value = decode(line)
            if isinstance(value, dict):
                found.append(value)
    if bad := len(lines) - len(found):
        show.warning(f"{path} is damaged: {bad} {'line' if bad == 1 else 'lines'} cannot be read")
    return found, offset + end


def _show(line: dict[str, Any], *, json: bool) -> None:
    if json:
        show.as_json_line(line)
    else:
        show.block(_as_text(line))


def _as_text(line: dict[str, Any]) -> str:
    from reqon.observe.logs import as_logfmt  # noqa: PLC0415  # structlog costs 80 ms

    entry = {key: value for key, value in line.items() if key not in _KNOWN}
    stamp, level = str(entry.pop("timestamp", "")), str(entry.pop("level", "info"))
    message, exception = escape_controls(str(entry.pop("message", ""))), entry.pop("exception", None)
    text = f"{stamp} {level.upper():<7} {message}" + (f"  {as_logfmt(entry)}" if entry else "")
    if exception:
        text += "".join(f"\n    {escape_controls(part)}" for part in str(exception).splitlines())
    return text


def _told_by(record: ExecutionRecord) -> Iterator[dict[str, Any]]:
    """The record's errors and end, as lines."""
    for error in record.errors:
        line = {"timestamp": rfc3339(error.at), "level": "error", "message": error.message, "kind": error.type}
        yield line | {k: v for k, v in (("step", error.step), ("location", error.location)) if v is not None}
    ended = record.completed_at or record.started_at
    yield {"timestamp": rfc3339(ended), "level": "info", "message": f"{record.mission}: {record.status}"}
