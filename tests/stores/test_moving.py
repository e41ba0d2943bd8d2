"""Records that one run moves between two stores, while another run writes to and syncs one of them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from reqon.files import DISK, FileSystem
from reqon.stores import store_file
from reqon.stores.file import FileStore
from reqon.stores.lines import reaches
from reqon.stores.registry import open_store
from reqon.stores.store_file import StoreFile
from tests.support.disks import PowerDisk, PowerLoss

SLOW = bool(os.environ.get("REQON_SLOW"))
KEYS = [f"k{number}" for number in range(6)]


def opened(root: Path, name: str, by: str, disk: FileSystem, *, settle: bool = True) -> FileStore:
    store = open_store("file", name, {}, directory=root, mission_directory=root, disk=disk, by=by, settle=settle)
    assert isinstance(store, FileStore)
    return store


class Mover:
    """One execution that moves records to and fro between two stores."""

    def __init__(self, root: Path, disk: FileSystem, by: str, keys: list[str]) -> None:
        self.stores = [opened(root, name, by, disk) for name in ("a", "b")]
        self.keys = keys
        for store in self.stores:
            store.join(self.stores)

    def move(self, random: Random) -> None:
        key = random.choice(self.keys)
        for here, there in (self.stores, self.stores[::-1]):
            record = here.get(key)
            if record is not None:
                there.put(key, {"moved": record["moved"] + 1})
                here.delete(key)
                return

    def refill(self, random: Random) -> None:
        """Empty a store into the other one."""
        here, there = random.sample(self.stores, 2)
        there.put_many([(key, here.get(key) or {}) for key in here.keys()])  # noqa: SIM118  # a method of the store
        here.clear()

    def flush(self, random: Random) -> None:
        for store in random.sample(self.stores, 2):
            store.flush()

    def checkpoint(self, _: Random) -> None:
        positions = [store.position() for store in self.stores]
        for store in self.stores:
            store.sync()
        for store, position in zip(self.stores, positions, strict=True):
            store.fold_if_long(position)


class Neighbour:
    """Another execution, which has one of the stores open."""

    def __init__(self, root: Path, disk: FileSystem) -> None:
        self.root, self.disk = root, disk
        self.store: FileStore | None = None
        self.count = 0

    def write(self, random: Random) -> None:
        if self.store is None:
            self.store = opened(self.root, random.choice("ab"), "neighbour", self.disk)
        self.count += 1
        self.store.put(f"n{self.count}", {"moved": self.count})

    def sync(self, _: Random) -> None:
        if self.store is not None:
            self.store.sync()
            self.store.fold_if_long(self.store.position())

    def close(self, _: Random) -> None:
        if self.store is not None:
            self.store.fold()
            self.store.close()
            self.store = None


def lose_power(tmp_path: Path, seed: int) -> None:
    """Whatever order the stores are opened in afterwards, and by whom: each record is in one of them, or in both."""
    random = Random(seed)
    root, found = tmp_path / f"run{seed}", tmp_path / f"found{seed}"
    root.mkdir()
    disk = PowerDisk(root)
    first = opened(root, "a", "first", disk)
    first.put_many([(key, {"moved": 0}) for key in KEYS])
    first.close()
    disk._power_off_at = disk.operations + random.randint(1, 60)
    files: list[StoreFile] = []
    try:
        movers = [Mover(root, disk, "mover", KEYS[:4])]
        if random.random() < 0.5:
            movers.append(Mover(root, disk, "other", KEYS[4:]))
        files = [store._file for store in movers[0].stores]
        neighbour = Neighbour(root, disk)
        acts: list[Callable[[Random], None]] = [neighbour.write, neighbour.sync, neighbour.close]
        for mover in movers:
            acts += [mover.move] * 4 + [mover.flush, mover.flush, mover.checkpoint]
        if len(movers) == 1:
            acts.append(movers[0].refill)
        while True:
            random.choice(acts)(random)
    except PowerLoss:
        pass
    finally:
        for one in files:
            one._let_go()
    disk.after_power_loss(found, random)
    disk.close()
    there: set[str] = set()
    names = random.sample(["a", "b"], 2)
    for turn, name in enumerate(names):
        store = opened(found, name, "later", DISK)
        # Numbers go on, so that a line that was lost may find another one in its place.
        for number in range(random.randint(0, 3)):
            store.put(f"z{turn}{number}", {})
            store.flush()
        store.close()
    for name in ("a", "b"):
        store = opened(found, name, "last", DISK)
        there |= set(store.keys())
        store.close()
    assert there.issuperset(KEYS), (seed, sorted(set(KEYS) - there))
    shutil.rmtree(root)
    shutil.rmtree(found)


@pytest.fixture(autouse=True)
def _folds_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "MIN_FOLD_BYTES", 150)


def test_a_record_that_is_moved_is_in_one_of_its_stores_after_any_power_loss(tmp_path: Path) -> None:
    """D4, for stores that several runs of a daemon share."""
    for seed in range(5_000 if SLOW else 300):
        lose_power(tmp_path, seed)


def believe_removals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreFile, "_holds", lambda *_: True)


def fold_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreFile, "_may_fold", lambda _: True)
    monkeypatch.setattr(StoreFile, "_sync_followed", lambda _: None)


def believe_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of another opening counts as well, if only its number is high enough."""

    def holds(self: StoreFile, store: str, place: tuple[str, int], elsewhere: Any) -> bool:
        return max(reaches(self.path.parent / store).values(), default=0) >= place[1]

    monkeypatch.setattr(StoreFile, "_holds", holds)


@pytest.mark.parametrize("plant", [believe_removals, fold_at_once, believe_numbers])
def test_that_is_seen_where_it_is_not_so(
    plant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D5: with each of these faults the test above fails."""
    plant(monkeypatch)

    def many_losses() -> None:
        for seed in range(3000):
            lose_power(tmp_path, seed)

    with pytest.raises(AssertionError):
        many_losses()
