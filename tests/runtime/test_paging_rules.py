"""What spec/runtime.md 4 and 8 say of pages and of incremental sync, where no other test says it already."""

import json
from typing import Any

import pytest

from reqon.events import CheckpointResumed, FetchStarted, Noticed
from reqon.runtime.page_run import MAX_PAGES
from tests.support.missions import Bench, Ran, mission
from tests.support.servers import ScriptedServer, Seen, reply

STORE = "\nstore response -> out"


async def fetched(bench: Bench, options: str, then: str = STORE) -> Ran:
    return await bench.run(mission(f'get "/x" {{ {options} }}{then}'))


def capped(most: int, items: int) -> Any:
    """Gives as many items as asked for by `limit`, but never more than `most`."""

    def answer(seen: Seen) -> bytes:
        start = int(seen.query.get("skip", 0))
        end = min(items, start + min(most, int(seen.query["limit"])))
        return reply(data={"data": [{"id": n} for n in range(start, end)], "total": items})

    return answer


# --- strategies ------------------------------------------------------------------------------------------------------


async def test_a_server_that_caps_its_pages_loses_nothing_where_until_says_when_to_stop(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", capped(3, 10))
    options = "params: { limit: 5 }, paginate: offset(skip, 5)"
    for until in (", until: skip >= response.total", ", until: false"):
        api.seen.clear()
        ran = await fetched(bench, options + until)
        assert len(ran.ok().out) == 10
        assert [s.query["skip"] for s in api.seen][:4] == ["0", "3", "6", "9"]
    api.seen.clear()
    ran = await fetched(bench, options)
    assert len(ran.ok().out) == 3 and len(api.seen) == 1, "nothing tells a capped page from the last one"


@pytest.mark.parametrize("name", ["size", "limit", "pageSize", "count"])
async def test_the_size_is_never_sent(name: str, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[]))
    for form in ("offset(o, 7)", "page(p, 7)", 'cursor(c, 7, "next")', "link()"):
        (await fetched(bench, f"paginate: {form}")).ok()
    assert not any(name in s.query or "7" in s.query.values() for s in api.seen)


@pytest.mark.parametrize(
    ("form", "params", "first"),
    [
        ("page(p, 2)", "{ p: 0 }", "p=0"),
        ("offset(o, 2)", "{ o: 40 }", "o=40"),
        ('cursor(c, 2, "next")', '{ c: "start" }', "c=start"),
        ("page(p, 2)", "{ p: null }", "p=1"),
    ],
)
async def test_a_value_under_its_name_in_params_is_where_it_starts(
    form: str, params: str, first: str, api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(data={"data": [{"id": 1}, {"id": 2}], "next": "n2"}), reply(data={"data": [], "next": None}))
    (await fetched(bench, f"params: {params}, paginate: {form}")).ok()
    assert api.targets[0] == f"/x?{first}" and api.seen[1].query[first[0]] == {
        "p": str(int(first[2:]) + 1) if first[0] == "p" else "", "o": "42", "c": "n2"
    }[first[0]]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("a.b", {"a": {"b": "c1"}}),
        ("a[0].b", {"a": [{"b": "c1"}]}),
        ("a[-1]", {"a": ["no", "c1"]}),
        ("data[length(data)-1].id", {"data": [{"id": "c0"}, {"id": "c1"}]}),
        ("last(data).id", {"data": [{"id": "c1"}]}),
        ("link.next", {"link": {"next": "c1"}}),
    ],
)
async def test_a_cursor_is_found_by_its_path(path: str, body: Any, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=body), reply(data={"data": []}))
    (await fetched(bench, f'paginate: cursor(c, 1, "{path}")', "")).ok()
    assert api.targets == ["/x", "/x?c=c1"]


@pytest.mark.parametrize("form", ['cursor(c, 1, "next")', "link()"])
async def test_an_empty_page_ends_nothing_as_long_as_there_is_a_next_one(
    form: str, api: ScriptedServer, bench: Bench
) -> None:
    """APIs that filter behind their pages give empty ones in between."""
    pages: list[list[int]] = [[], [1], [], [], [2], []]

    def answer(seen: Seen) -> bytes:
        number = int(seen.query.get("c", "0"))
        following = str(number + 1) if number + 1 < len(pages) else None
        headers = {"Link": f'</x?c={following}>; rel="next"'} if following else {}
        body = {"data": [{"id": n} for n in pages[number]], "next": following}
        return reply(data=body, headers=headers)

    api.on("/x", answer)
    for until in ("", ", until: false"):
        api.seen.clear()
        ran = await fetched(bench, f"paginate: {form}{until}")
        assert list(ran.ok().out) == ["1", "2"] and len(api.seen) == len(pages)


@pytest.mark.parametrize("form", ['cursor(c, 1, "next")', "link()"])
async def test_an_empty_page_that_names_itself_again_is_the_last(form: str, api: ScriptedServer, bench: Bench) -> None:
    """APIs that are polled always name a next page."""
    headers = {"Link": '</x?c=end>; rel="next"'}
    api.on("/x", reply(data={"data": [{"id": 1}], "next": "end"}, headers=headers),
           reply(data={"data": [], "next": "end"}, headers=headers))  # fmt: skip
    assert list((await fetched(bench, f"paginate: {form}")).ok().out) == ["1"] and len(api.seen) == 2


async def test_link_next_reads_the_header_where_the_body_has_no_link(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[{"id": 1}], headers={"Link": '</x?p=2>; rel="next"'}), reply(data=[{"id": 2}]))
    assert list((await fetched(bench, 'paginate: cursor(c, 1, "link.next")')).ok().out) == ["1", "2"]
    assert api.targets == ["/x", "/x?p=2"]


@pytest.mark.parametrize("end", [None, "", False])
async def test_a_falsy_until_does_not_go_beyond_the_last_cursor(end: Any, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"data": [{"id": 1}], "next": "c"}), reply(data={"data": [{"id": 2}], "next": end}))
    ran = await fetched(bench, 'paginate: cursor(after, 1, "next"), until: false')
    assert list(ran.ok().out) == ["1", "2"] and len(api.seen) == 2


@pytest.mark.parametrize(
    ("form", "until", "pages"),
    [
        ("page(page, 1)", "page > 3", 3),
        ("offset(skip, 1)", "skip >= 2", 2),
        ('cursor(after, 1, "next")', 'after == "c3"', 3),
        ('cursor(after, 1, "next")', "not hasMore", 5),
        ('cursor(after, 1, "next")', "response.n == 4", 4),
    ],
)
async def test_until_sees_what_the_next_request_would_carry(
    form: str, until: str, pages: int, api: ScriptedServer, bench: Bench
) -> None:
    bodies = [{"data": [{"id": n}], "n": n, "next": f"c{n}" if n < 5 else None} for n in range(1, 6)]
    api.on("/x", *(reply(data=body) for body in bodies))
    ran = await fetched(bench, f"paginate: {form}, until: {until}")
    assert len(api.seen) == pages and len(ran.ok().out) == pages, "the items of the last page belong to the result"


def test_the_number_of_pages_is_bounded_by_default() -> None:
    assert MAX_PAGES == 10_000


# --- the result array ------------------------------------------------------------------------------------------------


async def test_the_place_of_the_items_is_looked_up_once_and_again_where_it_is_missing(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on(
        "/x",
        reply(data={"items": [{"id": 1}]}),
        reply(data={"data": [{"id": "no"}], "items": [{"id": 2}]}),
        reply(data={"rows": [{"id": 3}]}),
        reply(data={"rows": []}),
    )
    ran = await fetched(bench, "paginate: page(p, 1)")
    assert list(ran.ok().out) == ["1", "2", "3"]


@pytest.mark.parametrize("until", ["length(response.deep.rows) < 2", "response.deep.rows.length < 2"])
async def test_until_names_the_list(until: str, api: ScriptedServer, bench: Bench) -> None:
    first, second = [{"id": 1}, {"id": 2}], [{"id": 3}]
    api.on("/x", *[reply(data={"data": [{"id": "no"}], "deep": {"rows": rows}}) for rows in (first, second)])
    ran = await fetched(bench, f"paginate: page(p, 2), until: {until}", "\nstore response -> out")
    assert list(ran.ok().out) == ["1", "2", "3"] and len(api.seen) == 2


async def test_a_page_without_a_list_has_no_items_and_is_the_response(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data={"a": 1}))
    ran = await fetched(
        bench, "paginate: page(p, 2)", '\nstore { id: "r", a: response.a, n: response is array } -> out'
    )
    assert ran.ok().out["r"] == {"id": "r", "a": 1, "n": False} and len(api.seen) == 1


async def test_since_and_body_go_with_each_page(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[{"id": 1}]), reply(data=[]))
    text = mission('post "/x" { since: lastSync, body: { a: 1 }, paginate: page(p, 1) }')
    (await bench.run(text)).ok()
    api.on("/x", reply(data=[{"id": 1}]), reply(data=[]))
    (await bench.run(text)).ok()
    assert [s.query.get("modified_since") for s in api.seen] == [None, None] + ["2026-03-01T08:15:00Z"] * 2
    assert {s.body for s in api.seen} == {b'{"a":1}'}


async def test_each_page_takes_a_permit_and_attempt(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[{"id": 1}]), reply(503, data={}), reply(data=[{"id": 2}]), reply(data=[]))
    text = mission('get "/x" { paginate: page(p, 1), retry: { maxAttempts: 2, delay: 1 } }',
                   source=", rateLimit: { requestsPerMinute: 3 }")  # fmt: skip
    (await bench.run(text)).ok()
    assert sum(bench.clock.slept) == pytest.approx(60, abs=0.01) and len(api.seen) == 4


# --- a resume at a page ----------------------------------------------------------------------------------------------


def cursors(broken: set[str], status: int = 500) -> Any:
    """Three pages by cursor; those of a broken cursor fail."""

    def answer(seen: Seen) -> bytes:
        cursor = seen.query.get("after", "")
        if cursor in broken:
            return reply(status, data={})
        number = int(cursor[1:] or 0)
        return reply(data={"data": [{"id": number}], "next": f"c{number + 1}" if number < 2 else None})

    return answer


@pytest.mark.parametrize("status", [400, 404, 410, 422, 403, 500])
async def test_a_cursor_that_is_gone_starts_the_fetch_over(status: int, api: ScriptedServer, bench: Bench) -> None:
    text = mission('get "/x" { paginate: cursor(after, 1, "next") }\nstore response -> out')
    api.on("/x", cursors({"c1"}))
    assert not (await bench.run(text)).outcome.success
    before = len(api.seen)
    gone = {"c1"}

    def answer(seen: Seen) -> bytes:
        if seen.query.get("after") in gone:
            gone.clear()
            return reply(status, data={})
        return cursors(set())(seen)  # type: ignore[no-any-return]

    api.on("/x", answer)
    bench.listen = (CheckpointResumed,)
    ran = await bench.resume(text)
    asked = [s.query.get("after") for s in api.seen[before:]]
    if status in (403, 500):
        assert ran.error.status == status and asked == ["c1"]
    else:
        assert list(ran.ok().out) == ["0", "1", "2"] and asked == ["c1", None, "c1", "c2"]
        assert "cursor_expired" in [getattr(e.event, "reason", None) for e in ran.events]


@pytest.mark.parametrize("fails", [1, 2, 3])
@pytest.mark.parametrize("pages", [(0, 1, 2, 0), (1, 1, 0, 2), (2, 0, 1, 1), (1, 2, 1, 0), (0, 2, 2, 0)])
async def test_pages_without_a_list_are_resumed_like_others(
    pages: tuple[int, ...], fails: int, api: ScriptedServer, bench: Bench
) -> None:
    """0: a page with an item, 1: without a list, 2: with an empty one."""
    kinds: list[Any] = [lambda n: {"items": [{"id": n}]}, lambda _: {}, lambda _: {"items": []}]
    content = [kinds[kind](n) for n, kind in enumerate(pages)]
    broken = {fails}

    def answer(seen: Seen) -> bytes:
        number = int(seen.query.get("after", "c0")[1:])
        if number in broken:
            return reply(500, data={})
        return reply(data={**content[number], "next": f"c{number + 1}" if number < 3 else None})

    api.on("/x", answer)
    text = mission('get "/x" { paginate: cursor(after, 1, "next") }\nstore response -> out')
    assert not (await bench.run(text)).outcome.success
    broken.clear()
    api.seen.clear()
    assert list((await bench.resume(text)).ok().out) == [str(n) for n, kind in enumerate(pages) if kind == 0]
    assert len(api.seen) == 4 - fails


async def test_numbered_pages_are_never_taken_for_expired(api: ScriptedServer, bench: Bench) -> None:
    text = mission('get "/x" { paginate: page(p, 1) }\nstore response -> out')
    api.on("/x", reply(data=[{"id": 1}]), reply(500, data={}))
    assert not (await bench.run(text)).outcome.success
    api.on("/x", reply(404, data={}))
    ran = await bench.resume(text)
    assert ran.error.status == 404 and [s.query["p"] for s in api.seen] == ["1", "2", "2"]


async def test_another_request_discards_its_pages(api: ScriptedServer, bench: Bench) -> None:
    """The fingerprint: method, source, path and parameters, but for paging and since."""
    text = mission('get "/x" { params: { q: env("Q") }, paginate: cursor(after, 1, "next") }\nstore response -> out')
    bench.environment = {"Q": "a"}
    api.on("/x", cursors({"c1"}))
    assert not (await bench.run(text)).outcome.success
    api.on("/x", cursors(set()))
    bench.environment = {"Q": "b"}
    (await bench.resume(text)).ok()
    assert [s.query.get("after") for s in api.seen] == [None, "c1", None, "c1", "c2"]


async def test_a_resumed_fetch_has_its_since_and_its_start(api: ScriptedServer, bench: Bench) -> None:
    text = mission('get "/x" { since: lastSync, paginate: cursor(after, 1, "next") }')
    api.on("/x", cursors(set()))
    (await bench.run(text)).ok()
    first = bench.clock.now()
    bench.clock.advance(3600)
    api.on("/x", cursors({"c1"}))
    second = bench.clock.now()
    assert not (await bench.run(text)).outcome.success
    bench.clock.advance(3600)
    api.seen.clear()
    api.on("/x", cursors(set()))
    (await bench.resume(text)).ok()
    assert {s.query["modified_since"] for s in api.seen} == {f"{first:%Y-%m-%dT%H:%M:%SZ}"}
    kept = json.loads((bench.state / "sync-checkpoints.json").read_text())["Api-/x"]["lastSync"]
    assert kept.startswith(f"{second:%Y-%m-%dT%H:%M:%S}")


# --- incremental sync ------------------------------------------------------------------------------------------------

NOW = "2026-03-01T08:15:00"


def checkpoints(bench: Bench) -> dict[str, Any]:
    path = bench.state / "sync-checkpoints.json"
    return json.loads(path.read_bytes()) if path.exists() else {}


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ("params: { from: lastSync }", lambda s: s.query.get("from")),
        ('headers: { "If-Since": lastSync }', lambda s: s.headers.get("if-since")),
        ("body: { from: lastSync }", lambda s: json.loads(s.body)["from"]),
        ('params: { from: formatDate(lastSync, "YYYY") }', lambda s: s.query.get("from")),
    ],
)
async def test_last_sync_anywhere_in_a_request_makes_a_checkpoint(
    options: str, place: Any, api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(data=[{"id": 1}]))
    text = mission(f'post "/x" {{ {options} }}')
    for _ in range(2):
        (await bench.run(text)).ok()
    first, second = map(place, api.seen)
    assert first is None and str(second).startswith(("2026-03-01T08:15:00", "2026"))
    assert checkpoints(bench)["Api-/x"]["itemsSynced"] == 2


@pytest.mark.parametrize(
    ("answer", "items"),
    [(reply(data=[]), 0), (reply(data={"id": 1}), 1), (reply(204), 0), (reply(data={"data": [1, 2, 3]}), 3),
     (reply(data="text"), 1)],
)  # fmt: skip
async def test_what_counts_as_synced(answer: bytes, items: int, api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", answer)
    text = mission('get "/x" { since: lastSync }')
    for times in (1, 2):
        (await bench.run(text)).ok()
        assert checkpoints(bench)["Api-/x"]["itemsSynced"] == items * times
        assert checkpoints(bench)["Api-/x"]["lastSync"].startswith(NOW), "an empty answer is a success"


@pytest.mark.parametrize(
    ("since", "sent"),
    [
        ('"2026-01-02T03:04:05.999Z"', "2026-01-02T03:04:05Z"),
        ('parseDate("2026-01-02T05:04:05+02:00")', "2026-01-02T03:04:05Z"),
        ("17", "17"),
        ('"page-token"', "page-token"),
        ("null", None),
    ],
)
async def test_a_value_of_ones_own_is_sent_in_its_form(
    since: str, sent: str | None, api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(data=[]))
    (await bench.run(mission(f'let s = {since}\nget "/x" {{ since: s }}'))).ok()
    assert api.seen[0].query.get("modified_since") == sent and checkpoints(bench) == {}
    (await bench.run(mission(f'let s = {since}\nget "/x" {{ since: s, syncKey: concat("k", 1) }}'))).ok()
    assert list(checkpoints(bench)) == ["k1"]


async def test_any_rfc_3339_time_is_read_and_unknown_fields_stay(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[]))
    path = bench.state / "sync-checkpoints.json"
    path.write_text('{"Api-/x": {"lastSync": "2026-02-01T02:00:00.5+02:00", "itemsSynced": 4, "note": "mine"},'
                    ' "Other-/y": {"lastSync": "2026-01-01T00:00:00Z", "itemsSynced": 1}}')  # fmt: skip
    (await bench.run(mission('get "/x" { since: lastSync }'))).ok()
    assert api.seen[0].query["modified_since"] == "2026-02-01T00:00:00Z"
    kept = checkpoints(bench)
    assert kept["Api-/x"]["note"] == "mine" and kept["Api-/x"]["mission"] == "M" and kept["Api-/x"]["itemsSynced"] == 4
    assert kept["Other-/y"] == {"lastSync": "2026-01-01T00:00:00Z", "itemsSynced": 1}


@pytest.mark.parametrize("answer", [{"asOf": "soon"}, {"asOf": {}}, {}, {"asOf": None}])
async def test_an_unreadable_update_from_warns_and_the_normal_rule_holds(
    answer: Any, api: ScriptedServer, bench: Bench
) -> None:
    api.on("/x", reply(data=answer))
    bench.listen = (Noticed,)
    ran = await bench.run(mission('get "/x" { since: lastSync { updateFrom: "asOf" } }'))
    assert checkpoints(bench)["Api-/x"]["lastSync"].startswith(NOW)
    (notice,) = ran.ok().told("notice")
    assert isinstance(notice, Noticed) and notice.level == "warning" and "updateFrom" in notice.message


async def test_the_earliest_of_several_uses_of_a_key_is_kept(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[], headers={"Date": "Sun, 01 Mar 2026 08:10:00 GMT"}),
           reply(data=[], headers={"Date": "Sun, 01 Mar 2026 08:05:00 GMT"}),
           reply(data=[]))  # fmt: skip
    text = mission('for i in [1, 2, 3] { get "/x" { since: lastSync } }')
    (await bench.run(text)).ok()
    assert checkpoints(bench)["Api-/x"]["lastSync"].startswith("2026-03-01T08:05:00")


async def test_the_time_is_that_before_the_first_page(api: ScriptedServer, bench: Bench) -> None:
    def slow(seen: Seen) -> bytes:
        bench.clock.advance(600)
        return reply(data=[{"id": 1}] if seen.query["p"] != "3" else [])

    api.on("/x", slow)
    (await bench.run(mission('get "/x" { since: lastSync, paginate: page(p, 1) }'))).ok()
    assert checkpoints(bench)["Api-/x"]["lastSync"].startswith(NOW)


async def test_two_missions_with_one_key_never_move_each_others_time(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[]))
    first = mission('get "/x" { since: lastSync }')
    second = first.replace("mission M", "mission N")
    (await bench.run(first)).ok()
    bench.clock.advance(3600)
    (await bench.run(second)).ok()
    (await bench.run(second)).ok()
    (await bench.run(first)).ok()
    assert [s.query.get("modified_since") for s in api.seen] == [
        None, None, "2026-03-01T09:15:00Z", "2026-03-01T08:15:00Z",
    ]  # fmt: skip
    assert set(checkpoints(bench)) == {"Api-/x", "N/Api-/x"}


async def test_a_fetch_says_that_it_has_pages_and_since(api: ScriptedServer, bench: Bench) -> None:
    api.on("/x", reply(data=[]))
    bench.listen = (FetchStarted,)
    (event,) = (await fetched(bench, "paginate: page(p, 2)", "")).ok().told("fetch.start")
    assert isinstance(event, FetchStarted) and event.has_pagination
