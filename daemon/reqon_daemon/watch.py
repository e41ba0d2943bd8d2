"""When to look at the mission files again: watchdog's thread, turned into one quiet event (spec/daemon.md 3)."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from reqon.clock import SYSTEM, Clock

log = logging.getLogger("reqon.watch")

QUIET_SECONDS = 0.25
SCAN_SECONDS = 10.0
_LONGEST_UNREST_SECONDS = 2.0
_JOIN_SECONDS = 1.0
# Reading a file is no change; our own scan would wake us for ever.
_NO_CHANGE = frozenset(("opened", "closed_no_write"))


class Watcher:
    """Says when it is time to look: after a change and 250 ms of quiet, and every 10 s in any case.

    Only looking decides what changed: links, mounts, a full event queue and swapped ConfigMaps name no file of ours.
    `works` is False where the system gives no events; then the scan alone finds changes.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        clock: Clock = SYSTEM,
        scan_seconds: float = SCAN_SECONDS,
        observer: Callable[[], BaseObserver] = Observer,
    ) -> None:
        self.works = False
        self._make_observer = observer
        self._paths = tuple(paths)
        self._clock = clock
        self._scan_seconds = scan_seconds
        self._stirred = asyncio.Event()
        self._count = 0
        self._observer: BaseObserver | None = None

    def start(self) -> None:
        """Begin to watch, from within the event loop. Whatever watchdog cannot do is logged, not raised."""
        folders = self._folders()
        handler = _Handler(self, asyncio.get_running_loop(), folders)
        try:
            observer = self._make_observer()
            for folder, recursive in sorted(folders.items()):
                observer.schedule(handler, str(folder), recursive=recursive)
            observer.start()
        except OSError as error:
            log.warning("changes are looked for every %g s only: no file events (%s)", self._scan_seconds, error)
            return
        self._observer = observer
        self.works = True

    def stir(self) -> None:
        """Something may have changed: SIGHUP, `reqon reload`, a file event."""
        self._count += 1
        self._stirred.set()

    async def looks(self) -> AsyncIterator[None]:
        """Yields whenever it is time to look."""
        while True:
            try:
                async with asyncio.timeout(self._scan_seconds):
                    await self._stirred.wait()
            except TimeoutError:
                yield
                continue
            await self._quiet()
            self._stirred.clear()
            yield

    async def _quiet(self) -> None:
        """Return after 250 ms without an event, or after 2 s of nothing but events."""
        waited, before = 0.0, -1
        while before != self._count and waited < _LONGEST_UNREST_SECONDS:
            before = self._count
            await self._clock.sleep(QUIET_SECONDS)
            waited += QUIET_SECONDS

    def stop(self) -> None:
        """End the thread; it gets a second."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(_JOIN_SECONDS)
            self._observer = None

    def _folders(self) -> dict[Path, bool]:
        """What to watch, and whether with what is below. A file is watched by its folder: editors replace files."""
        folders: dict[Path, bool] = {}
        for path in self._paths:
            if path.is_dir():
                folders[path] = True
            else:
                folders.setdefault(path.parent, False)
        return folders


class _Handler(FileSystemEventHandler):
    """Runs in watchdog's thread."""

    def __init__(self, watcher: Watcher, loop: asyncio.AbstractEventLoop, folders: Iterable[Path]) -> None:
        self._watcher = watcher
        self._loop = loop
        self._roots = tuple(str(folder) for folder in folders)

    def on_any_event(self, event: FileSystemEvent) -> None:
        # A rename over a file comes from a hidden name, but it does not go to one.
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        if event.event_type in _NO_CHANGE or all(map(self._is_private, paths)):
            return
        try:
            self._loop.call_soon_threadsafe(self._watcher.stir)
        except RuntimeError:
            return  # the loop is closed: nobody is left to tell

    def _is_private(self, path: str) -> bool:
        """Hidden, or below a hidden folder, as our state is; `..data` of a ConfigMap is not."""
        root = next((root for root in self._roots if path.startswith(root)), "")
        parts = Path(path[len(root) :]).parts
        return any(part.startswith(".") and not part.startswith("..") for part in parts)
