"""State stores as users write them: one that can do everything, and one that can only save and load."""

import copy
import threading
import time
from collections.abc import Sequence
from typing import Any

State = dict[str, Any]
States = list[State]


class FullStore:
    """Keeps all in memory, with coroutine functions and plain ones. `threads` are those that called it."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.journals: dict[str, States] = {}
        self.sync: dict[str, State] = {}
        self.leases: dict[str, tuple[str, float]] = {}
        self.saved = 0
        self.threads: set[int] = set()

    async def save(self, state: State) -> None:
        self.saved += 1
        self.threads.add(threading.get_ident())
        self.states[state["executionId"]] = {**copy.deepcopy(state), "_id": object()}

    async def load(self, execution_id: str) -> State | None:
        return self.states.get(execution_id)

    async def list(
        self, mission: str | None = None, limit: int | None = None, since: str | None = None, status: str | None = None
    ) -> States:
        self.threads.add(threading.get_ident())
        chosen = [
            state
            for state in self.states.values()
            if mission in (None, state["mission"])
            and (since is None or state["startedAt"] >= since)
            and status in (None, state["status"])
        ]
        return sorted(chosen, key=lambda state: state["startedAt"], reverse=True)[:limit]

    def delete(self, execution_id: str) -> None:
        self.states.pop(execution_id, None)

    def append(self, execution_id: str, entries: States) -> None:
        self.journals.setdefault(execution_id, []).extend(entries)

    def replay(self, execution_id: str) -> States:
        return list(self.journals.get(execution_id, []))

    def discard(self, execution_id: str) -> None:
        self.journals.pop(execution_id, None)

    async def forget(self, execution_id: str, numbers: Sequence[int]) -> None:
        gone = set(numbers)
        kept = [entry for entry in self.journals.get(execution_id, []) if entry["n"] not in gone]
        self.journals[execution_id] = kept

    async def lease(self, mission: str, owner: str, ttl: float) -> bool:
        holder, until = self.leases.get(mission, ("", 0.0))
        if holder != owner and until > time.monotonic():
            return False
        self.leases[mission] = (owner, time.monotonic() + ttl)
        return True

    async def get_sync(self, key: str | None) -> Any:
        return dict(self.sync) if key is None else self.sync.get(key)

    async def put_sync(self, changes: State) -> None:
        self.sync |= changes

    async def clear_sync(self, key: str | None) -> None:
        self.sync = {} if key is None else {k: v for k, v in self.sync.items() if k != key}


class SmallStore:
    """Only what must be: the seed page's own example."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}

    async def save(self, state: State) -> None:
        self.states[state["executionId"]] = copy.deepcopy(state)

    async def load(self, execution_id: str) -> State | None:
        return self.states.get(execution_id)


class BrokenStore(SmallStore):
    """Its database is gone."""

    async def save(self, state: State) -> None:
        raise ConnectionRefusedError("no database")
