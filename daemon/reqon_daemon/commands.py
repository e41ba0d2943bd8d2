"""What the control socket can be asked: trigger, pause, unpause, cancel, reload, status, why (spec/daemon.md 1).

Results are JSON-ready; the command line renders them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from reqon.diagnostics import Diagnostic, did_you_mean, render
from reqon.errors import ConfigurationError
from reqon.values import Record
from reqon_daemon.catalog import Catalog, Reload
from reqon_daemon.control import Command
from reqon_daemon.dispatcher import Dispatcher
from reqon_daemon.happenings import Happenings, MissionsReloaded
from reqon_daemon.ledger import Ledger
from reqon_daemon.obstacles import Obstacles
from reqon_daemon.runs import Running
from reqon_daemon.schedule import Scheduler
from reqon_daemon.shown import DECISIONS_SHOWN, decision_shown, pause_shown, retry_shown, standing_shown


@dataclass(frozen=True, slots=True)
class Commands:
    """The commands of one daemon. `reload` reads the missions and the credentials again and answers what it did."""

    catalog: Catalog
    scheduler: Scheduler
    dispatcher: Dispatcher
    ledger: Ledger
    reload_all: Callable[[], Awaitable[Reload]]
    obstacles: Obstacles = field(default_factory=Obstacles)

    def table(self) -> Mapping[str, Command]:
        """By name, for `ControlServer`."""
        return {
            "trigger": self.trigger,
            "pause": self.pause,
            "unpause": self.unpause,
            "cancel": self.cancel,
            "reload": self.reload,
            "status": self.status,
            "why": self.why,
        }

    async def trigger(
        self, mission: str, *, resume: bool = False, execution: str | None = None, force: bool = False
    ) -> Record:
        """Run it now; `state` says what happens: started, queued behind …, already queued."""
        self._known(mission)
        state = self.dispatcher.trigger(mission, resume=resume, execution_id=execution, force=force)
        return {"mission": mission, "state": state}

    async def pause(self, mission: str, *, seconds: float | None = None, reason: str = "") -> Record:
        self._known(mission)
        return {
            "mission": mission,
            "pause": pause_shown(await self.dispatcher.pause(mission, seconds=seconds, reason=reason)),
        }

    async def unpause(self, mission: str) -> Record:
        self._known(mission)
        return {"mission": mission, "wasPaused": await self.dispatcher.unpause(mission)}

    async def cancel(self, mission: str) -> Record:
        """`cancelled` counts what ran, what was queued, and a rerun that was waiting."""
        self._known(mission)
        return {"mission": mission, "cancelled": await self.dispatcher.cancel(mission)}

    async def reload(self) -> Record:
        """What was added, changed, removed, refused and why."""
        return reload_shown(await self.reload_all())

    async def status(self) -> Record:
        """All missions in service, and the files that are broken."""
        return {
            "missions": [self._mission(name) for name in sorted(self.catalog.missions)],
            "broken": {path: _findings(found) for path, found in self.catalog.broken.items()},
            "running": len(self.dispatcher.running),
            "queued": self.dispatcher.queued,
            "maxRunning": self.dispatcher.limits.max_running,
            "stopping": self.dispatcher.stopping,
        }

    async def why(self, mission: str) -> Record:
        """Why it ran, runs, waits or did not run: its state, and its newest decisions, the newest first."""
        if self.ledger.standing(mission) is None:
            self._known(mission)
        decisions = self.ledger.decisions(mission)[-DECISIONS_SHOWN:]
        loaded = self.catalog.get(mission)
        broken = self.catalog.broken.get(str(loaded.unit), ()) if loaded else ()
        return {
            **self._mission(mission),
            "waitsFor": self.obstacles.wait_of(mission),
            "breakers": self.obstacles.breakers_of(mission),
            "broken": _findings(broken),
            "decisions": [decision_shown(d) for d in reversed(decisions)],
        }

    def _known(self, mission: str) -> None:
        if self.catalog.get(mission) is None:
            hint = did_you_mean(mission, tuple(self.catalog.missions), "loaded missions")
            if self.catalog.broken:
                hint += f" Refused files, which may hold it: {', '.join(sorted(self.catalog.broken))}."
            raise ConfigurationError(f"no mission '{mission}' is loaded", code="unknown-mission", hint=hint)

    def _mission(self, name: str) -> Record:
        loaded, standing = self.catalog.get(name), self.ledger.standing(name)
        schedule = loaded.policy.schedule if loaded else None
        pause, retry = self.dispatcher.pause_of(name), self.dispatcher.retry_of(name)
        running = self.dispatcher.running_of(name)
        return {
            "mission": name,
            "state": self._state(name),
            "path": str(loaded.unit) if loaded else None,
            "definition": loaded.plan.definition_hash if loaded else None,
            "schedule": schedule.text if schedule else None,
            "timezone": schedule.zone.name if schedule else None,
            "nextDue": self.scheduler.next_due(name),
            "running": [_running(run) for run in running],
            "queued": len(self.dispatcher.queued_of(name)),
            "pause": pause_shown(pause) if pause else None,
            "retry": retry_shown(retry) if retry else None,
            **standing_shown(standing),
        }

    def _state(self, name: str) -> str:
        if self.dispatcher.running_of(name):
            return "running"
        if self.dispatcher.queued_of(name):
            return "queued"
        if self.catalog.get(name) is None:
            return "removed"
        if self.dispatcher.pause_of(name):
            return "paused"
        if self.dispatcher.retry_of(name):
            return "waiting for a rerun"
        return "scheduled" if self.scheduler.next_due(name) else "idle"


async def reload_missions(
    catalog: Catalog, scheduler: Scheduler, happenings: Happenings, *, settle: bool = True, everything: bool = False
) -> Reload:
    """Look at the files, put what changed into service, say so if anything did."""
    before = catalog.broken
    done = await catalog.reload(settle=settle, everything=everything)
    scheduler.replace(catalog.missions)
    if done or done.broken != before:
        happenings.emit(
            MissionsReloaded(
                at=scheduler.clock.now(),
                added=done.added,
                changed=dict(done.changed),
                removed=done.removed,
                broken=dict(done.broken),
            )
        )
    return done


def reload_shown(done: Reload) -> Record:
    """A reload as JSON: `changed` maps a mission to `[old hash, new hash]`, `broken` a path to its rendered errors."""
    return {
        "added": list(done.added),
        "changed": {name: list(hashes) for name, hashes in done.changed.items()},
        "removed": list(done.removed),
        "refused": list(done.refused),
        "broken": {path: _findings(found) for path, found in done.broken.items()},
    }


def _findings(found: tuple[Diagnostic, ...]) -> list[str]:
    return [render(finding) for finding in found]


def _running(run: Running) -> Record:
    return {
        "executionId": run.execution_id,
        "startedAt": run.started_at,
        "trigger": run.job.trigger.value,
        "attempt": run.job.attempt,
        "scheduledFor": run.job.due,
    }
