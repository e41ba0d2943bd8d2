import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.lang.cron import read_cron
from reqon_daemon.policy import cron_rule
from reqon_daemon.slots import Every, Once, Schedule, at_rule, jitter_of
from reqon_daemon.zones import zone
from tests.daemon.oracle import change_days, fire_times

SLOW = bool(os.environ.get("REQON_SLOW"))
SECOND = timedelta(seconds=1)

CRONS = (
    "30 2 * * *",
    "30 1 * * *",
    "0 * * * *",
    "*/30 1 * * *",
    "0 0 * * *",
    "15,45 0-3 * * *",
    "*/7 * * * *",
    "0 */2 * * *",
    "59 23 * * 0",
    "5 0,12 1-7 * 1",
    "0 3 31 * *",
    "45 1 29 2 *",
)
ZONES = ("America/New_York", "Europe/London", "Australia/Lord_Howe", "UTC")


def cron(text: str, where: str = "UTC", jitter: timedelta = timedelta(0)) -> Schedule:
    rules = zone(where)
    return Schedule(rule=cron_rule(read_cron(text), rules), text=text, zone=rules, jitter=jitter)


def every(seconds: int, first: datetime) -> Schedule:
    return Schedule(rule=Every(seconds), text=f"every {seconds} seconds", zone=zone("UTC")).anchored(first)


def forwards(schedule: Schedule, begin: datetime, end: datetime) -> list[datetime]:
    """Fire times in [begin, end)."""
    found = []
    at = schedule.next_after(begin - SECOND)
    while at is not None and at < end:
        found.append(at)
        at = schedule.next_after(at)
    return found


def backwards(schedule: Schedule, begin: datetime, end: datetime) -> list[datetime]:
    """The same, found from the other side."""
    found = []
    at = schedule.latest_between(begin - SECOND, end - SECOND)
    while at is not None:
        found.append(at)
        at = schedule.latest_between(begin - SECOND, at - SECOND)
    return found[::-1]


def utc(day: datetime, *times: str) -> list[datetime]:
    return [day.replace(hour=int(t[:2]), minute=int(t[3:])) for t in times]


FORWARD = datetime(2026, 3, 8, tzinfo=UTC)
BACK = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "forward", "back"),
    [
        ("30 2 * * *", ["07:00"], ["07:30"]),
        ("30 1 * * *", ["06:30"], ["05:30"]),
        ("0 * * * *", ["05:00", "06:00", "07:00", "08:00"], ["04:00", "05:00", "06:00", "07:00", "08:00"]),
        ("*/30 1 * * *", ["06:00", "06:30"], ["05:00", "05:30", "06:00", "06:30"]),
    ],
)
def test_new_york_changes_its_clocks_as_the_table_says(text: str, forward: list[str], back: list[str]) -> None:
    schedule = cron(text, "America/New_York")
    spring = (FORWARD.replace(hour=5), FORWARD.replace(hour=8, minute=1))
    autumn = (BACK.replace(hour=4), BACK.replace(hour=8, minute=1))
    assert forwards(schedule, *spring) == backwards(schedule, *spring) == utc(FORWARD, *forward)
    assert forwards(schedule, *autumn) == backwards(schedule, *autumn) == utc(BACK, *back)


@pytest.mark.timeout(7200 if SLOW else 120)
def test_every_change_of_every_zone_agrees_with_the_oracle() -> None:
    """S1: schedules against an oracle that walks each minute in UTC, in the days around each change.

    A tenth of the zones by default, all of them with REQON_SLOW=1.
    """
    names = sorted(available_timezones())
    for number, name in enumerate(names if SLOW else names[::10]):
        rules = ZoneInfo(name)
        days = change_days(rules, 2024, 2028)
        for place, day in enumerate(days if SLOW else days[:4]):
            begin, end = day - timedelta(days=1), day + timedelta(days=2)
            texts = CRONS if SLOW else (CRONS[(number + place) % 12], CRONS[(number + place + 5) % 12])
            for text in texts:
                expected = fire_times(read_cron(text), rules, begin, end)
                schedule = cron(text, name)
                assert forwards(schedule, begin, end) == expected, (name, text, day)
                assert backwards(schedule, begin, end) == expected, (name, text, day)
                assert schedule.count_between(begin - SECOND, end - SECOND) == min(len(expected), 1000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("text", CRONS)
def test_five_years_agree_with_the_oracle(name: str, text: str) -> None:
    """S1: four zones for five years; a week of them by default."""
    begin, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2029, 1, 1 if SLOW else 7, tzinfo=UTC)
    begin = begin if SLOW else end - timedelta(days=7)
    expected = fire_times(read_cron(text), ZoneInfo(name), begin, end)
    assert forwards(cron(text, name), begin, end) == backwards(cron(text, name), begin, end) == expected


instants = st.datetimes(datetime(2024, 1, 1), datetime(2033, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
zones = st.sampled_from(sorted(available_timezones()))
jitters = st.integers(0, 90_000).map(lambda ms: timedelta(milliseconds=ms))


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    if draw(st.booleans()):
        found = every(draw(st.sampled_from((1, 7, 60, 900, 3600, 86_400, 604_800))), draw(instants))
        return Schedule(rule=found.rule, text=found.text, zone=found.zone, jitter=draw(jitters))
    return cron(draw(st.sampled_from(CRONS)), draw(zones), draw(jitters))


@settings(max_examples=150, deadline=None)
@given(schedules(), instants, st.integers(0, 400 * 86_400))
def test_no_slot_is_lost_doubled_or_out_of_order(schedule: Schedule, begin: datetime, seconds: int) -> None:
    """Strictly increasing in UTC; what counting, the last and the next say fits together."""
    end = begin + timedelta(seconds=seconds)
    found: list[datetime] = []
    at = schedule.next_after(begin)
    while at is not None and at <= end and len(found) < 60:
        found.append(at)
        at = schedule.next_after(at)
    assert all(a < b for a, b in pairwise(found))
    assert all(begin < due <= end for due in found)
    if found:
        assert schedule.latest_between(begin, found[-1]) == found[-1]
        assert schedule.count_between(begin, found[-1]) == len(found)
        for earlier, later in pairwise(found):
            assert schedule.latest_between(begin, later - timedelta(milliseconds=1)) == earlier
            assert schedule.next_after(later - timedelta(milliseconds=1)) == later
    else:
        assert schedule.latest_between(begin, end) is None
        assert schedule.count_between(begin, end) == 0


@settings(max_examples=150, deadline=None)
@given(schedules(), instants, st.integers(1, 10 * 366 * 86_400))
def test_the_newest_slot_is_the_one_before_the_next(schedule: Schedule, begin: datetime, seconds: int) -> None:
    end = begin + timedelta(seconds=seconds)
    newest = schedule.latest_between(begin, end)
    if newest is None:
        following = schedule.next_after(begin)
        assert following is None or following > end
    else:
        assert begin < newest <= end
        following = schedule.next_after(newest)
        assert following is None or following > end


def test_every_keeps_its_anchor_for_years() -> None:
    first = datetime(2026, 1, 1, 0, 7, 13, tzinfo=UTC)
    schedule = every(900, first)
    assert schedule.next_after(first - timedelta(days=9)) == first
    assert schedule.next_after(first) == first + timedelta(seconds=900)
    later = first + timedelta(days=3650)
    assert schedule.next_after(later) == later + timedelta(seconds=900)
    assert schedule.latest_between(first, later + SECOND) == later
    assert schedule.latest_between(first - timedelta(days=1), first - SECOND) is None


def test_every_ignores_local_time() -> None:
    first = datetime(2026, 3, 7, 12, tzinfo=UTC)
    assert forwards(every(86_400, first), first, first + timedelta(days=3)) == [
        first + timedelta(days=n) for n in range(3)
    ]


def test_a_rare_date_is_found() -> None:
    following = cron("0 0 29 2 1", "Europe/Paris").next_after(datetime(2090, 1, 1, tzinfo=UTC))
    assert following is not None
    assert following.astimezone(ZoneInfo("Europe/Paris")).strftime("%m-%d %a %H:%M") == "02-29 Mon 00:00"


def test_millions_of_missed_slots_are_counted_at_once() -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    schedule = every(1, first)
    assert schedule.count_between(first, first + timedelta(days=3650)) == 1000
    assert schedule.count_between(first, first + timedelta(hours=8), limit=10**9) == 28_800


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("2031-05-04T06:00:00Z", "Europe/Oslo", datetime(2031, 5, 4, 6, tzinfo=UTC)),
        ("2031-05-04 06:00 UTC", "Europe/Oslo", datetime(2031, 5, 4, 6, tzinfo=UTC)),
        ("2031-05-04T06:00:00+02:00", "UTC", datetime(2031, 5, 4, 4, tzinfo=UTC)),
        ("2031-05-04 06:00", "Europe/Oslo", datetime(2031, 5, 4, 4, tzinfo=UTC)),
        ("2026-03-08 02:30", "America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
        ("2026-11-01 01:30", "America/New_York", datetime(2026, 11, 1, 5, 30, tzinfo=UTC)),
        ("2026-04-05 01:45", "Australia/Lord_Howe", datetime(2026, 4, 4, 14, 45, tzinfo=UTC)),
    ],
)
def test_at_names_one_instant(text: str, where: str, expected: datetime) -> None:
    rule = at_rule(text, zone(where))
    assert isinstance(rule, Once)
    schedule = Schedule(rule=rule, text=text, zone=zone(where))
    assert schedule.next_after(expected - timedelta(days=900)) == expected
    assert schedule.next_after(expected) is None
    assert schedule.latest_between(expected - SECOND, expected) == expected
    assert schedule.once


def test_at_a_time_of_day_is_daily() -> None:
    rule = at_rule("23:55", zone("Europe/London"))
    schedule = Schedule(rule=rule, text="23:55", zone=zone("Europe/London"))
    begin = datetime(2026, 7, 1, tzinfo=UTC)
    assert forwards(schedule, begin, begin + timedelta(days=2)) == [
        begin + timedelta(hours=22, minutes=55),
        begin + timedelta(days=1, hours=22, minutes=55),
    ]


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2031-13-01", "2031-05-04T06:00+01:00Z"])
def test_at_refuses_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        at_rule(text, zone("UTC"))


@given(st.text(min_size=1, max_size=30), st.integers(0, 3_600_000))
def test_jitter_is_stable_and_below_its_spread(name: str, spread: int) -> None:
    share = jitter_of(name, timedelta(milliseconds=spread))
    assert share == jitter_of(name, timedelta(milliseconds=spread))
    assert timedelta(0) <= share < timedelta(milliseconds=max(spread, 1))


def test_jitter_moves_each_due_time_by_the_same() -> None:
    begin = datetime(2026, 6, 1, tzinfo=UTC)
    plain = forwards(cron("*/10 * * * *"), begin, begin + timedelta(hours=2))
    moved = forwards(cron("*/10 * * * *", jitter=timedelta(seconds=4.5)), begin, begin + timedelta(hours=2))
    assert moved == [due + timedelta(seconds=4.5) for due in plain]
