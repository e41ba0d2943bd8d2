"""What `reqon --validate-cron` shows."""

from datetime import UTC, datetime, timedelta

import pytest

from reqon.errors import ConfigurationError, SemanticError
from reqon_daemon.preview import next_runs
from tests.support.clocks import FakeClock


def test_the_next_runs_are_those_of_the_zone_over_the_clock_change() -> None:
    clock = FakeClock(datetime(2026, 3, 7, 12, tzinfo=UTC))
    runs = next_runs("30 2 * * *", "America/New_York", count=3, clock=clock)
    # 8 March has no half past two there: that day's run comes right after the gap.
    assert [r.strftime("%d %H:%M %Z") for r in runs] == ["08 03:00 EDT", "09 02:30 EDT", "10 02:30 EDT"]
    assert runs[1] - runs[0] == timedelta(hours=23, minutes=30)


def test_a_wrong_text_names_what_is_wrong() -> None:
    with pytest.raises(SemanticError, match="4 fields"):
        next_runs("75 2 * *")


def test_an_unknown_zone_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="Mars"):
        next_runs("* * * * *", "Mars")
