"""The missions of `tests/corpus`: what each one is, and what running it comes to."""

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reqon.clock import SYSTEM
from reqon.diagnostics import Source, render_all
from reqon.events import DataValidated, Emitted, EventBus, Noticed
from reqon.extensions import registered
from reqon.http.openapi.loading import Specifications
from reqon.lang import nodes
from reqon.lang.functions import REGISTERED
from reqon.lang.loader import load_text
from reqon.lang.program import MissionProgram, Program
from reqon.lang.walk import walk
from reqon.runner import Outcome, RunnerSettings
from reqon.running.settings import Additions
from reqon.runtime.registries import GLOBAL, Registries
from reqon.runtime.request import RunRequest
from reqon.stores.base import LocalStore
from reqon.stores.file import FileStore
from reqon.values import decode, encode
from reqon.webhooks.server import WebhookServer
from tests.support.clocks import FakeClock
from tests.support.corpus_api import CorpusApi
from tests.support.missions import KeepingRunner
from tests.support.servers import ScriptedServer, Seen

CORPUS = Path(__file__).parents[1] / "corpus"
ENVIRONMENT = {"STAGE": "test", "EMPTY": "", "TOKEN": "corpus-token-1234", "NUMBER": "7", "API_PATH": "rows"}
RUN = ("functions", "operators", "steps", "arms", "directives", "options", "missions", "calls", "waits", "extensions")
# What differs from run to run, and what goldens have in its place.
_MASKS = tuple(
    (re.compile(pattern), shown)
    for pattern, shown in (
        (r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "UUID"),
        (r"exec_[0-9A-Za-z]+(?:-[0-9a-z]{26})?", "exec_ID"),
        (r"\b(auto|dlq)_[0-9a-z]{20,}", r"\1_KEY"),
        (r"localhost(:|%3A)\d+", r"localhost\1PORT"),
        (r"\bevt_[0-9a-z]+", "evt_ID"),
        (r"(/|%2F)[0-9a-f]{32}\b", r"\1TOKEN"),
    )
)


def missions(*folders: str) -> list[Path]:
    """The mission files of these folders of the corpus, all of them if none is named."""
    roots = [CORPUS / folder for folder in folders] or [CORPUS]
    return sorted(path for root in roots for path in root.rglob("*.vague"))


def name_of(path: Path) -> str:
    return str(path.relative_to(CORPUS).with_suffix(""))


def loaded(path: Path, registries: Registries = GLOBAL) -> Program:
    known = registered(Specifications, folder=path.parent, registries=registries)
    return load_text(Source(path.name, path.read_text("utf-8")), folder=path.parent, known=known)


def _users_steps(told: list[dict[str, Any]]) -> Registries:
    """Two steps of a user's own: `notify` is told its options, `broken` fails."""

    async def notify(step: Any, context: Any) -> str:
        told.append({"action": context.action, "index": context.index, "options": dict(step.options)})
        return "discarded"

    def broken(step: Any, context: Any) -> None:
        raise ValueError(f"no {step.options['what']}")

    registries = Registries(functions=REGISTERED)
    registries.register_step_handler("notify", notify)
    registries.register_step_handler("broken", broken)
    return registries


def announced(path: Path) -> tuple[str, str | None, str | None]:
    """What a mission of `findings` says it shows in its first two lines: slug, message, beginning of the hint."""
    first, second, *_ = path.read_text("utf-8").split("\n")
    slug, _, message = first.removeprefix("// ").partition(": ")
    hint = second.removeprefix("// hint: ") if second.startswith("// hint: ") else None
    return slug, message or None, hint


def drawn(node: Any, name: str = "", depth: int = 0) -> str:
    """A tree in lines, indented: each node's kind, its fields that are values, then its fields that are nodes."""
    pad = "  " * depth + (f"{name}: " if name else "")
    if isinstance(node, tuple):
        return "".join(drawn(one, name, depth) for one in node) if node else f"{pad}none\n"
    if not isinstance(node, nodes.Node):
        return f"{pad}{node!r}\n"
    fields = [(n, getattr(node, n)) for n in nodes.compared_fields(type(node))]
    inner = [(n, v) for n, v in fields if isinstance(v, nodes.Node) or (isinstance(v, tuple) and v)]
    plain = [f"{n}={v!r}" for n, v in fields if not isinstance(v, nodes.Node | tuple) and v is not None]
    head = " ".join([type(node).__name__.rstrip("_"), *plain])
    return f"{pad}{head}\n" + "".join(drawn(v, n, depth + 1) for n, v in inner)


@dataclass(slots=True)
class Run:
    """One run of a corpus mission, and the form of it that goldens keep."""

    outcome: Outcome
    stores: dict[str, Any]
    seen: list[Seen]
    slept: list[float]
    sync: dict[str, Any]
    told: list[Emitted] = field(default_factory=list)
    handled: list[dict[str, Any]] = field(default_factory=list)

    def shown(self, port: int) -> str:
        """The run as text: what differs from run to run is masked."""
        record = self.outcome.record
        events = [emitted.event for emitted in self.told]
        found: dict[str, Any] = {"status": str(record.status), "actionsRun": list(record.actions_run)}
        if record.errors:
            found["errors"] = [{"type": e.type, "message": e.message, "at": e.location} for e in record.errors]
            found["hints"] = [d.hint for error in self.outcome.errors for d in error.diagnostics if d.hint]
        notices = [f"{e.level}: {e.message}" for e in events if isinstance(e, Noticed)]
        broken = [e.errors for e in events if isinstance(e, DataValidated) and not e.passed]
        more = {"notices": notices, "invalid": broken, "waits": self.slept, "sync": self.sync, "handled": self.handled}
        found |= {key: value for key, value in more.items() if value}
        found["requests"] = [f"{seen.method} {seen.target}" for seen in self.seen]
        found["stores"] = self.stores
        text = encode(found, pretty=True).decode().replace(f"127.0.0.1:{port}", "127.0.0.1:PORT")
        for pattern, shown in _MASKS:
            text = pattern.sub(shown, text)
        return text + "\n"


async def run(path: Path, state: Path) -> str:
    """What the missions of a file come to, one after the other, as their golden keeps it."""
    # Run from a copy: what a mission writes beside itself must not stay here.
    for beside in (path, *path.parent.glob("*.yaml")):
        (state / beside.name).write_bytes(beside.read_bytes())
    program = loaded(state / path.name, _users_steps([]))
    assert not program.has_errors, render_all(program.all_diagnostics)
    return "".join([await _one(mission, state) for mission in program.missions])


async def _one(mission: MissionProgram, state: Path) -> str:
    told, handled, bus = list[Emitted](), list[dict[str, Any]](), EventBus()
    bus.on(Noticed, told.append)
    bus.on(DataValidated, told.append)
    waits = any(isinstance(node, nodes.Wait) for action in mission.actions.values() for node in walk(action))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ScriptedServer())
        CorpusApi(server)
        # Who calls back does so by the machine's own clock.
        clock: Any = SYSTEM if waits else FakeClock()
        runner = KeepingRunner(
            RunnerSettings(
                state_directory=state,
                webhooks=await stack.enter_async_context(WebhookServer(port=0)) if waits else None,
            ),
            clock=clock,
            bus=bus,
            environment={"API": server.url, **ENVIRONMENT},
            random=lambda: 0.5,
            additions=Additions(registries=_users_steps(handled)),
        )
        runner.opened = {}
        try:
            # In a thread, for a document may have to be had from the server of this loop.
            outcome = await runner.execute(
                await asyncio.to_thread(runner.plan, mission),
                RunRequest(mission=mission.name, path=str(mission.path), definition_hash=mission.definition_hash),
            )
        finally:
            await runner.close()
        stores = {name: _records(opened.store) for name, opened in runner.opened.items()}
        synced = state / "sync-checkpoints.json"
        sync = decode(synced.read_bytes()) if synced.exists() else {}
        slept = [] if waits else clock.slept
        return Run(outcome, stores, server.seen, slept, sync, told, handled).shown(server.port)


def _records(store: LocalStore) -> Any:
    """What a closed store holds, by key."""
    if isinstance(store, FileStore):
        return decode(store._file.path.read_bytes())
    return {key: store.get(key) for key in store.keys()}  # noqa: SIM118  # a method of the store
