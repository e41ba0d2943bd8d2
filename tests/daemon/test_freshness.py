"""The dead man's limit: twice the longest gap and the usual duration, or what the mission says."""

from datetime import UTC, datetime, timedelta

import pytest

from reqon.lang.cron import parse_cron
from reqon_daemon.freshness import freshness_limit
from reqon_daemon.policy import cron_rule
from reqon_daemon.slots import Every, Schedule, at_rule
from reqon_daemon.zones import zone

NOW = datetime(2026, 1, 14, 10, 3, tzinfo=UTC)


def cron(text: str, where: str = "UTC") -> Schedule:
    fields, _ = parse_cron(text)
    assert fields is not None
    return Schedule(rule=cron_rule(fields, zone(where)), text=text, zone=zone(where))


@pytest.mark.parametrize(
    ("text", "gap"),
    [
        ("* * * * *", timedelta(minutes=1)),
        ("*/20 * * * *", timedelta(minutes=20)),
        ("0 9 * * 1-5", timedelta(days=3)),
        ("* 8-20 * * *", timedelta(hours=11, minutes=1)),
        ("*/5 9-17 * * 1-5", timedelta(days=2, hours=15, minutes=5)),
        ("0 0 1 * *", timedelta(days=31)),
        ("0 0 1 1 *", timedelta(days=366)),
        ("0,30 9,11 * * *", timedelta(hours=21, minutes=30)),
        ("0 0 29 2 *", timedelta(days=1461)),
        ("0 12 1,15 * *", timedelta(days=17)),
    ],
)
def test_the_longest_gap_of_a_cron_text(text: str, gap: timedelta) -> None:
    assert cron(text).longest_gap(NOW) == gap


def test_an_interval_is_its_own_gap() -> None:
    schedule = Schedule(rule=Every(900), text="every 15 minutes", zone=zone("UTC"))
    assert freshness_limit(schedule, fresh_within_seconds=None, usual_seconds=30, now=NOW) == 1860


def test_the_mission_decides_if_it_says_so() -> None:
    assert freshness_limit(cron("0 9 * * *"), fresh_within_seconds=7200, usual_seconds=1, now=NOW) == 7200


def test_what_runs_once_or_never_by_itself_is_not_watched() -> None:
    once = Schedule(rule=at_rule("2026-12-24T09:00:00Z", zone("UTC")), text="at", zone=zone("UTC"))
    assert freshness_limit(once, fresh_within_seconds=None, usual_seconds=1, now=NOW) is None
    assert freshness_limit(None, fresh_within_seconds=None, usual_seconds=1, now=NOW) is None
