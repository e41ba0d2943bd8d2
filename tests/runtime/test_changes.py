"""While a run was down the world went on: stores, servers, missions, clocks (spec/reliability.md 2)."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from reqon.clock import parse_rfc3339
from reqon.runner import ResumeRefusedError
from tests.runtime.test_resume import Site, interrupted
from tests.support.clocks import FakeClock
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, Seen, reply

SLOW = bool(os.environ.get("REQON_SLOW"))

# --- the store of a loop ----------------------------------------------------------------------------------------------

DRAIN = mission(
    'get "/list/l"\nstore response -> side',
    actions="""
    action B { for r in side { post "/x/{r.id}"
        store { id: r.id, v: r.n } -> more } }""",
    run="A then B",
    stores='store side: file("side")\nstore more: file("more")',
)
CHANGES = {
    "one that is done goes": "delete side['l0']",
    "the one in work goes": "delete side['l1']",
    "one that is ahead goes": "delete side['l2']",
    "the last goes": "delete side['l3']",
    "all change": "for r in side { store { ...r, n: 99 } -> side }",
    "new ones come": 'store { id: "a" } -> side\nstore { id: "z" } -> side',
    "one goes and comes back behind the others": "delete side['l1']\nstore { id: 'l1', n: 1 } -> side",
    "all go and come back the other way round": (
        "let all = ['l3', 'l2', 'l1', 'l0', 'new']\nclear side\nfor id in all { store { id: id, n: 5 } -> side }"
    ),
    "all go": "clear side",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_store_that_another_mission_changed_costs_no_item(
    change: str, api: ScriptedServer, tmp_path: Path
) -> None:
    """R4: whatever was in the store when the loop began and still is, is worked on; one item twice at most."""
    steps = CHANGES[change].replace("'", '"')
    other = mission(steps, stores='store side: file("side")').replace("mission M {", "mission Other {")
    for at in range(2, 6):  # while the first, second, … record is in work
        site = Site(api)
        killed = await interrupted(Bench(api, tmp_path / f"run{at}"), site, DRAIN, "kill", at)
        site.at = 0
        ran = (await killed.run(other)).ok()
        left = set(ran.stores["side"])
        (await killed.resume(DRAIN)).ok()
        posted = Counter(seen.path.removeprefix("/x/") for seen in api.seen if seen.method == "POST")
        before = {f"l{n}" for n in range(at - 1)}
        assert set(posted) >= before | (left & {"l0", "l1", "l2", "l3"}), (at, posted)
        assert sum(posted.values()) - len(posted) <= 1, (at, posted)


# --- the mission ------------------------------------------------------------------------------------------------------

EDITED = mission(
    'get "/list/l"\nstore response -> side',
    actions="""
    action B { for r in side where .n >= 0 { post "/x/{r.id}"
        store { id: r.id, v: r.n } -> more } }""",
    run="A then B",
    stores='store side: file("side")\nstore more: file("more")',
)
EDITS: dict[str, tuple[Callable[[str], str], bool]] = {
    "blanks": (lambda t: t.replace("  ", "   "), True),
    "a comment": (lambda t: "// now\n" + t, True),
    "a step more": (lambda t: t.replace('post "/x/{r.id}"', 'post "/x/{r.id}"\npost "/y/{r.id}"'), False),
    "a step less": (lambda t: t.replace("store { id: r.id, v: r.n } -> more", ""), False),
    "another filter": (lambda t: t.replace("where .n >= 0", "where .n >= 1"), False),
    "another path": (lambda t: t.replace("/x/{r.id}", "/z/{r.id}"), False),
    "another order": (lambda t: t.replace("run A then B", "run B then A"), False),
    "an option": (lambda t: t.replace("maxAttempts: 1", "maxAttempts: 2"), False),
    "another store": (lambda t: t.replace('file("more")', 'file("most")'), False),
    "a changed value": (lambda t: t.replace("v: r.n", "v: r.n + 1"), False),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
async def test_an_edited_mission_is_refused_or_goes_on_as_it_was(
    edit: str, api: ScriptedServer, tmp_path: Path
) -> None:
    """R3: edited in ten ways between kill and resume; refused with its reason, or unaffected; no item skipped."""
    change, unaffected = EDITS[edit]
    site = Site(api)
    killed = await interrupted(Bench(api, tmp_path / "run"), site, EDITED, "kill", 4)
    site.at = 0
    asked = len(api.seen)
    if unaffected:
        (await killed.resume(change(EDITED))).ok()
    else:
        with pytest.raises(ResumeRefusedError, match="the mission has changed since"):
            await killed.resume(change(EDITED))
        assert len(api.seen) == asked, "nothing was sent"
        (await killed.resume(EDITED)).ok()
    posted = Counter(seen.path for seen in api.seen if seen.method == "POST")
    assert posted == {"/x/l0": 1, "/x/l1": 1, "/x/l2": 2, "/x/l3": 1}


# --- the server's data and the clocks ---------------------------------------------------------------------------------

SYNC = mission(
    """
    get "/items" { paginate: page(page, 3), since: lastSync }
    store response -> side { key: .id, upsert: true }
    for r in response { post "/seen/{r.id}" }""",
    actions='action B { get "/done" }',
    run="A then B",
    stores='store side: file("side")',
)


class ChangingApi:
    """Items with a revision and the time of their last change; with each request time goes on, and some change.

    Our clock is `skew` away from the server's.
    """

    def __init__(self, api: ScriptedServer, random: Random, skew: timedelta) -> None:
        self.random = random
        self.now = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)
        self.items = {f"i{n:02d}": (0, self.now - timedelta(hours=1)) for n in range(8)}
        self.clock = FakeClock(self.now + skew)
        self.quiet = False
        self.count = 0
        self.stop_at = 0
        self.stops: Any = None
        api.on("*", self.answer)

    def answer(self, seen: Seen) -> bytes:
        self.count += 1
        dated = {"Date": format_datetime(self.now, usegmt=True)}
        found = None
        if self.count == self.stop_at:
            found = self.stops()
        if found is None:
            found = reply(data=self._page(seen) if seen.path == "/items" else {}, headers=dated)
        if not self.quiet:
            self._go_on()
        return found

    def _page(self, seen: Seen) -> list[Any]:
        since = seen.query.get("modified_since")
        begin = parse_rfc3339(since) if since else datetime(2000, 1, 1, tzinfo=UTC)
        fitting = [{"id": i, "rev": rev} for i, (rev, at) in sorted(self.items.items()) if at >= begin]
        page = int(seen.query["page"])
        return fitting[(page - 1) * 3 : page * 3]

    def _go_on(self) -> None:
        seconds = self.random.choice((0.2, 1, 7))
        self.now += timedelta(seconds=seconds)
        self.clock.advance(seconds)
        for _ in range(self.random.randint(0, 2)):
            known = self.random.choice([*self.items, f"n{self.count:03d}"])
            self.items[known] = (self.items.get(known, (0,))[0] + 1, self.now)


@pytest.mark.parametrize("how", ["kill", "fail"])
@pytest.mark.parametrize("minutes", [-5, 5])
async def test_nothing_is_missing_after_the_next_sync(
    minutes: int, how: str, api: ScriptedServer, tmp_path: Path
) -> None:
    """R7: cut off between fetch and end while data changes, our clock five minutes off: no change is ever missed."""
    for seed in range(25 if SLOW else 5):
        random = Random(seed)
        world = ChangingApi(api, random, timedelta(minutes=minutes))
        first = Bench(api, tmp_path / f"{how}{seed}", world.clock)
        (await first.run(SYNC)).ok()
        world.count, world.stop_at = 0, random.randint(1, 9)
        killed = tmp_path / f"killed{seed}"
        world.stops = lambda: reply(418, data={})
        if how == "kill":
            world.stops = lambda bench=first, target=killed: _copied(bench.state, target)
        ran = await first.run(SYNC)
        second = Bench(api, killed, world.clock) if how == "kill" and killed.exists() else first
        world.stop_at = 0
        if how == "fail":
            assert not ran.outcome.success or world.count < 9
        (await second.resume(SYNC)).ok()
        world.quiet = True
        last = (await second.run(SYNC)).ok()
        held = {key: record["rev"] for key, record in last.stores["side"].items()}
        assert held == {key: rev for key, (rev, _) in world.items.items()}, (seed, how, minutes)


def _copied(state: Path, target: Path) -> None:
    shutil.copytree(state, target)
