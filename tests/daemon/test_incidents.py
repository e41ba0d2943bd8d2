"""Incidents: ok, firing, resolved; once each, whatever the history."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reqon.state.records import ExecutionRecord, ExecutionStatus, RunError
from reqon.values import decode, encode
from reqon_daemon.incidents import ENDED_BY_SUCCESS, Incidents, Kind, Report, Status, kind_of, report_of, summary

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def _report(mission: str = "A", *, after: float = 0, group: str | None = None, kind: Kind = Kind.FAILED) -> Report:
    at = START + timedelta(seconds=after)
    return Report(mission=mission, kind=kind, at=at, cause=f"{mission}{after}", summary="it failed", group=group)


def test_the_first_failure_fires_at_once_and_more_of_it_say_nothing() -> None:
    incidents = Incidents("host")
    assert [n.status for n in incidents.fire(_report())] == [Status.FIRING]
    assert incidents.fire(_report(after=60)) == []
    assert incidents.due(START + timedelta(hours=3)) == []


def test_a_firing_incident_is_repeated_and_resolved_once() -> None:
    incidents = Incidents("host", timedelta(hours=4))
    (first,) = incidents.fire(_report())
    repeats = [n for hour in range(1, 10) for n in incidents.due(START + timedelta(hours=hour))]
    assert [n.status for n in repeats] == [Status.REPEAT, Status.REPEAT]
    assert len({first.id, *(n.id for n in repeats)}) == 3
    assert [n.status for n in incidents.end("A", ENDED_BY_SUCCESS, START)] == [Status.RESOLVED]
    assert incidents.end("A", ENDED_BY_SUCCESS, START) == []


def test_a_repeat_tells_the_latest_failure_of_the_mission_that_it_is_named_after() -> None:
    incidents = Incidents("host", timedelta(hours=4))
    incidents.fire(_report("A", group="API/network"))
    incidents.fire(_report("B", after=10, group="API/network"))
    incidents.fire(_report("A", after=600))
    incidents.fire(_report("B", after=900))
    incidents.due(START + timedelta(hours=1))
    (repeat,) = incidents.due(START + timedelta(hours=5))
    assert (repeat.status, repeat.incident.report.cause) == (Status.REPEAT, "A600")


def test_what_a_mission_had_goes_with_it() -> None:
    incidents = Incidents("host")
    incidents.fire(_report())
    assert [(n.status, n.incident.mission) for n in incidents.forget("A", START)] == [(Status.RESOLVED, "A")]
    assert list(incidents.firing()) == []


def test_what_is_over_is_told_again_for_a_while() -> None:
    incidents = Incidents("host")
    incidents.fire(_report())
    (over,) = incidents.end("A", ENDED_BY_SUCCESS, START + timedelta(minutes=1))
    assert incidents.resolved_since(START + timedelta(minutes=1)) == [over]
    assert incidents.resolved_since(START + timedelta(minutes=2)) == []


def test_missions_that_fail_on_one_source_within_a_minute_are_one_incident() -> None:
    incidents = Incidents("host")
    assert len(incidents.fire(_report("A", group="API/network"))) == 1
    assert incidents.fire(_report("B", after=10, group="API/network")) == []
    assert incidents.fire(_report("C", after=59, group="API/network")) == []
    assert len(incidents.fire(_report("D", after=61, group="API/network"))) == 1
    assert len(incidents.fire(_report("E", after=5, group="API/auth"))) == 1
    (update,) = incidents.due(START + timedelta(seconds=60))
    assert update.status is Status.UPDATE
    assert update.incident.everyone == ("A", "B", "C")
    assert incidents.end("A", ENDED_BY_SUCCESS, START) == []
    assert incidents.end("B", ENDED_BY_SUCCESS, START) == []
    (over,) = incidents.end("C", ENDED_BY_SUCCESS, START)
    assert over.incident.everyone == ("A", "B", "C")


def test_a_mission_that_fails_again_rejoins_the_incident_that_bears_its_name() -> None:
    incidents = Incidents("host")
    incidents.fire(_report("A", group="API/network"))
    incidents.fire(_report("B", after=1, group="API/network"))
    incidents.end("A", ENDED_BY_SUCCESS, START)
    assert incidents.fire(_report("A", after=500, group="other")) == []
    assert len(incidents.incidents) == 1
    assert set(incidents.firing()) == {("A", Kind.FAILED), ("B", Kind.FAILED)}


steps = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "C"]),
        st.sampled_from(["fail", "ok", "wait", "restart"]),
        st.sampled_from([None, "API/network"]),
        st.sampled_from([Kind.FAILED, Kind.TIMEOUT]),
        st.integers(1, 4000),
    ),
    max_size=40,
)


def _play(history: list[tuple[str, str, str | None, Kind, int]], *, restarts: bool) -> list[tuple[str, Status, str]]:
    incidents = Incidents("host", timedelta(hours=1))
    now = START
    said = []
    for number, (mission, what, group, kind, seconds) in enumerate(history):
        now += timedelta(seconds=seconds)
        notices = incidents.due(now)
        if what == "fail":
            report = Report(mission=mission, kind=kind, at=now, cause=str(number), summary="", group=group)
            notices += incidents.fire(report)
        elif what == "ok":
            notices += incidents.end(mission, ENDED_BY_SUCCESS, now)
        elif what == "restart" and restarts:
            saved = encode(incidents.to_value())
            incidents = Incidents("host", timedelta(hours=1))
            incidents.load(decode(saved))
        said += [(n.id, n.status, n.incident.id) for n in notices]
    return said


@given(steps)
def test_each_incident_fires_first_and_resolves_at_most_once(
    history: list[tuple[str, str, str | None, Kind, int]],
) -> None:
    seen: dict[str, list[Status]] = {}
    for _, status, incident in _play(history, restarts=True):
        seen.setdefault(incident, []).append(status)
    for statuses in seen.values():
        assert statuses[0] is Status.FIRING
        assert statuses.count(Status.FIRING) == 1
        assert statuses.count(Status.RESOLVED) <= 1
        if Status.RESOLVED in statuses:
            assert statuses[-1] is Status.RESOLVED


@given(steps)
def test_a_restart_changes_nothing_and_ids_are_unique(
    history: list[tuple[str, str, str | None, Kind, int]],
) -> None:
    said = _play(history, restarts=True)
    assert said == _play(history, restarts=False)
    assert len({notice for notice, _, _ in said}) == len(said)


@given(steps)
def test_whoever_succeeds_last_is_in_no_incident(history: list[tuple[str, str, str | None, Kind, int]]) -> None:
    incidents = Incidents("host")
    now = START
    last: dict[str, str] = {}
    for number, (mission, what, group, kind, seconds) in enumerate(history):
        now += timedelta(seconds=seconds)
        if what == "fail":
            incidents.fire(Report(mission=mission, kind=kind, at=now, cause=str(number), summary="", group=group))
            last[mission] = what
        elif what == "ok":
            incidents.end(mission, ENDED_BY_SUCCESS, now)
            last[mission] = what
    assert {m for m, _ in incidents.firing()} == {m for m, what in last.items() if what == "fail"}


def _record(status: ExecutionStatus, *, seconds: int, kind: str = "http", number: int = 1) -> ExecutionRecord:
    at = START + timedelta(seconds=seconds)
    error = RunError(message="HTTP 503", type=kind, at=at, action="Load", step="get", location="a.vague:3:5")
    return ExecutionRecord(
        execution_id=f"exec_{number}",
        mission="A",
        started_at=START,
        completed_at=at,
        status=status,
        errors=(error,),
        errors_total=1,
        duration_ms=1500,
        items_processed=7,
    )


def test_a_record_says_what_failed_and_where() -> None:
    report = report_of(_record(ExecutionStatus.FAILED, seconds=5))
    assert report.kind is Kind.FAILED
    assert (report.action, report.step, report.location) == ("Load", "get", "a.vague:3:5")
    assert report.duration_seconds == 1.5
    assert report.items_processed == 7
    assert report.summary == "A failed: HTTP 503"


def test_error_kinds_are_incident_kinds() -> None:
    assert kind_of("timeout") is Kind.TIMEOUT
    assert kind_of("stuck") is Kind.STUCK
    assert kind_of("auth") is Kind.AUTH_EXPIRED
    assert kind_of("network") is Kind.FAILED
    assert all(summary("M", kind).startswith("M ") for kind in Kind)


def test_ends_are_judged_once_and_in_order() -> None:
    incidents = Incidents("host")
    incidents.begin("A", START)
    first, second = _record(ExecutionStatus.FAILED, seconds=1), _record(ExecutionStatus.FAILED, seconds=2, number=2)
    assert incidents.is_news(first)
    incidents.note("A", START + timedelta(seconds=2), "exec_2")
    assert not incidents.is_news(first)
    assert not incidents.is_news(second)
    assert incidents.is_news(_record(ExecutionStatus.COMPLETED, seconds=3, number=3))
