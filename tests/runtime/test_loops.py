"""`for`: what it goes through, what its iterations see, how it ends (spec/language.md 4.3, 7.3; spec/runtime.md 13)."""

import asyncio
import gc
import sys
import time

import pytest

from reqon.events import LoopEnded, LoopStarted, Noticed
from reqon.runtime import loops
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, Seen, reply


async def test_a_filter_sees_the_element_as_current_item_and_by_name(bench: Bench) -> None:
    steps = "for x in [{ id: 1, a: 1 }, { id: 2, a: 2 }, { id: 3, a: 3 }] where .a > 1 where x.a < 3 { store x -> out }"
    assert list((await bench.run(mission(steps))).ok().out) == ["2"]


async def test_conditions_are_judged_before_the_first_iteration(bench: Bench) -> None:
    steps = """
      for x in [{ id: "a" }, { id: "b" }, { id: "c" }] where length(out) == 0 { store x -> out }"""
    assert list((await bench.run(mission(steps))).ok().out) == ["a", "b", "c"]


async def test_null_means_no_iterations_and_a_warning(bench: Bench) -> None:
    bench.listen = (Noticed,)
    ran = await bench.run(mission('let xs = null\nfor x in xs { abort }\nstore { id: "after" } -> out'))
    assert list(ran.ok().out) == ["after"] and len(ran.told("notice")) == 1


@pytest.mark.parametrize("value", ["3", '"text"', "true", "{ data: [1], meta: 2 }"])
async def test_what_is_no_list_is_refused(value: str, bench: Bench) -> None:
    ran = await bench.run(mission(f"let xs = {value}\nfor x in xs {{ abort }}"))
    assert ran.error.type == "eval" and ran.error.location == "test.vague:9:10"
    assert ("data" in (ran.error.hint or "")) == (value[0] == "{")


async def test_each_iteration_starts_with_the_response_before_the_loop(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"id": "x"})).on("/y", reply(data={"id": "y"}))
    for how in ("", " parallel"):
        steps = f"""
          get "/x"
          for i in [1, 2]{how} {{
            store {{ id: concat("before", i), r: response.id, c: response.code }} -> out
            get "/y"
          }}
          store {{ id: "after", r: response.id, c: response.code }} -> out"""
        ran = await bench.run(mission(steps))
        assert {(k, r["r"], r["c"]) for k, r in ran.ok().out.items()} == {
            ("before1", "x", 200), ("before2", "x", 200), ("after", "x", 200),
        }  # fmt: skip


async def test_variables_of_an_iteration_end_with_it(bench: Bench) -> None:
    steps = """
      let n = 0
      for i in [1, 2] {
        let n = i * 10
        store { id: i, n: n } -> out
      }
      store { id: "after", n: n } -> out"""
    ran = await bench.run(mission(steps))
    assert [r["n"] for r in ran.ok().out.values()] == [10, 20, 0]


async def test_the_response_goes_on_into_the_next_action(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(201, data={"id": "x"}))
    text = mission(
        'get "/x"', actions="action B { store { id: response.id, c: response.code } -> out }", run="A then B"
    )
    assert (await bench.run(text)).ok().out["x"]["id"] == "x"


async def test_nested_loops_over_lists_stores_and_fields(bench: Bench) -> None:
    steps = """
      store [{ id: "s1" }, { id: "s2" }] -> side
      for a in [{ id: "a", kids: [1, 2] }, { id: "b" }, { id: "c", kids: [3] }] {
        for k in a.kids { for s in side where .id != "s2" { store { id: concat(a.id, k, s.id) } -> out } }
      }"""
    ran = await bench.run(mission(steps, stores='store side: memory("side")'))
    assert list(ran.ok().out) == ["a1s1", "a2s1", "c3s1"]
    assert ran.record.items_processed == 2 + 3


async def test_a_loop_goes_on_in_its_list_whatever_happens_to_the_store(bench: Bench) -> None:
    """A store that is written inside the loop over it: what the loop sees is what was there when it began."""
    steps = """
      for r in out {
        store { id: concat(r.id, "-seen"), n: r.n } -> seen
        clear out
        store { id: concat(r.id, "-new"), n: 9 } -> out
        store { id: "b", n: 9 } -> out
      }"""
    for kind in ("memory", "file"):
        stores = f'store seen: memory("seen")\nstore out: {kind}("loop")'
        text = mission(
            f'store [{{ id: "a", n: 1 }}, {{ id: "b", n: 2 }}, {{ id: "c", n: 3 }}] -> out\n{steps}', stores=stores
        )
        text = text.replace('  store out: memory("out")\n', "", 1)
        ran = await bench.run(text)
        assert {k: r["n"] for k, r in ran.ok().stores["seen"].items()} == {"a-seen": 1, "b-seen": 2, "c-seen": 3}, kind


async def test_an_error_ends_the_loop_and_names_the_item(bench: Bench) -> None:
    bench.listen = (LoopStarted, LoopEnded)
    steps = 'for x in [{ id: "a" }, { id: "b", n: {} }, { id: "c" }] {\n  store { id: x.id, n: x.n + 1 ?? 1 } -> out\n}'
    ran = await bench.run(
        mission(
            'for x in [{ id: "a", n: 1 }, { id: "b", n: {} }, { id: "c", n: 1 }] {\n'
            " store { id: x.id, m: x.n * 2 } -> out\n}"
        )
    )
    assert list(ran.out) == ["a"]
    assert (ran.error.type, ran.error.item, ran.error.location) == ("eval", {"id": "b"}, "test.vague:9:23")
    assert ran.record.active_step is not None
    assert (ran.record.active_step.index, ran.record.active_step.item) == (1, {"id": "b"})
    assert ran.record.items_processed == 1
    assert [type(e).__name__ for e in ran.told("loop.start", "loop.complete")] == ["LoopStarted", "LoopEnded"]
    del steps


async def test_the_record_shows_where_a_request_in_a_loop_failed(api: ScriptedServer, bench: Bench) -> None:
    api.on("/1", reply(data={})).on("/2", reply(500, data={}))
    ran = await bench.run(mission('for x in [{ id: 1 }, { id: 2 }, { id: 3 }] {\n  get "/{x.id}"\n}'))
    assert (ran.error.type, ran.error.status, ran.error.step) == ("http", 500, 'get "/{x.id}"')
    assert ran.error.item == {"id": 2}
    assert [s.path for s in api.seen] == ["/1", "/2"]


async def test_a_checkpoint_every_n_items_tells_where_it_is(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    steps = 'for x in [1, 2, 3, 4, 5] checkpoint every 2 { post "/{x}" }'
    ran = await bench.run(mission(steps))
    checkpoint = ran.ok().record.checkpoints["A"]
    assert (checkpoint.index, checkpoint.total) == (4, 5)


@pytest.mark.parametrize("every", ["0", "-1", '"x"', "1.5"])
async def test_checkpoint_every_needs_a_count(every: str, bench: Bench) -> None:
    ran = await bench.run(mission(f"let n = {every}\nfor x in [1] checkpoint every n {{ store {{ id: x }} -> out }}"))
    assert ran.error.type == "eval"


# --- parallel --------------------------------------------------------------------------------------------------------


class Crowd:
    """Answers after others had their turn; knows how many requests were open at once."""

    def __init__(self, api: ScriptedServer) -> None:
        self.open = self.most = 0
        api.answers["*"] = [self._answer]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0.02)
        self.open -= 1
        writer.write(reply(data={"id": "r"}, headers={"Connection": "close"}))
        await writer.drain()


@pytest.mark.parametrize(("options", "most"), [("", 10), ("concurrency: 3", 3), ("concurrency: 1", 1)])
async def test_a_parallel_loop_keeps_to_its_limit(options: str, most: int, api: ScriptedServer, bench: Bench) -> None:
    crowd = Crowd(api)
    text = mission(
        f"{options}\nlet xs = [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]\n"
        f'for x in xs parallel {{ get "/{{x}}"\nstore {{ id: x }} -> out }}'
    )
    ran = await bench.run(text)
    assert len(ran.ok().out) == 16
    assert crowd.most == most


async def test_parallel_iterations_share_no_variables(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", lambda seen: reply(data={"id": seen.path[1:]}))
    steps = """
      for x in [1, 2, 3, 4] parallel {
        let n = x * 10
        get "/{x}"
        store { id: response.id, x: x, n: n } -> out
      }"""
    ran = await bench.run(mission(steps))
    assert {(r["id"], r["x"], r["n"]) for r in ran.ok().out.values()} == {(str(x), x, x * 10) for x in (1, 2, 3, 4)}


def failing(*paths: str) -> "Answerer":
    def answer(seen: Seen) -> bytes:
        return reply(500, data={}) if seen.path in paths else reply(data={"id": seen.path[1:]})

    return answer


Answerer = object


async def test_failures_of_a_parallel_loop_are_collected_after_it(api: ScriptedServer, bench: Bench) -> None:
    api.answers["*"] = [failing("/2", "/4")]  # type: ignore[list-item]
    steps = 'for x in [1, 2, 3, 4, 5] parallel { get "/{x}"\nstore response -> out }\nstore { id: "after" } -> out'
    ran = await bench.run(mission(steps))
    assert sorted(ran.out) == ["1", "3", "5"]
    assert [(e.type, e.status, e.item) for e in ran.record.errors] == [("http", 500, 2), ("http", 500, 4)]
    assert all(e.location == "test.vague:8:37" and e.action == "A" for e in ran.record.errors)


async def test_fail_fast_cancels_the_rest_of_a_parallel_loop(api: ScriptedServer, bench: Bench) -> None:
    api.answers["*"] = [failing("/2")]  # type: ignore[list-item]
    steps = 'concurrency: 1\nfor x in [1, 2, 3, 4, 5] parallel { get "/{x}"\nstore response -> out }'
    ran = await bench.run(mission(steps, options='parallelMode: "fail-fast"'))
    assert list(ran.out) == ["1"] and ran.error.status == 500


async def test_skip_ends_one_parallel_iteration(bench: Bench) -> None:
    bench.listen = (LoopEnded,)
    ran = await bench.run(
        mission("for x in [1, 2, 3] parallel { match x { 2 -> skip, _ -> continue }\nstore { id: x } -> out }")
    )
    assert sorted(ran.ok().out) == ["1", "3"]
    (ended,) = ran.told("loop.complete")
    assert isinstance(ended, LoopEnded) and (ended.items_skipped, ended.items_processed) == (1, 3)


async def test_an_abort_in_a_parallel_loop_stops_the_mission(api: ScriptedServer, bench: Bench) -> None:
    text = mission(
        'for x in [1, 2, 3] parallel { match x { 1 -> abort "stop", _ -> continue } }',
        actions='action B { store { id: "b" } -> out }',
        run="A then B",
    )
    ran = await bench.run(text)
    assert ran.error.type == "abort" and ran.out == {}


async def test_at_most_a_hundred_errors_are_kept_and_all_are_counted(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(500, data={}))
    lists = ",".join(str(i) for i in range(130))
    ran = await bench.run(mission(f'for x in [{lists}] parallel {{ get "/{{x}}" }}'))
    assert len(ran.record.errors) == 100 and ran.record.errors_total == 130
    assert ran.record.errors[99].item == 99


async def test_a_parallel_loop_inside_a_loop(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", lambda seen: reply(data={"id": seen.path[1:]}))
    steps = (
        'for a in [1, 2] { for b in [1, 2, 3] parallel { get concat("/", a, "-", b)\n'
        "match b { 2 -> skip, _ -> continue }\nstore response -> out } }"
    )
    ran = await bench.run(mission(steps))
    assert sorted(ran.ok().out) == ["1-1", "1-3", "2-1", "2-3"]


async def test_generated_keys_differ_in_parallel_iterations(bench: Bench) -> None:
    ran = await bench.run(mission("for a in [1, 2] { for b in [1, 2, 3] parallel { store { a: a, b: b } -> out } }"))
    assert len(ran.ok().out) == 6
    ran = await bench.run(mission("for a in [1, 2, 3] parallel { store { a: a } -> out }"))
    assert len(ran.ok().out) == 3


async def test_generated_keys_differ_between_calls_of_an_action(bench: Bench) -> None:
    actions = "action B { store { v: response.v } -> out }"
    ran = await bench.run(mission("for a in [1, 2] { map a -> t { v: a }\nrun B }\nrun B", actions=actions))
    assert len(ran.ok().out) == 3


@pytest.mark.parametrize("called", [False, True])
async def test_a_nest_of_short_loops_lets_others_run(called: bool, bench: Bench) -> None:
    """L3, K4: no loop of it comes to many rounds, and one round of the outermost takes long."""
    nest = "let s = concat(b, c, d, e, f)"
    for name in "fedcb":
        nest = f"for {name} in ten {{ {nest} }}"
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()  # of the processor, so that a busy machine does not count
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    text = mission(
        f"for a in [1, 2] {{ {'run Inner' if called else nest} }}",
        actions=f"action Inner {{ {nest} }}" if called else "",
        declarations='let ten = split("0,1,2,3,4,5,6,7,8,9", ",")',
    )
    beating = asyncio.create_task(beat())
    began = time.thread_time()
    gc.disable()  # what other tests left behind takes long to look through
    try:
        (await bench.run(text)).ok()
    finally:
        gc.enable()
    beating.cancel()
    assert longest < (time.thread_time() - began) / 5  # 10 ms are promised; without a rest it would be a half


def test_a_slice_outlasts_what_another_thread_waits_before_it_asks_for_the_interpreter() -> None:
    """K4: else a thread that answers scrapes or synced a file waits for seconds while a mission computes."""
    assert sys.getswitchinterval() < loops.SLICE_SECONDS


async def test_a_loop_over_nothing_says_where_it_is(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={"rows": []}))
    bench.listen = (Noticed,)
    ran = (await bench.run(mission('get "/x"\nfor row in response.items { store row -> out }'))).ok()
    (notice,) = ran.told("notice")
    assert isinstance(notice, Noticed)
    assert (notice.message, notice.location) == ("a loop's collection is null: no iterations", "test.vague:9:12")
