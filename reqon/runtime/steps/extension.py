"""Extension steps: `word { options }` calls the handler that a program registered (spec/language.md 7.14)."""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from reqon.diagnostics import Diagnostic
from reqon.errors import USERS_FAULTS, ConfigurationError, ExtensionError, ReqonError
from reqon.lang import nodes
from reqon.lang.compiler import Scope
from reqon.runtime.codegen import Code
from reqon.runtime.frame import Frame
from reqon.runtime.registries import StepHandler
from reqon.runtime.steps.directives import options
from reqon.runtime.steps.emit import Emitter, Place
from reqon.values import Value


@dataclass(frozen=True, slots=True)
class ExtensionStep:
    """What a handler gets of its step.

    Attributes:
        word: the step's word; options: its options by name, evaluated.
        location: `file:line:col`.
    """

    word: str
    options: Mapping[str, Value]
    location: str


@dataclass(frozen=True, slots=True)
class StepContext:
    """Where an extension step stands. Values are shared with the run: they must not be changed in place.

    Attributes:
        response: the value of `response` there; variables: those of the action.
        index: which item of the outermost loop is in work, from 0; 0 outside of loops.
    """

    mission: str
    execution_id: str
    action: str
    index: int
    response: Value
    variables: Mapping[str, Value]
    _frame: Frame = field(repr=False)

    def log(self, message: str, level: str = "info") -> None:
        """A line for the log of the run: debug, info, warning or error."""
        self._frame.x.notice(message, level=level)


def emit_extension(e: Emitter, step: nodes.Extension, scope: Scope, code: Code, place: Place) -> Scope:
    handler = e.registries.steps.get(step.word.text)
    if handler is None:
        hint = "register_step_handler makes it one"
        raise ConfigurationError(
            "", Diagnostic("undefined-step", f"no step named '{step.word.text}'", step.word.span, hint)
        )
    inner = code.child()
    inner.add(
        "await call_handler(f, HANDLER, WORD, OPTIONS, PLACE, RESPONSE)",
        step,
        call_handler=e.constant(call_handler, "call_handler"),
        HANDLER=e.constant(handler, "handler"),
        WORD=ast.Constant(step.word.text, lineno=1, col_offset=0),
        OPTIONS=options(e, step.options, scope, step, None),
        PLACE=ast.Constant(str(step.span), lineno=1, col_offset=0),
        RESPONSE=place.response,
    )
    e.effect(step, code, inner, place)
    return scope


async def call_handler(
    f: Frame, handler: StepHandler, word: str, given: Mapping[str, Value], location: str, response: Value
) -> None:
    """Call a registered handler; what it gives is discarded.

    Raises:
        ExtensionError: it failed; names the step and the reason.
    """
    loop = f.loop
    if loop is not None:
        # It may have an effect outside: those items that are done must not be done again after a kill.
        done = loop.done if loop.spec.parallel else f.index
        loop.count(done)
        loop.write(done)
    step = ExtensionStep(word, MappingProxyType(dict(given)), location)
    record = f.x.record
    context = StepContext(
        mission=record.mission,
        execution_id=record.execution_id,
        action=f.action,
        index=f.index,
        response=response,
        variables=MappingProxyType(f.variables),
        _frame=f,
    )
    try:
        answer = handler(step, context)
        if inspect.isawaitable(answer):
            await answer
    except ReqonError:
        raise
    except USERS_FAULTS as error:
        raise ExtensionError(f"{word} failed: {type(error).__name__}: {error}") from error
