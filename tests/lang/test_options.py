"""Option tables: what each key takes, strictly as a constant and leniently when evaluated."""

from datetime import timedelta
from typing import Any

import pytest

from reqon.diagnostics import Source, Span
from reqon.lang import kinds, nodes, options
from reqon.lang.kinds import NOT_CONSTANT, BadOptionError, Table, constant, read_value
from reqon.lang.parser import parse_expression

TABLES = [value for value in vars(options).values() if isinstance(value, Table)]


def test_every_alias_stands_for_a_key_of_its_table() -> None:
    for table in [*TABLES, options.fetch_table("get")]:
        assert set(table.aliases.values()) <= set(table.keys)
        assert not set(table.aliases) & set(table.keys)


def test_evaluated_options_are_read_in_seconds_by_their_documented_key() -> None:
    read = options.RATE_LIMIT.read({"fallbackRpm": 30, "maxWait": timedelta(seconds=45), "strategy": "queue"})
    assert read == {"requestsPerMinute": 30, "maxWait": 45.0, "strategy": "pause"}


def test_the_documented_key_beats_its_alias() -> None:
    assert options.RATE_LIMIT.read({"fallbackRpm": 30, "requestsPerMinute": 60}) == {"requestsPerMinute": 60}
    assert options.RATE_LIMIT.read({"requestsPerMinute": 60, "fallbackRpm": 30}) == {"requestsPerMinute": 60}


def test_null_is_an_option_that_is_not_written() -> None:
    assert options.RETRY.read({"maxAttempts": None, "delay": 1500}) == {"delay": 1.5}


def test_nested_blocks_are_read_too() -> None:
    read = options.SOURCE.read({"retry": {"initialDelay": 250}, "circuitBreaker": True, "timeout": "2000"})
    assert read == {"retry": {"initialDelay": 0.25}, "circuitBreaker": True, "timeout": 2.0}


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        (options.RETRY, {"backoff": "fibonacci"}, "backoff must be exponential, linear or constant, not 'fibonacci'"),
        (options.RETRY, {"maxAttempts": 0}, "maxAttempts must be a whole number, 1 to 100, not 0"),
        (options.RETRY, {"maxAttempts": True}, "maxAttempts must be a whole number, 1 to 100, not true"),
        (options.RETRY, {"tries": 3}, "unknown option 'tries' in retry"),
        (options.MISSION, {"stateRetention": 7}, "stateRetention 7 has no unit"),
        (options.MISSION, {"timezone": "Moon/Base"}, "unknown time zone 'Moon/Base'"),
        (options.SOURCE, {"rateLimit": 5}, "rateLimit must be a block such as { requestsPerMinute: 60 }, not 5"),
    ],
)
def test_a_computed_value_that_does_not_fit_is_refused_in_the_checkers_words(
    table: Table, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadOptionError) as raised:
        table.read(values)
    assert raised.value.message == message


def test_texts_of_the_environment_count_as_numbers_and_truths_only_when_evaluated() -> None:
    assert read_value("timeout", kinds.Milliseconds(), "5000") == 5.0
    assert read_value("adaptive", kinds.Flag(), "TRUE") is True
    with pytest.raises(BadOptionError):
        read_value("timeout", kinds.Milliseconds(), "5000", lenient=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("-5 seconds", timedelta(seconds=-5)),
        ("1.5 hours", timedelta(minutes=90)),
        ('"x"', "x"),
        ("null", None),
        ("[1, true]", [1, True]),
        ("{ a: 1, b: [2] }", {"a": 1, "b": [2]}),
        ('"${HOST}"', NOT_CONSTANT),
        ("word", NOT_CONSTANT),
        ("[x]", NOT_CONSTANT),
        ("{ ...x }", NOT_CONSTANT),
        ("1 + 1", NOT_CONSTANT),
    ],
)
def test_constants_are_known_without_running_anything(text: str, value: object) -> None:
    node, _ = parse_expression(Source("m", text))
    assert constant(node) == value


def test_a_bare_word_is_a_word_where_words_are_taken() -> None:
    name = nodes.Name(name="linear", span=Span(Source("m", "linear"), 0, 6))
    assert constant(name, options.BACKOFF) == "linear"
    assert constant(name, kinds.Text()) is NOT_CONSTANT


@pytest.mark.parametrize(
    ("name", "hint"), [("europe/oslo", "Europe/Oslo"), ("Oslo", "Europe/Oslo"), ("Europe/Olso", "Europe/Oslo")]
)
def test_a_zone_that_was_probably_meant_is_named(name: str, hint: str) -> None:
    assert hint in (kinds.zone_hint(name) or "")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../UTC", "Europe", "UTC\0"])
def test_what_is_no_zone_name_is_no_zone(name: str) -> None:
    assert not kinds.is_time_zone(name)
