from datetime import timedelta

import pytest

from reqon.state.records import ExecutionStatus
from reqon.state.retention import expired, parse_age, parse_duration
from tests.support.state_contract import T0, a_record


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 30 * 86_400),
        ("7 days", 7 * 86_400),
        ("1 day", 86_400),
        ("2w", 14 * 86_400),
        ("12h", 12 * 3600),
        ("90 minutes", 5400),
        ("90m", 5400),
        ("5 min", 300),
        ("2 mins", 120),
        ("45s", 45),
        ("2 sec", 2),
        ("1 second", 1),
        ("1 minute", 60),
        ("1 hour", 3600),
        ("3 milliseconds", 0.003),
        ("1 week", 7 * 86_400),
        ("36500 days", 36_500 * 86_400),
        ("1.5 h", 5400),
        ("500", 0.5),
        ("250ms", 0.25),
        (" 3 WEEKS ", 21 * 86_400),
        ("0d", 0),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "d", "7 fortnights", "-3d", "3 d 4 h", "1e9d", "99999999999w", "36501 days", "٣d x", "ds", "3ss", "7mss"],
)
def test_what_is_no_duration_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|hundred years"):
        parse_duration(text)


def test_an_age_needs_its_unit() -> None:
    """`cleanup --older-than 7` must not mean 7 ms."""
    assert parse_age("7 d ") == 7 * 86_400
    for text in ("7", "7 ", "0.5"):
        with pytest.raises(ValueError, match="unit"):
            parse_age(text)


def test_what_ended_longer_ago_goes_and_what_runs_stays() -> None:
    day = timedelta(days=1)
    done, failed = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
    old = a_record(at=T0 - 9 * day, status=done, completed_at=T0 - 8 * day)
    long = a_record(at=T0 - 9 * day, status=done, completed_at=T0 - 6 * day)
    lost = a_record(at=T0 - 9 * day, status=ExecutionStatus.INTERRUPTED)
    running = a_record(at=T0 - 99 * day)
    recent = a_record(at=T0 - day, status=failed)
    records = [old, long, lost, running, recent]
    assert expired(records, now=T0, keep_seconds=7 * 86_400) == [old, lost]
    assert expired(records, now=T0, keep_seconds=0) == [old, long, lost, recent]
