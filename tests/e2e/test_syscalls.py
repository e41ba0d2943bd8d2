"""Killed by the kernel at a chosen system call: whatever was on its way to the disk, the resume is exact."""

import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reqon.values import decode
from tests.e2e.test_kill import SLOW, finish_cleaning_up, record, stores
from tests.support.orders_api import OrdersApi
from tests.support.peers import needs
from tests.support.processes import COMMAND, environment, reqon

ITEMS = 300
WRITES = 200
CALLS = ("fsync", "fdatasync", "rename", "ftruncate", "unlink", "link", "write")
# Pages, a list stored as a whole, a loop over a store with an effect and a write for each item, checkpoints.
REMIND = """
mission Remind {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store orders: file("orders")
  store reminded: file("reminded")
  action List {{
    get "/orders" {{
      params: {{ limit: 100 }}, paginate: cursor(cursor, 100, "next_cursor"), until: response.next_cursor == null
    }}
    store response -> orders {{ key: .id }}
  }}
  action Tell {{
    for order in orders checkpoint every 60 {{
      post "/orders/{{order.id}}/notes" {{ body: {{ text: concat("about ", order.id) }} }}
      store {{ id: order.id }} -> reminded {{ key: .id }}
      delete orders[order.id]
    }}
  }}
  run List then Tell
}}
"""


@pytest.fixture(scope="module")
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=1, orders=ITEMS) as running:
        yield running


class Traced:
    """Runs of one mission under strace."""

    def __init__(self, api: OrdersApi, folder: Path) -> None:
        self.api, self.folder = api, folder
        self.strace = needs("strace")
        self.mission = folder / "remind.vague"
        self.mission.write_text(REMIND.format(url=api.url))

    def run(self, state: Path, *options: str) -> int:
        """Run it under strace with these options; how it ended, -9 for killed."""
        command = [self.strace, "-f", "--seccomp-bpf", "-qq", "-o", str(self.folder / "trace"), *options]
        command += [*COMMAND, str(self.mission), "--state-dir", str(state)]
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env=environment({"PYTHONDONTWRITEBYTECODE": "1"}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode in (0, -9, 137), ended.stderr.decode()
        return ended.returncode

    def counts(self) -> dict[str, int]:
        """How often one thread of an uncut run does each call; strace counts for each thread."""
        assert self.run(self.folder / "uncut", "-e", "trace=" + ",".join(CALLS)) == 0
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for line in (self.folder / "trace").read_text(errors="replace").splitlines():
            if found := re.match(r"(\d+)\s+(\w+)\(", line):
                seen[found[2]][found[1]] += 1
        return {call: max(seen[call].values(), default=0) for call in CALLS}

    def killed_at(self, call: str, number: int) -> None:
        """Kill it as it enters the call for the `number`-th time; resume; all must be as after an uncut run."""
        self.api.reset()
        state = self.folder / f"{call}-{number}"
        self.run(state, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
        if state.exists() and not finish_cleaning_up(state):
            ended = reqon(self.mission, "--resume", "--state-dir", state, cwd=self.folder)
            assert ended.code == 0, ended.text
        elif not state.exists():
            assert reqon(self.mission, "--state-dir", state, cwd=self.folder).code == 0
        assert stores(state) == stores(self.folder / "uncut")
        assert not list((state / "quarantine").glob("*")), "nothing was taken for damaged"
        told = Counter(note["order_id"] for note in self.api.notes())
        assert told.keys() == self.api.orders().keys()
        assert sum(told.values()) <= ITEMS + 1
        shown = record(state, self.folder)
        assert shown["status"] == "completed"
        assert shown["itemsProcessed"] == 2 * ITEMS
        assert not list((state / "execution").glob("*.journal"))
        assert decode(stores(state)["reminded.json"]).keys() == self.api.orders().keys()


@pytest.fixture(scope="module")
def traced(api: OrdersApi, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return Traced(api, tmp_path_factory.mktemp("traced"))


@pytest.fixture(scope="module")
def counts(traced: Traced) -> dict[str, int]:
    return traced.counts()


def numbers(call: str, count: int) -> Sequence[int]:
    """At which calls to kill: at all of them, of the writes at 200; in `make test` at one of each kind."""
    if SLOW:
        return range(1, count + 1, max(1, count // WRITES) if call == "write" else 1)
    return [max(1, count * 3 // 4)] if count else []


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_any_call_that_changes_the_disk_it_resumes(call: str, traced: Traced, counts: dict[str, int]) -> None:
    """D3: SIGKILL at each fsync, fdatasync, rename, ftruncate, unlink, link and 200 writes of a 300-item run."""
    assert counts[call], f"the run does no {call}"
    for number in numbers(call, counts[call]):
        traced.killed_at(call, number)
