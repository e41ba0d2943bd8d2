"""What a document must say, where its references may lead, and what of it can be called (runtime.md 10.1, 10.2)."""

from pathlib import Path
from typing import Any

import pytest

from reqon.errors import SpecError
from reqon.http.openapi.loading import Specifications, forget
from reqon.http.openapi.operation import Operation
from reqon.http.openapi.spec import Spec
from tests.support.specs import answering, document, loaded, written


def operation(spec: Spec, identity: str = "get") -> Operation:
    found = spec.operation(identity)
    assert found is not None
    return found


def test_all_problems_of_a_document_are_in_one_error(tmp_path: Path) -> None:
    paths: dict[str, Any] = {
        "bins": {"get": {"operationId": "a"}},
        "/bins": {"get": {"operationId": "b"}, "put": {"operationId": "b"}},
        "/x": 7,
    }
    with pytest.raises(SpecError) as raised:
        loaded(tmp_path, {"openapi": "3.0.0", "info": {}, "paths": paths})
    found = [problem.partition("api.json")[2] for problem in raised.value.problems]
    assert found == [
        "#/info: 'title' is missing",
        "#/info: 'version' is missing",
        "#/paths/bins: a path begins with '/'",
        "#/paths/~1bins/put: operationId 'b' is that of GET /bins already",
        "#/paths/~1x: a path's item is an object",
    ]
    assert len(raised.value.diagnostics) == 5
    assert raised.value.exit_code == 3


@pytest.mark.parametrize("version", ["3.0.0", "3.0.4", "3.1.0", "3.1.1", "3.1"])
def test_these_versions_are_read(version: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, document(answering({}), version=version)).count == 1


@pytest.mark.parametrize("version", ["1.2", "2.0", "3.2.0", "3.10", "4.0.0", "x"])
def test_other_versions_are_refused(version: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not known"):
        loaded(tmp_path, document(version=version))


@pytest.mark.parametrize("content", ["[1, 2]", "just a text", "{}", '{"openapi": "3.0.0"}', '{"paths": {}}'])
def test_what_is_no_openapi_document_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        loaded(tmp_path, content)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"'missing\.yaml' does not exist"):
        Specifications().load("missing.yaml", folder=tmp_path)


def test_operations_without_an_id_are_counted_and_cannot_be_called(tmp_path: Path) -> None:
    spec = loaded(tmp_path, document({"/a": {"get": {"responses": {}}, "trace": {}, "parameters": []}}))
    assert (spec.count, spec.operations) == (1, {})


# --- references ------------------------------------------------------------------------------------------------------


def test_references_lead_through_the_document_and_its_files(tmp_path: Path) -> None:
    written(tmp_path, {"Bin": {"$ref": "../api.json#/components/schemas/Bin"}}, "parts/schemas.json")
    written(tmp_path, "get:\n  operationId: parted\n  responses: {}\n", "parts/item.yaml")
    paths = {**answering({"$ref": "parts/schemas.json#/Bin"}), "/parted": {"$ref": "./parts/item.yaml"}}
    spec = loaded(tmp_path, document(paths, schemas={"Bin": {"type": "integer"}}))
    check = spec.check(operation(spec), 200, None)
    assert check is not None
    assert check.problems("x") == ["response: type mismatch: expected integer, got string"]
    assert spec.operations["parted"] == ("get", "/parted")
    assert spec.count == 2


@pytest.mark.parametrize(
    "ref",
    [
        "../outside.json#/Bin",
        "parts/../../outside.json#/Bin",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "https://example.com/bin.json",
        "link.json#/Bin",
        "..\\outside.json",
        "%2e%2e/outside.json#/Bin",
    ],
)
def test_a_reference_out_of_the_tree_is_refused_when_it_is_needed(ref: str, tmp_path: Path) -> None:
    """N3: a document opens no way to other files or hosts."""
    written(tmp_path, {"Bin": {"type": "integer"}}, "outside.json")
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "link.json").symlink_to(tmp_path / "outside.json")
    spec = loaded(folder, document({**answering({"$ref": ref}), **answering({}, identity="fine", path="/fine")}))
    assert spec.check(operation(spec, "fine"), 200, None) is not None
    with pytest.raises(SpecError, match=r"is not followed|leads nowhere") as raised:
        spec.check(operation(spec), 200, None)
    assert "#/paths/~1thing/get/responses/200" in raised.value.message


@pytest.mark.parametrize("ref", ["#/components/schemas/Gone", "#gone", "gone.json#/Bin", "#/paths/0"])
def test_a_missing_target_is_named_with_its_place(ref: str, tmp_path: Path) -> None:
    spec = loaded(tmp_path, document(answering({"allOf": [{"$ref": ref}]}, parameters=[{"$ref": ref}])))
    with pytest.raises(SpecError, match=r"#/paths/~1thing/get/parameters/0"):
        _ = operation(spec).parameters


def test_references_in_a_circle_are_refused_where_a_value_is_needed(tmp_path: Path) -> None:
    parameters = {"a": {"$ref": "#/components/parameters/b"}, "b": {"$ref": "#/components/parameters/a"}}
    paths = answering({}, parameters=[{"$ref": "#/components/parameters/a"}])
    spec = loaded(tmp_path, document(paths, components={"parameters": parameters}))
    with pytest.raises(SpecError, match="goes in a circle"):
        _ = operation(spec).parameters


def test_a_path_that_cannot_be_read_is_told_to_those_who_miss_its_operations(tmp_path: Path) -> None:
    spec = loaded(tmp_path, document({"/a": {"$ref": "gone.yaml"}}))
    assert "gone.yaml" in (spec.unknown("getA") or "")


def test_names_with_signs_that_pointers_escape_are_found(tmp_path: Path) -> None:
    schemas = {"a/b~c d%41é": {"type": "boolean"}}
    spec = loaded(
        tmp_path, document(answering({"$ref": "#/components/schemas/a~1b~0c%20d%2541%C3%A9"}), schemas=schemas)
    )
    check = spec.check(operation(spec), 200, None)
    assert check is not None
    assert check.problems(1) == ["response: type mismatch: expected boolean, got number"]


def test_what_stands_beside_a_reference_counts_in_3_1_only(tmp_path: Path) -> None:
    schema = {"$ref": "#/components/schemas/Text", "maxLength": 2}
    for version, expected in (("3.0.3", []), ("3.1.0", ["response: constraint failed: maxLength 2"])):
        spec = loaded(tmp_path, document(answering(schema), version=version, schemas={"Text": {"type": "string"}}))
        check = spec.check(operation(spec), 200, None)
        assert check is not None
        assert check.problems("long") == expected


# --- servers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ([{"url": "https://api.example.org/v3/"}, {"url": "https://other"}], "https://api.example.org/v3"),
        (
            [
                {
                    "url": "https://{region}.example.org/{v}",
                    "variables": {"region": {"default": "eu"}, "v": {"default": 2}},
                }
            ],
            "https://eu.example.org/2",
        ),
        ([{"url": "/v3"}], None),
        ([], None),
    ],
)
def test_the_base_is_the_first_server(servers: list[Any], expected: str | None, tmp_path: Path) -> None:
    assert loaded(tmp_path, document(servers=servers)).server() == expected


def test_a_server_with_a_variable_that_has_no_default_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="variable without default"):
        loaded(tmp_path, document(servers=[{"url": "https://{region}.example.org"}])).server()


# --- the process's memory and the compiled form ----------------------------------------------------------------------


def test_a_document_is_read_once_until_it_or_a_part_of_it_changes(tmp_path: Path) -> None:
    part = written(tmp_path, {"get": {"operationId": "old", "responses": {}}}, "item.json")
    path = written(tmp_path, document({"/a": {"$ref": "item.json"}}))
    forget()
    specifications = Specifications()
    first = specifications.load(str(path), folder=tmp_path)
    assert Specifications().load("api.json", folder=tmp_path) is first
    part.write_text('{"get": {"operationId": "newer", "responses": {}}}')
    assert list(specifications.load(str(path), folder=tmp_path).operations) == ["newer"]


def big(count: int = 300, note: str = "") -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for number in range(count):
        paths |= answering({"$ref": f"#/components/schemas/S{number}"}, identity=f"op{number}", path=f"/p{number}")
    schemas = {f"S{n}": {"type": "object", "description": "x" * 300 + note} for n in range(count)}
    return document(paths, schemas=schemas)


def test_a_large_document_is_kept_in_compiled_form_and_read_from_it(tmp_path: Path) -> None:
    cache = tmp_path / "state" / "oas-cache"
    cache.parent.mkdir()
    path = written(tmp_path, big())
    forget()
    first = Specifications(cache).load(str(path), folder=tmp_path)
    (kept,) = cache.iterdir()
    before = kept.stat().st_mtime_ns
    forget()
    second = Specifications(cache).load(str(path), folder=tmp_path)
    assert kept.stat().st_mtime_ns == before
    assert second.operations == first.operations
    assert second.component("S7").value == first.component("S7").value
    kept.write_bytes(kept.read_bytes()[:1000])
    forget()
    again = Specifications(cache).load(str(path), folder=tmp_path)  # a damaged one is made anew
    assert again.component("S7").value == first.component("S7").value
    forget()
    content = bytearray(kept.read_bytes())
    content[-500:-400] = bytes(100)  # as a power loss may leave it
    kept.write_bytes(content)
    assert (
        Specifications(cache).load(str(path), folder=tmp_path).component("S299").value == again.component("S299").value
    )


def test_a_changed_document_takes_the_place_of_its_compiled_form(tmp_path: Path) -> None:
    cache = tmp_path / "state" / "oas-cache"
    cache.parent.mkdir()
    path = written(tmp_path, big())
    forget()
    Specifications(cache).load(str(path), folder=tmp_path)
    written(tmp_path, big(note="changed"))
    changed = Specifications(cache).load(str(path), folder=tmp_path)
    assert changed.component("S7").value["description"].endswith("changed")
    assert len(list(cache.iterdir())) == 1


def test_nothing_is_kept_where_nothing_may_be_written(tmp_path: Path) -> None:
    path = written(tmp_path, big())
    forget()
    Specifications(tmp_path / "state" / "oas-cache", keep=False).load(str(path), folder=tmp_path)
    assert not (tmp_path / "state").exists()
