"""`reqon plan`: what a run would come to, and when the next ones are (spec/daemon.md 1)."""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from reqon.cli import show
from reqon.cli.choosing import refuse_unknown
from reqon.cli.environment import environment, state_directory
from reqon.cli.exits import CONFIGURATION, Done
from reqon.cli.flags import EnvFile, ForMachines, MissionNames, StateDir
from reqon.cli.options import Argument, Option
from reqon.cli.services import service
from reqon.clock import rfc3339
from reqon.errors import ReqonError
from reqon.extensions import registered, specifications_in
from reqon.lang.loader import load
from reqon.runtime.outline import Outline, described, outline
from reqon.runtime.plan import Plan, StagePlan
from reqon.secrets import SECRETS
from reqon.state.backend import SyncCheckpoint
from reqon.state.directory import StateDirectory
from reqon.state.sync import SyncCheckpoints
from reqon.values import milliseconds


def plan(
    paths: Annotated[list[Path], Argument(metavar="PATH...", help="Mission files or folders.")],
    slots: Annotated[int, Option("--next", metavar="N", min=0, help="So many next runs.")] = 5,
    mission: MissionNames = None,
    env: EnvFile = None,
    state_dir: StateDir = None,
    json: ForMachines = False,
) -> None:
    """Show what would run, and when: stages, sources, stores, requests, checkpoints, next runs. Runs nothing."""
    state = state_directory(state_dir)
    variables = environment(env)
    specifications = specifications_in(state, variables, offline=True)
    program = load(paths, known=registered(specifications), skip=(state,))
    show.findings(program.all_diagnostics)
    code = 2 if program.has_errors else 0
    chosen = [m for m in program.missions if not mission or m.name in mission]
    refuse_unknown(mission or (), [m.name for m in program.missions])
    told: list[Any] = []
    for number, one in enumerate(chosen):
        has_document = any(source.spec is not None for source in one.sources.values())
        made = Plan(one, environment=variables, specifications=specifications() if has_document else None)
        try:
            seen = _Seen(outline(made), service("slot-preview")(made, state, count=slots), _synced(state, one.name))
        except ReqonError as error:
            show.rendered(error.format())
            code = code or CONFIGURATION
            continue
        if json:
            told.append(seen.as_json())
            continue
        if number:
            show.out()
        for line in seen.lines():
            show.out(SECRETS.redact(line))
    if json:
        show.as_json(told)
    raise Done(code)


def _synced(state: Path, mission: str) -> Mapping[str, SyncCheckpoint]:
    directory = StateDirectory(state)
    return SyncCheckpoints(directory).of(mission) if os.path.exists(directory.sync_checkpoints) else {}  # noqa: PTH110


class _Seen:
    """One mission's outline with its next runs and how far it is synced, in words and as JSON."""

    def __init__(self, mission: Outline, slots: Any, synced: Mapping[str, SyncCheckpoint]) -> None:
        self._outline = mission
        self._plan = mission.plan
        self._slots = slots
        self._synced = synced

    # --- in words ---

    def lines(self) -> Iterator[str]:
        program = self._plan.program
        yield f"mission {program.name} ({program.path})"
        yield from self._schedule()
        yield from _block(
            "sources", [(n, s.base, f"auth: {s.auth or 'none'}") for n, s in self._outline.sources.items()]
        )
        yield from _block(
            "stores", [(name, f'{s.adapter}("{s.identifier}")') for name, s in self._outline.stores.items()]
        )
        yield from self._stages()
        yield from self._requests()
        yield from self._checkpoints()

    def _schedule(self) -> Iterator[str]:
        slots = self._slots
        if slots is None:
            yield "  schedule: none; it runs when asked to"
            return
        spread = f", jitter {_span(slots.jitter)} of up to {_span(slots.spread)}" if slots.spread else ""
        yield f"  schedule: {slots.text}, {slots.zone}{spread}"
        if slots.at_load:
            yield "    once when the daemon loads it, then:"
        elif not slots.anchored:
            yield "    if the daemon loaded it now:"
        for slot in slots.next:
            # A share of a jitter has milliseconds; whole seconds are enough for people.
            zone = f" {slot.due.tzname()}" if slot.due.tzname() else ""
            mark = "  (clocks change on this day)" if slot.clocks_change else ""
            yield f"    {slot.due.strftime('%a %Y-%m-%d %H:%M:%S')}{zone}{mark}"
        if not slots.next:
            yield "    never again"

    def _stages(self) -> Iterator[str]:
        if not self._plan.stages:
            yield "  stages: none"
        else:
            yield "  stages:"
        for stage, condition in self._conditions():
            together = " together" if stage.parallel else ""
            yield f"    {stage.index + 1}  {', '.join(stage.actions)}{together}" + (
                f", if {condition}" if condition else ""
            )

    def _conditions(self) -> Iterator[tuple[StagePlan, str | None]]:
        pipeline = self._plan.program.pipeline
        for stage, node in zip(self._plan.stages, pipeline.stages if pipeline else (), strict=True):
            condition = node.condition
            yield stage, None if condition is None else " ".join(condition.span.text.split())

    def _requests(self) -> Iterator[str]:
        told = self._outline
        least = "" if told.exact else "at least "
        yield f"  requests: {least}{told.least_requests}"
        rows = [(r.action, r.line, described(r), f"({_place(r.span)})") for r in told.requests]
        yield from _rows(rows)

    def _checkpoints(self) -> Iterator[str]:
        if not self._plan.enable_state:
            yield "  checkpoints: none, state is turned off"
            return
        rows = [(key, _until(self._synced.get(key)), "") for key in self._sync_keys()]
        rows += [
            (f'"{loop.label}"', "each second" + (f", every {loop.every} rounds" if loop.every else ""), loop.action)
            for loop in self._outline.loops
        ]
        yield from _block("checkpoints", rows)

    def _sync_keys(self) -> list[str]:
        found = [r.sync_key or "a key that only the run knows" for r in self._outline.requests if r.syncs]
        return list(dict.fromkeys(found))

    # --- as JSON ---

    def as_json(self) -> dict[str, Any]:
        program = self._plan.program
        told = self._outline
        return {
            "mission": program.name,
            "path": str(program.path),
            "definitionHash": program.definition_hash,
            "schedule": self._schedule_json(),
            "sources": [
                {"name": n, "base": SECRETS.redact(s.base), "auth": s.auth or "none"} for n, s in told.sources.items()
            ],
            "stores": [{"name": n, "adapter": s.adapter, "identifier": s.identifier} for n, s in told.stores.items()],
            "stages": [
                {"actions": list(stage.actions), "parallel": stage.parallel, "if": condition}
                for stage, condition in self._conditions()
            ],
            "requests": [
                {
                    "action": r.action,
                    "request": r.line,
                    "times": r.times,
                    "per": list(r.per),
                    "certain": r.certain,
                    "at": _place(r.span),
                }
                for r in told.requests
            ],
            "estimatedRequests": {"atLeast": told.least_requests, "exact": told.exact},
            "checkpoints": {
                "sync": [
                    {"key": key, "lastSync": rfc3339(at.last_sync) if (at := self._synced.get(key)) else None}
                    for key in self._sync_keys()
                ],
                "loops": [
                    {"action": loop.action, "loop": loop.label, "every": loop.every, "at": _place(loop.span)}
                    for loop in told.loops
                ],
            },
        }

    def _schedule_json(self) -> dict[str, Any] | None:
        slots = self._slots
        if slots is None:
            return None
        return {
            "schedule": slots.text,
            "timezone": slots.zone,
            "jitterMs": milliseconds(slots.spread),
            "jitterShareMs": milliseconds(slots.jitter),
            "anchored": slots.anchored,
            "runsAtLoad": slots.at_load,
            "next": [
                {"due": rfc3339(slot.due), "local": slot.due.isoformat(), "clocksChange": slot.clocks_change}
                for slot in slots.next
            ],
        }


def _block(title: str, rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"  {title}:" if rows else f"  {title}: none"
    yield from _rows(rows)


def _rows(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        yield "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _until(synced: SyncCheckpoint | None) -> str:
    return "not synced yet" if synced is None else f"synced until {rfc3339(synced.last_sync)}"


def _place(span: Any) -> str:
    return str(span)


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"
