"""Running a plan: stages, actions, signals, failures; where a resume goes on (spec/language.md 7.1, state.md 5)."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from reqon.errors import AbortError, FetchError, ParallelError, ReqonError
from reqon.events import (
    ACTION,
    ActionEnded,
    ActionStarted,
    CheckpointResumed,
    Noticed,
    StageEnded,
    StageStarted,
)
from reqon.http.messages import Headers
from reqon.lang import nodes
from reqon.lang.compiler import place_of
from reqon.lang.operators import ErrorResponse
from reqon.runtime.execution import Execution, internal_error
from reqon.runtime.frame import Frame
from reqon.runtime.hooks import ActionOutcome, StepMoment, StepOutcome
from reqon.runtime.kept import given_back, kept
from reqon.runtime.loops import LoopRun
from reqon.runtime.plan import ActionPlan, StagePlan, StepPlan, step_label
from reqon.runtime.replies import answer_once
from reqon.runtime.request import OnlyItem
from reqon.runtime.resume import ActionPosition
from reqon.runtime.retrying import repeat
from reqon.runtime.signals import SKIP, RestartAction, RetryFetch, SkipIteration
from reqon.runtime.stopping import StopRun
from reqon.runtime.telling import WatchedStep
from reqon.state.backend import Journal
from reqon.state.records import ActiveStep
from reqon.values import Value, decode, encode


@dataclass(slots=True)
class StageResult:
    """How a stage went; `response` is what the next one starts with."""

    completed: int = 0
    failed: int = 0
    skipped: int = 0
    failed_stage: str | None = None


class Engine:
    """Runs one execution's pipeline. Failures of actions are kept in the execution's errors."""

    def __init__(self, x: Execution) -> None:
        self.x = x
        x.engine = self
        self.result = StageResult()
        self.stage_index = 0
        self.step_index = 0
        self._left: tuple[str, Value] = "", None  # the last action that has put its response into the journal, and that

    @property
    def first_stage(self) -> int:
        """The stage in which a resume goes on."""
        done = self._completed()
        skipped = self.x.resume.skipped if self.x.resume is not None else ()
        stages = [s for s in self.x.plan.stages if s.index not in skipped]
        left = (s.index for s in stages if not done.issuperset(_key(s.index, a) for a in s.actions))
        return next(left, len(self.x.plan.stages))

    async def run(self) -> bool:
        """Run all stages; whether everything succeeded.

        Raises:
            asyncio.CancelledError: told to stop; where it is has been saved.
        """
        x = self.x
        if x.only is not None:
            return await self._only(x.only)
        completed = self._completed()
        response: Value = None
        before: str | None = None  # the completed action that the first stage to run follows
        rerun = False  # after the first stage that is not completed all later ones run, completed or not
        for stage in x.plan.stages:
            self.stage_index = stage.index
            keys = [_key(stage.index, a) for a in stage.actions]
            if not rerun and all(key in completed for key in keys):
                self.result.completed += 1
                before = None if stage.parallel else keys[0]
                continue
            if not rerun and x.resume is not None and stage.index in x.resume.skipped:
                self.result.skipped += 1
                continue
            if before is not None:
                response, before = self._left_by(before), None
            if stage.condition is not None and not self._holds(stage, response, anew=rerun):
                self.result.skipped += 1
                text = f"stage {stage.name} is skipped: its condition does not hold"
                x.emit(Noticed(level="info", message=text))
                continue
            started, items = x.clock.monotonic(), x.items_processed
            x.emit(
                StageStarted(
                    stage_index=stage.index,
                    stage_name=stage.name,
                    total_stages=len(x.plan.stages),
                    is_parallel=stage.parallel,
                    parallel_actions=stage.actions if stage.parallel else None,
                )
            )
            if rerun and x.resume is not None:
                # It ran on what a group that failed in part had left: nothing of that is taken up.
                for key in completed.intersection(keys):
                    x.resume.forget(key)
            done, rerun = completed if not rerun else frozenset[str](), True
            try:
                if stage.parallel:
                    response = await self._group(stage, response, done)
                else:
                    response = await self._action(stage.actions[0], stage.index, response)
            except ParallelError as error:
                self._stage_ended(stage, started, items, error)
                response = None
                if len(error.failures) == len(stage.actions) or x.plan.fail_fast:
                    return False
                continue
            except ReqonError as error:
                self._stage_ended(stage, started, items, error)
                return False
            self._stage_ended(stage, started, items, None)
        return self.result.failed == 0

    async def _only(self, only: OnlyItem) -> bool:
        """Run one step of an action for one item, after the variables that the action binds before it.

        A step that is no loop has no item: then all of the action runs.
        """
        x = self.x
        plan = x.plan.action(only.action, watched=x.watched)
        frame = Frame(x, only.action, None)
        start = 0
        if isinstance(plan.steps[only.step].node, nodes.For):
            start = only.step
            plan = replace(plan, steps=plan.steps[: start + 1])
        try:
            for step in plan.steps[:start]:
                if isinstance(step.node, nodes.Let):
                    await step.function(frame)
            await self._all_steps(frame, plan, start)
            await x.write_out()
        except (asyncio.CancelledError, StopRun):
            raise
        except Exception as error:  # noqa: BLE001  # as in an action of the pipeline
            self._failed(frame, plan, error)
            return False
        x.flush_stores()
        return True

    def _completed(self) -> frozenset[str]:
        return frozenset(self.x.resume.completed) if self.x.resume is not None else frozenset()

    def _holds(self, stage: StagePlan, response: Value, *, anew: bool) -> bool:
        """Ask a stage's condition, once: what it looked at may be another after the stage has begun."""
        x = self.x
        assert stage.condition is not None
        if not anew and x.resume is not None and stage.index in x.resume.held:
            return True
        frame = Frame(x, "", None, response)
        try:
            holds = bool(stage.condition(frame))
        except ReqonError as error:
            error.locate(place_of(error))
            raise
        if x.journal is not None:
            x.journal.append("held" if holds else "skipped", {"stage": stage.index})
        return holds

    def _stage_ended(self, stage: StagePlan, started: float, items: int, error: ReqonError | None) -> None:
        x = self.x
        if error is None:
            self.result.completed += 1
        else:
            self.result.failed += 1
            self.result.failed_stage = stage.name
        x.emit(
            StageEnded(
                stage_index=stage.index,
                stage_name=stage.name,
                success=error is None,
                error=error.message if error is not None else None,
                items_processed=x.items_processed - items,
            ),
            duration_ms=x.since(started),
        )

    # --- groups -------------------------------------------------------------------------------------------------------

    async def _group(self, stage: StagePlan, response: Value, completed: frozenset[str]) -> Value:
        """All actions of a group together, at most `maxConcurrency` at once.

        Raises:
            ParallelError: some failed; the others ran to their end, unless one aborted or the mode is fail-fast.
        """
        gate = asyncio.Semaphore(self.x.plan.max_concurrency)
        failures: list[tuple[str, ReqonError]] = []

        async def member(name: str) -> None:
            async with gate:
                try:
                    await self._action(name, stage.index, response)
                except AbortError:
                    raise
                except ReqonError as error:
                    if self.x.plan.fail_fast:
                        raise
                    failures.append((name, error))

        try:
            async with asyncio.TaskGroup() as members:
                for name in stage.actions:
                    if _key(stage.index, name) not in completed:
                        members.create_task(self.x.with_stores(member(name)))
        except BaseExceptionGroup as group:
            raise _first(group) from None
        if failures:
            raise ParallelError(failures)
        return None

    # --- actions ------------------------------------------------------------------------------------------------------

    async def _action(self, name: str, stage: int, response: Value) -> Value:
        """Run an action of the pipeline; its final response. Events of its task are its own meanwhile."""
        ACTION.set(name)
        try:
            return await self._run_action(name, stage, response)
        finally:
            ACTION.set(None)

    async def _run_action(self, name: str, stage: int, response: Value) -> Value:
        """The same. What an action did is saved before it is told."""
        x = self.x
        key = _key(stage, name)
        started = x.clock.monotonic()
        items = x.items_processed
        plan = x.plan.action(name, watched=x.watched)
        frame = Frame(x, name, key, response)
        x.emit(ActionStarted(action_name=name, stage_index=stage, attempt=x.record.attempt), action=name)
        position = x.resume.position(key) if x.resume is not None else None
        try:
            start = self._restore(frame, position) if position is not None else 0
            if x.hooks.before_action:
                await x.hooks.before_action(name)
            await self._all_steps(frame, plan, start)
            await x.write_out()
            await self._save_done(frame, key, plan, stage)
        except (asyncio.CancelledError, StopRun):
            self._remember_active(frame, plan)
            raise
        except Exception as error:
            self._renew_budgets(frame)
            failure = self._failed(frame, plan, error)
            await self._action_ended(name, started, items, failure.message)
            if failure is error:
                raise
            raise failure from error
        await self._action_ended(name, started, items, None)
        return frame.response

    async def _save_done(self, frame: Frame, key: str, plan: ActionPlan, stage: int) -> None:
        """What an action did is safe, in this order: its stores, the journal's entry, the record."""
        x, name = self.x, frame.action
        last = stage + 1 == len(x.plan.stages)
        x.flush_stores()
        x.active.pop(key, None)
        x.actions_run.append(name)
        try:
            if x.journal is not None and (x.journal.exists or len(x.plan.stages) > 1):
                fields, body = self._leave(frame) if not last and not x.plan.stages[stage].parallel else ({}, None)
                x.note("action", {**fields, "a": key}, body=body)
            if last:
                x.tell_writes(name)
            else:
                variables = len(frame.variables)
                await x.checkpoint(reason="action", action=name, step=len(plan.steps), variables=variables)
        except BaseException:
            x.actions_run.remove(name)
            raise

    async def _action_ended(self, name: str, started: float, items: int, error: str | None) -> None:
        x = self.x
        seconds = x.clock.monotonic() - started
        x.emit(
            ActionEnded(
                action_name=name,
                success=error is None,
                items_processed=x.items_processed - items,
                duration_seconds=seconds,
                error=error,
            ),
            action=name,
            duration_ms=round(seconds * 1000),
        )
        if x.hooks.after_action:
            outcome = ActionOutcome(
                success=error is None,
                error=error,
                items_processed=x.items_processed - items,
                duration=round(seconds * 1000),
            )
            await x.hooks.after_action(name, outcome)

    async def _all_steps(self, frame: Frame, plan: ActionPlan, start: int) -> None:
        """Run an action's steps; all of them again where a `wait` that came to nothing says so."""
        response, meta = frame.response, frame.meta
        while True:
            if self.x.room is not None:
                for spec in plan.opens:
                    if spec.step >= start:  # a resumed action is past the others
                        self.x.room.open(frame, spec, ())
            try:
                await self._steps(frame, plan, start)
            except RestartAction as again:
                await self._begin_again(frame, response, meta)
                await self.x.clock.sleep(again.delay_seconds)
                start = 0
            else:
                if self.x.room is not None:
                    self.x.room.end_action(frame)
                return

    async def _begin_again(self, frame: Frame, response: Value, meta: Mapping[str, Value] | None) -> None:
        """As an action begins; a resume then finds nothing of what it had done."""
        x = self.x
        frame.response, frame.meta, frame.webhook, frame.request = response, meta, None, None
        frame.raw_response = frame.raw_of = frame.failure = None
        frame.variables, frame.tries = {}, {}
        frame.loop, frame.inner, frame.step, frame.bound_step, frame.begun_step = None, (), 0, -1, -1
        if x.room is not None:
            await x.room.begin_again(frame)
        if frame.key is None:
            return
        if x.resume is not None:
            x.resume.forget(frame.key)
        if x.journal is not None:
            x.journal.append("again", {"a": frame.key})
            self.bind(frame)
            x.journal.sync()

    async def _steps(self, frame: Frame, plan: ActionPlan, start: int) -> None:
        """Run an action's steps from one on, until the end or a signal. A retry goes back to its request."""
        x = frame.x
        steps = plan.steps
        hooked = bool(x.hooks.before_step or x.hooks.after_step)
        index = start
        fresh = not frame.single  # else a `retry` went back to this step before the process ended
        while index < len(steps):
            step = steps[index]
            frame.step = self.step_index = index
            if fresh:
                for target, at in plan.targets.items():
                    if at == index:
                        frame.tries[target] = {}
            fresh = True
            if frame.key is not None:
                x.active[frame.key] = ActiveStep(action=frame.action, step=step_label(step.node))
            try:
                if hooked:
                    answer = await self._hooked(frame, plan, step)
                else:
                    answer = await self._step(frame, plan, step)
            except RetryFetch as signal:
                index, fresh = plan.targets[signal.target], False
                frame.step, frame.single = index, True
                self._bind_retry(frame)
                await repeat(frame, signal)
                continue
            frame.replaying = False
            if answer is SKIP:
                return
            index += 1

    async def _step(self, frame: Frame, plan: ActionPlan, step: StepPlan) -> str | None:
        answer: str | None = await (self._watched(frame, step) if plan.watched else step.function(frame))
        return answer

    async def _hooked(self, frame: Frame, plan: ActionPlan, step: StepPlan) -> str | None:
        """A step with users' hooks around it."""
        x = self.x
        moment = StepMoment(
            action=frame.action, index=step.place.index, type=step.place.type, location=str(step.node.span)
        )
        await x.hooks.before_step(moment)
        started = x.clock.monotonic()
        try:
            answer = await self._step(frame, plan, step)
        except ReqonError as error:
            failed = StepOutcome(success=False, error=error.message, duration=x.since(started))
            await x.hooks.after_step(moment, failed)
            raise
        await x.hooks.after_step(moment, StepOutcome(success=True, flow=answer, duration=x.since(started)))
        return answer

    async def _watched(self, frame: Frame, step: StepPlan) -> str | None:
        """A step with its events around it."""
        with WatchedStep(frame, step.place):
            answer: str | None = await step.function(frame)
            if answer is SKIP:
                frame.flow = SKIP
            return answer

    def _remember_active(self, frame: Frame, plan: ActionPlan) -> None:
        key = frame.key or frame.action
        if key not in frame.x.active and frame.step < len(plan.steps):
            frame.x.active[key] = ActiveStep(action=frame.action, step=step_label(plan.steps[frame.step].node))

    def _failed(self, frame: Frame, plan: ActionPlan, error: Exception) -> ReqonError:
        """Turn what was raised into a failure with its place, kept in the record."""
        x = self.x
        if isinstance(error, SkipIteration | RetryFetch):
            raise AssertionError("a signal left its action") from error  # noqa: TRY004  # a bug of ours, no type
        failure = error if isinstance(error, ReqonError) else internal_error(error, x.record.execution_id)
        self._place(frame.action, failure, error)
        self._remember_active(frame, plan)
        active = x.active.get(frame.key or frame.action)
        item = active.item if active is not None else None
        for one in _each(failure):
            self._place(frame.action, one, one)
            x.add_error(one, action=one.action, step=one.step, item=getattr(one, "item", None) or item)
        return failure

    def _place(self, action: str, failure: ReqonError, raised: BaseException) -> None:
        self.x.plan.place(failure, action, raised)

    # --- called actions -----------------------------------------------------------------------------------------------

    async def call(self, caller: Frame, name: str, response: Value, origin: str, *, private: bool = False) -> Value:
        """Run an action for a `run` or `jump` step: its own variables, the caller's response as a copy.

        `private`: it renews credentials. Nothing of it is in the journal, and a resume does it again.
        """
        x = self.x
        keyed = caller.key is not None and caller.loop is None and not private
        key = f"{origin}{name}" if keyed else None
        if key is not None and x.resume is not None and x.resume.take_called(key):
            caller.replaying = caller.replaying and x.resume.knows_inside(caller.origin, caller.step)
            return self._left_by(key)
        if caller.replaying:
            if key is None or x.resume is None or x.resume.position(key) is None:
                return response  # it was over before what the step is repeated for
            caller.replaying = False
        frame = Frame(x, name, key, response)
        frame.meta = caller.meta
        frame.caller = caller
        frame.origin = f"{origin}{name}"
        frame.call_depth = caller.call_depth + 1
        frame.inside_loop = caller.inside_loop or caller.loop is not None
        frame.private = caller.private or private
        frame.work = caller.work
        if caller.loop is not None and caller.loop is caller.work:
            frame.item, frame.trail = caller.index, caller.inner
        else:
            frame.item, frame.trail = caller.item, caller.trail
        position = x.resume.take_position(key) if key is not None and x.resume is not None else None
        start = self._restore(frame, position) if position is not None else 0
        if x.journal is not None and x.journal.exists:
            self.bind(frame)
        try:
            await self._all_steps(frame, x.plan.action(name, watched=x.watched), start)
        except ReqonError as error:
            self._renew_budgets(frame)
            self._place(name, error, error)
            raise
        if key is not None:
            x.active.pop(key, None)
            if frame.bound_step >= 0 and x.journal is not None:
                x.flush_stores()
                fields, body = self._leave(frame)
                x.journal.append("called", {**fields, "a": key, "n": x.rely()}, body=body)
        return frame.response

    async def call_stages(
        self,
        caller: Frame,
        stages: list[tuple[tuple[str, ...], Callable[[], object] | None]],
        response: Value,
        origin: str,
    ) -> None:
        """A `run` step's pipeline, inside the calling action."""
        for number, (names, condition) in enumerate(stages):
            place = f"{origin}{number}/"
            if condition is not None and not self.decide(caller, place, condition):
                continue
            if len(names) == 1:
                response = await self.call(caller, names[0], response, place)
            else:
                try:
                    async with asyncio.TaskGroup() as members:
                        for name in names:
                            members.create_task(self.x.with_stores(self.call(caller, name, response, place)))
                except BaseExceptionGroup as group:
                    raise _first(group) from None
                response = None

    def decide(self, frame: Frame, place: str, ask: Callable[[], Value]) -> Value:
        """What decides how a step goes on: found once, and for a resume the same although the world is another."""
        if frame.key is None or frame.loop is not None:
            return answer_once(frame, place, ask)
        value = self.recall(frame, place)
        if value is None:
            value = ask()
        self.remember(frame, place, value)
        return value

    def recall(self, frame: Frame, place: str) -> Value:
        """What was decided at a place before this resume, once; None: nothing, or null."""
        resume = self.x.resume
        known = resume.take_decision(frame.key, place) if resume is not None and frame.key is not None else None
        if known is None or resume is None:
            return None
        return given_back(decode(resume.journal.read_body(known)), resume, self.x.handle)

    def remember(self, frame: Frame, place: str, value: Value) -> None:
        """Journal what was decided at a place of the step in work."""
        journal = self.x.journal
        if journal is not None and frame.key is not None and frame.loop is None:
            self.bind(frame)
            journal.append("decided", {"a": frame.key, "k": place}, body=encode(kept(value, journal)))

    # --- saving and restoring an action's state -----------------------------------------------------------------------

    def bind(self, frame: Frame) -> None:
        """Journal what the step in work began with: variables and `response`. Once per step."""
        x = self.x
        journal = x.journal
        if journal is None or frame.key is None or frame.bound_step == frame.step:
            return
        if frame.caller is not None:
            self.bind(frame.caller)
        frame.bound_step = frame.step
        # What earlier steps stored comes first: an entry counts only as long as the stores hold what it relies on.
        x.flush_stores()
        fields: dict[str, Value] = {"a": frame.key, "s": frame.step, "n": x.rely()}
        if frame.tries:
            fields["tries"] = frame.tries
        if frame.single:
            fields["again"] = True
        if frame.variables:
            fields["vars"] = {name: kept(value, journal) for name, value in frame.variables.items()}
        if frame.waits:
            fields["waits"] = dict(frame.waits)
        if frame.webhook is not None:
            same = frame.webhook is frame.response
            fields["webhook"] = {} if same else {"value": kept(frame.webhook, journal)}
        if frame.meta is not None and "webhookId" in frame.meta:
            fields["meta"] = {"wait": frame.meta["webhookId"]}  # its URL may hold a token
        elif frame.meta is not None:
            fields["meta"] = {"code": frame.meta.get("code"), "headers": dict(frame.meta.get("headers") or {})}
        body: bytes | None = None
        if frame.response is not None and frame.response is self._left[1]:
            fields["left"] = self._left[0]
        else:
            found, body = _response(frame, journal)
            fields |= found
        failure = frame.failure
        if failure is not None and isinstance(frame.response, ErrorResponse):
            fields["failure"] = {
                "message": failure.message, "kind": failure.kind, "status": failure.status_code,
                "retry_after": failure.retry_after, "source": failure.source,
            }  # fmt: skip
        journal.append("bind", fields, body=body)

    def _leave(self, frame: Frame) -> tuple[dict[str, Value], bytes | None]:
        """For the journal: the response with which an action ends. Whatever follows it begins with that."""
        journal = self.x.journal
        if journal is None or journal.full:
            return {}, None
        self._left = frame.key or "", frame.response
        return _response(frame, journal)

    def _left_by(self, key: str) -> Value:
        """The response with which an action ended before this resume."""
        x = self.x
        entry = x.resume.left.get(key) if x.resume is not None else None
        if entry is None or entry.body is None or x.resume is None:
            return None
        value = decode(x.resume.journal.read_body(entry.body))
        if "raw" not in entry.fields:
            value = given_back(value, x.resume, x.handle)
        self._left = key, value
        return value

    def _bind_retry(self, frame: Frame) -> None:
        """The budget of a `retry` survives the process that spends it."""
        journal = self.x.journal
        if journal is not None and journal.exists:
            frame.bound_step = -1
            self.bind(frame)
            journal.write()

    def _renew_budgets(self, frame: Frame) -> None:
        """Whoever resumes a run that failed wants its requests tried again."""
        journal = self.x.journal
        if frame.key is not None and journal is not None and journal.exists:
            journal.append("failed", {"a": frame.key})

    def announce_loop(self, frame: Frame, loop: LoopRun) -> None:
        """Journal the frozen list of a loop before its first progress entry."""
        self.bind(frame)
        x = self.x
        if x.journal is not None:
            x.flush_stores()
            fields, body = loop.frozen()
            x.journal.append("loop", {"a": frame.key, **fields, "n": x.rely()}, body=body)

    def _restore(self, frame: Frame, position: ActionPosition) -> int:
        """Bring an action back to the step it was in; that step's index."""
        x = self.x
        resume = x.resume
        assert resume is not None
        frame.variables = {n: given_back(v, resume, x.handle) for n, v in position.variables.items()}
        if position.response_body is not None:
            raw = resume.journal.read_body(position.response_body)
            frame.response = decode(raw)
            if position.is_raw:
                frame.raw_response, frame.raw_of = raw, frame.response
            else:
                frame.response = given_back(frame.response, resume, x.handle)
        if position.failure is not None:
            frame.failure = FetchError(
                position.failure["message"],
                kind=position.failure["kind"],
                source=position.failure["source"],
                status_code=position.failure["status"],
                retry_after=position.failure["retry_after"],
            )
        frame.waits = dict(position.waits)
        if position.webhook is not None:
            known = position.webhook
            frame.webhook = given_back(known["value"], resume, x.handle) if "value" in known else frame.response
        if position.meta is not None and "wait" in position.meta:
            frame.meta = x.room.fields_of(position.meta["wait"]) if x.room is not None else None
        elif position.meta is not None:
            frame.meta = {"code": position.meta["code"], "headers": Headers(position.meta["headers"])}
        frame.step = position.step
        frame.tries = {target: dict(tries) for target, tries in position.tries.items()}
        frame.single = position.again
        frame.replaying = resume.knows_inside(frame.origin, position.step)
        self.tell_resumed(frame)
        return position.step

    def tell_resumed(self, frame: Frame, reason: str | None = None) -> None:
        """`checkpoint.resume`: an action goes on where an interrupted run had been, or has to begin something anew."""
        frame.x.emit(
            CheckpointResumed(
                stage_index=self.stage_index,
                step_index=frame.step,
                original_execution_id=frame.x.record.execution_id,
                stages_skipped=self.result.completed,
                reason=reason,
            ),
            action=frame.action,
        )


def _response(frame: Frame, journal: Journal) -> tuple[dict[str, Value], bytes | None]:
    """The action's response as a journal's entry has it: fields, and the body."""
    if frame.response is None:
        return {}, None
    if frame.raw_response is not None and frame.raw_of is frame.response:
        return {"raw": True}, frame.raw_response
    return {}, encode(kept(frame.response, journal))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a group of actions ended by: an abort before other failures, these before a stop."""
    return min(group.exceptions, key=lambda e: (not isinstance(e, AbortError), not isinstance(e, ReqonError)))


def _each(failure: ReqonError) -> Iterator[ReqonError]:
    """The failures that a failure stands for: those of a parallel loop one by one."""
    if not isinstance(failure, ParallelError):
        yield failure
        return
    for _, one in failure.failures:
        yield from _each(one)


def _key(stage: int, action: str) -> str:
    return f"{stage}/{action}"
