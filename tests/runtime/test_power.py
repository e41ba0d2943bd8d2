"""Whole runs on machines that lose power, and on disks that fill up or break (spec/reliability.md 1)."""

import asyncio
import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from reqon.errors import ReqonError
from reqon.runtime import resume
from reqon.runtime.plan import Plan
from reqon.state.records import ExecutionStatus
from reqon.stores import store_file
from reqon.stores.file import FileStore
from reqon.stores.store_file import StoreFile
from reqon.values import JsonError
from tests.runtime.test_resume import Site
from tests.support.clocks import FakeClock
from tests.support.disks import FailingDisk, PowerDisk, PowerLoss
from tests.support.missions import PAGES_IN_MEMORY, Bench, Ran, mission
from tests.support.servers import ScriptedServer

SLOW = bool(os.environ.get("REQON_SLOW"))
STORES = 'store side: file("side")\nstore more: file("more")\nstore names: memory("names")'

MISSIONS = {
    "pages, then loops": mission(
        """
        get "/pages" { paginate: page(page, 2) }
        store response -> side
        for r in response.data checkpoint every 2 { post "/note/{r.id}"
          store { id: r.id, v: response.v } -> more
          store { id: r.id, n: r.n } -> names
          delete side[r.id] }""",
        actions="""
        action B { for n in names checkpoint every 2 { post "/b/{n.id}"
            store { id: concat("b", n.id), n: n.n } -> more }
          for m in more { store { ...m, seen: true } -> side } }""",
        run="A then B",
        stores=STORES,
    ),
    "a group, then a loop over what it stored": mission(
        """
        get "/list/l"
        store response -> side
        for r in response checkpoint every 1 { get "/a/{r.id}"
          store { id: concat("a", r.id) } -> side }""",
        actions="""
        action B { get "/list/m"
          store response -> more
          get "/pages" { paginate: page(page, 2) }
          store response -> more }
        action C { for r in side checkpoint every 2 { post "/c/{r.id}"
            store { id: concat("c", r.id) } -> more } }""",
        run="[A, B] then C",
        stores=STORES,
    ),
    "steps one after the other, and called actions": mission(
        """
        get "/list/l"
        store response -> side
        get "/detail/1"
        store { id: "one", v: response.v } -> more
        post "/note/2"
        match response { { of: "note" } -> {
          store { id: "arm" } -> side
          for r in side checkpoint every 2 { post "/s/{r.id}"
            store { id: concat("s", r.id) } -> more } },
          _ -> skip }
        run B
        store { id: "end" } -> more""",
        actions="""
        action B { store { id: "b" } -> side
          for r in side { post "/b/{r.id}"
            delete side[r.id]
            store r -> more } }""",
        stores=STORES,
    ),
    "pages in memory stores": PAGES_IN_MEMORY,
    "moved and counted, folded often": mission(
        """
        store { id: "c", n: 0 } -> counter
        get "/pages" { paginate: page(page, 2) }
        store response -> aside
        for r in aside checkpoint every 1 {
          store r -> behind
          store { id: "c", n: counter["c"].n + 1 } -> counter
          delete aside[r.id] }
        get "/list/l"
        store response -> aside
        for r in aside checkpoint every 2 { post "/note/{r.id}"
          store r -> behind
          store { id: "c", n: counter["c"].n + 1 } -> counter
          delete aside[r.id] }
        for r in behind checkpoint every 3 { post "/back/{r.id}"
          store { ...r, back: true } -> aside
          store { id: "c", n: counter["c"].n + 1 } -> counter
          delete behind[r.id] }""",
        # A removal from a store whose name comes first is folded first, were it not for the order of syncs.
        stores='store aside: file("aside")\nstore behind: file("behind")\nstore counter: file("counter")',
    ),
}


class Machine(PowerDisk):
    """Stays off once it has lost power."""

    def _step(self) -> None:
        self.operations += 1
        if self._power_off_at and self.operations >= self._power_off_at:
            raise PowerLoss


def kept(ran: Ran) -> dict[str, Any]:
    """What its stores hold in the end: files, and memory as long as the run knew of it."""
    return ran.stores


def is_completed(state: Path) -> bool:
    return any(b'"status": "completed"' in path.read_bytes() for path in (state / "execution").glob("*.json"))


class Losses:
    """Power losses of one mission, each at a random operation of the disk."""

    def __init__(self, text: str, api: ScriptedServer, tmp_path: Path, disk: type[Machine] = Machine) -> None:
        self.text, self.api, self.tmp_path, self.disk = text, api, tmp_path, disk
        self.site = Site(api)
        self.clock, self.plans = FakeClock(), dict[str, Plan]()
        self.operations = 0
        self.uncut: dict[str, Any] = {}
        self.files: list[str] = []
        self.asked: Counter[str] = Counter()

    async def learn(self) -> None:
        """Run it whole: what its stores hold then, what it asks for, how often it goes to the disk."""
        disk = Machine(self.tmp_path / "whole")
        self.api.seen.clear()
        bench = self.bench(self.tmp_path / "whole", disk)
        self.uncut, self.operations = kept((await bench.run(self.text)).ok()), disk.operations
        assert bench.runner is not None
        self.files = [name for name, opened in bench.runner.opened.items() if opened.store.kind == "file"]
        self.asked = Counter(self.site.targets())
        disk.close()

    def bench(self, state: Path, disk: Machine | None = None) -> Bench:
        return Bench(self.api, state, self.clock, disk=disk, plans=self.plans)

    def machine(self, root: Path, random: Random) -> Machine:
        """One that will lose its power at a random operation."""
        disk = self.disk(root)
        disk.start_up()
        disk._power_off_at = random.randint(1, self.operations)
        return disk

    @contextmanager
    def until_power_loss(self, root: Path, disk: Machine) -> Iterator[Bench]:
        """What is run inside may end with the machine's power; then nothing of it holds files any more."""
        bench = self.bench(root, disk)
        try:
            yield bench
        except (PowerLoss, BaseExceptionGroup):
            pass
        finally:
            assert bench.runner is not None
            for opened in bench.runner.opened.values():
                if isinstance(opened.store, FileStore):
                    opened.store._file._let_go()

    async def lose(self, seed: int, *, ways: int = 1) -> None:
        """The power goes once; in so many `ways` what was not synced survives or not; the resume of each.

        Of every second one the resume loses its power as well.
        """
        random = Random(seed)
        root = self.tmp_path / f"run{seed}"
        root.mkdir()
        self.api.seen.clear()
        disk = self.machine(root, random)
        with self.until_power_loss(root, disk) as bench:
            await bench.run(self.text)
        asked = [*self.api.seen]
        for way in range(ways):
            found = self.tmp_path / f"found{seed}-{way}"
            disk.after_power_loss(found, random)
            self.api.seen[:] = asked
            if (seed + way) % 2 and not is_completed(found):
                found = await self.lose_again(found, random)
            await (self.check if is_completed(found) else self.go_on)(found, (seed, way))
            shutil.rmtree(found)
        disk.close()
        shutil.rmtree(root)

    async def lose_again(self, found: Path, random: Random) -> Path:
        """The power goes while the run is being resumed; what is found then."""
        disk = self.machine(found, random)
        with self.until_power_loss(found, disk) as bench:
            await bench.resume(self.text)
        again = found.with_name(f"{found.name}-again")
        disk.after_power_loss(again, random)
        disk.close()
        shutil.rmtree(found)
        return again

    async def check(self, found: Path, which: object) -> None:
        """A run that says that all was done has it in its files, before anybody does more."""
        bench = self.bench(found)
        assert {name: bench.file_store(name) for name in self.files} == {n: self.uncut[n] for n in self.files}, which

    async def go_on(self, found: Path, which: object) -> None:
        """What was found after a power loss ends as an uncut run."""
        ran = await self.bench(found).resume(self.text)
        assert ran.outcome.success, (which, [e.format() for e in ran.outcome.errors])
        assert kept(ran) == self.uncut, which
        assert not list((found / "quarantine").glob("*.journal*")), which
        assert not set(self.asked) - {f"{s.method} {s.target}" for s in self.api.seen}, which


@pytest.mark.parametrize("case", MISSIONS)
async def test_after_a_power_loss_the_resumed_run_ends_as_an_uncut_one(
    case: str, api: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4: whole runs, O1 to O4 together; every second resume loses its power as well."""
    if "folded often" in case:
        monkeypatch.setattr(store_file, "MIN_FOLD_BYTES", 64)
    losses = Losses(MISSIONS[case], api, tmp_path)
    await losses.learn()
    for seed in range(667 if SLOW else 8):
        await losses.lose(seed, ways=3 if SLOW else 2)


class SyncsNoStores(Machine):
    """Stores are not synced before the checkpoint that counts on them."""

    def sync(self, fd: int, what: str) -> None:
        if what != "store":
            super().sync(fd, what)


class RenamesWithoutSync(Machine):
    def sync(self, fd: int, what: str) -> None:
        if what in ("store", "journal"):
            super().sync(fd, what)


def believe_every_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "holds", lambda *_: True)


def reset_the_log_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def fold(file: StoreFile, *, keep: bool = False) -> bool:
        file.flush()
        kept = file._log.path.read_bytes()
        file._disk.replace(file._log.path, file._first_line(), "store-log")
        file._disk.sync_dir(file.path.parent)
        file._log.path.write_bytes(kept)
        return whole(file, keep=keep)

    whole = StoreFile._fold
    monkeypatch.setattr(StoreFile, "_fold", fold)


def nothing(_: pytest.MonkeyPatch) -> None:
    pass


PLANTS: dict[str, tuple[type[Machine], Callable[[pytest.MonkeyPatch], None]]] = {
    "O1 and O2 out": (SyncsNoStores, believe_every_entry),
    "entry believed without its n": (Machine, believe_every_entry),
    "no fsync before rename": (RenamesWithoutSync, nothing),
    "log reset before the snapshot is safe": (Machine, reset_the_log_first),
}


@pytest.mark.parametrize("plant", PLANTS)
async def test_whole_runs_notice_a_planted_fault(
    plant: str, api: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D5: without each of these the test above fails. The fifth, a cut tail, is in tests/state and tests/stores."""
    disk, plants = PLANTS[plant]
    all_losses = [Losses(text, api, tmp_path / str(n), disk) for n, text in enumerate(MISSIONS.values())]
    for losses in all_losses:
        losses.tmp_path.mkdir()
        await losses.learn()
    plants(monkeypatch)

    async def lose_often() -> None:
        for seed in range(400):
            for losses in all_losses:
                losses.site.interrupt(0, lambda: None)
                await losses.lose(seed)

    with pytest.raises((AssertionError, JsonError)):
        await lose_often()


# --- full and broken disks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "number"), [("write", errno.ENOSPC), ("sync", errno.EIO)])
async def test_a_disk_that_refuses_ends_the_run_with_its_reason_and_the_next_one_completes(
    what: str, number: int, api: ScriptedServer, tmp_path: Path
) -> None:
    """D6: ENOSPC at the n-th write and all later ones, EIO at the n-th sync and all later ones, in whole runs."""
    text = MISSIONS["pages, then loops"]
    losses = Losses(text, api, tmp_path)
    await losses.learn()
    healthy = FailingDisk()
    await Bench(api, tmp_path / "count", disk=healthy).run(text)
    count = healthy.writes if what == "write" else healthy.syncs
    assert count > 15
    for nth in range(1, count + 1, 1 if SLOW else max(1, count // 6)):
        state = tmp_path / f"{what}{nth}"
        disk = FailingDisk(**{what: nth}, number=number, for_ever=True)
        bench = Bench(api, state, disk=disk)
        said = ""
        try:
            ran = await bench.run(text)
        except ReqonError as error:
            said = error.message
        else:
            said = " ".join(e.message for e in ran.outcome.errors)
            assert ran.record.status is not ExecutionStatus.COMPLETED or not said
        if not disk.refused:
            break  # pages are synced while the next one is on its way, now one more, now one less
        assert os.strerror(number).lower() in said.lower(), (nth, said)
        assert str(state) in said, (nth, said)
        disk._write = disk._sync = 0
        again = await Bench(api, state).resume(text)
        assert again.outcome.success, (nth, [e.format() for e in again.outcome.errors])
        assert kept(again) == losses.uncut, nth
        assert not list((state / "quarantine").glob("*")), nth
    assert nth > count * 2 // 3


# --- several runs of a daemon -----------------------------------------------------------------------------------------

MOVING = mission(
    """
    get "/list/l"
    store response -> aside
    for r in aside where .kids != null checkpoint every 2 { post "/note/{r.id}"
      store { ...r, moved: true } -> behind
      delete aside[r.id] }
    for r in behind where .id == "l1" { post "/back/{r.id}"
      store { ...r, back: true } -> aside
      delete behind[r.id] }""",
    stores='store aside: file("aside")\nstore behind: file("behind")',
).replace("mission M", "mission Moving")
BESIDE = mission(
    """
    for i in [1, 2, 3, 4, 5, 6] checkpoint every 1 { post "/beside/{i}"
      store { id: concat("n", i) } -> aside }
    post "/beside/end"
    for i in [7, 8] checkpoint every 1 { store { id: concat("n", i) } -> behind }""",
    stores='store aside: file("aside")\nstore behind: file("behind")',
).replace("mission M", "mission Beside")


async def together(benches: list[Bench], texts: list[str]) -> None:
    async with asyncio.TaskGroup() as runs:
        for bench, text in zip(benches, texts, strict=True):
            runs.create_task(bench.run(text))


@pytest.mark.parametrize("first", [MOVING, BESIDE], ids=["mover resumed first", "neighbour resumed first"])
async def test_a_record_moved_beside_another_run_is_lost_by_no_power_loss(
    first: str, api: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4: the other run syncs and folds the stores that it shares, whenever it likes."""
    monkeypatch.setattr(store_file, "MIN_FOLD_BYTES", 64)
    Site(api)
    disk = Machine(tmp_path / "whole")
    benches = [Bench(api, tmp_path / "whole", disk=disk) for _ in "ab"]
    await together(benches, [MOVING, BESIDE])
    whole = {name: benches[0].file_store(name) for name in ("aside", "behind")}
    assert set(whole["aside"]) == {"l1", *(f"n{i}" for i in range(1, 7))}, whole
    assert set(whole["behind"]) == {"l0", "l2", "l3", "n7", "n8"}, whole
    operations = disk.operations
    disk.close()
    for seed in range(150 if SLOW else 25):
        random = Random(seed)
        root, found = tmp_path / f"run{seed}", tmp_path / f"found{seed}"
        root.mkdir()
        disk = Machine(root)
        disk.start_up()
        disk._power_off_at = random.randint(1, operations)
        benches = [Bench(api, root, disk=disk) for _ in "ab"]
        with suppress(PowerLoss, BaseExceptionGroup):
            await together(benches, random.sample([MOVING, BESIDE], 2))
        for bench in benches:
            for opened in bench.runner.opened.values() if bench.runner is not None else ():
                if isinstance(opened.store, FileStore):
                    opened.store._file._let_go()
        disk.after_power_loss(found, random)
        disk.close()
        for text in (first, BESIDE if first is MOVING else MOVING):
            ran = await Bench(api, found).resume(text)
            assert ran.outcome.success, (seed, [e.format() for e in ran.outcome.errors])
        ended = {name: Bench(api, found).file_store(name) for name in ("aside", "behind")}
        assert ended == whole, (seed, {n: [*r] for n, r in ended.items()})
        shutil.rmtree(root)
        shutil.rmtree(found)
