"""A daemon that is told to stop: again and again in mid-run, with servers that keep it, at any moment of its start."""

import os
import random
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reqon.files import is_temporary
from reqon.values import Record, decode
from tests.support.daemon_process import DaemonProcess
from tests.support.orders_api import OrdersApi

SLOW = bool(os.environ.get("REQON_SLOW"))
STOPS = 100 if SLOW else 10
MOMENTS = 100 if SLOW else 10
CUSTOMERS = 40

EACH = """
mission Each {{
  schedule: every 1 hour
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store towns: file("towns")
  action List {{ get "/customers" {{ params: {{ per_page: 100 }} }} }}
  action Fetch {{
    for customer in response.customers {{
      get "/customers/{{customer.id}}"
      store {{ id: customer.id, town: response.address.town }} -> towns {{ key: .id }}
    }}
  }}
  run List then Fetch
}}
"""
PATIENT = """
mission {name} {{
  schedule: every 1 hour {{ runImmediately: true }}
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 3 }} }}
  store out: file("{name}")
  action Ask {{
    get "{path}"
    store {{ id: "done" }} -> out {{ key: .id }}
  }}
  run Ask
}}
"""
WAITING = """
mission Waiting {
  schedule: every 1 hour { runImmediately: true }
  store out: file("Waiting")
  action Wait {
    wait { timeout: 2 hours, path: "/in", token: none }
    store { id: "done" } -> out { key: .id }
  }
  run Wait
}
"""
PURE = """
mission Pure {
  schedule: every 1 hour { runImmediately: true }
  store out: memory("out")
  let ten = split("0,1,2,3,4,5,6,7,8,9", ",")
  action Work {
    for a in ten { for b in ten { for c in ten { for d in ten { for e in ten { for f in ten { for g in ten {
      let s = concat(a, b, c, d, e, f, g)
    } } } } } } }
  }
  run Work
}
"""


@pytest.fixture
def missions(tmp_path: Path) -> Path:
    folder = tmp_path / "missions"
    folder.mkdir()
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def records(state: Path) -> dict[str, Record]:
    """The latest execution of each mission."""
    found = [decode(path.read_bytes()) for path in (state / "execution").glob("*.json")]
    return {record["mission"]: record for record in sorted(found, key=lambda r: str(r["startedAt"]))}


@pytest.mark.timeout(3600)
def test_stopped_again_and_again_in_mid_run_it_saves_and_goes_on(missions: Path, state: Path) -> None:
    """L2: 100 times, a tenth by default: `interrupted` with `activeStep`, exit 0 in time, then as if uncut."""
    chance = random.Random(11)
    stops = executions = placed = 0
    record: Record = {}
    with OrdersApi(customers=CUSTOMERS, orders=1) as api:
        (missions / "each.vague").write_text(EACH.format(url=api.url))
        api.latency(0.03)
        while stops < STOPS:
            with DaemonProcess(missions, state, shutdown_grace="10ms") as daemon:
                daemon.ready()
                if not executions or record["status"] == "completed":
                    daemon.ask("trigger", mission="Each")
                    executions += 1
                daemon.said("mission.start", mission="Each")
                time.sleep(chance.uniform(0, 0.5))
                began = time.monotonic()
                daemon.signal()
                assert daemon.wait() == 0
                assert time.monotonic() - began < 20  # of a machine that others use
                assert "Traceback" not in daemon.text
            record = records(state)["Each"]
            assert record["status"] in ("interrupted", "completed")
            if record["status"] == "interrupted":
                stops += 1
                step = record.get("activeStep")  # none between two steps
                assert step is None or step["action"] in ("List", "Fetch")
                placed += step is not None
        if record["status"] == "interrupted":
            with DaemonProcess(missions, state) as daemon:
                daemon.ready().said("run ended", mission="Each", outcome="success")
        assert placed > stops / 2
        asked = api.stats()
        each = [asked[f"/customers/cust_{n:04d}"] for n in range(1, CUSTOMERS + 1)]
        assert min(each) == executions
        assert sum(each) <= executions * CUSTOMERS + stops  # what is in work when the grace is over is done again
        assert decode((state / "stores" / "towns.json").read_bytes()).keys() == api.customers().keys()


@contextmanager
def dripping() -> Iterator[str]:
    """The address of a server whose answer comes byte by byte, for an hour."""
    ended = threading.Event()

    class Drip(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 36000\r\n\r\n[")
            with suppress(OSError):
                while not ended.wait(0.1):
                    self.request.sendall(b" ")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Drip) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def test_whatever_a_run_waits_for_the_daemon_ends_in_time(missions: Path, state: Path) -> None:
    """L3: a hung server, a body that drips, a long `Retry-After`, a `wait`, a pure loop, all at once."""
    with OrdersApi(customers=4, orders=4) as api, OrdersApi(customers=4, orders=4) as other, dripping() as drip:
        api.hold("/customers/cust_0001")
        other.fail(503, "/orders", retry_after=15, times=1)
        for name, url, path in (
            ("Hung", api.url, "/customers/cust_0001"),
            ("Dripping", drip, "/"),
            ("Told", other.url, "/orders"),
        ):
            (missions / f"{name}.vague").write_text(PATIENT.format(name=name, url=url, path=path))
        (missions / "Waiting.vague").write_text(WAITING)
        (missions / "Pure.vague").write_text(PURE)
        names = {"Hung", "Dripping", "Told", "Waiting", "Pure"}
        with DaemonProcess(missions, state, shutdown_grace="1s", webhook=True, webhook_port=0) as daemon:
            daemon.ready()
            for name in names:
                daemon.said("mission.start", mission=name)
            assert api.reached.wait(60)
            daemon.said("fetch.retry", mission="Told")
            began = time.monotonic()
            daemon.signal()
            assert daemon.wait() == 0
            took = time.monotonic() - began
            assert "Traceback" not in daemon.text
        assert took < 15  # grace and 4 s; the rest for a busy machine
        saved = records(state)
        assert {name: saved[name]["status"] for name in names} == dict.fromkeys(names, "interrupted")
        assert all(saved[name]["activeStep"] for name in names)
        api.release()
        with DaemonProcess(missions, state, shutdown_grace="1s", webhook=True, webhook_port=0) as daemon:
            daemon.ready()
            for name in ("Hung", "Told"):
                daemon.said("run ended", mission=name, outcome="success")
            daemon.signal()
            assert daemon.wait() == 0


@pytest.mark.timeout(1800)
def test_a_signal_at_any_moment_of_the_start_leaves_nothing_half_made(missions: Path, state: Path) -> None:
    """L4: at 100 moments, a tenth by default: out within 2 s, loosely; the next start is whole."""
    (missions / "pure.vague").write_text(WAITING.replace('wait { timeout: 2 hours, path: "/in", token: none }', ""))
    for number in range(MOMENTS):
        with DaemonProcess(missions, state, alert_on_failure=True) as daemon:
            try:
                daemon.process.wait(1.5 * number / MOMENTS)
            except subprocess.TimeoutExpired:
                daemon.signal()
            began = time.monotonic()
            # Before our handler is there, the interpreter's own default ends the process: nothing was begun by then.
            assert daemon.wait() in (0, -15)
            assert time.monotonic() - began < 20  # of a machine that others use
            assert "Traceback" not in daemon.text
        assert not [path for path in state.rglob("*") if is_temporary(path.name)]
    with DaemonProcess(missions, state) as daemon:
        daemon.ready()
        assert not list(state.rglob("quarantine/*"))
