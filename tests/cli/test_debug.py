"""`--debug`: one step at a time, with the mission's own lines; nothing of it in normal runs."""

import asyncio
import io
from pathlib import Path

import pytest

from reqon.cli.debug import TerminalDebugger
from reqon.runtime.debugging import Stop
from reqon.runtime.plan import Plan
from tests.support.missions import parse_mission
from tests.support.processes import reqon
from tests.support.terminal import Terminal

PROMPT = "[q]uit > "
STEPS = """mission Steps {
  store out: file("out")
  let limit = 2
  action Load {
    let rows = [{ id: "a", n: 1 }, { id: "b", n: 2 }]
    for row in rows {
      match row { { n: 1 } -> jump Other, _ -> store row -> out }
    }
    store { id: "end", limit: limit } -> out
  }
  action Other {
    store { id: "other" } -> out
  }
  run Load
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "steps.vague").write_text(STEPS)
    return tmp_path


def places(folder: Path, *typed: str) -> tuple[list[str], int, str]:
    """Where a run stops when these lines are typed, its exit code, and all that was shown."""
    terminal = Terminal("steps.vague", "--debug", cwd=folder)
    stops, shown = [], ""
    for line in typed:
        text = terminal.until(PROMPT)
        shown += text
        stops += [one.split(" in ")[0] for one in text.splitlines() if one.startswith("steps.vague:")]
        terminal.type(line)
    code, rest = terminal.end()
    return stops, code, shown + rest


def test_into_stops_at_every_step(folder: Path) -> None:
    stops, code, shown = places(folder, *["into"] * 8)
    assert stops == [f"steps.vague:{place}" for place in ("5:5", "6:5", "7:7", "7:31", "12:5", "7:7", "7:48", "9:5")]
    assert code == 0
    assert "  7 |       match row { { n: 1 } -> jump Other, _ -> store row -> out }\n" in shown
    assert "12:5 in Other" in shown
    assert "completed" in shown


def test_step_passes_over_called_actions_and_over_passes_over_loops(folder: Path) -> None:
    stops, _, _ = places(folder, "s", "s", "s", "", "c")
    assert stops == [f"steps.vague:{place}" for place in ("5:5", "6:5", "7:7", "7:31", "7:7")]
    stops, _, _ = places(folder, "o", "o", "continue")
    assert stops == [f"steps.vague:{place}" for place in ("5:5", "6:5", "9:5")]


def test_variables_are_shown_and_quitting_saves_the_run(folder: Path) -> None:
    _, code, shown = places(folder, "s", "s", "variables", "v row", "v nothing", "help", "quit")
    assert '  row      = {"id":"a","n":1}\n' in shown
    assert "  limit    = 2\n" in shown
    assert '  row = {"id":"a","n":1}\n' in shown
    assert "nothing named 'nothing' is bound here" in shown
    assert "An empty line repeats" in shown
    assert code == 130
    assert reqon("status", "Steps", "--json", cwd=folder).json["status"] == "interrupted"
    resumed = reqon("steps.vague", "--resume", cwd=folder)
    assert resumed.code == 0
    assert "completed" in resumed.out


def test_debugging_needs_a_terminal(folder: Path) -> None:
    ended = reqon("steps.vague", "--debug", cwd=folder)
    assert (ended.code, ended.out) == (3, "")
    assert "--debug needs a terminal" in ended.err
    assert reqon("steps.vague", "--debug", "--daemon", cwd=folder).code == 3


def test_without_a_debugger_the_code_has_no_stops() -> None:
    stops: list[Stop] = []

    class Counting:
        def before(self, stop: Stop) -> None:
            stops.append(stop)

    def names(plan: Plan) -> set[str]:
        return {name for step in plan.action("Load").steps for name in step.function.__code__.co_names}

    plain = Plan(parse_mission(STEPS), environment={})
    assert not any("pause" in name for name in names(plain))
    assert any("pause" in name for name in names(plain.debugged(Counting())))
    assert stops == []


def test_when_nobody_types_any_more_the_run_goes_on() -> None:
    said = io.StringIO()
    debugger = TerminalDebugger(lambda: None, read=io.StringIO(""), write=said)
    mission = parse_mission(STEPS)
    step = mission.actions["Load"].steps[0]
    stop = Stop(action="Load", step=step, depth=(0, 0), round=None, response=None, variables=dict)
    debugger.before(stop)
    debugger.before(stop)
    assert said.getvalue().count(PROMPT) == 1


def test_quitting_cancels_the_run_after_telling_whoever_started_it() -> None:
    told: list[str] = []
    debugger = TerminalDebugger(lambda: told.append("quit"), read=io.StringIO("q\n"), write=io.StringIO())
    step = parse_mission(STEPS).actions["Load"].steps[0]
    with pytest.raises(asyncio.CancelledError):
        debugger.before(Stop(action="Load", step=step, depth=(0, 0), round=3, response=None, variables=dict))
    assert told == ["quit"]
