"""Steps that read what they wrote: a resume that did one of them twice would be seen (spec/state.md 5)."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from reqon import execute
from tests.runtime.test_resume import Site, interrupted
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer

COUNT = 'store { id: "c", n: (counter["c"].n or 0) + 1 } -> counter'

CASES = {
    "counted after the request": f'for r in ["a", "b", "c"] {{ post "/note/{{r}}"\n{COUNT} }}',
    "counted before the request": f'for r in ["a", "b", "c"] {{ {COUNT}\npost "/note/{{r}}" }}',
    "counted between requests": f'for r in ["a", "b"] {{ post "/n/{{r}}"\n{COUNT}\npost "/m/{{r}}"\n{COUNT} }}',
    "counted in an inner loop": f"""
      for r in ["a", "b"] {{ {COUNT}
        for k in [1, 2] {{ {COUNT}
          post concat("/n/", r, k)
          {COUNT} }}
        {COUNT} }}""",
    "steps of an action": f'post "/n/1"\n{COUNT}\npost "/n/2"\n{COUNT}\nget "/detail/x"\n{COUNT}\npost "/n/3"',
    "called in a loop": f'for r in ["a", "b"] {{ {COUNT}\nrun B\n{COUNT} }}',
    "called": f"{COUNT}\nrun B\n{COUNT}\nrun B\n{COUNT}",
    "in an arm before its loop": f"""
      get "/list/l"
      match response {{ [] -> skip, _ -> {{ {COUNT}
        for r in response {{ post "/n/{{r.id}}"
          {COUNT} }}
        {COUNT} }} }}""",
    "in an arm that calls": f"""
      match 1 {{ _ -> {{ {COUNT}
        run B
        {COUNT}
        run B
        {COUNT}
        post "/n/1"
        {COUNT} }} }}""",
    "in an arm of two loops": f"""
      match 1 {{ _ -> {{ for k in [1, 2] {{ {COUNT} }}
        {COUNT}
        for k in [1, 2] {{ post "/n/{{k}}"
          {COUNT} }}
        {COUNT}
        run B
        for k in [1, 2] {{ {COUNT} }}
        post "/n/3" }} }}""",
    "in an arm whose first request is the run's": f"""
      match response {{ null -> {{ get "/detail/1"
        {COUNT}
        get "/detail/2"
        {COUNT}
        get "/detail/3" }}, _ -> abort }}""",
    "behind a call whose request is the run's first": f"""
      match 1 {{ _ -> {{ run Read
        {COUNT}
        get "/detail/2" }} }}""",
    "in an arm without loops": f"""
      match 1 {{ _ -> {{ {COUNT}
        post "/n/1"
        {COUNT}
        get "/detail/2"
        {COUNT}
        post "/n/3" }} }}""",
}
ACTIONS = f'action Read {{ get "/detail/1" }}\naction B {{ {COUNT}\npost "/b/1"\n{COUNT}\npost "/b/2"\n{COUNT} }}'


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("how", ["kill", "fail", "cancel", "stop"])
@pytest.mark.parametrize("case", CASES)
async def test_what_a_mission_counts_is_counted_once(
    case: str, how: str, kind: str, api: ScriptedServer, tmp_path: Path
) -> None:
    text = mission(CASES[case], actions=ACTIONS, stores=f'store counter: {kind}("counter")')
    site = Site(api)
    whole = (await Bench(api, tmp_path / "whole").run(text)).ok()
    count = len(api.seen)
    wrong: list[object] = []
    for at in range(1, count + 1):
        before = len(api.seen)
        second = await interrupted(Bench(api, tmp_path / f"run{at}"), site, text, how, at)
        site.at = 0
        ran = (await second.resume(text)).ok()
        if ran.record.attempt > 1 and ran.stores != whole.stores:
            wrong.append((at, ran.stores["counter"], whole.stores["counter"]))
        if len(api.seen) - before > count + 1:  # only what was on its way is asked again
            wrong.append((at, [seen.target for seen in api.seen[before:]]))
    assert not wrong


FAILING = {
    "before its first request": f"""
      for r in ["a", "b", "c"] {{ {COUNT}
        match r {{ "b" -> GATE, _ -> continue }}
        {COUNT} }}""",
    "with the steps around it": f"""
      {COUNT}
      get "/list/l"
      {COUNT}
      match response {{ [] -> skip, _ -> {{ {COUNT}
        match 1 {{ _ -> GATE }} }} }}
      {COUNT}""",
    "that asked for nothing": f"{COUNT}\nmatch 1 {{ 1 -> {{ {COUNT}\nmatch 1 {{ _ -> GATE }} }} }}\n{COUNT}",
    "in an arm that asks twice": f"""
      match 1 {{ 1 -> {{ {COUNT}
        post "/n/1"
        {COUNT}
        post "/n/2"
        match 1 {{ _ -> GATE }}
        {COUNT} }} }}""",
    "that moves what it found": """
      get "/list/l"
      store response -> side
      for r in side { delete side[r.id]
        match r.id { "l2" -> GATE, _ -> continue }
        store r -> counter }""",
}  # fmt: skip
GATE = 'match env("READY") { "no" -> { store { id: "why", of: "no" } -> side\nabort "not yet" }, _ -> continue }'


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("case", FAILING)
async def test_a_step_that_failed_is_undone_before_it_is_done_again(
    case: str, kind: str, api: ScriptedServer, tmp_path: Path
) -> None:
    Site(api)
    stores = f'store counter: {kind}("counter")\nstore side: {kind}("side")'
    text = mission(FAILING[case].replace("GATE", f"{{ {GATE} }}"), stores=stores)
    whole = (await Bench(api, tmp_path / "whole", environment={"READY": "yes"}).run(text)).ok()
    bench = Bench(api, tmp_path / "run", environment={"READY": "no"})
    for _ in range(3):
        ran = await bench.resume(text)
        assert not ran.outcome.success
        # What it had written is there to be looked at, until it is done again.
        assert ran.stores["side"]["why"] == {"id": "why", "of": "no"}
    bench.environment = {"READY": "yes"}
    assert (await bench.resume(text)).ok().stores == whole.stores
    assert not list((tmp_path / "run" / "stores").glob(".*"))


DECISIONS = {
    "a called pipeline's condition that did not hold": "run B if length(counter) > 0 then C",
    "a called pipeline's condition that held": "run C if length(counter) == 0",
    "by the environment": 'run C if env("DAY") == "monday" then B',
    "a pipeline in an action called in an action": "run D",
    "in a loop": 'for r in ["a", "b"] { run C if env("DAY") == "monday" }',
    "an arm chosen by a store that it fills": """
      match length(counter) { 0 -> {
        for k in [1, 2, 3] { post "/note/{k}"
          store { id: concat("k", k) } -> counter } }, _ -> abort "no" }""",
    "an arm chosen by a condition": """
      match { length(counter) == 0 -> { post "/note/1"
        store { id: "one" } -> counter
        post "/note/2"
        run C }, _ -> abort "no" }""",
}


@pytest.mark.parametrize("where", ["in an action", "in the mission"])
@pytest.mark.parametrize("how", ["kill", "fail"])
@pytest.mark.parametrize("case", DECISIONS)
async def test_what_was_decided_stays_decided(
    case: str, how: str, where: str, api: ScriptedServer, tmp_path: Path
) -> None:
    """Language 7.1: what has changed since a condition was looked at does not matter."""
    actions = """
      action B { store { id: "b" } -> counter }
      action C { store { id: "c" } -> counter
        post "/c/1"
        store { id: "c2" } -> counter
        post "/c/2" }
      action D { run B if length(counter) > 0 then C if length(counter) == 0 }"""
    steps = DECISIONS[case]
    is_pipeline = steps.startswith("run")
    if where == "in the mission" and not is_pipeline:
        steps = "run E"
        actions += f"\naction E {{ {DECISIONS[case]} }}"
    stores = 'store counter: file("counter")'
    if where == "in the mission" and is_pipeline:
        text = mission(actions=actions, run=steps.removeprefix("run "), stores=stores)
    else:
        text = mission(steps, actions=actions, stores=stores)
    site = Site(api)
    whole = (await Bench(api, tmp_path / "whole", environment={"DAY": "monday"}).run(text)).ok()
    asked = site.targets()
    assert asked
    for at in range(1, len(asked) + 1):
        first = Bench(api, tmp_path / f"run{at}", environment={"DAY": "monday"})
        second = await interrupted(first, site, text, how, at)
        site.at = 0
        second.environment = {"DAY": "sunday"}
        ran = (await second.resume(text)).ok()
        assert ran.stores == whole.stores, at
        assert len(site.targets()) <= len(asked) + 1, (at, site.targets())


async def test_a_resume_undoes_nothing_that_another_mission_wrote(api: ScriptedServer, tmp_path: Path) -> None:
    """It has the store's file after this run was killed, and is killed as well, so that its lines are in the log."""
    site = Site(api)
    first = mission(f'for r in ["a", "b"] {{ {COUNT}\npost "/note/{{r}}" }}', stores='store counter: file("counter")')
    other = mission(
        'for i in [1, 2, 3] { store { id: i } -> counter\npost "/other/{i}" }', stores='store counter: file("counter")'
    ).replace("mission M", "mission Other")
    killed = await interrupted(Bench(api, tmp_path / "run"), site, first, "kill", 1)
    twice = await interrupted(killed, site, other, "kill", 3)
    site.at = 0
    ran = (await twice.resume(first)).ok()
    assert {"1", "2"} <= set(ran.stores["counter"])
    assert set((await twice.resume(other)).ok().stores["counter"]) == {"c", "1", "2", "3"}


async def test_who_looks_at_a_failed_run_leaves_its_resume_alone(api: ScriptedServer, tmp_path: Path) -> None:
    """The stores of a result are opened anew by whoever reads them."""
    text = mission(
        f'{COUNT}\nmatch env("READY") {{ "no" -> abort "not yet", _ -> continue }}',
        stores='store counter: file("counter")',
    )
    environment = {"API": api.url, "READY": "no"}
    for _ in range(2):
        result = await execute(text, state_dir=tmp_path / "state", environment=environment, resume=True)
        assert not result.success
        assert result.stores["counter"].records() == [{"id": "c", "n": 1}]
    environment["READY"] = "yes"
    result = await execute(text, state_dir=tmp_path / "state", environment=environment, resume=True)
    assert result.success and result.stores["counter"].records() == [{"id": "c", "n": 1}]


async def test_a_resume_that_cannot_begin_undoes_nothing_and_spoils_nothing(
    api: ScriptedServer, tmp_path: Path
) -> None:
    """Its credentials are missing: what the run before had stored is looked at, and left as it is."""
    site = Site(api)
    text = mission(f'for r in ["a", "b"] {{ {COUNT}\npost "/note/{{r}}" }}', stores='store counter: file("counter")')
    text = text.replace("auth: none", 'auth: bearer, token: env("TOKEN")')
    bench = Bench(api, tmp_path / "run", environment={"TOKEN": "t-0123456789"})
    ran = await interrupted(bench, site, text, "fail", 2)
    site.at = 0
    ran.environment = {}
    assert not (await ran.resume(text)).outcome.success
    ran.environment = {"TOKEN": "t-0123456789"}
    assert (await ran.resume(text)).ok().stores["counter"] == {"c": {"id": "c", "n": 2}}


@pytest.mark.parametrize("how", ["kill", "fail"])
async def test_a_place_counts_no_more_once_its_lines_were_undone(how: str, api: ScriptedServer, tmp_path: Path) -> None:
    """A second resume finds lines of the numbers that the first attempt had relied on, and they say something else."""
    site = Site(api)
    text = mission(
        f"""
        for r in ["a", "b", "c", "d"] {{ {COUNT}
          for k in [1, 2] {{ post concat("/n/", r, k)
            {COUNT} }}
          {COUNT} }}
        {COUNT}
        post "/end" """,
        stores='store counter: file("counter")',
    )
    whole = (await Bench(api, tmp_path / "whole").run(text)).ok()
    for at in range(1, 7):
        bench = Bench(api, tmp_path / f"run{at}")
        for turn in range(3):
            bench = await interrupted(bench, site, text, how, at if turn == 0 else 2, resume=turn > 0)
        site.at = 0
        assert (await bench.resume(text)).ok().stores == whole.stores, at


@pytest.mark.parametrize("how", ["kill", "fail", "cancel"])
async def test_what_a_database_is_told_twice_is_there_once(how: str, api: ScriptedServer, tmp_path: Path) -> None:
    """Writes to databases are not undone: they say the same again, under the same keys."""
    text = mission(
        """
        for r in ["a", "b", "c"] { store { id: r, seen: 1 } -> far
          post "/note/{r}"
          store { id: concat("x", r), of: response.id } -> far
          post "/m/{r}"
          store { id: r, seen: 2 } -> far { upsert: true }
          match r { "b" -> delete far["a"], _ -> continue } }""",
        stores='store far: sql("far")',
    )

    def table(state: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(state / "stores" / "sql.db")) as database:
            (names,) = [[row[1] for row in database.execute("pragma table_info(far)")]]
            return sorted(tuple(map(str, row)) for row in database.execute(f"select {names[0]}, {names[1]} from far"))

    site = Site(api)
    await Bench(api, tmp_path / "whole").run(text)
    whole, count = table(tmp_path / "whole"), len(api.seen)
    assert len(whole) == 5
    for at in range(1, count + 1):
        second = await interrupted(Bench(api, tmp_path / f"run{at}"), site, text, how, at)
        site.at = 0
        (await second.resume(text)).ok()
        assert table(second.state) == whole, at
