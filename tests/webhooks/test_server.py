"""What a caller is answered, in the order of the checks; what is kept of a call (spec/runtime.md 12.3)."""

import asyncio
import base64
import gc
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reqon.clock import SYSTEM, rfc3339
from reqon.errors import ConfigurationError
from reqon.events import WebhookReceived, WebhookRejected
from reqon.files import arm
from reqon.state.webhooks import EventName
from reqon.webhooks import desk
from reqon.webhooks.limits import Limits
from reqon.webhooks.listener import Connection
from reqon.webhooks.server import WebhookServer
from reqon.webhooks.signatures import Signature
from tests.support.clocks import FakeClock
from tests.support.webhooks import Answered, answered, call, request, signed
from tests.webhooks.conftest import Hooks, make_hooks

SECRET = "a secret of the sender's"
TOKEN = "0123456789abcdef0123456789abcdef"
NOT_FOUND = (404, {"error": "Not found"})


def plain(answer: Answered) -> tuple[int, Any]:
    return answer.status, answer.json


async def test_the_server_is_alive_and_says_so(hooks: Hooks) -> None:
    for path in ("/health", "/_health"):
        answer = await hooks.call(path, method="GET")
        assert answer.status == 200
        assert answer.json["status"] == "ok"
        assert answer.json["timestamp"].endswith("Z")
    assert answer.headers["server"] == "reqon"


async def test_post_put_and_patch_are_taken_and_nothing_else(hooks: Hooks) -> None:
    endpoint = hooks.endpoint(expected=5)
    for method in ("POST", "PUT", "PATCH"):
        assert (await hooks.call(data=method, method=method)).status == 200
    for method in ("GET", "DELETE", "OPTIONS"):
        answer = await hooks.call(method=method)
        assert plain(answer) == (405, {"error": "Method not allowed"})
        assert answer.headers["allow"] == "POST, PUT, PATCH"
    assert hooks.bodies(endpoint) == ["POST", "PUT", "PATCH"]


async def test_an_event_is_on_disk_before_it_is_acknowledged(hooks: Hooks, tmp_path: Path) -> None:
    """N6: and when it cannot be written, it is not."""
    endpoint = hooks.endpoint(expected=3)
    seen: list[tuple[str, int]] = []

    def look(name: str) -> None:
        if "webhook" in name:
            seen.append((name, len(hooks.shelf.names(endpoint.id))))

    arm("*", look)
    try:
        answer = await hooks.call(data={"n": 1})
    finally:
        arm("*", None)
    assert answer.json == {"success": True, "eventId": answer.json["eventId"], "received": 1, "expected": 3}
    assert ("before-webhook-event-sync", 0) in seen
    assert ("after-webhook-event-replace", 1) in seen
    (name,) = hooks.shelf.names(endpoint.id)
    assert (name.number, name.id) == (1, answer.json["eventId"])

    def fail(_name: str) -> None:
        raise OSError(28, os.strerror(28))

    arm("before-webhook-event-sync", fail)
    try:
        refused = await hooks.call(data={"n": 2})
    finally:
        arm("before-webhook-event-sync", None)
    assert refused.status == 503
    assert (await hooks.call(data={"n": 3})).json["received"] == 2
    assert [b["n"] for b in hooks.bodies(endpoint)] == [1, 3]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/nowhere", {}),
        ("/in", {}),
        ("/in?token=", {}),
        ("/in?token=0123456789abcdef0123456789abcdee", {}),
        ("/in?token=0123456789abcdef0123456789abcdef0", {}),
        ("/in", {"X-Reqon-Webhook-Token": "no"}),
        ("/in?token=%F0%9F%92%A9", {}),
        ("/in/", {"X-Reqon-Webhook-Token": TOKEN}),
        ("/IN", {"X-Reqon-Webhook-Token": TOKEN}),
    ],
)
async def test_no_token_a_wrong_one_and_an_unknown_path_are_answered_alike(
    hooks: Hooks, path: str, headers: dict[str, str]
) -> None:
    """N6: no, wrong token."""
    endpoint = hooks.endpoint(token=TOKEN)
    answer = await hooks.call(path, {"n": 1}, headers=headers)
    assert plain(answer) == NOT_FOUND
    assert endpoint.names == []
    assert [type(event) for event in hooks.told] == [WebhookRejected]
    assert TOKEN not in repr(hooks.told)


async def test_a_token_counts_in_the_query_and_in_the_header_until_its_wait_is_over(hooks: Hooks) -> None:
    """N6: an old token opens nothing."""
    endpoint = hooks.endpoint(token=TOKEN, expected=2)
    assert (await hooks.call(f"/in?x=1&token={TOKEN}", 1)).status == 200
    assert (await hooks.call("/in", 2, headers={"x-reqon-webhook-token": TOKEN})).status == 200
    stored = hooks.shelf.event(endpoint.id, endpoint.names[0])
    assert stored is not None
    assert stored.query == {"x": "1", "token": "***"}
    stored = hooks.shelf.event(endpoint.id, endpoint.names[1])
    assert stored is not None
    assert stored.headers["x-reqon-webhook-token"] == "***"
    hooks.server.desk.remove(endpoint)
    assert plain(await hooks.call(f"/in?token={TOKEN}", 3)) == NOT_FOUND


async def test_percent_signs_may_be_written_otherwise(hooks: Hooks) -> None:
    endpoint = hooks.endpoint("/a%20b%2Fc/~d", expected=2)
    assert (await hooks.call("/%61%20b%2fc/%7Ed", 1)).status == 200
    assert plain(await hooks.call("/a%20b/c/~d", 2)) == NOT_FOUND
    assert len(endpoint.names) == 1


async def test_an_expired_registration_is_gone(tmp_path: Path) -> None:
    clock = FakeClock()
    hooks = make_hooks(tmp_path, clock=clock)
    async with hooks.server:
        endpoint = hooks.endpoint(token=TOKEN, expected=2)
        endpoint.deadline = clock.monotonic() + 60
        clock.advance(59)
        assert (await hooks.call(f"/in?token={TOKEN}", 1)).status == 200
        clock.advance(1)
        assert plain(await hooks.call(f"/in?token={TOKEN}", 2)) == (410, {"error": "Gone"})
        assert plain(await hooks.call("/in", 2)) == NOT_FOUND
        hooks.server.desk.sweep()
        assert hooks.server.desk.endpoints() == [endpoint]  # its execution runs, and ends it itself
        hooks.server.leave(endpoint)
        hooks.server.desk.sweep()
        assert hooks.server.desk.endpoints() == []


# --- sizes and times --------------------------------------------------------------------------------------------------


async def _raw(hooks: Hooks, *pieces: bytes, then: Callable[[], None] | None = None) -> Answered:
    reader, writer = await asyncio.open_connection("127.0.0.1", hooks.server.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then is not None:
            then()
        return answered(await asyncio.wait_for(reader.read(), 60))
    finally:
        writer.close()


async def test_a_body_above_a_mebibyte_is_refused_by_its_length_and_while_it_is_read(hooks: Hooks) -> None:
    endpoint = hooks.endpoint(expected=9)
    limit = 1024 * 1024
    fits = json.dumps("x" * (limit - 2)).encode()
    assert len(fits) == limit
    answer = await hooks.call(body=fits, headers={"Content-Type": "application/json"})
    assert answer.status == 200
    said = await _raw(hooks, b"POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 314572800\r\n\r\n")
    assert plain(said) == (413, {"error": "Payload too large"})
    chunk = b"10000\r\n" + b"y" * 0x10000 + b"\r\n"
    head = b"POST /in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await _raw(hooks, head, *[chunk] * 16, chunk)).status == 413
    assert len(endpoint.names) == 1


async def test_a_body_is_not_read_for_who_may_not_call(hooks: Hooks) -> None:
    hooks.endpoint(token=TOKEN)
    head = b"POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 314572800\r\n\r\n"
    assert plain(await _raw(hooks, head)) == NOT_FOUND


async def test_heads_and_bodies_that_do_not_come_in_time(tmp_path: Path) -> None:
    hooks = make_hooks(tmp_path, limits=Limits(head_seconds=0.2, body_seconds=0.3))
    async with hooks.server:
        hooks.endpoint()
        slow = [
            b"",
            b"POST /in HTTP/1.1\r\nHost: x\r\nX-A: ",
            b"POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345",
        ]
        for head in slow:
            assert plain(await _raw(hooks, head)) == (408, {"error": "Request timeout"})
        # The second request of a connection, too.
        whole = request(hooks.server.url + "/health", method="GET", headers={"Connection": "keep-alive"})
        reader, writer = await asyncio.open_connection("127.0.0.1", hooks.server.port)
        writer.write(whole + b"POST /in HT")
        said = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert said.count(b"HTTP/1.1 200") == 1
    assert [e.status for e in hooks.told if isinstance(e, WebhookRejected)][:3] == [408, 408, 408]


async def test_one_connection_too_many_is_told_so(tmp_path: Path) -> None:
    hooks = make_hooks(tmp_path, limits=Limits(connections=3))
    async with hooks.server:
        hooks.endpoint()
        held = [await asyncio.open_connection("127.0.0.1", hooks.server.port) for _ in range(3)]
        await asyncio.sleep(0)
        busy = await hooks.call(data=1)
        assert (busy.status, busy.headers["retry-after"]) == (503, "5")
        held[0][1].close()
        async with asyncio.timeout(30):
            while (await hooks.call(data=1)).status != 200:
                await asyncio.sleep(0.01)
        for _, writer in held:
            writer.close()


async def test_a_caller_that_asks_first_is_told_to_go_on(hooks: Hooks) -> None:
    hooks.endpoint()
    head = b"POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", hooks.server.port)
    writer.write(head)
    assert (await asyncio.wait_for(reader.readline(), 30)) == b"HTTP/1.1 100 Continue\r\n"
    writer.write(b"42")
    assert b"200 OK" in await asyncio.wait_for(reader.read(), 30)
    writer.close()


async def test_at_ten_thousand_events_more_are_refused_for_now(hooks: Hooks) -> None:
    endpoint = hooks.endpoint(expected=20_000)
    endpoint.names = [EventName(n, f"evt_{n}") for n in range(1, desk.PENDING_MAX + 1)]
    answer = await hooks.call(data=1)
    assert (answer.status, answer.headers["retry-after"]) == (429, "30")


# --- signatures -------------------------------------------------------------------------------------------------------


GITHUB = Signature(secret=SECRET, header="X-Hub-Signature-256", prefix="sha256=")
STRIPE = Signature(secret=SECRET, header="Stripe-Signature", prefix="v1=", timestamp_header="Stripe-Signature")
STAMPED = Signature(secret=SECRET, header="X-Sig", timestamp_header="X-Time", algorithm="sha512", encoding="base64")
BODY = b'{"n":1}'
JSON_TYPE = {"Content-Type": "application/json"}


def stripe(stamp: int, body: bytes = BODY, secret: str = SECRET) -> dict[str, str]:
    return {"Stripe-Signature": f"t={stamp}, v1={'0' * 64},v1={signed(secret, b'%d.' % stamp + body)}, v0=x"}


async def test_signatures_as_github_makes_them(hooks: Hooks) -> None:
    """N6: no, wrong signature."""
    endpoint = hooks.endpoint(signature=GITHUB, expected=5)
    right = f"sha256={signed(SECRET, BODY)}"
    for headers in (
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": signed(SECRET, BODY)},
        {"X-Hub-Signature-256": f"sha256={signed('another', BODY)}"},
        {"X-Hub-Signature-256": f"sha256={signed(SECRET, BODY + b' ')}"},
        {"X-Hub-Signature-256": right[:-1]},
        {"X-Hub-Signature": right},
    ):
        assert plain(await hooks.call(body=BODY, headers=headers | JSON_TYPE)) == (401, {"error": "Unauthorized"})
    for value in (right, right.upper().replace("SHA256", "sha256")):
        assert (await hooks.call(body=BODY, headers={"X-Hub-Signature-256": value} | JSON_TYPE)).status == 200
    assert hooks.bodies(endpoint) == [{"n": 1}, {"n": 1}]


async def test_signatures_as_stripe_makes_them_are_of_now_and_count_once(hooks: Hooks) -> None:
    """N6: old and replayed signature."""
    endpoint = hooks.endpoint(signature=STRIPE, expected=5)
    now = int(SYSTEM.now().timestamp())
    for headers in (stripe(now - 301), stripe(now + 330), stripe(now, secret="x"), stripe(now, body=b"{}")):
        assert (await hooks.call(body=BODY, headers=headers | JSON_TYPE)).status == 401
    first = await hooks.call(body=BODY, headers=stripe(now - 200) | JSON_TYPE)
    assert first.json["received"] == 1
    again = await hooks.call(body=BODY, headers=stripe(now - 200) | JSON_TYPE)
    assert again.json == {"success": True, "duplicate": True}
    # The same content, signed anew, is a new call.
    assert (await hooks.call(body=BODY, headers=stripe(now - 199) | JSON_TYPE)).json["received"] == 2
    assert len(endpoint.names) == 2


async def test_stamps_may_be_instants_or_milliseconds_and_digests_base64(hooks: Hooks) -> None:
    hooks.endpoint(signature=STAMPED, expected=5)
    now = SYSTEM.now()
    for stamp in (rfc3339(now - timedelta(seconds=3)), str(int(now.timestamp() * 1000)), f"{now.timestamp():.3f}"):
        digest = hmac.digest(SECRET.encode(), stamp.encode() + b"." + BODY, hashlib.sha512)
        headers = {"X-Time": stamp, "X-Sig": base64.b64encode(digest).decode()}
        assert (await hooks.call(body=BODY, headers=headers | JSON_TYPE)).status == 200
    for stamp in ("", "soon", "nan", "1e400", "-5", "2026-01-01"):
        digest = hmac.digest(SECRET.encode(), stamp.encode() + b"." + BODY, hashlib.sha512)
        headers = {"X-Time": stamp, "X-Sig": base64.b64encode(digest).decode()}
        assert (await hooks.call(body=BODY, headers=headers | JSON_TYPE)).status == 401, stamp


async def test_a_signed_call_waits_until_its_secret_is_known_again(hooks: Hooks) -> None:
    """After a restart, until the execution is resumed: the secret is never on disk."""
    endpoint = hooks.endpoint(signature=GITHUB)
    endpoint.signature = None
    answer = await hooks.call(body=BODY, headers={"X-Hub-Signature-256": f"sha256={signed(SECRET, BODY)}"} | JSON_TYPE)
    assert (answer.status, answer.headers["retry-after"]) == (503, "30")
    assert SECRET.encode() not in b"".join(p.read_bytes() for p in hooks.shelf._registrations.iterdir())


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        ("application/json", b'\xef\xbb\xbf{"a": 9007199254740993}', {"a": 9007199254740993}),
        ("application/cloudevents+json; charset=utf-8", b"[1, null]", [1, None]),
        ("application/x-www-form-urlencoded", b"a=1&b=%C3%A9+x&a=2&c", {"a": ["1", "2"], "b": "é x", "c": ""}),
        ("text/plain", b"plain", "plain"),
        ("text/plain; charset=latin-1", b"caf\xe9", "café"),
        ("application/xml", b"<a/>", "<a/>"),
        (None, b'{"a": 1}', {"a": 1}),
        (None, b"no json", "no json"),
        ("application/json", b"", None),
        ("application/json", b'{"a":', 400),
        ("application/json", b"NaN", 400),
        ("application/json", b"[" * 300 + b"]" * 300, 400),
        ("application/x-www-form-urlencoded", b"a=%ff", 400),
        ("text/plain", b"\xff\xfe", 400),
        ("text/plain; charset=hex", b"00", 400),
        ("text/plain; charset=nonsense", b"00", 400),
        # Ways to write text that take for ever, or of which half a character comes out.
        ("text/plain; charset=punycode", b"abc-", 400),
        ("text/plain; charset=idna", b"abc", 400),
        ("text/plain; charset=unicode_escape", b"\\ud800", 400),
        ("text/plain; charset=utf-7", b"+2AA-", 400),
        ("application/json", b'"\\ud800"', 400),
        ("application/octet-stream", b"\x00\xff", 400),
    ],
)
async def test_a_body_is_what_its_content_type_says(hooks: Hooks, kind: str | None, body: bytes, value: Any) -> None:
    endpoint = hooks.endpoint()
    answer = await hooks.call(body=body, headers={} if kind is None else {"Content-Type": kind})
    if value == 400:
        assert plain(answer) == (400, {"error": "Bad request"})
        assert endpoint.names == []
    else:
        assert answer.status == 200
        assert hooks.bodies(endpoint) == [value]


# --- several endpoints ------------------------------------------------------------------------------------------------


async def test_of_several_under_one_path_the_oldest_that_wants_it_gets_the_event(hooks: Hooks) -> None:
    """N6: two runs on one path, told apart by token or filter."""
    first = hooks.endpoint(accepts=lambda body: body["to"] == 1)
    second = hooks.endpoint(accepts=lambda body: body["to"] == 2)
    third = hooks.endpoint(token=TOKEN, types=("paid",))
    assert (await hooks.call(data={"to": 2})).json["received"] == 1
    assert (await hooks.call(data={"to": 1})).json["received"] == 1
    assert plain(await hooks.call(data={"other": 1})) == (410, {"error": "Gone"})  # both have what they waited for
    assert (await hooks.call(f"/in?token={TOKEN}", {"type": "new"})).json == {"success": True, "filtered": True}
    assert (await hooks.call(f"/in?token={TOKEN}", {"type": "paid"})).status == 200
    assert [hooks.bodies(e) for e in (first, second, third)] == [[{"to": 1}], [{"to": 2}], [{"type": "paid"}]]
    told = [(e.registration_id, e.filtered) for e in hooks.told if isinstance(e, WebhookReceived)]
    assert told == [(second.id, False), (first.id, False), (third.id, True), (third.id, False)]


@pytest.mark.parametrize("header", ["webhook-id", "x-webhook-id", "x-github-delivery", "idempotency-key"])
async def test_a_delivery_counts_once(hooks: Hooks, header: str) -> None:
    endpoint = hooks.endpoint(expected=5)
    for value in ("a", "b" * 500):
        first = await hooks.call(data=1, headers={header: value})
        again = await hooks.call(data=1, headers={header.title(): value})
        assert (first.json["success"], again.json) == (True, {"success": True, "duplicate": True})
    assert len(endpoint.names) == 2
    endpoint.load()  # as after a restart
    assert (await hooks.call(data=1, headers={header: "a"})).json["duplicate"]


async def test_calls_at_once_never_take_one_place_twice(hooks: Hooks) -> None:
    endpoint = hooks.endpoint(expected=7)
    answers = await asyncio.gather(*[hooks.call(data=n, headers={"webhook-id": str(n % 10)}) for n in range(20)])
    taken = [a.json["received"] for a in answers if "received" in a.json]
    assert sorted(taken) == list(range(1, 8))
    assert len(hooks.shelf.names(endpoint.id)) == 7


# --- where it listens -------------------------------------------------------------------------------------------------


async def test_a_taken_port_is_one_line(hooks: Hooks) -> None:
    other = WebhookServer(port=hooks.server.port)
    with pytest.raises(ConfigurationError, match="is taken by another program") as refused:
        other.bind()
    assert refused.value.exit_code == 3
    assert len(refused.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    "url", ["hooks.example.com", "ftp://x", "https://", "https://x?a=1", "https://u:p@x", "https://["]
)
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--webhook-url"):
        WebhookServer(url=url)


@pytest.mark.parametrize(
    ("host", "url", "private"),
    [
        ("127.0.0.1", None, True),
        ("::1", "http://127.0.0.1:3000/x/", True),
        ("0.0.0.0", None, False),
        ("127.0.0.1", "https://hooks.example.com", False),
    ],
)
def test_only_loopback_on_both_sides_is_private(host: str, url: str | None, private: bool) -> None:
    server = WebhookServer(host=host, url=url)
    assert server.is_private is private
    assert not server.url.endswith("/")


async def test_what_listens_is_closed_with_it(tmp_path: Path) -> None:
    hooks = make_hooks(tmp_path)
    async with hooks.server:
        hooks.endpoint()
        port = hooks.server.port
        held = await asyncio.open_connection("127.0.0.1", port)
    assert await asyncio.wait_for(held[0].read(), 30) == b""
    held[1].close()
    with pytest.raises(ConnectionRefusedError):
        await call(f"http://127.0.0.1:{port}/in", 1)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"POST /in HTTP/9.9\r\n\r\n",
        b"POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    ],
)
async def test_a_connection_that_was_refused_is_freed_at_once(raw: bytes, hooks: Hooks) -> None:
    """N7: not only when Python looks for cycles, which it seldom does here."""

    async def refused() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", hooks.server.port)
        writer.write(raw)
        assert b" 400 " in await reader.readline()
        writer.transport.abort()

    await refused()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await refused()
        for _ in range(100):
            left = [found for found in gc.get_objects() if type(found) is Connection]
            if not left:
                break
            await asyncio.sleep(0.05)
        assert left == []
    finally:
        gc.enable()
