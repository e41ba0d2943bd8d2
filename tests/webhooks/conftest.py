"""A webhook server whose endpoints a test makes by hand."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reqon.clock import SYSTEM, Clock
from reqon.events import Event
from reqon.state.directory import StateDirectory
from reqon.state.webhooks import Registration, WebhookShelf
from reqon.webhooks.desk import Endpoint
from reqon.webhooks.limits import Limits
from reqon.webhooks.server import WebhookServer
from reqon.webhooks.signatures import Signature
from tests.support.webhooks import Answered, call

EXECUTION = "exec_0123456789abcdefghjkmnpqrs"


@dataclass(slots=True)
class Hooks:
    """A running server, and a shelf for what it keeps."""

    server: WebhookServer
    shelf: WebhookShelf
    told: list[Event] = field(default_factory=list)
    made: int = 0

    def endpoint(
        self, path: str = "/in", *, signature: Signature | None = None, accepts: Any = None, **options: Any
    ) -> Endpoint:
        """An endpoint that takes calls."""
        self.made += 1
        registration = Registration(
            id=f"{EXECUTION}-{self.made:026d}",
            execution_id=EXECUTION,
            mission="M",
            action="A",
            step=0,
            place=f"0/A:{self.made}:-::0",
            path=path,
            token=options.pop("token", None),
            created_at=datetime.now(UTC),
            expected_events=options.pop("expected", 1),
            signed=signature is not None,
            filtered=accepts is not None,
            **options,
        )
        endpoint = Endpoint(registration, self.shelf, self.told.append, signature=signature)
        self.shelf.save(registration)
        endpoint.judge(accepts)
        self.server.desk.add(endpoint)
        return endpoint

    async def call(self, path: str = "/in", data: Any = None, **more: Any) -> Answered:
        return await call(self.server.url + path, data, **more)

    def bodies(self, endpoint: Endpoint) -> list[Any]:
        """What counts, in order."""
        events = [self.shelf.event(endpoint.id, name) for name in endpoint.names]
        return [event.body for event in events if event is not None]


def make_hooks(folder: Path, *, limits: Limits | None = None, clock: Clock = SYSTEM, url: str | None = None) -> Hooks:
    server = WebhookServer(port=0, limits=limits, clock=clock, url=url)
    hooks = Hooks(server, WebhookShelf(StateDirectory(folder).open()))
    server.bus.on(Event, lambda emitted: hooks.told.append(emitted.event))
    return hooks


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    made = make_hooks(tmp_path / "state")
    async with made.server:
        yield made
