"""A process that runs missions for weeks stays as it was: memory, descriptors, threads, and what lies on the disk."""

import asyncio
import gc
import os
import threading
import time
from pathlib import Path

import pytest

from reqon.runner import Runner, RunnerSettings
from reqon.runtime.request import RunRequest
from reqon.state.records import ExecutionStatus
from tests.support.missions import parse_mission

SLOW = bool(os.environ.get("REQON_SLOW"))
RUNS, WARM = (10_000, 1000) if SLOW else (500, 100)
MIB = 1024 * 1024

MISSION = """
mission Often {{
  stateRetention: 2 seconds
  source Shop {{ auth: none, base: "http://127.0.0.1:{port}", retry: {{ maxAttempts: 1 }} }}
  store items: file("items")
  store seen: memory("seen")
  action Pull {{
    get "/items" {{ paginate: page(page, 20), until: response.page == 3 }}
    for item in response checkpoint every 10 {{
      map item -> Item {{ id: .id, name: uppercase(.name) }}
      store response -> items {{ key: .id }}
      store {{ id: item.id }} -> seen {{ key: .id }}
    }}
  }}
  run Pull
}}
"""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Three pages; every twentieth request on a connection is a fault, and ends it."""
    for number in range(1, 10_000):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        page = int(head.partition(b"page=")[2].split()[0])
        if number % 60 == 0:
            writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            break
        items = b",".join(b'{"id":%d,"name":"name %d"}' % (n, n) for n in range(20))
        body = b'{"items":[%b],"page":%d}' % (items, page)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
    writer.close()


def held() -> tuple[int, int, int]:
    """Resident bytes, open descriptors, threads."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208


@pytest.mark.slow
@pytest.mark.timeout(7200)
async def test_thousands_of_runs_leave_a_process_as_it_was(tmp_path: Path) -> None:
    """X1: one fault in twenty runs; memory + 20 MiB at most, descriptors and threads ± 0, disk as retention says."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    runner = Runner(RunnerSettings(state_directory=tmp_path), environment={})
    plan = runner.plan(parse_mission(MISSION.format(port=port)))
    request = RunRequest(mission=plan.name, path="often.vague", definition_hash=plan.definition_hash)
    outcomes: dict[ExecutionStatus, int] = {}
    before = (0, 0, 0)
    for number in range(RUNS):
        record = await runner.run(plan, request)
        outcomes[record.status] = outcomes.get(record.status, 0) + 1
        if number == WARM:
            # The loop's pool of threads has a bound and grows up to it as work comes together: that is no leak.
            await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.1) for _ in range(64)))
            before = held()
    bytes_now, descriptors, threads = held()
    assert outcomes[ExecutionStatus.FAILED] > RUNS // 40, "there were faults"
    assert outcomes[ExecutionStatus.COMPLETED] > RUNS // 2
    assert bytes_now - before[0] < 20 * MIB
    assert descriptors <= before[1]
    assert threads <= before[2]
    await asyncio.sleep(2.1)
    assert runner.sweep(plan) >= 0
    for folder in ("execution", "locks", "logs"):
        assert len(list((tmp_path / folder).iterdir())) < 20, folder
    await runner.close()
    server.close()
    await server.wait_closed()
