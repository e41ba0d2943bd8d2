"""Real processes, really killed: a resumed run goes on where it was, and its stores equal those of an uncut run."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reqon.state.backend import last_place
from reqon.state.directory import StateDirectory
from reqon.state.file import FileBackend
from reqon.state.recovery import recover
from reqon.stores.registry import open_store
from reqon.values import decode
from tests.support.orders_api import OrdersApi
from tests.support.processes import Ended, Process, reqon, soon

SLOW = bool(os.environ.get("REQON_SLOW"))
ITEMS = 10_000 if SLOW else 600
KILLS = 500 if SLOW else 24

# Pages, a memory store, two file stores, a loop that only computes and one with a request for each item.
COPY = """
mission Copy {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store customers: file("customers")
  store towns: file("towns")
  store names: memory("names")
  action List {{
    get "/customers" {{ params: {{ per_page: 40 }}, paginate: page(page, 40), until: response.page >= response.pages }}
    for customer in response.customers checkpoint every 25 {{
      store customer -> customers {{ key: .id }}
      store {{ id: customer.id, name: uppercase(customer.name) }} -> names {{ key: .id }}
    }}
  }}
  action Fetch {{
    for named in names checkpoint every 50 {{
      get "/customers/{{named.id}}"
      store {{ id: named.id, name: named.name, town: response.address.town }} -> towns {{ key: .id }}
    }}
  }}
  run List then Fetch
}}
"""
# One request with an effect for each item; the API does not know about idempotency keys here.
REMIND = """
mission Remind {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store reminded: file("reminded")
  action List {{
    get "/orders" {{
      params: {{ limit: 100 }},
      paginate: cursor(cursor, 100, "next_cursor"),
      until: response.next_cursor == null
    }}
  }}
  action Tell {{
    for order in response.orders checkpoint every 100 {{
      post "/orders/{{order.id}}/notes" {{ body: {{ text: concat("about ", order.id) }} }}
      store {{ id: order.id }} -> reminded {{ key: .id }}
    }}
  }}
  run List then Tell
}}
"""


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=12, orders=12) as running:
        yield running


def stores(state: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (state / "stores").glob("*.json")}


def record(state: Path, cwd: Path) -> Any:
    """The last execution, as anybody may look at it."""
    return reqon("status", "--json", "--state-dir", state, cwd=cwd).json[0]


def place(state: Path) -> Mapping[str, Any]:
    """Where the journal says that the only execution is."""
    backend = FileBackend(StateDirectory(state))
    return last_place(backend.journal(backend.list(limit=1)[0]))


def repeated(api: OrdersApi) -> int:
    """How many requests were sent more often than once."""
    seen = Counter((r["method"], r["path"], *sorted(r["query"].items())) for r in api.requests())
    return sum(seen.values()) - len(seen)


def finish_cleaning_up(state: Path) -> bool:
    """Whether a killed run had completed; then what it could not clean up is, as by whoever comes next."""
    if not any(b'"status": "completed"' in r.read_bytes() for r in (state / "execution").glob("*.json")):
        return False
    for log in (state / "stores").glob("*.log"):
        open_store("file", log.stem, {}, directory=log.parent, mission_directory=state).close()
    directory = StateDirectory(state).open()
    recover(FileBackend(directory), directory)
    return True


def traces(state: Path) -> dict[str, int]:
    """The files that tell of a run's work, with their sizes."""
    sizes = {}
    for path in (*state.glob("execution/*.journal"), *state.glob("stores/*.log")):
        with suppress(FileNotFoundError):
            sizes[path.name] = path.stat().st_size
    return sizes


def kill_and_resume(
    mission: Path,
    state: Path,
    api: OrdersApi,
    *,
    kills: int,
    moment: Callable[[], float],
    options: Sequence[object] = (),
    found: Callable[[], object] = bool,
    begun: bool = False,
) -> int:
    """A run to its end, killed so often at most, `moment` seconds into each attempt's work; how often it was.

    `found` is called when a killed process has left the run unfinished.
    """
    killed = 0
    resume = ("--resume",) if begun else ()
    while True:
        before = api.count(), traces(state)
        with Process([mission, "--state-dir", state, *options, *resume], cwd=mission.parent) as process:
            resume = ("--resume",)
            if killed < kills:
                # A kill while Python is still starting would prove nothing.
                began = partial(lambda b, p: (api.count(), traces(state)) != b or not p.running, before, process)
                soon(began, "work or the end", seconds=60)
                time.sleep(moment())
                if process.running:
                    process.kill()
                    if finish_cleaning_up(state):
                        return killed
                    killed += 1
                    found()
                    continue
            ended = process.wait(600)
            assert ended.code == 0, ended.text
            return killed


def contents(state: Path, name: str, copy: Path) -> dict[str, Any]:
    """What the files of a killed process say a store holds; they stay as they are."""
    copy.mkdir()
    for path in (state / "stores").glob(f"{name}.*"):
        shutil.copy(path, copy)
    store = open_store("file", name, {}, directory=copy, mission_directory=state)
    held = {key: store.get(key) for key in store.keys()}  # noqa: SIM118  # a method of the store
    store.close()
    shutil.rmtree(copy)
    return held


def assert_nothing_wrong(state: Path, loops: Mapping[str, str], uncut: Mapping[str, Any]) -> None:
    """Just after a kill: each store holds records of the uncut run only, and all that the journal counts as done."""
    now = place(state)
    for action, name in loops.items():
        held = contents(state, name, state / "copy")
        assert held.items() <= uncut[name].items()
        if now.get("a") == action:
            assert len(held) >= now["i"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.timeout(7200 if SLOW else 300)
def test_killed_anywhere_and_resumed_the_stores_are_those_of_an_uncut_run(seed: int, tmp_path: Path) -> None:
    """D1: SIGKILL at random moments of pages and loops; nothing lost, nothing twice, one item repeated at most."""
    with OrdersApi(customers=ITEMS, orders=1) as api:
        mission = tmp_path / "copy.vague"
        mission.write_text(COPY.format(url=api.url))
        assert reqon(mission, "--state-dir", tmp_path / "uncut", cwd=tmp_path, seconds=600).code == 0
        uncut = stores(tmp_path / "uncut")
        assert len(decode(uncut["towns.json"])) == ITEMS
        rows = {name: decode(uncut[f"{name}.json"]) for name in ("customers", "towns")}
        # Of the full number about forty kills cut one run.
        longest = record(tmp_path / "uncut", tmp_path)["durationMs"] / 1000 / (20 if SLOW else 4)
        chance = random.Random(seed)
        left, turn = KILLS // 2, 0
        while left > 0:
            turn += 1
            api.reset()
            state = tmp_path / f"killed-{turn}"
            killed = kill_and_resume(
                mission,
                state,
                api,
                kills=left,
                moment=lambda: chance.uniform(0, longest),
                found=partial(assert_nothing_wrong, state, {"List": "customers", "Fetch": "towns"}, rows),
            )
            left -= max(1, killed)
            print(f"turn {turn}: {killed} kills, {left} left", flush=True)
            assert stores(state) == uncut
            assert repeated(api) <= killed
            done = record(state, tmp_path)
            assert done["status"] == "completed"
            assert done["attempt"] == killed + 1
            assert done["actionsRun"] == ["List", "Fetch"]
            assert done["itemsProcessed"] == 2 * ITEMS
            assert not list((state / "execution").glob("*.journal"))
            shutil.rmtree(state)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.timeout(7200 if SLOW else 300)
def test_each_item_reaches_the_outside_and_at_most_one_twice_a_kill(seed: int, tmp_path: Path) -> None:
    """D2: one POST for each item, SIGKILL at random moments."""
    chance = random.Random(seed)
    left, turn = KILLS // 2 if SLOW else KILLS // 3, 0
    with OrdersApi(customers=1, orders=ITEMS) as api:
        mission = tmp_path / "remind.vague"
        mission.write_text(REMIND.format(url=api.url))
        rows = {order: {"id": order} for order in api.orders()}
        while left > 0:
            turn += 1
            api.reset()
            state = tmp_path / f"killed-{turn}"
            killed = kill_and_resume(
                mission,
                state,
                api,
                kills=left,
                moment=lambda: chance.uniform(0, 0.4 if SLOW else 0.2),
                found=partial(assert_nothing_wrong, state, {"Tell": "reminded"}, {"reminded": rows}),
            )
            left -= max(1, killed)
            print(f"turn {turn}: {killed} kills, {left} left", flush=True)
            notes = Counter(note["order_id"] for note in api.notes())
            assert notes.keys() == api.orders().keys()
            assert sum(notes.values()) - len(notes) <= killed
            assert decode(stores(state)["reminded.json"]).keys() == api.orders().keys()


# Pages into memory stores, as they came, mapped and merged: all of it is in the journal, partly by reference.
REMEMBER = """
mission Remember {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store people: memory("people")
  store tiers: memory("tiers")
  store seen: memory("seen")
  store towns: file("towns")
  store all: file("all")
  action List {{
    get "/customers" {{ params: {{ per_page: 50 }}, paginate: page(page, 50), until: response.page >= response.pages }}
    store response -> people {{ key: .id }}
    store response -> tiers {{ key: .tier, upsert: true }}
    for one in response.customers {{ store {{ id: one.id, name: uppercase(one.name) }} -> people {{ upsert: true }} }}
  }}
  action Fetch {{
    for one in people checkpoint every 50 {{
      get "/customers/{{one.id}}"
      store {{ id: one.id }} -> seen
      store {{ id: one.id, name: one.name, town: response.address.town }} -> towns
    }}
  }}
  action Save {{
    for one in people {{ store one -> all }}
    for one in tiers {{ store one -> all {{ key: .tier }} }}
    for one in seen {{ store {{ id: concat("seen ", one.id) }} -> all }}
  }}
  run List then Fetch then Save
}}
"""


def test_memory_stores_are_filled_again_after_kills_and_a_compaction(tmp_path: Path) -> None:
    """D1: what memory stores held comes back from a journal whose useless entries have been cut out."""
    items = 3000 if SLOW else 600
    options = ("--journal-max", str(items * 800))
    with OrdersApi(customers=items, orders=1) as api:
        mission = tmp_path / "remember.vague"
        mission.write_text(REMEMBER.format(url=api.url))
        assert reqon(mission, "--state-dir", tmp_path / "uncut", cwd=tmp_path, seconds=600).code == 0
        uncut = stores(tmp_path / "uncut")
        assert len(decode(uncut["all.json"])) == 2 * items + 2
        for seed in range(10 if SLOW else 1):
            state, chance = tmp_path / f"killed-{seed}", random.Random(seed)
            api.reset()
            with held(api, mission, state, f"/customers/cust_{items * 9 // 10:04d}", options=options) as process:
                process.kill()
            (journal,) = (state / "execution").glob("*.journal")
            assert journal.read_bytes().count(b'{"t":"progress"') < items // 2, "it was compacted"
            api.release()
            killed = 1 + kill_and_resume(
                mission,
                state,
                api,
                begun=True,
                kills=6,
                moment=partial(chance.uniform, 0, 0.1),
                options=options,
            )
            assert stores(state) == uncut
            assert repeated(api) <= killed


@contextmanager
def held(
    api: OrdersApi, mission: Path, state: Path, path: str, *, at: int = 1, options: Sequence[object] = ()
) -> Iterator[Process]:
    """A run whose request is being held."""
    api.hold(path, at=at)
    with Process([mission, "--state-dir", state, *options], cwd=mission.parent) as process:
        assert api.reached.wait(30), process.err
        yield process


LOOP = """
mission Loop {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store towns: file("towns")
  action List {{ get "/customers" {{ params: {{ per_page: 50 }} }} }}
  action Fetch {{
    for customer in response.customers where .id != "cust_0002" {{
      get "/customers/{{customer.id}}"
      store {{ id: customer.id, town: response.address.town }} -> towns {{ key: .id }}
    }}
  }}
  run List then Fetch
}}
"""


@pytest.mark.parametrize("number", range(1, 51) if SLOW else (1, 3, 7, 12))
def test_a_loop_goes_on_at_the_item_in_work(number: int, api: OrdersApi, tmp_path: Path) -> None:
    """R1: killed while item k is in work, `activeStep` shows k, and nothing done is sent again."""
    number = (number - 1) % 12 + 1
    item = f"cust_{number:04d}"
    index = number - 1 - (number > 2)
    mission, state = tmp_path / "loop.vague", tmp_path / "state"
    mission.write_text(LOOP.format(url=api.url))
    if item == "cust_0002":
        return  # filtered
    with held(api, mission, state, f"/customers/{item}") as process:
        hangs = record(state, tmp_path)
        process.kill()
    shown = record(state, tmp_path)
    assert (hangs["status"], shown["status"]) == ("running", "interrupted")
    for seen_now in (hangs, shown):
        assert seen_now["activeStep"]["action"] == "Fetch"
        assert seen_now["activeStep"]["index"] == index
        assert seen_now["activeStep"]["item"] == {"id": item}
        assert seen_now["itemsProcessed"] == (index or 12), "fetched items, while no others are done"
        assert seen_now["stores"]["towns"]["count"] == seen_now["stores"]["towns"]["added"] == index
    api.release()
    assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
    assert record(state, tmp_path)["itemsProcessed"] == 11
    seen = api.stats()
    assert seen.pop("/customers") == 1
    assert seen.pop(f"/customers/{item}") == 2
    assert set(seen.values()) <= {1}
    assert len(decode(stores(state)["towns.json"])) == 11


PAGES = """
mission Pages {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store customers: file("customers")
  action List {{
    get "/customers" {{ params: {{ per_page: 2 }}, paginate: page(page, 2), until: response.page >= response.pages }}
    store response -> customers {{ key: .id }}
  }}
  run List
}}
"""


@pytest.mark.parametrize("page", range(1, 7) if SLOW else (1, 2, 6))
def test_paging_goes_on_at_the_page_in_work(page: int, api: OrdersApi, tmp_path: Path) -> None:
    """R1: killed while page k is being fetched, the pages before it are not asked for again."""
    mission, state = tmp_path / "pages.vague", tmp_path / "state"
    mission.write_text(PAGES.format(url=api.url))
    with held(api, mission, state, "/customers", at=page) as process:
        process.kill()
    shown = record(state, tmp_path)
    assert shown["status"] == "interrupted"
    assert shown["activeStep"]["action"] == "List"
    api.release()
    assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
    asked = [int(request["query"]["page"]) for request in api.requests("/customers")]
    assert asked == [*range(1, page + 1), *range(page, 7)]
    assert len(decode(stores(state)["customers.json"])) == 12


def test_a_parallel_loop_repeats_only_what_was_in_work(api: OrdersApi, tmp_path: Path) -> None:
    """R1: killed with several items in work, none that was done is sent again, and none is left out."""
    mission, state = tmp_path / "parallel.vague", tmp_path / "state"
    mission.write_text(LOOP.format(url=api.url).replace('where .id != "cust_0002"', "parallel"))
    with held(api, mission, state, "/customers/cust_0004") as process:
        # The others go on beside the one that is held.
        soon(lambda: len(api.stats()) == 13, "the other items")
        soon(lambda: place(state).get("i") == 3 and len(place(state).get("done", ())) == 8, "their answers", seconds=60)
        process.kill()
    shown = record(state, tmp_path)
    assert shown["activeStep"]["index"] == 3
    api.release()
    assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
    seen = api.stats()
    assert seen.pop("/customers") == 1
    assert seen.pop("/customers/cust_0004") == 2
    # One whose answer was still on its way when it was killed; here there is one task left besides the held one.
    assert sum(seen.values()) - len(seen) <= 2
    assert len(decode(stores(state)["towns.json"])) == 12


NESTED = """
mission Nested {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store orders: file("orders")
  action List {{ get "/customers" {{ params: {{ per_page: 50 }} }} }}
  action Fetch {{
    for customer in response.customers {{
      get "/customers/{{customer.id}}/orders"
      for order in response.orders {{
        get "/orders/{{order.id}}"
        store response -> orders {{ key: .id }}
      }}
    }}
  }}
  run List then Fetch
}}
"""


def test_a_nested_loop_repeats_one_outer_item_at_most(tmp_path: Path) -> None:
    """R1: killed inside the inner loop, `activeStep` shows the outer item; only that one's requests are repeated."""
    with OrdersApi(customers=6, orders=24) as api:
        mission, state = tmp_path / "nested.vague", tmp_path / "state"
        mission.write_text(NESTED.format(url=api.url))
        third = [o for o, order in api.orders().items() if order["customer_id"] == "cust_0003"]
        assert len(third) > 2
        with held(api, mission, state, f"/orders/{third[1]}") as process:
            process.kill()
        shown = record(state, tmp_path)
        assert shown["activeStep"]["index"] == 2
        assert shown["activeStep"]["item"] == {"id": "cust_0003"}
        api.release()
        assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
        again = {path for path, times in api.stats().items() if times > 1}
        assert again <= {"/customers/cust_0003/orders", f"/orders/{third[0]}", f"/orders/{third[1]}"}
        assert decode(stores(state)["orders.json"]).keys() == api.orders().keys()


# --- told to stop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_finishes_the_item_and_saves(number: signal.Signals, api: OrdersApi, tmp_path: Path) -> None:
    """L2: `interrupted` with `activeStep`, exit 143 or 130, and the resumed run is as good as an uncut one."""
    mission, state = tmp_path / "loop.vague", tmp_path / "state"
    mission.write_text(LOOP.format(url=api.url))
    with held(api, mission, state, "/customers/cust_0005") as process:
        process.signal(number)
        process.said("stopping")
        api.release()
        ended = process.wait(60)
    assert ended.code == 128 + number
    assert "Traceback" not in ended.text
    shown = record(state, tmp_path)
    assert shown["status"] == "interrupted"
    assert shown["activeStep"]["index"] == 4  # the item in work was finished
    assert f"--resume --execution {shown['executionId']}" in ended.out
    assert "/customers/cust_0006" not in api.stats()
    assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
    seen = api.stats()
    assert set(seen.values()) == {1}
    assert len(decode(stores(state)["towns.json"])) == 11


def test_a_hung_server_does_not_keep_it(api: OrdersApi, tmp_path: Path) -> None:
    """L3: the item in work is given up after the grace, saved, and done again by the resumed run."""
    mission, state = tmp_path / "loop.vague", tmp_path / "state"
    mission.write_text(LOOP.format(url=api.url))
    api.hold("/customers/cust_0005")
    with Process([mission, "--state-dir", state, "--shutdown-grace", "1s"], cwd=tmp_path) as process:
        assert api.reached.wait(30), process.err
        began = time.monotonic()
        process.signal()
        ended = process.wait(60)
        assert time.monotonic() - began < 15
    assert ended.code == 143, ended.text
    assert "Traceback" not in ended.text
    shown = record(state, tmp_path)
    assert shown["status"] == "interrupted"
    assert shown["activeStep"]["index"] == 3
    api.release()
    assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
    assert api.stats()["/customers/cust_0004"] == 1
    assert len(decode(stores(state)["towns.json"])) == 11


def test_a_long_wait_is_left_at_once(api: OrdersApi, tmp_path: Path) -> None:
    """L3: a run that sleeps because of a long Retry-After is woken and saved, whatever the grace."""
    mission, state = tmp_path / "loop.vague", tmp_path / "state"
    mission.write_text(LOOP.format(url=api.url).replace("maxAttempts: 1", "maxAttempts: 3"))
    api.fail(503, "/customers/cust_0005", retry_after=50)
    with Process([mission, "--state-dir", state], cwd=tmp_path) as process:
        process.said("retrying")
        began = time.monotonic()
        process.signal()
        ended = process.wait(60)
        assert time.monotonic() - began < 15
    assert ended.code == 143, ended.text
    shown = record(state, tmp_path)
    assert shown["status"] == "interrupted"
    assert shown["activeStep"]["index"] == 3
    assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
    assert len(decode(stores(state)["towns.json"])) == 11


PURE = """
mission Pure {{
  store out: file("numbers")
  source Shop {{ auth: none, base: "{url}" }}
  action List {{ get "/customers" {{ params: {{ per_page: 100000 }} }} }}
  action Count {{
    for one in response.customers {{
      store {{ id: one.id, text: join(sort(split(concat(one.name, one.email), "")), "-") }} -> out {{ key: .id }}
    }}
  }}
  run List then Count
}}
"""


def test_a_loop_that_only_computes_stops_too(tmp_path: Path) -> None:
    """L3: a pure loop looks up often enough."""
    mission, state = tmp_path / "pure.vague", tmp_path / "state"
    with OrdersApi(customers=60_000, orders=1) as api:
        mission.write_text(PURE.format(url=api.url))
        with Process([mission, "--state-dir", state], cwd=tmp_path) as process:
            log = state / "stores" / "numbers.log"
            soon(lambda: log.exists() and log.stat().st_size > 1000, "the first lines")
            process.signal()
            ended = process.wait(60)
        assert ended.code == 143, ended.text
        shown = record(state, tmp_path)
        assert shown["status"] == "interrupted"
        assert 0 < shown["activeStep"]["index"] < 60_000
        assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
        assert len(decode(stores(state)["numbers.json"])) == 60_000
        assert len(api.requests()) == 1
        assert record(state, tmp_path)["itemsProcessed"] == 60_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_it_at_once(number: signal.Signals, api: OrdersApi, tmp_path: Path) -> None:
    """L4: out within a second with 128 + signal; the resume is exact all the same."""
    mission, state = tmp_path / "loop.vague", tmp_path / "state"
    mission.write_text(LOOP.format(url=api.url))
    with held(api, mission, state, "/customers/cust_0005") as process:
        process.signal()
        process.said("once more")
        began = time.monotonic()
        process.signal(number)
        assert process.wait(20).code == 128 + number
        assert time.monotonic() - began < 15  # not the grace
    api.release()
    assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
    seen = api.stats()
    assert seen.pop("/customers/cust_0005") == 2
    assert set(seen.values()) == {1}
    assert len(decode(stores(state)["towns.json"])) == 11


@pytest.mark.parametrize("moment", [n / 1000 for n in (range(0, 1500, 15) if SLOW else range(50, 1000, 300))])
def test_a_signal_while_it_starts_leaves_nothing_half_made(moment: float, api: OrdersApi, tmp_path: Path) -> None:
    """L4: at any moment of the start it ends within two seconds, without a traceback, and the next run is whole."""
    mission, state = tmp_path / "loop.vague", tmp_path / "state"
    mission.write_text(LOOP.format(url=api.url))
    with Process([mission, "--state-dir", state], cwd=tmp_path) as process:
        time.sleep(moment)
        process.signal()
        ended: Ended = process.wait(20)
    assert ended.code in (0, 143, -signal.SIGTERM), ended.text
    assert "Traceback" not in ended.text
    assert reqon(mission, "--resume", "--state-dir", state, cwd=tmp_path).code == 0
    assert len(decode(stores(state)["towns.json"])) == 11
