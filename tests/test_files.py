"""Files: replace, locks, and the log of checksummed lines."""

import errno
import os
import re
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon import files
from reqon.errors import StateError
from reqon.files import DISK, DamagedFileError, Disk, Lock, LockTakenError, Log, locked, seal, unseal
from tests.support.disks import FailingDisk
from tests.support.owners import Owner


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


# --- replace and create ---


def test_replace_leaves_the_new_content_and_nothing_else(tmp_path: Path) -> None:
    for content in (b"one", b"two", b""):
        DISK.replace(tmp_path / "a.json", content, "record")
        assert (tmp_path / "a.json").read_bytes() == content
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("disk", [FailingDisk(write=1), FailingDisk(sync=1, for_ever=True, number=errno.EIO)])
def test_a_replace_that_fails_leaves_the_old_content(tmp_path: Path, disk: FailingDisk) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    with pytest.raises(OSError, match=r"No space|Input/output"):
        disk.replace(tmp_path / "a.json", b"new", "record")
    assert (tmp_path / "a.json").read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_a_replace_whose_sync_failed_once_is_done_with_another_file(tmp_path: Path) -> None:
    disk = FailingDisk(sync=1, number=errno.EIO)
    disk.replace(tmp_path / "a.json", b"new", "record")
    assert disk.writes == 2
    assert names(tmp_path) == ["a.json"]


def test_replace_writes_a_spare_along(tmp_path: Path) -> None:
    path, spare = tmp_path / "a.json", tmp_path / ".a.spare"
    DISK.replace(path, b"one", "record", spare=spare)
    DISK.replace(path, b"two", "record", durable=False)
    assert (path.read_bytes(), spare.read_bytes()) == (b"two", b"one")
    DISK.replace(path, b"three", "record", spare=spare)
    assert (path.read_bytes(), spare.read_bytes()) == (b"three", b"three")
    assert names(tmp_path) == [".a.spare", "a.json"]


def test_of_many_who_create_a_file_one_succeeds(tmp_path: Path) -> None:
    made: list[int] = []
    start = threading.Barrier(8)

    def create(n: int) -> None:
        start.wait()
        if DISK.create(tmp_path / "a", b"%d" % n, "record"):
            made.append(n)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "a").read_bytes() == b"%d" % made[0]
    assert names(tmp_path) == ["a"]


def test_many_who_replace_a_file_never_mix(tmp_path: Path) -> None:
    def replace(n: int) -> None:
        for _ in range(20):
            DISK.replace(tmp_path / "a", b"%d" % n * 1000, "record", durable=False)

    threads = [threading.Thread(target=replace, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (tmp_path / "a").read_bytes()
    assert content == content[:1] * 1000
    assert names(tmp_path) == ["a"]


def test_failpoints_stand_around_each_sync_and_replace(tmp_path: Path) -> None:
    passed: list[str] = []
    files.arm("*", passed.append)
    try:
        DISK.replace(tmp_path / "a", b"", "record")
    finally:
        files.arm("*", None)
    DISK.replace(tmp_path / "a", b"", "record")
    assert passed == ["before-record-sync", "after-record-sync", "before-record-replace", "after-record-replace"]


def test_a_write_that_the_system_cuts_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr("os.write", lambda fd, data: write(fd, bytes(data)[:7]))
    DISK.replace(tmp_path / "a", bytes(range(100)), "record")
    assert (tmp_path / "a").read_bytes() == bytes(range(100))


# --- reading ---


@pytest.mark.parametrize(
    "make",
    [lambda p: p.mkdir(), os.mkfifo, lambda p: p.symlink_to("/etc/hostname"), lambda p: p.symlink_to("/dev/zero")],
)
def test_only_regular_files_are_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a")
    with pytest.raises(DamagedFileError, match="not a regular file"):
        DISK.read(tmp_path / "a")


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert DISK.read(tmp_path / "a", 5) == b"12345"
    with pytest.raises(DamagedFileError, match="5 bytes"):
        DISK.read(tmp_path / "a", 4)


def test_what_is_absent_is_told_from_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DISK.read(tmp_path / "a")
    assert DISK.list(tmp_path / "b") == []
    (tmp_path / "c").touch()
    with pytest.raises(NotADirectoryError):
        DISK.list(tmp_path / "c")
    DISK.remove(tmp_path / "a")


# --- locks ---


def test_a_lock_is_held_once_and_released(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "l"), Lock(tmp_path / "l")
    assert first.take(note="me")
    assert first.take()
    assert first.held
    assert not second.take()
    assert second.note() == "me"
    first.release()
    assert second.take()
    second.release()
    assert (tmp_path / "l").exists()


def test_a_lock_whose_file_went_or_was_replaced_keeps_nobody_away(tmp_path: Path) -> None:
    path, aside = tmp_path / "l", tmp_path / "aside"
    lock, other = Lock(path), Lock(path)
    seen = [lock.stands, lock.take(), lock.stands]
    path.rename(aside)
    seen += [lock.stands, other.take(), other.stands, lock.stands, lock.held]
    aside.replace(path)
    seen += [lock.stands, other.stands]
    lock.release()
    assert [*seen, lock.stands] == [False, True, True, False, True, True, False, True, True, False, False]


def test_a_lock_whose_note_has_no_room_is_an_error_and_not_held(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(StateError, match=re.escape(str(tmp_path / "lock"))):
            lock.take(note="4711")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not lock.held
    assert Lock(tmp_path / "lock").take(note="4711")


def test_a_lock_that_is_held_longer_than_one_waits_is_an_error(tmp_path: Path) -> None:
    with Owner(tmp_path, "daemon") as owner:
        assert owner.answer() == "held"
        with pytest.raises(LockTakenError), locked(tmp_path / "daemon.lock", wait_seconds=0.05):
            pass
        owner.kill()
        with locked(tmp_path / "daemon.lock", wait_seconds=5):
            pass


def test_a_lock_waits_for_its_turn(tmp_path: Path) -> None:
    counted = 0

    def count() -> None:
        nonlocal counted
        for _ in range(25):
            with locked(tmp_path / "l"):
                seen = counted
                threading.Event().wait(0.0001)
                counted = seen + 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted == 100


def test_a_lock_that_is_no_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    with pytest.raises(StateError):
        Lock(tmp_path / "l").take()
    with pytest.raises(StateError, match="cannot open the lock"):
        Lock(tmp_path / "absent" / "l").take()


# --- logs ---


@given(st.binary(max_size=60).filter(lambda b: b"\n" not in b))
def test_a_sealed_line_gives_its_content_back(content: bytes) -> None:
    assert unseal(seal(content)) == content
    assert len(seal(content)) == len(content) + files.SEAL_LENGTH


@given(st.binary(max_size=40).filter(lambda b: b"\n" not in b), st.integers(0, 1000), st.integers(0, 255))
def test_a_line_with_one_wrong_byte_is_told(content: bytes, at: int, byte: int) -> None:
    line = bytearray(seal(content))
    at %= len(line)
    if line[at] != byte:
        line[at] = byte
        assert unseal(bytes(line)) is None
    assert unseal(bytes(line[:at])) is None


LINES = st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b" ")), max_size=8)


@settings(max_examples=60, deadline=None)
@given(first=LINES, second=LINES, cut=st.integers(0, 500))
def test_a_log_goes_on_behind_its_last_whole_line(
    tmp_path_factory: pytest.TempPathFactory, first: list[bytes], second: list[bytes], cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    log = Log(path, what="store")
    log.append(b"".join(map(seal, first)))
    log.sync()
    log.close()
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) - cut % 40])
    kept = [content for _, content in Log(path, what="store").lines()]
    assert kept == first[: len(kept)]
    again = Log(path, what="store")
    for line in second:
        again.append(seal(line))
    again.close()
    assert [content for _, content in Log(path, what="store").lines()] == kept + second


def test_half_a_line_is_cut_off_before_the_next_one(tmp_path: Path) -> None:
    disk = FailingDisk(write=2)
    log = Log(tmp_path / "a.log", what="store", disk=disk)
    log.append(seal(b"one"))
    with pytest.raises(OSError, match="No space"):
        log.append(seal(b"two" * 100))
    log.append(seal(b"three"))
    log.close()
    assert [content for _, content in Log(tmp_path / "a.log", what="store").lines()] == [b"one", b"three"]


def test_half_a_line_that_cannot_be_cut_off_now_is_cut_off_later(tmp_path: Path) -> None:
    class Stubborn(FailingDisk):
        refusals = 1

        def truncate(self, fd: int, length: int) -> None:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.EIO, "no")
            super().truncate(fd, length)

    log = Log(tmp_path / "a.log", what="store", disk=Stubborn(write=2))
    log.append(seal(b"one"))
    with pytest.raises(OSError, match="No space"):
        log.append(seal(b"two" * 100))
    log.append(seal(b"three"))
    log.close()
    assert [content for _, content in Log(tmp_path / "a.log", what="store").lines()] == [b"one", b"three"]


def test_a_log_read_in_part_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(seal(b"one") + seal(b"two"))
    log = Log(path, what="store")
    assert next(log.lines()) == (0, b"one")
    log.append(seal(b"three"))
    log.close()
    assert [content for _, content in Log(path, what="store").lines()] == [b"one", b"two", b"three"]


def test_damage_before_good_lines_is_an_error_until_it_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(seal(b"one") + b"dam" + seal(b"age") + seal(b"two"))
    log = Log(path, what="store")
    found: list[tuple[int, bytes]] = []
    with pytest.raises(DamagedFileError, match="damaged at byte 13"):
        found.extend(log.lines())
    assert [content for _, content in found or [(0, b"one")]] == [b"one"]
    with pytest.raises(DamagedFileError):
        log.open()
    log.open(forget_tail=True)
    log.append(seal(b"three"))
    log.close()
    assert [content for _, content in Log(path, what="store").lines()] == [b"one", b"three"]


def test_a_new_logs_name_is_made_safe_by_its_first_sync(tmp_path: Path) -> None:
    synced: list[Path] = []

    class Watched(Disk):
        def sync_dir(self, path: Path) -> None:
            synced.append(path)
            super().sync_dir(path)

    for _ in range(2):
        log = Log(tmp_path / "a.log", what="store", disk=Watched())
        log.append(seal(b"one"))
        log.sync()
        log.append(seal(b"two"))
        log.sync()
        log.close()
    assert synced == [tmp_path]


def test_a_log_that_shrank_behind_our_back_is_not_filled_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(seal(b"one") + seal(b"two"))
    log = Log(path, what="store")
    assert len(list(log.lines())) == 2
    path.write_bytes(seal(b"one"))
    with pytest.raises(DamagedFileError, match="were read before"):
        log.append(seal(b"three"))


def test_a_file_is_copied_whole_and_only_to_a_new_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    files.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"x" * 3_000_000
    with pytest.raises(FileExistsError):
        files.copy_file(tmp_path / "a", tmp_path / "b")


def test_a_sync_waits_for_the_one_that_is_under_way(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Disk):
        def sync(self, fd: int, what: str) -> None:
            begun.set()
            assert go_on.wait(10)
            super().sync(fd, what)

    log = Log(tmp_path / "a.log", what="store", disk=Slow())
    log.append(seal(b"one"))
    threads = [threading.Thread(target=log.sync) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    log.append(seal(b"two"))  # writers go on
    assert all(thread.is_alive() for thread in threads)
    go_on.set()
    for thread in threads:
        thread.join(10)
    log.close()


def test_a_lock_can_go_with_what_it_was_for(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "l")
    lock.remove()
    assert lock.take()
    lock.remove()
    assert not lock.held
    assert names(tmp_path) == []
