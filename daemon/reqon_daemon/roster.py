"""The missions in service, as everybody else sees them: scheduled, measured, watched by alerts, shown in health."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from reqon.clock import SYSTEM, Clock
from reqon.diagnostics import Diagnostic
from reqon.errors import ReqonError
from reqon_daemon.alerts import Alerts, Watched
from reqon_daemon.catalog import Catalog, Loaded, Reload
from reqon_daemon.freshness import freshness_limit
from reqon_daemon.happenings import Happenings, MissionsReloaded, RunEnded, RunOutcome, SlotDecided
from reqon_daemon.health import Health
from reqon_daemon.ledger import Ledger
from reqon_daemon.metrics import Metrics, MissionFacts, MissionPast
from reqon_daemon.outbox import Sender
from reqon_daemon.plans import alert_urls, plan_of, short_hash
from reqon_daemon.schedule import Scheduler
from reqon_daemon.targets import parse_target

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Roster:
    """Brings what the catalog holds to all who need to know. `scheduled` is False where nothing waits for slots."""

    catalog: Catalog
    scheduler: Scheduler
    ledger: Ledger
    metrics: Metrics
    health: Health
    happenings: Happenings
    alerts: Alerts | None = None
    alert_secret: str | None = None
    scheduled: bool = True
    clock: Clock = SYSTEM
    _shown: dict[str, Loaded] = field(default_factory=dict)
    _refused: frozenset[str] = frozenset()

    def observe(self, happenings: Happenings) -> None:
        """Hear of slots and runs: next due times and freshness limits move with them."""
        happenings.on(SlotDecided, self._on_slot)
        happenings.on(RunEnded, self._on_run_ended)

    def apply(self, reload: Reload) -> None:
        """Take what was loaded into service, and say so."""
        missions, broken = self.catalog.missions, self.catalog.broken
        if self.scheduled:
            self.scheduler.replace(missions)
        for name in self._shown.keys() - missions.keys():
            self.metrics.mission_removed(name)
            if self.alerts is not None:
                self.alerts.mission_removed(name)
        for name, loaded in missions.items():
            if self._shown.get(name) is not loaded:
                self._show(loaded)
            self.metrics.next_slot(name, self.scheduler.next_due(name))
        self._shown = dict(missions)
        paused = sum(self._is_paused(name) for name in missions)
        self.metrics.loaded(active=len(missions) - paused, paused=paused, invalid=len(broken))
        self.health.missions_loaded = len(missions)
        self.health.concern("missions", tuple(first_line(path, found) for path, found in broken.items()))
        self.happenings.emit(
            MissionsReloaded(
                at=self.clock.now(),
                added=reload.added,
                changed=dict(reload.changed),
                removed=reload.removed,
                broken=dict(broken),
            )
        )
        self._log(reload)

    def count(self) -> None:
        """Show how many missions there are; pauses end by themselves."""
        missions = self.catalog.missions
        paused = sum(self._is_paused(name) for name in missions)
        self.metrics.loaded(active=len(missions) - paused, paused=paused, invalid=len(self.catalog.broken))
        for name in missions:
            self.metrics.paused.at(name).set(self._is_paused(name))

    def _show(self, loaded: Loaded) -> None:
        name, schedule, program = loaded.name, loaded.policy.schedule, loaded.plan.program
        standing = self.ledger.register(name)
        limit = self._freshness_limit(loaded)
        facts = MissionFacts(
            name=name,
            schedule=schedule.text if schedule else "",
            timezone=schedule.zone.name if schedule else "",
            definition=short_hash(loaded),
            sources=tuple(program.sources),
            actions=tuple(program.actions),
            freshness_limit_seconds=limit,
        )
        past = MissionPast(
            registered_at=standing.registered,
            last_run_at=standing.last_run,
            last_success_at=standing.last_success,
            last_outcome=standing.last_outcome,
            last_duration_seconds=standing.last_duration_seconds,
            last_items=standing.last_items,
            consecutive_failures=standing.consecutive_failures,
            paused=self._is_paused(name),
        )
        self.metrics.mission_loaded(facts, past)
        if self.alerts is not None:
            self.alerts.mission_loaded(
                Watched(
                    name=name,
                    path=str(loaded.unit),
                    targets=self._targets_of(loaded),
                    registered_at=standing.registered,
                    last_success_at=standing.last_success,
                    freshness_limit_seconds=limit,
                    paused=self._is_paused(name),
                )
            )

    def _is_paused(self, mission: str) -> bool:
        return self.scheduler.dispatcher.pause_of(mission) is not None

    def _targets_of(self, loaded: Loaded) -> tuple[Sender, ...]:
        """The mission's own alert targets; one that cannot be used leaves the daemon's."""
        try:
            urls = alert_urls(plan_of(loaded))
            return tuple(parse_target(url, secret=self.alert_secret, clock=self.clock) for url in urls)
        except ReqonError as error:
            problem = "an alert target of the mission cannot be used"
            log.error(problem, mission=loaded.name, reason=error.message)  # noqa: TRY400  # the mission's fault
            return ()

    def _freshness_limit(self, loaded: Loaded) -> float | None:
        standing = self.ledger.standing(loaded.name)
        return freshness_limit(
            self.scheduler.schedule_of(loaded.name),
            fresh_within_seconds=loaded.policy.fresh_within_seconds,
            usual_seconds=standing.last_duration_seconds if standing else None,
            now=self.clock.now(),
        )

    def _on_slot(self, happening: SlotDecided) -> None:
        self.metrics.next_slot(happening.mission, self.scheduler.next_due(happening.mission))

    def _on_run_ended(self, happening: RunEnded) -> None:
        loaded = self.catalog.get(happening.mission)
        if loaded is None or happening.outcome is not RunOutcome.SUCCESS:
            return
        limit = self._freshness_limit(loaded)
        if limit is not None:
            self.metrics.freshness_limit.at(loaded.name).set(limit)
        if self.alerts is not None:
            self.alerts.freshness(loaded.name, limit)

    def _log(self, reload: Reload) -> None:
        for name in reload.added:
            log.info("mission added", mission=name, definition=short_hash(self.catalog.missions[name]))
        for name, (old, new) in reload.changed.items():
            log.info("mission changed", mission=name, before=old[:12], after=new[:12])
        for name in reload.removed:
            log.info("mission removed", mission=name)
        for path in reload.refused:
            found = self.catalog.broken.get(path, ())
            log.error(
                "mission file refused",
                path=path,
                reason=first_line(path, found),
                findings=len(found),
                hint=f"reqon check {path} shows all of them",
            )
        for path in sorted(self._refused - self.catalog.broken.keys()):
            log.info("mission file mended", path=path)
        self._refused = frozenset(self.catalog.broken)


def first_line(path: str, found: Iterable[Diagnostic]) -> str:
    """What is wrong with a file, in one line."""
    first = next((d for d in found if d.severity == "error"), None)
    return f"{path} cannot be loaded" if first is None else f"{first.span or path}: {first.message}"
