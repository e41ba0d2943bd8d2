"""From a failed run to the on-call person: real servers, real files, restarts and kills in between."""

import asyncio
import hmac
import os
import random
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from reqon import files
from reqon.clock import SYSTEM, Clock
from reqon.diagnostics import Diagnostic, Source, Span
from reqon.errors import ConfigurationError, Location
from reqon.events import TOKENS_NOT_KEPT, AuthRefreshed, Emitted, EventBus, FetchFailed
from reqon.secrets import SECRETS
from reqon.state.records import ExecutionRecord, ExecutionStatus, RunError, Trigger
from reqon.values import decode
from reqon_daemon.alerts import Alerts, Watched
from reqon_daemon.happenings import Happenings, RunEnded, RunOutcome, SchedulerTicked, SlotDecided, SlotOutcome
from reqon_daemon.health import Health
from reqon_daemon.incidents import Status
from reqon_daemon.metrics import Metrics
from reqon_daemon.notifiers import NotifierTarget
from reqon_daemon.outbox import CAPACITY, Answer, Entry, Lane, Outbox, Outcome, Sender
from reqon_daemon.settings import DaemonSettings
from reqon_daemon.targets import (
    AlertmanagerTarget,
    CommandTarget,
    HttpTarget,
    PagerDutyTarget,
    SlackTarget,
    WebhookTarget,
    is_plain_text,
    parse_target,
)
from reqon_daemon.trial import send_test
from tests.support.alert_target import alert_target
from tests.support.clocks import FakeClock
from tests.support.processes import ROOT, environment

START = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)
PLACE = Location.of(Span(Source("a.vague", "\n\n    get x"), 6, 9))  # as runs have it


# Some of its plugins, all of which it imports, use what newer Pythons will not have.
apprise_imported = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class FastClock:
    """A clock that runs so many times faster than the machine's."""

    def __init__(self, factor: float = 1000.0) -> None:
        self._factor = factor
        self._began = SYSTEM.monotonic()

    def monotonic(self) -> float:
        return (SYSTEM.monotonic() - self._began) * self._factor

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._factor)


def record(
    mission: str = "A", number: int = 1, *, failed: bool = True, message: str = "HTTP 503", seconds: int = 0
) -> ExecutionRecord:
    at = START + timedelta(seconds=seconds or number)
    error = RunError(message=message, type="http", at=at, action="Load", step="get", location=PLACE)
    return ExecutionRecord(
        execution_id=f"exec_{number:026d}",
        mission=mission,
        started_at=at - timedelta(seconds=1),
        completed_at=at,
        status=ExecutionStatus.FAILED if failed else ExecutionStatus.COMPLETED,
        errors=(error,) if failed else (),
        errors_total=int(failed),
        duration_ms=1000,
        items_processed=7,
    )


def ended(made: ExecutionRecord, *, will_retry: bool = False) -> RunEnded:
    failed = made.status is ExecutionStatus.FAILED
    return RunEnded(
        at=made.completed_at or START,
        mission=made.mission,
        trigger=Trigger.SCHEDULE,
        due=None,
        outcome=RunOutcome.FAILURE if failed else RunOutcome.SUCCESS,
        duration_seconds=1,
        execution_id=made.execution_id,
        record=made,
        will_retry=will_retry,
    )


def watched(name: str = "A", *targets: Sender, limit: float | None = None) -> Watched:
    return Watched(name=name, path="a.vague", targets=targets, registered_at=START, freshness_limit_seconds=limit)


@asynccontextmanager
async def alerting(
    directory: Path,
    *targets: Sender,
    clock: Clock | None = None,
    missions: tuple[str, ...] = ("A",),
    health: Health | None = None,
) -> AsyncIterator[tuple[Alerts, Happenings]]:
    """Alerts that run, with those missions loaded."""
    alerts = Alerts(directory, targets, instance="host", clock=clock or FastClock(), metrics=Metrics(), health=health)
    happenings = Happenings()
    alerts.load()
    alerts.observe(happenings)
    for name in missions:
        alerts.mission_loaded(watched(name))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(alerts.run())
        try:
            yield alerts, happenings
        finally:
            running.cancel()


def files_of(directory: Path) -> list[str]:
    outbox = directory / "outbox"
    return sorted(p.name for p in outbox.iterdir()) if outbox.exists() else []


async def test_a_failure_is_told_once_and_resolved_once_over_a_restart(tmp_path: Path) -> None:
    """A3 in part: twenty failures, a restart, a success."""
    async with alert_target() as api:
        async with alerting(tmp_path, parse_target(api.url)) as (alerts, happenings):
            for number in range(1, 21):
                happenings.emit(ended(record(number=number)))
            await api.count(1)
            assert await alerts.flush(5)
        async with alerting(tmp_path, parse_target(api.url)) as (alerts, happenings):
            happenings.emit(ended(record(number=21, failed=False)))
            await api.count(2)
            assert await alerts.flush(5)
        assert api.states == ["firing", "resolved"]
        assert files_of(tmp_path) == []


async def test_alertmanager_is_told_again_that_it_is_over_also_after_a_restart(tmp_path: Path) -> None:
    """What was resolved stays up for five minutes: an Alertmanager that was down for one hears it all the same."""
    async with alert_target() as api:
        target = f"alertmanager+{api.url}"
        async with alerting(tmp_path, parse_target(target), clock=FastClock(1)) as (alerts, happenings):
            happenings.emit(ended(record(number=1)))
            happenings.emit(ended(record(number=2, failed=False)))
            await api.count(2)
            assert await alerts.flush(5)
        told = len(api.taken)
        async with alerting(tmp_path, parse_target(target), clock=FastClock(60)):
            again = (await api.count(told + 1))[-1]
        assert "Idempotency-Key" not in again.headers
        (alert,) = again.body
        assert alert["labels"]["mission"] == "A"
        assert alert["endsAt"] == "2026-03-01T08:15:02.000Z"


async def test_the_command_to_resume_has_what_this_daemon_was_started_with(tmp_path: Path) -> None:
    options = DaemonSettings(state_dir=Path("my state")).resume_options
    async with alert_target() as api, alerting(tmp_path, parse_target(api.url)) as (alerts, happenings):
        alerts.resume_options = options
        happenings.emit(ended(record(number=5)))
        (taken,) = await api.count(1)
    (alert,) = taken.body["alerts"]
    resume = f"reqon a.vague --state-dir 'my state' --resume --execution exec_{5:026d}"
    assert alert["annotations"]["resume"] == resume
    assert not DaemonSettings().resume_options


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (("a.test", 500), ("a.test", 503), True),
        (("a.test", 500), ("a.test", 404), False),
        (("a.test", 500), ("b.test", 500), False),
    ],
)
async def test_missions_share_an_incident_when_one_api_fails_them_in_one_way(
    first: tuple[str, int], second: tuple[str, int], joined: bool, tmp_path: Path
) -> None:
    """The source's name alone says nothing: each mission declares its own."""
    bus = EventBus()
    async with alert_target() as api, alerting(tmp_path, parse_target(api.url), missions=("A", "B")) as (alerts, told):
        alerts.listen(bus)
        for number, (mission, (host, status)) in enumerate((("A", first), ("B", second)), 1):
            failure = FetchFailed(
                source="Api",
                method="GET",
                path="/x",
                url=f"https://{host}/x",
                error="no",
                kind="http",
                retryable=False,
                delivered=False,
                attempts=1,
                status_code=status,
            )
            failed = record(mission, number)
            bus.emit(Emitted(failure, 1, failed.execution_id, mission, START))
            told.emit(ended(failed))
        await api.count(1 if joined else 2)
        assert len(alerts.incidents.incidents) == (1 if joined else 2)


async def test_the_body_is_alertmanagers_and_says_what_to_do(tmp_path: Path) -> None:
    async with alert_target() as api:
        async with alerting(tmp_path, parse_target(f"{api.url}/hook")) as (_, happenings):
            happenings.emit(ended(record(number=5)))
            (taken,) = await api.count(1)
        body = taken.body
        assert body["version"] == "4"
        (alert,) = body["alerts"]
        assert alert["labels"] == {
            "alertname": "ReqonMissionFailed",
            "mission": "A",
            "kind": "failed",
            "instance": "host",
            "severity": "error",
        }
        notes = alert["annotations"]
        assert notes["summary"] == "A failed: HTTP 503"
        assert notes["location"] == "a.vague:3:5"
        assert notes["items"] == "7"
        assert notes["lastSuccess"] == "never"
        assert notes["resume"] == f"reqon a.vague --resume --execution exec_{5:026d}"
        assert all(isinstance(value, str) for value in notes.values())


async def test_a_failure_that_will_be_retried_is_no_incident(tmp_path: Path) -> None:
    async with alert_target() as api, alerting(tmp_path, parse_target(api.url)) as (alerts, happenings):
        happenings.emit(ended(record(number=1), will_retry=True))
        assert await alerts.flush(5)
        assert api.taken == []
        happenings.emit(ended(record(number=2)))
        await api.count(1)


async def test_failure_and_success_while_the_target_is_down_are_both_told_in_order(tmp_path: Path) -> None:
    """A3 in part: the target is down."""
    async with alert_target(503, 503, 503, 200) as api:
        async with alerting(tmp_path, parse_target(api.url)) as (alerts, happenings):
            happenings.emit(ended(record(number=1)))
            happenings.emit(ended(record(number=2, failed=False)))
            await api.count(5)
            assert await alerts.flush(5)
        assert api.states == ["firing"] * 4 + ["resolved"]
        assert len(set(api.ids)) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
async def test_what_a_target_refuses_is_not_sent_again(tmp_path: Path, status: int) -> None:
    """A4 in part: client errors."""
    health = Health()
    async with (
        alert_target(status) as api,
        alerting(tmp_path, parse_target(api.url), health=health) as (alerts, happenings),
    ):
        happenings.emit(ended(record()))
        await api.count(1)
        assert await alerts.flush(5)
        assert files_of(tmp_path) == []
        assert len(api.taken) == 1
        assert health.reasons == (f"alerts to {api.url} are not delivered",)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_what_a_target_cannot_take_now_is_sent_again_with_the_same_id(tmp_path: Path, status: int) -> None:
    """A4 in part: 429 and server errors."""
    async with alert_target(status, status, 200) as api:
        async with alerting(tmp_path, parse_target(api.url)) as (alerts, happenings):
            happenings.emit(ended(record()))
            await api.count(3)
            assert await alerts.flush(5)
        assert len(set(api.ids)) == 1
        assert files_of(tmp_path) == []


async def test_retry_after_is_kept(tmp_path: Path) -> None:
    async with alert_target(429, 200) as api:
        api.headers = {"Retry-After": "120"}
        clock = FastClock()
        async with alerting(tmp_path, parse_target(api.url), clock=clock) as (_, happenings):
            happenings.emit(ended(record()))
            await api.count(1)
            began = clock.monotonic()
            await api.count(2)
            assert clock.monotonic() - began > 100


async def test_a_redirect_is_not_followed_and_a_huge_answer_not_read(tmp_path: Path) -> None:
    """A4 in part: redirect, 10 MB answer."""
    async with alert_target(302) as api:
        api.headers = {"Location": "/elsewhere"}
        target = parse_target(api.url)
        assert (await target.send(_entry(target.key))).answer is Answer.REJECTED
        assert [one.path for one in api.taken] == ["/"]
        await target.close()
    async with alert_target(200) as api:
        api.body = b"x" * 10_000_000
        target = parse_target(api.url)
        assert (await target.send(_entry(target.key))).answer is Answer.DELIVERED
        await target.close()


async def test_a_target_that_hangs_ends_by_its_deadline(tmp_path: Path) -> None:
    """A4 in part: hang."""
    async with alert_target() as api:
        api.hold = asyncio.Event()
        target = WebhookTarget(api.url, api.url, seconds=0.3)
        assert (await target.send(_entry(target.key))).answer is Answer.LATER
        await target.close()


ANSWERS = {
    "200": Answer.DELIVERED,
    "400": Answer.REJECTED,
    "404": Answer.REJECTED,
    "429": Answer.LATER,
    "500": Answer.LATER,
    "hang": Answer.LATER,
    "redirect": Answer.REJECTED,
    "10 MB": Answer.DELIVERED,
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("kind", [WebhookTarget, AlertmanagerTarget, PagerDutyTarget, SlackTarget])
async def test_every_target_takes_an_answer_for_what_it_is(kind: type[HttpTarget], answer: str) -> None:
    """A4: each answer from each kind of target; a secret of its URL stays out of what is told."""
    async with alert_target(int(answer) if answer.isdigit() else 302 if answer == "redirect" else 200) as api:
        api.headers = {"Location": "/elsewhere"} if answer == "redirect" else {}
        api.body = b"x" * 10_000_000 if answer == "10 MB" else b"said"
        api.hold = asyncio.Event() if answer == "hang" else None
        target = kind(api.url, f"{api.url}/services/T0PSECRETPATH", seconds=0.3 if answer == "hang" else 10)
        outcome = await target.send(_entry(target.key))
        assert outcome.answer is ANSWERS[answer]
        assert "SECRET" not in outcome.reason
        assert "SECRET" not in target.shown
        assert [one.path for one in api.taken] == ["/services/T0PSECRETPATH"]
        await target.close()


async def test_a_target_that_is_gone_is_tried_again() -> None:
    target = parse_target("http://127.0.0.1:9")
    outcome = await target.send(_entry(target.key))
    assert outcome.answer is Answer.LATER
    await target.close()


async def test_one_target_down_does_not_hold_up_another(tmp_path: Path) -> None:
    async with alert_target() as up, alert_target() as down:
        down.hold = asyncio.Event()
        targets = (parse_target(down.url), parse_target(up.url))
        async with alerting(tmp_path, *targets) as (_, happenings):
            happenings.emit(ended(record()))
            await up.count(1)


async def test_after_72_hours_an_alert_goes_to_the_log_and_out_of_the_box(tmp_path: Path) -> None:
    clock = FakeClock(START)
    outbox = Outbox(tmp_path)
    told: list[Outcome] = []
    async with alert_target(500) as api:
        target = parse_target(api.url)
        lane = Lane(target, outbox, clock, lambda _entry, outcome: told.append(outcome))
        outbox.add([_entry(target.key)])
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(lane.run())
            while outbox.entries:
                await asyncio.sleep(0)
            running.cancel()
        await target.close()
        assert told[-1].answer is Answer.REJECTED
        assert "72 h" in told[-1].reason
        assert 72 * 3600 <= (clock.now() - START).total_seconds() < 73 * 3600
        assert len(api.taken) < 1200  # five minutes apart at the most


def _entry(
    target: str, *, number: int = 1, status: Status = Status.FIRING, incident: str | None = None, summary: str = "s"
) -> Entry:
    labels = {"alertname": "ReqonMissionFailed", "mission": "A", "kind": "failed", "instance": "h", "severity": "error"}
    return Entry(
        id=f"id{number}-{status}",
        target=target,
        status=status,
        incident=incident or f"incident{number}",
        created_at=START,
        number=0,
        notice={
            "summary": summary,
            "labels": labels,
            "annotations": {"summary": summary, "error": "<boom>"},
            "missions": ["A"],
            "startsAt": "2026-03-01T08:15:00.000Z",
            "endsAt": None,
            "fingerprint": "f",
            "dedup": "reqon/h/A/failed",
        },
    )


FAILPOINTS = [
    "before-outbox-sync",
    "after-outbox-sync",
    "before-outbox-replace",
    "after-outbox-replace",
    "before-incidents-write",
    "before-incidents-sync",
    "before-incidents-replace",
    "after-incidents-replace",
    "before-outbox-note",
    "before-outbox-remove",
    "after-outbox-remove",
]


@pytest.mark.timeout(900)
async def test_killed_on_the_way_again_and_again_each_incident_is_told_and_copies_have_one_id(tmp_path: Path) -> None:
    """A2: SIGKILL at each failpoint from failure to delivery, 200 times: each incident told, duplicates with one id.

    Once at each by default. Each round something else fails, and whatever the last one left is told first.
    """
    rounds = 200 if os.environ.get("REQON_SLOW") else len(FAILPOINTS)
    chance = random.Random(7)
    died = 0
    async with alert_target() as api:
        for number in range(1, rounds + 1):
            point = FAILPOINTS[number % len(FAILPOINTS)]
            died += await _alerting(tmp_path, api.url, number, point, str(chance.randint(1, 2))) == -signal.SIGKILL
        assert await _alerting(tmp_path, api.url, rounds) == 0
        firsts = {one.body["commonLabels"]["mission"]: one.headers["Idempotency-Key"] for one in api.taken}
        assert firsts.keys() == {f"M{number}" for number in range(1, rounds + 1)}
        assert len(set(api.ids)) == rounds
        assert set(api.states) == {"firing"}
    assert died > rounds / 2
    assert files_of(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["incidents.json"]


async def _alerting(directory: Path, *arguments: object) -> int:
    """The end of a process that tells alerts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.alerting_process",
        str(directory),
        *map(str, arguments),
        cwd=ROOT,
        env=environment({}),
    )
    async with asyncio.timeout(60):
        return await process.wait()


async def test_a_target_that_is_down_for_an_hour_gets_everything_afterwards_and_no_run_waits(tmp_path: Path) -> None:
    """A1: target down 1 h, 50 failures: all delivered after; what tells of a failure never waits."""
    missions = tuple(f"M{number}" for number in range(50))
    clock = FastClock(2000)
    async with (
        alert_target(503) as api,
        alerting(tmp_path, parse_target(api.url), clock=clock, missions=missions) as (alerts, happenings),
    ):
        took = []
        for number, mission in enumerate(missions):
            began = time.perf_counter()
            happenings.emit(ended(record(mission, number + 1)))
            took.append(time.perf_counter() - began)
            # An hour for all fifty, in the target's time.
            await asyncio.sleep(72 / 2000)
        assert clock.monotonic() > 3600
        # In this thread nothing but memory: not even one round to a disk.
        assert sorted(took)[len(took) // 2] < 0.01
        assert not any(state != "firing" for state in api.states)
        down = len(api.taken)
        api.answers = [200]
        async with asyncio.timeout(60):
            while alerts.outbox.entries or alerts._unsaid:
                await asyncio.sleep(0.01)
        delivered = [one.headers["Idempotency-Key"] for one in api.taken[down:]]
        assert len(delivered) == len(set(delivered)) == 50
        assert files_of(tmp_path) == []


async def test_repeats_come_as_configured_and_stop_with_the_incident(tmp_path: Path) -> None:
    """A3: 20 failures, restart, success: one firing, one resolved, repeats as configured."""

    class TurnedByHand(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.Event().wait()

    clock = TurnedByHand(START)
    states: list[str] = []

    async def tell(hours: int, *ends: ExecutionRecord) -> None:
        alerts = Alerts(tmp_path, (parse_target(api.url),), instance="host", repeat_seconds=4 * 3600, clock=clock)
        alerts.load()
        happenings = Happenings()
        alerts.observe(happenings)
        alerts.mission_loaded(watched())
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(alerts.run())
            for end in ends:
                happenings.emit(ended(end))
            assert await alerts.flush(10)
            for _ in range(hours):
                clock.advance(3600)
                happenings.emit(SchedulerTicked(at=clock.now()))
                assert await alerts.flush(10)
            running.cancel()
        states[:] = [decode(one.raw)["status"] + one.headers["Idempotency-Key"].partition("-")[2] for one in api.taken]

    async with alert_target() as api:
        await tell(9, *(record(number=n) for n in range(1, 11)))
        assert [s.rstrip("0123456789") for s in states] == ["firingfiring", "firingrepeat-", "firingrepeat-"]
        await tell(5, *(record(number=n) for n in range(11, 21)))
        assert len(states) == 4
        await tell(9, record(number=30, failed=False))
        assert len(states) == 5
        assert states[-1] == "resolvedresolved"
        assert len(set(states)) == 5


@pytest.mark.parametrize("full", [False, True])
async def test_a_thousand_missions_that_fail_at_once_are_bounded_and_block_nothing(tmp_path: Path, full: bool) -> None:
    """A5: 1,000 missions fail at once, disk full: bounded, nothing blocks. With syncs a tenth by default."""
    number_of = 1000 if full or os.environ.get("REQON_SLOW") else 100

    class Full(files.Disk):
        def replace(self, path: Path, data: object, what: str, **_more: object) -> None:
            raise OSError(28, "No space left on device")

    missions = [f"M{number}" for number in range(number_of)]
    async with alert_target(503) as api:
        alerts = Alerts(
            tmp_path, (parse_target(api.url),), instance="h", clock=FastClock(50), disk=Full() if full else files.DISK
        )
        alerts.load()
        happenings = Happenings()
        alerts.observe(happenings)
        for mission in missions:
            alerts.mission_loaded(watched(mission))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(alerts.run())
            for again in range(2):  # a second failure of each says nothing new
                for number, mission in enumerate(missions):
                    happenings.emit(ended(record(mission, number + 1 + again * number_of)))
                assert len(alerts.incidents.incidents) == number_of
                await asyncio.sleep(0)
            while alerts._unsaid or alerts._writing:
                await asyncio.sleep(0.01)
            assert len(alerts.outbox.entries) <= CAPACITY
            assert sum(e.notice.get("merged", 1) for e in alerts.outbox.entries.values()) == number_of
            assert len(files_of(tmp_path)) == (0 if full else len(alerts.outbox.entries))
            api.answers = [200]
            while alerts.outbox.entries:
                await asyncio.sleep(0.01)
            running.cancel()
        told = {one.headers["Idempotency-Key"] for one in api.taken}
        assert len(told) == number_of


async def test_ends_that_nobody_judged_are_judged_at_start(tmp_path: Path) -> None:
    async with alert_target() as api:
        async with alerting(tmp_path) as (alerts, _):
            assert await alerts.flush(5)  # the missions are known from here on
        later = 10**7  # than the first start, however long that took by its quick clock
        ends = ((2, True), (1, False), (4, True), (3, False))
        past = [record(number=number, failed=failed, seconds=later + number) for number, failed in ends]
        async with alerting(tmp_path, parse_target(api.url)) as (alerts, _):
            alerts.judge_past(past)
            await api.count(3)
        assert api.states == ["firing", "resolved", "firing"]


async def test_a_disk_that_refuses_does_not_keep_alerts_back(tmp_path: Path) -> None:
    """A5 in part: disk full."""

    class Full(files.Disk):
        def replace(self, path: Path, data: object, what: str, **_more: object) -> None:
            raise OSError(28, "No space left on device")

    async with alert_target() as api:
        alerts = Alerts(tmp_path, (parse_target(api.url),), instance="h", clock=FakeClock(START), disk=Full())
        alerts.load()
        alerts.mission_loaded(watched())
        happenings = Happenings()
        alerts.observe(happenings)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(alerts.run())
            happenings.emit(ended(record()))
            await api.count(1)
            running.cancel()


async def test_a_mission_not_succeeding_in_time_is_stale_until_it_does(tmp_path: Path) -> None:
    clock = FastClock(10_000)
    async with (
        alert_target() as api,
        alerting(tmp_path, parse_target(api.url), clock=clock, missions=()) as (alerts, happenings),
    ):
        alerts.mission_loaded(watched(limit=3600))
        while not api.taken:
            happenings.emit(SchedulerTicked(at=clock.now()))
            await asyncio.sleep(0.001)
        assert clock.monotonic() > 3600
        assert api.taken[0].body["commonLabels"]["kind"] == "stale"
        assert api.taken[0].body["commonLabels"]["severity"] == "critical"
        happenings.emit(ended(record(number=9, failed=False)))
        await api.count(2)
        assert api.states == ["firing", "resolved"]


async def test_a_missed_slot_and_a_broken_file_are_told(tmp_path: Path) -> None:
    async with alert_target() as api, alerting(tmp_path, parse_target(api.url)) as (alerts, happenings):
        happenings.emit(
            SlotDecided(
                at=START, mission="A", due=START, outcome=SlotOutcome.MISSED, reason="catchUp is none", first_due=START
            )
        )
        await api.count(1)
        alerts.load_errors({"missions/b.vague": (Diagnostic("syntax", "expected '}'"),)})
        await api.count(2)
        alerts.load_errors({})
        await api.count(3)
        assert [one.body["commonLabels"]["kind"] for one in api.taken] == ["slot_missed", "load_error", "load_error"]
        assert api.states == ["firing", "firing", "resolved"]


async def test_no_secret_leaves_in_an_alert(tmp_path: Path) -> None:
    """K1 in part: alert bodies and the outbox."""
    SECRETS.add("hunter2-hunter2")
    async with alert_target(500) as api, alerting(tmp_path, parse_target(api.url)) as (_, happenings):
        happenings.emit(ended(record(message="token hunter2-hunter2 refused at https://x/?token=hunter2")))
        (taken, *_more) = await api.count(1)
        assert b"hunter2" not in taken.raw
        for file in (tmp_path / "outbox").iterdir():
            assert b"hunter2" not in file.read_bytes()
            assert api.url.encode() not in file.read_bytes()


async def test_tokens_that_cannot_be_kept_are_told_until_they_are(tmp_path: Path) -> None:
    """K3 in part: a run that succeeds does not end it, since the next start would find used tokens."""
    bus, health = EventBus(), Health()

    def renewed(number: int, error: str | None = None) -> None:
        event = AuthRefreshed(source="Shop", reason="expiry", success=error is None, error=error)
        bus.emit(Emitted(event, 1, f"exec_{number:026d}", "A", START))

    async with (
        alert_target() as api,
        alerting(tmp_path, parse_target(api.url), health=health) as (alerts, happenings),
    ):
        alerts.listen(bus)
        renewed(1, f"{TOKENS_NOT_KEPT}, a restart would find used ones: No space left on device")
        (taken,) = await api.count(1)
        assert taken.body["commonLabels"]["kind"] == "auth_expired"
        assert "No space left" in taken.body["commonAnnotations"]["error"]
        assert health.reasons == ("tokens of Shop could not be kept",)
        happenings.emit(ended(record(number=1, failed=False)))
        assert await alerts.flush(5)
        assert api.states == ["firing"]
        renewed(2)
        await api.count(2)
        assert api.states == ["firing", "resolved"]
        assert not health.reasons


async def test_missions_have_targets_of_their_own_and_the_log_is_the_last_resort(tmp_path: Path) -> None:
    async with alert_target() as api, alerting(tmp_path, missions=("B",)) as (alerts, happenings):
        alerts.mission_loaded(watched("A", parse_target(api.url)))
        happenings.emit(ended(record("A")))
        happenings.emit(ended(record("B", 2)))
        (taken,) = await api.count(1)
        assert await alerts.flush(5)
        assert taken.body["commonLabels"]["mission"] == "A"


async def test_metrics_show_what_fires_and_what_waits(tmp_path: Path) -> None:
    async with alert_target(200) as api, alerting(tmp_path, parse_target(api.url)) as (alerts, happenings):
        happenings.emit(ended(record()))
        await api.count(1)
        assert await alerts.flush(5)
        assert alerts.metrics is not None
        text = alerts.metrics.render()[0].decode()
        assert 'reqon_alert_active{kind="failed",mission="A"} 1.0' in text
        assert 'reqon_alert_active{kind="stale",mission="A"} 0.0' in text
        assert f'reqon_alerts_sent_total{{outcome="delivered",target="{api.url}"}} 1.0' in text
        assert f'reqon_alerts_pending{{target="{api.url}"}} 0.0' in text


# --- the outbox ------------------------------------------------------------------------------------------------------


def test_an_outbox_is_bounded_and_never_drops_a_first_notice(tmp_path: Path) -> None:
    """A5 in part: bounded."""
    outbox = Outbox(tmp_path, files.DISK)
    numbers = iter(range(10_000))
    outbox.add(_entry("t", number=next(numbers), status=Status.FIRING) for _ in range(CAPACITY - 10))
    outbox.add(_entry("t", number=next(numbers), status=Status.REPEAT) for _ in range(20))
    assert len(outbox.entries) == CAPACITY
    assert outbox.dropped == 10
    outbox.add(_entry("t", number=next(numbers), status=Status.FIRING) for _ in range(50))
    assert len(outbox.entries) <= CAPACITY
    kept = list(outbox.entries.values())
    assert sum(e.notice.get("merged", 1) for e in kept if e.status is Status.FIRING) == CAPACITY - 10 + 50
    again = Outbox(tmp_path)
    again.load(lambda *_: None)
    assert again.entries.keys() == outbox.entries.keys()


def test_an_outbox_that_is_read_again_keeps_its_order(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(_entry("t", number=n) for n in (3, 1, 2))
    (tmp_path / "junk.json").write_bytes(b"{")
    again = Outbox(tmp_path)
    again.load(lambda *_: None)
    assert [e.id for e in again.of("t")] == ["id3-firing", "id1-firing", "id2-firing"]
    assert again.add([_entry("t", number=1)]) == []


# --- targets ---------------------------------------------------------------------------------------------------------


async def test_a_secret_signs_the_body() -> None:
    async with alert_target() as api:
        target = parse_target(api.url, secret="sesame-sesame")
        await target.send(_entry(target.key))
        await target.close()
        (taken,) = api.taken
        signed = f"{taken.headers['X-Reqon-Timestamp']}.".encode() + taken.raw
        expected = hmac.new(b"sesame-sesame", signed, sha256).hexdigest()
        assert taken.headers["X-Reqon-Signature"] == f"sha256={expected}"


async def test_pagerduty_triggers_and_resolves_under_one_key() -> None:
    async with alert_target(202) as api:
        target = PagerDutyTarget("pagerduty://KEY", api.url, routing_key="R0UTINGKEY")
        await target.send(_entry(target.key))
        await target.send(_entry(target.key, status=Status.RESOLVED))
        await target.close()
        trigger, resolve = (one.body for one in api.taken)
        assert trigger["event_action"] == "trigger"
        assert trigger["payload"]["severity"] == "error"
        assert resolve["event_action"] == "resolve"
        assert trigger["dedup_key"] == resolve["dedup_key"]


async def test_alertmanager_gets_alerts_that_end_ahead_and_hears_of_them_again(tmp_path: Path) -> None:
    clock = FastClock()
    async with alert_target() as api:
        target = parse_target(api.url.replace("http", "alertmanager+http"), clock=clock)
        assert isinstance(target, AlertmanagerTarget)
        async with alerting(tmp_path, target, clock=clock) as (_, happenings):
            happenings.emit(ended(record()))
            taken = await api.count(3)
            assert {one.path for one in taken} == {"/api/v2/alerts"}
            ends = [one.body[0]["endsAt"] for one in taken]
            assert sorted(ends) == ends
            assert len(set(ends)) >= 2
            happenings.emit(ended(record(number=2, failed=False)))
            number = len(api.taken)
            await api.count(number + 2)
            assert api.taken[-1].body[0]["endsAt"] < clock.now().isoformat()


async def test_slack_gets_readable_lines() -> None:
    async with alert_target() as api:
        target = parse_target(f"{api.url.replace('http', 'slack+http')}/services/T0/B0/verysecretvalue")
        assert isinstance(target, SlackTarget)
        await target.send(_entry(target.key))
        await target.close()
        assert api.taken[0].body["text"].splitlines() == [":rotating_light: firing: *s*", "error: &lt;boom&gt;"]
        assert "verysecretvalue" not in target.shown


async def test_a_command_gets_json_and_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "x")
    out = tmp_path / "out"
    script = tmp_path / "page.py"
    script.write_text(f"import os,sys; open({str(out)!r},'w').write(sys.stdin.read() + str(sorted(os.environ)))")
    target = parse_target(f"exec:{sys.executable} {script}")
    assert (await target.send(_entry(target.key))).answer is Answer.DELIVERED
    assert '"summary":"s"' in out.read_text()
    assert "PLANTED_SECRET" not in out.read_text()
    assert "REQON_ALERT_ID" in out.read_text()


async def test_a_command_that_fails_or_hangs_is_tried_later(tmp_path: Path) -> None:
    failing = CommandTarget("exec:false", ("false",))
    assert (await failing.send(_entry("t"))).answer is Answer.LATER
    hanging = CommandTarget("exec:x", ("sh", "-c", "sleep 60 & sleep 60"), seconds=0.2)
    assert (await hanging.send(_entry("t"))).reason == "did not end within 0 s"
    missing = CommandTarget("exec:x", (str(tmp_path / "nothing"),))
    assert (await missing.send(_entry("t"))).answer is Answer.LATER


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/hook", "127.0.0.1:9 cannot be reached: Connection refused"),
        ("http://nowhere.invalid/hook", "the name 'nowhere.invalid' cannot be resolved"),
    ],
)
async def test_a_target_that_cannot_be_reached_is_said_in_words(url: str, reason: str) -> None:
    target = parse_target(url)
    assert await target.send(_entry(target.key)) == Outcome(Answer.LATER, reason)
    await target.close()


@apprise_imported
async def test_other_services_are_told_by_apprise(tmp_path: Path) -> None:
    """Its plugin for JSON stands for all of them: it alone can be had on this machine."""
    async with alert_target() as api:
        address = api.url.removeprefix("http://")
        target = parse_target(f"json://user:hunter2-hunter2@{address}/hooks-of-ours")
        async with alerting(tmp_path, target) as (alerts, happenings):
            happenings.emit(ended(record(number=1)))
            happenings.emit(ended(record(number=2, failed=False)))
            await api.count(2)
            assert await alerts.flush(5)
        firing, resolved = (one.body for one in api.taken)
        assert (firing["title"], firing["type"]) == ("Firing: A failed: HTTP 503", "failure")
        assert "resume: reqon a.vague --resume --execution" in firing["message"]
        assert (resolved["title"], resolved["type"]) == ("Resolved: A failed: HTTP 503", "success")
        assert re.fullmatch("json:[0-9a-f]{6}", target.shown)
        assert files_of(tmp_path) == []


@apprise_imported
async def test_what_apprise_does_not_get_rid_of_is_tried_again_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with alert_target(500, 200) as api:
        target = parse_target(f"json://user:hunter2-hunter2@{api.url.removeprefix('http://')}/x")
        outcome = await target.send(_entry(target.key))
        assert outcome.answer is Answer.LATER
        assert "500" in outcome.reason
        assert (await target.send(_entry(target.key))).answer is Answer.DELIVERED
    assert "hunter2" not in "".join(capfd.readouterr())


@apprise_imported
async def test_an_apprise_service_that_hangs_holds_up_nobody() -> None:
    """A4 in part: hang. Its thread is left behind, and there is never a second one."""
    async with alert_target() as api:
        api.hold = asyncio.Event()
        target = parse_target(f"json://{api.url.removeprefix('http://')}/?rto=30")
        assert isinstance(target, NotifierTarget)
        target.seconds = 0.3
        assert (await target.send(_entry(target.key))).reason == "no answer within 0 s"
        assert (await target.send(_entry(target.key))).reason == "its last try has not ended yet"
        api.hold.set()
        while (await target.send(_entry(target.key))).answer is not Answer.DELIVERED:
            await asyncio.sleep(0.01)


def test_without_apprise_its_targets_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigurationError, match="not installed") as refused:
        parse_target("mailto://somebody:pass@example.com")
    assert refused.value.hint == "pip install 'reqon[alerts]'"
    assert isinstance(parse_target("https://alerts.example.com/x"), WebhookTarget)


@pytest.mark.parametrize(
    "text", ["ftp://host/x", "nothing-known://x", "https://", "nonsense", "exec:", "https://host:port/", ""]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_target(text)


def test_a_plain_connection_is_noticed_unless_it_stays_here() -> None:
    assert is_plain_text("http://alerts.example.org/x")
    assert is_plain_text("alertmanager+http://10.0.0.1:9093")
    assert not is_plain_text("https://alerts.example.org/x")
    assert not is_plain_text("http://127.0.0.1:1/x")
    assert not is_plain_text("http://localhost/x")
    assert not is_plain_text("exec:./x")


async def test_a_test_alert_reports_each_answer() -> None:
    answers: list[tuple[str, Answer]] = []

    def told(shown: str, outcome: Outcome) -> None:
        answers.append((shown, outcome.answer))

    async with alert_target(200) as good, alert_target(404) as bad:
        assert not await send_test([parse_target(good.url), parse_target(bad.url)], "host", told=told)
        assert answers == [(good.url, Answer.DELIVERED)] * 2 + [(bad.url, Answer.REJECTED)] * 2
        assert good.states == ["firing", "resolved"]
