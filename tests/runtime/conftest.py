"""What the runtime's tests share: a server that answers as told, and a bench to run missions on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.missions import Bench
from tests.support.servers import ScriptedServer


@pytest.fixture
async def api() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
def bench(api: ScriptedServer, tmp_path: Path) -> Bench:
    return Bench(api, tmp_path)
