"""Missions in worker processes: they look the same from outside, and none of them can take the daemon down."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reqon.values import decode
from tests.support.daemon_process import DaemonProcess
from tests.support.orders_api import OrdersApi
from tests.support.processes import soon

SLOW = bool(os.environ.get("REQON_SLOW"))
ITEMS = 3000 if SLOW else 300
KILLS = 50 if SLOW else 6

# Two file stores, a loop that only computes and one with a request for each item.
COPY = """
mission {name} {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} {options} }}
  store customers: file("{name}-customers")
  store towns: file("{name}-towns")
  action List {{
    get "/customers" {{ params: {{ per_page: 50 }}, paginate: page(page, 50), until: response.page >= response.pages }}
    for customer in response.customers checkpoint every 25 {{
      store {{ id: customer.id, name: uppercase(customer.name) }} -> customers {{ key: .id }}
    }}
  }}
  action Fetch {{
    for customer in customers checkpoint every 50 {{
      get "/customers/{{customer.id}}"
      store {{ id: customer.id, town: response.address.town }} -> towns {{ key: .id }}
    }}
  }}
  run List then Fetch
}}
"""
# One expression that keeps a processor busy for minutes: no await, no tick, no checkpoint.
BUSY = """
mission Busy {{
  timeout: 3 seconds
  store out: file("busy")
  action Count {{
    let some = map(split("{digits}", ""), x => x)
    store {{
      id: 1,
      n: length(map(some, a => map(some, b => map(some, c => map(some, d => map(some, e => concat(a, b, c, d, e)))))))
    }} -> out {{ key: .id }}
  }}
  run Count
}}
"""


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=ITEMS, orders=1) as running:
        yield running


def missions(folder: Path, **texts: str) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.vague").write_text(text)
    return folder


def children(pid: int) -> list[int]:
    """The workers of a daemon."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def records(state: Path, mission: str) -> list[Any]:
    found = [decode(path.read_bytes()) for path in sorted((state / "execution").glob(f"{mission}-*.json"))]
    return [record for record in found if record["mission"] == mission]


def ended(state: Path, mission: str) -> Any:
    """The record of the mission's only execution, once it is over."""

    def over() -> bool:
        return [r["status"] for r in records(state, mission)] not in ([], ["running"], ["interrupted"])

    soon(over, f"the end of {mission}", seconds=60)
    return records(state, mission)[0]


def test_runs_in_workers_look_the_same_and_survive_the_kill_of_their_worker(tmp_path: Path, api: OrdersApi) -> None:
    """D1 with --workers 2: workers killed at random moments; nothing lost, nothing twice, one item repeated at most."""
    text = COPY.format(name="Copy", url=api.url, options="")
    state = tmp_path / "state"
    chance = random.Random(11)
    killed = 0
    folder = missions(tmp_path / "missions", copy=text)
    # Without a target alerts go to the log.
    with DaemonProcess(folder, state, workers=2, alert_on_failure="true") as daemon:
        daemon.ready()
        daemon.ask("trigger", mission="Copy")
        while killed < KILLS:
            before = len(api.requests())
            soon(partial(_has_moved, api, before, state), "progress", seconds=60)
            time.sleep(chance.uniform(0, 0.15))
            workers = children(daemon.process.pid)
            if _is_over(state):
                break
            if workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed += 1
        done = ended(state, "Copy")
        assert done["status"] == "completed", daemon.text
        print(f"{killed} workers killed")
        assert killed > 0
        assert done["attempt"] <= killed + 1
        assert done["actionsRun"] == ["List", "Fetch"]
        assert done["itemsProcessed"] == 2 * ITEMS
        towns = decode((state / "stores" / "Copy-towns.json").read_bytes())
        assert {key: row["town"] for key, row in towns.items()} == {
            key: row["address"]["town"] for key, row in api.customers().items()
        }
        seen = Counter((r["method"], r["path"], *sorted(r["query"].items())) for r in api.requests())
        assert sum(seen.values()) - len(seen) <= killed
        daemon.said("alert firing: Copy was lost with its process", kind="crashed")
        # What a scrape shows came from the workers.
        succeeded = 'reqon_mission_runs_total{mission="Copy",status="success"}'
        soon(lambda: daemon.samples()[succeeded] == 1, "the count of runs")
        shown = daemon.samples()
        assert shown['reqon_http_requests_total{code="200",method="GET",source="Shop"}'] >= ITEMS
        daemon.signal()
        assert daemon.wait() == 0


def _has_moved(api: OrdersApi, before: int, state: Path) -> bool:
    return len(api.requests()) > before or _is_over(state)


def _is_over(state: Path) -> bool:
    return [r["status"] for r in records(state, "Copy")] == ["completed"]


def test_a_run_that_does_not_stop_is_killed_and_recorded(tmp_path: Path, api: OrdersApi) -> None:
    """Over its timeout in one long expression: failed with type `timeout`; a run beside it is begun anew."""
    folder = missions(
        tmp_path / "missions",
        busy=BUSY.format(digits="0123456789" * 8),
        copy=COPY.format(name="Copy", url=api.url, options=""),
    )
    state = tmp_path / "state"
    with DaemonProcess(folder, state, workers=1) as daemon:
        daemon.ready()
        daemon.said("worker ready", seconds=60)
        daemon.ask("trigger", mission="Busy")
        soon(lambda: bool(records(state, "Busy")), "the beginning of Busy", seconds=60)
        daemon.ask("trigger", mission="Copy")
        busy = ended(state, "Busy")
        assert busy["status"] == "failed"
        assert [error["type"] for error in busy["errors"]] == ["timeout"]
        assert daemon.get("/livez")[0] == 200
        assert ended(state, "Copy")["status"] == "completed"


GREEDY = """
mission Greedy {{
  source Shop {{ auth: none, base: "{url}" }}
  action Fill {{
    let line = "0123456789012345678901234567890123456789012345678901234567890123"
    let long = concat(line, line, line, line, line, line, line, line)
    let longer = concat(long, long, long, long, long, long, long, long)
    let wide = concat(longer, longer, longer, longer, longer, longer, longer, longer)
    let some = map(split(wide, ""), x => concat(longer, x))
    get "/customers/cust_0001"
    get "/customers" {{ params: {{ per_page: length(some) }} }}
  }}
  run Fill
}}
"""


def test_a_worker_that_holds_too_much_memory_is_killed_and_its_mission_given_up(tmp_path: Path, api: OrdersApi) -> None:
    state = tmp_path / "state"
    folder = missions(tmp_path / "missions", greedy=GREEDY.format(url=api.url))
    api.hold("/customers/cust_0001")
    with DaemonProcess(folder, state, workers=1, worker_memory="100MB") as daemon:
        daemon.ready()
        daemon.ask("trigger", mission="Greedy")
        record = ended(state, "Greedy")
        daemon.said("a worker holds too much memory and is killed")
        assert record["status"] == "failed"
        assert "resume gave up" in record["errors"][-1]["message"]
        assert daemon.get("/livez")[0] == 200


def test_workers_share_the_limits_of_a_source(tmp_path: Path, api: OrdersApi) -> None:
    """runtime.md 6.2: two missions in two processes keep to one quota together."""
    options = ", rateLimit: { requestsPerMinute: 20, strategy: fail }"
    texts = {
        name: f"""
mission {name} {{
  source Shop {{ auth: none, base: "{api.url}", retry: {{ maxAttempts: 1 }} {options} }}
  action Ask {{ for n in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {{ get "/customers" }} }}
  run Ask
}}
"""
        for name in ("First", "Second")
    }
    state = tmp_path / "state"
    with DaemonProcess(missions(tmp_path / "missions", **texts), state, workers=2) as daemon:
        daemon.ready()
        daemon.ask("trigger", mission="First")
        daemon.ask("trigger", mission="Second")
        both = [ended(state, name) for name in texts]
        assert len(api.requests()) == 20
        assert {error["type"] for record in both for error in record["errors"]} == {"rate_limit"}
        assert len(children(daemon.process.pid)) == 2


def test_a_stop_saves_what_runs_in_workers_and_they_leave(tmp_path: Path, api: OrdersApi) -> None:
    """daemon.md 7: SIGTERM to the whole group, as a service manager sends it; then a start goes on."""
    text = COPY.format(name="Copy", url=api.url, options="")
    state, folder = tmp_path / "state", missions(tmp_path / "missions", copy=text)
    api.hold("/customers/cust_0100")
    with DaemonProcess(folder, state, workers=2, shutdown_grace="0.5s") as daemon:
        daemon.ready()
        daemon.ask("trigger", mission="Copy")
        assert api.reached.wait(60)
        workers = children(daemon.process.pid)
        for pid in (*workers, daemon.process.pid):
            os.kill(pid, signal.SIGTERM)
        assert daemon.wait(30) == 0
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    (record,) = records(state, "Copy")
    assert record["status"] == "interrupted"
    assert record["activeStep"]["item"] == {"id": "cust_0100"}
    api.release()
    with DaemonProcess(folder, state, workers=2) as daemon:
        daemon.ready()
        assert ended(state, "Copy")["status"] == "completed"


def test_when_the_daemon_is_killed_its_workers_end_with_it(tmp_path: Path, api: OrdersApi) -> None:
    text = COPY.format(name="Copy", url=api.url, options="")
    state, folder = tmp_path / "state", missions(tmp_path / "missions", copy=text)
    api.hold("/customers/cust_0100")
    with DaemonProcess(folder, state, workers=2) as daemon:
        daemon.ready()
        daemon.ask("trigger", mission="Copy")
        assert api.reached.wait(60)
        workers = children(daemon.process.pid)
        assert workers
        daemon.process.kill()
        soon(lambda: not any(_lives(pid) for pid in workers), "the end of the workers")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
