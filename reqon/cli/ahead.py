"""What is loaded beside all that precedes the first request.

Half of aiohttp's 0.1 s are spent on reading certificates, which lets other threads run. That request's own import waits
for the one that was begun here.
"""

import os.path
from collections.abc import Sequence
from threading import Thread

_MOST_BYTES = 1 << 20

_begun = False


def load_client() -> None:
    """Load aiohttp in a thread of its own, for a process that is about to send requests."""
    global _begun  # noqa: PLW0603  # modules are the process's, too
    if not _begun:
        _begun = True
        Thread(target=_load, name="load-client").start()


def load_client_for(arguments: Sequence[str]) -> None:
    """As above, if a mission file among a run's arguments has a source. A glance: nothing that can parse is there yet.

    A wrong guess costs time, nothing else.
    """
    if not {"--dry-run", "--daemon"}.intersection(arguments) and any(map(_names_source, arguments)):
        load_client()


def _names_source(argument: str) -> bool:
    if not argument.endswith(".vague") or not os.path.isfile(argument):  # noqa: PTH113  # pathlib is not loaded yet
        return False
    try:
        with open(argument, "rb") as file:  # noqa: PTH123  # as above
            return b"source" in file.read(_MOST_BYTES)
    except OSError:
        return False  # the loader says what is wrong with it


def _load() -> None:
    import aiohttp  # noqa: F401, PLC0415  # for those who import it later
