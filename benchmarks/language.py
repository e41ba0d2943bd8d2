"""The language by itself: how long a large mission takes to load, and what one item costs inside the engine.

    python -m benchmarks.language

CPU time of this process, so that what else the machine does counts little; the best of several rounds and the median.
"""

import asyncio
import gc
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reqon.diagnostics import Source
from reqon.lang.loader import load_text
from reqon.lang.parser import parse
from reqon.lang.program import MissionProgram
from reqon.runner import Runner, RunnerSettings
from reqon.runtime.execution import OpenStore
from reqon.runtime.plan import Plan
from reqon.runtime.request import RunRequest
from reqon.stores.base import WriteMode
from reqon.stores.memory import MemoryStore

LINES, ITEMS, ROUNDS = 2_000, 20_000, 7
LOAD_LIMIT_MS, ITEM_LIMIT_US = 150.0, 12.0
_STATES = ("ACTIVE", "TRIAL", "SUSPENDED", "CLOSED")

_STEP = """  action Sync{n} {{
    get "/orders" {{
      params: {{ region: "r{n}", limit: 100 }},
      paginate: page(page, 100), until: length(response.orders) == 0,
      retry: {{ maxAttempts: 4, backoff: linear }}
    }}
    match response {{
      {{ code: 404 }} -> skip,
      {{ error: e }} -> abort concat("orders of {n}: ", e),
      _ -> continue
    }}
    for order in response.orders where .status != "draft" and .total > {n} {{
      map order -> Line{n} {{
        id: .id,
        who: capitalize(trim(.first + " " + .last)),
        size: match .total {{ t where t > 500 => "large", t where t in 100..500 => "usual", _ => "small" }},
        net: round((.total - {n}) * 100) / 100
      }}
      validate response {{ assume .net >= 0 else "negative", assume length(.id) == 9 else error "bad id" }}
      store response -> lines {{ key: .id, upsert: true }}
    }}
  }}
"""


def large_mission(lines: int = LINES) -> str:
    """A mission of about so many lines that uses most of the language in each of its actions."""
    head = (
        'mission Large {\n  source Shop { auth: none, base: "https://shop.example.org" }\n  store lines: memory("l")\n'
    )
    count = (lines - 5) // _STEP.count("\n")
    names = " then ".join(f"Sync{n}" for n in range(count))
    return head + "".join(_STEP.format(n=n) for n in range(count)) + f"  run {names}\n}}\n"


def cpu_ms(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def one_action(lines: int = LINES) -> str:
    """The same steps in a single action, so that no part of the mission may wait for another."""
    text = large_mission(lines)
    head, _, rest = text.partition("  action Sync0 {\n")
    body = re.sub(r"  }\n  action Sync\d+ {\n", "", rest).rpartition("  run ")[0]
    return f"{head}  action Sync {{\n{body}  run Sync\n}}\n"


def loading() -> Iterator[tuple[str, float, float]]:
    """What each part of loading costs, in ms: the best and the median. Python's collector rests, as in `reqon`.

    A run compiles a step when it comes to it. What a user waits for is the text read and checked, the mission planned,
    and its first action compiled.
    """
    several, single = large_mission(), one_action()

    def begun(text: str) -> Plan:
        (mission,) = load_text(Source("large.vague", text)).missions
        return Plan(mission, environment={}).begin()

    def to_first_action() -> None:
        plan = begun(several)
        for step in plan.action(plan.stages[0].actions[0]).steps:
            assert step.function

    work: dict[str, Callable[[], object]] = {
        "parse": lambda: parse(Source("large.vague", several)),
        "parse, check": lambda: load_text(Source("large.vague", several)),
        "… and compile the first action": to_first_action,
        "… and compile all 90 actions": lambda: begun(several).compile(),
        "one action: to its first step": lambda: begun(single),
        "one action: compiled whole": lambda: begun(single).compile(),
    }
    gc.disable()
    for name, part in work.items():
        times = [cpu_ms(part) for _ in range(ROUNDS)]
        yield name, min(times), statistics.median(times)
    gc.enable()


def customers(count: int) -> Iterator[tuple[str, dict[str, object]]]:
    for n in range(count):
        key = f"cus_{n:05d}"
        yield (
            key,
            {
                "id": key,
                "firstName": f" Ann{n % 97} ",
                "lastName": f"Miller{n % 89}",
                "email": f"Ann.{n}@Example.org",
                "status": _STATES[n % 4],
                "total": (n * 7919 % 3_000_000) / 100,
                "address": {"city": f"City {n % 53}", "country": "NO"},
                "tags": ["a"] * (1 + n % 4),
            },
        )


class _Filled(Runner):
    """A runner whose store of customers is full before the run."""

    def fill(self, count: int) -> None:
        self.rows = list(customers(count))

    def open_store(self, plan: Plan, name: str, *given: Any, **more: Any) -> OpenStore:
        opened = super().open_store(plan, name, *given, **more)
        if name == "customers":
            assert isinstance(opened.store, MemoryStore)
            for key, row in self.rows:
                opened.store.put(key, row, WriteMode.REPLACE)
        return opened


def item_us(mission: MissionProgram, count: int) -> float:
    """CPU time of a run, per item, without that of a run of no items."""

    async def once(size: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            runner = _Filled(RunnerSettings(state_directory=Path(folder)), environment={})
            runner.fill(size)
            request = RunRequest(mission=mission.name, path=str(mission.path), definition_hash=mission.definition_hash)
            plan = runner.plan(mission)
            gc.collect()
            began = time.process_time()
            outcome = await runner.execute(plan, request)
            took = time.process_time() - began
            assert outcome.success, [error.format() for error in outcome.errors]
            await runner.close()
            return took

    filling = min(_filling(count) for _ in range(3))
    return (asyncio.run(once(count)) - asyncio.run(once(0)) - filling) / count * 1e6


def _filling(count: int) -> float:
    """What filling the store costs, which is no part of the mission."""
    store, rows = MemoryStore("customers"), list(customers(count))
    began = time.process_time()
    for key, row in rows:
        store.put(key, row, WriteMode.REPLACE)
    return time.process_time() - began


def main() -> None:
    lines = large_mission().count("\n")
    print(f"a mission of {lines} lines (limit {LOAD_LIMIT_MS:g} ms until its first action is compiled and begins)")
    for name, best, median in loading():
        print(f"  {name:32} {best:7.1f} ms   median {median:.1f} ms")
    source = (Path(__file__).parent / "normalize.vague").read_text("utf-8")
    (mission,) = load_text(Source("normalize.vague", source)).missions
    times = [item_us(mission, ITEMS) for _ in range(ROUNDS)]
    print(f"normalize.vague, {ITEMS:,} items (limit {ITEM_LIMIT_US:g} µs an item)")
    print(f"  {'an item':32} {min(times):7.2f} µs   median {statistics.median(times):.2f} µs")


if __name__ == "__main__":
    main()
