"""Items that were set aside, and resumes."""

from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply


async def test_a_resume_behind_a_dead_letter_repeats_nothing(api: ScriptedServer, bench: Bench) -> None:
    """R1: where a run had got to relies on the mission's own dead letters, which nobody has opened yet."""
    for n in range(1, 7):
        api.on(f"/x/{n}", reply(503 if n == 2 else 200, data={"n": n}))
    api.on("/x/5", reply(200, data={"stop": True}), reply(200, data={"n": 5}))
    steps = """
    for n in [1, 2, 3, 4, 5, 6] {
      get "/x/{n}"
      match response { { error: _ } -> queue, { stop: true } -> abort "not yet", _ -> continue }
      store { id: n } -> kept
    }
    """
    text = mission(steps, stores='  store kept: file("kept")\n')
    first = await bench.run(text)
    assert first.error.message == "not yet"
    (await bench.resume(text)).ok()
    assert api.targets == [f"/x/{n}" for n in (1, 2, 3, 4, 5, 5, 6)]
    assert set(bench.file_store("kept")) == {"1", "3", "4", "5", "6"}
