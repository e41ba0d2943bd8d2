"""What a program can read of each error, by the table of spec/runtime.md 17."""

from typing import Any

import pytest

import reqon
from reqon import errors
from reqon.diagnostics import Diagnostic
from reqon.errors import ConfigurationError
from reqon.state.records import to_json
from reqon.values import decode
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply


async def failure(bench: Bench, text: str) -> Any:
    return (await bench.run(text)).outcome.errors[0]


async def test_an_error_knows_its_place_and_what_lies_below(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(404, data={"id": "tok-1", "why": "x" * 5000}))
    error = await failure(bench, mission('get "/x"', source=', token: "tok-1-secret"'))
    assert (error.action, error.step_type, error.step) == ("A", "fetch", 'get "/x"')
    place = error.location
    assert (place, place.line, place.column, place.end_column) == ("test.vague:8:1", 8, 1, 9)
    assert error.file_path == "test.vague" and error.cause is None
    assert error.format().startswith("test.vague:8:1: error: ") and error.to_dict()["location"] == place
    assert (error.method, error.status_code, error.kind, error.source, error.attempts) == ("GET", 404, "http", "Api", 1)
    assert error.url == f"{api.url}/x" and error.retry_after is None
    assert error.body_excerpt.startswith('{"id": "tok-1"') and len(error.body_excerpt.encode()) == 2048
    assert error.envelope["code"] == 404 and error.envelope["error"] == "HTTP 404 Not Found"


async def test_network_errors_have_their_cause(bench: Bench) -> None:
    text = mission('get "/x"').replace('env("API")', '"http://127.0.0.1:9"')
    error = await failure(bench, text)
    assert error.kind == "network" and error.cause is not None and error.envelope["code"] == 0


async def test_limits_say_when_it_may_go(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    limit = ", rateLimit: { requestsPerMinute: 1, maxWait: 1000 }"
    waits = await failure(bench, mission('get "/x"\nget "/y"', source=limit))
    assert isinstance(waits, errors.RateLimitTimeoutError) and waits.max_wait == 1.0
    assert waits.reset_at is not None and 0 < (waits.reset_at - bench.clock.now()).total_seconds() <= 60
    bench.clock.advance(120)
    fails = await failure(bench, mission('get "/x"\nget "/y"', source=limit.replace("maxWait: 1000", "strategy: fail")))
    assert isinstance(fails, errors.RateLimitError) and fails.source == "Api" and fails.reset_at is not None


async def test_used_up_retries_are_counted(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(500, data={}))
    steps = 'get "/x"\nmatch response { { code: 500 } -> retry { maxAttempts: 3 }, _ -> continue }'
    error = await failure(bench, mission(steps))
    assert isinstance(error, errors.RetryExhaustedError) and error.attempts == 3 == len(api.seen)
    assert isinstance(error.cause, errors.FetchError) and error.step_type == "match"


async def test_values_and_constraints_are_shown(api: ScriptedServer, bench: Bench) -> None:
    error = await failure(bench, mission('match "v" { 1 -> continue }'))
    assert isinstance(error, errors.NoMatchError) and error.value == '"v"'
    api.on("*", reply(data={"text": "ä" * 500}))
    error = await failure(bench, mission('get "/x"\nmatch response { { none: 1 } -> continue, 3 -> continue }'))
    assert error.value.startswith('{"text":"ää') and len(error.value.encode()) <= 200
    error = await failure(bench, mission("let r = { n: 1 }\nvalidate r { assume .n > 3 else error }"))
    assert isinstance(error, errors.ValidationError) and "> 3" in error.constraint and error.severity == "error"
    error = await failure(bench, mission("let n = 1\nlet m = uppercase([n])"))
    assert isinstance(error, errors.EvaluatorError) and error.expression == "uppercase([n])"
    error = await failure(bench, mission('post "/x" { headers: { "Content-Type": "text/csv" }, body: [1] }'))
    assert isinstance(error, errors.UnsupportedOperationError) and error.operation == "body"


async def test_a_store_error_names_store_operation_and_key(bench: Bench) -> None:
    error = await failure(bench, mission("store { id: 1 } -> out { key: null }"))
    assert isinstance(error, errors.StoreError)
    assert (error.store_name, error.operation, error.code, error.status) == ("out", "set", None, None)
    error = await failure(bench, mission("store { id: 1 } -> out { upsert: false, partial: true }"))
    assert (error.operation, error.key) == ("update", "1")


async def test_configuration_errors_name_option_and_source(bench: Bench) -> None:
    bench.environment = {"B": ""}
    error = await failure(bench, mission('get "/x"').replace('env("API")', 'env("B")'))
    assert isinstance(error, ConfigurationError) and (error.option, error.source_name) == ("base", "Api")
    error = await failure(bench, mission('get "/x"').replace("auth: none", "auth: bearer"))
    assert isinstance(error, ConfigurationError) and (error.option, error.source_name) == ("auth", "Api")


async def test_mistakes_in_a_text_show_the_word_and_what_was_meant() -> None:
    text = 'mission M { source Shop { auth: none, base: "https://h" } action A { get Shep "/x" } run A }'
    with pytest.raises(errors.SemanticError) as caught:
        await reqon.execute(text)
    error = caught.value
    assert (error.name, error.suggestion, error.token_value) == ("Shep", "Shop", "Shep") and error.exit_code == 2
    with pytest.raises(errors.ParseError) as wrong:
        reqon.parse("mission M { action A { get } run A }")
    assert wrong.value.token_value == "}" and wrong.value.location is not None
    assert type(errors.ParseError.of([Diagnostic("bad-character", "unexpected character")])) is errors.LexerError


def test_every_error_of_the_table_is_there() -> None:
    bases = {
        "LexerError": "ParseError", "SemanticError": "ParseError", "SpecError": "ConfigurationError",
        "ValidationError": "ReqonRuntimeError", "ResponseValidationError": "FetchError",
        "StepError": "ReqonRuntimeError",
        "FetchError": "StepError", "AuthenticationError": "FetchError", "RateLimitError": "FetchError",
        "RateLimitTimeoutError": "FetchError", "CircuitBreakerError": "FetchError", "PaginationError": "FetchError",
        "RetryExhaustedError": "StepError", "StoreError": "StepError", "EvaluatorError": "ReqonRuntimeError",
        "UnsupportedOperationError": "ReqonRuntimeError", "NoMatchError": "ReqonRuntimeError",
        "AbortError": "ReqonRuntimeError", "WebhookTimeoutError": "ReqonRuntimeError",
        "ParallelError": "ReqonRuntimeError",
    }  # fmt: skip
    for name, base in bases.items():
        assert issubclass(getattr(errors, name), getattr(errors, base)), name
    exits = {2: ["LexerError", "ParseError", "SemanticError"], 3: ["ConfigurationError", "SpecError"]}
    for code, names in exits.items():
        assert {getattr(errors, name).exit_code for name in names} == {code}
    others = {name for name in bases if not issubclass(getattr(errors, name), errors.ConfigurationError)}
    assert {getattr(errors, name).exit_code for name in others - {*exits[2]}} == {1}
    opening, writing = (errors.StoreError("no", operation=operation) for operation in ("init", "set"))
    assert (opening.exit_code, writing.exit_code) == (3, 1)
    assert errors.ParallelError([("A", writing), ("B", opening)]).exit_code == 3
    assert errors.ParallelError([("A", writing)]).exit_code == 1
    assert errors.RuntimeError is errors.ReqonRuntimeError and issubclass(
        errors.ResponseValidationError, errors.ValidationError
    )


@pytest.mark.parametrize(
    ("steps", "run", "failures"),
    [
        ("run B", "A", ["B"]),
        ("for i in [1] { run B }", "A", ["B"]),
        ('get "/404"\nmatch response { { code: 404 } -> jump B then continue, _ -> continue }', "A", ["B"]),
        ('get "/404"\nmatch response { { code: 404 } -> retry { maxAttempts: 2, delay: 1 } }', "A", ["A"]),
        ("for i in [1, 2] parallel { run B }", "A", ["B", "B"]),
        ("run B", "[A, C]", ["B", "C"]),
        ("run C\nrun B", "A", ["C"]),
    ],
)
async def test_a_failure_is_recorded_once_under_the_action_it_happened_in(
    steps: str, run: str, failures: list[str], api: ScriptedServer, bench: Bench
) -> None:
    api.on("*", reply(404, data={}))
    others = 'action B { get "/x" }\naction C { for i in [1] { get "/y/{i}" } }'
    record = (await bench.run(mission(steps, actions=others, run=run))).record
    assert sorted(error.action or "" for error in record.errors) == failures and record.errors_total == len(failures)
    for error in decode(to_json(record))["errors"]:
        assert {"action", "step", "message", "type", "at", "location"} <= set(error)
        assert set(error) <= {"action", "step", "message", "type", "at", "location", "item", "status", "hint"}
        assert error["type"] == ("retry_exhausted" if "retry" in steps else "http")
