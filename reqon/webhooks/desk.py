"""Who gets a call: the endpoints that are open, by path, and the order of checks (spec/runtime.md 12.3).

Decides; the server in front reads and writes sockets, the shelf behind keeps what is taken. An event is on disk before
its call is answered with 200.
"""

import asyncio
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from reqon.clock import Clock
from reqon.errors import StateError
from reqon.events import Event, WebhookReceived
from reqon.secrets import SECRETS
from reqon.state.webhooks import EventName, Registration, Shelf, StoredEvent
from reqon.values import Value
from reqon.webhooks.calls import (
    COMPLETE,
    DUPLICATE,
    FILTERED,
    GONE,
    NOT_FOUND,
    NOT_READY,
    TOO_MANY,
    UNWRITABLE,
    Answer,
    BadBodyError,
    Call,
    read_body,
)
from reqon.webhooks.signatures import Signature

PENDING_MAX = 10_000
REMEMBERED = 1_000
SWEEP_SECONDS = 60.0

log = logging.getLogger("reqon")

Accepts = Callable[[Value], object]


@dataclass(slots=True, eq=False)
class Endpoint:
    """One open endpoint.

    Attributes:
        tell: where its events go.
        signature: None: calls need none, or (`registration.signed`) its secret is not known in this process.
        accepts: the wait's filter; asked once the wait has begun (`judged`), of earlier events then.
        attached: its execution runs in this process.
        deadline: the monotonic moment at which it expires; None: not yet known.
        names: the events that count, in the order of their arrival.
        changed: set when one more came.
    """

    registration: Registration
    shelf: Shelf
    tell: Callable[[Event], None]
    signature: Signature | None = None
    accepts: Accepts | None = None
    judged: bool = False
    attached: bool = True
    deadline: float | None = None
    names: list[EventName] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    deliveries: set[str] = field(default_factory=set)
    last_number: int = 0

    def __post_init__(self) -> None:
        SECRETS.add(self.registration.token)

    @property
    def id(self) -> str:
        return self.registration.id

    def load(self) -> None:
        """Take up the events that lie on disk."""
        self.names = self.shelf.names(self.id)
        self.last_number = self.names[-1].number if self.names else 0
        events = (self.shelf.event(self.id, name) for name in self.names)
        self.deliveries = {e.delivery for e in events if e is not None and e.delivery is not None}

    def refresh(self) -> bool:
        """Read again how it stands, where other processes may have had it in between; whether it takes calls."""
        found = self.shelf.load(self.id)
        if found is None or not found.status.is_live:
            return False
        self.registration = found
        if self.shelf.names(self.id) != self.names:
            self.load()
        return True

    def judge(self, accepts: Accepts | None) -> list[EventName]:
        """The wait has begun: from now on its filter decides. The events that came before and do not count."""
        self.accepts, self.judged = accepts, True
        if not self.names or (accepts is None and self.registration.types is None):
            return []
        events = [(name, self.shelf.event(self.id, name)) for name in self.names]
        self.names = [name for name, event in events if event is not None and self.takes(event.body)]
        return [name for name, event in events if name not in self.names and event is not None]

    def takes(self, value: Value) -> bool:
        """Whether an event counts, as far as is known now. A filter that fails takes nothing."""
        types = self.registration.types
        if types is not None and not (isinstance(value, dict) and value.get("type") in types):
            return False
        if self.accepts is None:
            return True
        try:
            return bool(self.accepts(value))
        except Exception as error:  # noqa: BLE001  # whatever a mission's filter raises: the event does not count
            log.debug("the filter of %s failed on an event: %s", self.id, error)
            return False

    @property
    def has_room(self) -> bool:
        """Whether it wants one more event. Before its filter is known nobody can tell which ones will count."""
        expected = self.registration.expected_events
        if expected is None or (self.registration.filtered and not self.judged):
            expected = PENDING_MAX
        return len(self.names) < expected

    @property
    def is_full(self) -> bool:
        return len(self.names) >= PENDING_MAX


class Desk:
    """The open endpoints of a process."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._by_path: dict[str, list[Endpoint]] = {}
        self._gates: dict[str, asyncio.Lock] = {}
        self._over: OrderedDict[str, Endpoint] = OrderedDict()  # ended ones, by id: what they took, nobody takes again

    def add(self, endpoint: Endpoint) -> None:
        """Let an endpoint take calls from now on."""
        self._over.pop(endpoint.id, None)
        self._by_path.setdefault(endpoint.registration.path, []).append(endpoint)

    def remember(self, endpoint: Endpoint) -> None:
        """An endpoint that is over: its deliveries are known, also when they come again."""
        if endpoint.deliveries:
            self._over[endpoint.id] = endpoint
            if len(self._over) > REMEMBERED:
                self._over.popitem(last=False)

    def remove(self, endpoint: Endpoint) -> None:
        """It takes no more calls."""
        path = endpoint.registration.path
        known = self._by_path.get(path, [])
        if endpoint in known:
            known.remove(endpoint)
            self.remember(endpoint)
        if not known:
            self._by_path.pop(path, None)

    def endpoints(self) -> list[Endpoint]:
        """All open endpoints."""
        return [endpoint for known in self._by_path.values() for endpoint in known]

    def gate(self, path: str) -> asyncio.Lock:
        """Held while a call to a path is decided: so two calls never take one place."""
        return self._gates.setdefault(path, asyncio.Lock())

    def expired(self, endpoint: Endpoint) -> bool:
        return endpoint.deadline is not None and self.clock.monotonic() >= endpoint.deadline

    def sweep(self) -> None:
        """Forget the endpoints without a running execution that expired, or that another process took over."""
        for endpoint in self.endpoints():
            if not endpoint.attached and (self.expired(endpoint) or not _is_ours(endpoint)):
                self.remove(endpoint)
        for path in [p for p, gate in self._gates.items() if p not in self._by_path and not gate.locked()]:
            del self._gates[path]

    # --- deciding -----------------------------------------------------------------------------------------------------

    def admit(self, call: Call) -> list[Endpoint] | Answer:
        """The endpoints that a call may be for, before its body is read; or its refusal."""
        known = [e for e in self._by_path.get(call.path, ()) if _has_token(e.registration.token, call.token)]
        if not known:
            return DUPLICATE if self._came_before(call) else NOT_FOUND
        # A running execution goes before one that waits to be resumed; then the oldest.
        live = sorted((e for e in known if not self.expired(e)), key=lambda e: not e.attached)
        return live or GONE

    async def receive(self, admitted: Sequence[Endpoint], call: Call) -> tuple[Answer, Endpoint]:
        """What a whole call is answered, and which endpoint's business it was."""
        first = admitted[0]
        verified, problem = _verified(admitted, call)
        if not verified:
            return problem, first
        async with self.gate(call.path):
            known = self._by_path.get(call.path, ())
            live = [e for e in verified if e in known and not self.expired(e) and _is_ours(e)]
            if not live:
                return GONE if any(e.attached for e in verified) else NOT_READY, first
            if all(e.is_full for e in live):
                return TOO_MANY, live[0]
            try:
                value, text = read_body(call)
            except BadBodyError as error:
                return Answer(400, {"error": "Bad request"}, str(error)), live[0]
            for endpoint in live:
                if _delivery(endpoint, call) in endpoint.deliveries:
                    return DUPLICATE, endpoint
            if self._came_before(call):
                return DUPLICATE, live[0]
            waiting = [e for e in live if e.has_room]
            if not waiting:
                return COMPLETE, live[0]
            for endpoint in waiting:
                if endpoint.takes(value):
                    return await self._take(endpoint, call, value, text), endpoint
        self._tell(waiting[0], len(waiting[0].names), filtered=True)
        return FILTERED, waiting[0]

    def _came_before(self, call: Call) -> bool:
        """Whether an endpoint that is over had taken this very delivery."""
        return any(
            endpoint.registration.path == call.path
            and _delivery(endpoint, call) in endpoint.deliveries
            and _has_token(endpoint.registration.token, call.token)
            for endpoint in self._over.values()
        )

    async def pass_on(self, endpoint: Endpoint, names: Sequence[EventName]) -> int:
        """Offer events that an endpoint does not want to the others under its path; how many nobody wanted."""
        registration = endpoint.registration
        left = 0
        async with self.gate(registration.path):
            for name in names:
                event = await asyncio.to_thread(endpoint.shelf.event, endpoint.id, name)
                others = [e for e in self._by_path.get(registration.path, ()) if e is not endpoint and e.has_room]
                taker = next((e for e in others if _may_have(e, endpoint, event)), None)
                if taker is None or event is None:
                    left += 1
                else:
                    await self._keep(taker, replace(event, registration_id=taker.id))
                    await asyncio.to_thread(endpoint.shelf.drop, endpoint.id, name)
        return left

    async def _take(self, endpoint: Endpoint, call: Call, value: Value, text: str | None) -> Answer:
        event = StoredEvent(
            id=f"evt_{secrets.token_hex(13)}",
            registration_id=endpoint.id,
            received_at=call.received_at,
            method=call.method,
            headers=call.shown_headers(),
            query=call.shown_query(),
            body=value,
            raw_body=text,
            delivery=_delivery(endpoint, call),
        )
        try:
            await self._keep(endpoint, event)
        except StateError as error:
            log.error("a webhook event was refused: %s", error.message)  # noqa: TRY400  # the disk's fault
            return UNWRITABLE
        received, expected = len(endpoint.names), endpoint.registration.expected_events
        return Answer(200, {"success": True, "eventId": event.id, "received": received, "expected": expected})

    async def _keep(self, endpoint: Endpoint, event: StoredEvent) -> None:
        """Write an event; when this returns it survives anything, and counts."""
        registration = replace(endpoint.registration, received_events=len(endpoint.names) + 1)
        name = await asyncio.to_thread(endpoint.shelf.add, registration, endpoint.last_number + 1, event)
        endpoint.registration = replace(endpoint.registration, received_events=registration.received_events)
        endpoint.last_number = name.number
        if name not in endpoint.names:  # a resume may have read it meanwhile
            endpoint.names.append(name)
        if event.delivery is not None:
            endpoint.deliveries.add(event.delivery)
        self._tell(endpoint, len(endpoint.names) - 1, filtered=False)
        endpoint.changed.set()

    def _tell(self, endpoint: Endpoint, index: int, *, filtered: bool) -> None:
        endpoint.tell(
            WebhookReceived(
                registration_id=endpoint.id,
                event_index=index,
                total_expected=endpoint.registration.expected_events or 0,
                filtered=filtered,
            )
        )


def _has_token(wanted: str | None, given: str) -> bool:
    return wanted is None or hmac.compare_digest(wanted.encode(), given.encode("utf-8", "backslashreplace"))


def _verified(admitted: Iterable[Endpoint], call: Call) -> tuple[list[Endpoint], Answer]:
    """The endpoints for which the call is signed as it must be; and the refusal if there is none."""
    verified = []
    refusal = NOT_READY
    for endpoint in admitted:
        if endpoint.signature is not None:
            problem = endpoint.signature.problem(call.headers, call.body, call.received_at)
            if problem is not None:
                refusal = Answer(401, {"error": "Unauthorized"}, problem)
                continue
        elif endpoint.registration.signed:
            continue
        verified.append(endpoint)
    return verified, refusal


def _is_ours(endpoint: Endpoint) -> bool:
    """Whether its execution runs here, or nowhere: then what comes is kept for its resume."""
    if endpoint.attached:
        return True
    return endpoint.shelf.is_unattended(endpoint.registration.execution_id) and endpoint.refresh()


def _may_have(other: Endpoint, endpoint: Endpoint, event: StoredEvent | None) -> bool:
    """Whether an event that was called in for one endpoint could have been for another."""
    mine, its = endpoint.registration, other.registration
    if event is None or its.token not in (None, mine.token) or its.signed != mine.signed:
        return False
    known = event.delivery in other.deliveries or any(name.id == event.id for name in other.names)
    return not known and other.takes(event.body)


def _delivery(endpoint: Endpoint, call: Call) -> str | None:
    return call.delivery or (endpoint.signature.identity(call.headers) if endpoint.signature is not None else None)
