"""Items that missions set aside: looked at, done again, dropped (spec/runtime.md 11).

They lie in ordinary stores: a mission's own file in `dead-letter/`, and the stores that its `queue` steps name. Doing
one again runs the step that failed for this item alone, without a record of its own; what passes leaves the store.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from reqon.clock import rfc3339
from reqon.errors import ReqonError
from reqon.lang import flow, nodes
from reqon.lang.program import MissionProgram
from reqon.lang.walk import walk
from reqon.runner import Runner
from reqon.runtime.plan import Plan
from reqon.runtime.request import OnlyItem, RunRequest
from reqon.state.ids import new_execution_id
from reqon.state.records import ExecutionRecord, ExecutionStatus, Trigger
from reqon.stores.base import LocalStore
from reqon.stores.registry import open_store
from reqon.stores.remote import RemoteStore
from reqon.stores.waiting import bridged
from reqon.values import Record, Value

OWN = "dead-letter"  # what the file of a mission's own is called here


@dataclass(frozen=True, slots=True)
class Letter:
    """One item that was set aside."""

    box: "Box"
    key: str
    record: Record

    @property
    def mission(self) -> str:
        """Which mission set it aside."""
        name = self.record.get("mission")
        return name if isinstance(name, str) else self.box.mission

    def summary(self) -> Record:
        """What a list shows of it."""
        fields = ("action", "kind", "code", "error", "attemptCount", "queuedAt", "retryable")
        return {
            "mission": self.mission,
            "store": self.box.store,
            "key": self.key,
            **{name: self.record.get(name) for name in fields},
        }


@dataclass(frozen=True, slots=True)
class Box:
    """A store that holds items that were set aside: a file of the mission's own, or one that `plan` declares."""

    mission: str
    store: str
    file: Path | None = None
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class Retried:
    """How doing an item again went: done, failed, or refused, and why."""

    letter: Letter
    outcome: str
    reason: str | None = None


class DeadLetters:
    """The dead letters of a state directory, and of the stores of some missions."""

    def __init__(self, runner: Runner, missions: Sequence[MissionProgram]) -> None:
        self.runner = runner
        self.plans = {mission.name: runner.plan(mission) for mission in missions}

    def boxes(self) -> Iterator[Box]:
        """Where items may lie."""
        owners = {self.runner.directory.dead_letters(name): name for name in self.plans}
        directory = self.runner.directory.path / "dead-letter"
        for file in sorted(directory.glob("*.json")) if directory.is_dir() else ():
            yield Box(owners.get(file, file.stem), OWN, file=file)
        for name, plan in self.plans.items():
            for store in sorted(_named_by_queues(plan.program)):
                chosen = self.runner.chosen_store(plan, store)
                if chosen is None or chosen.kind != "memory":
                    yield Box(name, store, plan=plan)

    async def letters(self) -> list[Letter]:
        """All of them, store by store, in the order in which they were set aside."""
        return [letter for box in self.boxes() for letter in await self._letters(box)]

    async def _letters(self, box: Box) -> list[Letter]:
        async with self._open(box) as store:
            return [Letter(box, key, record) for key, record in await _entries(store)]

    @asynccontextmanager
    async def _open(self, box: Box) -> AsyncIterator[LocalStore]:
        store = await asyncio.to_thread(self._opened, box)
        if isinstance(store, RemoteStore):
            await store.open()
            try:
                yield store
                await store.drain()
            finally:
                await store.aclose()
            return
        try:
            yield store
        finally:
            await asyncio.to_thread(store.close)

    def _opened(self, box: Box) -> LocalStore:
        if box.file is not None:
            return open_store("file", box.file.stem, {}, directory=box.file.parent, mission_directory=box.file.parent)
        assert box.plan is not None
        nothing = ExecutionRecord(
            execution_id=new_execution_id(self.runner.clock.now()),
            mission=box.mission,
            started_at=self.runner.clock.now(),
            status=ExecutionStatus.RUNNING,
        )
        return self.runner.open_store(box.plan, box.store, nothing).store

    async def drop(self, letters: Sequence[Letter]) -> None:
        """Remove items from their stores."""
        for box in dict.fromkeys(letter.box for letter in letters):
            async with self._open(box) as store:
                for letter in letters:
                    if letter.box == box:
                        await _with(store, store.delete, letter.key)

    # --- doing them again ---------------------------------------------------------------------------------------------

    async def retry(self, letter: Letter) -> Retried:
        """Run the step that set an item aside for this item alone.

        Raises:
            AlreadyRunningError: its mission runs.
        """
        plan = self.plans.get(letter.mission)
        if plan is None:
            return Retried(letter, "refused", f"the mission '{letter.mission}' was not given: add --path")
        reason = _why_not(letter.record, plan)
        if reason is not None:
            return Retried(letter, "refused", reason)
        record = letter.record
        program = plan.program
        outcome = await self.runner.execute(
            self.runner.plan(program).without_state(),
            RunRequest(
                mission=program.name,
                path=str(program.path),
                definition_hash=program.definition_hash,
                trigger=Trigger.RETRY,
                only=OnlyItem(record["action"], record["step"], record["item"]),
            ),
        )
        failure = outcome.errors[0] if outcome.errors else None
        return await self._settle(letter, outcome.record.execution_id, success=outcome.success, failure=failure)

    async def _settle(self, letter: Letter, execution_id: str, *, success: bool, failure: ReqonError | None) -> Retried:
        """Take an item that passed out of its store; let one that failed again stand there once, with its count."""
        async with self._open(letter.box) as store:
            again = {key: r for key, r in await _entries(store) if r.get("executionId") == execution_id}
            if success and not again:
                await _with(store, store.delete, letter.key)
                return Retried(letter, "done")
            newest = next(iter(again.values()), None)
            if letter.key not in again:
                # An item without an id gets a new key each time: it stays under the one that people know.
                now = rfc3339(self.runner.clock.now())
                fresh = newest or {"error": failure.message if failure else None, "queuedAt": now}
                count = letter.record.get("attemptCount")
                attempts = count + 1 if isinstance(count, int) else 1
                kept = {**letter.record, **fresh, "id": letter.record.get("id", letter.key), "attemptCount": attempts}
                for key in again:
                    await _with(store, store.delete, key)
                await _with(store, store.put, letter.key, kept)
            error = failure.message if failure is not None else (newest or {}).get("error")
        return Retried(letter, "failed", error if isinstance(error, str) else None)


async def _entries(store: LocalStore) -> list[tuple[str, Record]]:
    if isinstance(store, RemoteStore):
        return [entry async for batch in store.adapter.entries() for entry in batch]
    return list(zip(store.keys(), store.records(), strict=True))


async def _with(store: LocalStore, call: object, *arguments: Value) -> None:
    """A write, which a remote store may have to wait for."""
    assert callable(call)

    async def work() -> None:
        call(*arguments)

    await (bridged(work()) if isinstance(store, RemoteStore) else work())


def _named_by_queues(program: MissionProgram) -> set[str]:
    """The stores that a mission sets items aside in."""
    named: set[str] = set()
    for action in program.actions.values():
        for node in walk(action):
            if isinstance(node, nodes.Queue):
                named.add(node.store.text if node.store is not None else "dlq")
    return named & program.stores.keys()


def _why_not(record: Record, plan: Plan) -> str | None:
    """Why an item cannot be done again by itself; None if it can."""
    action, number = record.get("action"), record.get("step")
    node = plan.program.actions.get(action) if isinstance(action, str) else None
    if "item" not in record or "executionId" not in record or not isinstance(number, int):
        return "it was written by `queue { item: … }`: a mission that loops over the store works it off"
    if node is None or number >= len(node.steps):
        return f"the action '{action}' is no longer as it was"
    if record.get("error") is None:
        return "it did not fail: the mission set it aside by a condition, which would hold again"
    step = node.steps[number]
    if not isinstance(step, nodes.For):
        return None if record["item"] is None else f"step {number + 1} of '{action}' is no loop any more"
    inner = [inside for inside in flow.steps_in(step.body) if isinstance(inside, nodes.For)]
    if any(isinstance(found, nodes.Queue) for loop in inner for found in walk(loop)):
        return "it may come from a loop inside a loop, which needs the item around it: run the mission again"
    return None
