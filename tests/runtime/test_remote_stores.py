"""Stores that are slow or fail: what is kept back, when it goes out, and what a mission sees of it."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from reqon import Reqon
from reqon.errors import StoreError
from reqon.runner import RunnerSettings
from reqon.stores.base import WriteCounts, absent
from reqon.stores.filters import StoreFilter, chosen
from reqon.values import Record
from tests.support.missions import Bench, Ran, mission
from tests.support.servers import ScriptedServer, reply

STORE = '  store far: sql("far")\n'


class Far:
    """A store that is asked over a network: it takes its time, and does as a test says.

    Attributes:
        asked: the calls, in order.
        refuse: keys that it refuses to write.
        broken: what every call raises.
        busy: keys that have a call now.
    """

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.asked: list[tuple[str, Any]] = []
        self.refuse: set[str] = set()
        self.broken: Exception | None = None
        self.busy: set[str] = set()
        self.overlapped = False
        self.filter_operators: Any = None
        self.most = 0
        self._now = 0

    async def _call(self, name: str, *keys: str) -> None:
        self.asked.append((name, keys))
        self._now += 1
        self.most = max(self.most, self._now)
        self.overlapped |= not self.busy.isdisjoint(keys)
        self.busy.update(keys)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.busy.difference_update(keys)
        self._now -= 1
        if self.broken is not None:
            raise self.broken

    async def get(self, key: str) -> Record | None:
        await self._call("get", key)
        return self.records.get(key)

    async def set(self, key: str, value: Record) -> None:
        await self._call("set", key)
        self.records[key] = value

    async def update(self, key: str, partial: Record) -> None:
        raise AssertionError("a merge is get, merge, set")

    async def delete(self, key: str) -> None:
        await self._call("delete", key)
        self.records.pop(key, None)

    async def list(self, filter: StoreFilter | None = None) -> "list[Record]":  # noqa: A002
        await self._call("list")
        return chosen(self.records.values(), filter)

    async def clear(self) -> None:
        await self._call("clear")
        self.records.clear()

    async def count(self, filter: StoreFilter | None = None) -> int:  # noqa: A002
        return len(await self.list(filter))

    def calls(self, name: str) -> int:
        return sum(1 for called, _ in self.asked if called == name)


class Bulk(Far):
    """One that takes batches, all or nothing, and tells its keys."""

    async def bulk_upsert(self, records: Sequence[tuple[str, Record]], mode: str) -> WriteCounts:
        await self._call("bulk", *(key for key, _ in records))
        counts = WriteCounts()
        for key, _ in records:
            if key in self.refuse:
                raise StoreError("no place for it", key=key, code="23505", refused=True)
        for key, record in records:
            old = self.records.get(key)
            if old is None and mode == "update":
                raise absent("far", key)
            new = record if mode == "set" or old is None else {**old, **record}
            counts.added += old is None
            counts.updated += old is not None and old != new
            counts.unchanged += old == new
            self.records[key] = new
        return counts

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Record]:
        await self._call("get_many", *keys)
        return {key: self.records[key] for key in keys if key in self.records}

    async def iterate(self, filter: StoreFilter | None = None, batch_size: int = 500) -> Any:  # noqa: A002
        await self._call("iterate")
        for key, record in list(self.records.items()):
            if chosen([record], filter):
                yield key, record


@pytest.fixture
def far(bench: Bench) -> Bulk:
    store = Bulk()
    bench.settings = RunnerSettings(stores={"far": store})
    return store


def numbers(count: int) -> str:
    return "[" + ", ".join(map(str, range(count))) + "]"


async def run(bench: Bench, steps: str, **parts: str) -> Ran:
    return await bench.run(mission(steps, stores=STORE, **parts))


async def test_records_of_a_loop_go_out_in_batches(bench: Bench, far: Bulk) -> None:
    ran = (await run(bench, f"for n in {numbers(1200)} {{ store {{ id: n }} -> far }}")).ok()
    assert len(far.records) == 1200 and far.calls("bulk") <= 6
    assert max(len(keys) for name, keys in far.asked if name == "bulk") == 500
    totals = ran.record.stores["far"]
    assert (totals.count, totals.added, totals.updated) == (1200, 1200, 0)


async def test_every_read_sees_what_was_written_before(bench: Bench, far: Bulk) -> None:
    far.records = {"old": {"id": "old", "v": 1}}
    ran = await run(
        bench,
        """
        for n in [1, 2, 3] {
          store { id: n, v: n } -> far
          store { id: n, w: 1 } -> far { upsert: true }
          delete far[n - 1]
          store { id: n, own: far[n], before: far[n - 1], old: far["old"].v, size: length(far) } -> out
        }
        store { id: "all", all: far where .v > 1, any: any of far where .v == 3 } -> out
        clear far
        store { id: "end", old: far["old"], size: length(far) } -> out
        """,
    )
    out = ran.ok().out
    for n in (1, 2, 3):
        assert out[str(n)]["own"] == {"id": n, "v": n, "w": 1} and out[str(n)]["before"] is None
        assert (out[str(n)]["old"], out[str(n)]["size"]) == (1, 2)
    assert out["all"] == {"id": "all", "all": [{"id": 3, "v": 3, "w": 1}], "any": True}
    assert out["end"] == {"id": "end", "old": None, "size": 0} and far.records == {}


async def test_a_read_within_a_function_of_an_element_waits_too(bench: Bench, far: Bulk) -> None:
    far.records = {"a": {"n": 2}, "b": {"n": 1}}
    ran = await run(bench, 'let s = sortBy(["a", "b"], k => far[k].n)\nstore { id: 1, s: s } -> out')
    assert ran.ok().out["1"]["s"] == ["b", "a"]


async def test_a_loop_goes_through_the_records_of_its_beginning(bench: Bench, far: Bulk) -> None:
    far.records = {str(n): {"id": n, "v": 0} for n in range(700)}
    ran = await run(
        bench,
        """
        for r in far where .id < 650 {
          match r.id { 0 -> clear far, _ -> continue }
          store { id: r.id, v: r.v } -> out
          store { id: concat("new", r.id) } -> far
        }
        """,
    )
    assert len(ran.ok().out) == 650 and ran.out["649"] == {"id": 649, "v": 0}
    assert len(far.records) == 650


ALL_OPERATORS = ("eq", "neq", "gt", "gte", "lt", "lte", "contains")


def noting(far: Bulk) -> list[list[tuple[str, str, Any]]]:
    """The clauses of each filter that the store will get."""
    seen: list[list[tuple[str, str, Any]]] = []
    iterate = far.iterate

    def noted(filter: StoreFilter | None = None, batch_size: int = 500) -> Any:  # noqa: A002
        if filter is not None and filter.clauses:
            seen.append([(c["field"], c["operator"], c["value"]) for c in filter.clauses])
        return iterate(filter, batch_size)

    far.iterate = noted  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize(
    ("where", "asked", "plainly", "found"),
    [
        ('.kind == "a"', [("kind", "eq", "a")], 1, "ace"),
        (
            'r.kind == "a" and .n == i + 2 and .n > 0',
            [("kind", "eq", "a"), ("n", "eq", 2), ("n", "gt", 0)],
            2,
            "c",
        ),
        (".n == 2.5", [("n", "eq", 2.5)], 0, ""),
        (
            '1 < .n and r.n != 3 and .kind < "b"',
            [("n", "gt", 1), ("n", "neq", 3), ("kind", "lt", "b")],
            0,
            "ce",
        ),
        ('.kind != "a" and .n >= 2.5', [("kind", "neq", "a"), ("n", "gte", 2.5)], 0, "d"),
        (".flag == true", [("flag", "eq", True)], 0, "a"),
        (".none == null", [("none", "eq", None)], 0, "abcde"),
        (".none != null", [("none", "neq", None)], 0, ""),
        ('.kind contains "b"', [("kind", "contains", "b")], 0, "bd"),
        ('"b" in .kind', [("kind", "contains", "b")], 0, "bd"),
        (".tags contains i + 1", [("tags", "contains", 1)], 0, "c"),
        ('.in.kind == "a" and r.in.n < 4', [("in.kind", "eq", "a"), ("in.n", "lt", 4)], 0, "ac"),
        (".n == r.n", [], 0, "abcde"),
        ('.kind == "a" or .n == 1', [], 0, "abce"),
        # Texts that read as numbers or dates have an order of their own; a list's length is no field.
        ('.n < "3"', [], 0, "abc"),
        ('.day >= "2026-01-03"', [], 0, "cde"),
        ('.day > parseDate("2026-01-03")', [], 0, "de"),
        (".tags.length == 1", [], 0, "abcde"),
        (".kind == (i + 1)[0]", [], 0, None),
        (".n > [1]", [], 0, None),
    ],
)
async def test_a_condition_is_asked_of_the_store_and_judged_here(
    where: str, asked: list[tuple[str, str, Any]], plainly: int, found: str | None, bench: Bench, far: Bulk
) -> None:
    """`plainly`: how many of the clauses a store gets that does not say which operators it knows."""
    far.records = {
        key: {"id": key, "n": n, "kind": "b" if n % 2 else "a", "flag": n == 0, "tags": [n - 1],
              "day": f"2026-01-0{n + 1}T00:00:00Z"}
        for n, key in enumerate("abcde")
    }  # fmt: skip
    for record in far.records.values():
        record["in"] = dict(record)
    seen = noting(far)
    steps = [
        f"let i = 0\nfor r in far where {where} {{ store {{ id: r.id }} -> out }}",
        f"for i in [0] {{ for r in far where {where} {{ store {{ id: r.id }} -> out }} }}",
        f"for i in [0] {{ for r in far where {where} parallel {{ store {{ id: r.id }} -> out }} }}",
    ]
    for operators, clauses in ((ALL_OPERATORS, asked), (None, asked[:plainly]), ((), [])):
        far.filter_operators = operators
        for step in steps:
            seen.clear()
            ran = await run(bench, step)
            if found is None:
                assert ran.error.type == "eval"
            else:
                assert "".join(sorted(ran.ok().out)) == found
            assert seen == ([clauses] if clauses else []), step


@pytest.mark.parametrize("operators", ["eq", ("eq", "like"), 3])
async def test_operators_that_are_none_are_refused(operators: Any, bench: Bench, far: Bulk) -> None:
    far.filter_operators = operators
    ran = await run(bench, "store { id: 1 } -> far")
    assert ran.error.type == "config" and "filter_operators" in ran.error.message and "far" in ran.error.message


async def test_a_parallel_loop_gives_each_record_once(bench: Bench, far: Bulk) -> None:
    far.records = {str(n): {"id": n} for n in range(1100)}
    ran = await run(bench, "for r in far parallel { store { id: r.id, twin: far[r.id].id } -> out }")
    assert {r["twin"] for r in ran.ok().out.values()} == set(range(1100)) and len(ran.out) == 1100
    assert far.most > 1, "reads of different keys run side by side"
    assert not far.overlapped, "one key never has two calls"


async def test_calls_for_one_key_never_overlap(bench: Bench, far: Bulk) -> None:
    steps = (
        f"for n in {numbers(60)} parallel {{ store {{ id: far['x'].id ?? 'x', n: n }} -> far\nstore far['x'] -> out }}"
    )
    (await run(bench, steps.replace("'", '"'))).ok()
    assert not far.overlapped and set(far.records) == {"x"}


async def test_a_step_whose_failure_is_caught_is_written_at_once(bench: Bench, far: Bulk) -> None:
    far.refuse = {"2"}
    ran = await run(
        bench,
        """
        for n in [1, 2, 3] {
          match { _ -> store { id: n } -> far } catch {
            { kind: "store", code: 23505, key: k, error: e } -> store { id: n, e: e, k: k } -> out
          }
        }
        """,
    )
    assert ran.ok().out == {"2": {"id": 2, "e": "no place for it", "k": "2"}}
    assert set(far.records) == {"1", "3"} and ran.record.errors == ()


async def test_a_refused_record_fails_the_run_and_all_others_are_kept(bench: Bench, far: Bulk) -> None:
    far.refuse = {"7"}
    text = mission(f"for n in {numbers(20)} {{ store {{ id: n }} -> far }}", stores=STORE)
    ran = await bench.run(text)
    assert ran.error.message == "no place for it" and ran.error.type == "store"
    assert set(far.records) == {str(n) for n in range(20)} - {"7"}
    far.refuse = set()
    (await bench.resume(text)).ok()
    assert set(far.records) == {str(n) for n in range(20)}, "the resume tries the refused record again"


async def test_a_store_that_cannot_be_reached_fails_the_run_and_the_resume_loses_nothing(
    bench: Bench, far: Bulk
) -> None:
    text = mission(f"for n in {numbers(900)} {{ store {{ id: n }} -> far }}", stores=STORE)
    far.broken = ConnectionError("gone")
    ran = await bench.run(text)
    assert not ran.outcome.success and "gone" in ran.record.errors[0].message
    assert far.records == {}
    far.broken = None
    resumed = (await bench.resume(text)).ok()
    assert set(far.records) == {str(n) for n in range(900)}
    assert resumed.record.stores["far"].count == 900


async def test_what_is_kept_back_goes_out_before_a_checkpoint_and_with_time(bench: Bench, far: Bulk) -> None:
    (await run(bench, f"for n in {numbers(40)} checkpoint every 10 {{ store {{ id: n }} -> far }}")).ok()
    assert far.calls("bulk") >= 4


async def test_what_is_kept_back_goes_out_while_a_request_takes_long(
    api: ScriptedServer, bench: Bench, far: Bulk
) -> None:
    async def when_it_is_there(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while "1" not in far.records:
            await asyncio.sleep(0.01)
        writer.write(reply(data={}))

    api.on("/slow", when_it_is_there)
    (await run(bench, 'for n in [1, 2] { store { id: n } -> far\nget "/slow" }')).ok()
    assert set(far.records) == {"1", "2"}


async def test_an_only_updating_write_of_a_new_key_is_not_found(bench: Bench, far: Bulk) -> None:
    far.records = {"1": {"id": 1, "v": 1}}
    steps = "store [{ id: 1, w: 2 }] -> far { partial: true, upsert: false }"
    (await run(bench, steps)).ok()
    assert far.records["1"] == {"id": 1, "v": 1, "w": 2}
    ran = await run(bench, "store { id: 2 } -> far { partial: true, upsert: false }")
    assert (ran.error.type, ran.error.message) == ("not_found", "store 'far' has no record '2' to update")


async def test_a_dead_letter_is_in_the_store_before_the_next_step(bench: Bench, far: Bulk) -> None:
    (await run(bench, 'for n in [1] { queue far { item: { n: n }, key: "k" }\nstore { id: 1 } -> out }')).ok()
    assert far.records == {"k": {"id": "k", "n": 1}}


async def test_a_plain_adapter_runs_in_a_thread_of_its_own(bench: Bench) -> None:
    seen: list[str] = []

    class Plain:
        def __init__(self) -> None:
            self.records: dict[str, Record] = {}

        def get(self, key: str) -> Record | None:
            seen.append(threading.current_thread().name)
            return self.records.get(key)

        def set(self, key: str, value: Record) -> None:
            self.records[key] = value

        def update(self, key: str, partial: Record) -> None:
            raise AssertionError

        def delete(self, key: str) -> None:
            raise AssertionError

        def list(self, filter: StoreFilter | None = None) -> "list[Record]":  # noqa: A002
            return chosen(self.records.values(), filter)

        def clear(self) -> None:
            self.records.clear()

    store = Plain()
    bench.settings = RunnerSettings(stores={"far": store})
    ran = await run(bench, "for n in [1, 2] { store { id: n } -> far }\nfor r in far { store r -> out }")
    assert len(ran.ok().out) == 2 and set(seen) == {"reqon-store_0"}


async def test_without_counting_changes_are_unknown(bench: Bench, tmp_path: Path) -> None:
    bench.settings = RunnerSettings(store_config={"sql": {"countChanges": False}})
    ran = (await run(bench, "for n in [1, 1, 2] { store { id: n } -> far }")).ok()
    totals = ran.record.stores["far"]
    assert (totals.count, totals.added, totals.updated, totals.unchanged) == (2, 3, None, None)


async def test_requests_and_remote_reads_mix_in_one_loop(api: ScriptedServer, bench: Bench, far: Bulk) -> None:
    for n in range(3):
        api.on(f"/x/{n}", reply(data={"v": n}))
    steps = 'for n in [0, 1, 2] { get "/x/{n}"\nstore { id: n, v: response.v, last: far[n - 1].v } -> far }'
    (await run(bench, steps)).ok()
    assert [r["last"] for r in far.records.values()] == [None, 0, 1]


async def test_groups_share_a_remote_store(bench: Bench, far: Bulk) -> None:
    body = f"for n in {numbers(30)} {{ store {{ id: n, NAME: far[n].id }} -> far {{ upsert: true }} }}"
    actions = "".join(f"action {name} {{ {body.replace('NAME', name)} }}\n" for name in ("P", "Q"))
    (await run(bench, "", actions=actions, run="[P, Q]")).ok()
    assert len(far.records) == 30 and all({"P", "Q"} <= record.keys() for record in far.records.values())
    assert not far.overlapped


class Plainest:
    """An adapter of a user's own, right in all."""

    def __init__(self, identifier: str, config: Any) -> None:
        self.held: dict[str, Record] = {}

    def get(self, key: str) -> Any:
        return self.held.get(key)

    def set(self, key: str, value: Record) -> None:
        self.held[key] = value

    def update(self, key: str, partial: Record) -> None:
        self.held[key] = {**self.held.get(key, {}), **partial}

    def delete(self, key: str) -> None:
        self.held.pop(key, None)

    def list(self, filter: Any = None) -> Any:  # noqa: A002
        return list(self.held.values()) if filter is None else filter.select(self.held.values())

    def clear(self) -> None:
        self.held.clear()


def odd(method: str, answer: Any) -> type:
    return type("Odd", (Plainest,), {method: lambda self, *arguments: answer})


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        (Plainest, None),
        (odd("bulk_upsert", None), None),
        (odd("list", None), "NoneType in list, where a list of dicts is wanted"),
        (odd("list", [1]), "list in list, where a list of dicts is wanted"),
        (odd("get", "text"), "str in get, where a dict is wanted"),
        (odd("count", "3"), "str in count, where a whole number is wanted"),
        (odd("iterate", [1, 2]), "int in iterate, where keys with dicts is wanted"),
        (odd("iterate", None), "TypeError"),
    ],
)
async def test_an_adapter_that_answers_oddly_is_named(adapter: type, says: str | None, tmp_path: Path) -> None:
    own = Reqon()
    own.register_store_adapter("mine", adapter)
    text = """mission M { store out: mine("o") action A {
      store { id: 1 } -> out for r in out { store { id: 2 } -> out } store { id: 3, o: out["1"] } -> out } run A }"""
    result = await own.execute(text, state_dir=tmp_path)
    assert result.success is (says is None)
    if says is not None:
        assert result.errors[0].type == "store" and says in result.errors[0].message
