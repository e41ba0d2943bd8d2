"""Arms of a match that can never be taken, and values that no arm takes (spec/language.md 5, 7.2, 7.8, 7.10)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reqon.lang import flow, nodes
from reqon.lang.checks.findings import Findings

_AnyArm: TypeAlias = nodes.Arm | nodes.MatchExpressionArm
# An arm is compared with so many earlier ones of its kind, so that the time for a match grows with its arms only.
# Literals are looked up and know no limit.
_COMPARED = 50


def check_arms(
    arms: Sequence[nodes.Arm], schemas: Mapping[str, nodes.SchemaDef], findings: Findings, *, guarded: bool
) -> None:
    """Report arms of a step's match that are never taken.

    In a match that `guarded` a request, a `_` whose body doesn't decide leaves error responses to later arms. After a
    `retry` that is used up, later arms that give up are taken for the same values.
    """
    earlier = _Earlier(schemas, guarded=guarded)
    for arm in arms:
        earlier.judge(arm, findings)


def check_expression_arms(
    arms: Sequence[nodes.MatchExpressionArm], schemas: Mapping[str, nodes.SchemaDef], findings: Findings
) -> None:
    """Report arms of a match expression that are never taken."""
    earlier = _Earlier(schemas, guarded=False)
    for arm in arms:
        earlier.judge(arm, findings)


@dataclass(frozen=True, slots=True)
class _Taken:
    """An earlier arm without a guard, as far as later ones hang on it."""

    number: int
    arm: _AnyArm
    retries: bool
    decides: bool


class _Earlier:
    """The arms of one match up to the one that is judged. An arm that is never taken hides no other."""

    def __init__(self, schemas: Mapping[str, nodes.SchemaDef], *, guarded: bool) -> None:
        self._schemas = schemas
        self._guarded = guarded
        self._count = 0
        self._anything: list[_Taken] = []
        self._literals: dict[tuple[type, object], list[_Taken]] = {}
        self._others: dict[type, list[_Taken]] = {}

    def judge(self, arm: _AnyArm, findings: Findings) -> None:
        """Report the arm if an earlier one takes all its values; else keep it for those that follow."""
        every, same = self._takes_every(arm), self._subsuming(arm)
        if every is not None and (same is None or every.number < same.number):
            _unreachable(arm, every.arm, findings)
        elif same is not None:
            _shadowed(arm, same.arm, findings)
        elif arm.guard is None:
            self._keep(arm)
        self._count += 1

    def _takes_every(self, arm: _AnyArm) -> _Taken | None:
        for taken in self._anything:
            reaches_errors = self._guarded and not (taken.retries or taken.decides)
            if not _passes_over(taken, arm) and (not reaches_errors or _takes_no_error(arm, self._schemas)):
                return taken
        return None

    def _subsuming(self, arm: _AnyArm) -> _Taken | None:
        pattern = arm.pattern
        if isinstance(pattern, nodes.LiteralPattern):
            same = self._literals.get((type(pattern.value), pattern.value), [])
            return next((taken for taken in same if not _passes_over(taken, arm)), None)
        for taken in self._others.get(type(pattern), ()):
            if not _passes_over(taken, arm) and _subsumes(taken.arm.pattern, pattern, self._schemas):
                return taken
        return None

    def _keep(self, arm: _AnyArm) -> None:
        pattern = arm.pattern
        retries, decides = False, False
        if isinstance(arm, nodes.Arm):
            retries, decides = _retries(arm), flow.decides(arm.body)
        taken = _Taken(self._count, arm, retries, decides)
        if flow.takes_anything(arm, self._schemas) or _is_true(pattern):
            self._anything.append(taken)
        elif isinstance(pattern, nodes.LiteralPattern):
            self._literals.setdefault((type(pattern.value), pattern.value), []).append(taken)
        elif len(same := self._others.setdefault(type(pattern), [])) < _COMPARED:
            same.append(taken)


def _passes_over(taken: _Taken, arm: _AnyArm) -> bool:
    """Whether the earlier arm leaves its values to this one: when its retry is used up, to one that gives up."""
    return taken.retries and isinstance(arm, nodes.Arm) and flow.gives_up(arm.body)


def is_exhaustive(arms: Sequence[nodes.Arm], schemas: Mapping[str, nodes.SchemaDef]) -> bool:
    """Whether some arm takes whatever the others leave."""
    return any(flow.takes_anything(arm, schemas) or (arm.guard is None and _is_true(arm.pattern)) for arm in arms)


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


def _takes_no_error(arm: _AnyArm, schemas: Mapping[str, nodes.SchemaDef]) -> bool:
    """Whether an arm of a guarded match is for success only, like the one before it that takes every success."""
    return isinstance(arm, nodes.Arm) and flow.takes_anything(arm, schemas) and not flow.decides(arm.body)


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
