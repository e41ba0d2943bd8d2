"""Children that nobody waits for: what process 1 of a container must do (spec/reliability.md L5).

What a command for alerts leaves behind becomes a child of process 1, and there is no other one to collect it.
"""

import os
from contextlib import suppress
from dataclasses import dataclass


@dataclass(slots=True)
class Orphans:
    """Collects ended children that are not ours; `look` at every tick. Rests where we are not process 1.

    Our own are collected by whoever started them, as soon as the event loop hears of their end. So one that is still
    there at the next look is nobody's.
    """

    active: bool
    _seen: int | None = None

    @classmethod
    def of_this_process(cls) -> "Orphans":
        return cls(os.getpid() == 1)

    def look(self) -> None:
        if not self.active:
            return
        while (ended := _an_ended_child()) is not None and ended == self._seen:
            with suppress(ChildProcessError):
                os.waitpid(ended, os.WNOHANG)
        self._seen = ended


def _an_ended_child() -> int | None:
    """The process id of a child that has ended, which stays as it is."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid
