"""Running a loop: its frozen list, where it is, when it saves, and how it lets others run (spec/language.md 7.3)."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from reqon.clock import perf_seconds
from reqon.errors import EvaluatorError, ParallelError, ReqonError, ReqonRuntimeError
from reqon.events import LoopIteration
from reqon.lang.operators import StoreHandle
from reqon.runtime.execution import preview
from reqon.runtime.frame import Frame
from reqon.runtime.kept import given_back, kept
from reqon.runtime.loop_lists import FrozenRecords, Kept, filtered, iterate, loop_input
from reqon.runtime.resume import LoopPosition
from reqon.runtime.stopping import StopRun
from reqon.runtime.telling import tell_iteration, tell_loop, tell_loop_end
from reqon.state.compaction import InnerRound
from reqon.state.records import ActiveStep, Checkpoint
from reqon.stores.file import FileStore
from reqon.stores.frozen import StoreSnapshot
from reqon.stores.remote import RemoteStore
from reqon.stores.remote_frozen import RemoteSnapshot
from reqon.values import Value, encode

# How long a loop works before it lets others run; below the 10 ms that are promised, and above sys.getswitchinterval():
# a thread that waits for the interpreter asks for it after that interval, and starts to wait anew whenever the loop
# gives it away and takes it back before that thread has woken up. With slices below the interval it never asks.
SLICE_SECONDS = 0.007


@dataclass(frozen=True, slots=True)
class LoopSpec:
    """What is known of an outermost loop before it runs.

    Attributes:
        path: the step's place in its action.
        repeatable: its collection is a path into `response` or variables, or computed from them alone: a resume
            evaluates it again instead of reading it from the journal.
        remembers: its items send more than one request each, so that their answers are kept while they are in work.
    """

    path: str
    label: str  # as people see it: `for order in orders`
    location: str  # of what it goes through: `file:line:col`
    variable: str
    has_filter: bool
    parallel: bool
    repeatable: bool
    remembers: bool = False


class LoopRun:
    """One outermost loop while it runs. Also the `tick` that generated code asks whether it is time to look up."""

    def __init__(self, f: Frame, spec: LoopSpec, items: Sequence[Value], every: int | None) -> None:
        self.f = f
        self.spec = spec
        self.items = items
        self.total = len(items)
        self.every = every
        self.is_journaled = f.key is not None and f.x.keeps_state
        self._stop = f.x.stop
        self.done = 0
        self.started_at_item = 0
        self.skipped_before = f.skipped
        self.finished: set[int] = set()  # parallel loops: done above the smallest index that is not
        self._written: tuple[int, int, tuple[InnerRound, ...]] = (-1, 0, ())
        self._written_at = 0.0
        self._announced = False
        self._counted = 0
        self._stride = 8
        self._slice_end = perf_seconds() + SLICE_SECONDS
        self._last_look = 0.0
        self.failed = 0
        self._checkpoint_index = 0
        self._checkpoint_at = f.x.clock.monotonic() + f.x.checkpoint_seconds

    def begin(self, index: int) -> None:
        """Tell of the item at an index, if somebody listens; only watched code asks."""
        tell_iteration(self.f, self.spec.variable, index, self.total)

    def start_at(self, index: int) -> None:
        self.done = self.started_at_item = self._counted = self._checkpoint_index = index

    # --- asked by generated code --------------------------------------------------------------------------------------

    def __call__(self, index: int) -> int:
        """With `index` items done: the next index at which to ask again, or 0 when the loop must pause now."""
        now = perf_seconds()
        if (
            now >= self._slice_end
            or self._stop.after_item
            or (self.every is not None and index - self._checkpoint_index >= self.every)
        ):
            return 0
        # Slow items are asked after one by one, quick ones in strides.
        if now - self._last_look < SLICE_SECONDS / 8:
            self._stride = min(self._stride * 2, 256)
        else:
            self._stride = max(1, self._stride // 2)
        self._last_look = now
        stop = index + self._stride
        if self.every is not None:
            stop = min(stop, self._checkpoint_index + self.every)
        return stop

    def again(self, index: int) -> int:
        """After a pause: the next index at which to ask."""
        self._slice_end = perf_seconds() + SLICE_SECONDS
        return index + 1 if self.every is None else min(index + self._stride, self._checkpoint_index + self.every)

    def over(self) -> bool:
        """Whether an inner loop has worked long enough without a break."""
        return perf_seconds() >= self._slice_end

    def rested(self) -> None:
        """Others have run."""
        self._slice_end = perf_seconds() + SLICE_SECONDS

    def late(self, index: int) -> bool:
        """For loops with awaits: whether to pause before the item at `index`."""
        return (
            perf_seconds() >= self._slice_end
            or self._stop.after_item
            or (self.every is not None and index - self._checkpoint_index >= self.every)
        )

    # --- saving -------------------------------------------------------------------------------------------------------

    def current(self, index: int) -> Value:
        """The item at an index, if it can still be had."""
        try:
            return self.items[index]
        except (IndexError, KeyError):
            return None

    def count(self, index: int) -> None:
        """With `index` items done: bring the execution's totals up to date."""
        x = self.f.x
        if not self.f.inside_loop:
            x.loop_items += index - self._counted
        self._counted = self.done = index
        skipped = self.f.skipped - self.skipped_before
        if skipped:
            x.count_skipped(skipped)
            self.skipped_before = self.f.skipped

    def note(self, index: int) -> None:
        """Before something leaves: `index` items are done."""
        self.count(index)
        self.write(index)

    def end(self) -> None:
        """All items are done. In an arm more may follow in the same step, for which a resume passes the loop again."""
        self.count(self.total)
        if self._announced and "." in self.spec.path:
            self.write(self.total, at_once=False)

    def note_begin(self) -> None:
        """Before the item in work writes: all before it are done. On disk with the next request."""
        if not self.spec.parallel and self.is_journaled and self._written[0] != self.f.index:
            self.write(self.f.index, at_once=False)

    def write(self, index: int, kind: str = "progress", *, at_once: bool = True) -> None:
        """Note in the journal that all items before `index` are done: survives SIGKILL. Once per index.

        Not `at_once`: what is noted survives as soon as what follows it in the journal does.
        """
        f = self.f
        x = f.x
        written = index, len(self.finished), f.inner
        if kind == "progress" and (written == self._written or (index == self._written[0] and self._crowded())):
            x.write_buffers()
            return
        self.count(index)
        item = self.show(index)
        if not self.is_journaled:
            x.flush_stores()
            return
        if not self._announced:
            self._announced = True
            x.engine.announce_loop(f, self)
            # The journal tells where in the loop; which step that is, only the record says.
            x.save_record(force=True)
        fields: dict[str, Value] = {"a": f.key, "p": self.spec.path, "i": index, "item": item}
        if self.finished:
            fields["done"] = sorted(self.finished)
        if f.inner:
            fields["in"] = list(f.inner)
        if isinstance(self.items, StoreSnapshot | RemoteSnapshot) and index < self.total:
            fields["key"] = self.items.keys[index]
        x.write_progress(kind, fields, at_once=at_once)
        self._written, self._written_at = written, perf_seconds()

    def show(self, index: int) -> Value:
        """Let the record say that the item at `index` is in work; what it shows of that."""
        item = preview(self.current(index))
        if self.f.key is not None:
            self.f.x.active[self.f.key] = ActiveStep(action=self.f.action, step=self.spec.label, index=index, item=item)
        return item

    def _crowded(self) -> bool:
        """Whether one slow item holds up so many that naming them all each time would be too dear."""
        return len(self.finished) > 256 and perf_seconds() - self._written_at < SLICE_SECONDS

    def ask_again(self, index: int) -> None:
        """An item failed: a resume reads anew what it was answered."""
        journal = self.f.x.journal
        if self.spec.remembers and self.is_journaled and journal is not None and journal.exists:
            journal.append("failed", {"a": self.f.key, "p": self.spec.path, "i": index})

    def frozen(self) -> tuple[dict[str, Value], bytes | None]:
        """The journal entry that lets a resume go on in the same list: its keys, how to get it again, or itself."""
        fields: dict[str, Value] = {"p": self.spec.path, "total": self.total}
        if isinstance(self.items, StoreSnapshot | RemoteSnapshot | FrozenRecords):
            fields["keys"] = self.items.keys
        elif not self.spec.repeatable:
            return fields, encode(kept(list(self.items), self.f.x.journal))
        return fields, None

    async def pause(self, index: int) -> None:
        """Save progress, checkpoint when one is due, let others run. `index` items are done; -1: amid one."""
        x, f = self.f.x, self.f
        if index >= 0:
            self.count(index)
            self.write(index)
            now = x.clock.monotonic()
            by_count = self.every is not None and index - self._checkpoint_index >= self.every
            if by_count or now >= self._checkpoint_at:
                await self.checkpoint(index, "items" if by_count else "interval")
            x.tell_progress(f.action, self.spec.label, index, self.total)
        if self._stop.after_item and index >= 0:
            f.index = index
            raise StopRun
        await asyncio.sleep(0)
        self.rested()

    async def checkpoint(self, index: int, reason: str) -> None:
        """Make all before `index` survive a power loss."""
        f = self.f
        x = f.x
        self._checkpoint_index = index
        self._checkpoint_at = x.clock.monotonic() + x.checkpoint_seconds
        self.write(index, "checkpoint")
        x.checkpoints[f.action] = Checkpoint(
            items_processed=x.items_processed, at=x.now(), index=index, total=self.total
        )
        await x.checkpoint(reason=reason, action=f.action, step=f.step, variables=len(f.variables), index=index)


LoopBody = Callable[..., Any]


async def run_loop(
    f: Frame,
    spec: LoopSpec,
    collection: Value,
    keep: Callable[[Value], object] | None,
    body: LoopBody,
    every: Value,
    limit: int,
) -> None:
    """Run an outermost loop: freeze its list, or take up the frozen one of a killed run; then all items in order."""
    x = f.x
    position = x.resume.take_loop(f.key, spec.path) if x.resume is not None and f.key is not None else None
    if position is None and f.replaying:
        return  # it was over before what the step is repeated for
    only = x.only
    items: Sequence[Value]
    if only is not None and (only.action, str(only.step)) == (f.action, spec.path) and f.caller is None:
        items, start = [only.item], 0
    elif position is None:
        if x.resume is not None:
            x.resume.drop_said(f.key, spec.path)
        items = filtered(loop_input(collection, f, spec.location), keep)
        start = 0
    else:
        items, start = _resumed(f, collection, keep, position)
        f.replaying = x.resume is not None and x.resume.knows_inside(f.origin, f.step)
    loop = LoopRun(f, spec, items, _positive(every))
    outer, f.loop = f.loop, loop
    outer_index = f.index
    outer_work = f.work
    if loop.is_journaled:
        f.work = loop
    loop.start_at(start)
    if position is not None:
        loop.finished = set(position.finished)
        if position.inner:
            f.inner_resume = (start, {inner[0]: inner for inner in position.inner})
    concurrency = limit if spec.parallel else 1
    tell_loop(f, spec.variable, loop.total, filtered=spec.has_filter, concurrency=concurrency)
    skipped = f.skipped
    started = x.clock.monotonic()
    try:
        if spec.parallel:
            await _run_parallel(f, loop, body, limit, start)
        else:
            await _run_in_order(f, loop, body, start)
        loop.end()
        x.active.pop(f.key or f.action, None)
    except (asyncio.CancelledError, StopRun, ReqonError) as error:
        failed = isinstance(error, ReqonError)
        loop.failed = loop.failed or int(failed)
        if failed and not spec.parallel:
            loop.ask_again(f.index)
        _save_where_it_stopped(f, loop, "error" if failed else "pause")
        raise
    finally:
        # Keys that are made behind the loop must not hang on whether this process ran it.
        f.loop, f.index, f.work = outer, outer_index, outer_work
        x.tell_writes(f.action)
        done, skipped = loop.done + len(loop.finished), f.skipped - skipped
        tell_loop_end(f, spec.variable, loop.total, done, skipped, loop.failed, x.since(started))
    x.tell_progress(f.action, spec.label, loop.total, loop.total, force=loop.total > 0)


def _save_where_it_stopped(f: Frame, loop: LoopRun, reason: str) -> None:
    index = f.index if not loop.spec.parallel else loop.done
    loop.count(index)
    if loop.spec.parallel:
        loop.write(index, "checkpoint")
    else:
        # The journal keeps the place that it has: what the item has written since is not to be relied on.
        loop.show(index)
    f.x.tell_checkpoint(reason, f.action, f.step, len(f.variables), index=index)


async def _run_in_order(f: Frame, loop: LoopRun, body: LoopBody, start: int) -> None:
    f.index = start
    running = body(iterate(loop.items, start), start, loop)
    if isinstance(running, Iterator):
        for index in running:
            await loop.pause(index)
    else:
        await running


async def _run_parallel(f: Frame, loop: LoopRun, body: LoopBody, limit: int, start: int) -> None:
    """At most `limit` iterations at once, begun in list order, each in a frame of its own.

    Raises:
        ParallelError: some failed; or the first failure itself, with `parallelMode: "fail-fast"`.
    """
    fail_fast = f.x.plan.fail_fast
    failures: list[tuple[str, ReqonError]] = []
    already = set(loop.finished)
    numbered = enumerate(iterate(loop.items, start), start)
    told = f.x.wants(LoopIteration)

    async def worker() -> None:
        for index, item in numbered:
            if index in already:
                _finish(loop, index)
                continue
            own = f.iteration()
            own.index = index
            if told:
                loop.begin(index)
            try:
                await body(own, index, item)
            except ReqonError as error:
                loop.ask_again(index)
                if fail_fast:
                    raise
                _blame(error, item)
                failures.append((f"item {index}", error))
                loop.failed += 1
                continue  # not done: a resume does it again
            f.skipped += own.skipped
            _finish(loop, index)
            if loop.late(loop.done):
                await loop.pause(loop.done)
        # The next request would have noted what is done; here none follows, and others may take their time.
        loop.count(loop.done)
        loop.write(loop.done)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(max(1, min(limit, loop.total - start))):
                workers.create_task(f.x.with_stores(worker()))
    except BaseExceptionGroup as group:
        errors = [e for e in group.exceptions if isinstance(e, ReqonError)]
        if errors:
            raise errors[0] from None
        raise group.exceptions[0] from None
    if failures:
        raise failures[0][1] if len(failures) == 1 else ParallelError(failures)


def _blame(error: ReqonError, item: Value) -> None:
    if isinstance(error, ReqonRuntimeError) and error.item is None:
        error.item = preview(item)


def _finish(loop: LoopRun, index: int) -> None:
    """`index` is done: move `done` to the smallest index that is not."""
    loop.finished.add(index)
    while loop.done in loop.finished:
        loop.finished.discard(loop.done)
        loop.done += 1


def _resumed(
    f: Frame, collection: Value, keep: Callable[[Value], object] | None, position: LoopPosition
) -> tuple[Sequence[Value], int]:
    """The list that was frozen when the loop began, and where to go on in it."""
    items: Sequence[Value]
    if position.keys is not None and isinstance(collection, StoreHandle):
        store = f.x.stores[collection.name].store
        # What is gone was deleted by items that are done, or by the one in work: then that is done too.
        done, ahead = position.keys[: position.index], position.keys[position.index :]
        there = set(store.keys())
        keys = position.keys if there.issuperset(ahead) else done + [key for key in ahead if key in there]
        if isinstance(store, RemoteStore):
            items = RemoteSnapshot(store, keys)
        elif isinstance(store, FileStore):
            items = StoreSnapshot(store, keys)
        else:
            items = FrozenRecords(store, keys, [store.get(key) or {} for key in keys])
    elif position.items is not None:
        assert f.x.resume is not None
        items = given_back(position.items, f.x.resume, f.x.handle)
    else:
        items = loop_input(collection, f)
        items = Kept(items, position.kept) if position.kept is not None else filtered(items, keep)
        if position.total is not None and position.total != len(items):
            f.x.notice("the list of a resumed loop has changed: it starts again at its first item")
            return items, 0
    return items, min(position.index, len(items))


def _positive(every: Value) -> int | None:
    if every is None:
        return None
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise EvaluatorError(f"checkpoint every needs a whole number of at least 1, not {every!r}")
    return every


async def breathe(f: Frame) -> None:
    """Let others run, in the midst of a long inner loop or of a nest of short ones."""
    if f.loop is None or f.loop.over():
        await asyncio.sleep(0)
        if f.loop is not None:
            f.loop.rested()


def inner_items(f: Frame, collection: Value, keep: Callable[[Value], object] | None) -> Sequence[Value]:
    """What a loop inside a loop goes through."""
    return filtered(loop_input(collection, f), keep)


def inner_start(
    f: Frame, path: str, collection: Value, keep: Callable[[Value], object] | None
) -> tuple[Sequence[Value], int, int]:
    """What a loop inside a loop goes through, from where, and the list's checksum.

    A resume goes on in the round it was killed in, unless the list has become another one.
    """
    items = filtered(loop_input(collection, f), keep)
    if f.work is None:
        return items, 0, 0
    checksum = crc32(encode(kept(list(items))))
    if f.inner_resume is not None:
        item, known = f.inner_resume
        _, at, total, there = known.pop(path, _FROM_THE_BEGIN) if f.index == item else _FROM_THE_BEGIN
        if (total, there) == (len(items), checksum):
            return items, at, checksum
    return items, 0, checksum


_FROM_THE_BEGIN: InnerRound = ("", 0, -1, 0)


async def run_inner_parallel(
    f: Frame,
    spec: LoopSpec,
    collection: Value,
    keep: Callable[[Value], object] | None,
    body: LoopBody,
    limit: int,
) -> None:
    """A `parallel` loop inside a loop."""
    x = f.x
    failures: list[tuple[str, ReqonError]] = []
    items = inner_items(f, collection, keep)
    total, started = len(items), x.clock.monotonic()
    tell_loop(f, spec.variable, total, filtered=spec.has_filter, concurrency=limit)
    numbered = enumerate(items)
    told = x.wants(LoopIteration)
    skipped = 0

    async def worker() -> None:
        nonlocal skipped
        for index, item in numbered:
            own = f.iteration()
            own.index = f.index
            if told:
                tell_iteration(f, spec.variable, index, total)
            try:
                await body(own, index, item)
                skipped += own.skipped
            except ReqonError as error:
                _blame(error, item)
                failures.append((f"item {index}", error))

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(max(1, limit)):
                workers.create_task(f.x.with_stores(worker()))
    except BaseExceptionGroup as group:  # told to stop, or to begin the action again
        raise group.exceptions[0] from None
    failed = len(failures)
    tell_loop_end(f, spec.variable, total, total - failed, skipped, failed, x.since(started))
    if failures:
        raise failures[0][1] if len(failures) == 1 else ParallelError(failures)
