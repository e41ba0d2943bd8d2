from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.errors import FetchError
from reqon.http.paths import PartKind, PathPart, assemble, encode_query, template_of
from tests.http.conftest import World, get
from tests.support.servers import reply

T, V, J, R, S = PartKind.TEXT, PartKind.VALUE, PartKind.JOINED, PartKind.RAW, PartKind.SEGMENTS
NASTY = st.one_of(
    st.text(min_size=1, max_size=12),
    st.text(alphabet="./\\%2efE5c?#&=; \r\n\0aé☃", min_size=1, max_size=12),
)


def path(*parts: tuple[PartKind, Any]) -> str:
    return assemble([PathPart(kind, value, "x") for kind, value in parts])


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("a/b", "a%2Fb"), ("a?b", "a%3Fb"), ("a#b", "a%23b"), ("100%", "100%25"), ("a\\b", "a%5Cb"), ("a;b", "a%3Bb"),
        ("é☃", "%C3%A9%E2%98%83"), ("a b", "a%20b"), ("~-._", "~-._"), ("%2e%2e", "%252e%252e"), ("..a", "..a"),
        (7, "7"), (-1, "-1"), (2**70, str(2**70)), (3.0, "3"), (1.5, "1.5"), (True, "true"), ("\r\n", "%0D%0A"),
        ("\0", "%00"), (datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01T00%3A00%3A00.000Z"),
    ],
)  # fmt: skip
def test_a_value_stays_in_its_segment(value: object, encoded: str) -> None:
    """N4"""
    assert path((T, "/parcels/"), (V, value), (T, "/scan")) == f"/parcels/{encoded}/scan"


@pytest.mark.parametrize(
    "value", ["..", ".", "../admin", "a/..", "..\\x", "", None, [], {}, [1], float("nan"), float("inf"), "\ud800"]
)
def test_a_value_that_is_no_segment_is_refused_by_name(value: object) -> None:
    """N4"""
    with pytest.raises(FetchError) as caught:
        assemble([PathPart(T, "/parcels/"), PathPart(V, value, "parcel.id"), PathPart(T, "/scan")])
    assert caught.value.kind == "bad_path" and "{parcel.id}" in caught.value.message


@given(NASTY)
def test_no_value_leaves_its_segment(value: str) -> None:
    """N4"""
    try:
        made = path((T, "/a/"), (V, value), (T, "/b?x="), (V, value))
    except FetchError as error:
        assert error.kind == "bad_path"  # noqa: PT017  # either refused or harmless
        return
    parts = urlsplit(made)
    assert made.isascii() and made.count("?") == 1 and "#" not in made
    assert parts.path.count("/") == 3 and unquote(parts.path.split("/")[2]) == value
    assert unquote(parts.query) == f"x={value}" and "&" not in parts.query


@given(NASTY)
def test_joined_values_keep_their_slashes_but_never_climb(value: str) -> None:
    """N4"""
    try:
        made = path((T, "/repos/"), (J, value))
    except FetchError as error:
        assert error.kind == "bad_path"  # noqa: PT017
        return
    assert unquote(made) == f"/repos/{value}" and "?" not in made
    assert not {".", ".."} & set(unquote(made).replace("\\", "/").split("/"))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(T, "parcels")], "/parcels"),
        ([(T, "/a b/%41?q=x y&z=%zz")], "/a%20b/%41?q=x%20y&z=%25zz"),
        ([(T, "/repos/"), (J, "me/it")], "/repos/me/it"),
        ([(J, "/next/page?x=1"), (T, "&y=2")], "/next/page?x=1&y=2"),
        ([(J, "https://api.example/next"), (T, "/y")], "https://api.example/next/y"),
        ([(J, "plain"), (T, "/y")], "/plain/y"),
        ([(R, "/a/b?c=d/e")], "/a/b?c=d/e"),
        ([(R, "https://x.example/a?b=1")], "https://x.example/a?b=1"),
        ([(T, "/files/"), (S, "a/b c/d")], "/files/a/b%20c/d"),
        ([(T, "/q?x="), (V, "a/b&c=d")], "/q?x=a%2Fb%26c%3Dd"),
        ([(T, "https://x.example/"), (V, "a/b")], "https://x.example/a%2Fb"),
    ],
)
def test_the_parts_of_a_path_are_put_together(parts: list[tuple[PartKind, Any]], expected: str) -> None:
    assert path(*parts) == expected


@pytest.mark.parametrize(
    "parts",
    [
        [(R, "no/slash")], [(R, None)], [(R, 7)], [(R, "")], [(R, "ftp://x/y")], [(R, "/a#b")], [(R, "/a\\b")],
        [(R, "/a\r\nb")], [(R, "/a/../b")], [(R, "/a/%2e%2E/b")], [(R, "/a%2f..%2Fb")], [(R, "/..%5cb")],
        [(T, "/a/./b")], [(T, "/a#b")], [(T, "/q?x="), (V, None)], [(S, "a//b")], [(S, "a/../b")],
        [(J, "/a/"), (J, "../b")], [(T, "/a/"), (V, "."), (V, ".")], [(T, "/a/."), (V, ".")],
    ],
)  # fmt: skip
def test_a_path_that_climbs_or_breaks_out_is_refused(parts: list[tuple[PartKind, Any]]) -> None:
    """N4"""
    with pytest.raises(FetchError) as caught:
        path(*parts)
    assert caught.value.kind == "bad_path"


def test_a_template_names_expressions_and_has_no_query() -> None:
    parts = [PathPart(T, "parcels/"), PathPart(V, 7, "parcel.id"), PathPart(T, "?x="), PathPart(V, 8, "y")]
    assert template_of(parts) == "/parcels/{parcel.id}"
    assert template_of([PathPart(R, "/a", "next")]) == "{next}"


def test_parameters_replace_earlier_ones_and_the_paths_own() -> None:
    assert encode_query([("a", 1), ("b", 2), ("a", 3)], "a=0&c=4&b") == "c=4&b=2&a=3"
    assert encode_query([("a", None)], "a=0") == "a=0"
    assert encode_query([]) == "" and encode_query([("a", [])]) == ""


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (True, "true"), (1.0, "1"), (0.1, "0.1"), (1e21, "1e%2B21"), ("a b+c", "a%20b%2Bc"), ([1, None, "x"], "1&v=x"),
        ({"a": 1}, "%7B%22a%22%3A1%7D"), (datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01T00%3A00%3A00.000Z"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_parameters_value_is_written_as_apis_read_it(value: object, encoded: str) -> None:
    assert encode_query([("v", value)]) == f"v={encoded}"


def test_a_parameter_that_is_no_number_is_refused() -> None:
    with pytest.raises(FetchError, match="'v'"):
        encode_query([("v", float("nan"))])


@pytest.mark.parametrize("value", ["../x", "a/b", "%2f", "?", "#", "\r\nX: 1", "\0", "é", "&a=1", " "])
async def test_the_raw_request_holds_what_the_rules_say(world: World, value: str) -> None:
    """N4"""
    world.api.on("*", reply(data=1))
    target = assemble([PathPart(T, "/p/"), PathPart(V, "x" + value.replace("..", "__"), "v")])
    await world.client().send(get(target, params=((value, value),)))
    raw = world.api.seen[0].raw
    assert raw.isascii() and raw.count(b"\r\n") == len(world.api.seen[0].headers) + 2
    sent = world.api.seen[0]
    assert sent.path.count("/") == 2 and unquote(sent.path[3:]) == "x" + value.replace("..", "__")
    assert sent.query == {value: value}
