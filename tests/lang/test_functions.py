"""The built-in functions of spec/language.md 3.8, case by case."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.errors import EvaluatorError, SemanticError
from reqon.lang.functions import BUILTINS, PlainWorld, call_registered, register_function
from reqon.lang.functions.numbers import round_
from reqon.lang.operators import MAX_TEXT, StoreHandle, equal
from reqon.secrets import SECRETS
from reqon.stores.memory import MemoryStore
from tests.lang import trees
from tests.lang.expressions import evaluate

TABLE = """
length count isEmpty exists concat lowercase uppercase capitalize kebabCase snakeCase camelCase slugify trim
trimStart trimEnd substring split join replace includes first last map filter reduce find findIndex all some none
sort sortBy unique flatten chunks sum avg min max median product keys values entries hasKey pick omit merge round
floor ceil abs sqrt pow toNumber parseDecimal toString toBoolean toArray now today daysAgo daysFromNow parseDate
fromUnix formatDate year month day hour minute second dayOfWeek addDays addHours addMonths subtractDays diffDays
isBefore isAfter weeks days hours minutes seconds env uuid generateId pathSegments webhookUrl lastSync
"""
NOW = datetime(2024, 3, 1, 7, 8, 9, 12345, UTC)


class World:
    """A morning in March."""

    environment: Mapping[str, str] = {"STAGE": "live", "SHOP_API_KEY": "hush-hush-hush", "EMPTY": ""}

    def now(self) -> datetime:
        return NOW

    def uuid(self) -> str:
        return "7b2e"

    def last_sync(self, key: Any) -> datetime | None:
        return NOW if key == "Shop-/orders" else None

    def webhook_url(self, path: Any) -> str:
        return f"http://localhost:3000{path}"


def test_every_function_of_the_specification_is_there() -> None:
    assert set(BUILTINS) == set(TABLE.split())


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("length(null)", 0),
        ('length("añ🙂")', 3),
        ("length([1, 2])", 2),
        ("length({ a: 1 })", 1),
        ("count(null)", 0),
        ("count([1])", 1),
        ('isEmpty("") and isEmpty([]) and isEmpty({}) and isEmpty(null)', True),
        ("isEmpty(0)", False),
        ("isEmpty([null])", False),
        ("exists(0)", True),
        ("exists(null)", False),
        ('concat("a", null, 1, true)', "a1true"),
        ("concat([1], null, [2, 3])", [1, 2, 3]),
        ("concat([1], 2)", "[1]2"),
        ("concat(null)", ""),
        ('lowercase("ÄB")', "äb"),
        ("uppercase(12)", "12"),
        ('capitalize("mary o\'NEIL smith")', "Mary O'neil Smith"),
        ('kebabCase("XMLHttpRequest id2")', "xml-http-request-id2"),
        ('snakeCase("Some Text-here")', "some_text_here"),
        ('camelCase("some_text HERE")', "someTextHere"),
        ('camelCase("--")', ""),
        ('slugify("  Crème Brûlée & Straße №5 ")', "creme-brulee-strasse-no5"),
        ('trim("  a b ")', "a b"),
        ('trimStart("  a ")', "a "),
        ('trimEnd("  a ")', "  a"),
        ('substring("harbour", 1, 4)', "arb"),
        ('substring("harbour", 4)', "our"),
        ('substring("harbour", -3, 99)', "harbour"),
        ('substring("harbour", 5, 2)', ""),
        ("substring(12345, 1, 3)", "23"),
        ('split("a,b,,c", ",")', ["a", "b", "", "c"]),
        ('split("añ", "")', ["a", "ñ"]),
        ("join([1, null, true])", "1,,true"),
        ('join(["a", "b"], " - ")', "a - b"),
        ('replace("a.b.c", ".", "-")', "a-b-c"),
        ('replace("aXa", "", "-")', "aXa"),
        ('replace("a1a1", 1, null)', "aa"),
        ('includes("abc", "b")', True),
        ("includes([1, 2], 2.0)", True),
        ("includes([null], null)", True),
        ("includes(null, null)", False),
        ("first([1, 2])", 1),
        ("last([1, 2])", 2),
        ("first([])", None),
        ("last(null)", None),
        ("map([1, 2], x => x * 2)", [2, 4]),
        ("map([1, 2], (x, i) => x * i)", [0, 2]),
        ("[{ n: 2, p: 3 }].map(.n * .p)", [6]),
        ("filter([{ n: 1 }, { n: 5 }], .n > 3)", [{"n": 5}]),
        ("filter([5, 6, 7], (x, i) => i != 1)", [5, 7]),
        ("[{ n: 1 }] | map({ id: .n })", [{"id": 1}]),
        ("reduce([1, 2, 3], (a, x) => a * 10 + x)", 123),
        ("reduce([1, 2], (a, x) => a + x, 10)", 13),
        ("reduce([], (a, x) => a + x)", None),
        ("reduce([], (a, x) => a + x, null)", None),
        ("reduce([], (a, x) => a + x, 5)", 5),
        ("find([1, 2, 3], x => x > 1)", 2),
        ("find([1], x => x > 1)", None),
        ("findIndex([1, 2], x => x == 2)", 1),
        ("findIndex([1], x => x == 2)", -1),
        ("all(null, x => false)", True),
        ("some(null, x => true)", False),
        ("none(null, x => true)", True),
        ("all([], x => false)", True),
        ("some([0, []], x => x)", True),
        ("none([0, null], x => x)", True),
        ("sort([3, null, 1, 2])", [1, 2, 3, None]),
        ('sort(["b", "B", "a"])', ["B", "a", "b"]),
        ('sort(["10", "9", "-1"])', ["-1", "9", "10"]),
        ("sortBy([{ n: 2 }, { n: null }, { n: 1 }], .n)", [{"n": 1}, {"n": 2}, {"n": None}]),
        ('unique([1, 1.0, true, "1", null, null, [1], [1]])', [1, True, "1", None, [1]]),
        ("unique([{ a: 1, b: null }, { a: 1 }])", [{"a": 1, "b": None}]),
        ("flatten([1, [2, [3]], null])", [1, 2, [3], None]),
        ("chunks([1, 2, 3], 2)", [[1, 2], [3]]),
        ("sum([1, null, 2.5])", 3.5),
        ("sum([])", 0),
        ("sum(null)", 0),
        ('sum(["2", 3, true])', 6),
        ("sum([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])", 1),
        ("sum([1 day, 2 days])", timedelta(days=3)),
        ("sum([{ p: 2, u: 3 }, { p: 1, u: 1 }], .p * .u)", 7),
        ("sum([{ p: 2 }], x => x.p)", 2),
        ("sum(1, 2, 3)", 6),
        ("avg([1, 2])", 1.5),
        ("avg([])", None),
        ("avg(2, 4)", 3),
        ("min([3, 1, null])", 1),
        ('max(["2024-01-02", "2023-12-31"])', "2024-01-02"),
        ("max(null)", None),
        ("max(3, 9)", 9),
        ("max(3, null)", 3),
        ("max(null, 3)", 3),
        ("max(null, .n)", None),
        ("sum(null, .n)", 0),
        ("max(null, x => x)", None),
        ("max([1, 2], .missing)", None),
        ("min(5, 2, 8)", 2),
        ("max(...[4, 7])", 7),
        ("max(...[])", None),
        ("median([3, 1, 2])", 2),
        ("median([4, 1, 2, 3])", 2.5),
        ("median([null])", None),
        ("product([2, null, 3])", 6),
        ("product([])", None),
        ("keys({ a: 1, b: null })", ["a", "b"]),
        ("values({ a: 1, b: null })", [1, None]),
        ("entries({ a: 1 })", [["a", 1]]),
        ("entries(null)", []),
        ('hasKey({ a: null }, "a")', True),
        ('hasKey({}, "a")', False),
        ('hasKey(null, "a")', False),
        ('pick({ a: 1, b: 2 }, ["b", "c"])', {"b": 2}),
        ('omit({ a: 1, b: 2 }, ["b"])', {"a": 1}),
        ("merge({ a: 1, b: 1 }, null, { b: 2 })", {"a": 1, "b": 2}),
        ("merge(null, null)", None),
        ("round(1.005, 2)", 1.01),
        ("round(2.5)", 3),
        ("round(-2.5)", -2),
        ("round(0.49999999999999994)", 0),
        ("round(1250, -2)", 1300),
        ("round(1e300, 3)", 1e300),
        ("round(12.5 * 100)", 1250),
        ('round("2.5")', 3),
        ("floor(-1.5)", -2),
        ("floor(1.29, 1)", 1.2),
        ("ceil(1.21, 1)", 1.3),
        ("ceil(-1.5)", -1),
        ("abs(-3)", 3),
        ("abs(-0.5)", 0.5),
        ("sqrt(9)", 3),
        ("pow(2, 10)", 1024),
        ("pow(2, -1)", 0.5),
        ("pow(4, 0.5)", 2),
        ('toNumber(" 42 ")', 42),
        ('toNumber("1e3")', 1000),
        ("toNumber(true)", 1),
        ('toNumber(parseDate("1970-01-01T00:00:01.5Z"))', 1500),
        ("toNumber(2 seconds)", 2000),
        ('parseDecimal("1,234,567.50")', 1234567.5),
        ('parseDecimal("-12")', -12),
        ("toString(null)", ""),
        ("toString(1.50)", "1.5"),
        ('toBoolean("YES")', True),
        ('toBoolean("No")', False),
        ('toBoolean("perhaps")', True),
        ("toBoolean(null)", False),
        ("toBoolean([])", True),
        ("toArray(null)", []),
        ("toArray([1])", [1]),
        ("toArray({ a: 1 })", [{"a": 1}]),
        ('pathSegments("a b/c%d/..")', "a%20b/c%25d/.."),
    ],
)
def test_function(expression: str, value: Any) -> None:
    found = evaluate(expression, {})
    assert equal(found, value), found
    assert type(found) is type(value)


def date(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('parseDate("2024-02-29")', date("2024-02-29")),
        ('parseDate("2024-02-29T10:20")', date("2024-02-29T10:20")),
        ('parseDate("2024-02-29 10:20:30 UTC")', date("2024-02-29T10:20:30")),
        ('parseDate("2024-02-29T10:20:30.123456+05:30")', date("2024-02-29T04:50:30.123")),
        ('parseDate("2024-02-29T10:20:30-0100")', date("2024-02-29T11:20:30")),
        ('parseDate("20240229T102030Z")', date("2024-02-29T10:20:30")),
        ('parseDate("Thu, 29 Feb 2024 10:20:30 +0200")', date("2024-02-29T08:20:30")),
        ('parseDate("29 Feb 2024 10:20 GMT")', date("2024-02-29T10:20")),
        ("parseDate(1709200000)", date("2024-02-29T09:46:40")),
        ("parseDate(1709200000500)", date("2024-02-29T09:46:40.500")),
        ("fromUnix(1.5)", date("1970-01-01T00:00:01.500")),
        ("fromUnix(-1)", date("1969-12-31T23:59:59")),
        ('formatDate("2024-03-05T14:07:08.009Z")', "2024-03-05"),
        (
            'formatDate("2024-03-05T14:07:08.009Z", "YYYY YY MMMM MMM MM M DD D dddd ddd HH H")',
            "2024 24 March Mar 03 3 05 5 Tuesday Tue 14 14",
        ),
        (
            'formatDate("2024-03-05T14:07:08.009Z", "hh h mm m ss s SSS A a X x")',
            "02 2 07 7 08 8 009 PM pm 1709647628 1709647628009",
        ),
        ('formatDate("2024-03-05", "[day] D [of] MMMM, h A")', "day 5 of March, 12 AM"),
        ('year("2024-03-05") * 100 + month("2024-03-05")', 202403),
        ('day("2024-03-05")', 5),
        ('hour("2024-03-05T14:07:08Z")', 14),
        ('minute("2024-03-05T14:07:08Z")', 7),
        ('second("2024-03-05T14:07:08Z")', 8),
        ('dayOfWeek("2024-03-03")', 0),
        ('dayOfWeek("2024-03-09")', 6),
        ('addDays("2024-02-28", 2)', date("2024-03-01")),
        ('addDays("2024-02-28", 0.5)', date("2024-02-28T12:00")),
        ('subtractDays("2024-03-01", 1)', date("2024-02-29")),
        ('addHours("2024-02-28", -1)', date("2024-02-27T23:00")),
        ('addMonths("2024-01-31", 1)', date("2024-02-29")),
        ('addMonths("2024-01-31", -2)', date("2023-11-30")),
        ('addMonths("2024-12-15", 1)', date("2025-01-15")),
        ('diffDays("2024-03-01", "2024-02-28T12:00")', 1),
        ('diffDays("2024-02-28T12:00", "2024-03-01")', -1),
        ('diffDays(null, "2024-03-01")', None),
        ('isBefore("2024-02-28", "2024-03-01")', True),
        ('isAfter("2024-02-28", null)', False),
        ("weeks(1) + days(1) + hours(1) + minutes(1) + seconds(1)", timedelta(days=8, hours=1, minutes=1, seconds=1)),
        ("days(null)", None),
        ("now()", NOW.replace(microsecond=12000)),
        ("today()", "2024-03-01"),
        ("daysAgo(1)", "2024-02-29"),
        ("daysFromNow(31)", "2024-04-01"),
        ("now() - days(1) < now()", True),
    ],
)
def test_dates(expression: str, value: Any) -> None:
    assert evaluate(expression, {}, world=World()) == value


@pytest.mark.parametrize(
    "text",
    ["2024-02-30", "2024-13-01", "2024-01-01T25:00", "2024-01-01x10:00", "2024", "tomorrow", "", "2024-01-01T10", "1"],
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(EvaluatorError, match=r"parseDate\(\) needs a date"):
        evaluate("parseDate(x)", x=text)
    assert evaluate("x is date", x=text) is False


ONE_SCALAR = (
    *("lowercase", "uppercase", "capitalize", "kebabCase", "snakeCase", "camelCase", "slugify"),
    *("trim", "trimStart", "trimEnd", "pathSegments"),
)


@pytest.mark.parametrize("name", ONE_SCALAR)
def test_text_functions_take_scalars_and_keep_null(name: str) -> None:
    assert evaluate(f"{name}(null)") is None
    assert isinstance(evaluate(f"{name}(x)", x=12.5), str)
    for wrong in ([1], {"a": 1}):
        with pytest.raises(EvaluatorError, match=rf"^{name}\(\) needs a string, not an (array|object)"):
            evaluate(f"{name}(x)", x=wrong)


LISTS = ("count", "first", "last", "sort", "unique", "flatten", "median", "product", "sum", "join")


@pytest.mark.parametrize("name", LISTS)
def test_array_functions_take_stores_and_refuse_other_values(name: str) -> None:
    store = StoreHandle("shelf", MemoryStore("shelf"))
    evaluate(f"{name}(shelf)", stores={"shelf": store})
    for wrong in ("text", 5, {"a": 1}):
        with pytest.raises(EvaluatorError, match=rf"^{name}\(\) needs an array or a store, not "):
            evaluate(f"{name}(x)", x=wrong)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("length(5)", "length() needs an array, a string, an object or a store, not the number 5"),
        ("round([1])", "round() needs a number, not an array"),
        ('toNumber("12x")', 'toNumber() needs a number, not the string "12x"'),
        ('parseDecimal("1,23")', "parseDecimal() needs a number"),
        ("sqrt(-1)", "negative"),
        ("pow(-8, 0.5)", "no number"),
        ("pow(10, 1000)", "too large"),
        ("pow(0, -1)", "no number"),
        ("chunks([1], 0)", "at least 1"),
        ("keys([1])", "keys() needs an object, not an array"),
        ('addDays("2024-01-01", 1e12)', "years 1 to 9999"),
        ('addMonths("2024-01-01", 1e6)', "years 1 to 9999"),
        ("days(1e300)", "too long"),
        ('sum(["x"])', "sum() needs a number"),
        ("sum([1, 1 day])", "durations"),
        ('min([1, "x"])', "cannot compare"),
        ("max([1], 2, 3)", "one more argument"),
        ('substring("abc", 0.5)', "an integer for the start"),
        ("env(5)", "the name of an environment variable"),
        ("length(...[1, 2])", "length() takes 1 argument, got 2"),
    ],
)
def test_failures_name_the_function_and_what_it_got(expression: str, words: str) -> None:
    with pytest.raises(EvaluatorError) as caught:
        evaluate(expression, {})
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("expression", "code", "message"),
    [
        ("split(.a)", "wrong-arity", "split() takes 2 arguments, got 1"),
        ("length(x => x)", "bad-lambda", "length() does not take a function here"),
        ("reduce([1], .n)", "bad-lambda", "reduce() needs a function of two parameters here"),
        ("map([1], (a, b, c) => 1)", "bad-lambda", "map() needs a function of one or two parameters"),
        ("lenght(.a)", "undefined-function", "unknown function 'lenght'"),
        ("memory(1)", "undefined-function", "unknown function 'memory'"),
    ],
)
def test_calls_that_cannot_be_compiled(expression: str, code: str, message: str) -> None:
    with pytest.raises(SemanticError) as caught:
        evaluate(expression, {})
    assert caught.value.message == message
    assert caught.value.diagnostics[0].code == code
    if "lenght" in expression:
        assert caught.value.hint == "did you mean 'length'?"


@given(st.floats(-1e9, 1e9), st.integers(-4, 8))
def test_rounding_is_that_of_the_decimal_text(number: float, places: int) -> None:
    step = Decimal(1).scaleb(-places)
    exact = ((Decimal(repr(number)) / step + Decimal("0.5")).to_integral_value(ROUND_FLOOR)) * step
    assert round_(number, places) == float(exact)


@given(st.floats(-1e17, 1e17, allow_nan=False))
def test_rounding_in_place_is_rounding_by_the_function(number: float) -> None:
    assert evaluate("round(x)", x=number) == round_(number)
    assert evaluate("round(x * 100)", x=number) == round_(evaluate("x * 100", x=number))


@given(st.lists(trees.values, max_size=6))
def test_unique_keeps_the_first_of_equal_elements(values: list[Any]) -> None:
    kept = evaluate("unique(x)", x=values)
    for at, value in enumerate(values):
        first = not any(equal(value, before) for before in values[:at])
        assert any(value is found for found in kept) or not first
    assert not any(equal(a, b) for at, a in enumerate(kept) for b in kept[:at])


@given(st.text(max_size=20))
def test_identifier_styles_are_stable(words: str) -> None:
    for style in ("kebabCase", "snakeCase", "slugify"):
        once = evaluate(f"{style}(x)", x=words)
        assert evaluate(f"{style}(x)", x=once) == once


def test_sums_do_not_depend_on_the_order() -> None:
    prices = [random.Random(7).uniform(0, 1e6) for _ in range(200)] + [1e17, -1e17]
    expected = evaluate("sum(x)", x=prices)
    random.Random(8).shuffle(prices)
    assert evaluate("sum(x)", x=prices) == expected


def test_the_environment_is_asked_and_secrets_are_masked_from_then_on() -> None:
    world = World()
    assert evaluate('env("STAGE")', world=world) == "live"
    assert evaluate('env("UNSET")', world=world) is None
    assert evaluate('env("UNSET", "north")', world=world) == "north"
    assert evaluate('env("EMPTY", "north")', world=world) == ""
    assert evaluate('env("SHOP_API_KEY")', world=world) == "hush-hush-hush"
    assert "hush-hush" not in SECRETS.redact("the key hush-hush-hush leaked")
    with pytest.raises(EvaluatorError) as caught:
        evaluate('env("SHOP_API_KEY") * 2', world=world)
    assert "hush" not in str(caught.value)


def test_identities_checkpoints_and_endpoints_come_from_the_world() -> None:
    world = World()
    assert evaluate("uuid() + generateId()", world=world) == "7b2e7b2e"
    assert evaluate('lastSync("Shop-/orders")', world=world) == NOW
    assert evaluate('lastSync("x")', world=world) is None
    assert evaluate("lastSync()", lastSync="then") == "then"
    assert evaluate("lastSync()") is None
    assert evaluate('webhookUrl("/paid")', world=world) == "http://localhost:3000/paid"
    assert len(PlainWorld().uuid()) == 36
    with pytest.raises(EvaluatorError, match="no webhook server"):
        evaluate('webhookUrl("/paid")')


async def _shout(text: str) -> str:
    return text.upper()


def test_registered_functions_plain_or_async_are_called_and_cannot_replace_a_built_in() -> None:
    mine: dict[str, Any] = {}
    register_function("double", lambda x: x * 2, mine)
    register_function("shout", _shout, mine)
    assert call_registered("double", mine["double"], 4) == 8
    assert call_registered("shout", mine["shout"], "a") == "A"
    with pytest.raises(EvaluatorError, match=r"double\(\) failed: TypeError"):
        call_registered("double", mine["double"], None)
    with pytest.raises(SemanticError, match="cannot be replaced"):
        register_function("length", len, mine)
    with pytest.raises(SemanticError, match="no identifier"):
        register_function("my function", len, mine)


def test_replacing_never_builds_what_is_too_large() -> None:
    with pytest.raises(EvaluatorError, match="64 MiB"):
        evaluate('replace(x, "a", y)', x="a" * 10_000, y="b" * (MAX_TEXT // 1000))
