import asyncio
import time
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reqon.state.records import ExecutionRecord, ExecutionStatus, Trigger
from reqon_daemon.alarm import TimerAlarm
from reqon_daemon.happenings import ClockJumped, RunStarted, SlotOutcome
from reqon_daemon.policy import CatchUp
from tests.support.clocks import FakeClock
from tests.support.timetable import Timetable, cron, every, mission, once

START = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def table(tmp_path: Path, clock: FakeClock) -> Timetable:
    return Timetable(tmp_path, clock)


def outcomes(table: Timetable, name: str = "M") -> Counter[SlotOutcome]:
    found: Counter[SlotOutcome] = Counter()
    for decided in table.decided:
        if decided.mission == name:
            found[decided.outcome] += decided.count
    return found


async def test_a_year_of_daily_slots_runs_each_once(table: Timetable, clock: FakeClock) -> None:
    table.load(mission(schedule=cron("30 2 * * *", "America/New_York")))
    async with table.serving():
        at = START
        for _ in range(365):  # a tick a day: time between slots is of no interest here
            due = table.scheduler.next_due("M")
            assert due is not None
            assert due > at
            clock.set_wall(due)
            await table.scheduler.tick()
            await asyncio.sleep(0)
            at = due
    dues = table.dues()
    assert len(dues) == 365
    assert all(a < b for a, b in pairwise(dues))
    assert {due.hour for due in dues} == {6, 7}


async def test_every_counts_from_load_and_does_not_drift_by_run_time(table: Timetable) -> None:
    table.load(mission(schedule=every(60)))
    table.took = lambda _: 17.0
    async with table.serving():
        await table.pass_seconds(600)
    assert table.dues() == [START + timedelta(seconds=60 * n) for n in range(1, 11)]


async def test_run_immediately_runs_at_load_once_ever(table: Timetable, clock: FakeClock) -> None:
    table.load(mission(schedule=every(60), run_immediately=True))
    async with table.serving():
        await table.pass_seconds(1)
        assert table.dues() == [START]
        await table.pass_seconds(69)
    table.open()
    async with table.serving():
        await table.pass_seconds(60)
    assert table.dues() == [START + timedelta(seconds=60 * n) for n in range(3)]


async def test_a_restart_moves_neither_anchor_nor_next_slot(table: Timetable, clock: FakeClock) -> None:
    table.load(mission(schedule=every(900)))
    async with table.serving():
        await table.pass_seconds(1000)
        following = table.scheduler.next_due("M")
    clock.advance(333)
    table.open()
    async with table.serving():
        assert table.scheduler.next_due("M") == following


async def test_an_edited_schedule_starts_after_the_edit(table: Timetable, clock: FakeClock) -> None:
    table.load(mission(schedule=cron("0 * * * *")))
    async with table.serving():
        await table.pass_seconds(7200)
        assert len(table.runs) == 2
        table.load(mission(schedule=cron("*/5 * * * *")))
        table.scheduler.replace(table.missions)
        assert table.scheduler.next_due("M") == datetime(2026, 3, 1, 10, 20, tzinfo=UTC)
    clock.advance(3600)
    table.open()
    table.load(mission(schedule=cron("0 * * * *")))
    async with table.serving():
        await table.pass_seconds(1)
        assert len(table.runs) == 2
        assert table.scheduler.next_due("M") == datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(("down", "interval", "missed"), [(timedelta(hours=2), 1800, 4), (timedelta(hours=8), 1, 1000)])
async def test_one_late_run_makes_up_for_all_missed_slots(
    table: Timetable, clock: FakeClock, down: timedelta, interval: int, missed: int
) -> None:
    """S4: down 2 h at 30 min, 8 h at 1 s: one late run at most, the count is right, start in 2 s."""
    table.load(mission(schedule=every(interval)))
    async with table.serving():
        await table.pass_seconds(interval)
    table.runs.clear()
    table.happenings.clear()
    clock.advance(down.total_seconds() + 0.5)
    began = time.process_time()
    table.open()
    async with table.serving():
        await table.scheduler.tick()
        await asyncio.sleep(0)
        assert len(table.runs) == 1
        assert time.process_time() - began < 1
    assert sum(d.count for d in table.decided) == missed
    assert table.decided[-1].outcome in (SlotOutcome.CAUGHT_UP, SlotOutcome.FIRED)
    assert table.runs[0].scheduled_for == table.decided[-1].due


@pytest.mark.parametrize(
    ("catch_up", "runs", "expected"),
    [
        (CatchUp.NONE, 0, {SlotOutcome.MISSED: 6}),
        (CatchUp.LAST, 1, {SlotOutcome.COALESCED: 5, SlotOutcome.CAUGHT_UP: 1}),
        (CatchUp.ALL, 6, {SlotOutcome.CAUGHT_UP: 6}),
    ],
)
async def test_catch_up_says_which_missed_slots_run(
    table: Timetable, clock: FakeClock, catch_up: CatchUp, runs: int, expected: dict[SlotOutcome, int]
) -> None:
    table.load(mission(schedule=cron("0 * * * *"), catch_up=catch_up))
    async with table.serving():
        await table.pass_seconds(1)
    clock.advance(6 * 3600)
    table.open()
    async with table.serving():
        await table.pass_seconds(30)
    assert len(table.runs) == runs
    assert outcomes(table) == expected
    assert table.dues() == sorted(table.dues())


async def test_a_missed_slot_older_than_a_day_and_an_interval_is_not_caught_up(
    table: Timetable, clock: FakeClock
) -> None:
    table.load(mission("Hourly", cron("0 9 * * 1")), mission("Weekly", every(7 * 86_400)))
    async with table.serving():
        await table.pass_seconds(1)
    clock.set_wall(START + timedelta(days=9))  # Monday 2 March was 8 days ago; the 9th, yesterday
    clock.advance(3600)
    table.open()
    async with table.serving():
        await table.pass_seconds(5)
    assert [d.outcome for d in table.decided if d.mission == "Hourly"] == [SlotOutcome.COALESCED, SlotOutcome.CAUGHT_UP]
    assert [d.outcome for d in table.decided if d.mission == "Weekly"] == [SlotOutcome.CAUGHT_UP]


async def test_at_in_the_past_is_missed_and_at_in_the_future_runs_once_ever(table: Timetable, clock: FakeClock) -> None:
    table.load(mission("Past", once(START - timedelta(days=1))), mission("Future", once(START + timedelta(minutes=5))))
    async with table.serving():
        await table.pass_seconds(600)
    assert outcomes(table, "Past") == {SlotOutcome.MISSED: 1}
    assert outcomes(table, "Future") == {SlotOutcome.FIRED: 1}
    table.open()
    async with table.serving():
        await table.pass_seconds(86_400)
    assert [r.mission for r in table.runs] == ["Future"]


async def test_a_run_longer_than_its_interval_never_runs_twice_at_once(table: Timetable) -> None:
    """S5: run longer than its interval for an hour: never two, one decision per slot."""
    table.load(mission(schedule=every(60)))
    table.took = lambda _: 150.0
    async with table.serving():
        await table.pass_seconds(3600)
        await table.finish()
    for (_, ended), (_, began) in zip(table.ended, table.began[1:], strict=False):
        assert ended <= began
    dues = [d.due for d in table.decided]
    assert dues == [START + timedelta(seconds=60 * n) for n in range(1, 61)]
    assert outcomes(table)[SlotOutcome.FIRED] == 20
    assert outcomes(table)[SlotOutcome.SKIPPED_OVERLAP] == 40


async def test_max_concurrency_bounds_runs_at_once_when_slots_are_not_skipped(table: Timetable) -> None:
    table.load(mission(schedule=every(60), skip_if_running=False, max_runs=2))
    table.took = lambda _: 150.0
    most = 0
    async with table.serving():
        for _ in range(60):
            await table.pass_seconds(30)
            most = max(most, len(table.dispatcher.running))
        await table.finish()
    assert most == 2
    assert outcomes(table)[SlotOutcome.SKIPPED_OVERLAP] > 0


@pytest.mark.parametrize(
    "jump",
    [
        timedelta(minutes=5),
        timedelta(minutes=-5),
        timedelta(hours=1),
        timedelta(hours=-1),
        timedelta(days=1),
        timedelta(days=-1),
        timedelta(days=3652),
    ],
)
async def test_a_clock_that_jumps_causes_no_burst_and_no_slot_twice(
    table: Timetable, clock: FakeClock, jump: timedelta
) -> None:
    """S2: ± 5 min, ± 1 h, ± 1 day, + 10 years and back: no slot twice, no burst, no pause over 2 s."""
    table.load(mission(schedule=every(60)), mission("Daily", cron("0 9 * * *")))
    async with table.serving():
        await table.pass_seconds(150)
        runs = len(table.runs)
        clock.set_wall(clock.now() + jump)
        for _ in range(2):  # two seconds of real time
            await table.scheduler.tick()
            await asyncio.sleep(0)
            clock.advance(1)
        assert len(table.runs) - runs <= 2
        if jump > timedelta(0):
            assert len(table.runs) > runs
        await table.pass_seconds(120)
        clock.set_wall(clock.now() - jump)
        runs = len(table.runs)
        for _ in range(2):
            await table.scheduler.tick()
            await asyncio.sleep(0)
            clock.advance(1)
        assert len(table.runs) - runs <= 2
    for name in ("M", "Daily"):
        assert len(table.dues(name)) == len(set(table.dues(name)))
    jumps = [h for h in table.happenings if isinstance(h, ClockJumped)]
    assert [round(j.by / jump) for j in jumps] == [1, -1]
    assert table.scheduler.clock_jumped is (abs(jump) > timedelta(hours=1))


async def test_after_ten_years_and_back_slots_go_on(table: Timetable, clock: FakeClock) -> None:
    """S2: a newest decision more than 24 h ahead of now doesn't count, not even after a restart; 10 MiB at most.

    Ten years have five million minutes, and three hundred million seconds.
    """
    table.load(mission(schedule=every(60)), mission("Quick", every(1)))
    async with table.serving():
        await table.pass_seconds(150)
        tracemalloc.start()
        clock.set_wall(clock.now() + timedelta(days=3652))
        await table.pass_seconds(130)
        clock.set_wall(clock.now() - timedelta(days=3652))
        await table.pass_seconds(1)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
        tracemalloc.stop()
        clock.set_wall(clock.now() - timedelta(seconds=1))
        del table.missions["Quick"]
        table.scheduler.replace(table.missions)
        runs = len(table.runs)
        await table.pass_seconds(180)
        assert len(table.runs) == runs + 3
    table.open()
    async with table.serving():
        await table.pass_seconds(180)
        assert len(table.runs) == runs + 6


async def test_a_suspended_machine_runs_one_late_slot(table: Timetable, clock: FakeClock) -> None:
    """S2: suspended 10 min."""
    table.load(mission(schedule=every(60)))
    async with table.serving():
        await table.pass_seconds(90)
        clock.set_wall(clock.now() + timedelta(minutes=10))
        await table.pass_seconds(20)
    assert len(table.runs) == 2
    assert outcomes(table)[SlotOutcome.COALESCED] == 9


async def test_five_hundred_slots_due_in_one_second_are_each_run_once(table: Timetable) -> None:
    """S6: 500 due in one second: none lost or doubled."""
    table.load(*(mission(f"M{n}", cron("0 9 * * *")) for n in range(500)))
    table.took = lambda _: 1.0
    most = 0
    async with table.serving():
        await table.until(datetime(2026, 3, 1, 9, 0, tzinfo=UTC))
        for _ in range(40):
            most = max(most, len(table.dispatcher.running))
            await table.pass_seconds(1)
    assert most == 32
    assert Counter(r.mission for r in table.runs) == {f"M{n}": 1 for n in range(500)}
    assert len(table.decided) == 500


async def test_missions_below_the_cap_start_on_time(table: Timetable) -> None:
    """S6: 100 missions each 10 s for 10 min: start lateness, here without the cost of a disk."""
    table.limits.max_running = 200
    table.load(*(mission(f"M{n}", every(10)) for n in range(100)))
    table.took = lambda _: 0.5
    async with table.serving():
        await table.pass_seconds(600)
    lags = sorted(h.lag_seconds or 0.0 for h in table.happenings if isinstance(h, RunStarted))
    assert len(lags) == 6000
    assert lags[-60] <= 0.25


async def test_the_stalest_mission_goes_first_and_a_person_before_it(table: Timetable, clock: FakeClock) -> None:
    table.limits.max_running = 1
    table.load(*(mission(name, cron("0 9 * * *")) for name in ("Fresh", "Stale", "Never", "Asked")))
    async with table.serving():
        table.ledger.update("Fresh", last_success=START)
        table.ledger.update("Asked", last_success=START)
        table.ledger.update("Stale", last_success=START - timedelta(days=4))
        table.took = lambda _: 1.0
        table.missions["Busy"] = mission("Busy")
        table.dispatcher.trigger("Busy")
        table.load(*table.missions.values())
        del table.missions["Asked"]
        table.scheduler.replace(table.missions)
        clock.set_wall(datetime(2026, 3, 1, 9, 0, tzinfo=UTC))
        await table.scheduler.tick()
        table.missions["Asked"] = mission("Asked")
        table.dispatcher.trigger("Asked")
        await table.finish()
    assert [r.mission for r in table.runs] == ["Busy", "Asked", "Never", "Stale", "Fresh"]


async def test_a_paused_mission_skips_its_slots_and_says_why(table: Timetable) -> None:
    table.load(mission(schedule=every(60)))
    async with table.serving():
        await table.dispatcher.pause("M", seconds=150, reason="the API is being moved")
        await table.pass_seconds(300)
    assert outcomes(table) == {SlotOutcome.SKIPPED_PAUSED: 2, SlotOutcome.FIRED: 3}
    assert table.decided[0].reason == "paused until 2026-03-01T08:17:30.000Z: the API is being moved"


async def test_a_pause_survives_a_restart_until_it_is_lifted(table: Timetable) -> None:
    table.load(mission(schedule=every(60)))
    async with table.serving():
        await table.dispatcher.pause("M")
    table.open()
    async with table.serving():
        await table.pass_seconds(130)
        assert not table.runs
        assert await table.dispatcher.unpause("M")
        assert not await table.dispatcher.unpause("M")
        await table.pass_seconds(60)
        assert len(table.runs) == 1


async def test_a_mission_that_breaks_the_scheduler_touches_no_other(table: Timetable) -> None:
    class Broken(type(every(60))):  # type: ignore[misc]
        def latest_between(self, after: datetime, until: datetime) -> datetime | None:
            raise ZeroDivisionError

    good = every(60)
    broken = Broken(rule=good.rule, text=good.text, zone=good.zone)
    table.load(mission("Bad", good), mission("Worse", broken), mission("Good", good))
    async with table.serving():
        entry = table.scheduler._entries["Bad"]
        entry.schedule = broken.anchored(START)
        await table.pass_seconds(180)
    assert [r.mission for r in table.runs] == ["Good"] * 3


async def test_a_deleted_and_recreated_file_loses_no_slot(table: Timetable) -> None:
    loaded = mission(schedule=every(60))
    table.load(loaded)
    async with table.serving():
        await table.pass_seconds(119)
        table.load()
        table.scheduler.replace(table.missions)
        await table.pass_seconds(2)
        table.load(loaded)
        table.scheduler.replace(table.missions)
        await table.pass_seconds(60)
    assert table.dues() == [START + timedelta(seconds=60 * n) for n in (1, 2, 3)]


async def test_slots_of_a_mission_that_was_away_are_not_made_up_for(table: Timetable) -> None:
    loaded = mission(schedule=cron("0 * * * *"))
    table.load(loaded)
    async with table.serving():
        table.load()
        table.scheduler.replace(table.missions)
        await table.pass_seconds(4 * 3600)
        table.load(loaded)
        table.scheduler.replace(table.missions)
        await table.pass_seconds(60)
        assert not table.runs
        assert table.scheduler.next_due("M") == datetime(2026, 3, 1, 13, tzinfo=UTC)


async def test_a_run_decided_before_a_kill_is_started_once_after_it(table: Timetable, clock: FakeClock) -> None:
    table.load(mission(schedule=every(60)))
    async with table.serving():
        table.dispatcher._stopping = True  # as if the process ended right after the decision was on disk
        await table.pass_seconds(60)
        assert not table.runs
        assert len(table.decided) == 1

    async def none(_mission: str, _due: datetime) -> None:
        return None

    async def found(name: str, due: datetime) -> ExecutionRecord:
        return ExecutionRecord(
            execution_id="exec_a", mission=name, started_at=due, status=ExecutionStatus.RUNNING, scheduled_for=due
        )

    table.open()
    async with table.serving():
        assert [job.due for job in await table.scheduler.recover(none)] == [START + timedelta(seconds=60)]
        await table.pass_seconds(1)
        assert table.dues() == [START + timedelta(seconds=60)]
        assert table.runs[0].trigger is Trigger.SCHEDULE
    table.open()
    async with table.serving():
        assert await table.scheduler.recover(none) == []
        assert await table.scheduler.recover(found) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happens_each_slot_gets_one_decision_and_one_run(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Restarts, outages, slow runs, jumps forward: every slot is decided once, and what is decided to run runs once."""

    async def scenario() -> None:
        clock = FakeClock(START)
        table = Timetable(tmp_path_factory.mktemp("ledger"), clock)
        interval = data.draw(st.sampled_from((7, 60, 3600)))
        table.load(mission(schedule=every(interval), catch_up=data.draw(st.sampled_from(CatchUp))))
        chance = Random(data.draw(st.integers(0, 2**32)))
        table.took = lambda _: chance.choice((0.0, 3.0, 100.0))
        for _ in range(data.draw(st.integers(1, 5))):
            async with table.serving():
                await table.scheduler.recover(table.find_run)
                await table.pass_seconds(data.draw(st.integers(1, 120)))
                if data.draw(st.booleans()):
                    await table.finish()
            clock.advance(data.draw(st.sampled_from((0, 1, 50, 5000, 200_000))))
            table.open()
        async with table.serving():
            await table.scheduler.recover(table.find_run)
            await table.finish()
        decided = {d.due: d for d in table.decided}  # what was amended after an outage counts
        step = timedelta(seconds=interval)
        covered = Counter(
            n for d in decided.values() for n in range((d.first_due - START) // step, (d.due - START) // step + 1)
        )
        decided_until = max(decided, default=START)
        assert covered == dict.fromkeys(range(1, (decided_until - START) // step + 1), 1)
        assert Counter(table.dues()) == {d.due: 1 for d in decided.values() if d.outcome.runs}

    asyncio.run(scenario())


async def test_the_timer_rings_at_the_due_time_and_at_least_once_a_second() -> None:
    alarm = TimerAlarm()
    loop = asyncio.get_running_loop()
    try:
        began = loop.time()
        await alarm.wait(datetime.now(UTC) + timedelta(seconds=0.2))
        assert 0.15 < loop.time() - began < 0.6
        began = loop.time()
        await alarm.wait(None)
        assert 0.9 < loop.time() - began < 1.5
        began = loop.time()
        await alarm.wait(datetime.now(UTC) - timedelta(seconds=90))  # long past: no grace of one second
        assert loop.time() - began < 0.5
    finally:
        alarm.close()
