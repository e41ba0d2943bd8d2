"""Who gets a call: the endpoints that are open, by path, and the order of checks (spec/runtime.md 12.3).

Decides; the server in front reads and writes sockets, the shelf behind keeps what is taken. An event is on disk before
its call is answered with 200.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from reqon.clock import Clock
from reqon.errors import StateError
from reqon.events import Event, WebhookReceived
from reqon.secrets import SECRETS
from reqon.state.webhooks import EventName, Registration, StoredEvent, WebhookShelf
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
    shelf: WebhookShelf
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

    def judge(self, accepts: Accepts | None) -> None:
        """The wait has begun: from now on its filter decides, also about the events that came before."""
        self.accepts, self.judged = accepts, True
        if self.names and (accepts is not None or self.registration.types is not None):
            bodies = ((name, self.shelf.event(self.id, name)) for name in self.names)
            self.names = [name for name, event in bodies if event is not None and self.takes(event.body)]

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

    def add(self, endpoint: Endpoint) -> None:
        """Let an endpoint take calls from now on."""
        self._by_path.setdefault(endpoint.registration.path, []).append(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """It takes no more calls."""
        path = endpoint.registration.path
        known = self._by_path.get(path, [])
        if endpoint in known:
            known.remove(endpoint)
        if not known:
            self._by_path.pop(path, None)
            gate = self._gates.get(path)
            if gate is not None and not gate.locked():
                del self._gates[path]

    def endpoints(self) -> list[Endpoint]:
        """All open endpoints."""
        return [endpoint for known in self._by_path.values() for endpoint in known]

    def gate(self, path: str) -> asyncio.Lock:
        """Held while a call to a path is decided: so two calls never take one place."""
        return self._gates.setdefault(path, asyncio.Lock())

    def expired(self, endpoint: Endpoint) -> bool:
        return endpoint.deadline is not None and self.clock.monotonic() >= endpoint.deadline

    def sweep(self) -> None:
        """Forget the endpoints without a running execution that expired, or whose files are gone."""
        for endpoint in self.endpoints():
            if not endpoint.attached and (self.expired(endpoint) or not endpoint.shelf.exists(endpoint.id)):
                self.remove(endpoint)

    # --- deciding -----------------------------------------------------------------------------------------------------

    def admit(self, call: Call) -> list[Endpoint] | Answer:
        """The endpoints that a call may be for, before its body is read; or its refusal."""
        known = [e for e in self._by_path.get(call.path, ()) if _has_token(e.registration.token, call.token)]
        if not known:
            return NOT_FOUND
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
            live = [e for e in verified if e in known and not self.expired(e) and _may_take(e)]
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
            waiting = [e for e in live if e.has_room]
            if not waiting:
                return COMPLETE, live[0]
            for endpoint in waiting:
                if endpoint.takes(value):
                    return await self._take(endpoint, call, value, text), endpoint
        self._tell(waiting[0], len(waiting[0].names), filtered=True)
        return FILTERED, waiting[0]

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
        number = len(endpoint.names) + 1
        registration = replace(endpoint.registration, received_events=number)
        try:
            name = await asyncio.to_thread(endpoint.shelf.add, registration, endpoint.last_number + 1, event)
        except StateError as error:
            log.error("a webhook event was refused: %s", error.message)  # noqa: TRY400  # the disk's fault
            return UNWRITABLE
        endpoint.registration, endpoint.last_number = registration, name.number
        endpoint.names.append(name)
        if event.delivery is not None:
            endpoint.deliveries.add(event.delivery)
        self._tell(endpoint, number - 1, filtered=False)
        endpoint.changed.set()
        expected = registration.expected_events
        return Answer(200, {"success": True, "eventId": event.id, "received": number, "expected": expected})

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


def _may_take(endpoint: Endpoint) -> bool:
    """Whether no other process runs its execution by now, and so receives its calls."""
    return endpoint.attached or endpoint.shelf.is_unattended(endpoint.registration.execution_id)


def _delivery(endpoint: Endpoint, call: Call) -> str | None:
    return call.delivery or (endpoint.signature.identity(call.headers) if endpoint.signature is not None else None)
