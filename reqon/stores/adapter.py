"""A store adapter, ours or a user's own, as the runtime asks it (spec/runtime.md 9.1, 9.7).

All calls are awaited here, plain methods run in a thread, optional methods that are missing are made up for, what is
raised becomes a StoreError, and one key never has two calls at the same time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from inspect import isawaitable, iscoroutinefunction
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

from reqon.errors import ConfigurationError, ReqonError, StoreError
from reqon.stores.base import WriteCounts, WriteMode, absent
from reqon.stores.filters import EVERYTHING, OPERATORS, StoreFilter
from reqon.stores.snapshot import UnreadableStoreError
from reqon.values import Record, Value, equal_json

BATCH = 500
NEEDED = ("get", "set", "update", "delete", "list", "clear")
Entry = tuple[str, Record]
_CLOSED = object()


class Turns:
    """Many may read at once, or one has the store alone."""

    def __init__(self) -> None:
        self._readers = 0
        self._writing = False
        self._change = asyncio.Condition()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        async with self._change:
            while self._writing:
                await self._change.wait()
            self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            await self._tell()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        async with self._change:
            while self._writing or self._readers:
                await self._change.wait()
            self._writing = True
        try:
            yield
        finally:
            self._writing = False
            await self._tell()

    async def _tell(self) -> None:
        async with self._change:
            self._change.notify_all()


class Adapter:
    """One adapter object, for one execution.

    Attributes:
        counts_changes: whether it is asked what a write changes; without that it writes blindly.
        can_iterate: whether it tells the keys of its records.
        filter_operators: the operators that it says it knows in filters; None, if it says nothing.
    """

    def __init__(
        self,
        name: str,
        target: Any = None,
        *,
        make: Callable[..., Any] | None = None,
        arguments: Sequence[Any] = (),
        counts_changes: bool = True,
        borrowed: bool = False,
    ) -> None:
        """`target` is the adapter; or `make`, plain or async, is called with `arguments` for it when it is opened.

        One that is `borrowed` is not closed.
        """
        self.name = name
        self.target = target
        self.counts_changes = counts_changes
        self._borrowed = borrowed
        self._make = make
        self._arguments = arguments
        self._turns = Turns()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # keys being read
        # Drivers of users' own may belong to the thread that made them; ours do not.
        self._thread = None if getattr(target, "thread_safe", False) else ThreadPoolExecutor(1, "reqon-store")
        if target is not None:
            self._check()

    def _check(self) -> None:
        for method in NEEDED:
            if not self.has(method):
                raise ConfigurationError(
                    f"the adapter of the store '{self.name}' has no method {method}",
                    hint=f"an adapter has {', '.join(NEEDED)}",
                )
        known = self.filter_operators
        listed = isinstance(known, Collection) and not isinstance(known, str)
        if known is not None and not (listed and all(word in OPERATORS for word in known)):
            raise ConfigurationError(
                f"filter_operators of the adapter of the store '{self.name}' must be a list of operators",
                hint=f"they are {', '.join(OPERATORS)}",
            )

    @property
    def filter_operators(self) -> Collection[str] | None:
        known: Collection[str] | None = getattr(self.target, "filter_operators", None)
        return known

    @property
    def can_iterate(self) -> bool:
        return self.has("iterate")

    def has(self, method: str) -> bool:
        return callable(getattr(self.target, method, None))

    # --- calls --------------------------------------------------------------------------------------------------------

    async def call(self, method: str, *arguments: Any, operation: str = "", key: str | None = None) -> Any:
        """What a method answers.

        Raises:
            StoreError: it raised; says what.
        """
        try:
            return await self._answer(getattr(self.target, method), *arguments)
        except ReqonError:
            raise
        except Exception as error:
            raise self._failed(method, error, operation or method, key) from error

    async def _answer(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if iscoroutinefunction(function):
            return await function(*arguments)
        answer = await self._in_thread(function, *arguments)
        return await answer if isawaitable(answer) else answer

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*arguments))

    def _failed(self, method: str, error: Exception, operation: str, key: str | None) -> StoreError:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        code = getattr(error, "code", None)
        return StoreError(
            f"the store '{self.name}' failed in {method}: {reason}",
            store=self.name,
            operation=operation,
            key=key,
            code=str(code) if isinstance(code, str | int) else None,
        )

    async def open(self) -> None:
        """Make the adapter, if it is still to be made, and connect.

        Raises:
            UnreadableStoreError: it cannot be used. ConfigurationError: it lacks a method, or cannot be configured so.
        """
        try:
            await self._open()
        except StoreError as error:
            await self.close()
            raise UnreadableStoreError(
                error.message, store=self.name, code=error.code, status=error.status, hint=error.hint
            ) from error

    async def _open(self) -> None:
        if self._make is not None:
            try:
                self.target = await self._answer(self._make, *self._arguments)
            except ReqonError:
                raise
            except Exception as error:
                raise self._failed("the factory", error, "init", None) from error
            self._check()
        if self.has("connect"):
            await self.call("connect", operation="init")

    async def close(self) -> None:
        """Let it go. Fine to call twice, and for one that was never opened."""
        if self.target is _CLOSED:
            return
        try:
            async with self._turns.writing():
                if not self._borrowed and self.has("close"):
                    await self.call("close", operation="set")
        finally:
            self.target = _CLOSED
            if self._thread is not None:
                self._thread.shutdown(wait=False)

    async def flush(self) -> None:
        """All that was written is where it belongs."""
        if self.has("flush"):
            async with self._turns.writing():
                await self.call("flush", operation="set")

    # --- reading ------------------------------------------------------------------------------------------------------

    async def get(self, key: str) -> Record | None:
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with self._turns.reading(), lock:
            found = await self.call("get", key, key=key)
        return None if found is None else self._record(found, key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Record]:
        async with self._turns.writing():
            return await self._get_many(keys)

    async def _get_many(self, keys: Sequence[str]) -> Mapping[str, Record]:
        if self.has("get_many"):
            found = await self.call("get_many", list(keys), operation="get")
            if not isinstance(found, Mapping):
                raise self._odd("get_many", found, "a dict", "get")
            return {key: self._record(record, key) for key, record in found.items()}
        each = [(key, await self.call("get", key, key=key)) for key in keys]
        return {key: self._record(record, key) for key, record in each if record is not None}

    def _record(self, found: Value, key: str) -> Record:
        if not isinstance(found, dict):
            raise self._odd("get", found, "a dict", "get", key)
        return found

    def _records(self, found: Any, operation: str = "list") -> list[Record]:
        if not isinstance(found, Sequence) or not all(isinstance(record, dict) for record in found):
            raise self._odd("list", found, "a list of dicts", operation)
        return list(found)

    def _entry(self, found: Any) -> Entry:
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
            raise self._odd("iterate", found, "keys with dicts", "list")
        return str(found[0]), found[1]

    def _odd(self, method: str, found: Any, wanted: str, operation: str, key: str | None = None) -> StoreError:
        """The error of an answer that is none."""
        return StoreError(
            f"the store '{self.name}' gave {type(found).__name__} in {method}, where {wanted} is wanted",
            store=self.name,
            operation=operation,
            key=key,
        )

    async def count(self, wanted: StoreFilter | None = None) -> int:
        async with self._turns.reading():
            return await self._count(wanted)

    async def _count(self, wanted: StoreFilter | None = None) -> int:
        if self.has("count"):
            number = await self.call("count", wanted)
            if not isinstance(number, int):
                raise self._odd("count", number, "a whole number", "count")
            return number
        everything = StoreFilter(wanted.where) if wanted is not None else None
        return len(self._records(await self.call("list", everything, operation="count"), "count"))

    async def keys(self, wanted: StoreFilter | None = None) -> list[str]:
        """The keys of the records that match, in order; for adapters that can iterate."""
        async with self._turns.reading():
            if self.has("keys"):
                return list(await self.call("keys", wanted, operation="list"))
            return [key async for batch in self._batches(wanted) for key, _ in batch]

    async def entries(self, wanted: StoreFilter | None = None) -> AsyncIterator[Sequence[Entry]]:
        """All keys and records in order, some hundred at a time. Without `iterate` the keys are those of `id`."""
        if self.can_iterate:
            async for batch in self._batches(wanted):
                yield batch
            return
        async with self._turns.reading():
            records = self._records(await self.call("list", wanted))
        yield [(str(record.get("id", "")), record) for record in records]

    async def _batches(self, wanted: StoreFilter | None) -> AsyncIterator[Sequence[Entry]]:
        try:
            found = self.target.iterate(wanted or EVERYTHING, BATCH)
            if isawaitable(found):
                found = await found
            if hasattr(found, "__aiter__"):
                batch: list[Entry] = []
                async for entry in found:
                    batch.append(self._entry(entry))
                    if len(batch) >= BATCH:
                        yield batch
                        batch = []
                if batch:
                    yield batch
                return
            iterator = iter(found)
            while batch := await self._in_thread(lambda: list(islice(iterator, BATCH))):
                yield [self._entry(entry) for entry in batch]
        except ReqonError:
            raise
        except Exception as error:
            raise self._failed("iterate", error, "list", None) from error

    async def list(self, wanted: StoreFilter | None = None) -> list[Record]:
        async with self._turns.reading():
            return self._records(await self.call("list", wanted))

    # --- writing ------------------------------------------------------------------------------------------------------

    async def write(self, batch: Sequence[Entry], mode: WriteMode) -> WriteCounts:
        """Write some records in order.

        Raises:
            StoreError: `refused` is set where the data is at fault; with bulk_upsert nothing was written then.
        """
        async with self._turns.writing():
            if self.has("bulk_upsert"):
                counts = await self.call("bulk_upsert", list(batch), str(mode), operation="set")
                counted = isinstance(counts, WriteCounts) and self.counts_changes
                return counts if counted else WriteCounts(added=len(batch))
            total = WriteCounts()
            for key, record in batch:
                await self._write_one(key, record, mode, total)
            return total

    async def _write_one(self, key: str, record: Record, mode: WriteMode, total: WriteCounts) -> None:
        blind = mode is WriteMode.REPLACE and not self.counts_changes
        stored = None if blind else await self.call("get", key, key=key)
        if stored is None:
            if mode is WriteMode.UPDATE:
                raise absent(self.name, key)
            await self.call("set", key, record, key=key)
            total.added += 1
            return
        stored = self._record(stored, key)
        new = record if mode is WriteMode.REPLACE else {**stored, **record}
        if self.counts_changes and equal_json(stored, new):
            total.unchanged += 1
            return
        await self.call("set", key, new, key=key)
        if self.counts_changes:
            total.updated += 1
        else:
            total.added += 1

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove records; how many were there."""
        async with self._turns.writing():
            if self.has("delete_many"):
                return int(await self.call("delete_many", list(keys), operation="delete"))
            gone = 0
            for key in keys:
                there = not self.counts_changes or await self.call("get", key, operation="delete", key=key) is not None
                told = await self.call("delete", key, key=key)
                gone += int(told) if isinstance(told, int) else int(there)
            return gone

    async def clear(self) -> int:
        """Remove all records; how many there were."""
        async with self._turns.writing():
            count = await self._count() if self.counts_changes else 0
            told = await self.call("clear")
            return told if isinstance(told, int) and not isinstance(told, bool) else count
