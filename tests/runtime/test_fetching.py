"""Requests, what answers become, pages, incremental sync (spec/language.md 7.2; spec/runtime.md 2, 4, 8)."""

import asyncio
import json
from typing import Any

import pytest

from reqon.errors import PaginationError
from reqon.events import FetchCompleted, FetchFailed, FetchStarted, PageFetched, RateLimitHit, SyncCheckpointMoved
from reqon.runtime import paging
from tests.support.missions import Bench, Ran, mission
from tests.support.servers import ScriptedServer, Seen, reply

STORE = "\nstore response -> out"


# --- what requests carry ---------------------------------------------------------------------------------------------


async def test_params_drop_null_and_repeat_lists(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={}))
    steps = 'let q = "a b&c"\nget "/x" { params: { q: q, none: null, tag: [1, "z"], on: true }, query: { n: 1.5 } }'
    (await bench.run(mission(steps))).ok()
    assert api.targets[0].replace("+", "%20") == "/x?q=a%20b%26c&tag=1&tag=z&on=true&n=1.5"


async def test_placeholders_are_encoded_and_take_params_up(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    bench.environment = {"REGION": "north"}
    steps = 'let id = "a/b c"\nget "/x/{id}/{n}/{REGION}/{.z}" { params: { n: 3, m: 4 } }'
    (await bench.run(mission('map null -> t { z: "zz" }\n' + steps))).ok()
    assert api.targets == ["/x/a%2Fb%20c/3/north/zz?m=4"]


async def test_headers_body_and_method(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    steps = """
      post "/a" { headers: { "X-Trace": concat("t", 1) }, body: { n: 1, when: parseDate("2026-01-02"), none: null } }
      put "/b" { body: [1, 2] }
      patch "/c" { body: null }
      delete "/d"
      post "/e" { body: { a: "x y", b: 2 }, headers: { "Content-Type": "application/x-www-form-urlencoded" } }"""
    (await bench.run(mission(steps))).ok()
    assert [(s.method, s.path) for s in api.seen] == [
        ("POST", "/a"),
        ("PUT", "/b"),
        ("PATCH", "/c"),
        ("DELETE", "/d"),
        ("POST", "/e"),
    ]
    assert api.seen[0].headers["x-trace"] == "t1"
    assert json.loads(api.seen[0].body) == {"n": 1, "when": "2026-01-02T00:00:00.000Z", "none": None}
    assert api.seen[1].body == b"[1,2]" and api.seen[2].body == b"null" and api.seen[3].body == b""
    assert api.seen[4].body == b"a=x+y&b=2"


async def test_params_and_headers_are_objects(bench: Bench) -> None:
    for option in ("params", "query", "headers"):
        ran = await bench.run(mission(f'let p = 3\nget "/x" {{ {option}: p }}'))
        assert ran.error.type == "eval" and ran.error.message == f"{option} must be an object, not the number 3"


async def test_the_body_of_a_get_joins_the_query(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    (await bench.run(mission('get "/a" { params: { p: 1 }, body: { q: 2, r: null } }'))).ok()
    assert api.targets == ["/a?p=1&q=2"] and api.seen[0].body == b""


async def test_a_source_is_chosen_by_prefix_from_and_option(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    other = 'source Other { auth: none, base: concat(env("API"), "/o") }'
    (
        await bench.run(
            mission('get "/a"\nget Other "/b"\nget "/c" from Other\nget "/d" { source: Other }', declarations=other)
        )
    ).ok()
    assert [s.path for s in api.seen] == ["/a", "/o/b", "/o/c", "/o/d"]


async def test_the_last_request_can_be_read(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    steps = """
      store { id: "before", r: request } -> out
      post "/a/7" { params: { p: 1 }, body: { token: "s", n: 1 } }
      store { id: "after", m: request.method, p: request.path, q: currentRequest.params.p,
          o: currentOperation, s: request.source } -> out"""
    ran = await bench.run(mission(steps))
    assert ran.ok().out["before"]["r"] is None
    assert ran.out["after"] == {"id": "after", "m": "POST", "p": "/a/7", "q": 1, "o": "POST /a/7", "s": "Api"}


async def test_a_timeout_is_a_failure_of_its_kind(api: ScriptedServer, bench: Bench) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    api.on("/x", silence)
    ran = await bench.run(mission('get "/x" { timeout: 150 }' + STORE))
    assert ran.error.type == "timeout" and ran.out == {}


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (reply(data=[1]), [1]),
        (reply(data=None), None),
        (reply(204), None),
        (reply(body=b"", content_type="application/json"), None),
        (reply(body=b"hello", content_type="text/plain"), "hello"),
        (reply(201, data={"a": 1}), {"a": 1}),
        (reply(304), None),
    ],
)
async def test_an_answer_becomes_response(answer: bytes, expected: Any, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", answer)
    ran = await bench.run(mission('get "/x"\nstore { id: "r", r: response } -> out'))
    assert ran.ok().out["r"]["r"] == expected


STATUSES = [300, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 413, 415, 418, 422, 423, 425, 426, 429, 431, 451,
            500, 501, 502, 503, 504, 505, 507, 508, 511]  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "json": {"data": {"id": "bad"}},
    "list": {"data": [{"id": "bad"}]},
    "html": {"body": b"<html>busy</html>", "content_type": "text/html"},
    "empty": {"body": b""},
}


@pytest.mark.parametrize("status", STATUSES)
async def test_nothing_of_an_error_answer_is_ever_stored(status: int, api: ScriptedServer, bench: Bench) -> None:
    """Proves part of R8: whatever an error carries, nothing is stored and no checkpoint moves."""
    for name, content in BODIES.items():
        api.on("/x", reply(status, **content))
        for paginate in ("", ", paginate: page(page, 1)"):
            steps = (
                f'get "/x" {{ since: lastSync{paginate} }}\n'
                f"store response -> out\nfor r in response {{ store r -> out }}"
            )
            ran = await bench.run(mission(steps))
            assert not ran.outcome.success, name
            assert (ran.error.status, ran.out) == (status, {}), name
    assert not (bench.state / "sync-checkpoints.json").exists()


async def test_a_body_that_is_no_json_under_a_json_type_is_a_failure(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(body=b'{"id": ', content_type="application/json"))
    ran = await bench.run(mission('get "/x"' + STORE))
    assert ran.error.type == "parse" and ran.out == {}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_post_without_retry_is_sent_once(status: int, api: ScriptedServer, bench: Bench) -> None:
    """Proves part of R9: an ambiguous failure of a POST is never repeated by itself."""
    api.on("/x", reply(status, data={}))
    text = mission('post "/x" { body: { n: 1 } }').replace(", retry: { maxAttempts: 1 }", "")
    ran = await bench.run(text)
    assert ran.error.status == status
    # 503 says that nothing was done: that one may be repeated.
    assert len(api.seen) == (3 if status == 503 else 1)


async def test_an_idempotency_key_is_one_per_effect(api: ScriptedServer, bench: Bench) -> None:
    """Proves part of R9: one key per effect over automatic retries, another for each item of each loop and call."""
    api.on("*", reply(502, data={}), reply(data={}))
    actions = 'action B { for k in [1, 2] { post "/k" } }'
    steps = 'for i in [1, 2] { for j in [1, 2] { post "/x" { retry: { maxAttempts: 2 } } }\nrun B }\npost "/y"'
    (await bench.run(mission(steps, actions=actions, source="idempotencyKey: true"))).ok()
    keys = [s.headers["idempotency-key"] for s in api.seen]
    assert len(keys) == 1 + 4 + 4 + 1
    assert keys[0] == keys[1] and len(set(keys)) == 9


async def test_events_of_a_request(api: ScriptedServer, bench: Bench) -> None:
    bench.listen = (FetchStarted, FetchCompleted, FetchFailed, PageFetched)
    api.on("/x", reply(data={"data": [1, 2]})).on("/y", reply(404, data={}))
    ran = await bench.run(
        mission(
            'get "/x" { params: { secret: "s" } }\nget "/y"\n'
            "match response { { code: 404 } -> continue, _ -> continue }"
        )
    )
    started, completed, _, failed = ran.ok().told("fetch.start", "fetch.complete", "fetch.error")
    assert isinstance(started, FetchStarted) and started.url == f"{api.url}/x" and not started.has_pagination
    assert isinstance(completed, FetchCompleted) and (completed.status, completed.record_count) == (200, 2)
    assert isinstance(failed, FetchFailed) and (failed.status_code, failed.delivered) == (404, True)


# --- pages -----------------------------------------------------------------------------------------------------------


def paged(pages: list[Any], parameter: str, *, size: int = 0, first: int = 1, wrap: str | None = "data") -> Any:
    """Answers pages by offset (with a size) or by number."""

    def answer(seen: Seen) -> bytes:
        asked = int(seen.query.get(parameter, "0" if size else first))
        index = asked // size if size else asked - first
        items = pages[index] if 0 <= index < len(pages) else []
        return reply(data=items if wrap is None else {wrap: items, "page": asked})

    return answer


PAGES = [[{"id": 1}, {"id": 2}], [{"id": 3}, {"id": 4}], [{"id": 5}]]
ALL = ["1", "2", "3", "4", "5"]


async def fetched(bench: Bench, options: str, *, then: str = STORE) -> Ran:
    return await bench.run(mission(f'get "/x" {{ {options} }}{then}'))


async def test_offset_pages_end_at_a_short_one(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged(PAGES, "skip", size=2))
    ran = await fetched(bench, "paginate: offset(skip, 2), params: { limit: 2 }")
    assert list(ran.ok().out) == ALL
    assert api.targets == ["/x?limit=2&skip=0", "/x?limit=2&skip=2", "/x?limit=2&skip=4"]
    assert ran.record.items_processed == 5


async def test_numbered_pages_end_at_a_short_one(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged(PAGES, "page"))
    ran = await fetched(bench, "paginate: page(page, 2)")
    assert list(ran.ok().out) == ALL and [s.query["page"] for s in api.seen] == ["1", "2", "3"]


async def test_numbered_pages_may_start_at_zero(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged(PAGES, "page", first=0))
    ran = await fetched(bench, "paginate: page(page, 2), params: { page: 0 }")
    assert list(ran.ok().out) == ALL and [s.query["page"] for s in api.seen] == ["0", "1", "2"]
    assert all(s.target.count("page=") == 1 for s in api.seen)


async def test_a_full_last_page_needs_an_empty_one_to_end(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged(PAGES[:2], "page"))
    ran = await fetched(bench, "paginate: page(page, 2)")
    assert list(ran.ok().out) == ALL[:4] and len(api.seen) == 3


CURSOR = [
    reply(data={"rows": [{"id": 1}], "meta": {"next": "c1"}}),
    reply(data={"rows": [{"id": 2}], "meta": {"next": 0}}),
    reply(data={"rows": [{"id": 3}], "meta": {"next": None}}),
]


@pytest.mark.parametrize(
    "paginate",
    ['cursor(after, 1, "meta.next")', '{ type: cursor, param: "after", pageSize: 1, cursorPath: "meta.next" }'],
)
async def test_cursor_pages_follow_the_path(paginate: str, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", *CURSOR)
    ran = await fetched(bench, f"paginate: {paginate}")
    assert list(ran.ok().out) == ["1", "2", "3"] and api.targets == ["/x", "/x?after=c1", "/x?after=0"]


async def test_a_short_cursor_form_names_the_parameter_itself(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", *CURSOR)
    (await fetched(bench, "paginate: cursor(.meta.next)")).ok()
    assert api.targets == ["/x", "/x?cursor=c1", "/x?cursor=0"]


async def test_a_cursor_may_be_the_last_items_id(api: ScriptedServer, bench: Bench) -> None:
    for path in ("data[length(data)-1].id", "data[-1].id"):
        api.seen.clear()
        api.on(
            "/x",
            reply(data={"data": [{"id": 1}, {"id": 2}]}),
            reply(data={"data": [{"id": 3}]}),
            reply(data={"data": []}),
        )
        ran = await fetched(bench, f'paginate: cursor(after, 2, "{path}")')
        assert list(ran.ok().out) == ["1", "2", "3"]
        assert api.targets == ["/x", "/x?after=2", "/x?after=3"]


async def test_the_same_cursor_twice_is_an_error(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"rows": [{"id": 1}], "meta": {"next": "c"}}))
    ran = await fetched(bench, 'paginate: cursor(after, 1, "meta.next")')
    assert ran.error.type == "pagination" and ran.out == {} and len(api.seen) == 2


async def test_link_pages_follow_the_header(api: ScriptedServer, bench: Bench) -> None:
    def link(seen: Seen) -> bytes:
        n = int(seen.query.get("p", "1"))
        headers = {"Link": f'</x?p={n + 1}>; rel="next"'} if n < 3 else {}
        return reply(data=[{"id": n}], headers=headers)

    api.on("/x", link)
    ran = await fetched(bench, "paginate: link()")
    assert list(ran.ok().out) == ["1", "2", "3"] and api.targets == ["/x", "/x?p=2", "/x?p=3"]


async def test_until_sees_the_page_the_next_value_and_has_more(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged([*PAGES[:2], *PAGES[:2], *PAGES], "page"))
    ran = await fetched(
        bench, "paginate: page(page, 2), until: page > 2", then='\nstore { id: "n", n: length(response) } -> out'
    )
    assert ran.ok().out["n"]["n"] == 4 and len(api.seen) == 2
    api.seen.clear()
    (await fetched(bench, "paginate: page(page, 3), until: response.page == 3", then="")).ok()
    assert len(api.seen) == 3
    api.seen.clear()
    (await fetched(bench, "paginate: page(page, 3), until: .page >= 2 and hasMore", then="")).ok()
    assert len(api.seen) == 2


async def test_with_until_a_short_page_does_not_end_it_but_an_empty_one_does(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged([[{"id": 1}], [{"id": 2}, {"id": 3}], [{"id": 4}]], "page"))
    ran = await fetched(bench, "paginate: page(page, 2), until: false")
    assert list(ran.ok().out) == ["1", "2", "3", "4"] and len(api.seen) == 4


async def test_the_page_that_ends_it_is_kept(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged(PAGES, "page"))
    ran = await fetched(bench, "paginate: page(page, 2), until: length(response.data) < 2")
    assert list(ran.ok().out) == ALL and len(api.seen) == 3


async def test_more_pages_than_allowed_is_an_error(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"data": [{"id": 1}]}))
    ran = await fetched(bench, "paginate: page(page, 1), maxPages: 3")
    assert ran.error.type == "pagination" and "3" in ran.error.message
    assert len(api.seen) == 3 and ran.out == {}


async def test_exactly_as_many_pages_as_allowed_are_fine(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged(PAGES, "page"))
    assert list((await fetched(bench, "paginate: page(page, 2), maxPages: 3")).ok().out) == ALL


async def test_pages_that_are_lists_make_a_list(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged(PAGES, "page", wrap=None))
    then = (
        "\n"
        'store { id: "r", n: length(response), a: response is array, o: response is object, f: response[-1].id } -> out'
    )
    ran = await fetched(bench, "paginate: page(page, 2)", then=then)
    assert ran.ok().out["r"] == {"id": "r", "n": 5, "a": True, "o": False, "f": 5}


async def test_pages_that_are_objects_make_a_paged_result(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", paged(PAGES, "page"))
    then = """
      store { id: "r", n: length(response), m: length(response.data), p: response.page, a: response is array,
          o: response is object,
              f: response[0].id, c: response.code, s: sum(response, .id) } -> out
      for r in response { store { id: concat("x", r.id) } -> out }
      for r in response.data where .id > 4 { store { id: concat("y", r.id) } -> out }
      match response { [_, _, _, _, _] -> store { id: "list" } -> out, _ -> skip }
      match response { { page: 3, data: _ } -> store { id: "object" } -> out, _ -> skip }"""
    ran = await fetched(bench, "paginate: page(page, 2)", then=then)
    found = ran.ok().out
    assert found["r"] == {"id": "r", "n": 5, "m": 5, "p": 3, "a": True, "o": True, "f": 1, "c": 200, "s": 15}
    assert set(found) == {"r", "x1", "x2", "x3", "x4", "x5", "y5", "list", "object"}


async def test_items_may_lie_where_the_fetch_says(api: ScriptedServer, bench: Bench) -> None:
    api.on(
        "/x", reply(data={"data": [1], "deep": {"rows": [{"id": 1}]}}), reply(data={"data": [1], "deep": {"rows": []}})
    )
    assert list((await fetched(bench, 'paginate: page(page, 1), items: "deep.rows"')).ok().out) == ["1"]


async def test_an_error_on_a_later_page_is_the_result(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"data": [{"id": 1}]}), reply(500, data={}))
    ran = await fetched(bench, "paginate: page(page, 1)")
    assert ran.error.status == 500 and ran.out == {}
    api.on("/x", reply(data={"data": [{"id": 1}]}), reply(500, data={}))
    ran = await fetched(
        bench,
        "paginate: page(page, 1)",
        then='\nmatch response { { code: 500 } -> store { id: "e" } -> out, _ -> continue }',
    )
    assert list(ran.ok().out) == ["e"]


async def test_each_page_has_attempts_of_its_own(api: ScriptedServer, bench: Bench) -> None:
    bad = reply(503, data={})
    api.on("/x", bad, bad, reply(data=[{"id": 1}]), bad, bad, reply(data=[{"id": 2}]), reply(data=[]))
    ran = await fetched(bench, "paginate: page(page, 1), retry: { maxAttempts: 3 }")
    assert list(ran.ok().out) == ["1", "2"] and ran.record.requests == 7 and ran.record.retries == 4


async def test_pages_inside_a_loop(api: ScriptedServer, bench: Bench) -> None:
    api.on("/1", paged(PAGES, "page")).on("/2", paged([[{"id": 9}]], "page"))
    ran = await bench.run(mission('for i in [1, 2] { get "/{i}" { paginate: page(page, 2) }\nstore response -> out }'))
    assert list(ran.ok().out) == [*ALL, "9"]


async def test_an_api_without_a_list_gives_its_last_body(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"id": "only"}))
    assert list((await fetched(bench, "paginate: page(page, 2)")).ok().out) == ["only"]


# --- incremental sync ------------------------------------------------------------------------------------------------

NOW = "2026-03-01T08:15:00Z"


def checkpoints(bench: Bench) -> dict[str, Any]:
    path = bench.state / "sync-checkpoints.json"
    return json.loads(path.read_bytes()) if path.exists() else {}


@pytest.mark.parametrize(
    ("options", "parameter", "sent"),
    [
        ("since: lastSync", "modified_since", NOW),
        ('since: lastSync, sinceParam: "after"', "after", NOW),
        ('since: lastSync { param: "after", format: date-only }', "after", "2026-03-01"),
        ('since: lastSync { param: "after", format: "YYYY-MM-DD" }', "after", "2026-03-01"),
        ('since: lastSync, sinceFormat: "unix"', "modified_since", "1772352900"),
        ('since: lastSync, sinceFormat: "timestamp"', "modified_since", "1772352900"),
        ('since: lastSync, sinceFormat: "unix-ms"', "modified_since", "1772352900000"),
        ('since: lastSync, sinceFormat: "epoch"', "modified_since", "1772352900000"),
        ('since: lastSync, sinceFormat: "ISO"', "modified_since", NOW),
        ('since: lastSync, sinceFormat: "DD/MM/YYYY HH:mm"', "modified_since", "01/03/2026 08:15"),
        ("since: lastSync, sinceOverlap: 30 minutes", "modified_since", "2026-03-01T07:45:00Z"),
        ("params: { from: lastSync }", "from", "2026-03-01T08:15:00.000Z"),
    ],
)
async def test_the_first_run_sends_nothing_and_the_next_the_checkpoint(
    options: str, parameter: str, sent: str, api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(data={"data": [{"id": 1}]}))
    if "date-only" in options:
        options = options.replace("date-only", '"date-only"')
    text = mission(f'get "/x" {{ {options} }}')
    (await bench.run(text)).ok()
    bench.clock.advance(3600)
    (await bench.run(text)).ok()
    assert [s.query.get(parameter) for s in api.seen] == [None, sent]
    assert checkpoints(bench)["Api-/x"]["lastSync"].startswith("2026-03-01T09:15:00")
    assert checkpoints(bench)["Api-/x"]["itemsSynced"] == 2 and checkpoints(bench)["Api-/x"]["mission"] == "M"


@pytest.mark.parametrize(
    ("body", "count"), [([], 0), ({"orders": []}, 0), ({"a": {"rows": []}}, 0), ([1, 2], 2), ({"id": 1}, 1), (None, 0)]
)
async def test_an_empty_list_counts_as_no_item_wherever_items_are_counted(
    body: Any, count: int, api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(data=body))
    bench.listen = (FetchCompleted, SyncCheckpointMoved)
    ran = (await bench.run(mission('get "/x" { since: lastSync }'))).ok()
    assert ran.record.items_processed == count and checkpoints(bench)["Api-/x"]["itemsSynced"] == count
    told = {e.type: e.event for e in ran.events}
    assert told["fetch.complete"].record_count == count  # type: ignore[attr-defined]
    assert told["sync.checkpoint"].records_fetched == count  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options", ['since: lastSync("mine")', 'since: lastSync, syncKey: "mine"', 'since: lastSync { key: "mine" }']
)
async def test_a_key_of_its_own(options: str, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[]))
    text = mission(f'get "/x" {{ {options} }}')
    for _ in range(2):
        (await bench.run(text)).ok()
    assert list(checkpoints(bench)) == ["mine"]
    assert [s.query.get("modified_since") for s in api.seen] == [None, NOW]


async def test_each_evaluated_path_has_a_checkpoint(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data=[]))
    text = mission('for c in ["a", "b"] { get "/customers/{c}/orders/" { since: lastSync, params: { q: 1 } } }')
    (await bench.run(text)).ok()
    assert list(checkpoints(bench)) == ["Api-/customers/a/orders", "Api-/customers/b/orders"]
    (await bench.run(text.replace('["a", "b"]', '["b", "c"]'))).ok()
    assert [s.query.get("modified_since") for s in api.seen[2:]] == [NOW, None]


async def test_a_since_of_an_expression_is_sent_and_keeps_no_checkpoint(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[]))
    (await bench.run(mission('let none = null\nget "/x" { since: "2026-01-02" }\nget "/x" { since: none }'))).ok()
    assert [s.query.get("modified_since") for s in api.seen] == ["2026-01-02T00:00:00Z", None]
    assert checkpoints(bench) == {}


@pytest.mark.parametrize("then", ['abort "no"', 'get "/broken"', "store null -> out"])
async def test_a_checkpoint_moves_only_when_the_mission_completed(then: str, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[])).on("/broken", reply(500, data={}))
    text = mission('get "/x" { since: lastSync }', actions=f"action B {{ {then} }}", run="A then B")
    assert not (await bench.run(text)).outcome.success
    assert checkpoints(bench) == {}


async def test_a_key_of_which_a_use_failed_does_not_move(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(500, data={})).on("/y", reply(data=[]))
    text = mission(
        'get "/x" { since: lastSync }\nmatch response { { code: 500 } -> continue, _ -> continue }\n'
        'get "/y" { since: lastSync }'
    )
    (await bench.run(text)).ok()
    assert list(checkpoints(bench)) == ["Api-/y"]


async def test_the_servers_date_counts_when_it_is_earlier(api: ScriptedServer, bench: Bench) -> None:
    api.on(
        "/x",
        reply(data=[], headers={"Date": "Sun, 01 Mar 2026 08:00:00 GMT"}),
        reply(data=[], headers={"Date": "Sun, 01 Mar 2026 12:00:00 GMT"}),
    )
    text = mission('get "/x" { since: lastSync }')
    (await bench.run(text)).ok()
    assert checkpoints(bench)["Api-/x"]["lastSync"].startswith("2026-03-01T08:00:00")
    (await bench.run(text)).ok()
    assert checkpoints(bench)["Api-/x"]["lastSync"].startswith("2026-03-01T08:15:00")


@pytest.mark.parametrize("path", ["data[].at", "data[-1].at", "asOf"])
async def test_update_from_takes_a_date_of_the_answer(path: str, api: ScriptedServer, bench: Bench) -> None:
    body = {
        "data": [{"id": 1, "at": "2026-02-03T00:00:00Z"}, {"id": 2, "at": "2026-02-01T00:00:00Z"}],
        "asOf": "2026-02-02T00:00:00Z",
    }
    api.on("/x", reply(data=body))
    (await bench.run(mission(f'get "/x" {{ since: lastSync {{ updateFrom: "{path}" }} }}'))).ok()
    day = {"data[].at": "03", "data[-1].at": "01", "asOf": "02"}[path]
    assert checkpoints(bench)["Api-/x"]["lastSync"].startswith(f"2026-02-{day}")


async def test_update_from_never_moves_back_nor_past_now(api: ScriptedServer, bench: Bench) -> None:
    api.on(
        "/x",
        reply(data={"asOf": "2026-02-02T00:00:00Z"}),
        reply(data={"asOf": "2026-01-01T00:00:00Z"}),
        reply(data={"asOf": "2030-01-01T00:00:00Z"}),
        reply(data={}),
    )
    text = mission('get "/x" { since: lastSync { updateFrom: "asOf" } }')
    for day in ("2026-02-02", "2026-02-02", "2026-03-01", "2026-03-01"):
        (await bench.run(text)).ok()
        assert checkpoints(bench)["Api-/x"]["lastSync"].startswith(day)


async def test_two_requests_with_one_key_see_one_value(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[]))
    text = mission('get "/x" { since: lastSync }\nget "/x" { since: lastSync }')
    (await bench.run(text)).ok()
    assert [s.query.get("modified_since") for s in api.seen] == [None, None]


async def test_last_sync_elsewhere_is_the_missions_last_success(api: ScriptedServer, bench: Bench) -> None:
    text = mission('store { id: "l", at: lastSync } -> out')
    assert (await bench.run(text)).ok().out["l"]["at"] is None
    bench.clock.advance(60)
    assert (await bench.run(text)).ok().out["l"]["at"] == "2026-03-01T08:15:00.000Z"


@pytest.mark.parametrize(
    ("kind", "stored", "left"),
    [("memory", "response", False), ("memory", "response.data", True), ("file", "response", True)],
)
async def test_only_what_a_memory_store_takes_whole_is_kept_in_memory(
    api: ScriptedServer, bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, stored: str, left: bool
) -> None:
    monkeypatch.setattr(paging, "KEEP_BYTES", 0)
    read: list[int] = []
    page = paging.JournaledItems.page

    def noted(items: paging.JournaledItems, number: int) -> list[Any]:
        read.append(number)
        return page(items, number)

    monkeypatch.setattr(paging.JournaledItems, "page", noted)
    api.on("/x", paged(PAGES, "page"))
    steps = f'get "/x" {{ paginate: page(page, 2) }}\nstore {stored} -> kept {{ key: .id }}'
    ran = await bench.run(mission(steps, stores=f'store kept: {kind}("kept")'))
    assert list(ran.ok().stores["kept"]) == ALL
    assert bool(read) is left


# --- limits, pages, overlap ------------------------------------------------------------------------------------------


async def test_a_fetch_may_have_a_quota_of_its_own_beside_its_source_s(api: ScriptedServer, bench: Bench) -> None:
    api.on("*", reply(data={}))
    limit = "{ rateLimit: { requestsPerMinute: 1 } }"
    steps = f'for i in [1, 2] {{ get "/slow/{{i}}" {limit}\nget "/quick" }}'
    bench.listen = (RateLimitHit,)
    ran = (await bench.run(mission(steps))).ok()
    (hit,) = ran.told("ratelimit.hit")
    assert isinstance(hit, RateLimitHit) and hit.endpoint == "/slow/{i}" and hit.wait_seconds == 60
    assert api.targets == ["/slow/1", "/quick", "/slow/2", "/quick"]


async def test_a_page_that_fails_is_named(api: ScriptedServer, bench: Bench) -> None:
    api.on("/p", reply(data=[1, 2]), reply(500, data={}))
    steps = """
    get "/p" { paginate: page(page, 2) }
    match response { { kind: "http", page: n } -> store { id: n } -> out, _ -> continue }
    """
    assert list((await bench.run(mission(steps))).ok().out) == ["2"]


async def test_endless_paging_ends_at_max_pages_with_its_reason(api: ScriptedServer, bench: Bench) -> None:
    """R8"""
    api.on("/p", reply(data=[1, 2]))
    ran = await bench.run(mission('get "/p" { paginate: page(page, 2), maxPages: 3 }'))
    error = ran.outcome.errors[0]
    assert isinstance(error, PaginationError) and (error.reason, error.page) == ("max_pages", 3)
    assert len(api.targets) == 3 and ran.error.type == "pagination"


async def test_an_overlap_moves_texts_back_too(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[]))
    since = 'since: "2026-03-01T08:15:30Z", sinceOverlap: 30 seconds'
    (await bench.run(mission(f'get "/x" {{ {since} }}'))).ok()
    assert api.seen[0].query == {"modified_since": "2026-03-01T08:15:00Z"}


async def test_a_wait_that_is_too_long_is_known_after_a_restart(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(429, data={}, headers={"Retry-After": "3600"}))
    text = mission('get "/x"')
    first = await bench.run(text)
    assert first.error.status == 429 and len(api.targets) == 1
    kept = json.loads((bench.state / "rate-limits.json").read_text())
    assert kept["Api"]["blockedUntil"] and kept["Api"]["origin"] == api.url
    again = await bench.run(text)
    assert again.error.type == "rate_limit" and len(api.targets) == 1


@pytest.mark.parametrize(("fails_at", "asked"), [(3, ["c2", None, "c1", "c2", "c3"]), (4, ["c2", "c3"])])
async def test_a_stale_cursor_starts_over_once_and_only_at_once(
    api: ScriptedServer, bench: Bench, fails_at: int, asked: list[str | None]
) -> None:
    pages = {None: ("c1", [1]), "c1": ("c2", [2]), "c2": ("c3", [3]), "c3": (None, [4])}
    broken = {"c2"}

    def answer(seen: Seen) -> bytes:
        cursor = seen.query.get("after")
        if cursor in broken:
            return reply(500, data={})
        following, items = pages[cursor]
        return reply(data={"items": [{"id": i} for i in items], "next": following})

    api.on("/p", answer)
    text = mission('get "/p" { paginate: cursor(after, 1, "next") }\nstore response -> out')
    assert not (await bench.run(text)).outcome.success
    stale = {3: ["c2"], 4: ["c3"]}[fails_at]
    before = len(api.seen)

    def after_restart(seen: Seen) -> bytes:
        cursor = seen.query.get("after")
        if cursor in stale:
            stale.remove(cursor)
            return reply(410, data={})
        broken.clear()
        return answer(seen)

    api.on("/p", after_restart)
    ran = await bench.resume(text)
    assert [s.query.get("after") for s in api.seen[before:]] == asked
    assert ran.outcome.success is (fails_at == 3)
    if fails_at == 4:
        assert ran.error.status == 410
