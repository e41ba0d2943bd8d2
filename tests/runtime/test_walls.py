"""A bug of ours ends its own run only, with a record that says so."""

import logging
from pathlib import Path

import pytest

from reqon.diagnostics import Source
from reqon.files import lock_is_free
from reqon.lang.loader import load_text
from reqon.runner import Runner, RunnerSettings
from reqon.runtime.request import RunRequest
from reqon.state.records import ExecutionStatus


class Broken(Runner):
    """A runner whose clients cannot be made, as by a bug."""

    def clients(self, plan: object, emit: object, wants: object) -> dict[str, object]:  # type: ignore[override]
        raise ZeroDivisionError("a bug")


async def test_a_bug_while_a_run_is_opened_is_a_failed_run_with_its_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = 'mission M { source S { base: "http://127.0.0.1:1" } action A { let x = 1 } run A }'
    (mission,) = load_text(Source("m.vague", text)).missions
    runner = Broken(RunnerSettings(state_directory=tmp_path / "state"), environment={})
    logging.getLogger("reqon").propagate = True
    outcome = await runner.execute(
        runner.plan(mission), RunRequest(mission="M", path="m.vague", definition_hash=mission.definition_hash)
    )
    await runner.close()
    assert outcome.record.status is ExecutionStatus.FAILED
    assert [e.type for e in outcome.record.errors] == ["internal"]
    assert "ZeroDivisionError" in outcome.record.errors[0].message
    assert "ZeroDivisionError" in caplog.text
    kept = Runner(RunnerSettings(state_directory=tmp_path / "state"), environment={}).backend.list("M")
    assert [r.status for r in kept] == [ExecutionStatus.FAILED]


@pytest.mark.parametrize(
    "fault",
    ["let n = 1", 'let n = toNumber(env("N")) + {}.a.b'],
    ids=["a bug while clients are made", "a let that fails"],
)
async def test_a_run_that_could_not_begin_leaves_nothing_open(tmp_path: Path, fault: str) -> None:
    text = f"""mission M {{ source S {{ base: "http://127.0.0.1:1" }}
  store out: file("out")
  let list = [{{ id: 1 }}]
  {fault.replace("{}", "list")}
  action A {{ store list -> out }}
  run A }}"""
    (mission,) = load_text(Source("m.vague", text)).missions
    runner = Broken(RunnerSettings(state_directory=tmp_path / "state"), environment={"N": "x"})
    outcome = await runner.execute(
        runner.plan(mission), RunRequest(mission="M", path="m.vague", definition_hash=mission.definition_hash)
    )
    assert outcome.record.status is ExecutionStatus.FAILED
    locks = {path: lock_is_free(path) for path in (tmp_path / "state").rglob("*.lock")}
    assert all(locks.values()), locks
    assert any("out" in path.name for path in locks)
    assert lock_is_free(tmp_path / "state" / "stores" / "out.lock")
    await runner.close()
