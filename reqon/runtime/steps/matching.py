"""`match`: the first arm that takes the value decides (spec/language.md 7.2, 7.8)."""

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from reqon.errors import AbortError, FetchError, NoMatchError, ReqonRuntimeError, StoreError
from reqon.lang import flow, nodes
from reqon.lang.compiler import Scope
from reqon.lang.operators import described
from reqon.lang.options import RETRY_STEP
from reqon.runtime.codegen import Code, constant, expression, load
from reqon.runtime.execution import preview
from reqon.runtime.frame import Frame
from reqon.runtime.retrying import DEFAULT_ATTEMPTS, executions, exhausted, may_retry
from reqon.runtime.steps.directives import directive_name, emit_skip, option_value
from reqon.runtime.steps.emit import Emitter, Place
from reqon.runtime.steps.order import hangs_on_the_world
from reqon.runtime.steps.watching import arm_of, arms_of
from reqon.runtime.telling import NO_ARM, tell_arm, tell_match
from reqon.secrets import SECRETS
from reqon.values import Record, Value, encode

_ARMS_IN_CHAIN = 100


def emit_match(e: Emitter, step: nodes.MatchStep, scope: Scope, code: Code, place: Place) -> Scope:
    """A chain of tests. After a guarded request the arms also see its error response, by the rules of 7.2."""
    guarded = e.guarded_match
    on_response = isinstance(step.subject, nodes.Name) and step.subject.name == "response"
    subject: str | None = None
    known: str | None = None
    if not place.in_loop and hangs_on_the_world(step, e.store_names):
        known = e.unit.local("known")
        code.add(
            "KNOWN = known_arm(f, PATH)",
            step,
            KNOWN=known,
            known_arm=e.constant(known_arm, "known_arm"),
            PATH=constant(f"{place.path}!"),
        )
    if on_response:
        subject = place.response
    elif step.subject is not None:
        value = e.value(step.subject, scope)
        if known is not None:
            value = _decided(e, step, place, value)
        subject = e.temporary(step.subject, value, code, "subject")
    spent = None
    if any(_retry_of(arm.body) is not None for arm in step.arms):
        spent = e.unit.local("spent")
        code.add("SPENT = 0", step, SPENT=spent)
    e.tell(tell_match, step, code, arms_of(step))
    outer, e.caught = e.caught, e.caught or bool(step.catch)
    nothing = _no_arm(e, step, subject, spent, code, guarded=guarded)
    write = partial(
        _arm,
        e,
        subject=subject,
        spent=spent,
        scope=scope,
        place=place,
        guarded=guarded,
        on_response=on_response,
        known=None if known is None else (known, {id(arm): number for number, arm in enumerate(step.arms)}),
    )
    chain = _chain(e, step, step.arms, nothing, partial(write, told=True))
    e.caught = outer
    if not step.catch:
        code.statements += chain.statements
        return scope
    caught = e.unit.local("caught")
    unhandled = code.child()
    unhandled.add("raise", step)
    write = partial(_arm, e, subject=caught, spent=None, scope=scope, place=place, guarded=False, on_response=False)
    handlers = _chain(e, step, step.catch, unhandled, write)
    code.add(
        "try:\n    BODY\nexcept RuntimeErrors as error:\n    CAUGHT = describe(f, error)\n    HANDLERS",
        step,
        BODY=chain.body(),
        RuntimeErrors=e.constant(ReqonRuntimeError, "ReqonRuntimeError"),
        CAUGHT=caught,
        describe=e.constant(describe, "describe"),
        HANDLERS=handlers.body(),
    )
    return scope


def _chain(
    e: Emitter, step: nodes.MatchStep, arms: Sequence[nodes.Arm], otherwise: Code, write: Callable[..., Code]
) -> Code:
    """The arms as `if … elif …`, and what follows where none takes the value.

    Python compiles some hundred `elif`s at most, so many arms are several chains: each is gone through only where no
    arm before it took the value.
    """
    parts = [arms[start : start + _ARMS_IN_CHAIN] for start in range(0, len(arms), _ARMS_IN_CHAIN)] or [arms]
    if len(parts) == 1:
        return _linked(arms, otherwise, write)
    left = e.unit.local("left")
    out = otherwise.child()
    for number, part in enumerate(parts):
        rest = otherwise
        if part is not parts[-1]:
            rest = otherwise.child()
            rest.add("LEFT = True", step, LEFT=left)
        chain = _linked(part, rest, write)
        template = "LEFT = False\nCHAIN" if number == 0 else "if LEFT:\n    LEFT = False\n    CHAIN"
        out.add(template, step, LEFT=left, CHAIN=chain.body())
    return out


def _linked(arms: Sequence[nodes.Arm], otherwise: Code, write: Callable[..., Code]) -> Code:
    chain = otherwise
    for arm in reversed(arms):
        chain = write(arm, chain)
    return chain


def _no_arm(
    e: Emitter, step: nodes.MatchStep, subject: str | None, spent: str | None, code: Code, *, guarded: bool
) -> Code:
    out = code.child()
    e.tell(tell_arm, step, out, NO_ARM)
    value = load(subject) if subject is not None else ast.Constant(None, lineno=1, col_offset=0)
    out.add(
        "raise no_arm(f, VALUE, GUARDED, SPENT)",
        step,
        no_arm=e.constant(no_arm, "no_arm"),
        VALUE=value,
        GUARDED=ast.Constant(guarded, lineno=1, col_offset=0),
        SPENT=load(spent) if spent is not None else ast.Constant(0, lineno=1, col_offset=0),
    )
    return out


def _arm(
    e: Emitter,
    arm: nodes.Arm,
    otherwise: Code,
    *,
    subject: str | None,
    spent: str | None,
    scope: Scope,
    place: Place,
    guarded: bool,
    on_response: bool,
    told: bool = False,
    known: tuple[str, Mapping[int, int]] | None = None,
) -> Code:
    """`if <this arm takes it>: body else: otherwise`."""
    out = otherwise.child()
    tests: list[ast.expr] = []
    within = scope
    if subject is None and isinstance(arm.pattern, nodes.Wildcard):
        pass
    elif subject is None:
        assert not isinstance(arm.pattern, _PATTERNS)
        tests.append(e.truth(arm.pattern, scope))
    elif not isinstance(arm.pattern, nodes.Wildcard):
        assert isinstance(arm.pattern, _PATTERNS)
        test, within = e.expressions.pattern(arm.pattern, subject, scope, response=on_response)
        if not (isinstance(test, ast.Constant) and test.value is True):
            tests.append(test)
    if guarded and flow.takes_anything(arm, e.program.schemas) and not flow.decides(arm.body):
        # `_ -> continue` and `_ -> store …` are meant for success.
        tests.append(expression("f.failure is None", arm))
    if subject is not None:
        within = within.with_current(load(subject))
    if arm.guard is not None:
        tests.append(e.truth(arm.guard, within))
    retry = _retry_of(arm.body)
    if spent is not None and retry is None and not flow.gives_up(arm.body):
        # Behind a retry that is used up only an arm that gives up may take the value.
        tests.append(expression("not SPENT", arm, SPENT=spent))
    if retry is not None and spent is not None:
        target = e.targets[id(retry)]
        assert target is not None, "the checker refuses a retry without a request"
        maximum = next((option_value(e, o, within, RETRY_STEP) for o in retry.options if o.key == "maxAttempts"), None)
        jumps = isinstance(retry, nodes.Jump)
        tests.append(
            expression(
                "may_retry(f, TARGET, NAME, MAXIMUM) or (SPENT := executions(f, TARGET, NAME)) is None",
                retry,
                SPENT=spent,
                may_retry=e.constant(may_retry, "may_retry"),
                executions=e.constant(executions, "executions"),
                TARGET=ast.Constant(e.target_id(target), lineno=1, col_offset=0),
                NAME=ast.Constant(directive_name(retry), lineno=1, col_offset=0),
                # A jump's budget counts jumps, a retry's the executions of the request.
                MAXIMUM=maximum or ast.Constant(DEFAULT_ATTEMPTS + jumps, lineno=1, col_offset=0),
            )
        )
    body = out.child()
    if known is not None:
        name, numbers = known
        number = constant(numbers[id(arm)])
        tests = [_as_before(arm, tests, load(name), number)]
        body.add(
            "remember_arm(f, PATH, NUMBER)",
            arm,
            remember_arm=e.constant(remember_arm, "remember_arm"),
            PATH=constant(f"{place.path}!"),
            NUMBER=number,
        )
    if told:
        e.tell(tell_arm, arm, body, arm_of(arm))
    steps = flow.steps_of(arm.body)
    e.steps(steps, within, body, place.inner())
    if isinstance(arm.body, nodes.Queue):
        emit_skip(e, arm.body, within, body, place)
    if not tests:
        return body
    test = tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests, lineno=1, col_offset=0)
    out.add("if TEST:\n    BODY\nelse:\n    OTHERWISE", arm, TEST=test, BODY=body.body(), OTHERWISE=otherwise.body())
    return out


def _decided(e: Emitter, step: nodes.MatchStep, place: Place, value: ast.expr) -> ast.expr:
    """The value that a match decides on, which for a resume is what it was."""
    return expression(
        "decide(f, PATH, lambda: VALUE)",
        step,
        decide=e.constant(decide, "decide"),
        PATH=constant(f"{place.path}?"),
        VALUE=value,
    )


def _as_before(arm: nodes.Arm, tests: list[ast.expr], known: ast.expr, number: ast.expr) -> ast.expr:
    """An arm's test, where a resume may know which arm it was. The test is made all the same: it binds names."""
    may = expression("KNOWN is None or KNOWN == NUMBER", arm, KNOWN=known, NUMBER=number)
    if not tests:
        return may
    test = tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests, lineno=1, col_offset=0)
    return expression("MAY and (TEST or KNOWN == NUMBER)", arm, MAY=may, TEST=test, KNOWN=known, NUMBER=number)


def _retry_of(body: nodes.ArmBody) -> nodes.Retry | nodes.Jump | None:
    """The directive whose budget an arm depends on: its body, or the last step of its block."""
    steps: Sequence[nodes.Step] = flow.steps_of(body)
    last = steps[-1] if steps else None
    if isinstance(last, nodes.Retry) or (isinstance(last, nodes.Jump) and last.then == "retry"):
        return last
    return None


_PATTERNS = (
    nodes.Wildcard,
    nodes.LiteralPattern,
    nodes.NamePattern,
    nodes.ValuePattern,
    nodes.ArrayPattern,
    nodes.ObjectPattern,
)


# --- what the code calls ---------------------------------------------------------------------------------------------


def decide(f: Frame, path: str, ask: Callable[[], Value]) -> Value:
    """The value that a match decides on, evaluated or as it was before this resume."""
    return f.x.engine.decide(f, path, ask)


def known_arm(f: Frame, path: str) -> Value:
    """The number of the arm that a match had taken before this resume; None: it had taken none."""
    return f.x.engine.recall(f, path)


def remember_arm(f: Frame, path: str, number: int) -> None:
    """An arm takes the value: a resume goes on in it."""
    f.x.engine.remember(f, path, number)


def no_arm(f: Frame, value: Value, guarded: bool, spent: int) -> Exception:
    """No arm takes the value: the request's own error, if it failed. `spent`: executions that used up a `retry`."""
    if spent:
        return exhausted(f.failure, spent)
    if guarded and f.failure is not None:
        return f.failure
    shown = SECRETS.redact(encode(preview(value)).decode()) if value is not None else ""
    is_large = isinstance(value, dict | list)
    error = NoMatchError(
        f"no arm takes this value: {described(value)}{' ' + shown if is_large else ''}"[:300],
        hint="add `_ -> continue` for all other values",
    )
    error.value = shown.encode()[:200].decode("utf-8", "ignore")
    return error


def describe(f: Frame, error: ReqonRuntimeError) -> Record:
    """What a `catch` arm matches. An abort goes on."""
    if isinstance(error, AbortError):
        raise error
    f.x.plan.place(error, f.action, error)
    code: Value = None
    if isinstance(error, FetchError):
        code = error.status_code
    elif isinstance(error, StoreError):
        code = error.code
        if isinstance(code, str) and code.isdigit():
            code = int(code)
    return {
        "error": error.message,
        "kind": error.kind,
        "code": code,
        "action": f.action,
        "step": error.step,
        "source": getattr(error, "source", None) or None,
        "store": getattr(error, "store_name", None) or None,
        **({"key": error.key} if isinstance(error, StoreError) else {}),
    }
