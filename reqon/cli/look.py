"""`reqon status` and `history`: what ran, what runs, and why it failed (spec/state.md 8)."""

from datetime import UTC, datetime
from typing import Annotated

from reqon.cli import show
from reqon.cli.exits import Done
from reqon.cli.flags import StateDir
from reqon.cli.options import Argument, Option
from reqon.cli.services import service
from reqon.cli.state import state_stores
from reqon.clock import parse_rfc3339, rfc3339
from reqon.diagnostics import did_you_mean
from reqon.errors import ConfigurationError, ReqonError
from reqon.state.choice import StateStores
from reqon.state.ids import is_execution_id
from reqon.state.records import ExecutionRecord, ExecutionStatus, to_dict

Mission = Annotated[str | None, Argument(metavar="[MISSION]", help="Only this mission.")]
StateStore = Annotated[str | None, Option("--state-store", metavar="NAME", help="Look into this state store only.")]
Json = Annotated[bool, Option("--json", help="Records as they are, for machines.")]


def status(
    mission: Mission = None,
    execution: Annotated[str | None, Option("--execution", metavar="ID", help="This execution.")] = None,
    json: Json = False,
    state_dir: StateDir = None,
    state_store: StateStore = None,
) -> None:
    """Show the last execution of a mission, or of every mission. Reads only; works beside a running daemon."""
    backend = state_stores(state_dir, state_store)
    if mission is None and execution is None:
        records = list(backend.latest())
        if json:
            show.as_json([to_dict(r) for r in records])
            raise Done
        if records:
            _table(records, mission_column=True)
        else:
            show.out(f"no execution is recorded ({backend.directory.path})")
        _daemon(backend, {record.mission for record in records})
        raise Done
    record = the_execution(backend, mission, execution)
    if json:
        show.as_json(to_dict(record))
    else:
        _describe(record)
    raise Done


def _daemon(backend: StateStores, recorded: set[str]) -> None:
    """What the records of a running daemon cannot show: missions that never ran, and what is wrong with it."""
    try:
        answer = service("control")(backend.directory.path, "status")
    except ReqonError:
        return  # no daemon, or one that does not answer: the records are all there is
    for mission in answer["missions"]:
        if mission["mission"] not in recorded and mission["state"] != "removed":
            due = mission["nextDue"]
            show.out(f"{mission['mission']} has not run yet; {f'next run {due}' if due else 'it runs when triggered'}")
    for reason in answer["degraded"]:
        show.out(f"degraded: {reason}")


def history(
    mission: Mission = None,
    limit: Annotated[int, Option("--limit", metavar="N", min=1, help="Most executions to show.")] = 10,
    since: Annotated[str | None, Option("--since", metavar="DATE", help="Only those that began since.")] = None,
    status: Annotated[
        str | None, Option("--status", metavar="STATUS", help="running, completed, failed or interrupted.")
    ] = None,
    json: Json = False,
    state_dir: StateDir = None,
    state_store: StateStore = None,
) -> None:
    """Show past executions, newest first."""
    backend = state_stores(state_dir, state_store)
    if mission is not None:
        _known(backend, mission)
    wanted = None
    if status is not None:
        try:
            wanted = ExecutionStatus(status)
        except ValueError:
            words = ", ".join(ExecutionStatus)
            raise ConfigurationError(f"'{status}' is no status", hint=f"one of: {words}") from None
    records = backend.list(mission, limit=limit, since=_instant(since), status=wanted)
    if json:
        show.as_json([to_dict(r) for r in records])
    elif not records:
        nothing = mission is None and since is None and wanted is None
        show.out(f"no execution is recorded ({backend.directory.path})" if nothing else "no execution matches")
    else:
        _table(records, mission_column=mission is None)
    raise Done


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) if len(text) == 10 else parse_rfc3339(text)
    except ValueError:
        raise ConfigurationError(f"--since '{text}' is no date", hint="such as 2024-01-31") from None


def _known(backend: StateStores, mission: str) -> None:
    if not backend.list(mission, limit=1):
        names = [r.mission for r in backend.latest()]
        raise ConfigurationError(
            f"no execution of a mission '{mission}' is recorded in {backend.directory.path}",
            code="unknown-mission",
            hint=did_you_mean(mission, names, "recorded missions"),
        )


def the_execution(backend: StateStores, mission: str | None, execution: str | None) -> ExecutionRecord:
    """The execution of this id, else the mission's last one.

    Raises:
        ConfigurationError: there is none.
    """
    if execution is not None:
        record = backend.load(execution) if is_execution_id(execution) else None
        if record is not None and mission not in (None, record.mission):
            raise ConfigurationError(
                f"{execution} is an execution of {record.mission}, not of {mission}",
                code="unknown-execution",
                hint=f"reqon status {record.mission} --execution {execution}",
            )
        if record is None:
            raise ConfigurationError(
                f"there is no execution {execution}", code="unknown-execution", hint="see reqon history"
            )
        return record
    assert mission is not None
    _known(backend, mission)
    return backend.list(mission, limit=1)[0]


def _table(records: list[ExecutionRecord], *, mission_column: bool) -> None:
    columns = ["MISSION"] * mission_column + ["STATUS", "STARTED", "DURATION", "ITEMS", "TRIGGER", "EXECUTION", "ERROR"]
    rows = []
    for record in records:
        error = record.errors[0].message if record.errors else ""
        rows.append(
            [record.mission] * mission_column
            + [
                str(record.status),
                show.moment(record.started_at),
                show.length(record.duration_ms),
                f"{record.items_processed:,}",
                str(record.trigger),
                record.execution_id,
                _brief(error),
            ]
        )
    show.table(columns, rows, status_column=int(mission_column))


def _brief(error: str) -> str:
    """At most 60 characters. The middle goes: a request's URL is long, and what became of it stands behind it."""
    return error if len(error) <= 60 else f"{error[:25]}...{error[-32:]}"


def _describe(record: ExecutionRecord) -> None:
    rows = [
        ("mission", record.mission),
        ("execution", record.execution_id),
        ("status", str(record.status)),
        ("trigger", f"{record.trigger}, attempt {record.attempt}"),
        ("started", rfc3339(record.started_at)),
        ("completed", rfc3339(record.completed_at) if record.completed_at else "-"),
        ("duration", show.length(record.duration_ms)),
        ("actions", ", ".join(record.actions_run) or "-"),
        (
            "items",
            _counts(record),
        ),
    ]
    step = record.active_step
    if step is not None:
        where = step.action + (f": {step.step}" if step.step else "")
        where += f", item {step.index}" if step.index is not None else ""
        rows.append(("now at" if record.status is ExecutionStatus.RUNNING else "stopped at", where))
    for name, totals in record.stores.items():
        counts = {"records": totals.count, "added": totals.added, "updated": totals.updated}
        counts |= {"unchanged": totals.unchanged, "deleted": totals.deleted}
        # A store that cannot tell says nothing.
        told = ", ".join(f"{number} {what}" for what, number in counts.items() if number is not None)
        rows.append((f"store {name}", told))
    for error in record.errors:
        place = f"{error.location}: " if error.location else ""
        rows.append(
            ("error", f"{place}{error.message} [{error.type}]" + (f" hint: {error.hint}" if error.hint else ""))
        )
    if record.errors_total > len(record.errors):
        rows.append(("errors", f"{record.errors_total} in all"))
    if record.status in (ExecutionStatus.FAILED, ExecutionStatus.INTERRUPTED):
        command = f"reqon PATH --resume --execution {record.execution_id}"
        rows.append(("resume", f"{command}  (PATH: the mission's file or folder)"))
    show.table(["FIELD", "VALUE"], [list(row) for row in rows])


def _counts(record: ExecutionRecord) -> str:
    totals = f"{record.requests:,} requests, {record.retries:,} retries, {record.invalid:,} invalid"
    return f"{record.items_processed:,}; {totals}"
