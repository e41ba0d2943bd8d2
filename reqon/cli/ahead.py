"""What is loaded beside all that precedes the first request.

Half of aiohttp's 0.1 s are spent on reading certificates, which lets other threads run. That request's own import waits
for the one that was begun here.
"""

import os.path
import re
from collections.abc import Sequence
from threading import Thread

_MOST_BYTES = 1 << 20
_REQUEST = re.compile(rb"\b(?:get|post|put|patch|delete|call)\s+[\w\"']")

_begun = False


def load_client() -> None:
    """Load aiohttp in a thread of its own, for a process that is about to send requests."""
    global _begun  # noqa: PLW0603  # modules are the process's, too
    if not _begun:
        _begun = True
        Thread(target=_load, name="load-client").start()


def load_client_for(arguments: Sequence[str]) -> None:
    """As above, if a mission file among a run's arguments sends requests; a glance, for nothing can parse it yet.

    A wrong guess costs time, nothing else.
    """
    if not {"--dry-run", "--daemon"}.intersection(arguments) and any(map(_seems_to_ask, arguments)):
        load_client()


def _seems_to_ask(argument: str) -> bool:
    if not argument.endswith((".vague", ".reqon")) or not os.path.isfile(argument):  # noqa: PTH113  # pathlib is not loaded yet
        return False
    try:
        with open(argument, "rb") as file:  # noqa: PTH123  # as above
            return _REQUEST.search(file.read(_MOST_BYTES)) is not None
    except OSError:
        return False  # the loader says what is wrong with it


def _load() -> None:
    import aiohttp  # noqa: F401, PLC0415  # for those who import it later
