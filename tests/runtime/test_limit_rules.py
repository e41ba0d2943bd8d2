"""What spec/runtime.md 5, 6 and 7 say of retries, limits and breakers, where no other test says it already."""

import asyncio
import json
from typing import Any

import pytest

from reqon.diagnostics import Source
from reqon.events import BreakerChanged, FetchRetried, RateLimitHit
from reqon.lang.loader import load_text
from tests.support.missions import Bench, Ran, mission
from tests.support.servers import ScriptedServer, Seen, reply

OK = reply(data={"id": 1})


def findings(source: str, steps: str = 'get "/x"') -> list[str]:
    text = f'mission M {{ source S {{ auth: none, base: "https://h", {source} }} action A {{ {steps} }} run A }}'
    return [d.code for d in load_text(Source("t.vague", text)).all_diagnostics]


async def run(bench: Bench, steps: str, source: str = "") -> Ran:
    """A mission whose source has no `retry` but what is written."""
    return await bench.run(mission(steps).replace(", retry: { maxAttempts: 1 }", f", {source}" if source else ""))


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


# --- retry: options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "request_", "slept"),
    [
        ("", "", [1.0, 2.0]),
        ("retry: { maxAttempts: 4, backoff: linear }", "", [1.0, 2.0, 3.0]),
        ('retry: { maxAttempts: 4, backoff: "constant" }', "", [1.0, 1.0, 1.0]),
        ("retry: { maxAttempts: 4, backoff: linear }", "retry: { initialDelay: 500 }", [0.5, 1.0, 1.5]),
        ("retry: { maxAttempts: 5, initialDelay: 100 }", "retry: { maxAttempts: 2 }", [0.1]),
        ("retry: { delay: 70 }", "", [0.07, 0.07]),
        ("retry: { delay: 70 }", "retry: { maxAttempts: 4 }", [0.07, 0.07, 0.07]),
        ("", "retry: { maxAttempts: 5, maxDelay: 3000 }", [1.0, 2.0, 3.0, 3.0]),
        ("", "retry: { initialDelay: 40 seconds }", [40.0, 40.0]),
        ("", "retry: { initialDelay: 40 seconds, maxDelay: 10 seconds }", [10.0, 10.0]),
        ("retry: { maxAttempts: 1 }", "", []),
    ],
)
async def test_a_policy_is_laid_over_its_sources_field_by_field(
    source: str, request_: str, slept: list[float], api: ScriptedServer, bench: Bench
) -> None:
    api.on("*", reply(500, data={}))
    ran = await run(bench, f'get "/x" {{ {request_} }}', source)
    assert ran.error.status == 500 and bench.clock.slept == slept and len(api.seen) == len(slept) + 1


@pytest.mark.parametrize("attempts", ["0", "101", "1.5", "-1", '"many"', "true"])
def test_attempts_are_a_whole_number_from_one_to_a_hundred(attempts: str) -> None:
    for source, steps in ((f"retry: {{ maxAttempts: {attempts} }}", 'get "/x"'),
                          ("timeout: 1 seconds", f'get "/x" {{ retry: {{ maxAttempts: {attempts} }} }}')):  # fmt: skip
        assert len(findings(source, steps)) == 1
    assert findings("retry: { maxAttempts: 100 }") == []


# --- retry: what, when -----------------------------------------------------------------------------------------------

AMBIGUOUS = (408, 425, 500, 502, 504)


@pytest.mark.parametrize("method", ["get", "put", "delete", "post", "patch"])
async def test_what_is_repeated_hangs_on_the_method(method: str, api: ScriptedServer, bench: Bench) -> None:
    repeats = method not in ("post", "patch")
    cases: list[tuple[Any, bool]] = [(reply(status, data={}), repeats) for status in AMBIGUOUS]
    cases += [(reply(status, data={}), True) for status in (429, 503)]
    cases += [(reply(status, data={}), False) for status in (400, 404, 409, 501, 505)]
    cases += [(hang_up, repeats)]
    for answer, again in cases:
        for written, source in ((False, ""), (True, ""), (False, "idempotencyKey: true")):
            api.seen.clear()
            api.on("/x", answer, OK)
            step = f'{method} "/x"' + (" { retry: { maxAttempts: 2 } }" if written else "")
            await run(bench, step, source)
            retryable = not isinstance(answer, bytes) or not any(
                answer.startswith(f"HTTP/1.1 {status}".encode()) for status in (400, 404, 409, 501, 505)
            )
            expected = 2 if again or (retryable and (written or source)) else 1
            assert len(api.seen) == expected, (answer, written, source)


@pytest.mark.parametrize("status", [400, 408, 425, 429, 500, 502, 503, 504])
async def test_retry_after_is_waited_for_exactly_whatever_the_status(
    status: int, api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(status, data={}, headers={"Retry-After": "37"}), OK)
    bench.listen = (FetchRetried, RateLimitHit)
    ran = await run(bench, 'get "/x" { retry: { maxDelay: 2000, jitter: 1 } }')
    if status == 400:
        assert ran.error.status == 400 and bench.clock.slept == []
    else:
        assert sum(bench.clock.slept) == 37 and [e.wait_ms for e in ran.ok().told("fetch.retry")] == [37_000]  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_wait_beyond_max_wait_fails_now(status: int, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(status, data={}, headers={"Retry-After": "61"}), OK)
    steps = (
        'get "/x"\nmatch response { { kind: "rate_limit", retryAfter: n } -> store { id: n } -> out, _ -> continue }'
    )
    assert list((await run(bench, steps)).ok().out) == ["61"] and bench.clock.slept == []
    api.on("/x", reply(status, data={}, headers={"Retry-After": "61"}), OK)
    bench.state = bench.state / "other"
    (await run(bench, 'get "/x"', "rateLimit: { maxWait: 90 seconds }")).ok()
    assert sum(bench.clock.slept) == 61


async def test_a_retry_is_told_before_it_is_waited_for(api: ScriptedServer, bench: Bench) -> None:
    order: list[str] = []
    api.on("/x", reply(503, data={}), OK)
    sleep = bench.clock.sleep

    async def slept(seconds: float) -> None:
        order.append("sleep")
        await sleep(seconds)

    bench.clock.sleep = slept
    bench.on_bus = lambda bus: bus.on(FetchRetried, lambda _: order.append("told"))
    (await run(bench, 'get "/x"')).ok()
    assert order == ["told", "sleep"]


@pytest.mark.parametrize(
    ("method", "source", "header"),
    [
        ("post", "true", "idempotency-key"), ("put", "true", "idempotency-key"), ("patch", "true", "idempotency-key"),
        ("delete", "true", "idempotency-key"), ("get", "true", None), ("post", '"X-Once"', "x-once"),
        ("post", "false", None),
    ],
)  # fmt: skip
async def test_an_idempotency_key_goes_with_effects_under_its_name(
    method: str, source: str, header: str | None, api: ScriptedServer, bench: Bench
) -> None:
    api.on("*", OK)
    (await run(bench, f'{method} "/x"', f"idempotencyKey: {source}")).ok()
    found = {"idempotency-key", "x-once"} & set(api.seen[0].headers)
    assert found == ({header} if header else set())
    if header is not None:
        (await run(bench, f'{method} "/x" {{ headers: {{ "{header}": "mine" }} }}', f"idempotencyKey: {source}")).ok()
        assert api.seen[1].headers[header] == "mine"


# --- the directive ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "answers", "waits"),
    [
        ("delay: 250", [None, None], [0.25, 0.25]),
        ("delay: 250", ["7", None], [0.25, 0.25]),
        ("maxAttempts: 3", ["7", None], [7, 2]),
        ("maxAttempts: 3", [None, None], [1, 2]),
        ("backoff: linear, initialDelay: 300", [None, None], [0.3, 0.6]),
        ('delay: env("BAD")', [None, None], [1, 2]),
        ("delay: 0 - 5", [None, None], [1, 2]),
    ],
)
async def test_what_the_directive_waits(
    options: str, answers: list[str | None], waits: list[float], api: ScriptedServer, bench: Bench
) -> None:
    bench.environment = {"BAD": "soon"}
    refused = [reply(409, data={}, headers={"Retry-After": after} if after else {}) for after in answers]
    api.on("/x", *refused, OK)
    options = options if "maxAttempts" in options else f"{options}, maxAttempts: 3"
    steps = f'get "/x"\nmatch response {{ {{ code: 409 }} -> retry {{ {options} }}, _ -> store response -> out }}'
    assert list((await run(bench, steps)).ok().out) == ["1"]
    assert bench.clock.slept == waits


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "grants"),
    [("{}", 60), ("{ requestsPerMinute: 7 }", 7), ("{ fallbackRpm: 7 }", 7)],
)
async def test_how_many_requests_a_minute_holds(block: str, grants: int, api: ScriptedServer, bench: Bench) -> None:
    api.on("*", OK)
    items = "[" + ", ".join(map(str, range(grants + 1))) + "]"
    (await run(bench, f'for i in {items} {{ get "/x/{{i}}" }}', f"rateLimit: {block}")).ok()
    assert sum(bench.clock.slept) == 60, "paths have no limits of their own"


@pytest.mark.parametrize("strategy", ["pause", "throttle", "fail", '"pause"', '"throttle"', '"fail"'])
async def test_each_strategy_may_be_a_word_or_a_text(strategy: str, api: ScriptedServer, bench: Bench) -> None:
    api.on("*", OK)
    source = f"rateLimit: {{ requestsPerMinute: 2, strategy: {strategy} }}"
    ran = await run(bench, 'for i in [1, 2, 3] { get "/x" }', source)
    if "fail" in strategy:
        assert ran.error.type == "rate_limit" and len(api.seen) == 2 and bench.clock.slept == []
    else:
        ran.ok()
        assert sum(bench.clock.slept) == 60


async def test_a_wait_that_would_be_too_long_is_not_begun(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", OK)
    ran = await run(bench, 'get "/x"\nget "/x"', "rateLimit: { requestsPerMinute: 1, maxWait: 59 seconds }")
    assert ran.error.type == "rate_limit" and len(api.seen) == 1 and bench.clock.slept == []
    assert type(ran.outcome.errors[0]).__name__ == "RateLimitTimeoutError"


async def test_without_a_block_what_the_server_says_is_obeyed(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "20"}), OK)
    (await run(bench, 'get "/x"\nget "/y"')).ok()
    assert sum(bench.clock.slept) == 20


async def test_a_429_is_not_repeated_where_limits_fail(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(429, data={}, headers={"Retry-After": "1"}), OK)
    ran = await run(bench, 'get "/x"', "rateLimit: { strategy: fail }")
    assert ran.error.type == "rate_limit" and len(api.seen) == 1


async def test_a_block_of_a_fetch_has_the_strategy_of_its_source(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", OK)
    steps = 'for i in [1, 2] { get "/x/{i}" { rateLimit: { requestsPerMinute: 1 } } }'
    assert (await run(bench, steps, "rateLimit: { strategy: fail }")).error.type == "rate_limit"
    assert (await run(bench, steps, "rateLimit: { maxWait: 2 seconds }")).error.type == "rate_limit"
    (await run(bench, steps)).ok()


@pytest.mark.parametrize("option", ["rateLimit: { maxWait: 30 }", "circuitBreaker: { resetTimeout: 30 }",
                                    "circuitBreaker: { failureWindow: 30 }"])  # fmt: skip
def test_what_looks_like_seconds_is_warned_of(option: str) -> None:
    assert findings(option) == ["ambiguous-unit"]


async def test_kept_limits_of_another_origin_or_of_the_past_are_dropped(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", OK)
    path = bench.state / "rate-limits.json"
    until = "2026-03-01T08:15:40.000Z"
    for entry, waits in (
        ({"origin": api.url, "blockedUntil": until}, 40),
        ({"origin": "https://elsewhere", "blockedUntil": until}, 0),
        ({"origin": api.url, "blockedUntil": "2026-02-28T00:00:00Z"}, 0),
        ({"origin": api.url, "remaining": 0, "resetAt": until}, 40),
    ):
        path.write_text(json.dumps({"Api": entry}))
        bench.clock = type(bench.clock)()
        (await run(bench, 'get "/x"')).ok()
        assert sum(bench.clock.slept) == pytest.approx(waits), entry


# --- breakers --------------------------------------------------------------------------------------------------------


async def outcome_of(bench: Bench, api: ScriptedServer, answer: Any, options: str, times: int = 3) -> list[str]:
    """What each of some requests in a row comes to."""
    api.on("/x", answer)
    steps = f"""for i in {list(range(times))} {{ get "/x"
        match response {{ {{ kind: k, error: _ }} -> store {{ id: i, k: k }} -> out,
          _ -> store {{ id: i, k: "ok" }} -> out }} }}"""
    ran = await run(bench, steps, f"retry: {{ maxAttempts: 1 }}, circuitBreaker: {options}")
    return [record["k"] for record in ran.ok().out.values()]


@pytest.mark.parametrize(
    ("answer", "options", "outcomes"),
    [
        (reply(500, data={}), "{ failureThreshold: 2 }", ["http", "http", "circuit_open"]),
        (reply(500, data={}), "true", ["http", "http", "http"]),
        (reply(599, data={}), "{ failureThreshold: 1 }", ["http", "circuit_open", "circuit_open"]),
        (reply(404, data={}), "{ failureThreshold: 1 }", ["http"] * 3),
        (
            reply(404, data={}),
            "{ failureThreshold: 1, failureStatusCodes: [404] }",
            ["http", "circuit_open", "circuit_open"],
        ),
        (reply(500, data={}), "{ failureThreshold: 1, failureStatusCodes: [404] }", ["http"] * 3),
        (reply(429, data={}), "{ failureThreshold: 1 }", ["http"] * 3),
        (reply(408, data={}), "{ failureThreshold: 1 }", ["http"] * 3),
        (hang_up, "{ failureThreshold: 1 }", ["network", "circuit_open", "circuit_open"]),
        (hang_up, "{ failureThreshold: 1, countNetworkErrors: false }", ["network"] * 3),
        (reply(body=b"{"), "{ failureThreshold: 1 }", ["parse"] * 3),
    ],
)
async def test_what_opens_a_breaker(
    answer: Any, options: str, outcomes: list[str], api: ScriptedServer, bench: Bench
) -> None:
    assert await outcome_of(bench, api, answer, options) == outcomes
    assert len(api.seen) == 3 - outcomes.count("circuit_open"), "nothing is sent while it is open"


async def test_five_failures_open_it_by_default_and_thirty_seconds_later_it_is_tried(
    api: ScriptedServer, bench: Bench
) -> None:
    assert await outcome_of(bench, api, reply(500, data={}), "true", 7) == ["http"] * 5 + ["circuit_open"] * 2


async def test_every_attempt_counts_and_an_open_breaker_ends_the_attempts(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(503, data={}))
    bench.listen = (BreakerChanged,)
    steps = """get "/x" { retry: { maxAttempts: 10, delay: 1000 } }
        match response { { kind: "circuit_open", retryAfter: s } -> store { id: s } -> out, _ -> continue }"""
    ran = await run(bench, steps, "circuitBreaker: { failureThreshold: 3, resetTimeout: 20 seconds }")
    assert len(api.seen) == 3 and list(ran.ok().out) == ["20"], "the seconds that are left"
    assert bench.clock.slept == [1, 1], "no wait for an attempt that may not go"
    assert [e.state for e in ran.told("circuitbreaker.state")] == ["open"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "neutral", [reply(body=b"{"), reply(body=b"%PDF", content_type="application/pdf"), reply(429, data={}),
                reply(data={"long": "x" * 3000})],
)  # fmt: skip
async def test_what_says_nothing_about_the_service_leaves_the_record_as_it_is(
    neutral: bytes, api: ScriptedServer, bench: Bench
) -> None:
    bad = reply(500, data={})
    api.on("/x", bad, neutral, bad, OK)
    steps = """for i in [1, 2, 3, 4] { get "/x"
        match response { { kind: k, error: _ } -> store { id: i, k: k } -> out, _ -> abort "ok" } }"""
    source = "retry: { maxAttempts: 1 }, maxResponseBytes: 2000, circuitBreaker: { failureThreshold: 2 }"
    ran = (await run(bench, steps, source)).ok()
    assert [record["k"] for record in ran.out.values()][::3] == ["http", "circuit_open"]
    assert len(api.seen) == 3


async def test_without_a_block_there_is_no_breaker(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(500, data={}))
    steps = (
        'for i in [1, 2, 3, 4, 5, 6, 7, 8] { get "/x"\nmatch response { { code: 500 } -> continue, _ -> continue } }'
    )
    (await run(bench, steps, "retry: { maxAttempts: 1 }")).ok()
    assert len(api.seen) == 8


async def test_a_breaker_belongs_to_its_source_whatever_the_path(api: ScriptedServer, bench: Bench) -> None:
    def answer(seen: Seen) -> bytes:
        return reply(500, data={}) if seen.path == "/bad" else OK

    api.on("*", answer)
    steps = """get "/bad"
      match response { { code: 500 } -> continue, _ -> continue }
      get "/good" """
    ran = await run(bench, steps, "retry: { maxAttempts: 1 }, circuitBreaker: { failureThreshold: 1 }")
    assert ran.error.type == "circuit_open" and [s.path for s in api.seen] == ["/bad"]
