"""Webhooks with real processes: killed, stopped, attacked; no acknowledged event is lost (reliability.md N6, N7)."""

import asyncio
import http.client
import json
import os
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from reqon.values import decode
from tests.support.daemon_process import DaemonProcess
from tests.support.orders_api import OrdersApi
from tests.support.processes import Process, reqon, soon
from tests.support.webhooks import request

SLOW = bool(os.environ.get("REQON_SLOW"))
KILLS = 200 if SLOW else 10
REQUESTS = 100_000 if SLOW else 1_000
RECEIVED = "webhooks are received at"


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=12, orders=6) as running:
        yield running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def post(url: str, data: Any, **headers: str) -> tuple[int, Any]:
    """Call once; the status and what it said.

    Raises:
        OSError: nobody listens, or the connection was cut: whoever calls cannot know whether it was taken.
    """
    parts = urlsplit(url)
    client = http.client.HTTPConnection("127.0.0.1", parts.port or 80, timeout=30)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request("POST", target, json.dumps(data), {"Content-Type": "application/json", **names})
        answer = client.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        client.close()


def record(state: Path, cwd: Path) -> Any:
    return reqon("status", "--json", "--state-dir", state, cwd=cwd).json[0]


def store(state: Path, name: str) -> Any:
    return decode((state / "stores" / f"{name}.json").read_bytes())


class Sender(threading.Thread):
    """Calls with one number after the other, each until it is acknowledged, as long as it takes."""

    def __init__(self, url: str, total: int) -> None:
        super().__init__(daemon=True)
        self.url, self.total = url, total
        self.acknowledged: list[int] = []
        self.stop = threading.Event()

    def run(self) -> None:
        for number in range(self.total):
            while not self.stop.is_set():
                with suppress(OSError):
                    status, _ = post(self.url, {"n": number}, webhook_id=f"delivery-{number}")
                    if status == 200:
                        self.acknowledged.append(number)
                        break
                time.sleep(0.02)


COLLECT = """
mission Collect {{
  source Shop {{ auth: none, base: "http://127.0.0.1:1" }}
  store seen: file("seen")
  store result: file("result")
  action Wait {{
    wait {{ path: "/in", expectedEvents: {total}, timeout: 30 minutes, storage: {{ target: seen, key: .n }} }}
    store {{ id: "all", numbers: response.n }} -> result
  }}
  run Wait
}}
"""


def test_no_acknowledged_event_is_lost_and_none_counts_twice(tmp_path: Path) -> None:
    """N6: SIGKILL at random moments while a sender calls, and calls again what was not acknowledged."""
    total = KILLS * 25
    chance = random.Random(7)
    port = free_port()
    mission = tmp_path / "collect.vague"
    mission.write_text(COLLECT.format(total=total))
    arguments = [mission, "--state-dir", tmp_path / "state", "--webhook", "--webhook-port", port]
    sender = Sender(f"http://127.0.0.1:{port}/in", total)
    sender.start()
    resume: list[str] = []
    try:
        for _ in range(KILLS):
            with Process([*arguments, *resume], cwd=tmp_path) as process:
                process.said(RECEIVED, seconds=60)
                before = len(sender.acknowledged)
                soon(partial(_went_on, sender, before, process), "a call", seconds=60)
                time.sleep(chance.uniform(0, 0.08))
                process.kill()
            resume = ["--resume"]
        with Process([*arguments, *resume], cwd=tmp_path) as process:
            ended = process.wait(600)
            assert ended.code == 0, ended.text
    finally:
        sender.stop.set()
        sender.join(60)
    assert sender.acknowledged == list(range(len(sender.acknowledged)))
    numbers = store(tmp_path / "state", "result")["all"]["numbers"]
    assert sorted(numbers) == list(range(total))
    assert set(sender.acknowledged) <= set(numbers)
    assert len(store(tmp_path / "state", "seen")) == total


def _went_on(sender: Sender, before: int, process: Process) -> bool:
    return len(sender.acknowledged) > before or not process.running


# --- killed, stopped, resumed while it waits --------------------------------------------------------------------------

LOOP = """
mission Ask {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store answers: file("answers")
  action Ask {{
    let before = 41
    get "/orders" {{ params: {{ limit: 5 }} }}
    for order in response.orders {{
      post "/orders/{{order.id}}/notes" {{ body: {{ text: response.webhookUrl }} }}
      wait {{ timeout: 10 minutes, eventFilter: .order == order.id }}
      store {{ id: order.id, said: response.said, next: before + 1 }} -> answers {{ key: .id }}
    }}
  }}
  run Ask
}}
"""


def asked(api: OrdersApi, number: int) -> tuple[str, str]:
    """The order and the URL of the `number`-th request to call back, counted from 1."""
    note = soon(lambda: len(api.notes()) >= number and api.notes(), f"note {number}", seconds=60)[number - 1]
    return note["order_id"], note["text"]


@pytest.mark.parametrize("at", range(1, 6) if SLOW else (1, 3))
def test_a_killed_wait_goes_on_at_its_item_and_asks_nothing_again(at: int, api: OrdersApi, tmp_path: Path) -> None:
    """R1 for `wait`: killed while item k waits, `activeStep` shows k; an event of before the kill counts."""
    port = free_port()
    mission = tmp_path / "ask.vague"
    mission.write_text(LOOP.format(url=api.url))
    state = tmp_path / "state"
    arguments = [mission, "--state-dir", state, "--webhook", "--webhook-port", port]
    with Process(arguments, cwd=tmp_path) as process:
        for number in range(1, at):
            order, url = asked(api, number)
            assert post(url, {"order": order, "said": number})[0] == 200
        order, url = asked(api, at)
        soon(partial(_waits, state), "it waits", seconds=60)
        assert post(url, {"order": "another"}) == (202, {"success": True, "filtered": True})
        waits = lambda: record(state, tmp_path).get("activeStep", {}).get("index") == at - 1  # noqa: E731
        soon(waits, "the record shows the item", seconds=60)
        process.kill()
    found = record(state, tmp_path)
    assert found["status"] == "interrupted"
    assert found["activeStep"]["index"] == at - 1
    with pytest.raises(OSError, match="refused"):
        post(url, {"order": order, "said": at})  # nobody listens now: the sender has to call again
    with Process([*arguments, "--resume"], cwd=tmp_path) as process:
        process.said(RECEIVED, seconds=60)
        soon(lambda: post(url, {"order": order, "said": at})[0] == 200, "it takes the event")
        for number in range(at + 1, 6):
            order, url = asked(api, number)
            assert post(url, {"order": order, "said": number})[0] == 200
        assert process.wait(60).code == 0
    assert {r["said"] for r in store(state, "answers").values()} == {1, 2, 3, 4, 5}
    assert {r["next"] for r in store(state, "answers").values()} == {42}
    assert len(api.notes()) == 5


def test_a_stopped_wait_is_saved_at_once(api: OrdersApi, tmp_path: Path) -> None:
    """L3 for `wait`: SIGTERM wakes it, exit 143, resumable; the resume goes on with what had come."""
    port = free_port()
    mission = tmp_path / "collect.vague"
    mission.write_text(COLLECT.format(total=3))
    state = tmp_path / "state"
    arguments = [mission, "--state-dir", state, "--webhook", "--webhook-port", port, "--shutdown-grace", "10m"]
    with Process(arguments, cwd=tmp_path) as process:
        process.said(RECEIVED, seconds=60)
        url = f"http://127.0.0.1:{port}/in"
        soon(lambda: post(url, {"n": 0})[0] == 200, "it takes an event")
        process.signal(signal.SIGTERM)
        ended = process.wait(60)
    assert ended.code == 143
    assert record(state, tmp_path)["status"] == "interrupted"
    assert "--webhook --webhook-port" in ended.out
    with Process([*arguments, "--resume"], cwd=tmp_path) as process:
        for number in (1, 2):
            soon(partial(_taken, url, number), "it takes an event")
        assert process.wait(60).code == 0
    assert store(state, "result")["all"]["numbers"] == [0, 1, 2]


def _taken(url: str, number: int) -> bool:
    with suppress(OSError):
        return post(url, {"n": number})[0] == 200
    return False


def test_a_daemon_takes_events_for_an_interrupted_execution(api: OrdersApi, tmp_path: Path) -> None:
    """The mission gave its URL away and the daemon was killed; the next one takes the event, resumed or not yet."""
    missions, state, port = tmp_path / "missions", tmp_path / "state", free_port()
    missions.mkdir()
    (missions / "ask.vague").write_text(LOOP.format(url=api.url).replace("limit: 5", "limit: 1"))
    options: dict[str, object] = {"webhook": True, "webhook_port": port}
    with DaemonProcess(missions, state, **options) as daemon:
        daemon.ready()
        assert f"webhooks are received at http://127.0.0.1:{port}" in daemon.text
        daemon.ask("trigger", mission="Ask")
        order, url = asked(api, 1)
        assert urlsplit(url).netloc == f"localhost:{port}"
        daemon.process.kill()
        daemon.process.wait(20)
    with DaemonProcess(missions, state, **options, no_resume=True) as daemon:
        daemon.ready()
        assert (
            post(url, {"order": "another", "said": "no"}, webhook_id="1")[0] == 200
        )  # whether it counts, the wait says
        assert post(url, {"order": order, "said": "yes"}, webhook_id="2")[0] == 200
        assert post(url, {"order": order, "said": "yes"}, webhook_id="2")[1] == {"success": True, "duplicate": True}
    with DaemonProcess(missions, state, **options) as daemon:
        daemon.said("run ended", mission="Ask", outcome="success", seconds=60)
    assert store(state, "answers")[order]["said"] == "yes"
    assert len(api.notes()) == 1


def _waits(state: Path) -> bool:
    """Whether some endpoint's wait has begun, on disk."""
    return any(b'"waiting"' in path.read_bytes() for path in (state / "webhooks" / "registrations").glob("*.json"))


# --- attacked ---------------------------------------------------------------------------------------------------------


def status_of(pid: int, field: str) -> int:
    """A number of `/proc/PID/status`; sizes in KiB."""
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(next(line for line in text.splitlines() if line.startswith(f"{field}:")).split()[1])


def fuzzed(chance: random.Random, port: int) -> bytes:
    """A request that is right in parts: cut, bent, with rubbish."""
    raw = bytearray(request(f"http://127.0.0.1:{port}/in?token=x", {"n": chance.random()}))
    match chance.randrange(6):
        case 0:
            raw = raw[: chance.randrange(len(raw))]
        case 1:
            for _ in range(chance.randrange(1, 20)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
        case 2:
            raw = bytearray(chance.randbytes(chance.randrange(1, 4000)))
        case 3:
            raw[0:0] = chance.choice([b"GET ", b"\r\n", b"POST /in HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\n"])
        case 4:
            line = chance.choice(
                [
                    b"Content-Length: -1",
                    b"Content-Length: 99999999999999999999",
                    b"Transfer-Encoding: chunked",
                    b"Content-Encoding: gzip",
                    b"X: " + b"y" * chance.randrange(1, 20_000),
                    b"Upgrade: websocket\r\nConnection: upgrade",
                    b"Content-Type: " + chance.randbytes(30).replace(b"\r", b"").replace(b"\n", b""),
                    b"Expect: 100-continue",
                ]
            )
            raw = raw.replace(b"\r\nHost", b"\r\n" + line + b"\r\nHost", 1)
        case _:
            raw = raw.replace(b"/in?token=x", chance.choice([b"*", b"/%00%ff", b"//x", b"/in" * 3000, b"http://a/in"]))
    return bytes(raw)


async def _throw(port: int, number: int) -> None:
    chance = random.Random(3)
    waiting = asyncio.Semaphore(20)

    async def one(raw: bytes) -> None:
        async with waiting:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(raw)
                    if writer.can_write_eof():
                        writer.write_eof()
                    await asyncio.wait_for(reader.read(), 60)
                finally:
                    writer.transport.abort()

    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(one(fuzzed(chance, port)))


def _hold(port: int, number: int) -> list[socket.socket]:
    held = []
    for _ in range(number):
        one = socket.create_connection(("127.0.0.1", port), 30)
        with suppress(OSError):
            one.sendall(b"POST /in HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        held.append(one)
    return held


def _send_much(port: int, size: int) -> bytes:
    """A body of so many bytes without a length; what came back."""
    with socket.create_connection(("127.0.0.1", port), 60) as one:
        one.sendall(b"POST /in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b"z" * 0x100000 + b"\r\n"
        with suppress(OSError):
            for _ in range(size // 0x100000):
                one.sendall(chunk)
        with suppress(OSError):
            return one.recv(1000)
    return b""


def test_nothing_that_comes_over_the_wire_brings_the_server_down(tmp_path: Path) -> None:
    """N7: fuzzed requests, 1,000 half-open connections, a body of 300 MB: alive, bounded, and still receiving."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096) if hard > 0 else 4096, hard))
    port = free_port()
    mission = tmp_path / "collect.vague"
    mission.write_text(COLLECT.format(total=50_000).replace('path: "/in",', 'path: "/in", eventFilter: .real == true,'))
    arguments = [mission, "--state-dir", tmp_path / "state", "--webhook", "--webhook-port", port]
    url = f"http://127.0.0.1:{port}/in"
    try:
        with Process(arguments, cwd=tmp_path) as process:
            process.said(RECEIVED, seconds=60)
            soon(lambda: post(url, {"real": False})[0] == 202, "it waits")
            asyncio.run(_throw(port, 200))  # what a process needs to be warm
            pid = process.process.pid
            before = status_of(pid, "VmRSS")
            asyncio.run(_throw(port, REQUESTS))
            held = _hold(port, 1000)
            for size in (300 << 20, 300 << 20):
                said = _send_much(port, size)
                assert not said or said.startswith((b"HTTP/1.1 413", b"HTTP/1.1 503")), said
            for one in held:
                one.close()
            soon(lambda: _accepted(url), "it receives", seconds=60)
            assert status_of(pid, "Threads") <= 40
            assert status_of(pid, "VmRSS") - before <= 20 * 1024
            process.signal(signal.SIGTERM)
            assert process.wait(60).code == 143
            assert "Traceback" not in process.err
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _accepted(url: str) -> bool:
    with suppress(OSError):
        return post(url, {"real": True, "n": 1})[0] == 200
    return False
