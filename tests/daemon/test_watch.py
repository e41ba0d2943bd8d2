import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from reqon_daemon.watch import Watcher


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Looks:
    """Counts when the watcher says it is time to look."""

    def __init__(self) -> None:
        self.count = 0
        self._came = asyncio.Condition()

    async def collect(self, watcher: Watcher) -> None:
        async for _ in watcher.looks():
            async with self._came:
                self.count += 1
                self._came.notify_all()

    async def come(self, count: int, seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds), self._came:
            await self._came.wait_for(lambda: self.count >= count)


@asynccontextmanager
async def watching(
    *paths: Path, scan_seconds: float = 600.0, observer: Callable[[], BaseObserver] = Observer
) -> AsyncIterator[tuple[Watcher, Looks]]:
    watcher = Watcher(paths, scan_seconds=scan_seconds, observer=observer)
    looks = Looks()
    watcher.start()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(looks.collect(watcher))
        try:
            yield watcher, looks
        finally:
            task.cancel()
            watcher.stop()


def write(path: Path) -> None:
    path.write_text("mission B {}")


def rename_over(path: Path) -> None:
    new = path.with_name("4913")
    new.write_text("mission C {}")
    new.replace(path)


def recreate(path: Path) -> None:
    path.unlink()
    path.write_text("mission D {}")


def link_swap(path: Path) -> None:
    (path.parent / "..data_tmp").symlink_to(path.parent)
    (path.parent / "..data_tmp").replace(path.parent / "..data")


def below(path: Path) -> None:
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "x.vague").write_text("mission X {}")


@pytest.mark.parametrize("change", [write, rename_over, recreate, link_swap, below])
async def test_a_change_is_told_once_it_is_quiet(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "a.vague"
    path.write_text("mission A {}")
    async with watching(tmp_path) as (watcher, looks):
        assert watcher.works
        change(path)
        await looks.come(1)
        await asyncio.sleep(0.4)
        assert looks.count == 1


async def test_a_single_file_is_watched_by_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.vague"
    path.write_text("mission A {}")
    async with watching(path) as (_, looks):
        rename_over(path)
        await looks.come(1)


async def test_reading_a_file_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "a.vague"
    path.write_text("mission A {}")
    (tmp_path / ".vague-data").mkdir()
    async with watching(tmp_path) as (_, looks):
        for _ in range(3):
            path.read_text()
            (tmp_path / ".vague-data" / "x.json").write_text("{}")
        await asyncio.sleep(0.8)
        assert looks.count == 0
        write(path)
        await looks.come(1)


async def test_without_file_events_the_scan_goes_on(tmp_path: Path) -> None:
    """H4: inotify unavailable: found by scan."""

    def no_events() -> BaseObserver:
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    async with watching(tmp_path, scan_seconds=0.05, observer=no_events) as (watcher, looks):
        assert not watcher.works
        await looks.come(3)


async def test_missions_below_a_hidden_folder_are_watched(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "missions"
    folder.mkdir(parents=True)
    async with watching(folder) as (_, looks):
        write(folder / "a.vague")
        await looks.come(1)


async def test_an_editor_that_renames_a_hidden_file_is_seen(tmp_path: Path) -> None:
    hidden = tmp_path / ".a.vague.swp"
    hidden.write_text("mission A {}")
    async with watching(tmp_path) as (_, looks):
        hidden.replace(tmp_path / "a.vague")
        await looks.come(1)


async def test_a_signal_makes_it_look_at_once(tmp_path: Path) -> None:
    async with watching(tmp_path) as (watcher, looks):
        watcher.stir()
        await looks.come(1)


async def test_threads_and_descriptors_come_back(tmp_path: Path) -> None:
    """H2: threads and descriptors ± 0."""
    async with watching(tmp_path):
        pass
    threads, descriptors = threading.active_count(), open_files()
    for _ in range(5):
        async with watching(tmp_path) as (_, looks):
            write(tmp_path / "a.vague")
            await looks.come(1)
    assert threading.active_count() == threads
    assert open_files() == descriptors
