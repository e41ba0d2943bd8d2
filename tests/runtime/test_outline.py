"""What `reqon plan` tells of requests, stages and checkpoints, without doing anything."""

import pytest

from reqon.runtime.outline import Outline, described, outline
from reqon.runtime.plan import Plan
from tests.support.missions import mission, parse_mission

THREE = "let ids = [1, 2, 3]"


def outlined(steps: str, **parts: str) -> Outline:
    text = mission(steps, **parts)
    return outline(Plan(parse_mission(text), environment={"API": "https://api.example.org/v1/"}))


@pytest.mark.parametrize(
    ("steps", "often", "least", "exact"),
    [
        ('get "/a"', ["once"], 1, True),
        ('for id in ids { get "/a/{id}" }', ["3 times"], 3, True),
        ('for id in ids { for x in [1, 2] { get "/a/{id}/{x}" } }', ["6 times"], 6, True),
        ('for id in ids where id > 1 { get "/a/{id}" }', ["for each id"], 0, False),
        ('get "/a" for row in response { get "/a/{row.id}" }', ["once", "for each row"], 1, False),
        ('for id in ids { for row in out { get "/a/{row.id}" } }', ["for each row"], 0, False),
        ('for row in out { for id in ids { get "/a/{id}" } }', ["for each row, each id"], 0, False),
        ('get "/a" { paginate: page(page, 10) }', ["for each page"], 1, False),
        ('for row in out { get "/a" { paginate: page(page, 10) } }', ["for each row, each page"], 0, False),
        ('match out { _ -> get "/a" }', ["once, if it comes to that"], 0, False),
        ('validate out { assume .id } or { get "/a" }', ["once, if it comes to that"], 0, False),
        ('match out { 1 -> skip } catch { _ -> get "/a" }', ["once, if it comes to that"], 0, False),
        ("run B then B", ["once", "once"], 2, True),
        ("for id in ids { jump B }", ["3 times"], 3, True),
    ],
)
def test_how_often_a_request_is_sent(steps: str, often: list[str], least: int, *, exact: bool) -> None:
    found = outlined(steps, options=THREE, actions='action B { post "/b" }')
    assert [described(request) for request in found.requests] == often
    assert (found.least_requests, found.exact) == (least, exact)


def test_a_stage_with_a_condition_may_send_nothing() -> None:
    found = outlined('get "/a"', run="A if length(out) > 0")
    assert (found.least_requests, found.exact) == (0, False)


def test_requests_are_shown_as_far_as_they_are_known() -> None:
    found = outlined('get "/a/{x}" { params: { limit: 5, x: out } }\ndelete "/b"')
    assert [request.line for request in found.requests] == [
        "GET https://api.example.org/v1/a/{x}?limit=5&x={out}",
        "DELETE https://api.example.org/v1/b",
    ]


@pytest.mark.parametrize(
    ("steps", "key"),
    [
        ('get "/a/" { since: lastSync }', "Api-/a"),
        ('get "/a?limit=3" { since: lastSync }', "Api-/a"),
        ('get "/a" { since: lastSync, syncKey: "all" }', "all"),
        ('get "/a" { since: lastSync("some") }', "some"),
        ('get "/a" { since: lastSync { key: concat("a", "b") } }', "ab"),
        ('get "/a/{x}" { since: lastSync, params: { x: 1 } }', None),
    ],
)
def test_the_key_of_a_sync_checkpoint(steps: str, key: str | None) -> None:
    (request,) = outlined(steps).requests
    assert (request.syncs, request.sync_key) == (True, key)


def test_loops_that_save_their_progress() -> None:
    found = outlined("for x in out checkpoint every 50 { delete out[x.id] } for x in out { delete out[x.id] }")
    assert [(loop.action, loop.label, loop.every) for loop in found.loops] == [("A", "for x in out", 50)]
