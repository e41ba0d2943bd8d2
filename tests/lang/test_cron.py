"""Cron texts: what they mean, and exactly what is wrong with them."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.diagnostics import Source, Span
from reqon.errors import SemanticError
from reqon.lang.cron import MACROS, CronFields, parse_cron, read_cron


def fields(text: str) -> CronFields:
    found, diagnostics = parse_cron(text)
    assert found is not None, [d.message for d in diagnostics]
    return found


def errors(text: str) -> list[tuple[str, str]]:
    """Each error's message and the text its caret stands under."""
    source = Source("m.vague", f'schedule: cron "{text}"')
    start = len("schedule: cron ")
    _, diagnostics = parse_cron(text, Span(source, start, start + len(text) + 2))
    return [(d.message, d.span.text) for d in diagnostics if d.severity == "error" and d.span]


def test_each_field_means_what_crontab_says() -> None:
    found = fields("*/20 9-17/4 1,15 jan,JUL-sep mon-5")
    assert found.minutes == (0, 20, 40)
    assert found.hours == (9, 13, 17)
    assert found.days == (1, 15)
    assert found.months == (1, 7, 8, 9)
    assert found.weekdays == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("sunday", ["0", "7", "sun", "SUN", "0,7", "7-7"])
def test_sunday_is_0_and_7(sunday: str) -> None:
    assert fields(f"0 0 * * {sunday}").weekdays == (0,)


@pytest.mark.parametrize(
    ("text", "days"),
    [("5-7", (0, 5, 6)), ("sat-sun", (0, 6)), ("*", tuple(range(7))), ("*/2", (0, 2, 4, 6)), ("3/2", (3, 5))],
)
def test_weekday_ranges_may_end_on_sunday(text: str, days: tuple[int, ...]) -> None:
    assert fields(f"0 0 * * {text}").weekdays == days


def test_a_number_with_a_step_goes_on_to_the_end() -> None:
    assert fields("5/15 * * * *").minutes == (5, 20, 35, 50)


@pytest.mark.parametrize("macro", sorted(MACROS))
def test_macros_are_their_five_fields(macro: str) -> None:
    named, written = fields(macro), fields(MACROS[macro])
    assert (named.minutes, named.hours, named.days) == (written.minutes, written.hours, written.days)
    assert (named.months, named.weekdays) == (written.months, written.weekdays)


def test_macros_ignore_case_and_keep_their_text() -> None:
    assert fields("@Daily").text == "@Daily"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", True),
        ("*/5 3 * * *", True),
        ("30 * * * *", True),
        ("30 2 * * *", False),
        ("0-59 0-23 * * *", False),
    ],
)
def test_a_star_first_in_minute_or_hour_fires_at_every_match(text: str, *, expected: bool) -> None:
    assert fields(text).every_match is expected


def test_both_day_fields_must_match() -> None:
    first_monday = fields("0 9 1-7 * 1")
    assert first_monday.runs_on(date(2026, 6, 1))
    assert not first_monday.runs_on(date(2026, 6, 8))
    assert not first_monday.runs_on(date(2026, 6, 2))


def test_both_day_fields_draw_a_warning() -> None:
    found, diagnostics = parse_cron("0 9 1-7 * 1")
    assert found is not None
    assert [(d.severity, d.message, d.hint) for d in diagnostics] == [
        ("warning", "both day fields must match", "crontab(5) would mean either")
    ]


@pytest.mark.parametrize("text", ["0 9 * * 1", "0 9 1 * *", "0 9 */2 * 1", "@monthly"])
def test_one_day_field_draws_no_warning(text: str) -> None:
    assert parse_cron(text)[1] == []


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("75 * * * *", "minute field '75' is out of range 0-59", "75"),
        ("0 24 * * *", "hour field '24' is out of range 0-23", "24"),
        ("0 0 0 * *", "day of month field '0' is out of range 1-31", "0"),
        ("0 0 1 13 *", "month field '13' is out of range 1-12", "13"),
        ("0 0 * * 8", "day of week field '8' is out of range 0-7", "8"),
        ("0 1,2,99 * * *", "hour field '99' is out of range 0-23", "99"),
        ("*/0 * * * *", "minute field '*/0' has a step of 0", "*/0"),
        ("1-9/0 * * * *", "minute field '1-9/0' has a step of 0", "1-9/0"),
        ("*/ * * * *", "minute field '*/' has no step after '/'", "*/"),
        ("1/2/3 * * * *", "minute field '1/2/3' has two steps", "1/2/3"),
        ("1,,2 * * * *", "minute field '1,,2' has an empty entry", "1,,2"),
        ("0 22-2 * * *", "hour field '22-2' runs backwards", "22-2"),
        ("0 0 ? * 1", "day of month field '?' cannot be read", "?"),
        ("0 0 L * *", "day of month field 'L' cannot be read", "L"),
        ("0 0 * * monday", "day of week field 'monday' cannot be read", "monday"),
        ("-5 * * * *", "minute field '-5' cannot be read", "-5"),
        ("0 0 30 2 *", "this date never comes: there is no day 30 in Feb", "30 2"),
        ("0 0 31 4,6,9,11 *", "this date never comes: there is no day 31 in Apr, Jun, Sep or Nov", "31 4,6,9,11"),
        ("999999999999 * * * *", "minute field '999999999999' is out of range 0-59", "999999999999"),
    ],
)
def test_a_wrong_field_is_named_and_pointed_at(text: str, message: str, caret: str) -> None:
    assert errors(text) == [(message, caret)]


def test_every_wrong_field_is_reported() -> None:
    assert [caret for _, caret in errors("60 24 32 13 8")] == ["60", "24", "32", "13", "8"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "cron expression has 0 fields, expected 5", "for example"),
        ("5", "cron expression has 1 field, expected 5", "for example"),
        ("*/10 * * *", "cron expression has 4 fields, expected 5", 'for example "*/10 * * * *".'),
        ("0 0 9 * * 1-5", "cron expression has 6 fields, expected 5", 'write "0 9 * * 1-5"'),
        ("@dayly", "unknown cron macro '@dayly'", "did you mean '@daily'?"),
        ("@reboot", "'@reboot' is no time", "runImmediately: true"),
        ("@", "unknown cron macro '@'", "known: @annually"),
    ],
)
def test_a_text_that_is_no_cron_text_says_what_to_write(text: str, message: str, hint: str) -> None:
    found, diagnostics = parse_cron(text)
    assert found is None
    assert [d.message for d in diagnostics] == [message]
    assert hint in (diagnostics[0].hint or "")


def test_the_29th_of_february_comes() -> None:
    assert fields("0 0 29 2 *").days == (29,)


def test_a_step_longer_than_its_range_draws_a_warning() -> None:
    found, diagnostics = parse_cron("*/90 * * * *")
    assert found is not None
    assert found.minutes == (0,)
    assert [(d.severity, d.code) for d in diagnostics] == [("warning", "bad-cron")]


def test_read_cron_raises_with_all_errors() -> None:
    with pytest.raises(SemanticError) as raised:
        read_cron("60 24 * * *")
    assert [d.code for d in raised.value.diagnostics] == ["bad-cron", "bad-cron"]


def values(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    part = st.one_of(
        st.just("*"),
        number.map(str),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.integers(1, 9).map(lambda step: f"*/{step}"),
    )
    return st.lists(part, min_size=1, max_size=3).map(",".join)


@given(st.tuples(values(0, 59), values(0, 23), values(1, 31), values(1, 12), values(0, 7)))
def test_well_formed_texts_are_read_within_their_ranges(parts: tuple[str, ...]) -> None:
    found, diagnostics = parse_cron(" ".join(parts))
    if found is None:
        assert all("never comes" in d.message for d in diagnostics)
        return
    for chosen, low, high in (
        (found.minutes, 0, 59),
        (found.hours, 0, 23),
        (found.days, 1, 31),
        (found.months, 1, 12),
        (found.weekdays, 0, 6),
    ):
        assert chosen
        assert list(chosen) == sorted(set(chosen))
        assert low <= chosen[0] <= chosen[-1] <= high


@given(st.text(alphabet="0123456789*/,-@? \tLW#sunjan", max_size=30))
def test_any_text_gives_fields_or_errors_with_places_inside_it(text: str) -> None:
    source = Source("m", f'"{text}"')
    found, diagnostics = parse_cron(text, Span(source, 0, len(source.text)))
    assert (found is None) == any(d.severity == "error" for d in diagnostics)
    assert all(d.span and 0 <= d.span.start <= d.span.end <= len(source.text) for d in diagnostics)
