"""A checked program as something that can run: actions as code, stages, typed options. Immutable and shared."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from reqon.clock import SYSTEM, Clock
from reqon.errors import ConfigurationError, ReqonError, ReqonRuntimeError, SpecError, StoreError
from reqon.http.addresses import origin_of
from reqon.http.messages import SourceSettings
from reqon.lang import flow, nodes
from reqon.lang.compiler import Expressions, Scope, Unit, place_of
from reqon.lang.functions.world import PlainWorld
from reqon.lang.operators import StoreHandle
from reqon.lang.options import MISSION, SCHEDULE
from reqon.lang.program import MissionProgram
from reqon.lang.schemas import Schemas
from reqon.lang.walk import walk
from reqon.runtime import settings
from reqon.runtime.codegen import Code, constant, define, expression, function_of, load
from reqon.runtime.frame import Frame
from reqon.runtime.registries import GLOBAL, Registries
from reqon.runtime.steps.emit import Emitter, Place, Reads, shows_request
from reqon.runtime.steps.registry import EMITTERS
from reqon.runtime.steps.storing import operation_of
from reqon.runtime.steps.watching import type_of
from reqon.runtime.telling import StepPlace
from reqon.values import Value

if TYPE_CHECKING:  # at run time only where a source has a document
    from reqon.http.openapi.loading import Specifications
    from reqon.http.openapi.spec import Spec
    from reqon.runtime.debugging import Debugger
    from reqon.runtime.endpoints import WaitSpec

_STORING = (nodes.StoreStep, nodes.Delete, nodes.Clear, nodes.Queue)

CONTEXT_NAMES = ("request", "currentRequest", "currentOperation", "webhook", "lastSync")


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of an action. `make` gives the same function each time."""

    place: StepPlace
    node: nodes.Step
    make: Callable[[], Callable[[Frame], Any]]

    @property
    def function(self) -> Callable[[Frame], Any]:
        """`function(frame)`, a coroutine function; compiled when first asked for."""
        return self.make()


@dataclass(frozen=True, slots=True)
class ActionPlan:
    """An action's steps, and at which step each request that a `retry` repeats stands. `watched`: they tell events.

    `waits` are all that its text has; `opens` those whose endpoints it opens when it starts.
    """

    name: str
    node: nodes.ActionDef
    steps: tuple[StepPlan, ...]
    targets: Mapping[str, int]
    watched: bool
    waits: "tuple[WaitSpec, ...]" = ()

    @property
    def opens(self) -> "Iterator[WaitSpec]":
        return (spec for spec in self.waits if spec.early and not spec.depth)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One action, or a group that runs together; `condition` takes the mission's frame."""

    index: int
    actions: tuple[str, ...]
    parallel: bool
    condition: Callable[[Frame], object] | None

    @property
    def name(self) -> str:
        return f"[{', '.join(self.actions)}]" if self.parallel else self.actions[0]


class Plan:
    """What a mission is when it runs. Steps are compiled when first asked for, or all at once by `compile`."""

    def __init__(
        self,
        program: MissionProgram,
        *,
        clock: Clock = SYSTEM,
        environment: Mapping[str, str],
        specifications: "Specifications | None" = None,
        registries: Registries = GLOBAL,
    ) -> None:
        self._specifications = specifications
        self.program = program
        self.registries = registries
        self.name = program.name
        self.definition_hash = program.definition_hash
        self.environment = environment
        self._clock = clock
        self._actions: dict[tuple[str, bool], ActionPlan] = {}
        self._units: dict[str, Unit] = {}
        self._debugger: Debugger | None = None

    def __repr__(self) -> str:
        return f"Plan({self.name}, {self.definition_hash})"

    def without_state(self) -> "Plan":
        """The same, for runs that leave no record and are never resumed."""
        self.__dict__["enable_state"] = False
        return self

    def debugged(self, debugger: "Debugger") -> "Plan":
        """The same, built anew with a stop before each step."""
        self._debugger = debugger
        self._actions.clear()
        return self

    def compile(self) -> "Plan":
        """Compile everything now.

        Raises:
            ReqonError: something that this release cannot run.
        """
        _ = self.specs, self.stages
        for name in self.program.actions:
            for step in self.action(name).steps:
                _ = step.function
        return self

    def begin(self) -> "Plan":
        """Make ready to run: compile what may be refused in spite of `check`, and the steps that come first.

        A mission without documents that has passed `check` compiles, so that its other steps may wait until they run.
        Whoever starts a large mission so waits for a small part of it.

        Raises:
            ReqonError: something that this release cannot run.
        """
        if self.specs:
            return self.compile()
        for stage in self.stages[:1]:
            for name in stage.actions:
                for step in self.action(name).steps[:1]:
                    _ = step.function
        return self

    # --- options ------------------------------------------------------------------------------------------------------

    def option(self, key: str, default: Value = None) -> Value:
        """A mission option's value; one in the schedule's block counts too."""
        written, table = self.program.options.get(key), MISSION
        if written is None and self.program.schedule is not None:
            written, table = next((o for o in self.program.schedule.options if o.key == key), None), SCHEDULE
        if written is None:
            return default
        value = settings.option_words(written, self.evaluate, table)
        return default if value is None else value

    @cached_property
    def fail_fast(self) -> bool:
        return bool(self.option("parallelMode") == "fail-fast")

    @cached_property
    def max_concurrency(self) -> int:
        written = self.program.options.get("maxConcurrency")
        value = None if written is None else settings.option_words(written, self.evaluate, MISSION)
        return value if isinstance(value, int) and value >= 1 else 32

    @cached_property
    def enable_state(self) -> bool:
        return self.option("enableState", True) is not False

    @cached_property
    def state_store(self) -> str | None:
        """What `stateStore` says; None: nothing."""
        name = self.option("stateStore")
        return None if name is None else str(name)

    @cached_property
    def retention_seconds(self) -> float | None:
        value = self.option("stateRetention")
        return None if value is None else settings.seconds(value, 0.0) or None

    @cached_property
    def reads_sync(self) -> bool:
        """Whether the mission uses sync checkpoints or its last success at all."""
        return any(
            isinstance(n, nodes.Since)
            or (isinstance(n, nodes.Name) and n.name == "lastSync")
            or (isinstance(n, nodes.Call) and n.name.text == "lastSync")
            or (isinstance(n, nodes.Option) and n.key in ("since", "syncKey"))
            for action in self.program.actions.values()
            for n in walk(action)
        )

    @cached_property
    def store_operations(self) -> Mapping[str, str]:
        """What the store steps do to each store, in the words of events: set, update or upsert."""
        found: dict[str, set[str]] = {}
        for action in self.program.actions.values():
            for node in walk(action):
                if isinstance(node, nodes.StoreStep):
                    found.setdefault(node.store.text, set()).add(operation_of(node))
        return {name: next(iter(kinds)) if len(kinds) == 1 else "upsert" for name, kinds in found.items()}

    @cached_property
    def waits(self) -> nodes.Node | None:
        """The first place of the text that needs a webhook server; None: there is none."""
        return next(
            (
                node
                for action in self.program.actions.values()
                for node in walk(action)
                if isinstance(node, nodes.Wait) or (isinstance(node, nodes.Call) and node.name.text == "webhookUrl")
            ),
            None,
        )

    @property
    def wait_specs(self) -> "Iterator[WaitSpec]":
        """All waits of the mission."""
        return (spec for name in self.program.actions for spec in self.action(name).waits)

    @cached_property
    def origins(self) -> frozenset[str]:
        return settings.literal_origins({**self.program.actions, **self.program.sources, **self.program.lets})

    # --- OpenAPI documents --------------------------------------------------------------------------------------------

    @cached_property
    def specs(self) -> "Mapping[str, Spec]":
        """The OpenAPI documents of the sources that have one.

        Raises:
            SpecError: one cannot be used; with its place in the mission.
        """
        if not any(source.spec is not None for source in self.program.sources.values()):
            return {}
        from reqon.http.openapi.loading import Specifications  # noqa: PLC0415
        from reqon.runtime.sources import spec_of  # noqa: PLC0415

        loader = self._specifications or Specifications(environment=self.environment)
        path = self.program.path
        folder = path if path.is_dir() else path.parent
        found = {n: spec_of(source, self.evaluate, loader, folder) for n, source in self.program.sources.items()}
        return {name: spec for name, spec in found.items() if spec is not None}

    @property
    def documents(self) -> list[Path]:
        """The files of these documents, those of their parts that were opened included."""
        return [Path(place) for spec in self.specs.values() for place in spec.locations if "://" not in place]

    def source_settings(self, source: nodes.SourceDef) -> SourceSettings:
        """A source's options for one run.

        Raises:
            ConfigurationError: no base, a variable that is not set, or an option whose computed value does not fit.
        """
        spec = self.specs.get(source.name.text)
        origins = self.origins
        if spec is not None and spec.url is not None:
            # Where the operator has the document from, the API may be as well.
            origins |= {origin_of(spec.url)}
        try:
            return settings.source_settings(
                source,
                self.evaluate,
                origins,
                self.environment,
                again=self.again,
                server=None if spec is None else spec.server,
            )
        except SpecError as error:
            raise error.locate(source.name.span) from error

    def prepare_answers(self, source: str) -> None:
        """Look at the schemas of all answers that calls to a source may get.

        Raises:
            SpecError: one cannot be used; with the call's place.
        """
        spec = self.specs.get(source)
        for action in self.program.actions.values() if spec is not None else ():
            for step in flow.steps_in(action.steps):
                if isinstance(step, nodes.CallStep) and step.source.text == source and spec is not None:
                    try:
                        spec.prepare(step.operation.text)
                    except SpecError as error:
                        raise error.locate(step.operation.span) from error

    # --- mission-level expressions ------------------------------------------------------------------------------------

    @cached_property
    def lets(self) -> Mapping[str, Value]:
        """Mission-level variables as option values see them; a run evaluates its own."""
        return self.evaluate_lets()

    def evaluate_lets(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name, node in self.program.lets.items():
            values[name] = self.evaluate(node.value, values)
        return values

    def evaluate(
        self,
        node: nodes.Expression,
        lets: Mapping[str, Value] | None = None,
        *,
        response: tuple[Value, Mapping[str, Value]] | None = None,
        current: tuple[Value] | None = None,
        stores: Mapping[str, StoreHandle] = MappingProxyType({}),
    ) -> Value:
        """The value of an expression outside of actions: literals, operators, functions, `env`, mission-level lets.

        Who knows more may give variables as `lets`, `response` with what lies behind it, the current item and stores.
        """
        if isinstance(node, nodes.Literal_):
            return node.value
        known = dict(self.lets if lets is None else lets)
        unit = self._unit(node)
        names = {name: _item("lets", name) for name in known}
        # Under names that no variable has.
        known |= {".response": response[0], ".meta": response[1]} if response is not None else {}
        known |= {".": current[0]} if current is not None else {}
        known |= {f".store {name}": handle for name, handle in stores.items()}
        scope = Scope(
            names=names,
            current=None if current is None else _item("lets", "."),
            response=None if response is None else _item("lets", ".response"),
            meta=None if response is None else _item("lets", ".meta"),
            stores={name: _item("lets", f".store {name}") for name in stores},
            sources=frozenset(self.program.sources),
            schemas=self.program.schemas,
        )
        made = self._expressions(unit).value(node, scope)
        return function_of(unit, "lets", made, node)(known)

    def again(self, node: nodes.Expression) -> Callable[[], Value]:
        """What evaluates an expression outside of actions each time it is called."""
        known = self.lets
        unit = self._unit(node)
        names = {name: _item("lets", name) for name in known}
        scope = Scope(names=names, stores={}, sources=frozenset(self.program.sources), schemas=self.program.schemas)
        made = function_of(unit, "lets", self._expressions(unit).value(node, scope), node)
        return lambda: made(known)

    @cached_property
    def schemas(self) -> Schemas:
        return Schemas(self.program.schemas, functions=self.registries.functions)

    def _expressions(self, unit: Unit) -> Expressions:
        return Expressions(unit, self.schemas, self.registries.functions)

    def _unit(self, node: nodes.Node) -> Unit:
        return Unit(node.span.source, {"world": PlainWorld(self._clock, self.environment)})

    # --- stages and actions -------------------------------------------------------------------------------------------

    @cached_property
    def stages(self) -> tuple[StagePlan, ...]:
        pipeline = self.program.pipeline
        if pipeline is None:
            return ()
        stages = []
        for index, stage in enumerate(pipeline.stages):
            condition = None if stage.condition is None else self._condition(stage.condition)
            stages.append(StagePlan(index, tuple(a.text for a in stage.actions), stage.parallel, condition))
        return tuple(stages)

    def _condition(self, node: nodes.Expression) -> Callable[[Frame], object]:
        unit = self._unit(node)
        scope = self._scope(response=expression("f.response", node), meta=expression("f.meta", node))
        made = self._expressions(unit).truth(node, scope)
        return function_of(unit, "f", made, node)

    def _scope(self, *, response: ast.expr, meta: ast.expr) -> Scope:
        names: dict[str, ast.expr] = {name: _item("f.x.lets", name) for name in self.program.lets}
        names |= {
            "request": _attribute("f", "request"),
            "currentRequest": _attribute("f", "request"),
            "currentOperation": _attribute("f", "currentOperation"),
            "webhook": _attribute("f", "webhook"),
            "lastSync": _attribute("f.x.sync", "last_success"),
        }
        stores = {name: _attribute("f.x.stores", name, item=True, then="handle") for name in self.program.stores}
        return Scope(
            names=names,
            current=response,
            response=response,
            meta=meta,
            stores=stores,
            sources=frozenset(self.program.sources),
            schemas=self.program.schemas,
            world=_attribute("f.x", "world"),
        )

    def action(self, name: str, *, watched: bool = False) -> ActionPlan:
        """An action as code; `watched`: as code that tells of each item, which only then is paid for."""
        plan = self._actions.get((name, watched))
        if plan is None:
            plan = self._actions[name, watched] = self._compile(self.program.actions[name], watched=watched)
        return plan

    @cached_property
    def _reads_request(self) -> bool:
        return shows_request(self.program)

    def _compile(self, action: nodes.ActionDef, *, watched: bool) -> ActionPlan:
        unit = self._unit(action)
        emitter = Emitter(
            unit,
            self._expressions(unit),
            self.program,
            action,
            EMITTERS,
            store_names=frozenset(self.program.stores),
            registries=self.registries,
            watched=watched,
            reads_request=self._reads_request,
            specs=self.specs,
        )
        emitter.plain = self._scope(response=expression("f.response", action), meta=expression("f.meta", action))
        if any(isinstance(step, nodes.Wait) for step in flow.steps_in(action.steps)):
            from reqon.runtime.steps.wait import wait_specs  # noqa: PLC0415  # few missions wait

            emitter.waits = wait_specs(emitter)
        emitter.debugger = self._debugger
        steps: list[StepPlan] = []
        bound: list[str] = []
        for index, step in enumerate(action.steps):
            place = StepPlace(index=index, type=type_of(step), path=str(index))
            steps.append(StepPlan(place, step, cache(partial(self._function, emitter, index, bound, len(bound)))))
            bound += _bound_by(step, self.program)
            if flow.leaves(step):
                break
        targets = {
            emitter.target_id(step): index for index, step in enumerate(action.steps) if id(step) in emitter.repeated
        }
        return ActionPlan(action.name.text, action, tuple(steps), targets, watched, tuple(emitter.waits.values()))

    def _function(self, emitter: Emitter, index: int, bound: Sequence[str], count: int) -> Callable[[Frame], Any]:
        """The function of one step of an action's own list, before which the first `count` of `bound` are bound."""
        steps = emitter.action.steps
        name = f"step_{index}"
        whole = Code(emitter.unit)
        if emitter.runs_inside_wait(steps, index):
            whole.add(f"async def {name}(f):\n    pass", steps[index])
        else:
            with emitter.before(steps, index):
                whole.add(
                    f"async def {name}(f):\n    BODY",
                    steps[index],
                    BODY=self._body(emitter, index, bound[:count]).body(),
                )
        (function,) = define(emitter.unit, whole.statements, [name])
        return function

    def _body(self, emitter: Emitter, index: int, variables: Sequence[str]) -> Code:
        step = emitter.action.steps[index]
        unit = emitter.unit
        response, meta = unit.local("response"), unit.local("meta")
        scope = self._scope(response=load(response), meta=load(meta))
        code = Code(unit)
        code.add("RESPONSE = f.response\nMETA = f.meta", step, RESPONSE=response, META=meta)
        read_here = (
            [step, *emitter.following[:1]] if emitter.runs_inside_wait([step, *emitter.following[:1]], 1) else [step]
        )
        # What earlier steps bound is read from the frame once, then it is a local like any other.
        read = Reads(read_here)
        for variable in dict.fromkeys(variables):
            if not read.after(-1, variable):
                continue
            local = unit.local(variable)
            code.add("LOCAL = f.variables.get(NAME)", step, LOCAL=local, NAME=constant(variable))
            scope = scope.bind({variable: load(local)})
        place = Place(path=str(index), response=response, meta=meta, frame=True)
        emitter.begins_with = scope
        emitter.has_inner_loop = not isinstance(step, nodes.For) and any(
            isinstance(inner, nodes.For) for inner in flow.steps_in([step])
        )
        emitter.step(step, scope, code, place)
        if not flow.leaves(step):
            code.add("f.response = RESPONSE\nf.meta = META", step, RESPONSE=response, META=meta)
        return code

    def step_at(self, action: str, offset: int) -> nodes.Step | None:
        """The innermost step of an action that an offset of its text lies in."""
        node = self.program.actions.get(action)
        found: nodes.Step | None = None
        for step in flow.steps_in(node.steps) if node is not None else ():
            if step.span.start <= offset < step.span.end:
                found = step
        return found

    def place(self, failure: ReqonError, action: str, raised: BaseException) -> None:
        """Say where in the mission a failure was raised, unless it knows: action, step, place, its step's store."""
        span = failure.locate(place_of(raised)).span
        failure.action = failure.action or action
        if failure.step is not None or span is None:
            return
        step = self.step_at(failure.action, span.start)
        if step is None:
            return
        failure.step = step_label(step)
        if isinstance(failure, ReqonRuntimeError):
            failure.step_type = type_of(step)
        if isinstance(failure, StoreError) and not failure.store_name and isinstance(step, _STORING) and step.store:
            failure.store_name = step.store.text


def _bound_by(step: nodes.Step, program: MissionProgram) -> tuple[str, ...]:
    """The variables that a step of an action's own list leaves behind."""
    if isinstance(step, nodes.Let):
        return (step.name.text,)
    if isinstance(step, nodes.Apply) and step.name is not None:
        return (step.name.text,)
    if isinstance(step, nodes.Map) and step.target.text not in program.schemas and "." not in step.target.text:
        return (step.target.text,)
    return ()


def _item(of: str, name: str) -> ast.expr:
    return ast.Subscript(_dotted(of), ast.Constant(name, **_P), ast.Load(), **_P)


def _attribute(of: str, name: str, *, item: bool = False, then: str = "") -> ast.expr:
    if item:
        return ast.Attribute(_item(of, name), then, ast.Load(), **_P)
    return ast.Attribute(_dotted(of), name, ast.Load(), **_P)


def _dotted(path: str) -> ast.expr:
    first, *rest = path.split(".")
    node: ast.expr = ast.Name(first, ast.Load(), **_P)
    for name in rest:
        node = ast.Attribute(node, name, ast.Load(), **_P)
    return node


_P: dict[str, Any] = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 0}


# Up to the first brace that opens a block; those in texts stand for values.
_BEFORE_BLOCK = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^{"'])*""")


def step_label(step: nodes.Step) -> str:
    """A step as people see it: its first line, shortened."""
    head = _BEFORE_BLOCK.match(step.span.text)
    text = " ".join((head[0] if head else "").split())
    return text if len(text) <= 60 else text[:57] + "…"


def build(program: MissionProgram, *, clock: Clock = SYSTEM, environment: Mapping[str, str]) -> Plan:
    """Make a plan of a checked program.

    Raises:
        ConfigurationError: it has nothing to run.
    """
    if not isinstance(program, MissionProgram):
        raise ConfigurationError(f"no mission program: {program!r}")
    return Plan(program, clock=clock, environment=environment)
