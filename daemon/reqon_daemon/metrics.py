"""What the daemon measures: every metric of spec/daemon.md 4, kept by listening to runs and to the daemon.

Names are API. A series exists from its mission's load with 0, what is unknown is absent, gauges of the past are
restored before the first scrape, and a removed mission takes its series along.
"""

import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector
from prometheus_client.exposition import choose_encoder

from reqon.__about__ import __version__
from reqon.events import (
    ActionEnded,
    AuthRefreshed,
    BreakerChanged,
    CheckpointSaved,
    DataStored,
    DeadLettered,
    Emitted,
    Event,
    EventBus,
    FetchCompleted,
    FetchRetried,
    Handler,
    ItemsCounted,
    MissionCompleted,
    MissionEnded,
    MissionStarted,
    PageFetched,
    Progressed,
    RateLimitHit,
    RateLimitResumed,
    RequestAnswered,
)
from reqon_daemon.happenings import (
    FileQuarantined,
    Happenings,
    MissionPaused,
    MissionsReloaded,
    MissionUnpaused,
    RunEnded,
    RunNotBegun,
    RunOutcome,
    RunQueued,
    RunStarted,
    SchedulerTicked,
    SlotDecided,
    SlotOutcome,
    StateTroubled,
)
from reqon_daemon.process import ProcessFigures
from reqon_daemon.series import Instruments, Number

RUN_BUCKETS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)
LAG_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

ITEM_OUTCOMES = ("added", "updated", "unchanged", "skipped", "invalid", "dead_lettered")
BREAKER_STATES = ("closed", "half_open", "open")  # the later one wins where missions that share a source disagree
LOADED_STATES = ("active", "paused", "invalid")
_REMEMBERED_ERRORS = 10_000
_END = b"# EOF\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionFacts:
    """What a loaded mission shows of itself. `schedule` is its text, `definition` its short hash."""

    name: str
    schedule: str = ""
    timezone: str = ""
    definition: str = ""
    sources: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    freshness_limit_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionPast:
    """What is known of a mission's earlier runs, from the slot ledger. None: nothing."""

    registered_at: datetime
    last_run_at: datetime | None = None
    last_success_at: datetime | None = None
    last_outcome: str | None = None
    last_duration_seconds: float | None = None
    last_items: int | None = None
    consecutive_failures: int = 0
    paused: bool = False


class Metrics:
    """All series of one daemon, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._process = CollectorRegistry()  # what is not ours, of which the library writes the text
        for collector in (ProcessFigures(), PlatformCollector(None), GCCollector(CollectorRegistry())):
            self.registry.register(collector)
            self._process.register(collector)
        self._missions: dict[str, MissionFacts] = {}
        self._running: defaultdict[str, int] = defaultdict(int)
        self._errors_seen: dict[str, int] = {}  # of executions that may be resumed: errors counted so far
        self._faults: dict[str, int] = {}
        self._breakers: defaultdict[str, dict[str, str]] = defaultdict(dict)
        make = self._instruments = Instruments(self.registry)

        # The seed's three: bare samples under exactly these names.
        self.duration = make.gauge(
            "reqon_execution_duration_seconds", "How long the last finished execution took.", "mission"
        )
        self.items_processed = make.gauge(
            "reqon_execution_items_processed", "Items of the running execution, or of the last one.", "mission"
        )
        self.errors = make.counter("reqon_execution_errors_total", "Errors in executions.", "mission")

        self.runs = make.counter("reqon_mission_runs_total", "Finished executions.", "mission", "status")
        self.run_seconds = make.histogram(
            "reqon_mission_duration_seconds", "How long executions take.", "mission", buckets=RUN_BUCKETS
        )
        self.info = make.gauge(
            "reqon_mission_info", "What is loaded; always 1.", "mission", "schedule", "timezone", "definition"
        )
        self.registered = make.gauge(
            "reqon_mission_registered_timestamp_seconds", "When the mission was first loaded here.", "mission"
        )
        self.last_success = make.gauge(
            "reqon_mission_last_success_timestamp_seconds", "End of the last success; 0: never.", "mission"
        )
        self.last_run = make.gauge(
            "reqon_mission_last_run_timestamp_seconds", "Start of the last execution; 0: never.", "mission"
        )
        self.next_run = make.gauge(
            "reqon_mission_next_run_timestamp_seconds", "The next slot; 0: none is due.", "mission"
        )
        self.last_progress = make.gauge(
            "reqon_mission_last_progress_timestamp_seconds", "When a run last got on; 0: never.", "mission"
        )
        self.last_run_success = make.gauge(
            "reqon_mission_last_run_success", "Whether the last finished execution succeeded.", "mission"
        )
        self.consecutive_failures = make.gauge(
            "reqon_mission_consecutive_failures", "Failures since the last success.", "mission"
        )
        self.running = make.gauge("reqon_mission_running", "Executions running now.", "mission")
        self.paused = make.gauge("reqon_mission_paused", "1 while the mission is paused.", "mission")
        self.freshness_limit = make.gauge(
            "reqon_mission_freshness_limit_seconds", "How old the last success may become.", "mission"
        )

        self.slots = make.counter("reqon_schedule_slots_total", "Decisions about due slots.", "mission", "outcome")
        self.lag = make.one_histogram(
            "reqon_schedule_lag_seconds", "From a slot's due time to its start.", buckets=LAG_BUCKETS
        )
        self.last_tick = make.one_gauge(
            "reqon_scheduler_last_tick_timestamp_seconds", "When the scheduler last looked at the clock."
        )
        self.queued = make.one_gauge("reqon_executions_queued", "Executions that wait for their turn.")

        self.action_seconds = make.histogram(
            "reqon_action_duration_seconds", "How long actions take.", "mission", "action", buckets=RUN_BUCKETS
        )
        self.items = make.counter("reqon_items_total", "What became of items.", "mission", "outcome")
        self.resumes = make.counter("reqon_resumes_total", "How resumed executions ended.", "mission", "outcome")

        self.requests = make.counter(
            "reqon_http_requests_total", "Requests sent, by answer.", "source", "method", "code"
        )
        self.request_seconds = make.histogram(
            "reqon_http_request_duration_seconds", "How long answers take.", "source", buckets=REQUEST_BUCKETS
        )
        self.retries = make.counter("reqon_http_retries_total", "Requests sent again.", "source", "reason")
        self.rate_limit_wait = make.counter(
            "reqon_rate_limit_wait_seconds_total", "Time spent waiting for rate limits.", "source"
        )
        self.rate_limit_remaining = make.gauge(
            "reqon_rate_limit_remaining", "Requests the API says are left.", "source"
        )
        self.breaker_state = make.gauge(
            "reqon_circuit_breaker_state", "1 for the state the breaker is in.", "source", "state"
        )
        self.token_expiry = make.gauge(
            "reqon_oauth_token_expiry_timestamp_seconds", "When the access token expires.", "source"
        )

        self.checkpoints = make.counter("reqon_checkpoints_total", "Checkpoints saved.", "mission")
        self.state_bytes = make.one_gauge("reqon_state_bytes", "Size of the state directory.")
        self.state_write_errors = make.one_counter("reqon_state_write_errors_total", "State that could not be written.")
        self.quarantined = make.counter(
            "reqon_state_quarantined_total", "Damaged state files that were set aside.", "kind"
        )
        self.internal_errors = make.one_counter("reqon_internal_errors_total", "Faults of Reqon itself.")

        self.missions_loaded = make.gauge("reqon_missions_loaded", "Missions by state.", "state")
        self.reload_successful = make.one_gauge(
            "reqon_config_last_reload_successful", "Whether the last load found nothing broken."
        )
        self.reload_success_time = make.one_gauge(
            "reqon_config_last_reload_success_timestamp_seconds", "When a load last found nothing broken."
        )

        self.alerts_sent = make.counter("reqon_alerts_sent_total", "Alert deliveries.", "target", "outcome")
        self.alert_active = make.gauge("reqon_alert_active", "1 while an incident is firing.", "mission", "kind")
        self.alerts_pending = make.gauge("reqon_alerts_pending", "Alerts not delivered yet.", "target")

        build = make.gauge("reqon_build_info", "What runs here; always 1.", "version", "python")
        build.at(__version__, platform.python_version()).set(1)
        for state in LOADED_STATES:
            self.missions_loaded.at(state)

    # --- what a scrape gets -------------------------------------------------------------------------------------------

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All series in the form that an Accept header asks for, and its content type. Any thread may ask."""
        encoder, content_type = choose_encoder(accept)
        openmetrics = content_type.startswith("application/openmetrics-text")
        rest = encoder(self._process).removesuffix(_END)
        pages = [family.page(openmetrics=openmetrics) for family in self._instruments.families]
        return b"".join((rest, *pages, _END if openmetrics else b"")), content_type

    # --- what the daemon says -----------------------------------------------------------------------------------------

    def mission_loaded(self, facts: MissionFacts, past: MissionPast) -> None:
        """Show a mission from now on; one that was loaded before keeps its counts."""
        name = facts.name
        before = self._missions.get(name)
        self._missions[name] = facts
        if before is not None:
            self.info.drop(mission=name)
            self._drop_unused_sources(before.sources)
        self.info.at(name, facts.schedule, facts.timezone, facts.definition).set(1)
        self._prepare(facts)
        self.registered.at(name).set(past.registered_at.timestamp())
        if before is None:
            self._restore(name, past)
        if facts.freshness_limit_seconds is None:
            self.freshness_limit.drop(mission=name)
        else:
            self.freshness_limit.at(name).set(facts.freshness_limit_seconds)

    def mission_removed(self, name: str) -> None:
        """Forget a mission and all its series; its sources' too, unless another mission has them."""
        facts = self._missions.pop(name, None)
        self._instruments.drop(mission=name)
        self._running.pop(name, None)
        if facts is not None:
            self._drop_unused_sources(facts.sources)

    def next_slot(self, name: str, due: datetime | None) -> None:
        """The mission's next slot; None: there is none."""
        if name in self._missions:
            self.next_run.at(name).set(due.timestamp() if due else 0)

    def loaded(self, *, active: int, paused: int, invalid: int) -> None:
        """How many missions there are."""
        for state, number in zip(LOADED_STATES, (active, paused, invalid), strict=True):
            self.missions_loaded.at(state).set(number)

    def faults(self, *, internal: int, state_writes: int, quarantined: Mapping[str, int]) -> None:
        """What others count since the process began; the counters follow."""
        _follow(self.internal_errors, self._faults, "internal", internal)
        _follow(self.state_write_errors, self._faults, "state", state_writes)
        for kind, number in quarantined.items():
            _follow(self.quarantined.at(kind), self._faults, f"quarantined {kind}", number)

    def errors_counted(self, execution_id: str, total: int) -> None:
        """So many errors of an execution that may be resumed are of the past."""
        if len(self._errors_seen) >= _REMEMBERED_ERRORS:
            self._errors_seen.pop(next(iter(self._errors_seen)))
        self._errors_seen[execution_id] = total

    def observe(self, happenings: Happenings) -> None:
        """Hear what happens in the daemon."""
        happenings.on(SchedulerTicked, self._on_tick)
        happenings.on(SlotDecided, self._on_slot)
        happenings.on(RunQueued, self._on_queued)
        happenings.on(RunStarted, self._on_run)
        happenings.on(RunEnded, self._on_run_over)
        happenings.on(RunNotBegun, self._on_run_not_begun)
        happenings.on(MissionPaused, self._on_paused)
        happenings.on(MissionUnpaused, self._on_unpaused)
        happenings.on(MissionsReloaded, self._on_reload)
        happenings.on(StateTroubled, self._on_trouble)
        happenings.on(FileQuarantined, self._on_quarantine)

    def _on_tick(self, happening: SchedulerTicked) -> None:
        self.last_tick.set(happening.at.timestamp())
        if happening.queued is not None:
            self.queued.set(happening.queued)

    def _on_slot(self, happening: SlotDecided) -> None:
        if happening.mission not in self._missions:
            return
        outcome, count = happening.outcome, happening.count
        if outcome.runs:  # one run makes up for all of them
            self.slots.at(happening.mission, SlotOutcome.COALESCED).inc(count - 1)
            count = 1
        self.slots.at(happening.mission, outcome).inc(count)

    def _on_queued(self, happening: RunQueued) -> None:
        self.queued.set(happening.queued)

    def _on_run(self, happening: RunStarted) -> None:
        self.queued.set(happening.queued)
        if happening.lag_seconds is not None:
            self.lag.observe(max(0.0, happening.lag_seconds))
        name = happening.mission
        if name in self._missions:
            self._running[name] += 1
            self.running.at(name).set(self._running[name])
            self.last_run.at(name).set(happening.at.timestamp())
            self.last_progress.at(name).set(happening.at.timestamp())

    def _on_run_over(self, happening: RunEnded) -> None:
        name, outcome = happening.mission, happening.outcome
        if name not in self._missions:
            return
        self._one_less(name)
        self.runs.at(name, outcome).inc()
        if happening.resumed:
            self.resumes.at(name, outcome).inc()
        if outcome is RunOutcome.SUCCESS:
            self.last_success.at(name).set(happening.at.timestamp())
            self.last_run_success.at(name).set(1)
            self.consecutive_failures.at(name).set(0)
        elif outcome is RunOutcome.FAILURE:
            self.last_run_success.at(name).set(0)
            self.consecutive_failures.at(name).inc()
            if happening.record is None:  # it failed before it could begin
                self.errors.at(name).inc()

    def _on_run_not_begun(self, happening: RunNotBegun) -> None:
        if happening.mission in self._missions:
            self._one_less(happening.mission)

    def _one_less(self, name: str) -> None:
        self._running[name] = max(0, self._running[name] - 1)
        self.running.at(name).set(self._running[name])

    def _on_paused(self, happening: MissionPaused) -> None:
        if happening.mission in self._missions:
            self.paused.at(happening.mission).set(1)

    def _on_unpaused(self, happening: MissionUnpaused) -> None:
        if happening.mission in self._missions:
            self.paused.at(happening.mission).set(0)

    def _on_reload(self, happening: MissionsReloaded) -> None:
        self.reload_successful.set(not happening.broken)
        if not happening.broken:
            self.reload_success_time.set(happening.at.timestamp())

    def _on_trouble(self, _happening: StateTroubled) -> None:
        self.state_write_errors.inc()

    def _on_quarantine(self, happening: FileQuarantined) -> None:
        self.quarantined.at(happening.kind).inc()

    # --- what runs say ------------------------------------------------------------------------------------------------

    def listen(self, bus: EventBus) -> None:
        """Hear every execution on this bus."""
        handlers: tuple[tuple[type[Event], Handler], ...] = (
            (MissionStarted, self._on_started),
            (MissionEnded, self._on_ended),
            (Progressed, self._on_progress),
            (ActionEnded, self._on_action),
            (FetchCompleted, self._advance),
            (PageFetched, self._advance),
            (DataStored, self._on_stored),
            (ItemsCounted, self._on_items),
            (DeadLettered, self._on_dead_letter),
            (CheckpointSaved, self._on_checkpoint),
            (RequestAnswered, self._on_request),
            (FetchRetried, self._on_retry),
            (RateLimitHit, self._on_limit),
            (RateLimitResumed, self._on_limit_over),
            (BreakerChanged, self._on_breaker),
            (AuthRefreshed, self._on_token),
        )
        for kind, handler in handlers:
            bus.on(kind, self._while_loaded(handler))

    def _while_loaded(self, handler: Handler) -> Handler:
        # A run may outlive its mission; its series are gone by then and stay so.
        def handle(emitted: Emitted) -> None:
            if emitted.mission in self._missions:
                handler(emitted)

        return handle

    def _on_started(self, emitted: Emitted) -> None:
        if not emitted.is_resume:
            self.items_processed.at(emitted.mission).set(0)
        self._advance(emitted)

    def _on_ended(self, emitted: Emitted) -> None:
        name, event = emitted.mission, emitted.event
        assert isinstance(event, MissionEnded)
        self.run_seconds.at(name).observe(event.duration_seconds)
        self.duration.at(name).set(event.duration_seconds)
        self.items_processed.at(name).set(event.items_processed)
        # A resumed execution's count goes on from before: only what is new is counted here.
        seen = self._errors_seen.pop(emitted.execution_id, 0)
        self.errors.at(name).inc(max(0, event.error_count - seen))
        if event.error_count and not isinstance(event, MissionCompleted):
            self.errors_counted(emitted.execution_id, event.error_count)
        self._advance(emitted)

    def _on_progress(self, emitted: Emitted) -> None:
        self.items_processed.at(emitted.mission).set(emitted.items_processed)
        self._advance(emitted)

    def _on_action(self, emitted: Emitted) -> None:
        self.action_seconds.at(emitted.mission, emitted.action_name).observe(emitted.duration_seconds)
        self._advance(emitted)

    def _on_stored(self, emitted: Emitted) -> None:
        for outcome in ("added", "updated", "unchanged"):
            if number := getattr(emitted.event, outcome):
                self.items.at(emitted.mission, outcome).inc(number)
        self._advance(emitted)

    def _on_items(self, emitted: Emitted) -> None:
        for outcome in ("skipped", "invalid"):
            if number := getattr(emitted.event, outcome):
                self.items.at(emitted.mission, outcome).inc(number)

    def _on_dead_letter(self, emitted: Emitted) -> None:
        self.items.at(emitted.mission, "dead_lettered").inc()

    def _on_checkpoint(self, emitted: Emitted) -> None:
        self.checkpoints.at(emitted.mission).inc()
        self._advance(emitted)

    def _on_request(self, emitted: Emitted) -> None:
        event = emitted.event
        assert isinstance(event, RequestAnswered)
        self.requests.at(event.source, event.method, event.code).inc()
        self.request_seconds.at(event.source).observe(event.seconds)
        if event.remaining is not None:
            self.rate_limit_remaining.at(event.source).set(event.remaining)

    def _on_retry(self, emitted: Emitted) -> None:
        self.retries.at(emitted.source, emitted.reason).inc()

    def _on_limit(self, emitted: Emitted) -> None:
        if emitted.remaining is not None:
            self.rate_limit_remaining.at(emitted.source).set(emitted.remaining)

    def _on_limit_over(self, emitted: Emitted) -> None:
        self.rate_limit_wait.at(emitted.source).inc(max(0.0, emitted.waited_seconds))

    def _on_breaker(self, emitted: Emitted) -> None:
        self._breakers[emitted.source][emitted.mission] = emitted.state
        self._show_breaker(emitted.source)

    def _on_token(self, emitted: Emitted) -> None:
        if emitted.expires_at is not None:
            self.token_expiry.at(emitted.source).set(emitted.expires_at.timestamp())

    def _advance(self, emitted: Emitted) -> None:
        self.last_progress.at(emitted.mission).set(emitted.timestamp.timestamp())

    # --- keeping the series -------------------------------------------------------------------------------------------

    def _prepare(self, facts: MissionFacts) -> None:
        """Make the series that will be needed, so that they are seen to start at 0."""
        name = facts.name
        for family in (
            self.duration, self.items_processed, self.errors, self.run_seconds, self.last_success, self.last_run,
            self.next_run, self.last_progress, self.consecutive_failures, self.running, self.paused, self.checkpoints,
        ):  # fmt: skip
            family.at(name)
        for status in RunOutcome:
            self.runs.at(name, status)
            self.resumes.at(name, status)
        for decision in SlotOutcome:
            self.slots.at(name, decision)
        for outcome in ITEM_OUTCOMES:
            self.items.at(name, outcome)
        for action in facts.actions:
            self.action_seconds.at(name, action)
        for source in facts.sources:
            self.requests.at(source, "GET", "200")
            self.request_seconds.at(source)
            self.rate_limit_wait.at(source)
            self._show_breaker(source)

    def _restore(self, name: str, past: MissionPast) -> None:
        if past.last_success_at is not None:
            self.last_success.at(name).set(past.last_success_at.timestamp())
        if past.last_run_at is not None:
            self.last_run.at(name).set(past.last_run_at.timestamp())
        if past.last_duration_seconds is not None:
            self.duration.at(name).set(past.last_duration_seconds)
        if past.last_items is not None:
            self.items_processed.at(name).set(past.last_items)
        if past.last_outcome in ("success", "failure"):
            self.last_run_success.at(name).set(past.last_outcome == "success")
        self.consecutive_failures.at(name).set(past.consecutive_failures)
        self.paused.at(name).set(past.paused)

    def _show_breaker(self, source: str) -> None:
        states = self._breakers[source].values()
        worst = max(states, key=_badness, default="closed")
        for state in BREAKER_STATES:
            self.breaker_state.at(source, state).set(state == worst)

    def _drop_unused_sources(self, sources: Iterable[str]) -> None:
        used = {source for facts in self._missions.values() for source in facts.sources}
        for source in set(sources) - used:
            self._instruments.drop(source=source)
            self._breakers.pop(source, None)


def _follow(counter: Number, seen: dict[str, int], what: str, total: int) -> None:
    """Move a counter by what was added since the last look."""
    counter.inc(max(0, total - seen.get(what, 0)))
    seen[what] = total


def _badness(state: str) -> int:
    return BREAKER_STATES.index(state) if state in BREAKER_STATES else 0


def metric_names(metrics: Metrics) -> Mapping[str, str]:
    """Every metric of ours by its sample name, with its type; for documentation and its tests."""
    names = {}
    for family in metrics.registry.collect():
        if family.name.startswith("reqon_"):
            names[f"{family.name}_total" if family.type == "counter" else family.name] = family.type
    return names
