"""The webhook endpoints of one execution: registered, found again by a resume, ended (spec/runtime.md 12.2, 12.5)."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from reqon.diagnostics import Span
from reqon.errors import EvaluatorError, FetchError
from reqon.events import WebhookRegistered
from reqon.http.paths import PartKind, PathPart, assemble
from reqon.lang.operators import described
from reqon.runtime.settings import seconds
from reqon.secrets import SECRETS
from reqon.state.webhooks import EndpointStatus, Registration, Shelf, registration_id
from reqon.values import Value
from reqon.webhooks.calls import canonical
from reqon.webhooks.desk import Endpoint
from reqon.webhooks.server import WebhookServer
from reqon.webhooks.signatures import ALGORITHMS, ENCODINGS, Signature

if TYPE_CHECKING:
    from reqon.runtime.execution import Execution
    from reqon.runtime.frame import Frame

DEFAULT_TIMEOUT_SECONDS = 300.0
TokenRule = Literal["auto", "required", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitSpec:
    """What the text says of a `wait`.

    Attributes:
        number: which one of its action it is, in the order of the text.
        step: where in the action's own list it stands; depth: how many loops are around it.
        path: where it is a literal, in canonical form; generated: there is none to evaluate.
        timeout_seconds, expected, types: where they are written as literals.
        signature: its options as a function of a frame, where they do not hang on variables of the action.
        secret_from: the environment variable that its secret is read from, if it is.
        early: its endpoint can be opened before the step is reached.
    """

    number: int
    step: int
    depth: int
    path: str | None
    generated: bool
    timeout_seconds: float | None
    expected: int | None
    types: tuple[str, ...] | None
    filtered: bool
    guard: TokenRule
    signed: bool
    signature: "Callable[[Frame], Value] | None"
    secret_from: str | None
    storage: str | None
    early: bool
    span: Span


def endpoint_path(target: str) -> str:
    """An evaluated path as the one by which calls are found.

    Raises:
        EvaluatorError: it is a URL, has a query, or is the server's own.
    """
    if not target.startswith("/"):
        raise EvaluatorError(f"a webhook's path begins with '/'; this is {target}", hint="the server adds its own URL")
    if "?" in target:
        raise EvaluatorError(f"a webhook's path has no query: {target}", hint="the token goes there")
    if target in ("/", "/health", "/_health"):
        raise EvaluatorError(f"the path {target} belongs to the server itself", hint="use another one")
    return canonical(target)


def signature_of(options: Value) -> Signature:
    """`signature: { … }`, evaluated.

    Raises:
        EvaluatorError: a secret or header is missing, or a value is not what it must be.
    """
    if not isinstance(options, Mapping):
        raise EvaluatorError(f"signature must be an object, not {described(options)}")
    for name in ("secret", "header"):
        if not isinstance(options.get(name), str) or not options[name]:
            raise EvaluatorError(
                f"signature.{name} must be a text, not {described(options.get(name))}",
                hint="without it no call could be trusted: is the environment variable set?",
            )
    for name, known in (("algorithm", ALGORITHMS), ("encoding", ENCODINGS)):
        if options.get(name, known[0]) not in known:
            raise EvaluatorError(f"signature.{name} must be one of {', '.join(known)}")
    SECRETS.add(options["secret"])
    tolerance = options.get("tolerance")
    return Signature(
        secret=options["secret"],
        header=options["header"],
        algorithm=options.get("algorithm", "sha256"),
        encoding=options.get("encoding", "hex"),
        prefix=str(options.get("prefix") or ""),
        timestamp_header=options.get("timestampHeader") or None,
        tolerance_seconds=300.0 if tolerance is None else seconds(tolerance, 300.0),
    )


class WaitingRoom:
    """Opens and ends the endpoints of one execution. All it answers is on disk by then."""

    def __init__(self, x: "Execution", server: WebhookServer, shelf: Shelf) -> None:
        self._x = x
        self.server = server
        self.shelf = shelf
        self._endpoints: list[Endpoint] = []
        self._secured: set[str] = set()
        self._made = 0

    # --- resuming -----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Take up what an earlier attempt of the execution had registered."""
        adopted = {endpoint.id: endpoint for endpoint in self.server.desk.endpoints()}
        for registration in self.shelf.of_execution(self._x.record.execution_id):
            endpoint = adopted.get(registration.id)
            if endpoint is not None:
                endpoint.registration = registration
                endpoint.load()
            else:
                endpoint = Endpoint(registration, self.shelf, self._teller(registration))
                endpoint.load()
                if registration.status.is_live:
                    self.server.desk.add(endpoint)
                else:
                    self.server.desk.remember(endpoint)
            endpoint.attached, endpoint.tell = True, self._teller(registration)
            endpoint.deadline = self._moment_of(registration)
            self._endpoints.append(endpoint)
        self._made = len(self._endpoints)

    def _moment_of(self, registration: Registration) -> float | None:
        if registration.expires_at is None:
            return None
        clock = self._x.clock
        return clock.monotonic() + (registration.expires_at - clock.now()).total_seconds()

    def _teller(self, registration: Registration) -> "Callable[..., None]":
        return lambda event: self._x.emit(event, action=registration.action)

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self, f: "Frame", spec: WaitSpec, indices: tuple[int, ...], path: str | None = None) -> Endpoint:
        """The endpoint of a `wait` for this passage: the one that is there, or a new one."""
        place = place_of(f, spec, indices)
        endpoint = next((e for e in self._endpoints if e.registration.place == place), None)
        path = path or spec.path
        if endpoint is None:
            self._end_unreached(f, spec, place)
            endpoint = self._claimed(f, spec, place, path) or self._opened(f, spec, place, path)
            f.endpoints.append(endpoint)
        elif endpoint.registration.status is EndpointStatus.ENDED:
            # Before the process ended it was not come to; this time it may be.
            self.update(endpoint, EndpointStatus.OPEN, expires_at=None)
            self.reopen(endpoint)
        # What this run evaluates counts, not what an earlier process, or the server by itself, took for the secret.
        if spec.signature is not None and endpoint.id not in self._secured:
            self.secure(endpoint, spec, signature_of(spec.signature(f)))
        return endpoint

    def secure(self, endpoint: Endpoint, spec: WaitSpec, signature: Signature) -> None:
        """From now on its calls must be signed so; also while nobody runs its execution."""
        endpoint.signature = signature
        self._secured.add(endpoint.id)
        if (kept := self._kept(spec, signature)) != endpoint.registration.signature:
            endpoint.registration = replace(endpoint.registration, signature=kept)
            self.shelf.save(endpoint.registration)

    def _kept(self, spec: WaitSpec | None, signature: Signature | None) -> dict[str, Value] | None:
        if spec is None or signature is None or spec.secret_from is None:
            return None
        # One that stands in the mission as a default is no variable's.
        known = self._x.plan.environment.get(spec.secret_from)
        return signature.kept(spec.secret_from) if known == signature.secret else None

    def _opened(self, f: "Frame", spec: WaitSpec, place: str, path: str | None) -> Endpoint:
        x = self._x
        execution_id = x.record.execution_id
        signature = signature_of(spec.signature(f)) if spec.signature is not None else None
        registration = Registration(
            id=registration_id(execution_id, place),
            execution_id=execution_id,
            mission=x.record.mission,
            action=f.action,
            step=spec.step,
            place=place,
            path=path or f"/webhook/{execution_id}/{secrets.token_hex(16)}",
            token=self._token(path, spec.guard, signed=spec.signed),
            created_at=x.now(),
            expected_events=spec.expected,
            types=spec.types,
            signed=spec.signed,
            signature=self._kept(spec, signature),
            filtered=spec.filtered,
        )
        return self._register(registration, spec.timeout_seconds, signature)

    def _token(self, path: str | None, guard: TokenRule, *, signed: bool) -> str | None:
        """What calls must bring; by itself none is asked for where only this machine can call, or calls are signed.

        All endpoints of an execution under one path share one: whoever was given its URL may go on using it.
        """
        if guard != "required" and (guard == "none" or signed or self.server.is_private):
            return None
        known = (e.registration.token for e in self._endpoints if path is not None and e.registration.path == path)
        return next((token for token in known if token is not None), None) or secrets.token_hex(16)

    def _register(self, registration: Registration, timeout: float | None, signature: Signature | None) -> Endpoint:
        endpoint = Endpoint(registration, self.shelf, self._teller(registration), signature=signature)
        self.shelf.save(registration)
        if signature is not None:
            self._secured.add(registration.id)
        self._endpoints.append(endpoint)
        self.server.desk.add(endpoint)
        endpoint.tell(
            WebhookRegistered(
                registration_id=endpoint.id,
                path=registration.path,
                webhook_url=SECRETS.redact(self.url_of(endpoint)),
                timeout=round((DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout) * 1000),
                expected_events=registration.expected_events or 1,
            )
        )
        return endpoint

    def url(self, path: str) -> str:
        """The URL of the endpoint under a path, for `webhookUrl(path)`; a later `wait` on the path takes it over."""
        try:
            wanted = endpoint_path(assemble([PathPart(PartKind.RAW, path, "path")]))
        except FetchError as error:
            raise EvaluatorError(f"webhookUrl(): {error.message}", hint=error.hint) from error
        known = [e for e in self._endpoints if e.registration.path == wanted and e.registration.status.is_live]
        return self.url_of(known[0] if known else self._for_url(wanted))

    def _for_url(self, path: str) -> Endpoint:
        """A new endpoint of no `wait` yet. If the text has one on this path, that says how its calls are secured."""
        from reqon.runtime.frame import Frame  # noqa: PLC0415  # which knows executions

        x = self._x
        self._made += 1
        spec = next((s for s in x.plan.wait_specs if s.path == path), None)
        frame = Frame(x, "", None)
        signature = signature_of(spec.signature(frame)) if spec is not None and spec.signature is not None else None
        registration = Registration(
            id=registration_id(x.record.execution_id, "url", path, self._made),
            execution_id=x.record.execution_id,
            mission=x.record.mission,
            action="",
            step=None,
            place="",
            path=path,
            token=self._token(path, "auto" if spec is None else spec.guard, signed=signature is not None),
            created_at=x.now(),
            signed=signature is not None,
            signature=self._kept(spec, signature),
            filtered=spec.filtered if spec is not None else True,
        )
        return self._register(registration, None if spec is None else spec.timeout_seconds, signature)

    def _claimed(self, f: "Frame", spec: WaitSpec, place: str, path: str | None) -> Endpoint | None:
        """An endpoint on this path whose URL was asked for before, now of this `wait`."""
        free = (e for e in self._endpoints if not e.registration.place and e.registration.status.is_live)
        endpoint = next((e for e in free if e.registration.path == path), None)
        if endpoint is None:
            return None
        before = endpoint.registration
        if spec.signed and not before.signed and endpoint.names:
            self._x.notice(f"{len(endpoint.names)} events at {path} came before its signature was known: not counted")
            endpoint.names.clear()
        endpoint.registration = replace(
            before,
            place=place,
            action=f.action,
            step=spec.step,
            expected_events=spec.expected,
            types=spec.types,
            signed=spec.signed,
            filtered=spec.filtered,
        )
        endpoint.tell = self._teller(endpoint.registration)
        self.shelf.save(endpoint.registration)
        return endpoint

    def succeed(self, endpoint: Endpoint) -> Endpoint:
        """A fresh endpoint of no `wait` yet under the same path and token."""
        self._made += 1
        before = endpoint.registration
        registration = replace(
            before,
            id=registration_id(before.execution_id, "url", before.path, self._made),
            step=None,
            place="",
            created_at=self._x.now(),
            expires_at=None,
            received_events=0,
            status=EndpointStatus.OPEN,
        )
        return self._register(registration, None, endpoint.signature)

    # --- changing and ending ------------------------------------------------------------------------------------------

    def update(self, endpoint: Endpoint, status: EndpointStatus, **changes: object) -> None:
        """Write a new status; an endpoint that is no longer live takes no more calls."""
        registration = replace(endpoint.registration, status=status, **changes)  # type: ignore[arg-type]  # its own fields
        endpoint.registration = registration
        endpoint.deadline = self._moment_of(registration)
        if not status.is_live:
            self.server.desk.remove(endpoint)
        self.shelf.save(registration)

    def release(self, endpoint: Endpoint) -> None:
        """Nobody waits at it for now: it goes on taking calls, for the next `wait` on its path."""
        endpoint.judged, endpoint.accepts = False, None
        self.update(endpoint, EndpointStatus.OPEN, place="", step=None, expires_at=None)
        self.reopen(endpoint)

    async def reset(self, endpoint: Endpoint, *, attempt: int) -> None:
        """Its action begins again: same path and token, but what had come does not count."""
        async with self.server.desk.gate(endpoint.registration.path):  # an event that is being written is done then
            await asyncio.to_thread(self.shelf.drop_events, endpoint.id)
            endpoint.names.clear()
            endpoint.judged, endpoint.accepts = False, None
            self.update(endpoint, EndpointStatus.OPEN, expires_at=None, received_events=0, attempt=attempt)
            self.reopen(endpoint)

    async def begin_again(self, f: "Frame") -> None:
        """An action begins again: what it, or a round of its loops, was waiting for is waited for anew."""
        for endpoint in list(f.endpoints):
            if endpoint.registration.status.is_live and endpoint.registration.place:
                await self.reset(endpoint, attempt=endpoint.registration.attempt)

    def notice(self, message: str) -> None:
        self._x.notice(message)

    def reopen(self, endpoint: Endpoint) -> None:
        """Let an endpoint that had ended take calls again."""
        if endpoint not in self.server.desk.endpoints():
            self.server.desk.add(endpoint)

    def _end_unreached(self, f: "Frame", spec: WaitSpec, place: str) -> None:
        """End what an earlier round of the same loop opened for this `wait`, but never came to."""
        if spec.depth and (f.loop is None or not f.loop.spec.parallel):
            begin = place.split(":", 1)[0]
            for endpoint in list(f.endpoints):
                about = endpoint.registration
                same = about.place.startswith(f"{begin}:{spec.number}:")
                # One whose action began again is waited at in its own round.
                if same and about.status is EndpointStatus.OPEN and about.attempt == 1:
                    self.update(endpoint, EndpointStatus.ENDED)

    def end_action(self, f: "Frame") -> None:
        """An action is over: what it opened and never waited at takes no more calls."""
        for endpoint in f.endpoints:
            if endpoint.registration.status is EndpointStatus.OPEN and endpoint.registration.place:
                self.update(endpoint, EndpointStatus.ENDED)
        f.endpoints.clear()

    def close(self, *, completed: bool) -> None:
        """The execution is over, or stops: then calls that still come are kept for its resume."""
        for endpoint in self._endpoints:
            if not completed and self._x.keeps_state:
                self.server.leave(endpoint)
            elif endpoint.registration.status.is_live:
                self.server.desk.remove(endpoint)
                if self._x.keeps_state:
                    self.update(endpoint, EndpointStatus.ENDED)
        if not self._x.keeps_state:
            self.shelf.remove(self._x.record.execution_id)
        if completed or not self._x.keeps_state:
            SECRETS.forget(*{endpoint.registration.token for endpoint in self._endpoints})

    # --- showing ------------------------------------------------------------------------------------------------------

    def url_of(self, endpoint: Endpoint) -> str:
        registration = endpoint.registration
        token = f"?token={registration.token}" if registration.token is not None else ""
        return f"{self.server.url}{registration.path}{token}"

    def fields(self, endpoint: Endpoint) -> dict[str, Value]:
        """What a mission reads of an endpoint."""
        return {
            "webhookId": endpoint.id,
            "webhookUrl": self.url_of(endpoint),
            "webhookPath": endpoint.registration.path,
        }

    def fields_of(self, registration_id: str) -> dict[str, Value] | None:
        """The same, of an endpoint known by its id."""
        return next((self.fields(e) for e in self._endpoints if e.id == registration_id), None)


class Ahead:
    """What lies behind `response` before a `wait`: the fetch's fields, and the endpoint that comes next.

    The endpoint is registered when it is first asked for.
    """

    __slots__ = ("_f", "_indices", "_meta", "_spec")

    def __init__(self, f: "Frame", meta: Mapping[str, Value] | None, spec: WaitSpec, indices: tuple[int, ...]) -> None:
        self._f, self._meta, self._spec, self._indices = f, meta, spec, indices

    def get(self, key: str, default: Value = None) -> Value:
        room = self._f.x.room
        if key in _FIELDS and room is not None:
            return room.fields(room.open(self._f, self._spec, self._indices))[key]
        return default if self._meta is None else self._meta.get(key, default)


_FIELDS = frozenset(("webhookUrl", "webhookPath", "webhookId"))


def open_early(f: "Frame", spec: WaitSpec, indices: tuple[int, ...]) -> None:
    """Register a `wait`'s endpoint before the step is reached: what comes until then is kept for it."""
    if f.x.room is not None:
        f.x.room.open(f, spec, indices)


def round_of(f: "Frame", spec: WaitSpec, indices: tuple[int, ...]) -> str:
    """Which `wait` it is, in which rounds of the loops around it."""
    return f"{spec.number}:{f.index if spec.depth else '-'}:{'.'.join(map(str, indices))}"


def place_of(f: "Frame", spec: WaitSpec, indices: tuple[int, ...]) -> str:
    """A name for this passage through a `wait`: a resumed run comes by it again."""
    where = round_of(f, spec, indices)
    return f"{f.origin.replace(':', ';')}:{where}:{f.waits.get(where, 0)}"


def milliseconds_or(value: Value, default: float) -> float:
    """A timeout in milliseconds, or a duration, as seconds.

    Raises:
        EvaluatorError: neither, or below 0.
    """
    if value is None:
        return default
    ok = isinstance(value, timedelta) or (isinstance(value, int | float) and not isinstance(value, bool))
    if not ok or seconds(value, -1.0) < 0:
        raise EvaluatorError(f"timeout must be a number of milliseconds or a duration, not {described(value)}")
    return seconds(value, default)
