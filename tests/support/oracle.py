"""Expressions by a plain walk over their tree, slowly: what compiled code must agree with (spec/language.md 3).

It has no fast paths, no static knowledge and no temporaries; every operator is a call into `operators`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from reqon.lang import nodes, operators
from reqon.lang.analysis import reads_current
from reqon.lang.functions import BUILTINS
from reqon.lang.functions.numbers import of_arguments
from reqon.values import Value

OPERATORS: dict[str, Callable[[Value, Value], Value]] = {
    "+": operators.add,
    "-": operators.subtract,
    "*": operators.multiply,
    "/": operators.divide,
    "%": operators.modulo,
    "<": operators.less,
    "<=": operators.less_equal,
    ">": operators.greater,
    ">=": operators.greater_equal,
    "==": operators.equal,
    "!=": lambda a, b: not operators.equal(a, b),
    "contains": operators.contains,
    "startsWith": operators.starts_with,
    "endsWith": operators.ends_with,
}
VIRTUAL = ("code", "headers", "validationErrors", "webhookUrl", "webhookPath", "webhookId")


@dataclass(frozen=True)
class Place:
    """What names and the leading dot mean here."""

    item: Value = None
    names: Mapping[str, Value] = field(default_factory=dict)
    response: Value = None
    meta: Mapping[str, Value] | None = None

    def on(self, item: Value) -> "Place":
        return replace(self, item=item)

    def bind(self, names: Mapping[str, Value]) -> "Place":
        return replace(self, names={**self.names, **names})


def evaluate(node: nodes.Expression, place: Place) -> Value:
    """The value of an expression."""
    match node:
        case nodes.Literal_(value=value):
            return value
        case nodes.DurationLiteral():
            return operators.duration(node.milliseconds)
        case nodes.Name(name="response") if "response" not in place.names:
            return place.response
        case nodes.Name(name=name):
            return place.names[name]
        case nodes.Current():
            return place.item
        case nodes.Member():
            return _member(node, place)
        case nodes.Index():
            return operators.index(evaluate(node.target, place), evaluate(node.index, place))
        case nodes.Call():
            return _call(node, place)
        case nodes.Unary():
            return _unary(node, place)
        case nodes.Binary():
            return _binary(node, place)
        case nodes.Is():
            return operators.TYPE_TESTS[node.type_name.text](evaluate(node.value, place))
        case nodes.Conditional():
            return evaluate(node.then if holds(node.condition, place) else node.otherwise, place)
        case nodes.Where():
            listed = operators.iterable(evaluate(node.collection, place), "where")
            return [x for x in listed if holds(node.condition, place.on(x))]
        case nodes.AnyOf():
            listed = operators.iterable(evaluate(node.collection, place), "any of")
            condition = node.condition
            return len(listed) > 0 if condition is None else any(holds(condition, place.on(x)) for x in listed)
        case nodes.ArrayLiteral():
            return _array(node, place)
        case nodes.ObjectLiteral():
            return _object(node, place)
        case nodes.MatchExpression():
            return _match(node, place)
        case _:
            raise AssertionError(node)


def holds(node: nodes.Expression, place: Place) -> bool:
    return operators.truthy(evaluate(node, place))


def _member(node: nodes.Member, place: Place) -> Value:
    target = evaluate(node.target, place)
    if isinstance(node.target, nodes.Name) and node.target.name == "response" and node.key in VIRTUAL:
        return operators.response_member(target, node.key, place.meta)
    return operators.member(target, node.key)


def _unary(node: nodes.Unary, place: Place) -> Value:
    value = evaluate(node.operand, place)
    if node.operator in ("not", "!"):
        return not operators.truthy(value)
    return operators.negative(value) if node.operator == "-" else operators.positive(value)


def _binary(node: nodes.Binary, place: Place) -> Value:
    left = evaluate(node.left, place)
    if node.operator == "and":
        return evaluate(node.right, place) if operators.truthy(left) else False
    if node.operator == "or":
        return left if operators.truthy(left) else evaluate(node.right, place)
    if node.operator == "??":
        return evaluate(node.right, place) if left is None else left
    if node.operator == "in":
        if isinstance(node.right, nodes.Range):
            low, high = evaluate(node.right.low, place), evaluate(node.right.high, place)
            return operators.greater_equal(left, low) and operators.less_equal(left, high)
        return operators.contains(evaluate(node.right, place), left)
    return OPERATORS[node.operator](left, evaluate(node.right, place))


def _array(node: nodes.ArrayLiteral, place: Place) -> Value:
    made: list[Value] = []
    for element in node.elements:
        if isinstance(element, nodes.Spread):
            made.extend(operators.spread_elements(evaluate(element.value, place)))
        else:
            made.append(evaluate(element, place))
    return made


def _object(node: nodes.ObjectLiteral, place: Place) -> Value:
    made: dict[str, Value] = {}
    for entry in node.entries:
        value = evaluate(entry.value, place)
        if isinstance(entry, nodes.Spread):
            made.update(operators.spread_fields(value))
        else:
            made[entry.key] = value
    return made


def _call(node: nodes.Call, place: Place) -> Value:
    builtin = BUILTINS[node.name.text]
    if builtin.aggregate and len(node.arguments) > 1:
        return _aggregate(node, place)
    arguments = [
        _element(node, argument, place) if at in builtin.element else evaluate(argument, place)  # type: ignore[arg-type]
        for at, argument in enumerate(node.arguments)
    ]
    return builtin.body(*arguments)


def _aggregate(node: nodes.Call, place: Place) -> Value:
    first, second = evaluate(node.arguments[0], place), node.arguments[1]  # type: ignore[arg-type]
    if len(node.arguments) == 2:
        over_nothing = first is None and reads_current(second)
        if isinstance(second, nodes.Lambda) or over_nothing or operators.elements(first) is not None:
            return BUILTINS[node.name.text].body(first, _element(node, second, place))
    return of_arguments(node.name.text, first, *(evaluate(rest, place) for rest in node.arguments[1:]))  # type: ignore[arg-type]


def _element(node: nodes.Call, argument: nodes.Argument, place: Place) -> Callable[..., Value]:
    at = -1

    def call(*values: Value) -> Value:
        nonlocal at
        at += 1
        if isinstance(argument, nodes.Lambda):
            words = [word.text for word in argument.parameters]
            indexed = len(words) == 2 and node.name.text != "reduce"
            bound = dict(zip(words, (*values, at) if indexed else values, strict=True))
            value = evaluate(argument.body, place.bind(bound))
        else:
            value = evaluate(argument, place.on(values[0]))  # type: ignore[arg-type]
        conditions = ("filter", "find", "findIndex", "all", "some", "none")
        return operators.truthy(value) if node.name.text in conditions else value

    return call


def _match(node: nodes.MatchExpression, place: Place) -> Value:
    if node.subject is None:
        for arm in node.arms:
            pattern = arm.pattern
            taken = isinstance(pattern, nodes.Wildcard) or holds(pattern, place)  # type: ignore[arg-type]
            if taken and (arm.guard is None or holds(arm.guard, place)):
                return evaluate(arm.value, place)
        return None
    subject = operators.snapshot(evaluate(node.subject, place))
    for arm in node.arms:
        bindings = fits(arm.pattern, subject, place)  # type: ignore[arg-type]
        if bindings is not None:
            inner = place.bind(bindings)
            if arm.guard is None or holds(arm.guard, inner.on(subject)):
                return evaluate(arm.value, inner)
    return None


def fits(pattern: nodes.Pattern, value: Value, place: Place) -> dict[str, Value] | None:
    """The bindings if the value fits the pattern, None if it does not."""
    match pattern:
        case nodes.Wildcard():
            return {}
        case nodes.LiteralPattern(value=literal):
            return {} if operators.equal(value, literal) else None
        case nodes.NamePattern(name=name):
            return {name.text: value}
        case nodes.ValuePattern(value=expression):
            return {} if operators.equal(value, evaluate(expression, place)) else None
        case nodes.ArrayPattern(elements=patterns):
            listed = operators.elements(value)
            if listed is None or len(listed) != len(patterns):
                return None
            return _all_fit(list(zip(patterns, listed, strict=True)), place)
        case nodes.ObjectPattern(entries=entries):
            if not operators.is_object(value):
                return None
            return _all_fit(
                [(e.pattern, operators.pattern_field(value, e.key, None)) for e in entries], place, inside=True
            )


def _all_fit(
    pairs: list[tuple[nodes.Pattern, Value]], place: Place, *, inside: bool = False
) -> dict[str, Value] | None:
    bound: dict[str, Value] = {}
    for pattern, value in pairs:
        if inside and value is None and isinstance(pattern, nodes.Wildcard | nodes.NamePattern):
            return None
        found = fits(pattern, value, place)
        if found is None:
            return None
        bound |= found
    return bound
