"""Where parameters go and how they are written (runtime.md 10.3)."""

from pathlib import Path
from typing import Any

import pytest

from reqon.errors import FetchError
from reqon.http.openapi.operation import Operation
from reqon.http.openapi.parameters import placed, refuse_missing
from reqon.http.paths import encode_query
from tests.support.specs import Record, answering, document, loaded

COLORS = ["blue", "black & white"]
POINT = {"R": 100, "G": None, "B": "a b"}


def operation(folder: Path, *parameters: Any, **more: Any) -> Operation:
    paths = answering({}, path="/bins/{id}/x-{kind}", parameters=list(parameters), **more)
    found = loaded(folder, document(paths)).operation("get")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("style", "explode", "value", "expected"),
    [
        (None, None, COLORS, "c=blue&c=black%20%26%20white"),
        ("form", True, COLORS, "c=blue&c=black%20%26%20white"),
        ("form", False, COLORS, "c=blue,black%20%26%20white"),
        ("spaceDelimited", False, COLORS, "c=blue%20black%20%26%20white"),
        ("pipeDelimited", False, COLORS, "c=blue%7Cblack%20%26%20white"),
        ("spaceDelimited", None, COLORS, "c=blue%20black%20%26%20white"),
        ("form", True, POINT, "R=100&B=a%20b"),
        ("form", False, POINT, "c=R,100,B,a%20b"),
        ("deepObject", True, POINT, "c%5BR%5D=100&c%5BB%5D=a%20b"),
        ("deepObject", True, {"a": {"b": [1, 2]}}, "c%5Ba%5D%5Bb%5D=1&c%5Ba%5D%5Bb%5D=2"),
        ("form", False, [], ""),
        ("form", False, "x,y", "c=x%2Cy"),
        (None, None, None, ""),
        (None, None, True, "c=true"),
    ],
)
def test_query_styles(style: str | None, explode: bool | None, value: Any, expected: str, tmp_path: Path) -> None:
    parameter: Record = {"name": "c", "in": "query", "style": style, "explode": explode, "schema": {}}
    known = operation(tmp_path, {k: v for k, v in parameter.items() if v is not None}).by_name
    assert encode_query(placed([("c", value)], known).query) == expected


def test_a_parameter_with_content_is_json_text(tmp_path: Path) -> None:
    known = operation(tmp_path, {"name": "filter", "in": "query", "content": {"application/json": {}}}).by_name
    assert placed([("filter", {"a": [1]})], known).query == (("filter", '{"a":[1]}'),)


@pytest.mark.parametrize(
    ("explode", "value", "expected"),
    [
        (False, ["a", 1], "a,1"),
        (False, {"a": 1, "b": 2}, "a,1,b,2"),
        (True, {"a": 1, "b": 2}, "a=1,b=2"),
        (False, 7, "7"),
    ],
)
def test_headers_are_simple(explode: bool, value: Any, expected: str, tmp_path: Path) -> None:
    known = operation(tmp_path, {"name": "X-Kinds", "in": "header", "explode": explode, "schema": {}}).by_name
    assert placed([("x-kinds", value)], known).headers == (("X-Kinds", expected),)


def test_cookies_share_one_header_and_unknown_names_go_to_the_query(tmp_path: Path) -> None:
    cookies: list[Record] = [{"name": n, "in": "cookie", "schema": {}} for n in ("sid", "theme")]
    known = operation(tmp_path, *cookies).by_name
    made = placed([("sid", "a;b"), ("theme", ["x", "y"]), ("other", 1)], known)
    assert made.headers == (("Cookie", "sid=a%3Bb; theme=x,y"),)
    assert made.query == (("other", 1),)


def test_a_name_means_the_path_first_then_headers_then_the_query(tmp_path: Path) -> None:
    places: list[Record] = [
        {"name": "id", "in": p, "schema": {}, "required": True} for p in ("query", "header", "path")
    ]
    assert operation(tmp_path, *places).by_name["id"].place == "path"
    assert operation(tmp_path, *places[:2]).by_name["id"].place == "path"  # the path has a placeholder for it
    twice: list[Record] = [{"name": "tag", "in": p, "schema": {}} for p in ("query", "header")]
    assert operation(tmp_path, *twice).by_name["tag"].place == "header"


def test_parameters_of_an_operation_replace_those_of_its_path(tmp_path: Path) -> None:
    found = operation(tmp_path, {"name": "c", "in": "query", "required": True, "schema": {}})
    assert found.path_parameters == ("id", "kind")
    assert found.parts == [(False, "/bins/"), (True, "id"), (False, "/x-"), (True, "kind")]
    paths = answering({}, parameters=[{"name": "c", "in": "query", "schema": {}}])
    paths["/thing"]["parameters"] = [
        {"name": "c", "in": "query", "required": True, "schema": {}},
        {"name": "d", "in": "query", "schema": {}},
    ]
    own = loaded(tmp_path, document(paths)).operation("get")
    assert own is not None
    assert [(p.name, p.required) for p in own.parameters] == [("c", False), ("d", False)]


def test_required_parameters_that_are_missing_are_named(tmp_path: Path) -> None:
    places: list[Record] = [
        {"name": p[0], "in": p, "schema": {}, "required": True} for p in ("query", "header", "cookie")
    ]
    parameters = operation(tmp_path, *places, {"name": "Accept", "in": "header", "required": True}).parameters

    def refused(present: set[str], headers: set[str]) -> str:
        with pytest.raises(FetchError) as raised:
            refuse_missing(parameters, present=present, headers=headers, operation="Depot.get")
        return f"{raised.value.kind}: {raised.value.message}"

    assert refused({"h", "c"}, set()) == "bad_path: Depot.get needs the query parameter 'q', which has no value"
    assert refused({"q", "c"}, set()) == "bad_header: Depot.get needs the header parameter 'h', which has no value"
    assert refused({"q", "H"}, set()) == "bad_header: Depot.get needs the cookie parameter 'c', which has no value"
    refuse_missing(parameters, present={"q"}, headers={"h", "cookie"}, operation="Depot.get")


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (["text/plain", "application/x-www-form-urlencoded", "application/json"], "application/json"),
        (["text/plain", "application/merge-patch+json"], "application/merge-patch+json"),
        (["text/plain", "application/x-www-form-urlencoded"], "application/x-www-form-urlencoded"),
        (["application/octet-stream", "text/csv"], "text/csv"),
        (["*/*", "image/png"], "image/png"),
        ([], None),
    ],
)
def test_a_body_is_json_if_that_is_offered_else_a_form_else_text(
    offered: list[str], expected: str | None, tmp_path: Path
) -> None:
    found = operation(tmp_path, requestBody={"content": {name: {} for name in offered}})
    assert found.body_type == expected


def test_a_slip_of_the_pen_is_pointed_at(tmp_path: Path) -> None:
    parameters = operation(tmp_path, {"name": "per_page", "in": "query", "required": True}).parameters
    with pytest.raises(FetchError) as raised:
        refuse_missing(parameters, present={"per_pag", "page"}, headers=set(), operation="Depot.get")
    assert raised.value.hint == "is 'per_pag' in params meant? Then write 'per_page'"
