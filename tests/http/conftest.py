"""What the tests of requests share: a scripted API, a fake clock, and a client between them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from reqon.events import Event
from reqon.http.auth import Credentials
from reqon.http.client import Client
from reqon.http.connections import Connections
from reqon.http.messages import Request, SourceSettings
from tests.support.clocks import FakeClock
from tests.support.servers import ScriptedServer


@dataclass
class World:
    """Connections with everything they do on record."""

    api: ScriptedServer
    clock: FakeClock
    connections: Connections
    events: list[Event] = field(default_factory=list)

    def client(self, credentials: Credentials | None = None, *, base: str = "", **settings: Any) -> Client:
        made = SourceSettings(name="Depot", base=base or self.api.url, **settings)
        return self.connections.client(made, credentials, self.events.append, lambda *_: True)

    def happened(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def get(target: str = "/parcels", **more: Any) -> Request:
    return Request(method="GET", target=target, template=target.partition("?")[0], **more)


def post(target: str = "/parcels", body: Any = None, **more: Any) -> Request:
    return Request(method="POST", target=target, template=target, body=body, has_body=True, **more)


@pytest.fixture
async def api() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(api: ScriptedServer, clock: FakeClock) -> AsyncIterator[World]:
    connections = Connections(clock=clock, environment={}, state_directory=None, random=lambda: 0.5)
    yield World(api, clock, connections)
    await connections.close()


MakeClient = Callable[..., Client]
