"""Metrics as a scraper sees them: names, types, zeros, what is absent, what goes."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, parser
from prometheus_client.openmetrics import exposition as openmetrics_text
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.samples import Sample

from reqon.events import (
    PER_ITEM,
    BreakerChanged,
    DataStored,
    Emitted,
    Event,
    EventBus,
    FetchRetried,
    ItemsCounted,
    MissionCompleted,
    MissionFailed,
    MissionStarted,
    Progressed,
    RateLimitResumed,
    RequestAnswered,
)
from reqon.observe.logs import EventLog
from reqon.state.records import Trigger
from reqon_daemon.alerts import Alerts
from reqon_daemon.happenings import (
    Happenings,
    MissionPaused,
    MissionsReloaded,
    RunEnded,
    RunOutcome,
    RunStarted,
    SlotDecided,
    SlotOutcome,
)
from reqon_daemon.metrics import Metrics, MissionFacts, MissionPast, metric_names
from reqon_daemon.obstacles import Obstacles
from reqon_daemon.process import ProcessFigures
from reqon_daemon.series import LABEL_LIMIT, OTHER, Family, Instruments, Number, label

AT = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)
PAST = MissionPast(registered_at=AT)


class Watched:
    """Metrics with a mission `A`, and the two things they listen to."""

    def __init__(self, past: MissionPast = PAST) -> None:
        self.metrics = Metrics()
        self.bus = EventBus()
        self.happenings = Happenings()
        self.metrics.listen(self.bus)
        self.metrics.observe(self.happenings)
        self.metrics.mission_loaded(
            MissionFacts(name="A", schedule="every 15 minutes", sources=("API",), actions=("Load",)), past
        )

    def emit(self, event: Event, *, mission: str = "A", execution: str = "exec_1") -> None:
        self.bus.emit(Emitted(event, 1, execution, mission, AT))
        assert not self.bus.failures

    def samples(self) -> dict[str, float]:
        """Every sample as a scrape shows it, by `name{labels}`."""
        return {_shown(sample): sample.value for sample in _scrape(self.metrics)}


def _scrape(metrics: Metrics) -> Iterable[Sample]:
    text = metrics.render()[0].decode()
    families = list(parser.text_string_to_metric_families(text))
    exact = metrics.render("application/openmetrics-text; version=1.0.0")[0].decode()
    assert list(openmetrics.text_string_to_metric_families(exact))  # type: ignore[no-untyped-call]
    return [sample for family in families for sample in family.samples]


def _shown(sample: Sample) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
    return sample.name + (f"{{{labels}}}" if labels else "")


def _ended(kind: type[MissionCompleted] | type[MissionFailed], *, errors: int = 0, items: int = 10) -> Event:
    values = {"stages_completed": 1, "error_count": errors, "items_processed": items, "duration_seconds": 2.5}
    if kind is MissionFailed:
        return MissionFailed(status="failed", error="x", error_type="http", **values)  # type: ignore[arg-type]
    return MissionCompleted(status="completed", **values)  # type: ignore[arg-type]


def _run_ended(outcome: RunOutcome) -> RunEnded:
    return RunEnded(at=AT, mission="A", trigger=Trigger.SCHEDULE, due=AT, outcome=outcome, duration_seconds=2.5)


def test_the_three_documented_names_are_bare_samples() -> None:
    names = metric_names(Metrics())
    assert names["reqon_execution_duration_seconds"] == "gauge"
    assert names["reqon_execution_items_processed"] == "gauge"
    assert names["reqon_execution_errors_total"] == "counter"
    samples = Watched().samples()
    for name in ("duration_seconds", "items_processed", "errors_total"):
        assert samples[f'reqon_execution_{name}{{mission="A"}}'] == 0


def test_series_start_at_zero_and_the_unknown_is_absent() -> None:
    samples = Watched().samples()
    for status in RunOutcome:
        assert samples[f'reqon_mission_runs_total{{mission="A",status="{status}"}}'] == 0
    for outcome in SlotOutcome:
        assert samples[f'reqon_schedule_slots_total{{mission="A",outcome="{outcome}"}}'] == 0
    assert samples['reqon_mission_last_success_timestamp_seconds{mission="A"}'] == 0
    assert samples['reqon_circuit_breaker_state{source="API",state="closed"}'] == 1
    assert samples['reqon_action_duration_seconds_count{action="Load",mission="A"}'] == 0
    text = "\n".join(samples)
    assert "reqon_mission_last_run_success" not in text
    assert "reqon_rate_limit_remaining" not in text
    assert "reqon_oauth_token_expiry" not in text
    assert "_created" not in text


def test_a_run_is_measured() -> None:
    watched = Watched()
    watched.happenings.emit(
        RunStarted(at=AT, mission="A", trigger=Trigger.SCHEDULE, due=AT, lag_seconds=0.2, attempt=1, queued=0)
    )
    watched.emit(MissionStarted(stage_count=1, is_resume=False, trigger="schedule"))
    watched.emit(Progressed(action="Load", step="1", current=4, total=10, items_processed=4))
    assert watched.samples()['reqon_execution_items_processed{mission="A"}'] == 4
    assert watched.samples()['reqon_mission_running{mission="A"}'] == 1
    watched.emit(
        DataStored(store_name="s", store_type="file", operation="set", item_count=3, added=2, updated=1, unchanged=0)
    )
    watched.emit(ItemsCounted(skipped=5, invalid=1))
    watched.emit(_ended(MissionCompleted))
    watched.happenings.emit(_run_ended(RunOutcome.SUCCESS))
    samples = watched.samples()
    assert samples['reqon_mission_running{mission="A"}'] == 0
    assert samples['reqon_execution_duration_seconds{mission="A"}'] == 2.5
    assert samples['reqon_execution_items_processed{mission="A"}'] == 10
    assert samples['reqon_mission_runs_total{mission="A",status="success"}'] == 1
    assert samples['reqon_mission_last_run_success{mission="A"}'] == 1
    assert samples['reqon_mission_last_success_timestamp_seconds{mission="A"}'] == AT.timestamp()
    assert samples['reqon_mission_duration_seconds_bucket{le="2.5",mission="A"}'] == 1
    assert samples['reqon_items_total{mission="A",outcome="added"}'] == 2
    assert samples['reqon_items_total{mission="A",outcome="skipped"}'] == 5
    assert samples["reqon_schedule_lag_seconds_count"] == 1


def test_errors_of_a_resumed_execution_are_counted_once() -> None:
    watched = Watched()
    watched.emit(_ended(MissionFailed, errors=2))
    watched.happenings.emit(_run_ended(RunOutcome.FAILURE))
    watched.emit(MissionStarted(stage_count=1, is_resume=True, trigger="retry"))
    watched.emit(_ended(MissionFailed, errors=3))
    assert watched.samples()['reqon_execution_errors_total{mission="A"}'] == 3 + 1  # one failed before it began
    assert watched.samples()['reqon_mission_consecutive_failures{mission="A"}'] == 1


def test_slots_that_share_a_run_are_coalesced() -> None:
    watched = Watched()
    watched.happenings.emit(
        SlotDecided(at=AT, mission="A", due=AT, outcome=SlotOutcome.CAUGHT_UP, reason="", first_due=AT, count=5)
    )
    watched.happenings.emit(
        SlotDecided(at=AT, mission="A", due=AT, outcome=SlotOutcome.MISSED, reason="", first_due=AT, count=3)
    )
    samples = watched.samples()
    assert samples['reqon_schedule_slots_total{mission="A",outcome="caught_up"}'] == 1
    assert samples['reqon_schedule_slots_total{mission="A",outcome="coalesced"}'] == 4
    assert samples['reqon_schedule_slots_total{mission="A",outcome="missed"}'] == 3


def test_http_is_measured_by_source() -> None:
    watched = Watched()
    watched.emit(RequestAnswered(source="API", method="GET", code="503", seconds=0.3, remaining=7))
    watched.emit(FetchRetried(source="API", path="/x", attempt=1, max_attempts=3, reason="http", wait_ms=1))
    watched.emit(RateLimitResumed(source="API", waited_seconds=1.5))
    watched.emit(BreakerChanged(source="API", state="open", previous_state="closed", failures=5))
    samples = watched.samples()
    assert samples['reqon_http_requests_total{code="503",method="GET",source="API"}'] == 1
    assert samples['reqon_http_retries_total{reason="http",source="API"}'] == 1
    assert samples['reqon_rate_limit_wait_seconds_total{source="API"}'] == 1.5
    assert samples['reqon_rate_limit_remaining{source="API"}'] == 7
    assert samples['reqon_circuit_breaker_state{source="API",state="open"}'] == 1
    assert samples['reqon_circuit_breaker_state{source="API",state="closed"}'] == 0


def test_a_shared_source_shows_the_worst_breaker_and_outlives_one_mission() -> None:
    watched = Watched()
    watched.metrics.mission_loaded(MissionFacts(name="B", sources=("API",)), PAST)
    opened = BreakerChanged(source="API", state="open", previous_state="closed", failures=5)
    watched.emit(opened, mission="B")
    watched.emit(BreakerChanged(source="API", state="half_open", previous_state="open", failures=5))
    assert watched.samples()['reqon_circuit_breaker_state{source="API",state="open"}'] == 1
    watched.metrics.mission_removed("A")
    assert 'source="API"' in "".join(watched.samples())
    watched.metrics.mission_removed("B")
    assert 'source="API"' not in "".join(watched.samples())


def test_a_removed_mission_takes_its_series_along_even_while_it_runs() -> None:
    watched = Watched()
    watched.emit(MissionStarted(stage_count=1, is_resume=False, trigger="schedule"))
    watched.metrics.mission_removed("A")
    watched.emit(_ended(MissionCompleted))
    watched.happenings.emit(_run_ended(RunOutcome.SUCCESS))
    assert 'mission="A"' not in "".join(watched.samples())


def test_the_past_is_shown_before_the_first_run() -> None:
    past = MissionPast(
        registered_at=AT,
        last_run_at=AT,
        last_success_at=AT,
        last_outcome="success",
        last_duration_seconds=4.5,
        last_items=99,
        consecutive_failures=0,
        paused=True,
    )
    samples = Watched(past).samples()
    assert samples['reqon_execution_duration_seconds{mission="A"}'] == 4.5
    assert samples['reqon_execution_items_processed{mission="A"}'] == 99
    assert samples['reqon_mission_last_run_success{mission="A"}'] == 1
    assert samples['reqon_mission_paused{mission="A"}'] == 1


def test_a_reload_keeps_counts_and_changes_the_definition() -> None:
    watched = Watched()
    watched.happenings.emit(_run_ended(RunOutcome.SUCCESS))
    watched.metrics.mission_loaded(MissionFacts(name="A", definition="new", sources=("Other",)), PAST)
    samples = watched.samples()
    assert samples['reqon_mission_runs_total{mission="A",status="success"}'] == 1
    (info,) = [shown for shown in samples if shown.startswith("reqon_mission_info")]
    assert 'definition="new"' in info
    assert 'source="API"' not in "".join(samples)


def test_reloads_and_pauses_are_shown() -> None:
    watched = Watched()
    watched.happenings.emit(MissionsReloaded(at=AT, added=(), changed={}, removed=(), broken={"x.vague": ()}))
    assert watched.samples()["reqon_config_last_reload_successful"] == 0
    watched.happenings.emit(MissionsReloaded(at=AT, added=(), changed={}, removed=(), broken={}))
    assert watched.samples()["reqon_config_last_reload_successful"] == 1
    watched.happenings.emit(MissionPaused(at=AT, mission="A", until=None, reason=""))
    assert watched.samples()['reqon_mission_paused{mission="A"}'] == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(min_size=0, max_size=300), min_size=1, max_size=8))
def test_odd_names_never_break_a_scrape(names: list[str]) -> None:
    """N8 in part: metrics."""
    metrics = Metrics()
    for name in names:
        metrics.mission_loaded(MissionFacts(name=name, schedule=name, sources=(name,), actions=(name,)), PAST)
    for sample in _scrape(metrics):
        assert all(len(value) <= LABEL_LIMIT for value in sample.labels.values())
    for name in names:
        metrics.mission_removed(name)
    assert not [s for s in _scrape(metrics) if "mission" in s.labels or "source" in s.labels]


@pytest.mark.parametrize("name", ["\ud800", 'a"b\\c\nd', "x" * 500, "", "ünï", "\x00\x1b["])
def test_labels_are_valid_and_short(name: str) -> None:
    """N8 in part: labels."""
    assert len(label(name)) <= LABEL_LIMIT
    label(name).encode()
    assert label("x" * 500) != label("x" * 501)


def test_series_are_bounded_and_the_rest_is_counted_together() -> None:
    """N8 in part: bounded."""
    family: Family[Number] = Family("counter", "c_total", "text", ("a", "b"), limit=3)
    registry = CollectorRegistry()
    registry.register(family)
    for number in range(10):
        family.at(str(number), "x").inc()
    family.at("1", "x").inc()
    values = {s.labels["a"]: s.value for m in registry.collect() for s in m.samples if s.name == "c_total"}
    assert values == {"0": 1, "1": 2, "2": 1, OTHER: 7}
    family.drop(b="x")
    assert {s.labels["a"] for m in registry.collect() for s in m.samples} == {OTHER}


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("count", "level", "spread", "alone", "gone", "shown")),
        st.sampled_from(("", "a", 'b"\\c\nd', "ünï", "le", "{}", "x y")),
        st.floats(min_value=0) | st.sampled_from((float("nan"), 0.5, 1_764_304_852.125, 1e-7)),
    ),
    max_size=30,
)


@given(changes=_CHANGES)
def test_the_text_is_the_librarys_whatever_changed_since_the_last_scrape(
    changes: list[tuple[str, str, float]],
) -> None:
    """K4 in part: what is kept from scrape to scrape is never stale."""
    registry = CollectorRegistry()
    make = Instruments(registry)
    count, level = make.counter("c_total", "Counts.", "zone", "mission"), make.gauge("g", "Stands.", "mission")
    spread = make.histogram("h_seconds", "Takes.", "mission", "action", buckets=(0.5, 1, 300))
    alone = make.one_gauge("alone", "Has no labels.")
    for what, mission, value in (*changes, ("shown", "", 0.0)):
        match what:
            case "count":
                count.at(mission, "x").inc(value)
            case "level":
                level.at(mission).set(value)
            case "spread":
                spread.at(mission, "x").observe(value)
            case "alone":
                alone.set(value)
            case "gone":
                make.drop(mission=mission)
            case _:
                pages = b"".join(family.page() for family in make.families)
                assert pages == generate_latest(registry)
                exact = b"".join(family.page(openmetrics=True) for family in make.families) + b"# EOF\n"
                assert exact == openmetrics_text.generate_latest(registry)  # type: ignore[no-untyped-call]


def test_two_metrics_of_one_name_are_a_fault() -> None:
    make = Instruments(CollectorRegistry())
    make.counter("reqon_x_total", "One.")
    with pytest.raises(ValueError, match="reqon_x"):
        make.gauge("reqon_x", "Another.")


def test_the_process_is_shown_as_every_client_shows_it() -> None:
    library, ours = CollectorRegistry(), CollectorRegistry()
    ProcessCollector(registry=library)
    ours.register(ProcessFigures())
    theirs = {metric.name: metric.samples[0].value for metric in library.collect()}
    own = {metric.name: metric.samples[0].value for metric in ours.collect()}
    assert set(own) == set(theirs)
    for name in ("process_start_time_seconds", "process_max_fds"):
        assert own[name] == theirs[name]
    # The library opens a folder to count what is open.
    assert abs(own["process_open_fds"] - theirs["process_open_fds"]) <= 1


def test_without_proc_nothing_is_said_of_the_process(tmp_path: Path) -> None:
    assert not list(ProcessFigures(str(tmp_path)).collect())


def test_nothing_is_asked_of_what_happens_for_each_item() -> None:
    """Whoever listens to one of these makes every step of every loop tell it: that costs more than the step."""
    bus = EventBus()
    Metrics().listen(bus)
    Obstacles().listen(bus)
    Alerts(Path("unused")).listen(bus)
    EventLog(bus, level="info")
    assert not bus.wants(*PER_ITEM)
