"""`retry`, `skip`, `abort`, `run`, `jump` (spec/language.md 7.7, 7.10; spec/runtime.md 5.6)."""

import pytest

from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply

OK = reply(data={"id": "ok"})


def busy(seconds: str | None = None) -> bytes:
    return reply(429, data={}, headers={} if seconds is None else {"Retry-After": seconds})


RETRY = """
  get "/x"
  match response {{
    {{ code: 429 }} -> retry {options},
    {rest}
    _ -> continue
  }}
  store response -> out"""


def retry(options: str = "", rest: str = "") -> str:
    return RETRY.format(options=options, rest=rest)


async def test_retry_sends_again_until_it_works(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", busy(), busy(), OK)
    ran = await bench.run(mission(retry()))
    assert list(ran.ok().out) == ["ok"]
    assert len(api.seen) == 3 and ran.record.retries == 2 and ran.record.requests == 3
    assert bench.clock.slept == [1.0, 2.0]


async def test_retry_waits_what_the_response_asks_for(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", busy("7"), OK)
    (await bench.run(mission(retry()))).ok()
    assert bench.clock.slept == [7.0]


async def test_a_written_delay_beats_retry_after(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", busy("7"), OK)
    (await bench.run(mission(retry("{ delay: 250 }")))).ok()
    assert bench.clock.slept[0] == 0.25  # the limiter sees to the rest


async def test_a_delay_may_be_computed_from_the_matched_value(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", busy("3"), OK)
    steps = retry().replace(
        "{ code: 429 } -> retry", "{ code: 429, retryAfter: s } -> retry { maxAttempts: 6, delay: s * 1000 }"
    )
    (await bench.run(mission(steps))).ok()
    assert bench.clock.slept == [3.0]


async def test_backoff_is_counted_over_executions(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", *[busy()] * 4, OK)
    options = '{ maxAttempts: 5, backoff: "linear", initialDelay: 100, jitter: 0 }'
    (await bench.run(mission(retry(options)))).ok()
    assert bench.clock.slept == pytest.approx([0.1, 0.2, 0.3, 0.4])


async def test_a_used_up_retry_is_an_error_with_the_last_failure(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", busy())
    ran = await bench.run(mission(retry("{ maxAttempts: 2 }")))
    assert ran.error.type == "retry_exhausted" and "429" in ran.error.message and ran.error.status == 429
    assert len(api.seen) == 2 and ran.out == {}


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        ('{ code: _ } -> store { id: "late" } -> out,', "retry_exhausted"),
        ("{ code: _ } -> continue,", "retry_exhausted"),
        ('{ code: _ } -> abort "gave up",', "abort"),
        ("{ code: _ } -> skip,", None),
        ('{ code: _ } -> queue { item: { id: "q" } },', None),
        ('{ code: _ } -> { store { id: "late" } -> out\nskip },', None),
    ],
)
async def test_behind_a_used_up_retry_only_an_arm_that_gives_up_may_match(
    rest: str, kind: str | None, api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", busy())
    ran = await bench.run(mission(retry("{ maxAttempts: 2, delay: 1 }", rest)))
    assert (ran.record.errors[0].type if ran.record.errors else None) == kind
    assert len(api.seen) == 2
    assert ("late" in ran.out) == ("late" in rest and kind is None)


async def test_an_earlier_arm_may_still_match_after_a_retry_is_used_up(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", busy(), reply(404, data={}))
    steps = retry("{ maxAttempts: 2, delay: 1 }", '{ code: 404 } -> store { id: "gone" } -> out,')
    ran = await bench.run(mission(steps.replace("store response -> out", "")))
    assert list(ran.ok().out) == ["gone"]


async def test_each_item_of_a_loop_has_a_budget_of_its_own(api: ScriptedServer, bench: Bench) -> None:
    for i in range(3):
        api.on(f"/{i}", busy(), busy(), reply(data={"id": i}))
    steps = """
      for i in [0, 1, 2] {
        get "/{i}"
        match response { { code: 429 } -> retry { delay: 1 }, _ -> continue }
        store response -> out
      }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["0", "1", "2"] and len(api.seen) == 9


async def test_two_retries_of_one_request_have_budgets_of_their_own(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", busy(), reply(503, data={}), busy(), reply(503, data={}), OK)
    rest = "{ code: 503 } -> retry { delay: 1 },"
    ran = await bench.run(mission(retry("{ delay: 1 }", rest)))
    assert list(ran.ok().out) == ["ok"] and len(api.seen) == 5


async def test_reaching_the_request_again_renews_the_budget(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", busy(), OK, busy(), OK)
    ran = await bench.run(mission(retry("{ maxAttempts: 2, delay: 1 }"), run="A then A"))
    assert ran.ok().record.requests == 4


async def test_steps_between_request_and_match_run_again(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"n": 1}), reply(data={"n": 2}))
    steps = """
      get "/x"
      let n = response.n
      store { id: concat("n", n) } -> out
      match response { { n: 1 } -> retry { delay: 1 }, _ -> continue }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["n1", "n2"]


async def test_a_retry_in_a_nested_match_goes_to_the_request_around(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"a": 1, "b": 1}), reply(data={"a": 1, "b": 2}))
    steps = """
      get "/x"
      match response { { a: 1 } -> { let b = response.b
          match b { 1 -> retry { delay: 1 }, _ -> store { id: "done" } -> out } }, _ -> skip }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["done"] and len(api.seen) == 2


async def test_a_retry_may_repeat_a_request_of_its_own_block(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", OK).on("/y", busy(), reply(data={"id": "y"}))
    steps = """
      get "/x"
      match response { { id: "ok" } -> {
          get "/y"
          match response { { code: 429 } -> retry { delay: 1 }, _ -> continue }
          store response -> out }, _ -> skip }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["y"] and [s.path for s in api.seen] == ["/x", "/y", "/y"]


async def test_a_reissued_request_is_a_single_attempt(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(503, data={}))
    text = mission(
        'get "/x"\nmatch response { { code: 503 } -> retry { maxAttempts: 3, delay: 1 }, _ -> continue }'
    ).replace("maxAttempts: 1", "maxAttempts: 4, delay: 5")
    ran = await bench.run(text)
    assert ran.error.type == "retry_exhausted"
    assert len(api.seen) == 4 + 1 + 1
    assert ran.record.requests == 6


async def test_skip_in_a_loop_with_a_repeatable_request_ends_the_iteration(api: ScriptedServer, bench: Bench) -> None:
    api.on("/1", reply(404, data={})).on("/2", busy(), reply(data={"id": 2}))
    steps = """
      for i in [1, 2] {
        get "/{i}"
        match response { { code: 404 } -> skip, { code: 429 } -> retry { delay: 1 }, _ -> continue }
        store response -> out
      }
      store { id: "after" } -> out"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["2", "after"] and ran.record.items_processed == 2


async def test_retry_in_a_parallel_loop_stays_with_its_item(api: ScriptedServer, bench: Bench) -> None:
    for i in range(6):
        api.on(f"/{i}", busy(), reply(data={"id": i}))
    steps = """
      for i in [0, 1, 2, 3, 4, 5] parallel {
        get "/{i}"
        match response { { code: 429 } -> retry { delay: 1 }, _ -> continue }
        store response -> out
      }"""
    ran = await bench.run(mission(steps))
    assert sorted(ran.ok().out) == ["0", "1", "2", "3", "4", "5"] and len(api.seen) == 12


async def test_skip_outside_loops_ends_the_action_which_counts_as_completed(bench: Bench) -> None:
    text = mission('skip\nstore { id: "no" } -> out', actions='action B { store { id: "b" } -> out }', run="A then B")
    ran = await bench.run(text)
    assert list(ran.ok().out) == ["b"] and ran.record.actions_run == ("A", "B")


async def test_skip_in_an_inner_loop_ends_the_inner_iteration_only(bench: Bench) -> None:
    steps = """
      for i in [1, 2] {
        for j in [1, 2, 3] {
          match j { 2 -> skip, _ -> continue }
          store { id: concat(i, "-", j) } -> out
        }
        store { id: concat("i", i) } -> out
      }"""
    ran = await bench.run(mission(steps))
    assert list(ran.ok().out) == ["1-1", "1-3", "i1", "2-1", "2-3", "i2"]


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("abort", "Execution aborted"),
        ('abort "no way"', "no way"),
        ('abort concat("n=", 1 + 1)', "n=2"),
        ("abort { a: 1 }", '{"a":1}'),
        ("abort null", "Execution aborted"),
    ],
)
async def test_abort_fails_the_mission_with_its_message(directive: str, message: str, bench: Bench) -> None:
    text = mission(
        f'store {{ id: "kept" }} -> out\n{directive}', actions='action B { store { id: "b" } -> out }', run="A then B"
    )
    ran = await bench.run(text)
    assert (ran.error.type, ran.error.message, list(ran.out)) == ("abort", message, ["kept"])
    assert ran.record.actions_run == () and ran.error.action == "A"


async def test_run_calls_an_action_with_its_own_response_and_variables(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"id": "x"})).on("/y", reply(data={"id": "y"}))
    actions = """
      action B {
        let v = 2
        store { id: "saw", r: response.id } -> out
        get "/y"
        store response -> out
      }"""
    ran = await bench.run(
        mission('let v = 1\nget "/x"\nrun B\nstore { id: "after", r: response.id, v: v } -> out', actions=actions)
    )
    assert ran.ok().out == {
        "saw": {"id": "saw", "r": "x"},
        "y": {"id": "y"},
        "after": {"id": "after", "r": "x", "v": 1},
    }
    assert ran.record.actions_run == ("A",)


async def test_run_takes_stages_groups_and_conditions(bench: Bench) -> None:
    actions = "".join(f'action {n} {{ store {{ id: "{n}" }} -> out }}\n' for n in "BCD")
    ran = await bench.run(mission("let yes = true\nrun B then [C, D] if yes then B if not yes", actions=actions))
    assert sorted(ran.ok().out) == ["B", "C", "D"]


async def test_a_bare_action_name_as_arm_runs_it(bench: Bench) -> None:
    ran = await bench.run(
        mission("let v = 1\nmatch v { 1 -> B, _ -> skip }", actions='action B { store { id: "b" } -> out }')
    )
    assert list(ran.ok().out) == ["b"]


async def test_an_error_in_a_called_action_is_its_own_and_goes_on_up(bench: Bench) -> None:
    ran = await bench.run(mission('run B\nstore { id: "no" } -> out', actions="action B { store null -> out }"))
    assert ran.error.type == "store" and ran.error.action == "B" and ran.out == {}


async def test_an_abort_in_a_called_action_stops_the_mission(bench: Bench) -> None:
    ran = await bench.run(mission("run B", actions='action B { abort "deep" }'))
    assert (ran.error.type, ran.error.message) == ("abort", "deep")


async def test_skip_in_a_called_action_ends_only_that_action(bench: Bench) -> None:
    ran = await bench.run(mission("for i in [1, 2] { run B\nstore { id: i } -> out }", actions="action B { skip }"))
    assert list(ran.ok().out) == ["1", "2"]


async def test_a_loop_in_a_called_action_runs_each_time_it_is_called(bench: Bench) -> None:
    actions = 'action B { for j in [1, 2] { store { id: concat(response.id, "-", j) } -> out } }'
    steps = 'for i in ["a", "b"] { map i -> t { id: i }\nrun B }'
    ran = await bench.run(mission(steps, actions=actions))
    assert list(ran.ok().out) == ["a-1", "a-2", "b-1", "b-2"]
    assert ran.record.items_processed == 2


async def test_jump_then_continue_goes_on_behind_the_match(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(404, data={}))
    for jump in ("jump B", "jump B then continue"):
        steps = (
            f'get "/x"\nmatch response {{ {{ code: 404 }} -> {jump}, _ -> continue }}\nstore {{ id: "after" }} -> out'
        )
        ran = await bench.run(mission(steps, actions='action B { store { id: "b" } -> out }'))
        assert list(ran.ok().out) == ["b", "after"]


JUMP = """
  get "/x"
  match response { { code: 401 } -> jump Login then retry, _ -> continue }
  store response -> out"""


async def test_jump_then_retry_adopts_the_token_it_brings(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(401, data={}), OK).on("/login", reply(data={"access_token": "fresh-token"}))
    text = mission(JUMP, actions='action Login { post "/login" }').replace(
        "auth: none", 'auth: bearer, token: "old-token"'
    )
    ran = await bench.run(text)
    assert list(ran.ok().out) == ["ok"]
    assert [(s.path, s.headers.get("authorization")) for s in api.seen] == [
        ("/x", "Bearer old-token"), ("/login", "Bearer old-token"), ("/x", "Bearer fresh-token"),
    ]  # fmt: skip
    assert sum(bench.clock.slept) == 0


async def test_jumps_are_at_most_three_per_request(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(401, data={})).on("/login", reply(data={}))
    ran = await bench.run(mission(JUMP, actions='action Login { post "/login" }'))
    assert ran.error.type == "retry_exhausted"
    assert [s.path for s in api.seen].count("/login") == 3 and [s.path for s in api.seen].count("/x") == 4


async def test_a_jump_with_a_delay_waits(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(401, data={}), OK)
    steps = JUMP.replace("then retry", "then retry { delay: 500 }")
    (await bench.run(mission(steps, actions='action Login { store { id: "l" } -> out }'))).ok()
    assert bench.clock.slept == [0.5]


async def test_a_jump_target_may_retry_requests_of_its_own(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(401, data={}), OK).on("/login", busy(), reply(data={"token": "t"}))
    login = 'action Login { post "/login"\nmatch response { { code: 429 } -> retry { delay: 1 }, _ -> continue } }'
    ran = await bench.run(mission(JUMP, actions=login))
    assert list(ran.ok().out) == ["ok"] and len(api.seen) == 4
