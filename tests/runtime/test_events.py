"""What a run tells: every event of spec/runtime.md 15.2, in order, and nothing at all when nobody listens."""

from typing import Any

import pytest

from reqon.events import (
    PER_ITEM,
    DataRefused,
    Emitted,
    Event,
    FetchCompleted,
    MissionEnded,
    StageEnded,
)
from reqon.runtime.plan import Plan
from tests.support.missions import Bench, mission, parse_mission
from tests.support.servers import ScriptedServer, reply

ORDERS = [{"id": f"o{i}", "total": i, "kind": "A" if i % 2 else "B"} for i in range(6)]
for order in ORDERS[4:]:
    order["big"] = True
EVERYTHING = mission(
    """
    get "/orders"
    for order in response where .total > 0 {
      match order {
        Big -> { map order -> Slim { id: .id, cents: .total * 100 } },
        { kind: "B" } -> skip,
        _ -> { apply Tidy to order }
      }
      validate response { assume length(.id) > 0, assume .id != "o3" }
      store response -> out { key: .id }
      for letter in ["x", "y"] { store { id: concat(order.id, letter) } -> letters { upsert: true } }
    }
    post "/done" { body: { count: length(out) } }
""",
    stores='store letters: memory("letters")',
    declarations="""
      schema Big { big: boolean }
      schema Slim { id: string, cents: number }
      transform Tidy { (_) -> Slim { id: .id, cents: 0 } }
    """,
)


async def heard(bench: Bench, text: str, *kinds: type[Event]) -> list[Emitted]:
    bench.listen = kinds or (Event,)
    return [e for e in (await bench.run(text)).events if not e.event.internal]


def shown(events: list[Emitted], *types: str) -> list[dict[str, Any]]:
    return [e.to_dict()["payload"] for e in events if e.type in types]


@pytest.fixture
def orders(api: ScriptedServer) -> ScriptedServer:
    return api.on("/orders", reply(data=ORDERS)).on("/done", reply(data={"ok": True}))


async def test_a_run_tells_of_every_step_item_arm_and_value(orders: ScriptedServer, bench: Bench) -> None:
    events = await heard(bench, EVERYTHING)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert events[0].type == "mission.start" and isinstance(events[-1].event, MissionEnded)
    assert shown(events, "loop.start")[0] == {
        "variable": "order", "collectionSize": 5, "hasFilter": True, "concurrency": 1,
    }  # fmt: skip
    items = [p for p in shown(events, "loop.iteration") if p["variable"] == "order"]
    assert items == [{"variable": "order", "itemIndex": i, "totalItems": 5} for i in range(5)]
    ends = shown(events, "loop.complete")
    assert ends[-1] == {
        "variable": "order", "totalItems": 5, "itemsProcessed": 5, "itemsSkipped": 1, "itemsFailed": 0,
    }  # fmt: skip
    assert [e for e in ends if e["variable"] == "letter"] == [
        {"variable": "letter", "totalItems": 2, "itemsProcessed": 2, "itemsSkipped": 0, "itemsFailed": 0}
    ] * 4
    assert shown(events, "match.attempt") == [{"schemas": ["Big", '{ kind: "B" }'], "hasDefault": True}] * 5
    assert shown(events, "match.result") == [
        {"isDefault": True},
        {"isDefault": False, "matchedSchema": '{ kind: "B" }', "flowDirective": "skip"},
        {"isDefault": True},
        {"isDefault": False, "matchedSchema": "Big"},
        {"isDefault": False, "matchedSchema": "Big"},
    ]
    one = {"inputCount": 1, "outputCount": 1, "fieldsMapping": 2}
    assert shown(events, "data.transform") == [{"targetSchema": s, **one} for s in ("Tidy", "Tidy", "Slim", "Slim")]
    rules = ["length(.id) > 0", '.id != "o3"']
    valid = {"target": "response", "passed": True, "valid": True, "warningCount": 0, "errorCount": 0}
    wrong = {**valid, "valid": False, "warningCount": 1, "rules": rules, "errors": rules[1:]}
    right = {**valid, "rules": rules, "errors": []}
    assert shown(events, "data.validate") == [right, wrong, right, right]
    stores = shown(events, "data.store")
    assert stores[0] == {
        "storeName": "out", "store": "out", "storeType": "memory", "operation": "set", "itemCount": 1, "count": 1,
        "added": 1, "updated": 0, "unchanged": 0, "key": "o1",
    }  # fmt: skip
    assert [s["operation"] for s in stores if s["store"] == "letters"] == ["upsert"] * 8
    outside = {e.type for e in events if e.action is None}
    assert outside == {"mission.start", "stage.start", "stage.complete", "mission.complete"}
    fetched = shown(events, "fetch.complete")[0]
    assert fetched["statusCode"] == fetched["status"] == 200 and fetched["recordCount"] == 6


async def test_starts_and_ends_nest(orders: ScriptedServer, bench: Bench) -> None:
    events = await heard(bench, EVERYTHING)
    open_now: list[tuple[str, Any]] = []
    for e in events:
        family, _, verb = e.type.partition(".")
        mark = (family, getattr(e.event, "step_path", None) or getattr(e.event, "action_name", None))
        if verb == "start":
            open_now.append(mark)
        elif verb == "complete" and family != "mission":
            assert open_now.pop() == mark, e
            assert e.duration is not None
    assert open_now == [("mission", None)]
    paths = [p["stepPath"] for p in shown(events, "step.start")]
    assert "A.1.0" in paths and "A.1.3.0" in paths and {e.action for e in events if e.type == "step.start"} == {"A"}


async def test_who_listens_changes_nothing(orders: ScriptedServer, bench: Bench) -> None:
    alone = (await bench.run(EVERYTHING)).ok()
    bench.listen = (Event,)
    watched = (await bench.run(EVERYTHING)).ok()
    assert watched.stores == alone.stores
    assert watched.record.items_processed == alone.record.items_processed
    assert watched.record.stores == alone.record.stores and watched.record.invalid == alone.record.invalid


def test_code_that_nobody_watches_tells_nothing() -> None:
    plan = Plan(parse_mission(EVERYTHING), environment={"API": "http://x"})

    def names(*, watched: bool) -> set[str]:
        found: set[str] = set()
        for step in plan.action("A", watched=watched).steps:
            pending = [step.function.__code__]
            while pending:
                code = pending.pop()
                used = (step.function.__globals__.get(name) for name in code.co_names)
                found |= {getattr(one, "__name__", "") for one in used}
                pending += [c for c in code.co_consts if hasattr(c, "co_names")]
        return found

    telling = {"WatchedStep", "WatchedLoop", "tell_match", "tell_arm", "tell_transform", "tell_valid"}
    assert names(watched=True) >= telling
    assert names(watched=False).isdisjoint(telling)


async def test_who_wants_failed_validations_only_pays_for_nothing_else(orders: ScriptedServer, bench: Bench) -> None:
    bench.listen = (DataRefused, StageEnded, FetchCompleted)
    ran = await bench.run(EVERYTHING)
    assert [e.type for e in ran.events] == [
        "fetch.complete", "data.validate", "fetch.complete", "stage.complete",
    ]  # fmt: skip
    assert bench.runner is not None and not bench.runner.bus.wants(*PER_ITEM)


@pytest.mark.parametrize(
    ("body", "flow", "success"),
    [
        ("match response { _ -> skip }", "skip", True),
        ('match response { _ -> abort "no" }', "abort", True),
        ("match response { _ -> queue out { item: { id: 7 } } }", "skip", True),
        ("match response { _ -> jump B }", "jump", True),
        ("store null -> out", None, False),
        ("let x = 1", None, True),
    ],
)
async def test_directives_end_a_step_as_a_success(
    orders: ScriptedServer, bench: Bench, body: str, flow: str | None, success: bool
) -> None:
    text = mission(f'get "/orders"\n{body}', actions="action B { let y = 1 }")
    events = await heard(bench, text)
    last = [p for p in shown(events, "step.complete") if p["stepPath"] == "A.1"][-1]
    assert (last.get("flow"), last["success"], "error" in last) == (flow, success, not success)


async def test_a_retry_is_told_with_its_wait(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(503, data={}), reply(data={"id": 1}))
    steps = 'get "/x"\nmatch response { { code: 503 } -> retry { delay: 2000, maxAttempts: 4 }, _ -> continue }'
    events = await heard(bench, mission(steps))
    assert shown(events, "fetch.retry") == [
        {
            "source": "Api",
            "path": "/x",
            "attempt": 1,
            "maxAttempts": 4,
            "reason": "http_503",
            "statusCode": 503,
            "waitMs": 2000,
        }
    ]
    assert shown(events, "fetch.error")[0] | {"url": "", "error": ""} == {
        "source": "Api", "method": "GET", "path": "/x", "url": "", "error": "", "statusCode": 503,
        "kind": "http", "retryable": True, "delivered": True, "attempts": 1,
    }  # fmt: skip


async def test_a_parallel_loop_tells_of_items_and_failures(orders: ScriptedServer, bench: Bench) -> None:
    steps = """
    get "/orders"
    for o in response parallel { match o { { id: "o3" } -> { store null -> out }, _ -> { store o -> out } } }
    """
    events = await heard(bench, mission(steps))
    assert sorted(p["itemIndex"] for p in shown(events, "loop.iteration")) == list(range(6))
    end = shown(events, "loop.complete")[-1]
    assert (end["totalItems"], end["itemsProcessed"], end["itemsFailed"]) == (6, 5, 1)
    assert events[-1].type == "mission.failed"


async def test_each_page_is_told_and_made_safe(api: ScriptedServer, bench: Bench) -> None:
    api.on("/p", reply(data=[{"id": 1}, {"id": 2}]), reply(data=[{"id": 3}, {"id": 4}]), reply(data=[{"id": 5}]))
    events = await heard(bench, mission('get "/p" { paginate: page(page, 2) }\nstore response -> out'))
    assert [(p["page"], p["itemCount"], p["totalItems"], p["hasMore"]) for p in shown(events, "fetch.page")] == [
        (1, 2, 2, True), (2, 2, 4, True), (3, 1, 5, False),
    ]  # fmt: skip
    saved = [p for p in shown(events, "checkpoint.save") if p["reason"] == "page"]
    assert [p["page"] for p in saved] == [1, 2, 3]
    done = shown(events, "fetch.complete")[0]
    assert (done["pagesFetched"], done["attempts"], done["recordCount"]) == (3, 3, 5)


async def test_a_request_that_cannot_be_made_has_its_start_too(api: ScriptedServer, bench: Bench) -> None:
    events = await heard(bench, mission('let id = null\nget "/x/{id}"'))
    kinds = [e.type for e in events if e.type.startswith("fetch")]
    assert kinds == ["fetch.start", "fetch.error"]
    assert shown(events, "fetch.error")[0]["kind"] == "bad_path"


async def test_no_event_holds_data(orders: ScriptedServer, bench: Bench) -> None:
    """Records, bodies and credentials stay out of events: only names, counts, places and the mission's own words."""
    marked = [{**o, "secretish": "CONTENT-OF-A-RECORD"} for o in ORDERS]
    orders.on("/orders", reply(data=marked))
    events = await heard(bench, EVERYTHING)
    assert "CONTENT-OF-A-RECORD" not in "".join(str(e.to_dict()) for e in events)
