"""Which values match a schema (spec/language.md 2.5, runtime.md 14)."""

from datetime import UTC, datetime
from typing import Any

import pytest

from reqon.diagnostics import Source
from reqon.errors import EvaluatorError, SemanticError
from reqon.lang import nodes
from reqon.lang.compiler import place_of
from reqon.lang.operators import Backed, PagedResult
from reqon.lang.parser import parse
from reqon.lang.schemas import MAX_DEPTH, Schemas
from tests.lang.expressions import evaluate


def schemas(text: str) -> Schemas:
    tree, diagnostics = parse(Source("types.vague", text))
    assert not diagnostics, diagnostics
    return Schemas({item.name.text: item for item in tree.items if isinstance(item, nodes.SchemaDef)})


def matches(fields: str, value: Any, more: str = "") -> bool:
    return schemas(f"schema S {{ {fields} }}\n{more}").matcher("S")(value)


@pytest.mark.parametrize(
    ("kind", "accepted", "refused"),
    [
        ("string", ["", "x"], [1, None, ["x"], True]),
        ("boolean", [True, False], [0, "true", None]),
        ("bool", [True], [1]),
        ("number", [0, -1.5, 10**30], [True, "1", None]),
        ("decimal(2)", [1.234], ["1"]),
        ("float", [1], [False]),
        ("int", [3, 3.0, -(2**70)], [3.5, True, "3"]),
        ("date", ["2024-02-29", "2024-02-29T10:00:00Z", datetime(2024, 1, 1, tzinfo=UTC)], ["2024-02-30", 5, "x"]),
        ("object", [{}, {"a": 1}], [[], "x"]),
        ("array", [[], [1], (1, 2)], [{}, "x", None]),
        ("array<int>", [[], [1, 2.0]], [["1"], [None], 1]),
        ("array<array<string>>", [[["a"], []]], [["a"]]),
        ("null", [None], [0]),
        ("any", [None, 0, []], []),
        ("number in 0..10", [0, 10, 2.5], [-0.1, 11, "5"]),
        ("number in -5..-1", [-5, -1], [0]),
        ("date in 2020..2024", ["2020-01-01", "2024-12-31T23:59:59Z"], ["2019-12-31", "2025-01-01"]),
        ('date in "2024-01-10".."2024-02-01"', ["2024-01-10", "2024-02-01T23:00:00Z"], ["2024-02-02", "2024-01-09"]),
        ("1..2 of string", [["a"], ["a", "b"]], [[], ["a", "b", "c"], [1]]),
        ("2 of int", [[1, 2]], [[1], [1, 2, 3]]),
        ('"buoy" | "pier"', ["buoy", "pier"], ["ship", None]),
        ("1 | true", [1, 1.0, True], [2, False]),
        ("string | int | null", ["a", 1, None], [1.5, True]),
        (
            "{ lat: number, lon: number? }",
            [{"lat": 1}, {"lat": 1, "lon": 2}],
            [{}, {"lat": "x"}, {"lat": 1, "lon": "x"}],
        ),
        ("string?", ["a", None], [1]),
    ],
)
def test_types(kind: str, accepted: list[Any], refused: list[Any]) -> None:
    value: Any
    for value in accepted:
        assert matches(f"f: {kind}", {"f": value, "extra": 1}), value
    for value in refused:
        assert not matches(f"f: {kind}", {"f": value}), value


def test_only_objects_match() -> None:
    value: Any
    for value in (None, 1, "x", [], [{}]):
        assert not matches("", value)
    assert matches("", {})
    assert matches("a: int", PagedResult({"a": 1}, [1]))


def test_absent_and_null_fields() -> None:
    assert not matches("f: string", {})
    assert not matches("f: any", {})
    assert matches("f: any", {"f": None})
    assert matches("f: null", {"f": None})
    assert not matches("f: null", {})
    assert matches("f: string?", {})
    assert matches("f: string | null", {})
    assert not matches("f: string", Backed({}, {"f": "behind"}))


def test_conditions_name_fields_with_and_without_the_dot() -> None:
    text = "low: number, high: number where high >= .low, assume length(name) > 1, name: string"
    assert matches(text, {"low": 1, "high": 2, "name": "ab"})
    assert not matches(text, {"low": 3, "high": 2, "name": "ab"})
    assert not matches(text, {"low": 1, "high": 2, "name": "a"})
    assert matches("xs: array, n: int, assume all(xs, .v > n)", {"xs": [{"v": 3}], "n": 2})
    assert not matches("xs: array, n: int, assume (xs where .v > n) == []", {"xs": [{"v": 3}], "n": 2})
    assert matches("response: string, assume response == .response", {"response": "a field"})


def test_fields_required_under_a_condition() -> None:
    text = 'kind: string, depth: number when kind == "buoy"'
    assert matches(text, {"kind": "buoy", "depth": 3})
    assert not matches(text, {"kind": "buoy"})
    assert matches(text, {"kind": "pier"})
    assert matches(text, {"kind": "pier", "depth": None})
    assert not matches(text, {"kind": "pier", "depth": 3})


def test_a_condition_on_a_missing_optional_field_holds() -> None:
    assert matches("f: number? where f > 3", {})
    assert matches("f: number? where f > 3", {"f": 4})
    assert not matches("f: number? where f > 3", {"f": 2})


def test_conditional_assumptions() -> None:
    text = "a: int, b: int, assume if a > 0 { b > 0, b < 10 }"
    assert matches(text, {"a": 1, "b": 5})
    assert not matches(text, {"a": 1, "b": 50})
    assert matches(text, {"a": 0, "b": 50})


def test_bases_are_included_and_later_fields_replace_earlier_ones() -> None:
    more = "schema Base { id: string, n: number, assume n > 0 }\nschema From from Base { n: int }"
    assert matches("...Base, id: int", {"id": 5, "n": 1}, more)
    assert not matches("...Base, id: int", {"id": "x", "n": 1}, more)
    assert not matches("...Base", {"id": "x", "n": -1}, more)
    known = schemas(more).matcher("From")
    assert known({"id": "x", "n": 2})
    assert not known({"id": "x", "n": 2.5})


def test_refinements_replace_types() -> None:
    refinements = 'if kind == "tall" { size: number }, if kind == "odd" { n: int }'
    text = f"schema S {{ kind: string, size: any }} refine {{ {refinements} }}"
    known = schemas(text).matcher("S")
    assert known({"kind": "x", "size": "any"})
    assert known({"kind": "tall", "size": 5})
    assert not known({"kind": "tall", "size": "any"})
    assert not known({"kind": "odd", "size": 1})
    assert known({"kind": "odd", "size": 1, "n": 1})


def test_schemas_may_name_each_other_and_themselves() -> None:
    text = "schema Tree { value: int, left: Tree?, right: Tree? }\nschema A { b: B? }\nschema B { a: A? }"
    known = schemas(text)
    assert known.matcher("Tree")({"value": 1, "left": {"value": 2}, "right": {"value": 3, "left": None}})
    assert not known.matcher("Tree")({"value": 1, "left": {"value": "2"}})
    assert known.matcher("A")({"b": {"a": {"b": {}}}})
    assert not known.matcher("A")({"b": {"a": {"b": 5}}})


@pytest.mark.parametrize(
    ("text", "wrap"),
    [
        ("schema S { next: S? }", lambda inner: {"next": inner}),
        ("schema S { next: array<S>? }", lambda inner: {"next": [inner]}),
        ("schema S { next: { inner: S }? }", lambda inner: {"next": {"inner": inner}}),
    ],
)
def test_values_deeper_than_the_limit_do_not_match(text: str, wrap: Any) -> None:
    known = schemas(text).matcher("S")
    value: Any = {}
    for _ in range(20):
        value = wrap(value)
    assert known(value)
    for _ in range(MAX_DEPTH + 5):
        value = wrap(value)
    assert not known(value)


def test_expressions_and_patterns_ask_schemas() -> None:
    known = schemas("schema Busy { retryAfter: number }")
    assert evaluate("x is Busy", x={"retryAfter": 1}, schemas=known) is True
    assert evaluate("match x { Busy => x.retryAfter, _ => 0 }", x={"retryAfter": 4}, schemas=known) == 4
    assert evaluate("match x { [Busy] => 1, _ => 0 }", x=[{"retryAfter": 4}], schemas=known) == 1
    assert evaluate("match x { [Busy] => 1, _ => 0 }", x=[], schemas=known) == 1
    assert evaluate("match x { [Busy] => 1, _ => 0 }", x=[{}], schemas=known) == 0
    assert evaluate("match x { [busy] => busy, _ => 0 }", x=[{}], schemas=known) == {}
    assert evaluate("match x { { job: Busy } => 1, _ => 0 }", x={"job": {"retryAfter": 4}}, schemas=known) == 1


def test_schemas_of_other_documents_are_asked_by_their_qualified_name() -> None:
    known = Schemas({}, {"api.Pet": lambda value: value == {"pet": 1}})
    assert evaluate("x is api.Pet", x={"pet": 1}, schemas=known) is True
    assert evaluate("match x { api.Pet => 1, _ => 0 }", x={"pet": 2}, schemas=known) == 0
    both = schemas("schema S { pet: int }")
    assert Schemas(both.definitions, {"S": lambda _: False}).matcher("S")({"pet": 1})


@pytest.mark.parametrize(
    "text", ["schema S { f: Missing }", "schema S { ...Missing }", "schema S from Missing {}", "schema S { ...S }"]
)
def test_names_that_are_not_declared_are_errors_at_their_place(text: str) -> None:
    with pytest.raises(SemanticError) as caught:
        schemas(text).matcher("S")
    assert caught.value.diagnostics[0].code == "undefined-schema"
    assert caught.value.span is not None
    assert caught.value.span.text in ("Missing", "S")


def test_an_error_in_a_condition_leads_to_its_place() -> None:
    known = schemas("schema S {\n  name: string\n    where name * 2 > 1\n}").matcher("S")
    with pytest.raises(EvaluatorError) as caught:
        known({"name": "x"})
    place = place_of(caught.value)
    assert place is not None
    assert (place.text, place.line) == ("name * 2", 3)


def test_an_assumption_that_cannot_be_evaluated_does_not_hold() -> None:
    known = schemas("schema S { name: string, assume name * 2 > 1 }").matcher("S")
    assert not known({"name": "x"})
    assert known({"name": "2"})


def test_matching_never_raises_for_values_of_other_kinds() -> None:
    known = schemas("schema S { a: array<int>, o: { x: string }, d: date, n: number in 0..5 }").matcher("S")
    value: Any
    for value in (1, "x", None, [], {}, True, 2.5):
        assert not known({"a": value, "o": value, "d": value, "n": value})
