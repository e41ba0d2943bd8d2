"""The `wait` step while it runs: events counted, stored, waited for; what follows a timeout (spec/runtime.md 12.4)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from reqon.errors import EvaluatorError, WebhookTimeoutError
from reqon.events import WebhookCompleted
from reqon.http.retry import RetryPolicy
from reqon.lang.operators import described
from reqon.runtime.endpoints import (
    DEFAULT_TIMEOUT_SECONDS,
    WaitingRoom,
    WaitSpec,
    endpoint_path,
    milliseconds_or,
    round_of,
    signature_of,
)
from reqon.runtime.frame import Frame
from reqon.runtime.replies import note_place
from reqon.runtime.retrying import policy
from reqon.runtime.signals import RestartAction
from reqon.state.webhooks import EndpointStatus, EventName, StoredEvent
from reqon.stores.base import WriteMode
from reqon.values import Record, Value
from reqon.webhooks.desk import Endpoint

Accepts = Callable[[Value], object]
KeyOf = Callable[[Record], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long is waited for how much, and what then."""

    timeout_seconds: float
    expected: int
    types: tuple[str, ...] | None
    on_timeout: RetryPolicy | None
    goes_on: bool  # a timeout is no failure

    @property
    def many(self) -> bool:
        return self.expected > 1


@dataclass(slots=True)
class Ticket:
    """One passage through a `wait`: its endpoint is registered; `begun` says that an earlier attempt waited already."""

    endpoint: Endpoint
    spec: WaitSpec
    terms: Terms
    where: str
    begun: bool
    room: WaitingRoom

    def told(self) -> Value:
        """What `response` is for a step that runs before the wait blocks."""
        return self.room.fields(self.endpoint)


def begin_wait(
    f: Frame, spec: WaitSpec, target: str | None, options: Mapping[str, Value], indices: tuple[int, ...]
) -> Ticket:
    """Register the endpoint of a `wait`, or find it."""
    room = f.x.room
    assert room is not None, "a mission that waits is refused without a server"
    terms = _terms(options)
    endpoint = room.open(f, spec, indices, None if target is None else endpoint_path(target))
    if "signature" in options and spec.signature is None:
        room.secure(endpoint, spec, signature_of(options["signature"]))
    known = endpoint.registration
    if (known.expected_events, known.types) != (terms.expected, terms.types):
        endpoint.registration = replace(known, expected_events=terms.expected, types=terms.types)
    begun = known.status not in (EndpointStatus.OPEN, EndpointStatus.TIMEOUT)
    return Ticket(endpoint, spec, terms, round_of(f, spec, indices), begun, room)


def _terms(options: Mapping[str, Value]) -> Terms:
    expected: Value = options.get("expectedEvents", 1)
    types = None
    if isinstance(expected, list) and expected and all(isinstance(word, str) for word in expected):
        expected, types = 1, tuple(expected)
    if isinstance(expected, bool) or not isinstance(expected, int) or expected < 1:
        raise EvaluatorError(
            f"expectedEvents must be a whole number of at least 1, or a list of event types, not {described(expected)}"
        )
    timeout = milliseconds_or(options.get("timeout"), DEFAULT_TIMEOUT_SECONDS)
    retry = options.get("retryOnTimeout")
    goes_on = retry is False or timeout == 0
    on_timeout = policy(retry) if isinstance(retry, dict) and not goes_on else None
    return Terms(timeout_seconds=timeout, expected=expected, types=types, on_timeout=on_timeout, goes_on=goes_on)


async def finish_wait(
    f: Frame, ticket: Ticket, accepts: Accepts | None, key_of: KeyOf | None
) -> tuple[Value, Mapping[str, Value] | None]:
    """Wait until enough events came, or the time is over: `response`, and the endpoint behind it.

    Raises:
        WebhookTimeoutError: too few came. RestartAction: the same, and the action is to run again.
        StopRun: told to stop; the endpoint and its events stay for the resume.
    """
    endpoint = ticket.endpoint
    if endpoint.registration.status is EndpointStatus.COMPLETE:
        # A resumed run passes here again: its events are what they were.
        await asyncio.to_thread(endpoint.judge, accepts)
        if not f.replaying:
            # The stores may have gone back to where the journal knew them.
            await _Waiter(f, ticket, key_of).store()
        _passed(f, ticket)
        names = endpoint.names[: ticket.terms.expected]
        return await _answer(f, ticket, names, timed_out=len(names) < ticket.terms.expected)
    await _begin(f, ticket, accepts)
    waiter = _Waiter(f, ticket, key_of)
    if await waiter.enough():
        await _complete(f, ticket)
        return await _answer(f, ticket, endpoint.names[: ticket.terms.expected], timed_out=False)
    return await _timed_out(f, ticket)


async def _begin(f: Frame, ticket: Ticket, accepts: Accepts | None) -> None:
    """From now on its time runs and its filter decides."""
    endpoint, terms, room = ticket.endpoint, ticket.terms, ticket.room
    async with room.server.desk.gate(endpoint.registration.path):
        refused = await asyncio.to_thread(endpoint.judge, accepts)
        status = endpoint.registration.status
        # One that had timed out waits again only where that is what the resume is for.
        if status is EndpointStatus.OPEN or (status is EndpointStatus.TIMEOUT and f.x.retries_timeout):
            expires = f.x.now() + timedelta(seconds=terms.timeout_seconds)
            room.update(endpoint, EndpointStatus.WAITING, expires_at=expires)
            room.reopen(endpoint)
    await _pass_on(ticket, refused)


@dataclass(slots=True)
class _Waiter:
    """Watches one endpoint: writes what comes to its store, and waits."""

    f: Frame
    ticket: Ticket
    key_of: KeyOf | None
    stored: int = 0

    async def enough(self) -> bool:
        """Wait for enough events; False when the time is over. No call is being taken by then."""
        endpoint, expected = self.ticket.endpoint, self.ticket.terms.expected
        clock = self.f.x.clock
        saved = False
        while True:
            endpoint.changed.clear()
            await self.store()
            if len(endpoint.names) >= expected:
                return True
            left = (endpoint.deadline or 0.0) - clock.monotonic()
            if left <= 0 or not endpoint.registration.status.is_live:
                # A call that is being taken now still counts: it will be answered with 200.
                async with self.ticket.room.server.desk.gate(endpoint.registration.path):
                    if len(endpoint.names) < expected:
                        self.ticket.room.server.desk.remove(endpoint)
                        return False
                continue
            if not saved:
                saved = True
                await save_before_waiting(self.f)
            await self._until_changed(left)

    async def _until_changed(self, seconds: float) -> None:
        coming = asyncio.ensure_future(self.ticket.endpoint.changed.wait())
        sleeping = asyncio.ensure_future(self.f.x.clock.sleep(seconds))
        try:
            await asyncio.wait({coming, sleeping}, return_when=asyncio.FIRST_COMPLETED)
            if sleeping.done():
                sleeping.result()  # told to stop, perhaps
        finally:
            for task in (coming, sleeping):
                task.cancel()
            await asyncio.gather(coming, sleeping, return_exceptions=True)

    async def store(self) -> None:
        """Write the events that came since the last time to the wait's store."""
        target = self.ticket.spec.storage
        if target is None:
            return
        x, endpoint = self.f.x, self.ticket.endpoint
        store = x.stores[target].store
        for name in endpoint.names[self.stored : self.ticket.terms.expected]:
            event = await asyncio.to_thread(endpoint.shelf.event, endpoint.id, name)
            self.stored += 1
            if event is not None:
                record, key = self._record(event)
                store.put(key, record, WriteMode.REPLACE)
        store.flush()

    def _record(self, event: StoredEvent) -> tuple[Record, str]:
        record = event.body if isinstance(event.body, dict) else {"value": event.body}
        return record, self.key_of(record) if self.key_of is not None else event.id


async def save_before_waiting(f: Frame) -> None:
    """Make all that was done survive a power loss, and say in the record where it waits."""
    x = f.x
    x.waited = True
    loop = f.work or f.loop
    if loop is not None:
        note_place(f)
        await loop.checkpoint(loop.done if loop.spec.parallel else loop.f.index, "webhook")
        return
    if f.key is not None and x.journal is not None:
        x.engine.bind(f)
        x.write_progress("checkpoint", {"a": f.key})
    await x.checkpoint(reason="webhook", action=f.action, step=f.step)


def _passed(f: Frame, ticket: Ticket) -> None:
    """The next time it is another passage, with an endpoint of its own."""
    f.waits[ticket.where] = f.waits.get(ticket.where, 0) + 1


async def _complete(f: Frame, ticket: Ticket) -> None:
    """The endpoint ends with its wait; what came beyond it goes to whoever waits under the same path."""
    endpoint, room = ticket.endpoint, ticket.room
    async with room.server.desk.gate(endpoint.registration.path):
        room.update(endpoint, EndpointStatus.COMPLETE)
        _passed(f, ticket)
    await _pass_on(ticket, endpoint.names[ticket.terms.expected :])


async def _pass_on(ticket: Ticket, names: Sequence[EventName]) -> None:
    if names:
        left = await ticket.room.server.desk.pass_on(ticket.endpoint, names)
        if left:
            path = ticket.endpoint.registration.path
            ticket.room.notice(f"{left} webhook events at {path} were not waited for, and stay on disk")


async def _timed_out(f: Frame, ticket: Ticket) -> tuple[Value, Mapping[str, Value] | None]:
    endpoint, terms, room = ticket.endpoint, ticket.terms, ticket.room
    received = len(endpoint.names)
    if terms.goes_on:
        if terms.timeout_seconds == 0 and not ticket.spec.generated:
            if not received:
                # Nothing was there. What comes from now on is for the next wait on this path.
                room.release(endpoint)
                return await _answer(f, ticket, (), timed_out=True)
            room.update(endpoint, EndpointStatus.COMPLETE)
            room.succeed(endpoint)
        else:
            room.update(endpoint, EndpointStatus.COMPLETE)
        _passed(f, ticket)
        return await _answer(f, ticket, endpoint.names, timed_out=True)
    _tell(f, ticket, received, timed_out=True)
    attempt = endpoint.registration.attempt
    if terms.on_timeout is not None and attempt < terms.on_timeout.max_attempts:
        await room.reset(endpoint, attempt=attempt + 1)
        raise RestartAction(terms.on_timeout.delay_before(attempt + 1, f.x.random))
    room.update(endpoint, EndpointStatus.TIMEOUT)
    _passed(f, ticket)
    path = endpoint.registration.path
    raise WebhookTimeoutError(
        f"waited {terms.timeout_seconds:g} s at {path} for {terms.expected} webhook "
        f"event{'s' if terms.many else ''}, {received or 'none'} came"
        + (f", in each of {attempt} runs of the action" if attempt > 1 else ""),
        path=path,
        received=received,
        expected=terms.expected,
    ).locate(ticket.spec.span)


async def _answer(
    f: Frame, ticket: Ticket, names: Sequence[EventName], *, timed_out: bool
) -> tuple[Value, Mapping[str, Value] | None]:
    endpoint = ticket.endpoint
    found = await asyncio.to_thread(lambda: [endpoint.shelf.event(endpoint.id, name) for name in names])
    bodies = [event.body for event in found if event is not None]
    value: Value = (bodies or None) if ticket.terms.many else (bodies[0] if bodies else None)
    f.webhook = value
    _tell(f, ticket, len(bodies), timed_out=timed_out)
    return value, ticket.room.fields(endpoint)


def _tell(f: Frame, ticket: Ticket, received: int, *, timed_out: bool) -> None:
    registration = ticket.endpoint.registration
    # By the wall clock: the wait may have begun in a process before this one.
    waited = (f.x.now() - registration.created_at).total_seconds()
    f.x.emit(
        WebhookCompleted(
            registration_id=registration.id,
            events_received=received,
            timed_out=timed_out,
            stored_to=ticket.spec.storage,
        ),
        action=registration.action,
        duration_ms=max(0, round(waited * 1000)),
    )
