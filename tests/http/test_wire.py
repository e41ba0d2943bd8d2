import asyncio
import socket
from collections.abc import Mapping
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.clock import SYSTEM
from reqon.errors import FetchError
from reqon.http.addresses import origin_of, refusal
from reqon.http.bounds import Deadlines, Slots
from reqon.http.connections import Connections
from reqon.http.messages import Headers, SourceSettings
from reqon.http.proxies import proxy_for
from reqon.http.retry import RetryPolicy
from tests.http.conftest import get
from tests.support.servers import ScriptedServer, redirect, reply


async def asked(base: str, environment: Mapping[str, str], **settings: object) -> object:
    connections = Connections(clock=SYSTEM, environment=environment, state_directory=None, random=lambda: 0.5)
    source = SourceSettings(name="Depot", base=base, retry=RetryPolicy(max_attempts=1), **settings)  # type: ignore[arg-type]
    try:
        return (await connections.client(source, None, lambda _: None, lambda *_: False).send(get())).value
    except FetchError as error:
        return error
    finally:
        await connections.close()


@pytest.mark.parametrize(
    ("address", "trusted", "open_"),
    [
        ("93.184.216.34", False, True), ("2606:2800:220:1::1", False, True), ("127.0.0.1", False, False),
        ("127.0.0.1", True, True), ("10.1.2.3", False, False), ("10.1.2.3", True, True), ("::1", True, True),
        ("::1", False, False), ("169.254.169.254", True, False), ("169.254.1.1", True, False),
        ("fe80::1%eth0", True, False),
        ("fd00:ec2::254", True, False), ("fd00::1", True, True), ("fd00::1", False, False), ("0.0.0.0", True, False),
        ("::", True, False), ("224.0.0.1", True, False), ("ff02::1", True, False), ("255.255.255.255", True, False),
        ("::ffff:169.254.169.254", True, False), ("::ffff:127.0.0.1", False, False),
        ("64:ff9b::a9fe:a9fe", True, False),
        ("2002:a9fe:a9fe::", True, False), ("::169.254.169.254", True, False), ("100.64.0.1", False, False),
        ("192.0.0.192", False, False), ("nonsense", True, False),
        ("64:ff9b:1::a9fe:a9fe", True, False), ("64:ff9b:1::a00:1", False, False), ("::ffff:0:a9fe:a9fe", True, False),
        ("::ffff:0:a00:1", False, False), ("fec0::1", False, False), ("fec0::1", True, True),
    ],
)  # fmt: skip
def test_which_addresses_are_open_to_whom(address: str, trusted: bool, open_: bool) -> None:
    """N3"""
    assert (refusal(address, trusted=trusted) is None) == open_


@given(st.ip_addresses())
def test_what_data_names_reaches_global_addresses_only(address: object) -> None:
    """N3"""
    if refusal(str(address), trusted=False) is None:
        assert ip_address(str(address)).is_global
        assert refusal(str(address), trusted=True) is None


async def test_a_name_is_judged_by_the_address_that_is_connected(
    api: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N3"""
    async with ScriptedServer().on("*", reply(data="inside")) as inside:
        answers = ["93.184.216.34", "127.0.0.1"]
        real = socket.getaddrinfo

        def rebinding(host: str, port: object, *args: object, **more: object) -> object:
            if host == "rebind.example":
                address = answers[-1] if len(answers) == 1 else answers.pop(0)
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
            return real(host, port, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "getaddrinfo", rebinding)
        socket.getaddrinfo("rebind.example", 80)  # whoever looked before saw a harmless address
        api.on("/parcels", redirect(f"http://rebind.example:{inside.port}/x"))
        error = await asked(api.url, {})
        assert isinstance(error, FetchError) and error.kind == "origin_blocked" and "loopback" in error.message
        assert inside.seen == []


async def test_a_proxy_of_the_usual_variables_is_used(api: ScriptedServer) -> None:
    api.on("http://shop.invalid/parcels", reply(data="by proxy"))
    environment = {"http_proxy": f"127.0.0.1:{api.port}"}
    assert await asked("http://shop.invalid", environment) == "by proxy"
    assert api.seen[0].target == "http://shop.invalid/parcels"
    error = await asked("http://shop.invalid", environment | {"NO_PROXY": "other, .invalid"})
    assert isinstance(error, FetchError) and error.kind == "network" and "resolve" in error.message


@pytest.mark.parametrize("host", ["169.254.169.254", "0xa9fea9fe", "127.0.0.1", "localhost", "[::1]", "10.0.0.1"])
async def test_a_proxy_is_no_way_around_the_guard(api: ScriptedServer, host: str) -> None:
    """N3"""
    api.on("*", reply(data="inside")).on("http://shop.invalid/parcels", redirect(f"http://{host}/x"))
    error = await asked("http://shop.invalid", {"HTTP_PROXY": api.url})
    assert isinstance(error, FetchError) and error.kind == "origin_blocked", error
    assert len(api.seen) == 1


def test_which_proxy_serves_which_origin() -> None:
    environment = {
        "https_proxy": "http://user:proxy-secret@p:1",
        "ALL_PROXY": "p2:2",
        "no_proxy": "a.example,*.b.example:8",
    }
    assert proxy_for("https://c.example:443", environment) == "http://user:proxy-secret@p:1"
    assert proxy_for("http://c.example:80", environment) == "http://p2:2"
    for origin in ("https://a.example:443", "https://x.a.example:1", "https://x.b.example:8", "https://127.0.0.1:1"):
        assert proxy_for(origin, environment) is None
    assert proxy_for("https://nota.example:443", environment) is not None
    assert proxy_for("https://c.example:443", {}) is None


def test_an_origin_is_the_same_however_it_is_written() -> None:
    assert origin_of("HTTPS://API.Example/x") == origin_of("https://api.example:443") == "https://api.example:443"
    assert origin_of("http://[::1]/") == "http://[::1]:80"
    for url in (
        "api.example",
        "ftp://x",
        "http://",
        "http://u@x",
        "http://x:99999",
        "http://x:a",
        "http://[::1",
        "http://a b",
    ):
        with pytest.raises(ValueError, match=r"URL|IPv6|[Pp]ort"):
            origin_of(url)


def test_headers_are_found_in_any_case_and_lines_joined() -> None:
    headers = Headers(
        [(b"X-A", b"1"), (b"x-a", b"2"), (b"Set-Cookie", b"s"), (b"Caf\xe9", b"\xe9"), (b"U", "é".encode())]
    )
    assert headers["X-a"] == "1, 2" and "set-cookie" not in headers and headers["u"] == "é"
    assert dict(headers) == {"X-A": "1, 2", "Café": "é", "U": "é"} and headers.get("gone") is None


async def test_slots_are_handed_on_in_order_and_never_lost() -> None:
    slots, order = Slots(2), []

    async def use(name: int) -> None:
        await slots.take()
        try:
            order.append(name)
            await asyncio.sleep(0)
        finally:
            slots.give()

    tasks = [asyncio.ensure_future(use(n)) for n in range(30)]
    await asyncio.sleep(0)
    for n in range(5, 30, 3):
        tasks[n].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == sorted(order) and set(order) == set(range(30)) - set(range(5, 30, 3))
    assert slots.take_now() and slots.take_now() and not slots.take_now()


async def test_deadlines_end_what_is_late_and_leave_the_rest() -> None:
    deadlines = Deadlines()

    async def late() -> None:
        async with deadlines.within(1.0):
            await asyncio.sleep(30)

    async def cancelled_from_outside() -> None:
        async with deadlines.within(20.0):
            await asyncio.sleep(30)

    async def quick() -> str:
        async with deadlines.within(1.0):
            await asyncio.sleep(0.01)
        return "done"

    began = SYSTEM.monotonic()
    outside = asyncio.ensure_future(cancelled_from_outside())
    asyncio.get_running_loop().call_later(0.05, outside.cancel)
    results = await asyncio.gather(late(), quick(), outside, return_exceptions=True)
    assert [type(r) for r in results] == [TimeoutError, str, asyncio.CancelledError]
    assert 1.0 <= SYSTEM.monotonic() - began < 15
    deadlines.close()
