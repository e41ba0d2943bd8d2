"""Compiled expressions: the same values as a plain walk, at the mission's own places."""

import ast
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from reqon.diagnostics import Source
from reqon.errors import EvaluatorError, SemanticError
from reqon.lang import nodes, operators, tree
from reqon.lang.compiler import Expressions, Scope, Unit, free_names, is_deterministic, place_of, reads_response
from reqon.lang.operators import Backed, StoreHandle
from reqon.lang.parser import parse_expression
from reqon.lang.schemas import Schemas
from reqon.stores.memory import MemoryStore
from tests.lang import trees
from tests.lang.expressions import evaluate, parsed, run, scope_of
from tests.support import oracle


def outcome(compute: Any) -> tuple[str, Any]:
    try:
        return "value", compute()
    except EvaluatorError:
        return "error", None


def same(a: Any, b: Any) -> bool:
    """Equal to the last type: 1 is not 1.0, and an absent field is not null."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(node=trees.expressions, item=trees.items, x=trees.values, y=trees.scalars, response=trees.items)
def test_compiled_code_agrees_with_a_plain_walk(
    node: nodes.Expression, item: Any, x: Any, y: Any, response: Any
) -> None:
    meta = {"code": 200}
    place = oracle.Place(item=item, names={"x": x, "y": y}, response=response, meta=meta)
    expected = outcome(lambda: oracle.evaluate(node, place))
    found = outcome(lambda: run(node, item, response=response, meta=meta, x=x, y=y))
    assert same(found, expected)
    if expected[0] == "value":
        truth = run(node, item, response=response, meta=meta, x=x, y=y, form="truth")
        assert bool(truth) is operators.truthy(expected[1])
        text = outcome(lambda: run(node, item, response=response, meta=meta, x=x, y=y, form="text"))
        assert text == outcome(lambda: operators.text(expected[1]))


# --- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("1 + .a / 0", ".a / 0"),
        ('"é🙂" + (\n  .xs where .n\n    / 0 > 1\n)', ".n\n    / 0"),
        ("sum(.xs, x => x.n * null)", "x.n * null"),
        ("match .a { 1 => 2, n where n > 0 => -null }", "-null"),
        ("{ a: 1,\n  b: toNumber(.xs) }", "toNumber(.xs)"),
        ("[...5]", "...5"),
        ('"a" + "b" + ("x" - 1)', '"x" - 1'),
        (".a[true]", ".a[true]"),
    ],
)
def test_an_error_leads_to_the_very_expression(text: str, culprit: str) -> None:
    with pytest.raises(EvaluatorError) as caught:
        evaluate(text, {"a": 3, "xs": [{"n": 1, "m": "x"}]})
    place = place_of(caught.value)
    assert place is not None
    assert place.text == culprit
    assert place.source.name == "orders.vague"


def test_an_error_from_elsewhere_has_no_place() -> None:
    assert place_of(ValueError("never raised")) is None
    with pytest.raises(EvaluatorError) as caught:
        operators.add(None, 1)
    assert place_of(caught.value) is None


def test_every_part_of_the_code_has_a_place() -> None:
    text = '{ a: .x + " " + .y, b: round(.n * 100), c: match .s { { k: v } where v > 1 => v, _ => 0 } }'
    unit = Unit(Source("orders.vague", text))
    expressions = Expressions(unit, Schemas({}))
    made = expressions.value(parsed(text), scope_of({}, {}))
    expressions.position(made, parsed(text))
    for node in ast.walk(made):
        if isinstance(node, ast.expr | ast.arg):
            assert node.lineno == 1
            assert node.end_col_offset is not None


# --- names -----------------------------------------------------------------------------------------------------------


def test_variables_come_before_stores_and_sources() -> None:
    store = StoreHandle("bins", MemoryStore("bins"))
    assert evaluate("length(bins)", bins=[1, 2], stores={"bins": store}) == 2
    assert evaluate("length(bins)", stores={"bins": store}) == 0
    assert evaluate("Shop") == "Shop"
    assert evaluate("map([1], bins => bins + 1)", bins=7) == [2]
    assert evaluate("match 5 { bins => bins }", bins=7) == 5


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("bin + 1", "undefined-name", "did you mean 'bins'?"),
        ("gauge", "undefined-name", "to read a field of the current item write '.gauge'"),
        ("x is Gauge", "undefined-schema", None),
        ("match x { Gauge => 1 }", "undefined-schema", None),
        ("1 + -(1..2)", "range-not-allowed", None),
    ],
)
def test_names_that_mean_nothing_are_errors(text: str, code: str, hint: str | None) -> None:
    node, _ = parse_expression(Source("orders.vague", text))
    assert node is not None
    with pytest.raises(SemanticError) as caught:
        run(node, x=1, bins=[])
    assert caught.value.diagnostics[0].code == code
    assert hint is None or caught.value.hint == hint


def test_a_leading_dot_without_a_current_item_is_an_error() -> None:
    expressions = Expressions(Unit(Source("orders.vague", ".a")), Schemas({}))
    with pytest.raises(SemanticError) as caught:
        expressions.value(parsed(".region"), Scope())
    assert caught.value.message == "'.region' has no current item here"


def test_the_current_item_of_each_place() -> None:
    item = {"n": 1, "xs": [{"n": 2, "ys": [{"n": 3}]}]}
    assert evaluate("(.xs where .n > 1).n", item) == [2]
    assert evaluate(".xs where (any of .ys where .n == 3)", item) == item["xs"]
    assert evaluate(".xs.map(x => .n + x.n)", item) == [3]
    assert evaluate("match .xs { xs where .length == 1 => .n }", item) == 1
    assert evaluate("match .xs[0] { { n: v } where .ys[0].n == 3 => v + .n }", item) == 3


def test_a_shared_getter_reads_fields_of_the_item_it_was_made_for() -> None:
    unit = Unit(Source("orders.vague", "x"))
    expressions = Expressions(unit, Schemas({}))
    scope = Scope(current=tree.name("item")).with_current(tree.name("item"), tree.name("field"))
    body = expressions.value(parsed("{ a: .a, bs: .xs.map(.a), c: .a + .b }"), scope)
    made = tree.function(["item"], tree.call(tree.function(["field"], body), expressions.getter(tree.name("item"))))
    whole = ast.Expression(body=made)
    expressions.position(whole, parsed("x"))
    function = eval(compile(whole, "orders.vague", "eval"), unit.globals)
    assert function({"a": 1, "b": 2, "xs": [{"a": 5}]}) == {"a": 1, "bs": [5], "c": 3}
    assert function(Backed({"a": 1}, {"b": 2, "xs": []})) == {"a": 1, "bs": [], "c": 3}
    with pytest.raises(EvaluatorError, match="needs a number, not null"):
        function(None)


def test_a_unit_gives_names_that_cannot_hide_each_other() -> None:
    unit = Unit(Source("orders.vague", ""))
    first, again, other = unit.constant([1], "it"), unit.constant((1,), "it"), unit.constant("x" * 3, "class")
    assert len({first.id, again.id, other.id, unit.local("it"), unit.local("it"), unit.local("für")}) == 6
    shared = [1]
    assert unit.constant(shared, "a").id == unit.constant(shared, "b").id
    assert unit.constant(1, "n").id != unit.constant(1.0, "n").id
    assert all(name.isidentifier() for name in unit.globals)


# --- what is known without evaluating --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a + b.c[d]", {"a", "b", "d"}),
        ("map(xs, x => x + y)", {"xs", "y"}),
        ("match a { { k: v } where v > w => v, [x] => z, _ => response }", {"a", "w", "z", "response"}),
        ("reduce(xs, (t, x) => t + x, start)", {"xs", "start"}),
        (".a where .b", set()),
    ],
)
def test_free_names(text: str, names: set[str]) -> None:
    assert free_names(parsed(text)) == names
    assert reads_response(parsed(text)) is ("response" in names)


def test_what_depends_on_the_world_is_not_deterministic() -> None:
    assert is_deterministic(parsed('length(.a) + bins.get("x").n'))
    for text in ("now() > .at", "map(xs, uuid())", 'env("X")', "mine(1)", "daysAgo(3)", 'lastSync("k")'):
        assert not is_deterministic(parsed(text))


# --- size and speed --------------------------------------------------------------------------------------------------


def _nested(depth: int) -> list[str]:
    """Expressions as deep as the parser lets them be, each of another form."""
    return [
        " + ".join(["x"] * depth),
        " + ".join(["x", '"-"'] * (depth // 2)),
        " - ".join(["x"] * depth),
        " or ".join(["y"] * depth),
        " and ".join(["x"] * depth),
        " ?? ".join(["z"] * depth),
        "z" + ".a" * depth,
        "z" + '["a"]' * depth,
        "-" * depth + "x",
        "not " * depth + "x",
        "(" * depth + "x" + ")" * depth,
        '("a" + .b + ' * depth + "x" + ")" * depth,
        "[" * depth + "x" + "]" * depth,
        "{ a: " * depth + "x" + " }" * depth,
        "length(" * depth + "x" + ")" * depth,
        "round(" * depth + "x" + ")" * depth,
        "if y then 1 else " * depth + "x",
        "match z { 1 => 2, _ => " * depth + "x" + " }" * depth,
        "map([x], " * depth + ".a" + ")" * depth,
        "x" + " | round()" * depth,
        "(" * depth + "x" + " == 1)" * depth,
        "max(x, " * depth + ".a" + ")" * depth,
        "max(x, " * depth + "x" + ")" * depth,
        "([1] where " * depth + ".a" + ")" * depth,
        "z" + " | lowercase()" * depth,
    ]


@pytest.mark.parametrize("form", range(len(_nested(1))))
def test_whatever_the_parser_accepts_compiles(form: int) -> None:
    for depth in (10, 60, 98, 150):
        node, diagnostics = parse_expression(Source("orders.vague", _nested(depth)[form]))
        if node is not None and not diagnostics:
            outcome(partial(run, node, x=1, y=0, z=None))


def test_constants_are_computed_once() -> None:
    unit = Unit(Source("orders.vague", ""))
    made = Expressions(unit, Schemas({})).value(parsed("2 days * 3 + 0 * 1 day"), Scope())
    assert isinstance(made, ast.Name)
    assert unit.globals[made.id] == timedelta(days=6)


def test_text_arms_become_a_table() -> None:
    text = 'match .s { "A" => 1, "B" => 2, "A" => 3, _ => 0 }'
    made = Expressions(Unit(Source("orders.vague", text)), Schemas({})).value(parsed(text), scope_of({}, {}))
    assert "_table.get" in ast.unparse(made)
    assert [evaluate(text, {"s": s}) for s in ("A", "B", "C", None, ["A"])] == [1, 2, 0, 0, 0]


@pytest.mark.parametrize("value", [0, 99, 100, 250, 299, 777])
def test_a_match_may_have_more_arms_than_python_nests(value: int) -> None:
    """N5"""
    wanted = value if value < 300 else None
    arms = ", ".join(f"{n} => {n}" for n in range(300))
    assert evaluate(f"match .v {{ {arms} }}", {"v": value}) == wanted
    arms = ", ".join(f"{{ a: {n}, b: q }} => q + {n}" for n in range(300))
    assert evaluate(f'match .v {{ {arms}, z => "none" }}', {"v": {"a": value, "b": 0}}) == (
        "none" if wanted is None else wanted
    )
    arms = ", ".join(f".v == {n} => {n}" for n in range(300))
    assert evaluate(f"match {{ {arms} }}", {"v": value}) == wanted


def test_a_match_without_arms_is_null() -> None:
    """N5"""
    assert evaluate("match .s {}", {"s": 1}) is None
    assert evaluate("match {}") is None


def test_the_subject_of_a_match_is_evaluated_once() -> None:
    seen: list[Any] = []

    def observe(value: Any) -> Any:
        seen.append(value)
        return value

    functions_ = {"observe": observe}
    for text in ("match observe(1) { n => n }", "match observe(1) { 2 => 0, [a] => 0, n where n > 0 => n }"):
        seen.clear()
        unit = Unit(Source("orders.vague", text))
        made = Expressions(unit, Schemas({}), functions_).value(parsed(text), Scope())
        assert eval(compile(ast.fix_missing_locations(ast.Expression(made)), "orders.vague", "eval"), unit.globals) == 1
        assert seen == [1]


def test_trees_deeper_than_any_text_are_an_error_and_no_crash() -> None:
    node: nodes.Expression = trees.literal(1)
    for _ in range(5000):
        node = nodes.Unary(operator="-", operand=node, span=trees.SPAN)
    with pytest.raises(SemanticError, match="nested too deeply"):
        run(node)
