"""When something would run: a cron text that no mission has yet (`reqon --validate-cron`), a mission (`reqon plan`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from reqon.clock import SYSTEM, Clock
from reqon.errors import ConfigurationError
from reqon.lang.cron import read_cron
from reqon.lang.kinds import zone_hint
from reqon.runtime.plan import Plan
from reqon.state.directory import StateDirectory
from reqon_daemon.ledger import Ledger, Standing
from reqon_daemon.policy import cron_rule, policy_of
from reqon_daemon.slots import Schedule
from reqon_daemon.zones import system_zone, zone


def next_runs(text: str, timezone: str | None = None, *, count: int = 5, clock: Clock = SYSTEM) -> list[datetime]:
    """The next `count` due times, each in the zone the text is read in, by default the system's.

    Raises:
        SemanticError: the text is wrong; all its findings.
        ConfigurationError: there is no such zone.
    """
    fields = read_cron(text)
    try:
        where = zone(timezone) if timezone is not None else system_zone()
    except LookupError as error:
        raise ConfigurationError(str(error), code="bad-timezone", hint=zone_hint(str(timezone))) from error
    schedule = Schedule(rule=cron_rule(fields, where), text=text, zone=where)
    found: list[datetime] = []
    at = clock.now()
    while len(found) < count and (due := schedule.next_after(at)) is not None:
        found.append(due.astimezone(where.rules))
        at = due
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One due time. `clocks_change`: local clocks are changed on that day, so that it may look odd."""

    due: datetime
    clocks_change: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What a mission's schedule comes to: `text` as it is written, `jitter` this mission's share of `spread`.

    `anchored` is False for an `every` that no daemon has seen yet: its times are counted from now.
    """

    text: str
    zone: str
    spread: timedelta
    jitter: timedelta
    anchored: bool
    at_load: bool
    next: tuple[Slot, ...]


def mission_slots(plan: Plan, state: Path, *, count: int = 5, clock: Clock = SYSTEM) -> Slots | None:
    """The next `count` due times of a mission, as the daemon of this state directory has them; None: no schedule.

    Raises:
        SemanticError: a schedule or option that cannot be.
    """
    policy = policy_of(plan.program, evaluate=plan.evaluate)
    schedule = policy.schedule
    if schedule is None:
        return None
    standing = _standing(plan.name, state, clock)
    known = standing is not None and standing.signature == schedule.signature and standing.anchor is not None
    now = clock.now()
    if schedule.interval is not None:
        anchor = standing.anchor if known and standing is not None and standing.anchor else now + schedule.interval
        schedule = schedule.anchored(anchor)
    return Slots(
        text=schedule.text,
        zone=schedule.zone.name,
        spread=timedelta(seconds=policy.jitter_seconds),
        jitter=schedule.jitter,
        anchored=known or schedule.interval is None,
        at_load=policy.run_immediately and (standing is None or standing.last_run is None),
        next=tuple(_slots(schedule, now, count)),
    )


def _slots(schedule: Schedule, at: datetime, count: int) -> Iterator[Slot]:
    for _ in range(count):
        due = schedule.next_after(at)
        if due is None:
            return
        local = due.astimezone(schedule.zone.rules)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        # In one zone Python subtracts what clocks show: over a change that is not the time between.
        begins, ends = midnight.utcoffset(), (midnight + timedelta(days=1)).utcoffset()
        yield Slot(due=local, clocks_change=begins != ends)
        at = due


def _standing(mission: str, state: Path, clock: Clock) -> Standing | None:
    """What the daemon's ledger knows of a mission, if there is one."""
    directory = StateDirectory(state, clock=clock)
    if not (directory.schedule / "ledger.log").exists():
        return None
    return Ledger(directory, clock=clock).standing(mission)
