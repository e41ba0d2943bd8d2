"""`import n from "openapi.yaml"`: component schemas wherever schemas are named (language.md 2.5, 6.3)."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from reqon.diagnostics import Source
from reqon.extensions import registered
from reqon.http.openapi.loading import Specifications, forget
from reqon.lang.loader import load, load_text
from reqon.lang.program import Program
from reqon.lang.schemas import Schemas
from tests.http.openapi.test_mock import SCHEMAS
from tests.support.missions import Bench, Ran
from tests.support.servers import ScriptedServer, reply
from tests.support.specs import document, made_up, written

COMPONENTS: dict[str, Any] = {
    "Base": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
    "Gauge": {
        "allOf": [
            {"$ref": "#/components/schemas/Base"},
            {
                "type": "object",
                "required": ["level", "kind"],
                "properties": {
                    "level": {"type": "number", "minimum": 0, "maximum": 20},
                    "kind": {"$ref": "#/components/schemas/Kind"},
                    "seen": {"type": "string", "format": "date-time"},
                    "note": {"type": "string", "nullable": True},
                    "near": {"type": "array", "items": {"$ref": "#/components/schemas/Gauge"}, "maxItems": 2},
                    "place": {"type": "object", "required": ["lat"], "properties": {"lat": {"type": "number"}}},
                },
            },
        ]
    },
    "Kind": {"type": "string", "enum": ["buoy", "pier"]},
    "Fault": {"type": "object", "required": ["code"], "properties": {"code": {"type": "integer"}}},
    "Either": {"oneOf": [{"$ref": "#/components/schemas/Gauge"}, {"$ref": "#/components/schemas/Fault"}]},
    "Loop": {"allOf": [{"$ref": "#/components/schemas/Loop"}], "properties": {"x": {"type": "integer"}}},
}
GAUGE = {"id": "g1", "level": 3.5, "kind": "buoy"}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    forget()
    return written(tmp_path / "specs", document(schemas=COMPONENTS), "tides.json")


def read(spec: Path, body: str) -> Program:
    text = f'import tides from "{spec}"\nmission M {{\n  source Api {{ base: "https://x.example" }}\n{body}\n}}\n'
    return load_text(Source("test.vague", text), known=registered(Specifications))


def findings(spec: Path, body: str) -> list[tuple[str, str]]:
    return [(d.code, d.message) for d in read(spec, body).all_diagnostics]


def matches(spec: Path, name: str, value: Any) -> bool:
    (mission,) = read(spec, "action A { store tides -> out } store out: memory()".replace("tides ", "{} ")).missions
    return Schemas(mission.schemas).matcher(f"tides.{name}")(value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Base", {"id": "x"}, True),
        ("Base", {"id": 1}, False),
        ("Base", [], False),
        ("Gauge", GAUGE, True),
        ("Gauge", {**GAUGE, "more": 1}, True),
        ("Gauge", {"level": 1, "kind": "buoy"}, False),
        ("Gauge", {**GAUGE, "kind": "ship"}, False),
        ("Gauge", {**GAUGE, "level": 21}, False),
        ("Gauge", {**GAUGE, "level": -1}, False),
        ("Gauge", {**GAUGE, "seen": "2026-03-01T08:15:00Z"}, True),
        ("Gauge", {**GAUGE, "seen": "yesterday"}, False),
        ("Gauge", {**GAUGE, "note": None}, True),
        ("Gauge", {**GAUGE, "near": [GAUGE, GAUGE]}, True),
        ("Gauge", {**GAUGE, "near": [GAUGE] * 3}, False),
        ("Gauge", {**GAUGE, "near": [{}]}, False),
        ("Gauge", {**GAUGE, "place": {"lat": 1}}, True),
        ("Gauge", {**GAUGE, "place": {}}, False),
        ("Kind", "pier", True),
        ("Kind", "ship", False),
        ("Either", GAUGE, True),
        ("Either", {"code": 1}, True),
        ("Either", {}, False),
        ("Loop", {"x": 1}, True),
        ("Loop", {"x": "1"}, False),
    ],
)
def test_a_component_matches_what_it_describes(name: str, value: Any, expected: bool, spec: Path) -> None:
    assert matches(spec, name, value) is expected


async def test_imported_schemas_are_named_wherever_a_schema_is(bench: Bench, api: ScriptedServer, spec: Path) -> None:
    api.on("/one", reply(data={**GAUGE, "station": "north"}))
    api.on("/two", reply(data={"code": 7}))
    text = f"""
    import tides from "{spec}"
    mission M {{
      source Api {{ auth: none, base: env("API"), retry: {{ maxAttempts: 1 }} }}
      store out: memory("out")
      schema Station from tides.Gauge {{ station: string, type: tides.Kind? }}
      transform Row: tides.Gauge -> tides.Fault {{ code: round(.level) }}
      action A {{
        get "/one"
        let fault = response is tides.Fault
        store {{ gauge: response is tides.Gauge, station: response is Station, fault: fault }} -> out {{ key: "is" }}
        match response {{
          tides.Fault -> abort "no",
          tides.Gauge -> store {{ found: true }} -> out {{ key: "match" }},
          _ -> abort "none"
        }}
        apply Row to response as row
        store row -> out {{ key: "row" }}
        get "/two"
        map response -> tides.Fault {{ code: .code + 1 }}
        match response {{
          [tides.Fault] -> abort "list",
          tides.Either -> store response -> out {{ key: "two" }},
          _ -> abort "none"
        }}
      }}
      run A
    }}
    """
    ran: Ran = await bench.run(text)
    assert ran.ok().out == {
        "is": {"gauge": True, "station": True, "fault": False},
        "match": {"found": True},
        "row": {"code": 4},
        "two": {"code": 8},
    }


def test_names_that_the_document_does_not_have_are_found(spec: Path) -> None:
    body = """
    store out: memory()
    schema Own { kind: tides.Kinds, base: tides.Base }
    schema Odd from tides.Kind { x: string }
    action A { get "/x" match response { tides.Gauges -> continue, Own -> continue, Odd -> continue, _ -> skip } }
    run A
    """
    codes = [finding for finding in findings(spec, body) if finding[0] == "undefined-schema"]
    assert codes == [
        ("undefined-schema", "schema 'tides.Kinds' is not declared"),
        ("undefined-schema", "'tides.Kind' is no object, so it has no fields to take over"),
        ("undefined-schema", "schema 'tides.Gauges' is not declared"),
    ]


def test_a_mapping_to_a_component_is_told_of_fields_it_leaves_out(spec: Path) -> None:
    body = 'action A { get "/x" map response -> tides.Gauge { level: 1 } }\nrun A'
    found = findings(spec, body)
    assert found == [("map-target-fields", "'tides.Gauge' requires fields 'id', 'kind', which are not mapped")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist"),
        ({"openapi": "3.0.0"}, "'title' is missing"),
        (document(schemas={"A": {"properties": {"x": {"$ref": "#/gone"}}}}), "leads nowhere"),
    ],
)
def test_a_document_that_cannot_be_used_is_a_finding_at_the_import(content: Any, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    if content is not None:
        written(tmp_path, content)
    program = read(path, "action A {}\nrun A")
    found = [d for d in program.all_diagnostics if d.code == "import-not-found"]
    assert problem in " ".join(d.message for d in found)
    assert all(str(d.span).startswith("test.vague:1:19") for d in found)


def test_paths_are_relative_to_the_importing_file(tmp_path: Path) -> None:
    forget()
    written(tmp_path / "shared", document(schemas=COMPONENTS), "tides.yaml")
    mission = tmp_path / "mission.vague"
    mission.write_text(
        'import tides from "shared/tides.yaml"\nmission M { source S { base: "https://x.example" }\n'
        'action A { get "/x" match response { tides.Gauge -> continue, _ -> skip } } run A }'
    )
    assert not load([mission], known=registered(Specifications)).has_errors


@given(SCHEMAS)
@settings(max_examples=60, deadline=None)
def test_what_is_made_up_for_a_component_matches_its_import(schema: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        made = made_up(Path(name), schema)
        forget()
        path = written(Path(name), document(schemas={"S": schema}), "tides.json")
        assert matches(path, "S", made), made
