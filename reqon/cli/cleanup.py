"""`reqon cleanup`: delete old records (spec/state.md 7)."""

import sys
from datetime import timedelta
from typing import Annotated

from reqon.cli import show
from reqon.cli.durations import age
from reqon.cli.exits import CONFIGURATION, Done
from reqon.cli.flags import ForMachines, StateDir
from reqon.cli.options import Argument, Option
from reqon.cli.state import state_stores
from reqon.clock import SYSTEM
from reqon.diagnostics import did_you_mean
from reqon.errors import ConfigurationError, StateError
from reqon.state.records import ExecutionRecord, ExecutionStatus, is_newer
from reqon.state.retention import expired


def cleanup(
    mission: Annotated[str | None, Argument(metavar="[MISSION]", help="Only this mission.")] = None,
    older_than: Annotated[str | None, Option("--older-than", metavar="AGE", help="Such as 30d, 12h or 4w.")] = None,
    everything: Annotated[bool, Option("--all", help="All records of the mission.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would go.")] = False,
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask.")] = False,
    json: ForMachines = False,
    state_dir: StateDir = None,
    state_store: Annotated[
        str | None, Option("--state-store", metavar="NAME", help="Look into this state store only.")
    ] = None,
) -> None:
    """Delete records and journals. Running executions are skipped and named."""
    if everything and older_than is not None:
        raise ConfigurationError("--older-than or --all, not both", hint="--all means all ages")
    if not everything and older_than is None:
        raise ConfigurationError(
            "say which records go", hint="reqon cleanup --older-than 30d, or reqon cleanup MISSION --all"
        )
    backend = state_stores(state_dir, state_store)
    if mission is not None and not backend.list(mission, limit=1):
        raise ConfigurationError(
            f"no execution of a mission '{mission}' is recorded",
            code="unknown-mission",
            hint=did_you_mean(mission, [r.mission for r in backend.latest()], "recorded missions"),
        )
    now = SYSTEM.now()
    if everything:
        records = backend.list(mission)
        going = [r for r in records if r.status is not ExecutionStatus.RUNNING]
    else:
        assert older_than is not None
        limit = age("--older-than", older_than)
        records = backend.list(mission, before=now - timedelta(seconds=limit))
        going = expired(records, now=now, keep_seconds=limit)
    skipped = [r for r in records if r.status is ExecutionStatus.RUNNING]
    for record in skipped:
        show.err(f"skipped: {record.execution_id} of {record.mission} is running")
    for record in [r for r in going if is_newer(r)]:
        show.err(f"skipped: {record.execution_id} of {record.mission} was written by Reqon {record.reqon_version}")
        going.remove(record)
        skipped.append(record)
    size = sum(backend.stored_bytes(r) for r in going)
    if everything and going and not dry_run and not yes and sys.stdin.isatty() and not _confirmed(going, size):
        raise Done(0)
    refused = False
    if not dry_run:
        size = 0
        for record in [*going]:
            try:
                size += backend.delete(record)
            except StateError as error:
                going.remove(record)
                skipped.append(record)
                if error.diagnostics[0].code == "running":  # it was resumed since we looked
                    show.err(f"skipped: {record.execution_id} of {record.mission} is running")
                else:
                    refused = True
                    show.rendered(error.format())
                    show.err(f"skipped: {record.execution_id} of {record.mission}")
    if json:
        show.as_json(
            {
                "deleted": [r.execution_id for r in going],
                "bytes": size,
                "dryRun": dry_run,
                "skipped": [r.execution_id for r in skipped],
            }
        )
    else:
        if dry_run:
            for record in going:
                show.out(f"{record.mission}  {record.execution_id}  {show.moment(record.started_at)}")
        word = "would delete" if dry_run else "deleted"
        show.out(f"{word} {len(going)} execution{'s' if len(going) != 1 else ''}, {size:,} bytes")
    raise Done(CONFIGURATION if refused else 0)


def _confirmed(records: list[ExecutionRecord], size: int) -> bool:
    import typer  # noqa: PLC0415  # only where somebody is asked

    return typer.confirm(f"Delete {len(records)} executions ({size:,} bytes)?")
