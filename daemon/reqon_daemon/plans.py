"""From mission files to plans the daemon can run, and the run itself, as the dispatcher asks for it."""

from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from reqon.errors import ReqonError
from reqon.extensions import registered
from reqon.files import LockTakenError
from reqon.lang.loader import load
from reqon.lang.program import MissionProgram, Unit
from reqon.runner import AlreadyRunningError, Runner
from reqon.runtime.plan import Plan
from reqon.runtime.request import RunRequest
from reqon.state.records import ExecutionRecord, Trigger
from reqon_daemon.catalog import Loaded
from reqon_daemon.catalog import Plan as Known
from reqon_daemon.policy import Evaluate
from reqon_daemon.targets import parse_target

SCHEDULED = "REQON_SCHEDULED"


@dataclass(frozen=True, slots=True)
class Twin:
    """A mission's plan as people start it, and as the schedule does: `env("REQON_SCHEDULED")` is "true" there."""

    manual: Plan
    scheduled: Plan

    @property
    def name(self) -> str:
        return self.manual.name

    @property
    def definition_hash(self) -> str:
        return self.manual.definition_hash

    @property
    def program(self) -> MissionProgram:
        return self.manual.program


@dataclass(slots=True)
class Planner:
    """Reads and compiles missions for the catalog, runs them for the dispatcher.

    `only` are the names of the missions that are wanted; empty: all. `at_once`: of more units than so many at a time,
    missions are checked only, and compiled by `compile`, or when they first run; None: always as they are read.
    """

    runner: Runner
    environment: Mapping[str, str]
    skip: tuple[Path, ...] = ()
    only: tuple[str, ...] = ()
    at_once: int | None = None
    left: bool = False  # whether some are not compiled
    _expected: int = 0
    _scheduled: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        # Not a copy: a process's variables are read and decoded one by one.
        self._scheduled = ChainMap({SCHEDULED: "true"}, cast("MutableMapping[str, str]", self.environment))

    def expect(self, units: int) -> None:
        """So many are read next."""
        self._expected = units

    def load(self, path: Path) -> Iterable[Unit]:
        """One file or mission folder, read and checked."""
        known = registered(lambda: self.runner.specifications)
        units = load([path], known=known, skip=self.skip).units
        return [self._wanted(unit) for unit in units] if self.only else units

    def plan(self, program: MissionProgram) -> Twin:
        """The mission compiled, so that what cannot run is found now; of more than `at_once` units, checked only.

        Raises:
            ReqonError: with its place.
        """
        scheduled = self.runner.bare_plan(program, self._scheduled)
        if self.at_once is None or self._expected <= self.at_once:
            scheduled.compile()
        else:
            self.left = True
        with suppress(ReqonError):  # told when the mission goes into service
            for url in alert_urls(scheduled):
                parse_target(url)  # what sends it may take a second to import: here, in a thread, and not then
        return Twin(self.runner.plan(program), scheduled)

    def compile(self, plan: Known) -> None:
        """Compile what `plan` has left.

        Raises:
            ReqonError: with its place.
        """
        assert isinstance(plan, Twin)
        plan.scheduled.compile()

    def all_at_once(self) -> None:
        """From now on compile each mission as it is read: a reload must not put into service what cannot run."""
        self.at_once = None

    async def run(self, plan: Known, request: RunRequest) -> ExecutionRecord:
        """Run it once.

        Raises:
            LockTakenError: another process runs the mission.
            ResumeRefusedError: nothing was begun.
        """
        assert isinstance(plan, Twin)
        try:
            return await self.runner.run(plan.scheduled if by_schedule(request) else plan.manual, request)
        except AlreadyRunningError as error:
            raise LockTakenError(error.message) from error

    def _wanted(self, unit: Unit) -> Unit:
        missions = tuple(mission for mission in unit.missions if mission.name in self.only)
        return Unit(unit.path, unit.content_hash, missions, unit.diagnostics)


def documents_of(plan: Known) -> list[Path]:
    """The OpenAPI documents in files that a mission's sources have."""
    assert isinstance(plan, Twin)
    return plan.manual.documents


def by_schedule(request: RunRequest) -> bool:
    """Whether the schedule asked for it, which the mission can see."""
    return request.scheduled_for is not None or request.trigger is Trigger.SCHEDULE


def plan_of(loaded: Loaded) -> Plan:
    """The plan of a mission that `Planner` compiled, for its options."""
    assert isinstance(loaded.plan, Twin)
    return loaded.plan.manual


def options_of(plan: Known) -> Evaluate:
    """What evaluates the options of a mission that `Planner` compiled."""
    assert isinstance(plan, Twin)
    return plan.manual.evaluate


def alert_urls(plan: Plan) -> tuple[str, ...]:
    """The mission's own alert targets."""
    value = plan.option("alert", ())
    return (value,) if isinstance(value, str) else tuple(str(url) for url in value)


def short_hash(loaded: Loaded) -> str:
    """The definition's hash as metrics and logs show it."""
    return loaded.plan.definition_hash[:12]
