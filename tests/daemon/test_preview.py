"""What `reqon --validate-cron` and `reqon plan` show of the times to come."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reqon.diagnostics import Source
from reqon.errors import ConfigurationError, SemanticError
from reqon.lang.loader import load_text
from reqon.runtime.plan import Plan
from reqon.state.directory import StateDirectory
from reqon_daemon.ledger import Ledger
from reqon_daemon.preview import mission_slots, next_runs
from tests.support.clocks import FakeClock


def test_the_next_runs_are_those_of_the_zone_over_the_clock_change() -> None:
    clock = FakeClock(datetime(2026, 3, 7, 12, tzinfo=UTC))
    runs = next_runs("30 2 * * *", "America/New_York", count=3, clock=clock)
    # 8 March has no half past two there: that day's run comes right after the gap.
    assert [r.strftime("%d %H:%M %Z") for r in runs] == ["08 03:00 EDT", "09 02:30 EDT", "10 02:30 EDT"]
    assert runs[1] - runs[0] == timedelta(hours=23, minutes=30)


def test_a_wrong_text_names_what_is_wrong() -> None:
    with pytest.raises(SemanticError, match="4 fields"):
        next_runs("75 2 * *")


def test_an_unknown_zone_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="Mars"):
        next_runs("* * * * *", "Mars")


def planned(clauses: str) -> Plan:
    text = f'mission M {{ {clauses} store s: memory("s") action A {{ clear s }} run A }}'
    (program,) = load_text(Source("m.vague", text)).missions
    return Plan(program, environment={})


def test_slots_of_a_mission_mark_the_days_on_which_clocks_change(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 3, 27, 12, tzinfo=UTC))
    plan = planned('schedule: cron "30 2 * * *" { timezone: "Europe/Oslo" }')
    slots = mission_slots(plan, tmp_path, count=3, clock=clock)
    assert slots is not None
    assert [(slot.due.strftime("%d %H:%M"), slot.clocks_change) for slot in slots.next] == [
        ("28 02:30", False),
        ("29 03:00", True),
        ("30 02:30", False),
    ]


def test_slots_of_an_interval_are_those_of_the_ledger_once_there_is_one(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 3, 27, 12, tzinfo=UTC))
    plan = planned("schedule: every 1 hour")
    before = mission_slots(plan, tmp_path, count=1, clock=clock)
    assert before is not None
    assert not before.anchored
    ledger = Ledger(StateDirectory(tmp_path, clock=clock), clock=clock)
    ledger.open()
    ledger.update("M", signature="every 1 hour +0ms", anchor=clock.now() - timedelta(minutes=10))
    asyncio.run(ledger.commit())
    ledger.close()
    after = mission_slots(plan, tmp_path, count=2, clock=clock)
    assert after is not None
    assert after.anchored
    assert [slot.due.strftime("%H:%M") for slot in after.next] == ["12:50", "13:50"]


def test_a_mission_without_a_schedule_has_no_slots(tmp_path: Path) -> None:
    assert mission_slots(planned(""), tmp_path) is None
