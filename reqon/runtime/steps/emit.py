"""From a list of steps to Python statements: what all kinds of step share.

A mission's action becomes one function per step of its list. Inside a function, `response` and every variable are
Python locals; only what a later step reads goes through the frame.
"""

import ast
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from reqon.diagnostics import Diagnostic
from reqon.errors import ConfigurationError
from reqon.lang import flow, nodes, tree
from reqon.lang.compiler import Expressions, Scope, Unit
from reqon.lang.program import MissionProgram
from reqon.lang.walk import walk
from reqon.runtime.codegen import Code, expression, load
from reqon.runtime.registries import GLOBAL, Registries
from reqon.runtime.replies import note_begin
from reqon.runtime.retrying import repeat
from reqon.runtime.signals import RetryFetch
from reqon.runtime.steps.order import first_writes
from reqon.runtime.steps.watching import is_told, type_of
from reqon.runtime.telling import StepPlace, WatchedStep

if TYPE_CHECKING:
    from reqon.http.openapi.spec import Spec
    from reqon.runtime.debugging import Debugger
    from reqon.runtime.endpoints import WaitSpec

_NO_SPECS: "Mapping[str, Spec]" = {}
_CONTEXT = frozenset(("request", "currentRequest", "currentOperation", "webhook", "lastSync"))
_LAST_REQUEST = frozenset(("request", "currentRequest", "currentOperation"))
_MAY_SHOW = frozenset((nodes.Queue, nodes.NamePattern, nodes.Fetch, nodes.CallStep, nodes.Wait))
# What the text of an action has at least if something in it shows the last request; `\\` may hide a path's letter.
_MAY_SHOW_IN_TEXT = re.compile(r"[rR]equest|currentOperation|queue|call|\\")
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
ASYNC_STEPS = (nodes.Fetch, nodes.CallStep, nodes.Run, nodes.Jump, nodes.Wait, nodes.Extension)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list of steps stands in the generated code.

    Attributes:
        path: of the step in its action, as in `2.1.0`.
        response, meta: the locals that hold `response` and what lies behind it.
        frame: True for an action's own list: bindings go into the frame.
        skip: how `skip` leaves from here.
        in_loop: inside the body of an outermost loop; in_generator: of one that has no awaits.
        indices: the locals that count the loops around.
        item: the local that holds the innermost loop's item.
    """

    path: str
    response: str
    meta: str
    frame: bool = False
    skip: Literal["return", "continue", "raise", "step"] = "step"
    in_loop: bool = False
    in_generator: bool = False
    indices: tuple[str, ...] = ()
    item: str | None = None

    def at(self, index: int) -> "Place":
        return replace(self, path=f"{self.path}.{index}" if self.path else str(index))

    def inner(self) -> "Place":
        """The same for a nested list of the same function."""
        return replace(self, frame=False)


Emit: TypeAlias = "Callable[[Emitter, Any, Scope, Code, Place], Scope]"


class Emitter:
    """Writes the functions of one action."""

    def __init__(
        self,
        unit: Unit,
        expressions: Expressions,
        program: MissionProgram,
        action: nodes.ActionDef,
        emitters: Mapping[type[nodes.Node], Emit],
        *,
        store_names: Collection[str],
        registries: Registries = GLOBAL,
        watched: bool = False,
        reads_request: bool = True,
        specs: "Mapping[str, Spec]" = _NO_SPECS,
    ) -> None:
        self.specs = specs
        self.unit = unit
        self.expressions = expressions
        self.program = program
        self.action = action
        self.emitters = emitters
        self.store_names = store_names
        self.registries = registries
        self.watched = watched  # the code tells of each item: somebody listens
        self.targets = {id(t.directive): t.request for t in flow.retry_targets(action.steps)}
        self.repeated = {id(request) for request in self.targets.values() if request is not None}
        self.target_ids: dict[int, str] = {}
        self.following: Sequence[nodes.Step] = ()
        self.guarded_match = False
        self._here: tuple[Sequence[nodes.Step], int] = ((), 0)
        self._reads: dict[int, tuple[Sequence[nodes.Step], Reads]] = {}  # by the id of the list, kept so that it stays
        self.begins_with: Scope | None = None  # what the step of the action's own list began with
        self.has_inner_loop = False  # that step has a loop inside an arm
        self.rounds_are_places = True  # a resume may go on in a round of a loop inside the outermost one
        self.caught = False  # a `catch` sees what the step being written raises
        self.plain = Scope()  # what is known when the action starts: no variables of its own
        self.waits: Mapping[int, WaitSpec] = {}
        self.debugger: Debugger | None = None  # asked before each step
        self.reads_request = reads_request

    # --- expressions --------------------------------------------------------------------------------------------------

    def value(self, node: nodes.Expression, scope: Scope) -> ast.expr:
        return self.expressions.value(node, scope)

    def truth(self, node: nodes.Expression, scope: Scope) -> ast.expr:
        return self.expressions.truth(node, scope)

    def constant(self, value: object, hint: str) -> ast.expr:
        """Something the code calls or names that is no expression of the mission."""
        return self.unit.constant(value, hint)

    def temporary(self, node: nodes.Node, value: ast.expr, code: Code, hint: str) -> str:
        """Put a value into a fresh local, unless it is one already."""
        if isinstance(value, ast.Name) and value.id not in self.unit.globals:
            return value.id
        local = self.unit.local(hint)
        code.add("LOCAL = VALUE", node, LOCAL=local, VALUE=value)
        return local

    def bind(self, name: str, value: ast.expr, node: nodes.Node, scope: Scope, code: Code, place: Place) -> Scope:
        """Bind a variable here; at an action's own level the frame keeps it for later steps."""
        local = self.unit.local(name)
        code.add("LOCAL = VALUE", node, LOCAL=local, VALUE=value)
        if place.frame:
            code.add("f.variables[NAME] = LOCAL", node, NAME=ast.Constant(name, lineno=1, col_offset=0), LOCAL=local)
        return scope.bind({name: load(local)})

    # --- lists --------------------------------------------------------------------------------------------------------

    def steps(self, steps: Sequence[nodes.Step], scope: Scope, code: Code, place: Place, *, start: int = 0) -> None:
        """Write a nested list of steps, or its rest from one on: an arm's block, a loop's body."""
        if place.in_loop and start == 0:
            self._open_early(steps, code, place)
        for index in range(start, len(steps)):
            step = steps[index]
            if isinstance(step, nodes.Continue):
                return
            if self.runs_inside_wait(steps, index):
                continue
            if id(step) in self.repeated:
                self._repeatable(steps, index, scope, code, place)
                return
            with self.before(steps, index):
                scope = self._nested(step, scope, code, place.at(index), index)
            if flow.leaves(step):
                return

    @contextmanager
    def before(self, steps: Sequence[nodes.Step], index: int) -> Iterator[None]:
        """While a step is written: which steps follow it, and whether it is a match that guards a request."""
        known = self.following, self.guarded_match, self._here
        self.following, self._here = steps[index + 1 :], (steps, index)
        self.guarded_match = flow.guarding_match(steps, index)
        try:
            yield
        finally:
            self.following, self.guarded_match, self._here = known

    def is_read_later(self, name: str) -> bool:
        """Whether a later step of the list that is being written reads a name."""
        steps, index = self._here
        known = self._reads.get(id(steps))
        if known is None:
            known = self._reads[id(steps)] = steps, Reads(steps)
        return known[1].after(index, name)

    def step(self, step: nodes.Step, scope: Scope, code: Code, place: Place) -> Scope:
        emit = self.emitters.get(type(step))
        if emit is None:
            raise ConfigurationError(
                "",
                Diagnostic(
                    "not-built",
                    f"'{step.span.text.split()[0]}' cannot be run yet",
                    step.span,
                    "this construct is read and checked, but this release does not run it",
                ),
            )
        if self.debugger is not None:
            self._pause(self.debugger, step, scope, code, place)
        return emit(self, step, self._looking_ahead(step, scope, place), code, place)

    def _pause(self, debugger: "Debugger", step: nodes.Step, scope: Scope, code: Code, place: Place) -> None:
        from reqon.runtime.debugging import pause  # noqa: PLC0415  # only where asked for

        shown = {name: made for name, made in scope.names.items() if name not in _CONTEXT}
        keys: list[ast.expr | None] = [ast.Constant(name, lineno=1, col_offset=0) for name in shown]
        bound = ast.Dict(keys, [tree.fresh(made) for made in shown.values()], lineno=1, col_offset=0)
        code.add(
            "pause(f, DEBUGGER, STEP, NESTING, RESPONSE, lambda: BOUND)",
            step,
            pause=self.constant(pause, "pause"),
            DEBUGGER=self.constant(debugger, "debugger"),
            STEP=self.constant(step, "step"),
            NESTING=ast.Constant(place.path.count("."), lineno=1, col_offset=0),
            RESPONSE=place.response,
            BOUND=bound,
        )

    def runs_inside_wait(self, steps: Sequence[nodes.Step], index: int) -> bool:
        """Whether the `wait` before a step runs it. One that a `retry` repeats stays where it is."""
        return flow.runs_inside_wait(steps, index) and id(steps[index]) not in self.repeated

    @cached_property
    def _next_waits(self) -> Mapping[int, nodes.Wait | None]:
        return flow.next_waits(self.action.steps)

    # --- webhooks -----------------------------------------------------------------------------------------------------

    def _looking_ahead(self, step: nodes.Step, scope: Scope, place: Place) -> Scope:
        """The scope in which `response` also has the endpoint of the `wait` that comes next."""
        if not self.waits:
            return scope
        spec = self.waits.get(id(self._next_waits.get(id(step))))
        if spec is None or not spec.early:
            return replace(scope, meta=load(place.meta))
        from reqon.runtime.endpoints import Ahead  # noqa: PLC0415  # few missions wait

        ahead = expression(
            "Ahead(f, META, SPEC, INDICES)",
            step,
            Ahead=self.constant(Ahead, "Ahead"),
            META=place.meta,
            SPEC=self.constant(spec, "wait"),
            INDICES=self.indices(replace(place, indices=place.indices[: max(0, spec.depth - 1)]), step),
        )
        return replace(scope, meta=ahead)

    def _open_early(self, steps: Sequence[nodes.Step], code: Code, place: Place) -> None:
        """In each round of a loop: paths that senders may know beforehand take calls from its begin on."""
        for step in steps:
            spec = self.waits.get(id(step))
            if spec is not None and spec.early and spec.path is not None:
                from reqon.runtime.endpoints import open_early  # noqa: PLC0415

                code.add(
                    "open_early(f, SPEC, INDICES)",
                    step,
                    open_early=self.constant(open_early, "open_early"),
                    SPEC=self.constant(spec, "wait"),
                    INDICES=self.indices(place, step),
                )

    def _nested(self, step: nodes.Step, scope: Scope, code: Code, place: Place, index: int) -> Scope:
        """A step of a nested list, its events around it where somebody listens."""
        if not self.watched or not is_told(step):
            return self.step(step, scope, code, place)
        body = code.child()
        scope = self.step(step, scope, body, place)
        code.add(
            "with WatchedStep(f, PLACE):\n    BODY",
            step,
            WatchedStep=self.constant(WatchedStep, "WatchedStep"),
            PLACE=self.constant(StepPlace(index=index, type=type_of(step), path=place.path), "place"),
            BODY=body.body(),
        )
        return scope

    def note_flow(self, directive: str, node: nodes.Node, code: Code) -> None:
        """Let the event of the step around say which directive ended it."""
        if self.watched:
            code.add("f.flow = f.flow or WORD", node, WORD=ast.Constant(directive, lineno=1, col_offset=0))

    def tell(self, call: Callable[..., None], node: nodes.Node, code: Code, *arguments: object) -> None:
        """Call `call(f, …)` here, where somebody listens."""
        if self.watched:
            given = [self.constant(argument, "told") for argument in arguments]
            called = expression("CALL(f)", node, CALL=self.constant(call, call.__name__))
            assert isinstance(called, ast.Call)
            called.args += given
            code.add("CALLED", node, CALLED=[ast.Expr(called, lineno=1, col_offset=0)])

    def _repeatable(self, steps: Sequence[nodes.Step], index: int, scope: Scope, code: Code, place: Place) -> None:
        """A request that a later `retry` may go back to, and everything behind it in its list."""
        step = steps[index]
        identity = self.target_id(step)
        inner = code.child()
        within = replace(place, skip="raise") if place.skip == "continue" else place
        with self.before(steps, index):
            scope = self._nested(step, scope, inner, within.at(index), index)
        rest = code.child()
        self.steps(steps, scope, rest, within, start=index + 1)
        code.add(
            """
f.tries[ID] = {}
f.single = False
while True:
    try:
        BODY
        REST
        break
    except RETRY as signal:
        if signal.target != ID:
            raise
        await repeat(f, signal)
""",
            step,
            ID=ast.Constant(identity, lineno=1, col_offset=0),
            BODY=inner.body(),
            REST=rest.body(),
            RETRY=self.constant(RetryFetch, "RetryFetch"),
            repeat=self.constant(repeat, "repeat"),
        )

    def target_id(self, request: nodes.Node) -> str:
        """The name by which a retry finds its request."""
        return self.target_ids.setdefault(id(request), f"{self.action.name.text}#{request.span.start}")

    def has_repeats(self, steps: Sequence[nodes.Step]) -> bool:
        """Whether a body holds a request that a retry goes back to: a plain `continue` then can't leave it."""
        return any(id(step) in self.repeated for step in flow.steps_in(steps))

    def asks_often(self, body: Sequence[nodes.Step]) -> bool:
        """Whether an item of a loop may send more than one request."""
        asking = [step for step in flow.steps_in(body) if isinstance(step, ASYNC_STEPS)]
        return any(
            len(asking) > 1 or not isinstance(step, nodes.Fetch) or id(step) in self.repeated or _is_paged(step)
            for step in asking
        ) or (bool(asking) and any(isinstance(step, nodes.For) for step in flow.steps_in(body)))

    def is_async(self, steps: Sequence[nodes.Step], *, in_loop: bool) -> bool:
        """Whether a list has to await something."""
        for step in flow.steps_in(steps):
            if isinstance(step, ASYNC_STEPS):
                return True
            if isinstance(step, nodes.For) and (step.parallel or not in_loop):
                return True
        return False

    @cached_property
    def _first_writes(self) -> frozenset[int]:
        return frozenset(map(id, first_writes(self.action.steps)))

    def effect(self, node: nodes.Node, code: Code, inner: Code, place: Place, *, calls: bool = False) -> None:
        """Statements with an effect: left out while a step is only repeated to reach where it was killed.

        What `calls` actions decides for itself: it may have been in one of these.
        """
        if id(node) in self._first_writes:
            noted = code.child()
            begin = self.constant(note_begin, "note_begin")
            noted.add("note_begin(f)\nBODY", node, note_begin=begin, BODY=inner.body())
            inner = noted
        if place.in_loop or place.frame or calls:
            code.statements += inner.statements
        else:
            code.add("if not f.replaying:\n    BODY", node, BODY=inner.body())

    def indices(self, place: Place, node: nodes.Node) -> ast.expr:
        """The tuple of the loop counters here."""
        names: list[ast.expr] = [load(name) for name in place.indices]
        return expression("EXPR", node, EXPR=ast.Tuple(names, ast.Load(), lineno=1, col_offset=0))


def _is_paged(step: nodes.Fetch) -> bool:
    return any(option.key == "paginate" for option in step.options)


class Reads:
    """Which names the steps of a list read: in an expression, a value pattern or a path's placeholder."""

    def __init__(self, steps: Sequence[nodes.Step]) -> None:
        self._last: dict[str, int] = {}
        self._calls = -1  # the last step that may read any name
        self._paths: list[tuple[int, str]] = []
        for index, step in enumerate(steps):
            for node in walk(step):
                self._add(node, index)

    def _add(self, node: nodes.Node, index: int) -> None:
        if isinstance(node, nodes.Name):
            self._last[node.name] = index
        elif isinstance(node, nodes.NamePattern):
            self._last[node.name.text.partition(".")[0]] = index
        elif isinstance(node, nodes.CallStep):
            # A variable may stand for a parameter of the path, whose names the document knows.
            self._calls = index
        elif text := _path_text(node):
            self._paths.append((index, text))
            self._last |= dict.fromkeys(_WORD.findall(text), index)

    def after(self, index: int, name: str) -> bool:
        """Whether a step behind this one reads the name."""
        if max(self._calls, self._last.get(name, -1)) > index:
            return True
        # Only a name in backticks is more than one word.
        return not _WORD.fullmatch(name) and any(at > index and name in path for at, path in self._paths)


def shows_request(program: MissionProgram) -> bool:
    """Whether some action sees the last request: by name, or in a failure record."""
    for action in program.actions.values():
        if not _MAY_SHOW_IN_TEXT.search(action.span.text):
            continue
        for node in walk(action):
            if type(node) is nodes.Name:
                if node.name in _LAST_REQUEST:
                    return True
            elif type(node) in _MAY_SHOW and _shows(node):
                return True
    return False


def _shows(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Queue):
        return all(option.key != "item" for option in node.options)
    return any(_names(node, name) for name in _LAST_REQUEST)


def _names(node: nodes.Node, name: str) -> bool:
    if isinstance(node, nodes.Name):
        return node.name == name
    if isinstance(node, nodes.NamePattern):
        return node.name.text.partition(".")[0] == name
    return isinstance(node, nodes.CallStep) or name in _path_text(node)


def _path_text(node: nodes.Node) -> str:
    """The text of a path, whose placeholders are text to the tree. Reading a variable in vain costs nothing."""
    path = node.path if isinstance(node, nodes.Fetch) else _path_option(node)
    return str(path.value) if isinstance(path, nodes.Literal_) else ""


def _path_option(node: nodes.Node) -> object:
    if not isinstance(node, nodes.Wait):
        return None
    return next((option.value for option in node.options if option.key == "path"), None)
