"""Killed runs that write into databases: resumed, the tables are those of an uncut run."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from reqon.stores.databases import sql_url
from reqon.stores.sql import SqlAdapter
from reqon.values import Record, encode
from tests.e2e.test_kill import kill_and_resume, record, repeated
from tests.support.databases import mariadb_database, postgres_database, sqlite_database
from tests.support.orders_api import OrdersApi
from tests.support.processes import reqon

SLOW = bool(os.environ.get("REQON_SLOW"))
ITEMS = 1_500 if SLOW else 120
KILLS = 50 if SLOW else 5
TABLES = ("customers", "towns", "told")

# Pages into a table; a loop with a request for each item; one over a table that it changes, with an effect outside.
COPY = """
mission Copy {{
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store customers: sql("{prefix}_customers")
  store towns: sql("{prefix}_towns")
  store told: sql("{prefix}_told")
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
      store {{ id: named.id, seen: customers[named.id].name }} -> towns {{ key: .id, upsert: true }}
    }}
  }}
  action Tell {{
    for town in towns checkpoint every 60 {{
      post "/orders/ord_00001/notes" {{ body: {{ text: concat("about ", town.id) }} }}
      store {{ id: town.id, town: town.town }} -> told {{ key: .id }}
      match town.id {{ x where includes(x, "7") -> delete customers[x], _ -> continue }}
      store {{ done: true }} -> towns {{ key: town.id, upsert: true }}
    }}
  }}
  run List then Fetch then Tell
}}
"""


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    kind: str = request.param
    made = {"postgres": postgres_database, "mysql": mariadb_database}
    with sqlite_database(tmp_path) if kind == "sqlite" else made[kind]() as url:
        yield kind, url


def table(kind: str, url: str, name: str) -> list[tuple[str, Record]]:
    """All of a table, in its order."""
    adapter = SqlAdapter(kind, name, sql_url(kind, url, Path("unused")))
    adapter.connect()
    try:
        return list(adapter.iterate())
    finally:
        adapter.close()


def test_killed_anywhere_and_resumed_the_tables_are_those_of_an_uncut_run(
    database: tuple[str, str], tmp_path: Path
) -> None:
    """D1, D2 with remote stores: nothing lost, nothing twice, in the same order; one item repeated at most a kill."""
    kind, url = database
    config = tmp_path / "stores.json"
    config.write_bytes(encode({"sql": {"type": kind, "url": url}}))
    options = ("--store-config", config)
    with OrdersApi(customers=ITEMS, orders=1) as api:
        mission = tmp_path / "uncut.vague"
        mission.write_text(COPY.format(url=api.url, prefix="uncut"))
        ended = reqon(mission, "--state-dir", tmp_path / "uncut", *options, cwd=tmp_path, seconds=600)
        assert ended.code == 0, ended.text
        uncut = {name: table(kind, url, f"uncut_{name}") for name in TABLES}
        assert len(uncut["told"]) == ITEMS > len(uncut["customers"])
        longest = record(tmp_path / "uncut", tmp_path)["durationMs"] / 1000 / 3
        chance = random.Random(kind)
        left, turn = KILLS, 0
        while left > 0:
            turn += 1
            api.reset()
            prefix = f"killed{turn}"
            mission = tmp_path / f"{prefix}.vague"
            mission.write_text(COPY.format(url=api.url, prefix=prefix))
            state = tmp_path / prefix
            moment = lambda: chance.uniform(0, longest)  # noqa: E731  # one for each turn
            killed = kill_and_resume(mission, state, api, kills=left, moment=moment, options=options)
            left -= max(1, killed)
            for name in TABLES:
                assert table(kind, url, f"{prefix}_{name}") == uncut[name], (name, killed)
            notes = Counter(note["text"] for note in api.notes())
            assert len(notes) == ITEMS
            assert sum(notes.values()) - ITEMS <= killed
            assert repeated(api) - (sum(notes.values()) - 1) <= killed
            assert record(state, tmp_path)["status"] == "completed"
