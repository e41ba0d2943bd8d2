"""Stages, groups, conditions, what is recorded of failures (spec/language.md 7.1; spec/runtime.md 13, 15.2)."""

import asyncio

from reqon.events import ActionEnded, ActionStarted, MissionFailed, StageEnded, StageStarted, StepEnded, StepStarted
from reqon.runtime.plan import Plan
from reqon.state.records import ExecutionStatus
from tests.support.missions import Bench, mission, parse_mission
from tests.support.servers import ScriptedServer, reply


def stores(*names: str) -> str:
    return "\n".join(f'action {n} {{ store {{ id: "{n}" }} -> out }}' for n in names)


async def test_stages_run_in_order_and_stop_at_a_failure(bench: Bench) -> None:
    ran = await bench.run(mission(actions=stores("A", "C") + "\naction B { store null -> out }", run="A then B then C"))
    assert list(ran.out) == ["A"] and ran.record.actions_run == ("A",)
    assert ran.record.status is ExecutionStatus.FAILED and ran.error.action == "B"


async def test_a_stage_whose_condition_is_false_is_skipped(bench: Bench) -> None:
    bench.listen = (StageEnded,)
    text = mission(
        actions=stores("A", "B", "C"), declarations="let no = 0", run="A then B if no then C if length(out) == 1"
    )
    ran = await bench.run(text)
    assert list(ran.ok().out) == ["A", "C"] and ran.record.actions_run == ("A", "C")
    ended = [e for e in ran.told("stage.complete") if isinstance(e, StageEnded)]
    assert [e.stage_index for e in ended] == [0, 2]


async def test_a_skipped_stage_hands_the_response_on(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"id": "x"}))
    actions = "action B { skip }\naction C { store response -> out }"
    ran = await bench.run(mission('get "/x"', actions=actions, run="A then B if false then C"))
    assert list(ran.ok().out) == ["x"]


async def test_a_condition_that_fails_fails_the_mission(bench: Bench) -> None:
    ran = await bench.run(mission(actions=stores("A", "B"), run='A then B if out["A"].id * 2 > 1'))
    assert ran.error.type == "eval" and ran.record.status is ExecutionStatus.FAILED
    assert ran.error.location is not None


async def test_without_a_run_clause_the_entry_action_runs(bench: Bench) -> None:
    ran = await bench.run(mission("run B", actions=stores("B")).replace("\n  run A\n}", "\n}"))
    assert list(ran.ok().out) == ["B"] and ran.record.actions_run == ("A",)


async def test_members_of_a_group_start_with_a_copy_of_the_response_and_the_next_stage_with_null(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(data={"id": "x"})).on("/y", reply(data={"id": "y"}))
    actions = """
      action B { store { id: "b", r: response.id } -> out
        get "/y" }
      action C { get "/y"
        store { id: "c", r: response.id } -> out }
      action D { store { id: "d", r: response } -> out }"""
    ran = await bench.run(mission('get "/x"', actions=actions, run="A then [B, C] then D"))
    assert {k: r["r"] for k, r in ran.ok().out.items()} == {"b": "x", "c": "y", "d": None}


async def test_after_a_group_that_failed_in_part_the_next_stages_run_and_the_mission_fails(bench: Bench) -> None:
    bench.listen = (StageEnded, MissionFailed)
    actions = stores("A", "C", "D") + "\naction B { store null -> out }"
    ran = await bench.run(mission(actions=actions, run="[A, B, C] then D"))
    assert sorted(ran.out) == ["A", "C", "D"] and sorted(ran.record.actions_run) == ["A", "C", "D"]
    assert ran.record.status is ExecutionStatus.FAILED and ran.record.errors_total == 1
    assert ran.error.action == "B" and ran.error.type == "store"
    failed = ran.told("mission.failed")[0]
    assert isinstance(failed, MissionFailed) and failed.failed_stage == "[A, B, C]"


async def test_after_a_group_of_which_all_failed_nothing_runs(bench: Bench) -> None:
    actions = stores("C") + "\naction A { store null -> out }\naction B { store 3 -> out }"
    ran = await bench.run(mission(actions=actions, run="[A, B] then C"))
    assert ran.out == {} and sorted(e.action or "" for e in ran.record.errors) == ["A", "B"]


async def test_fail_fast_cancels_the_others_and_stops(api: ScriptedServer, bench: Bench) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    api.on("/slow", silence).on("/bad", reply(418, data={}))
    actions = stores("C") + '\naction A { get "/slow" }\naction B { get "/bad" }'
    ran = await bench.run(mission(actions=actions, run="[A, B] then C", options='parallelMode: "fail-fast"'))
    assert ran.out == {} and ran.error.action == "B"


async def test_an_abort_cancels_the_others_and_stops_in_any_mode(api: ScriptedServer, bench: Bench) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    api.on("/slow", silence).on("/ok", reply(data={}))
    actions = stores("C") + '\naction A { get "/slow" }\naction B { get "/ok"\nabort "enough" }'
    ran = await bench.run(mission(actions=actions, run="[A, B] then C"))
    assert ran.out == {} and (ran.error.action, ran.error.message) == ("B", "enough")


async def test_a_group_keeps_to_max_concurrency(api: ScriptedServer, bench: Bench) -> None:
    at_once = most = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        writer.write(reply(data={}, headers={"Connection": "close"}))
        await writer.drain()

    api.on("*", slow)
    actions = "\n".join(f'action {n} {{ get "/{n}" }}' for n in "ABCDE")
    (await bench.run(mission(actions=actions, run="[A, B, C, D, E]", options="maxConcurrency: 2"))).ok()
    assert most == 2


async def test_a_failure_names_action_step_line_and_column(bench: Bench) -> None:
    text = mission("let n = { id: 1 }\nfor x in [1] {\n    store { id: x, n: n * 2 } -> out\n}")
    ran = await bench.run(text)
    error = ran.error
    assert (error.type, error.action, error.location) == ("eval", "A", "test.vague:10:23")
    assert error.step == "store"
    assert text.splitlines()[9][22:].startswith("n * 2")


async def test_a_fetch_failure_points_at_the_fetch(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(404, data={}))
    for steps in (
        'let a = 1\n  get "/x"',
        'let a = 1\n  get "/x"\nmatch response { { code: 500 } -> skip, _ -> continue }',
    ):
        ran = await bench.run(mission(steps))
        assert (ran.error.location, ran.error.step, ran.error.status) == ("test.vague:9:3", 'get "/x"', 404)


async def test_steps_and_actions_are_told_in_order(bench: Bench) -> None:
    bench.listen = (StepStarted, StepEnded, ActionStarted, ActionEnded, StageStarted)
    ran = await bench.run(mission("let a = 1\nfor x in [1] { store { id: x } -> out }\nskip"))
    told = [(e.event.type, getattr(e.event, "step_type", None)) for e in ran.events]
    assert told == [
        ("stage.start", None), ("action.start", None), ("step.start", "let"), ("step.complete", "let"),
        ("step.start", "for"), ("step.start", "store"), ("step.complete", "store"), ("step.complete", "for"),
        ("step.start", "custom"), ("step.complete", "custom"),
        ("action.complete", None),
    ]  # fmt: skip
    last = ran.events[-2].event
    assert isinstance(last, StepEnded) and last.flow == "skip"


async def test_a_failed_step_is_told_as_failed(bench: Bench) -> None:
    bench.listen = (StepStarted, StepEnded, ActionEnded)
    ran = await bench.run(mission("store null -> out"))
    ended = [e.event for e in ran.events if isinstance(e.event, StepEnded)]
    assert len(ended) == 1 and not ended[0].success and ended[0].error is not None


async def test_mission_variables_and_stores_with_choices(bench: Bench) -> None:
    text = mission(
        "store { id: name, n: twice } -> picked", declarations='let name = env("NAME", "none")\nlet twice = 2 * 3',
        stores='store picked: match env("STAGE") { "live" => file("live"), _ => memory("dev") }',
    )  # fmt: skip
    bench.environment = {"NAME": "x", "STAGE": "live"}
    assert (await bench.run(text)).ok().stores["picked"] == {}
    assert bench.file_store("live") == {"x": {"id": "x", "n": 6}}
    bench.environment = {}
    assert (await bench.run(text)).ok().stores["picked"] == {"none": {"id": "none", "n": 6}}


async def test_a_mission_without_state_runs_all_the_same(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data=[{"id": 1}, {"id": 2}]))
    steps = 'get "/x"\nfor r in response { get "/y/{r.id}"\nstore { id: r.id } -> out }\nrun B'
    ran = await bench.run(mission(steps, actions='action B { post "/z" }', options="enableState: false"))
    assert list(ran.ok().out) == ["1", "2"]
    assert list((bench.state / "execution").iterdir()) == []


def test_a_step_is_compiled_when_a_run_comes_to_it() -> None:
    text = """
      mission Large {
        source Api { auth: none, base: "http://127.0.0.1:1" }
        store out: memory("out")
        action First { let n = 1  store { id: n } -> out { key: .id } }
        action Never { store { id: 1 / 0 } -> out { key: .id } }
        run First then Never if length(out) > 5
      }
    """
    plan = Plan(parse_mission(text), environment={}).begin()

    def compiled() -> list[str]:
        return [
            f"{name} {step.place.index}"
            for name in ("First", "Never")
            for step in plan.action(name).steps
            if step.make.cache_info().currsize  # type: ignore[attr-defined]
        ]

    assert compiled() == ["First 0"]
    assert plan.action("First").steps[0].function is plan.action("First").steps[0].function
    plan.compile()
    assert compiled() == ["First 0", "First 1", "Never 0"]
