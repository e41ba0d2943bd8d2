from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.http.retry import Backoff, RetryPolicy, is_retryable_status, may_repeat, retry_after_seconds

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [("exponential", [1, 2, 4, 8]), ("linear", [1, 2, 3, 4]), ("constant", [1, 1, 1, 1])],
)
def test_waits_grow_as_their_formula_says(backoff: Backoff, waits: list[float]) -> None:
    policy = RetryPolicy(backoff=backoff, jitter=0)
    assert [policy.delay_before(k, lambda: 0.3) for k in range(2, 6)] == waits


def test_a_fixed_delay_replaces_the_formula() -> None:
    assert RetryPolicy(delay_seconds=0.25).delay_before(9, lambda: 0.9) == 0.25


def test_an_unset_ceiling_never_cuts_the_first_wait() -> None:
    policy = RetryPolicy(initial_delay_seconds=45, jitter=0)
    assert [policy.delay_before(k, lambda: 0) for k in (2, 3)] == [45, 45]
    assert RetryPolicy(jitter=0).delay_before(99, lambda: 0) == 30
    capped = RetryPolicy(initial_delay_seconds=45, max_delay_seconds=10, jitter=0)
    assert capped.delay_before(2, lambda: 0) == 10


@given(st.integers(2, 5000), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_jitter_stays_within_its_share(attempt: int, random: float, jitter: float) -> None:
    plain = RetryPolicy(jitter=0).delay_before(attempt, lambda: 0)
    wait = RetryPolicy(jitter=jitter).delay_before(attempt, lambda: random)
    assert wait <= 30 and wait >= min(30, plain * (1 - jitter)) - 0.001


def test_there_is_no_wait_before_the_first_attempt() -> None:
    with pytest.raises(ValueError, match="attempt 1"):
        RetryPolicy().delay_before(1, lambda: 0)


def test_which_statuses_may_pass_with_time() -> None:
    assert [s for s in range(200, 600) if is_retryable_status(s)] == [
        408, 425, 429, *(s for s in range(500, 600) if s not in (501, 505)),
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_methods_without_a_second_effect_repeat_freely(method: str) -> None:
    assert may_repeat(method, status=500, sent=True, keyed=False)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_methods_with_an_effect_repeat_only_when_it_is_safe(method: str) -> None:
    """R9"""
    assert not may_repeat(method, status=500, sent=True, keyed=False)
    assert not may_repeat(method, status=0, sent=True, keyed=False)
    assert may_repeat(method, status=0, sent=False, keyed=False)
    assert may_repeat(method, status=503, sent=True, keyed=False)
    assert may_repeat(method, status=429, sent=True, keyed=False)
    assert may_repeat(method, status=504, sent=True, keyed=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7), ({"Retry-After": " 0 "}, 0), ({"Retry-After": "1.5"}, 1.5), ({}, None),
        ({"Retry-After": "-1"}, None), ({"Retry-After": "nan"}, None), ({"Retry-After": "1e9"}, None),
        ({"Retry-After": "9" * 400}, None), ({"Retry-After": "Sun, 01 Mar 2026 00:02:00 GMT"}, 120),
        ({"Retry-After": "Sun, 01 Mar 2026 00:02:00 GMT", "Date": "Sun, 01 Mar 2026 00:01:00 GMT"}, 60),
        ({"Retry-After": "Sun, 01 Mar 2026 00:02:00 GMT", "Date": "garbage"}, 120),
        ({"Retry-After": "Sat, 28 Feb 2026 00:00:00 GMT"}, None), ({"Retry-After": "99 Foo 99999 25:61:61"}, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_each_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == seconds


@given(st.text(max_size=60))
def test_no_retry_after_raises_or_is_negative(text: str) -> None:
    seconds = retry_after_seconds({"Retry-After": text, "Date": text}, NOW)
    assert seconds is None or seconds >= 0
