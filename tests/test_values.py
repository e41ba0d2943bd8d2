"""JSON in and out: what is read can be written, and nothing else can enter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, overload

import pytest
from hypothesis import given

from reqon.diagnostics import Source, Span
from reqon.errors import Location
from reqon.values import JsonError, decode, encode, refuse_no_value, to_builtins
from tests.support.values import JSON_VALUES


class Lazy(Sequence[Any]):
    """A list that is no `list`, as large results are."""

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        return [1, {"a": None}][at]

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Any]:
        return iter([1, {"a": None}])


@given(JSON_VALUES)
def test_what_is_read_is_a_value_and_can_be_written(value: object) -> None:
    read = decode(encode(value))
    assert read == value
    refuse_no_value(read)
    refuse_no_value(value)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999"])
def test_infinity_cannot_be_read(text: str) -> None:
    """What `encode` does not look for cannot come from outside."""
    with pytest.raises(JsonError):
        decode(text)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "nan is no number of JSON"),
        ([1, {"a": float("inf")}], "inf is no number of JSON, at $[1].a"),
        ({"a": {1: 2}}, "the name 1 is no text, at $.a"),
        (b"x", "bytes is no JSON value"),
        ({"a": {1, 2}}, "set is no JSON value, at $.a"),
        (datetime(2026, 1, 1), "2026-01-01T00:00:00 has no time zone"),  # noqa: DTZ001  # the point
    ],
)
def test_what_is_no_value_is_refused_with_its_place(value: object, problem: str) -> None:
    with pytest.raises(JsonError) as raised:
        refuse_no_value(value)
    assert raised.value.message == problem


@pytest.mark.parametrize("value", [None, True, 2**70, 1.5, "", [], (1,), {}, datetime.now(UTC), timedelta(1), Lazy()])
def test_values_pass(value: object) -> None:
    refuse_no_value(value)


def test_a_text_that_carries_more_than_itself_is_a_text_to_others() -> None:
    """A failure's place is one: records, incidents and logs hold it."""

    @dataclass(frozen=True)
    class Said:
        place: str

    span = Span(Source("a.vague", "mission M {}"), 0, 7)
    assert to_builtins(Said(Location.of(span))) == {"place": "a.vague:1:1"}
    with pytest.raises(TypeError, match="object"):
        to_builtins(object())


@pytest.mark.parametrize("text", ["7" * 401, "0123456789" * 100, 'say "' + "1" * 500 + '"', "\\" + "2" * 600 + "\\"])
def test_a_text_may_hold_any_number_of_digits(text: str) -> None:
    """D9: what was written must be readable; only a number is bounded, also beside such a text."""
    value = [{"t": text, text: 1}, 2.5]
    assert decode(encode(value)) == value
    assert decode(encode(value, pretty=True)) == value
    with pytest.raises(JsonError, match="a number has more than 400 digits"):
        decode(encode(value)[:-1] + b", " + b"9" * 401 + b"]")
