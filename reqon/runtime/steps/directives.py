"""`skip`, `continue`, `abort`, `retry`, `jump` and `run` (spec/language.md 7.7, 7.10)."""

import ast
from typing import Any

from reqon.errors import AbortError
from reqon.lang import nodes
from reqon.lang.compiler import Scope
from reqon.lang.kinds import Table, worded
from reqon.lang.operators import text as text_of
from reqon.lang.options import RETRY_STEP
from reqon.runtime.codegen import Code, expression
from reqon.runtime.frame import Frame
from reqon.runtime.retrying import go_back
from reqon.runtime.signals import SKIP, SkipIteration
from reqon.runtime.steps.emit import Emitter, Place
from reqon.values import Value


def emit_skip(e: Emitter, step: nodes.Node, scope: Scope, code: Code, place: Place) -> Scope:
    e.note_flow("skip", step, code)
    if place.skip == "continue":
        code.add("f.skipped += 1\ncontinue", step)
    elif place.skip == "raise":
        code.add("raise SkipIteration", step, SkipIteration=e.constant(SkipIteration, "SkipIteration"))
    elif place.skip == "return":
        code.add("f.skipped += 1\nreturn SKIPPED", step, SKIPPED=ast.Constant(SKIP, lineno=1, col_offset=0))
    else:
        code.add(
            "f.response = RESPONSE\nf.meta = META\nreturn SKIPPED",
            step,
            RESPONSE=place.response,
            META=place.meta,
            SKIPPED=ast.Constant(SKIP, lineno=1, col_offset=0),
        )
    return scope


def emit_continue(e: Emitter, step: nodes.Continue, scope: Scope, code: Code, place: Place) -> Scope:
    return scope


def emit_abort(e: Emitter, step: nodes.Abort, scope: Scope, code: Code, place: Place) -> Scope:
    message: ast.expr = ast.Constant("Execution aborted", lineno=1, col_offset=0)
    if step.message is not None:
        message = expression(
            "text_of(VALUE) or DEFAULT",
            step,
            text_of=e.constant(text_of, "text_of"),
            VALUE=e.value(step.message, scope),
            DEFAULT=message,
        )
    code.add("raise AbortError(MESSAGE)", step, AbortError=e.constant(AbortError, "AbortError"), MESSAGE=message)
    return scope


def emit_retry(e: Emitter, step: nodes.Retry, scope: Scope, code: Code, place: Place) -> Scope:
    target = e.targets[id(step)]
    assert target is not None, "the checker refuses a retry without a request"
    code.add(
        "raise go_back(f, TARGET, NAME, OPTIONS)",
        step,
        go_back=e.constant(go_back, "go_back"),
        TARGET=ast.Constant(e.target_id(target), lineno=1, col_offset=0),
        NAME=ast.Constant(directive_name(step), lineno=1, col_offset=0),
        OPTIONS=options(e, step.options, scope, step, RETRY_STEP),
    )
    return scope


def emit_jump(e: Emitter, step: nodes.Jump, scope: Scope, code: Code, place: Place) -> Scope:
    called = e.unit.local("called")
    inner = code.child()
    inner.add(
        "CALLED = await call_action(f, NAME, RESPONSE, ORIGIN, RENEWS)",
        step,
        CALLED=called,
        RENEWS=ast.Constant(step.then == "retry", lineno=1, col_offset=0),
        call_action=e.constant(call_action, "call_action"),
        NAME=ast.Constant(step.action.text, lineno=1, col_offset=0),
        RESPONSE=place.response,
        ORIGIN=_origin(e, step, place),
    )
    e.effect(step, code, inner, place, calls=True)
    e.note_flow("jump", step, code)
    if step.then == "retry":
        target = e.targets[id(step)]
        assert target is not None, "the checker refuses a retry without a request"
        code.add(
            "adopt_token(f, CALLED)\nraise go_back(f, TARGET, NAME, OPTIONS, no_delay=True)",
            step,
            CALLED=called,
            adopt_token=e.constant(adopt_token, "adopt_token"),
            go_back=e.constant(go_back, "go_back"),
            TARGET=ast.Constant(e.target_id(target), lineno=1, col_offset=0),
            NAME=ast.Constant(directive_name(step), lineno=1, col_offset=0),
            OPTIONS=options(e, step.options, scope, step, RETRY_STEP),
        )
    return scope


def emit_run(e: Emitter, step: nodes.Run, scope: Scope, code: Code, place: Place) -> Scope:
    """Run a pipeline inside this action; its actions have frames of their own."""
    stages: list[ast.expr] = []
    for stage in step.stages:
        names = e.constant(tuple(a.text for a in stage.actions), "actions")
        condition = (
            ast.Constant(None, lineno=1, col_offset=0)
            if stage.condition is None
            else expression("lambda: TEST", stage, TEST=e.truth(stage.condition, scope))
        )
        stages.append(expression("(NAMES, CONDITION)", stage, NAMES=names, CONDITION=condition))
    inner = code.child()
    inner.add(
        "await call_stages(f, STAGES, RESPONSE, ORIGIN)",
        step,
        call_stages=e.constant(call_stages, "call_stages"),
        STAGES=ast.List(stages, ast.Load(), lineno=1, col_offset=0),
        RESPONSE=place.response,
        ORIGIN=_origin(e, step, place),
    )
    e.effect(step, code, inner, place, calls=True)
    return scope


def _origin(e: Emitter, step: nodes.Node, place: Place) -> ast.expr:
    """The path of a calling step and the rounds of the loops around it."""
    return expression(
        "(PATH, f.index, *INDICES)",
        step,
        PATH=ast.Constant(place.path, lineno=1, col_offset=0),
        INDICES=e.indices(place, step),
    )


def directive_name(step: nodes.Node) -> str:
    return f"retry@{step.span.start}"


def options(e: Emitter, written: nodes.Options, scope: Scope, node: nodes.Node, table: Table | None) -> ast.expr:
    """A brace list of options as a dict expression; enumerated words as strings."""
    keys: list[ast.expr | None] = []
    values: list[ast.expr] = []
    for option in written:
        keys.append(ast.Constant(option.key, lineno=1, col_offset=0))
        values.append(option_value(e, option, scope, table))
    return expression("EXPR", node, EXPR=ast.Dict(keys, values, lineno=1, col_offset=0))


def option_value(e: Emitter, option: nodes.Option, scope: Scope, table: Table | None) -> ast.expr:
    """The value of an option of a step; an enumerated bare word of `table` is its own text."""
    value = option.value
    assert not isinstance(value, nodes.Since | nodes.Paginate)
    return e.value(value if table is None else worded(value, table.kind(option.key)), scope)


# --- what the code calls ---------------------------------------------------------------------------------------------


async def call_action(f: Frame, name: str, response: Value, origin: tuple[object, ...], renews: bool) -> Value:
    """Run an action in a frame of its own; its final response. `origin` says from where, and in which rounds."""
    private = renews and f.failure is not None and f.failure.status_code == 401
    return await f.x.engine.call(f, name, response, f"{f.origin}{origin}", private=private)


async def call_stages(
    f: Frame, stages: list[tuple[tuple[str, ...], Any]], response: Value, origin: tuple[object, ...]
) -> None:
    await f.x.engine.call_stages(f, stages, response, f"{f.origin}{origin}")


def adopt_token(f: Frame, response: Value) -> None:
    """After a 401: the token found in a renewing action's response is the source's from now on."""
    failure = f.failure
    if failure is None or failure.status_code != 401 or not isinstance(response, dict):
        return
    for name in ("access_token", "accessToken", "token"):
        token = response.get(name)
        if isinstance(token, str) and token:
            f.x.clients[failure.source].adopt(response)
            return
