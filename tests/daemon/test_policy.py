from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reqon.diagnostics import Source
from reqon.errors import SemanticError
from reqon.lang.loader import load_text
from reqon.lang.program import MissionProgram
from reqon.runtime.plan import Plan
from reqon_daemon.policy import CatchUp, Policy, policy_of
from reqon_daemon.zones import system_zone, zone

BODY = 'store kept: memory("kept") action A { store { id: 1 } -> kept { key: .id } } run A'


def program(clauses: str) -> MissionProgram:
    loaded = load_text(Source("m.vague", f"mission M {{\n{clauses}\n{BODY}\n}}\n"))
    assert loaded.missions, [d.message for d in loaded.all_diagnostics]
    return loaded.missions[0]


def policy(clauses: str) -> Policy:
    return policy_of(program(clauses), default_zone=zone("UTC"))


def test_a_mission_without_clauses_has_the_documented_defaults() -> None:
    assert policy("") == Policy()


def test_options_of_the_block_and_of_the_mission_are_the_same() -> None:
    block = policy(
        "schedule: every 5 minutes { jitter: 30 seconds, skipIfRunning: false, maxConcurrency: 3, catchUp: all }"
    )
    outside = policy("schedule: every 5 minutes\njitter: 30000\nskipIfRunning: false\nmaxConcurrency: 3\ncatchUp: all")
    assert block == outside
    assert (block.max_runs, block.catch_up, block.skip_if_running) == (3, CatchUp.ALL, False)
    assert block.schedule is not None
    assert timedelta(0) <= block.schedule.jitter < timedelta(seconds=30)


def test_skip_if_running_beats_max_concurrency() -> None:
    assert policy("schedule: every 5 minutes { maxConcurrency: 3 }").max_runs == 1


@pytest.mark.parametrize(
    ("clause", "attempts", "waits"),
    [
        ("retryOnFailure: 3", 4, [60, 120, 240]),
        ("retryOnFailure: { maxAttempts: 3, backoff: exponential, initialDelay: 5000 }", 3, [5, 10]),
        ('retryOnFailure: { maxAttempts: 4, backoff: "constant", initialDelay: 2 minutes }', 4, [120, 120, 120]),
        ("retryOnFailure: { maxAttempts: 3, backoff: linear, initialDelay: 1 hour }", 3, [3600, 7200]),
        ("schedule: every 1 hour { retry: { maxRetries: 2, delaySeconds: 90 } }", 3, [90, 90]),
        ("schedule: every 1 hour { retry: { delaySeconds: 5 } }", 4, [5, 5, 5]),
    ],
)
def test_reruns_wait_as_written(clause: str, attempts: int, waits: list[float]) -> None:
    retry = policy(clause).retry
    assert retry is not None
    assert retry.max_attempts == attempts
    assert [retry.delay_before(n, lambda: 0.5) for n in range(2, attempts + 1)] == waits


def test_durations_are_seconds_whatever_they_were_written_in() -> None:
    found = policy("timeout: 1800000\nstuckAfter: 15 minutes\nfreshWithin: 2 hours\nenableState: false")
    assert (found.timeout_seconds, found.stuck_after_seconds, found.fresh_within_seconds) == (1800, 900, 7200)
    assert not found.keeps_state


@pytest.mark.parametrize(
    ("clause", "text", "first"),
    [
        ('cron "0 9 * * 1-5" { timezone: "Europe/London" }', 'cron "0 9 * * 1-5"', datetime(2026, 7, 6, 8, tzinfo=UTC)),
        ('cron "@daily"', 'cron "@daily"', datetime(2026, 7, 5, tzinfo=UTC)),
        ('cron "0 12 * JUL SUN"', 'cron "0 12 * JUL SUN"', datetime(2026, 7, 5, 12, tzinfo=UTC)),
        ('cron "0 12 1-7 * 1"', 'cron "0 12 1-7 * 1"', datetime(2026, 7, 6, 12, tzinfo=UTC)),  # both must match
        ('at "23:55"', 'at "23:55"', datetime(2026, 7, 4, 23, 55, tzinfo=UTC)),
        ('at "2031-05-04 06:00 UTC"', 'at "2031-05-04 06:00 UTC"', datetime(2031, 5, 4, 6, tzinfo=UTC)),
    ],
)
def test_a_clause_becomes_a_schedule(clause: str, text: str, first: datetime) -> None:
    schedule = policy(f"schedule: {clause}").schedule
    assert schedule is not None
    assert schedule.text == text
    assert schedule.next_after(datetime(2026, 7, 4, 1, tzinfo=UTC)) == first


def test_units_may_be_singular() -> None:
    one, many = policy("schedule: every 1 hour").schedule, policy("schedule: every 60 minutes").schedule
    assert one is not None
    assert many is not None
    assert (one.text, many.text) == ("every 1 hour", "every 60 minutes")
    assert one.interval == many.interval == timedelta(hours=1)


def test_the_zone_is_the_systems_where_none_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    assert system_zone().name == "Asia/Kathmandu"
    schedule = policy_of(program('schedule: cron "0 9 * * *"')).schedule
    assert schedule is not None
    assert schedule.next_after(datetime(2026, 7, 4, tzinfo=UTC)) == datetime(2026, 7, 4, 3, 15, tzinfo=UTC)
    monkeypatch.setenv("TZ", "Nowhere/Land")
    assert system_zone().name != "Nowhere/Land"


def test_an_edit_that_changes_nothing_keeps_the_signature() -> None:
    a = policy('schedule: cron "0 9 * * *" { timezone: "Europe/London" }').schedule
    b = policy('timezone: "Europe/London"\nschedule:   cron "0 9 * * *"').schedule
    c = policy('timezone: "Europe/Oslo"\nschedule: cron "0 9 * * *"').schedule
    assert a is not None
    assert b is not None
    assert c is not None
    assert a.signature == b.signature != c.signature


@pytest.mark.parametrize("clause", ['timeout: env("T")', 'catchUp: "some"', "maxConcurrency: 0", "stuckAfter: -5"])
def test_an_option_that_cannot_be_is_refused_with_its_place(clause: str) -> None:
    loaded = load_text(Source("m.vague", f"mission M {{\n{clause}\n{BODY}\n}}\n"))
    if loaded.missions:  # the checks of the language may say it first
        with pytest.raises(SemanticError) as caught:
            policy_of(loaded.missions[0])
        assert caught.value.span is not None
        assert caught.value.span.line == 2
    else:
        assert any(d.span and d.span.line == 2 for d in loaded.all_diagnostics)


def test_options_may_be_computed_where_something_evaluates_them() -> None:
    text = "let pace = minutes(4)\nschedule: every 5 minutes { catchUp: all }\ntimeout: pace\njitter: seconds(3 * 10)"
    made = program(text)
    found = policy_of(made, default_zone=zone("UTC"), evaluate=Plan(made, environment={}).evaluate)
    assert (found.timeout_seconds, found.jitter_seconds, found.catch_up) == (240, 30, CatchUp.ALL)
