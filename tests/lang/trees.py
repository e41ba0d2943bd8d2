"""Random expressions and values for the tests of this room."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from reqon.diagnostics import Source, Span
from reqon.lang import nodes, operators
from reqon.lang.functions import BUILTINS

SPAN = Span(Source("random.vague", "a random expression"), 2, 8)
KEYS = ("a", "b", "c", "length", "code")
VARIABLES = ("x", "y")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-20, 20),
    st.sampled_from((0, 1, 2**53, -(2**70), 0.0, 1.0, -0.5, 0.1, 2.5, 1e16, 1e300, 3.0)),
    st.sampled_from(
        ("", "a", "b", "ab", "5", "-2.5", "07", "1e3", "true", "2024-02-29", "2024-03-01T10:00:00Z", "é🙂")
    ),
    st.sampled_from((datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, 10, tzinfo=UTC))),
    st.sampled_from((timedelta(0), timedelta(days=1), timedelta(milliseconds=1500))),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    records = st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    return st.one_of(
        st.lists(inner, max_size=4),
        records,
        st.builds(operators.Backed, records, records),
        st.builds(operators.PagedResult, records, st.lists(inner, max_size=3)),
        st.lists(inner, max_size=3).map(tuple),
    )


values = st.recursive(scalars, _containers, max_leaves=8)
items = st.dictionaries(st.sampled_from(KEYS), values, max_size=5) | values


def _node(kind: Any, **fields: Any) -> Any:
    return kind(span=SPAN, **fields)


def word(text: str) -> nodes.Word:
    return nodes.Word(text=text, span=SPAN)


def literal(value: Any) -> nodes.Literal_:
    return nodes.Literal_(value=value, span=SPAN)


literals = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.sampled_from((0.5, 1.0, 2.5, 1e20)),
    st.sampled_from(("", "a", "x ", "5", "2024-03-01", "(", " - ")),
).map(literal)
fields_ = st.sampled_from(KEYS).map(lambda key: _node(nodes.Member, target=_node(nodes.Current), key=key))
names = st.sampled_from((*VARIABLES, "response")).map(lambda name: _node(nodes.Name, name=name))
durations = st.just(_node(nodes.DurationLiteral, amount=2, unit="days"))

BINARY = ("or", "and", "==", "!=", "<", "<=", ">", ">=", "contains", "startsWith", "endsWith", "in", "??")
ARITHMETIC = ("+", "+", "+", "-", "*", "/", "%")
TYPE_WORDS = tuple(operators.TYPE_TESTS)
ONE_ARGUMENT = (
    *("length", "lowercase", "trim", "round", "toString", "toNumber", "exists", "isEmpty", "first", "last", "sort"),
    *("unique", "flatten", "sum", "max", "keys", "abs", "parseDate", "year", "toArray", "capitalize", "floor"),
)
PER_ELEMENT = ("map", "filter", "find", "findIndex", "all", "some", "none", "sortBy", "sum", "min", "max", "avg")


# Every built-in whose result depends on its arguments alone; a new one is generated from the day it is declared.
PURE = tuple(sorted(name for name, builtin in BUILTINS.items() if builtin.pure and not builtin.world))


@st.composite
def _any_call(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Any:
    """A call of any pure built-in with as many arguments as it takes."""
    builtin = BUILTINS[draw(st.sampled_from(PURE))]
    most = builtin.least + 2 if builtin.most is None else builtin.most
    arguments = [draw(inner) for _ in range(draw(st.integers(builtin.least, most)))]
    for at in builtin.element:
        if builtin.aggregate and len(arguments) > 2:
            continue
        if at < len(arguments) and (builtin.name == "reduce" or draw(st.booleans())):
            arguments[at] = _lambda(arguments[at], *(("x", "y") if builtin.name == "reduce" else ("x",)))
    return _call(builtin.name, *arguments)


def _binary(operator: str, left: Any, right: Any) -> Any:
    return _node(nodes.Binary, operator=operator, left=left, right=right, operator_span=SPAN)


def _call(name: str, *arguments: Any) -> Any:
    return _node(nodes.Call, name=word(name), arguments=arguments)


def _lambda(body: Any, *parameters: str) -> Any:
    return _node(nodes.Lambda, parameters=tuple(map(word, parameters)), body=body)


def _object(pairs: list[tuple[str, Any]], spread: Any) -> Any:
    entries = [_node(nodes.Entry, key=key, value=value, key_span=SPAN) for key, value in pairs]
    return _node(nodes.ObjectLiteral, entries=(*entries, *([_node(nodes.Spread, value=spread)] if spread else [])))


def _array(elements: list[Any], spread: Any) -> Any:
    extra = [_node(nodes.Spread, value=spread)] if spread else []
    return _node(nodes.ArrayLiteral, elements=(*elements, *extra))


patterns = st.recursive(
    st.one_of(
        st.just(_node(nodes.Wildcard)),
        st.sampled_from((None, True, 0, 1, 1.5, "a", "2024-02-29")).map(lambda v: _node(nodes.LiteralPattern, value=v)),
        st.just(_node(nodes.NamePattern, name=_node(nodes.Qualified, text="x"))),
        st.sampled_from(KEYS).map(
            lambda key: _node(nodes.ValuePattern, value=_node(nodes.Member, target=_node(nodes.Current), key=key))
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2).map(lambda parts: _node(nodes.ArrayPattern, elements=tuple(parts))),
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=2).map(
            lambda parts: _node(
                nodes.ObjectPattern,
                entries=tuple(_node(nodes.PatternEntry, key=key, pattern=part) for key, part in parts.items()),
            )
        ),
    ),
    max_leaves=4,
)


def _arms(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    arm = st.builds(
        lambda pattern, guard, value: _node(nodes.MatchExpressionArm, pattern=pattern, guard=guard, value=value),
        patterns,
        st.none() | inner,
        inner,
    )
    return st.lists(arm, min_size=1, max_size=3).map(tuple)


def _text_arms(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Arms that may become a table."""
    keys = st.sampled_from(("a", "b", "ab", "5", "2024-02-29"))
    arm = st.builds(
        lambda key, value: _node(
            nodes.MatchExpressionArm, pattern=_node(nodes.LiteralPattern, value=key), guard=None, value=value
        ),
        keys,
        literals,
    )
    last = st.lists(
        literals.map(lambda v: _node(nodes.MatchExpressionArm, pattern=_node(nodes.Wildcard), guard=None, value=v)),
        max_size=1,
    )
    return st.builds(lambda arms, rest: (*arms, *rest), st.lists(arm, min_size=3, max_size=4), last)


def _compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(_binary, st.sampled_from(BINARY), inner, inner),
        st.builds(_binary, st.sampled_from(ARITHMETIC), inner, inner),
        st.builds(
            lambda value, low, high: _binary("in", value, _node(nodes.Range, low=low, high=high)), inner, inner, inner
        ),
        st.builds(
            lambda op, v: _node(nodes.Unary, operator=op, operand=v), st.sampled_from(("-", "+", "not", "!")), inner
        ),
        st.builds(lambda target, key: _node(nodes.Member, target=target, key=key), inner, st.sampled_from(KEYS)),
        st.builds(lambda target, at: _node(nodes.Index, target=target, index=at), inner, inner),
        st.builds(lambda c, a, b: _node(nodes.Conditional, condition=c, then=a, otherwise=b), inner, inner, inner),
        st.builds(
            lambda v, t: _node(nodes.Is, value=v, type_name=_node(nodes.Qualified, text=t)),
            inner,
            st.sampled_from(TYPE_WORDS),
        ),
        st.builds(lambda xs, c: _node(nodes.Where, collection=xs, condition=c), inner, inner),
        st.builds(lambda xs, c: _node(nodes.AnyOf, collection=xs, condition=c), inner, st.none() | inner),
        st.builds(_array, st.lists(inner, max_size=3), st.none() | inner),
        st.builds(
            lambda pairs, spread: _object(list(pairs.items()), spread),
            st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
            st.none() | inner,
        ),
        st.builds(_call, st.sampled_from(ONE_ARGUMENT), inner),
        st.builds(_call, st.just("concat"), inner, inner, inner),
        _any_call(inner),
        st.builds(_call, st.sampled_from(PER_ELEMENT), inner, inner),
        st.builds(lambda name, xs, b: _call(name, xs, _lambda(b, "x")), st.sampled_from(PER_ELEMENT), inner, inner),
        st.builds(lambda xs, b: _call("map", xs, _lambda(b, "x", "y")), inner, inner),
        st.builds(lambda xs, b: _call("reduce", xs, _lambda(b, "x", "y")), inner, inner),
        st.builds(lambda s, arms: _node(nodes.MatchExpression, subject=s, arms=arms), inner, _arms(inner)),
        st.builds(lambda s, arms: _node(nodes.MatchExpression, subject=s, arms=arms), inner, _text_arms(inner)),
    )


expressions = st.recursive(st.one_of(literals, fields_, fields_, names, durations), _compound, max_leaves=10)
