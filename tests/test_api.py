"""The Python API, against a real server; what `import reqon` offers."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reqon
from reqon import (
    AlreadyRunningError,
    ConfigurationError,
    ErrorReport,
    ExecutionStatus,
    ParseError,
    Progress,
    ProgressCallbacks,
    ResumeRefusedError,
    clear_sync_checkpoint,
    clear_sync_checkpoints,
    execute,
    execute_sync,
    from_file,
    from_path,
    get_execution_history,
    get_execution_history_sync,
    get_execution_state,
    get_execution_state_sync,
    parse,
    register_function,
)
from reqon.lang.functions import REGISTERED
from tests.support.clocks import FakeClock
from tests.support.orders_api import OrdersApi

MISSIONS = Path(__file__).parents[1] / "examples" / "missions"

CUSTOMERS = """
mission Customers {
  source Shop { auth: none, base: env("SHOP_URL") }
  store customers: memory("customers")
  action Fetch {
    get "/customers" { params: { per_page: 50 }, paginate: page(page, 50), until: response.page >= response.pages }
  }
  action Keep {
    for customer in response.customers {
      store customer -> customers { key: .id }
    }
  }
  run Fetch then Keep
}
"""
SECURED = """
mission Secured {
  source Shop { auth: bearer, base: env("SHOP_URL") }
  store out: file("out")
  action Fetch {
    get "/secure/customers"
    store response.customers -> out { key: .id }
  }
  run Fetch
}
"""
FAILING = """
mission Failing {
  source Shop { auth: none, base: env("SHOP_URL"), retry: { maxAttempts: 1 } }
  action Break {
    get "/nowhere"
  }
  run Break
}
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[OrdersApi]:
    with OrdersApi(customers=120) as running:
        yield running


@pytest.fixture
def api(shop: OrdersApi) -> OrdersApi:
    shop.reset()
    return shop


@pytest.fixture
def options(api: OrdersApi, tmp_path: Path) -> Any:
    return {"environment": {"SHOP_URL": api.url}, "state_dir": tmp_path / "state"}


# --- what there is ---------------------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert reqon.__all__ == sorted(reqon.__all__)
    assert [name for name in reqon.__all__ if not name.endswith("Error")] == [
        "ActionOutcome",
        "BufferOutput",
        "CircuitBreakerCallbacks",
        "ConsoleOutput",
        "Emitted",
        "ErrorReport",
        "EventEmitter",
        "EventOutput",
        "ExecutionOptions",
        "ExecutionRecord",
        "ExecutionResult",
        "ExecutionStatus",
        "ExtensionStep",
        "FunctionTransport",
        "Hooks",
        "JsonLinesOutput",
        "LogEntry",
        "OTLPExporter",
        "OTelEventAdapter",
        "OTelLogOutput",
        "Progress",
        "ProgressCallbacks",
        "RateLimitCallbacks",
        "RawAnswer",
        "Reqon",
        "SpanBuilder",
        "StepContext",
        "StepMoment",
        "StepOutcome",
        "StoreAdapter",
        "StoreFilter",
        "StoreResult",
        "StructuredLogger",
        "WebhookServer",
        "WriteCounts",
        "clear_sync_checkpoint",
        "clear_sync_checkpoint_sync",
        "clear_sync_checkpoints",
        "clear_sync_checkpoints_sync",
        "create_emitter",
        "create_otel_listener",
        "create_structured_logger",
        "execute",
        "execute_sync",
        "from_file",
        "from_file_sync",
        "from_path",
        "from_path_sync",
        "generate_span_id",
        "generate_trace_id",
        "get_execution_history",
        "get_execution_history_sync",
        "get_execution_state",
        "get_execution_state_sync",
        "parse",
        "register_auth_provider",
        "register_function",
        "register_pagination_strategy",
        "register_step_handler",
        "register_store_adapter",
        "set_state_store",
        "transform",
    ]


def test_every_name_is_there_and_documented() -> None:
    for name in reqon.__all__:
        assert getattr(reqon, name).__doc__, name
        assert name in dir(reqon)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = reqon.nothing


def test_every_error_of_the_product_is_public() -> None:
    found: list[type[BaseException]] = [reqon.ReqonError]
    for error in found:
        found += error.__subclasses__()
    public = {e.__name__ for e in found if e.__module__ == "reqon.errors"}
    assert public <= set(reqon.__all__)


def test_importing_it_loads_nothing() -> None:
    code = "import reqon, sys; print(*sorted(m for m in sys.modules if m.startswith('reqon')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["reqon", "reqon.__about__"]


# --- running ---------------------------------------------------------------------------------------------------------


async def test_a_mission_that_completes_answers_what_it_did(api: OrdersApi, options: Any) -> None:
    result = await execute(CUSTOMERS, **options)
    assert result.success
    assert result.actions_run == ("Fetch", "Keep")
    assert result.errors == ()
    customers = result.stores["customers"]
    assert (customers.count, customers.added, customers.updated, customers.deleted) == (120, 120, 0, 0)
    assert [(r["id"], r["name"]) for r in customers.records()] == [(k, c["name"]) for k, c in api.customers().items()]
    assert isinstance(result.duration, int) and result.duration > 0
    assert result.state is not None
    assert result.state.execution_id == result.execution_id
    assert result.state.trigger == "api"


async def test_a_file_store_is_read_when_it_is_asked_for(api: OrdersApi, options: Any, tmp_path: Path) -> None:
    result = await from_file(MISSIONS / "customers.vague", **options)
    assert result.success
    assert [r["id"] for r in result.stores["customers"].records()] == list(api.customers())
    assert (tmp_path / "state" / "stores" / "customers.json").is_file()


async def test_a_failed_run_answers_why_and_where(options: Any) -> None:
    result = await execute(FAILING, **options)
    assert not result.success
    (error,) = result.errors
    assert "/nowhere failed" in error.message
    assert (error.action, error.type, error.status) == ("Break", "http", 404)
    assert error.location == "<source>:5:5"
    assert result.state is not None
    assert result.state.status is ExecutionStatus.FAILED


async def test_wrong_text_is_raised_with_every_finding(options: Any) -> None:
    text = CUSTOMERS.replace("-> customers", "-> customerz").replace("then Keep", "then Keepp")
    with pytest.raises(ParseError) as raised:
        await execute(text, **options)
    assert {d.code for d in raised.value.diagnostics if d.severity == "error"} == {
        "undefined-store",
        "undefined-action",
    }
    assert raised.value.exit_code == 2
    with pytest.raises(ParseError, match="is not declared"):
        parse("let unused = 1\n" + text)  # a warning comes first in the text, an error in what is raised
    with pytest.raises(ParseError):
        parse("mission {")
    with pytest.raises(ParseError, match="is no mission's text"):
        parse("missions/orders.vague")


async def test_what_keeps_a_run_from_starting_is_raised(options: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Shop") as raised:
        await execute(SECURED, **options)
    assert raised.value.exit_code == 3
    with pytest.raises(ConfigurationError, match="does not exist"):
        await from_path(tmp_path / "absent.vague", **options)
    with pytest.raises(ConfigurationError, match="is no mission file"):
        await from_file(tmp_path, **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(reqon.StateError, match="cannot be used"):
        await execute(CUSTOMERS, **{**options, "state_dir": tmp_path / "file"})


async def test_credentials_come_from_python_or_a_file(api: OrdersApi, options: Any, tmp_path: Path) -> None:
    assert (await execute(SECURED, auth={"Shop": {"token": api.token}}, **options)).success
    file = tmp_path / "auth.json"
    file.write_text(f'{{"Shop": {{"type": "bearer", "token": "{api.token}"}}}}')
    file.chmod(0o600)
    assert (await execute(SECURED, auth=file, **options)).success
    result = await execute(SECURED, auth={"Shop": {"token": "a-wrong-token"}}, **options)
    assert [error.status for error in result.errors] == [401]
    assert "a-wrong-token" not in str(result)


async def test_of_several_missions_one_is_chosen_by_name(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="missions: ") as raised:
        await execute(CUSTOMERS + FAILING, **options)
    assert raised.value.hint == "say which: mission='…'"
    assert (await execute(parse(CUSTOMERS + FAILING), mission="Customers", **options)).success
    with pytest.raises(ConfigurationError, match="there is no mission 'Customer'") as raised:
        await execute(CUSTOMERS + FAILING, mission="Customer", **options)
    assert "Customers" in (raised.value.hint or "")
    assert (await from_path(MISSIONS, mission="Customers", **options)).success


@pytest.mark.parametrize("run", [execute, from_path])
async def test_an_option_that_is_none_is_refused(run: Any, options: Any) -> None:
    with pytest.raises(TypeError, match=r"'progress_callback' is no option of execute\(\); did you mean"):
        await run(CUSTOMERS, progress_callback=None, **options)


async def test_a_program_can_run_many_times(options: Any) -> None:
    program = parse(CUSTOMERS)
    for _ in range(2):
        assert (await execute(program.missions[0], **options)).success


async def test_imports_start_from_the_mission_dir(options: Any, tmp_path: Path) -> None:
    (tmp_path / "lib.vague").write_text("schema Customer { id: string }")
    text = 'import "./lib.vague"\n' + CUSTOMERS.replace(
        "      store customer", "      validate customer { assume customer is Customer } or skip\n      store customer"
    )
    assert (await execute(text, mission_dir=tmp_path, **options)).success
    with pytest.raises(ParseError, match=r"lib\.vague"):
        await execute(text, mission_dir=tmp_path / "elsewhere", **options)


async def test_the_output_is_written(api: OrdersApi, options: Any, tmp_path: Path) -> None:
    await execute(CUSTOMERS, output=tmp_path / "all.json", **options)
    assert '"cust_0001"' in (tmp_path / "all.json").read_text()


async def test_time_can_be_given(options: Any) -> None:
    clock = FakeClock()
    result = await execute(CUSTOMERS, clock=clock, **options)
    assert result.state is not None
    assert result.state.started_at == FakeClock().now()


async def test_a_dry_run_prints_and_does_nothing(
    api: OrdersApi, options: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    result = await execute(SECURED, dry_run=True, **options)
    assert result.success
    assert result.state is None
    assert f"would GET {api.url}/secure/customers" in capsys.readouterr().out
    assert "Shop" in caplog.text
    assert api.requests() == []
    assert list(tmp_path.iterdir()) == []


# --- resuming --------------------------------------------------------------------------------------------------------


async def test_a_run_that_was_cut_off_goes_on(api: OrdersApi, options: Any) -> None:
    api.fail(503, "/customers", times=10)
    first = await execute(CUSTOMERS.replace("auth: none", "auth: none, retry: { maxAttempts: 1 }"), **options)
    assert not first.success
    api.reset()
    text = CUSTOMERS.replace("auth: none", "auth: none, retry: { maxAttempts: 1 }")
    second = await execute(text, resume=True, **options)
    assert second.success
    assert second.execution_id == first.execution_id
    assert second.state is not None and second.state.attempt == 2
    with pytest.raises(ResumeRefusedError, match="it is completed"):
        await execute(text, resume=first.execution_id, **options)
    third = await execute(text, resume=True, **options)
    assert third.execution_id != first.execution_id


async def test_a_cancelled_run_is_recorded_as_interrupted(api: OrdersApi, options: Any) -> None:
    api.hold("/customers", at=2)
    running = asyncio.ensure_future(execute(CUSTOMERS, **options))
    await asyncio.to_thread(api.reached.wait, 10)
    with pytest.raises(AlreadyRunningError, match="'Customers' is running already"):
        await execute(CUSTOMERS, **options)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    api.release()
    state = await get_execution_state("Customers", state_dir=options["state_dir"])
    assert state is not None
    assert state.status is ExecutionStatus.INTERRUPTED


# --- callbacks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coroutines", [False, True])
async def test_callbacks_hear_what_happens(options: Any, coroutines: bool) -> None:
    heard: list[tuple[str, Any]] = []

    def hear(name: str) -> Any:
        def plain(*given: object) -> None:
            heard.append((name, given))

        async def later(*given: object) -> None:
            await asyncio.sleep(0)
            heard.append((name, given))

        return later if coroutines else plain

    callbacks = ProgressCallbacks(
        on_action_start=hear("start"),
        on_action_complete=hear("complete"),
        on_error=hear("error"),
        on_progress=hear("progress"),
    )
    assert (await execute(CUSTOMERS, progress_callbacks=callbacks, **options)).success
    assert [given for name, given in heard if name == "start"] == [("Fetch",), ("Keep",)]
    completed = [given for name, given in heard if name == "complete"]
    assert [action for action, _ in completed] == ["Fetch", "Keep"]
    assert all(isinstance(duration, int) and 0 <= duration < 60_000 for _, duration in completed)
    progress = [given[0] for name, given in heard if name == "progress"]
    assert all(isinstance(p, Progress) for p in progress)
    last = [p for p in progress if p.action == "Keep"][-1]
    assert (last.current, last.total) == (120, 120)
    assert not any(name == "error" for name, _ in heard)


async def test_callbacks_hear_of_errors_with_their_place(options: Any) -> None:
    heard: list[ErrorReport] = []
    completed: list[str] = []
    callbacks = ProgressCallbacks(on_error=heard.append, on_action_complete=lambda action, _: completed.append(action))
    assert not (await execute(FAILING, progress_callbacks=callbacks, **options)).success
    (error,) = heard
    assert "/nowhere failed" in error.message
    assert (error.action, error.kind, error.location) == ("Break", "http", "<source>:5:5")
    assert error.step is not None
    assert completed == []


async def test_callbacks_hear_of_what_kept_a_run_from_starting(options: Any) -> None:
    heard: list[ErrorReport] = []
    with pytest.raises(ConfigurationError):
        await execute(SECURED, progress_callbacks=ProgressCallbacks(on_error=heard.append), **options)
    assert [error.kind for error in heard] == ["config"]


@pytest.mark.parametrize("coroutine", [False, True])
async def test_a_callback_that_raises_is_logged_and_the_run_goes_on(
    options: Any, caplog: pytest.LogCaptureFixture, coroutine: bool
) -> None:
    def plain(action: str) -> None:
        raise KeyError(action)

    async def later(action: str) -> None:
        raise KeyError(action)

    callbacks = ProgressCallbacks(on_action_start=later if coroutine else plain)
    assert (await execute(CUSTOMERS, progress_callbacks=callbacks, **options)).success
    assert len(caplog.records) == (2 if coroutine else 1)  # plain ones are told of once
    assert "KeyError: 'Fetch'" in caplog.text


# --- state -----------------------------------------------------------------------------------------------------------


async def test_state_and_history_are_there_afterwards(options: Any) -> None:
    state_dir = options["state_dir"]
    assert await get_execution_state("Customers", state_dir=state_dir) is None
    results = [await execute(CUSTOMERS, **options) for _ in range(3)]
    last = await get_execution_state("Customers", state_dir=state_dir)
    assert last == results[2].state
    assert last is not None and last.to_dict()["executionId"] == results[2].execution_id
    first = results[0].execution_id
    assert await get_execution_state("Customers", first, state_dir=state_dir) == results[0].state
    assert await get_execution_state("Other", first, state_dir=state_dir) is None
    history = await get_execution_history("Customers", limit=2, state_dir=state_dir)
    assert [r.execution_id for r in history] == [results[2].execution_id, results[1].execution_id]
    assert len(await get_execution_history(state_dir=state_dir)) == 3
    assert await get_execution_history("Customers", status="failed", state_dir=state_dir) == []
    with pytest.raises(ConfigurationError, match="'done' is no status"):
        await get_execution_history(status="done", state_dir=state_dir)


async def test_sync_checkpoints_can_be_cleared(options: Any) -> None:
    state_dir = options["state_dir"]
    assert (await from_file(MISSIONS / "orders.vague", **options)).success
    checkpoints = (state_dir / "sync-checkpoints.json").read_text()
    assert "Shop-/orders" in checkpoints
    assert await clear_sync_checkpoint("Shop-/nothing", state_dir=state_dir) is False
    assert await clear_sync_checkpoint("Shop-/orders", state_dir=state_dir) is True
    assert await clear_sync_checkpoints(state_dir=state_dir) == 0


async def test_where_nothing_ran_there_is_nothing_and_nothing_is_made(tmp_path: Path) -> None:
    state_dir = tmp_path / "absent"
    assert await get_execution_state("Customers", state_dir=state_dir) is None
    assert await get_execution_history(state_dir=state_dir) == []
    assert await clear_sync_checkpoints(state_dir=state_dir) == 0
    assert not state_dir.exists()


async def test_the_state_directory_comes_from_the_environment(
    options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQON_STATE_DIR", str(tmp_path / "there"))
    monkeypatch.setenv("SHOP_URL", options["environment"]["SHOP_URL"])
    assert (await execute(CUSTOMERS)).success
    assert await get_execution_state("Customers") is not None
    assert (tmp_path / "there" / "execution").is_dir()


# --- the rest --------------------------------------------------------------------------------------------------------


def test_scripts_need_no_event_loop(options: Any) -> None:
    result = execute_sync(CUSTOMERS, **options)
    assert get_execution_state_sync("Customers", state_dir=options["state_dir"]) == result.state
    assert len(get_execution_history_sync("Customers", state_dir=options["state_dir"])) == 1


async def test_a_blocking_twin_in_an_event_loop_says_what_to_write(options: Any) -> None:
    with pytest.raises(RuntimeError, match=r"write `await execute\(…\)` there"):
        execute_sync(CUSTOMERS, **options)


@pytest.mark.parametrize("made", [float("nan"), float("inf"), {"a": [1, float("-inf")]}, {1, 2}, {1: 2}, b"bytes"])
async def test_a_registered_function_that_gives_no_value_fails_by_name(options: Any, made: object) -> None:
    register_function("make", lambda _: made)
    try:
        text = CUSTOMERS.replace("store customer ->", "store { id: .id, made: make(.id) } ->")
        result = await execute(text, **options)
        assert [error.type for error in result.errors] == ["eval"]
        assert result.errors[0].message.startswith("make() gave what is no value: ")
    finally:
        REGISTERED.pop("make")


async def test_registered_functions_can_be_called(options: Any) -> None:
    register_function("shout", str.upper)
    try:
        text = CUSTOMERS.replace("store customer ->", "store { id: .id, loud: shout(.name) } ->")
        result = await execute(text, **options)
        assert all(r["loud"].isupper() for r in result.stores["customers"].records())
    finally:
        REGISTERED.pop("shout")


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        (Path("m.vague"), {}, r"a mission's text .*, not PosixPath; to run a file: from_file\(path\)"),
        (
            CUSTOMERS,
            {"progress_callbacks": {"on_progress": print}},
            r"progress_callbacks=ProgressCallbacks\(.*not dict",
        ),
        (CUSTOMERS, {"rate_limit_callbacks": print}, r"rate_limit_callbacks=RateLimitCallbacks\("),
        (CUSTOMERS, {"circuit_breaker_callbacks": {}}, r"circuit_breaker_callbacks=CircuitBreakerCallbacks\("),
        (CUSTOMERS, {"event_emitter": print}, r"event_emitter=create_emitter\(\)"),
        (CUSTOMERS, {"logger": print}, r"logger=create_structured_logger\(\)"),
    ],
)
async def test_what_is_given_by_the_wrong_kind_is_refused_by_its_name(
    source: Any, options: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=says):
        await execute(source, state_dir=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_is_not_there_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.vague' does not exist") as missing:
        await from_file(tmp_path / "none.vague")
    with pytest.raises(ConfigurationError, match="is no mission file") as folder:
        await from_file(tmp_path)
    assert (missing.value.hint, folder.value.hint) == ("check the path", "from_path(path) runs a mission folder")
