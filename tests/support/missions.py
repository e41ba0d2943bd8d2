"""Mission texts, run through the real loader, runner and stores against a scripted server."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reqon.diagnostics import Source, render
from reqon.events import Emitted, Event, EventBus
from reqon.extensions import registered
from reqon.files import FileSystem
from reqon.http.openapi.loading import Specifications
from reqon.lang.loader import load_text
from reqon.lang.program import MissionProgram
from reqon.runner import Outcome, Runner, RunnerSettings
from reqon.runtime.execution import OpenStore
from reqon.runtime.plan import Plan
from reqon.runtime.request import RunRequest
from reqon.state.records import ExecutionRecord, RunError
from reqon.values import Record, decode
from reqon.webhooks.server import WebhookServer
from tests.support.clocks import FakeClock
from tests.support.servers import ScriptedServer


def mission(
    steps: str = "",
    *,
    actions: str = "",
    run: str = "A",
    stores: str = "",
    options: str = "",
    source: str = "",
    declarations: str = "",
) -> str:
    """A mission of one source `Api`, a memory store `out`, an action `A` of these steps, and what else a test needs."""
    first = f"  action A {{\n{steps}\n  }}\n" if steps else ""
    return (
        f'mission M {{\n  source Api {{ auth: none, base: env("API"), retry: {{ maxAttempts: 1 }} {source} }}\n'
        f'  store out: memory("out")\n{stores}\n{options}\n{declarations}\n{first}{actions}\n  run {run}\n}}\n'
    )


# Memory stores whose records the journal has as items of pages, written, overwritten, deleted; in called actions too.
PAGES_IN_MEMORY = mission(
    """
    get "/pages" { paginate: page(page, 2) }
    store response -> names
    store response -> names { key: concat("again-", .id) }
    store response.data -> names { key: .id, upsert: true }
    map response -> mapped { id: "m", n: length(response) }
    store mapped -> out
    get "/array" { paginate: page(page, 2) }
    store response -> out { key: .id }
    post "/note/0"
    run B
    store response -> names { key: concat("b-", .id) }
    for n in names checkpoint every 2 { post "/note/{n.id}"
      store { id: n.id, seen: true } -> names { key: .id, upsert: true }
      delete out[n.id] }
    run B
    post "/note/1"
    store { id: "end", n: length(names) } -> out""",
    actions="""
    action B { get "/pages" { paginate: page(page, 2) }
      store response -> again
      get "/array" { paginate: page(page, 2) }
      store response -> again { key: concat("x", .id) }
      post "/b/1"
      for a in again where .n == 21 { delete again[a.id] } }
    action C { for a in again { post "/c/{a.id}"
        store a -> more { key: concat("c", .id) } } }""",
    run="A then C",
    stores='store names: memory("names")\nstore again: memory("again")\nstore more: file("more")',
)


def parse_mission(text: str) -> MissionProgram:
    """The one mission of a text; its errors fail the test."""
    program = load_text(Source("test.vague", text), known=registered(Specifications))
    errors = [d for d in program.all_diagnostics if d.severity == "error"]
    assert not errors, "\n".join(render(d) for d in errors)
    (found,) = program.missions
    return found


@dataclass(slots=True)
class Ran:
    """How a run ended, what its stores held then, and what it told.

    Attributes:
        stores: store name -> key -> record, in the store's order.
    """

    outcome: Outcome
    stores: dict[str, dict[str, Record]]
    events: list[Emitted] = field(default_factory=list)

    @property
    def record(self) -> ExecutionRecord:
        return self.outcome.record

    @property
    def out(self) -> dict[str, Record]:
        return self.stores["out"]

    @property
    def error(self) -> RunError:
        """The only error."""
        assert len(self.record.errors) == 1, self.record
        return self.record.errors[0]

    def ok(self) -> "Ran":
        """Itself, when the run completed."""
        assert self.outcome.success, [error.format() for error in self.outcome.errors]
        return self

    def told(self, *types: str) -> list[Event]:
        """The events of these public types, in order."""
        return [e.event for e in self.events if e.type in types]


class KeepingRunner(Runner):
    """A runner that remembers the stores it opened, so that a test may look into them."""

    opened: dict[str, OpenStore]
    plans: dict[str, Plan] | None = None  # by definition, where many runners run the same missions with the same clock

    def bare_plan(self, program: MissionProgram, environment: Mapping[str, str] | None = None) -> Plan:
        if self.plans is None:
            return super().bare_plan(program, environment)
        plan = self.plans.get(program.definition_hash)
        if plan is None:
            plan = self.plans[program.definition_hash] = super().bare_plan(program, environment)
        return plan

    def open_store(self, plan: Plan, name: str, before: ExecutionRecord, *, settle: bool = True) -> OpenStore:
        store = super().open_store(plan, name, before, settle=settle)
        self.opened[name] = store
        return store


@dataclass(slots=True)
class Bench:
    """Runs missions of one state directory against one server, with one clock."""

    api: ScriptedServer
    state: Path
    clock: Any = field(default_factory=FakeClock)
    environment: Mapping[str, str] = field(default_factory=dict)
    listen: Sequence[type[Event]] = ()
    settings: RunnerSettings = field(default_factory=RunnerSettings)
    runner: KeepingRunner | None = None  # the one of the run in work
    webhooks: WebhookServer | None = None
    heard: list[Emitted] | None = None  # where events go; a new list for each run if there is none
    on_bus: Callable[[EventBus], object] | None = None  # who else listens
    disk: FileSystem | None = None  # what writes the files, if it isn't the machine's own
    plans: dict[str, Plan] | None = None  # see KeepingRunner

    async def run(self, text: str, *, resume: bool = False, execution_id: str | None = None) -> Ran:
        """Run the mission of a text once, in a fresh runner."""
        program = parse_mission(text)
        bus = EventBus()
        heard: list[Emitted] = [] if self.heard is None else self.heard
        for kind in self.listen:
            bus.on(kind, heard.append)
        if self.on_bus is not None:
            self.on_bus(bus)
        runner = self.runner = KeepingRunner(
            replace(self.settings, state_directory=self.state, webhooks=self.webhooks),
            clock=self.clock,
            bus=bus,
            environment={"API": self.api.url, **self.environment},
            random=lambda: 0.5,
        )
        runner.opened, runner.plans = {}, self.plans
        if self.disk is not None:
            runner.directory.disk = self.disk
        try:
            outcome = await runner.execute(
                runner.plan(program),
                RunRequest(
                    mission=program.name,
                    path=str(program.path),
                    definition_hash=program.definition_hash,
                    resume=resume,
                    execution_id=execution_id,
                ),
            )
        finally:
            await runner.close()
        return Ran(outcome, {name: self.contents(opened) for name, opened in runner.opened.items()}, heard)

    async def resume(self, text: str) -> Ran:
        return await self.run(text, resume=True)

    def contents(self, opened: OpenStore) -> dict[str, Record]:
        """A closed store's records by key."""
        store = opened.store
        if opened.remote is not None:
            return {}  # whoever wants to know asks the adapter
        if store.kind == "memory":
            return {key: store.get(key) or {} for key in store.keys()}  # noqa: SIM118  # a method of the store
        return self.file_store(opened.name)

    def file_store(self, name: str) -> dict[str, Record]:
        """What lies in `stores/<name>.json`, by key; nothing if there is no such file."""
        path = self.state / "stores" / f"{name}.json"
        return decode(path.read_bytes()) if path.exists() else {}
