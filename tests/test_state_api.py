"""The Python API of state as spec/state.md 9 spells it: each name in both forms, on a real state directory."""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import reqon
from reqon.values import decode
from tests.support.processes import reqon as command

ALPHA = """
mission Alpha {
  source Api { auth: none, base: "http://api.test" }
  store out: file("out")
  action Fetch { get "/things" { since: lastSync } store response -> out { key: .id } }
  action Each { for thing in out { store { id: thing.id, seen: true } -> out { key: .id } } }
  run Fetch then Each
}
"""
BETA = 'mission Beta { action A { abort "as it should" } run A }'
Call = Callable[..., Awaitable[Any]]


def answer(*_: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, b'[{"id": "a"}, {"id": "b"}]'


@pytest.fixture(params=["async", "blocking"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a name of `reqon`, or its blocking twin, which a thread of its own calls as a script would."""

    async def called(name: str, *arguments: Any, **options: Any) -> Any:
        if request.param == "async":
            return await getattr(reqon, name)(*arguments, **options)
        return await asyncio.to_thread(getattr(reqon, f"{name}_sync"), *arguments, **options)

    return called


@pytest.fixture
def at(tmp_path: Path) -> dict[str, Any]:
    return {"state_dir": tmp_path / "state"}


async def test_runs_of_texts_programs_files_and_folders_answer_the_same(
    call: Call, at: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "missions"
    folder.mkdir()
    (folder / "alpha.vague").write_text(ALPHA)
    (folder / "beta.vague").write_text(BETA)
    program = reqon.parse(ALPHA)
    options = {**at, "http_transport": answer}
    results = [
        await call("execute", ALPHA, **options),
        await call("execute", program, **options),
        await call("execute", program.missions[0], **options),
        await call("from_file", folder / "alpha.vague", **options),
        await call("from_path", str(folder / "alpha.vague"), **options),
        await call("from_path", folder, mission="Alpha", **options),
    ]
    for result in results:
        assert isinstance(result, reqon.ExecutionResult)
        assert (result.success, result.actions_run, result.errors) == (True, ("Fetch", "Each"), ())
        assert result.state is not None
        assert isinstance(result.duration, int)
        assert result.duration == result.state.duration_ms
        assert result.state == await call("get_execution_state", "Alpha", result.execution_id, **at)
        assert isinstance(result.stores["out"], reqon.StoreResult)
        assert result.stores["out"].records() == [{"id": "a", "seen": True}, {"id": "b", "seen": True}]
    failed = await call("execute", BETA, **at)
    assert isinstance(failed.errors[0], reqon.RunError)
    assert (failed.success, failed.errors[0].type, failed.errors[0].location) == (False, "abort", "<source>:1:27")
    history = await call("get_execution_history", "Alpha", **at)
    assert [r.execution_id for r in history] == [r.execution_id for r in reversed(results)]


async def test_state_is_what_lies_on_disk_and_what_the_command_line_shows(
    call: Call, at: dict[str, Any], tmp_path: Path
) -> None:
    assert await call("get_execution_state", "Alpha", **at) is None
    assert await call("get_execution_history", **at) == []
    assert not at["state_dir"].exists(), "looking makes nothing"
    first = await call("execute", ALPHA, http_transport=answer, **at)
    last = await call("execute", ALPHA, http_transport=answer, **at)
    other = await call("execute", BETA, **at)
    state = await call("get_execution_state", "Alpha", **at)
    assert isinstance(state, reqon.ExecutionRecord)
    assert state.status is reqon.ExecutionStatus.COMPLETED
    assert state.execution_id == last.execution_id
    shown = command("status", "Alpha", "--json", "--state-dir", at["state_dir"], cwd=tmp_path).json
    (path,) = (p for p in at["state_dir"].glob("execution/Alpha-*.json") if last.execution_id in p.read_text())
    assert state.to_dict() == shown == decode(path.read_bytes())
    assert await call("get_execution_state", "Alpha", first.execution_id, **at) == first.state
    for mission, execution in (
        ("Beta", first.execution_id),  # another mission's
        ("Nobody", None),
        ("Alpha", "exec_abc123"),
        ("Alpha", "../../etc/passwd"),
        ("Alpha", ""),
        ("../\0", None),
    ):
        assert await call("get_execution_state", mission, execution, **at) is None, (mission, execution)
    assert [r.mission for r in await call("get_execution_history", **at)] == ["Beta", "Alpha", "Alpha"]
    assert [r.execution_id for r in await call("get_execution_history", "Alpha", limit=1, **at)] == [last.execution_id]
    assert len(await call("get_execution_history", limit=None, **at)) == 3
    assert await call("get_execution_history", limit=0, **at) == []
    for status in ("failed", reqon.ExecutionStatus.FAILED):
        found = await call("get_execution_history", status=status, **at)
        assert [r.execution_id for r in found] == [other.execution_id]


@pytest.mark.parametrize("aware", [True, False], ids=["aware", "naive, which is UTC"])
async def test_history_since_a_moment(aware: bool, call: Call, at: dict[str, Any]) -> None:
    state = (await call("execute", BETA, **at)).state
    for moment, count in ((state.started_at, 1), (state.started_at + timedelta(seconds=10), 0)):
        since = moment if aware else moment.astimezone(UTC).replace(tzinfo=None)
        assert len(await call("get_execution_history", since=since, **at)) == count
        assert len(await call("get_execution_history", "Beta", since=since, **at)) == count
    elsewhere = datetime.fromisoformat(state.started_at.isoformat()).astimezone(tz=None)
    assert len(await call("get_execution_history", since=elsewhere, **at)) == 1
    with pytest.raises(TypeError, match=r"since is a datetime, not a str"):
        await call("get_execution_history", since="2024-01-01", **at)


async def test_sync_checkpoints_are_forgotten_one_by_one_or_all(call: Call, at: dict[str, Any]) -> None:
    assert await call("clear_sync_checkpoints", **at) == 0
    assert await call("clear_sync_checkpoint", "Api-/things", **at) is False
    assert not at["state_dir"].exists(), "nothing to forget makes nothing"
    asked: list[str] = []

    def listening(_method: str, url: str, *_: object) -> tuple[int, dict[str, str], bytes]:
        asked.append(url.partition("?")[2])
        return answer()

    for forget in (None, ("clear_sync_checkpoint", "Api-/things"), ("clear_sync_checkpoints",)):
        if forget is not None:
            assert await call(*forget, **at) == 1
            assert decode((at["state_dir"] / "sync-checkpoints.json").read_bytes()) == {}
        assert (await call("execute", ALPHA, http_transport=listening, **at)).success
    assert await call("clear_sync_checkpoint", "Api-/others", **at) is False
    assert (await call("execute", ALPHA, http_transport=listening, **at)).success
    assert [bool(query) for query in asked] == [False, False, False, True], "the last one alone asks for changes"


@pytest.mark.parametrize("kind", ["a file", "damaged"])
async def test_what_cannot_be_read_is_a_state_error(kind: str, call: Call, at: dict[str, Any]) -> None:
    asked: list[tuple[Any, ...]] = [("clear_sync_checkpoint", "k")]
    if kind == "a file":
        at["state_dir"].write_text("kept")
        asked += [("get_execution_state", "A"), ("get_execution_history",), ("clear_sync_checkpoints",)]
        asked += [("execute", BETA)]
    else:
        at["state_dir"].mkdir(mode=0o700)
        (at["state_dir"] / "sync-checkpoints.json").write_text("{")
    for name, *arguments in asked:
        with pytest.raises(reqon.StateError) as refused:
            await call(name, *arguments, **at)
        assert refused.value.exit_code == 3
        assert str(at["state_dir"]) in refused.value.message


async def test_wrong_arguments_are_refused_by_name(call: Call, at: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "b.vague").write_text(BETA)
    refusals: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
        (reqon.ConfigurationError, "'nope' is no status", ("get_execution_history",), {"status": "nope"}),
        (reqon.ConfigurationError, "no state store 'nope'", ("get_execution_state", "A"), {"state_store": "nope"}),
        (reqon.ConfigurationError, "REQON_STATE_URL", ("get_execution_history",), {"state_store": "postgres"}),
        (reqon.ParseError, "hint: to run a file: from_file", ("execute", "b.vague"), {}),
        (TypeError, r"to run a file: from_file\(path\)", ("execute", tmp_path / "b.vague"), {}),
        (TypeError, "did you mean 'state_dir'", ("execute", BETA), {"statedir": "x"}),
        (reqon.ConfigurationError, "is no mission file", ("from_file", tmp_path), {}),
        (reqon.ConfigurationError, "does not exist", ("from_path", tmp_path / "nowhere"), {}),
        (reqon.SemanticError, "defines no mission", ("from_path", tmp_path / "empty"), {}),
        (reqon.ResumeRefusedError, "has no execution", ("execute", BETA), {"resume": "exec_abc123"}),
    ]
    for kind, words, arguments, options in refusals:
        with pytest.raises(kind) as refused:
            await call(*arguments, **{**at, **options})
        said = refused.value.format() if isinstance(refused.value, reqon.ReqonError) else str(refused.value)
        assert re.search(words, said), said


class Vault:
    """A state store of two methods, and what was saved in it."""

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}

    async def save(self, state: dict[str, Any]) -> None:
        self.states[state["executionId"]] = state

    def load(self, execution_id: str) -> Any:
        return self.states.get(execution_id)


@pytest.fixture
def vault() -> Iterator[Vault]:
    made = Vault()
    try:
        yield made
    finally:
        for name in (None, "vault"):
            reqon.set_state_store(None, name=name)


@pytest.mark.parametrize("name", [None, "vault"])
async def test_a_state_store_of_ones_own(name: str | None, vault: Vault, call: Call, at: dict[str, Any]) -> None:
    """The seed's `setStateStore` with `save` and `load`; with a name for missions that say so."""
    reqon.set_state_store(vault, name=name)
    said = {} if name is None else {"state_store": name}
    result = await call("execute", BETA, **at, **said)
    assert vault.states[result.execution_id] == result.state.to_dict()
    assert await call("get_execution_state", "Beta", **at) == result.state
    assert await call("get_execution_history", "Beta", limit=10, **at) == [result.state]
    assert await call("get_execution_state", "Beta", state_store="file", **at) is None
    reqon.set_state_store(None, name=name)
    again = await call("execute", BETA, **at)
    assert again.execution_id not in vault.states


@pytest.mark.parametrize("name", ["file", "sqlite", "postgres", "two words", ""])
def test_a_state_store_has_a_name_of_its_own(name: str, vault: Vault) -> None:
    with pytest.raises(reqon.ConfigurationError):
        reqon.set_state_store(vault, name=name)


def test_a_state_store_without_a_needed_method_is_refused_by_its_name() -> None:
    class Half:
        def save(self, state: object) -> None: ...

    with pytest.raises(reqon.ConfigurationError, match=r"has no load\(execution_id\)"):
        reqon.set_state_store(Half())


async def test_callbacks_get_what_the_page_says(call: Call, at: dict[str, Any]) -> None:
    heard: list[Any] = []

    async def progressed(progress: reqon.Progress) -> None:
        heard.append(("progress", progress.action, progress.step, progress.current, progress.total))

    callbacks = reqon.ProgressCallbacks(
        on_action_start=lambda action: heard.append(("start", action)),
        on_action_complete=lambda action, duration: heard.append(("complete", action, type(duration))),
        on_error=lambda error: heard.append((type(error), error.message, error.action, error.step, error.location)),
        on_progress=progressed,
    )
    assert (await call("execute", ALPHA, http_transport=answer, progress_callbacks=callbacks, **at)).success
    assert [h for h in heard if h[0] != "progress"] == [
        ("start", "Fetch"), ("complete", "Fetch", int), ("start", "Each"), ("complete", "Each", int),
    ]  # fmt: skip
    assert heard.count(("progress", "Each", "for thing in out", 2, 2)) == 1
    heard.clear()
    await call("execute", BETA, progress_callbacks=callbacks, **at)
    assert heard[1:] == [(reqon.ErrorReport, "as it should", "A", 'abort "as it should"', "<source>:1:27")]


# --- what each public name says of itself ----------------------------------------------------------------------------

TWINS = [name.removesuffix("_sync") for name in reqon.__all__ if name.endswith("_sync")]


def test_each_coroutine_function_has_a_blocking_twin_with_the_same_parameters() -> None:
    coroutines = [name for name in reqon.__all__ if inspect.iscoroutinefunction(getattr(reqon, name))]
    assert sorted(TWINS) == sorted(coroutines)
    for name in TWINS:
        one, twin = (inspect.signature(getattr(reqon, n)) for n in (name, f"{name}_sync"))
        assert one == twin, name


@pytest.mark.parametrize("name", TWINS)
async def test_a_twin_inside_an_event_loop_names_the_other_form(name: str, tmp_path: Path) -> None:
    wanted = {"execute": BETA, "from_file": "x", "from_path": "x", "get_execution_state": "x"}
    arguments = [wanted[name]] if name in wanted else ["k"] if name == "clear_sync_checkpoint" else []
    with pytest.raises(
        RuntimeError, match=rf"{name}_sync\(\) was called where an event loop runs: write `await {name}"
    ):
        getattr(reqon, f"{name}_sync")(*arguments, state_dir=tmp_path)


def own_members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public functions and properties that a class defines itself."""
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


@pytest.mark.parametrize("name", reqon.__all__)
def test_a_public_name_has_a_docstring_and_types_all_the_way_down(name: str) -> None:
    thing = getattr(reqon, name)
    functions = [(name, thing)]
    if inspect.isclass(thing):
        assert thing.__dict__["__doc__"], name
        functions = list(own_members(thing))
    for member, function in functions:
        assert inspect.getdoc(function), (name, member)
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, (name, member)
        for parameter in signature.parameters.values():
            typed = parameter.annotation is not inspect.Parameter.empty
            assert typed or parameter.name in ("self", "cls"), (name, member, parameter.name)


CANNOT_FAIL = {"create_emitter", "create_otel_listener", "generate_span_id", "generate_trace_id"}


@pytest.mark.parametrize("name", [n for n in reqon.__all__ if not inspect.isclass(getattr(reqon, n))])
def test_a_public_function_says_what_it_raises(name: str) -> None:
    said = inspect.getdoc(getattr(reqon, name)) or ""
    assert "Raises:" in said or name in CANNOT_FAIL, said
