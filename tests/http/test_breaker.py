from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reqon.http.breaker import Breaker, BreakerState
from reqon.http.messages import BreakerSettings

OPEN, HALF, CLOSED = BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED


def admitted(breaker: Breaker, now: float) -> int:
    admission, _ = breaker.admit(now)
    assert admission is not None
    return admission


def opened(**settings: float) -> Breaker:
    breaker = Breaker(BreakerSettings(failure_threshold=1, **settings))  # type: ignore[arg-type]
    breaker.failed(admitted(breaker, 0), 0, "HTTP 500")
    assert breaker.state is OPEN
    return breaker


def test_it_opens_at_the_threshold_and_says_so() -> None:
    breaker = Breaker(BreakerSettings(failure_threshold=3))
    changes = [breaker.failed(admitted(breaker, t), t, "HTTP 500") for t in range(3)]
    assert changes[:2] == [None, None]
    assert changes[2] is not None and (changes[2].previous, changes[2].state, changes[2].failures) == (CLOSED, OPEN, 3)


def test_failures_older_than_the_window_are_forgotten() -> None:
    breaker = Breaker(BreakerSettings(failure_threshold=2, failure_window_seconds=60))
    for t in (0, 61, 122):
        breaker.failed(admitted(breaker, t), t, "timeout")
    assert breaker.state is CLOSED and breaker.failures == 1


def test_a_success_empties_the_record() -> None:
    breaker = Breaker(BreakerSettings(failure_threshold=2))
    breaker.failed(admitted(breaker, 0), 0, "x")
    breaker.succeeded(admitted(breaker, 1))
    breaker.failed(admitted(breaker, 2), 2, "x")
    assert breaker.state is CLOSED


def test_nothing_goes_while_it_is_open_and_one_probe_after() -> None:
    breaker = opened(reset_timeout_seconds=30)
    assert breaker.admit(29.9) == (None, None) and breaker.seconds_left(20) == 10
    admission, change = breaker.admit(30)
    assert admission is not None and change is not None and change.state is HALF
    assert breaker.admit(30.1)[0] is None
    breaker.succeeded(admission)
    assert breaker.state is HALF and breaker.successes == 1
    change = breaker.succeeded(admitted(breaker, 31))
    assert change is not None and breaker.state is CLOSED and breaker.failures == 0


def test_a_failing_probe_opens_it_with_a_fresh_timer() -> None:
    breaker = opened(reset_timeout_seconds=30)
    breaker.failed(admitted(breaker, 40), 41, "HTTP 500")
    assert breaker.state is OPEN and breaker.seconds_left(42) == 29


def test_an_undecided_probe_changes_nothing_and_frees_the_place() -> None:
    breaker = opened(reset_timeout_seconds=30)
    breaker.undecided(admitted(breaker, 30))
    assert breaker.state is HALF and breaker.successes == 0
    assert breaker.admit(31)[0] is not None


def test_answers_from_before_it_opened_decide_nothing() -> None:
    breaker = Breaker(BreakerSettings(failure_threshold=1, reset_timeout_seconds=30, success_threshold=1))
    late, bad = admitted(breaker, 0), admitted(breaker, 0)
    breaker.failed(bad, 1, "x")
    assert breaker.succeeded(late) is None and breaker.state is OPEN
    admitted(breaker, 31)
    assert breaker.failed(late, 32, "x") is None and breaker.state is HALF


def test_reset_closes_it_and_forgets() -> None:
    breaker = opened()
    change = breaker.reset()
    assert change is not None and (change.previous, change.state) == (OPEN, CLOSED) and breaker.failures == 0
    breaker = Breaker(BreakerSettings(failure_threshold=2))
    breaker.failed(admitted(breaker, 0), 0, "x")
    assert breaker.reset() is None
    breaker.failed(admitted(breaker, 1), 1, "x")
    assert breaker.state is CLOSED


def test_its_times_are_told_as_instants() -> None:
    """Its own clock is monotonic, and stands at `now` when the wall's shows `wall`."""
    wall = datetime(2026, 3, 1, 12, tzinfo=UTC)
    breaker = Breaker(BreakerSettings(failure_threshold=2, reset_timeout_seconds=30))
    assert breaker.opened_since(5, wall) is None
    assert breaker.status(5, wall) == {
        "state": "closed",
        "failures": 0,
        "successes": 0,
        "last_failure_time": None,
        "next_attempt_time": None,
    }
    breaker.failed(admitted(breaker, 7), 7, "x")
    breaker.failed(admitted(breaker, 8), 8, "x")
    assert breaker.opened_since(18, wall) == wall - timedelta(seconds=10)
    assert breaker.status(18, wall) == {
        "state": "open",
        "failures": 2,
        "successes": 0,
        "last_failure_time": wall - timedelta(seconds=10),
        "next_attempt_time": wall + timedelta(seconds=20),
    }
    breaker.succeeded(admitted(breaker, 38))
    assert breaker.status(39, wall) | {"last_failure_time": None} == {
        "state": "half_open",
        "failures": 2,
        "successes": 1,
        "last_failure_time": None,
        "next_attempt_time": None,
    }


@given(st.lists(st.tuples(st.sampled_from(["ask", "good", "bad", "neither"]), st.floats(0, 40)), max_size=60))
def test_it_never_lets_two_probes_go_and_never_sticks(steps: list[tuple[str, float]]) -> None:
    breaker = Breaker(BreakerSettings(failure_threshold=2, reset_timeout_seconds=30))
    now, flying = 0.0, []
    for what, seconds in steps:
        now += seconds
        if what == "ask":
            before = breaker.state
            admission, change = breaker.admit(now)
            assert admission is None or before is not OPEN or change is not None
            if admission is not None:
                flying.append((admission, breaker.state))
        elif flying:
            admission, _ = flying.pop(0)
            if what == "good":
                breaker.succeeded(admission)
            elif what == "bad":
                breaker.failed(admission, now, "x")
            else:
                breaker.undecided(admission)
    for admission, _ in flying:
        breaker.undecided(admission)
    assert breaker.admit(now + 31)[0] is not None
