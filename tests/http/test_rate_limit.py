from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.http.messages import Headers, RateLimitSettings
from reqon.http.rate_limit import RateLimiter

WALL = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def wall() -> datetime:
    return WALL


def learn(
    limiter: RateLimiter, headers: dict[str, str], *, now: float = 0.0, status: int = 200, ticket: int = 0
) -> None:
    limiter.learn(ticket or limiter._granted, status, Headers(headers), now=now, wall=wall)


def granted(limiter: RateLimiter, now: float) -> float:
    at = limiter.next_slot(now)
    limiter.take(at)
    return at


def test_without_settings_or_signals_everything_goes_at_once() -> None:
    limiter = RateLimiter()
    assert [granted(limiter, 5.0) for _ in range(1000)] == [5.0] * 1000


@given(
    st.integers(1, 20),
    st.lists(st.floats(0, 30), min_size=1, max_size=80),
    st.sampled_from(["pause", "throttle"]),
    st.booleans(),
)
def test_no_minute_ever_holds_more_than_the_quota(quota: int, gaps: list[float], strategy: str, adaptive: bool) -> None:
    limiter = RateLimiter(RateLimitSettings(requests_per_minute=quota, strategy=strategy, adaptive=adaptive))  # type: ignore[arg-type]
    now, slots = 0.0, []
    for gap in gaps:
        now += gap
        slots.append(granted(limiter, now))
    assert slots == sorted(slots)
    for index in range(len(slots) - quota):
        assert slots[index + quota] - slots[index] >= 60 - 1e-6


def test_pause_lets_a_burst_go_and_throttle_spreads_it() -> None:
    pause = RateLimiter(RateLimitSettings(requests_per_minute=3))
    assert [granted(pause, 0) for _ in range(7)] == [0, 0, 0, 60, 60, 60, 120]
    throttle = RateLimiter(RateLimitSettings(requests_per_minute=3, strategy="throttle"))
    assert [granted(throttle, 0) for _ in range(4)] == [0, 20, 40, 60]


def test_less_than_one_request_a_minute_is_possible() -> None:
    limiter = RateLimiter(RateLimitSettings(requests_per_minute=0.5))
    assert [granted(limiter, 0) for _ in range(3)] == [0, 120, 240]


def test_a_slot_given_back_can_be_taken_again() -> None:
    limiter = RateLimiter(RateLimitSettings(requests_per_minute=1))
    granted(limiter, 0)
    at = granted(limiter, 0)
    limiter.give_back(at)
    assert granted(limiter, 0) == at == 60


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"},
        {"ratelimit-remaining": "0", "RateLimit-Reset": "30"},
        {"X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": str(int(WALL.timestamp()) + 30)},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(WALL.timestamp() + 30) * 1000)},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2026-03-01T08:00:30Z"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "Sun, 01 Mar 2026 08:00:30 GMT"},
        {"RateLimit": "limit=100, remaining=0, reset=30"},
        {"RateLimit": '"default";r=0;t=30'},
        {"RateLimit": '"burst";r=50;t=5, "hour";r=0;t=30'},
    ],
)
def test_an_exhausted_window_holds_requests_until_its_reset(headers: dict[str, str]) -> None:
    limiter = RateLimiter()
    granted(limiter, 0)
    learn(limiter, headers)
    assert limiter.next_slot(0) == pytest.approx(30) and limiter.next_slot(31) == 31
    assert limiter.remaining is None  # past the reset nothing is known


@pytest.mark.parametrize("reset", ["-5", "soon", "1e99", "100000", str(int(WALL.timestamp()) - 5), "", "9" * 40])
def test_a_senseless_reset_counts_as_unknown_and_means_a_minute(reset: str) -> None:
    limiter = RateLimiter()
    learn(limiter, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}, now=7)
    assert limiter.next_slot(8) == 67


def test_remaining_counts_down_and_is_corrected_by_answers() -> None:
    limiter = RateLimiter()
    tickets = [limiter.take(0) for _ in range(5)]
    learn(limiter, {"X-RateLimit-Remaining": "10", "X-RateLimit-Reset": "30"}, ticket=tickets[1])
    assert limiter.remaining == 7  # three went after the one it answers
    limiter.take(limiter.next_slot(0))
    assert limiter.remaining == 6


def test_requests_in_flight_cannot_overrun_what_is_left() -> None:
    limiter = RateLimiter()
    learn(limiter, {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "30"})
    assert [granted(limiter, 0) for _ in range(5)] == [0, 0, 0, 30, 30]


def test_retry_after_blocks_the_whole_source() -> None:
    limiter = RateLimiter()
    limiter.learn(1, 429, Headers(), now=10, wall=wall, retry_after=5)
    assert limiter.next_slot(11) == 15 and limiter.next_slot(15) == 15
    limiter.learn(1, 400, Headers(), now=20, wall=wall, retry_after=50)
    assert limiter.next_slot(20) == 20


def test_throttle_spreads_what_is_left_to_the_reset() -> None:
    limiter = RateLimiter(RateLimitSettings(requests_per_minute=600, strategy="throttle"))
    granted(limiter, 0)
    learn(limiter, {"X-RateLimit-Remaining": "10", "X-RateLimit-Reset": "50"})
    assert granted(limiter, 0) == 5


def test_adaptive_spreads_the_last_fifth_of_a_window() -> None:
    limiter = RateLimiter(RateLimitSettings(requests_per_minute=6000, adaptive=True))
    granted(limiter, 0)
    learn(limiter, {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "50", "X-RateLimit-Reset": "50"})
    assert granted(limiter, 0) == 0
    learn(limiter, {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "10", "X-RateLimit-Reset": "50"})
    assert granted(limiter, 0) == 5


def test_adaptive_halves_its_rate_at_each_429_and_recovers_slowly() -> None:
    limiter = RateLimiter(RateLimitSettings(requests_per_minute=100, adaptive=True))
    for _ in range(3):
        learn(limiter, {}, status=429)
    assert limiter._working_rate(0) == 12.5
    assert limiter._working_rate(61) == 22.5 and limiter._working_rate(125) == 32.5
    assert limiter._working_rate(10_000) == 100
    for _ in range(20):
        learn(limiter, {}, status=429, now=10_000)
    assert limiter._working_rate(10_000) == 1


def test_adaptive_takes_a_lower_limit_from_the_server() -> None:
    limiter = RateLimiter(RateLimitSettings(requests_per_minute=100, adaptive=True))
    learn(limiter, {"X-RateLimit-Limit": "30", "X-RateLimit-Remaining": "29", "X-RateLimit-Reset": "60"})
    assert limiter._working_rate(0) == 30


def test_only_long_waits_are_kept_and_they_hold_after_a_restart() -> None:
    limiter = RateLimiter()
    limiter.learn(1, 429, Headers(), now=0, wall=wall, retry_after=3)
    assert limiter.keep(0, WALL) is None
    limiter.learn(1, 429, Headers(), now=0, wall=wall, retry_after=100)
    kept = limiter.keep(10, WALL + timedelta(seconds=10))
    assert kept == {
        "blockedUntil": "2026-03-01T08:01:40.000Z",
        "remaining": None,
        "resetAt": "2026-03-01T08:01:40.000Z",
    }
    again = RateLimiter()
    again.restore(kept, 5000, WALL + timedelta(seconds=40))
    assert again.next_slot(5000) == pytest.approx(5060)
    late = RateLimiter()
    late.restore(kept, 5000, WALL + timedelta(hours=1))
    assert late.next_slot(5000) == 5000


def test_a_used_up_window_holds_after_a_restart_and_is_over_with_its_end() -> None:
    limiter = RateLimiter()
    learn(limiter, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "90"})
    kept = limiter.keep(0, WALL)
    assert kept == {"blockedUntil": None, "remaining": 0, "resetAt": "2026-03-01T08:01:30.000Z"}
    again = RateLimiter()
    again.restore(kept, 5000, WALL + timedelta(seconds=30))
    assert again.next_slot(5000) == pytest.approx(5060)
    assert again.held_until(5059) == pytest.approx(5060)
    assert again.next_slot(5061) == 5061 and again.remaining is None
    for other in ({**kept, "remaining": 3}, {**kept, "resetAt": None}, {**kept, "resetAt": 7}, {}):
        limiter = RateLimiter()
        limiter.restore(other, 5000, WALL)
        assert limiter.next_slot(5000) == 5000


@given(
    st.dictionaries(
        st.sampled_from(["X-RateLimit-Remaining", "X-RateLimit-Limit", "X-RateLimit-Reset", "RateLimit"]),
        st.text(max_size=40),
    )
)
def test_no_header_breaks_it_or_holds_it_for_more_than_a_day(headers: dict[str, str]) -> None:
    limiter = RateLimiter(RateLimitSettings(adaptive=True))
    learn(limiter, headers)
    assert 0 <= limiter.next_slot(0) <= 86_400
