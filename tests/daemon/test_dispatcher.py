import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reqon import events
from reqon.errors import ConfigurationError, ReqonError, StateError
from reqon.events import Emitted
from reqon.http.retry import RetryPolicy
from reqon.runtime.request import CancelReason, RunRequest
from reqon.state.records import ExecutionRecord, ExecutionStatus, Trigger
from reqon_daemon.catalog import Plan
from reqon_daemon.dispatcher import Limits
from reqon_daemon.happenings import RunEnded, RunNotBegun, RunOutcome, SlotOutcome
from tests.support.clocks import FakeClock
from tests.support.timetable import TimedPlan, Timetable, cron, every, mission

START = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def table(tmp_path: Path, clock: FakeClock) -> Timetable:
    return Timetable(tmp_path, clock)


def ended(table: Timetable) -> list[RunEnded]:
    return [h for h in table.happenings if isinstance(h, RunEnded)]


def emit(table: Timetable, event: events.Event, execution_id: str = "exec_x", name: str = "M") -> None:
    table.dispatcher.observe(Emitted(event, 1, execution_id, name, table.clock.now()))


def started(due: datetime | None = None) -> events.MissionStarted:
    return events.MissionStarted(stage_count=1, is_resume=False, trigger="schedule", scheduled_for=due)


def progressed(current: int) -> events.Progressed:
    return events.Progressed(action="A", step="s", current=current, total=None, items_processed=current)


async def test_a_run_over_its_timeout_is_cancelled_and_failed(table: Timetable) -> None:
    table.load(mission(timeout_seconds=30.0))
    table.took = lambda _: 100.0
    async with table.serving():
        table.dispatcher.trigger("M")
        await table.pass_seconds(29)
        assert not ended(table)
        await table.pass_seconds(2)
        (end,) = ended(table)
    assert (end.outcome, end.error_type) == (RunOutcome.FAILURE, "timeout")
    assert end.error == "not done after 30 s"
    assert table.ledger.register("M").consecutive_failures == 1


async def test_the_engine_learns_why_it_is_cancelled(table: Timetable) -> None:
    reasons: list[object] = []

    async def perform(_plan: Plan, _request: RunRequest) -> ExecutionRecord:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            reasons.extend(error.args)
            raise
        raise AssertionError

    table.perform = perform
    table.open()
    table.load(mission(timeout_seconds=5.0), mission("N"), mission("O"))
    async with table.serving():
        for name in ("M", "N", "O"):
            table.dispatcher.trigger(name)
        await table.pass_seconds(6)
        assert await table.dispatcher.cancel("N") == 1
        await table.pass_seconds(1)
    assert reasons == [CancelReason.TIMEOUT, CancelReason.OPERATOR, CancelReason.STOP]
    assert [e.outcome for e in ended(table)] == [RunOutcome.FAILURE, RunOutcome.CANCELLED, RunOutcome.INTERRUPTED]


async def test_a_run_without_headway_is_stuck_but_a_slow_one_is_not(table: Timetable) -> None:
    table.load(mission(stuck_after_seconds=60.0))
    table.took = lambda _: 10_000.0
    async with table.serving():
        table.dispatcher.trigger("M")
        await table.pass_seconds(1)
        emit(table, started())
        for item in range(5):
            await table.pass_seconds(50)
            emit(table, progressed(item + 1))
        assert not ended(table)
        for _ in range(3):  # it says something, but it gets nowhere
            await table.pass_seconds(19)
            emit(table, progressed(5))
        await table.pass_seconds(5)
        (end,) = ended(table)
    assert (end.error_type, end.execution_id) == ("stuck", "exec_x")


async def test_a_failed_scheduled_run_is_resumed_with_backoff(table: Timetable) -> None:
    retry = RetryPolicy(max_attempts=3, initial_delay_seconds=60.0, max_delay_seconds=3600.0, jitter=0.0)
    table.load(mission(schedule=cron("0 9 * * *"), retry=retry))
    table.status = lambda _: ExecutionStatus.FAILED
    async with table.serving():
        await table.until(datetime(2026, 3, 1, 9, 0, tzinfo=UTC))
        assert table.dispatcher.retry_of("M") is not None
        await table.pass_seconds(600)
    nine = datetime(2026, 3, 1, 9, tzinfo=UTC)
    assert [at for _, at in table.began] == [nine, nine + MINUTE, nine + 3 * MINUTE]
    assert [(r.trigger, r.resume, r.execution_id) for r in table.runs] == [
        (Trigger.SCHEDULE, False, None),
        (Trigger.RETRY, True, "exec_1"),
        (Trigger.RETRY, True, "exec_1"),
    ]
    assert [e.will_retry for e in ended(table)] == [True, True, False]


async def test_a_manual_run_is_not_repeated(table: Timetable) -> None:
    table.load(mission(retry=RetryPolicy(initial_delay_seconds=60.0)))
    table.status = lambda _: ExecutionStatus.FAILED
    async with table.serving():
        table.dispatcher.trigger("M")
        await table.pass_seconds(600)
    assert len(table.runs) == 1


async def test_a_pending_rerun_survives_a_restart(table: Timetable, clock: FakeClock) -> None:
    """S7: a retry pending at restart survives and never overlaps a slot."""
    retry = RetryPolicy(max_attempts=2, initial_delay_seconds=300.0, jitter=0.0)
    table.load(mission(schedule=cron("0 9 * * *"), retry=retry))
    table.status = lambda _: ExecutionStatus.FAILED
    async with table.serving():
        await table.until(datetime(2026, 3, 1, 9, 0, tzinfo=UTC))
    clock.advance(100)
    table.open()
    table.status = lambda _: ExecutionStatus.COMPLETED
    async with table.serving():
        await table.pass_seconds(190)
        assert len(table.runs) == 1
        await table.pass_seconds(20)
        assert [r.execution_id for r in table.runs] == [None, "exec_1"]
        assert table.dispatcher.retry_of("M") is None
        assert table.ledger.register("M").retry is None


async def test_a_slot_that_comes_while_a_rerun_waits_starts_the_rerun(table: Timetable) -> None:
    """S7: a retry never overlaps a slot."""
    retry = RetryPolicy(max_attempts=5, initial_delay_seconds=500.0, jitter=0.0)
    table.load(mission(schedule=every(60), retry=retry))
    table.took = lambda _: 20.0
    table.status = lambda request: ExecutionStatus.COMPLETED if request.resume else ExecutionStatus.FAILED
    async with table.serving():
        await table.pass_seconds(150)
        await table.finish()
    assert [r.resume for r in table.runs] == [False, True]
    assert [d.outcome for d in table.decided] == [SlotOutcome.FIRED, SlotOutcome.COALESCED]
    assert table.decided[1].reason == "the rerun of exec_1 that was waiting starts now instead"


async def test_a_success_by_hand_makes_a_rerun_needless(table: Timetable) -> None:
    retry = RetryPolicy(max_attempts=5, initial_delay_seconds=500.0, jitter=0.0)
    table.load(mission(schedule=cron("0 9 * * *"), retry=retry))
    table.status = lambda r: ExecutionStatus.FAILED if r.trigger is Trigger.SCHEDULE else ExecutionStatus.COMPLETED
    async with table.serving():
        await table.until(datetime(2026, 3, 1, 9, 0, tzinfo=UTC))
        table.dispatcher.trigger("M")
        await table.pass_seconds(900)
    assert [r.trigger for r in table.runs] == [Trigger.SCHEDULE, Trigger.MANUAL]
    assert table.ledger.register("M").consecutive_failures == 0


async def test_a_fault_of_ours_in_one_run_fails_that_run_only(table: Timetable) -> None:
    async def perform(plan: Plan, request: RunRequest) -> ExecutionRecord:
        if plan.name == "Bad":
            raise ZeroDivisionError
        if plan.name == "Unset":
            raise ConfigurationError("credentials of 'Api' are missing")
        return await table._run(plan, request)

    table.perform = perform
    table.open()
    table.load(mission("Bad"), mission("Unset"), mission("Good"))
    async with table.serving():
        for name in ("Bad", "Unset", "Good"):
            table.dispatcher.trigger(name)
        await table.pass_seconds(1)
    found = {e.mission: (e.outcome, e.error_type) for e in ended(table)}
    assert found == {
        "Bad": (RunOutcome.FAILURE, "internal"),
        "Unset": (RunOutcome.FAILURE, "config"),
        "Good": (RunOutcome.SUCCESS, None),
    }


async def test_a_run_without_a_record_leaves_its_failure_with_its_slot(table: Timetable) -> None:
    """On a full disk, for instance: `reqon why` has nothing else to tell from."""

    async def perform(plan: Plan, request: RunRequest) -> ExecutionRecord:
        if request.trigger is Trigger.MANUAL:
            return await table._run(plan, request)
        raise StateError("cannot write the lock: No space left on device")

    table.perform = perform
    table.open()
    table.load(mission(schedule=every(60)))
    async with table.serving():
        table.dispatcher.trigger("M")
        await table.pass_seconds(30)
        assert table.ledger.register("M").last_execution
        await table.pass_seconds(30)
    standing = table.ledger.register("M")
    assert (standing.last_outcome, standing.last_execution, standing.consecutive_failures) == ("failure", None, 1)
    (decision,) = table.ledger.decisions("M")
    assert decision.outcome is SlotOutcome.FIRED
    assert decision.reason == "failed: cannot write the lock: No space left on device"


async def test_a_mission_that_another_process_runs_is_skipped(table: Timetable) -> None:
    async def perform(_plan: Plan, _request: RunRequest) -> ExecutionRecord:
        raise ReqonError("M is run by process 4711", code="already-running")

    table.perform = perform
    table.open()
    table.load(mission(schedule=every(60)))
    async with table.serving():
        await table.pass_seconds(60)
    (decision,) = table.ledger.decisions("M")
    assert (decision.outcome, decision.reason) == (SlotOutcome.SKIPPED_OVERLAP, "M is run by process 4711")
    assert not ended(table)
    assert [h.reason for h in table.happenings if isinstance(h, RunNotBegun)] == ["M is run by process 4711"]


async def test_a_run_cancelled_before_its_first_step_is_told(table: Timetable) -> None:
    table.load(mission())
    async with table.serving():
        table.dispatcher.trigger("M")
        assert await table.dispatcher.cancel("M") == 1
        await table.pass_seconds(1)
        assert not table.dispatcher.running
    assert not table.runs
    assert [h.reason for h in table.happenings if isinstance(h, RunNotBegun)] == ["cancelled before it began"]


async def test_a_stop_lets_runs_finish_within_the_grace(tmp_path: Path, clock: FakeClock) -> None:
    release = asyncio.Event()

    async def perform(plan: Plan, request: RunRequest) -> ExecutionRecord:
        if plan.name == "Slow":
            await asyncio.Event().wait()
        await release.wait()
        return served.record(request, 1)

    served = Timetable(tmp_path, clock, perform=perform, limits=Limits(max_running=2, grace_seconds=0.3))
    served.load(mission("Slow"), mission("Quick"), mission("Queued"))
    loop = asyncio.get_running_loop()
    async with served.serving():
        for name in ("Slow", "Quick", "Queued"):
            served.dispatcher.trigger(name)
        await asyncio.sleep(0)
        loop.call_later(0.05, release.set)
        began = loop.time()
    assert 0.25 < loop.time() - began < 1.0
    assert {e.mission: e.outcome for e in ended(served)} == {
        "Quick": RunOutcome.SUCCESS,
        "Slow": RunOutcome.INTERRUPTED,
    }
    with pytest.raises(ReqonError, match="stopping"):
        served.dispatcher.trigger("Quick")


async def test_a_stop_wakes_runs_that_only_wait(tmp_path: Path, clock: FakeClock) -> None:
    waits = asyncio.Event()

    async def perform(plan: Plan, request: RunRequest) -> ExecutionRecord:
        await waits.wait()
        return served.record(request, 1)

    served = Timetable(tmp_path, clock, perform=perform, limits=Limits(grace_seconds=20.0))
    served.dispatcher.wake = waits.set
    served.load(mission())
    loop = asyncio.get_running_loop()
    async with served.serving():
        served.dispatcher.trigger("M")
        await asyncio.sleep(0)
        began = loop.time()
    assert loop.time() - began < 2
    assert len(ended(served)) == 1


async def test_a_rerun_of_an_edited_mission_runs_anew(table: Timetable) -> None:
    retry = RetryPolicy(max_attempts=2, initial_delay_seconds=60.0, jitter=0.0)
    loaded = mission(schedule=cron("0 9 * * *"), retry=retry)
    table.load(loaded)
    table.status = lambda _: ExecutionStatus.FAILED
    async with table.serving():
        await table.until(datetime(2026, 3, 1, 9, 0, tzinfo=UTC))
        table.load(replace(loaded, plan=TimedPlan("M", loaded.plan.program, "h2")))
        table.scheduler.replace(table.missions)
        await table.pass_seconds(120)
    assert [(r.trigger, r.resume, r.definition_hash) for r in table.runs] == [
        (Trigger.SCHEDULE, False, "h1"),
        (Trigger.RETRY, False, "h2"),
    ]


async def test_cancel_ends_what_runs_queues_and_waits(table: Timetable) -> None:
    retry = RetryPolicy(max_attempts=5, initial_delay_seconds=500.0, jitter=0.0)
    table.load(mission(schedule=cron("0 9 * * *"), retry=retry))
    table.status = lambda _: ExecutionStatus.FAILED
    async with table.serving():
        await table.until(datetime(2026, 3, 1, 9, 0, tzinfo=UTC))
        table.took = lambda _: 100.0
        assert table.dispatcher.trigger("M") == "started"
        await asyncio.sleep(0)
        assert table.dispatcher.trigger("M").startswith("queued behind")
        assert table.dispatcher.trigger("M") == "already queued"
        assert await table.dispatcher.cancel("M") == 3
        await table.pass_seconds(1)
        assert await table.dispatcher.cancel("M") == 0
        await table.pass_seconds(900)
    assert len(table.runs) == 2
    assert ended(table)[-1].outcome is RunOutcome.CANCELLED


async def test_an_unknown_mission_is_not_triggered(table: Timetable) -> None:
    async with table.serving():
        with pytest.raises(ReqonError, match="no mission 'Nope' is loaded"):
            table.dispatcher.trigger("Nope")


async def test_a_queued_run_of_a_removed_mission_is_noted_as_missed(table: Timetable) -> None:
    table.limits.max_running = 1
    table.load(mission("Long"), mission(schedule=every(60)))
    table.took = lambda _: 300.0
    async with table.serving():
        table.dispatcher.trigger("Long")
        await table.pass_seconds(60)
        assert table.dispatcher.queued == 1
        del table.missions["M"]
        table.scheduler.replace(table.missions)
        await table.pass_seconds(300)
    (decision,) = table.ledger.decisions("M")
    assert (decision.outcome, decision.reason) == (SlotOutcome.MISSED, "its mission was removed")


async def test_the_ledger_keeps_the_last_run_and_success(table: Timetable) -> None:
    table.load(mission(keeps_state=False))
    table.took = lambda _: 12.0
    async with table.serving():
        table.dispatcher.trigger("M")
        await table.finish()
    table.open()
    standing = table.ledger.register("M")
    assert standing.last_run == START
    assert standing.last_success == START + timedelta(seconds=12)
    assert standing.last_duration_seconds == pytest.approx(12)
    assert standing.last_outcome == "success"
