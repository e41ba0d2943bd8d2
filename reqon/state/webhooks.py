"""Endpoints that executions wait at, and the events that came for them, as files (spec/runtime.md 12.5).

A registration's id begins with its execution's id, so that what belongs to an execution is found by its name. All
writes are durable when they return: an event that was acknowledged, and a URL that was given away, are kept.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from reqon.clock import parse_rfc3339, rfc3339
from reqon.files import DamagedFileError, lock_is_free, make_directory
from reqon.state.directory import StateDirectory
from reqon.state.ids import derived_key
from reqon.values import OWN_DEPTH, JsonError, Record, Value, decode, encode

EVENT_LIMIT = 16 * 1024 * 1024
_SUFFIX_LENGTH = 26

T = TypeVar("T")


class EndpointStatus(StrEnum):
    """Where an endpoint is in its life. The last three take no events."""

    OPEN = "open"  # registered, its `wait` not begun
    WAITING = "waiting"
    COMPLETE = "complete"
    TIMEOUT = "timeout"
    ENDED = "ended"  # its execution completed without waiting at it

    @property
    def is_live(self) -> bool:
        return self in (EndpointStatus.OPEN, EndpointStatus.WAITING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One endpoint.

    Attributes:
        step: where its `wait` stands in the action's list; None while only its URL was asked for.
        place: which passage of which execution through that `wait` it belongs to; empty while that is not known.
        token: what a call must bring; None: nothing.
        signed: calls must be signed; signature: how, and the variable that holds the secret, which itself is never
            written; None where it comes from elsewhere. filtered: a filter decides what counts.
        expires_at: the end of its wait; None before that began.
        expected_events: None while it is not known.
        types: the event types of which one is waited for.
        attempt: which run of its action this is (`retryOnTimeout`).
    """

    id: str
    execution_id: str
    mission: str
    action: str
    step: int | None
    place: str
    path: str
    token: str | None
    created_at: datetime
    expires_at: datetime | None = None
    expected_events: int | None = None
    types: tuple[str, ...] | None = None
    received_events: int = 0
    status: EndpointStatus = EndpointStatus.OPEN
    attempt: int = 1
    signed: bool = False
    signature: Mapping[str, Value] | None = None
    filtered: bool = False


def registration_id(execution_id: str, *place: object) -> str:
    """The id of an endpoint of an execution: the same for the same place."""
    return f"{execution_id}-{derived_key('', execution_id, repr(place))}"


class EventName(NamedTuple):
    """What an event's file name says: its number in the order of arrival, and its id."""

    number: int
    id: str

    @property
    def file_name(self) -> str:
        return f"{self.number:06d}-{self.id}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """A call that was taken. Headers and query are redacted; `delivery` tells a repeated call from a new one."""

    id: str
    registration_id: str
    received_at: datetime
    method: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: Value
    raw_body: str | None = None
    delivery: str | None = None


class Shelf(Protocol):
    """Where endpoints and their events lie. All calls may block."""

    def save(self, registration: Registration) -> None: ...

    def load(self, registration_id: str) -> Registration | None: ...

    def of_execution(self, execution_id: str) -> list[Registration]: ...

    def is_unattended(self, execution_id: str) -> bool: ...

    def add(self, registration: Registration, number: int, event: StoredEvent) -> EventName: ...

    def names(self, registration_id: str) -> list[EventName]: ...

    def event(self, registration_id: str, name: EventName) -> StoredEvent | None: ...

    def drop(self, registration_id: str, name: EventName) -> None: ...

    def drop_events(self, registration_id: str) -> None: ...

    def remove(self, execution_id: str) -> int: ...


class HeldShelf:
    """What belongs to one execution that keeps no state: nothing could take it up, so nothing of it is on disk."""

    def __init__(self) -> None:
        self._registrations: dict[str, Registration] = {}
        self._events: dict[str, dict[EventName, StoredEvent]] = {}

    def save(self, registration: Registration) -> None:
        self._registrations[registration.id] = registration

    def load(self, registration_id: str) -> Registration | None:
        return self._registrations.get(registration_id)

    def of_execution(self, execution_id: str) -> list[Registration]:  # noqa: ARG002  # there is one
        return list(self._registrations.values())

    def is_unattended(self, execution_id: str) -> bool:  # noqa: ARG002  # as above
        return False

    def add(self, registration: Registration, number: int, event: StoredEvent) -> EventName:
        name = EventName(number, event.id)
        self._events.setdefault(registration.id, {})[name] = event
        self.save(registration)
        return name

    def names(self, registration_id: str) -> list[EventName]:
        return sorted(self._events.get(registration_id, ()))

    def event(self, registration_id: str, name: EventName) -> StoredEvent | None:
        return self._events.get(registration_id, {}).get(name)

    def drop(self, registration_id: str, name: EventName) -> None:
        self._events.get(registration_id, {}).pop(name, None)

    def drop_events(self, registration_id: str) -> None:
        self._events.pop(registration_id, None)

    def remove(self, execution_id: str) -> int:  # noqa: ARG002  # as above
        self._registrations.clear()
        self._events.clear()
        return 0


class WebhookShelf:
    """Registrations and events of one state directory, as files. All calls block; writes are durable."""

    def __init__(self, directory: StateDirectory) -> None:
        self._directory = directory
        self._disk = directory.disk
        self._registrations = directory.webhooks / "registrations"
        self._events = directory.webhooks / "events"

    # --- registrations ---

    def save(self, registration: Registration) -> None:
        """Write a registration.

        Raises:
            StateWriteError: the disk refused.
        """
        self._write(self._path(registration.id), _to_json(registration), "webhook-registration")

    def exists(self, registration_id: str) -> bool:
        return self._path(registration_id).exists()

    def load(self, registration_id: str) -> Registration | None:
        return self._read(self._path(registration_id), _registration, "registration")

    def of_execution(self, execution_id: str) -> list[Registration]:
        """An execution's registrations, oldest first."""
        found = [self.load(name) for name in self._ids() if _belongs(name, execution_id)]
        return sorted((r for r in found if r is not None), key=lambda r: (r.created_at, r.id))

    def live(self) -> list[Registration]:
        """All endpoints that take events and whose execution no process runs, oldest first."""
        found = (self.load(name) for name in self._ids())
        live = (r for r in found if r is not None and r.status.is_live and self.is_unattended(r.execution_id))
        return sorted(live, key=lambda r: (r.created_at, r.id))

    def is_unattended(self, execution_id: str) -> bool:
        """Whether no process runs this execution now."""
        return lock_is_free(self._directory.execution_lock_path(execution_id))

    # --- events ---

    def add(self, registration: Registration, number: int, event: StoredEvent) -> EventName:
        """Write an event, then the registration that counts it.

        Raises:
            StateWriteError: the disk refused; the event may not be acknowledged.
        """
        name = EventName(number, event.id)
        self._write(self._folder(registration.id) / name.file_name, _to_json(event), "webhook-event")
        self.save(registration)
        return name

    def names(self, registration_id: str) -> list[EventName]:
        """The events of an endpoint in the order of their arrival."""
        found = []
        for name in self._disk.list(self._folder(registration_id)):
            number, dash, rest = name.partition("-")
            if dash and number.isdigit() and rest.endswith(".json"):
                found.append(EventName(int(number), rest[: -len(".json")]))
        return sorted(found)

    def event(self, registration_id: str, name: EventName) -> StoredEvent | None:
        """An event; None if its file is damaged, which was told and set aside."""
        return self._read(self._folder(registration_id) / name.file_name, _event, "event")

    def drop(self, registration_id: str, name: EventName) -> None:
        """Remove one event."""
        self._disk.remove(self._folder(registration_id) / name.file_name)

    def drop_events(self, registration_id: str) -> None:
        """Remove an endpoint's events."""
        for name in self.names(registration_id):
            self.drop(registration_id, name)

    # --- with an execution ---

    def stored_bytes(self, execution_id: str) -> int:
        """What `remove` would free."""
        return sum(_size(path) for path in self._files(execution_id))

    def remove(self, execution_id: str) -> int:
        """Remove all that belongs to an execution; the bytes that went."""
        freed = 0
        for path in list(self._files(execution_id)):
            freed += _size(path)
            self._disk.remove(path)
        for name in self._disk.list(self._events):
            if _belongs(name, execution_id):
                with suppress(OSError):  # one that an event just came into goes with the next clean-up
                    (self._events / name).rmdir()
        return freed

    def _files(self, execution_id: str) -> Iterator[Path]:
        for name in self._ids():
            if _belongs(name, execution_id):
                yield self._path(name)
        for folder in self._disk.list(self._events):
            if _belongs(folder, execution_id):
                yield from (self._events / folder / name for name in self._disk.list(self._events / folder))

    # --- files ---

    def _ids(self) -> list[str]:
        names = self._disk.list(self._registrations)
        return [name[: -len(".json")] for name in names if name.endswith(".json") and not name.startswith(".")]

    def _path(self, registration_id: str) -> Path:
        return self._registrations / f"{registration_id}.json"

    def _folder(self, registration_id: str) -> Path:
        return self._events / registration_id

    def _write(self, path: Path, content: Record, what: str) -> None:
        try:
            if not path.parent.is_dir():
                self._make(path.parent)
            self._disk.replace(path, encode(content, pretty=True) + b"\n", what)
        except OSError as error:
            raise self._directory.write_error(path, error) from error

    def _make(self, folder: Path) -> None:
        for directory in reversed([folder, *folder.parents]):
            if directory.is_relative_to(self._directory.webhooks) and not directory.is_dir():
                make_directory(directory)
                self._disk.sync_dir(directory.parent)

    def _read(self, path: Path, make: Callable[[Record], T], what: str) -> T | None:
        try:
            return make(decode(self._disk.read(path, EVENT_LIMIT), depth=OWN_DEPTH))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._directory.warn_once(f"{path} cannot be read: {error.strerror}; it is left as it is")
            return None
        except (JsonError, DamagedFileError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = error.message if isinstance(error, JsonError | DamagedFileError) else f"lacks {error}"
            self._directory.quarantine(path, f"is no webhook {what}: {reason}", kind="webhook")
            return None


def _belongs(name: str, execution_id: str) -> bool:
    return name.startswith(f"{execution_id}-") and len(name) == len(execution_id) + 1 + _SUFFIX_LENGTH


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _to_json(value: Registration | StoredEvent) -> Record:
    """The public form: camelCase, times to the millisecond, absent fields left out (but for a registration's own)."""
    shown: Record = {}
    for field in fields(value):
        found = getattr(value, field.name)
        if isinstance(found, datetime):
            found = rfc3339(found)
        elif isinstance(found, tuple):
            found = list(found)
        elif isinstance(found, StrEnum):
            found = str(found)
        if found is not None or field.name in ("token", "body", "expires_at", "expected_events", "step"):
            shown[_camel(field.name)] = dict(found) if isinstance(found, Mapping) and field.name != "body" else found
    return shown


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _registration(found: Record) -> Registration:
    expires, types = found.get("expiresAt"), found.get("types")
    return Registration(
        id=found["id"],
        execution_id=found["executionId"],
        mission=found["mission"],
        action=found["action"],
        step=found.get("step"),
        place=found["place"],
        path=found["path"],
        token=found.get("token"),
        created_at=parse_rfc3339(found["createdAt"]),
        expires_at=None if expires is None else parse_rfc3339(expires),
        expected_events=found.get("expectedEvents"),
        types=None if types is None else tuple(types),
        received_events=found.get("receivedEvents", 0),
        status=EndpointStatus(found["status"]),
        attempt=found.get("attempt", 1),
        signed=bool(found.get("signed")),
        signature=found.get("signature"),
        filtered=bool(found.get("filtered")),
    )


def _event(found: Record) -> StoredEvent:
    return StoredEvent(
        id=found["id"],
        registration_id=found["registrationId"],
        received_at=parse_rfc3339(found["receivedAt"]),
        method=found["method"],
        headers=found["headers"],
        query=found["query"],
        body=found["body"],
        raw_body=found.get("rawBody"),
        delivery=found.get("delivery"),
    )
