"""What a resume would do, said before anything is touched: skipped, fetched again, written again (spec/state.md 5).

Read from the record, the journal and the last line of each store's log: nothing is opened for writing, and no lock is
taken.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from reqon.lang import flow, nodes
from reqon.runtime.plan import Plan, step_label
from reqon.runtime.resume import ActionPosition, LoopPosition, ResumePoint
from reqon.secrets import SECRETS
from reqon.state.backend import Journal
from reqon.state.records import ExecutionRecord
from reqon.values import Value

RESUME, ANEW, REFUSED = "resume", "anew", "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What `--resume` would do with one mission. Sentences in order; `decision` is resume, anew or refused.

    Attributes:
        reason: why it is refused, or runs anew; hint: what to do about it.
        skipped: what is done and stays so; fetched_again: requests that are sent although they may have been before;
        written_again: store writes that are repeated, under the same keys; then: what follows for the first time.
    """

    mission: str
    decision: str
    execution_id: str | None = None
    attempt: int = 1
    reason: str | None = None
    hint: str | None = None
    skipped: tuple[str, ...] = ()
    fetched_again: tuple[str, ...] = ()
    written_again: tuple[str, ...] = ()
    then: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Value]:
        """JSON-ready, camelCase; absent where there is nothing to say."""
        known: dict[str, Value] = {
            "mission": self.mission,
            "decision": self.decision,
            "executionId": self.execution_id,
            "attempt": self.attempt if self.decision == RESUME else None,
            "reason": self.reason,
            "hint": self.hint,
        }
        told = {name: value for name, value in known.items() if value is not None}
        if self.decision == RESUME:
            told |= {"skipped": list(self.skipped), "fetchedAgain": list(self.fetched_again)}
            told |= {"writtenAgain": list(self.written_again), "then": list(self.then)}
        return told


def outlook(
    plan: Plan,
    record: ExecutionRecord,
    journal: Journal,
    positions: Mapping[str, int],
    openings: Mapping[str, Mapping[str, int]],
) -> Outlook:
    """What a resume of this execution would do. `positions` and `openings`: see `ResumePoint.read`."""
    point, memory = ResumePoint.read(journal, positions, openings)
    walk = _Walk(plan, record, point)
    walk.stages()
    for name in sorted({written.store for written in memory}):
        walk.skipped.append(f"memory store {name}: filled from the journal")
    return Outlook(
        mission=plan.name,
        decision=RESUME,
        execution_id=record.execution_id,
        attempt=record.attempt + 1,
        skipped=_redacted(walk.skipped),
        fetched_again=_redacted(walk.fetched),
        written_again=_redacted(walk.written),
        then=_redacted(walk.then),
    )


@dataclass(slots=True)
class _Walk:
    """Goes through the stages as the engine will."""

    plan: Plan
    record: ExecutionRecord
    point: ResumePoint
    skipped: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    then: list[str] = field(default_factory=list)

    def stages(self) -> None:
        completed = set(self.point.completed)
        rerun = False
        for stage in self.plan.stages:
            keys = {action: f"{stage.index}/{action}" for action in stage.actions}
            if not rerun and completed.issuperset(keys.values()):
                self.skipped += [f"{action}: completed" for action in keys]
                continue
            if not rerun and stage.index in self.point.skipped:
                self.skipped += [f"{action}: the stage's condition did not hold" for action in keys]
                continue
            for action, key in keys.items():
                if key not in completed:
                    self._action(action, key)
                elif rerun:
                    self._again(action)
                else:
                    self.skipped.append(f"{action}: completed")
            rerun = True

    def _again(self, action: str) -> None:
        """A completed action behind a group that failed in part."""
        steps = self.plan.program.actions[action].steps
        self.fetched += [f"{action}: {text}, since what stood before it failed" for text in _requests(steps)]
        self.written += [f"{action}: {text}, since what stood before it failed" for text in _stores(steps)]
        self.then.append(f"{action}: from its first step, again")

    def _action(self, action: str, key: str) -> None:
        at = self.point.position(key)
        pages = {o.partition(":")[2]: p for o, p in self.point.pages.items() if o.startswith(f"{key}:")}
        steps = self.plan.program.actions[action].steps
        index = 0 if at is None else at.step
        if at is None and not pages:
            began = self.record.active_step is not None and self.record.active_step.action == action
            self.then.append(f"{action}: from its first step")
            if began:
                self.fetched += [f"{action}: {text}" for text in _requests(steps[:1])]
                self.written += [f"{action}: {text}" for text in _stores(steps[:1])]
            return
        if index:
            self.skipped.append(f"{action}: {_count(index, 'step')} before `{step_label(steps[index])}`")
        for path, known in pages.items():
            fetch = _step_at(steps, path)
            where = f"{action}: {_count(len(known), 'page')} of `{fetch}`"
            self.skipped.append(f"{where}, kept in the journal")
            if path == str(index):
                self.fetched.append(f"{action}: `{fetch}` from page {known[-1].number + 1} on, if there is one")
        loop = None if at is None else at.loops.get(str(index))
        if at is None or loop is None:
            self._step(action, steps[index] if index < len(steps) else None, paged=str(index) in pages, at=at)
        else:
            self._loop(action, key, steps[index], loop)
        if index + 1 < len(steps):
            self.then.append(f"{action}: {_count(len(steps) - index - 1, 'step')} after `{step_label(steps[index])}`")

    def _step(self, action: str, step: nodes.Step | None, *, paged: bool, at: ActionPosition | None) -> None:
        if step is None:
            return
        known = len(at.replies) if at is not None else 0
        if known:
            self.skipped.append(f"{action}: {_count(known, 'answer')} kept in the journal")
        if not paged:
            self.fetched += [f"{action}: {text}, unless its answer is kept" for text in _requests([step])]
        self.written += [f"{action}: {text}" for text in _stores([step])]
        self.then.append(f"{action}: from `{step_label(step)}` on")

    def _loop(self, action: str, key: str, step: nodes.Step, loop: LoopPosition) -> None:
        done = loop.index + len(loop.finished)
        total = "" if loop.total is None else f" of {loop.total:,}"
        if done:
            self.skipped.append(f"{action}: {_count(done, 'item')}{total} of `{step_label(step)}`")
        for path, number, count, _ in loop.inner:
            self.skipped.append(f"{action}: {number:,} of {count:,} rounds of the loop inside (at {path})")
        item = f"{action}: item {loop.index}"
        known = [answers for (of, _, index), answers in self.point.said.items() if of == key and index >= loop.index]
        if known:
            number = sum(len(entries) for answers in known for entries in answers.values())
            self.skipped.append(f"{item}: {_count(number, 'answer')} kept in the journal")
        inside = [inner for inner in flow.steps_in([step]) if inner is not step]
        if loop.total is not None and loop.index >= loop.total:
            return
        self.fetched += [f"{item}: {text}, unless its answer is kept" for text in _requests(inside)]
        self.written += [f"{item}: {text}" for text in _stores(inside)]
        self.then.append(f"{action}: items {loop.index} to the end{total and f' ({total.strip()})'}")


def _requests(steps: "tuple[nodes.Step, ...] | list[nodes.Step]") -> Iterator[str]:
    for step in flow.steps_in(steps):
        if isinstance(step, nodes.Fetch | nodes.CallStep):
            yield f"`{step_label(step)}`"


def _stores(steps: "tuple[nodes.Step, ...] | list[nodes.Step]") -> Iterator[str]:
    for step in flow.steps_in(steps):
        if isinstance(step, nodes.StoreStep):
            yield f"`{step_label(step)}`: the same keys, so that nothing is there twice"


def _step_at(steps: "tuple[nodes.Step, ...]", path: str) -> str:
    head = path.partition(".")[0]
    inside = [steps[int(head)]] if head.isdecimal() and int(head) < len(steps) else []
    found = [s for s in flow.steps_in(inside) if isinstance(s, nodes.Fetch | nodes.CallStep)]
    return step_label(found[0]) if found else f"step {path}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _redacted(sentences: list[str]) -> tuple[str, ...]:
    return tuple(SECRETS.redact(sentence) for sentence in sentences)
