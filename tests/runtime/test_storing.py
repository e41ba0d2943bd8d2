"""`store`, `delete`, `clear` and `queue` (spec/language.md 7.6, 7.10; spec/runtime.md 9.3, 11)."""

import json
from typing import Any

import pytest

from reqon.events import DataStored, DeadLettered, StepEnded
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply

OLD = 'store { id: "k", a: 1, b: 2 } -> out\n'
NEW = 'store { id: "k", b: 3, c: null } -> out'
REPLACED = {"id": "k", "b": 3, "c": None}
MERGED = {"id": "k", "a": 1, "b": 3, "c": None}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", REPLACED),
        ("upsert: false", REPLACED),
        ("partial: false", REPLACED),
        ("upsert: true, partial: false", REPLACED),
        ("upsert: false, partial: false", REPLACED),
        ("upsert: true", MERGED),
        ("partial: true", MERGED),
        ("upsert: true, partial: true", MERGED),
        ("upsert: false, partial: true", MERGED),
    ],
)
async def test_an_existing_key_is_replaced_or_merged(options: str, expected: dict[str, Any], bench: Bench) -> None:
    ran = await bench.run(mission(f"{OLD}{NEW} {{ {options} }}" if options else OLD + NEW))
    assert ran.ok().out == {"k": expected}
    assert ran.record.stores["out"].added == 1 and ran.record.stores["out"].updated == 1


@pytest.mark.parametrize("options", ["", "upsert: false", "upsert: true", "partial: true", "partial: false"])
async def test_a_new_key_is_inserted(options: str, bench: Bench) -> None:
    ran = await bench.run(mission(f"{NEW} {{ {options} }}" if options else NEW))
    assert ran.ok().out == {"k": REPLACED}


async def test_an_update_of_an_absent_key_is_not_found(bench: Bench) -> None:
    ran = await bench.run(mission(f"{NEW} {{ partial: true, upsert: false }}"))
    assert ran.error.type == "not_found" and ran.out == {}


async def test_an_equal_record_counts_as_unchanged(bench: Bench) -> None:
    ran = await bench.run(mission(OLD + OLD))
    totals = ran.ok().record.stores["out"]
    assert (totals.count, totals.added, totals.updated, totals.unchanged) == (1, 1, 0, 1)


async def test_a_list_writes_each_element_and_counts_them_as_items(bench: Bench) -> None:
    ran = await bench.run(mission("store [{ id: 1 }, { id: 2 }, { id: 1, x: 2 }] -> out"))
    assert ran.ok().out == {"1": {"id": 1, "x": 2}, "2": {"id": 2}}
    assert ran.record.items_processed == 3


async def test_a_store_is_written_into_another(bench: Bench) -> None:
    ran = await bench.run(mission(OLD + "store out -> copy", stores='store copy: memory("copy")'))
    assert ran.ok().stores["copy"] == ran.out


@pytest.mark.parametrize("value", ["null", "3", '"text"', "true", "[{ id: 1 }, 2]", "[null]"])
async def test_what_is_no_record_is_refused(value: str, bench: Bench) -> None:
    ran = await bench.run(mission(f"let v = {value}\nstore v -> out"))
    assert ran.error.type == "store"


@pytest.mark.parametrize("value", ["null", "3", '"text"', "true", "[{ id: 1 }, 2]", "[null]"])
async def test_what_is_no_record_is_refused_in_a_loop_too(value: str, bench: Bench) -> None:
    ran = await bench.run(mission(f"for i in [1] {{ let v = {value}\nstore v -> out }}"))
    assert ran.error.type == "store"


async def test_store_each_insists_on_a_list(bench: Bench) -> None:
    ran = await bench.run(mission('let v = { id: "a" }\nstore each v -> out'))
    assert ran.error.type == "store"
    assert (await bench.run(mission('let v = [{ id: "a" }]\nstore each v -> out'))).ok().out == {"a": {"id": "a"}}


async def test_an_element_that_is_no_object_is_named_by_its_index(bench: Bench) -> None:
    ran = await bench.run(mission("store [{ id: 1 }, 2] -> out"))
    assert "element 1" in ran.error.message


async def test_keys_are_texts(bench: Bench) -> None:
    steps = """
      for k in [1, 2.5, 3.0, true, "s"] { store { v: k } -> out { key: k } }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["1", "2.5", "3", "true", "s"]


@pytest.mark.parametrize("key", ["null", '""', "[1]", "{ a: 1 }", ".nothing"])
async def test_a_key_that_is_no_text_is_refused(key: str, bench: Bench) -> None:
    for steps in (
        f'store {{ id: "a" }} -> out {{ key: {key} }}',
        f'for i in [1] {{ store {{ id: "a" }} -> out {{ key: {key} }} }}',
    ):
        ran = await bench.run(mission(steps))
        assert ran.error.type == "store" and ran.out == {}


async def test_the_key_sees_the_record_as_current_item(bench: Bench) -> None:
    steps = 'for x in [{ id: "outer" }] { store { id: "inner", n: 4 } -> out { key: concat(.id, "-", .n) } }'
    assert list((await bench.run(mission(steps))).ok().out) == ["inner-4"]


async def test_generated_keys_are_the_same_when_a_step_is_repeated(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(429, data={}), reply(429, data={}), reply(data={"n": 1}))
    steps = """
      for i in [1, 2] {
        for j in [1, 2] {
          store { i: i, j: j } -> out
        }
      }
      get "/x"
      store { n: 1 } -> out
      match response { { code: 429 } -> retry { delay: 1 }, _ -> continue }"""
    steps = steps.replace("store { n: 1 } -> out\n      match", "match")
    ran = await bench.run(mission(steps))
    assert len(ran.ok().out) == 4
    assert all(key.startswith("auto_") for key in ran.out)


async def test_records_of_a_list_without_ids_have_keys_of_their_own(bench: Bench) -> None:
    ran = await bench.run(mission("store [{ n: 1 }, { n: 2 }] -> out"))
    assert [r["n"] for r in ran.ok().out.values()] == [1, 2]
    ran = await bench.run(mission("for x in [1, 2] { store [{ n: 1 }, { n: 2 }] -> out\nstore { n: 3 } -> out }"))
    assert len(ran.ok().out) == 6


async def test_a_record_stored_before_a_retry_is_overwritten_by_the_repetition(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(data={"v": 1}), reply(data={"v": 2}))
    steps = """
      for i in [1] {
        get "/x"
        store { v: response.v } -> out
        match response { { v: 1 } -> retry { delay: 1 }, _ -> continue }
      }"""
    ran = await bench.run(mission(steps))
    assert [r["v"] for r in ran.ok().out.values()] == [2]


async def test_response_is_unchanged_by_store(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"id": "r"}))
    ran = await bench.run(mission('get "/x"\nstore { id: "a" } -> out\nstore response -> out'))
    assert list(ran.ok().out) == ["a", "r"]


async def test_records_are_copies(bench: Bench) -> None:
    steps = """
      let a = { id: "a", n: { m: 1 } }
      store a -> out
      let b = out["a"]
      store { ...b, id: "b" } -> out
      store { id: "a", n: 2 } -> out
      store { id: "c", n: b.n.m } -> out"""
    ran = await bench.run(mission(steps))
    assert ran.ok().out["b"] == {"id": "b", "n": {"m": 1}} and ran.out["c"]["n"] == 1


async def test_partial_is_remembered_behind_a_record_and_never_in_it(bench: Bench) -> None:
    steps = """
      store { id: "a" } -> out { partial: true }
      store { id: "b" } -> out { partial: false }
      store { id: "c" } -> out
      store { id: "seen", a: out["a"]._partial, b: out["b"]._partial, c: out["c"]._partial } -> seen
      for r in out where ._partial != null { store { id: r.id, p: r._partial } -> seen }"""
    ran = await bench.run(mission(steps, stores='store seen: memory("seen")'))
    seen = ran.ok().stores["seen"]
    assert seen.pop("seen") == {"id": "seen", "a": True, "b": False, "c": None}
    assert seen == {"a": {"id": "a", "p": True}, "b": {"id": "b", "p": False}}
    assert ran.out["a"] == {"id": "a"}


async def test_delete_and_clear(bench: Bench) -> None:
    steps = """
      store [{ id: 1 }, { id: 2 }, { id: 3 }] -> out
      delete out[1]
      delete out["9"]
      store [{ id: 1 }] -> other
      clear other"""
    ran = await bench.run(mission(steps, stores='store other: memory("other")'))
    assert list(ran.ok().out) == ["2", "3"] and ran.stores["other"] == {}
    assert ran.record.stores["out"].deleted == 1 and ran.record.stores["other"].deleted == 1


async def test_delete_inside_a_loop_over_the_same_store_leaves_the_loop_its_list(bench: Bench) -> None:
    steps = """
      store [{ id: 1 }, { id: 2 }, { id: 3 }] -> out
      for r in out { delete out[3]
        store { id: concat("seen-", r.id) } -> seen }"""
    for kind in ("memory", "file"):
        text = mission(steps, stores='store seen: memory("seen")').replace('memory("out")', f'{kind}("out")')
        ran = await bench.run(text)
        assert list(ran.ok().stores["seen"]) == ["seen-1", "seen-2", "seen-3"], kind


@pytest.mark.parametrize("name", ['env("NOWHERE")', '""', "null"])
async def test_a_store_without_a_name_is_no_other_store(name: str, bench: Bench) -> None:
    ran = await bench.run(mission("store { id: 1 } -> f", stores=f"store f: file({name})"))
    assert ran.error.type == "config" and "store 'f'" in ran.error.message
    assert ran.error.hint == ("set the variable NOWHERE" if "env" in name else 'write a text, as in file("orders")')


async def test_a_store_inside_a_value_is_its_records_of_that_moment(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    steps = """store { id: 1 } -> out
      store { id: 2, rows: out, both: [out, 7] } -> out
      let all = out
      store { id: 3, n: length(out["2"].rows), m: length(all) } -> out
      post "/a" { body: out }
      post "/b" { body: { rows: all }, params: { p: [1], q: length(out) } }
      store { id: 4 } -> kept
      store { id: 5, rows: kept, alias: all } -> kept"""
    ran = (await bench.run(mission(steps, stores='store kept: file("kept")'))).ok()
    assert ran.out["2"] == {"id": 2, "rows": [{"id": 1}], "both": [[{"id": 1}], 7]}
    assert ran.out["3"] == {"id": 3, "n": 1, "m": 2}
    sent = [json.loads(seen.body) for seen in api.seen]
    assert sent[0] == list(ran.out.values()) == sent[1]["rows"]
    assert ran.stores["kept"]["5"] == {"id": 5, "rows": [{"id": 4}], "alias": sent[0]}


async def test_a_store_event_tells_what_changed(bench: Bench) -> None:
    bench.listen = (DataStored,)
    ran = await bench.run(mission("store [{ id: 1 }, { id: 2 }] -> out"))
    (event,) = ran.ok().told("data.store")
    assert isinstance(event, DataStored) and (event.store_name, event.item_count, event.added) == ("out", 2, 2)
    assert event.key is None


async def test_a_store_event_of_one_record_has_its_key(bench: Bench) -> None:
    bench.listen = (DataStored,)
    ran = await bench.run(mission('store { n: 1 } -> out { key: "k1" }'))
    assert [event.payload()["key"] for event in ran.ok().told("data.store")] == ["k1"]
    bench.listen = (DataStored, StepEnded)
    ran = await bench.run(mission("for n in [7, 8] { store { id: n } -> out }"))
    assert [event.payload()["key"] for event in ran.ok().told("data.store")] == ["7", "8"]


# --- queue -----------------------------------------------------------------------------------------------------------

REJECTS = 'store rejects: memory("rejects")'


async def test_queue_writes_its_item_with_the_key_in_force_as_id(bench: Bench) -> None:
    bench.listen = (DeadLettered,)
    steps = (
        'queue rejects { item: { why: "x" }, key: "k1" }\n'
        'queue rejects { item: { id: "k2", why: "y" } }\nqueue rejects { item: { id: "k2", n: 1 } }'
    )
    ran = await bench.run(mission(steps, stores=REJECTS))
    assert ran.ok().stores["rejects"] == {"k1": {"id": "k1", "why": "x"}, "k2": {"id": "k2", "n": 1}}
    assert len(ran.told("data.queue")) == 3


async def test_queue_of_a_list_queues_each_element(bench: Bench) -> None:
    ran = await bench.run(mission("queue rejects { item: [{ id: 1 }, { id: 2 }] }", stores=REJECTS))
    assert list(ran.ok().stores["rejects"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("pages", "options"),
    [
        ([[{"id": 1}, {"n": 2}], [None, 4]], "paginate: page(page, 2), maxPages: 3"),
        ([{"data": [{"id": 1}, {"n": 2}]}, {"data": [None, 4]}, {"data": []}], "paginate: page(page, 2)"),
        ([[{"id": 1}, {"n": 2}, None, 4]], "timeout: 1000"),
    ],
)
async def test_queue_of_whatever_stands_for_a_list_queues_each_element(
    pages: list[Any], options: str, api: ScriptedServer, bench: Bench
) -> None:
    """A null among them is an element, not the failure."""
    api.on("/x", *(reply(data=page) for page in pages), reply(data=[]))
    steps = f'get "/x" {{ {options} }}\nqueue rejects {{ item: response }}'
    kept = (await bench.run(mission(steps, stores=REJECTS))).ok().stores["rejects"]
    first, second, third, fourth = kept.values()
    assert first == {"id": 1}
    assert second["n"] == 2 and third["value"] is None and fourth["value"] == 4
    assert all(key == str(record["id"]) for key, record in kept.items())


@pytest.mark.parametrize(
    ("written", "key"), [("item: { id: null, n: 1 }", None), ('key: "k9"', "k9"), ('item: { n: 1 }, key: ""', None)]
)
async def test_a_dead_letter_is_deleted_by_its_id(written: str, key: str | None, bench: Bench) -> None:
    """The key in force is its id where it brings none, or null."""
    steps = f"match ({{ id: 7 }}) {{ _ -> {{ queue rejects {{ {written} }} }} }}"
    (letter,) = (await bench.run(mission(steps, stores=REJECTS))).ok().stores["rejects"].items()
    assert letter[0] == letter[1]["id"] and letter[0] == (key or letter[0])
    again = "for r in rejects { delete rejects[r.id] }"
    assert (await bench.run(mission(f"{steps}\n{again}", stores=REJECTS))).ok().stores["rejects"] == {}


async def test_queue_as_a_whole_arm_leaves_the_iteration(api: ScriptedServer, bench: Bench) -> None:
    api.on("/1", reply(404, data={})).on("/2", reply(data={"id": 2}))
    steps = """
      for i in [1, 2] {
        get "/{i}"
        match response {
          { error: e } -> queue rejects { item: { n: i, why: e }, key: i },
          _ -> continue
        }
        store response -> out
      }"""
    ran = await bench.run(mission(steps, stores=REJECTS))
    assert ran.ok().out == {"2": {"id": 2}}
    assert ran.stores["rejects"] == {"1": {"id": "1", "n": 1, "why": "HTTP 404 Not Found"}}


async def test_queue_in_a_block_goes_on(api: ScriptedServer, bench: Bench) -> None:
    api.on("/1", reply(404, data={}))
    steps = """
      for i in [1] {
        get "/{i}"
        match response {
          { error: _ } -> { store { id: "before" } -> out
            queue rejects { item: { n: i }, key: i }
            store { id: "behind" } -> out },
          _ -> continue
        }
        store { id: "after" } -> out
      }"""
    ran = await bench.run(mission(steps, stores=REJECTS))
    assert list(ran.ok().out) == ["before", "behind", "after"]


async def test_queue_outside_loops_as_a_whole_arm_ends_the_action(api: ScriptedServer, bench: Bench) -> None:
    api.on("/1", reply(404, data={}))
    steps = (
        'get "/1"\nmatch response { { error: _ } -> queue rejects { item: { id: "q" } }, _ -> continue }\n'
        'store { id: "after" } -> out'
    )
    ran = await bench.run(
        mission(steps, stores=REJECTS, actions='action B { store { id: "b" } -> out }', run="A then B")
    )
    assert list(ran.ok().out) == ["b"] and list(ran.stores["rejects"]) == ["q"]


async def test_queue_without_an_item_stores_the_failure(api: ScriptedServer, bench: Bench) -> None:
    api.on("/7", reply(503, data={"error": "down"}))
    steps = """
      for c in [{ id: 7, name: "x" }] {
        get "/{c.id}"
        match response { { error: _ } -> queue rejects, _ -> continue }
      }"""
    ran = await bench.run(mission(steps, stores=REJECTS))
    record = ran.ok().stores["rejects"]["7"]
    assert record["item"] == {"id": 7, "name": "x"} and record["error"] is not None
    assert (record["code"], record["kind"], record["mission"], record["action"]) == (503, "http", "M", "A")
    assert (
        record["executionId"] == ran.record.execution_id and record["attemptCount"] == 1 and record["retryable"] is True
    )
    assert record["queuedAt"] == "2026-03-01T08:15:00.000Z"


async def test_the_innermost_loops_item_is_what_failed(api: ScriptedServer, bench: Bench) -> None:
    api.on("/8", reply(404, data={}))
    steps = """
      for c in [{ id: 7 }] { for d in [{ id: 8 }] {
        get "/{d.id}"
        match response { { error: _ } -> queue rejects, _ -> continue }
      } }"""
    ran = await bench.run(mission(steps, stores=REJECTS))
    assert ran.ok().stores["rejects"]["8"]["item"] == {"id": 8}


async def test_queue_in_a_value_match_stores_the_matched_value(bench: Bench) -> None:
    steps = """
      for c in [{ id: 7, kind: "odd" }] {
        match c { { kind: "odd" } -> queue rejects, _ -> continue }
      }"""
    ran = await bench.run(mission(steps, stores=REJECTS))
    record = ran.ok().stores["rejects"]["7"]
    assert record["item"] == {"id": 7, "kind": "odd"} and record["error"] is None and record["retryable"] is False


async def test_attempts_are_counted_over_runs(api: ScriptedServer, bench: Bench) -> None:
    api.on("/7", reply(404, data={}))
    text = mission(
        'for c in [{ id: 7 }] { get "/{c.id}"\nmatch response { { error: _ } -> queue rejects, _ -> continue } }',
        stores='store rejects: file("rejects")',
    )
    for n in (1, 2):
        assert (await bench.run(text)).ok().stores["rejects"]["7"]["attemptCount"] == n


async def test_queue_without_a_store_takes_dlq_if_declared(bench: Bench) -> None:
    ran = await bench.run(mission('queue { item: { id: "a" } }', stores='store dlq: memory("mine")'))
    assert ran.ok().stores["dlq"] == {"a": {"id": "a"}}


async def test_queue_without_a_store_has_a_file_of_the_missions_own(bench: Bench) -> None:
    (await bench.run(mission('queue { item: { id: "a" } }'))).ok()
    assert (bench.state / "dead-letter" / "M.json").read_text().split() == [
        "{",
        '"a":',
        '{"id":"a"}',
        "}",
    ] or '"a"' in (bench.state / "dead-letter" / "M.json").read_text()


async def test_a_loop_over_dead_letters_can_delete_what_worked(api: ScriptedServer, bench: Bench) -> None:
    api.on("/1", reply(data={})).on("/2", reply(500, data={}))
    steps = """
      for job in lost where .attempts < 5 {
        post "/{job.n}"
        match response { { error: _ } -> store { ...job,
          attempts: job.attempts + 1 } -> lost { key: job.id }, _ -> delete lost[job.id] }
      }"""
    first = mission(
        'store [{ id: "a", n: 1, attempts: 0 }, { id: "b", n: 2, attempts: 0 }] -> lost',
        stores='store lost: file("lost")',
    )
    (await bench.run(first)).ok()
    ran = await bench.run(mission(steps, stores='store lost: file("lost")'))
    assert ran.ok().stores["lost"] == {"b": {"id": "b", "n": 2, "attempts": 1}}
