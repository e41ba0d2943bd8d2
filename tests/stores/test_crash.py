"""What a kill, a power loss, a full disk or damage leave of a store file."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reqon.errors import StoreError
from reqon.files import FileSystem, seal
from reqon.stores.file import FileStore
from reqon.stores.store_file import StoreFile
from reqon.values import Record
from tests.stores.test_file import content, open_file
from tests.stores.writer import KEYS, record
from tests.support.disks import FailingDisk, PowerDisk, PowerLoss

ROOT = Path(__file__).parents[2]
WRITER = (sys.executable, "-m", "tests.stores.writer")


def copy(path: Path, to: Path) -> Path:
    """The store's files without its lock, elsewhere."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for suffix in (".json", ".log"):
        if path.with_suffix(suffix).exists():
            shutil.copy(path.with_suffix(suffix), to)
    return to / path.name


# --- kills ------------------------------------------------------------------------------------------------------------


def test_a_log_cut_anywhere_holds_what_was_flushed_before(tmp_path: Path) -> None:
    path = tmp_path / "s" / "s.json"
    store = open_file(path)
    store.put_many([("kept", {"n": 0}), ("gone", {"n": 0})])
    store.close()
    log = path.with_suffix(".log")
    store = open_file(path)
    states: list[tuple[int, int, dict[str, Record]]] = []

    def flushed() -> None:
        store.flush()
        states.append((log.stat().st_size, store.position(), dict(zip(store.keys(), store.records(), strict=True))))

    flushed()
    store.put("a", {"n": 1})
    flushed()
    store.delete("gone")
    store.put("a", {"n": 2, "t": "\u00e9\n\t"})
    flushed()
    store.clear()
    store.put("b", {})
    flushed()
    whole = log.read_bytes()
    for cut in range(states[0][0], len(whole) + 1):
        other = copy(path, tmp_path / "cut")
        other.with_suffix(".log").write_bytes(whole[:cut])
        _, position, expected = max((s for s in states if s[0] <= cut), key=lambda s: s[0])
        again = open_file(other)
        assert again.position() == position, cut
        assert dict(zip(again.keys(), again.records(), strict=True)) == expected, cut
        again.put("later", {"n": 1})
        again.close()
        assert content(other) == expected | {"later": {"n": 1}}, cut
    store.close()


POINTS = ["before-store-snapshot-sync", "before-store-snapshot-replace", "after-store-snapshot-replace"]
POINTS += ["before-store-log-sync", "before-store-log-replace", "after-store-log-replace", "before-store-sync"]


@pytest.mark.parametrize("failpoint", POINTS)
def test_a_kill_in_the_middle_of_a_fold_changes_nothing(failpoint: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    run = subprocess.run([*WRITER, path, failpoint], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    assert (run.returncode, run.stdout.split()[-1]) == (-signal.SIGKILL, b"20")
    expected: dict[str, Record] = {}
    for number in range(1, 21):
        expected[f"k{number % KEYS}"] = record(number)
        if number % 5 == 0:
            expected.pop(f"k{(number + 1) % KEYS}", None)
            expected[f"k{(number + 1) % KEYS}"] = record(number)
    found = content(path)
    assert found == expected
    assert list(found) == list(expected)
    store = open_file(path)
    assert store.position() == 20
    store.close()


def test_a_killed_writer_leaves_all_that_it_had_flushed(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    chance = random.Random(7)
    for _ in range(8):
        with subprocess.Popen([*WRITER, path], cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(chance.randint(1, 200))]
            writer.kill()
            lines += writer.stdout.read().splitlines()
        last = int(lines[-1])
        store = open_file(path)
        numbers = {key: int(found["number"]) for key, found in zip(store.keys(), store.records(), strict=True)}
        assert last <= max(numbers.values()) <= last + 1
        assert all(store.get(key) == record(number) for key, number in numbers.items())
        store.close()
        assert json.loads(path.read_bytes())


# --- power ------------------------------------------------------------------------------------------------------------


def run_until_power_loss(
    root: Path, disk: FileSystem, seed: int, kind: type[StoreFile] = StoreFile
) -> tuple[dict[int, dict[str, Record]], int]:
    """The store's content at each number, and the last number that a sync promised to keep."""
    chance = random.Random(seed)
    states: dict[int, dict[str, Record]] = {0: {}}
    promised = 0
    file: StoreFile | None = None
    try:
        for _ in range(3):
            file = kind(root / "s.json", disk=disk)
            file.open(wait_seconds=0)
            store = FileStore("s", file)
            for _ in range(chance.randint(1, 6)):
                for _ in range(chance.randint(1, 3)):
                    key = chance.choice("abcdef")
                    if chance.random() < 0.25:
                        store.delete(key)
                    else:
                        store.put(key, {"v": chance.randint(0, 9), "pad": "x" * chance.choice((0, 200))})
                store.flush()
                states[store.position()] = dict(zip(store.keys(), store.records(), strict=True))
                if chance.random() < 0.5:
                    store.sync()
                    promised = store.position()
            store.close()
            promised = store.position()
            file = None
    except PowerLoss:
        pass
    finally:
        if file is not None:
            file._let_go()
    return states, promised


def lose_power(tmp_path: Path, seed: int, make: Callable[..., PowerDisk], kind: type[StoreFile] = StoreFile) -> None:
    """One power loss at a random operation; raises AssertionError or StoreError if it costs what was promised."""
    root = tmp_path / f"run{seed}"
    root.mkdir()
    chance = random.Random(seed)
    disk = make(root, power_off_at=chance.randint(1, 120))
    disk.sync_dir(root)
    states, promised = run_until_power_loss(root, disk, seed, kind)
    for again in range(3):
        found = disk.after_power_loss(tmp_path / f"found{seed}-{again}", chance)
        store = open_file(found / "s.json")
        position = store.position()
        assert position >= promised
        assert dict(zip(store.keys(), store.records(), strict=True)) == states[position]
        store.close()
    disk.close()
    shutil.rmtree(root)


@pytest.mark.parametrize("seed", range(60))
def test_a_power_loss_costs_at_most_what_was_not_synced(tmp_path: Path, seed: int) -> None:
    """D4, the store's part."""
    lose_power(tmp_path, seed, PowerDisk)


class NoSyncBeforeRename(PowerDisk):
    def sync(self, fd: int, what: str) -> None:
        if what == "store":
            super().sync(fd, what)


class ForgetsToSync(StoreFile):
    def sync(self) -> None:
        self.flush()


class LogFirst(StoreFile):
    """Begins the log anew before the snapshot is safe."""

    def fold(self, *, keep: bool = False) -> None:
        self.flush()
        kept = self._log.path.read_bytes()
        self._disk.replace(self._log.path, self._first_line(), "store-log")
        self._log.path.write_bytes(kept)
        super().fold(keep=keep)


class KeepsCutTail(StoreFile):
    """Appends behind half a line."""

    def _load(self) -> None:
        super()._load()
        if self._log.is_open:
            self._disk.append(self._log._fd or 0, b'{"n":')
            self._log.size += 5


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (NoSyncBeforeRename, StoreFile),
        (PowerDisk, ForgetsToSync),
        (PowerDisk, LogFirst),
        (PowerDisk, KeepsCutTail),
    ],
    ids=["no sync before rename", "no sync at checkpoints", "log reset first", "cut tail kept"],
)
def test_the_power_test_notices_a_planted_fault(make: type[PowerDisk], kind: type[StoreFile], tmp_path: Path) -> None:
    """D5, the store's part."""

    def many_losses() -> None:
        for seed in range(200):
            lose_power(tmp_path, seed, make, kind)

    with pytest.raises((AssertionError, StoreError, KeyError)):
        many_losses()


# --- full and broken disks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["write", "sync"])
@pytest.mark.parametrize("for_ever", [False, True])
def test_a_disk_that_refuses_costs_nothing_that_was_safe(tmp_path: Path, failing: str, for_ever: bool) -> None:
    """D6, the store's part."""
    for at in range(1, 40):
        root = tmp_path / str(at)
        disk = FailingDisk(**{failing: at}, for_ever=for_ever)
        flushed: dict[str, Record] = {}
        named = True
        file = StoreFile(root / "s.json", disk=disk)
        try:
            file.open(wait_seconds=0)
            store = FileStore("s", file)
            for number in range(8):
                store.put(f"k{number}", {"n": number})
                store.sync()
                flushed[f"k{number}"] = {"n": number}
            store.close()
        except StoreError as error:
            named = "s.json" in error.message
        finally:
            file._let_go()
        found = content(root / "s.json")
        assert named
        assert {key: found.get(key) for key in flushed} == flushed
        if not disk.refused:
            break
    else:
        pytest.fail("the run never got through")


# --- damage -----------------------------------------------------------------------------------------------------------

WHOLE = b'{\n  "a": {\n    "n": 1\n  },\n  "b": {\n    "n": 2\n  }\n}\n'
DAMAGES = {
    "cut": WHOLE[:30],
    "cut before its end": WHOLE[:-3],
    "empty": b"",
    "NULs": bytes(200),
    "NULs inside": WHOLE[:20] + bytes(8) + WHOLE[28:],
    "not JSON": b"\x89PNG\r\n\x1a\n",
    "wrong type": b'"orders"',
    "a record of the wrong type": b'{\n  "a": {\n    "n": 1\n  },\n  "b": 7\n}\n',
    "an array of numbers": b"[1, 2]",
    "deep": b'{\n  "a": {\n    "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"\n  }\n}\n",
    "deep and elsewhere laid out": b'{"a": {"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "NaN": b'{\n  "a": {\n    "n": NaN\n  }\n}\n',
    "bad UTF-8": b'{\n  "a": {\n    "n": "\xff"\n  }\n}\n',
    "a key twice": b'{\n  "a": {\n    "n": 1\n  },\n  "a": {\n    "n": 2\n  }\n}\n',
    "a key twice, on one line": b'{"a": {"n": 1}, "a": {"n": 2}}',
    "an id twice": b'[{"id": 1}, {"id": "1"}]',
    "text behind it": WHOLE + b"{}",
}


@contextmanager
def refused_as_it_is(path: Path) -> Iterator[None]:
    """The store says no in time, names the file, and leaves it alone."""
    before = path.lstat()
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"orders\.(json|log)") as caught:
        yield
    assert time.monotonic() - began < 15
    assert (caught.value.operation, caught.value.exit_code) == ("init", 3)
    after = path.lstat()
    assert (after.st_size, after.st_mtime_ns, after.st_mode) == (before.st_size, before.st_mtime_ns, before.st_mode)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_and_left_alone(damage: bytes, tmp_path: Path) -> None:
    """D8, the file of a store."""
    path = tmp_path / "orders.json"
    path.write_bytes(damage)
    with refused_as_it_is(path):
        open_file(path)
    assert path.read_bytes() == damage


@pytest.mark.parametrize("name", ["orders.json", "orders.log"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    """D8: link, FIFO, directory, unreadable."""
    path = tmp_path / name
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"{}")
    path.symlink_to(elsewhere)
    with refused_as_it_is(path):
        open_file(tmp_path / "orders.json")
    assert elsewhere.read_bytes() == b"{}"
    path.unlink()
    os.mkfifo(path)
    with refused_as_it_is(path):
        open_file(tmp_path / "orders.json")
    path.unlink()
    path.mkdir()
    with refused_as_it_is(path):
        open_file(tmp_path / "orders.json")


def test_a_gigabyte_of_nothing_is_refused_at_once(tmp_path: Path) -> None:
    """D8: 1 GiB."""
    path = tmp_path / "orders.json"
    for head in (b"", b'{\n  "a": {'):
        path.write_bytes(head)
        os.truncate(path, 1 << 30)
        with refused_as_it_is(path):
            open_file(path)


def test_a_log_damaged_in_the_middle_is_kept_and_used_up_to_there(tmp_path: Path) -> None:
    """D8, the log of a store."""
    path = tmp_path / "stores" / "orders.json"
    store = open_file(path)
    ends = []
    for number in range(3):
        store.put(f"k{number}", {"n": number})
        store.flush()
        ends.append(path.with_suffix(".log").stat().st_size)
    damaged = bytearray(path.with_suffix(".log").read_bytes())
    damaged[ends[0] + 5] ^= 1
    other = copy(path, tmp_path / "copy")
    other.with_suffix(".log").write_bytes(damaged)
    store.close()
    again = open_file(other, quarantine=tmp_path / "quarantine")
    assert (again.keys(), again.position()) == (["k0"], 1)
    assert "orders.log is damaged at byte" in again.warnings[0]
    assert [kept.read_bytes() for kept in (tmp_path / "quarantine").iterdir()] == [damaged]
    again.put("new", {})
    again.close()
    assert list(content(other)) == ["k0", "new"]


def test_a_log_of_another_version_is_refused(tmp_path: Path) -> None:
    """D8: newer version, wrong type."""
    log = tmp_path / "orders.log"
    for line in (b'{"n":"x"}', b"[1]", b'{"put":{}}'):
        log.write_bytes(seal(line))
        with refused_as_it_is(log):
            open_file(tmp_path / "orders.json")
        assert log.read_bytes() == seal(line)


def test_a_leftover_of_a_killed_replace_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    (tmp_path / ".orders.json.0123abcd.tmp").write_bytes(b"{")
    store = open_file(path)
    store.put("a", {})
    store.close()
    assert content(path) == {"a": {}}
