"""`validate`: every constraint is judged; a violation is logged, counted, and stops what must be stopped (7.5)."""

import ast
from dataclasses import dataclass

from reqon.errors import ReqonRuntimeError, ValidationError
from reqon.lang import flow, nodes
from reqon.lang.compiler import Scope
from reqon.runtime.codegen import Code, expression, load
from reqon.runtime.frame import Frame
from reqon.runtime.steps.emit import Emitter, Place
from reqon.runtime.telling import Validation, tell_refused, tell_valid


@dataclass(frozen=True, slots=True)
class Constraint:
    """One `assume`, as violations name it."""

    text: str
    severity: str
    location: str


def emit_validate(e: Emitter, step: nodes.Validate, scope: Scope, code: Code, place: Place) -> Scope:
    """All constraints in one test; only when it fails is each looked at by itself."""
    if step.target is None:
        target = place.response
    else:
        target = e.temporary(step.target, e.value(step.target, scope), code, "target")
    within = scope.with_current(load(target))
    rules = tuple(_text(c) for assume in step.constraints for c in assume.constraints or (assume.condition,))
    about = Validation(target="response" if step.target is None else _text(step.target), rules=rules)
    slow = code.child()
    failed = e.unit.local("failed")
    slow.add("LOCAL = []", step, LOCAL=failed)
    tests: list[ast.expr] = []
    for assume in step.constraints:
        for condition in assume.constraints or (assume.condition,):
            tests.append(_test(e, assume, condition, within))
            constraint = Constraint(_text(condition), assume.severity or "warning", str(condition.span))
            message = (
                ast.Constant(None, lineno=1, col_offset=0)
                if assume.message is None
                else expression("lambda: TEXT", assume, TEXT=e.expressions.text(assume.message, within))
            )
            slow.add(
                "judge(f, FAILED, lambda: TEST, CONSTRAINT, MESSAGE)",
                condition,
                judge=e.constant(judge, "judge"),
                FAILED=failed,
                TEST=_test(e, assume, condition, within),
                CONSTRAINT=e.constant(constraint, "constraint"),
                MESSAGE=message,
            )
    if step.otherwise is None:
        slow.add(
            "refuse(f, ABOUT, FAILED)",
            step,
            refuse=e.constant(refuse, "refuse"),
            ABOUT=e.constant(about, "about"),
            FAILED=failed,
        )
    else:
        body = code.child()
        e.steps(flow.steps_of(step.otherwise), within, body, place.inner().at(0))
        slow.add(
            "if FAILED:\n    count(f, ABOUT, FAILED)\n    BODY",
            step,
            FAILED=failed,
            ABOUT=e.constant(about, "about"),
            count=e.constant(count, "count"),
            BODY=body.body(),
        )
    if tests:
        whole = tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests, lineno=1, col_offset=0)
        holds = e.unit.local("holds")
        passed = code.child()
        e.tell(tell_valid, step, passed, about)
        otherwise = "\nelse:\n    PASSED" if e.watched else ""
        code.add(
            f"try:\n    HOLDS = WHOLE\nexcept EvaluatorErrors:\n    HOLDS = False\nif not HOLDS:\n    SLOW{otherwise}",
            step,
            PASSED=passed.body(),
            HOLDS=holds,
            WHOLE=whole,
            EvaluatorErrors=e.constant(ReqonRuntimeError, "ReqonRuntimeError"),
            SLOW=slow.body(),
        )
    return scope


def _text(node: nodes.Node) -> str:
    return " ".join(node.span.text.split())


def _test(e: Emitter, assume: nodes.Assume, condition: nodes.Expression, scope: Scope) -> ast.expr:
    test = e.truth(condition, scope)
    if assume.constraints:
        return expression("not CONDITION or TEST", condition, CONDITION=e.truth(assume.condition, scope), TEST=test)
    return test


def judge(
    f: Frame, failed: list[tuple[Constraint, str]], test: object, constraint: Constraint, message: object
) -> None:
    """Note a constraint that does not hold, or whose test fails; its own message, else its text."""
    why = ""
    try:
        if test():  # type: ignore[operator]
            return
    except ReqonRuntimeError as error:
        why = f" ({error.message})"
    text = constraint.text
    if message is not None:
        try:
            text = message() or text  # type: ignore[operator]
        except ReqonRuntimeError as error:
            why = f" ({error.message})"
    failed.append((constraint, f"{text}{why}"))


def count(f: Frame, about: Validation, failed: list[tuple[Constraint, str]]) -> None:
    """One more invalid item; each violation to the log."""
    f.x.invalid += 1
    errors = sum(constraint.severity == "error" for constraint, _ in failed)
    violated = tuple(constraint.text for constraint, _ in failed)
    tell_refused(f, about, warnings=len(failed) - errors, errors=errors, violated=violated)
    for constraint, text in failed:
        f.x.notice(f"constraint violated: {text}", location=constraint.location)


def refuse(f: Frame, about: Validation, failed: list[tuple[Constraint, str]]) -> None:
    """Count and log; raise when one of them is an error.

    Raises:
        ValidationError: names every violated constraint of severity error.
    """
    if not failed:
        return
    count(f, about, failed)
    errors = [text for constraint, text in failed if constraint.severity == "error"]
    if errors:
        error = ValidationError(
            "; ".join(dict.fromkeys(errors)), hint="`else warning` lets such items go on; `or { … }` decides here"
        )
        error.constraint = errors[0]
        raise error
