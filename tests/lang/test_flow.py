"""What the text alone says about control: guards, retry targets, bodies that decide, entry actions."""

import pytest

from reqon.diagnostics import Source
from reqon.lang import flow, nodes
from reqon.lang.parser import Start, parse, parse_fragment


def steps(text: str) -> list[nodes.Step]:
    found, diagnostics = parse_fragment(Source("m", text), Start.STEPS)
    assert diagnostics == []
    return list(found)  # type: ignore[arg-type]


def targets(text: str) -> list[str | None]:
    """For each retry directive, the path of the request it repeats."""
    paths = [found.request.path if isinstance(found.request, nodes.Fetch) else None for found in _targets(text)]
    return [path.value if isinstance(path, nodes.Literal_) else None for path in paths]


def _targets(text: str) -> list[flow.RetryTarget]:
    return list(flow.retry_targets(steps(text)))


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ('get "/a"\nmatch response { _ -> continue }', True),
        ('get "/a"\nlet x = 1\nlet y = response\nmatch response { _ -> continue }', True),
        ('get "/a"\nmatch { response.code == 404 -> skip, _ -> continue }', True),
        ("call S.op\nmatch response { _ -> continue }", True),
        ('get "/a"\nmatch { true -> skip }', False),
        ('get "/a"\nmatch response.items { _ -> continue }', False),
        ('get "/a"\nstore response -> rows\nmatch response { _ -> continue }', False),
        ('get "/a"', False),
        ("let a = 1\nmatch response { _ -> continue }", False),
    ],
)
def test_a_request_is_guarded_by_the_match_on_response_that_follows(text: str, *, guarded: bool) -> None:
    found = steps(text)
    assert flow.is_guarded(found, 0) is guarded
    assert flow.guarding_match(found, len(found) - 1) is guarded


@pytest.mark.parametrize(
    ("body", "decides", "gives_up", "leaves"),
    [
        ('abort "x"', True, True, True),
        ("skip", True, True, True),
        ("queue", True, True, False),
        ("retry", True, False, True),
        ("jump A then retry", True, False, True),
        ("jump A", True, False, False),
        ("continue", False, False, True),
        ("store x -> rows", False, False, False),
    ],
)
def test_a_body_decides_by_its_last_step(body: str, *, decides: bool, gives_up: bool, leaves: bool) -> None:
    for text in (f"match x {{ _ -> {body} }}", f"match x {{ _ -> {{ clear rows\n{body} }} }}"):
        (match,) = steps(text)
        assert isinstance(match, nodes.MatchStep)
        arm = match.arms[0].body
        assert (flow.decides(arm), flow.gives_up(arm)) == (decides, gives_up)
        assert flow.leaves(flow.steps_of(arm)[-1]) is leaves


def test_a_retry_repeats_the_nearest_request_before_its_innermost_match() -> None:
    assert targets('get "/a"\nmatch response { _ -> retry }') == ["/a"]
    assert targets('get "/a"\nget "/b"\nmatch response { _ -> { get "/c"\nretry } }') == ["/b"]
    assert targets('get "/a"\nmatch x { _ -> { get "/b"\nmatch y { _ -> jump A then retry } } }') == ["/b"]
    assert targets('get "/a"\nmatch x { _ -> { match y { _ -> retry } get "/b" } }') == ["/a"]
    assert targets('get "/a"\nmatch x { _ -> continue } catch { _ -> retry }') == ["/a"]


def test_a_retry_in_no_arm_repeats_the_request_before_itself() -> None:
    assert targets('get "/a"\nretry') == ["/a"]
    assert targets('get "/a"\nvalidate response { assume .x } or { get "/b"\nretry }') == ["/b"]
    assert targets('get "/a"\nmatch x { _ -> { get "/b"\nvalidate x { assume .x } or { retry } } }') == ["/a"]


def test_the_search_for_a_request_stops_at_the_loop() -> None:
    assert targets('get "/a"\nfor x in xs { match x { _ -> retry } }') == [None]
    assert targets('get "/a"\nfor x in xs { get "/b"\nmatch response { _ -> retry } }\nretry') == ["/b", "/a"]
    assert targets("match x { _ -> retry }") == [None]


def test_equal_directives_at_two_places_have_targets_of_their_own() -> None:
    body = steps('get "/a"\nmatch response { _ -> retry }\nget "/b"\nmatch response { _ -> retry }')
    first, second = flow.retry_targets(body)
    assert first.directive == second.directive
    assert flow.retry_target(first.directive, body) is body[0]
    assert flow.retry_target(second.directive, body) is body[2]


def test_entry_actions_are_those_that_nothing_names() -> None:
    tree, _ = parse(
        Source(
            "m",
            """action A { match x { _ -> B } }
            action B { skip }
            action C { for x in xs { run [D, B] } }
            action D { skip }""",
        )
    )
    actions = {item.name.text: item for item in tree.items if isinstance(item, nodes.ActionDef)}
    assert flow.entry_actions(actions) == ["A", "C"]
