"""`call Source.operation` against a real server: requests, checks at load, answers judged (runtime.md 2, 8, 10)."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reqon.diagnostics import Source
from reqon.errors import FetchError, ReqonError, ResponseValidationError, ValidationError
from reqon.events import DataValidated, FetchStarted, Noticed
from reqon.extensions import registered
from reqon.http.openapi.loading import Specifications
from reqon.lang.loader import load_text
from tests.support.missions import Bench, Ran
from tests.support.servers import ScriptedServer, reply
from tests.support.specs import document, written

PARCEL = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "string"}, "weight": {"type": "number"}, "note": {"type": "string"}},
}


def ok(schema: Any) -> dict[str, Any]:
    return {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}


def parameter(name: str, place: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": {}, **more}


PATHS: dict[str, Any] = {
    "/parcels": {
        "get": {
            "operationId": "listParcels",
            "parameters": [
                parameter("status", "query", explode=False),
                parameter("X-Branch", "header"),
                parameter("sid", "cookie"),
                parameter("page", "query", required=True),
            ],
            "responses": ok({"type": "object", "properties": {"data": {"type": "array", "items": PARCEL}}}),
        },
        "post": {
            "operationId": "createParcel",
            "requestBody": {"content": {"application/x-www-form-urlencoded": {}}},
            "responses": {"201": ok(PARCEL)["200"], "422": ok({"type": "object", "required": ["reason"]})["200"]},
        },
    },
    "/parcels/{id}/scans/{scan}": {
        "get": {"operationId": "scans/get", "responses": ok(PARCEL)},
        "patch": {
            "operationId": "patchScan",
            "requestBody": {"content": {"application/merge-patch+json": {}}},
            "responses": ok({}),
        },
        "head": {"operationId": "headScan", "responses": ok(PARCEL)},
        "options": {"operationId": "optionsScan", "responses": {"204": {"description": "none"}}},
    },
}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return written(tmp_path / "specs", document(PATHS, schemas={"Parcel": PARCEL}), "depot.json")


def mission(spec: Path, steps: str, *, options: str = "", variables: str = "") -> str:
    return (
        f'mission M {{\n  source Depot from "{spec}" {{\n'
        f'    auth: none, base: env("API"), retry: {{ maxAttempts: 1 }} {options}\n  }}\n'
        f'  store out: memory("out")\n{variables}\n  action A {{\n{steps}\n  }}\n  run A\n}}\n'
    )


def findings(text: str) -> list[tuple[str, str, str | None]]:
    program = load_text(Source("test.vague", text), known=registered(Specifications))
    return [(d.code, d.message, d.hint) for d in program.all_diagnostics if d.severity == "error"]


# --- what is sent ----------------------------------------------------------------------------------------------------


async def test_parameters_go_where_the_document_says(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    api.on("/parcels", reply(data={"data": []}))
    params = 'status: ["new", "late"], "x-branch": "north", sid: "a;b", page: 1, other: true'
    steps = f"call Depot.listParcels {{ params: {{ {params} }} }}"
    (await bench.run(mission(spec, steps))).ok()
    (seen,) = api.seen
    assert seen.method == "GET"
    assert seen.target == "/parcels?status=new,late&page=1&other=true"
    assert (seen.headers["x-branch"], seen.headers["cookie"]) == ("north", "sid=a%3Bb")


async def test_path_values_are_encoded_and_come_from_params_or_variables(
    bench: Bench, api: ScriptedServer, spec: Path
) -> None:
    """N4: a value cannot leave its segment."""
    api.on("/parcels/a%2Fb/scans/7", reply(data={"id": "x"}))
    (await bench.run(mission(spec, 'let scan = 7\ncall Depot."scans/get" { params: { id: "a/b" } }'))).ok()
    spread = 'let more = { id: "a/b" }\nlet scan = 7\ncall Depot."scans/get" { params: { ...more, deep: 1 } }'
    (await bench.run(mission(spec, spread))).ok()
    mission_let = 'for scan in [7] { call Depot."scans/get" { query: { id: "a/b" } } }'
    (await bench.run(mission(spec, mission_let, variables="let unused_let = 1"))).ok()
    assert [seen.target for seen in api.seen] == [
        "/parcels/a%2Fb/scans/7",
        "/parcels/a%2Fb/scans/7?deep=1",
        "/parcels/a%2Fb/scans/7",
    ]


@pytest.mark.parametrize("value", ["null", '""', '".."', "{ a: 1 }"])
async def test_a_path_value_that_is_none_is_a_bad_path(
    value: str, bench: Bench, api: ScriptedServer, spec: Path
) -> None:
    steps = f'let given = {{ id: {value}, scan: 1 }}\ncall Depot."scans/get" {{ params: {{ id: given.id, scan: 1 }} }}'
    ran = await bench.run(mission(spec, steps))
    assert ran.error.type == "bad_path"
    guarded = steps + '\nmatch response { { kind: "bad_path" } -> store { id: 1 } -> out { key: "k" }, _ -> continue }'
    assert (await bench.run(mission(spec, guarded))).ok().out == {"k": {"id": 1}}
    assert api.seen == []


async def test_a_body_has_the_type_that_the_document_offers(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    api.on("/parcels", reply(201, data={"id": "1"}))
    api.on("/parcels/1/scans/2", reply(data={}))
    steps = """
    call Depot.createParcel { body: { to: "a b", size: 2 } }
    call Depot.patchScan { params: { id: 1, scan: 2 }, body: { note: null } }
    call Depot.createParcel { body: { to: "x" }, headers: { "Content-Type": "application/json" } }
    """
    (await bench.run(mission(spec, steps))).ok()
    sent = [(seen.method, seen.headers["content-type"], seen.body) for seen in api.seen]
    assert sent == [
        ("POST", "application/x-www-form-urlencoded", b"to=a+b&size=2"),
        ("PATCH", "application/merge-patch+json", b'{"note":null}'),
        ("POST", "application/json", b'{"to":"x"}'),
    ]


async def test_head_and_options_are_methods_too(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    api.on("/parcels/1/scans/2", reply(204))
    steps = (
        "let id = 1\nlet scan = 2\ncall Depot.headScan\ncall Depot.optionsScan\nstore { r: response } -> out { key: 1 }"
    )
    ran = (await bench.run(mission(spec, steps, options=', validateResponses: true, validationMode: "strict"'))).ok()
    assert [seen.method for seen in api.seen] == ["HEAD", "OPTIONS"]
    assert ran.out == {"1": {"r": None}}


async def test_a_required_parameter_that_is_missing_sends_nothing(
    bench: Bench, api: ScriptedServer, spec: Path
) -> None:
    ran = await bench.run(mission(spec, "call Depot.listParcels { params: { page: null } }"))
    assert "needs the query parameter 'page'" in ran.error.message
    assert (ran.error.type, api.seen) == ("bad_path", [])


async def test_pages_are_asked_for_and_judged_one_by_one(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    def page(seen: Any) -> bytes:
        number = int(seen.query["page"])
        rows = [{"id": f"{number}-{i}", "weight": "heavy" if number == 2 else 1} for i in range(2)]
        return reply(data={"data": rows if number < 4 else []})

    api.on("/parcels", page)
    steps = """
    call Depot.listParcels { paginate: page(page, 2), until: length(response.data) == 0 }
    store { count: length(response.data), wrong: response.validationErrors } -> out { key: "k" }
    """
    bench.listen = (DataValidated, FetchStarted)
    ran = (await bench.run(mission(spec, steps, options=", validateResponses: true"))).ok()
    assert ran.out["k"] == {
        "count": 6,
        "wrong": [
            ".data[0].weight: type mismatch: expected number, got string",
            ".data[1].weight: type mismatch: expected number, got string",
        ],
    }
    assert [(e.valid, e.warning_count, e.error_count) for e in ran.told("data.validate")] == [  # type: ignore[attr-defined]
        (True, 0, 0),
        (False, 2, 0),
        (True, 0, 0),
        (True, 0, 0),
    ]
    (started,) = ran.told("fetch.start")
    assert isinstance(started, FetchStarted)
    assert (started.is_oas, started.operation_id, started.path) == (True, "listParcels", "/parcels")


async def test_the_request_shows_its_operation(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    api.on("/parcels/1/scans/2", reply(data={"id": "1"}))
    steps = """
    call Depot."scans/get" { params: { id: 1, scan: 2, q: 3 } }
    store { op: currentOperation, id: request.operationId, params: request.params } -> out { key: 1 }
    """
    ran = (await bench.run(mission(spec, steps))).ok()
    assert ran.out["1"] == {"op": "scans/get", "id": "scans/get", "params": {"q": 3}}


async def test_a_failed_call_is_retried_and_its_retry_directive_repeats_it(
    bench: Bench, api: ScriptedServer, spec: Path
) -> None:
    api.on("/parcels/1/scans/2", reply(503), reply(500), reply(data={"id": "1"}))
    steps = """
    call Depot."scans/get" { params: { id: 1, scan: 2 }, retry: { maxAttempts: 2, delay: 1 } }
    match response { { error: _ } -> retry { maxAttempts: 3, delay: 1 }, _ -> continue }
    """
    (await bench.run(mission(spec, steps))).ok()
    assert len(api.seen) == 3


async def test_a_resumed_call_goes_on_at_its_page_and_knows_what_did_not_fit(
    bench: Bench, api: ScriptedServer, spec: Path
) -> None:
    pages = [
        reply(data={"data": [{"id": "1"}, {"weight": 1}]}),
        reply(404),
        reply(data={"data": [{"id": "3"}, {"id": 4}]}),
        reply(data={"data": []}),
    ]
    api.on("/parcels", *pages)
    steps = """
    call Depot.listParcels {
      params: { status: ["a", "b"] }, paginate: page(page, 2), until: length(response.data) == 0
    }
    store { count: length(response.data), wrong: response.validationErrors } -> out { key: "k" }
    """
    text = mission(spec, steps, options=", validateResponses: true")
    assert not (await bench.run(text)).outcome.success
    ran = (await bench.resume(text)).ok()
    assert [seen.query["page"] for seen in api.seen] == ["1", "2", "2", "3"]
    wrong = [".data[1]: missing required field 'id'", ".data[1].id: type mismatch: expected string, got number"]
    assert ran.out["k"] == {"count": 4, "wrong": wrong}


# --- sync ------------------------------------------------------------------------------------------------------------


async def test_a_call_keeps_a_checkpoint_under_its_operation_and_path(
    bench: Bench, api: ScriptedServer, spec: Path
) -> None:
    api.on("/parcels/a%2Fb/scans/2", reply(data={"id": "1"}))
    api.on("/parcels", reply(data={"data": []}))
    steps = """
    call Depot."scans/get" { params: { scan: 2, id: "a/b" }, since: lastSync, sinceParam: "changed" }
    call Depot.listParcels { params: { page: 1, after: lastSync } }
    let rest = { page: 2 }
    call Depot.listParcels { params: { ...rest, after: lastSync }, syncKey: "own" }
    """
    text = mission(spec, steps)
    (await bench.run(text)).ok()
    (await bench.run(text)).ok()
    kept = json.loads((bench.state / "sync-checkpoints.json").read_bytes())
    assert set(kept) == {"Depot-scans/get?id=a%2Fb&scan=2", "Depot-listParcels", "own"}
    first, second = api.seen[:3], api.seen[3:]
    assert ["changed" in seen.query or "after" in seen.query for seen in first] == [False, False, False]
    assert ["changed" in seen.query or "after" in seen.query for seen in second] == [True, True, True]


# --- answers ---------------------------------------------------------------------------------------------------------

SCAN = 'call Depot."scans/get" { params: { id: 1, scan: 2 } }'


async def test_without_validation_nothing_is_judged(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    api.on("/parcels/1/scans/2", reply(data={"weight": "x"}))
    for options in (
        "",
        ', validateResponses: false, validationMode: "strict"',
        ", validateResponses: true, validationMode: off",
    ):
        ran = (
            await bench.run(
                mission(spec, SCAN + "\nstore { v: response.validationErrors } -> out { key: 1 }", options=options)
            )
        ).ok()
        assert ran.out == {"1": {"v": None}}


async def test_warnings_let_the_answer_through_and_name_what_does_not_fit(
    bench: Bench, api: ScriptedServer, spec: Path
) -> None:
    api.on("/parcels/1/scans/2", reply(data={"weight": "x"}))
    steps = (
        SCAN
        + """
    let wrong = response.validationErrors
    store { all: wrong, id: includes(wrong, "'id'"), weight: response.weight } -> out { key: 1 }
    """
    )
    ran = (await bench.run(mission(spec, steps, options=", validateResponses: true"))).ok()
    texts = ["response: missing required field 'id'", ".weight: type mismatch: expected number, got string"]
    assert ran.out["1"] == {"all": texts, "id": True, "weight": "x"}


async def test_a_document_is_counted_its_silence_is_noted_and_its_defaults_stay_with_it(
    bench: Bench, api: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    silent = {"200": {"description": "ok"}}
    optional = [parameter(n, place, schema={"default": 5}) for n, place in (("size", "query"), ("X-D", "header"))]
    paths = {"/a": {"get": {"operationId": "a", "parameters": optional, "responses": silent}, "put": {"responses": {}}}}
    path = written(tmp_path / "specs", document(paths), "depot.json")
    api.on("/a", reply(data={}))
    bench.listen = (Noticed,)
    with caplog.at_level("INFO", "reqon"):
        ran = (await bench.run(mission(path, "call Depot.a", options=", validateResponses: true"))).ok()
    assert any(record.getMessage().startswith("Spec valid: 2 operations found") for record in caplog.records)
    told = [(e.event.level, e.event.message) for e in ran.events if isinstance(e.event, Noticed)]
    assert ("debug", "Depot.a: the specification has no schema for status 200") in told
    (seen,) = api.seen
    assert seen.target == "/a" and "x-d" not in seen.headers


async def test_strict_fails_the_fetch(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    api.on("/parcels/1/scans/2", reply(data={"weight": "x"}))
    bench.listen = (DataValidated,)
    ran = await bench.run(mission(spec, SCAN, options=', validateResponses: true, validationMode: "strict"'))
    assert [(e.passed, e.valid, e.error_count) for e in ran.told("data.validate")] == [(False, False, 2)]  # type: ignore[attr-defined]
    assert ran.error.type == "validation_failed"
    assert "missing required field 'id' (and 1 more)" in ran.error.message
    (raised,) = ran.outcome.errors
    assert isinstance(raised, ResponseValidationError)
    assert isinstance(raised, ValidationError)
    assert isinstance(raised, FetchError)
    assert raised.operation_id == "scans/get"
    assert len(api.seen) == 1  # it would fail in the same way again


async def test_strict_failures_are_delivered_to_a_match(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    api.on("/parcels/1/scans/2", reply(data={"weight": "x"}))
    steps = (
        SCAN
        + """
    match response {
      { error: "validation_failed", code: 200, validationErrors: wrong } ->
        store { all: wrong, found: includes(wrong, "weight") } -> out { key: 1 },
      _ -> abort
    }
    """
    )
    ran = (await bench.run(mission(spec, steps, options=', validateResponses: true, validationMode: "strict"'))).ok()
    assert len(ran.out["1"]["all"]) == 2
    assert ran.out["1"]["found"] is True


async def test_answers_of_every_status_are_judged(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    api.on("/parcels", reply(422, data={"why": "x"}))
    steps = """
    call Depot.createParcel { body: {} }
    match response {
      { code: 422, validationErrors: wrong, kind: kind } -> store { all: wrong, kind: kind } -> out { key: 1 },
      _ -> abort
    }
    """
    ran = (await bench.run(mission(spec, steps, options=', validateResponses: true, validationMode: "strict"'))).ok()
    assert ran.out["1"] == {"all": ["response: missing required field 'reason'"], "kind": "http"}


# --- before the run --------------------------------------------------------------------------------------------------


def test_unknown_operations_and_missing_path_parameters_are_found_by_the_check(spec: Path) -> None:
    assert findings(mission(spec, "call Depot.listParcel { params: { page: 1 } }")) == [
        (
            "undefined-operation",
            "source 'Depot' has no operation 'listParcel'",
            "operations with a similar name: listParcels, createParcel",
        )
    ]
    assert findings(mission(spec, 'call Depot."scans/get" { params: { id: 1 } }')) == [
        ("missing-path-param", "path parameter 'scan' has no value", "add it to params: { scan: … }")
    ]
    assert findings(mission(spec, 'let scan = 1\ncall Depot."scans/get" { params: { id: 1 } }')) == []
    assert findings(mission(spec, 'let p = {}\ncall Depot."scans/get" { params: p }')) == []


UPLOAD: dict[str, Any] = {
    "/files": {
        "post": {
            "operationId": "upload",
            "requestBody": {"content": {"multipart/form-data": {"schema": {"type": "object"}}}},
            "responses": {"200": {"description": "ok"}},
        }
    }
}


async def test_a_body_that_only_a_text_can_be_is_refused_before_the_first_request(
    bench: Bench, api: ScriptedServer, tmp_path: Path
) -> None:
    api.on("*", reply(data={}))
    spec = written(tmp_path, document(UPLOAD), "files.json")
    for body in ("{ file: 1 }", "[1]", "3"):
        ran = await bench.run(mission(spec, f"call Depot.upload {{ body: {body} }}"))
        error = ran.outcome.errors[0]
        assert error.diagnostics[0].code == "bad-option-value" and error.span is not None and error.span.text == body
        assert "takes a body of multipart/form-data, in which only a text can be sent" in error.message
    assert api.seen == []
    kind = "multipart/form-data; boundary=x"
    sent = '"--x--"'
    text = mission(spec, f'call Depot.upload {{ headers: {{ "Content-Type": "{kind}" }}, body: {sent} }}')
    (await bench.run(text)).ok()
    assert (api.seen[0].headers["content-type"], api.seen[0].body) == (kind, b"--x--")


async def test_what_only_the_environment_tells_is_found_before_the_first_request(
    bench: Bench, api: ScriptedServer, spec: Path
) -> None:
    bench.environment = {"SPEC": str(spec)}
    for step, code in (("call Depot.gone", "undefined-operation"), ('call Depot."scans/get"', "missing-path-param")):
        text = mission(spec, f'get "/first"\n{step}').replace(f'from "{spec}"', 'from env("SPEC")')
        ran = await bench.run(text)
        assert ran.outcome.errors[0].diagnostics[0].code == code
    assert api.seen == []


async def test_a_schema_that_leads_nowhere_stops_a_validating_run_before_its_first_request(
    bench: Bench, api: ScriptedServer, tmp_path: Path
) -> None:
    gone = document({"/a": {"get": {"operationId": "a", "responses": ok({"$ref": "#/components/schemas/Gone"})}}})
    spec = written(tmp_path / "specs", gone, "gone.json")
    ran = await bench.run(mission(spec, 'get "/first"\ncall Depot.a', options=", validateResponses: true"))
    assert "leads nowhere" in ran.error.message
    assert ran.outcome.errors[0].exit_code == 3
    assert api.seen == []


async def test_a_broken_document_is_a_configuration_error_at_its_place_in_the_mission(
    bench: Bench, tmp_path: Path
) -> None:
    spec = written(tmp_path / "specs", {"openapi": "3.0.0", "info": {}, "paths": {"x": {}}}, "broken.json")
    with pytest.raises(ReqonError) as raised:
        await bench.run(mission(spec, "call Depot.a"))
    assert raised.value.exit_code == 3
    assert len(raised.value.diagnostics) == 3
    assert raised.value.location == "test.vague:2:21"


# --- base ------------------------------------------------------------------------------------------------------------


def served(spec: Path, steps: str) -> str:
    return mission(spec, steps).replace('base: env("API"), ', "")


async def test_the_first_server_is_the_base(bench: Bench, api: ScriptedServer, tmp_path: Path) -> None:
    api.on("/v7/a", reply(data={}))
    paths = {"/a": {"get": {"operationId": "a", "responses": {}}}}
    servers = [{"url": api.url + "/{v}", "variables": {"v": {"default": "v7"}}}]
    spec = written(tmp_path / "specs", document(paths, servers=servers))
    # The mission names the origin too: without that, a document opens no way to this machine.
    allowed = served(spec, f'call Depot.a\nlet known = "{api.url}"\nstore {{ k: known }} -> out {{ key: 1 }}')
    (await bench.run(allowed)).ok()
    assert [seen.target for seen in api.seen] == ["/v7/a"]
    ran = await bench.run(served(spec, "call Depot.a"))
    assert "address not allowed" in ran.error.message
    assert len(api.seen) == 1


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "0.0.0.0", "[::ffff:169.254.169.254]"])
async def test_a_server_in_a_document_cannot_be_the_metadata_address(host: str, bench: Bench, tmp_path: Path) -> None:
    """N3: spellings of addresses that nobody may ask."""
    paths = {"/a": {"get": {"operationId": "a", "responses": {}}}}
    spec = written(tmp_path / "specs", document(paths, servers=[{"url": f"http://{host}/latest"}]))
    ran: Ran = await bench.run(served(spec, "call Depot.a"))
    assert "address not allowed" in ran.error.message


async def test_a_relative_server_of_a_file_needs_a_base(bench: Bench, tmp_path: Path) -> None:
    spec = written(tmp_path / "specs", document({"/a": {"get": {"operationId": "a", "responses": {}}}}))
    ran = await bench.run(served(spec, "call Depot.a"))
    assert ran.outcome.errors[0].diagnostics[0].code == "missing-base"


# --- answers that mean harm ------------------------------------------------------------------------------------------


def grown(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = {"left": leaf}
    return leaf


@pytest.mark.parametrize("mode", ["warn", "strict"])
async def test_a_deep_answer_to_alternatives_that_recur_holds_up_nobody(
    mode: str, bench: Bench, api: ScriptedServer, tmp_path: Path
) -> None:
    """Both alternatives may be meant at each of 60 levels: 2**60 ways to be wrong."""
    left = {"type": "object", "required": ["left"], "properties": {"left": {"$ref": "#/components/schemas/Tree"}}}
    tree = {"oneOf": [left, left, {"type": "string"}]}
    paths = {
        "/tree": {"get": {"operationId": "tree", "responses": ok({"$ref": "#/components/schemas/Tree"})}},
        "/fine": {"get": {"operationId": "fine", "responses": ok({"type": "object"})}},
    }
    path = written(tmp_path / "specs", document(paths, schemas={"Tree": tree}), "depot.json")
    api.on("/tree", reply(data=grown(60, 5)))
    api.on("/fine", reply(data={}))
    options = f', validateResponses: true, validationMode: "{mode}"'
    steps = (
        "call Depot.tree\nmatch response { { validationErrors: w } -> store { w: w } -> out { key: 1 }, _ -> abort }"
    )
    if mode == "warn":
        steps = "call Depot.tree\nstore { w: response.validationErrors } -> out { key: 1 }"
    other = replace(bench, state=tmp_path / "other")
    goes_on = "\n".join(["call Depot.fine"] * 3 + ["store { done: true } -> out { key: 1 }"])
    told, meanwhile = await asyncio.gather(
        bench.run(mission(path, steps, options=options)), other.run(mission(path, goes_on, options=options))
    )
    assert told.ok().out == {"1": {"w": ["response: no matching schema (oneOf)"]}}
    assert meanwhile.ok().out == {"1": {"done": True}}
