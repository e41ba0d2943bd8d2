"""What spec/runtime.md 9.2 and 9.3 say of keys and writes, the same in each kind of store."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from reqon.runner import RunnerSettings
from tests.stores.test_suite import Async, Plain
from tests.support.databases import mariadb_database, postgres_database
from tests.support.missions import Bench, Ran, mission
from tests.support.postgrest_server import PostgrestServer

KINDS = ("memory", "file", "sqlite", "postgres", "mysql", "postgrest", "plain", "async")
each = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_database())
        mysql = stack.enter_context(mariadb_database())
        yield {"postgres": postgres, "mysql": mysql, "server": stack.enter_context(PostgrestServer(postgres))}


@pytest.fixture
def on(kind: str, bench: Bench, servers: dict[str, Any]) -> Any:
    """Runs steps on a new store `s` of this kind; what they leave is in `out`, copied by key."""
    name = f"t_{secrets.token_hex(4)}"
    word = {"memory": "memory", "file": "file", "postgrest": "postgrest"}.get(kind, "sql")
    if kind in ("postgres", "mysql"):
        bench.settings = RunnerSettings(store_config={"sql": {"url": servers[kind]}})
    elif kind == "postgrest":
        servers["server"].execute(f'CREATE TABLE {name} (id text COLLATE "C" PRIMARY KEY, data json)')
        bench.settings = RunnerSettings(
            store_config={"postgrest": {"url": servers["server"].url, "dataColumn": "data"}}
        )
    elif kind in ("plain", "async"):
        bench.settings = RunnerSettings(stores={"s": Plain() if kind == "plain" else Async()})

    async def run(steps: str) -> Ran:
        return await bench.run(mission(steps, stores=f'store s: {word}("{name}")'))

    return run


OLD = 'store { id: "k", a: 1, b: 2 } -> s\n'
NEW = 'store { id: "k", b: 3, c: null } -> s'
REPLACED = {"id": "k", "b": 3, "c": None}
MERGED = {"id": "k", "a": 1, "b": 3, "c": None}
KEEP = '\nstore s["k"] -> out'
OPTIONS = {
    "": REPLACED, "upsert: false": REPLACED, "partial: false": REPLACED, "upsert: true, partial: false": REPLACED,
    "upsert: true": MERGED, "partial: true": MERGED, "upsert: true, partial: true": MERGED,
    "partial: true, upsert: false": MERGED,
}  # fmt: skip


@each
async def test_options_of_a_write_mean_the_same_everywhere(kind: str, on: Any) -> None:
    for options, expected in OPTIONS.items():
        written = f"{NEW} {{ {options} }}" if options else NEW
        for steps in (f"{written}{KEEP}", f"for i in [1] {{ {written} }}{KEEP}"):
            assert (await on(f"clear s\n{OLD}{steps}")).ok().out == {"k": expected}, options
            ran = await on(f"clear s\n{steps}")
            if options == "partial: true, upsert: false":
                assert (ran.error.type, ran.out) == ("not_found", {})
            else:
                assert ran.ok().out == {"k": REPLACED}, options


@each
async def test_a_batch_applies_in_order_and_a_merge_is_shallow(kind: str, on: Any) -> None:
    ran = await on(
        """store [{ id: "k", n: 1 }, { id: "l" }, { id: "k", n: 2 }] -> s
        store [{ id: "k", in: { x: 1 } }, { id: "k", in: { y: 2 } }] -> s { upsert: true }
        store s["k"] -> out
        store { id: "n", n: length(s), none: s["never"], list: length(s where .n == 2) } -> out"""
    )
    assert ran.ok().out == {
        "k": {"id": "k", "n": 2, "in": {"y": 2}}, "n": {"id": "n", "n": 2, "none": None, "list": 1},
    }  # fmt: skip
    totals = ran.record.stores["s"]
    assert (totals.count, totals.added, totals.updated) == (2, 2, 3)


@each
async def test_keys_are_texts_everywhere(kind: str, on: Any) -> None:
    keys = ["1", "1.0", "2.5", "true", "-0", "100000000000000000000", '"A"', '"a"', '"é"', '" "', '"x" + "y"']
    steps = "\n".join(f"store {{ n: {n} }} -> s {{ key: {key} }}" for n, key in enumerate(keys))
    long = "ä" * 511 + "xy"
    copied = """
        let long = "LONG"
        store { n: 99 } -> s { key: long }
        for r in s { store r -> out { key: r.n } }
        store { long: s[long].n, one: s["1"].n, half: s["2.5"].n, yes: s["true"].n, big: s["100000000000000000000"].n,
          plain: s[1].n } -> out { key: "asked" }"""
    out = (await on(steps + copied.replace("LONG", long))).ok().out
    asked = out.pop("asked")
    assert asked == {"long": 99, "one": 1, "half": 2, "yes": 3, "big": 5, "plain": 1}
    assert set(out) == {"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "99"}, "1.0 is 1; case and marks tell apart"
    assert all(set(record) == {"n"} for record in out.values()), "no key is written into a record"


@each
async def test_what_is_no_key_or_no_record_is_refused_everywhere(kind: str, on: Any) -> None:
    for key in ("null", '""', "[1]", "{ a: 1 }", ".nothing", '"' + "ä" * 512 + 'x"'):
        ran = await on(f"store {{ n: 1 }} -> s {{ key: {key} }}")
        assert ran.error.type == "store", key
    for value, index in (("[{ id: 1 }, null]", "element 1"), ("null", ""), ("[[{ id: 1 }]]", "element 0")):
        ran = await on(f"let v = {value}\nstore v -> s")
        assert ran.error.type == "store" and index in ran.error.message, value
    assert (await on('store { id: "n", n: length(s) } -> out')).ok().out["n"]["n"] == 0


@each
async def test_loops_go_through_a_snapshot_everywhere(kind: str, on: Any) -> None:
    ran = await on(
        """store [{ id: "a" }, { id: "b" }, { id: "c" }] -> s
        for r in s { delete s["c"]
          store { id: concat(r.id, r.id) } -> s
          store { id: r.id } -> out }
        store { id: "n", n: length(s) } -> out"""
    )
    assert set(ran.ok().out) == {"a", "b", "c", "n"} and ran.out["n"]["n"] == 5
    totals = ran.record.stores["s"]
    assert (totals.count, totals.added, totals.deleted) == (5, 6, 1)


@each
async def test_clear_and_delete_count_what_was_there(kind: str, on: Any) -> None:
    ran = await on(
        """store [{ id: "a" }, { id: "b" }, { id: "c" }] -> s
        delete s["a"]
        delete s["never"]
        clear s
        clear s
        store { id: "z" } -> s"""
    )
    totals = ran.ok().record.stores["s"]
    assert (totals.count, totals.added, totals.deleted) == (1, 4, 3)
