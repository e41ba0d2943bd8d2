"""Arms of a match that can never be taken, and values that no arm takes (spec/language.md 5, 7.2, 7.8, 7.10)."""

from collections.abc import Mapping, Sequence

from reqon.lang import flow, nodes
from reqon.lang.checks.findings import Findings


def check_arms(
    arms: Sequence[nodes.Arm], schemas: Mapping[str, nodes.SchemaDef], findings: Findings, *, guarded: bool
) -> None:
    """Report arms of a step's match that are never taken.

    In a match that `guarded` a request, a `_` whose body doesn't decide leaves error responses to later arms. After a
    `retry` that is used up, later arms that give up are taken for the same values.
    """
    for index, arm in enumerate(arms):
        for earlier in arms[:index]:
            if earlier.guard is not None or (_retries(earlier) and flow.gives_up(arm.body)):
                continue
            if flow.takes_anything(earlier, schemas) or _is_true(earlier.pattern):
                if not guarded or _retries(earlier) or flow.decides(earlier.body) or _takes_no_error(arm, schemas):
                    _unreachable(arm, earlier, findings)
                    break
            elif _subsumes(earlier.pattern, arm.pattern, schemas):
                _shadowed(arm, earlier, findings)
                break


def check_expression_arms(
    arms: Sequence[nodes.MatchExpressionArm], schemas: Mapping[str, nodes.SchemaDef], findings: Findings
) -> None:
    """Report arms of a match expression that are never taken."""
    for index, arm in enumerate(arms):
        for earlier in arms[:index]:
            if earlier.guard is not None:
                continue
            if flow.takes_anything(earlier, schemas) or _is_true(earlier.pattern):
                _unreachable(arm, earlier, findings)
                break
            if _subsumes(earlier.pattern, arm.pattern, schemas):
                _shadowed(arm, earlier, findings)
                break


def is_exhaustive(arms: Sequence[nodes.Arm], schemas: Mapping[str, nodes.SchemaDef]) -> bool:
    """Whether some arm takes whatever the others leave."""
    return any(flow.takes_anything(arm, schemas) or (arm.guard is None and _is_true(arm.pattern)) for arm in arms)


_AnyArm = nodes.Arm | nodes.MatchExpressionArm


def _unreachable(arm: _AnyArm, earlier: _AnyArm, findings: Findings) -> None:
    shown = earlier.pattern.span.text
    findings.error(
        "unreachable-arm",
        f"this arm can never match; '{shown}' on line {earlier.pattern.span.line} matches everything",
        arm.pattern.span,
        f"move the '{shown}' arm to the end, or give it a 'where' guard",
    )


def _shadowed(arm: _AnyArm, earlier: _AnyArm, findings: Findings) -> None:
    line = earlier.pattern.span.line
    message = f"this arm never matches: line {line} already matches the same values"
    findings.warn("shadowed-arm", message, arm.pattern.span, "put the narrower pattern first, or remove it")


def _takes_no_error(arm: nodes.Arm, schemas: Mapping[str, nodes.SchemaDef]) -> bool:
    """Whether an arm of a guarded match is for success only, like the one before it that takes every success."""
    return flow.takes_anything(arm, schemas) and not flow.decides(arm.body)


def _retries(arm: nodes.Arm) -> bool:
    return any(
        isinstance(step, nodes.Retry) or (isinstance(step, nodes.Jump) and step.then == "retry")
        for step in flow.steps_in(flow.steps_of(arm.body))
    )


def _is_true(pattern: nodes.Node) -> bool:
    return isinstance(pattern, nodes.Literal_) and pattern.value is True


def _subsumes(first: nodes.Node, later: nodes.Node, schemas: Mapping[str, nodes.SchemaDef]) -> bool:
    """Whether every value of the later pattern is one of the first. False where that is not certain."""
    match first, later:
        case nodes.LiteralPattern(), nodes.LiteralPattern():
            return type(first.value) is type(later.value) and first.value == later.value
        case nodes.NamePattern(), nodes.NamePattern():
            return _same_schema(first.name.text, later.name.text, schemas)
        case nodes.ObjectPattern(), nodes.ObjectPattern():
            wanted = {entry.key: entry.pattern for entry in later.entries}
            return all(
                entry.key in wanted and _field_subsumes(entry.pattern, wanted[entry.key], schemas)
                for entry in first.entries
            )
        case nodes.ArrayPattern(), nodes.ArrayPattern():
            return first == later
        case _:
            # Without a subject the patterns are conditions: the same one twice.
            return not isinstance(first, nodes.Wildcard | nodes.NamePattern) and first == later


def _field_subsumes(first: nodes.Pattern, later: nodes.Pattern, schemas: Mapping[str, nodes.SchemaDef]) -> bool:
    if isinstance(first, nodes.Wildcard) or flow.binding_of(first, schemas) is not None:
        # Inside an object these need a value that is not null.
        if isinstance(later, nodes.LiteralPattern):
            return later.value is not None
        return not isinstance(later, nodes.ValuePattern)
    return _subsumes(first, later, schemas)


def _same_schema(first: str, later: str, schemas: Mapping[str, nodes.SchemaDef]) -> bool:
    one, other = schemas.get(first), schemas.get(later)
    if one is None or other is None:
        return False
    return first == later or (one.base, one.fields, one.refinements) == (other.base, other.fields, other.refinements)
