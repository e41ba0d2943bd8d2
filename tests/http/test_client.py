import asyncio
import base64
import gzip
import zlib
from hashlib import sha256

import pytest

from reqon.clock import SYSTEM
from reqon.errors import CircuitBreakerError, ConfigurationError, FetchError, RateLimitError, RateLimitTimeoutError
from reqon.events import BreakerChanged, FetchRetried, RateLimitHit, RateLimitResumed, RateLimitWaiting, RequestAnswered
from reqon.http.auth import Credentials, credentials_for
from reqon.http.client import Client
from reqon.http.connections import Connections
from reqon.http.failures import envelope
from reqon.http.messages import BreakerSettings, RateLimitSettings, SourceSettings
from reqon.http.retry import RetryPolicy
from tests.http.conftest import World, get, post
from tests.support.servers import ScriptedServer, redirect, reply

ONCE = RetryPolicy(max_attempts=1)


async def failing(world: World, request: object = None, **settings: object) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await world.client(**settings).send(request or get())  # type: ignore[arg-type]
    return caught.value


# --- what is sent ---


async def test_a_request_carries_its_parameters_and_default_headers(world: World) -> None:
    world.api.on("/v3/parcels", reply(data=[1]))
    client = world.client(base=f"{world.api.url}/v3/")
    answer = await client.send(get(params=(("limit", 2), ("q", "a b&c"), ("none", None), ("tag", ["x", "y"]))))
    assert answer.value == [1] and answer.status == 200 and answer.attempts == 1
    seen = world.api.seen[0]
    assert seen.target == "/v3/parcels?limit=2&q=a%20b%26c&tag=x&tag=y"
    assert seen.headers["accept"] == "application/json"
    assert seen.headers["user-agent"].startswith("reqon/")
    assert "content-type" not in seen.headers and "cookie" not in seen.headers


async def test_request_headers_win_over_credentials_and_those_over_the_source(world: World) -> None:
    world.api.on("/parcels", reply(data=1))
    bearer = Credentials("bearer", {"token": "secret-token"}, (("Authorization", "Bearer secret-token"),))
    client = world.client(bearer, headers=(("X-Branch", "north"), ("authorization", "no"), ("X-Time", lambda: 7)))
    await client.send(get(headers=(("X-Own", True), ("X-Branch", None))))
    await client.send(get(headers=(("Authorization", "mine"),)))
    await client.send(get())
    first, second, third = world.api.seen
    assert first.headers["authorization"] == "Bearer secret-token"
    assert first.headers["x-own"] == "true" and "x-branch" not in first.headers and first.headers["x-time"] == "7"
    assert second.headers["authorization"] == "mine" and second.headers["x-branch"] == "north"
    assert third.headers["authorization"] == "Bearer secret-token" and "x-own" not in third.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nX-Injected: 1"),
        ("X-A", "a\0"),
        ("X-A", "snow \u2603"),
        ("X A", "a"),
        ("X-A\r\n", "a"),
        ("Host", "evil.example"),
        ("content-length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("X-A", {"a": 1}),
    ],
)
async def test_a_header_cannot_break_out(world: World, name: str, value: object) -> None:
    """N4"""
    error = await failing(world, get(headers=((name, value),)))
    assert error.kind == "bad_header" and world.api.seen == []


async def test_bodies_are_json_unless_the_content_type_says_otherwise(world: World) -> None:
    world.api.on("/parcels", reply(data=1))
    client = world.client()
    form = (("Content-Type", "application/x-www-form-urlencoded"),)
    await client.send(post(body={"id": 1, "big": 2**70}))
    await client.send(post(body=None))
    await client.send(post(body={"a": [1, 2], "b": None, "c": "x y"}, headers=form))
    await client.send(post(body="<a/>", headers=(("content-type", "application/xml"),)))
    assert [s.body for s in world.api.seen] == [
        b'{"id":1,"big":1180591620717411303424}',
        b"null",
        b"a=1&a=2&c=x+y",
        b"<a/>",
    ]
    assert [s.headers["content-type"] for s in world.api.seen] == [
        "application/json", "application/json", "application/x-www-form-urlencoded", "application/xml",
    ]  # fmt: skip


async def test_an_idempotency_key_is_the_same_for_each_attempt_of_one_effect(world: World) -> None:
    """R9"""
    world.api.on("/parcels", reply(502), reply(502), reply(data=1))
    client = world.client(idempotency_header="Idempotency-Key")
    await client.send(post(body={}, effect_key="exec_1/Load/2/7"))
    await client.send(post(body={}, effect_key="exec_1/Load/2/8"))
    keys = [s.headers["idempotency-key"] for s in world.api.seen]
    expected = base64.b32encode(sha256(b"exec_1/Load/2/7").digest()).decode().rstrip("=")
    assert keys[:3] == [expected] * 3 and keys[3] != expected


# --- answers ---


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (reply(data={"a": 12345678901234567890123}), {"a": 12345678901234567890123}),
        (reply(204), None),
        (reply(304), None),
        (reply(body=b""), None),
        (reply(body=b'{"a":1}', content_type=None), {"a": 1}),
        (reply(body=b"\xef\xbb\xbf[1]"), [1]),
        (reply(body='{"a":"é"}'.encode("latin-1"), content_type="application/json; charset=ISO-8859-1"), {"a": "é"}),
        (reply(body=b'{"a":1}\n\n{"a":2}\n', content_type="application/x-ndjson"), [{"a": 1}, {"a": 2}]),
        (
            reply(
                body='{"a":"x\u2028y\x85z"}\r\n{"a":1}\n'.encode(),
                content_type="application/jsonl",
            ),
            [{"a": "x\u2028y\x85z"}, {"a": 1}],
        ),
        (reply(body=b"a=1&b=x+y", content_type="application/x-www-form-urlencoded"), {"a": "1", "b": "x y"}),
        (reply(body=b"hello", content_type="text/plain"), "hello"),
        (reply(body=b" [1, 2]", content_type="text/html"), [1, 2]),
        (reply(body=b"[oops", content_type="text/plain"), "[oops"),
        (reply(body=b'{"a":1}', content_type="application/vnd.api+json"), {"a": 1}),
        (reply(body=gzip.compress(b"[1]"), headers={"Content-Encoding": "gzip"}), [1]),
        (reply(body=gzip.compress(b"[1,") + gzip.compress(b"2]"), headers={"Content-Encoding": "gzip"}), [1, 2]),
        (reply(body=zlib.compress(b"[1]"), headers={"Content-Encoding": "deflate"}), [1]),
        (reply(body=zlib.compress(b"[1]", wbits=-15), headers={"Content-Encoding": "deflate"}), [1]),
    ],
)
async def test_an_answer_is_read_by_its_content_type(world: World, answer: bytes, value: object) -> None:
    world.api.on("/parcels", answer)
    assert (await world.client().send(get())).value == value


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(body=b"<html>"), "parse"),
        (reply(body=b"{", content_type="application/json"), "parse"),
        (reply(body=b"[" * 300 + b"]" * 300), "parse"),
        (reply(body=b"[NaN]"), "parse"),
        (reply(body=b"\xff\xfe", content_type="text/plain"), "parse"),
        (reply(body=b"x", content_type="text/plain; charset=rot13"), "parse"),
        (reply(body=b"%PDF", content_type="application/pdf"), "unsupported_content"),
        (reply(body=b"x", headers={"Content-Encoding": "zstd"}), "unsupported_content"),
        (
            reply(body=gzip.compress(gzip.compress(b"1")), headers={"Content-Encoding": "gzip, gzip"}),
            "unsupported_content",
        ),
        (reply(body=b"no gzip", headers={"Content-Encoding": "gzip"}), "parse"),
        (reply(300, data={}), "redirect"),
        (reply(302, data={}), "redirect"),
    ],
)
async def test_an_unreadable_answer_is_an_error_of_its_kind_and_not_repeated(
    world: World, answer: bytes, kind: str
) -> None:
    """N2"""
    world.api.on("/parcels", answer)
    error = await failing(world)
    assert error.kind == kind and len(world.api.seen) == 1
    assert error.message.startswith(f"GET {world.api.url}/parcels failed: ")


@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 409, 410, 418, 422, 451, 499, 500, 501, 502, 503, 504, 505, 599]
)
@pytest.mark.parametrize("body", [reply(1, data={"id": 1}), reply(1, body=b"<p>", content_type="text/html"), reply(1)])
async def test_an_error_body_never_becomes_data(world: World, status: int, body: bytes) -> None:
    """R8"""
    world.api.on("/parcels", body.replace(b"HTTP/1.1 1 ", f"HTTP/1.1 {status} ".encode()))
    error = await failing(world, get(retry=ONCE))
    assert error.status_code == status and error.kind == "http"


async def test_the_envelope_shows_the_body_and_the_failure(world: World) -> None:
    world.api.on("/parcels", reply(404, data={"message": "no such parcel", "code": "P7"}, headers={"X-Id": "9"}))
    value = envelope(await failing(world))
    assert value["error"] == "no such parcel" and value["code"] == 404 and value["kind"] == "http"
    assert value["body"] == {"message": "no such parcel", "code": "P7"} and value["headers"]["x-id"] == "9"
    world.api.on("/parcels", reply(404, body=b""))
    assert envelope(await failing(world))["error"] == "HTTP 404 Not Found"
    world.api.on("/parcels", reply(429, data={"error": None}))
    assert envelope(await failing(world, get(retry=ONCE)))["error"] == "rate_limit"


# --- retries ---


async def test_a_failing_get_is_repeated_with_growing_waits(world: World) -> None:
    world.api.on("/parcels", reply(503), reply(500), reply(data=[1]))
    assert (await world.client().send(get())).attempts == 3
    assert world.clock.slept == [1.0, 2.0]
    assert [(r.attempt, r.reason, r.wait_ms) for r in world.happened(FetchRetried)] == [
        (1, "http_503", 1000), (2, "http_500", 2000),
    ]  # fmt: skip
    assert [a.code for a in world.happened(RequestAnswered)] == ["503", "500", "200"]


async def test_retry_after_beats_our_backoff_and_jitter(world: World) -> None:
    world.api.on("/parcels", reply(429, headers={"Retry-After": "7"}), reply(data=[1]))
    await world.client().send(get())
    assert world.clock.slept == [7.0]
    assert world.happened(RateLimitHit)[0].wait_seconds == 7 and world.happened(RateLimitResumed)


async def test_retry_after_beyond_max_wait_fails_now(world: World) -> None:
    world.api.on("/parcels", reply(503, headers={"Retry-After": "315360000"}))
    error = await failing(world)
    assert isinstance(error, RateLimitTimeoutError) and error.kind == "rate_limit"
    assert error.status_code == 503 and error.retry_after == 315360000 and world.clock.slept == []


@pytest.mark.parametrize("value", ["-5", "NaN", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", ""])
async def test_a_senseless_retry_after_is_ignored(world: World, value: str) -> None:
    world.api.on("/parcels", reply(429, headers={"Retry-After": value}), reply(data=[1]))
    await world.client().send(get())
    assert world.clock.slept == [1.0]


async def test_a_retry_date_is_measured_by_the_servers_own_clock(world: World) -> None:
    headers = {"Date": "Wed, 01 Jan 2020 00:00:00 GMT", "Retry-After": "Wed, 01 Jan 2020 00:00:09 GMT"}
    world.api.on("/parcels", reply(503, headers=headers), reply(data=[1]))
    await world.client().send(get())
    assert world.clock.slept == [9.0]


@pytest.mark.parametrize("status", [400, 403, 404, 422, 501, 505])
async def test_what_would_fail_again_is_not_repeated(world: World, status: int) -> None:
    world.api.on("/parcels", reply(status))
    await failing(world)
    assert len(world.api.seen) == 1


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize("answer", [reply(500), reply(502), reply(504), reply(408), reply(425), reset])
async def test_a_post_is_sent_once_when_its_effect_is_unknown(world: World, answer: bytes) -> None:
    """R9"""
    world.api.on("/parcels", answer)
    await failing(world, post(body={}))
    assert len(world.api.seen) == 1
    await failing(world, post(body={}, retry=RetryPolicy(), retry_written=True))
    assert len(world.api.seen) == 4


@pytest.mark.parametrize("status", [429, 503])
async def test_a_post_is_repeated_when_the_server_says_it_has_not_acted(world: World, status: int) -> None:
    world.api.on("/parcels", reply(status), reply(data=1))
    await world.client().send(post(body={}))
    assert len(world.api.seen) == 2


async def test_a_post_whose_connection_never_came_about_is_repeated(world: World) -> None:
    async with ScriptedServer() as gone:
        base = gone.url
    error = await failing(world, post(body={}), base=base)
    assert error.kind == "network" and error.attempts == 3 and world.clock.slept == [1.0, 2.0]
    assert "127.0.0.1" in (error.hint or "")


async def test_a_single_send_never_repeats(world: World) -> None:
    world.api.on("/parcels", reply(503))
    with pytest.raises(FetchError):
        await world.client().send(get(), single=True)
    assert len(world.api.seen) == 1 and world.clock.slept == []


async def test_waiting_to_retry_can_be_cancelled(api: ScriptedServer) -> None:
    api.on("/parcels", reply(503, headers={"Retry-After": "50"}))
    connections = Connections(clock=SYSTEM, environment={}, state_directory=None, random=lambda: 0.5)
    settings = SourceSettings(name="Depot", base=api.url, breaker=BreakerSettings())
    client = connections.client(settings, None, lambda _: None, lambda *_: False)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.send(get()), 0.3)
    await connections.close()


# --- limits and breaker, through the client ---


async def test_a_quota_spreads_requests_over_the_minute(world: World) -> None:
    world.api.on("/parcels", reply(data=1))
    client = world.client(rate_limit=RateLimitSettings(requests_per_minute=2))
    for _ in range(5):
        await client.send(get())
    assert world.clock.monotonic() == 1120.0  # two at once, two after a minute, one after two
    assert sum(r.waited_seconds for r in world.happened(RateLimitResumed)) == 120


async def test_limits_and_breaker_belong_to_name_origin_and_credential(world: World) -> None:
    """spec/runtime.md 6.2, 7: shared by all who ask under these three, whatever the path of their base."""

    def client(name: str = "Depot", base: str = "", token: str = "token-one") -> Client:
        settings = SourceSettings(
            name=name,
            base=base or world.api.url,
            rate_limit=RateLimitSettings(requests_per_minute=1),
            breaker=BreakerSettings(failure_threshold=1),
        )
        credentials = credentials_for(settings, {name: {"type": "bearer", "token": token}}, {})
        return world.connections.client(settings, credentials, world.events.append, lambda *_: True)

    async with ScriptedServer().on("*", reply(500)) as other:
        world.api.on("*", reply(data=1))
        for another in ({}, {"name": "Other"}, {"token": "token-two"}):
            await client(**another).send(get())
        with pytest.raises(FetchError):
            await client(base=other.url).send(get(retry=ONCE))
        assert world.clock.slept == []
        with pytest.raises(CircuitBreakerError):
            await client(base=f"{other.url}/v2").send(get(retry=ONCE))
        await client(base=f"{world.api.url}/v2").send(get())
        assert sum(world.clock.slept) == 60


async def test_a_429_under_strategy_fail_is_final(world: World) -> None:
    world.api.on("/parcels", reply(429, headers={"Retry-After": "2"}))
    error = await failing(world, rate_limit=RateLimitSettings(strategy="fail"))
    assert isinstance(error, RateLimitError) and error.kind == "rate_limit" and error.retry_after == 2
    assert world.clock.slept == [] and len(world.api.seen) == 1


async def test_an_exhausted_window_holds_every_task_until_its_reset(world: World) -> None:
    exhausted = reply(data=1, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"})
    world.api.on("/parcels", exhausted, reply(data=2))
    client, other = world.client(), world.client()
    await client.send(get())
    async with asyncio.TaskGroup() as group:
        for one in (client, other, client):
            group.create_task(one.send(get()))
    assert world.clock.monotonic() == 1030.0


async def test_a_fetch_can_have_a_quota_of_its_own(world: World) -> None:
    world.api.on("*", reply(data=1))
    client = world.client()
    for _ in range(2):
        await client.send(get(rate_limit=RateLimitSettings(requests_per_minute=1)))
    await client.send(get("/other"))
    assert sum(world.clock.slept) == 60
    assert [w.elapsed_seconds for w in world.happened(RateLimitWaiting)] == [10, 20, 30, 40, 50]


async def test_an_open_breaker_sends_nothing_until_its_time(world: World) -> None:
    world.api.on("/parcels", reply(500), reply(500), reply(data=1))
    settings = BreakerSettings(failure_threshold=2, success_threshold=1, reset_timeout_seconds=30)
    with pytest.raises(CircuitBreakerError) as caught:
        await world.client(breaker=settings).send(get())
    assert len(world.api.seen) == 2 and caught.value.kind == "circuit_open" and caught.value.attempts == 2
    value = envelope(caught.value)
    assert value["circuitOpen"] is True and value["service"] == "Depot" and value["error"] == "circuit_open"
    world.clock.advance(31)
    assert (await world.client(breaker=settings).send(get())).value == 1
    assert [c.state for c in world.happened(BreakerChanged)] == ["open", "half_open", "closed"]


# --- where requests may go ---


async def test_an_absolute_url_of_the_same_origin_is_an_ordinary_request(world: World) -> None:
    world.api.on("/other", reply(data=1))
    bearer = Credentials("bearer", {"token": "tok-123456"}, (("Authorization", "Bearer tok-123456"),))
    await world.client(bearer).send(get(f"{world.api.url}/other?x=1", params=(("y", 2),)))
    assert world.api.seen[0].target == "/other?x=1&y=2"
    assert world.api.seen[0].headers["authorization"] == "Bearer tok-123456"


async def test_another_origin_is_blocked_unless_the_mission_names_it(world: World) -> None:
    async with ScriptedServer().on("/x", reply(data=5)) as other:
        error = await failing(world, get(f"{other.url}/x"))
        assert error.kind == "origin_blocked" and "allowOrigins" in (error.hint or "") and other.seen == []
        bearer = Credentials("bearer", {"token": "tok-123456"}, (("Authorization", "Bearer tok-123456"),))
        key = Credentials("api_key", {"key": "k-123456"}, (), ("api_key", "k-123456"))
        for credentials in (bearer, key):
            client = world.client(credentials, headers=(("X-Source", "1"),), literal_origins=frozenset((other.url,)))
            assert (await client.send(get(f"{other.url}/x"))).value == 5
            seen = other.seen[-1]
            assert "authorization" not in seen.headers and "x-source" not in seen.headers and seen.target == "/x"


async def test_redirects_keep_what_they_may_and_drop_the_rest(world: World) -> None:
    async with ScriptedServer().on("/there", reply(data="there")) as other:
        world.api.on("/a", redirect("/b?api_key=key-123456")).on(
            "/b", redirect(f"{other.url}/there?api_key=key-123456&z=1")
        )
        key = Credentials("api_key", {}, (("X-Api-Key", "key-123456"),), ("api_key", "key-123456"))
        client = world.client(key, headers=(("X-Source", "1"),), literal_origins=frozenset((other.url,)))
        reply_ = await client.send(get("/a", headers=(("X-Own", "2"), ("X-Auth-Token", "secret-9"))))
        assert reply_.value == "there" and reply_.url == f"{other.url}/there?z=1"
        assert world.api.targets == ["/a?api_key=key-123456", "/b?api_key=key-123456"]
        seen = other.seen[0]
        assert seen.target == "/there?z=1" and seen.headers["x-own"] == "2"
        assert not {"x-source", "x-api-key", "x-auth-token"} & seen.headers.keys()


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", b""),
        (302, "POST", "GET", b""),
        (303, "PUT", "GET", b""),
        (307, "POST", "POST", b'{"a":1}'),
        (308, "PUT", "PUT", b'{"a":1}'),
        (302, "HEAD", "HEAD", b""),
    ],
)
async def test_a_redirect_changes_the_method_as_the_status_says(
    world: World, status: int, method: str, then: str, body: bytes
) -> None:
    world.api.on("/a", redirect("/b", status)).on("/b", reply(204))
    await world.client().send(post("/a", body={"a": 1})._replace(method=method, has_body=method != "HEAD"))
    assert (world.api.seen[1].method, world.api.seen[1].body) == (then, body)
    if not body:
        assert "content-type" not in world.api.seen[1].headers


async def test_redirects_in_a_circle_or_too_many_are_refused(world: World) -> None:
    """N1"""
    world.api.on("/a", redirect("/b")).on("/b", redirect("/a"))
    assert (await failing(world, get("/a"))).kind == "redirect"
    world.api.on("*", lambda seen: redirect(seen.target + "x"))
    error = await failing(world, get("/c"))
    assert error.kind == "redirect" and "maxRedirects" in error.message
    assert len(world.api.seen) == 2 + 6


async def test_a_body_is_never_sent_on_to_another_origin(world: World) -> None:
    async with ScriptedServer().on("/x", reply(data=1)) as other:
        world.api.on("/a", redirect(f"{other.url}/x", 307))
        error = await failing(world, post("/a", body={"a": 1}), literal_origins=frozenset((other.url,)))
        assert error.kind == "redirect" and other.seen == []


@pytest.mark.parametrize(
    "location",
    ["ftp://x/y", "javascript:alert(1)", "http://user:pw@127.0.0.1/", "http://", "//", "http://[::1", "/a\\b"],
)
async def test_a_redirect_to_no_address_is_refused(world: World, location: str) -> None:
    world.api.on("/a", redirect(location))
    error = await failing(world, get("/a"))
    assert error.kind == "redirect" and len(world.api.seen) == 1


async def test_a_redirect_cannot_reach_this_machine_unless_the_mission_names_it(world: World) -> None:
    """N3"""
    async with ScriptedServer().on("*", reply(data="inside")) as inside:
        port = inside.port
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1"):
            world.api.on("/a", redirect(f"http://{host}:{port}/x"))
            error = await failing(world, get("/a"))
            assert error.kind in ("origin_blocked", "network", "bad_path"), (host, error.message)
        assert inside.seen == []


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xA9.0xFE.0xA9.0xFE",
        "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]", "169.254.169.254.",
    ],
)  # fmt: skip
async def test_the_metadata_address_is_out_of_reach_however_it_is_spelled(world: World, host: str) -> None:
    """N3"""
    world.api.on("/a", redirect(f"http://{host}/latest/meta-data"))
    by_redirect = await failing(world, get("/a"))
    origin = f"http://{host.lower()}:80"
    literal = await failing(world, get(f"http://{host}/latest/meta-data"), literal_origins=frozenset((origin,)))
    for error in (by_redirect, literal):
        assert error.kind in ("origin_blocked", "bad_path"), error.message
        assert any(w in error.message for w in ("metadata", "link-local", "not valid")), error.message


async def test_no_environment_variable_or_netrc_reaches_a_request(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    (netrc := __import__("pathlib").Path(str(tmp_path)) / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    world.api.on("/parcels", reply(data=1, headers={"Set-Cookie": "a=b"}))
    client = world.client()
    answer = await client.send(get())
    await client.send(get())
    assert "authorization" not in world.api.seen[1].headers and "cookie" not in world.api.seen[1].headers
    assert "set-cookie" not in answer.headers


def test_a_base_must_be_an_address_and_nothing_else(world: World) -> None:
    for base in ("", "example.org", "ftp://x", "https://u:p@x", "https://x/?a=1", "https://x/#a", "http://"):
        with pytest.raises(ConfigurationError, match="Depot"):
            world.connections.client(SourceSettings(name="Depot", base=base), None, lambda _: None, lambda *_: False)


async def test_one_connection_serves_many_requests_and_sixteen_at_most(world: World) -> None:
    world.api.on("/parcels", reply(data=1))
    client = world.client()
    for _ in range(5):
        await client.send(get())
    assert world.api.connections == 1
    held: list[asyncio.StreamWriter] = []
    release = asyncio.Event()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        if len(held) == 16:
            release.set()
        await release.wait()
        writer.write(reply(data=1, headers={"Connection": "close"}))
        await writer.drain()

    world.api.on("/held", hold)
    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(client.send(get("/held")))
    assert len(held) == 40 and world.api.connections <= 41


async def test_a_url_longer_than_16_kib_is_refused(world: World) -> None:
    error = await failing(world, get(params=(("q", "x" * 20000),)))
    assert error.kind == "bad_path" and "16384" in error.message and len(error.message) < 40000


async def test_an_answer_says_what_the_api_said(world: World) -> None:
    world.api.on("/parcels", reply(422, data={"error": {"message": "owner is\nneeded"}}))
    error = await failing(world)
    assert error.hint == 'the API says: "owner is needed"'
    assert "422 Unprocessable" in error.message


async def test_no_credential_is_in_any_error(world: World) -> None:
    """K1"""
    secret = "s3cr3t-Value/+=9"
    for type_, field in (("bearer", "token"), ("api_key", "key")):
        settings = SourceSettings(name="Depot", base=world.api.url)
        record = {"type": type_, field: secret, **({"query": "sesame"} if type_ == "api_key" else {})}
        credentials = credentials_for(settings, {"Depot": record}, {})
        world.api.on("/parcels", reply(400, data={"error": f"bad key {secret}", "echo": secret}))
        error = None
        with pytest.raises(FetchError) as caught:
            await world.client(credentials).send(get(params=(("token", "another-secret"),)))
        error = caught.value
        shown = f"{error} {error!r} {error.format()} {error.to_dict()} {error.url} {credentials!r}"
        shown += " ".join(map(repr, world.events))
        for form in (secret, "s3cr3t-Value%2F%2B%3D9", base64.b64encode(secret.encode()).decode(), "another-secret"):
            assert form not in shown
