"""Interrupted anywhere, then resumed: what an uninterrupted run leaves, nothing done twice (spec/state.md 3, 5)."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reqon.events import Progressed
from reqon.runner import ResumeRefusedError
from reqon.state.records import ExecutionStatus
from reqon.values import decode, encode
from tests.support.clocks import FakeClock
from tests.support.missions import PAGES_IN_MEMORY, Bench, Ran, mission
from tests.support.servers import ScriptedServer, Seen, reply


class Site:
    """An API with pages, details and notes. At a chosen request it first does what a test wants."""

    def __init__(self, api: ScriptedServer) -> None:
        self.api = api
        self.at = 0
        self.then: Callable[[], bytes | None] = lambda: None
        self._count = 0
        api.answers["*"] = [self.answer]

    def interrupt(self, at: int, then: Callable[[], bytes | None]) -> None:
        """Do it at the `at`-th next request, counted from 1; 0: never."""
        self.api.seen.clear()
        self._count, self.at, self.then = 0, at, then

    def targets(self) -> list[str]:
        return [f"{seen.method} {seen.target}" for seen in self.api.seen]

    def answer(self, seen: Seen) -> bytes:
        self._count += 1
        if self._count == self.at and (instead := self.then()) is not None:
            return instead
        first, _, rest = seen.path[1:].partition("/")
        if first == "pages":
            page = int(seen.query["page"])
            data = [{"id": f"p{page}-{i}", "n": page * 10 + i} for i in range(2 if page < 3 else 1)]
            return reply(data={"data": data, "page": page})
        if first == "missing":
            return reply(404, data={"oops": "x", "id": "never"})
        if first == "array":
            page = int(seen.query["page"])
            return reply(data=[{"id": f"a{page}-{i}"} for i in range(2 if page < 3 else 1)])
        if first == "list":
            return reply(
                data=[{"id": f"{rest}{i}", "n": i, "kids": [i, i + 10]} for i in range(4)], headers={"X-Total": "4"}
            )
        return reply(data={"id": rest, "of": first, "v": len(rest)})


CASES = {
    "pages": mission('get "/pages" { paginate: page(page, 2) }\nstore response -> out'),
    "pages of lists, then a loop": mission(
        'get "/array" { paginate: page(page, 2) }\nfor r in response { get "/detail/{r.id}"\nstore response -> out }'
    ),
    "pages, a let, a loop with requests": mission(
        """
        let factor = 3
        get "/pages" { paginate: page(page, 2) }
        let total = length(response)
        for r in response.data where .n != 21 {
          post "/note/{r.id}"
          store { id: r.id, n: r.n * factor, total: total, v: response.v } -> out
        }
        store { id: "end", total: total, code: response.code, page: response.page } -> out"""
    ),
    "a loop over one answer": mission(
        """
        get "/list/l"
        for r in response { get "/detail/{r.id}"
          match response { { id: "l2" } -> skip, _ -> store { id: r.id, v: response.v } -> out } }
        store { id: "end", n: length(response), h: response.headers["x-total"] } -> out"""
    ),
    "a nested loop": mission(
        """
        get "/list/l"
        for r in response { for k in r.kids { post concat("/note/", r.id, "-", k)
            store { id: response.id, k: k } -> out }
          store { id: r.id } -> out }"""
    ),
    "a loop in a match arm": mission(
        """
        get "/list/l"
        match response { [] -> skip, _ -> {
          let n = 5
          for r in response { post "/note/{r.id}"
            store { id: r.id, n: n } -> out }
          store { id: "arm", n: n } -> out } }
        store { id: "end" } -> out"""
    ),
    "a parallel loop": mission(
        'concurrency: 3\nget "/list/l"\nfor r in response parallel { post "/note/{r.id}"\n'
'store response -> out }\nget "/detail/end"\nstore response -> out'
    ),
    "a second action with the first one's response": mission(
        'get "/list/l"\nlet x = 1',
        actions="""
        action B { for r in response { get "/b/{r.id}"
            store { id: concat("b", r.id), v: response.v } -> out }
          get "/detail/z" }
        action C { store { id: response.id, c: response.code } -> out
          get "/detail/end"
          store response -> out }""",
        run="A then B then C",
    ),
    "a group": mission(
        'get "/list/l"\nfor r in response { get "/a/{r.id}"\nstore { id: concat("a", r.id) } -> out }',
        actions="""
        action B { get "/list/m"
          for r in response { get "/b/{r.id}"
            store { id: concat("b", r.id) } -> out } }
        action C { for r in out { get "/c/{r.id}"
            store { id: concat("c", r.id) } -> side } }""",
        run="[A, B] then C",
        stores='store side: file("side")',
    ),
    "loops over stores": mission(
        """
        get "/list/l"
        store response -> out
        store response -> side
        for r in out { post "/x/{r.id}"
          store { ...r, seen: true } -> out
          delete side[r.id]
          store { id: concat("new", r.id) } -> side }
        for r in side { post "/y/{r.id}"
          delete side[r.id]
          store { id: concat("y", r.id) } -> out }""",
        stores='store side: file("side")',
    ),
    "a memory store loop that deletes": mission(
        """
        get "/list/l"
        store response -> out
        for r in out { post "/x/{r.id}"
          delete out[r.id]
          store { id: concat("x", r.id) } -> side }""",
        stores='store side: memory("side")',
    ),
    "loops with retry and called actions": mission(
        """
        for r in ["a", "b", "c"] {
          get "/detail/{r}"
          match response { { v: 2 } -> retry, _ -> continue }
          run B
          store response -> out }
        run B
        store { id: "end" } -> out""",
        actions='action B { get "/b/1"\nstore { id: concat("b-", response.id) } -> out\npost "/note/2" }',
    ),
    "loops in called actions": mission(
        """
        get "/list/l"
        let n = 1
        run B then C
        store { id: "end", n: n, of: length(response) } -> out""",
        actions="""
        action B { let all = response
          for r in response { get "/b/{r.id}"
            store { id: concat("b", r.id) } -> out }
          get "/array" { paginate: page(page, 2) }
          store { id: "b", n: length(all) } -> out }
        action C { for r in response { post "/c/{r.id}"
            store { id: concat("c", r.id) } -> out } }""",
    ),
    "an action called in a loop": mission(
        """
        get "/list/l"
        for r in response { run B
          store { id: r.id } -> out }""",
        actions="""
        action B { post "/b/{response[0].id}"
          post "/note/1"
          let two = response.id
          for k in [1, 2, 3] { get "/k/{k}"
            post "/note/k{k}"
            store { id: concat("b", k), two: two } -> out } }""",
    ),
    "a loop in an action called in a loop in a called action": mission(
        'get "/list/l"\nrun B\nstore { id: "end" } -> out',
        actions="""
        action B { for r in response { let kids = r.kids
          for k in r.kids { post "/note/{r.id}"
            run C } } }
        action C { get "/pages" { paginate: page(page, 2) }
          for p in response.data { post "/c/{p.id}"
            store p -> out } }""",
    ),
    "several requests for an item": mission(
        """
        get "/list/l"
        for r in response { get "/detail/{r.id}"
          let v = response.v
          post "/note/{r.id}"
          store { id: response.id, v: v } -> out
          get "/pages" { paginate: page(page, 2) }
          store { id: concat(r.id, "n"), n: length(response) } -> out }"""
    ),
    "inner loops over stores, literals and in parallel": mission(
        """
        get "/list/l"
        for r in response {
          store { id: concat("s", r.id), of: r.id } -> side
          for s in side where .of == r.id { post "/s/{s.id}"
            delete side[s.id]
            store { id: s.id } -> out }
          for k in ["x", "y"] { post concat("/k/", r.id, k)
            store { id: concat(r.id, k) } -> out }
          for k in r.kids parallel { post concat("/p/", r.id, k)
            store { id: concat("p", r.id, k) } -> out }
          post "/end/{r.id}" }""",
        stores='store side: file("side")',
    ),
    "items in parallel with several requests": mission(
        """
        concurrency: 1
        get "/list/l"
        for r in response parallel { post "/a/{r.id}"
          for k in r.kids { post concat("/k/", r.id, k)
            store { id: concat(r.id, k) } -> out }
          run B }""",
        actions='action B { post "/b/{response.id}"\nstore response -> out }',
    ),
    "requests in an arm before its loop": mission(
        """
        get "/list/l"
        match response { [] -> skip, _ -> {
          get "/list/m"
          let first = response[0].id
          get "/pages" { paginate: page(page, 2) }
          for r in response.data { post "/note/{r.id}"
            store { id: r.id, first: first } -> out } } }
        store { id: "end" } -> out"""
    ),
    "a list in an arm that comes from a store": mission(
        """
        get "/list/l"
        store response -> side
        match response { [] -> skip, _ -> {
          let there = side.map(.id)
          for id in there { post "/note/{id}"
            delete side[id]
            store { id: concat("new", id) } -> side
            store { id: id } -> out } } }""",
        stores='store side: memory("side")',
    ),
    "values of all kinds": mission(
        """
        let at = parseDate("2026-01-02")
        let span = 3 days
        let handle = out
        let item = { id: "i", old: 1 }
        map item -> Row { id: .id, new: 2 }
        get "/list/l"
        map response -> t { id: "mapped" }
        get "/detail/none" { timeout: 5 seconds }
        map response -> u { id: "u" }
        post "/note/1"
        store { id: "v", year: year(at), later: at + span, old: item.old, new: item.new, t: t.id, u: u.id,
          n: length(handle) } -> out"""
    ),
    "an error that a match looks at": mission(
        """
        get "/missing/1"
        match response {
          { oops: "x" } -> { for i in ["a", "b"] { post "/note/{i}"
              store { id: i } -> out } },
          _ -> store response -> out }
        store { id: "end" } -> out"""
    ),
    "pages in a variable": mission(
        """
        get "/pages" { paginate: page(page, 2) }
        let all = response
        map response -> t { id: "t" }
        for r in all.data { get "/detail/{r.id}"
          store { id: r.id, n: length(all) } -> out }"""
    ),
    "requests one after the other": mission(
        """
        get "/detail/1"
        store response -> out
        post "/note/2"
        store response -> out
        let two = response.id
        post "/note/{two}3"
        store { id: concat(two, response.id) } -> out
        get "/detail/4"
        store { id: concat(two, response.id) } -> out"""
    ),
    "records without ids": mission(
        'get "/list/l"\nfor r in response { get "/detail/{r.id}"\n'
'store { v: response.id } -> out\nfor k in r.kids { store { k: k } -> out } }'
    ),
    "pages in memory stores": PAGES_IN_MEMORY,
    "mission variables": mission(
        ('get "/list/l"\nfor r in response { post "/note/{r.id}"\n'
'store { id: r.id, s: stamp } -> out }'), declarations="let stamp = uuid()"
    ),
}  # fmt: skip


# How many requests belong to what is in work at one time, where it is more than one.
IN_WORK = {"a parallel loop": 3, "a group": 2, "inner loops over stores, literals and in parallel": 2}
# What items that failed had only read is read again.
READ_AGAIN = {
    "an action called in a loop",
    "a loop in an action called in a loop in a called action",
    "several requests for an item",
    "requests in an arm before its loop",
    "loops with retry and called actions",
}


def values(ran: Ran) -> dict[str, Any]:
    """What the stores hold, generated keys aside; a random stamp only by being the same everywhere."""
    found: dict[str, Any] = {}
    for name, records in ran.stores.items():
        stamps = {r.pop("s") for r in map(dict, records.values()) if "s" in r}
        assert len(stamps) <= 1
        bare = [{k: v for k, v in r.items() if k != "s"} for r in records.values()]
        found[name] = sorted(bare, key=repr)
    return found


async def interrupted(bench: Bench, site: Site, text: str, how: str, at: int, *, resume: bool = False) -> Bench:
    """Run, or go on, until the `at`-th request and end there; where to resume."""
    runs: list[asyncio.Task[Ran]] = []
    killed = bench.state.with_name(f"{bench.state.name}-killed-{at}")

    def then() -> bytes | None:
        if how == "kill":
            # What SIGKILL leaves: the files as they are while the request is on its way.
            shutil.copytree(bench.state, killed)
        elif how == "fail":
            return reply(418, data={"id": "never"})
        elif how == "cancel":
            runs[0].cancel("stop")
        else:
            assert bench.runner is not None
            bench.runner.stop.request()
        return None

    site.interrupt(at, then)
    run = asyncio.create_task(bench.run(text, resume=resume))
    runs.append(run)
    try:
        ran = await run
    except asyncio.CancelledError:
        assert how == "cancel"
    else:
        if how == "fail":
            assert ran.record.status is ExecutionStatus.FAILED
        elif how == "stop":
            assert ran.record.status in (ExecutionStatus.INTERRUPTED, ExecutionStatus.COMPLETED)
    if how == "kill":
        del bench.api.seen[at:]
        return Bench(bench.api, killed, bench.clock)
    return bench


@pytest.mark.parametrize("how", ["kill", "fail", "cancel", "stop"])
@pytest.mark.parametrize("case", CASES)
async def test_a_resumed_run_ends_as_an_uninterrupted_one(
    case: str, how: str, api: ScriptedServer, tmp_path: Path
) -> None:
    """Proves part of R1: at each request in turn; whatever is done already is not requested again."""
    text = CASES[case]
    site = Site(api)
    whole = (await Bench(api, tmp_path / "whole").run(text)).ok()
    expected, asked = values(whole), site.targets()
    for at in range(1, len(asked) + 1):
        first = Bench(api, tmp_path / f"run{at}")
        second = await interrupted(first, site, text, how, at)
        in_work = site.targets()[at - 1 :]
        before = site.targets()
        site.at = 0
        ran = await second.resume(text)
        assert ran.outcome.success, (at, [e.format() for e in ran.outcome.errors])
        assert values(ran) == expected, (at, before, site.targets()[len(before) :])
        if how == "stop" and ran.record.attempt == 1:
            continue  # it had completed: there was nothing to resume, and it ran anew
        assert ran.record.attempt == 2, at
        again = Counter(site.targets()) - Counter(asked)
        if how == "fail" and case in READ_AGAIN:
            again = Counter({t: n for t, n in again.items() if not t.startswith("GET ")})
        if case == "a group" and how == "fail":
            # What came after the group ran on half the data: all of it runs again.
            assert {t for t in again if not t.startswith("GET /c/")} <= {"GET /list/l", "GET /list/m", *in_work}
            continue
        assert again.total() <= IN_WORK.get(case, 1), (at, again)
        if case not in IN_WORK:
            assert set(again) <= set(in_work), (at, again)
        assert ran.record.items_processed == whole.record.items_processed, (at, before)


class Ticking(FakeClock):
    """A clock that goes on a little whenever it is asked, so that whatever is due by time is due at once."""

    def monotonic(self) -> float:
        self.advance(0.3)
        return super().monotonic()


PURE = {
    "a list": (
        "let xs = big\nfor x in xs where .n % 3 != 1 { store { id: x.id, n: x.n * 2 } -> out }\n"
        'store { id: "end" } -> out'
    ),
    "a computed list": 'for x in big.map({ id: concat("m", .id), n: .n }) { store x -> out { upsert: true } }',
    "a nested loop": 'for x in big { for y in [1, 2] { store { id: concat(x.id, "-", y), n: x.n } -> out } }',
    "a store": "store big -> side\nfor x in side { store { id: x.id, n: x.n } -> out\ndelete side[x.id] }",
    "two loops": "for x in big { store x -> out }\nfor x in out { store { id: x.id, n: 1 } -> side }",
    "a match arm": (
        "match big { [] -> skip, _ -> { let k = 2\nfor x in big { store { id: x.id, n: x.n + k } -> out } } }"
    ),
}


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("case", PURE)
async def test_a_loop_without_requests_goes_on_where_it_was(
    case: str, kind: str, api: ScriptedServer, tmp_path: Path
) -> None:
    """Proves part of R1: the state directory as it is whenever the loop pauses is what a kill leaves behind."""
    api.on("/big", reply(data=[{"id": f"k{i}", "n": i} for i in range(3000)]))
    text = mission(f'get "/big"\nlet big = response\n{PURE[case]}', stores=f'store side: {kind}("side")').replace(
        'memory("out")', f'{kind}("out")'
    )
    whole = (await Bench(api, tmp_path / "whole", Ticking()).run(text)).ok()
    first = Bench(api, tmp_path / "first", Ticking(), listen=(Progressed,))
    copies: list[Path] = []

    class Copying(list[Any]):
        def append(self, heard: Any) -> None:
            if len(copies) < 6:
                copies.append(shutil.copytree(first.state, tmp_path / f"killed-{len(copies)}"))

    first.heard = Copying()
    (await first.run(text)).ok()
    assert copies
    for at, copy in enumerate(copies):
        ran = await Bench(api, copy, Ticking()).resume(text)
        assert ran.ok().stores == whole.stores, at
        assert ran.record.items_processed == whole.record.items_processed, at


async def test_resuming_twice_is_resuming(api: ScriptedServer, tmp_path: Path) -> None:
    text = CASES["pages, a let, a loop with requests"]
    site = Site(api)
    whole = (await Bench(api, tmp_path / "whole").run(text)).ok()
    bench = Bench(api, tmp_path / "run")
    asked = 0
    for at in (2, 2, 2, 2, 2):
        site.interrupt(at, lambda: reply(418, data={}))
        ran = await bench.resume(text) if asked else await bench.run(text)
        asked += len(api.seen)
        assert not ran.outcome.success
    site.interrupt(0, lambda: None)
    ran = (await bench.resume(text)).ok()
    assert values(ran) == values(whole) and ran.record.attempt == 6
    assert asked + len(api.seen) == 3 + 4 + 5


LEFT = {
    "an answer": 'get "/list/l"',
    "pages": 'get "/pages" { paginate: page(page, 2) }',
    "one page": 'get "/array" { paginate: page(page, 9) }',
    "what was made": 'get "/detail/x"\nmap response -> Made { id: .id, when: parseDate("2026-03-01") }',
    "nothing": 'get "/list/l"\nfor r in response { get "/detail/{r.id}" }',
}
LATER = {
    "an action": "A then B",
    "a stage's condition": "A then B if response != null",
    "a group": "A then [B, C]",
    "a called pipeline": "D",
}


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("first", LEFT)
async def test_what_an_action_leaves_is_there_for_the_next_one_after_a_resume(
    first: str, later: str, api: ScriptedServer, tmp_path: Path
) -> None:
    """The next action fails before its first request or loop has put anything into the journal."""
    Site(api)
    if first == "one page":
        api.on("/array", reply(data=[{"id": "a"}]))
    actions = """
      action B { let seen = response
        match env("READY") { "no" -> abort "not yet", _ -> continue }
        store { id: "b", seen: seen } -> out }
      action C { store { id: "c", seen: response } -> out }
      action D { run A then B }"""
    text = mission(LEFT[first], actions=actions, run=LATER[later])
    whole = (await Bench(api, tmp_path / "whole", environment={"READY": "yes"}).run(text)).ok()
    ran = await Bench(api, tmp_path / "run", environment={"READY": "no"}).run(text)
    assert not ran.outcome.success
    asked = len(api.seen)
    ran = (await Bench(api, tmp_path / "run", environment={"READY": "yes"}).resume(text)).ok()
    assert ran.stores == whole.stores
    if later != "a called pipeline":  # whose own action has not ended
        assert len(api.seen) == asked


async def test_a_stage_that_was_skipped_stays_skipped(api: ScriptedServer, bench: Bench) -> None:
    """Language 7.1: what has changed since its condition was looked at does not matter."""
    api.on("/a", reply(data={"id": "a"})).on("/c", reply(418, data={}), reply(data={"id": "c"}))
    actions = """
      action A { get "/a" }
      action B { store { id: "b" } -> out }
      action C { store { id: "before c" } -> out
        get "/c"
        store response -> out }
      action D { store { id: "d" } -> out }"""
    text = mission(actions=actions, run="A then B if length(out) > 0 then C then D if length(out) > 0")
    ran = await bench.run(text)
    assert not ran.outcome.success and list(ran.out) == ["before c"]
    ran = (await bench.resume(text)).ok()
    assert list(ran.out) == ["before c", "c", "d"]
    assert ran.record.actions_run == ("A", "C", "D")


async def test_after_a_group_that_failed_in_part_its_failed_actions_and_all_later_stages_run(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("/a", reply(data={})).on("/b", reply(418, data={}), reply(data={})).on("/c", reply(data={}))
    actions = 'action A { get "/a" }\naction B { get "/b" }\naction C { get "/c" }'
    text = mission(actions=actions, run="[A, B] then C")
    ran = await bench.run(text)
    assert sorted(ran.record.actions_run) == ["A", "C"] and ran.record.status is ExecutionStatus.FAILED
    ran = (await bench.resume(text)).ok()
    assert [s.path for s in api.seen[3:]] == ["/b", "/c"]
    assert sorted(set(ran.record.actions_run)) == ["A", "B", "C"]


async def test_a_changed_mission_is_not_resumed(api: ScriptedServer, bench: Bench) -> None:
    text = CASES["pages"]
    Site(api).interrupt(2, lambda: reply(418, data={}))
    await bench.run(text)
    with pytest.raises(ResumeRefusedError, match="changed"):
        await bench.resume(text.replace("page(page, 2)", "page(page, 3)"))


async def test_an_expired_cursor_starts_its_fetch_over_once(api: ScriptedServer, bench: Bench) -> None:
    def answer(seen: Seen) -> bytes:
        cursor = seen.query.get("c")
        if cursor == "stale":
            return reply(410, data={})
        n = 1 if cursor is None else 2
        return reply(data={"data": [{"id": n}], "next": answer.first if n == 1 else None})  # type: ignore[attr-defined]

    answer.first = "stale"  # type: ignore[attr-defined]
    api.on("/x", answer)
    text = mission('get "/x" { paginate: cursor(c, 1, "next") }\nstore response -> out')
    assert not (await bench.run(text)).outcome.success
    answer.first = "fresh"  # type: ignore[attr-defined]
    ran = await bench.resume(text)
    assert list(ran.ok().out) == ["1", "2"]
    assert api.targets == ["/x", "/x?c=stale", "/x?c=stale", "/x", "/x?c=fresh"]


@pytest.mark.parametrize("how", ["kill", "fail"])
async def test_pages_too_big_for_memory_are_read_from_the_journal(
    how: str, api: ScriptedServer, tmp_path: Path
) -> None:
    site = Site(api)

    def answer(seen: Seen) -> bytes:
        plain = site.answer(seen)
        if not seen.path.startswith("/pages") or b" 418 " in plain:
            return plain
        page = int(seen.query["page"])
        items = [{"id": f"p{page}-{i}", "pad": "x" * 700_000} for i in range(2 if page < 4 else 1)]
        return reply(data={"data": items, "page": page})

    api.answers["*"] = [answer]
    text = mission(
        """
        get "/pages" { paginate: page(page, 2) }
        let all = response
        map null -> t { id: "t" }
        for r in all.data where r.id != "p2-0" { get "/detail/{r.id}"
          store { id: r.id, pad: length(r.pad), v: response.v } -> out }
        store { id: "end", n: length(all), page: all.page, last: all[-1].id } -> out"""
    )
    whole = (await Bench(api, tmp_path / "whole").run(text)).ok()
    assert whole.out["end"] == {"id": "end", "n": 7, "page": 4, "last": "p4-0"}
    for at in (3, 5, 7):
        second = await interrupted(Bench(api, tmp_path / f"run{at}"), site, text, how, at)
        site.at = 0
        ran = await second.resume(text)
        assert values(ran) == values(whole)
        assert len(api.seen) == 11


async def test_pages_whose_last_is_the_only_one_go_on_into_the_next_action(api: ScriptedServer, tmp_path: Path) -> None:
    """A fetch of one page is in the journal only when somebody needs it there."""
    api.on("/one", reply(data={"data": [{"id": 1}, {"id": 2}], "total": 2}))
    site = Site(api)
    actions = """
      action B { for r in response { post "/note/{r.id}" }
        store { id: "n", n: length(response), t: response.total } -> out }"""
    text = mission('get "/one" { paginate: page(page, 5) }', actions=actions, run="A then B")
    for at in (1, 2):
        bench = await interrupted(Bench(api, tmp_path / f"run{at}"), site, text, "kill", at)
        site.at = 0
        assert (await bench.resume(text)).ok().out == {"n": {"id": "n", "n": 2, "t": 2}}
        assert [seen.path for seen in api.seen] == ["/one", "/note/1", "/note/2"]


async def test_an_effect_done_again_after_a_kill_has_its_idempotency_key_again(
    api: ScriptedServer, tmp_path: Path
) -> None:
    """Proves part of R9: one key per effect over retries and resume, in loops of loops and called actions too."""
    steps = """
      post "/note/first"
      for i in [1, 2] { for j in [1, 2] { post concat("/note/", i, "-", j) }
        run B }
      run B"""
    text = mission(steps, actions='action B { for k in [1, 2] { post "/note/k{k}" } }', source="idempotencyKey: true")
    site = Site(api)
    (await Bench(api, tmp_path / "whole").run(text)).ok()
    count = len(api.seen)
    assert len({seen.headers["idempotency-key"] for seen in api.seen}) == count == 11
    for at in range(1, count + 1):
        killed = await interrupted(Bench(api, tmp_path / f"run{at}"), site, text, "kill", at)
        site.at = 0
        (await killed.resume(text)).ok()
        assert len({seen.headers["idempotency-key"] for seen in api.seen}) == count, at


RETRIES = {
    "a step of its action": """
      get "/list/l"
      for r in response { post "/note/{r.id}" }
      get "/missing/1"
      match response { { oops: "x" } -> retry { maxAttempts: 5 }, { oops: "x" } -> skip }""",
    "in a loop": """
      for r in ["a", "b"] { get "/missing/{r}"
        match response { { oops: "x" } -> retry { maxAttempts: 5 }, { oops: "x" } -> skip } }""",
    "in a called action": 'get "/list/l"\nrun B',
}


@pytest.mark.parametrize("case", RETRIES)
async def test_the_budget_of_a_retry_survives_a_kill(case: str, api: ScriptedServer, tmp_path: Path) -> None:
    """Proves part of R1: killed at any request, the request goes as often as it may, and one more for the kill."""
    actions = """
      action B { get "/missing/b"
        match response { { oops: "x" } -> retry { maxAttempts: 5 }, { oops: "x" } -> skip } }"""
    text = mission(RETRIES[case], actions=actions)
    site = Site(api)
    (await Bench(api, tmp_path / "whole").run(text)).ok()
    asked = site.targets()
    for at in range(1, len(asked) + 1):
        second = await interrupted(Bench(api, tmp_path / f"run{at}"), site, text, "kill", at)
        site.at = 0
        (await second.resume(text)).ok()
        assert (Counter(site.targets()) - Counter(asked)).total() <= 1, (at, site.targets())


async def test_a_failed_run_that_is_resumed_has_its_retries_again(api: ScriptedServer, bench: Bench) -> None:
    api.on("/first", reply(data={})).on("/x", *[reply(503, data={})] * 3, *[reply(503, data={})] * 2, reply(data={}))
    text = mission(
        'post "/first"\nget "/x"\nmatch response { { code: 503 } -> retry { maxAttempts: 3 }, _ -> continue }'
    )
    assert not (await bench.run(text)).outcome.success
    assert api.targets == ["/first", "/x", "/x", "/x"]
    (await bench.resume(text)).ok()
    assert api.targets == ["/first", *["/x"] * 6]


async def test_what_a_failed_item_had_read_is_read_again_and_what_it_did_is_not_done_again(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("/ready", reply(data={"ready": False}), reply(data={"ready": True})).on("/charge", reply(data={"id": 1}))
    text = mission(
        """
        for r in ["a"] { post "/charge"
          get "/ready"
          match response { { ready: false } -> abort "not yet", _ -> store { id: r } -> out } }"""
    )
    assert not (await bench.run(text)).outcome.success
    assert list((await bench.resume(text)).ok().out) == ["a"]
    assert api.targets == ["/charge", "/ready", "/ready"]


async def test_the_answer_to_another_request_is_not_taken(api: ScriptedServer, tmp_path: Path) -> None:
    """An inner list that changed while we were down: what it holds now is asked for, nothing is left out."""
    api.on("/list", reply(data=[{"id": "a"}, {"id": "b"}]), reply(data=[{"id": "new"}, {"id": "b"}]))
    api.on("*", reply(data={}))
    text = mission(
        """
        for r in ["only"] { get "/list"
          for k in response { post "/note/{k.id}"
            get "/detail/{k.id}"
            match response { { stop: true } -> abort "stopped", _ -> continue } } }"""
    )
    api.on("/detail/b", reply(data={"stop": True}), reply(data={}))
    bench = Bench(api, tmp_path / "run")
    assert not (await bench.run(text)).outcome.success
    (await bench.resume(text)).ok()
    assert {"/note/new", "/detail/new"} <= set(api.targets)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (CASES["pages"], 2),
        (mission('for r in [{ id: 1 }, { id: 2 }, { id: 3 }, { id: 4 }] { get "/d/{r.id}"\nstore r -> out }'), 2),
    ],
    ids=["a page", "an item"],
)
async def test_each_step_further_is_progress_at_once(text: str, at: int, api: ScriptedServer, tmp_path: Path) -> None:
    """Poison: an attempt that is killed just after it got on is no attempt without progress."""
    site = Site(api)
    killed = await interrupted(Bench(api, tmp_path / "first"), site, text, "kill", at)
    (path,) = (killed.state / "execution").glob("*.json")
    record = decode(path.read_bytes())
    path.write_bytes(encode({**record, "resumesWithoutProgress": 2}))
    seen: list[Any] = []

    def look() -> None:
        seen.append(decode(path.read_bytes()).get("resumesWithoutProgress", 0))

    def answer(request: Seen) -> bytes:
        look()
        return site.answer(request)

    api.answers["*"] = [answer]
    (await killed.resume(text)).ok()
    assert seen[0] == 3, "the request in work is sent again"
    assert seen[1] == 0, "the next one comes after it"


async def test_renewed_credentials_are_not_in_the_journal(api: ScriptedServer, tmp_path: Path) -> None:
    """K1: the answer of an action that renews a token is kept nowhere, in a loop or not."""
    token = "marked-9f8e7d6c5b4a"
    state = tmp_path / "state"
    copies: list[Path] = []

    def last(_: Seen) -> bytes:
        copies.append(shutil.copytree(state, tmp_path / f"copy{len(copies)}"))
        return reply(data={})

    api.on("/login", reply(data={"access_token": token})).on("/x", reply(401, data={}), reply(data={}))
    api.on("/y", reply(401, data={}), reply(data={})).on("/last", last)
    text = mission(
        """
        post "/first"
        get "/x"
        match response { { code: 401 } -> jump Renew then retry, _ -> continue }
        for r in ["a"] { get "/y"
          match response { { code: 401 } -> jump Renew then retry, _ -> continue }
          get "/last" }
        get "/last"
        """,
        actions='action Renew { post "/login" { body: { user: "u" } } }',
    ).replace("auth: none", 'auth: bearer, token: "old-token-1234567"')
    api.on("/first", reply(data={}))
    await Bench(api, state).run(text)
    assert copies
    for copy in copies:
        for path in copy.rglob("*"):
            assert not path.is_file() or token.encode() not in path.read_bytes(), path
