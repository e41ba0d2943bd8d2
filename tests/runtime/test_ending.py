"""What is on disk when a run says that it has completed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from reqon.events import MissionCompleted
from reqon.values import decode
from tests.support.missions import Bench, mission
from tests.support.servers import ScriptedServer, reply

KEEP = mission(
    'get "/rows"\nstore response -> kept { key: .id }\nqueue { item: { id: "q" } }',
    stores='store kept: file("kept")',
)


class _Looking(list[Any]):
    """A list that keeps, beside each event, what the stores' files said when it was told."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def append(self, _: Any) -> None:
        paths = (self.state / "stores" / "kept.json", self.state / "dead-letter" / "M.json")
        super().append([set(decode(path.read_bytes())) for path in paths])


async def test_a_run_that_says_it_completed_has_its_records_in_the_files_people_read(
    api: ScriptedServer, bench: Bench
) -> None:
    api.on("/rows", reply(data=[{"id": "a"}, {"id": "b"}]))
    seen = _Looking(bench.state)
    bench.listen, bench.heard = [MissionCompleted], seen
    (await bench.run(KEEP)).ok()
    assert seen == [[{"a", "b"}, {"q"}]]


async def test_cancelled_while_its_record_is_made_a_run_says_so_in_it(bench: Bench) -> None:
    """L2: the record is written in a thread; a stop that comes meanwhile leaves nothing that looks alive."""
    for _ in range(3):
        running = asyncio.create_task(bench.run(mission('store { id: "a" } -> out')))
        for _ in range(200):
            if any(task.get_coro().__qualname__ == "to_thread" for task in asyncio.all_tasks()):  # type: ignore[union-attr]
                break
            await asyncio.sleep(0)
        running.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await running
    records = [decode(path.read_bytes()) for path in (bench.state / "execution").glob("*.json")]
    assert [record["status"] for record in records] == ["interrupted"] * 3
