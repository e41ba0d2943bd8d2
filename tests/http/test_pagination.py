from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.errors import PaginationError
from reqon.http.messages import Headers
from reqon.http.pagination import (
    CursorPages,
    CustomPages,
    LinkPages,
    NumberedPages,
    OffsetPages,
    Pagination,
    find_items,
    follow,
    items_at,
    link_target,
    with_items,
)
from reqon.values import decode, encode

URL = "https://api.example/v1/parcels?x=1"
NONE = Headers()


def cursor_of(body: Any, headers: Any) -> Any:
    return body.get("next")


def walk(pages: Pagination, bodies: list[Any], counts: list[int] | None = None) -> list[Any]:
    """What each request carries while the strategy sees more pages."""
    asked = []
    for index, body in enumerate(bodies):
        asked.append(pages.next_request())
        pages.advance(body, NONE, counts[index] if counts else 1, URL)
        if not pages.has_more:
            break
    return asked


def test_offset_adds_what_was_received() -> None:
    asked = walk(OffsetPages("skip", 100, short_stops=False), [{}] * 4, [100, 60, 100, 0])
    assert [r.params for r in asked] == [(("skip", 0),), (("skip", 100),), (("skip", 160),), (("skip", 260),)]


def test_numbered_pages_count_from_the_first_number() -> None:
    asked = walk(NumberedPages("page", 100, short_stops=True, page=0), [{}] * 9, [100, 100, 99])
    assert [r.params[0][1] for r in asked] == [0, 1, 2]


def test_until_switches_the_short_page_rule_off_but_not_the_empty_one() -> None:
    pages = NumberedPages("page", 100, short_stops=False)
    assert len(walk(pages, [{}] * 9, [100, 1, 100, 0])) == 4
    assert pages.next_value == 5


def test_a_cursor_is_sent_until_there_is_none() -> None:
    pages = CursorPages("after", cursor_of)
    asked = walk(pages, [{"next": "a"}, {"next": 0}, {"next": 7.5}, {"next": ""}])
    assert [r.params for r in asked] == [(), (("after", "a"),), (("after", 0),), (("after", 7.5),)]
    assert pages.next_value is None and pages.state() == {"kind": "end", "value": None}


@pytest.mark.parametrize("end", [None, "", False])
def test_what_ends_a_cursor(end: object) -> None:
    pages = CursorPages("after", cursor_of, first="start")
    assert pages.next_request().params == (("after", "start"),)
    pages.advance({"next": end}, NONE, 5, URL)
    assert not pages.has_more


def test_a_repeated_cursor_is_an_endless_loop() -> None:
    """R8"""
    pages = CursorPages("after", cursor_of)
    pages.advance({"next": "a"}, NONE, 1, URL)
    pages.advance({"next": "b"}, NONE, 1, URL)
    with pytest.raises(PaginationError) as caught:
        pages.advance({"next": "a"}, NONE, 1, URL)
    assert caught.value.reason == "cursor_loop" and caught.value.kind == "pagination"


def test_a_cursor_that_is_an_address_is_followed() -> None:
    pages = CursorPages("after", cursor_of)
    pages.advance({"next": "/v1/parcels?page=2"}, NONE, 1, URL)
    assert pages.next_request() == ((), "https://api.example/v1/parcels?page=2")
    assert pages.state() == {"kind": "url", "value": "https://api.example/v1/parcels?page=2"}


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/x", "http://api.example/x", "https://api.example:444/x", "//evil.example/x",
        "https://api.example@evil.example/", "https://user:pw@api.example/", "https://api.example\\@evil.example/",
        "http://169.254.169.254/", "https://[::1", "/a\\b", "/a b", "/\u2603",
    ],
)  # fmt: skip
def test_no_page_leads_to_another_origin(target: str) -> None:
    """N3"""
    pages = CursorPages("after", cursor_of)
    if target.startswith(("/", "http")):
        with pytest.raises(PaginationError) as caught:
            pages.advance({"next": target}, NONE, 1, URL)
        assert caught.value.reason == "origin"
    with pytest.raises(PaginationError):
        LinkPages().advance({}, Headers({"Link": f'<{target}>; rel="next"'}), 1, URL)


@given(st.text(alphabet="/\\@:.#?htps[]evil127 \t\n%", max_size=30))
def test_whatever_is_followed_stays_on_the_origin(target: str) -> None:
    """N3"""
    try:
        url = follow(URL, target)
    except PaginationError:
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.hostname, parts.port, parts.username) == ("https", "api.example", None, None)


@pytest.mark.parametrize(
    ("header", "relation", "target"),
    [
        ('<https://a/2>; rel="next"', "next", "https://a/2"),
        ('<https://a/1>; rel=prev, <https://a/2>; rel=next; title="x"', "next", "https://a/2"),
        ('<https://a/2?q=a,b;c>; title="a, <b>; rel=prev"; rel="last Next"', "next", "https://a/2?q=a,b;c"),
        ('<https://a/2>; title="; rel=next"', "next", None),
        ("<https://a/2>; REL = next", "next", "https://a/2"),
        ('<https://a/9>; rel="last"', "last", "https://a/9"),
        ("<https://a/2>", "next", None),
        ("<https://a/2; rel=next", "next", None),
        ("", "next", None),
        (None, "next", None),
        (", , <x>; rel=next", "next", "x"),
        ("<" * 5000, "next", None),
        ("<a>" + " " * 16000 + "; rel=next", "next", "a"),
        ("<a>" + ";\t" * 8000, "next", None),
        ('<a>; x="' + "\\" * 16000, "next", None),
    ],
)
def test_link_headers_are_read_as_rfc_8288_says(header: str | None, relation: str, target: str | None) -> None:
    assert link_target(header, relation) == target


@given(st.text(alphabet='<>;,="\\ relnxt', max_size=80))
def test_no_link_header_breaks_the_reader(header: str) -> None:
    found = link_target(header, "next")
    assert found is None or found in header


def test_links_are_followed_to_their_end() -> None:
    pages = LinkPages()
    assert pages.next_request() == ((), None)
    pages.advance([], Headers({"Link": '</v1/parcels?page=2>; rel="next"'}), 1, URL)
    assert pages.next_request().url == "https://api.example/v1/parcels?page=2"
    pages.advance([], Headers({"Link": '</v1/parcels?page=1>; rel="prev"'}), 1, URL)
    assert not pages.has_more


def strategies() -> list[tuple[Pagination, Pagination]]:
    """Pairs of one kind each."""

    def pair(make: Callable[[], Pagination]) -> tuple[Pagination, Pagination]:
        return make(), make()

    return [
        pair(lambda: OffsetPages("o", 2, short_stops=True)),
        pair(lambda: NumberedPages("p", 2, short_stops=True)),
        pair(lambda: CursorPages("c", cursor_of)),
        pair(LinkPages),
        pair(lambda: CustomPages("saved", Saved)),
    ]


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("done", range(4))
def test_a_restored_strategy_goes_on_where_it_stood(index: int, done: int) -> None:
    """Through JSON, and to the same end as one that never stopped."""
    first, second = strategies()[index]
    places = ["/v1/x?page=2", "/v1/x?page=3", None]
    pages = [
        ({"next": place, "t": place}, Headers({"Link": f'<{place}>; rel="next"'} if place else {}), 2 if place else 1)
        for place in places
    ]
    for body, headers, count in pages[:done]:
        first.advance(body, headers, count, URL)
    second.restore(decode(encode(first.state())))
    rest: list[tuple[Any, Headers, int]] = [*pages[done:], (None, NONE, 0)]
    for following, headers, count in rest:
        assert (second.has_more, second.next_value) == (first.has_more, first.next_value)
        if not first.has_more:
            break
        assert second.next_request() == first.next_request()
        first.advance(following, headers, count, URL)
        second.advance(following, headers, count, URL)
    assert not second.has_more


class Tokens:
    """A custom strategy."""

    def __init__(self) -> None:
        self.token: str | None = None

    def get_initial_params(self) -> dict[str, Any]:
        return {"fresh": True}

    def update_from_response(self, body: Any, headers: Any) -> None:
        self.token = body.get("t")

    def has_more(self) -> bool:
        return self.token is not None

    def get_next_params(self) -> dict[str, Any]:
        return {"url": self.token} if self.token and self.token.startswith("/") else {"t": self.token}


class Saved(Tokens):
    def state(self) -> Any:
        return self.token

    def restore(self, value: Any) -> None:
        self.token = value


def test_a_custom_strategy_decides_and_may_be_saved() -> None:
    pages = CustomPages("tokens", Tokens)
    asked = walk(pages, [{"t": "a"}, {"t": "/v1/b"}, {}])
    assert [r.params for r in asked] == [(("fresh", True),), (("t", "a"),), ()]
    assert asked[2].url == "https://api.example/v1/b" and not pages.resumable
    saved, again = CustomPages("saved", Saved), CustomPages("saved", Saved)
    saved.advance({"t": "z"}, NONE, 1, URL)
    again.restore(saved.state())
    assert again.next_request() == saved.next_request() and again.next_value == "z"


@pytest.mark.parametrize(
    ("body", "place", "items"),
    [
        ([1], (), [1]),
        ({"data": [1], "items": [2]}, ("data",), [1]),
        ({"items": [2], "x": [3]}, ("items",), [2]),
        ({"tags": ["a"], "orders": [{"id": 1}]}, ("orders",), [{"id": 1}]),
        ({"tags": ["a"], "names": ["b"]}, ("tags",), ["a"]),
        ({"meta": {"n": 1}, "result": {"rows": [1]}}, ("result", "rows"), [1]),
        ({"a": {"odd": [1]}, "b": {"data": [2]}}, ("a", "odd"), [1]),
        ({"data": {"x": 1}}, None, []),
        ({"data": []}, ("data",), []),
        (None, None, []),
        ("text", None, []),
    ],
)
def test_the_items_of_a_page_are_found(body: Any, place: tuple[str, ...] | None, items: list[Any]) -> None:
    assert find_items(body) == (items, place)


def test_a_named_place_comes_before_the_usual_ones() -> None:
    body = {"data": [1], "deep": {"list": [2]}, "other": [3]}
    assert find_items(body, path=("deep", "list")) == ([2], ("deep", "list"))
    assert find_items(body, until_path=("other",)) == ([3], ("other",))
    assert find_items(body, path=("gone",), until_path=("other",)) == ([3], ("other",))
    assert items_at({"deep": 5}, ("deep", "list")) is None


def test_all_items_take_the_place_of_the_last_pages() -> None:
    body = {"deep": {"list": [2], "n": 1}, "x": 0}
    assert with_items(body, ("deep", "list"), [1, 2]) == {"deep": {"list": [1, 2], "n": 1}, "x": 0}
    assert body["deep"] == {"list": [2], "n": 1}
    assert with_items([1], (), [1, 2]) == [1, 2]
