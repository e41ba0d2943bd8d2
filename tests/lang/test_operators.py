"""What the operators mean, case by case (spec/language.md 3)."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reqon.errors import EvaluatorError
from reqon.http.messages import Headers
from reqon.lang import operators
from reqon.lang.operators import (
    Backed,
    ErrorResponse,
    PagedResult,
    StoreHandle,
    ValidationErrors,
    equal,
    identity,
    member,
    order,
    ordered,
    response_member,
    text,
)
from reqon.stores.memory import MemoryStore
from reqon.values import decode, encode
from tests.lang import trees
from tests.lang.expressions import evaluate

DAY = datetime(2024, 3, 1, tzinfo=UTC)


def shelf(**records: dict[str, Any]) -> StoreHandle:
    store = MemoryStore("shelf")
    for key, record in records.items():
        store.put(key, record)
    return StoreHandle("shelf", store)


# --- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("20 / 4", 5),
        ("7 / 2", 3.5),
        ("0.1 + 0.2", 0.1 + 0.2),
        ("1.5 + 1.5", 3),
        ("-7 % 3", 2),
        ("7 % -3", -2),
        ("-7.5 % 2", 0.5),
        ("9007199254740993 + 2", 9007199254740995),
        ("90071992547409930 / 10", 9007199254740993),
        ('"5" * 2', 10),
        ('"5" - "3"', 2),
        ("true + true", 2),
        ('"a" + 1', "a1"),
        ('"5" + 1', "51"),
        ('"x" + null', "x"),
        ('null + "x"', "x"),
        ('"x" + [1, 2]', "x[1,2]"),
        ('"x" + { a: 1.5 }', 'x{"a":1.5}'),
        ('1 + 2 + "x"', "3x"),
        ("[1, 2] + [10, 20]", [11, 22]),
        ("[1, 2] * 10", [10, 20]),
        ("10 - [1, 2]", [9, 8]),
        ("-[1, -2]", [-1, 2]),
        ('+"5"', 5),
        ("2 days / 1 hour", 48),
        ("2 days * 1.5", timedelta(days=3)),
        ("1.5 * 2 days", timedelta(days=3)),
        ("2 days / 2", timedelta(days=1)),
        ("-1 day + 2 days", timedelta(days=1)),
        ('"2024-02-28" + 2 days', DAY),
        ('2 days + "2024-02-28"', DAY),
        ('"2024-03-01" - "2024-02-28"', timedelta(days=2)),
        ('"2024-03-02" - 1 day', DAY),
        ('"total " + 2 days', "total 172800000"),
        ('parseDate("2024-03-01") + ""', "2024-03-01T00:00:00.000Z"),
    ],
)
def test_arithmetic(expression: str, value: Any) -> None:
    found = evaluate(expression)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("1 + null", "'+' needs a number, not null"),
        ("null * 2", "'*' needs a number, not null"),
        ("-null", "'-' needs a number, not null"),
        ("+null", "'+' needs a number, not null"),
        ("1 / 0", "division by zero"),
        ("1 % 0.0", "modulo by zero"),
        ("1 day / 0", "division by zero"),
        ('"x" * 2', "'*' needs a number, not the string \"x\""),
        ("{} - 1", "'-' needs a number, not an object"),
        ("[1] + [1, 2]", "arrays of equal length, not 1 and 2"),
        ("1e308 * 10", "too large"),
        ("1e308 + 1e308", "too large"),
        ("-1e308 - 1e308", "too large"),
        ("1e200 * 1e200 * 0", "too large"),
        ('"9999-12-31" + 2 days', "years 1 to 9999"),
        ("1 day - 5", "'-' needs a number, not the duration 86400000"),
    ],
)
def test_arithmetic_without_a_result_says_why(expression: str, words: str) -> None:
    with pytest.raises(EvaluatorError) as caught:
        evaluate(expression)
    assert words in caught.value.message


def test_integers_stay_exact_up_to_the_digits_that_json_may_have() -> None:
    big = int("9" * 300)
    assert evaluate(".a * 3", {"a": big}) == big * 3
    with pytest.raises(EvaluatorError, match="400 digits"):
        evaluate(".a * .a", {"a": big})
    with pytest.raises(EvaluatorError, match="too large"):
        evaluate(".a * 0.5", {"a": 10**399})


@given(a=trees.values, b=trees.values)
def test_arithmetic_gives_values_that_json_can_hold_or_an_error(a: Any, b: Any) -> None:
    for apply in (operators.add, operators.subtract, operators.multiply, operators.divide, operators.modulo):
        try:
            encode(operators.plain(apply(a, b)))
        except EvaluatorError:
            continue


# --- equality --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 == 1.0", True),
        ('1 == "1"', False),
        ("1 == true", False),
        ("0 == false", False),
        ("[1] == [true]", False),
        ("[1, [2]] == [1.0, [2]]", True),
        ("{ a: 1, b: 2 } == { b: 2, a: 1 }", True),
        ("{ a: null } == {}", True),
        (".missing == null", True),
        ('"a" != "b"', True),
        ("1 day == 24 hours", True),
        ('parseDate("2024-03-01") == "2024-03-01"', True),
        ('"2024-03-01T01:00:00+01:00" == parseDate("2024-03-01")', True),
        ('"2024-03-01" == "2024-03-01T00:00:00Z"', False),
        ('[parseDate("2024-03-01")] == ["2024-03-01"]', True),
    ],
)
def test_equality_is_deep_and_strict(expression: str, value: bool) -> None:
    assert evaluate(expression, {}) is value


@given(a=trees.values, b=trees.values)
def test_equality_is_symmetric_and_every_value_equals_itself(a: Any, b: Any) -> None:
    assert equal(a, b) is equal(b, a)
    assert equal(a, a)


@given(a=trees.values, b=trees.values)
def test_values_are_equal_exactly_when_their_identities_are(a: Any, b: Any) -> None:
    assume(not operators.is_twofold([a, b]))
    assert (identity(a) == identity(b)) is equal(a, b)
    assert identity(a) != identity(b) or hash(identity(a)) == hash(identity(b))


def test_records_are_compared_by_their_own_fields() -> None:
    assert equal(Backed({"id": 1}, {"name": "x"}), {"id": 1})
    assert equal(PagedResult({"id": 1}, [1, 2]), {"id": 1})
    assert equal(PagedResult({"id": 1}, [1, 2]), [1, 2])
    assert equal(shelf(a={"n": 1}), [{"n": 1}])


def test_values_nested_beyond_reason_are_an_error_and_no_crash() -> None:
    deep: Any = 1
    twin: Any = 1
    for _ in range(100_000):
        deep, twin = [deep], [twin]
    for compute in (lambda: equal(deep, twin), lambda: identity(deep), lambda: text(deep)):
        with pytest.raises(EvaluatorError):
            compute()
    while deep != 1:  # taken apart bit by bit: freeing such a tower at once costs C stack
        deep, twin = deep[0], twin[0]


# --- ordering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 < 2", True),
        ("2 <= 2.0", True),
        ("false < true", True),
        ("1 hour < 1 day", True),
        ('9 < "10"', True),
        ('"9" < "10"', True),
        ('"9a" < "10a"', False),
        ('"B" < "a"', True),
        ('"2024-03-01T00:00:00+02:00" < "2024-03-01"', True),
        ('"2024-3-01" < "2024-03-01"', False),
        ('parseDate("2024-03-01") > "2024-02-29T23:59:59Z"', True),
        ("null < 1", False),
        ("1 >= null", False),
        ("null <= null", False),
    ],
)
def test_ordering(expression: str, value: bool) -> None:
    assert evaluate(expression, {}) is value


@pytest.mark.parametrize(
    "expression",
    ["1 < true", '1 < "x"', "[1] < [2]", "{} < {}", "1 < 1 day", 'parseDate("2024-03-01") < "x"', '"x" > 3'],
)
def test_kinds_without_an_order_are_an_error(expression: str) -> None:
    with pytest.raises(EvaluatorError, match="cannot compare"):
        evaluate(expression, {})


@given(st.lists(st.none() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(("1", "-2.5", "07"))))
def test_sorting_is_stable_with_nulls_last(values: list[Any]) -> None:
    found = ordered(values)
    present = [value for value in found if value is not None]
    assert found == present + [None] * (len(values) - len(present))
    assert all(order(a, b) <= 0 for a, b in pairwise(present))
    marked = ordered(list(enumerate(values)), lambda pair: pair[1])
    for (first, a), (second, b) in pairwise(marked):
        assert a is None or b is None or order(a, b) < 0 or first < second


@given(st.lists(st.sampled_from(("b", "a", "10", "9", "2024-01-02", "2023-05-05T10:00:00Z", "2023-05-05", ""))))
def test_quick_sorting_agrees_with_comparing_each_pair(values: list[str]) -> None:
    kinds = {value[:1].isdigit() and "-" in value for value in values}
    assume(len(kinds) < 2)  # dates among other texts have no total order
    assume(not ({"10", "9"} & set(values) and set(values) - {"10", "9"}))
    found = ordered(values)
    assert all(order(a, b) <= 0 for a, b in pairwise(found))


# --- contains and its kin --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('"abc" contains "b"', True),
        ('"a1" contains 1', True),
        ("[1, 2] contains 2.0", True),
        ("[1, 2] contains true", False),
        ("[null] contains null", False),
        ('{ a: null } contains "a"', True),
        ("null contains 1", False),
        ('"abc" contains null', False),
        ('"b" in "abc"', True),
        ('"b" in ["a", "b"]', True),
        ("1 in [true]", False),
        ("null in [null]", False),
        ("5 in 1..9", True),
        ("9 in 1..9", True),
        ('"9.5" in 1..9', False),
        ("null in 1..9", False),
        ("12 startsWith 1", True),
        ('"abc" endsWith "bc"', True),
        ('null startsWith ""', False),
        ('"x" endsWith null', False),
    ],
)
def test_containment(expression: str, value: bool) -> None:
    assert evaluate(expression, {}) is value


def test_what_holds_nothing_contains_nothing() -> None:
    with pytest.raises(
        EvaluatorError, match="'contains' needs a string, an array, an object or a store, not the number 5"
    ):
        evaluate("5 contains 5")


# --- truth, branches, text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, False, 0, 0.0, ""])
def test_falsy_values(value: Any) -> None:
    assert operators.truthy(value) is False
    assert evaluate('.v or "else"', {"v": value}) == "else"
    assert evaluate("not .v", {"v": value}) is True
    assert evaluate(".v and 5", {"v": value}) is False


@pytest.mark.parametrize("value", [True, 1, -0.5, "0", "false", [], {}, timedelta(0), DAY])
def test_truthy_values(value: Any) -> None:
    assert operators.truthy(value) is True
    assert evaluate('.v or "else"', {"v": value}) == value
    assert evaluate("!.v", {"v": value}) is False
    assert evaluate(".v and 5", {"v": value}) == 5
    assert evaluate(".v ? 1 : 2", {"v": value}) == 1


def test_an_empty_store_is_truthy() -> None:
    assert evaluate("shelf and 1", stores={"shelf": shelf()}) == 1


def test_only_null_is_coalesced() -> None:
    assert evaluate('.a ?? .b ?? "c"', {"a": None, "b": 0}) == 0
    assert evaluate('.a ?? .b ?? "c"', {}) == "c"


def test_branches_that_are_not_taken_are_not_evaluated() -> None:
    assert evaluate("true or 1 / 0") is True
    assert evaluate("false and 1 / 0") is False
    assert evaluate("if true then 1 else 1 / 0") == 1
    assert evaluate("1 ?? 1 / 0") == 1
    assert evaluate("match 1 { 1 => 2, _ => 1 / 0 }") == 2


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (None, ""),
        (True, "true"),
        (5.0, "5"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e15, "1000000000000000"),
        (1e16, "1e16"),
        (1e21, "1e21"),
        (1e-7, "1e-7"),
        (1.5e-10, "1.5e-10"),
        (10**30, "1" + "0" * 30),
        (datetime(2024, 3, 1, 7, 8, 9, 12345, UTC), "2024-03-01T07:08:09.012Z"),
        (datetime(99, 1, 1, tzinfo=UTC), "0099-01-01T00:00:00.000Z"),
        (timedelta(seconds=1.5), "1500"),
        ([1, None, "é"], '[1,null,"é"]'),
        ({"a": {"b": []}}, '{"a":{"b":[]}}'),
        (Backed({"a": 1}, {"b": 2}), '{"a":1}'),
    ],
)
def test_text_forms(value: Any, form: str) -> None:
    assert text(value) == form
    assert evaluate('"" + .v', {"v": value}) == form


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_number_reads_back_as_the_number(number: float) -> None:
    assert float(text(number)) == number
    assert decode(text(number)) == number


def test_stores_and_lazy_lists_have_the_text_of_their_elements() -> None:
    assert text(shelf(a={"n": 1})) == '[{"n":1}]'
    assert text({"xs": (1, 2)}) == '{"xs":[1,2]}'


# --- members and indices ---------------------------------------------------------------------------------------------


def test_members_by_kind() -> None:
    assert member({"length": 7}, "length") == 7
    assert member("abc", "length") == 3
    assert member("abc", "size") is None
    assert member([1, 2], "length") == 2
    assert member([{"n": 1}, {"m": 2}, 3], "n") == [1, None, None]
    assert member([{"n": None}], "n") == [None]
    assert member([{"m": 1}], "n") is None
    assert member([], "n") is None
    assert member(5, "n") is None
    assert member(None, "n") is None
    assert member(shelf(a={"n": 1}, b={"n": 2}), "n") == [1, 2]
    assert member(shelf(a={"n": 1}, b={"n": 2}), "length") == 2


def test_what_backs_a_record_is_asked_only_for_what_is_absent() -> None:
    record = Backed({"id": None}, Backed({"id": 7, "name": "x"}, {"deep": True}))
    assert evaluate(".id", record) is None
    assert evaluate(".name", record) == "x"
    assert evaluate(".deep", record) is True
    assert evaluate("keys(x)", x=record) == ["id"]
    assert evaluate("{ ...x }", x=record) == {"id": None}
    assert evaluate("match x { { name: n } => n }", x=record) == "x"


def test_a_paged_result_is_an_object_and_the_list_of_its_items() -> None:
    page = PagedResult({"data": [1, 2, 3], "total": 3}, [1, 2, 3])
    assert evaluate("response.total", response=page) == 3
    assert evaluate("length(response)", response=page) == 3
    assert evaluate("response.length", response=page) == 3
    assert evaluate("response[-1]", response=page) == 3
    assert evaluate('response["total"]', response=page) == 3
    assert evaluate("sum(response)", response=page) == 6
    assert evaluate("response is object and response is array", response=page) is True
    assert evaluate("match response { [a, b, c] => b }", response=page) == 2
    assert evaluate("match response { { total: t } => t }", response=page) == 3
    assert evaluate("response contains 2", response=page) is True
    assert evaluate('response contains "total"', response=page) is True


def test_virtual_fields_are_found_on_the_name_response_only() -> None:
    meta = {"code": 201, "headers": {"ETag": "x"}}
    for body in ({"id": 1}, [1, 2], "text", None):
        assert evaluate("response.code", response=body, meta=meta) == 201
        assert evaluate("x.code", x=body, meta=meta) is None
    assert evaluate("response.code", response={"code": "own"}, meta=meta) == "own"
    assert evaluate("response.code", response={"code": None}, meta=meta) is None
    assert evaluate("response.code", response=None, meta=None) is None
    assert response_member([{"code": 1}], "code", meta) == [1]


def test_virtual_fields_are_seen_by_patterns_on_response() -> None:
    meta = {"code": 200}
    assert evaluate("match response { { code: 200 } => 1, _ => 2 }", response=[1], meta=meta) == 1
    assert evaluate("match response { { code: c, id: i } => c + i }", response={"id": 1}, meta=meta) == 201
    assert evaluate("match x { { code: 200 } => 1, _ => 2 }", x={"id": 1}, meta=meta) == 2


def test_patterns_look_at_an_error_response_first_and_at_its_body_then() -> None:
    failed = ErrorResponse({"code": 404, "error": "gone", "body": {"code": "E7", "why": "sold"}})
    assert evaluate("match response { { code: 404 } => 1, _ => 2 }", response=failed) == 1
    assert evaluate('match response { { code: "E7", why: w } => w, _ => 2 }', response=failed) == "sold"
    assert evaluate('match x { { code: "E7" } => 1, _ => 2 }', x=failed) == 2


def test_indices_by_kind() -> None:
    xs = {"xs": [10, 20, 30], "s": "añb", "o": {"1": "one", "true": "yes"}}
    assert evaluate(".xs[0]", xs) == 10
    assert evaluate(".xs[-1]", xs) == 30
    assert evaluate(".xs[2.0]", xs) == 30
    assert evaluate(".xs[3]", xs) is None
    assert evaluate(".xs[-4]", xs) is None
    assert evaluate(".s[1]", xs) == "ñ"
    assert evaluate(".o[1]", xs) == "one"
    assert evaluate(".o[true]", xs) == "yes"
    assert evaluate(".missing[0][1]", xs) is None
    for wrong in ('.xs["0"]', ".xs[0.5]", ".xs[null]", ".xs[true]", ".s[null]", "5[0]", "true[0]"):
        with pytest.raises(EvaluatorError):
            evaluate(wrong, xs)


def test_stores_are_indexed_by_key() -> None:
    store = shelf(**{"st-7": {"n": 1}})
    assert evaluate('shelf["st-" + 7].n', stores={"shelf": store}) == 1
    assert evaluate('shelf.get("st-7").n', stores={"shelf": store}) == 1
    assert evaluate('shelf["none"]', stores={"shelf": store}) is None
    assert evaluate("shelf[null]", stores={"shelf": store}) is None
    assert evaluate('exists(shelf["st-7"]) and not exists(shelf["x"])', stores={"shelf": store}) is True
    with pytest.raises(EvaluatorError, match="get\\(\\) is for stores"):
        evaluate("x.get(1)", x=[1])


def test_records_read_from_a_store_offer_how_they_were_written() -> None:
    store = MemoryStore("shelf")
    store.put("a", {"id": "a"})
    store.put("b", {"id": "b"})
    handle = StoreHandle("shelf", store, partials={"a": True})
    assert evaluate('shelf["a"]._partial', stores={"shelf": handle}) is True
    assert evaluate('shelf["b"]._partial', stores={"shelf": handle}) is None
    assert evaluate("shelf where ._partial", stores={"shelf": handle}) == [{"id": "a"}]


def test_header_maps_compare_keys_without_regard_to_case() -> None:
    meta = {"headers": Headers({"X-Total": "7"})}
    assert evaluate('response.headers["x-total"]', response={}, meta=meta) == "7"
    assert evaluate('"" + response.headers', response={}, meta=meta) == '{"X-Total":"7"}'
    assert evaluate("match response { { headers: { `x-TOTAL`: n } } => n }", response={}, meta=meta) == "7"


def test_validation_errors_include_parts_of_texts() -> None:
    errors = ValidationErrors([".owner: missing required field 'name'"])
    assert evaluate('includes(errors, "missing required")', errors=errors) is True
    assert evaluate('includes(errors, "missing required")', errors=list(errors)) is False


def test_filters_take_arrays_and_stores_and_null_is_empty() -> None:
    store = shelf(a={"n": 1}, b={"n": 5})
    assert evaluate("shelf where .n > 2", stores={"shelf": store}) == [{"n": 5}]
    assert evaluate(".none where .n > 2", {}) == []
    assert evaluate("any of shelf where .n > 2", stores={"shelf": store}) is True
    assert evaluate("any of .none", {}) is False
    assert evaluate("any of shelf", stores={"shelf": store}) is True
    with pytest.raises(EvaluatorError, match="'where' needs an array or a store, not an object"):
        evaluate("x where .n", x={"n": 1})


def test_spreads() -> None:
    assert evaluate("{ a: 1, ...x, b: 3 }", x={"a": 2, "b": 2}) == {"a": 2, "b": 3}
    assert evaluate("{ ...null }") == {}
    assert evaluate("[0, ...x, ...null]", x=[1, 2]) == [0, 1, 2]
    with pytest.raises(EvaluatorError, match="needs an object here"):
        evaluate("{ ...x }", x=[1])
    with pytest.raises(EvaluatorError, match="needs an array or a store here"):
        evaluate("[...x]", x={"a": 1})


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_text_never_grows_beyond_its_limit() -> None:
    big = "x" * (operators.MAX_TEXT // 2 + 1)
    for growing in (
        ".a + .a",
        '.a + ", " + .a',
        "concat(.a, .a)",
        "join([.a, .a])",
        'replace(.a, "x", "yy")',
        "toString([.a, .a])",
    ):
        with pytest.raises(EvaluatorError, match="64 MiB"):
            evaluate(growing, {"a": big})
    with pytest.raises(EvaluatorError, match="64 MiB"):
        evaluate("reduce(.xs, (a, x) => a + a)", {"xs": ["x" * 1024] * 40})


@settings(max_examples=20)
@given(trees.values)
def test_described_values_are_short(value: Any) -> None:
    assert len(operators.described({"v": value})) < 80
    assert len(operators.described("x" * 1000)) < 80
